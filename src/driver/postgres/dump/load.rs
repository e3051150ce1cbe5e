//! A restore of a logical backup: a cluster is made for it, a private server is started there, and each volume is given to
//! the program that reads it while it is being decrypted.

use crate::artifact::manifest::{Content, Manifest, ObjectRecord, Role};
use crate::base::process::{self, OsUser, Running, Streams, Tool};
use crate::base::task::Task;
use crate::base::{Code, Error, Result, atomic_file, durable_tree};
use crate::driver::postgres::client_tool::{addressed, to_database};
use crate::driver::postgres::connection::quoted;
use crate::driver::postgres::inspection::TEMPLATE_FACTS;
use crate::driver::postgres::scratch::{self, ScratchPlan, ScratchServer};
use crate::driver::postgres::tools::{Tools, parse_major};
use crate::driver::postgres::wal::replay::Stop;
use crate::driver::postgres::{PostgresDriverSettings, checks, restore};
use crate::driver::restore_options::RestoreOptions;
use crate::driver::{HealthCheck, RestorePlace, RestoreSession, VolumeSink};
use std::io::{self, Write};
use std::process::ChildStdin;
use std::time::Duration;

/// How long a program may be silent: building one index may take long.
const SILENCE: Duration = Duration::from_secs(6 * 3600);
/// The role that makes the cluster, where the manifest names none.
const FIRST_ROLE: &str = "postgres";
/// The database that is connected to while others are made; every cluster has it.
const TEMPLATE: &str = "template1";

/// See [`crate::driver::Driver::begin_restore`].
pub(crate) fn begin(
    settings: &PostgresDriverSettings,
    tools: &Tools,
    manifest: &Manifest,
    place: &RestorePlace,
    task: &Task,
) -> Result<Box<dyn RestoreSession>> {
    let owner = restore::owner_of_result(settings, place)?;
    let major = check_version(tools, manifest, task)?;
    let superuser = manifest.server.facts.get("superuser").cloned().unwrap_or_else(|| FIRST_ROLE.to_owned());
    let mut session = Session {
        tools: tools.clone(),
        role: settings.user.clone(),
        manifest: manifest.clone(),
        place: place.clone(),
        owner,
        superuser,
        major,
        server: None,
        loaded: Vec::new(),
    };
    session.make_cluster(task)?;
    Ok(Box::new(session))
}

/// What becomes of a dump is another cluster: it takes no place, changes no copy, and follows nothing.
pub(crate) fn check(manifest: &Manifest, in_place: bool, options: &RestoreOptions) -> Result<()> {
    let id = &manifest.id;
    if in_place {
        let text = format!("{id} is a logical dump: loaded, it is another cluster with other databases than these");
        return Err(Error::new(Code::NotAvailable, text).with_hint(
            "restore it with `--into DIR`, or restore a base backup in place: `full = \"base\"` takes such",
        ));
    }
    if *options != RestoreOptions::default() {
        let text = format!(
            "{id} is a logical dump: `--tablespace-map`, `--standby`, `--delta` and `--timeline` are for base backups"
        );
        return Err(Error::new(Code::Usage, text).with_hint("leave them out, or name a base backup"));
    }
    Ok(())
}

/// The major version of the cluster that is made. Error `POSTGRES_UNSUPPORTED` if the tools are older than the dump.
fn check_version(tools: &Tools, manifest: &Manifest, task: &Task) -> Result<u32> {
    let dumped = parse_major(&manifest.server.version).unwrap_or(0);
    for name in ["pg_restore", "initdb"] {
        let there = tools.major_version(name, task)?;
        if there < dumped {
            let text = format!("{name} is of version {there}, {} was dumped from version {dumped}", manifest.id);
            return Err(Error::new(Code::PostgresUnsupported, text)
                .with_hint(format!("install PostgreSQL {dumped} or later, and set `bin_directory` to its programs")));
        }
    }
    tools.major_version("postgres", task)
}

