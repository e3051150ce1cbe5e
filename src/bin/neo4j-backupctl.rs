//! The client.

use neo4j_backup_agent::base::{Code, Error};
use neo4j_backup_agent::cli::program;
use std::process::ExitCode;

fn main() -> ExitCode {
    program::client(&|_| Err(Error::new(Code::NotAvailable, "working without the agent")))
}
