//! What comes back from a request: plain data, one documented JSON schema, fields only ever added.

mod addresses;
mod key;
mod log;

pub use addresses::{Address, PresignReport};
pub use key::{KeyRecord, RotateReport, RotatedKey};
pub use log::{
    AdoptReport, AdoptedIn, ArchiveReport, ArchivedIn, ChainStatus, LogRange, Reached, TargetLog, TargetRange,
};

use crate::artifact::manifest::Manifest;
use crate::base::ids::{BackupId, JobId, TargetName};
use crate::base::task::{Progress, Severity};
use crate::driver::log::RecoveryTarget;
use crate::driver::{Finding, HealthCheck};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// An answer, tagged like the request it belongs to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "kebab-case")]
pub enum Answer {
    /// A backup was taken, or would be.
    Backup(BackupReport),
    /// The log was archived, or would be.
    Archive(ArchiveReport),
    /// This host writes a target's chain from now on.
    Adopt(AdoptReport),
    /// A restore was made, or would be.
    Restore(RestoreReport),
    /// What verification found.
    Verify(VerifyReport),
    /// What was deleted, or would be.
    Delete(DeleteReport),
    /// What retention let go, or would.
    Cleanup(CleanupReport),
    /// What the repositories hold.
    Rescan(RescanReport),
    /// How the targets stand.
    Status {
        /// One per target.
        targets: Vec<TargetStatus>,
    },
    /// The backups.
    List(BackupList),
    /// One backup.
    Show(Box<BackupDetail>),
    /// Addresses of a backup's objects.
    Presign(PresignReport),
    /// Ended jobs and events.
    History {
        /// Newest first.
        jobs: Vec<JobRecord>,
        /// Newest first.
        events: Vec<EventRecord>,
    },
    /// Jobs that run or wait.
    Jobs {
        /// Oldest first.
        jobs: Vec<JobRecord>,
    },
    /// Restores that were made.
    Restores {
        /// Newest first.
        restores: Vec<RestoreRecord>,
    },
    /// The doctor's findings.
    Check {
        /// Worst first.
        findings: Vec<TargetFinding>,
    },
    /// A new passphrase.
    Rotate(RotateReport),
    /// Keys at hand.
    KeyList {
        /// The current one first.
        keys: Vec<KeyRecord>,
    },
    /// The job was asked to end.
    Cancel {
        /// Which.
        job: JobId,
    },
}

/// Result of a backup.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BackupReport {
    /// Its id; in a dry run the one it would have had.
    pub id: BackupId,
    /// Nothing was written.
    pub dry_run: bool,
    /// Where it is now.
    pub repositories: Vec<String>,
    /// The server's version.
    pub server_version: String,
    /// What ran: `neo4j-admin database dump`, `pg_basebackup`.
    pub method: String,
    /// Bytes before compression and encryption; in a dry run the estimate.
    pub plain_bytes: u64,
    /// Bytes in one repository.
    pub stored_bytes: u64,
    /// SHA-256 of the first data object.
    pub sha256: String,
    /// Counts by name.
    pub counts: Vec<(String, u64)>,
    /// Whether the counts hold for the backup's very moment.
    pub counts_exact: bool,
    /// How long it took.
    pub duration_ms: u64,
    /// How long the server was stopped.
    pub downtime_ms: u64,
    /// What was weaker than it should have been.
    pub warnings: Vec<String>,
    /// What would be done, in order; only of a dry run.
    #[serde(default)]
    pub steps: Vec<String>,
}

/// Result of a restore.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RestoreReport {
    /// Names the restore: `TARGET-STAMP`.
    pub restore: String,
    /// What was restored.
    pub backup: BackupId,
    /// The repository it came from.
    pub repository: String,
    /// Nothing was written.
    pub dry_run: bool,
    /// The directory, or the live data directory.
    pub directory: PathBuf,
    /// Whether it is in service now.
    pub in_place: bool,
    /// Where the earlier data lies, after a restore in place.
    pub set_aside: Vec<PathBuf>,
    /// Plaintext bytes.
    pub plain_bytes: u64,
    /// How far the log was to be replayed; `None` = not at all.
    #[serde(default)]
    pub until: Option<RecoveryTarget>,
    /// Where in the log it arrived; in a dry run, where it would.
    #[serde(default)]
    pub reached: Option<Reached>,
    /// Batches of the log that were replayed.
    #[serde(default)]
    pub batches: u64,
    /// What was checked.
    pub checks: Vec<HealthCheck>,
    /// How long it took.
    pub duration_ms: u64,
    /// The steps, in order; what a dry run prints.
    pub steps: Vec<String>,
}

