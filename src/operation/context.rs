//! What every verb works with: the configured targets and repositories, the ledger, the host. Assembled once, by
//! `agent/assemble.rs`; the verbs see only traits.

use crate::artifact::identity::Owner;
use crate::artifact::object_key;
use crate::artifact::signing::Keyring;
use crate::base::clock::Clock;
use crate::base::ids::TargetName;
use crate::base::lock::FileLock;
use crate::base::{Code, Error, Result};
use crate::driver::{Driver, OutsideFile};
use crate::host::{HostOps, Service};
use crate::ledger::Ledger;
use crate::operation::records;
use crate::pipeline::{Compression, ReadPolicy};
use crate::repository::catalog::Repository;
use crate::repository::store::Store;
use jiff::SignedDuration;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

/// Who this host is.
#[derive(Clone, Debug)]
pub struct HostIdentity {
    /// Its name.
    pub name: String,
    /// `/etc/machine-id`.
    pub machine_id: String,
}

/// Keys that are derived from passphrase files when they are first needed: reading the ledger needs none.
pub struct LazyKeyring {
    load: Box<dyn Fn() -> Result<Keyring> + Send + Sync>,
    loaded: OnceLock<Arc<Keyring>>,
}

impl LazyKeyring {
    /// A keyring that `load` makes.
    pub fn new(load: impl Fn() -> Result<Keyring> + Send + Sync + 'static) -> Self {
        LazyKeyring { load: Box::new(load), loaded: OnceLock::new() }
    }

    /// The keyring; a failure is not remembered, so that a mended file works at once.
    pub fn get(&self) -> Result<Arc<Keyring>> {
        if let Some(keyring) = self.loaded.get() {
            return Ok(keyring.clone());
        }
        let keyring = Arc::new((self.load)()?);
        Ok(self.loaded.get_or_init(|| keyring).clone())
    }
}

/// Where the passphrase of new backups comes from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum KeyFile {
    /// A file of this host, which a rotation replaces.
    File(PathBuf),
    /// A systemd credential: whoever provides it must replace it.
    Credential(PathBuf),
}

/// How long backups are kept, by count of days, weeks and months that have one, and by what the log needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetentionPolicy {
    /// Everything younger than this many days.
    pub days: Option<u32>,
    /// Newest backups of this many days.
    pub daily: u32,
    /// Newest backups of this many weeks.
    pub weekly: u32,
    /// Newest backups of this many months.
    pub monthly: u32,
    /// How far back every moment that the archived log can give stays restorable.
    pub point_in_time: SignedDuration,
    /// Verified backups that are never gone below.
    pub minimum_verified: u32,
}

/// When timers are to run, as systemd's `OnCalendar=` takes it; `None` = never by themselves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Schedule {
    /// Full backups.
    pub full: Option<String>,
    /// Incremental backups.
    pub incremental: Option<String>,
}

/// A configured database.
pub struct Target {
    /// Its name.
    pub name: TargetName,
    /// How to talk to it.
    pub driver: Arc<dyn Driver>,
    /// How it is stopped and started.
    pub service: Service,
    /// Names of its repositories; the first is read from first.
    pub repositories: Vec<String>,
    /// How its backups are compressed.
    pub compression: Compression,
    /// Whether its backups are encrypted, and with how many iterations.
    pub iterations: Option<u32>,
    /// Its keys.
    pub keyring: Arc<LazyKeyring>,
    /// Where the newest of them comes from.
    pub key_file: KeyFile,
    /// What is demanded of objects that are read.
    pub read_policy: ReadPolicy,
    /// How often its log is shipped between the timers; `None` = not.
    pub continuous: Option<Duration>,
    /// Free space that a backup must find, in percent.
    pub minimum_free_percent: u8,
    /// How long its backups are kept.
    pub retention: RetentionPolicy,
    /// When its backups are taken.
    pub schedule: Schedule,
}

/// A configured repository. It is opened when it is needed: one that cannot be reached must not stop the others.
pub struct RepositoryPlace {
    /// Its name.
    pub name: String,
    /// Opens the store; with `true` it is made if it is not there.
    #[allow(clippy::type_complexity)]
    pub open: Box<dyn Fn(bool) -> Result<Arc<dyn Store>> + Send + Sync>,
}

/// Everything a verb needs.
pub struct Context {
    /// The environment, part of every key.
    pub environment: String,
    /// Ledger, locks, journals.
    pub state_directory: PathBuf,
    /// This host.
    pub identity: HostIdentity,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// The ledger.
    pub ledger: Arc<Ledger>,
    /// Whatever changes the host.
    pub host: Arc<dyn HostOps>,
    /// The agent's own configuration files, kept in each backup's configuration archive.
    pub own_files: Vec<OutsideFile>,
    /// The targets.
    pub targets: BTreeMap<TargetName, Target>,
    /// The repositories.
    pub repositories: BTreeMap<String, RepositoryPlace>,
    /// Held as long as this value lives.
    pub state_lock: Arc<Mutex<StateLock>>,
}

/// How this process holds the state directory.
#[derive(Debug)]
pub enum StateLock {
    /// For itself: what looks like a leftover is one.
    Alone(FileLock),
    /// Beside others, whose work must not be taken for a leftover.
    Shared(FileLock),
    /// Between the two, or lost while changing.
    Gone,
}

/// The lanes of work of a target. Different lanes run side by side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// Full backups.
    Base,
    /// The log's archive.
    Log,
    /// Restores.
    Restore,
}

impl Lane {
    fn name(self) -> &'static str {
        match self {
            Lane::Base => "base",
            Lane::Log => "log",
            Lane::Restore => "restore",
        }
    }
}