struct Session {
    tools: Tools,
    role: String,
    manifest: Manifest,
    place: RestorePlace,
    owner: Option<OsUser>,
    superuser: String,
    major: u32,
    server: Option<ScratchServer>,
    /// The databases that were loaded.
    loaded: Vec<String>,
}

impl RestoreSession for Session {
    fn sink(&mut self, object: &ObjectRecord, task: &Task) -> Result<Option<Box<dyn VolumeSink>>> {
        let (tool, left_out) = match (object.role, object.content) {
            (Role::Config | Role::Log, _) => return Ok(None),
            // The cluster's first role is there already.
            (Role::Data, Content::PgGlobals) => (self.psql()?, Some(self.first_role())),
            (Role::Data, Content::PgScript) => (self.psql()?, None),
            (Role::Data, Content::PgDump) => (self.pg_restore()?, None),
            (Role::Data, content) => {
                let text = format!("{} holds {content:?}, which cannot be loaded into a cluster", object.key);
                return Err(Error::new(Code::NotAvailable, text));
            }
        };
        if object.content != Content::PgGlobals {
            if object.name == "postgres" {
                // A new cluster has an empty one, which stands in the way.
                self.run(self.psql()?.args(["-c", "DROP DATABASE postgres"]), task)?;
            }
            self.loaded.push(object.name.clone());
        }
        let mut running = self.tools.launcher.launch(&tool, Streams { input: true, output: false }, task)?;
        let input = running
            .take_input()
            .ok_or_else(|| Error::new(Code::Internal, format!("{} was started without an input", tool.name())))?;
        let what = format!("{} of {}", tool.name(), object.name);
        Ok(Some(Box::new(Load { running, input, lines: left_out.map(Lines::without), what })))
    }

    fn complete(&mut self, task: &Task) -> Result<()> {
        if self.loaded.is_empty() {
            return Err(Error::new(Code::BackupCorrupted, "the backup holds no database"));
        }
        if self.manifest.server.facts.contains_key("timescaledb") {
            self.leave_restoring(task)?;
        }
        task.phase("collecting statistics for the planner", 0);
        let analyze = self.tool("vacuumdb")?.args(["--all", "--analyze-only", "--quiet"]);
        if let Err(cause) = self.run(analyze, task) {
            task.check()?;
            task.warn(format!("the planner's statistics were not collected, run ANALYZE: {cause}"));
        }
        let Some(server) = self.server.take() else {
            return Err(Error::new(Code::Internal, "there is no scratch server"));
        };
        server.stop()?;
        atomic_file::remove(&self.place.directory.join("postmaster.opts"))?;
        durable_tree::settle(&self.place.directory, self.owner.as_ref(), task)?;
        task.info(format!("loaded {}", self.loaded.join(", ")));
        Ok(())
    }

    fn check(&mut self, task: &Task) -> Result<Vec<HealthCheck>> {
        let subject = checks::Subject {
            manifest: &self.manifest,
            directory: &self.place.directory,
            workspace: &self.place.workspace,
            owner: self.owner.as_ref(),
            role: &self.role,
            timeline: None,
            ending: None,
            stop: Stop::End,
        };
        let found = checks::run(&subject, &self.tools, task)?;
        atomic_file::remove(&self.place.directory.join("postmaster.opts"))?;
        Ok(found)
    }
}

