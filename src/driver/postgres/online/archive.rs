//! The archive of one lane, and what the backup's manifest has to say of its files.

use super::pg_manifest::ManifestFile;
use crate::base::{Code, Error, Result};
use crate::driver::tar_archive::{Sink, TarArchive};
use std::collections::BTreeMap;
use std::io;
use std::path::Path;

/// See the module.
pub(super) struct Archive<S> {
    tar: TarArchive<S>,
    files: BTreeMap<String, ManifestFile>,
}

impl<S: Sink> Archive<S> {
    /// Begins an archive.
    pub(super) fn new(out: S) -> Self {
        Archive { tar: TarArchive::new(out), files: BTreeMap::new() }
    }

    /// Adds a file of the cluster; see [`TarArchive::file`].
    pub(super) fn file(
        &mut self,
        path: &Path,
        size: u64,
        modified: jiff::Timestamp,
        read: impl FnMut(&mut [u8], u64) -> io::Result<usize>,
    ) -> Result<()> {
        let crc32c = self.tar.file(path, size, read)?;
        self.list(path, ManifestFile { size, modified, crc32c })
    }

    /// Adds a file of the cluster whose bytes are at hand.
    pub(super) fn bytes(&mut self, path: &Path, bytes: &[u8], modified: jiff::Timestamp) -> Result<()> {
        let crc32c = self.tar.bytes(path, bytes)?;
        self.list(path, ManifestFile { size: bytes.len() as u64, modified, crc32c })
    }

    /// Adds a directory.
    pub(super) fn directory(&mut self, path: &Path) -> Result<()> {
        self.tar.directory(path)
    }

    /// Adds a segment of the log, which the manifest names by its range alone.
    pub(super) fn wal_file(
        &mut self,
        name: &str,
        size: u64,
        read: impl FnMut(&mut [u8], u64) -> io::Result<usize>,
    ) -> Result<()> {
        self.tar.file(Path::new(name), size, read).map(|_| ())
    }

    /// Adds a small file that the manifest does not name.
    pub(super) fn wal_bytes(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        self.tar.bytes(Path::new(name), bytes).map(|_| ())
    }

    /// What was added so far and the manifest has to name.
    pub(super) fn take_files(&mut self) -> BTreeMap<String, ManifestFile> {
        std::mem::take(&mut self.files)
    }

    /// Adds the archive's end.
    pub(super) fn finish(self) -> Result<()> {
        self.tar.finish()
    }

    fn list(&mut self, path: &Path, file: ManifestFile) -> Result<()> {
        let name = path.to_str().ok_or_else(|| Error::new(Code::Internal, format!("{path:?} is no UTF-8")))?;
        self.files.insert(name.to_owned(), file);
        Ok(())
    }
}
