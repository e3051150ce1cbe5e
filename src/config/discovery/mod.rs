//! What the short form leaves out is looked up on the host: files that packages put there, never a running server.
//!
//! - [`host`]: the host, seen through a root directory, so that tests can fake one
//! - [`neo4j`], [`postgresql`]: what each leaves where
//! - [`servers`]: which servers there are at all, for who begins a configuration
//! - [`postgresql_conf`]: how `postgresql.conf` is read; `neo4j.conf` is read by [`crate::base::neo4j_conf`]

pub mod host;
pub mod neo4j;
pub mod postgresql;
pub mod postgresql_conf;
pub mod servers;
