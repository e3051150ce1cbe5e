//! Layer 6: what a person types and sees. The same commands serve `neo4j-backupctl` (over the bus, or in its own
//! process with `--direct`) and `neo4j-backupd run`.
//!
//! - [`args`]: commands and options, the one source of help, completions and man pages; [`later`]: those to come
//! - `values`: how single values are read; [`postgres_restore`]: options of one database's restores
//! - [`translate`]: commands → requests; [`when`]: times as people type them
//! - [`connection`]: where requests go: [`over_bus`], [`in_process`]
//! - [`program`]: a command from beginning to end; [`local`], [`file_crypt`], [`config_commands`]: those that need no agent
//! - [`confirm`]: questions before anything is destroyed; [`questions`]: others; [`interrupt`]: Ctrl-C
//! - [`progress`]: a bar on a terminal, lines in a pipe
//! - [`render`]: answers as text, a file each; [`output`]: tables, JSON, where it goes
//! - [`mod@init`]: from an installed package to the first verified backup; [`setup`]: what a server lacks
//! - [`timers`]: whether a database is backed up by itself
//! - [`wal`]: archiving a server's log
//! - [`exit`]: exit statuses, errors as people and programs read them

pub mod args;
pub mod config_commands;
pub mod confirm;
pub mod connection;
pub mod exit;
pub mod file_crypt;
pub mod in_process;
pub mod init;
pub mod interrupt;
pub mod later;
pub mod local;
pub mod output;
pub mod over_bus;
pub mod parse;
pub mod postgres_restore;
pub mod program;
pub mod progress;
pub mod questions;
pub mod render;
pub mod setup;
pub mod timers;
pub mod translate;
mod values;
pub mod wal;
pub mod when;
