//! The client: parse, ask the agent over the bus (or work in-process with `--direct`), print.

use neo4j_backup_agent::agent::assemble::{Role, driver, workshop};
use neo4j_backup_agent::agent::drop_ins::generate;
use neo4j_backup_agent::cli::program::{self, Parts};
use std::process::ExitCode;

fn main() -> ExitCode {
    program::client(&Parts { workshop: &|config| workshop(config, Role::Run), driver: &driver, generate: &generate })
}
