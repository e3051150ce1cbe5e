//! The log of a fake database, which only has one once [`begin`] gave it one.
//!
//! `data/log.N` are its files, `data/kv` the state that they change: 256 keys, each in a slot of its own that names
//! the transaction it was written by. A write goes to the log first and to its slot then; replaying a log writes every
//! slot again that is older. So a copy of the slots that was made while they were written is healed by the log, as
//! real databases heal theirs.
//!
//! - [`format`]: headers and records, byte by byte
//! - [`writer`]: what a test does as the server: commit, rotate, prune
//! - [`source`]: what the archive reads
//! - [`replay`]: what a restore does

mod format;
pub(super) mod replay;
pub(super) mod source;
mod writer;

pub use format::state;
pub use writer::{begin, commit, last_transaction, prune, rotate};

use super::data_tree::{DataTree, Entry};
use crate::artifact::log_batch::LogMark;
use crate::base::{Code, Error, Result};
use jiff::Timestamp;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

/// Whether the database whose data lies in `data` has a log.
pub(super) fn is_there(data: &Path) -> bool {
    data.join(format::STATE_FILE).exists()
}

/// Whether a path relative to the data directory is the log's, or the state that the log changes.
pub(super) fn is_part(path: &Path) -> bool {
    path == Path::new(format::STATE_FILE) || format::number_of(path).is_some()
}

/// The point where the log ends now.
pub(super) fn end(data: &Path) -> Result<LogMark> {
    format::read(data)?.end(data)
}

/// The log files of a base, listed when everything else was copied, and the point they end at.
#[derive(Clone, Debug, Default)]
pub(super) struct Pinned(Arc<Mutex<Option<End>>>);

/// A point, and the latest time of commit before it.
type End = (LogMark, Option<Timestamp>);

impl Pinned {
    /// Lists the log files up to their last whole record and keeps the mark. `LOG_GAP` if the file that `start` lies in
    /// is no longer there.
    pub(super) fn list(&self, data: &Path, start: &LogMark) -> Result<Vec<Entry>> {
        let log = format::read(data)?;
        if !log.files.iter().any(|file| file.number == start.file) {
            let text = format!("log.{} was removed from {} while it was copied", start.file, data.display());
            return Err(Error::new(Code::LogGap, text));
        }
        let latest = log.records().map(|(_, _, record)| record.committed_at()).max();
        *self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = Some((log.end(data)?, latest));
        let entry = |file: &format::LogFile| Entry {
            path: PathBuf::from(format::name(file.number)),
            size: Some(file.bytes.len() as u64),
        };
        Ok(log.files.iter().map(entry).collect())
    }

    /// Where the last listing ended.
    pub(super) fn end(&self) -> Option<End> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).clone()
    }
}

/// The tree without its log files.
pub(super) fn without_log_files(mut tree: DataTree) -> DataTree {
    tree.entries.retain(|entry| format::number_of(&entry.path).is_none());
    tree
}

#[cfg(test)]
mod tests;
