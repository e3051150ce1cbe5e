//! Turns settings into the concrete parts: the only place that names drivers and stores.

use super::context_workshop::Assembled;
use super::workshop::Workshop;
use crate::artifact::signing::{Key, Keyring};
use crate::base::clock::{Clock, SystemClock};
use crate::base::ids::{BackupKind, TargetName};
use crate::base::lock::FileLock;
use crate::base::process::{Launcher, LocalLauncher};
use crate::base::secret::read_passphrase;
use crate::base::task::{Cancel, Observer, Progress, Severity, Task};
use crate::base::{Code, Error, Result};
use crate::config::settings::{
    CompressionAlgorithm, CompressionSettings, DatabaseSettings, EncryptionMethod, EncryptionSettings, Neo4jFull,
    Neo4jSettings, PostgresFull, PostgresSettings, RepositorySettings, RequestChecksums, S3Settings, SecretSource,
    ServerSideEncryption, ServiceSettings, Settings, SpoolFull, TargetSettings,
};
use crate::config::{Loaded, Sources};
use crate::driver::neo4j::{Neo4jDriver, Neo4jDriverSettings};
use crate::driver::postgres::{DumpFormat, PostgresDriver, PostgresDriverSettings};
use crate::driver::sim::SimDriver;
use crate::driver::{Driver, OutsideFile};
use crate::host::Service;
use crate::host::local::LocalHost;
use crate::ledger::Ledger;
use crate::operation::context::{
    Context, HostIdentity, KeyFile, LazyKeyring, RepositoryPlace, RetentionPolicy, Schedule, StateLock, Target,
};
use crate::operation::recover;
use crate::pipeline::{Compression, ReadPolicy};
use crate::repository::local::LocalStore;
use crate::repository::s3::{Checksums, Encryption, S3Store, S3StoreSettings};
use crate::repository::store::Store;
use crate::telemetry::record::{Occasion, Record};
use jiff::SignedDuration;
use std::collections::BTreeMap;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

/// What the assembled agent is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The agent on the bus: has the state directory for itself.
    Serve,
    /// One operation in the foreground: shares the state directory with others of its sort, not with the agent.
    Run,
}

/// Directories below the state directory that always exist.
const STATE_DIRECTORIES: [&str; 8] =
    ["locks", "host", "staging", "unfinished", "scratch", "processes", "spool", UPLOADS];
/// Where begun uploads to buckets are on record.
const UPLOADS: &str = "uploads";
/// zstd's own threads in one lane: two keep two cores busy.
const ZSTD_WORKERS: u32 = 2;

/// Loads the configuration and opens everything. Errors: `CONFIG_INVALID`, `BUSY` while the agent (or, for `Serve`,
/// any other process) has the state directory, `LEDGER_*`.
pub fn assemble(config: &Path, role: Role) -> Result<Arc<Context>> {
    assemble_at(config, role, Arc::new(SystemClock))
}

/// [`assemble`] by another clock.
pub fn assemble_at(config: &Path, role: Role, clock: Arc<dyn Clock>) -> Result<Arc<Context>> {
    let loaded = crate::config::load(&Sources::of_file(config))?;
    from_settings(loaded, own_files(config), role, clock)
}

/// The driver of one target, for what needs neither ledger nor keys nor the state directory's lock.
pub fn driver(config: &Path, target: &TargetName) -> Result<Arc<dyn Driver>> {
    let settings = crate::config::load(&Sources::of_file(config))?.settings;
    let known = settings.targets.get(target).ok_or_else(|| {
        Error::new(Code::TargetUnknown, format!("there is no target {target} in {}", config.display()))
    })?;
    let launcher: Arc<dyn Launcher> = Arc::new(launcher_of(&settings.state_directory));
    Ok(self::target(known, &settings.state_directory, &launcher)?.driver)
}

fn from_settings(
    loaded: Loaded,
    own_files: Vec<OutsideFile>,
    role: Role,
    clock: Arc<dyn Clock>,
) -> Result<Arc<Context>> {
    let state = loaded.settings.state_directory.clone();
    make_private(&state)?;
    let state_lock = Arc::new(Mutex::new(lock_state(&state, role)?));
    for name in STATE_DIRECTORIES {
        make_private(&state.join(name))?;
    }
    let ledger = Arc::new(Ledger::open(&state.join("ledger.db"), clock.clone())?);
    context(loaded.settings, own_files, Lasting { clock, ledger, state_lock })
}

