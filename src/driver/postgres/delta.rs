//! A restore over an older copy of the same cluster. What differs is written, what is superfluous goes, and from the first
//! change until all of it is whole and checked, no server can be started on the directory: its control file is not where
//! a server looks for it, and the same restore finds it where it is.

use super::{control_file, postmaster, tablespaces};
use crate::artifact::manifest::Manifest;
use crate::base::task::Task;
use crate::base::untar::Laid;
use crate::base::{Code, Error, Result, atomic_file};
use std::collections::HashSet;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

/// Says that a restore over an older copy is not finished; locked while one works.
pub(crate) const MARKER: &str = "neo4j-backup-delta";
/// Without it no server starts.
pub(crate) const CONTROL: &str = "global/pg_control";
/// Where it waits until all else is whole.
pub(crate) const HELD_BACK: &str = "global/pg_control.neo4j-backup";

/// See [`crate::driver::Driver::check_older_copy`].
pub(crate) fn check(directory: &Path, manifest: &Manifest) -> Result<()> {
    let refuse = |code, why: String| Err(Error::new(code, format!("restoring over {}: {why}", directory.display())));
    if postmaster::is_running(directory)? {
        return refuse(Code::RestoreServerRunning, "a server uses it".to_owned());
    }
    let own = &manifest.owner.data_identity;
    let identity = identity(directory).map_err(|cause| {
        let text = format!("{} is no copy of a cluster that could be restored over", directory.display());
        Error::new(Code::RestoreNotEmpty, text)
            .with_hint(format!("{}; leave out `--delta` and name an empty directory", cause.message()))
    })?;
    if &identity != own {
        return refuse(
            Code::RestoreNotEmpty,
            format!("it is of cluster {identity}, {} is of cluster {own}", manifest.id),
        );
    }
    let spaces = directory.join(tablespaces::DIRECTORY);
    let spaces = fs::read_dir(&spaces).into_iter().flatten().flatten().map(|entry| entry.path());
    let is_link = |path: &PathBuf| path.symlink_metadata().is_ok_and(|metadata| metadata.is_symlink());
    match spaces.chain([directory.join("pg_wal")]).find(is_link) {
        Some(link) => refuse(Code::RestoreNotEmpty, format!("{} leads out of it, and is not followed", link.display())),
        None => Ok(()),
    }
}

/// Whose copy it is, also while its control file waits.
fn identity(directory: &Path) -> Result<String> {
    let found = control_file::read_at(&directory.join(CONTROL));
    let found = found.or_else(|missing| control_file::read_at(&directory.join(HELD_BACK)).map_err(|_| missing));
    found.map(|control| control.system_identifier.to_string())
}

/// A directory that is restored over.
pub(crate) struct Delta {
    directory: PathBuf,
    /// Locked.
    _marker: File,
    laid: Mutex<Laid>,
    finished: AtomicBool,
}

impl Delta {
    /// Marks a directory. `None` if it is empty: there is nothing to restore over.
    pub(crate) fn begin(directory: &Path, manifest: &Manifest) -> Result<Option<Delta>> {
        let mut entries = fs::read_dir(directory).map_err(|cause| Error::io("listing", directory, cause))?;
        if entries.next().is_none() {
            return Ok(None);
        }
        check(directory, manifest)?;
        // Who owns it cannot get in meanwhile; it changes hands again when all of it is whole.
        let me = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
        chown(directory, Some(me.0), Some(me.1))
            .and_then(|()| fs::set_permissions(directory, Permissions::from_mode(0o700)))
            .map_err(|cause| Error::io("closing", directory, cause))?;
        let marker = mark(directory, manifest)?;
        let delta = Delta {
            directory: directory.to_owned(),
            _marker: marker,
            laid: Mutex::default(),
            finished: AtomicBool::new(false),
        };
        delta.hold_back()?;
        Ok(Some(delta))
    }

    /// What a lane brought. Error `HOSTILE_ARCHIVE` for a file that two of them have.
    pub(crate) fn lane(&self, lane: Laid) -> Result<()> {
        let mut laid = self.laid.lock().unwrap_or_else(|p| p.into_inner());
        if let Some(twice) = lane.files.iter().find(|path| laid.files.contains(*path)) {
            return Err(Error::new(Code::HostileArchive, format!("{} comes in two lanes", twice.display())));
        }
        laid.files.extend(lane.files);
        laid.directories.extend(lane.directories);
        laid.unchanged += lane.unchanged;
        laid.changed_bytes += lane.changed_bytes;
        Ok(())
    }

