//! The agent.

use neo4j_backup_agent::base::{Code, Error};
use neo4j_backup_agent::cli::program;
use std::process::ExitCode;

fn later() -> Error {
    Error::new(Code::NotAvailable, "assembling the agent")
}

fn main() -> ExitCode {
    program::daemon(&|_| Err(later()), &|_, _| Err(later()))
}
