//! Reads a log forward from where its archive ends, across files, as batches of whole transactions.
//!
//! At a rotation the end stays after the last transaction of the file before, until the next file has one. Then the
//! next file is read from its first byte, header included. That a file is finished is believed only of one whose
//! successor has a header, and only after looking at its end once more: a transaction may have been written between.
//!
//! An enveloped file may end inside a transaction. The bytes of its beginning are shipped together with its end, and not
//! before: a server that crashes between takes them back.

use super::envelope::OpenPart;
use super::files::{LogFile, Pins};
use super::header::LogHeader;
use super::resume::{follows, last_before, same_kind};
use super::scan::{Predecessor, Scanner, Step, Tail, Transaction};
use crate::artifact::log_batch::{LogMark, LogSegment};
use crate::base::task::Task;
use crate::base::{Code, Error, Result};
use crate::driver::log::{LogChunk, LogReader};
use crate::driver::ranges::{Range, RangesReader};
use jiff::Timestamp;
use std::fs::File;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};

/// The reader of one log.
pub(super) struct FilesReader {
    directory: PathBuf,
    pins: Arc<Mutex<Pins>>,
    mark: LogMark,
    file: LogFile,
    /// Where to go on in `file`; 0 = with its header.
    offset: u64,
    /// What of the next transaction is in the files before.
    part: Option<OpenPart>,
    /// A file that follows was removed before it was read: what was given is all that can be given.
    torn: bool,
}

/// Why a piece ends.
enum Stop {
    Limit,
    Tail,
}

/// What was read of one file.
struct Piece {
    segment: Option<(LogSegment, LogMark)>,
    stop: Stop,
}

impl FilesReader {
    pub(super) fn new(
        directory: PathBuf,
        pins: Arc<Mutex<Pins>>,
        after: LogMark,
        (file, offset): (LogFile, u64),
    ) -> Self {
        FilesReader { directory, pins, mark: after, file, offset, part: None, torn: false }
    }

    fn before(&self) -> Predecessor {
        Predecessor::from(&self.mark).with_part(self.part)
    }

    fn pins(&self) -> MutexGuard<'_, Pins> {
        self.pins.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Reads up to `limit` bytes of whole transactions of the current file. `alone` = nothing else is in the batch, so
    /// that one larger transaction is let through.
    fn piece(&mut self, limit: u64, alone: bool, task: &Task) -> Result<Piece> {
        let Some((header, _)) = self.file.header()? else {
            if self.file.number > self.mark.file {
                // A server that recovers makes it anew.
                return Ok(Piece { segment: None, stop: Stop::Tail });
            }
            let text = format!("{} lost its header while it was read", self.file.name());
            return Err(Error::new(Code::LogForked, text));
        };
        let mut scanner = self.scanner(&header)?;
        let mut tally: Option<Tally> = None;
        let (stop, sha256) = loop {
            task.check()?;
            match scanner.step() {
                Ok(Step::Transaction(transaction)) => {
                    if transaction.end - self.offset > limit && !(alone && tally.is_none()) {
                        break (Stop::Limit, scanner.sha256_before_last());
                    }
                    tally = Some(Tally::with(tally, transaction));
                }
                Ok(Step::Remainder(_)) => return Err(self.headless()),
                Ok(Step::End(_)) => break (Stop::Tail, scanner.sha256()),
                // What is whole goes first; the next look will find the same or, after a restart, something else.
                Err(_) if tally.is_some() => break (Stop::Limit, scanner.sha256()),
                Err(error) => return Err(error),
            }
        };
        let segment = tally.map(|tally| tally.segment(&self.file, self.offset, sha256, &header));
        Ok(Piece { segment, stop })
    }