    /// All lanes are there: removes what none of them has.
    pub(crate) fn sweep(&self, task: &Task) -> Result<()> {
        let mut laid = self.laid.lock().unwrap_or_else(|p| p.into_inner());
        let above: HashSet<PathBuf> = laid
            .files
            .iter()
            .chain(&laid.directories)
            .flat_map(|path| path.ancestors().skip(1))
            .map(Path::to_owned)
            .collect();
        laid.directories.extend(above);
        laid.files.extend([MARKER, HELD_BACK].map(PathBuf::from));
        laid.files.remove(Path::new(CONTROL));
        let removed = sweep(&self.directory, Path::new(""), &laid, task)?;
        task.info(format!(
            "{} of {} files were as they shall be; {} bytes were written over, {removed} superfluous files and directories removed",
            laid.unchanged,
            laid.files.len().saturating_sub(1),
            laid.changed_bytes
        ));
        Ok(())
    }

    /// All of it is durable: from here on a server can be started.
    pub(crate) fn open(&self) -> Result<()> {
        self.rename(HELD_BACK, CONTROL)
    }

    /// Nothing is left to be done.
    pub(crate) fn finish(&self) -> Result<()> {
        atomic_file::remove(&self.directory.join(MARKER))?;
        self.finished.store(true, Ordering::Relaxed);
        Ok(())
    }

    fn hold_back(&self) -> Result<()> {
        match self.directory.join(CONTROL).exists() {
            true => self.rename(CONTROL, HELD_BACK),
            false => Ok(()),
        }
    }

    fn rename(&self, from: &str, to: &str) -> Result<()> {
        let (from, to) = (self.directory.join(from), self.directory.join(to));
        fs::rename(&from, &to).map_err(|cause| Error::io("renaming", &from, cause))?;
        atomic_file::sync_parent(&to)
    }
}

impl Drop for Delta {
    /// What is given up stays, for the same restore to go on, and no server starts on it.
    fn drop(&mut self) {
        if !self.finished.load(Ordering::Relaxed) {
            let _ = self.hold_back();
        }
    }
}

fn mark(directory: &Path, manifest: &Manifest) -> Result<File> {
    let path = directory.join(MARKER);
    let failed = |cause| Error::io("marking", &path, cause);
    let options = |options: &mut OpenOptions| {
        options.write(true).create(true).truncate(false).mode(0o600).custom_flags(libc::O_NOFOLLOW).open(&path)
    };
    let mut marker = options(&mut OpenOptions::new()).map_err(failed)?;
    if fs2::FileExt::try_lock_exclusive(&marker).is_err() {
        let text = format!("another restore works in {}", directory.display());
        return Err(Error::new(Code::Busy, text));
    }
    let text = format!(
        "A restore of {} over this copy is not finished: no server can be started here. Give the same command again.\n",
        manifest.id
    );
    marker
        .set_len(0)
        .and_then(|()| marker.write_all(text.as_bytes()))
        .and_then(|()| marker.sync_all())
        .map_err(failed)?;
    atomic_file::sync_parent(&path)?;
    Ok(marker)
}

/// Removes what is not in `laid`, below `inside`; returns how much.
fn sweep(root: &Path, inside: &Path, laid: &Laid, task: &Task) -> Result<u64> {
    task.check()?;
    let mut removed = 0;
    let directory = root.join(inside);
    for entry in fs::read_dir(&directory).map_err(|cause| Error::io("listing", &directory, cause))? {
        let entry = entry.map_err(|cause| Error::io("listing", &directory, cause))?;
        let (path, within) = (entry.path(), inside.join(entry.file_name()));
        let kind = entry.file_type().map_err(|cause| Error::io("examining", &path, cause))?;
        let gone = match kind.is_dir() {
            true if laid.directories.contains(&within) => {
                removed += sweep(root, &within, laid, task)?;
                continue;
            }
            true => fs::remove_dir_all(&path),
            false if laid.files.contains(&within) => continue,
            false => fs::remove_file(&path),
        };
        gone.or_else(|cause| if cause.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(cause) })
            .map_err(|cause| Error::io("removing", &path, cause))?;
        removed += 1;
    }
    Ok(removed)
}
