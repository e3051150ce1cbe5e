//! Removing what writers of this machine left unfinished when they were killed.

use super::directory::{INCOMPLETE, Tree};
use crate::base::Result;
use fs2::FileExt;
use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;
use nix::unistd::{UnlinkatFlags, unlinkat};
use std::fs::File;

/// Characters of the machine's id that begin an unfinished file's name.
const MACHINE_DIGITS: usize = 12;

/// Tells this machine's unfinished files from those of others that share the directory: their locks may not be
/// visible here. Without a machine id (containers) the host's name stands in.
pub(super) fn machine_prefix() -> String {
    let id = std::fs::read_to_string("/etc/machine-id").unwrap_or_default();
    let digits: String = id.trim().chars().take(MACHINE_DIGITS).collect();
    if digits.len() == MACHINE_DIGITS && digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        return digits;
    }
    let name = nix::unistd::gethostname().unwrap_or_default();
    let digest = crate::artifact::digest::sha256_hex(name.as_encoded_bytes());
    digest[..MACHINE_DIGITS].to_owned()
}

/// Removes every unfinished file of `machine` that nobody holds locked; returns their names.
pub(super) fn sweep(tree: &Tree, machine: &str) -> Result<Vec<String>> {
    let Some(incomplete) = tree.descend(&[INCOMPLETE])? else { return Ok(Vec::new()) };
    let fault = |errno: Errno| tree.fault("listing", INCOMPLETE, errno);
    let own = incomplete.try_clone().map_err(|cause| tree.fault("listing", INCOMPLETE, cause))?;
    let mut directory = Dir::from_fd(own).map_err(fault)?;
    let mut names = Vec::new();
    for entry in directory.iter() {
        let entry = entry.map_err(fault)?;
        if let Ok(name) = entry.file_name().to_str()
            && name.strip_prefix(machine).is_some_and(|rest| rest.starts_with('-'))
        {
            names.push(name.to_owned());
        }
    }
    names.sort_unstable();
    let mut removed = Vec::new();
    for name in names {
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        // Gone meanwhile, or not a file of ours: nothing to do.
        let Ok(file) = openat(&incomplete, name.as_str(), flags, Mode::empty()).map(File::from) else { continue };
        // A living writer holds the lock. The lock is kept until the name is gone, so that a writer that has just
        // made the file sees that it lost it.
        if FileExt::try_lock_exclusive(&file).is_err() {
            continue;
        }
        match unlinkat(&incomplete, name.as_str(), UnlinkatFlags::NoRemoveDir) {
            Ok(()) => removed.push(name),
            Err(Errno::ENOENT) => {}
            Err(errno) => return Err(tree.fault("removing", &format!("{INCOMPLETE}/{name}"), errno).into()),
        }
    }
    if !removed.is_empty() {
        tree.sync(&incomplete, INCOMPLETE)?;
    }
    Ok(removed)
}
