//! Reading an object, or a range of it.

use super::directory::{Tree, kind, split};
use crate::artifact::object_key::ObjectKey;
use crate::base::{Error, Result};
use crate::repository::fault::StoreError;
use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::{Mode, SFlag, fstat};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;
use std::sync::Arc;

/// An object being read.
pub(super) struct LocalReader {
    tree: Arc<Tree>,
    key: ObjectKey,
    file: File,
    /// Bytes of the file when it was opened.
    size: u64,
    wanted: Range<u64>,
    position: u64,
}

impl LocalReader {
    pub(super) fn open(tree: &Arc<Tree>, key: &ObjectKey, range: Option<Range<u64>>) -> Result<Self> {
        let (parents, name) = split(key);
        let absent = || StoreError::NotFound { key: key.clone(), location: tree.location() };
        let parent = tree.descend(&parents)?.ok_or_else(absent)?;
        // Without O_NONBLOCK a FIFO that somebody put there would hang the reader.
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let handle = match openat(&parent, name, flags, Mode::empty()) {
            Ok(handle) => handle,
            Err(Errno::ENOENT) => return Err(absent().into()),
            Err(Errno::ELOOP) => {
                return Err(StoreError::SymbolicLink { what: key.to_string(), location: tree.location() }.into());
            }
            Err(errno) => return Err(tree.fault("opening", key.as_str(), errno).into()),
        };
        let status = fstat(&handle).map_err(|errno| tree.fault("examining", key.as_str(), errno))?;
        if kind(&status) != SFlag::S_IFREG {
            return Err(absent().into());
        }
        let size = status.st_size as u64;
        let wanted = range.unwrap_or(0..size);
        if wanted.start > wanted.end || wanted.end > size {
            return Err(
                StoreError::TooShort { key: key.clone(), location: tree.location(), size, range: wanted }.into()
            );
        }
        let mut file = File::from(handle);
        file.seek(SeekFrom::Start(wanted.start)).map_err(|cause| tree.fault("reading", key.as_str(), cause))?;
        Ok(LocalReader { tree: tree.clone(), key: key.clone(), file, size, position: wanted.start, wanted })
    }
}

impl Read for LocalReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.wanted.end - self.position;
        let room = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        if room == 0 {
            return Ok(0);
        }
        let count = match self.file.read(&mut buffer[..room]) {
            Ok(count) => count,
            Err(cause) if cause.kind() == io::ErrorKind::Interrupted => return Err(cause),
            Err(cause) => return Err(Error::from(self.tree.fault("reading", self.key.as_str(), cause)).into()),
        };
        if count == 0 {
            // It was cut while it was read.
            let cut = StoreError::TooShort {
                key: self.key.clone(),
                location: self.tree.location(),
                size: self.position.min(self.size),
                range: self.wanted.clone(),
            };
            return Err(Error::from(cut).into());
        }
        self.position += count as u64;
        Ok(count)
    }
}
