//! Neo4j, Community and Enterprise: online bases copied from a running server's files, the archive of its transaction
//! log, and full backups by the official `neo4j-admin database dump` of a stopped server.
//!
//! - [`conf`], [`layout`], [`log`]: what files say: where the data lies, whose it is, its identity
//! - [`occupancy`]: whether a server uses it
//! - [`installation`]: versions and edition
//! - [`bolt`], [`census`]: what a running server says
//! - [`online`]: backup of a running server
//! - [`dump`], [`dump_shape`]: backup of a stopped one
//! - [`enterprise`]: artifacts of `neo4j-admin database backup`, and back
//! - [`restore`], with [`load`], [`tree_sink`], [`log_overlay`]: a dump or an online base brought back, log replayed on it
//! - [`private`]: directories that tools of the server's account work in
//! - [`scratch`], [`health`]: the private server that proves it
//! - [`doctor`]: what is wrong or weak

mod bolt;
mod census;
mod conf;
mod doctor;
mod dump;
mod dump_shape;
mod enterprise;
mod health;
mod heap;
mod installation;
mod layout;
mod load;
pub mod log;
mod log_overlay;
mod occupancy;
mod online;
mod private;
mod ready;
mod restore;
mod scratch;
mod tree_sink;
mod whereabouts;

use self::bolt::{Bolt, Cypher};
use self::conf::Conf;
use self::dump::{Admin, DumpBackup, DumpPlan};
use self::enterprise::Offered;
use self::installation::{Installed, Marks, Match};
use self::layout::{Layout, SYSTEM};
use self::log::{Neo4jLog, StoreId};
use self::online::OnlineBackup;
use self::restore::Neo4jRestore;
use super::log::{LogSource, RecoveryTarget, only_postgres};
use super::{Census, Driver, Finding, FullBackup, LivePath, OutsideFile, RestorePlace, RestoreSession, Source};
use crate::artifact::log_batch::LogMark;
use crate::artifact::manifest::{Engine, Manifest, ServerRecord};
use crate::artifact::statistics::Statistics;
use crate::base::clock::wait_until;
use crate::base::ids::BackupKind;
use crate::base::process::{Launcher, OsUser};
use crate::base::task::Task;
use crate::base::{Code, Error, Result};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// How long a stopped server's process may take to disappear, or a tool that a killed agent left at work.
const LOCK_TIMEOUT: Duration = Duration::from_secs(30);
/// How often that is looked at.
const LOCK_INTERVAL: Duration = Duration::from_millis(20);
/// How long a server that starts may take from opening its directory to opening a database, before its recovery.
const OPEN_TIMEOUT: Duration = Duration::from_secs(20);

/// Where a server's parts are and how to reach it.
#[derive(Clone, Debug)]
pub struct Neo4jDriverSettings {
    /// `NEO4J_HOME`: `/var/lib/neo4j`.
    pub home: PathBuf,
    /// The server's `neo4j.conf`; its directory is `NEO4J_CONF`.
    pub conf: PathBuf,
    /// `neo4j-admin`.
    pub admin: PathBuf,
    /// `neo4j`; run as `neo4j console` for scratch servers.
    pub server_command: PathBuf,
    /// `bolt://127.0.0.1:7687`; absent = counts are not checked.
    pub bolt: Option<String>,
    /// Login name; `neo4j` where absent.
    pub user: Option<String>,
    /// File with the password in its first line; absent = the server has authentication off.
    pub password_file: Option<PathBuf>,
    /// The database to back up; `system` goes with it.
    pub database: String,
    /// The kind of full backup that is made when nobody names one.
    pub full: BackupKind,
    /// Backup services of Enterprise, `host:port`; empty = that of the server's own configuration.
    pub backup_servers: Vec<String>,
    /// Where the artifacts of Enterprise are kept that differential ones follow; this target's alone.
    pub artifacts: PathBuf,
}

/// Backs up and restores one database of one Neo4j server.
pub struct Neo4jDriver {
    settings: Neo4jDriverSettings,
    launcher: Arc<dyn Launcher>,
    seen: Mutex<Seen>,
    log: Neo4jLog,
}

/// What was learnt from the running server or a slow tool, for the time when it is stopped.
#[derive(Default)]
struct Seen {
    server: Option<Installed>,
    admin_version: Option<(Marks, String)>,
    offered: Option<(Marks, Offered)>,
    census: Option<Census>,
}

