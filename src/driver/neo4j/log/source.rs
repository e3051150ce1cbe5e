//! The log of a database as it is archived: found where the server's configuration says, read while it is written.

use super::files::{Pins, TRANSACTIONS, numbered};
use super::reader::FilesReader;
use super::resume::{Place, locate};
use crate::artifact::log_batch::LogMark;
use crate::base::Result;
use crate::base::task::Task;
use crate::driver::log::{LogSource, Resumption};
use std::hash::{Hash, Hasher};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// How many files are held open at most.
const PINS_MAX: usize = 256;

/// A file whose last write is this old shows the next one.
const SETTLED_AFTER: Duration = Duration::from_secs(1);

/// Says where the log is; asked anew each time, because the configuration may change.
type FindDirectory = Box<dyn Fn() -> Result<PathBuf> + Send + Sync>;

/// The transaction log of one database. While it lives, the files that were seen and not archived yet are held open,
/// so that the server's pruning cannot take them: what was archived is told by the next [`LogSource::resume`].
pub struct Neo4jLog {
    directory: FindDirectory,
    pins: Arc<Mutex<Pins>>,
}

impl Neo4jLog {
    /// The log in the directory that `directory` finds.
    pub fn new(directory: impl Fn() -> Result<PathBuf> + Send + Sync + 'static) -> Self {
        Neo4jLog { directory: Box::new(directory), pins: Arc::new(Mutex::new(Pins::at_most(PINS_MAX))) }
    }
}

impl LogSource for Neo4jLog {
    fn hold(&self) {
        let Ok(directory) = (self.directory)() else { return };
        let mut pins = self.pins.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let from = pins.range().map_or(0, |(oldest, _)| oldest);
        // A log that was replaced is for the comparison with the archive to notice.
        let _ = pins.hold_more(&directory, from);
    }

    fn release(&self) {
        *self.pins.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = Pins::at_most(PINS_MAX);
    }

    fn durable(&self, marks: &[LogMark]) -> Result<()> {
        if let Some(oldest) = marks.iter().map(|mark| mark.file).min() {
            self.pins.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).let_go_before(oldest);
        }
        Ok(())
    }

    fn pulse(&self) -> Option<u64> {
        let directory = (self.directory)().ok()?;
        let (number, path) = numbered(&directory, TRANSACTIONS).ok()?.pop()?;
        let metadata = std::fs::metadata(path).ok()?;
        let written = metadata.modified().ok()?;
        // The filesystem's clock ticks in milliseconds: two writes within a tick look like one.
        if written.elapsed().ok()? < SETTLED_AFTER {
            return None;
        }
        let mut hasher = std::hash::DefaultHasher::new();
        (directory, number, metadata.ino(), metadata.len(), written).hash(&mut hasher);
        Some(hasher.finish())
    }

    fn resume(&self, after: &LogMark, task: &Task) -> Result<Resumption> {
        let directory = (self.directory)()?;
        let mut pins = self.pins.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        // Another repository may be behind this one: what is held is let go when all of them have it.
        let from = pins.range().map_or(after.file, |(oldest, _)| oldest.min(after.file));
        pins.renew(&directory, from)?;
        Ok(match locate(&directory, &pins, after, task)? {
            Place::Forked(what) => Resumption::Forked(what),
            Place::Gap(what) => Resumption::Gap(what),
            Place::At(file, offset) => Resumption::Continues(Box::new(FilesReader::new(
                directory,
                self.pins.clone(),
                after.clone(),
                (file, offset),
            ))),
        })
    }
}

#[cfg(test)]
mod tests;
