//! This host's record of the multipart uploads it has begun: a small file for each, from before the store hears of the
//! upload until it is finished or ended.
//!
//! The writer holds a lock on its record while it lives, and the lock goes with the process, however that ends. So what
//! a killed writer left in the bucket can be told from work in progress and from uploads of anybody else. Parts of an
//! unfinished upload are invisible in listings and cost money until somebody ends it.
//!
//! A record is lines of `word value`. A line counts when its newline is there: the upload's id is added when the store
//! has given it, and a kill may come at any byte.

use crate::artifact::digest::sha256_hex;
use crate::base::atomic_file::{self, sync_directory};
use crate::base::clock::{Clock, SystemClock};
use crate::base::{Code, Error, Result};
use fs2::FileExt;
use jiff::Timestamp;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Characters of the digest that tells the buckets' records apart.
const PLACE_DIGITS: usize = 12;
/// Largest record that is read, in bytes: a key and an upload's id are about 1 KiB each.
const RECORD_MAX: u64 = 8 << 10;
/// How often a new record is tried while a sweep keeps taking it for a leftover.
const SWEEP_RACES_MAX: u32 = 64;

/// The records of one bucket.
#[derive(Clone, Debug)]
pub(super) struct Journal {
    directory: PathBuf,
    place: String,
}

/// What a record says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Begun {
    /// The object's whole name in the bucket.
    pub(super) name: String,
    /// When this host was about to begin it.
    pub(super) at: Timestamp,
    /// The store's id of it; `None` if the writer was killed before it came.
    pub(super) upload: Option<String>,
    /// When it was ended first, by its writer or a sweep.
    pub(super) ended: Option<Timestamp>,
}

/// Records of dead writers, which are locked by whoever asked, and what living ones say.
pub(super) type Sorted = (Vec<(Record, Begun)>, Vec<Begun>);

/// A record that this process has locked: its own, or one whose writer is dead.
#[derive(Debug)]
pub(super) struct Record {
    file: File,
    path: PathBuf,
}

impl Journal {
    /// The records in `directory` of the bucket that `place` names.
    pub(super) fn new(directory: PathBuf, place: &str) -> Self {
        Journal { directory, place: sha256_hex(place.as_bytes())[..PLACE_DIGITS].to_owned() }
    }

    /// Puts on record, durably, that an upload is about to begin.
    pub(super) fn begin(&self, name: &str) -> Result<Record> {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.directory)
            .map_err(|cause| Error::io("making", &self.directory, cause))?;
        for _ in 0..SWEEP_RACES_MAX {
            let mut chance = [0u8; 8];
            openssl::rand::rand_bytes(&mut chance)
                .map_err(|cause| Error::new(Code::Internal, format!("drawing a random name: {cause}")))?;
            let path = self.directory.join(format!("{}-{}", self.place, hex::encode(chance)));
            let file = OpenOptions::new()
                .read(true)
                .append(true)
                .create_new(true)
                .mode(0o600)
                .open(&path)
                .map_err(|cause| Error::io("making the record of an upload", &path, cause))?;
            if lock(&file, &path) {
                let mut record = Record { file, path };
                record.add(&format!("name {name}\nat {}\n", SystemClock.now()))?;
                sync_directory(&self.directory)?;
                return Ok(record);
            }
        }
        Err(Error::new(Code::IoFailed, format!("locking a record in {}", self.directory.display())))
    }

    /// Every record of the bucket: those of dead writers, locked, and what the living ones say.
    pub(super) fn sort(&self) -> Result<Sorted> {
        let entries = match std::fs::read_dir(&self.directory) {
            Ok(entries) => entries,
            Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => return Ok(Default::default()),
            Err(cause) => return Err(Error::io("listing", &self.directory, cause)),
        };
        let mut paths = Vec::new();
        for entry in entries {
            let entry = entry.map_err(|cause| Error::io("listing", &self.directory, cause))?;
            let ours = entry.file_name().to_str().is_some_and(|name| name.starts_with(&format!("{}-", self.place)));
            if ours {
                paths.push(entry.path());
            }
        }
        paths.sort_unstable();
        let (mut dead, mut living) = (Vec::new(), Vec::new());
        for path in paths {
            // Gone meanwhile: its writer is done.
            let Ok(mut file) = OpenOptions::new().read(true).append(true).open(&path) else { continue };
            let free = lock(&file, &path);
            let mut text = Vec::new();
            Read::by_ref(&mut file)
                .take(RECORD_MAX)
                .read_to_end(&mut text)
                .map_err(|cause| Error::io("reading", &path, cause))?;
            match (parse(&String::from_utf8_lossy(&text)), free) {
                (Some(begun), true) => dead.push((Record { file, path }, begun)),
                (Some(begun), false) => living.push(begun),
                // Killed before the record was whole, so before the store was asked for anything.
                (None, true) => Record { file, path }.remove()?,
                (None, false) => {}
            }
        }
        Ok((dead, living))
    }
}

