//! Copies a GB+-tree that a server may be writing.
//!
//! A tree's pages of the last checkpoint are never overwritten before the next one, so that a copy is sound as long as
//! no checkpoint of the tree falls into it. Each checkpoint rewrites one of the two state pages, the second and third of
//! the file: they are read before and after. Source: Neo4j's `GBPTree` and `TreeState`, 5.26 and 2026.08.

use super::archive::Archive;
use crate::base::task::Task;
use crate::base::{Error, Result};
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Bytes in a page.
const PAGE: u64 = 8192;
/// Trees up to this size are read into memory and validated before a byte is written.
const BUFFERED_MAX: u64 = 8 << 20;
/// How often a tree is copied before it is given up. A changed state page means that a checkpoint has just passed, so
/// that each further attempt begins at the best moment there is.
const ATTEMPTS: u32 = 6;

/// How the copy of a tree ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It is in the archive and sound.
    Sound,
    /// It is gone: its index was dropped.
    Gone,
    /// It would not hold still. The archive says that it does not count; the server builds it anew.
    Restless,
}

/// Copies the tree at `source` into the archive as `name`.
pub(super) fn copy<W: Write>(archive: &mut Archive<W>, source: &Path, name: &Path, task: &Task) -> Result<Outcome> {
    for _ in 0..ATTEMPTS {
        task.check()?;
        let file = match File::open(source) {
            Ok(file) => file,
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => return gone(archive, name),
            Err(cause) => return Err(Error::io("opening", source, cause)),
        };
        let fail = |cause| Error::io("reading", source, cause);
        let before = state(&file).map_err(fail)?;
        let size = file.metadata().map_err(fail)?.len();
        if size <= BUFFERED_MAX {
            let content = whole(&file, size).map_err(fail)?;
            if state(&file).map_err(fail)? == before {
                archive.bytes(name, &content)?;
                return Ok(Outcome::Sound);
            }
        } else {
            archive.file(name, size, |buffer, offset| file.read_at(buffer, offset))?;
            if state(&file).map_err(fail)? == before {
                return Ok(Outcome::Sound);
            }
        }
    }
    archive.leave_out(name)?;
    Ok(Outcome::Restless)
}

fn gone<W: Write>(archive: &mut Archive<W>, name: &Path) -> Result<Outcome> {
    archive.leave_out(name)?;
    Ok(Outcome::Gone)
}

/// The two state pages.
fn state(file: &File) -> io::Result<Vec<u8>> {
    read_range(file, PAGE, 2 * PAGE)
}

fn whole(file: &File, size: u64) -> io::Result<Vec<u8>> {
    read_range(file, 0, size)
}

/// Up to `length` bytes; fewer at the file's end.
fn read_range(file: &File, offset: u64, length: u64) -> io::Result<Vec<u8>> {
    let mut content = vec![0; length as usize];
    let mut filled = 0;
    while filled < content.len() {
        match file.read_at(&mut content[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(cause) if cause.kind() == io::ErrorKind::Interrupted => {}
            Err(cause) => return Err(cause),
        }
    }
    content.truncate(filled);
    Ok(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A sink that checkpoints the tree whenever so many bytes have passed, as a busy server does.
    struct Checkpointing<'a> {
        tree: &'a Path,
        every: u64,
        passed: u64,
        left: u32,
    }

    impl Write for Checkpointing<'_> {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.passed += bytes.len() as u64;
            if self.passed > self.every && self.left > 0 {
                (self.passed, self.left) = (0, self.left - 1);
                let file = File::options().write(true).open(self.tree)?;
                file.write_all_at(&self.left.to_le_bytes(), PAGE)?;
            }
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn copied(checkpoints: u32) -> (Outcome, super::super::archive::Listing) {
        let directory = tempfile::tempdir().expect("tempdir");
        let tree = directory.path().join("tree");
        std::fs::write(&tree, vec![1; (BUFFERED_MAX + 4 * PAGE) as usize]).expect("write");
        let sink = Checkpointing { tree: &tree, every: PAGE, passed: 0, left: checkpoints };
        let mut archive = Archive::new(sink);
        let outcome = copy(&mut archive, &tree, Path::new("tree"), &Task::unobserved()).expect("copy");
        (outcome, archive.finish().expect("finish"))
    }

    #[test]
    fn a_tree_is_copied_again_until_no_checkpoint_falls_into_the_copy() {
        let (outcome, listing) = copied(0);
        assert_eq!((outcome, listing.files["tree"].times), (Outcome::Sound, 1));
        let (outcome, listing) = copied(1);
        assert_eq!((outcome, listing.files["tree"].times), (Outcome::Sound, 2));
        assert!(listing.left_out.is_empty());
    }

    #[test]
    fn a_tree_that_never_holds_still_is_left_out() {
        let (outcome, listing) = copied(u32::MAX);
        assert_eq!(outcome, Outcome::Restless);
        assert_eq!(listing.left_out, ["tree"]);
        assert_eq!(listing.files["tree"].times, ATTEMPTS);
    }

    #[test]
    fn a_small_tree_comes_once_and_a_vanished_one_never() {
        let directory = tempfile::tempdir().expect("tempdir");
        let tree = directory.path().join("tree");
        std::fs::write(&tree, vec![1; 40_000]).expect("write");
        let mut out = Vec::new();
        let mut archive = Archive::new(&mut out);
        let task = Task::unobserved();
        assert_eq!(copy(&mut archive, &tree, Path::new("a"), &task).expect("copy"), Outcome::Sound);
        assert_eq!(copy(&mut archive, Path::new("/no/such"), Path::new("b"), &task).expect("copy"), Outcome::Gone);
        let listing = archive.finish().expect("finish");
        assert_eq!((listing.files.len(), listing.files["a"].size), (1, 40_000));
    }
}
