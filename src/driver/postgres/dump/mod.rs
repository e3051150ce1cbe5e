//! Logical full backups: what `pg_dumpall` says of roles and settings, and each database as `pg_dump` writes it.
//!
//! All databases are dumped from snapshots that were taken together at the beginning and are held to the end
//! ([`snapshots`]); rows are counted within the same ones, so the counts in the manifest are those of the dump whatever is
//! written meanwhile. `pg_dump` is left uncompressed: the pipeline compresses better, and on threads of its own.
//!
//! - [`load`]: the way back, into a cluster that is made for the purpose

pub(crate) mod load;
mod snapshots;
mod words;

use super::client_tool::{client_tool, to_database};
use super::connection::{Address, CATALOG_TIMEOUT, TALK_TIMEOUT, asking, within};
use super::tools::Tools;
use super::{PostgresDriverSettings, base_backup, census, inspection};
use crate::artifact::manifest::{Content, Role};
use crate::base::process::{OsUser, Running, Tool, ToolOutput};
use crate::base::task::Task;
use crate::base::{Code, Error, Result};
use crate::driver::{FullBackup, FullReport, Volume, VolumeReader, VolumeSpec};
use snapshots::Snapshots;
use std::io::Read;
use std::path::Path;
use std::time::Duration;
use words::Words;

/// How long a program may be silent: it may wait for a lock that long.
const SILENCE: Duration = Duration::from_secs(1800);
/// How long `pg_dump` waits for a table that somebody has locked, in milliseconds.
const LOCK_WAIT: &str = "--lock-wait-timeout=600000";
/// The volume with roles and settings.
const GLOBALS: &str = "globals";

/// How a database is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DumpFormat {
    /// An archive for `pg_restore`.
    Custom,
    /// A script for `psql`.
    Plain,
}

/// Whether the tools are there and not older than the server. Errors: `TOOL_MISSING`, `POSTGRES_UNSUPPORTED`.
pub(crate) fn check_tools(address: &Address, tools: &Tools, task: &Task) -> Result<()> {
    let asked = address.clone();
    let server = within(TALK_TIMEOUT, "asking for the version", task, move || {
        inspection::version_num(&mut asked.connect_any(CATALOG_TIMEOUT)?)
    })?;
    let server = (server / 10_000).max(0) as u32;
    ["pg_dump", "pg_dumpall"].iter().try_for_each(|name| tools.require_as_new_as(server, name, task))
}

/// Takes the snapshots and describes the volumes; nothing is dumped before its volume is opened.
pub(crate) fn begin(
    settings: &PostgresDriverSettings,
    address: &Address,
    tools: &Tools,
    workspace: &Path,
    task: &Task,
) -> Result<Box<dyn FullBackup>> {
    check_tools(address, tools, task)?;
    let owner = OsUser::owner_of(&settings.data_directory)?;
    let snapshots = Snapshots::take(address, &settings.databases, task)?;
    let (passwords, warnings) = weaknesses(address, task)?;
    let mut globals = client_tool("pg_dumpall", address, tools, &owner, workspace)?
        .args(["--globals-only", "--no-tablespaces"])
        .arg("-l")
        .arg(to_database(snapshots.any()))
        .idle_timeout(SILENCE);
    if !passwords {
        globals = globals.arg("--no-role-passwords");
    }
    let mut volumes = vec![volume(Content::PgGlobals, GLOBALS, "globals.sql".to_owned(), 0, globals, tools)];
    for snapshot in snapshots.all() {
        let (content, format, ending) = match settings.dump_format {
            DumpFormat::Custom => (Content::PgDump, "--format=custom", "dump"),
            DumpFormat::Plain => (Content::PgScript, "--format=plain", "sql"),
        };
        let mut tool = client_tool("pg_dump", address, tools, &owner, workspace)?
            .args([format, "--no-tablespaces", LOCK_WAIT])
            .arg(format!("--snapshot={}", snapshot.id))
            .arg("-d")
            .arg(to_database(&snapshot.database))
            .idle_timeout(SILENCE);
        tool = match settings.dump_format {
            DumpFormat::Custom => tool.arg("--compress=0"),
            DumpFormat::Plain => tool.arg("--create"),
        };
        let extension = format!("{}.{ending}", key_name(&snapshot.database));
        volumes.push(volume(content, &snapshot.database, extension, snapshot.size, tool, tools));
    }
    Ok(Box::new(Dump { volumes, snapshots, warnings }))
}

