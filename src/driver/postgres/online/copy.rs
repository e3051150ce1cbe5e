//! Copies a file of a running cluster, and looks at the pages that pass.
//!
//! A page that the server is just writing can be read torn, so one that looks wrong is read again. What is wrong still and
//! was changed since the backup's start is made right by recovery, which writes it from the log; a page that is wrong and
//! older than the start, or younger than the end, is damaged in the cluster itself.

use super::archive::Archive;
use super::page::{self, Verdict};
use super::relation::RelationFile;
use super::session::Facts;
use super::survey::ClusterFile;
use super::wal::{Lsn, read_fully};
use crate::base::clock::wait_until;
use crate::base::{Error, Result};
use crate::driver::tar_archive::Sink;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

/// How long a server may take to write one page: it may be put to sleep between its halves.
const TORN_TIMEOUT: Duration = Duration::from_millis(200);
/// How soon such a page is read again.
const TORN_INTERVAL: Duration = Duration::from_millis(5);
/// Most wrong pages that are remembered one by one.
const REMEMBERED_MAX: usize = 1000;

/// What all lanes read, and what they found.
pub(super) struct Source {
    /// The data directory.
    pub(super) root: PathBuf,
    /// What the server says of itself.
    pub(super) facts: Facts,
    /// Where recovery will start.
    pub(super) start: Lsn,
    /// Pages that stayed wrong.
    wrong: Mutex<Wrong>,
}

#[derive(Default)]
struct Wrong {
    pages: Vec<WrongPage>,
    more: u64,
}

/// A page that stayed wrong.
#[derive(Clone, Debug)]
struct WrongPage {
    path: PathBuf,
    /// Its number in the file.
    page: u64,
    /// What it claims to be of.
    lsn: Lsn,
}

impl Source {
    /// A cluster whose backup starts at `start`.
    pub(super) fn new(root: PathBuf, facts: Facts, start: Lsn) -> Self {
        Source { root, facts, start, wrong: Mutex::default() }
    }

    /// Adds a file in the size it has when it is opened; one that is gone was dropped, and recovery needs it no more.
    pub(super) fn copy<S: Sink>(&self, archive: &mut Archive<S>, listed: &ClusterFile) -> Result<()> {
        let path = self.root.join(&listed.path);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(cause) if cause.kind() == ErrorKind::NotFound => return Ok(()),
            Err(cause) => return Err(Error::io("opening", &path, cause)),
        };
        let metadata = file.metadata().map_err(|cause| Error::io("examining", &path, cause))?;
        let modified = metadata.modified().ok().and_then(|time| jiff::Timestamp::try_from(time).ok());
        let first_block = self.facts.checksums.then(|| first_block(&listed.path, &self.facts)).flatten();
        archive.file(&listed.path, metadata.len(), modified.unwrap_or_default(), |buffer, offset| {
            let read = read_fully(&file, buffer, offset)?;
            if let Some(first_block) = first_block {
                self.look(&listed.path, &file, first_block, offset, &mut buffer[..read])?;
            }
            Ok(read)
        })
    }

    /// Looks at the whole pages in `bytes`, which were read at `offset`; a torn one is replaced by what it is a moment later.
    fn look(&self, path: &Path, file: &File, first_block: u32, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        let size = self.facts.block_size;
        for (index, page) in bytes.chunks_exact_mut(size).enumerate() {
            let number = offset / size as u64 + index as u64;
            let block = first_block.wrapping_add(number as u32);
            if matches!(page::look(page, block), Verdict::Wrong(_))
                && let Some(lsn) = self.look_again(file, number, page, block)?
            {
                self.remember(WrongPage { path: path.to_owned(), page: number, lsn });
            }
        }
        Ok(())
    }

    /// Reads page `number` again until it is right; what it claims to be of if it stays wrong.
    fn look_again(&self, file: &File, number: u64, page: &mut [u8], block: u32) -> io::Result<Option<Lsn>> {
        let mut outcome = Ok(None);
        let mut again = || {
            outcome = read_fully(file, page, number * page.len() as u64).map(|read| match page::look(page, block) {
                // If it was cut off meanwhile, recovery cuts it off too.
                Verdict::Wrong(lsn) if read == page.len() => Some(Lsn(lsn)),
                _ => None,
            });
            !matches!(outcome, Ok(Some(_)))
        };
        // A disk with so much damage needs no patience.
        match self.wrong.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).pages.len() < REMEMBERED_MAX {
            true => wait_until(TORN_TIMEOUT, TORN_INTERVAL, again),
            false => again(),
        };
        outcome
    }

    fn remember(&self, page: WrongPage) {
        let mut wrong = self.wrong.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if wrong.pages.len() < REMEMBERED_MAX {
            wrong.pages.push(page);
        } else {
            wrong.more += 1;
        }
    }

    /// The damaged pages, a line for each file, once it is known where the backup ends.
    pub(super) fn damage(&self, end: Lsn) -> Vec<String> {
        let wrong = self.wrong.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let mut damaged: Vec<&WrongPage> =
            wrong.pages.iter().filter(|page| page.lsn < self.start || page.lsn > end).collect();
        damaged.sort_by(|a, b| (&a.path, a.page).cmp(&(&b.path, b.page)));
        let mut lines: Vec<String> = damaged
            .chunk_by(|a, b| a.path == b.path)
            .map(|pages| {
                let numbers: Vec<String> = pages.iter().take(10).map(|page| page.page.to_string()).collect();
                let more = if pages.len() > numbers.len() { " and more" } else { "" };
                format!("{}: wrong checksum on page {}{more}", pages[0].path.display(), numbers.join(", "))
            })
            .collect();
        if wrong.more > 0 {
            lines.push(format!("{} more pages were wrong and were not looked at closely", wrong.more));
        }
        lines
    }
}

