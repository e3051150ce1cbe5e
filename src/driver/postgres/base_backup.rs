//! A full backup with `pg_basebackup`: one tar stream of the whole cluster, with the WAL it needs and its manifest.
//!
//! The stream is read along: its end must be the end of an archive, it must hold what no cluster is without, and the
//! manifest that the server adds as the last file says where recovery starts and ends. So a tool that ends early and
//! claims success is found out.

use super::client_tool::client_tool;
use super::connection::{Address, CATALOG_TIMEOUT, TALK_TIMEOUT, asking, within};
use super::inspection::{setting, version_num};
use super::tools::Tools;
use super::{PostgresDriverSettings, census, grants};
use crate::artifact::manifest::{Content, LogPosition, Role};
use crate::base::process::{OsUser, Running, Tool, ToolOutput};
use crate::base::tar_stream::{Member, Members, TarStream};
use crate::base::task::Task;
use crate::base::{Code, Error, Result};
use crate::driver::{FullBackup, FullReport, Volume, VolumeReader, VolumeSpec};
use postgres::Client;
use serde::Deserialize;
use std::io::Read;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Files that every cluster has, and a base backup without which is none.
const ESSENTIAL: [&str; 4] = ["PG_VERSION", "backup_label", "global/pg_control", "backup_manifest"];
/// Bytes kept of the manifest's end, where the WAL ranges stand.
const MANIFEST_TAIL: usize = 64 << 10;
/// How long `pg_basebackup` may be silent: a checkpoint comes first, and a busy server takes its time for it.
const SILENCE: Duration = Duration::from_secs(900);

/// Checks that a base backup can be made and describes it; nothing is read before its volume is opened. `warnings` are
/// those of [`weaknesses`].
pub(crate) fn begin(
    settings: &PostgresDriverSettings,
    address: &Address,
    tools: &Tools,
    warnings: Vec<String>,
    workspace: &Path,
    task: &Task,
) -> Result<Box<dyn FullBackup>> {
    let owner = OsUser::owner_of(&settings.data_directory)?;
    let asked = address.clone();
    let ready = within(TALK_TIMEOUT, "preparing the base backup", task, move || check(&asked))?;
    tools.require_as_new_as(ready.major, "pg_basebackup", task)?;
    let tool = command(address, tools, &owner, workspace)?;
    let found = Arc::new(Mutex::new(None));
    let volume = Volume {
        spec: VolumeSpec {
            name: "base".to_owned(),
            role: Role::Data,
            content: Content::Tar,
            extension: "base.tar".to_owned(),
            lane: 0,
            striped: false,
            compressed: false,
            hash_plain: false,
            estimated_bytes: ready.size,
        },
        open: {
            let (found, tools, role) = (found.clone(), tools.clone(), address.user.clone());
            Box::new(move |task: &Task| {
                let (running, output) = tools.read_from(&tool, task)?;
                let stream = TarStream::new(Contents::default());
                Ok(Box::new(BaseReader { running, output, stream, found, role }) as Box<dyn VolumeReader>)
            })
        },
    };
    Ok(Box::new(BaseBackup { volume: Some(volume), found, warnings }))
}

/// The command line of `pg_basebackup`, and the account it runs as.
fn command(address: &Address, tools: &Tools, owner: &OsUser, workspace: &Path) -> Result<Tool> {
    Ok(client_tool("pg_basebackup", address, tools, owner, workspace)?
        .args(["-D", "-", "-F", "tar", "-X", "fetch", "--checkpoint=fast", "--label=neo4j-backup"])
        .idle_timeout(SILENCE))
}

/// What is known once a base backup was found possible.
struct Ready {
    major: u32,
    size: u64,
}

fn check(address: &Address) -> Result<Ready> {
    let mut client = address.connect_any(CATALOG_TIMEOUT)?;
    let major = version_num(&mut client)? / 10_000;
    refuse_tablespaces(&mut client)?;
    if let Some(obstacle) = grants::obstacles(&mut client, &address.user)?.into_iter().next() {
        return Err(Error::new(Code::PostgresUnsupported, obstacle.text).with_hint(obstacle.fix));
    }
    let size = client
        .query_one("SELECT coalesce(sum(pg_database_size(oid)), 0)::int8 FROM pg_database", &[])
        .map_or(0, |row| row.get::<_, i64>(0).max(0) as u64);
    Ok(Ready { major: major.max(0) as u32, size })
}

