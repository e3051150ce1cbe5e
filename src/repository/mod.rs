//! Layer 2: where backups are kept. [`store::Store`] is the seam; everything that knows what a backup is stands above it.
//!
//! - [`store`]: what a place that keeps objects must be able to do
//! - [`local`]: a directory; [`s3`]: a bucket; [`memory`]: nothing but memory
//! - [`retry`], [`dry_run`], [`record`]: stores around a store
//! - [`conformance`]: one suite that every store passes
//! - [`small_object`]: objects that fit into memory, in one call
//! - [`catalog`]: the repository as its users see it: backups, manifests, owners
//! - [`batches`]: batches of a log
//! - `escrow`: older passphrases, kept under the newest
//! - [`recover_text`]: the instructions and the script that are kept beside the backups
//! - [`fault`]: what goes wrong in a store

pub mod batches;
pub mod catalog;
#[doc(hidden)]
pub mod conformance;
pub mod dry_run;
mod escrow;
pub mod fault;
pub mod local;
pub mod memory;
pub mod ownership;
pub mod record;
pub mod recover_text;
pub mod retry;
pub mod s3;
pub mod small_object;
pub mod store;

#[cfg(test)]
mod sample;