/// Whether roles can be dumped with their passwords, and what the dump will lack.
fn weaknesses(address: &Address, task: &Task) -> Result<(bool, Vec<String>)> {
    let (asked, role) = (address.clone(), address.user.clone());
    within(TALK_TIMEOUT, "preparing the dump", task, move || {
        let mut client = asked.connect_any(CATALOG_TIMEOUT)?;
        let statement = "SELECT rolsuper FROM pg_roles WHERE rolname = current_user";
        let superuser: bool = client.query_one(statement, &[]).map_err(asking("the role"))?.get(0);
        let mut warnings = Vec::new();
        if !superuser {
            warnings
                .push(format!("roles come back without their passwords: {role} is no superuser and may not read them"));
        }
        let tablespaces = base_backup::tablespaces(&mut client)?;
        if !tablespaces.is_empty() {
            warnings.push(format!("what is in tablespaces comes back in the default one: {}", tablespaces.join(", ")));
        }
        Ok((superuser, warnings))
    })
}

/// A database's name as part of a key, in which few characters may be; two databases never share one.
fn key_name(database: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    match database.bytes().all(plain) {
        true => format!("db-{database}"),
        false => format!("dbx-{}", database.bytes().map(|byte| format!("{byte:02x}")).collect::<String>()),
    }
}

fn volume(content: Content, name: &str, extension: String, estimated_bytes: u64, tool: Tool, tools: &Tools) -> Volume {
    let spec = VolumeSpec {
        name: name.to_owned(),
        role: Role::Data,
        content,
        extension,
        lane: 0,
        striped: false,
        compressed: false,
        hash_plain: true,
        estimated_bytes,
    };
    let tools = tools.clone();
    let open = move |task: &Task| {
        let (running, output) = tools.read_from(&tool, task)?;
        Ok(Box::new(Reader { running, output, words: Words::of(content), tool: tool.name() }) as Box<dyn VolumeReader>)
    };
    Volume { spec, open: Box::new(open) }
}

struct Dump {
    volumes: Vec<Volume>,
    snapshots: Snapshots,
    warnings: Vec<String>,
}

impl FullBackup for Dump {
    fn take_volumes(&mut self) -> Vec<Volume> {
        std::mem::take(&mut self.volumes)
    }

    fn finish(self: Box<Self>, task: &Task) -> Result<FullReport> {
        let scope =
            census::Scope { snapshots: self.snapshots.by_database(), ..census::Scope::of(&self.snapshots.names()) };
        let mut statistics = census::take(self.snapshots.address(), &scope, task)?.statistics;
        // An index that is not valid is no part of a dump.
        statistics.schema.retain(|line| !line.ends_with(census::INVALID));
        statistics.exact = !statistics.schema.is_empty();
        Ok(FullReport { warnings: self.warnings, statistics: Some(statistics), ..FullReport::default() })
    }
}

/// Reads a program's output, and looks whether it begins and ends as such output does.
struct Reader {
    running: Running,
    output: ToolOutput,
    words: Words,
    tool: String,
}

impl Read for Reader {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.output.read(buffer)?;
        self.words.push(&buffer[..count]);
        Ok(count)
    }
}

impl VolumeReader for Reader {
    fn finish(self: Box<Self>, task: &Task) -> Result<()> {
        let ended = self.running.wait()?.expect_success(Code::PostgresToolFailed, &self.tool);
        ended.map_err(explained)?;
        task.check()?;
        self.words.judge(&self.tool)
    }
}

/// Adds the literal remedy for what goes wrong most.
fn explained(cause: Error) -> Error {
    let message = cause.message().to_owned();
    let remedies = [
        ("row-level security", "let the role see all rows: ALTER ROLE \"neo4j-backup\" BYPASSRLS;"),
        (
            "permission denied for large object",
            "large objects are read by their owners and superusers only: set `user` to one",
        ),
        ("permission denied", "GRANT pg_read_all_data TO \"neo4j-backup\";"),
        ("lock timeout", "somebody has a table locked: SELECT * FROM pg_locks WHERE mode = 'AccessExclusiveLock';"),
    ];
    match remedies.iter().find(|(words, _)| message.contains(words)) {
        Some((_, remedy)) => cause.with_hint(*remedy),
        None => cause,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_database_has_a_key_of_its_own() {
        assert_eq!(key_name("metrics_2026"), "db-metrics_2026");
        assert_eq!(key_name("Odd db/\u{e9}"), "dbx-4f64642064622fc3a9");
        assert_ne!(key_name("x-41"), key_name("xA"));
    }

    #[test]
    fn the_remedy_is_said() {
        let hint = |text: &str| explained(Error::new(Code::PostgresToolFailed, text.to_owned())).hint().to_owned();
        assert!(hint("permission denied for table x").contains("pg_read_all_data"));
        assert!(hint("permission denied for large object 5").contains("large objects"));
        assert!(hint("query would be affected by row-level security policy").contains("BYPASSRLS"));
    }
}
