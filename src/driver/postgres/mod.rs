//! PostgreSQL, with or without TimescaleDB.
//!
//! - `connection`: SQL connections, bounded in time; `tools`: PostgreSQL's own programs
//! - `inspection`, `control_file`, `postmaster`: what there is, and whether a server uses it
//! - `census`: rows and schema; `outside_files`: what lies outside the data directory
//! - `online`: the full backup, read from the data directory; `base_backup`: by `pg_basebackup`, where that cannot be
//! - `dump`: logical full backups, and their way back; `client_tool`: how client programs log in
//! - `wal`: the log between full backups; `marked`: where it goes on after one
//! - `restore`, `scratch`, `checks`: unpacking, a private server on the result, and what it is asked
//! - `standby`: a restored directory that follows a primary
//! - `delta`: a restore over an older copy
//! - `tablespaces`: where they were, and where a restore puts them
//! - `grants`, `doctor`: what is missing, with the statement that mends it; `setup`, `admission`: mending it

mod admission;
mod base_backup;
mod census;
mod checks;
mod client_tool;
mod connection;
mod control_file;
mod delta;
mod doctor;
mod dump;
mod grants;
mod inspection;
mod marked;
mod online;
mod outside_files;
mod postmaster;
mod restore;
mod scratch;
mod setup;
mod standby;
mod tablespaces;
mod tools;
mod wal;

use super::log::{LogInbox, LogOutbox, LogSearch, LogSource, RecoveryTarget};
use super::restore_options::{RestoreOptions, Standby};
use super::setup::SetupStep;
use super::{Branch, Census, Driver, Finding, FullBackup, LivePath, OutsideFile, RestorePlace, RestoreSession, Source};
use crate::artifact::log_batch::LogMark;
use crate::artifact::manifest::{Engine, Manifest};
use crate::base::clock::wait_until;
use crate::base::ids::BackupKind;
use crate::base::process::Launcher;
use crate::base::task::Task;
use crate::base::{Code, Error, Result};
use connection::{Address, CATALOG_TIMEOUT, CONNECT_TIMEOUT, TALK_TIMEOUT};
pub use dump::DumpFormat;
use online::Outlook;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tools::Tools;
use wal::source::PostgresLog;
use wal::spool::Spool;

/// How often a server that is starting is asked again.
const READY_INTERVAL: Duration = Duration::from_millis(200);

/// Everything there is to say about one cluster.
#[derive(Clone, Debug)]
pub struct PostgresDriverSettings {
    /// The data directory in service.
    pub data_directory: PathBuf,
    /// Where PostgreSQL's own programs are: `/usr/lib/postgresql/15/bin`.
    pub bin_directory: PathBuf,
    /// A directory of unix sockets (begins with `/`), or a host name.
    pub host: String,
    /// Port; part of the socket's name too.
    pub port: u16,
    /// Role to connect as.
    pub user: String,
    /// Databases to dump, to count and to compare after a restore; empty = all. A base backup holds all of them in any case.
    pub databases: Vec<String>,
    /// A file whose first line is the role's password; `None` = peer or trust authentication.
    pub password_file: Option<PathBuf>,
    /// Where configuration lies outside the data directory: `/etc/postgresql/15/main`.
    pub config_directory: Option<PathBuf>,
    /// The kind of full backup to make by default.
    pub full: BackupKind,
    /// How a logical dump writes each database.
    pub dump_format: DumpFormat,
    /// How many lanes a base is read in; `None` = by its size.
    pub lanes: Option<u32>,
    /// The target's name, as `archive_command` has it.
    pub target: String,
    /// Where what the server archives waits until every repository has it.
    pub spool: PathBuf,
    /// Most bytes there.
    pub spool_limit: u64,
    /// Whether what finds no room there is given up instead of refused.
    pub spool_drop: bool,
    /// Whether a replication slot holds the log for the spool, and not `archive_command` hands it over.
    pub by_slot: bool,
}

