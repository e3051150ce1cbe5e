//! Directories below a repository's root, each opened beneath its parent and never through a symbolic link.

use super::DIRECTORY_MODE;
use crate::artifact::object_key::ObjectKey;
use crate::base::Result;
use crate::repository::fault::StoreError;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, open, openat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, fstatat, mkdirat};
use nix::unistd::{UnlinkatFlags, fsync, unlinkat};
use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};

/// Where writers work; hidden, and so never a key.
pub(super) const INCOMPLETE: &str = ".incomplete";

/// How often a path is made anew while a deletion beside it keeps removing emptied directories of it.
pub(super) const DIRECTORY_RACES_MAX: u32 = 1000;

const OPEN_DIRECTORY: OFlag = OFlag::O_RDONLY.union(OFlag::O_DIRECTORY).union(OFlag::O_CLOEXEC);

/// The directory tree of a repository.
#[derive(Debug)]
pub(super) struct Tree {
    path: PathBuf,
    /// Device and inode of the root when it was opened.
    identity: (u64, u64),
    /// Directories whose entry in their parent is known to be durable, with their inode. Without this memory a file
    /// could be durable in a directory that another writer had made and not yet flushed.
    durable: Mutex<HashMap<String, u64>>,
}

/// The directories of a key, and its last segment.
pub(super) fn split(key: &ObjectKey) -> (Vec<&str>, &str) {
    let mut segments: Vec<&str> = key.as_str().split('/').collect();
    let name = segments.pop().unwrap_or_default();
    (segments, name)
}

pub(super) fn kind(status: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(status.st_mode & SFlag::S_IFMT.bits())
}

impl Tree {
    pub(super) fn open(path: PathBuf) -> Result<Tree> {
        let absent = |errno: Errno| StoreError::Absent { location: path.display().to_string(), cause: errno.into() };
        let handle = open(&path, OPEN_DIRECTORY, Mode::empty()).map_err(absent)?;
        let status = fstat(&handle).map_err(absent)?;
        let identity = (status.st_dev, status.st_ino);
        Ok(Tree { path, identity, durable: Mutex::default() })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn location(&self) -> String {
        self.path.display().to_string()
    }

    pub(super) fn fault(&self, doing: &'static str, what: &str, cause: impl Into<io::Error>) -> StoreError {
        StoreError::Io { doing, what: what.to_owned(), location: self.location(), cause: cause.into() }
    }

    /// The root, if it is still the directory that was opened.
    pub(super) fn root(&self) -> Result<OwnedFd, StoreError> {
        let exchanged = || StoreError::Exchanged { location: self.location() };
        let handle = match open(&self.path, OPEN_DIRECTORY, Mode::empty()) {
            Ok(handle) => handle,
            Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ENODEV | Errno::ESTALE) => return Err(exchanged()),
            Err(errno) => return Err(self.fault("opening", "the root", errno)),
        };
        let status = fstat(&handle).map_err(|errno| self.fault("examining", "the root", errno))?;
        if (status.st_dev, status.st_ino) == self.identity { Ok(handle) } else { Err(exchanged()) }
    }

    /// Opens `name` beneath `parent`; `None` if it is not there or is a file. `path` is for messages.
    pub(super) fn child(&self, parent: &OwnedFd, name: &str, path: &str) -> Result<Option<OwnedFd>, StoreError> {
        match openat(parent, name, OPEN_DIRECTORY | OFlag::O_NOFOLLOW, Mode::empty()) {
            Ok(handle) => Ok(Some(handle)),
            Err(Errno::ENOENT) => Ok(None),
            Err(Errno::ENOTDIR | Errno::ELOOP) => match fstatat(parent, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
                Ok(status) if kind(&status) == SFlag::S_IFLNK => {
                    Err(StoreError::SymbolicLink { what: path.to_owned(), location: self.location() })
                }
                _ => Ok(None),
            },
            Err(errno) => Err(self.fault("opening", path, errno)),
        }
    }

    /// Opens the directory at `segments`; `None` if it is not there.
    pub(super) fn descend(&self, segments: &[&str]) -> Result<Option<OwnedFd>, StoreError> {
        let mut handle = self.root()?;
        for (depth, name) in segments.iter().enumerate() {
            match self.child(&handle, name, &segments[..=depth].join("/"))? {
                Some(child) => handle = child,
                None => return Ok(None),
            }
        }
        Ok(Some(handle))
    }

    /// Opens the directory at `segments`, making what is missing; every directory on the way is durable in its parent
    /// when this returns.
    pub(super) fn ensure(&self, segments: &[&str]) -> Result<OwnedFd, StoreError> {
        for _ in 0..DIRECTORY_RACES_MAX {
            if let Some(handle) = self.try_ensure(segments)? {
                return Ok(handle);
            }
        }
        Err(self.fault("making the directory", &segments.join("/"), Errno::ENOTDIR))
    }

    /// `None` if a deletion beside this removed an emptied directory on the way, or if a file is in the way.
    fn try_ensure(&self, segments: &[&str]) -> Result<Option<OwnedFd>, StoreError> {
        let mut handle = self.root()?;
        for (depth, name) in segments.iter().enumerate() {
            let path = segments[..=depth].join("/");
            let made = match mkdirat(&handle, *name, Mode::from_bits_truncate(DIRECTORY_MODE)) {
                Ok(()) => true,
                Err(Errno::EEXIST) => false,
                Err(Errno::ENOENT) => return Ok(None),
                Err(errno) => return Err(self.fault("making the directory", &path, errno)),
            };
            let Some(child) = self.child(&handle, name, &path)? else { return Ok(None) };
            let inode = fstat(&child).map_err(|errno| self.fault("examining", &path, errno))?.st_ino;
            if made || self.known().get(&path) != Some(&inode) {
                if let Err(fault) = self.sync(&handle, &path) {
                    // Flushing again later could succeed over a lost entry; a new directory is a new entry.
                    let _ = unlinkat(&handle, *name, UnlinkatFlags::RemoveDir);
                    return Err(fault);
                }
                self.known().insert(path, inode);
            }
            handle = child;
        }
        Ok(Some(handle))
    }

    /// Makes the entries of a directory durable. Never repeated: a second call may report success over lost entries.
    pub(super) fn sync(&self, handle: &OwnedFd, what: &str) -> Result<(), StoreError> {
        fsync(handle).map_err(|errno| self.fault("flushing the directory of", what, errno))
    }

    /// Removes the directory at `segments` and its parents as far as they are empty.
    pub(super) fn prune(&self, segments: &[&str]) -> Result<(), StoreError> {
        for depth in (0..segments.len()).rev() {
            let path = segments[..=depth].join("/");
            let Some(parent) = self.descend(&segments[..depth])? else { continue };
            // Not empty, or in use by another: then it stays.
            if unlinkat(&parent, segments[depth], UnlinkatFlags::RemoveDir).is_err() {
                return Ok(());
            }
            self.known().remove(&path);
            self.sync(&parent, &path)?;
        }
        Ok(())
    }

    fn known(&self) -> MutexGuard<'_, HashMap<String, u64>> {
        self.durable.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}
