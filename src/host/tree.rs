//! Owners of whole trees, and their removal. Both work on open directories and never follow a symbolic link, so that
//! nobody who may write inside the tree can lead them out of it.

use crate::base::atomic_file::sync_parent;
use crate::base::process::OsUser;
use crate::base::{Code, Error, Result};
use nix::dir::{Dir, Type};
use nix::fcntl::{AtFlags, OFlag};
use nix::sys::stat::Mode;
use nix::unistd::{Gid, Uid, fchownat};
use std::ffi::OsStr;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Deepest nesting that is walked; database trees have less than ten levels.
const DEPTH_MAX: usize = 200;

/// Gives `tree` and everything in it to `owner`.
pub(super) fn give(tree: &Path, owner: &OsUser) -> Result<()> {
    let (uid, gid) = (Some(Uid::from_raw(owner.uid)), Some(Gid::from_raw(owner.gid)));
    let fail = |cause: nix::Error| Error::io("giving to another account", tree, cause.into());
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let mut directory = Dir::open(tree, flags, Mode::empty()).map_err(fail)?;
    nix::unistd::fchown(&directory, uid, gid).map_err(fail)?;
    give_children(&mut directory, (uid, gid), flags, DEPTH_MAX).map_err(fail)
}

fn give_children(
    directory: &mut Dir,
    owner: (Option<Uid>, Option<Gid>),
    flags: OFlag,
    depth: usize,
) -> nix::Result<()> {
    if depth == 0 {
        return Err(nix::Error::ELOOP);
    }
    let entries: Vec<_> = directory.iter().collect::<nix::Result<_>>()?;
    for entry in entries {
        let name = OsStr::from_bytes(entry.file_name().to_bytes());
        if name == "." || name == ".." {
            continue;
        }
        fchownat(directory.as_fd(), name, owner.0, owner.1, AtFlags::AT_SYMLINK_NOFOLLOW)?;
        // The type is only a hint; opening with O_NOFOLLOW and O_DIRECTORY is what decides.
        if matches!(entry.file_type(), Some(Type::Directory) | None) {
            match Dir::openat(directory.as_fd(), name, flags, Mode::empty()) {
                Ok(mut child) => give_children(&mut child, owner, flags, depth - 1)?,
                Err(nix::Error::ENOTDIR | nix::Error::ELOOP) => {}
                Err(cause) => return Err(cause),
            }
        }
    }
    Ok(())
}

/// Removes a tree durably; one that is not there is fine. A path that nobody can have meant is refused.
pub(super) fn remove(tree: &Path) -> Result<()> {
    if !tree.is_absolute() || tree.components().count() < 3 || tree.components().any(|c| c.as_os_str() == "..") {
        return Err(Error::new(Code::Internal, format!("{} is not a tree to remove", tree.display())));
    }
    let removed = match std::fs::symlink_metadata(tree) {
        Ok(metadata) if metadata.is_dir() => std::fs::remove_dir_all(tree),
        Ok(_) => std::fs::remove_file(tree),
        Err(cause) => Err(cause),
    };
    match removed {
        Ok(()) => sync_parent(tree),
        Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(cause) => Err(Error::io("removing", tree, cause)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{MetadataExt, symlink};

    fn scene() -> (tempfile::TempDir, std::path::PathBuf) {
        let scene = tempfile::tempdir().expect("tempdir");
        let tree = scene.path().join("tree");
        fs::create_dir_all(tree.join("a/b")).expect("mkdir");
        fs::write(tree.join("a/b/file"), b"x").expect("write");
        fs::write(scene.path().join("outside"), b"x").expect("write");
        symlink(scene.path(), tree.join("a/link")).expect("link");
        symlink(scene.path().join("outside"), tree.join("link")).expect("link");
        (scene, tree)
    }

    #[test]
    fn giving_follows_no_link() {
        let (scene, tree) = scene();
        if !nix::unistd::geteuid().is_root() {
            let user = OsUser::owner_of(&tree).expect("owner");
            give(&tree, &user).expect("giving to oneself is allowed");
            return;
        }
        let nobody = OsUser { name: "nobody".to_owned(), uid: 65534, gid: 65534 };
        give(&tree, &nobody).expect("give");
        for inside in ["", "a", "a/b", "a/b/file", "a/link", "link"] {
            assert_eq!(fs::symlink_metadata(tree.join(inside)).expect("metadata").uid(), 65534, "{inside}");
        }
        for outside in [scene.path().to_owned(), scene.path().join("outside")] {
            assert_eq!(fs::metadata(&outside).expect("metadata").uid(), 0);
        }
        assert!(give(&tree.join("link"), &nobody).is_err());
    }

    #[test]
    fn removal_follows_no_link_and_may_be_repeated() {
        let (scene, tree) = scene();
        remove(&tree).expect("remove");
        remove(&tree).expect("again");
        assert!(scene.path().join("outside").exists());
        for absurd in ["/", "/etc", "relative", "/tmp/a/../.."] {
            assert!(remove(Path::new(absurd)).is_err(), "{absurd}");
        }
    }
}
