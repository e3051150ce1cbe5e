//! Reads the records of the log, page by page, across segments: each record's checksum is compared, and what a restore can
//! be aimed at, commits and restore points, is noted (`XLogRecord` in `src/include/access/xlogrecord.h`,
//! `xl_xact_commit` in `xact.h`, `xl_restore_point` in `xlog_internal.h`).
//!
//! Nothing of a record is kept but its beginning, so that the largest costs no more than the smallest.

use super::name::Segment;
use super::page::{PAGE, PageHeader, bytes};
use crate::artifact::log_point::Lsn;
use crate::base::{Code, Error, Result};
use crate::driver::log::PointName;
use jiff::Timestamp;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// Bytes of a record's own header.
const HEADER: usize = 24;
/// Bytes of a record that are kept: header, headers of its data, and a commit's time or a restore point.
const KEPT: usize = 104;
/// Bytes that are kept of a record that makes a tablespace: its place, of at most `MAXPGPATH`, comes last.
const KEPT_PLACE: usize = HEADER + 5 + 4 + 1024;
/// Records begin at multiples of this.
const ALIGNMENT: u64 = 8;
/// Largest record there can be (`XLogRecordMaxSize`).
const RECORD_MAX: u32 = 1020 << 20;
/// The resource manager of the log itself.
const RM_XLOG: u8 = 0;
/// Its record that ends a segment early.
const XLOG_SWITCH: u8 = 0x40;
/// Its record that names a place (`XLOG_RESTORE_POINT`).
const XLOG_POINT: u8 = 0x70;
/// Its records of checkpoints: of a shutdown, of a server that runs, and where one of those began (from version 17 on).
const CHECKPOINTS: [u8; 3] = [0x00, 0x10, 0xE0];
/// The resource manager of standbys.
const RM_STANDBY: u8 = 8;
/// Its record of the transactions that run (`XLOG_RUNNING_XACTS`).
const RUNNING_XACTS: u8 = 0x10;
/// The resource manager of transactions.
const RM_XACT: u8 = 1;
/// The resource manager of tablespaces.
const RM_TBLSPC: u8 = 5;
/// Its record that makes one.
const TBLSPC_CREATE: u8 = 0x00;
/// Which of its operations a record is.
const XACT_OPERATION: u8 = 0x70;
/// `XLOG_XACT_COMMIT`, `XLOG_XACT_COMMIT_PREPARED`.
const COMMITS: [u8; 2] = [0x00, 0x30];
/// PostgreSQL counts from 2000-01-01.
const EPOCH_MICROSECONDS: i64 = 946_684_800_000_000;

/// A commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Commit {
    /// Where its record begins.
    pub(crate) start: u64,
    /// When it was made, by the server's clock.
    pub(crate) time: Timestamp,
    /// The transaction's number.
    pub(crate) xid: u32,
}

/// What is told of each record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    /// Where it begins.
    pub(crate) start: u64,
    /// Where the log goes on after it.
    pub(crate) end: u64,
    /// If it is a commit.
    pub(crate) commit: Option<Commit>,
    /// If it is a restore point.
    pub(crate) point: Option<PointName>,
    /// If it makes a tablespace: where.
    pub(crate) tablespace: Option<PathBuf>,
    /// Whether the server wrote it on its own account: a checkpoint, or which transactions run.
    pub(crate) housekeeping: bool,
}

/// A record of which a part was read.
struct Begun {
    start: u64,
    length: u32,
    done: u32,
    /// Its first bytes; see [`keep`].
    kept: Vec<u8>,
    crc: u32,
}

/// Where in the log the scanner is.
enum State {
    /// Somewhere inside a record whose beginning was not seen.
    Lost,
    /// Between two records.
    Between,
    /// Inside a record.
    Inside(Begun),
    /// Behind a switch: the rest of the segment holds nothing.
    Switched,
}

/// Reads records.
pub(crate) struct Scanner {
    timeline: u32,
    size: u64,
    state: State,
    /// Records before this position are not read.
    from: u64,
}

impl Scanner {
    /// For the log of `timeline` from `from` on, where a record begins; `None` = wherever the first one does.
    pub(crate) fn new(timeline: u32, size: u64, from: Option<u64>) -> Scanner {
        let state = if from.is_some() { State::Between } else { State::Lost };
        Scanner { timeline, size, state, from: from.unwrap_or(0) }
    }

