//! What a database's log must allow so that it can be archived between full backups and replayed by a restore.
//!
//! A [`LogSource`] is read while the server writes it; nothing is stopped and nothing is changed. It goes on exactly
//! where the archive ends ([`LogMark`]), or says why it cannot: history was forked, or the log is no longer there.

use super::VolumeReader;
use crate::artifact::log_batch::{LogBatch, LogMark, LogSegment};
use crate::artifact::manifest::Engine;
use crate::base::task::Task;
use crate::base::{Code, Error, Result};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::Write;

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

    /// Whether its pieces are whole files of the server's own tool, which follow one base and none before it: then each
    /// base begins a chain of its own, and pieces cannot be joined.
    fn in_chains(&self) -> bool {
        false
    }

    /// Holds what is there of it, as far as it can: called before anything that may keep it from being archived.
    fn hold(&self) {}

    /// Lets go of files that are held open for later: the data they belong to is about to be replaced.
    fn release(&self) {}

    /// Called before a run of the archive: has the server finish what was committed until now, where it would keep it
    /// to itself otherwise, and gives `hand_over` the files that are fetched from it. Error `NOT_AVAILABLE` if the server is
    /// not set up for that; after others, what is there can be archived all the same.
    fn finish_current(&self, _hand_over: HandOver<'_>, _task: &Task) -> Result<()> {
        Ok(())
    }

    /// How the history of a point left the one before it, in the server's own words. `None` where it began itself, or where
    /// nobody has kept that.
    fn origin(&self, _mark: &LogMark) -> Result<Option<String>> {
        Ok(None)
    }

    /// Every repository holds the log up to these points, durably: what lies before all of them is not asked for again, and
    /// only then is let go. To look at a point ([`LogSource::resume`]) lets go of nothing.
    fn durable(&self, _marks: &[LogMark]) -> Result<()> {
        Ok(())
    }
}

/// Takes in a file of the log under the name that the server gave it, as [`LogInbox::take_in`] does. Error `SPOOL_FULL` where it
/// has to stay with the server.
pub type HandOver<'a> = &'a mut dyn FnMut(&str, &mut File) -> Result<()>;

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

    /// Up to when everything that was committed was given, once there is nothing more; `asked` is a moment before the
    /// last call of `next`. `None` = the source holds more than can be read, so that no moment is certain.
    fn covered_until(&self, asked: Timestamp) -> Option<Timestamp> {
        Some(asked)
    }

    /// Whether no more will follow what was given: the source has left this history, or lost what comes next.
    fn is_left(&self) -> bool {
        false
    }
}

/// What becomes one batch.
pub struct LogChunk {
    /// Where it begins.
    pub start: LogMark,
    /// Where it ends.
    pub end: LogMark,
    /// Whether there was nothing more when it was read: whatever was committed before the call is in it, or was before.
    pub complete: bool,
    /// Up to when everything that was committed is in it, or was before; `None` = up to the call.
    pub covered_until: Option<Timestamp>,
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
    /// Everything whose record ends at or before this position of PostgreSQL's log.
    Lsn(u64),
    /// The newest restore point of this name in PostgreSQL's log.
    Point(PointName),
    /// As soon as a base of PostgreSQL's is consistent; no log after it is replayed.
    Immediate,
}

/// `USAGE` for a target of PostgreSQL's that another database cannot have; `None` for all others.
pub fn only_postgres(engine: Engine, until: RecoveryTarget) -> Option<Error> {
    let (what, option) = match until {
        RecoveryTarget::Lsn(_) => ("positions", "--to-lsn"),
        RecoveryTarget::Point(_) => ("restore points", "--to-name"),
        RecoveryTarget::Immediate => {
            let text = format!("{} has no log in its backups that `--to-immediate` could end with", engine.as_str());
            return Some(Error::new(Code::Usage, text).with_hint("name a backup: it is restored alone"));
        }
        _ => return None,
    };
    let text = format!("{} has no {what} that `{option}` could name", engine.as_str());
    let error = Error::new(Code::Usage, text);
    Some(error.with_hint("name a time with `--to-time`, or a transaction with `--to-tx`"))
}

/// The name of a restore point (`pg_create_restore_point`).
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PointName {
    /// Zeros follow the name.
    bytes: [u8; PointName::BYTES_MAX + 1],
}

