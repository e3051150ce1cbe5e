//! A full backup by `neo4j-admin database dump`, streamed: one volume a database, the server stopped meanwhile.

use super::dump_shape::DumpShape;
use super::installation::configuration_directory;
use super::layout::SYSTEM;
use crate::artifact::log_batch::LogMark;
use crate::artifact::manifest::{Content, LogPosition, Role};
use crate::artifact::statistics::Statistics;
use crate::base::process::{Launcher, OsUser, Running, Streams, Tool, ToolOutput};
use crate::base::task::Task;
use crate::base::{Code, Error, Result};
use crate::driver::{FullBackup, FullReport, Volume, VolumeReader, VolumeSpec};
use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;

/// How the official tools are run.
#[derive(Clone)]
pub(super) struct Admin {
    /// `neo4j-admin`.
    pub(super) program: PathBuf,
    /// `NEO4J_HOME`.
    pub(super) home: PathBuf,
    /// The `neo4j.conf` it reads.
    pub(super) conf: PathBuf,
    /// The account that owns the data; another one gets "database does not exist", or leaves files the server cannot
    /// read.
    pub(super) user: Option<OsUser>,
    /// Runs it.
    pub(super) launcher: Arc<dyn Launcher>,
}

impl Admin {
    /// `neo4j-admin database VERB …`.
    pub(super) fn database(&self, verb: &str) -> Tool {
        let tool = Tool::new(&self.program)
            .args(["database", verb])
            .env("NEO4J_HOME", &self.home)
            .env("NEO4J_CONF", configuration_directory(&self.conf));
        match &self.user {
            Some(user) => tool.user(user.clone()),
            None => tool,
        }
    }
}

/// What a dump is made of and what is known before it begins.
pub(super) struct DumpPlan {
    /// The databases with their estimated sizes: the user's first, then `system`.
    pub(super) databases: Vec<(String, u64)>,
    /// The end of the closed store's log, if it can be told.
    pub(super) end: Option<LogMark>,
    /// The census, if it is known to hold for this very moment.
    pub(super) statistics: Option<Statistics>,
    /// Weaknesses for the manifest.
    pub(super) warnings: Vec<String>,
}

/// A dump in progress.
pub(super) struct DumpBackup {
    admin: Admin,
    plan: DumpPlan,
    taken: bool,
}

impl DumpBackup {
    /// Nothing runs before a volume is opened.
    pub(super) fn new(admin: Admin, plan: DumpPlan) -> Self {
        DumpBackup { admin, plan, taken: false }
    }
}

impl FullBackup for DumpBackup {
    fn take_volumes(&mut self) -> Vec<Volume> {
        if std::mem::replace(&mut self.taken, true) {
            return Vec::new();
        }
        self.plan
            .databases
            .iter()
            .zip(0..)
            .map(|((name, bytes), lane)| volume(&self.admin, name, *bytes, lane))
            .collect()
    }

    fn finish(self: Box<Self>, _task: &Task) -> Result<FullReport> {
        let plan = self.plan;
        let position = plan.end.map(|mark| LogPosition::ending_at(mark.transaction, mark));
        Ok(FullReport { position, warnings: plan.warnings, suspect: Vec::new(), statistics: plan.statistics })
    }
}

fn volume(admin: &Admin, database: &str, estimated_bytes: u64, lane: u32) -> Volume {
    let extension = if database == SYSTEM { "system.dump" } else { "dump" };
    let spec = VolumeSpec {
        name: database.to_owned(),
        role: Role::Data,
        content: Content::Neo4jDump,
        extension: extension.to_owned(),
        lane,
        striped: false,
        compressed: true,
        hash_plain: true,
        estimated_bytes,
    };
    let (admin, database) = (admin.clone(), database.to_owned());
    Volume { spec, open: Box::new(move |task| open(&admin, &database, task)) }
}

fn open(admin: &Admin, database: &str, task: &Task) -> Result<Box<dyn VolumeReader>> {
    let tool = admin.database("dump").args(["--to-stdout", database]);
    let what = format!("dumping database {database}");
    let mut running = admin
        .launcher
        .launch(&tool, Streams { input: false, output: true }, task)
        .map_err(|error| error.context(&what))?;
    let output = running
        .take_output()
        .ok_or_else(|| Error::new(Code::Internal, format!("{what}: the tool has no standard output")))?;
    Ok(Box::new(DumpReader { what, running, output, shape: DumpShape::default(), ended: false }))
}

/// The stream of one dump.
struct DumpReader {
    what: String,
    running: Running,
    output: ToolOutput,
    shape: DumpShape,
    ended: bool,
}

impl Read for DumpReader {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.output.read(buffer)?;
        self.shape.push(&buffer[..count]);
        self.ended |= count == 0 && !buffer.is_empty();
        Ok(count)
    }
}

impl VolumeReader for DumpReader {
    fn finish(self: Box<Self>, _task: &Task) -> Result<()> {
        if !self.ended {
            return Err(Error::new(Code::Internal, format!("{}: the stream was not read to its end", self.what)));
        }
        let finished = self.running.wait().map_err(|error| error.context(&self.what))?;
        let words = finished.stderr.lines().filter(|line| !line.starts_with("Files: ")).collect::<Vec<_>>().join(" | ");
        if !finished.success {
            let error = Error::new(
                Code::Neo4jAdminFailed,
                format!(
                    "{}: {}; it said: {}",
                    self.what,
                    finished.status,
                    if words.is_empty() { "nothing" } else { &words }
                ),
            );
            return Err(match words.contains("recover") {
                true => error.with_hint(
                    "the store was not closed cleanly; start the server, let it recover, and run the backup again",
                ),
                false => error,
            });
        }
        self.shape.finish(&self.what).map_err(|error| {
            let text = format!("{}; its last words: {words}", error.message());
            Error::new(error.code(), text)
        })
    }
}
