//! The transaction log of a store, read from its files: by whom it was written, where recovery begins, transaction by
//! transaction where it ends; shipping it while the server writes, and cutting it for a restore.
//!
//! - [`format`], [`header`], [`entry`], [`envelope`]: what the bytes mean
//! - [`window`], [`scan`]: reading a file and verifying every transaction
//! - [`checkpoint`]: the checkpoint log
//! - [`files`]: which files there are, and pinning them
//! - [`source`], [`resume`], [`reader`]: shipping the log in batches of whole transactions
//! - [`walk`], [`cut`]: going through a directory, and ending it where a restore shall end

mod checkpoint;
mod cut;
mod entry;
mod envelope;
mod files;
mod format;
mod header;
mod reader;
mod resume;
mod scan;
mod source;
mod walk;
mod window;

pub use self::checkpoint::{
    Checkpoint, end_of_closed, last_checkpoint, last_transaction_of_closed, newest_checkpoint, newest_of,
};
pub use self::cut::{CutPlan, cut};
pub use self::envelope::OpenPart;
pub use self::files::{CHECKPOINTS, LogFile, Pins, TRANSACTIONS, numbered};
pub use self::format::{Kernel, LogFormat};
pub use self::header::{HEADER_BYTES, LogHeader, StoreId, store_id};
pub(in crate::driver::neo4j) use self::resume::follows;
pub use self::scan::{DataEnd, Predecessor, Remainder, Scanner, Step, Tail, Transaction, data_end};
pub use self::source::Neo4jLog;
pub use self::walk::{TransactionSummary, Transactions, transactions};
pub use self::window::ReadAt;

#[cfg(test)]
mod envelope_writer;
#[cfg(test)]
mod real_logs;
#[cfg(test)]
mod writer;
