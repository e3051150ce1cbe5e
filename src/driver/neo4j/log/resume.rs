//! Finds the place in a log where its archive ends, and decides whether the log still goes on from there.
//!
//! What was archived were whole transactions, so that a server that crashed, lost the torn tail of its log and wrote
//! something else in its place continues the archive. A server that was restored to an older moment does not: it
//! numbers what follows with ids that the archive holds with other checksums.

use super::files::{LogFile, Pins};
use super::format::{LogFormat, unsupported};
use super::header::LogHeader;
use super::scan::{Predecessor, Remainder, Scanner, Step, checksum_text};
use crate::artifact::log_batch::LogMark;
use crate::base::task::Task;
use crate::base::{Code, Result};
use std::path::Path;

/// What the log holds at a mark.
pub(super) enum Place {
    /// It goes on in this file at this byte; 0 = with the header.
    At(LogFile, u64),
    /// It holds something else; says what.
    Forked(String),
    /// It no longer reaches back that far; says how far it does.
    Gap(String),
}

/// Looks for `after` in `directory`, and in what is held of it.
pub(super) fn locate(directory: &Path, pins: &Pins, after: &LogMark, task: &Task) -> Result<Place> {
    let named = directory.display();
    let Some((oldest, newest)) = pins.readable(directory, 0)? else {
        return Ok(Place::Gap(format!("there is no log in {named}")));
    };
    let wanted = format!("the archive ends after transaction {} in file {}", after.transaction, after.file);
    if newest < after.file {
        return Ok(Place::Forked(format!("{wanted}, the newest file in {named} is {newest}")));
    }
    if let Some(file) = pins.open(directory, after.file)? {
        if let Some(what) = objection(&file, after, task)? {
            return Ok(Place::Forked(format!("{wanted}, but {}: {what}", file.name())));
        }
        // What the file still holds is archived before a hole behind it is one.
        let hole = pins.hole_after(directory, after.file)?;
        return Ok(match hole.filter(|_| !has_more(&file, after)) {
            Some(hole) => Place::Gap(format!("{wanted}: {hole}")),
            None => Place::At(file, after.offset),
        });
    }
    let first = pins.readable(directory, after.file)?.map_or(oldest, |(first, _)| first);
    let file = pins.open(directory, first)?;
    let header = file.as_ref().map(LogFile::header).transpose()?.flatten();
    let (Some(file), Some((header, _))) = (file, header) else {
        return Ok(Place::Gap(format!("{wanted}, the oldest file in {named} is {first}, which has no header yet")));
    };
    let gap = format!("{wanted}, the oldest file in {named} is {first}, which begins after {}", last_before(&header));
    match follows(&header, &Predecessor::from(after)) {
        Some(true) => {}
        Some(false) if is_older(&header, after) => return Ok(Place::Forked(gap)),
        // Whether nothing lies between is then for the first transaction to say.
        None if first == after.file + 1 => {}
        _ => return Ok(Place::Gap(gap)),
    }
    if first != after.file + 1 {
        return Ok(Place::Gap(gap));
    }
    first_of_next(file, header, after, gap)
}

/// Whether a whole transaction follows the mark in its file, or something that a reader must say.
fn has_more(file: &LogFile, after: &LogMark) -> bool {
    let step = Scanner::new(&file.file, &file.name(), after.offset, Predecessor::from(after)).step();
    !matches!(step, Ok(Step::End(_)))
}

/// The mark stood at the very end of a file that was pruned, if the first transaction of the next file follows it.
fn first_of_next(file: LogFile, header: LogHeader, after: &LogMark, gap: String) -> Result<Place> {
    let name = file.name();
    let first = Scanner::new(&file.file, &name, header.data_start, Predecessor::default()).step()?;
    match first {
        // The transaction that ends here began after the mark, in a file that is gone.
        Step::Remainder(_) => Ok(Place::Gap(gap)),
        Step::Transaction(first) => match Predecessor::from(after).objection(&first) {
            None => Ok(Place::At(file, 0)),
            Some(_) if first.id > after.transaction + 1 => Ok(Place::Gap(gap)),
            Some(what) => Ok(Place::Forked(format!("{name}: {what}"))),
        },
        Step::End(_) if follows(&header, &Predecessor::from(after)) == Some(true) => Ok(Place::At(file, 0)),
        Step::End(_) => Ok(Place::Gap(gap)),
    }
}

