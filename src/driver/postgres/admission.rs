//! Who is let in: peer authentication compares the account's name with the role's, so the accounts that the agent and
//! its tools run as are mapped to the role, by a line each in `pg_ident.conf` and one in `pg_hba.conf`.

use super::connection::{Address, CATALOG_TIMEOUT, TALK_TIMEOUT, within};
use super::{PostgresDriverSettings, tools::Tools};
use crate::base::atomic_file;
use crate::base::process::{self, OsUser};
use crate::base::task::Task;
use crate::base::{Error, Result};
use crate::driver::setup::{SetupBy, SetupStep};
use std::fs;
use std::path::Path;

/// The map's name.
const MAP: &str = "backup";
/// Above the line in `pg_hba.conf`, for its reader.
const REMARK: &str = "# neo4j-backup-agent: its accounts are let in as its role (pg_ident.conf has the map)";

/// The server's files that say who is let in.
pub(super) struct Files<'a> {
    /// `pg_hba.conf`
    pub(super) hba: &'a Path,
    /// `pg_ident.conf`
    pub(super) ident: &'a Path,
}

/// What a role's admission lacks, as a sentence with the lines.
pub(super) fn peer_map(settings: &PostgresDriverSettings) -> String {
    let lines: Vec<_> =
        accounts(settings).iter().map(|account| format!("`{}`", ident_line(account, settings))).collect();
    format!(
        "add {} to pg_ident.conf and, as the first line, `{}` to pg_hba.conf, then run `SELECT pg_reload_conf();`",
        lines.join(" and "),
        hba_line(settings)
    )
}

/// The accounts that must be let in: the agent's own, and root's tools'.
fn accounts(settings: &PostgresDriverSettings) -> Vec<String> {
    let (user, group) = (nix::unistd::geteuid(), nix::unistd::getegid());
    let mut accounts = vec![OsUser::of_uid(user.as_raw(), group.as_raw()).name];
    if user.is_root() {
        accounts.extend(tools_account(settings).map(|account| account.name));
        // Some tools run as the owner of the data.
        accounts.extend(OsUser::owner_of(&settings.data_directory).map(|owner| owner.name));
    }
    let mut seen = std::collections::BTreeSet::new();
    accounts.retain(|account| seen.insert(account.clone()));
    accounts
}

/// The account that PostgreSQL's tools are run as by root.
pub(super) fn tools_account(settings: &PostgresDriverSettings) -> Option<OsUser> {
    OsUser::of_name(&settings.user).or_else(|_| OsUser::owner_of(&settings.data_directory)).ok()
}

fn ident_line(account: &str, settings: &PostgresDriverSettings) -> String {
    format!("{MAP} {} {}", word(account), word(&settings.user))
}

fn hba_line(settings: &PostgresDriverSettings) -> String {
    format!("local all,replication {} peer map={MAP}", word(&settings.user))
}

/// A word in either file.
fn word(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
    match !text.is_empty() && text.chars().all(plain) && !["all", "replication"].contains(&text) {
        true => text.to_owned(),
        false => format!("\"{text}\""),
    }
}

/// What is missing, and with `apply` is added. The files keep their owners and modes. Nothing is missing where both sorts
/// of connection get as far as the role, which need not be there yet.
pub(super) fn steps(
    settings: &PostgresDriverSettings,
    address: &Address,
    tools: &Tools,
    files: &Files<'_>,
    apply: bool,
    task: &Task,
) -> Result<Vec<SetupStep>> {
    if address.password_file.is_some() || admitted(settings, address, tools, task) {
        return Ok(Vec::new());
    }
    let text = "the agent's accounts are let in as its role";
    if !address.host.starts_with('/') {
        let line = format!("host all,replication {} ADDRESS scram-sha-256", word(&settings.user));
        return Ok(vec![SetupStep::new(SetupBy::Person, text, line)]);
    }
    let mut steps = Vec::new();
    let ident: Vec<String> = accounts(settings).iter().map(|account| ident_line(account, settings)).collect();
    for (path, lines, first) in [(files.ident, ident, false), (files.hba, vec![hba_line(settings)], true)] {
        let before = fs::read_to_string(path).map_err(|cause| Error::io("reading", path, cause))?;
        let missing = missing(&before, &lines);
        if missing.is_empty() {
            continue;
        }
        if apply {
            replace(path, &with_lines(&before, &missing, first))?;
            task.info(format!("{text}: {} in {}", missing.join(", "), path.display()));
        }
        let step = |line: &String| SetupStep {
            done: apply,
            ..SetupStep::new(SetupBy::File(path.to_owned()), text, line.clone())
        };
        steps.extend(missing.iter().map(step));
    }
    Ok(steps)
}