/// What is weaker in any base backup of this cluster than it could be.
pub(crate) fn weaknesses(address: &Address, wanted: &[String], task: &Task) -> Result<Vec<String>> {
    let (address, wanted) = (address.clone(), wanted.to_vec());
    within(TALK_TIMEOUT, "preparing the base backup", task, move || ask_weaknesses(&address, &wanted))
}

fn ask_weaknesses(address: &Address, wanted: &[String]) -> Result<Vec<String>> {
    let mut client = address.connect_any(CATALOG_TIMEOUT)?;
    let mut unlogged = Vec::new();
    for database in census::databases(&mut client, wanted)? {
        // A database that is closed to this role is backed up all the same; only this remark is lost.
        if let Ok(mut client) = address.connect(&database, CATALOG_TIMEOUT) {
            unlogged.extend(census::unlogged_tables(&mut client, &database).unwrap_or_default());
        }
    }
    let mut warnings = Vec::new();
    if !unlogged.is_empty() {
        warnings.push(format!("unlogged tables are empty after a restore: {}", unlogged.join(", ")));
    }
    if setting(&mut client, "data_checksums")?.as_deref() == Some("off") {
        warnings
            .push("the cluster has no data checksums: damage of its files is not noticed when they are read".into());
    }
    Ok(warnings)
}

fn refuse_tablespaces(client: &mut Client) -> Result<()> {
    let tablespaces = tablespaces(client)?;
    if tablespaces.is_empty() {
        return Ok(());
    }
    Err(Error::new(
        Code::PostgresUnsupported,
        format!(
            "the cluster has tablespaces, which pg_basebackup cannot stream with the rest: {}",
            tablespaces.join(", ")
        ),
    )
    .with_hint(
        "move their tables into the default tablespace: ALTER TABLE ALL IN TABLESPACE … SET TABLESPACE pg_default",
    ))
}

/// Tablespaces outside the data directory, with their places.
pub(crate) fn tablespaces(client: &mut Client) -> Result<Vec<String>> {
    let statement = "SELECT spcname, pg_tablespace_location(oid) FROM pg_tablespace \
                     WHERE spcname NOT IN ('pg_default', 'pg_global') ORDER BY spcname";
    let rows = client.query(statement, &[]).map_err(asking("the tablespaces"))?;
    Ok(rows.iter().map(|row| format!("{} in {}", row.get::<_, String>(0), row.get::<_, String>(1))).collect())
}

struct BaseBackup {
    volume: Option<Volume>,
    found: Arc<Mutex<Option<LogPosition>>>,
    warnings: Vec<String>,
}

impl FullBackup for BaseBackup {
    fn take_volumes(&mut self) -> Vec<Volume> {
        self.volume.take().into_iter().collect()
    }

    fn finish(self: Box<Self>, _task: &Task) -> Result<FullReport> {
        let position = self.found.lock().unwrap_or_else(|p| p.into_inner()).take();
        if position.is_none() {
            return Err(Error::new(Code::PostgresToolFailed, "the base backup was not read to its end"));
        }
        Ok(FullReport { position, warnings: self.warnings, ..FullReport::default() })
    }
}

/// Reads `pg_basebackup`'s output, and along with it what is in there.
struct BaseReader {
    running: Running,
    output: ToolOutput,
    stream: TarStream<Contents>,
    found: Arc<Mutex<Option<LogPosition>>>,
    role: String,
}

impl Read for BaseReader {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.output.read(buffer)?;
        self.stream.push(&buffer[..count])?;
        Ok(count)
    }
}

impl VolumeReader for BaseReader {
    fn finish(self: Box<Self>, task: &Task) -> Result<()> {
        // The tool's own words explain more than the cut they leave behind.
        let ended = self.running.wait()?.expect_success(Code::PostgresToolFailed, "pg_basebackup");
        ended.map_err(|cause| explained(cause, &self.role))?;
        task.check()?;
        let contents = self.stream.finish().map_err(|cause| {
            cause.recode(Code::PostgresToolFailed).context("pg_basebackup ended well, but its output is not whole")
        })?;
        let position = contents.position()?;
        *self.found.lock().unwrap_or_else(|p| p.into_inner()) = Some(position);
        Ok(())
    }
}

/// Adds the literal remedy for what goes wrong most.
fn explained(cause: Error, role: &str) -> Error {
    let message = cause.message().to_owned();
    if message.contains("no pg_hba.conf entry for replication") {
        cause.with_hint(format!(
            "add the line `local replication {role} peer` to pg_hba.conf and run `SELECT pg_reload_conf();`"
        ))
    } else if message.contains("requested WAL segment") || message.contains("could not find any WAL files") {
        cause.with_hint(
            "the server recycled WAL that this backup needs while it was read: \
             ALTER SYSTEM SET wal_keep_size = '2GB'; SELECT pg_reload_conf();",
        )
    } else {
        cause
    }
}

