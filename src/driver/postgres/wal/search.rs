//! Looks in archived segments for what an operator names and no manifest tells: a transaction's commit, a restore point.

use super::name::{Segment, is_segment_size};
use super::scan::{Record, Scanner};
use super::source::timeline_of;
use crate::artifact::log_batch::LogBatch;
use crate::base::{Code, Error, Result};
use crate::driver::log::{Landmark, LogSearch, PointName, RecoveryTarget};
use std::collections::VecDeque;
use std::io::{self, Write};

/// What is looked for.
#[derive(Clone, Copy)]
enum Wanted {
    /// The end of this transaction's commit.
    Commit(u32),
    /// Its beginning.
    BeforeCommit(u32),
    /// A restore point.
    Point(PointName),
}

impl Wanted {
    /// What a record says of it.
    fn found(self, record: &Record) -> Option<Landmark> {
        let landmark = |position, at| Some(Landmark { until: RecoveryTarget::Lsn(position), at });
        match (self, record.commit, record.point) {
            (Wanted::Commit(xid), Some(commit), _) if commit.xid == xid => landmark(record.end, Some(commit.time)),
            (Wanted::BeforeCommit(xid), Some(commit), _) if commit.xid == xid => {
                landmark(record.start, Some(commit.time))
            }
            (Wanted::Point(name), _, Some(point)) if point == name => landmark(record.end, None),
            _ => None,
        }
    }
}

/// A search.
pub(crate) struct Search {
    wanted: Wanted,
    batch: Option<Batch>,
    /// The first segment of the batch that was searched before this one, which is the one that follows it: a record may
    /// begin in one and end in the other.
    later: Option<(Segment, Vec<u8>)>,
    found: Option<Landmark>,
}

/// A batch that is being read.
struct Batch {
    scanner: Scanner,
    size: u64,
    segments: VecDeque<Segment>,
    content: Vec<u8>,
    first: Option<(Segment, Vec<u8>)>,
    /// Number of the last segment that was read.
    last: u64,
}

/// The search that a target needs; `None` where it says by itself where recovery ends.
pub(crate) fn search(until: RecoveryTarget) -> Result<Option<Search>> {
    let number = |xid| {
        let text = format!("{xid} is no transaction of PostgreSQL, whose numbers have 32 bits");
        u32::try_from(xid).map_err(|_| {
            Error::new(Code::Usage, text)
                .with_hint("`pg_xact_commit_timestamp` and the server's log show numbers without their epoch")
        })
    };
    let wanted = match until {
        RecoveryTarget::Transaction(xid) => Wanted::Commit(number(xid)?),
        RecoveryTarget::BeforeTransaction(xid) => Wanted::BeforeCommit(number(xid)?),
        RecoveryTarget::Point(name) => Wanted::Point(name),
        RecoveryTarget::End | RecoveryTarget::Time(_) | RecoveryTarget::Lsn(_) | RecoveryTarget::Immediate => {
            return Ok(None);
        }
    };
    Ok(Some(Search { wanted, batch: None, later: None, found: None }))
}

impl Search {
    /// Reads the segment that is complete.
    fn segment(&mut self) -> Result<()> {
        let Some(batch) = &mut self.batch else { return Ok(()) };
        let Some(segment) = batch.segments.pop_front() else {
            return Err(Error::new(Code::BackupCorrupted, "the batch holds more than its segments"));
        };
        let (wanted, found) = (self.wanted, &mut self.found);
        batch.scanner.segment(segment, &batch.content, &mut |record| *found = wanted.found(&record).or(*found))?;
        batch.last = segment.number;
        let content = std::mem::take(&mut batch.content);
        batch.first.get_or_insert((segment, content));
        Ok(())
    }
}

impl LogSearch for Search {
    fn begin(&mut self, batch: &LogBatch) -> Result<()> {
        let bad = |why: &str| Error::new(Code::BackupCorrupted, format!("the batch {} {why}", batch.object.key));
        let timeline = timeline_of(&batch.end).ok_or_else(|| bad("names no timeline"))?;
        let size = batch.end.offset;
        if !is_segment_size(size) || batch.segments.iter().any(|segment| (segment.offset, segment.length) != (0, size))
        {
            return Err(bad("holds something else than whole segments"));
        }
        let segments = batch.segments.iter().map(|segment| Segment { timeline, number: segment.file }).collect();
        let scanner = Scanner::new(timeline, size, None);
        self.batch = Some(Batch { scanner, size, segments, content: Vec::new(), first: None, last: 0 });
        Ok(())
    }

    fn end(&mut self) -> Result<Option<Landmark>> {
        let Some(mut batch) = self.batch.take() else { return Ok(None) };
        let follows = |(later, _): &&(Segment, Vec<u8>)| later.number == batch.last + 1;
        // What lies there as a whole was not what is looked for, or nobody would ask for this batch.
        if let Some((later, content)) = self.later.as_ref().filter(follows) {
            let (wanted, found) = (self.wanted, &mut self.found);
            batch.scanner.segment(*later, content, &mut |record| *found = wanted.found(&record).or(*found))?;
        }
        self.later = batch.first;
        Ok(self.found)
    }
}

impl Write for Search {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(batch) = &mut self.batch else { return Err(io::Error::other("no batch was begun")) };
        let room = usize::try_from(batch.size).unwrap_or(usize::MAX) - batch.content.len();
        let count = bytes.len().min(room);
        batch.content.extend_from_slice(&bytes[..count]);
        if count == room {
            self.segment()?;
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