/// Result of a verification.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VerifyReport {
    /// Whether only sizes and signatures were compared.
    pub quick: bool,
    /// One per backup and repository.
    pub backups: Vec<VerifiedBackup>,
}

/// One verified backup.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VerifiedBackup {
    /// The backup, or the manifest's key where it could not be read.
    pub backup: String,
    /// Where.
    pub repository: String,
    /// Objects looked at.
    pub objects: u64,
    /// Stored bytes read.
    pub bytes: u64,
    /// What is wrong, each naming its object; empty = sound.
    pub problems: Vec<Problem>,
}

/// Something wrong with a stored object.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Problem {
    /// The object's key.
    pub object: String,
    /// The error's registered name.
    pub code: String,
    /// What is wrong.
    pub text: String,
}

/// Result of a deletion.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DeleteReport {
    /// What was deleted.
    pub backup: BackupId,
    /// Nothing was deleted.
    pub dry_run: bool,
    /// Objects, the manifest included.
    pub objects: u64,
    /// Stored bytes.
    pub bytes: u64,
    /// Batches of the log among them, which no other base can use.
    #[serde(default)]
    pub batches: u64,
}

/// Result of a cleanup.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CleanupReport {
    /// Nothing was deleted.
    pub dry_run: bool,
    /// What went, or would go.
    pub deleted: Vec<BackupId>,
    /// How many stay.
    pub kept: u64,
    /// Stored bytes of what went.
    pub bytes: u64,
    /// Batches of the log that went with it.
    #[serde(default)]
    pub batches: u64,
    /// Suspect backups, because of which nothing of their targets went.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub halted_by: Vec<BackupId>,
}

/// Result of a rescan.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RescanReport {
    /// Backups found, over all repositories.
    pub found: u64,
    /// Newly entered into the ledger.
    pub added: u64,
    /// In the ledger but in no repository: marked missing.
    pub missing: u64,
    /// Manifests that could not be used.
    pub problems: Vec<Problem>,
    /// Batches of logs found, over all repositories.
    #[serde(default)]
    pub batches: u64,
}

/// How a target stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TargetStatus {
    /// The target.
    pub target: TargetName,
    /// `neo4j`, `postgresql`.
    pub engine: String,
    /// The newest backup.
    pub newest: Option<BackupId>,
    /// The moment it can be restored to.
    pub restorable_to: Option<Timestamp>,
    /// How old that is, in seconds.
    pub age_seconds: Option<i64>,
    /// Estimated time to restore, in seconds, from past restores or from the size.
    pub rto_seconds: Option<u64>,
    /// When a backup of it was last verified or restored with all checks passed.
    pub last_proven: Option<Timestamp>,
    /// Backups in all.
    pub backups: u64,
    /// Stored bytes in all.
    pub stored_bytes: u64,
    /// The running job, if any.
    pub job: Option<JobId>,
    /// The last job that failed since the last success, and why.
    pub last_failure: Option<JobRecord>,
    /// How far the archived log reaches; `None` = there is none.
    #[serde(default)]
    pub log: Option<ChainStatus>,
    /// What else can be restored of the archived log, newest first: before a hole, and of histories that were left.
    #[serde(default)]
    pub earlier: Vec<LogRange>,
    /// Next run of a timer of its own; `None` = none runs, or nobody knows.
    pub next_run: Option<Timestamp>,
    /// The timers that the configuration has for it.
    #[serde(default)]
    pub timers: Vec<TimerStatus>,
}

/// A timer of a target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimerStatus {
    /// Its unit.
    pub unit: String,
    /// When it is to elapse, as systemd's `OnCalendar=` takes it; `None` = `[schedule]` says `off`.
    pub calendar: Option<String>,
    /// Whether it is enabled; `None` = no service manager has it.
    pub enabled: Option<bool>,
    /// When it elapses next; `None` = it does not run.
    pub next: Option<Timestamp>,
}

/// A backup's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum BackupState {
    /// Durable, read back once.
    Complete,
    /// Verified again since, or restored with all checks passed.
    Validated,
    /// Verification found damage.
    Corrupted,
    /// On record, but in no repository.
    Missing,
}

impl BackupState {
    /// The word users see.
    pub fn as_str(self) -> &'static str {
        match self {
            BackupState::Complete => "COMPLETE",
            BackupState::Validated => "VALIDATED",
            BackupState::Corrupted => "CORRUPTED",
            BackupState::Missing => "MISSING",
        }
    }
}

