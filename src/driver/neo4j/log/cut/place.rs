//! The place that a checkpoint names, and the transaction. A server reads the two one after the other while writers commit:
//! the transaction may lie behind the place, and others than it may lie before it.

use crate::artifact::log_batch::LogMark;
use crate::base::Result;
use crate::driver::neo4j::log::checkpoint::Checkpoint;
use crate::driver::neo4j::log::files::{LogFile, TRANSACTIONS};
use crate::driver::neo4j::log::header::LogHeader;
use crate::driver::neo4j::log::resume::follows;
use crate::driver::neo4j::log::scan::{Predecessor, Transaction};
use crate::driver::neo4j::log::walk::Walk;
use std::path::Path;

/// Why a transaction cannot be the first after a checkpoint's place; `None` = it can.
pub(super) fn objection(directory: &Path, checkpoint: &Checkpoint, first: &Transaction) -> Result<Option<String>> {
    let Some(objection) = Predecessor::from(&checkpoint.mark()).objection(first) else { return Ok(None) };
    let possible = match first.id.checked_sub(checkpoint.transaction) {
        None | Some(0) => true,
        // The next one with another predecessor is of another history.
        Some(1) => false,
        Some(_) => Before::of(directory, checkpoint)?.leads_to(first),
    };
    Ok(if possible { None } else { Some(objection) })
}

/// Where the log ends if nothing follows the place.
pub(super) fn end(directory: &Path, checkpoint: &Checkpoint) -> Result<LogMark> {
    let before = Before::of(directory, checkpoint)?;
    let later = before.last.filter(|last| before.agrees && last.id > checkpoint.transaction);
    Ok(later.map_or_else(|| checkpoint.mark(), |last| last.mark(checkpoint.log_version)))
}

/// What lies before the place in its file, each transaction verified.
struct Before {
    last: Option<Transaction>,
    header: Option<LogHeader>,
    /// Whether the transaction that the checkpoint names is, where it is there, the one that it means.
    agrees: bool,
}

impl Before {
    fn of(directory: &Path, checkpoint: &Checkpoint) -> Result<Before> {
        let file = LogFile::open(
            checkpoint.log_version,
            &directory.join(format!("{TRANSACTIONS}{}", checkpoint.log_version)),
        )?;
        let header = file.as_ref().map(LogFile::header).transpose()?.flatten().map(|(header, _)| header);
        let mut before = Before { last: None, header, agrees: true };
        let mut walk = Walk::from(directory, checkpoint.log_version, 0, Predecessor::default())?;
        while let Some((file, transaction)) = walk.next()? {
            if file != checkpoint.log_version || transaction.end > checkpoint.log_offset {
                break;
            }
            before.agrees &= transaction.id != checkpoint.transaction || transaction.checksum == checkpoint.checksum;
            before.last = Some(transaction);
        }
        Ok(before)
    }

    /// Whether the log goes on with `first`: after the last one before the place, or after what its file's header counts.
    fn leads_to(&self, first: &Transaction) -> bool {
        let follows_header = || {
            let before = Predecessor {
                transaction: Some(first.id - 1),
                append_index: first.append_index.map(|index| index.saturating_sub(1)),
                ..Predecessor::default()
            };
            self.header.as_ref().is_some_and(|header| follows(header, &before) == Some(true))
        };
        self.agrees
            && self.last.as_ref().map_or_else(follows_header, |last| Predecessor::from(last).objection(first).is_none())
    }
}
