//! Writing an object: an unfinished file under a lock, flushed, then named in one step.

use super::directory::{DIRECTORY_RACES_MAX, INCOMPLETE, Tree, kind, split};
use super::listing::examine;
use crate::artifact::object_key::ObjectKey;
use crate::base::{Error, Result};
use crate::repository::fault::StoreError;
use crate::repository::store::{Commit, ObjectInfo, ObjectWriter};
use fs2::FileExt;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, RenameFlags, openat, renameat, renameat2};
use nix::sys::stat::{Mode, SFlag, fstat, fstatat};
use nix::unistd::{UnlinkatFlags, linkat, unlinkat};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// How often a new file is tried while a sweep keeps taking it for a leftover.
const SWEEP_RACES_MAX: u32 = 64;

static COUNTER: AtomicU64 = AtomicU64::new(0);

/// An object being written.
pub(super) struct LocalWriter {
    tree: Arc<Tree>,
    key: ObjectKey,
    incomplete: OwnedFd,
    name: String,
    file: File,
    failed: bool,
    named: bool,
}

/// A name that no other process or thread of any machine uses.
fn fresh_name(machine: &str) -> Result<String> {
    let mut chance = [0u8; 6];
    openssl::rand::rand_bytes(&mut chance)
        .map_err(|cause| Error::new(crate::base::Code::Internal, format!("drawing a random name: {cause}")))?;
    let count = COUNTER.fetch_add(1, Ordering::Relaxed);
    Ok(format!("{machine}-{}-{}-{count}", std::process::id(), hex::encode(chance)))
}

impl LocalWriter {
    pub(super) fn begin(tree: Arc<Tree>, key: ObjectKey, machine: &str) -> Result<Self> {
        let incomplete = tree.ensure(&[INCOMPLETE])?;
        for _ in 0..SWEEP_RACES_MAX {
            let name = fresh_name(machine)?;
            let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
            let file = openat(&incomplete, name.as_str(), flags, Mode::from_bits_truncate(0o600))
                .map(File::from)
                .map_err(|errno| tree.fault("beginning to write", key.as_str(), errno))?;
            if is_ours(&incomplete, &name, &file) {
                return Ok(LocalWriter { tree, key, incomplete, name, file, failed: false, named: false });
            }
        }
        Err(tree.fault("locking the unfinished file of", key.as_str(), Errno::EAGAIN).into())
    }

    fn conflict(&self) -> StoreError {
        StoreError::Conflict { key: self.key.clone(), location: self.tree.location() }
    }

    /// Gives the file its name in `parent`. `ENOENT` means that the directory was removed meanwhile.
    fn give_name(&self, parent: &OwnedFd, name: &str, how: Commit) -> Result<(), Errno> {
        let from = self.name.as_str();
        if how == Commit::Replace {
            return renameat(&self.incomplete, from, parent, name);
        }
        match renameat2(&self.incomplete, from, parent, name, RenameFlags::RENAME_NOREPLACE) {
            // Filesystems without that flag (NFS, some of FUSE) can still link without replacing.
            Err(Errno::EINVAL | Errno::ENOSYS | Errno::EOPNOTSUPP) => {
                linkat(&self.incomplete, from, parent, name, AtFlags::empty())?;
                unlinkat(&self.incomplete, from, UnlinkatFlags::NoRemoveDir)
            }
            other => other,
        }
    }

    fn publish(&mut self, how: Commit) -> Result<ObjectInfo, StoreError> {
        if self.failed {
            return Err(StoreError::Incomplete { key: self.key.clone(), location: self.tree.location() });
        }
        // Not repeated when it fails: the kernel may have dropped the pages that it could not write.
        self.file.sync_all().map_err(|cause| self.tree.fault("flushing", self.key.as_str(), cause))?;
        let key = self.key.clone();
        let (parents, name) = split(&key);
        let mut races = 0;
        let parent = loop {
            let parent = self.tree.ensure(&parents)?;
            match self.give_name(&parent, name, how) {
                Ok(()) => break parent,
                Err(Errno::EEXIST) => return Err(self.conflict()),
                Err(Errno::ENOENT) if races < DIRECTORY_RACES_MAX => races += 1,
                Err(errno) => return Err(self.tree.fault("naming", self.key.as_str(), errno)),
            }
        };
        self.named = true;
        if let Err(fault) = self.tree.sync(&parent, self.key.as_str()) {
            // It may not survive a power cut, so it must not be taken for an object. What it replaced is gone already.
            if how == Commit::IfAbsent {
                let _ = unlinkat(&parent, name, UnlinkatFlags::NoRemoveDir);
            }
            return Err(fault);
        }
        examine(&self.tree, &parent, name, &key)?
            .ok_or_else(|| StoreError::NotFound { key: key.clone(), location: self.tree.location() })
    }
}

/// Takes the lock and makes sure that the name still leads to this file: between making and locking it, a sweep may
/// have taken it for a leftover and removed it.
fn is_ours(incomplete: &OwnedFd, name: &str, file: &File) -> bool {
    if FileExt::try_lock_exclusive(file).is_err() {
        return false;
    }
    match (fstat(file), fstatat(incomplete, name, AtFlags::AT_SYMLINK_NOFOLLOW)) {
        (Ok(held), Ok(named)) => held.st_ino == named.st_ino && kind(&named) == SFlag::S_IFREG,
        _ => false,
    }
}

impl Write for LocalWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes).map_err(|cause| {
            if cause.kind() == io::ErrorKind::Interrupted {
                return cause;
            }
            self.failed = true;
            Error::from(self.tree.fault("writing", self.key.as_str(), cause)).into()
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl ObjectWriter for LocalWriter {
    fn commit(mut self: Box<Self>, how: Commit) -> Result<ObjectInfo> {
        Ok(self.publish(how)?)
    }
}

impl Drop for LocalWriter {
    fn drop(&mut self) {
        if !self.named {
            // A file that stays all the same is unlocked with this process and swept later.
            let _ = unlinkat(&self.incomplete, self.name.as_str(), UnlinkatFlags::NoRemoveDir);
        }
    }
}
