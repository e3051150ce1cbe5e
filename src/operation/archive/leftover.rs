//! The batch that is being written, on durable record from before its object until after its manifest; and how what a
//! killed run left of it is settled. A target writes one batch at a time.

use crate::artifact::object_key::ObjectKey;
use crate::base::lock::FileLock;
use crate::base::task::Task;
use crate::base::{Code, Error, Result, atomic_file};
use crate::operation::backup::objects::Branch;
use crate::operation::context::{Context, Target};
use crate::operation::log_records;
use crate::repository::catalog::Repository;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// How the names of such records end; those of backups do not.
const SUFFIX: &str = ".log";

/// What is on record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Unfinished {
    manifest: ObjectKey,
    object: ObjectKey,
    /// The repositories that it is written to; none named = all of the target's.
    #[serde(default)]
    repositories: Vec<String>,
}

impl Unfinished {
    /// A batch that is to be written to these repositories.
    pub(super) fn new(manifest: &ObjectKey, object: &ObjectKey, branches: &[Branch]) -> Unfinished {
        let alive = branches.iter().filter(|branch| branch.is_alive());
        Unfinished {
            manifest: manifest.clone(),
            object: object.clone(),
            repositories: alive.map(|branch| branch.repository.name().to_owned()).collect(),
        }
    }

    /// What remains of it: the repositories that failed meanwhile. `None` = nothing.
    pub(super) fn rest(&self, branches: &[Branch]) -> Option<Unfinished> {
        let failed = branches.iter().filter(|branch| !branch.is_alive()).map(|branch| branch.repository.name());
        let repositories: Vec<String> = failed.filter(|name| self.is_about(name)).map(str::to_owned).collect();
        (!repositories.is_empty()).then(|| Unfinished { repositories, ..self.clone() })
    }

    /// A batch of the same name that a killed run left in other repositories has a record of its own.
    fn path(&self, context: &Context, target: &Target) -> PathBuf {
        let digest = crc32c::crc32c(format!("{} {}", self.manifest, self.repositories.join(" ")).as_bytes());
        context.state_directory.join("unfinished").join(format!("{}.{digest:08x}{SUFFIX}", target.name))
    }

    fn is_about(&self, repository: &str) -> bool {
        self.repositories.is_empty() || self.repositories.iter().any(|name| name == repository)
    }
}

/// Records of a target.
fn records(context: &Context, target: &Target) -> Vec<PathBuf> {
    let prefix = format!("{}.", target.name);
    let entries = std::fs::read_dir(context.state_directory.join("unfinished")).into_iter().flatten().flatten();
    let ours = |name: &str| name.starts_with(&prefix) && name.ends_with(SUFFIX);
    entries.filter(|entry| entry.file_name().to_str().is_some_and(ours)).map(|entry| entry.path()).collect()
}

/// Puts a batch on record before its object is written.
pub(super) fn begin(context: &Context, target: &Target, record: &Unfinished) -> Result<()> {
    let text = serde_json::to_vec(record).unwrap_or_default();
    atomic_file::write(&record.path(context, target), &text, 0o600)
}

/// Takes it off the record: it is complete wherever it was begun.
pub(super) fn complete(context: &Context, target: &Target, record: &Unfinished) -> Result<()> {
    atomic_file::remove(&record.path(context, target))
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
    for name in target.repositories.iter().filter(|name| record.is_about(name)) {
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
