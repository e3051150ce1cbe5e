//! What runs that were killed left in a repository: unfinished files, and objects whose manifest was never written.

use crate::base::Result;
use crate::base::lock::FileLock;
use crate::operation::context::{Context, Target};
use crate::repository::catalog::Repository;
use std::collections::BTreeSet;

/// Removes what this host left of a target's backups; returns how many objects. `_base_lane` proves that no living run
/// of this host is writing them; another writer's unfinished backup is never touched.
pub(crate) fn remove(
    context: &Context,
    target: &Target,
    repository: &Repository,
    _base_lane: &FileLock,
) -> Result<usize> {
    let mut count = repository.store().sweep()?.len();
    let owner = repository.owner(&context.environment, &target.name)?;
    if owner.is_some_and(|record| record.owner.machine_id != context.identity.machine_id) {
        return Ok(count);
    }
    for object in repository.debris(&context.environment, &target.name, &BTreeSet::new())? {
        repository.store().delete(&object.key)?;
        count += 1;
    }
    Ok(count)
}
