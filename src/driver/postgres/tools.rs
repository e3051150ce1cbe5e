//! PostgreSQL's own programs: where they are, and of which version.

use crate::base::process::{self, Launcher, OsUser, Running, Streams, Tool, ToolOutput};
use crate::base::task::Task;
use crate::base::{Code, Error, Result};
use std::path::PathBuf;
use std::sync::Arc;

/// The programs of one installation.
#[derive(Clone)]
pub(crate) struct Tools {
    /// The directory that holds them.
    pub bin_directory: PathBuf,
    /// What starts them.
    pub launcher: Arc<dyn Launcher>,
}

impl Tools {
    /// A program by name. Its messages are in English whatever the host speaks, because some are read.
    pub(crate) fn tool(&self, name: &str) -> Tool {
        Tool::new(self.bin_directory.join(name)).env("LC_ALL", "C")
    }

    /// Whether it is installed.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.bin_directory.join(name).is_file()
    }

    /// The major version that a program says it has. Errors: `TOOL_MISSING`, `POSTGRES_TOOL_FAILED`.
    pub(crate) fn major_version(&self, name: &str, task: &Task) -> Result<u32> {
        let tool = self.tool(name).arg("--version").as_its_owner();
        let said = process::run(self.launcher.as_ref(), &tool, task)?
            .expect_success(Code::PostgresToolFailed, &tool.command_line())?
            .text();
        parse_major(&said)
            .ok_or_else(|| Error::new(Code::PostgresToolFailed, format!("{} said {said:?}", tool.command_line())))
    }

    /// Refuses a program that is older than the server. Errors: `TOOL_MISSING`, `POSTGRES_UNSUPPORTED`.
    pub(crate) fn require_as_new_as(&self, server: u32, name: &str, task: &Task) -> Result<()> {
        let tool = self.major_version(name, task)?;
        if tool >= server {
            return Ok(());
        }
        let text = format!("{name} is of version {tool}, the server of version {server}");
        Err(Error::new(Code::PostgresUnsupported, text)
            .with_hint(format!("install the server's own tools: apt-get install postgresql-client-{server}")))
    }

    /// Starts a program whose output is read while it runs.
    pub(crate) fn read_from(&self, tool: &Tool, task: &Task) -> Result<(Running, ToolOutput)> {
        let mut running = self.launcher.launch(tool, Streams { input: false, output: true }, task)?;
        let output = running.take_output();
        let missing = || Error::new(Code::Internal, format!("{} was started without an output", tool.name()));
        Ok((running, output.ok_or_else(missing)?))
    }

    /// Runs a program that only looks, as `user`, and returns what it printed.
    pub(crate) fn look(&self, tool: Tool, user: Option<&OsUser>, task: &Task) -> Result<String> {
        let tool = match user {
            Some(user) if nix::unistd::geteuid().is_root() => tool.user(user.clone()),
            _ => tool,
        };
        let what = tool.command_line();
        Ok(process::run(self.launcher.as_ref(), &tool, task)?.expect_success(Code::PostgresToolFailed, &what)?.text())
    }
}

/// The major version in `pg_basebackup (PostgreSQL) 15.14 (Debian 15.14-1)`, `17beta2` or `15`.
pub(crate) fn parse_major(said: &str) -> Option<u32> {
    let number = said.split_whitespace().find(|word| word.starts_with(|c: char| c.is_ascii_digit()))?;
    let digits: String = number.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_read() {
        assert_eq!(parse_major("pg_basebackup (PostgreSQL) 15.14 (Debian 15.14-0+deb12u1)"), Some(15));
        assert_eq!(parse_major("postgres (PostgreSQL) 17beta2"), Some(17));
        assert_eq!(parse_major("16\n"), Some(16));
        assert_eq!(parse_major("nonsense"), None);
    }
}
