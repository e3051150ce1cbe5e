//! The batch that is being written, on durable record from before its object until after its manifest; and how what a
//! killed run left of it is settled. A target writes one batch at a time.

use crate::artifact::object_key::ObjectKey;
use crate::base::lock::FileLock;
use crate::base::task::Task;
use crate::base::{Code, Error, Result, atomic_file};
use crate::operation::context::{Context, Target};
use crate::operation::log_records;
use crate::repository::catalog::Repository;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// How the names of such records end; those of backups do not.
const SUFFIX: &str = ".log";

/// What is on record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Unfinished {
    manifest: ObjectKey,
    object: ObjectKey,
}

fn path(context: &Context, target: &Target, manifest: &ObjectKey) -> PathBuf {
    let digest = crc32c::crc32c(manifest.as_str().as_bytes());
    context.state_directory.join("unfinished").join(format!("{}.{digest:08x}{SUFFIX}", target.name))
}

/// Records of a target.
fn records(context: &Context, target: &Target) -> Vec<PathBuf> {
    let prefix = format!("{}.", target.name);
    let entries = std::fs::read_dir(context.state_directory.join("unfinished")).into_iter().flatten().flatten();
    let ours = |name: &str| name.starts_with(&prefix) && name.ends_with(SUFFIX);
    entries.filter(|entry| entry.file_name().to_str().is_some_and(ours)).map(|entry| entry.path()).collect()
}

/// Puts a batch on record before its object is written.
pub(super) fn begin(context: &Context, target: &Target, manifest: &ObjectKey, object: &ObjectKey) -> Result<()> {
    let record = Unfinished { manifest: manifest.clone(), object: object.clone() };
    let text = serde_json::to_vec(&record).unwrap_or_default();
    atomic_file::write(&path(context, target, manifest), &text, 0o600)
}

/// Takes it off the record: it is complete wherever it was begun.
pub(super) fn complete(context: &Context, target: &Target, manifest: &ObjectKey) -> Result<()> {
    atomic_file::remove(&path(context, target, manifest))
}

/// Settles what is on record: where the batch's manifest is, it counts and the ledger learns of it; elsewhere its object
/// is removed. Returns how many objects were removed. A repository that cannot be reached keeps the record alive.
///
/// `_log_lane` proves that no living run of this host is writing the batch.
pub(crate) fn settle(context: &Context, target: &Target, _log_lane: &FileLock, task: &Task) -> usize {
    records(context, target).iter().map(|path| settle_record(context, target, path, task)).sum()
}

fn settle_record(context: &Context, target: &Target, path: &Path, task: &Task) -> usize {
    let Ok(text) = std::fs::read(path) else { return 0 };
    let Ok(record) = serde_json::from_slice::<Unfinished>(&text) else {
        task.warn(format!("{} is no record of an unfinished batch and was left alone", path.display()));
        return 0;
    };
    let (mut removed, mut settled) = (0, true);
    for name in &target.repositories {
        let outcome = match context.repository(target, name) {
            Ok(repository) => settle_in(context, &repository, &record),
            // It may come back with what is left there; that it is away is said elsewhere.
            Err(error) if error.code() == Code::RepositoryNotFound => {
                settled = false;
                Ok(0)
            }
            Err(error) => Err(error),
        };
        match outcome {
            Ok(count) => removed += count,
            Err(error) => {
                task.warn(format!("{name}: an unfinished batch of the log could not be removed: {error}"));
                settled = false;
            }
        }
    }
    if settled && let Err(error) = atomic_file::remove(path) {
        task.warn(format!("the record of an unfinished batch could not be removed: {error}"));
    }
    removed
}

fn settle_in(context: &Context, repository: &Repository, record: &Unfinished) -> Result<usize> {
    repository.store().sweep()?;
    match repository.find_batch(&record.manifest)? {
        Some(signed) if signed.batch.object.key == record.object => {
            log_records::batch_taken(context, repository.name(), &signed).map(|()| 0)
        }
        // The manifest under this key is that of another batch, which needs nothing of this object.
        _ => {
            let removed = repository
                .store()
                .delete(&record.object)
                .map_err(|error: Error| error.context(format!("removing {}", record.object)))?;
            Ok(usize::from(removed))
        }
    }
}
