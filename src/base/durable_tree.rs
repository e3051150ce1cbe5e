//! Owner, private modes and fsync for a whole directory tree.
//!
//! First the filesystem is asked to write everything out at once (`syncfs`), which is far quicker than file by file;
//! then each file is flushed on its own all the same, because older kernels keep the errors of `syncfs` to themselves.
//! Symbolic links are not followed, and none is accepted but those that the caller made.

use super::process::OsUser;
use super::task::Task;
use super::{Code, Error, Result};
use nix::sys::stat::{Mode, fchmod};
use nix::unistd::{fchown, syncfs};
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{OpenOptionsExt, lchown};
use std::path::{Path, PathBuf};

/// Gives everything at and below `directory` to `owner` (`None` = leaves it) with modes 0600 and 0700, and makes it
/// durable, the directory's own name included. The directory itself changes hands last, so that its new owner cannot
/// interfere meanwhile.
pub fn settle(directory: &Path, owner: Option<&OsUser>, task: &Task) -> Result<()> {
    settle_with_links(directory, &[], owner, task)
}

/// The same for a tree with these links in it, each with what it leads to.
pub fn settle_with_links(
    directory: &Path,
    links: &[(PathBuf, &Path)],
    owner: Option<&OsUser>,
    task: &Task,
) -> Result<()> {
    let root = File::open(directory).map_err(|cause| Error::io("opening", directory, cause))?;
    syncfs(&root).map_err(|cause| Error::io("flushing the filesystem of", directory, cause.into()))?;
    settle_directory(directory, links, owner, task)?;
    super::atomic_file::sync_parent(directory)
}

fn settle_directory(directory: &Path, links: &[(PathBuf, &Path)], owner: Option<&OsUser>, task: &Task) -> Result<()> {
    task.check()?;
    for entry in fs::read_dir(directory).map_err(|cause| Error::io("listing", directory, cause))? {
        let entry = entry.map_err(|cause| Error::io("listing", directory, cause))?;
        let path = entry.path();
        let kind = entry.file_type().map_err(|cause| Error::io("examining", &path, cause))?;
        if kind.is_dir() {
            settle_directory(&path, links, owner, task)?;
        } else if kind.is_file() {
            settle_one(&path, owner, 0o600)?;
        } else if links.iter().any(|(link, to)| link == &path && fs::read_link(link).is_ok_and(|is| is == **to)) {
            let give = |owner: &OsUser| lchown(&path, Some(owner.uid), Some(owner.gid));
            owner.map_or(Ok(()), give).map_err(|cause| Error::io("giving away", &path, cause))?;
        } else {
            let text = format!("{} is neither a file nor a directory", path.display());
            return Err(Error::new(Code::HostileArchive, text));
        }
    }
    settle_one(directory, owner, 0o700)
}

fn settle_one(path: &Path, owner: Option<&OsUser>, mode: u32) -> Result<()> {
    // O_NONBLOCK: should something have put a FIFO in the file's place, opening it must not hang.
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path)
        .map_err(|cause| Error::io("opening", path, cause))?;
    if let Some(owner) = owner {
        fchown(&file, Some(owner.uid.into()), Some(owner.gid.into()))
            .map_err(|cause| Error::io(&format!("giving to {}", owner.name), path, cause.into()))?;
    }
    fchmod(&file, Mode::from_bits_truncate(mode))
        .map_err(|cause| Error::io("setting the mode of", path, cause.into()))?;
    file.sync_all().map_err(|cause| Error::io("flushing", path, cause))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    #[test]
    fn everything_becomes_private_and_links_are_refused() {
        let place = tempfile::tempdir().expect("tempdir");
        let (tree, task) = (place.path().join("tree"), Task::unobserved());
        fs::create_dir_all(tree.join("a/b")).expect("directories");
        fs::write(tree.join("a/b/file"), b"x").expect("file");
        fs::set_permissions(tree.join("a/b/file"), fs::Permissions::from_mode(0o666)).expect("mode");
        let me = OsUser::owner_of(&tree).expect("owner");
        settle(&tree, Some(&me), &task).expect("settle");
        let metadata = tree.join("a/b/file").metadata().expect("metadata");
        assert_eq!((metadata.mode() & 0o7777, metadata.uid()), (0o600, me.uid));
        assert_eq!(tree.metadata().expect("metadata").mode() & 0o7777, 0o700);

        std::os::unix::fs::symlink("/etc/passwd", tree.join("a/link")).expect("link");
        assert_eq!(settle(&tree, None, &task).map_err(|e| e.code()), Err(Code::HostileArchive));
        let accepted =
            |to: &'static str| settle_with_links(&tree, &[(tree.join("a/link"), Path::new(to))], None, &task);
        accepted("/etc/passwd").expect("the caller's own link");
        assert_eq!(accepted("/etc/shadow").map_err(|e| e.code()), Err(Code::HostileArchive));
    }
}