    /// The file after the current one, if the current one is finished.
    fn next_file(&mut self) -> Result<Next> {
        let number = self.file.number + 1;
        let next = self.pins().open(&self.directory, number)?;
        let Some(next) = next else {
            return match self.pins().hole_after(&self.directory, self.file.number)? {
                // More may have been written to it before the log went on.
                Some(_) if self.has_more()? => Ok(Next::Again),
                Some(_) => Ok(Next::Hole),
                None => Ok(Next::None),
            };
        };
        let Some((header, _)) = next.header()? else { return Ok(Next::None) };
        let Some((own, _)) = self.file.header()? else { return Ok(Next::None) };
        same_kind(&own, &header, &next.name())?;
        let name = self.file.name();
        let mut scanner = self.scanner(&own)?;
        let part = match scanner.step()? {
            Step::Transaction(_) => return Ok(Next::Again),
            Step::Remainder(_) => return Err(self.headless()),
            Step::End(Tail::Zeros | Tail::Eof) => None,
            Step::End(Tail::Continues(part)) => Some(part),
            Step::End(Tail::Incomplete) => {
                let text = format!(
                    "{name} is damaged at byte {}: a transaction has no end there, although the log goes on in file {number}",
                    self.offset
                );
                return Err(Error::new(Code::LogCorrupted, text));
            }
        };
        if own.store.identity() != header.store.identity() {
            return Err(Error::new(Code::LogForked, format!("{} is of another store than {name}", next.name())));
        }
        if follows(&header, &self.before().with_part(part)) == Some(false) {
            let text = format!(
                "{} begins after {}, the file before it ends after transaction {} with append index {:?}",
                next.name(),
                last_before(&header),
                self.mark.transaction,
                self.mark.append_index.unwrap_or_default()
            );
            return Err(Error::new(Code::LogCorrupted, text));
        }
        let rest = part.map(|part| {
            let segment = LogSegment {
                file: self.file.number,
                offset: self.offset,
                length: part.file_end - self.offset,
                sha256: scanner.sha256_open(),
                first_transaction: None,
                last_transaction: None,
                transactions: 0,
                first_committed_at: None,
                last_committed_at: None,
                log_format: own.format.name().to_owned(),
            };
            Box::new((segment, part))
        });
        Ok(Next::File(next, rest))
    }

    /// Whether a whole transaction follows in the current file.
    fn has_more(&self) -> Result<bool> {
        let Some((header, _)) = self.file.header()? else { return Ok(false) };
        Ok(matches!(self.scanner(&header)?.step()?, Step::Transaction(_)))
    }

    /// Goes on in the file that took the place of the current one, if nothing of that was archived. Whether it follows
    /// what was is for its first transaction to say.
    fn take_replaced(&mut self) {
        let held = self.pins().get(self.file.number).filter(|held| !held.is_same(&self.file));
        if let Some(held) = held.filter(|held| held.number > self.mark.file) {
            (self.file, self.offset) = (held, 0);
        }
    }

    /// A scan from where this stands, which takes the digest of all it goes over.
    fn scanner(&self, header: &LogHeader) -> Result<Scanner<Arc<File>>> {
        let lead = if self.offset == 0 { self.file.lead(header)? } else { Vec::new() };
        let (file, name) = (self.file.file.clone(), self.file.name());
        Ok(Scanner::new(file, &name, self.offset, self.before()).with_digest(&lead))
    }

    fn headless(&self) -> Error {
        let text =
            format!("{} begins inside a transaction, but the file before it does not end in one", self.file.name());
        Error::new(Code::LogCorrupted, text)
    }

    /// Collects pieces until the limit or the end, and tells whether it was the end; what was collected is in `batch` even
    /// if an error ends it.
    fn collect(&mut self, limit: u64, task: &Task, batch: &mut Batch) -> Result<bool> {
        let mut ahead = Ahead::default();
        let outcome = self.collect_ahead(limit, task, batch, &mut ahead);
        // A transaction of which only the beginning is there is looked at again from its beginning.
        if let Some((file, offset)) = ahead.back {
            (self.file, self.offset, self.part) = (file, offset, None);
        }
        outcome
    }

    fn collect_ahead(&mut self, limit: u64, task: &Task, batch: &mut Batch, ahead: &mut Ahead) -> Result<bool> {
        loop {
            let left = limit.saturating_sub(batch.bytes + ahead.segments.bytes);
            let alone = batch.segments.is_empty();
            let piece = match self.piece(left, alone, task) {
                // A server that recovers may have changed what was half read: look again before saying so.
                Err(error) if error.code() == Code::LogCorrupted => self.piece(left, alone, task)?,
                other => other?,
            };
            if let Some((segment, mark)) = piece.segment {
                (self.offset, self.part) = (mark.offset, None);
                self.mark = mark;
                batch.append(std::mem::take(ahead).segments);
                batch.push(segment, &self.file);
            }
            // A file is one segment of a batch at most; the rest of it begins the next batch.
            let is_in = batch.segments.last().is_some_and(|last| last.file == self.file.number);
            match piece.stop {
                Stop::Limit => return Ok(false),
                Stop::Tail => match self.next_file()? {
                    Next::File(_, Some(_)) | Next::Again if is_in => return Ok(false),
                    Next::File(file, rest) => {
                        if let Some((segment, part)) = rest.map(|rest| *rest) {
                            ahead.back.get_or_insert_with(|| (self.file.clone(), self.offset));
                            ahead.segments.push(segment, &self.file);
                            self.part = Some(part);
                        }
                        (self.file, self.offset) = (file, 0);
                    }
                    Next::Again => {}
                    Next::None => return Ok(true),
                    Next::Hole => {
                        self.torn = true;
                        return Ok(false);
                    }
                },
            }
        }
    }
}