/// The number in its relation of a file's first page; `None` for a file that holds no relation.
fn first_block(path: &Path, facts: &Facts) -> Option<u32> {
    let depth = path.components().count();
    let holds_relations = match path.components().next()?.as_os_str().to_str()? {
        "global" => depth == 2,
        "base" => depth == 3,
        "pg_tblspc" => depth == 5,
        _ => false,
    };
    let file = RelationFile::parse(path.file_name()?.to_str()?)?;
    holds_relations.then(|| file.segment.wrapping_mul(facts.segment_blocks))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::tar_archive::Copying;
    use std::os::unix::fs::FileExt;

    const SIZE: usize = 8192;
    const FACTS: Facts = Facts {
        version_num: 150_000,
        block_size: SIZE,
        segment_blocks: 131_072,
        wal_segment_size: 16 << 20,
        checksums: true,
    };

    /// A page of block `block`, written at `lsn`.
    fn page(block: u32, lsn: u64) -> Vec<u8> {
        let mut page = vec![block as u8 ^ 0x5A; SIZE];
        page[0..4].copy_from_slice(&((lsn >> 32) as u32).to_ne_bytes());
        page[4..8].copy_from_slice(&(lsn as u32).to_ne_bytes());
        page[14..16].copy_from_slice(&8000u16.to_ne_bytes());
        let sum = page::checksum(&page, block);
        page[8..10].copy_from_slice(&sum.to_ne_bytes());
        page
    }

    fn listed(path: &str) -> ClusterFile {
        ClusterFile { path: path.into(), bytes: 0 }
    }

    #[test]
    fn only_damage_from_before_the_start_or_from_the_future_counts() {
        let place = tempfile::tempdir().expect("tempdir");
        std::fs::create_dir_all(place.path().join("base/5")).expect("directory");
        let first = 2 * FACTS.segment_blocks;
        let mut content: Vec<u8> = [(0, 100), (1, 100), (2, 600), (3, 9000), (4, 100)]
            .iter()
            .flat_map(|&(n, lsn)| page(first + n, lsn))
            .collect();
        content.extend([0; SIZE]);
        content.extend([7; 100]);
        for wrong in [1, 2, 3] {
            content[wrong * SIZE + 5000] ^= 1;
        }
        std::fs::write(place.path().join("base/5/16384.2"), &content).expect("file");
        let source = Source::new(place.path().to_owned(), FACTS, Lsn(500));
        let mut out = Vec::new();
        let mut archive = Archive::new(Copying::new(&mut out));
        source.copy(&mut archive, &listed("base/5/16384.2")).expect("copy");
        source.copy(&mut archive, &listed("base/5/99999")).expect("a file that vanished");
        let files = archive.take_files();
        assert_eq!((files.len(), files["base/5/16384.2"].size), (1, content.len() as u64));
        assert_eq!(&out[512..512 + content.len()], content);
        assert_eq!(source.damage(Lsn(1000)), ["base/5/16384.2: wrong checksum on page 1, 3"]);
        assert_eq!(source.damage(Lsn(9000)), ["base/5/16384.2: wrong checksum on page 1"]);
    }

    #[test]
    fn a_torn_page_is_read_again_and_copied_whole() {
        let place = tempfile::tempdir().expect("tempdir");
        let path = place.path().join("16384");
        std::fs::write(&path, page(0, 100)).expect("file");
        let file = File::options().read(true).write(true).open(&path).expect("open");
        let source = Source::new(place.path().to_owned(), FACTS, Lsn(500));
        // As it was read before the server finished writing it.
        let mut torn = page(0, 100);
        torn[4096..].fill(0);
        source.look(Path::new("base/5/16384"), &file, 0, 0, &mut torn).expect("look");
        assert!(torn == page(0, 100) && source.damage(Lsn(1000)).is_empty());
        // One that stays as it is.
        file.write_all_at(&[9; 10], 4096).expect("damage");
        let mut bad = std::fs::read(&path).expect("read");
        source.look(Path::new("base/5/16384"), &file, 0, 0, &mut bad).expect("look");
        assert_eq!(source.damage(Lsn(1000)).len(), 1);
    }

    #[test]
    fn only_files_of_relations_are_looked_at() {
        let first = |path: &str| first_block(Path::new(path), &FACTS);
        assert_eq!(first("global/1262"), Some(0));
        assert_eq!(first("base/5/16384.3"), Some(3 * 131_072));
        assert_eq!(first("base/5/16384_vm"), Some(0));
        assert_eq!(first("pg_tblspc/16500/PG_15_202209061/5/16384"), Some(0));
        for other in ["base/5/pg_filenode.map", "pg_xact/0000", "global/pg_control", "base/1", "log/1/2", "PG_VERSION"]
        {
            assert_eq!(first(other), None, "{other}");
        }
    }
}
