//! The transaction log of a store, read from its files: by whom it was written, where recovery begins, transaction by
//! transaction where it ends; shipping it while the server writes, and cutting it for a restore.
//!
//! - [`format`], [`header`], [`entry`]: what the bytes mean
//! - [`window`], [`scan`]: reading a file and verifying every transaction
//! - [`checkpoint`]: the checkpoint log
//! - [`files`]: which files there are, and pinning them

mod checkpoint;
mod entry;
mod files;
mod format;
mod header;
mod scan;
mod window;

pub use self::checkpoint::{
    Checkpoint, end_of_closed, last_checkpoint, last_transaction_of_closed, newest_checkpoint, newest_of,
};
pub use self::files::{CHECKPOINTS, LogFile, Pins, TRANSACTIONS, numbered};
pub use self::format::{Kernel, LogFormat};
pub use self::header::{HEADER_BYTES, LogHeader, StoreId, store_id};
pub use self::scan::{DataEnd, Predecessor, Scanner, Step, Tail, Transaction, data_end};
pub use self::window::ReadAt;

#[cfg(test)]
mod writer;

/// Where the log in `directory` ends when it is cut at `until`.
pub(super) fn cut(
    directory: &std::path::Path,
    _base: &crate::artifact::log_batch::LogMark,
    until: crate::driver::log::RecoveryTarget,
    _task: &crate::base::task::Task,
) -> crate::base::Result<crate::artifact::log_batch::LogMark> {
    let text = format!("cutting the log in {} at {until:?} is not available", directory.display());
    Err(crate::base::Error::new(crate::base::Code::NotAvailable, text))
}
