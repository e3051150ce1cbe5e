//! Ends a log where a restore shall end: what lies behind is cut off before a server recovers from it.
//!
//! Everything from where recovery starts up to the end is verified on the way: no server sees bytes that do not close.

mod place;

use super::checkpoint::last_checkpoint;
use super::files::{TRANSACTIONS, numbered};
use super::format::unsupported;
use super::scan::{Predecessor, Transaction};
use super::walk::Walk;
use crate::artifact::log_batch::LogMark;
use crate::base::task::Task;
use crate::base::{Code, Error, Result, atomic_file};
use crate::driver::log::RecoveryTarget;
use jiff::Timestamp;
use std::fs::OpenOptions;
use std::path::Path;

/// Commit times that run back by more than this are worth a warning: the server's clock was set.
const INVERSION_MS: i64 = 1000;

/// What a log is cut to.
#[derive(Clone, Copy, Debug)]
pub struct CutPlan {
    /// The last transaction that the base contains: without it, the base is not consistent.
    pub base_end: u64,
    /// How far.
    pub until: RecoveryTarget,
    /// The moment up to which the log is known to be complete, if it is known: a database that was idle has no
    /// transaction to tell. A time after the last transaction and after this is not reached.
    pub covered_until: Option<Timestamp>,
}

/// Verifies the log in `directory` from where recovery starts (its newest checkpoint), cuts it right after the last
/// transaction of `plan`, removes later files, and makes that durable. Returns where the log then ends, which is where
/// recovery must arrive. The checkpoint log is not touched.
///
/// To a time means: before the first transaction, in the order of ids, that was committed later. Errors:
/// `RESTORE_TARGET_UNREACHABLE` if the target lies before the base's end or after the log's, `LOG_GAP` and
/// `LOG_CORRUPTED` if the log is not whole up to the target, `NEO4J_UNSUPPORTED`.
pub fn cut(directory: &Path, plan: &CutPlan, task: &Task) -> Result<LogMark> {
    let checkpoint = last_checkpoint(directory)?.ok_or_else(|| {
        unsupported(format!("found no checkpoint that this release can read in {}", directory.display()))
    })?;
    let floor = plan.base_end.max(checkpoint.transaction);
    let last_wanted = last_wanted(plan.until, floor)?;
    let (file, offset) = checkpoint.recovery_start;
    let at_position = checkpoint.recovery_start == (checkpoint.log_version, checkpoint.log_offset);
    let mut end = None;
    let mut walk = Walk::from(directory, file, offset, Predecessor::default())?;
    let mut beyond = None;
    let mut first = true;
    while let Some((file, transaction)) = walk.next()? {
        task.check()?;
        if std::mem::take(&mut first)
            && at_position
            && let Some(objection) = place::objection(directory, &checkpoint, &transaction)?
        {
            return Err(Error::new(
                Code::LogCorrupted,
                format!("after the checkpoint in {}, {objection}", directory.display()),
            ));
        }
        let excluded = match plan.until {
            RecoveryTarget::Time(time) => is_later(&transaction, time, floor)?,
            _ => last_wanted.is_some_and(|last| transaction.id > last),
        };
        if excluded {
            beyond = Some(transaction);
            break;
        }
        end = Some(transaction.mark(file));
    }
    if end.is_none() && at_position {
        end = Some(place::end(directory, &checkpoint)?);
    }
    let found = end.as_ref().map_or(0, |end| end.transaction);
    let Some(end) = end.filter(|end| end.transaction >= floor) else {
        let text = format!("the log ends after transaction {found}, the base needs it up to {floor}");
        return Err(Error::new(Code::LogGap, text));
    };
    match (plan.until, &beyond) {
        (RecoveryTarget::Time(time), Some(beyond)) => warn_of_inversions(&mut walk, beyond, time, task)?,
        (until, None) => reached(until, last_wanted, &end, floor, plan.covered_until)?,
        _ => {}
    }
    truncate(directory, &end)?;
    Ok(end)
}

