//! Restoring: a dump or an artifact of Enterprise is piped into `neo4j-admin database load` (or given to `restore` where the
//! tool has that), which runs with a generated configuration of its own and so never sees the server in service; an online
//! base is unpacked. Archived log is laid over either, cut where the
//! restore shall end, and replayed by the scratch server's own recovery.

use super::dump::Admin;
use super::health;
use super::layout::{Layout, SYSTEM};
use super::log::CutPlan;
use super::log_overlay::LogSink;
use super::private::{check_searchable, give};
use super::scratch::{self, Scratch, Start};
use super::tree_sink::TreeSink;
use super::{enterprise, load, log};
use crate::artifact::log_batch::{LogBatch, LogMark};
use crate::artifact::manifest::{Content, Manifest, ObjectRecord, Role};
use crate::artifact::statistics::Statistics;
use crate::base::atomic_file::sync_parent;
use crate::base::durable_tree;
use crate::base::ids::BackupKind;
use crate::base::task::Task;
use crate::base::{Code, Error, Result};
use crate::driver::log::RecoveryTarget;
use crate::driver::{HealthCheck, RestorePlace, RestoreSession, VolumeSink};
use jiff::Timestamp;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

/// The recovered copy ends with the transaction that the restore is to end with.
const RECOVERED_END: &str = "recovered_end";

/// A restore in progress.
pub(super) struct Neo4jRestore {
    admin: Admin,
    server_command: PathBuf,
    database: String,
    recorded: Statistics,
    place: RestorePlace,
    /// When the backup was made.
    made_at: Timestamp,
    /// Whether the tool has `database restore`, which Community's has not.
    has_restore: bool,
    /// Whether the backup is one of Enterprise's artifacts.
    of_artifacts: bool,
    /// Artifacts that wait for `database restore`.
    laid: Vec<enterprise::Laid>,
    /// Where the last differential artifact ends.
    chain_end: Option<LogMark>,
    /// Databases that were brought back, by name.
    restored: Vec<String>,
    /// Whether files were written by this process, and so have to be handed to the server's account.
    unpacked: bool,
    /// Where the base ends.
    base_end: Option<LogMark>,
    /// Where the restore ends, if log was laid over the base.
    /// Up to when the archived log is known to be complete.
    covered_until: Option<Timestamp>,
    end: Option<LogMark>,
}

impl Neo4jRestore {
    /// Prepares the place. `admin` names the programs of the server in service; its configuration is replaced by a
    /// generated one in the workspace. `has_restore` tells how an artifact of Enterprise is brought back.
    pub(super) fn begin(
        admin: Admin,
        server_command: PathBuf,
        manifest: &Manifest,
        place: &RestorePlace,
        has_restore: bool,
    ) -> Result<Self> {
        if let Some(owner) = place.owner.as_ref().filter(|owner| !owner.is_current()) {
            for directory in [&place.directory, &place.workspace] {
                check_searchable(directory, owner)?;
                give(directory, Some(owner))?;
            }
        }
        check_database_name(&manifest.db_name)?;
        let conf = scratch::write_configuration(place, &manifest.db_name, None)?;
        Ok(Neo4jRestore {
            admin: Admin { conf, user: place.owner.clone(), ..admin },
            server_command,
            database: manifest.db_name.clone(),
            recorded: manifest.statistics.clone(),
            place: place.clone(),
            made_at: manifest.created_at,
            has_restore,
            of_artifacts: manifest.id.kind == BackupKind::Enterprise,
            laid: Vec::new(),
            chain_end: None,
            restored: Vec::new(),
            unpacked: false,
            base_end: manifest.position.as_ref().and_then(|position| position.mark.clone()),
            covered_until: None,
            end: None,
        })
    }

    fn logs(&self) -> PathBuf {
        Layout::below(&self.place.directory).logs(&self.database)
    }

    fn require_base_end(&self) -> Result<&LogMark> {
        self.base_end.as_ref().ok_or_else(|| {
            Error::new(
                Code::LogGap,
                "the backup does not say where in the log it ends, so that no log can be replayed on it",
            )
        })
    }

    /// Artifacts count by append index, and what the tool appends when it restores them is not known: less than planned is
    /// a failure, more is not.
    fn recovered_index(&self, planned: u64) -> Result<HealthCheck> {
        let found = log::end_of_closed(&self.logs())?;
        let found = found.map(|closed| closed.append_index.unwrap_or(closed.transaction));
        Ok(match found {
            Some(found) => HealthCheck::of(
                RECOVERED_END,
                found >= planned,
                format!("the last append index is {found}, the backup's is {planned}"),
            ),
            None => HealthCheck::skipped(RECOVERED_END, "the recovered store does not tell its last append index"),
        })
    }

