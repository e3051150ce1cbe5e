//! The directory a restore goes to: what is refused, and how it is claimed.

use super::staging::{self, Claim};
use crate::base::task::Task;
use crate::base::{Code, Error, Result};
use crate::driver::LivePath;
use crate::operation::context::{Context, Target};
use crate::operation::preflight::{self, Need};
use std::path::{Component, Path, PathBuf};

/// Refuses directories that hold something, that a server uses, or that lie where they would do harm.
pub(super) fn check_destination(context: &Context, target: &Target, directory: &Path, task: &Task) -> Result<()> {
    check_surroundings(context, target, directory, task)?;
    match std::fs::symlink_metadata(directory) {
        Ok(metadata) if !metadata.is_dir() => {
            refuse(directory, Code::RestoreNotEmpty, "it is not a directory".to_owned())
        }
        Ok(_) => {
            let mut entries = std::fs::read_dir(directory).map_err(|cause| Error::io("listing", directory, cause))?;
            match entries.next() {
                Some(_) => refuse(directory, Code::RestoreNotEmpty, "it is not empty".to_owned()),
                None => Ok(()),
            }
        }
        Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(cause) => Err(Error::io("examining", directory, cause)),
    }
}

fn refuse(directory: &Path, code: Code, why: String) -> Result<()> {
    Err(Error::new(code, format!("restoring into {}: {why}", directory.display())))
}

/// Refuses directories that a server uses, or that lie where they would do harm.
pub(super) fn check_surroundings(context: &Context, target: &Target, directory: &Path, task: &Task) -> Result<()> {
    let refuse = |code, why: String| refuse(directory, code, why);
    let plain = directory.is_absolute() && directory.components().all(|c| !matches!(c, Component::ParentDir));
    if !plain || directory.parent().is_none() {
        return refuse(Code::Usage, "the directory must be an absolute path without '..', and not '/'".to_owned());
    }
    let real = resolved(directory);
    for live in target.driver.live_paths(task)? {
        let tree = server_tree(&live);
        let related = real.starts_with(resolved(tree)) || resolved(&live.live).starts_with(&real);
        if related && target.driver.is_running(task)? {
            return refuse(
                Code::RestoreServerRunning,
                format!("the running server of {} uses {}", target.name, tree.display()),
            );
        }
        if related && live.live.exists() {
            return refuse(
                Code::RestoreNotEmpty,
                format!("{} is where {} keeps the data in service", tree.display(), target.name),
            );
        }
    }
    if real.starts_with(resolved(&context.state_directory)) {
        return refuse(Code::Usage, "it lies inside the agent's own state directory".to_owned());
    }
    for place in context.repositories.values() {
        if let Ok(store) = (place.open)(false)
            && real.starts_with(resolved(Path::new(&store.location())))
        {
            return refuse(Code::Usage, format!("it lies inside the repository {}", place.name));
        }
    }
    Ok(())
}

/// The directory in which the server looks for data like this: Neo4j takes every directory beside a database for one.
fn server_tree(live: &LivePath) -> &Path {
    let depth = live.staged.components().count();
    live.live.ancestors().nth(depth.saturating_sub(1)).unwrap_or(&live.live)
}

/// The path without links, as far as it is there.
pub(super) fn resolved(path: &Path) -> PathBuf {
    let there = path.ancestors().find_map(|ancestor| Some((ancestor, ancestor.canonicalize().ok()?)));
    let Some((ancestor, real)) = there else { return path.to_owned() };
    path.strip_prefix(ancestor).map_or_else(|_| path.to_owned(), |rest| real.join(rest))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_looks_at_all_that_lies_beside_its_database() {
        let live = |staged: &str, live: &str| LivePath { staged: staged.into(), live: live.into() };
        assert_eq!(server_tree(&live("databases/neo4j", "/data/databases/neo4j")), Path::new("/data/databases"));
        assert_eq!(server_tree(&live("", "/var/lib/postgresql/15/main")), Path::new("/var/lib/postgresql/15/main"));
    }

    #[test]
    fn links_are_followed_as_far_as_there_is_something() {
        let directory = tempfile::tempdir().expect("tempdir");
        let root = directory.path().canonicalize().expect("root");
        std::fs::create_dir(root.join("data")).expect("mkdir");
        std::os::unix::fs::symlink(root.join("data"), root.join("link")).expect("link");
        assert_eq!(resolved(&root.join("link/new/restored")), root.join("data/new/restored"));
        assert_eq!(resolved(&root.join("link")), root.join("data"));
        assert_eq!(resolved(Path::new("/nowhere/x")), Path::new("/nowhere/x"));
    }
}