/// The last transaction of a target that names one.
fn last_wanted(until: RecoveryTarget, floor: u64) -> Result<Option<u64>> {
    let last = match until {
        RecoveryTarget::End | RecoveryTarget::Time(_) => return Ok(None),
        RecoveryTarget::Lsn(_) | RecoveryTarget::Point(_) | RecoveryTarget::Immediate => {
            return Err(Error::new(Code::Usage, "Neo4j's log has no such places"));
        }
        RecoveryTarget::Transaction(last) => last,
        RecoveryTarget::BeforeTransaction(next) => next.saturating_sub(1),
    };
    if last < floor {
        let text = format!("transaction {last} lies before the base's end, which is transaction {floor}");
        return Err(unreachable_target(text).with_hint("choose an older base: `neo4j-backupctl list TARGET`"));
    }
    Ok(Some(last))
}

fn is_later(transaction: &Transaction, time: Timestamp, floor: u64) -> Result<bool> {
    let later = transaction.committed_ms > time.as_millisecond();
    if later && transaction.id <= floor {
        let committed = transaction.committed_at().map_or_else(|| "then".to_owned(), |at| at.to_string());
        let text = format!(
            "{time} lies before the base's end: its transaction {} was committed at {committed}",
            transaction.id
        );
        return Err(unreachable_target(text).with_hint("choose an older base: `neo4j-backupctl list TARGET`"));
    }
    Ok(later)
}

/// Whether a log of which nothing is left over reaches the target.
fn reached(
    until: RecoveryTarget,
    last_wanted: Option<u64>,
    end: &LogMark,
    floor: u64,
    covered_until: Option<Timestamp>,
) -> Result<()> {
    let last_commit = end.committed_at.map_or_else(|| "an unknown time".to_owned(), |at| at.to_string());
    let holds =
        format!("the log holds transactions {floor} to {}, the last committed at {last_commit}", end.transaction);
    let what = match until {
        RecoveryTarget::Time(time) if end.committed_at.max(covered_until).is_none_or(|known| known < time) => {
            time.to_string()
        }
        _ if last_wanted.is_some_and(|last| last > end.transaction) => {
            format!("transaction {}", last_wanted.unwrap_or_default())
        }
        _ => return Ok(()),
    };
    Err(unreachable_target(format!("{what} lies after the log's end: {holds}")))
}

fn unreachable_target(text: String) -> Error {
    Error::new(Code::RestoreTargetUnreachable, text)
}

/// Transactions that were committed in time, but after one that was not. Damage behind the target is nobody's concern.
fn warn_of_inversions(walk: &mut Walk, beyond: &Transaction, time: Timestamp, task: &Task) -> Result<()> {
    let (mut count, mut largest) = (0u64, 0);
    while let Ok(Some((_, transaction))) = walk.next() {
        task.check()?;
        let back = beyond.committed_ms.saturating_sub(transaction.committed_ms);
        if transaction.committed_ms <= time.as_millisecond() && back > INVERSION_MS {
            count += 1;
            largest = largest.max(back);
        }
    }
    if count > 0 {
        task.warn(format!(
            "{count} transactions after {} are not restored although the server's clock said {time} or earlier at \
             their commit: it ran back by up to {largest} ms",
            beyond.id.saturating_sub(1)
        ));
    }
    Ok(())
}

fn truncate(directory: &Path, end: &LogMark) -> Result<()> {
    for (number, path) in numbered(directory, TRANSACTIONS)?.into_iter().rev() {
        if number > end.file {
            std::fs::remove_file(&path).map_err(|cause| Error::io("removing", &path, cause))?;
        } else if number == end.file {
            OpenOptions::new()
                .write(true)
                .open(&path)
                .and_then(|file| file.set_len(end.offset).and_then(|()| file.sync_all()))
                .map_err(|cause| Error::io("cutting", &path, cause))?;
        }
    }
    atomic_file::sync_directory(directory)
}

#[cfg(test)]
mod tests;
