//! `full = "enterprise"`: artifacts of `neo4j-admin database backup`, which copies a running server over its backup port.
//!
//! The tool insists on files, so each database's artifact is made in a private directory of the server's account, held
//! against what was asked for (of this database, of this very store, full or the next of its chain), and streamed out. The
//! user's stays, as long as a differential one may follow it; the others are removed.
//!
//! - [`readiness`]: whether there is a server and a tool for it
//! - [`commands`]: the command lines, and what the tool can and says
//! - [`description`]: what an artifact says of itself
//! - [`artifact`]: the file that the tool left
//! - [`kept`]: the artifacts that a differential one follows
//! - [`differential`]: those as the log of a target
//! - [`restore`]: an artifact, or a chain of them, brought back

mod artifact;
mod commands;
mod description;
mod differential;
mod kept;
mod readiness;
mod restore;

pub(super) use self::commands::Offered;
pub(super) use self::differential::{is_artifact, no_times};
pub(super) use self::restore::Laid;

use self::artifact::{Artifact, Wanted};
use self::commands::Asked;
use self::kept::{Entry, Kept};
use super::dump::Admin;
use super::layout::SYSTEM;
use super::private::{check_searchable, give, make};
use crate::artifact::log_batch::LogMark;
use crate::artifact::manifest::{Content, LogPosition, Role};
use crate::base::clock::{Clock, SystemClock};
use crate::base::lock::FileLock;
use crate::base::task::Task;
use crate::base::{Code, Error, Result, bytes, space};
use crate::driver::{FullBackup, FullReport, Volume, VolumeSpec};
use std::path::{Path, PathBuf};

/// What is backed up and from where.
pub(super) struct EnterprisePlan {
    /// `127.0.0.1:6362`
    pub(super) from: String,
    /// The databases with their estimated sizes: the user's first, then `system`.
    pub(super) databases: Vec<(String, u64)>,
    /// The identity of the user's store, as its files tell it.
    pub(super) identity: String,
    /// Weaknesses for the manifest.
    pub(super) warnings: Vec<String>,
    /// Where the artifact stays that differential ones will follow.
    kept: Kept,
}

/// A backup whose artifacts are made and not read yet. Dropping it removes them.
pub(super) struct EnterpriseBackup {
    volumes: Vec<Volume>,
    warnings: Vec<String>,
    /// The user's artifact: where it is, what is to be kept of it, the point it leads to.
    next: Option<(PathBuf, Entry, LogMark)>,
    kept: Kept,
    /// No differential artifact is made meanwhile: it would belong to the chain before.
    _lock: FileLock,
    _staging: Staging,
}

/// A directory that goes with the value.
struct Staging(PathBuf);

impl Drop for Staging {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl EnterpriseBackup {
    /// Makes the artifacts below `workspace`, one database after the other.
    pub(super) fn begin(admin: &Admin, plan: EnterprisePlan, workspace: &Path, task: &Task) -> Result<Self> {
        let lock = plan.kept.lock_patiently(task)?;
        check_room(workspace, &plan.databases)?;
        if let Some(owner) = &admin.user {
            check_searchable(workspace, owner).map_err(|error| error.recode(Code::Neo4jAdminFailed))?;
        }
        give(workspace, admin.user.as_ref())?;
        let staging = Staging(workspace.join("artifacts"));
        make(&staging.0, admin.user.as_ref())?;
        let (mut volumes, mut next) = (Vec::new(), None);
        let begun = SystemClock.now();
        for ((database, _), lane) in plan.databases.iter().zip(0..) {
            let artifact = take(admin, &plan, database, &staging.0, task)?;
            task.info(format!(
                "artifact of database {database}: {}, up to append index {}",
                bytes::human(artifact.bytes),
                artifact.description.highest
            ));
            if database != SYSTEM {
                next = Some((artifact.path.clone(), Entry::of(&artifact, begun), artifact.mark()));
            }
            volumes.push(volume(database, lane, artifact));
        }
        let EnterprisePlan { warnings, kept, .. } = plan;
        Ok(EnterpriseBackup { volumes, warnings, next, kept, _lock: lock, _staging: staging })
    }
}

/// The tool copies a store before it makes an artifact of it, and the artifacts wait until all are made.
fn check_room(workspace: &Path, databases: &[(String, u64)]) -> Result<()> {
    let sizes = || databases.iter().map(|(_, bytes)| *bytes);
    let required = sizes().sum::<u64>() + sizes().max().unwrap_or_default();
    let available = space::of(workspace)?.available;
    if required <= available {
        return Ok(());
    }
    let text = format!(
        "{}: up to {} are required while neo4j-admin makes its artifacts, {} are available",
        workspace.display(),
        bytes::human(required),
        bytes::human(available)
    );
    Err(Error::new(Code::BackupNoSpace, text)
        .with_hint("set `state_directory` to a filesystem with room for two copies of the store"))
}

fn take(admin: &Admin, plan: &EnterprisePlan, database: &str, staging: &Path, task: &Task) -> Result<Artifact> {
    let what = format!("backing up database {database} from {}", plan.from);
    let directory = staging.join(database);
    make(&directory, admin.user.as_ref())?;
    let tool = commands::backup(admin, Asked::Full, &plan.from, &directory, database);
    task.info(format!("{what}: {}", tool.command_line()));
    commands::succeed(&*admin.launcher, &tool, &what, task)?;
    let identity = (database != SYSTEM).then_some(plan.identity.as_str());
    let wanted = Wanted { owner: admin.user.as_ref(), database, identity, asked: Asked::Full };
    Artifact::find(&directory, &[], wanted).map_err(|error| error.context(&what))
}

fn volume(database: &str, lane: u32, artifact: Artifact) -> Volume {
    let extension = if database == SYSTEM { "system.backup" } else { "backup" };
    let spec = VolumeSpec {
        name: database.to_owned(),
        role: Role::Data,
        content: Content::Neo4jBackup,
        extension: extension.to_owned(),
        lane,
        striped: false,
        compressed: true,
        hash_plain: true,
        estimated_bytes: artifact.bytes,
    };
    Volume { spec, open: Box::new(move |_| Ok(Box::new(artifact.open(None)?))) }
}

impl FullBackup for EnterpriseBackup {
    fn take_volumes(&mut self) -> Vec<Volume> {
        std::mem::take(&mut self.volumes)
    }

    fn finish(mut self: Box<Self>, _task: &Task) -> Result<FullReport> {
        let mut warnings = std::mem::take(&mut self.warnings);
        let position = self.next.take().map(|(path, entry, mark)| {
            // The backup is sound without it.
            if let Err(error) = self.kept.begin(&path, entry) {
                warnings
                    .push(format!("the artifact was not kept, so that the next incremental is a full backup: {error}"));
            }
            LogPosition::ending_at(mark.transaction, mark)
        });
        Ok(FullReport { position, warnings, statistics: None, suspect: Vec::new() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_little_room_is_said_with_both_numbers() {
        let scene = tempfile::tempdir().expect("tempdir");
        check_room(scene.path(), &[("neo4j".to_owned(), 1), (SYSTEM.to_owned(), 1)]).expect("room");
        let error = check_room(scene.path(), &[("neo4j".to_owned(), 1 << 60)]).expect_err("no room");
        assert_eq!(error.code(), Code::BackupNoSpace);
        assert!(error.message().contains("are required") && error.message().contains("are available"), "{error}");
    }
}
