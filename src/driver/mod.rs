//! Layer 2: what a database must be able to do to be backed up and restored, and the databases that can.
//!
//! The verbs in `operation/` know only the traits here: a [`Driver`] describes its source, begins a [`FullBackup`]
//! whose volumes are streams, and begins a [`RestoreSession`] that takes the same streams back. A driver never stops
//! or starts the server in service: it says when that is needed ([`Driver::needs_stop`]) and the operation does it
//! through `host`. It writes nothing into a repository and knows no encryption.
//!
//! - [`log`]: the log between two full backups, and its replay
//! - [`restore_options`]: what else can be asked of a restore
//! - [`mod@setup`]: what a server needs before it can be backed up
//! - [`neo4j`], [`postgres`]: the real ones
//! - [`sim`]: a deterministic fake, so that the agent is tested without servers
//! - `tar_archive`, `stream`, `lanes`: how the real ones read files that a server is writing

mod lanes;
pub mod log;
pub mod neo4j;
pub mod postgres;
mod ranges;
pub mod restore_options;
pub mod setup;
pub mod sim;
mod stream;
mod tar_archive;

use self::log::{LogInbox, LogOutbox, LogSearch, LogSource, RecoveryTarget};
use self::restore_options::RestoreOptions;
use self::setup::SetupStep;
use crate::artifact::log_batch::{LogBatch, LogMark};
use crate::artifact::manifest::{Content, Engine, LogPosition, Manifest, Role, ServerRecord};
use crate::artifact::statistics::Statistics;
use crate::base::ids::BackupKind;
use crate::base::process::OsUser;
use crate::base::task::{Severity, Task};
use crate::base::{Code, Error, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What there is to back up, as the server or its files tell it. Must work whether the server runs or not.
#[derive(Clone, Debug)]
pub struct Source {
    /// The database's name on its server.
    pub database: String,
    /// The data's own identity: Neo4j's store id, PostgreSQL's system identifier. Survives restarts, not re-creation.
    pub data_identity: String,
    /// The server's account of itself.
    pub server: ServerRecord,
    /// The account that owns the data, and that its tools must run as.
    pub owner: OsUser,
    /// Bytes that a full backup reads; an estimate from file sizes.
    pub estimated_bytes: u64,
}

/// Counts and schema together with a mark that any write moves.
#[derive(Clone, Debug)]
pub struct Census {
    /// What was counted; `exact` is decided by the operation, which compares marks.
    pub statistics: Statistics,
    /// Changes with every write (last transaction id); `None` where it could not be had.
    pub mark: Option<String>,
}

/// A file outside the data directories that a restored server needs or an operator will miss.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutsideFile {
    /// Where it is on this host.
    pub path: PathBuf,
    /// Its name in the archive, relative, without `..`.
    pub archive_name: String,
}

/// One directory in service, and where its successor lies below a restored directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LivePath {
    /// Relative to the restored directory; empty = the directory itself.
    pub staged: PathBuf,
    /// Absolute path in service.
    pub live: PathBuf,
}

/// A finding of the doctor (`check`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// A short stable name: `bolt-unreachable`.
    pub code: String,
    /// How bad.
    pub severity: Severity,
    /// What was found.
    pub text: String,
    /// The literal command or statement that mends it; empty if there is nothing to mend.
    pub fix: String,
}

/// A database that can be backed up and restored.
pub trait Driver: Send + Sync {
    /// Which program it is.
    fn engine(&self) -> Engine;

    /// Examines the source. Errors: `*_UNREACHABLE` or a `*_UNSUPPORTED` that says what was found.
    fn inspect(&self, task: &Task) -> Result<Source>;

    /// Whether a server is using the data directory right now, from its locks and processes.
    fn is_running(&self, task: &Task) -> Result<bool>;

    /// Waits until the server in service answers. Error: `*_UNREACHABLE` after `timeout`.
    fn wait_ready(&self, timeout: Duration, task: &Task) -> Result<()>;

    /// Counts what the server in service holds. A server that cannot be asked is not an error:
    /// `Statistics::not_checked` says why.
    fn census(&self, task: &Task) -> Result<Census>;

