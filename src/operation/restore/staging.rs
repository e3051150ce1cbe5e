//! Directories that a restore is filling, on durable record until they are whole or gone. After a kill, the agent's
//! next start empties what is on record.

use crate::base::task::{Severity, Task};
use crate::base::{Error, Result, atomic_file, clock};
use crate::operation::context::Context;
use crate::operation::records::{self, Happening};
use serde::{Deserialize, Serialize};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fs, io};

/// Directories of ours beside live data start with this.
pub(crate) const AREA_PREFIX: &str = ".neo4j-backup-";
/// Where in such a directory a restore is filled in.
pub(super) const FILLED: &str = "new";
/// Where in such a directory the earlier data lies.
pub(crate) const SET_ASIDE: &str = "set-aside";
/// How long processes that were killed may go on writing into a directory that is to be cleared.
const LAST_WRITES_TIMEOUT: Duration = Duration::from_secs(20);
const LAST_WRITES_INTERVAL: Duration = Duration::from_millis(50);
/// How it shows that somebody writes where a tree is being removed.
const LAST_WRITES: [io::ErrorKind; 2] = [io::ErrorKind::DirectoryNotEmpty, io::ErrorKind::NotFound];

/// What is on record for one restore.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    directory: PathBuf,
    /// Whether the directory itself was made by us, and goes with its content.
    made: bool,
    /// Where it belongs if it comes back here after a server was started on it: clients may have written to it.
    #[serde(default)]
    served: Option<PathBuf>,
}

fn record_path(context: &Context, restore: &str, number: usize) -> PathBuf {
    context.state_directory.join("staging").join(format!("{restore}.{number}.json"))
}

/// Whether something of this restore is on record.
pub(super) fn is_recorded(context: &Context, restore: &str) -> bool {
    record_path(context, restore, 0).exists()
}

/// A directory that is being filled. Dropping it without a word clears it.
pub(super) struct Claim {
    record: Record,
    path: PathBuf,
    settled: bool,
}

/// Puts `directory` on record, then makes it (mode 0700). It must not exist, or be empty.
pub(super) fn claim(context: &Context, restore: &str, directory: &Path) -> Result<Claim> {
    let number = (0..).find(|number| !record_path(context, restore, *number).exists()).unwrap_or(0);
    let path = record_path(context, restore, number);
    let record = Record { directory: directory.to_owned(), made: !directory.exists(), served: None };
    write(&record, &path)?;
    let claim = Claim { record, path, settled: false };
    // The database's own account must be able to pass through to the directory that becomes its own.
    let parents =
        directory.parent().map_or(Ok(()), |parent| fs::DirBuilder::new().recursive(true).mode(0o711).create(parent));
    let made = parents.and_then(|()| fs::DirBuilder::new().recursive(true).mode(0o700).create(directory));
    made.and_then(|()| fs::set_permissions(directory, fs::Permissions::from_mode(0o700)))
        .map_err(|cause| Error::io("making", directory, cause))?;
    atomic_file::sync_parent(directory)?;
    Ok(claim)
}

impl Claim {
    /// The directory is whole and stays.
    pub(super) fn keep(mut self) -> Result<()> {
        self.settled = true;
        atomic_file::sync_parent(&self.record.directory)?;
        atomic_file::remove(&self.path)
    }

    /// What was written goes away.
    pub(super) fn clear(mut self) {
        self.record.served = None;
    }

    /// A server is about to be started on what was written here. Should that come back, it is set aside as `aside`, not
    /// removed.
    pub(super) fn serve(&mut self, aside: PathBuf) -> Result<()> {
        self.record.served = Some(aside);
        write(&self.record, &self.path)
    }

    /// The directory.
    pub(super) fn directory(&self) -> &Path {
        &self.record.directory
    }
}

fn write(record: &Record, path: &Path) -> Result<()> {
    atomic_file::write(path, &serde_json::to_vec(record).unwrap_or_default(), 0o600)
}

impl Drop for Claim {
    fn drop(&mut self) {
        if !self.settled && settle(&self.record).is_ok() {
            let _ = atomic_file::remove(&self.path);
        }
    }
}

/// Clears a directory, or sets aside what it holds where a server was started on that. Says where it is then.
fn settle(record: &Record) -> Result<Option<PathBuf>> {
    let came_back = |aside: &&PathBuf| holds_files(&record.directory) && !holds_files(aside);
    let Some(aside) = record.served.clone().filter(|aside| came_back(&aside)) else {
        return clear(record).map(|()| None);
    };
    remove_empty(&aside);
    let parents = aside.parent().map_or(Ok(()), fs::create_dir_all);
    let moved = parents.and_then(|()| fs::rename(&record.directory, &aside));
    moved.map_err(|cause| Error::io("setting aside", &record.directory, cause))?;
    for path in [&aside, &record.directory] {
        atomic_file::sync_parent(path)?;
    }
    Ok(Some(aside))
}

