//! The directory a restore goes to: what is refused, and how it is claimed.

use super::staging::{self, Claim};
use crate::base::task::Task;
use crate::base::{Code, Error, Result};
use crate::operation::context::{Context, Target};
use crate::operation::preflight::{self, Need};
use std::path::{Component, Path};

/// Refuses directories that hold something, that a server uses, or that lie where they would do harm.
pub(super) fn check_destination(context: &Context, target: &Target, directory: &Path, task: &Task) -> Result<()> {
    let refuse = |code, why: String| Err(Error::new(code, format!("restoring into {}: {why}", directory.display())));
    let plain = directory.is_absolute() && directory.components().all(|c| !matches!(c, Component::ParentDir));
    if !plain || directory.parent().is_none() {
        return refuse(Code::Usage, "the directory must be an absolute path without '..', and not '/'".to_owned());
    }
    for live in target.driver.live_paths(task)? {
        let related = directory.starts_with(&live.live) || live.live.starts_with(directory);
        if related && target.driver.is_running(task)? {
            return refuse(
                Code::RestoreServerRunning,
                format!("the running server of {} uses {}", target.name, live.live.display()),
            );
        }
        if related && live.live.exists() {
            return refuse(
                Code::RestoreNotEmpty,
                format!("{} is the data in service of {}", live.live.display(), target.name),
            );
        }
    }
    if directory.starts_with(&context.state_directory) {
        return refuse(Code::Usage, "it lies inside the agent's own state directory".to_owned());
    }
    for place in context.repositories.values() {
        if let Ok(store) = (place.open)(false)
            && directory.starts_with(store.location())
        {
            return refuse(Code::Usage, format!("it lies inside the repository {}", place.name));
        }
    }
    match std::fs::symlink_metadata(directory) {
        Ok(metadata) if !metadata.is_dir() => refuse(Code::RestoreNotEmpty, "it is not a directory".to_owned()),
        Ok(_) => {
            let mut entries = std::fs::read_dir(directory).map_err(|cause| Error::io("listing", directory, cause))?;
            match entries.next() {
                Some(_) => refuse(Code::RestoreNotEmpty, "it is not empty".to_owned()),
                None => Ok(()),
            }
        }
        Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(cause) => Err(Error::io("examining", directory, cause)),
    }
}

/// Whether the filesystem has room for the restored data. A restore may use the last fifth of a disk: refusing help in
/// an emergency helps nobody.
pub(super) fn check_room(directory: &Path, required: u64) -> Result<()> {
    preflight::check_path(directory, Need { required, minimum_free_percent: 0 }).map(|_| ())
}

/// Makes the directory, durably on record as unfinished.
pub(super) fn claim(context: &Context, restore: &str, directory: &Path) -> Result<Claim> {
    staging::claim(context, restore, directory)
}
