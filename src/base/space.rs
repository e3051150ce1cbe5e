//! Free space of the filesystem below a path.

use super::{Error, Result};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// What a filesystem has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// Bytes that an ordinary user may still write.
    pub available: u64,
    /// Bytes in all.
    pub total: u64,
    /// The filesystem's device number: two paths with the same one share their space.
    pub device: u64,
}

impl Space {
    /// Free space in percent of the whole, 0 to 100.
    pub fn available_percent(&self) -> f64 {
        if self.total == 0 { 0.0 } else { self.available as f64 * 100.0 / self.total as f64 }
    }
}

/// The space of the filesystem that holds `path`, or would once it is made: the nearest existing parent counts.
pub fn of(path: &Path) -> Result<Space> {
    let existing = nearest_existing(path);
    let fail = |cause| Error::io("asking for the free space of", &existing, cause);
    let available = fs2::available_space(&existing).map_err(fail)?;
    let total = fs2::total_space(&existing).map_err(fail)?;
    let device = existing.metadata().map_err(fail)?.dev();
    Ok(Space { available, total, device })
}

/// The longest prefix of `path` that exists.
pub fn nearest_existing(path: &Path) -> PathBuf {
    path.ancestors()
        .find(|candidate| !candidate.as_os_str().is_empty() && candidate.exists())
        .unwrap_or_else(|| Path::new("."))
        .to_owned()
}

/// Bytes of all files below a directory; what cannot be looked at counts nothing.
pub fn tree_bytes(tree: &Path) -> u64 {
    let children = std::fs::read_dir(tree).into_iter().flatten().flatten();
    children
        .map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => tree_bytes(&entry.path()),
            Ok(metadata) => metadata.len(),
            Err(_) => 0,
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_is_not_there_yet_counts_as_its_parent() {
        let directory = tempfile::tempdir().expect("tempdir");
        let here = of(directory.path()).expect("space");
        let there = of(&directory.path().join("a/b/c")).expect("space");
        assert_eq!(here.device, there.device);
        assert!(here.total >= here.available && here.available_percent() <= 100.0);
    }
}