impl Neo4jDriver {
    /// A driver for the server that `settings` describe; `launcher` runs the official tools.
    pub fn new(settings: Neo4jDriverSettings, launcher: Arc<dyn Launcher>) -> Self {
        // Neo4j's database names are case-insensitive, its directories in lower case.
        let database = settings.database.to_ascii_lowercase();
        let settings = Neo4jDriverSettings { database, ..settings };
        let (conf, home, database) = (settings.conf.clone(), settings.home.clone(), settings.database.clone());
        let log = Neo4jLog::new(move || Ok(Layout::of(&Conf::read(&conf, &home)?)?.logs(&database)));
        Neo4jDriver { settings, launcher, seen: Mutex::default(), log }
    }

    fn conf(&self) -> Result<Conf> {
        Conf::read(&self.settings.conf, &self.settings.home)
    }

    fn layout(&self) -> Result<Layout> {
        Layout::of(&self.conf()?)
    }

    fn seen(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn bolt(&self) -> Option<Bolt> {
        let uri = self.settings.bolt.clone()?;
        let user = self.settings.user.clone().unwrap_or_else(|| "neo4j".to_owned());
        Some(Bolt { uri, user, password_file: self.settings.password_file.clone() })
    }

    fn check_whereabouts(&self, layout: &Layout, task: &Task) -> Result<()> {
        whereabouts::check(layout, &self.databases(), &self.settings.home, self.bolt().as_ref(), task)
    }

    /// Enterprise has databases that are stopped while it runs: of those nothing is asked.
    fn check_open(&self, layout: &Layout, edition: &str, patience: Duration, task: &Task) -> Result<()> {
        if edition == "enterprise" {
            return Ok(());
        }
        whereabouts::check_open(layout, &self.settings.database, patience, task)
    }

    fn admin(&self, user: Option<OsUser>) -> Admin {
        Admin {
            program: self.settings.admin.clone(),
            home: self.settings.home.clone(),
            conf: self.settings.conf.clone(),
            user,
            launcher: self.launcher.clone(),
        }
    }

    /// Version and edition: of the running server, else of the installed jars, which may have been upgraded since it was seen
    /// running, else as it was seen then.
    fn server_version(&self, task: &Task) -> Installed {
        if let Some(bolt) = self.bolt()
            && let Ok(installed) = ask_version(&bolt, task)
        {
            self.seen().server = Some(installed.clone());
            return installed;
        }
        let settings = &self.settings;
        let installed = installation::of(&settings.home, &[&settings.server_command, &settings.admin]);
        if !installed.version.is_empty() {
            return installed;
        }
        self.seen().server.clone().unwrap_or(installed)
    }

    /// Version of `neo4j-admin`, asked once of an installation: it costs the start of a JVM, and the agent runs on while
    /// servers are upgraded.
    fn admin_version(&self, task: &Task) -> Result<String> {
        let settings = &self.settings;
        let marks = installation::marks(&settings.home, &settings.admin);
        if let Some((_, version)) = self.seen().admin_version.as_ref().filter(|(of, _)| *of == marks) {
            return Ok(version.clone());
        }
        let version = installation::admin_version(&settings.admin, &settings.conf, self.launcher.as_ref(), task)?;
        self.seen().admin_version = Some((marks, version.clone()));
        Ok(version)
    }

    /// What `neo4j-admin` can, asked once of an installation.
    fn offered(&self, task: &Task) -> Result<Offered> {
        let marks = installation::marks(&self.settings.home, &self.settings.admin);
        if let Some((_, offered)) = self.seen().offered.as_ref().filter(|(of, _)| *of == marks) {
            return Ok(*offered);
        }
        let offered = Offered::ask(&self.admin(None), self.launcher.as_ref(), task)?;
        self.seen().offered = Some((marks, offered));
        Ok(offered)
    }

    /// The store's identity. Error `NEO4J_UNSUPPORTED` when its logs have a form that is not known.
    fn store_id(&self, layout: &Layout) -> Result<StoreId> {
        let logs = layout.logs(&self.settings.database);
        log::store_id(&logs)?.ok_or_else(|| {
            Error::new(Code::Neo4jUnsupported, format!("found no store id that this version can read in {}", logs.display()))
                .with_hint("set `home` and `conf` to the server's own; if they are right, this release does not know the server's log format")
        })
    }

    /// Refuses a `neo4j-admin` of another release; a differing patch is worth a warning.
    fn check_versions(&self, admin: &str, server: &str) -> Result<Vec<String>> {
        let text = format!("{} is of version {admin}, the server of {server}", self.settings.admin.display());
        match installation::compare(admin, server) {
            Match::Same => Ok(Vec::new()),
            Match::Patch => Ok(vec![text]),
            Match::Different => Err(Error::new(Code::Neo4jAdminFailed, text)
                .with_hint("set `admin` of the target to the neo4j-admin of the server's own installation")),
        }
    }

    fn databases(&self) -> Vec<&str> {
        vec![self.settings.database.as_str(), SYSTEM]
    }

    /// The last census, if the closed store still stands where it was taken: its counts then hold for this moment.
    fn exact_statistics(&self, last_transaction: Option<u64>) -> Option<Statistics> {
        let mark = last_transaction?.to_string();
        let census = self.seen().census.clone()?;
        let counted = !census.statistics.counts.is_empty();
        (counted && census.mark.as_deref() == Some(mark.as_str())).then_some(Statistics {
            exact: true,
            remark: None,
            ..census.statistics
        })
    }

    /// Whether nobody uses the data. A process that was stopped just now may need a moment to let go of its locks.
    fn is_free_soon(&self, task: &Task) -> Result<bool> {
        if !self.is_running(task)? {
            return Ok(true);
        }
        task.phase("waiting until nobody uses the data", 0);
        let mut running = Ok(true);
        Ok(wait_until(LOCK_TIMEOUT, LOCK_INTERVAL, || {
            running = task.check().and_then(|()| self.is_running(task));
            !matches!(running, Ok(true))
        }) && !running?)
    }

    fn begin_dump(&self, task: &Task) -> Result<Box<dyn FullBackup>> {
        if !self.is_free_soon(task)? {
            return Err(Error::new(Code::Neo4jAdminFailed, "dumping: a server uses the data directory")
                .with_hint("a dump needs the server stopped; set `unit`, or `stop_command` and `start_command`"));
        }
        let layout = self.layout()?;
        let owner = layout.owner(&self.settings.database)?;
        let warnings = self.check_versions(&self.admin_version(task)?, &self.server_version(task).version)?;
        let closed = log::end_of_closed(&layout.logs(&self.settings.database))?;
        let last_transaction = closed.as_ref().map(|checkpoint| checkpoint.transaction);
        let databases = self.databases().into_iter().map(|name| Ok((name.to_owned(), layout.bytes(name)?)));
        let plan = DumpPlan {
            databases: databases.collect::<Result<_>>()?,
            end: closed.map(|checkpoint| checkpoint.mark()),
            statistics: self.exact_statistics(last_transaction),
            warnings,
        };
        Ok(Box::new(DumpBackup::new(self.admin(Some(owner)), plan)))
    }
}

fn ask_version(server: &dyn Cypher, task: &Task) -> Result<Installed> {
    let query = "CALL dbms.components() YIELD name, versions, edition WITH * WHERE name = 'Neo4j Kernel' \
                 RETURN versions[0] AS version, edition";
    let rows = server.read(SYSTEM, query, task)?.rows;
    let field = |name: &str| rows.first().and_then(|row| row.get(name)?.as_str()).map(str::to_owned);
    match (field("version"), field("edition")) {
        (Some(version), Some(edition)) => Ok(Installed { version, edition }),
        _ => Err(Error::new(Code::Neo4jUnsupported, "the server does not tell its version")),
    }
}

impl Driver for Neo4jDriver {
    fn engine(&self) -> Engine {
        Engine::Neo4j
    }

