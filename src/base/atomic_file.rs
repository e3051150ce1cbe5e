//! Files that are whole or not there: temporary name, fsync, rename, fsync of the directory.
//!
//! A failed fsync is never retried: the kernel may have dropped the pages it could not write, and a second call
//! would report success over lost data. The file is discarded and the error passed on.

use super::{Code, Error, Result};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// Every temporary file of ours starts with this, so that it can be swept after a crash.
pub const TEMPORARY_PREFIX: &str = ".nba-tmp-";

static COUNTER: AtomicU64 = AtomicU64::new(0);

/// A name beside `path` that no other process or thread uses.
pub fn temporary_beside(path: &Path) -> PathBuf {
    let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let count = COUNTER.fetch_add(1, Ordering::Relaxed);
    path.with_file_name(format!("{TEMPORARY_PREFIX}{}-{count}-{name}", std::process::id()))
}

/// Writes `content` to `path` with mode `mode`, durable when it returns; an older file is replaced at once or stays.
pub fn write(path: &Path, content: &[u8], mode: u32) -> Result<()> {
    copy(path, &mut { content }, mode)
}

/// [`write()`] over a file that is there, whose owner, group and mode stay.
pub fn replace(path: &Path, content: &[u8]) -> Result<()> {
    let before = fs::metadata(path).map_err(|cause| Error::io("examining", path, cause))?;
    through_another(path, 0o600, |file| {
        std::os::unix::fs::fchown(&*file, Some(before.uid()), Some(before.gid()))?;
        file.set_permissions(before.permissions())?;
        file.write_all(content)
    })
}

/// [`write()`] of what `content` gives up to its end.
pub fn copy(path: &Path, content: &mut impl Read, mode: u32) -> Result<()> {
    through_another(path, mode, |file| io::copy(content, file).map(|_| ()))
}

/// Has a temporary file filled, which then takes the name.
fn through_another(path: &Path, mode: u32, fill: impl FnOnce(&mut File) -> io::Result<()>) -> Result<()> {
    let temporary = temporary_beside(path);
    let written = (|| {
        let mut file = open_new(&temporary, mode)?;
        fill(&mut file)?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    })();
    if let Err(cause) = written {
        let _ = fs::remove_file(&temporary);
        return Err(Error::io("writing", path, cause));
    }
    sync_parent(path)
}

/// Makes a file that is not there yet, durable when it returns. `OBJECT_CONFLICT` if there is one, which stays as it is; where
/// it cannot be written whole, it is taken away again: half of a key must not be taken for one.
pub fn create(path: &Path, content: &[u8], mode: u32) -> Result<()> {
    // Only what was opened here is ours to take away: without a free descriptor, this fails over a file that is there.
    let mut file = open_new(path, mode).map_err(|cause| match cause.kind() {
        io::ErrorKind::AlreadyExists => {
            Error::new(Code::ObjectConflict, format!("{} is there already and is left as it is", path.display()))
                .with_hint("look what it says; move it away, or choose another name")
        }
        _ => Error::io("making", path, cause),
    })?;
    if let Err(cause) = file.write_all(content).and_then(|()| file.sync_all()) {
        let _ = fs::remove_file(path);
        return Err(Error::io("writing", path, cause));
    }
    sync_parent(path)
}

fn open_new(path: &Path, mode: u32) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(mode).open(path)
}

/// Makes directory entries durable: creations, renames and removals inside `directory`.
pub fn sync_directory(directory: &Path) -> Result<()> {
    File::open(directory)
        .and_then(|handle| handle.sync_all())
        .map_err(|cause| Error::io("flushing the directory", directory, cause))
}

/// [`sync_directory`] of the directory that holds `path`.
pub fn sync_parent(path: &Path) -> Result<()> {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => sync_directory(parent),
        _ => sync_directory(Path::new(".")),
    }
}

/// Removes a file durably; one that is not there is fine.
pub fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Ok(()) => sync_parent(path),
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(cause) => Err(Error::io("removing", path, cause)),
    }
}

/// Removes temporary files of [`write`] that killed processes left in `directory`. Only for whoever knows that nobody
/// else writes there now.
pub fn sweep(directory: &Path) -> Result<()> {
    let entries = fs::read_dir(directory).map_err(|cause| Error::io("listing", directory, cause))?;
    for entry in entries.flatten() {
        if entry.file_name().to_string_lossy().starts_with(TEMPORARY_PREFIX) {
            remove(&entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_old_content_stays_until_the_new_is_whole() {
        let directory = tempfile::tempdir().expect("tempdir");
        let path = directory.path().join("x");
        write(&path, b"one", 0o600).expect("first");
        write(&path, b"two", 0o600).expect("second");
        assert_eq!(fs::read(&path).expect("read"), b"two");
        assert_eq!(fs::read_dir(directory.path()).expect("list").count(), 1);
    }

    #[test]
    fn what_is_replaced_keeps_its_owner_and_mode() {
        let directory = tempfile::tempdir().expect("tempdir");
        let path = directory.path().join("x");
        write(&path, b"one", 0o640).expect("first");
        // Only root can give a file away.
        let gives = std::os::unix::fs::chown(&path, Some(65_534), Some(65_534)).is_ok();
        replace(&path, b"two").expect("second");
        let after = fs::metadata(&path).expect("metadata");
        assert_eq!((fs::read(&path).expect("read").as_slice(), after.mode() & 0o777), (&b"two"[..], 0o640));
        assert!(!gives || (after.uid(), after.gid()) == (65_534, 65_534));
        assert!(replace(&directory.path().join("y"), b"").is_err());
        assert_eq!(fs::read_dir(directory.path()).expect("list").count(), 1);
    }

    #[test]
    fn what_is_there_is_not_created_again() {
        let directory = tempfile::tempdir().expect("tempdir");
        let path = directory.path().join("x");
        create(&path, b"one", 0o600).expect("first");
        assert_eq!(create(&path, b"two", 0o600).map_err(|error| error.code()), Err(Code::ObjectConflict));
        assert_eq!(fs::read(&path).expect("read"), b"one");
        assert_eq!(fs::metadata(&path).expect("metadata").mode() & 0o777, 0o600);
        assert!(create(&directory.path().join("none/x"), b"", 0o600).is_err());
    }

    #[test]
    fn a_failure_leaves_nothing_behind() {
        let directory = tempfile::tempdir().expect("tempdir");
        fs::create_dir(directory.path().join("x")).expect("mkdir");
        fs::write(directory.path().join("x/y"), b"").expect("file");
        assert!(write(&directory.path().join("x"), b"one", 0o600).is_err());
        assert_eq!(fs::read_dir(directory.path()).expect("list").count(), 1);
    }
}