    /// Reads a whole segment that follows the one before, and tells of each record that ends in it.
    pub(crate) fn segment(&mut self, segment: Segment, content: &[u8], tell: &mut dyn FnMut(Record)) -> Result<()> {
        if matches!(self.state, State::Switched) {
            self.state = State::Between;
        }
        for (index, page) in content.chunks(PAGE).enumerate() {
            let position = segment.start(self.size) + (index * PAGE) as u64;
            if position + PAGE as u64 <= self.from {
                continue;
            }
            if matches!(self.state, State::Switched) {
                break;
            }
            self.page(position, page, tell)?;
        }
        Ok(())
    }

    fn corrupted(&self, at: u64, why: &str) -> Error {
        let name = Segment::holding(self.timeline, at, self.size).name(self.size);
        Error::new(Code::LogCorrupted, format!("{name} at {}: {why}", Lsn(at)))
    }

    fn page(&mut self, position: u64, page: &[u8], tell: &mut dyn FnMut(Record)) -> Result<()> {
        let header = PageHeader::parse(page).ok_or_else(|| self.corrupted(position, "there is no page of the log"))?;
        if header.position != position || header.timeline > self.timeline {
            return Err(self.corrupted(position, "another piece of the log is there"));
        }
        let mut at = header.length();
        if self.from > position {
            // The position is that of a record, or of the page's first.
            at = at.max((self.from - position) as usize);
            if at == header.length() && header.continued > 0 {
                return Err(self.corrupted(position, "a record from before goes on where one should begin"));
            }
        } else {
            at = self.continued(position, page, &header, tell)?;
        }
        while at < page.len() && !matches!(self.state, State::Switched | State::Lost) {
            at = self.record(position, page, at, tell)?;
        }
        Ok(())
    }

    /// Takes the rest of a record from before; returns where the page goes on.
    fn continued(
        &mut self,
        position: u64,
        page: &[u8],
        header: &PageHeader,
        tell: &mut dyn FnMut(Record),
    ) -> Result<usize> {
        let at = header.length();
        if header.overwritten {
            self.state = State::Between;
            return Ok(at);
        }
        match std::mem::replace(&mut self.state, State::Between) {
            State::Inside(begun) => {
                if header.continued != begun.length - begun.done {
                    return Err(self.corrupted(position, "the rest of a record is not there"));
                }
                self.take(begun, position, page, at, tell)
            }
            State::Lost => {
                if header.continued as usize > page.len() - at {
                    self.state = State::Lost;
                    return Ok(page.len());
                }
                Ok(at + (header.continued as usize).next_multiple_of(ALIGNMENT as usize))
            }
            _ if header.continued > 0 => {
                Err(self.corrupted(position, "the rest of a record that did not begin is there"))
            }
            _ => Ok(at),
        }
    }

    /// Begins a record; returns where the page goes on.
    fn record(&mut self, position: u64, page: &[u8], at: usize, tell: &mut dyn FnMut(Record)) -> Result<usize> {
        let start = position + at as u64;
        let length = bytes(page, at).map(u32::from_ne_bytes).unwrap_or(0);
        if !(HEADER as u32..=RECORD_MAX).contains(&length) {
            return Err(self.corrupted(start, "no record begins there"));
        }
        let begun = Begun { start, length, done: 0, kept: Vec::with_capacity(KEPT), crc: 0 };
        self.take(begun, position, page, at, tell)
    }

    /// Takes what the page has of a record; returns where the page goes on.
    fn take(
        &mut self,
        mut begun: Begun,
        position: u64,
        page: &[u8],
        at: usize,
        tell: &mut dyn FnMut(Record),
    ) -> Result<usize> {
        let count = (page.len() - at).min((begun.length - begun.done) as usize);
        let part = &page[at..at + count];
        keep(&mut begun.kept, part);
        // The checksum covers what follows the header first, and the header without the checksum last.
        let skipped = HEADER.saturating_sub(begun.done as usize).min(count);
        begun.crc = crc32c::crc32c_append(begun.crc, &part[skipped..]);
        begun.done += count as u32;
        if begun.done < begun.length {
            self.state = State::Inside(begun);
            return Ok(page.len());
        }
        let end = (position + (at + count) as u64).next_multiple_of(ALIGNMENT);
        self.finished(begun, end, tell)?;
        Ok((end - position) as usize)
    }

