//! What a database's log must allow so that it can be archived between full backups and replayed by a restore.
//!
//! A [`LogSource`] is read while the server writes it; nothing is stopped and nothing is changed. It goes on exactly
//! where the archive ends ([`LogMark`]), or says why it cannot: history was forked, or the log is no longer there.

use super::VolumeReader;
use crate::artifact::log_batch::{LogMark, LogSegment};
use crate::base::Result;
use crate::base::task::Task;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// The log of a database.
pub trait LogSource: Send + Sync {
    /// Looks at what follows `after`. The transaction before `after` is compared, where it is still there, with what
    /// the mark says of it. Error: `*_UNSUPPORTED` for a log whose format is not known.
    fn resume(&self, after: &LogMark, task: &Task) -> Result<Resumption>;

    /// A number that is another one once the log was written to. `None` = not known, or it was written so recently that
    /// another write might not show.
    fn pulse(&self) -> Option<u64> {
        None
    }

    /// Lets go of files that are held open for later: the data they belong to is about to be replaced.
    fn release(&self) {}
}

/// Whether a log goes on where its archive ends.
pub enum Resumption {
    /// It does.
    Continues(Box<dyn LogReader>),
    /// What the source holds at that point is not what was archived; says what was found.
    Forked(String),
    /// The log after that point is no longer there; says what is.
    Gap(String),
}

/// Reads a log forward. Files that it has seen stay readable, even if the server removes them.
pub trait LogReader: Send {
    /// The next whole transactions, verified one by one: at most `limit` bytes, more only if a single transaction is
    /// larger. `None` = nothing was committed since. A transaction that is still being written is not an error.
    /// Errors: `LOG_CORRUPTED` for bytes that cannot be a log, `*_UNSUPPORTED` for a format that is not known.
    fn next(&mut self, limit: u64, task: &Task) -> Result<Option<LogChunk>>;
}

/// What becomes one batch.
pub struct LogChunk {
    /// Where it begins.
    pub start: LogMark,
    /// Where it ends.
    pub end: LogMark,
    /// Whether there was nothing more when it was read: whatever was committed before the call is in it, or was before.
    pub complete: bool,
    /// The ranges it consists of, in order; at least one.
    pub segments: Vec<LogSegment>,
    /// The stream of all ranges, one after the other. Its `finish` fails if a range's bytes no longer have the digest
    /// that they had when they were verified.
    pub reader: Box<dyn VolumeReader>,
}

/// How far a restore replays the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RecoveryTarget {
    /// All that was archived.
    End,
    /// Up to, in the order of commits, the first transaction committed later than this.
    Time(Timestamp),
    /// This transaction is the last one.
    Transaction(u64),
    /// The transaction before this one is the last one.
    BeforeTransaction(u64),
}