/// The same process with its configuration as it is now. `CONFIG_INVALID` if it is wrong, or names another state directory.
pub(super) fn renewed(old: &Context, config: &Path) -> Result<Arc<Context>> {
    let settings = crate::config::load(&Sources::of_file(config))?.settings;
    if settings.state_directory != old.state_directory {
        let (now, then) = (settings.state_directory.display(), old.state_directory.display());
        let text = format!("state_directory is {now}, and the agent that runs has its ledger and locks in {then}");
        return Err(Error::new(Code::ConfigInvalid, text)
            .with_hint("`systemctl restart neo4j-backupd` takes another state directory"));
    }
    let (clock, ledger, state_lock) = (old.clock.clone(), old.ledger.clone(), old.state_lock.clone());
    context(settings, own_files(config), Lasting { clock, ledger, state_lock })
}

/// What stays when the configuration changes.
struct Lasting {
    clock: Arc<dyn Clock>,
    ledger: Arc<Ledger>,
    state_lock: Arc<Mutex<StateLock>>,
}

fn context(settings: Settings, own_files: Vec<OutsideFile>, lasting: Lasting) -> Result<Arc<Context>> {
    let Lasting { clock, ledger, state_lock } = lasting;
    let state = settings.state_directory.clone();
    let launcher: Arc<dyn Launcher> = Arc::new(launcher_of(&state));
    let targets =
        settings.targets.iter().map(|(name, target)| Ok((name.clone(), self::target(target, &state, &launcher)?)));
    let identity = host_identity()?;
    let context = Context {
        environment: settings.environment.clone(),
        host: Arc::new(LocalHost::new(state.clone(), launcher.clone())),
        targets: targets.collect::<Result<BTreeMap<TargetName, Target>>>()?,
        repositories: repositories(&settings, &identity.name),
        identity,
        state_directory: state,
        clock,
        ledger,
        own_files,
        state_lock,
    };
    Ok(Arc::new(context))
}

/// After a start: settles whatever a killed agent left, and returns a line for everything that was found. Beside other
/// processes nothing is done: what looks like a leftover may be their work. A `run` shares the state directory from
/// then on.
pub fn recover(context: &Context, role: Role, task: &Task) -> Result<Vec<String>> {
    let mut lock = context.state_lock.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    if !matches!(*lock, StateLock::Alone(_)) {
        return Ok(Vec::new());
    }
    let lines = recover::run(context, &launcher_of(&context.state_directory), task);
    if role == Role::Run
        && let StateLock::Alone(alone) = std::mem::replace(&mut *lock, StateLock::Gone)
    {
        *lock = StateLock::Shared(alone.share()?);
    }
    lines
}

fn launcher_of(state: &Path) -> LocalLauncher {
    LocalLauncher::with_registry(state.join("processes"))
}

fn lock_state(state: &Path, role: Role) -> Result<StateLock> {
    let path = state.join("lock");
    let what = format!("the state directory {}", state.display());
    match (FileLock::exclusive(&path, &what), role) {
        (Ok(lock), _) => Ok(StateLock::Alone(lock)),
        (Err(error), Role::Run) if error.code() == Code::Busy => {
            let shared = FileLock::shared(&path, &what).map_err(|error| {
                error.with_hint("the agent is running: leave out `--direct` and use the bus, or stop the agent first")
            });
            shared.map(StateLock::Shared)
        }
        (Err(error), _) if error.code() != Code::Busy => Err(error),
        (Err(error), _) => Err(error.with_hint("another neo4j-backupd has it; `systemctl status neo4j-backupd`")),
    }
}

fn make_private(directory: &Path) -> Result<()> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o711)
        .create(directory)
        .map_err(|cause| Error::io("making", directory, cause))
}

fn host_identity() -> Result<HostIdentity> {
    let name = nix::unistd::gethostname().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let path = Path::new("/etc/machine-id");
    let machine_id = std::fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    if machine_id.is_empty() {
        return Err(Error::new(Code::ConfigInvalid, format!("{} is missing or empty", path.display()))
            .with_hint("`systemd-machine-id-setup` makes one; it tells this host's backups from a clone's"));
    }
    Ok(HostIdentity { name, machine_id })
}

/// The agent's own configuration, for the configuration archive. Secrets are in files of their own and stay out.
fn own_files(config: &Path) -> Vec<OutsideFile> {
    let mut files = vec![config.to_owned()];
    files.extend(crate::config::fragments_beside(config));
    let named = |path: PathBuf| {
        let name = path.file_name()?.to_str()?.to_owned();
        Some(OutsideFile { archive_name: format!("neo4j-backup/{name}"), path })
    };
    files.into_iter().filter_map(named).collect()
}

