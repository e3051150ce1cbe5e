//! Copies a Lucene index that a server may be writing.
//!
//! Its segments are never changed once they are written, only added and removed; a commit file `segments_N` names those
//! that belong together. So all files are opened first: an open file keeps its content whatever becomes of its name. If
//! the commit files are the same before and after, what was opened is one commit, and can be read at leisure.

use super::archive::Archive;
use crate::base::task::Task;
use crate::base::{Error, Result};
use crate::driver::tar_archive::Sink;
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// How often the files are opened anew before the index is given up.
const ATTEMPTS: u32 = 20;
/// The file by which Lucene tells that somebody writes.
const WRITE_LOCK: &str = "write.lock";
/// How a commit file's name begins.
const COMMIT: &str = "segments_";

/// Copies the index in `source` into the archive below `name`; `false` if it would not hold still, or is gone.
pub(super) fn copy<S: Sink>(archive: &mut Archive<S>, source: &Path, name: &Path, task: &Task) -> Result<bool> {
    for _ in 0..ATTEMPTS {
        task.check()?;
        let Some(files) = open_one_commit(source)? else { continue };
        for (path, file) in files {
            let size = file.metadata().map_err(|cause| Error::io("examining", &source.join(&path), cause))?.len();
            archive.file(&name.join(&path), size, |buffer, offset| file.read_at(buffer, offset))?;
        }
        return Ok(true);
    }
    Ok(false)
}

/// All files, open, if they belong to one commit; `None` if a commit passed meanwhile.
fn open_one_commit(directory: &Path) -> Result<Option<Vec<(PathBuf, File)>>> {
    let Some(before) = list(directory, Path::new(""))? else { return Ok(None) };
    let mut open = Vec::new();
    for path in before.keys() {
        match File::open(directory.join(path)) {
            Ok(file) => open.push((path.clone(), file)),
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(cause) => return Err(Error::io("opening", &directory.join(path), cause)),
        }
    }
    let Some(after) = list(directory, Path::new(""))? else { return Ok(None) };
    let commits = |listing: &BTreeMap<PathBuf, u64>| -> Vec<(PathBuf, u64)> {
        let is_commit = |path: &Path| path.file_name().is_some_and(|n| n.to_string_lossy().starts_with(COMMIT));
        listing.iter().filter(|(path, _)| is_commit(path)).map(|(path, size)| (path.clone(), *size)).collect()
    };
    Ok((commits(&before) == commits(&after)).then_some(open))
}

/// Files with their sizes; `None` if a directory vanished.
fn list(directory: &Path, below: &Path) -> Result<Option<BTreeMap<PathBuf, u64>>> {
    let here = directory.join(below);
    let entries = match std::fs::read_dir(&here) {
        Ok(entries) => entries,
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(cause) => return Err(Error::io("listing", &here, cause)),
    };
    let mut files = BTreeMap::new();
    for entry in entries {
        let entry = entry.map_err(|cause| Error::io("listing", &here, cause))?;
        let path = below.join(entry.file_name());
        let Ok(metadata) = entry.metadata() else { return Ok(None) };
        if metadata.is_dir() {
            match list(directory, &path)? {
                Some(inner) => files.extend(inner),
                None => return Ok(None),
            }
        } else if entry.file_name() != WRITE_LOCK {
            files.insert(path, metadata.len());
        }
    }
    Ok(Some(files))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::tar_archive::Copying;

    #[test]
    fn an_index_is_copied_without_its_lock() {
        let directory = tempfile::tempdir().expect("tempdir");
        let index = directory.path().join("5/fulltext-1.0/1");
        std::fs::create_dir_all(&index).expect("mkdir");
        for name in ["segments_2", "_0.cfs", "_0.si", "write.lock"] {
            std::fs::write(index.join(name), name).expect("write");
        }
        let mut out = Vec::new();
        let mut archive = Archive::new(Copying::new(&mut out));
        let source = directory.path().join("5");
        assert!(copy(&mut archive, &source, Path::new("to"), &Task::unobserved()).expect("copy"));
        let listing = archive.finish().expect("finish");
        let names: Vec<&str> = listing.files.keys().map(String::as_str).collect();
        assert_eq!(names, ["to/fulltext-1.0/1/_0.cfs", "to/fulltext-1.0/1/_0.si", "to/fulltext-1.0/1/segments_2"]);
    }

    #[test]
    fn an_index_that_is_gone_is_given_up() {
        let mut archive = Archive::new(Copying::new(Vec::new()));
        let copied = copy(&mut archive, Path::new("/no/such"), Path::new("to"), &Task::unobserved());
        assert!(!copied.expect("copy"));
    }
}
