//! The logs of one database during an online base: the checkpoint log, read first, and the transaction logs from its
//! newest checkpoint on, held open from then and copied last.

use super::archive::Archive;
use crate::artifact::log_batch::LogMark;
use crate::base::clock::wait_until;
use crate::base::task::Task;
use crate::base::{Code, Error, Result};
use crate::driver::neo4j::log::{
    CHECKPOINTS, Checkpoint, HEADER_BYTES, LogFile, Predecessor, TRANSACTIONS, Tail, data_end, follows, newest_of,
    numbered,
};
use crate::driver::tar_archive::Sink;
use jiff::Timestamp;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Largest checkpoint log that is read, in bytes; the server begins a new one at 1 MiB.
const CHECKPOINT_LOG_MAX: u64 = 64 << 20;
/// How long a checkpoint that is just being written, or a log that is just being pruned, may keep us.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(10);
/// How soon it is looked at again.
const SETTLE_INTERVAL: Duration = Duration::from_millis(5);

/// How many bytes of which file.
type Extents = Vec<(u64, u64)>;

/// Where a copied log ends.
pub(super) struct LogEnd {
    /// The point.
    pub(super) mark: LogMark,
    /// The latest time of commit in what was copied.
    pub(super) latest_commit: Option<Timestamp>,
}

/// What the logs hold.
struct Found {
    /// How much of each file is to be copied.
    extents: Extents,
    /// Where the last whole transaction ends.
    end: Option<LogMark>,
    /// The latest time of commit.
    latest_commit: Option<Timestamp>,
}

/// See the module.
pub(super) struct PinnedLogs {
    directory: PathBuf,
    checkpoint: Checkpoint,
    checkpoint_logs: Vec<(String, Vec<u8>)>,
    files: BTreeMap<u64, LogFile>,
}

impl PinnedLogs {
    /// Reads the checkpoint logs in `directory` and opens every transaction log that recovery from there needs.
    /// Errors: `NEO4J_UNSUPPORTED` if no checkpoint can be read, `LOG_GAP` if a log that it needs is not there.
    pub(super) fn pin(directory: &Path) -> Result<Self> {
        let mut outcome = None;
        wait_until(SETTLE_TIMEOUT, SETTLE_INTERVAL, || {
            let tried = try_pin(directory);
            // A torn entry is whole, and a pruned log superseded by a later checkpoint, a moment later.
            let settled =
                tried.as_ref().map_or_else(|e| !matches!(e.code(), Code::LogGap | Code::Neo4jUnsupported), |_| true);
            outcome = Some(tried);
            settled
        });
        outcome.unwrap_or_else(|| Err(Error::new(Code::Internal, "the logs were not looked at")))
    }

    /// The newest checkpoint at the time of pinning.
    pub(super) fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// Bytes that will be copied; the newest log may be preallocated, and counts only up to its checkpoint.
    pub(super) fn bytes(&self) -> u64 {
        let used = |log: &LogFile| match log.number.cmp(&self.checkpoint.log_version) {
            std::cmp::Ordering::Equal => self.checkpoint.log_offset,
            _ => log.file.metadata().map_or(0, |metadata| metadata.len()),
        };
        self.files.values().map(used).sum()
    }

    /// Adds the checkpoint logs as they were read at the start.
    pub(super) fn copy_checkpoints<S: Sink>(&self, archive: &mut Archive<S>, below: &Path) -> Result<()> {
        for (name, bytes) in &self.checkpoint_logs {
            archive.bytes(&below.join(name), bytes)?;
        }
        Ok(())
    }

    /// Adds the transaction logs up to the last whole transaction, and returns that end.
    pub(super) fn copy<S: Sink>(mut self, archive: &mut Archive<S>, below: &Path, task: &Task) -> Result<LogEnd> {
        while self.open_later()? {}
        let Found { extents, end, latest_commit } = self.find_end(task)?;
        for (number, bytes) in extents {
            let Some(log) = self.files.get(&number) else { continue };
            let name = below.join(format!("{TRANSACTIONS}{number}"));
            archive.file(&name, bytes, |buffer, offset| log.file.read_at(buffer, offset))?;
        }
        // A log that begins with its checkpoint has no transaction to show yet.
        let end = end.unwrap_or_else(|| self.checkpoint.mark());
        if end.transaction < self.checkpoint.transaction {
            let (ends, newest) = (end.transaction, self.checkpoint.transaction);
            let text = format!(
                "the log in {} ends at transaction {ends}, before its newest checkpoint at {newest}",
                self.directory.display()
            );
            return Err(Error::new(Code::LogCorrupted, text));
        }
        Ok(LogEnd { latest_commit: latest_commit.max(end.committed_at), mark: end })
    }