/// Whether there is more below than empty directories.
fn holds_files(directory: &Path) -> bool {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.into_iter().any(|entry| match entry.file_type() {
        Ok(kind) if kind.is_dir() => holds_files(&entry.path()),
        _ => true,
    })
}

fn is_area(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(AREA_PREFIX))
}

/// Clears a directory, and again for a while if it fills while it is emptied: the processes of a scratch server that was
/// killed need a moment to notice, and write until then.
fn clear(record: &Record) -> Result<()> {
    let mut outcome = Ok(());
    clock::wait_until(LAST_WRITES_TIMEOUT, LAST_WRITES_INTERVAL, || {
        outcome = empty(record);
        !matches!(&outcome, Err(cause) if LAST_WRITES.contains(&cause.kind()))
    });
    outcome.map_err(|cause| Error::io("clearing", &record.directory, cause))?;
    if record.made {
        remove_area_above(&record.directory);
    }
    Ok(())
}

/// Removes our own directory beside the data in service that holds `path`, unless data was set aside in it: only empty
/// directories can go.
pub(super) fn remove_area_above(path: &Path) {
    if let Some(area) = path.ancestors().find(|path| is_area(path)) {
        remove_empty(area);
    }
}

fn remove_empty(directory: &Path) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_empty(&entry.path());
        }
    }
    let _ = fs::remove_dir(directory);
}

fn empty(record: &Record) -> io::Result<()> {
    if !record.directory.exists() {
        return Ok(());
    }
    if record.made {
        return fs::remove_dir_all(&record.directory);
    }
    for entry in fs::read_dir(&record.directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() { fs::remove_dir_all(entry.path()) } else { fs::remove_file(entry.path()) }?;
    }
    Ok(())
}

/// Clears every directory on record: what killed restores left. Returns a line for each.
pub(crate) fn recover(context: &Context, task: &Task) -> Vec<String> {
    let mut lines = Vec::new();
    let directory = context.state_directory.join("staging");
    for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
        let Some(record) = fs::read(entry.path()).ok().and_then(|text| serde_json::from_slice::<Record>(&text).ok())
        else {
            continue;
        };
        match settle(&record).and_then(|aside| atomic_file::remove(&entry.path()).map(|()| aside)) {
            Ok(Some(aside)) => {
                let text =
                    format!("kept what was in service meanwhile, and may have been written to, in {}", aside.display());
                tell(context, &text, task);
                lines.push(text);
            }
            Ok(None) => lines.push(format!("removed the unfinished restore in {}", record.directory.display())),
            Err(error) => task.warn(format!("an unfinished restore could not be removed: {error}")),
        }
    }
    lines
}

/// On record, since whoever misses something looks there.
fn tell(context: &Context, text: &str, task: &Task) {
    let happening = Happening {
        severity: Severity::Error,
        name: "restore-undone",
        target: None,
        job: None,
        actor: "neo4j-backupd",
        text,
    };
    if let Err(error) = records::event(context, happening) {
        task.warn(format!("{text}; that could not be put on record: {error}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_served_is_set_aside_and_all_else_is_removed() {
        let directory = tempfile::tempdir().expect("tempdir");
        let area = directory.path().join(format!("{AREA_PREFIX}graph-20261120T020000Z"));
        let filled = area.join(FILLED);
        let aside = area.join(SET_ASIDE);
        let record =
            |served: bool| Record { directory: filled.clone(), made: true, served: served.then(|| aside.clone()) };
        let fill = || {
            fs::create_dir_all(filled.join("databases/graph")).expect("mkdir");
            fs::write(filled.join("databases/graph/neostore"), b"written to").expect("write");
        };
        fill();
        fs::create_dir_all(area.join(SET_ASIDE).join("databases")).expect("what an exchange leaves");
        assert_eq!(settle(&record(true)).expect("settle").as_ref(), Some(&aside));
        assert_eq!(fs::read(aside.join("databases/graph/neostore")).expect("kept"), b"written to");
        assert!(!filled.exists());

        // The exchange stands: what is set aside there is the earlier data.
        fill();
        assert_eq!(settle(&record(true)).expect("settle"), None);
        assert!(!filled.exists() && aside.join("databases/graph/neostore").exists());

        fs::remove_dir_all(&area).expect("remove");
        fill();
        assert_eq!(settle(&record(false)).expect("settle"), None);
        assert!(!area.exists());
    }
}