    fn inspect(&self, task: &Task) -> Result<Source> {
        let layout = self.layout()?;
        self.check_whereabouts(&layout, task)?;
        let owner = layout.owner(&self.settings.database)?;
        let store_id = self.store_id(&layout)?;
        let Installed { mut version, edition } = self.server_version(task);
        self.check_open(&layout, &edition, OPEN_TIMEOUT, task)?;
        if version.is_empty() {
            version = self.admin_version(task)?;
        }
        let mut server = ServerRecord { version, edition, ..ServerRecord::default() };
        server.facts.insert("store_format".to_owned(), store_id.format.clone());
        // Plugins are programs, not data: which ones they were is enough to get them again.
        server.facts.extend(installation::plugins(&self.conf()?.plugins()?)?);
        server.facts.insert("default_database".to_owned(), self.conf()?.default_database().to_owned());
        let estimated_bytes = self.databases().into_iter().map(|name| layout.bytes(name)).sum::<Result<u64>>()?;
        let database = self.settings.database.clone();
        Ok(Source { database, data_identity: store_id.identity(), server, owner, estimated_bytes })
    }

    fn is_running(&self, _task: &Task) -> Result<bool> {
        Ok(occupancy::is_locked(&self.layout()?, &self.databases())? || occupancy::has_process(&self.settings.home))
    }