impl Session {
    /// Makes the cluster and starts a private server on it. Each database brings its own encoding and locale along.
    fn make_cluster(&mut self, task: &Task) -> Result<()> {
        task.phase("making a cluster", 0);
        let facts = &self.manifest.server.facts;
        let mut tool = self.tools.tool("initdb").arg("-D").arg(&self.place.directory).args([
            "-U",
            &self.superuser,
            "--no-sync",
            "--auth-local=peer",
            "--auth-host=scram-sha-256",
        ]);
        let options = [("--encoding", "UTF8"), ("--lc-collate", "C"), ("--lc-ctype", "C")];
        for (fact, (option, otherwise)) in TEMPLATE_FACTS.iter().zip(options) {
            tool = tool.arg(format!("{option}={}", facts.get(*fact).map_or(otherwise, String::as_str)));
        }
        if facts.get("data_checksums").is_some_and(|value| value == "on") {
            tool = tool.arg("--data-checksums");
        }
        let segment: u64 = facts.get("wal_segment_size").and_then(|bytes| bytes.parse().ok()).unwrap_or(0) >> 20;
        if segment.is_power_of_two() {
            tool = tool.arg(format!("--wal-segsize={segment}"));
        }
        self.run(self.as_owner(tool), task)?;
        scratch::require_reachable(&self.place.directory, self.owner.as_ref(), &self.tools, task)?;
        let plan = ScratchPlan {
            data_directory: &self.place.directory,
            workspace: &self.place.workspace,
            user: self.owner.as_ref(),
            major: self.major,
            facts,
            roles: std::slice::from_ref(&self.superuser),
            recovery: &[],
        };
        self.server = Some(ScratchServer::start(&plan, &self.tools, task)?);
        self.check_extension(task)
    }

    /// Error `POSTGRES_UNSUPPORTED` if the databases need an extension that is not installed here, or in another version.
    fn check_extension(&self, task: &Task) -> Result<()> {
        let Some(version) = self.manifest.server.facts.get("timescaledb") else { return Ok(()) };
        let statement =
            "SELECT string_agg(version, ' ') FROM pg_available_extension_versions WHERE name = 'timescaledb'";
        let there = self.run(self.psql()?.args(["-A", "-t", "-c", statement]), task)?;
        if there.split_whitespace().any(|there| there == version) {
            return Ok(());
        }
        let text = format!("the databases were dumped with TimescaleDB {version}; installed here: {}", or_none(&there));
        Err(Error::new(Code::PostgresUnsupported, text)
            .with_hint(format!("install TimescaleDB {version} for PostgreSQL {}", self.major)))
    }

    /// What `timescaledb_pre_restore()` began with a setting of each session ends here, as its manual asks for.
    fn leave_restoring(&self, task: &Task) -> Result<()> {
        for database in &self.loaded {
            let statement = "SELECT count(*) FROM pg_extension WHERE extname = 'timescaledb'";
            let psql = |statement: &str| Ok::<_, Error>(self.psql_in(database)?.args(["-A", "-t", "-c", statement]));
            if self.run(psql(statement)?, task)? == "1" {
                self.run(psql("SELECT timescaledb_post_restore()")?, task)?;
            }
        }
        Ok(())
    }

    /// The line that makes the cluster's first role, quoted or not.
    fn first_role(&self) -> [String; 2] {
        [format!("CREATE ROLE {};", self.superuser), format!("CREATE ROLE {};", quoted(&self.superuser))]
    }

    fn psql(&self) -> Result<Tool> {
        self.psql_in(TEMPLATE)
    }

    fn psql_in(&self, database: &str) -> Result<Tool> {
        let tool = self.tool("psql")?.args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-d"]).arg(to_database(database));
        Ok(self.restoring(tool))
    }

    fn pg_restore(&self) -> Result<Tool> {
        let arguments = ["--format=custom", "--create", "--exit-on-error", "--no-tablespaces", "-d"];
        Ok(self.restoring(self.tool("pg_restore")?.args(arguments).arg(to_database(TEMPLATE))))
    }

    /// TimescaleDB's own tables are filled like others as long as this is on.
    fn restoring(&self, tool: Tool) -> Tool {
        match self.manifest.server.facts.contains_key("timescaledb") {
            true => tool.env("PGOPTIONS", "-c timescaledb.restoring=on"),
            false => tool,
        }
    }

    /// A client program that is told where the scratch server is.
    fn tool(&self, name: &str) -> Result<Tool> {
        let server = self.server.as_ref().ok_or_else(|| Error::new(Code::Internal, "there is no scratch server"))?;
        Ok(self.as_owner(addressed(name, server.address(), &self.tools).idle_timeout(SILENCE)))
    }