    /// A differential artifact, which only `database restore` can lay over a full one.
    fn next_artifact(&mut self, batch: &LogBatch) -> Result<Box<dyn VolumeSink>> {
        let refused = |text: &str| {
            Err(Error::new(Code::NotAvailable, format!("{}: {text}", batch.object.key))
                .with_hint("name the full backup to restore it alone, without what was committed since"))
        };
        if !self.of_artifacts || !enterprise::is_artifact(&batch.segments) {
            return refused("a differential artifact follows a full one of `full = \"enterprise\"`, and nothing else");
        }
        let database = &self.database;
        match self.laid.iter_mut().find(|laid| laid.database == *database) {
            Some(laid) => {
                self.chain_end = Some(batch.end.clone());
                laid.next(batch)
            }
            None => refused(
                "it needs `neo4j-admin database restore` of Enterprise; that of Community takes full artifacts only",
            ),
        }
    }

    fn end_chain(&mut self, until: RecoveryTarget, task: &Task) -> Result<LogMark> {
        let end = self.chain_end.clone().ok_or_else(|| Error::new(Code::Internal, "the chain has no artifact"))?;
        if until != RecoveryTarget::End {
            let text = format!(
                "the target lies within the differential artifact that ends with transaction {}, which is restored as a whole",
                end.transaction
            );
            return Err(Error::new(Code::NotAvailable, text).with_hint("`--to-tx` with the end of an artifact"));
        }
        let database = &self.database;
        for laid in self.laid.iter_mut() {
            laid.restore(Some(&end).filter(|_| laid.database == *database), task)?;
        }
        let recorded = std::mem::take(&mut self.recorded);
        self.recorded = recorded.replayed("differential artifacts followed the backup whose counts are on record");
        self.end = Some(end.clone());
        Ok(end)
    }

    /// The recovered store must hold the last transaction of the plan, and nothing after it.
    fn recovered_end(&self) -> Result<Option<HealthCheck>> {
        let Some(planned) = self.end.as_ref().or(self.base_end.as_ref()) else { return Ok(None) };
        if self.of_artifacts {
            return self.recovered_index(planned.transaction).map(Some);
        }
        let found = log::last_transaction_of_closed(&self.logs())?;
        let planned = planned.transaction;
        Ok(Some(match found {
            Some(found) if found == planned => {
                HealthCheck::of(RECOVERED_END, true, format!("the last transaction is {found}, as planned"))
            }
            Some(found) => {
                HealthCheck::of(RECOVERED_END, false, format!("the last transaction is {found}, planned was {planned}"))
            }
            None => HealthCheck::of(RECOVERED_END, false, "the recovered store does not tell its last transaction"),
        }))
    }
}

impl RestoreSession for Neo4jRestore {
    fn sink(&mut self, object: &ObjectRecord, task: &Task) -> Result<Option<Box<dyn VolumeSink>>> {
        match (object.role, object.content) {
            (Role::Data, Content::Neo4jDump | Content::Neo4jBackup)
                if object.name == SYSTEM && self.place.without_system =>
            {
                Ok(None)
            }
            (Role::Data, content @ (Content::Neo4jDump | Content::Neo4jBackup)) => {
                let name = &object.name;
                check_database_name(name)?;
                self.restored.push(name.clone());
                // `load` takes whole artifacts as well, from release 5.20 on.
                if content == Content::Neo4jBackup && self.has_restore {
                    let (workspace, size) = (&self.place.workspace, object.plain.size);
                    let (laid, sink) = enterprise::Laid::begin(&self.admin, workspace, name, size, self.made_at)?;
                    self.laid.push(laid);
                    return Ok(Some(sink));
                }
                load::begin(&self.admin, name, task).map(Some)
            }
            (Role::Data, Content::Tar) => {
                self.unpacked = true;
                self.restored = vec![self.database.clone()];
                let sink = TreeSink::new(&self.place.directory, object.plain.size, self.place.without_system)?;
                Ok(Some(Box::new(sink)))
            }
            _ => Ok(None),
        }
    }

    fn log_sink(&mut self, batch: &LogBatch, task: &Task) -> Result<Box<dyn VolumeSink>> {
        task.check()?;
        if self.of_artifacts || enterprise::is_artifact(&batch.segments) {
            return self.next_artifact(batch);
        }
        self.unpacked = true;
        self.covered_until = self.covered_until.max(Some(batch.created_at));
        Ok(Box::new(LogSink::new(&self.logs(), self.require_base_end()?, batch)))
    }

