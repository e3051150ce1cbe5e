//! A file as it is at one moment, without reading it: a clone that shares its blocks, where the filesystem can make one
//! (XFS, btrfs) and the workspace is on it.
//!
//! A clone is taken within milliseconds, so that no checkpoint is in the way of a tree of any size, and it holds still
//! while it is read. The clone has no name and goes when it is closed; of the source nothing is changed.

use crate::base::task::Task;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

/// Makes clones until the filesystem says that it cannot.
pub(super) struct Cloner {
    workspace: PathBuf,
    able: AtomicBool,
    told: AtomicBool,
}

impl Cloner {
    /// Clones go to `workspace`.
    pub(super) fn new(workspace: &Path) -> Self {
        Cloner { workspace: workspace.to_owned(), able: AtomicBool::new(true), told: AtomicBool::new(false) }
    }

    /// The file at this moment; `None` = not here.
    pub(super) fn clone_of(&self, source: &File, task: &Task) -> Option<File> {
        if !self.able.load(Ordering::Relaxed) {
            return None;
        }
        let unnamed = OpenOptions::new()
            .read(true)
            .write(true)
            .mode(0o600)
            .custom_flags(nix::libc::O_TMPFILE)
            .open(&self.workspace);
        // Whatever the reason: another filesystem, one that cannot, a file that is held otherwise. Reading always works.
        let cloned =
            unnamed.and_then(|clone| rustix::fs::ioctl_ficlone(&clone, source).map(|()| clone).map_err(Into::into));
        if cloned.is_ok() && !self.told.swap(true, Ordering::Relaxed) {
            task.info("the filesystem clones trees before they are read");
        }
        self.able.store(cloned.is_ok(), Ordering::Relaxed);
        cloned.ok()
    }
}
