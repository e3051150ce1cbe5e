//! Parts of a restored directory that go elsewhere: what is refused, and what room they need.

use super::place;
use crate::base::task::Task;
use crate::base::{Code, Error, Result, bytes, space};
use crate::driver::Branch;
use crate::operation::context::{Context, Target};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Refuses places that hold something, that would do harm, or that lie within one another.
pub(super) fn check(
    context: &Context,
    target: &Target,
    directory: &Path,
    branches: &[Branch],
    task: &Task,
) -> Result<()> {
    let mut taken: Vec<&Path> = vec![directory];
    for branch in branches {
        let place = branch.directory.as_path();
        place::check_destination(context, target, place, task)?;
        let real = place::resolved(place);
        let within = taken.iter().find(|other| {
            let other = place::resolved(other);
            real.starts_with(&other) || other.starts_with(&real)
        });
        if let Some(other) = within {
            let text = format!("{} cannot go to {}: {} goes there", branch.what, place.display(), other.display());
            return Err(
                Error::new(Code::Usage, text).with_hint("give each a directory of its own, none within another")
            );
        }
        taken.push(place);
    }
    Ok(())
}

/// Whether every filesystem has room for what goes there of `needed` bytes.
pub(super) fn check_room(directory: &Path, branches: &[Branch], needed: u64) -> Result<()> {
    let mut of_devices: BTreeMap<u64, (PathBuf, u64)> = BTreeMap::new();
    let elsewhere: u64 = branches.iter().map(|branch| branch.bytes).sum();
    let rest = [(directory, needed.saturating_sub(elsewhere))];
    let parts = branches.iter().map(|branch| (branch.directory.as_path(), branch.bytes));
    for (path, bytes) in rest.into_iter().chain(parts) {
        let device = space::of(path)?.device;
        of_devices.entry(device).or_insert_with(|| (path.to_owned(), 0)).1 += bytes;
    }
    of_devices.into_values().try_for_each(|(path, bytes)| place::check_room(&path, bytes))
}

/// The steps as a person reads them.
pub(super) fn steps(branches: &[Branch]) -> impl Iterator<Item = String> {
    branches.iter().map(|branch| {
        let (to, size) = (branch.directory.display(), bytes::human(branch.bytes));
        format!("put {} ({size}) into {to}, with a link from {}", branch.what, branch.inside.display())
    })
}
