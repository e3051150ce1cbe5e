//! The files of a log directory: which there are, and holding them open so that nobody can take them away.

use super::header::{HEADER_BYTES, LogHeader};
use crate::base::{Code, Error, Result};
use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Files of the transaction log: this and a number.
pub const TRANSACTIONS: &str = "neostore.transaction.db.";
/// Files of the checkpoint log: this and a number.
pub const CHECKPOINTS: &str = "checkpoint.";

/// Files called `prefix` + number, in the order of their numbers. A directory that is not there has none.
pub fn numbered(directory: &Path, prefix: &str) -> Result<Vec<(u64, PathBuf)>> {
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(cause) => return Err(Error::io("listing", directory, cause)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|cause| Error::io("listing", directory, cause))?;
        let name = entry.file_name();
        let digits = name.to_str().and_then(|name| name.strip_prefix(prefix));
        // The server writes numbers without sign or leading zeros; anything else is not its file.
        let number = digits.and_then(|digits| digits.parse().ok().filter(|n: &u64| n.to_string() == digits));
        found.extend(number.map(|number| (number, entry.path())));
    }
    found.sort();
    Ok(found)
}

/// A file of the transaction log that is held open: it can be read even after the server removed it.
#[derive(Clone, Debug)]
pub struct LogFile {
    /// Its number.
    pub number: u64,
    /// Where it is, or was.
    pub path: PathBuf,
    /// The open file.
    pub file: Arc<File>,
    device: u64,
    inode: u64,
}

impl LogFile {
    /// Opens it. `None` = it is no longer there.
    pub fn open(number: u64, path: &Path) -> Result<Option<LogFile>> {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(cause) => return Err(Error::io("opening", path, cause)),
        };
        let metadata = file.metadata().map_err(|cause| Error::io("examining", path, cause))?;
        let (device, inode) = (metadata.dev(), metadata.ino());
        Ok(Some(LogFile { number, path: path.to_owned(), file: Arc::new(file), device, inode }))
    }

    /// Its name for messages.
    pub fn name(&self) -> String {
        self.path.display().to_string()
    }

    /// Its header and the header's bytes. `None` = none was written yet.
    pub fn header(&self) -> Result<Option<(LogHeader, Vec<u8>)>> {
        let mut bytes = vec![0; HEADER_BYTES as usize];
        match self.file.read_exact_at(&mut bytes, 0) {
            Ok(()) => {}
            Err(cause) if cause.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(cause) => return Err(Error::io("reading", &self.path, cause)),
        }
        Ok(LogHeader::parse(&bytes, &self.name(), self.number)?.map(|header| (header, bytes)))
    }

    /// Everything before its data, which the file of this header has.
    pub(super) fn lead(&self, header: &LogHeader) -> Result<Vec<u8>> {
        let mut bytes = vec![0; usize::try_from(header.data_start).unwrap_or_default()];
        let read = self.file.read_exact_at(&mut bytes, 0);
        read.map_err(|cause| Error::io("reading", &self.path, cause))?;
        Ok(bytes)
    }

    pub(super) fn is_same(&self, other: &LogFile) -> bool {
        (self.device, self.inode) == (other.device, other.inode)
    }
}

/// Files of one transaction log, held open against pruning.
#[derive(Debug, Default)]
pub struct Pins {
    files: BTreeMap<u64, LogFile>,
    most: Option<usize>,
}

impl Pins {
    /// Holds `most` files open at a time, the oldest first: those are the next to be pruned.
    pub fn at_most(most: usize) -> Pins {
        Pins { most: Some(most), ..Pins::default() }
    }

    /// Opens the files of `directory` from number `from` on that are not held yet, and lets go of those before. A
    /// file that was replaced by another one of the same number is an error `LOG_FORKED`: the directory is not the
    /// one that was pinned. Unless one before it is still the same: a server that recovers removes and makes again
    /// what holds no whole transaction.
    pub fn hold(&mut self, directory: &Path, from: u64) -> Result<()> {
        self.let_go_before(from);
        self.hold_more(directory, from)
    }

    /// Lets go of the files before number `from`.
    pub(super) fn let_go_before(&mut self, from: u64) {
        self.files.retain(|&number, _| number >= from);
    }

    /// As [`Pins::hold`], but lets go of nothing: what was read may not be archived yet.
    pub(super) fn hold_more(&mut self, directory: &Path, from: u64) -> Result<()> {
        let mut same = false;
        for (number, path) in numbered(directory, TRANSACTIONS)? {
            let full = self.most.is_some_and(|most| self.files.len() >= most) && !self.files.contains_key(&number);
            if number < from || full {
                continue;
            }
            let Some(opened) = LogFile::open(number, &path)? else { continue };
            match self.files.get(&number) {
                Some(held) if held.path == opened.path && held.is_same(&opened) => same = true,
                Some(_) if !same => {
                    let text = format!("{} is another file than before: the log was replaced", path.display());
                    return Err(Error::new(Code::LogForked, text));
                }
                _ => {
                    self.files.insert(number, opened);
                }
            }
        }
        Ok(())
    }

