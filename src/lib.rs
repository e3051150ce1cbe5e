//! The library behind `neo4j-backupd` and `neo4j-backupctl`. A layer imports only layers below it, modules of layer 2
//! never import each other nor `config`, and only `agent/assemble.rs` names concrete drivers and stores;
//! `tests/tidy.rs` enforces it.
//!
//! | layer | module | what is in it |
//! |---|---|---|
//! | 0 | [`base`] | error registry, ids, clock, tasks, processes, secrets, atomic files |
//! | 1 | [`artifact`] | the vocabulary: manifest, object keys, digests, signing |
//! | 1 | [`config`] | fragments → merged input → validated settings |
//! | 2 | [`driver`] | what a database must be able to do; Neo4j, PostgreSQL, a simulated one |
//! | 2 | [`pipeline`] | filters on bounded threads: hash, compress, encrypt, and back |
//! | 2 | [`repository`] | stores for objects, and the conformance suite they pass |
//! | 2 | [`ledger`] | SQLite: targets, backups, objects, jobs, events |
//! | 2 | [`telemetry`] | journald fields, message ids |
//! | 2 | [`host`] | stop and start servers, swap directories, change owners |
//! | 3 | [`operation`] | the verbs, a file each |
//! | 4 | [`agent`] | jobs, lanes, recovery after a crash, assembly of the concrete parts |
//! | 5 | [`dbus`] | service and proxy |
//! | 6 | [`cli`] | commands, tables, JSON, exit codes |

pub mod artifact;
pub mod base;
pub mod config;

pub mod driver;
pub mod host;
pub mod ledger;
pub mod pipeline;
pub mod repository;
pub mod telemetry;

pub mod operation;

pub mod agent;

pub mod cli;
pub mod dbus;