/// Why the file that the mark lies in does not hold what the mark says; `None` = it does.
fn objection(file: &LogFile, after: &LogMark, task: &Task) -> Result<Option<String>> {
    let Some((header, _)) = file.header()? else { return Ok(Some("it has no header".to_owned())) };
    if after.offset <= header.data_start {
        let differs = follows(&header, &Predecessor::from(after)) == Some(false);
        return Ok(differs.then(|| format!("it begins after {}", last_before(&header))));
    }
    // Without the transaction's own beginning the whole file is read: that the mark is a bound must be certain.
    let begin = after.began.unwrap_or(header.data_start);
    let mut scanner = Scanner::new(&file.file, &file.name(), begin, Predecessor::default());
    loop {
        task.check()?;
        let found = match scanner.step() {
            Ok(Step::Transaction(transaction)) => transaction,
            Ok(Step::Remainder(rest)) if rest.end == after.offset => return Ok(other_remainder(&rest, after)),
            Ok(Step::Remainder(_)) => continue,
            Ok(Step::End(_)) => return Ok(Some(format!("its transactions end at byte {}", scanner.position()))),
            // In another history other bytes lie here: the middle of a transaction, perhaps.
            Err(error) if matches!(error.code(), Code::LogCorrupted | Code::Neo4jUnsupported) => {
                return Ok(Some(error.message().to_owned()));
            }
            Err(error) => return Err(error),
        };
        if found.end < after.offset && after.began.is_none() {
            continue;
        }
        let own = found.mark(after.file);
        let same = found.end == after.offset
            && found.id == after.transaction
            && after.checksum.as_ref().is_none_or(|checksum| *checksum == checksum_text(found.checksum))
            && after.append_index.zip(own.append_index).is_none_or(|(expected, own)| expected == own);
        let what = || {
            format!(
                "transaction {} with checksum {} ends there at byte {}, not transaction {} with checksum {} at byte {}",
                own.transaction,
                own.checksum.as_deref().unwrap_or("unknown"),
                own.offset,
                after.transaction,
                after.checksum.as_deref().unwrap_or("unknown"),
                after.offset
            )
        };
        return Ok((!same).then(what));
    }
}

/// Why the end of a transaction that began in an earlier file is not that of the mark's.
fn other_remainder(rest: &Remainder, after: &LogMark) -> Option<String> {
    let own = (Some(rest.append_index), Some(checksum_text(rest.checksum)));
    let expected = (after.append_index, after.checksum.clone());
    let what = |(index, checksum): (Option<u64>, Option<String>)| {
        format!("append index {} with checksum {}", index.unwrap_or_default(), checksum.unwrap_or_default())
    };
    (own != expected).then(|| format!("{} ends at byte {}, not {}", what(own), rest.end, what(expected)))
}

/// Refuses a log that goes on in envelopes in the file called `name`, or without: no server was seen to write that.
pub(super) fn same_kind(own: &LogHeader, next: &LogHeader, name: &str) -> Result<()> {
    if (own.format == LogFormat::V10) == (next.format == LogFormat::V10) {
        return Ok(());
    }
    let (before, after) = (own.format.name(), next.format.name());
    Err(unsupported(format!(
        "{name} has the log format {after}, the file before it {before}: the log changes between them"
    ))
    .with_hint("take a new base, which begins behind the change: `neo4j-backupctl backup TARGET --type full`"))
}

/// Whether a file with this header follows directly; `None` = the header cannot say.
pub(in crate::driver::neo4j) fn follows(header: &LogHeader, before: &Predecessor) -> Option<bool> {
    if let Some(part) = &before.part {
        let said = (header.last_before, header.previous_checksum);
        return Some(said == (part.append_index, Some(part.checksum)));
    }
    let last = match header.format {
        LogFormat::V8 => before.transaction,
        LogFormat::V9 | LogFormat::V10 => before.append_index,
    };
    let checksums = header.previous_checksum.map(checksum_text).zip(before.checksum.as_ref());
    let chained = checksums.is_none_or(|(said, known)| said == *known);
    last.map(|last| last == header.last_before && chained)
}

fn is_older(header: &LogHeader, after: &LogMark) -> bool {
    let last = match header.format {
        LogFormat::V8 => Some(after.transaction),
        LogFormat::V9 | LogFormat::V10 => after.append_index,
    };
    // The same index, and yet it does not follow: there the checksums differ.
    last.is_some_and(|last| header.last_before <= last)
}

/// What a header counts, in words.
pub(super) fn last_before(header: &LogHeader) -> String {
    match header.format {
        LogFormat::V8 => format!("transaction {}", header.last_before),
        LogFormat::V9 | LogFormat::V10 => format!("append index {}", header.last_before),
    }
}
