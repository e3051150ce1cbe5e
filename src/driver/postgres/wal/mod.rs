//! The write-ahead log: what `archive_command` hands over, how it is read, and how a restore replays it.
//!
//! - [`name`], [`page`], [`scan`]: names of segments, headers of pages, records; parsers of foreign bytes
//! - [`spool`]: where segments wait, durable, until every repository has them
//! - [`server`]: the server's side: its settings, and a switch of segments; [`quiet`]: whether there is a reason for one
//! - [`finishing`]: what a run of the archive begins with
//! - [`slot`]: a replication slot in the place of `archive_command`
//! - [`source`]: the log as the archive reads it
//! - [`outbox`]: what a recovering server asks for by name
//! - [`replay`]: what a restore does with batches
//! - [`search`]: what an operator names and only the log tells

mod finishing;
pub(crate) mod name;
mod outbox;
pub(crate) mod page;
pub(crate) mod quiet;
pub(crate) mod replay;
pub(crate) mod scan;
pub(crate) mod search;
pub(crate) mod server;
pub(crate) mod slot;
pub(crate) mod source;
pub(crate) mod spool;