    /// As [`Pins::hold`], but what is held and does not belong to the log in `directory` is let go: a restore may have
    /// put another directory in its place.
    pub fn renew(&mut self, directory: &Path, from: u64) -> Result<()> {
        let newest = numbered(directory, TRANSACTIONS)?.last().map(|(number, _)| *number);
        // The server prunes from the oldest on: a held file that is newer than all that are there is not of this log,
        // or was removed by a recovery.
        let overhanging = self.files.split_off(&newest.map_or(0, |newest| newest + 1));
        let newest_is_held = newest.and_then(|newest| self.files.get(&newest)).is_some();
        let overhangs = !overhanging.is_empty() && !newest_is_held;
        if overhangs || self.hold(directory, from).is_err_and(|error| error.code() == Code::LogForked) {
            self.files.clear();
        }
        self.hold(directory, from)
    }

    /// File `number` of `directory`, from among those that are held if it is. `None` = it is no longer there.
    pub fn open(&self, directory: &Path, number: u64) -> Result<Option<LogFile>> {
        match self.files.get(&number) {
            Some(held) => Ok(Some(held.clone())),
            None => LogFile::open(number, &directory.join(format!("{TRANSACTIONS}{number}"))),
        }
    }

    /// A file that is held.
    pub fn get(&self, number: u64) -> Option<LogFile> {
        self.files.get(&number).cloned()
    }

    /// The oldest and the newest number that are held.
    pub fn range(&self) -> Option<(u64, u64)> {
        Some((*self.files.first_key_value()?.0, *self.files.last_key_value()?.0))
    }

    /// Whether the file after `number` is gone, though the log went on behind it; says what there is instead. One that was
    /// begun in between is none.
    pub(super) fn hole_after(&self, directory: &Path, number: u64) -> Result<Option<String>> {
        let Some((first, _)) = self.readable(directory, number + 1)?.filter(|(first, _)| *first > number + 1) else {
            return Ok(None);
        };
        // Files are begun in their order: what was not there yet when the others were listed is there now.
        let missing = self.open(directory, number + 1)?.is_none();
        let named = directory.display();
        Ok(missing.then(|| format!("{TRANSACTIONS}{} is not there in {named}, though file {first} is", number + 1)))
    }

    /// The oldest and the newest number that can be read, held or in `directory`, from `from` on.
    pub(super) fn readable(&self, directory: &Path, from: u64) -> Result<Option<(u64, u64)>> {
        let listed = numbered(directory, TRANSACTIONS)?.into_iter().map(|(number, _)| number);
        let all: Vec<u64> = listed.chain(self.files.keys().copied()).filter(|&number| number >= from).collect();
        Ok(all.iter().min().zip(all.iter().max()).map(|(&oldest, &newest)| (oldest, newest)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_servers_own_names_count() {
        let directory = tempfile::tempdir().expect("tempdir");
        for name in ["10", "9", "+3", "03", "x", "", "9.tmp"] {
            std::fs::write(directory.path().join(format!("{TRANSACTIONS}{name}")), "").expect("write");
        }
        let found: Vec<u64> =
            numbered(directory.path(), TRANSACTIONS).expect("list").into_iter().map(|(number, _)| number).collect();
        assert_eq!(found, [9, 10]);
        assert!(numbered(&directory.path().join("none"), TRANSACTIONS).expect("list").is_empty());
    }

    #[test]
    fn a_pinned_file_survives_its_removal_but_not_its_replacement() {
        let directory = tempfile::tempdir().expect("tempdir");
        let path = |number: u64| directory.path().join(format!("{TRANSACTIONS}{number}"));
        std::fs::write(path(1), "one").expect("write");
        std::fs::write(path(2), "two").expect("write");
        let mut pins = Pins::default();
        pins.hold(directory.path(), 1).expect("hold");
        std::fs::remove_file(path(1)).expect("remove");
        pins.renew(directory.path(), 1).expect("renew");
        let mut bytes = [0; 3];
        let held = pins.open(directory.path(), 1).expect("open").expect("pinned");
        held.file.read_exact_at(&mut bytes, 0).expect("read");
        let range = |pins: &Pins| pins.readable(directory.path(), 1).expect("list");
        assert_eq!((&bytes, range(&pins)), (b"one", Some((1, 2))));
        // Made before the other is removed, so that it cannot get its number.
        std::fs::write(path(3), "other").expect("write");
        std::fs::rename(path(3), path(2)).expect("rename");
        assert_eq!(pins.hold(directory.path(), 1).map_err(|e| e.code()), Err(Code::LogForked));
        pins.renew(directory.path(), 1).expect("renew");
        assert_eq!(range(&pins), Some((2, 2)));
        // A directory that ends before what is held is an older one.
        std::fs::rename(path(2), path(1)).expect("rename");
        pins.renew(directory.path(), 1).expect("renew");
        assert_eq!(range(&pins), Some((1, 1)));
        std::fs::remove_file(path(1)).expect("remove");
        assert_eq!(range(&pins), Some((1, 1)));
        pins.hold(directory.path(), 2).expect("hold");
        assert_eq!(range(&pins), None);
    }
}