    fn wait_ready(&self, timeout: Duration, task: &Task) -> Result<()> {
        ready::wait(self, timeout, task)
    }

    fn census(&self, task: &Task) -> Result<Census> {
        if !self.is_running(task)? {
            let logs = self.layout()?.logs(&self.settings.database);
            let mark = log::last_transaction_of_closed(&logs)?.map(|number| number.to_string());
            return Ok(Census {
                statistics: Statistics::not_checked("the server was stopped, nothing was counted"),
                mark,
            });
        }
        let Some(bolt) = self.bolt() else {
            let why = "bolt is not configured, nothing was counted: set `bolt` of the target";
            return Ok(Census { statistics: Statistics::not_checked(why), mark: None });
        };
        match census::take(&bolt, &self.settings.database, task) {
            Ok(census) => {
                self.seen().census = Some(census.clone());
                Ok(census)
            }
            Err(error) if error.code() == Code::Cancelled => Err(error),
            Err(error) => {
                let why = format!("the server could not be asked, nothing was counted: {}", error.message());
                Ok(Census { statistics: Statistics::not_checked(why), mark: None })
            }
        }
    }

    fn default_kind(&self) -> BackupKind {
        self.settings.full
    }

    fn needs_stop(&self, kind: BackupKind) -> bool {
        kind == BackupKind::Dump
    }

    fn check_tools(&self, kind: BackupKind, task: &Task) -> Result<()> {
        match kind {
            BackupKind::Dump if self.settings.full == BackupKind::Enterprise && self.is_running(task)? => {
                let text = "with `full = \"enterprise\"` no log is archived that a dump of the running server could be made of";
                Err(Error::new(Code::NotAvailable, text).with_hint("stop the server first, or set `full = \"online\"`"))
            }
            BackupKind::Dump => {
                self.check_versions(&self.admin_version(task)?, &self.server_version(task).version).map(drop)
            }
            BackupKind::Enterprise => self.check_enterprise(task).map(drop),
            _ => Ok(()),
        }
    }

    fn begin_full(&self, kind: BackupKind, workspace: &Path, task: &Task) -> Result<Box<dyn FullBackup>> {
        match kind {
            BackupKind::Base => {
                let layout = self.layout()?;
                Ok(Box::new(OnlineBackup::begin(&layout, &self.databases(), workspace, task)?))
            }
            BackupKind::Dump => self.begin_dump(task),
            BackupKind::Enterprise => self.begin_enterprise(workspace, task),
            other => Err(Error::new(
                Code::NotAvailable,
                format!("a full backup of kind {other} is not available for Neo4j in this version"),
            )
            .with_hint("set `full = \"online\"` or `full = \"dump\"` of the target, or give `--type dump`")),
        }
    }

    fn begin_dump_of_copy(&self, copy: &RestorePlace, end: &LogMark, task: &Task) -> Result<Box<dyn FullBackup>> {
        let warnings = self.check_versions(&self.admin_version(task)?, &self.server_version(task).version)?;
        let layout = Layout::below(&copy.directory);
        let there = self.databases().into_iter().filter(|name| layout.store(name).is_dir());
        let databases = there.map(|name| Ok((name.to_owned(), layout.bytes(name)?))).collect::<Result<_>>()?;
        let conf = scratch::write_configuration(copy, &self.settings.database, None)?;
        let why = "the dump was made of a private copy, whose nodes and relationships were not counted";
        let plan =
            DumpPlan { databases, end: Some(end.clone()), statistics: Some(Statistics::not_checked(why)), warnings };
        Ok(Box::new(DumpBackup::new(Admin { conf, ..self.admin(copy.owner.clone()) }, plan)))
    }

