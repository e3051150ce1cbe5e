//! Which mount a path lies on. Device numbers are not enough: a bind mount has its origin's, but nothing can be renamed
//! across its border.

use crate::base::{Error, Result, space};
use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The kernel's list; its format is in proc(5).
const MOUNT_TABLE: &str = "/proc/self/mountinfo";

/// The mounts at one moment.
#[derive(Clone, Debug, Default)]
pub(super) struct Mounts(Vec<PathBuf>);

impl Mounts {
    /// Reads the kernel's list.
    pub(super) fn read() -> Result<Mounts> {
        let table = fs::read(MOUNT_TABLE).map_err(|cause| Error::io("reading", Path::new(MOUNT_TABLE), cause))?;
        Ok(Mounts::parse(&table))
    }

    fn parse(table: &[u8]) -> Mounts {
        let point = |line: &[u8]| line.split(|&byte| byte == b' ').nth(4).map(unescape);
        Mounts(table.split(|&byte| byte == b'\n').filter_map(point).collect())
    }

    /// Whether something is mounted at exactly this path, which has no links in it.
    pub(super) fn is_mount_point(&self, path: &Path) -> bool {
        self.0.iter().any(|point| point == path)
    }

    /// The filesystem, and the mount of it, that a path lies on or would once it is made; links are followed. A rename
    /// works only where both are the same (EXDEV).
    pub(super) fn place_of(&self, path: &Path) -> Result<(u64, Option<PathBuf>)> {
        let existing = space::nearest_existing(path);
        let fail = |cause| Error::io("examining", &existing, cause);
        let real = fs::canonicalize(&existing).map_err(fail)?;
        let device = fs::metadata(&real).map_err(fail)?.dev();
        Ok((device, self.of(&real).map(Path::to_owned)))
    }

    /// The mount point that a path lies on.
    pub(super) fn of(&self, path: &Path) -> Option<&Path> {
        self.0
            .iter()
            .filter(|point| path.starts_with(point))
            .max_by_key(|point| point.components().count())
            .map(PathBuf::as_path)
    }
}

/// Whether something can be renamed from one place to the other.
pub fn share_mount(a: &Path, b: &Path) -> Result<bool> {
    let mounts = Mounts::read()?;
    Ok(mounts.place_of(a)? == mounts.place_of(b)?)
}

/// Whether a directory is a filesystem, or a mount, of its own; one that is not there is none.
pub fn is_mount_point(path: &Path) -> bool {
    let (Ok(real), Ok(mounts)) = (fs::canonicalize(path), Mounts::read()) else { return false };
    let device = |path: &Path| path.metadata().map(|metadata| metadata.dev()).ok();
    mounts.is_mount_point(&real) || real.parent().is_none_or(|parent| device(&real) != device(parent))
}

/// Space, tab, newline and backslash are written as three octal digits.
fn unescape(field: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, tail)) = rest.split_first() {
        let octal = tail.get(..3).filter(|_| first == b'\\').and_then(|digits| std::str::from_utf8(digits).ok());
        match octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &tail[3..];
            }
            None => {
                bytes.push(first);
                rest = tail;
            }
        }
    }
    PathBuf::from(OsString::from_vec(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    // A bind mount has its origin's device.
    #[test]
    fn two_mounts_of_one_filesystem_are_two_places() {
        let directory = tempfile::tempdir().expect("tempdir");
        let real = fs::canonicalize(directory.path()).expect("real");
        fs::create_dir(real.join("bound")).expect("mkdir");
        let table = format!(
            "22 1 254:0 / / rw - ext4 /dev/vda rw\n40 22 254:0 /x {}/bound rw - ext4 /dev/vda rw\n",
            real.display()
        );
        let mounts = Mounts::parse(table.as_bytes());
        let place = |name: &str| mounts.place_of(&real.join(name)).expect("place");
        assert_eq!(place("bound").0, place(".").0);
        assert_ne!(place("bound/x"), place("y"));
        assert_eq!(place("bound/x/y"), place("bound"));
    }

    #[test]
    fn the_longest_mount_point_counts() {
        let mounts = Mounts::parse(
            b"22 1 254:0 / / rw - ext4 /dev/vda rw\n40 22 0:35 / /data rw shared:1 - tmpfs tmpfs rw\n\
              41 40 0:36 /x /data/my\\040graph rw - tmpfs tmpfs rw\n",
        );
        assert!(mounts.is_mount_point(Path::new("/data/my graph")));
        assert!(!mounts.is_mount_point(Path::new("/data/other")));
        assert_eq!(mounts.of(Path::new("/data/my graph/store")), Some(Path::new("/data/my graph")));
        assert_eq!(mounts.of(Path::new("/data2")), Some(Path::new("/")));
        assert!(Mounts::read().expect("table").is_mount_point(Path::new("/")));
    }
}