/// Whether a connection and a replication connection get past authentication.
fn admitted(settings: &PostgresDriverSettings, address: &Address, tools: &Tools, task: &Task) -> bool {
    let asked = address.clone();
    let connected = within(TALK_TIMEOUT, "connecting", task, move || asked.connect_any(CATALOG_TIMEOUT).map(drop));
    let no_role = |message: &str| message.contains("role") && message.contains("does not exist");
    let by_us = connected.map_or_else(|error| no_role(error.message()), |()| true);
    by_us
        && match replication(settings, address, tools, task) {
            Some(Ok(())) | None => true,
            Some(Err(message)) => {
                no_role(&message) || message.contains("replication role") || message.contains("REPLICATION")
            }
        }
}

/// Whether `pg_hba.conf` admits replication; only a connection tells. `None` = it could not be tried.
pub(super) fn replication(
    settings: &PostgresDriverSettings,
    address: &Address,
    tools: &Tools,
    task: &Task,
) -> Option<Result<(), String>> {
    if address.password_file.is_some() || !tools.has("psql") {
        return None;
    }
    let connection =
        format!("host={} port={} user={} replication=true", value(&address.host), address.port, value(&address.user));
    let mut tool = tools.tool("psql").args(["-X", "-A", "-t", "-w", "-d", &connection, "-c", "IDENTIFY_SYSTEM"]);
    if nix::unistd::geteuid().is_root() {
        tool = tool.user(tools_account(settings)?);
    }
    let finished = process::run(tools.launcher.as_ref(), &tool, task).ok()?;
    Some(if finished.success { Ok(()) } else { Err(finished.stderr.trim().to_owned()) })
}

/// A value in a libpq connection string.
fn value(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}

/// The lines that a file lacks; blanks do not count.
fn missing(text: &str, lines: &[String]) -> Vec<String> {
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let present: Vec<_> = text.lines().map(words).collect();
    lines.iter().filter(|line| !present.contains(&words(line))).cloned().collect()
}

/// In `pg_hba.conf` the first line that fits decides.
fn with_lines(text: &str, lines: &[String], first: bool) -> String {
    let added = lines.join("\n");
    match first {
        true => format!("{REMARK}\n{added}\n{text}"),
        false if text.is_empty() || text.ends_with('\n') => format!("{text}{added}\n"),
        false => format!("{text}\n{added}\n"),
    }
}

/// A link's target is replaced, not the link.
fn replace(path: &Path, text: &str) -> Result<()> {
    let path = fs::canonicalize(path).map_err(|cause| Error::io("resolving", path, cause))?;
    atomic_file::replace(&path, text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connection_values_are_quoted() {
        assert_eq!(value("it's a \\ path"), "'it\\'s a \\\\ path'");
    }

    #[test]
    fn only_what_a_file_lacks_is_added() {
        let lines = ["backup root neo4j-backup".to_owned(), "backup postgres neo4j-backup".to_owned()];
        let text = "# MAP\nbackup\troot   neo4j-backup\n#backup postgres neo4j-backup";
        let missing = missing(text, &lines);
        assert_eq!(missing, lines[1..]);
        assert_eq!(with_lines(text, &missing, false), format!("{text}\nbackup postgres neo4j-backup\n"));
        assert_eq!(
            with_lines("local all all peer\n", &["x".to_owned()], true),
            format!("{REMARK}\nx\nlocal all all peer\n")
        );
    }

    #[test]
    fn words_with_a_meaning_of_their_own_are_quoted() {
        assert_eq!((word("neo4j-backup").as_str(), word("all").as_str()), ("neo4j-backup", "\"all\""));
        assert_eq!((word("a b").as_str(), word("+group").as_str()), ("\"a b\"", "\"+group\""));
    }
}