    fn end_log(&mut self, until: RecoveryTarget, task: &Task) -> Result<LogMark> {
        if self.of_artifacts {
            return self.end_chain(until, task);
        }
        let base_end = self.require_base_end()?.transaction;
        let end = log::cut(&self.logs(), &CutPlan { base_end, until, covered_until: self.covered_until }, task)?;
        if end.transaction != base_end {
            // Counts and schema on record are those of the base; what was replayed may have changed either.
            let recorded = std::mem::take(&mut self.recorded);
            self.recorded = recorded.replayed("log was replayed over the backup whose counts are on record");
        }
        self.end = Some(end.clone());
        Ok(end)
    }

    fn complete(&mut self, task: &Task) -> Result<()> {
        task.check()?;
        self.laid.iter_mut().try_for_each(|laid| laid.restore(None, task))?;
        let layout = Layout::below(&self.place.directory);
        if !self.restored.contains(&self.database) {
            let text = format!("the backup holds nothing of database {:?}", self.database);
            return Err(Error::new(Code::BackupIncomplete, text));
        }
        for name in &self.restored {
            for directory in [layout.store(name), layout.logs(name)] {
                if !directory.is_dir() {
                    let text = format!("restoring database {name}: there is no {} afterwards", directory.display());
                    return Err(Error::new(Code::RestoreFailed, text));
                }
            }
        }
        if self.unpacked {
            let owner = self.place.owner.as_ref().filter(|owner| !owner.is_current());
            return durable_tree::settle(&self.place.directory, owner, task);
        }
        make_durable(&self.place.directory)
    }

    fn check(&mut self, task: &Task) -> Result<Vec<HealthCheck>> {
        let before = entries(&self.place.directory)?;
        let layout = Layout::below(&self.place.directory);
        let system_was_there = layout.store(SYSTEM).exists();
        let mut checks = match Scratch::start(&self.admin, &self.server_command, &self.place, &self.database, task)? {
            Start::Ready(scratch) => {
                let checks = health::of_server(scratch.bolt(), &self.database, &self.recorded, task)?;
                scratch.stop(task)?;
                checks
            }
            Start::Failed(why) => health::not_connected(&why),
        };
        let databases: Vec<&str> =
            std::iter::once(self.database.as_str()).chain(system_was_there.then_some(SYSTEM)).collect();
        checks.push(health::of_files(&self.admin, &self.place.workspace, &databases, task)?);
        checks.extend(self.recovered_end()?);
        // A server cannot run without a system database and an id; it made what was not restored.
        if !system_was_there {
            for made in [layout.store(SYSTEM), layout.logs(SYSTEM)] {
                remove(&made)?;
            }
        }
        for name in entries(&self.place.directory)?.into_iter().filter(|name| !before.contains(name)) {
            remove(&self.place.directory.join(name))?;
        }
        remove(&layout.databases.join("store_lock"))?;
        make_durable(&self.place.directory)?;
        Ok(checks)
    }
}

/// A name out of a manifest becomes an argument and a directory: nothing that could be an option, a pattern or a path.
fn check_database_name(name: &str) -> Result<()> {
    let good = (1..=63).contains(&name.len())
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'.' || b == b'-' || b == b'_')
        && !name.contains("..");
    if good {
        return Ok(());
    }
    Err(Error::new(Code::HostileArchive, format!("the manifest names a database {name:?}, which is no database name")))
}

fn entries(directory: &Path) -> Result<Vec<std::ffi::OsString>> {
    let fail = |cause| Error::io("listing", directory, cause);
    fs::read_dir(directory).map_err(fail)?.map(|entry| entry.map(|e| e.file_name()).map_err(fail)).collect()
}

fn remove(path: &Path) -> Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(cause) => Err(cause),
    };
    match removed {
        Err(cause) if cause.kind() != std::io::ErrorKind::NotFound => Err(Error::io("removing", path, cause)),
        _ => Ok(()),
    }
}

/// Flushes the whole filesystem below `directory`: the files were written by other processes.
fn make_durable(directory: &Path) -> Result<()> {
    let handle = File::open(directory).map_err(|cause| Error::io("opening", directory, cause))?;
    nix::unistd::syncfs(&handle).map_err(|cause| Error::io("flushing the filesystem of", directory, cause.into()))?;
    sync_parent(directory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_names_are_refused() {
        for bad in ["", "-f", "../x", "a/b", "*", "a b", "a..b", "$(id)", "neo4j\n", &"x".repeat(64)] {
            assert_eq!(check_database_name(bad).map_err(|e| e.code()), Err(Code::HostileArchive), "{bad:?}");
        }
        for good in ["neo4j", "system", "my-graph.2", "Graph_1"] {
            check_database_name(good).expect("good");
        }
    }
}
