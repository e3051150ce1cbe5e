//! The batch of the log that is being deleted from a repository: on durable record from before its manifest goes until the
//! ledger has forgotten it, so that a kill leaves nothing that nobody would ever remove.

use super::DIRECTORY;
use crate::artifact::log_batch::LogBatch;
use crate::artifact::object_key::ObjectKey;
use crate::base::task::Task;
use crate::base::{Code, Result, atomic_file};
use crate::operation::context::{Context, Target};
use crate::operation::log_records;
use crate::repository::catalog::Repository;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// How the names of such records end; those of backups and of batches that are being written do not.
const SUFFIX: &str = ".gone";

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    repository: String,
    manifest: ObjectKey,
    object: ObjectKey,
}

fn path(context: &Context, target: &Target, record: &Record) -> PathBuf {
    let digest = crc32c::crc32c(format!("{} {}", record.repository, record.manifest).as_bytes());
    context.state_directory.join(DIRECTORY).join(format!("{}.{digest:08x}{SUFFIX}", target.name))
}

/// Deletes a batch, and takes it off the ledger's record. Returns how many objects went, and their bytes.
///
/// The caller has the target's base lane, in which all deletions happen, one after the other.
pub(crate) fn delete_batch(
    context: &Context,
    target: &Target,
    repository: &Repository,
    batch: &LogBatch,
) -> Result<(u64, u64)> {
    let manifest = batch.key()?;
    let record = Record {
        repository: repository.name().to_owned(),
        manifest: manifest.clone(),
        object: batch.object.key.clone(),
    };
    let path = path(context, target, &record);
    atomic_file::write(&path, &serde_json::to_vec(&record).unwrap_or_default(), 0o600)?;
    let went = repository.delete_batch(batch)?;
    log_records::forget(context, repository.name(), manifest.as_str())?;
    atomic_file::remove(&path)?;
    Ok(went)
}

/// Goes on with deletions that were begun. Returns how many objects were removed; a repository that cannot be reached keeps the
/// record alive.
pub(super) fn settle(context: &Context, target: &Target, task: &Task) -> usize {
    let prefix = format!("{}.", target.name);
    let entries = std::fs::read_dir(context.state_directory.join(DIRECTORY)).into_iter().flatten().flatten();
    let ours = |name: &str| name.starts_with(&prefix) && name.ends_with(SUFFIX);
    let records = entries.filter(|entry| entry.file_name().to_str().is_some_and(ours)).map(|entry| entry.path());
    records.map(|path| settle_record(context, target, &path, task)).sum()
}

fn settle_record(context: &Context, target: &Target, path: &Path, task: &Task) -> usize {
    let Ok(text) = std::fs::read(path) else { return 0 };
    let Ok(record) = serde_json::from_slice::<Record>(&text) else {
        task.warn(format!("{} is no record of a deletion and was left alone", path.display()));
        return 0;
    };
    finish(context, target, &record, path).unwrap_or_else(|error| {
        task.warn(format!("the deletion of a batch of the log could not be finished: {error}"));
        0
    })
}

fn finish(context: &Context, target: &Target, record: &Record, path: &Path) -> Result<usize> {
    if !target.repositories.contains(&record.repository) {
        return atomic_file::remove(path).map(|()| 0);
    }
    let repository = match context.repository(target, &record.repository) {
        // It may come back with what is left there.
        Err(error) if error.code() == Code::RepositoryNotFound => return Ok(0),
        other => other?,
    };
    let mut removed = 0;
    // With its manifest it counts, and retention decides again.
    if repository.find_batch(&record.manifest)?.is_none() {
        removed += usize::from(repository.store().delete(&record.object)?);
        log_records::forget(context, &record.repository, record.manifest.as_str())?;
    }
    atomic_file::remove(path)?;
    Ok(removed)
}