    /// The mark of [`Driver::census`] alone, where that can be had for less.
    fn census_mark(&self, task: &Task) -> Result<Option<String>> {
        Ok(self.census(task)?.mark)
    }

    /// The schema of [`Driver::census`] alone, where that can be had for less; empty where it cannot be had.
    fn schema(&self, task: &Task) -> Result<BTreeSet<String>> {
        Ok(self.census(task)?.statistics.schema)
    }

    /// Whether a full backup of this kind brings its own counts, so that [`Driver::census`] need not be asked.
    fn counts_by_itself(&self, _kind: BackupKind) -> bool {
        false
    }

    /// The kind of full backup the configuration asks for.
    fn default_kind(&self) -> BackupKind;

    /// Whether the server must be stopped while a full backup of this kind is read.
    fn needs_stop(&self, kind: BackupKind) -> bool;

    /// Whether the tools that a full backup of this kind needs are there and fit the server: said before anything is
    /// stopped for a backup that would then be refused.
    fn check_tools(&self, _kind: BackupKind, _task: &Task) -> Result<()> {
        Ok(())
    }

    /// Begins a full backup. `workspace` is an empty private directory for whatever a tool insists on having in a
    /// file; the operation removes it. Error `NOT_AVAILABLE` for a kind this driver cannot make.
    fn begin_full(&self, kind: BackupKind, workspace: &Path, task: &Task) -> Result<Box<dyn FullBackup>>;

    /// What lies outside the data directories. Files that are not there are left out.
    fn outside_files(&self, task: &Task) -> Result<Vec<OutsideFile>>;

    /// Refuses a restore in place where the server that runs keeps its data elsewhere than it would be exchanged.
    fn check_in_place(&self, _task: &Task) -> Result<()> {
        Ok(())
    }

    /// The directories in service that a restore in place exchanges. They may lie on different filesystems.
    fn live_paths(&self, task: &Task) -> Result<Vec<LivePath>>;

    /// Begins a restore of `manifest` into `place`.
    fn begin_restore(&self, manifest: &Manifest, place: &RestorePlace, task: &Task) -> Result<Box<dyn RestoreSession>>;

    /// Whether this backup can be restored in that way. Errors: `NOT_AVAILABLE`, `USAGE`.
    fn check_restore(&self, _manifest: &Manifest, _in_place: bool, _options: &RestoreOptions) -> Result<()> {
        Ok(())
    }

    /// Begins a dump of a private, recovered copy, whose last transaction is `end`; the server is left alone.
    fn begin_dump_of_copy(&self, _copy: &RestorePlace, _end: &LogMark, _task: &Task) -> Result<Box<dyn FullBackup>> {
        let text = format!("for {} this version makes no dump of a copy", self.engine().as_str());
        Err(Error::new(Code::NotAvailable, text))
    }

    /// The log that can be archived between full backups; `None` = this driver has none.
    fn log(&self) -> Option<&dyn LogSource> {
        None
    }

    /// Why [`Driver::log`] is `None`, for the operator.
    fn why_no_log(&self) -> String {
        format!("for {} this version takes full backups only", self.engine().as_str())
    }

    /// Where the server itself hands its log over; `None` = this driver reads it.
    fn log_inbox(&self) -> Option<&dyn LogInbox> {
        None
    }

    /// Gives back what a server that recovers asks for of its log; `None` = this database's servers do not ask.
    fn log_outbox(&self) -> Option<&dyn LogOutbox> {
        None
    }

    /// Whether a restore can be aimed at such a target. Error `USAGE` says what can be said instead.
    fn check_target(&self, until: RecoveryTarget) -> Result<()> {
        log::only_postgres(self.engine(), until).map_or(Ok(()), Err)
    }

    /// Whether a restore can be asked for that. Error `USAGE` says what can be said instead.
    fn check_options(&self, options: &RestoreOptions) -> Result<()> {
        options.only_postgres(self.engine()).map_or(Ok(()), Err)
    }

