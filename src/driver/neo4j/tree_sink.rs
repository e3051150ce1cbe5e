//! Unpacks the archive of an online base and holds it to the list of files at its end.

use super::layout::{Layout, SYSTEM};
use super::online::archive::{LISTING, Listing};
use crate::base::task::Task;
use crate::base::untar::{Limits, Unpacker, Written};
use crate::base::{Code, Error, Result};
use crate::driver::VolumeSink;
use std::collections::BTreeMap;
use std::fs;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

/// Bytes that the smallest member of an archive takes: what an archive can hold is bounded by its size.
const SMALLEST_MEMBER: u64 = 512;
/// How often one file may come: a tree is copied again a few times at most.
const TIMES_MAX: u32 = 16;
/// Largest list of files, in bytes.
const LISTING_MAX: u64 = 64 << 20;

/// The sink of one lane.
pub(super) struct TreeSink {
    unpacker: Unpacker,
    directory: PathBuf,
    without_system: bool,
}

impl TreeSink {
    /// Unpacks an archive of `size` bytes below `directory`.
    pub(super) fn new(directory: &Path, size: u64, without_system: bool) -> Result<Self> {
        let limits = Limits { bytes: size, members: size / SMALLEST_MEMBER, times: TIMES_MAX };
        let unpacker = Unpacker::new(directory, limits)?;
        Ok(TreeSink { unpacker, directory: directory.to_owned(), without_system })
    }
}

impl Write for TreeSink {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.unpacker.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl VolumeSink for TreeSink {
    fn finish(self: Box<Self>, _task: &Task) -> Result<()> {
        let mut written = self.unpacker.finish_listing()?;
        let listing = take_listing(&self.directory, &mut written)?;
        compare(&listing, &written)?;
        for name in &listing.left_out {
            // Only what this archive itself has written is removed.
            if written.contains_key(Path::new(name)) {
                remove_file(&self.directory.join(name))?;
            }
        }
        if self.without_system {
            let layout = Layout::below(&self.directory);
            for tree in [layout.store(SYSTEM), layout.logs(SYSTEM)] {
                match fs::remove_dir_all(&tree) {
                    Err(cause) if cause.kind() != ErrorKind::NotFound => {
                        return Err(Error::io("removing", &tree, cause));
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }
}

fn take_listing(directory: &Path, written: &mut BTreeMap<PathBuf, Written>) -> Result<Listing> {
    let missing = || Error::new(Code::BackupCorrupted, "the archive of the base has no list of its files");
    let record = written.remove(Path::new(LISTING)).ok_or_else(missing)?;
    let path = directory.join(LISTING);
    if record.size > LISTING_MAX || record.times != 1 {
        return Err(Error::new(Code::HostileArchive, format!("the list of files has {} bytes", record.size)));
    }
    let text = fs::read(&path).map_err(|cause| Error::io("reading", &path, cause))?;
    remove_file(&path)?;
    serde_json::from_slice(&text)
        .map_err(|cause| Error::new(Code::BackupCorrupted, format!("the list of the base's files: {cause}")))
}

fn remove_file(path: &Path) -> Result<()> {
    fs::remove_file(path).map_err(|cause| Error::io("removing", path, cause))
}

/// Every file exactly as often, as large and with the checksum that the list says; none besides.
fn compare(listing: &Listing, written: &BTreeMap<PathBuf, Written>) -> Result<()> {
    let differs =
        |name: &str| Error::new(Code::BackupCorrupted, format!("{name} is not as the list of the base's files says"));
    for (name, listed) in &listing.files {
        let expected = Written { times: listed.times, size: listed.size, crc32c: listed.crc32c };
        if written.get(Path::new(name)) != Some(&expected) {
            return Err(differs(name));
        }
    }
    let unlisted = written.keys().find(|path| path.to_str().is_none_or(|name| !listing.files.contains_key(name)));
    unlisted.map_or(Ok(()), |path| Err(differs(&path.display().to_string())))
}

#[cfg(test)]
mod tests {
    use super::super::online::archive::Archive;
    use super::*;
    use crate::driver::tar_archive::Copying;

    fn archive() -> Vec<u8> {
        let mut out = Vec::new();
        let mut archive = Archive::new(Copying::new(&mut out));
        for (path, bytes) in [
            ("databases/neo4j/neostore", &b"one"[..]),
            ("databases/neo4j/neostore.counts.db", b"torn"),
            ("databases/neo4j/neostore.counts.db", b"sound"),
            ("databases/neo4j/index", b"restless"),
            ("databases/system/neostore", b"two"),
        ] {
            archive.bytes(Path::new(path), bytes).expect("add");
        }
        archive.leave_out(Path::new("databases/neo4j/index")).expect("leave out");
        archive.leave_out(Path::new("../outside")).expect("leave out");
        archive.finish().expect("finish");
        out
    }

    fn unpack(bytes: &[u8], without_system: bool) -> Result<tempfile::TempDir> {
        let directory = tempfile::tempdir().expect("tempdir");
        let inner = directory.path().join("inner");
        fs::create_dir(&inner).expect("mkdir");
        fs::write(directory.path().join("outside"), b"kept").expect("write");
        let mut sink = TreeSink::new(&inner, bytes.len() as u64, without_system)?;
        sink.write_all(bytes).map_err(|cause| Error::from_io("unpacking", &inner, cause))?;
        Box::new(sink).finish(&Task::unobserved())?;
        Ok(directory)
    }

    #[test]
    fn the_last_copy_counts_and_what_was_left_out_is_gone() {
        let directory = unpack(&archive(), false).expect("unpack");
        let read = |name: &str| fs::read(directory.path().join("inner").join(name)).ok();
        assert_eq!(read("databases/neo4j/neostore.counts.db").as_deref(), Some(&b"sound"[..]));
        assert_eq!(read("databases/neo4j/index"), None);
        assert_eq!(read("databases/system/neostore").as_deref(), Some(&b"two"[..]));
        assert_eq!(read(LISTING), None);
        assert_eq!(fs::read(directory.path().join("outside")).expect("outside"), b"kept");
        let directory = unpack(&archive(), true).expect("unpack");
        assert!(!directory.path().join("inner/databases/system").exists());
    }

    #[test]
    fn an_archive_that_is_not_what_its_list_says_is_refused() {
        let sound = archive();
        let tear = |needle: &[u8], with: &[u8]| {
            let mut bytes = sound.clone();
            let at = bytes.windows(needle.len()).position(|window| window == needle).expect("needle");
            bytes[at..at + with.len()].copy_from_slice(with);
            unpack(&bytes, false).expect_err("must be refused").code()
        };
        assert_eq!(tear(b"sound", b"wound"), Code::BackupCorrupted);
        assert_eq!(tear(b"\"times\":2", b"\"times\":1"), Code::BackupCorrupted);
        assert_eq!(tear(b"{\"files\"", b"{\"filez\""), Code::BackupCorrupted);
    }
}
