//! Private directories that the tools of the server's account work in.

use crate::base::process::OsUser;
use crate::base::{Code, Error, Result};
use std::fs::{self, DirBuilder};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, chown};
use std::path::Path;

/// Makes a directory for nobody but `owner`, or this process.
pub(super) fn make(path: &Path, owner: Option<&OsUser>) -> Result<()> {
    DirBuilder::new().mode(0o700).create(path).map_err(|cause| Error::io("making", path, cause))?;
    give(path, owner)
}

/// Gives a path to `owner`, unless this process runs as that account.
pub(super) fn give(path: &Path, owner: Option<&OsUser>) -> Result<()> {
    match owner.filter(|owner| !owner.is_current()) {
        Some(owner) => chown(path, Some(owner.uid), Some(owner.gid))
            .map_err(|cause| Error::io("giving to the server's account", path, cause)),
        None => Ok(()),
    }
}

/// Fails when `owner` could not get to `directory`, because then its tools would fail in ways that explain nothing.
pub(super) fn check_searchable(directory: &Path, owner: &OsUser) -> Result<()> {
    for ancestor in directory.ancestors().skip(1) {
        let metadata = fs::metadata(ancestor).map_err(|cause| Error::io("examining", ancestor, cause))?;
        let bit = match (metadata.uid() == owner.uid, metadata.gid() == owner.gid) {
            (true, _) => 0o100,
            (_, true) => 0o010,
            _ => 0o001,
        };
        if owner.uid != 0 && metadata.mode() & bit == 0 {
            let (path, name) = (ancestor.display(), &owner.name);
            return Err(Error::new(
                Code::RestoreFailed,
                format!("{name} may not enter {path}, and so cannot work on a database below it"),
            )
            .with_hint(format!("use a directory that {name} can reach, or `chmod o+x {path}`")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_directory_that_the_owner_cannot_reach_is_named() {
        let outer = tempfile::tempdir().expect("tempdir");
        let inner = outer.path().join("inner");
        fs::create_dir(&inner).expect("mkdir");
        let owner = OsUser { name: "nobody".to_owned(), uid: 65534, gid: 65534 };
        fs::set_permissions(outer.path(), fs::Permissions::from_mode(0o700)).expect("chmod");
        assert_eq!(check_searchable(&inner, &owner).map_err(|e| e.code()), Err(Code::RestoreFailed));
        fs::set_permissions(outer.path(), fs::Permissions::from_mode(0o711)).expect("chmod");
        check_searchable(&inner, &owner).expect("reachable");
    }

    #[test]
    fn a_private_directory_is_private_from_its_first_moment() {
        let scene = tempfile::tempdir().expect("tempdir");
        let path = scene.path().join("private");
        make(&path, None).expect("made");
        assert_eq!(fs::metadata(&path).expect("metadata").mode() & 0o777, 0o700);
        assert!(make(&path, None).is_err(), "what is there already may be another's");
    }
}
