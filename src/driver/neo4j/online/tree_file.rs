//! Copies a GB+-tree that a server may be writing.
//!
//! A tree's pages of the last checkpoint are never overwritten before the next one, so that a copy is sound as long as
//! no checkpoint of the tree falls into it. Each checkpoint rewrites one of the two state pages, the second and third of
//! the file: they are read before and after. Source: Neo4j's `GBPTree` and `TreeState`, 5.26 and 2026.08. Where the
//! filesystem can clone a file, it is the clone that must fall between two checkpoints, not the reading.

use super::archive::Archive;
use super::reflink::Cloner;
use crate::base::task::Task;
use crate::base::{Error, Result};
use crate::driver::tar_archive::Sink;
use std::fs::File;
use std::io;
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
pub(super) fn copy<S: Sink>(
    archive: &mut Archive<S>,
    source: &Path,
    name: &Path,
    cloner: &Cloner,
    task: &Task,
) -> Result<Outcome> {
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
        } else if let Some(clone) = cloner.clone_of(&file, task) {
            // A checkpoint that began within it shows in the clone, one that ended in the file.
            if state(&clone).map_err(fail)? == before && state(&file).map_err(fail)? == before {
                let size = clone.metadata().map_err(fail)?.len();
                archive.file(name, size, |buffer, offset| clone.read_at(buffer, offset))?;
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

fn gone<S: Sink>(archive: &mut Archive<S>, name: &Path) -> Result<Outcome> {
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
    use crate::driver::tar_archive::Copying;
    use std::io::Write;

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
        copied_in(directory.path(), checkpoints)
    }

    fn copied_in(directory: &Path, checkpoints: u32) -> (Outcome, super::super::archive::Listing) {
        let tree = directory.join("tree");
        std::fs::write(&tree, vec![1; (BUFFERED_MAX + 4 * PAGE) as usize]).expect("write");
        let sink = Checkpointing { tree: &tree, every: PAGE, passed: 0, left: checkpoints };
        let mut archive = Archive::new(Copying::new(sink));
        let outcome =
            copy(&mut archive, &tree, Path::new("tree"), &Cloner::new(directory), &Task::unobserved()).expect("copy");
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
        let mut archive = Archive::new(Copying::new(&mut out));
        let task = Task::unobserved();
        let cloner = Cloner::new(directory.path());
        let mut of =
            |source: &Path, name: &str| copy(&mut archive, source, Path::new(name), &cloner, &task).expect("copy");
        assert_eq!(of(&tree, "a"), Outcome::Sound);
        assert_eq!(of(Path::new("/no/such"), "b"), Outcome::Gone);
        let listing = archive.finish().expect("finish");
        assert_eq!((listing.files.len(), listing.files["a"].size), (1, 40_000));
    }

    /// An XFS of its own; unmounted when dropped.
    struct Xfs(tempfile::TempDir);

    impl Xfs {
        /// `None` where it cannot be mounted, which is said.
        fn mount() -> Option<Xfs> {
            let place = tempfile::tempdir().expect("tempdir");
            let (image, directory) = (place.path().join("image"), place.path().join("mounted"));
            File::create(&image).and_then(|file| file.set_len(512 << 20)).expect("image");
            std::fs::create_dir(&directory).expect("directory");
            let run = |program: &str, arguments: &[&std::ffi::OsStr]| {
                let output = std::process::Command::new(program).args(arguments).output();
                output
                    .unwrap_or_else(|cause| panic!("{program}: {cause}; scripts/install-prerequisites.sh installs it"))
            };
            let made = run("mkfs.xfs", &["-q".as_ref(), "-m".as_ref(), "reflink=1".as_ref(), image.as_ref()]);
            assert!(made.status.success(), "{made:?}");
            let mounted = run("mount", &["-o".as_ref(), "loop".as_ref(), image.as_ref(), directory.as_ref()]);
            if !mounted.status.success() {
                let why = String::from_utf8_lossy(&mounted.stderr).trim().to_owned();
                let text = format!(
                    "trees cloned by the filesystem (online::tree_file): mounting XFS is not possible here: {why}\n"
                );
                eprint!("skipped: {text}");
                if let Some(list) = std::env::var_os("NEO4J_BACKUP_TEST_SKIPS") {
                    let file = File::options().append(true).create(true).open(list);
                    file.and_then(|mut file| file.write_all(text.as_bytes())).expect("the list of what was skipped");
                }
                return None;
            }
            Some(Xfs(place))
        }

        fn directory(&self) -> std::path::PathBuf {
            self.0.path().join("mounted")
        }
    }

    impl Drop for Xfs {
        fn drop(&mut self) {
            let _ = nix::mount::umount2(&self.directory(), nix::mount::MntFlags::MNT_DETACH);
        }
    }

    #[test]
    fn where_the_filesystem_clones_files_a_restless_tree_is_copied_at_once() {
        let Some(xfs) = Xfs::mount() else { return };
        let (outcome, listing) = copied_in(&xfs.directory(), u32::MAX);
        assert_eq!((outcome, listing.files["tree"].times), (Outcome::Sound, 1));
        assert!(listing.left_out.is_empty());
        let left: Vec<_> = std::fs::read_dir(xfs.directory()).expect("list").flatten().collect();
        assert_eq!(left.len(), 1, "the clone has gone: {left:?}");
    }
}
