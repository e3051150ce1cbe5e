//! A restore over an older copy: which directory may be changed where it is, and what is said when that breaks off.

use super::place;
use crate::base::task::Task;
use crate::base::{Code, Error, Result, bytes, space};
use crate::operation::context::{Context, Target};
use std::fs;
use std::path::Path;

/// Whether something is there to restore over.
pub(super) fn holds_something(directory: &Path) -> bool {
    fs::read_dir(directory).is_ok_and(|mut entries| entries.next().is_some())
}

/// Nobody's data in service is restored over, whichever target's it is.
pub(super) fn refuse_live(context: &Context, target: &Target, directory: &Path) -> Result<()> {
    let real = place::resolved(directory);
    for other in context.targets.values().filter(|other| other.name != target.name) {
        let live = other.driver.live_paths(&Task::unobserved()).unwrap_or_default();
        let related = |live: &Path| real.starts_with(live) || live.starts_with(&real);
        if let Some(path) = live.iter().find(|path| related(&place::resolved(&path.live))) {
            let text = format!("{} is where {} keeps the data in service", path.live.display(), other.name);
            return Err(Error::new(Code::RestoreNotEmpty, text));
        }
    }
    Ok(())
}

/// What is there makes place for what comes; only what it grows by is needed.
pub(super) fn check_room(directory: &Path, needed: u64) -> Result<()> {
    place::check_room(directory, needed.saturating_sub(space::tree_bytes(directory)))
}

/// The step as a person reads it.
pub(super) fn step(directory: &Path) -> String {
    let size = bytes::human(space::tree_bytes(directory));
    format!(
        "change the older copy in {} ({size}) where it differs, and remove what is superfluous there",
        directory.display()
    )
}

/// What became of it, where it was begun.
pub(super) fn broke_off(error: Error, directory: &Path) -> Error {
    let directory = directory.display();
    error.context(format!(
        "{directory} is still the older copy, or no server starts on it; the same command goes on there"
    ))
}