    fn as_owner(&self, tool: Tool) -> Tool {
        match &self.owner {
            Some(owner) => tool.user(owner.clone()),
            None => tool,
        }
    }

    /// Runs a program to its end; returns what it printed.
    fn run(&self, tool: Tool, task: &Task) -> Result<String> {
        let what = tool.command_line();
        let finished = process::run(self.tools.launcher.as_ref(), &tool, task)?;
        Ok(finished.expect_success(Code::PostgresToolFailed, &what)?.text())
    }
}

fn or_none(versions: &str) -> &str {
    if versions.trim().is_empty() { "none" } else { versions }
}

/// Gives what is written to it to a program.
struct Load {
    running: Running,
    input: ChildStdin,
    lines: Option<Lines>,
    what: String,
}

impl Write for Load {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = match &mut self.lines {
            Some(lines) => self.input.write_all(&lines.push(bytes)),
            None => self.input.write_all(bytes),
        };
        match written {
            // It has given up and says why when it is asked how it ended.
            Err(cause) if cause.kind() == io::ErrorKind::BrokenPipe => Ok(bytes.len()),
            written => written.map(|()| bytes.len()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl VolumeSink for Load {
    fn finish(mut self: Box<Self>, _task: &Task) -> Result<()> {
        if let Some(lines) = &mut self.lines {
            match self.input.write_all(&lines.rest()) {
                Err(cause) if cause.kind() != io::ErrorKind::BrokenPipe => {
                    return Err(Error::new(Code::IoFailed, format!("writing to {}: {cause}", self.what)));
                }
                _ => {}
            }
        }
        let Load { running, input, what, .. } = *self;
        drop(input);
        running.wait()?.expect_success(Code::RestoreFailed, &what).map(|_| ())
    }
}

/// Passes a text on without some of its lines.
struct Lines {
    without: [String; 2],
    begun: Vec<u8>,
}

impl Lines {
    fn without(lines: [String; 2]) -> Lines {
        Lines { without: lines, begun: Vec::new() }
    }

    /// The whole lines that there are after these bytes.
    fn push(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.begun.extend_from_slice(bytes);
        let whole = self.begun.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1);
        let lines: Vec<u8> = self.begun.drain(..whole).collect();
        self.filter(&lines)
    }

    /// What comes after the last line's end.
    fn rest(&mut self) -> Vec<u8> {
        let rest = std::mem::take(&mut self.begun);
        self.filter(&rest)
    }

    fn filter(&self, lines: &[u8]) -> Vec<u8> {
        let kept = |line: &&[u8]| {
            let line = line.strip_suffix(b"\n").unwrap_or(line);
            self.without.iter().all(|without| without.as_bytes() != line)
        };
        lines.split_inclusive(|byte| *byte == b'\n').filter(kept).flatten().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn only_the_one_line_is_left_out(cuts in proptest::collection::vec(0usize..60, 0..8)) {
            let text = "CREATE ROLE a;\nCREATE ROLE postgres;\nCREATE ROLE postgres2;\nALTER ROLE postgres;\nend";
            let mut lines = Lines::without(["CREATE ROLE postgres;", "CREATE ROLE \"postgres\";"].map(str::to_owned));
            let mut cuts: Vec<usize> = cuts.into_iter().filter(|cut| *cut < text.len()).collect();
            cuts.sort();
            let mut passed = Vec::new();
            let mut from = 0;
            for cut in cuts.into_iter().chain([text.len()]) {
                passed.extend(lines.push(&text.as_bytes()[from..cut]));
                from = cut;
            }
            passed.extend(lines.rest());
            prop_assert_eq!(String::from_utf8(passed).expect("text"),
                "CREATE ROLE a;\nCREATE ROLE postgres2;\nALTER ROLE postgres;\nend");
        }
    }
}
