//! Layer 2: what the agent says to the system's log, in a form that programs can search.
//!
//! - [`record`]: the occasions that have a message id of their own, and the fields that go with them
//! - [`journal`]: journald's native datagram protocol, for exactly those records
//! - [`subscriber`]: where everything goes: the journal when systemd connected us to it, else standard error
//!
//! `journalctl -u neo4j-backupd TARGET=graph` and `journalctl MESSAGE_ID=…` find the records.

pub mod journal;
pub mod record;
pub mod subscriber;
