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

/// What is on record: a backup, and the repository that it is unsettled in; `None` = in all of its target's, as earlier releases
/// had it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Record {
    id: BackupId,
    only: Option<String>,
}

impl Record {
    /// Its file: `ID`, or `ID:REPOSITORY`.
    fn path(&self, context: &Context) -> PathBuf {
        let only = self.only.as_ref().map(|name| format!(":{name}")).unwrap_or_default();
        context.state_directory.join(DIRECTORY).join(format!("{}{only}", self.id))
    }

    fn of_name(name: &str) -> Option<Record> {
        let (id, only) = name.split_once(':').map_or((name, None), |(id, only)| (id, Some(only.to_owned())));
        Some(Record { id: id.parse().ok()?, only })
    }

    fn begin(&self, context: &Context) -> Result<()> {
        atomic_file::write(&self.path(context), self.id.to_string().as_bytes(), 0o600)
    }

    fn complete(&self, context: &Context) -> Result<()> {
        atomic_file::remove(&self.path(context))
    }

    fn is_about(&self, repository: &str) -> bool {
        self.only.as_ref().is_none_or(|only| only == repository)
    }
}

/// Puts a backup on record for a repository before its first object is written there.
pub(crate) fn begin(context: &Context, id: &BackupId, repository: &str) -> Result<()> {
    Record { id: id.clone(), only: Some(repository.to_owned()) }.begin(context)
}

/// Takes it off the record: it is complete in that repository. What is lost of it from now on was not left by a kill, and nothing
/// of it is removed.
pub(crate) fn complete(context: &Context, id: &BackupId, repository: &str) -> Result<()> {
    Record { id: id.clone(), only: Some(repository.to_owned()) }.complete(context)
}

/// Deletes a backup from one repository, by `work`; it is on record for that one until nothing of it is left there.
pub(crate) fn while_deleting<T>(
    context: &Context,
    id: &BackupId,
    repository: &str,
    work: impl FnOnce() -> Result<T>,
) -> Result<T> {
    let record = Record { id: id.clone(), only: Some(repository.to_owned()) };
    record.begin(context)?;
    let done = work()?;
    record.complete(context)?;
    Ok(done)
}

/// Settles a target's unfinished backups: where the manifest was written the backup counts and the ledger learns of it,
/// elsewhere its objects are removed. Half-written files of dead processes go too. Returns how much was removed.
///
/// `_base_lane` proves that no living run of this host is writing them. A repository that cannot be reached now keeps
/// the records alive that are about it.
pub(crate) fn settle(context: &Context, target: &Target, _base_lane: &FileLock, task: &Task) -> usize {
    let mut removed = 0;
    let mut records = records_of(context, target);
    for name in &target.repositories {
        let pending: Vec<&BackupId> = records.iter().filter(|record| record.is_about(name)).map(|r| &r.id).collect();
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
                records.retain(|record| !record.is_about(name));
            }
        }
    }
    removed += deletion::settle(context, target, task);
    for record in &records {
        if let Err(error) = record.complete(context) {
            task.warn(format!("the record of {} could not be removed: {error}", record.id));
        }
    }
    removed
}

/// The backups of a target that are being taken or deleted, or that a killed run left.
pub(crate) fn of_target(context: &Context, target: &Target) -> Vec<BackupId> {
    records_of(context, target).into_iter().map(|record| record.id).collect()
}

fn records_of(context: &Context, target: &Target) -> Vec<Record> {
    let entries = std::fs::read_dir(context.state_directory.join(DIRECTORY)).into_iter().flatten().flatten();
    let records = entries.filter_map(|entry| Record::of_name(entry.file_name().to_str()?));
    records.filter(|record| record.id.target == target.name).collect()
}

fn settle_in(context: &Context, target: &Target, repository: &Repository, pending: &[&BackupId]) -> Result<usize> {
    let mut removed = repository.store().sweep()?.len();
    for &id in pending {
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
pub(crate) fn remove_objects(context: &Context, repository: &Repository, id: &BackupId) -> Result<usize> {
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