/// A line of `list` (B3).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BackupRow {
    /// The id.
    pub id: BackupId,
    /// The engine.
    pub engine: String,
    /// When it was taken.
    pub created_at: Timestamp,
    /// When retention lets it go; `None` = kept.
    pub expires_at: Option<Timestamp>,
    /// Its state.
    pub state: BackupState,
    /// Bytes before compression.
    pub plain_bytes: u64,
    /// Stored bytes.
    pub stored_bytes: u64,
    /// SHA-256 of the first data object.
    pub sha256: String,
    /// Counts by name.
    pub counts: Vec<(String, u64)>,
    /// How long it took.
    pub duration_ms: u64,
    /// The database's own files were damaged when it was taken.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub suspect: bool,
    /// Where it is.
    pub repositories: Vec<String>,
}

/// The backups, with totals (B3).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BackupList {
    /// Newest first.
    pub backups: Vec<BackupRow>,
    /// Bytes before compression in all.
    pub plain_bytes: u64,
    /// Stored bytes in all.
    pub stored_bytes: u64,
    /// Those that expire within two days.
    pub expiring_soon: Vec<BackupId>,
    /// How far the archived logs reach.
    #[serde(default)]
    pub logs: Vec<TargetLog>,
    /// What else can be restored of the archived logs.
    #[serde(default)]
    pub earlier: Vec<TargetRange>,
}

/// Everything about one backup.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BackupDetail {
    /// Its line in `list`.
    pub row: BackupRow,
    /// Its manifest.
    pub manifest: Manifest,
    /// When it was last verified.
    pub verified_at: Option<Timestamp>,
}

/// A job's life; `agent/job.rs` holds the transitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum JobState {
    /// Waits for its lane.
    Queued,
    /// Works.
    Running,
    /// Was asked to end.
    Cancelling,
    /// Ended well.
    Succeeded,
    /// Ended in an error.
    Failed,
    /// Ended because someone asked.
    Cancelled,
    /// The agent ended under it.
    Interrupted,
}

impl JobState {
    /// Whether nothing more will happen.
    pub fn is_final(self) -> bool {
        !matches!(self, JobState::Queued | JobState::Running | JobState::Cancelling)
    }

    /// The word users see.
    pub fn as_str(self) -> &'static str {
        match self {
            JobState::Queued => "queued",
            JobState::Running => "running",
            JobState::Cancelling => "cancelling",
            JobState::Succeeded => "succeeded",
            JobState::Failed => "failed",
            JobState::Cancelled => "cancelled",
            JobState::Interrupted => "interrupted",
        }
    }
}

/// A job, running or ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JobRecord {
    /// Its number.
    pub id: JobId,
    /// The verb.
    pub verb: String,
    /// The target, if it has one.
    pub target: Option<TargetName>,
    /// Its state.
    pub state: JobState,
    /// When it was taken on.
    pub started_at: Timestamp,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// How far it is; only of running jobs.
    pub progress: Option<Progress>,
    /// The registered name of the error it ended with.
    pub error_code: Option<String>,
    /// The message it ended with.
    pub message: Option<String>,
}

/// Something that happened (B13, D10).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EventRecord {
    /// When.
    pub at: Timestamp,
    /// How much it matters.
    pub severity: Severity,
    /// Stable name: `backup-started`, `backup-succeeded`, `restore-succeeded`.
    pub name: String,
    /// The target, if any.
    pub target: Option<TargetName>,
    /// The job, if any.
    pub job: Option<JobId>,
    /// Who asked: a user's name.
    pub actor: String,
    /// What happened.
    pub text: String,
}

/// A restore that was made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RestoreRecord {
    /// Its name.
    pub restore: String,
    /// The target.
    pub target: TargetName,
    /// What was restored; `None` = not on record, as after a loss of the ledger. What it set aside was found by looking.
    pub backup: Option<BackupId>,
    /// When it ended; when it was begun, if it is not on record.
    pub at: Timestamp,
    /// Where it is.
    pub directory: PathBuf,
    /// Whether it was put into service.
    pub in_place: bool,
    /// What it set aside, and is still there.
    pub set_aside: Vec<PathBuf>,
    /// How long it took; 0 if it is not on record.
    pub duration_ms: u64,
    /// Whether all checks passed; `None` = none were made, or it is not on record.
    pub healthy: Option<bool>,
    /// Where in the log it arrived.
    #[serde(default)]
    pub reached: Option<Reached>,
}

/// A finding of the doctor and the target it is about.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TargetFinding {
    /// The target; `None` = the agent itself or a repository.
    pub target: Option<TargetName>,
    /// What was found.
    #[serde(flatten)]
    pub finding: Finding,
}