    fn finished(&mut self, begun: Begun, end: u64, tell: &mut dyn FnMut(Record)) -> Result<()> {
        let kept = &begun.kept;
        let corrupted = |why| self.corrupted(begun.start, why);
        let stored = bytes(kept, 20).map(u32::from_ne_bytes).unwrap_or(0);
        if crc32c::crc32c_append(begun.crc, &kept[..20]) != stored {
            return Err(corrupted("a record does not have the checksum that it says"));
        }
        let (info, manager) = (kept[16], kept[17]);
        let commit = match manager == RM_XACT && COMMITS.contains(&(info & XACT_OPERATION)) {
            true => Some(commit(begun.start, kept).ok_or_else(|| corrupted("a commit has no time"))?),
            false => None,
        };
        let point = match manager == RM_XLOG && info & 0xF0 == XLOG_POINT {
            true => Some(point(kept).ok_or_else(|| corrupted("a restore point has no name"))?),
            false => None,
        };
        let tablespace = match manager == RM_TBLSPC && info & 0xF0 == TBLSPC_CREATE {
            true => Some(place(kept).ok_or_else(|| corrupted("a tablespace has no place"))?),
            false => None,
        };
        let switched = manager == RM_XLOG && info & 0xF0 == XLOG_SWITCH;
        self.state = if switched { State::Switched } else { State::Between };
        let end = if switched { end.next_multiple_of(self.size) } else { end };
        let housekeeping = match manager {
            RM_XLOG => CHECKPOINTS.contains(&(info & 0xF0)),
            RM_STANDBY => info & 0xF0 == RUNNING_XACTS,
            _ => false,
        };
        tell(Record { start: begun.start, end, commit, point, tablespace, housekeeping });
        Ok(())
    }
}

/// Keeps what is worth it of the next part of a record.
fn keep(kept: &mut Vec<u8>, part: &[u8]) {
    let room = |kept: &Vec<u8>| {
        let most = if kept.get(17) == Some(&RM_TBLSPC) { KEPT_PLACE } else { KEPT };
        most.saturating_sub(kept.len())
    };
    let (first, rest) = part.split_at(part.len().min(room(kept)));
    kept.extend_from_slice(first);
    // Which record it is may have come with the first bytes.
    kept.extend_from_slice(&rest[..rest.len().min(room(kept))]);
}

/// The place in a tablespace's record: it follows the number.
fn place(kept: &[u8]) -> Option<PathBuf> {
    let place = kept.get(data(kept)? + 4..)?.split(|byte| *byte == 0).next()?;
    Some(PathBuf::from(OsStr::from_bytes(place)))
}

/// The commit in a record's first bytes.
fn commit(start: u64, kept: &[u8]) -> Option<Commit> {
    let time = time(bytes(kept, data(kept)?)?)?;
    let xid = u32::from_ne_bytes(bytes(kept, 4)?);
    Some(Commit { start, time, xid })
}

/// The name in a restore point's record: it follows the time.
fn point(kept: &[u8]) -> Option<PointName> {
    let name = kept.get(data(kept)? + 8..)?.split(|byte| *byte == 0).next()?;
    let name = &name[..name.len().min(PointName::BYTES_MAX)];
    PointName::new(&String::from_utf8_lossy(name)).ok()
}

/// Where a record's own data begins, behind the headers of all its data.
fn data(kept: &[u8]) -> Option<usize> {
    let mut at = HEADER;
    loop {
        match kept.get(at)? {
            255 => return Some(at + 2),
            254 => return Some(at + 5),
            253 => at += 3,
            252 => at += 5,
            _ => return None,
        }
    }
}

fn time(stored: [u8; 8]) -> Option<Timestamp> {
    let microseconds = i64::from_ne_bytes(stored).checked_add(EPOCH_MICROSECONDS)?;
    Timestamp::from_microsecond(microseconds).ok()
}

#[cfg(test)]
pub(super) mod tests;