    /// Verifies the logs.
    fn find_end(&self, task: &Task) -> Result<Found> {
        let newest = self.files.keys().next_back().copied();
        let mut end: Option<LogMark> = None;
        let mut extents = Extents::new();
        // How many of them hold whole transactions, and how much of the last of those is before an unfinished one.
        let mut settled: Option<(usize, u64)> = None;
        let mut part = None;
        let mut latest_ms = None;
        for log in self.files.values() {
            // A file of an unknown format is refused; one that was only just begun holds nothing yet.
            let Some((header, _)) = log.header()? else { continue };
            let before = end.as_ref().map(Predecessor::from).unwrap_or_default().with_part(part);
            if part.is_some() && follows(&header, &before) == Some(false) {
                let text =
                    format!("{} does not follow the file before it, which ends inside a transaction", log.name());
                return Err(Error::new(Code::LogCorrupted, text));
            }
            let found = data_end(&*log.file, &log.name(), HEADER_BYTES, before, &|| task.check())?;
            if found.tail == Tail::Incomplete && Some(log.number) != newest {
                let text = format!("{} ends inside a transaction, but the log goes on in the next file", log.name());
                return Err(Error::new(Code::LogCorrupted, text));
            }
            if found.last.is_some() {
                settled = None;
            }
            latest_ms = found.latest_ms.max(latest_ms);
            part = match found.tail {
                Tail::Continues(part) => Some(part),
                _ => None,
            };
            if part.is_some() && settled.is_none() {
                settled = Some((extents.len(), found.offset));
            }
            extents.push((log.number, part.map_or(found.offset, |part| part.file_end)));
            end = found.last.map(|last| last.mark(log.number)).or(end);
        }
        // A transaction that goes on in a later file, and has no end there, is not part of the copy.
        if let Some((index, offset)) = settled {
            extents.truncate(index + 1);
            extents[index].1 = offset;
        }
        let latest_commit = latest_ms.and_then(|time| Timestamp::from_millisecond(time).ok());
        Ok(Found { extents, end, latest_commit })
    }

    /// Opens logs that were begun since; `false` when there was none.
    fn open_later(&mut self) -> Result<bool> {
        let before = self.files.len();
        hold(&mut self.files, &self.directory, self.checkpoint.recovery_start.0)?;
        Ok(self.files.len() != before)
    }
}

fn try_pin(directory: &Path) -> Result<PinnedLogs> {
    let mut checkpoint_logs = Vec::new();
    for (_, path) in numbered(directory, CHECKPOINTS)? {
        let mut bytes = Vec::new();
        File::open(&path)
            .and_then(|file| file.take(CHECKPOINT_LOG_MAX).read_to_end(&mut bytes))
            .map_err(|cause| Error::io("reading", &path, cause))?;
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        checkpoint_logs.push((name, bytes));
    }
    let newest = newest_of(checkpoint_logs.iter().map(|(_, bytes)| Ok(bytes)))?;
    let checkpoint = newest.ok_or_else(|| {
        let text = format!("found no checkpoint that can be read in {}", directory.display());
        Error::new(Code::Neo4jUnsupported, text).with_hint(
            "start the server once, so that it makes a checkpoint; if it runs, this release does not know its log format",
        )
    })?;
    let mut files = BTreeMap::new();
    hold(&mut files, directory, checkpoint.recovery_start.0)?;
    Ok(PinnedLogs { directory: directory.to_owned(), checkpoint, checkpoint_logs, files })
}

/// Opens every log from number `first` on that is not open yet. `LOG_GAP` if one of them is missing.
fn hold(files: &mut BTreeMap<u64, LogFile>, directory: &Path, first: u64) -> Result<()> {
    for (number, path) in numbered(directory, TRANSACTIONS)? {
        if number < first || files.contains_key(&number) {
            continue;
        }
        if let Some(opened) = LogFile::open(number, &path)? {
            files.insert(number, opened);
        }
    }
    let last = files.keys().next_back().copied().unwrap_or(first);
    match (first..=last).find(|number| !files.contains_key(number)) {
        Some(missing) => Err(gap(directory, missing)),
        None => Ok(()),
    }
}

fn gap(directory: &Path, number: u64) -> Error {
    let path = directory.join(format!("{TRANSACTIONS}{number}"));
    let text = format!("{} is not there, but recovery needs it", path.display());
    Error::new(Code::LogGap, text).with_hint(
        "the server pruned it while it was needed: raise `db.tx_log.rotation.retention_policy` in neo4j.conf and take the backup again",
    )
}
