//! What can be asked of the agent. Plain data: the same value arrives over D-Bus, from `--direct` and from `run`.

use crate::base::ids::{BackupKind, JobId, TargetName};
use crate::driver::log::RecoveryTarget;
use crate::driver::restore_options::RestoreOptions;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// A request. [`Request::is_job`] tells the ones that run as jobs from those that answer at once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "operation", rename_all = "kebab-case")]
pub enum Request {
    /// Take a backup now.
    Backup(BackupRequest),
    /// Archive what was committed since.
    Archive(ArchiveRequest),
    /// Become the writer of a target's chain.
    Adopt {
        /// The database.
        target: TargetName,
        /// Where a repository is another one than before, or none: that one is meant.
        new_repository: bool,
    },
    /// Bring a backup back.
    Restore(RestoreRequest),
    /// Check stored backups.
    Verify(VerifyRequest),
    /// Delete one backup.
    Delete {
        /// Id, unique prefix, `latest`, `latest~1`; with `target` for the last two.
        backup: String,
        /// Only say what would be deleted.
        #[serde(default)]
        dry_run: bool,
    },
    /// Delete what retention lets go.
    Cleanup {
        /// Only say what would be deleted.
        #[serde(default)]
        dry_run: bool,
    },
    /// Rebuild the ledger from the repositories.
    Rescan,
    /// How each target stands.
    Status {
        /// Only this one.
        #[serde(default)]
        target: Option<TargetName>,
    },
    /// The backups.
    List {
        /// Only this target's.
        #[serde(default)]
        target: Option<TargetName>,
    },
    /// Everything about one backup.
    Show {
        /// Id, unique prefix, `latest`.
        backup: String,
    },
    /// Addresses of a backup's objects.
    Presign {
        /// Id, unique prefix, `latest`.
        backup: String,
        /// How long they are good, in seconds.
        seconds: u64,
    },
    /// Ended jobs and events, newest first.
    History {
        /// At most this many.
        limit: u32,
    },
    /// Jobs that run or wait.
    Jobs,
    /// Restores that were made, and what they set aside.
    Restores,
    /// The doctor.
    Check {
        /// Only this target.
        #[serde(default)]
        target: Option<TargetName>,
    },
    /// The key ids at hand and where they are used.
    KeyList,
    /// Make a new passphrase for new backups.
    KeyRotate {
        /// Only say what would be done.
        #[serde(default)]
        dry_run: bool,
    },
    /// End a running job.
    Cancel {
        /// Which.
        job: JobId,
    },
}

/// See [`Request::Backup`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupRequest {
    /// The database.
    pub target: TargetName,
    /// `None` = what the configuration says.
    #[serde(default)]
    pub kind: Option<BackupKind>,
    /// The operator's words, kept in the manifest.
    #[serde(default)]
    pub note: Option<String>,
    /// Go through everything that does not write.
    #[serde(default)]
    pub dry_run: bool,
}

/// See [`Request::Archive`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArchiveRequest {
    /// The database.
    pub target: TargetName,
    /// Only say what would be done.
    #[serde(default)]
    pub dry_run: bool,
}

/// Where a restore goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Destination {
    /// A new or empty directory, absolute.
    Into(PathBuf),
    /// The data in service, which is set aside first.
    InPlace,
}

/// See [`Request::Restore`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoreRequest {
    /// The database.
    pub target: TargetName,
    /// Which backup; `None` = the newest.
    #[serde(default)]
    pub backup: Option<String>,
    /// Where to.
    pub destination: Destination,
    /// How far the log is replayed; `None` = to its end, or not at all if a backup is named.
    #[serde(default)]
    pub until: Option<RecoveryTarget>,
    /// Leave recovery and checks to the first start.
    #[serde(default)]
    pub no_recover: bool,
    /// Leave out Neo4j's `system` database.
    #[serde(default)]
    pub without_system: bool,
    /// What else is asked for.
    #[serde(default)]
    pub options: RestoreOptions,
    /// Only say what would be done.
    #[serde(default)]
    pub dry_run: bool,
}

/// See [`Request::Verify`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifyRequest {
    /// Which backup; `None` = all of them.
    #[serde(default)]
    pub backup: Option<String>,
    /// Compare sizes and signatures only; otherwise every byte is read, decrypted and decompressed.
    #[serde(default)]
    pub quick: bool,
}

impl Request {
    /// Whether this runs as a job, with progress and a record in the ledger.
    pub fn is_job(&self) -> bool {
        matches!(
            self,
            Request::Backup(_)
                | Request::Archive(_)
                | Request::Adopt { .. }
                | Request::Restore(_)
                | Request::Verify(_)
                | Request::Delete { .. }
                | Request::Cleanup { .. }
                | Request::Rescan
                | Request::KeyRotate { .. }
        )
    }

    /// The verb, as it stands in the ledger and on the command line.
    pub fn verb(&self) -> &'static str {
        match self {
            Request::Backup(_) => "backup",
            Request::Archive(_) => "archive",
            Request::Adopt { .. } => "adopt",
            Request::Restore(_) => "restore",
            Request::Verify(_) => "verify",
            Request::Delete { .. } => "delete",
            Request::Cleanup { .. } => "cleanup",
            Request::Rescan => "rescan",
            Request::Status { .. } => "status",
            Request::List { .. } => "list",
            Request::Show { .. } => "show",
            Request::Presign { .. } => "presign",
            Request::History { .. } => "history",
            Request::Jobs => "jobs",
            Request::Restores => "restores",
            Request::Check { .. } => "check",
            Request::KeyList => "key-list",
            Request::KeyRotate { .. } => "key-rotate",
            Request::Cancel { .. } => "cancel",
        }
    }

    /// The target it is about, if it names one.
    pub fn target(&self) -> Option<&TargetName> {
        match self {
            Request::Backup(request) => Some(&request.target),
            Request::Archive(request) => Some(&request.target),
            Request::Adopt { target, .. } => Some(target),
            Request::Restore(request) => Some(&request.target),
            Request::Status { target } | Request::List { target } | Request::Check { target } => target.as_ref(),
            _ => None,
        }
    }
}