/// A PostgreSQL cluster.
///
/// Connections are synchronous: call it from threads that run no asynchronous tasks.
pub struct PostgresDriver {
    settings: PostgresDriverSettings,
    address: Address,
    tools: Tools,
    log: PostgresLog,
}

impl PostgresDriver {
    /// A driver for the cluster that `settings` describe; its programs are run by `launcher`.
    pub fn new(settings: PostgresDriverSettings, launcher: Arc<dyn Launcher>) -> Self {
        let address = Address {
            host: settings.host.clone(),
            port: settings.port,
            user: settings.user.clone(),
            password_file: settings.password_file.clone(),
            preferred: settings.databases.clone(),
        };
        let tools = Tools { bin_directory: settings.bin_directory.clone(), launcher };
        let spool = Spool::new(settings.spool.clone(), settings.spool_limit, settings.spool_drop);
        let (target, data_directory) = (settings.target.clone(), settings.data_directory.clone());
        let log = PostgresLog::new(target, data_directory, address.clone(), spool, settings.by_slot);
        PostgresDriver { settings, address, tools, log }
    }

    /// Nothing could be restored from the log of a target that takes logical dumps only.
    fn has_log(&self) -> bool {
        self.settings.full == BackupKind::Base
    }
}

impl Driver for PostgresDriver {
    fn engine(&self) -> Engine {
        Engine::Postgresql
    }

    fn inspect(&self, task: &Task) -> Result<Source> {
        inspection::inspect(&self.settings, &self.address, &self.tools, task)
    }

    fn is_running(&self, _task: &Task) -> Result<bool> {
        postmaster::is_running(&self.settings.data_directory)
    }

    fn wait_ready(&self, timeout: Duration, task: &Task) -> Result<()> {
        let mut last = Ok(());
        wait_until(timeout, READY_INTERVAL, || {
            let address = self.address.clone();
            let hello = move || address.connect_any(CATALOG_TIMEOUT).map(|_| ());
            last = connection::within(CONNECT_TIMEOUT, "connecting", task, hello);
            last.is_ok() || task.cancel().is_cancelled()
        });
        task.check()?;
        last.map_err(|cause| cause.context(format!("waiting {} s for the server", timeout.as_secs())))
    }

    fn census(&self, task: &Task) -> Result<Census> {
        census::take(&self.address, &census::Scope::of(&self.settings.databases), task)
    }

    fn schema(&self, task: &Task) -> Result<BTreeSet<String>> {
        let scope = census::Scope { limit_bytes: 0, ..census::Scope::of(&self.settings.databases) };
        Ok(census::take(&self.address, &scope, task)?.statistics.schema)
    }

    fn census_mark(&self, task: &Task) -> Result<Option<String>> {
        census::mark(&self.address, &self.settings.databases, task)
    }

    fn default_kind(&self) -> BackupKind {
        self.settings.full
    }

    fn needs_stop(&self, _kind: BackupKind) -> bool {
        false
    }

    fn counts_by_itself(&self, kind: BackupKind) -> bool {
        kind == BackupKind::Dump
    }

    fn check_tools(&self, kind: BackupKind, task: &Task) -> Result<()> {
        match kind {
            BackupKind::Dump => dump::check_tools(&self.address, &self.tools, task),
            _ => Ok(()),
        }
    }

