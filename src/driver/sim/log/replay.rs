//! What a restore does with the log of a fake database: lays batches over the base's own, cuts at the target, replays.

use super::format::{self, RECORD_BYTES, STATE_FILE};
use super::writer::write_at;
use crate::artifact::log_batch::{LogBatch, LogMark, LogSegment};
use crate::base::task::Task;
use crate::base::{Code, Error, Result};
use crate::driver::VolumeSink;
use crate::driver::log::RecoveryTarget;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

/// Takes one batch; it is laid over the files once it is whole.
pub(in crate::driver::sim) struct LogSink {
    data: PathBuf,
    segments: Vec<LogSegment>,
    bytes: Vec<u8>,
}

impl LogSink {
    /// For a batch that goes to the restored data directory `data`.
    pub(in crate::driver::sim) fn new(data: &Path, batch: &LogBatch) -> LogSink {
        LogSink { data: data.to_owned(), segments: batch.segments.clone(), bytes: Vec::new() }
    }
}

impl Write for LogSink {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl VolumeSink for LogSink {
    fn finish(self: Box<Self>, _: &Task) -> Result<()> {
        let mut rest = &self.bytes[..];
        for segment in &self.segments {
            let (bytes, later) = rest.split_at(rest.len().min(segment.length as usize));
            rest = later;
            lay_over(&self.data.join(format::name(segment.file)), segment.offset, bytes)?;
        }
        Ok(())
    }
}

/// Writes a range of a log file; what is there already must be the same, and there must be no hole before it.
fn lay_over(path: &Path, offset: u64, bytes: &[u8]) -> Result<()> {
    let failed = |why: &str| Error::new(Code::RestoreFailed, format!("laying the log over {}: {why}", path.display()));
    let present = match fs::read(path) {
        Ok(present) => present,
        Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        Err(cause) => return Err(Error::io("reading", path, cause)),
    };
    let Some(overlap) = present.get(offset as usize..) else { return Err(failed("there is a hole before it")) };
    let same = overlap.len().min(bytes.len());
    if overlap[..same] != bytes[..same] {
        return Err(failed("it holds something else there"));
    }
    write_at(path, bytes, offset)
}

/// Cuts the log in `data` at the target and says where it ends then.
pub(in crate::driver::sim) fn cut(data: &Path, until: RecoveryTarget, base_end: u64) -> Result<LogMark> {
    let log = format::read(data)?;
    let end = log.end(data)?;
    let last = match until {
        RecoveryTarget::End => end.transaction,
        RecoveryTarget::Transaction(number) => number,
        RecoveryTarget::BeforeTransaction(number) => number.saturating_sub(1),
        RecoveryTarget::Time(time) => {
            let later = log.records().find(|(_, _, record)| record.committed_at() > time);
            later.map_or(end.transaction, |(_, _, record)| record.transaction - 1)
        }
        RecoveryTarget::Lsn(_) | RecoveryTarget::Point(_) | RecoveryTarget::Immediate => {
            return Err(Error::new(Code::Usage, "the fake database has no such places"));
        }
    };
    if last < base_end || last > end.transaction {
        let text =
            format!("the log holds transactions after {base_end} up to {}, {last} is not there", end.transaction);
        return Err(Error::new(Code::RestoreTargetUnreachable, text));
    }
    if last == end.transaction {
        return Ok(end);
    }
    let keep = log.records().find(|(_, _, record)| record.transaction == last);
    // The last transaction of the base may be the one before the log's first record: then only the header stays.
    let mark = match keep {
        Some((file, began, record)) => format::mark_after(file, began, record),
        None => {
            let first = log.files.iter().find(|file| file.before.0 == last);
            let gone = || Error::new(Code::RestoreTargetUnreachable, format!("transaction {last} is not in the log"));
            format::LogFile { records: Vec::new(), ..first.ok_or_else(gone)?.clone() }.end()
        }
    };
    for file in log.files.iter().filter(|file| file.number > mark.file) {
        let path = data.join(format::name(file.number));
        fs::remove_file(&path).map_err(|cause| Error::io("removing", &path, cause))?;
    }
    let path = data.join(format::name(mark.file));
    let file = OpenOptions::new().write(true).open(&path);
    file.and_then(|file| file.set_len(mark.offset)).map_err(|cause| Error::io("cutting", &path, cause))?;
    Ok(mark)
}

/// What the server does when it starts: writes every slot again that is older than the log.
pub(in crate::driver::sim) fn recover(data: &Path) -> Result<u64> {
    let mut slots = format::slots(data)?;
    for (_, _, record) in format::read(data)?.records() {
        let older = slots.get(&record.key).is_none_or(|slot| slot.transaction <= record.transaction);
        if older {
            slots.insert(record.key, record.clone());
            let offset = u64::from(record.key) * RECORD_BYTES as u64;
            write_at(&data.join(STATE_FILE), &record.bytes(), offset)?;
        }
    }
    Ok(super::end(data)?.transaction)
}
