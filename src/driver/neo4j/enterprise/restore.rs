//! An artifact laid into a private directory and restored by `neo4j-admin database restore`.

use super::commands;
use crate::base::task::Task;
use crate::base::{Code, Error, Result, bytes, space};
use crate::driver::VolumeSink;
use crate::driver::neo4j::dump::Admin;
use crate::driver::neo4j::private::{give, make};
use jiff::Timestamp;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Takes the artifact of `database`, `size` bytes, made at `made_at`, and restores it into the directories that `admin`'s
/// configuration names.
pub(in crate::driver::neo4j) fn sink(
    admin: &Admin,
    workspace: &Path,
    database: &str,
    size: u64,
    made_at: Timestamp,
) -> Result<Box<dyn VolumeSink>> {
    // The tool unpacks beside the artifact before it moves the store to where it belongs.
    let available = space::of(workspace)?.available;
    if size > available {
        let text = format!(
            "{}: {} are required for the artifact of database {database}, {} are available",
            workspace.display(),
            bytes::human(size),
            bytes::human(available)
        );
        return Err(Error::new(Code::BackupNoSpace, text));
    }
    let directory = workspace.join(format!("artifact-{database}"));
    make(&directory, admin.user.as_ref())?;
    // Named as the tool names its own.
    let path = directory.join(format!("{database}-{}.backup", made_at.strftime("%Y-%m-%dT%H-%M-%S")));
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&path)
        .map_err(|cause| Error::io("making", &path, cause))?;
    give(&path, admin.user.as_ref())?;
    Ok(Box::new(ArtifactSink { admin: admin.clone(), database: database.to_owned(), directory, path, file }))
}

struct ArtifactSink {
    admin: Admin,
    database: String,
    directory: PathBuf,
    path: PathBuf,
    file: File,
}

impl Write for ArtifactSink {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.file.flush()
    }
}

impl VolumeSink for ArtifactSink {
    fn finish(self: Box<Self>, task: &Task) -> Result<()> {
        let what = format!("restoring database {}", self.database);
        let tool = commands::restore(&self.admin, &self.path, &self.database);
        task.info(format!("{what}: {}", tool.command_line()));
        commands::succeed(&*self.admin.launcher, &tool, &what, task)
    }
}

impl Drop for ArtifactSink {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}
