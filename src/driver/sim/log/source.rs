//! The fake database's log as the archive reads it.

use super::format::{self, HEADER_BYTES, Log, LogFile, RECORD_BYTES, Record};
use crate::artifact::digest::sha256_hex;
use crate::artifact::log_batch::{LogMark, LogSegment};
use crate::base::Result;
use crate::base::task::Task;
use crate::driver::log::{LogChunk, LogReader, Resumption};
use crate::driver::sim::control::Control;
use crate::driver::sim::steered_reader::SteeredReader;
use std::collections::BTreeMap;
use std::io::Cursor;
use std::path::{Path, PathBuf};

/// The log's format, as segments name it.
const LOG_FORMAT: &str = "SIM1";

/// See [`crate::driver::log::LogSource::resume`].
pub(in crate::driver::sim) fn resume(data: &Path, control: &Control, after: &LogMark) -> Result<Resumption> {
    let log = format::read(data)?;
    let (Some(first), Some(last)) = (log.files.first(), log.files.last()) else {
        return Ok(Resumption::Gap("there is no log any more".to_owned()));
    };
    if after.file < first.number {
        return Ok(Resumption::Gap(format!("the log begins with {}", format::name(first.number))));
    }
    let Some(file) = log.files.iter().find(|file| file.number == after.file) else {
        return Ok(Resumption::Forked(format!("the log ends with {}", format::name(last.number))));
    };
    match end_at(file, after.offset) {
        Some(found) if (found.transaction, &found.checksum) == (after.transaction, &after.checksum) => {
            let mut reader = Reader {
                data: data.to_owned(),
                control: control.clone(),
                position: after.clone(),
                seen: BTreeMap::new(),
            };
            reader.keep(log);
            Ok(Resumption::Continues(Box::new(reader)))
        }
        Some(found) => {
            let found = format!("transaction {} ({:?}) ends there", found.transaction, found.checksum);
            Ok(Resumption::Forked(found))
        }
        None => Ok(Resumption::Forked(format!("the log ends with transaction {}", last.end().transaction))),
    }
}

/// The mark at an offset of a file, if a record or the header ends there.
fn end_at(file: &LogFile, offset: u64) -> Option<LogMark> {
    if offset == HEADER_BYTES as u64 {
        return Some(LogFile { records: Vec::new(), ..file.clone() }.end());
    }
    let index = (0..file.records.len()).find(|index| format::offset_of(index + 1) == offset)?;
    Some(format::mark_after(file.number, format::offset_of(index), &file.records[index]))
}

struct Reader {
    data: PathBuf,
    control: Control,
    position: LogMark,
    /// Files from the one of the position on: they stay readable, even if the server removes them.
    seen: BTreeMap<u64, LogFile>,
}

impl Reader {
    fn keep(&mut self, log: Log) {
        let from = self.position.file;
        self.seen.extend(log.files.into_iter().map(|file| (file.number, file)));
        self.seen.retain(|number, _| *number >= from);
    }
}

impl LogReader for Reader {
    fn next(&mut self, limit: u64, task: &Task) -> Result<Option<LogChunk>> {
        task.check()?;
        self.keep(format::read(&self.data)?);
        let start = self.position.clone();
        let (mut segments, mut bytes, mut complete) = (Vec::new(), Vec::new(), true);
        for file in self.seen.values() {
            let from = if file.number == start.file { start.offset } else { 0 };
            let skipped = (from.max(HEADER_BYTES as u64) as usize - HEADER_BYTES) / RECORD_BYTES;
            let room = limit.saturating_sub(bytes.len() as u64) / RECORD_BYTES as u64;
            let least = usize::from(segments.is_empty());
            let wanted = usize::try_from(room).unwrap_or(usize::MAX).max(least);
            let left = &file.records[skipped.min(file.records.len())..];
            let taken = &left[..left.len().min(wanted)];
            complete &= taken.len() == left.len();
            if taken.is_empty() {
                if left.is_empty() { continue } else { break }
            }
            let end = format::offset_of(skipped + taken.len());
            let range = &file.bytes[from as usize..end as usize];
            segments.push(segment(file.number, from, range, taken));
            bytes.extend_from_slice(range);
            if let Some(last) = taken.last() {
                self.position = format::mark_after(file.number, end - RECORD_BYTES as u64, last);
            }
        }
        if segments.is_empty() {
            return Ok(None);
        }
        let reader = SteeredReader::of_log(Cursor::new(bytes), &self.control, task)?;
        let end = self.position.clone();
        Ok(Some(LogChunk { start, end, complete, covered_until: None, segments, reader: Box::new(reader) }))
    }
}

fn segment(file: u64, offset: u64, bytes: &[u8], records: &[Record]) -> LogSegment {
    LogSegment {
        file,
        offset,
        length: bytes.len() as u64,
        sha256: sha256_hex(bytes),
        first_transaction: records.first().map(|record| record.transaction),
        last_transaction: records.last().map(|record| record.transaction),
        transactions: records.len() as u64,
        first_committed_at: records.iter().map(Record::committed_at).min(),
        last_committed_at: records.iter().map(Record::committed_at).max(),
        log_format: LOG_FORMAT.to_owned(),
    }
}