fn foreign(text: String, target: &Target) -> Error {
    Error::new(Code::RepositoryForeign, text).with_hint(if_it_is_meant(target))
}

fn if_it_is_meant(target: &Target) -> String {
    format!(
        "check that the right disk or bucket is behind the path and mounted; if another one, or a new one, is meant: \
         `neo4j-backupctl adopt {} --new-repository`",
        target.name
    )
}

impl Context {
    /// The target, or `TARGET_UNKNOWN` with the names there are.
    pub fn target(&self, name: &TargetName) -> Result<&Target> {
        self.targets.get(name).ok_or_else(|| {
            let known: Vec<_> = self.targets.keys().map(TargetName::as_str).collect();
            Error::new(Code::TargetUnknown, format!("there is no target {name}; configured: {}", known.join(", ")))
        })
    }

    /// Opens one of a target's repositories to read. Another one than was found under its name before, or none, is
    /// `REPOSITORY_FOREIGN`: what is configured may be a mount point without its filesystem.
    pub fn repository(&self, target: &Target, name: &str) -> Result<Repository> {
        let store = (self.place(name)?.open)(false)?;
        let opened = Repository::open(name, store.clone(), target.keyring.get()?);
        match (opened, self.ledger.repository_id(name)?) {
            (Ok(repository), Some(known)) if known != repository.id() => {
                let (location, found) = (repository.store().location(), repository.id().to_owned());
                let text = format!("repository {name} at {location} has the id {found}, and had {known} before");
                Err(foreign(text, target))
            }
            // The place is there, and what was in it is not.
            (Err(error), Some(_))
                if error.code() == Code::RepositoryNotFound
                    && store.list(object_key::repository().as_str(), &mut |_| Ok(())).is_ok() =>
            {
                Err(foreign(format!("{}, and there was one before", error.message()), target))
            }
            (opened, _) => opened,
        }
    }

    /// Refusals for the rights that lack in the place of a repository, whether or not it is one already.
    pub fn missing_rights(&self, name: &str) -> Vec<Error> {
        let store = self.place(name).and_then(|place| (place.open)(false));
        store.map_or(Vec::new(), |store| store.missing_rights())
    }

    /// Opens one of a target's repositories to write; the first use makes it. Errors: as [`Context::repository`].
    pub fn repository_to_write(&self, target: &Target, name: &str) -> Result<Repository> {
        if let Err(error) = self.repository(target, name) {
            // A ledger of an older release knows backups, but no ids.
            let known = self.ledger.repository_id(name)?.is_some() || records::any_in(self, &target.name, name)?;
            if error.code() != Code::RepositoryNotFound {
                return Err(error);
            }
            if known {
                // A store that says more than that it is not there has said what to do.
                let told = error.hint() != error.code().hint();
                return Err(if told { error } else { error.with_hint(if_it_is_meant(target)) });
            }
        }
        self.repository_that_is_meant(target, name)
    }

    /// The same, whatever was found under its name before: an operator says that this is the one.
    pub fn repository_that_is_meant(&self, target: &Target, name: &str) -> Result<Repository> {
        let place = self.place(name)?;
        let repository = Repository::open_or_create(name, (place.open)(true)?, target.keyring.get()?, &*self.clock)?;
        match self.ledger.repository_id(name)? {
            Some(known) if known == repository.id() => {}
            // What is on record is that of the other one.
            Some(_) => self.ledger.replace_repository(name, repository.id())?,
            None => self.ledger.recognise_repository(name, repository.id())?,
        }
        Ok(repository)
    }

    fn place(&self, name: &str) -> Result<&RepositoryPlace> {
        self.repositories.get(name).ok_or_else(|| {
            Error::new(Code::ConfigInvalid, format!("there is no repository {name:?} in the configuration"))
        })
    }

    /// Takes a lane of a target, or says who has it (`BUSY`).
    pub fn lane(&self, target: &TargetName, lane: Lane) -> Result<FileLock> {
        let directory = self.state_directory.join("locks");
        let path = directory.join(format!("{target}.{}.lock", lane.name()));
        FileLock::exclusive(&path, &format!("the {} lane of {target}", lane.name()))
    }

    /// Says that a target's stored backups are being read, or asks that nobody reads them.
    pub fn reading(&self, target: &TargetName, exclusively: bool) -> Result<FileLock> {
        let path = self.state_directory.join("locks").join(format!("{target}.read.lock"));
        let what = format!("the stored backups of {target}");
        if exclusively { FileLock::exclusive(&path, &what) } else { FileLock::shared(&path, &what) }
    }

    /// A fresh private directory for one job's scratch files; removed when the value is dropped.
    pub fn workspace(&self, name: &str) -> Result<Workspace> {
        Workspace::new(&self.state_directory.join("scratch"), name)
    }

    /// The writer identity of this host for data of this identity.
    pub fn owner(&self, data_identity: &str, epoch: u64) -> Owner {
        Owner {
            host: self.identity.name.clone(),
            machine_id: self.identity.machine_id.clone(),
            data_identity: data_identity.to_owned(),
            epoch,
        }
    }
}

/// A private directory that is removed with its content.
#[derive(Debug)]
pub struct Workspace {
    path: PathBuf,
}

impl Workspace {
    fn new(parent: &Path, name: &str) -> Result<Self> {
        use std::os::unix::fs::DirBuilderExt;
        // A tool that runs as the database's user must be able to pass through to what it is given below.
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o711)
            .create(parent)
            .map_err(|c| Error::io("making", parent, c))?;
        let path = parent.join(format!("{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::DirBuilder::new().mode(0o700).create(&path).map_err(|c| Error::io("making", &path, c))?;
        Ok(Workspace { path })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Workspace {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.path);
    }
}
