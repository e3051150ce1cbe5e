//! Artifacts laid into a private directory and restored by `neo4j-admin database restore`.
//!
//! The tool is given the last artifact of a chain and finds the others beside it, so it is run when all are there: each was
//! authenticated as it was laid down, and says of itself that it begins where the one before it ends.

use super::artifact::{Artifact, Wanted};
use super::commands::{self, Asked};
use crate::artifact::log_batch::{LogBatch, LogMark};
use crate::base::task::Task;
use crate::base::{Code, Error, Result, bytes, space};
use crate::driver::VolumeSink;
use crate::driver::neo4j::dump::Admin;
use crate::driver::neo4j::private::{give, make};
use jiff::{SignedDuration, Timestamp};
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Seconds that are tried for a name: the tool names its artifacts by the second, and several may be of one.
const NAMES_MAX: i64 = 3600;

/// A database's artifacts, from the full one on. Dropping it removes them.
pub(in crate::driver::neo4j) struct Laid {
    admin: Admin,
    /// The database.
    pub(in crate::driver::neo4j) database: String,
    directory: PathBuf,
    /// The last one.
    last: PathBuf,
    /// The store they are of and where the last one ends; known once a second one follows.
    end: Option<(String, u64)>,
    restored: bool,
}

impl Laid {
    /// Takes the full artifact of `database`, `size` bytes, made at `made_at`, to be restored into the directories that
    /// `admin`'s configuration names.
    pub(in crate::driver::neo4j) fn begin(
        admin: &Admin,
        workspace: &Path,
        database: &str,
        size: u64,
        made_at: Timestamp,
    ) -> Result<(Laid, Box<dyn VolumeSink>)> {
        let directory = workspace.join(format!("artifact-{database}"));
        check_room(workspace, size, database)?;
        make(&directory, admin.user.as_ref())?;
        let (last, file) = create(admin, &directory, database, made_at)?;
        let sink = Box::new(FileSink { path: last.clone(), file });
        let (admin, database) = (admin.clone(), database.to_owned());
        Ok((Laid { admin, database, directory, last, end: None, restored: false }, sink))
    }

    /// Takes the differential artifact that follows.
    pub(in crate::driver::neo4j) fn next(&mut self, batch: &LogBatch) -> Result<Box<dyn VolumeSink>> {
        let before = self.settle()?;
        if before.1 != batch.start.transaction {
            let text = format!(
                "{} begins after {}, but the artifacts before it end with {}: they are no chain",
                batch.object.key, batch.start.transaction, before.1
            );
            return Err(Error::new(Code::LogGap, text)
                .with_hint("restore without a target, or with `--to-tx` and the end of an artifact of one chain"));
        }
        check_room(&self.directory, batch.object.plain.size, &self.database)?;
        let (path, file) = create(&self.admin, &self.directory, &self.database, batch.created_at)?;
        self.last = path.clone();
        Ok(Box::new(FileSink { path, file }))
    }

    /// Examines the last one: the store, and where it ends.
    fn settle(&mut self) -> Result<(String, u64)> {
        let identity = self.end.as_ref().map(|(store, _)| store.as_str());
        let asked = if self.end.is_some() { Asked::Differential } else { Asked::Full };
        let wanted = Wanted { owner: None, database: &self.database, identity, asked };
        let wrong = |why: &str| {
            let name = self.last.file_name().unwrap_or_default().to_string_lossy();
            Error::new(
                Code::BackupCorrupted,
                format!("the restored artifact {name} does not continue its chain: {why}"),
            )
        };
        let found = Artifact::examine(&self.last, wanted).map_err(|error| wrong(error.message()))?.description;
        let follows = match &self.end {
            None => found.full,
            Some((_, end)) => !found.full && found.lowest == end + 1,
        };
        if !follows {
            return Err(wrong(&format!("it holds {} to {}", found.lowest, found.highest)));
        }
        let end = (found.store, found.highest);
        self.end = Some(end.clone());
        Ok(end)
    }

    /// All artifacts were laid down, the last one being of `end`, if more than the full one were.
    pub(in crate::driver::neo4j) fn restore(&mut self, end: Option<&LogMark>, task: &Task) -> Result<()> {
        if self.restored {
            return Ok(());
        }
        if let Some(end) = end {
            let found = self.settle()?.1;
            if found != end.transaction {
                let text = format!("the artifacts end with {found}, their manifests say {}", end.transaction);
                return Err(Error::new(Code::BackupCorrupted, text));
            }
        }
        let what = format!("restoring database {}", self.database);
        let tool = commands::restore(&self.admin, &self.last, &self.database);
        task.info(format!("{what}: {}", tool.command_line()));
        commands::succeed(&*self.admin.launcher, &tool, &what, task)?;
        self.restored = true;
        fs::remove_dir_all(&self.directory).map_err(|cause| Error::io("removing", &self.directory, cause))
    }
}

impl Drop for Laid {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// The tool unpacks beside the artifact before it moves the store to where it belongs.
fn check_room(directory: &Path, size: u64, database: &str) -> Result<()> {
    let available = space::of(directory)?.available;
    if size <= available {
        return Ok(());
    }
    let text = format!(
        "{}: {} are required for the artifact of database {database}, {} are available",
        directory.display(),
        bytes::human(size),
        bytes::human(available)
    );
    Err(Error::new(Code::BackupNoSpace, text))
}

/// A file that is named as the tool names its own.
fn create(admin: &Admin, directory: &Path, database: &str, made_at: Timestamp) -> Result<(PathBuf, File)> {
    for later in 0..NAMES_MAX {
        let second = made_at.saturating_add(SignedDuration::from_secs(later)).unwrap_or(made_at);
        let path = directory.join(format!("{database}-{}.backup", second.strftime("%Y-%m-%dT%H-%M-%S")));
        match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path) {
            Ok(file) => {
                give(&path, admin.user.as_ref())?;
                return Ok((path, file));
            }
            Err(cause) if cause.kind() == ErrorKind::AlreadyExists => {}
            Err(cause) => return Err(Error::io("making", &path, cause)),
        }
    }
    Err(Error::new(Code::Internal, format!("{}: no name is free for an artifact", directory.display())))
}

struct FileSink {
    path: PathBuf,
    file: File,
}

impl Write for FileSink {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.file.flush()
    }
}

impl VolumeSink for FileSink {
    fn finish(mut self: Box<Self>, _task: &Task) -> Result<()> {
        self.file.flush().map_err(|cause| Error::io("writing", &self.path, cause))
    }
}