/// How a place is opened: [`RepositoryPlace::open`].
type Open = Box<dyn Fn(bool) -> Result<Arc<dyn Store>> + Send + Sync>;

fn repositories(settings: &Settings, hostname: &str) -> BTreeMap<String, RepositoryPlace> {
    let place = |(name, repository): (&String, &RepositorySettings)| {
        let open = match repository {
            RepositorySettings::Local { path } => local(path.clone()),
            RepositorySettings::S3(s3) => bucket(s3, settings.state_directory.join(UPLOADS), hostname),
        };
        (name.clone(), RepositoryPlace { name: name.clone(), open })
    };
    settings.repositories.iter().map(place).collect()
}

fn local(path: PathBuf) -> Open {
    Box::new(move |make| match make && !path.exists() {
        true => Ok(Arc::new(LocalStore::create(path.clone())?)),
        false => Ok(Arc::new(LocalStore::open(path.clone())?)),
    })
}

/// One store for the life of the agent: it keeps connections and credentials, and asks for nothing before it is used.
fn bucket(settings: &S3Settings, uploads: PathBuf, hostname: &str) -> Open {
    let store: Arc<dyn Store> = Arc::new(S3Store::new(S3StoreSettings {
        bucket: settings.bucket.clone(),
        prefix: settings.prefix.clone(),
        region: settings.region.clone(),
        endpoint: settings.endpoint.clone(),
        path_style: settings.path_style,
        allow_http: settings.allow_http,
        encryption: match settings.sse {
            ServerSideEncryption::None => Encryption::None,
            ServerSideEncryption::S3 => Encryption::S3,
            ServerSideEncryption::Kms => Encryption::Kms(settings.kms_key_id.clone()),
        },
        checksums: match settings.checksums {
            RequestChecksums::WhenRequired => Checksums::WhenRequired,
            RequestChecksums::WhenSupported => Checksums::WhenSupported,
        },
        uploads,
        hostname: hostname.to_owned(),
    }));
    Box::new(move |_| Ok(store.clone()))
}

fn target(settings: &TargetSettings, state: &Path, launcher: &Arc<dyn Launcher>) -> Result<Target> {
    let (driver, service): (Arc<dyn Driver>, Service) = match &settings.database {
        DatabaseSettings::Neo4j(neo4j) => (
            Arc::new(Neo4jDriver::new(neo4j_settings(settings, neo4j, state), launcher.clone())),
            service(&neo4j.service),
        ),
        DatabaseSettings::Postgresql(postgres) => {
            let settings = postgres_settings(settings, postgres, state);
            (Arc::new(PostgresDriver::new(settings, launcher.clone())), service(&postgres.service))
        }
        DatabaseSettings::Sim(sim) => {
            let driver = SimDriver::new(sim.directory.clone());
            let service = driver.service_commands();
            (Arc::new(driver), Service::Commands { stop: service.0, start: service.1 })
        }
    };
    let encryption = settings.encryption.clone();
    let plain = encryption.method == EncryptionMethod::None;
    let minimum_iterations = if encryption.allow_low_iterations { 1 } else { ReadPolicy::default().minimum_iterations };
    Ok(Target {
        name: settings.name.clone(),
        driver,
        service,
        repositories: settings.repositories.clone(),
        compression: compression(&settings.compression),
        iterations: (!plain).then_some(encryption.iterations),
        read_policy: ReadPolicy { minimum_iterations, allow_plain: plain },
        key_file: match key_source(&encryption) {
            Ok(SecretSource::File(path)) => KeyFile::File(path.clone()),
            Ok(SecretSource::Credential(path)) => KeyFile::Credential(path.clone()),
            // Said when the key is needed.
            Err(_) => KeyFile::File(encryption.passphrase.path().clone()),
        },
        keyring: Arc::new(LazyKeyring::new(move || keyring(&encryption))),
        continuous: match &settings.database {
            DatabaseSettings::Neo4j(neo4j) => neo4j.continuous,
            DatabaseSettings::Sim(sim) => sim.continuous,
            DatabaseSettings::Postgresql(postgres) => postgres.continuous,
        },
        minimum_free_percent: settings.preflight.minimum_free_percent,
        retention: RetentionPolicy {
            days: settings.retention.days,
            daily: settings.retention.daily,
            weekly: settings.retention.weekly,
            monthly: settings.retention.monthly,
            point_in_time: settings.retention.point_in_time.try_into().unwrap_or(SignedDuration::MAX),
            minimum_verified: settings.retention.minimum_verified,
        },
        schedule: Schedule { full: settings.schedule.full.clone(), incremental: settings.schedule.incremental.clone() },
    })
}