    /// Whether a restore of `manifest` can go over what is in `directory`: an older copy of the same database that nobody
    /// uses. Errors: `RESTORE_NOT_EMPTY`, `RESTORE_SERVER_RUNNING`.
    fn check_older_copy(&self, _manifest: &Manifest, directory: &Path) -> Result<()> {
        let text = format!("{} cannot be restored over {}", self.engine().as_str(), directory.display());
        Err(Error::new(Code::Usage, text))
    }

    /// The number that this database gives to the history of a point of its log; `None` = it numbers none.
    fn timeline(&self, _mark: &LogMark) -> Option<u32> {
        None
    }

    /// The parts of a backup that its restore puts elsewhere, as the options say.
    fn branches(&self, _manifest: &Manifest, _options: &RestoreOptions) -> Result<Vec<Branch>> {
        Ok(Vec::new())
    }

    /// Finds the target in archived log, where it does not say by itself where recovery ends; `None` = it does.
    fn search_log(&self, _until: RecoveryTarget) -> Result<Option<Box<dyn LogSearch>>> {
        Ok(None)
    }

    /// What the server lacks before it can be backed up; with `apply`, what can be done without interrupting its service
    /// is done, as the server's own administrator. Empty = nothing.
    fn setup(&self, _apply: bool, _task: &Task) -> Result<Vec<SetupStep>> {
        Ok(Vec::new())
    }

    /// Everything that is wrong or weak about this target's settings, rights and versions.
    fn doctor(&self, task: &Task) -> Vec<Finding>;
}

/// What a volume is, before a byte of it is read.
#[derive(Clone, Debug)]
pub struct VolumeSpec {
    /// Its name within the backup: `neo4j`, `system`, `base`.
    pub name: String,
    /// What it is for.
    pub role: Role,
    /// How it is laid out.
    pub content: Content,
    /// The key's ending before filters: `dump`, `system.dump`, `base.tar`.
    pub extension: String,
    /// Its lane, from 0.
    pub lane: u32,
    /// Whether it is one of several lanes of the same tree, whose keys differ by the lane alone.
    pub striped: bool,
    /// Whether the bytes are compressed already, so that compressing again would only cost time.
    pub compressed: bool,
    /// Whether the plaintext's SHA-256 is wanted in the manifest (where its identity matters).
    pub hash_plain: bool,
    /// Expected bytes; 0 = not known.
    pub estimated_bytes: u64,
}

/// A stream of plaintext.
pub trait VolumeReader: Read + Send {
    /// After the end of the stream: whether the tool behind it really succeeded. A stream that just ended proves
    /// nothing.
    fn finish(self: Box<Self>, task: &Task) -> Result<()>;
}

/// A volume that has not been opened yet.
pub struct Volume {
    /// What it is.
    pub spec: VolumeSpec,
    /// Opens the stream.
    #[allow(clippy::type_complexity)]
    pub open: Box<dyn FnOnce(&Task) -> Result<Box<dyn VolumeReader>> + Send>,
}

/// What is known once all volumes were read.
#[derive(Clone, Debug, Default)]
pub struct FullReport {
    /// Where it stands in the log.
    pub position: Option<LogPosition>,
    /// Weaknesses worth a line in the manifest.
    pub warnings: Vec<String>,
    /// Damage that the source itself had when it was read.
    pub suspect: Vec<String>,
    /// Counts that the driver knows to hold for the backup's very moment; replaces the census.
    pub statistics: Option<Statistics>,
}

/// A full backup in progress. Dropping it without [`FullBackup::finish`] abandons it and leaves nothing behind.
pub trait FullBackup: Send {
    /// The volumes, once. They may be opened one after the other or side by side.
    fn take_volumes(&mut self) -> Vec<Volume>;

    /// All volumes were read and are sound.
    fn finish(self: Box<Self>, task: &Task) -> Result<FullReport>;
}

/// A part of a restored directory that lies elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Branch {
    /// What it is, for people.
    pub what: String,
    /// Where it would be in the restored directory, relative; a link is there then.
    pub inside: PathBuf,
    /// Where it is filled in; it exists and is empty when a restore begins.
    pub directory: PathBuf,
    /// Bytes that go there; an estimate.
    pub bytes: u64,
}

