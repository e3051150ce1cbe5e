//! Showing objects in the order of their keys, a directory in memory at a time.

use super::directory::{Tree, kind};
use crate::artifact::object_key::ObjectKey;
use crate::base::Result;
use crate::repository::fault::StoreError;
use crate::repository::store::ObjectInfo;
use jiff::Timestamp;
use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::AtFlags;
use nix::sys::stat::{FileStat, SFlag, fstatat};
use std::os::fd::OwnedFd;

/// What is known of the object `name` in `parent`; `None` if it is not there or is a directory.
pub(super) fn examine(
    tree: &Tree,
    parent: &OwnedFd,
    name: &str,
    key: &ObjectKey,
) -> Result<Option<ObjectInfo>, StoreError> {
    match fstatat(parent, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
        Ok(status) if kind(&status) == SFlag::S_IFREG => Ok(Some(info(key.clone(), &status))),
        Ok(status) if kind(&status) == SFlag::S_IFLNK => {
            Err(StoreError::SymbolicLink { what: key.to_string(), location: tree.location() })
        }
        Ok(_) | Err(Errno::ENOENT) => Ok(None),
        Err(errno) => Err(tree.fault("examining", key.as_str(), errno)),
    }
}

fn info(key: ObjectKey, status: &FileStat) -> ObjectInfo {
    let modified = Timestamp::new(status.st_mtime, status.st_mtime_nsec as i32).unwrap_or(Timestamp::UNIX_EPOCH);
    ObjectInfo { key, size: status.st_size as u64, modified }
}

/// See [`crate::repository::store::Store::list`].
pub(super) fn list(tree: &Tree, prefix: &str, visit: &mut dyn FnMut(ObjectInfo) -> Result<()>) -> Result<()> {
    // Begin as deep as the prefix allows: a repository has directories by the thousand.
    let base = prefix.rsplit_once('/').map(|(base, _)| base).unwrap_or_default();
    if !base.is_empty() && ObjectKey::new(base).is_err() {
        return Ok(());
    }
    let segments: Vec<&str> = base.split('/').filter(|segment| !segment.is_empty()).collect();
    match tree.descend(&segments)? {
        Some(start) => walk(tree, start, base, prefix, visit),
        None => Ok(()),
    }
}

enum Entry {
    Object(ObjectInfo),
    Directory(String),
}

fn walk(
    tree: &Tree,
    handle: OwnedFd,
    path: &str,
    prefix: &str,
    visit: &mut dyn FnMut(ObjectInfo) -> Result<()>,
) -> Result<()> {
    let (handle, entries) = read_directory(tree, handle, path, prefix)?;
    for entry in entries {
        match entry {
            Entry::Object(object) => visit(object)?,
            Entry::Directory(name) => {
                let below = join(path, &name);
                // It may have been emptied and removed meanwhile.
                if let Some(child) = tree.child(&handle, &name, &below)? {
                    walk(tree, child, &below, prefix, visit)?;
                }
            }
        }
    }
    Ok(())
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}/{name}") }
}

/// The entries below `path` that matter for `prefix`, in the order of keys: a directory sorts as if its name ended
/// in `/`, since that is what its keys have there.
fn read_directory(tree: &Tree, handle: OwnedFd, path: &str, prefix: &str) -> Result<(OwnedFd, Vec<Entry>), StoreError> {
    let fault = |errno: Errno| tree.fault("listing", if path.is_empty() { "the root" } else { path }, errno);
    let own = handle.try_clone().map_err(|cause| tree.fault("listing", path, cause))?;
    let mut directory = Dir::from_fd(own).map_err(fault)?;
    let mut entries = Vec::new();
    for entry in directory.iter() {
        let entry = entry.map_err(fault)?;
        // Hidden names, temporary files and whatever else is not ours to show are no well-formed keys.
        let Ok(name) = entry.file_name().to_str() else { continue };
        let Ok(key) = ObjectKey::new(join(path, name)) else { continue };
        let status = match fstatat(&handle, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(status) => status,
            Err(Errno::ENOENT) => continue,
            Err(errno) => return Err(tree.fault("examining", key.as_str(), errno)),
        };
        if kind(&status) == SFlag::S_IFDIR {
            let below = format!("{key}/");
            if below.starts_with(prefix) || prefix.starts_with(&below) {
                entries.push((below, Entry::Directory(name.to_owned())));
            }
        } else if kind(&status) == SFlag::S_IFREG && key.as_str().starts_with(prefix) {
            entries.push((key.to_string(), Entry::Object(info(key, &status))));
        }
    }
    entries.sort_unstable_by(|one, other| one.0.cmp(&other.0));
    Ok((handle, entries.into_iter().map(|(_, entry)| entry).collect()))
}