/// What a base backup's archive holds, as far as it matters.
#[derive(Default)]
struct Contents {
    essential: [bool; ESSENTIAL.len()],
    in_manifest: bool,
    manifest_tail: Vec<u8>,
}

impl Members for Contents {
    fn begin(&mut self, member: &Member) -> Result<()> {
        for (name, seen) in ESSENTIAL.iter().zip(&mut self.essential) {
            *seen |= member.path == Path::new(name) && member.size > 0;
        }
        self.in_manifest = member.path == Path::new("backup_manifest");
        Ok(())
    }

    fn data(&mut self, bytes: &[u8]) -> Result<()> {
        if self.in_manifest {
            self.manifest_tail.extend_from_slice(bytes);
            if self.manifest_tail.len() > 2 * MANIFEST_TAIL {
                self.manifest_tail.drain(..self.manifest_tail.len() - MANIFEST_TAIL);
            }
        }
        Ok(())
    }

    fn end(&mut self) -> Result<()> {
        self.in_manifest = false;
        Ok(())
    }
}

/// An entry of the manifest's `WAL-Ranges` (documented under "Backup Manifest Format" in PostgreSQL's manual).
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct WalRange {
    timeline: u32,
    #[serde(rename = "Start-LSN")]
    start: String,
    #[serde(rename = "End-LSN")]
    end: String,
}

impl Contents {
    fn position(&self) -> Result<LogPosition> {
        if let Some((name, _)) = ESSENTIAL.iter().zip(self.essential).find(|(_, seen)| !seen) {
            let text = format!("pg_basebackup ended well, but its output lacks {name}");
            return Err(Error::new(Code::PostgresToolFailed, text));
        }
        let ranges = wal_ranges(&self.manifest_tail);
        let (Some(first), Some(last)) = (ranges.first(), ranges.last()) else {
            let text = "pg_basebackup ended well, but its manifest does not say which WAL it needs";
            return Err(Error::new(Code::PostgresToolFailed, text));
        };
        Ok(LogPosition {
            lineage: last.timeline.to_string(),
            start: first.start.clone(),
            end: last.end.clone(),
            log_contained: true,
            mark: None,
            latest_commit: None,
            beside: Default::default(),
        })
    }
}

fn wal_ranges(manifest_tail: &[u8]) -> Vec<WalRange> {
    let text = String::from_utf8_lossy(manifest_tail);
    let ranges: Option<Vec<WalRange>> = text.rsplit_once("\"WAL-Ranges\"").and_then(|(_, rest)| {
        let list = rest.get(rest.find('[')?..=rest.find(']')?)?;
        serde_json::from_str(list).ok()
    });
    let mut ranges = ranges.unwrap_or_default();
    // The server lists the newest timeline first.
    ranges.sort_by_key(|range| range.timeline);
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;

    const TAIL: &str = r#""Checksum": "00000000" }
],
"WAL-Ranges": [
{ "Timeline": 2, "Start-LSN": "0/2000100", "End-LSN": "0/2000200" },
{ "Timeline": 1, "Start-LSN": "0/2000028", "End-LSN": "0/2000100" }
],
"Manifest-Checksum": "21"}"#;

    #[test]
    fn the_position_comes_from_the_manifest() {
        let mut contents = Contents { essential: [true; 4], ..Contents::default() };
        assert_eq!(contents.position().map_err(|e| e.code()).err(), Some(Code::PostgresToolFailed));
        contents.manifest_tail = TAIL.into();
        let position = contents.position().expect("position");
        assert_eq!((position.lineage.as_str(), position.start.as_str()), ("2", "0/2000028"));
        assert_eq!((position.end.as_str(), position.log_contained), ("0/2000200", true));
        contents.essential[1] = false;
        assert!(contents.position().expect_err("error").message().contains("backup_label"));
    }

    #[test]
    fn the_remedy_is_said() {
        let failed = |text: &str| Error::new(Code::PostgresToolFailed, text.to_owned());
        let hint = |text: &str| explained(failed(text), "neo4j-backup").hint().to_owned();
        assert!(
            hint("FATAL:  no pg_hba.conf entry for replication connection").contains("local replication neo4j-backup")
        );
        assert!(hint("requested WAL segment 0001 has already been removed").contains("wal_keep_size"));
    }
}