/// Where a restore goes.
#[derive(Clone, Debug)]
pub struct RestorePlace {
    /// The directory that becomes the data directory (PostgreSQL) or holds `databases/` and `transactions/` (Neo4j).
    /// It exists and is empty, or holds an older copy ([`RestoreOptions::delta`]).
    pub directory: PathBuf,
    /// An empty private directory for sockets, generated configuration and logs of scratch servers; removed afterwards.
    pub workspace: PathBuf,
    /// Who shall own the result; `None` = leave it to this process.
    pub owner: Option<OsUser>,
    /// Leave out the `system` database (Neo4j).
    pub without_system: bool,
    /// Points of other histories of this log that are on record: what goes on from the result must not be taken for one
    /// of them.
    pub histories: Vec<LogMark>,
    /// Whether recovery ends as soon as the base is consistent.
    pub immediate: bool,
    /// What else was asked for.
    pub options: RestoreOptions,
    /// The parts that lie elsewhere.
    pub branches: Vec<Branch>,
}

/// Takes the plaintext of one object.
pub trait VolumeSink: Write + Send {
    /// All bytes were handed over and their digests were right.
    fn finish(self: Box<Self>, task: &Task) -> Result<()>;
}

/// What a health check looked at, and what it found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthCheck {
    /// `connectivity`, `schema_consistency`, `orphan_detection`, `counts`, or a tool's name.
    pub name: String,
    /// Whether it passed; `None` = not checked, and `found` says why.
    pub passed: Option<bool>,
    /// What was found.
    pub found: String,
}

impl HealthCheck {
    /// A check that passed or failed.
    pub fn of(name: &str, passed: bool, found: impl Into<String>) -> Self {
        HealthCheck { name: name.to_owned(), passed: Some(passed), found: found.into() }
    }

    /// A check that was not made.
    pub fn skipped(name: &str, why: impl Into<String>) -> Self {
        HealthCheck { name: name.to_owned(), passed: None, found: why.into() }
    }
}

/// A restore in progress. Dropping it ends every scratch server it started; the directory is the operation's to remove.
pub trait RestoreSession: Send {
    /// Whether the lanes of one tree may be taken side by side.
    fn takes_lanes_side_by_side(&self) -> bool {
        false
    }

    /// Where this object's plaintext goes; `None` = this restore does not need it.
    fn sink(
        &mut self,
        object: &crate::artifact::manifest::ObjectRecord,
        task: &Task,
    ) -> Result<Option<Box<dyn VolumeSink>>>;

    /// Where the plaintext of a batch of the log goes. Called after all sinks are finished, in the order of the log.
    fn log_sink(&mut self, batch: &LogBatch, _task: &Task) -> Result<Box<dyn VolumeSink>> {
        let text = format!("replaying the log of {} is not available for this database", batch.target);
        Err(Error::new(Code::NotAvailable, text))
    }

    /// All batches were handed over: leaves off what lies after `until` and says where the log ends, which is where
    /// recovery must arrive. `RESTORE_TARGET_UNREACHABLE` if the log ends before.
    fn end_log(&mut self, until: RecoveryTarget, _task: &Task) -> Result<LogMark> {
        Err(Error::new(
            Code::NotAvailable,
            format!("replaying the log up to {until:?} is not available for this database"),
        ))
    }

    /// All sinks are finished: puts files, ownership and modes into their final shape and makes them durable.
    fn complete(&mut self, task: &Task) -> Result<()>;

    /// Starts a private scratch server on the restored directory (loopback or socket only, archiving off, no jobs),
    /// lets it recover, checks, stops it cleanly. Checks that failed are in the answer; an error means that they could
    /// not be made.
    fn check(&mut self, task: &Task) -> Result<Vec<HealthCheck>>;

    /// Nothing is left to be done, and no check failed.
    fn hand_over(&mut self) -> Result<()> {
        Ok(())
    }
}