impl PointName {
    /// Most bytes of a name.
    pub const BYTES_MAX: usize = 63;

    /// A name of 1 to 63 bytes. Error: `USAGE`.
    pub fn new(text: &str) -> Result<PointName> {
        if !(1..=PointName::BYTES_MAX).contains(&text.len()) || text.contains('\0') {
            return Err(Error::new(Code::Usage, "the name of a restore point has 1 to 63 bytes"));
        }
        let mut bytes = [0; PointName::BYTES_MAX + 1];
        bytes[..text.len()].copy_from_slice(text.as_bytes());
        Ok(PointName { bytes })
    }

    /// The name's bytes.
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.split(|byte| *byte == 0).next().unwrap_or_default()
    }
}

impl TryFrom<String> for PointName {
    type Error = Error;

    fn try_from(text: String) -> Result<PointName> {
        PointName::new(&text)
    }
}

impl From<PointName> for String {
    fn from(name: PointName) -> String {
        name.to_string()
    }
}

impl std::fmt::Display for PointName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&String::from_utf8_lossy(self.as_bytes()))
    }
}

impl std::fmt::Debug for PointName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.to_string())
    }
}

/// Looks in archived log for what only its records tell. It is given batches of one history, from the newest backwards, and
/// is written the plain bytes of each.
pub trait LogSearch: Write + Send {
    /// The bytes of this batch follow.
    fn begin(&mut self, batch: &LogBatch) -> Result<()>;

    /// They have ended. `None` = it is not in this batch.
    fn end(&mut self) -> Result<Option<Landmark>>;
}

/// What a search found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Landmark {
    /// The target that it stands for.
    pub until: RecoveryTarget,
    /// When it was made.
    pub at: Option<Timestamp>,
}

/// Takes what a server hands over of its log, file by file.
pub trait LogInbox: Send + Sync {
    /// Who may hand it over: the account that owns the server's data.
    fn owner(&self) -> Result<u32>;

    /// Takes in what `piece` holds under the name that the server gave it. When this returns it is durable, unless the
    /// answer says otherwise. Errors: `USAGE`, `LOG_CORRUPTED`, `OWNER_CONFLICT`, `OBJECT_CONFLICT`.
    fn take_in(&self, name: &str, piece: &mut File) -> Result<Intake>;

    /// Bytes that wait, and how many may.
    fn filling(&self) -> (u64, u64);
}

/// Knows what a server that recovers asks for of its log by name.
pub trait LogOutbox: Send + Sync {
    /// What the name stands for. Errors: `USAGE` for one that no server asks for; another where that cannot be said for
    /// certain.
    fn asked(&self, name: &str) -> Result<Asked>;

    /// The file of that name, where it still waits to be archived.
    fn waiting(&self, name: &str) -> Result<Option<File>>;

    /// What the server calls file `file` of a history, of `length` bytes; `None` where no whole file has so many.
    fn name_of(&self, history: &str, file: u64, length: u64) -> Option<String>;
}

/// What a server asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    /// A file of the log.
    Piece(Piece),
    /// What no server ever had.
    Nothing,
    /// How a history came to be: texts that are not archived.
    Origin {
        /// Whose log it is.
        stream: String,
        /// The history.
        history: String,
    },
}

/// A file of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Whose log it is.
    pub stream: String,
    /// The history it belongs to, as [`LogMark::checksum`] says it.
    pub history: String,
    /// Its number.
    pub file: u64,
    /// Its bytes.
    pub length: u64,
}

/// What became of a file that a server handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// It is durable.
    Stored,
    /// The same was taken in before.
    Already,
    /// There is no room: the server must keep it.
    Refused {
        /// Whether there was room for the one before.
        newly: bool,
    },
    /// There is no room, and it was given up, as the configuration says.
    Dropped {
        /// Whether there was room for the one before.
        newly: bool,
    },
}

/// A file that was handed over, and how full the place is where such files wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Intake {
    /// What became of it.
    pub taken: Taken,
    /// Bytes that waited before.
    pub before: u64,
    /// Bytes that wait.
    pub after: u64,
    /// Bytes that may wait.
    pub limit: u64,
}