    fn begin_full(&self, kind: BackupKind, workspace: &Path, task: &Task) -> Result<Box<dyn FullBackup>> {
        if kind == BackupKind::Dump {
            return dump::begin(&self.settings, &self.address, &self.tools, workspace, task);
        }
        if kind != BackupKind::Base {
            return Err(Error::new(
                Code::NotAvailable,
                format!("a backup of kind {} cannot be made of PostgreSQL yet", kind.as_str()),
            )
            .with_hint("set `full = \"base\"` or `\"dump\"` in the target's section, or leave out `--type`"));
        }
        let address = self.address.clone();
        let size = connection::within(TALK_TIMEOUT, "asking for the size of segments", task, move || {
            inspection::setting(&mut address.connect_any(CATALOG_TIMEOUT)?, "wal_segment_size")
        })?;
        let size = size.and_then(|text| text.parse().ok()).unwrap_or(0);
        // From before the base on, so that nothing is missing between its end and the first increment.
        if let Err(cause) = self.log.reserve(task) {
            task.check()?;
            task.warn(format!("the log after this backup is not held for the archive: {}", cause.message()));
        }
        let weaknesses = base_backup::weaknesses(&self.address, &self.settings.databases, task)?;
        let full = match online::prepare(&self.settings, &self.address, task)? {
            Outlook::Ready(ready) => online::begin(*ready, self.settings.lanes, weaknesses, task)?,
            Outlook::Unfit(why) => {
                task.info(format!("read by pg_basebackup, not from the data directory: {why}"));
                base_backup::begin(&self.settings, &self.address, &self.tools, weaknesses, workspace, task)?
            }
        };
        Ok(Box::new(marked::MarkedBase::new(full, size)))
    }

    fn outside_files(&self, task: &Task) -> Result<Vec<OutsideFile>> {
        outside_files::list(&self.settings, &self.address, task)
    }

    fn live_paths(&self, _task: &Task) -> Result<Vec<LivePath>> {
        Ok(vec![LivePath { staged: PathBuf::new(), live: self.settings.data_directory.clone() }])
    }

    fn begin_restore(&self, manifest: &Manifest, place: &RestorePlace, task: &Task) -> Result<Box<dyn RestoreSession>> {
        match manifest.id.kind {
            BackupKind::Dump => dump::load::begin(&self.settings, &self.tools, manifest, place, task),
            _ => restore::begin(&self.settings, &self.tools, &self.log, manifest, place, task),
        }
    }

    fn check_restore(&self, manifest: &Manifest, in_place: bool, options: &RestoreOptions) -> Result<()> {
        if manifest.id.kind == BackupKind::Dump { dump::load::check(manifest, in_place, options) } else { Ok(()) }
    }

    fn log(&self) -> Option<&dyn LogSource> {
        self.has_log().then_some(&self.log as &dyn LogSource)
    }

    fn why_no_log(&self) -> String {
        "the log goes on from base backups, and `full = \"dump\"` takes none".to_owned()
    }

    fn log_inbox(&self) -> Option<&dyn LogInbox> {
        self.has_log().then_some(&self.log as &dyn LogInbox)
    }

    fn log_outbox(&self) -> Option<&dyn LogOutbox> {
        self.has_log().then_some(&self.log as &dyn LogOutbox)
    }

    fn check_target(&self, until: RecoveryTarget) -> Result<()> {
        wal::search::search(until).map(|_| ())
    }

    fn check_options(&self, options: &RestoreOptions) -> Result<()> {
        options.standby.as_ref().map_or(Ok(()), Standby::check)
    }

    fn check_older_copy(&self, manifest: &Manifest, directory: &Path) -> Result<()> {
        delta::check(directory, manifest)
    }

    fn timeline(&self, mark: &LogMark) -> Option<u32> {
        wal::source::timeline_of(mark)
    }

    fn branches(&self, manifest: &Manifest, options: &RestoreOptions) -> Result<Vec<Branch>> {
        tablespaces::branches(manifest, &options.tablespaces)
    }

    fn search_log(&self, until: RecoveryTarget) -> Result<Option<Box<dyn LogSearch>>> {
        Ok(wal::search::search(until)?.map(|search| Box::new(search) as Box<dyn LogSearch>))
    }

    fn setup(&self, apply: bool, task: &Task) -> Result<Vec<SetupStep>> {
        setup::run(&self.settings, &self.address, &self.tools, apply, task)
    }

    fn doctor(&self, task: &Task) -> Vec<Finding> {
        doctor::examine(&self.settings, &self.address, &self.tools, &self.log, task)
    }
}
