//! Backups that were begun and not finished, on durable record from before their first object until after their
//! manifest, and those that are being deleted; and how what a killed run left of them is removed.
//!
//! - [`deletion`]: the same of batches of the log that are being deleted
//!
//! Only what is on record here is ever removed. An object without a manifest that nobody recorded may be all that is
//! left of a backup whose manifest was lost: `verify` names it, a person decides.

pub(crate) mod deletion;

use crate::artifact::object_key;
use crate::base::atomic_file;
use crate::base::ids::BackupId;
use crate::base::lock::FileLock;
use crate::base::task::Task;
use crate::base::{Code, Result};
use crate::operation::context::{Context, Target};
use crate::operation::{adopt, records};
use crate::repository::catalog::Repository;
use std::path::PathBuf;

const DIRECTORY: &str = "unfinished";

fn record(context: &Context, id: &BackupId) -> PathBuf {
    context.state_directory.join(DIRECTORY).join(id.to_string())
}

/// Puts a backup on record before its first object is written, or the first one is deleted.
pub(crate) fn begin(context: &Context, id: &BackupId) -> Result<()> {
    atomic_file::write(&record(context, id), id.to_string().as_bytes(), 0o600)
}

/// Takes it off the record: it is complete wherever it was begun.
pub(crate) fn complete(context: &Context, id: &BackupId) -> Result<()> {
    atomic_file::remove(&record(context, id))
}

/// Settles a target's unfinished backups: where the manifest was written the backup counts and the ledger learns of it,
/// elsewhere its objects are removed. Half-written files of dead processes go too. Returns how much was removed.
///
/// `_base_lane` proves that no living run of this host is writing them. A repository that cannot be reached now keeps
/// the record alive.
pub(crate) fn settle(context: &Context, target: &Target, _base_lane: &FileLock, task: &Task) -> usize {
    let mut removed = 0;
    let mut pending = of_target(context, target);
    for name in &target.repositories {
        let settled = match context.repository(target, name) {
            Ok(repository) => settle_in(context, target, &repository, &pending),
            Err(error) if error.code() == Code::RepositoryNotFound && pending.is_empty() => Ok(0),
            Err(error) => Err(error),
        };
        match settled {
            Ok(0) => {}
            Ok(count) => {
                task.info(format!("{name}: removed {count} unfinished objects"));
                removed += count;
            }
            Err(error) => {
                if !pending.is_empty() {
                    task.warn(format!("{name}: unfinished backups could not be removed: {error}"));
                }
                pending.clear();
            }
        }
    }
    removed += deletion::settle(context, target, task);
    for id in &pending {
        if let Err(error) = complete(context, id) {
            task.warn(format!("the record of {id} could not be removed: {error}"));
        }
    }
    removed
}

/// The backups of a target that are being taken, or that a killed run left.
pub(crate) fn of_target(context: &Context, target: &Target) -> Vec<BackupId> {
    let entries = std::fs::read_dir(context.state_directory.join(DIRECTORY)).into_iter().flatten().flatten();
    let ids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<BackupId>().ok());
    ids.filter(|id| id.target == target.name).collect()
}

fn settle_in(context: &Context, target: &Target, repository: &Repository, pending: &[BackupId]) -> Result<usize> {
    let mut removed = repository.store().sweep()?.len();
    for id in pending {
        match repository.find_manifest(&context.environment, id) {
            Ok(signed) => records::backup_taken(context, repository.name(), &signed)?,
            Err(error) if matches!(error.code(), Code::BackupNotFound | Code::BackupIncomplete) => {
                removed += remove_objects(context, repository, id)?;
                records::forget_in(context, id, repository.name())?;
            }
            Err(error) => return Err(error.context(format!("looking for the manifest of {id}"))),
        }
    }
    adopt::require_own(context, target, repository)?;
    Ok(removed)
}

/// Removes every object of a backup that has no manifest.
fn remove_objects(context: &Context, repository: &Repository, id: &BackupId) -> Result<usize> {
    let manifest = object_key::backup_manifest(&context.environment, id)?;
    let stem = manifest.as_str().trim_end_matches("meta.json");
    let mut keys = Vec::new();
    repository.store().list(stem, &mut |info| {
        keys.push(info.key);
        Ok(())
    })?;
    for key in &keys {
        repository.store().delete(key)?;
    }
    Ok(keys.len())
}