fn key_source(settings: &EncryptionSettings) -> Result<&SecretSource> {
    match (settings.method, &settings.signing_file) {
        (EncryptionMethod::None, Some(file)) => Ok(file),
        (EncryptionMethod::None, None) => {
            Err(Error::new(Code::ConfigInvalid, "encryption is off and there is no signing_file")
                .with_hint("set `signing_file` in `[encryption]`: backups are signed even when they are not encrypted"))
        }
        _ => Ok(&settings.passphrase),
    }
}

fn keyring(settings: &EncryptionSettings) -> Result<Keyring> {
    let source = key_source(settings)?;
    let older: Result<Vec<Key>> = settings.older.iter().map(|path| key_of(path)).collect();
    Ok(Keyring::new(key_of(source.path())?, older?))
}

fn key_of(path: &Path) -> Result<Key> {
    Key::derive(read_passphrase(path)?, &path.display().to_string())
}

fn compression(settings: &CompressionSettings) -> Compression {
    match settings.algorithm {
        CompressionAlgorithm::Gzip => Compression::Gzip(settings.level),
        CompressionAlgorithm::None => Compression::None,
        CompressionAlgorithm::Zstd => Compression::Zstd { level: settings.level as i32, workers: ZSTD_WORKERS },
    }
}

fn service(settings: &ServiceSettings) -> Service {
    match settings {
        ServiceSettings::Unit(unit) => Service::Unit(unit.clone()),
        ServiceSettings::Commands { stop, start } => Service::Commands { stop: stop.clone(), start: start.clone() },
        ServiceSettings::Unmanaged => Service::Unmanaged,
    }
}

fn neo4j_settings(target: &TargetSettings, settings: &Neo4jSettings, state: &Path) -> Neo4jDriverSettings {
    Neo4jDriverSettings {
        home: settings.home.clone(),
        conf: settings.conf.clone(),
        admin: settings.admin.clone(),
        server_command: settings.server_command.clone().unwrap_or_else(|| settings.home.join("bin/neo4j")),
        bolt: settings.bolt.clone(),
        user: settings.user.clone(),
        password_file: settings.password_file.clone(),
        database: settings.database.clone(),
        full: match settings.full {
            Neo4jFull::Online => BackupKind::Base,
            Neo4jFull::Dump => BackupKind::Dump,
            Neo4jFull::Export => BackupKind::Export,
            Neo4jFull::Enterprise => BackupKind::Enterprise,
        },
        backup_servers: settings.backup_servers.clone(),
        artifacts: state.join("artifacts").join(target.name.as_str()),
    }
}

fn postgres_settings(target: &TargetSettings, settings: &PostgresSettings, state: &Path) -> PostgresDriverSettings {
    PostgresDriverSettings {
        data_directory: settings.data_directory.clone(),
        bin_directory: settings.bin_directory.clone(),
        host: settings.host.clone(),
        port: settings.port,
        user: settings.user.clone(),
        databases: settings.databases.clone(),
        password_file: None,
        config_directory: settings.config_directory.clone(),
        full: match settings.full {
            PostgresFull::Base => BackupKind::Base,
            PostgresFull::Dump => BackupKind::Dump,
        },
        dump_format: if settings.plain_dumps { DumpFormat::Plain } else { DumpFormat::Custom },
        lanes: None,
        target: target.name.to_string(),
        spool: state.join("spool").join(target.name.as_str()),
        spool_limit: target.limits.spool,
        spool_drop: target.limits.spool_full == SpoolFull::Drop,
        by_slot: settings.wal_by_slot,
    }
}

/// The agent's parts, recovered and ready to work: what `serve`, `run` and `--direct` begin with. What recovery found
/// goes to the journal.
pub fn workshop(config: &Path, role: Role) -> Result<Arc<dyn Workshop>> {
    let context = assemble(config, role)?;
    for line in recover(&context, role, &Task::new(Arc::new(Journal), Cancel::default()))? {
        Record::new(Occasion::AgentRecovered, &line).emit();
    }
    Ok(Arc::new(Assembled { context, config: config.to_owned() }))
}

/// Recovery belongs to no job; what it has to say goes to the journal.
struct Journal;

impl Observer for Journal {
    fn event(&self, severity: Severity, text: &str) {
        match severity {
            Severity::Info => tracing::info!("{text}"),
            Severity::Warning => tracing::warn!("{text}"),
            Severity::Error => tracing::error!("{text}"),
        }
    }

    fn progress(&self, _: &Progress) {}
}