    fn outside_files(&self, _task: &Task) -> Result<Vec<OutsideFile>> {
        let directory = installation::configuration_directory(&self.settings.conf);
        let mut files = Vec::new();
        collect_files(&directory, Path::new("conf"), &mut files)?;
        Ok(files)
    }

    fn check_in_place(&self, task: &Task) -> Result<()> {
        self.check_whereabouts(&self.layout()?, task)
    }

    fn live_paths(&self, _task: &Task) -> Result<Vec<LivePath>> {
        let layout = self.layout()?;
        let of = |name: &str| {
            let path = |tree: &str, live: PathBuf| LivePath { staged: Path::new(tree).join(name), live };
            [path("databases", layout.store(name)), path("transactions", layout.logs(name))]
        };
        Ok(self.databases().into_iter().flat_map(of).collect())
    }

    fn begin_restore(&self, manifest: &Manifest, place: &RestorePlace, task: &Task) -> Result<Box<dyn RestoreSession>> {
        if manifest.engine != Engine::Neo4j {
            let text = format!("{} is a backup of {}, not of Neo4j", manifest.id, manifest.engine.as_str());
            return Err(Error::new(Code::Neo4jUnsupported, text));
        }
        if !matches!(manifest.id.kind, BackupKind::Dump | BackupKind::Base | BackupKind::Enterprise) {
            let text =
                format!("restoring a backup of kind {} is not available for Neo4j in this version", manifest.id.kind);
            return Err(Error::new(Code::NotAvailable, text));
        }
        self.check_readable(manifest, task)?;
        let has_restore = manifest.id.kind == BackupKind::Enterprise && self.offered(task)?.restore;
        let server_command = self.settings.server_command.clone();
        let session = Neo4jRestore::begin(self.admin(None), server_command, manifest, place, has_restore)?;
        Ok(Box::new(session))
    }

    fn log(&self) -> Option<&dyn LogSource> {
        match self.settings.full {
            BackupKind::Enterprise => Some(self),
            _ => Some(&self.log),
        }
    }

    fn check_target(&self, until: RecoveryTarget) -> Result<()> {
        match until {
            RecoveryTarget::Time(_) if self.settings.full == BackupKind::Enterprise => Err(enterprise::no_times()),
            _ => only_postgres(Engine::Neo4j, until).map_or(Ok(()), Err),
        }
    }

    fn doctor(&self, task: &Task) -> Vec<Finding> {
        doctor::examine(self, task)
    }
}

impl Neo4jDriver {
    /// An older server cannot open a newer server's store; a newer one migrates an older store.
    fn check_readable(&self, manifest: &Manifest, task: &Task) -> Result<()> {
        let here = self.admin_version(task)?;
        let release =
            |version: &str| -> Vec<u32> { version.split('.').take(2).filter_map(|part| part.parse().ok()).collect() };
        if release(&manifest.server.version) <= release(&here) {
            return Ok(());
        }
        let text = format!("the backup was made of Neo4j {}, here is {here}", manifest.server.version);
        Err(Error::new(Code::Neo4jUnsupported, text)
            .with_hint("restore with the backup's own version of Neo4j or a later one"))
    }
}

fn collect_files(directory: &Path, archive: &Path, files: &mut Vec<OutsideFile>) -> Result<()> {
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(cause) => return Err(Error::io("listing", directory, cause)),
    };
    for entry in entries {
        let entry = entry.map_err(|cause| Error::io("listing", directory, cause))?;
        let (path, name) = (entry.path(), archive.join(entry.file_name()));
        // Packages link single files; a linked directory could lead anywhere.
        let is_link = entry.file_type().is_ok_and(|kind| kind.is_symlink());
        if path.is_file() {
            let archive_name = name.to_string_lossy().into_owned();
            files.push(OutsideFile { path, archive_name });
        } else if path.is_dir() && !is_link {
            collect_files(&path, &name, files)?;
        }
    }
    files.sort_by(|a, b| a.archive_name.cmp(&b.archive_name));
    Ok(())
}
