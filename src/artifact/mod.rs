//! Layer 1: the vocabulary of what is kept. Pure data and pure functions; nothing here touches a disk or a server.
//!
//! - [`object_key`]: names of objects in a repository
//! - [`manifest`]: the signed record of one backup
//! - [`log_batch`]: the signed record of one batch of a database's log
//! - [`log_point`]: points of a log as people write them
//! - [`digest`]: SHA-256 by parts of 16 MiB
//! - [`signing`]: keys derived from passphrases, and signed JSON documents
//! - [`escrow`]: older passphrases, encrypted under newer ones
//! - [`identity`]: who writes a chain, and which repository this is
//! - [`statistics`]: what a database held when it was backed up

pub mod digest;
pub mod escrow;
pub mod identity;
pub mod log_batch;
pub mod log_point;
pub mod manifest;
pub mod object_key;
pub mod signing;
pub mod statistics;
