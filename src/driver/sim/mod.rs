//! A deterministic fake database, so that the whole agent is tested without servers.
//!
//! The database is a directory: `data/` holds its files, `identity` says which database it is, `sim.conf` is the
//! configuration that lies outside the data, and the server "runs" for as long as the file `running` exists. So
//! `touch` and `rm` are all that starting and stopping needs ([`SimDriver::service_commands`]). Files in `control/` make
//! it slow, large or broken ([`control`]). With [`log::begin`] it gets a log that can be archived and replayed.

mod control;
mod data_tree;
mod full_backup;
mod generated_bytes;
pub mod log;
mod populate;
mod restore;
mod steered_reader;
mod tar_reader;

pub use populate::populate;

use super::log::{LogSource, Resumption};
use super::{Census, Driver, Finding, FullBackup, LivePath, OutsideFile, RestorePlace, RestoreSession, Source};
use crate::artifact::log_batch::LogMark;
use crate::artifact::manifest::{Engine, Manifest, ServerRecord};
use crate::artifact::statistics::Statistics;
use crate::base::clock::wait_until;
use crate::base::ids::BackupKind;
use crate::base::process::OsUser;
use crate::base::task::{Severity, Task};
use crate::base::{Code, Error, Result};
use control::Control;
use data_tree::DataTree;
use full_backup::SimBackup;
use restore::SimRestore;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How often a wait looks again.
const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// The driver of one fake database.
#[derive(Clone, Debug)]
pub struct SimDriver {
    directory: PathBuf,
}

impl SimDriver {
    /// The fake database in `directory`, an absolute path; [`populate`] makes one.
    pub fn new(directory: PathBuf) -> SimDriver {
        SimDriver { directory }
    }

    /// The argument vectors that stop and start the fake server, in this order.
    pub fn service_commands(&self) -> (Vec<String>, Vec<String>) {
        let running = self.running().to_string_lossy().into_owned();
        let command = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).chain([running.clone()]).collect();
        (command(&["/bin/rm", "-f", "--"]), command(&["/usr/bin/touch", "--"]))
    }

    fn running(&self) -> PathBuf {
        self.directory.join("running")
    }

    fn data(&self) -> PathBuf {
        self.directory.join("data")
    }

    fn control(&self) -> Control {
        Control::of(&self.directory)
    }
}

impl Driver for SimDriver {
    fn engine(&self) -> Engine {
        Engine::Sim
    }

    fn inspect(&self, task: &Task) -> Result<Source> {
        let path = self.directory.join("identity");
        let identity = fs::read_to_string(&path).map_err(|cause| Error::io("reading the identity", &path, cause))?;
        let estimated_bytes = match self.control().size()? {
            Some(size) => size,
            None => DataTree::scan(&self.data(), task)?.bytes(),
        };
        Ok(Source {
            database: "sim".to_owned(),
            data_identity: identity.trim().to_owned(),
            server: ServerRecord { version: "1.0".to_owned(), ..ServerRecord::default() },
            owner: OsUser::owner_of(&self.directory)?,
            estimated_bytes,
        })
    }

    fn is_running(&self, _: &Task) -> Result<bool> {
        let path = self.running();
        path.try_exists().map_err(|cause| Error::io("looking for", &path, cause))
    }

    fn wait_ready(&self, timeout: Duration, task: &Task) -> Result<()> {
        let failed = |why| Error::new(Code::ServerControlFailed, format!("the fake server in {} {why}", self.shown()));
        // A server that refuses to come up says so at once: no test needs to sit the whole time out.
        if self.control().refuses_ready() {
            return Err(failed("refuses to become ready"));
        }
        let came_up = || self.running().exists() || task.check().is_err();
        let waited = wait_until(timeout, POLL_INTERVAL, came_up);
        task.check()?;
        if waited { Ok(()) } else { Err(failed("did not come up in time")) }
    }

    fn census(&self, task: &Task) -> Result<Census> {
        if !self.is_running(task)? {
            let statistics = Statistics::not_checked("the fake server is not running");
            return Ok(Census { statistics, mark: None });
        }
        match self.control().size()? {
            Some(size) => Ok(restore::census_of_stream(size)),
            None => DataTree::scan(&self.data(), task)?.census(task),
        }
    }

    fn default_kind(&self) -> BackupKind {
        if log::is_there(&self.data()) { BackupKind::Base } else { BackupKind::Dump }
    }

    fn needs_stop(&self, kind: BackupKind) -> bool {
        kind == BackupKind::Dump
    }

    fn begin_full(&self, kind: BackupKind, _: &Path, task: &Task) -> Result<Box<dyn FullBackup>> {
        let running = self.is_running(task)?;
        match kind {
            BackupKind::Base => {}
            BackupKind::Dump if !running => {}
            BackupKind::Dump => {
                let text = format!("dumping {}: its server still runs", self.shown());
                return Err(Error::new(Code::ServerControlFailed, text));
            }
            BackupKind::Export | BackupKind::Enterprise => {
                let text = format!("the fake database cannot make a backup of kind {}", kind.as_str());
                return Err(Error::new(Code::NotAvailable, text));
            }
        }
        Ok(Box::new(SimBackup::plan(kind, &self.data(), &self.control(), task)?))
    }

    fn outside_files(&self, _: &Task) -> Result<Vec<OutsideFile>> {
        let path = self.directory.join("sim.conf");
        let file = OutsideFile { path, archive_name: "sim.conf".to_owned() };
        Ok(Some(file).filter(|file| file.path.exists()).into_iter().collect())
    }

    fn live_paths(&self, _: &Task) -> Result<Vec<LivePath>> {
        Ok(vec![LivePath { staged: PathBuf::from("data"), live: self.data() }])
    }

    fn begin_restore(&self, manifest: &Manifest, place: &RestorePlace, _: &Task) -> Result<Box<dyn RestoreSession>> {
        if manifest.engine != Engine::Sim {
            let text = format!("{} is a backup of {}, not of a fake database", manifest.id, manifest.engine.as_str());
            return Err(Error::new(Code::RestoreFailed, text));
        }
        Ok(Box::new(SimRestore::begin(manifest, place, self.control())?))
    }

    fn log(&self) -> Option<&dyn LogSource> {
        log::is_there(&self.data()).then_some(self)
    }

    fn doctor(&self, _: &Task) -> Vec<Finding> {
        if self.data().is_dir() {
            return Vec::new();
        }
        vec![Finding {
            code: "sim-data-missing".to_owned(),
            severity: Severity::Error,
            text: format!("the fake database in {} has no data directory", self.shown()),
            fix: format!("mkdir -- {}", self.data().display()),
        }]
    }
}

impl LogSource for SimDriver {
    fn resume(&self, after: &LogMark, task: &Task) -> Result<Resumption> {
        task.check()?;
        log::source::resume(&self.data(), &self.control(), after)
    }
}

impl SimDriver {
    fn shown(&self) -> std::path::Display<'_> {
        self.directory.display()
    }
}

#[cfg(test)]
mod tests;
