//! Layer 0: what every other layer stands on, and which stands on nothing of ours.
//!
//! - [`error`]: the registry of error codes, and the one error type that crosses layers
//! - [`ids`]: validated names (targets, backups, jobs) so that no raw string travels
//! - [`clock`]: the only place that reads the wall clock
//! - [`task`]: cancellation, progress and events of one piece of work
//! - [`process`]: the only place that starts programs
//! - [`atomic_file`]: temporary name, fsync, rename, fsync of the directory
//! - [`secret`]: bytes that are wiped, never printed, and loaded only from files nobody else can read
//! - [`lock`]: advisory locks on files, held for the life of a value
//! - [`retry`]: bounded, jittered delays between tries
//! - [`space`]: free space of the filesystem below a path
//! - [`neo4j_conf`]: a server's configuration as the server reads it
//! - [`bytes`]: sizes as people read them
//! - [`tar_stream`], [`untar`]: tar archives read strictly, and unpacked below one directory only
//! - [`durable_tree`]: owner, private modes and fsync for a whole directory tree

pub mod atomic_file;
pub mod bytes;
pub mod clock;
pub mod durable_tree;
pub mod error;
pub mod ids;
pub mod lock;
pub mod neo4j_conf;
mod overwrite;
pub mod process;
pub mod retry;
pub mod secret;
pub mod side_by_side;
pub mod space;
pub mod tar_stream;
pub mod task;
pub mod untar;

pub use error::{Code, Coded, Error, Result};