/// Takes the lock and makes sure that the path still leads to this file: a sweep may have taken it for a leftover.
fn lock(file: &File, path: &Path) -> bool {
    if FileExt::try_lock_exclusive(file).is_err() {
        return false;
    }
    match (file.metadata(), std::fs::symlink_metadata(path)) {
        (Ok(held), Ok(named)) => held.ino() == named.ino() && named.is_file(),
        _ => false,
    }
}

impl Record {
    fn add(&mut self, text: &str) -> Result<()> {
        self.file
            .write_all(text.as_bytes())
            .and_then(|()| self.file.sync_all())
            .map_err(|cause| Error::io("writing the record of an upload", &self.path, cause))
    }

    /// Adds the id that the store gave.
    pub(super) fn begun(&mut self, upload: &str) -> Result<()> {
        self.add(&format!("upload {upload}\n"))
    }

    /// Adds that the upload was ended now: what comes of it later is to be ended too.
    pub(super) fn ended(&mut self) -> Result<()> {
        self.add(&format!("ended {}\n", SystemClock.now()))
    }

    /// Takes the upload off the record: nothing of it is left to be ended.
    pub(super) fn remove(self) -> Result<()> {
        atomic_file::remove(&self.path)
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        // A child that another thread is just starting holds a copy of the descriptor until its exec.
        let _ = FileExt::unlock(&self.file);
    }
}

fn parse(text: &str) -> Option<Begun> {
    let whole = text.rsplit_once('\n').map(|(whole, _)| whole)?;
    let value = |word: &str| whole.lines().find_map(|line| line.strip_prefix(word)?.strip_prefix(' '));
    Some(Begun {
        name: value("name").filter(|name| !name.is_empty())?.to_owned(),
        at: value("at")?.parse().ok()?,
        upload: value("upload").filter(|id| !id.is_empty()).map(str::to_owned),
        ended: value("ended").and_then(|at| at.parse().ok()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn journal(directory: &Path) -> Journal {
        Journal::new(directory.join("uploads"), "s3://bucket")
    }

    #[test]
    fn a_living_writers_record_is_not_a_leftover() {
        let directory = tempfile::tempdir().expect("tempdir");
        let journal = journal(directory.path());
        let mut record = journal.begin("p/a").expect("begin");
        record.begun("id-1").expect("begun");
        let (dead, living) = journal.sort().expect("sort");
        assert!(dead.is_empty());
        assert_eq!((living[0].name.as_str(), living[0].upload.as_deref()), ("p/a", Some("id-1")));
        drop(record);
        let (mut dead, living) = journal.sort().expect("sort");
        assert!(living.is_empty());
        let (record, begun) = dead.pop().expect("one");
        assert_eq!(begun.upload.as_deref(), Some("id-1"));
        record.remove().expect("remove");
        assert_eq!(journal.sort().expect("sort").0.len(), 0);
    }

    #[test]
    fn buckets_do_not_see_each_others_records() {
        let directory = tempfile::tempdir().expect("tempdir");
        drop(journal(directory.path()).begin("a").expect("begin"));
        let other = Journal::new(directory.path().join("uploads"), "s3://other");
        assert!(other.sort().expect("sort").0.is_empty());
        assert_eq!(journal(directory.path()).sort().expect("sort").0.len(), 1);
    }

    #[test]
    fn a_record_cut_at_any_byte_says_what_was_whole() {
        let text = "name p/a\nat 2026-11-20T02:00:00Z\nupload xyz\nended 2026-11-20T02:01:00Z\n";
        let at = "2026-11-20T02:00:00Z".parse().expect("time");
        let (named, given, whole) =
            (text.find("upload").expect("there"), text.find("ended").expect("there"), text.len());
        for end in 0..=whole {
            let upload = (end >= given).then(|| "xyz".to_owned());
            let ended = (end == whole).then(|| "2026-11-20T02:01:00Z".parse().expect("time"));
            let expected = (end >= named).then(|| Begun { name: "p/a".to_owned(), at, upload, ended });
            assert_eq!(parse(&text[..end]), expected, "{end}");
        }
    }

    proptest! {
        #[test]
        fn no_record_makes_it_panic(text in ".*") {
            let _ = parse(&text);
        }

        #[test]
        fn a_whole_record_comes_back(name in "[A-Za-z0-9=/._-]{1,80}", upload in "[!-~]{1,200}") {
            let text = format!("name {name}\nat 2026-11-20T02:00:00Z\nupload {upload}\n");
            let begun = parse(&text).expect("whole");
            prop_assert_eq!((begun.name, begun.upload), (name, Some(upload)));
        }
    }
}