/// What follows the end of a file.
enum Next {
    /// Nothing yet.
    None,
    /// It is gone, and later ones are there.
    Hole,
    /// More was written to it meanwhile.
    Again,
    /// This file; and the rest of the one before, if that ends inside a transaction.
    File(LogFile, Option<Box<(LogSegment, OpenPart)>>),
}

/// The beginning of a transaction whose end was not found yet.
#[derive(Default)]
struct Ahead {
    segments: Batch,
    /// Where it begins.
    back: Option<(LogFile, u64)>,
}

impl LogReader for FilesReader {
    fn next(&mut self, limit: u64, task: &Task) -> Result<Option<LogChunk>> {
        let from = self.file.number.min(self.mark.file);
        self.pins().hold_more(&self.directory, from)?;
        if self.torn {
            return Ok(None);
        }
        self.take_replaced();
        let start = self.mark.clone();
        let mut batch = Batch::default();
        let outcome = self.collect(limit, task, &mut batch);
        if batch.segments.is_empty() || outcome.as_ref().is_err_and(|error| error.code() == Code::Cancelled) {
            return outcome.map(|_| None);
        }
        let reader = Box::new(RangesReader::new(batch.ranges));
        let complete = outcome.unwrap_or(false);
        Ok(Some(LogChunk {
            start,
            end: self.mark.clone(),
            complete,
            // What follows may be lost before it is read: no later moment is certain.
            covered_until: (!complete).then(|| self.mark.committed_at.unwrap_or(Timestamp::UNIX_EPOCH)),
            segments: batch.segments,
            reader,
        }))
    }

    fn covered_until(&self, asked: Timestamp) -> Option<Timestamp> {
        (!self.torn).then_some(asked)
    }

    fn is_left(&self) -> bool {
        self.torn
    }
}

#[derive(Default)]
struct Batch {
    bytes: u64,
    segments: Vec<LogSegment>,
    ranges: Vec<Range>,
}

impl Batch {
    fn append(&mut self, mut other: Batch) {
        self.bytes += other.bytes;
        self.segments.append(&mut other.segments);
        self.ranges.append(&mut other.ranges);
    }

    fn push(&mut self, segment: LogSegment, file: &LogFile) {
        self.bytes += segment.length;
        self.ranges.push(Range {
            file: file.file.clone(),
            name: file.name(),
            offset: segment.offset,
            length: segment.length,
            sha256: segment.sha256.clone(),
        });
        self.segments.push(segment);
    }
}

/// What is known of the transactions of a segment.
struct Tally {
    first: u64,
    last: Transaction,
    transactions: u64,
    times_ms: (i64, i64),
}

impl Tally {
    fn with(before: Option<Tally>, next: Transaction) -> Tally {
        let time = next.committed_ms;
        match before {
            None => Tally { first: next.id, transactions: 1, times_ms: (time, time), last: next },
            Some(before) => Tally {
                first: before.first,
                transactions: before.transactions + 1,
                times_ms: (before.times_ms.0.min(time), before.times_ms.1.max(time)),
                last: next,
            },
        }
    }

    fn segment(self, file: &LogFile, offset: u64, sha256: String, header: &LogHeader) -> (LogSegment, LogMark) {
        let time = |ms| jiff::Timestamp::from_millisecond(ms).ok();
        let segment = LogSegment {
            file: file.number,
            offset,
            length: self.last.end - offset,
            sha256,
            first_transaction: Some(self.first),
            last_transaction: Some(self.last.id),
            transactions: self.transactions,
            first_committed_at: time(self.times_ms.0),
            last_committed_at: time(self.times_ms.1),
            log_format: header.format.name().to_owned(),
        };
        (segment, self.last.mark(file.number))
    }
}
