//! Answers about the log: what was archived, how far it reaches, who writes it.

use crate::base::ids::{BackupId, TargetName};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Result of archiving a log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ArchiveReport {
    /// The target.
    pub target: TargetName,
    /// Nothing was written.
    pub dry_run: bool,
    /// What was archived, by repository.
    pub repositories: Vec<ArchivedIn>,
    /// Full backups that were taken because the log needed a base.
    pub bases: Vec<BackupId>,
    /// Pieces of the log that are lost.
    pub gaps: Vec<String>,
    /// What a dry run would do.
    pub steps: Vec<String>,
    /// How long it took.
    pub duration_ms: u64,
    /// What was weaker than it should have been.
    pub warnings: Vec<String>,
}

impl ArchiveReport {
    /// A report of nothing yet.
    pub fn blank(target: &TargetName, dry_run: bool) -> ArchiveReport {
        ArchiveReport {
            target: target.clone(),
            dry_run,
            repositories: Vec::new(),
            bases: Vec::new(),
            gaps: Vec::new(),
            steps: Vec::new(),
            duration_ms: 0,
            warnings: Vec::new(),
        }
    }
}

/// What was archived in a repository.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ArchivedIn {
    /// The repository.
    pub repository: String,
    /// Which of the log's histories.
    pub lineage: u32,
    /// Batches that were written.
    pub batches: u64,
    /// Transactions in them.
    pub transactions: u64,
    /// Where the archive ended before.
    pub from_transaction: u64,
    /// Where it ends.
    pub to_transaction: u64,
    /// When that transaction was committed, where that is known.
    pub to_time: Option<Timestamp>,
    /// Everything committed up to here is archived; `None` = it was not archived to the end.
    pub covered_until: Option<Timestamp>,
    /// Bytes of log.
    pub plain_bytes: u64,
    /// Bytes stored.
    pub stored_bytes: u64,
    /// Where it ends as PostgreSQL writes it, whose log counts no transactions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to_position: Option<String>,
}

/// Result of an adoption.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AdoptReport {
    /// The target.
    pub target: TargetName,
    /// The repositories in which this host writes from now on.
    pub repositories: Vec<AdoptedIn>,
}

/// A repository that was adopted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AdoptedIn {
    /// The repository.
    pub repository: String,
    /// Who wrote before, if anybody did.
    pub before: Option<String>,
    /// The epoch that begins.
    pub epoch: u64,
}

/// A point of a database's log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reached {
    /// Whose log.
    pub stream: String,
    /// Which of its histories.
    pub lineage: u32,
    /// The last transaction; `None` = not known beforehand.
    pub transaction: Option<u64>,
    /// When it was committed.
    pub time: Option<Timestamp>,
    /// The point as PostgreSQL writes it, whose log counts no transactions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<String>,
}

/// A part of a log's archive within which every moment can be restored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogRange {
    /// The repository.
    pub repository: String,
    /// Whose log.
    pub stream: String,
    /// Which of its histories.
    pub lineage: u32,
    /// The earliest moment from which every transaction can be restored.
    pub from: Timestamp,
    /// The last transaction then.
    pub from_transaction: u64,
    /// The latest moment; `None` = it can be restored by transaction only.
    pub to: Option<Timestamp>,
    /// The last transaction that can be restored.
    pub to_transaction: u64,
    /// Whether the database went on in another history.
    pub left: bool,
}

/// A target and a part of its log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetRange {
    /// The target.
    pub target: TargetName,
    /// The part.
    #[serde(flatten)]
    pub range: LogRange,
}

/// How far a target's archived log reaches: the range that holds the newest moment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ChainStatus {
    /// The repository that reaches farthest.
    pub repository: String,
    /// Which of the log's histories.
    pub lineage: u32,
    /// The earliest moment from which every transaction can be restored.
    pub from: Timestamp,
    /// The last transaction then.
    pub from_transaction: u64,
    /// When the last transaction that can be restored was committed.
    pub to: Option<Timestamp>,
    /// The last transaction that can be restored.
    pub to_transaction: u64,
    /// Every moment up to here can be restored.
    pub covered_until: Timestamp,
    /// How long ago that is, in seconds.
    pub lag_seconds: i64,
    /// Batches of this history.
    pub batches: u64,
    /// Transactions in them.
    pub transactions: u64,
    /// Their stored bytes.
    pub stored_bytes: u64,
    /// Where the log begins again after a piece of it was lost: the last transaction before that.
    pub gaps: Vec<u64>,
    /// Batches in that repository that were found damaged or missing.
    pub unsound: u64,
    /// The last archived transaction, where the log breaks off before it: what is damaged or missing lies between.
    #[serde(default)]
    pub unreachable: Option<u64>,
}

/// A target and how far its log reaches.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TargetLog {
    /// The target.
    pub target: TargetName,
    /// How far.
    #[serde(flatten)]
    pub chain: ChainStatus,
}
