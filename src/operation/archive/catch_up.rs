//! Whether the ledger knows all that a repository holds of a target. A state directory that was put back, alone or with
//! the whole machine, does not, and a base that is compared with less than there is would weave two histories into one.

use crate::artifact::object_key::{self, BatchPlace, MANIFEST_SUFFIX};
use crate::base::clock::wait_until;
use crate::base::task::Task;
use crate::base::{Code, Error, Result};
use crate::operation::context::{Context, Lane, Target};
use crate::operation::{log_records, rescan};
use crate::repository::catalog::Repository;
use std::time::Duration;

/// How long whoever archives the log is waited for, and how often that is looked at.
const LANE_PATIENCE: Duration = Duration::from_secs(60);
const LANE_INTERVAL: Duration = Duration::from_millis(50);

/// For a base that is about to be taken: enters what `repository` holds of the log `stream` and is not on record. Waits
/// for whoever archives just now, who may be about to record it. Errors: `BUSY`, those of the repository.
pub(super) fn of_base(
    context: &Context,
    target: &Target,
    repository: &Repository,
    stream: &str,
    task: &Task,
) -> Result<()> {
    if !is_behind(context, target, repository, stream)? {
        return Ok(());
    }
    let mut lane = context.lane(&target.name, Lane::Log);
    let busy = |lane: &Result<_>| lane.as_ref().is_err_and(|error: &Error| error.code() == Code::Busy);
    if busy(&lane) {
        task.phase("waiting for whoever archives the log", 0);
        wait_until(LANE_PATIENCE, LANE_INTERVAL, || {
            lane = task.check().and_then(|()| context.lane(&target.name, Lane::Log));
            !busy(&lane)
        });
    }
    let _lane = lane?;
    with_lane(context, target, repository, stream, task)
}

/// The same for whoever has the lane of the log.
pub(super) fn with_lane(
    context: &Context,
    target: &Target,
    repository: &Repository,
    stream: &str,
    task: &Task,
) -> Result<()> {
    match is_behind(context, target, repository, stream)? {
        true => read_again(context, target, repository, task),
        false => Ok(()),
    }
}

/// The same before every archive: looks no further than whether another batch is where the next one belongs.
pub(super) fn of_archive(
    context: &Context,
    target: &Target,
    repository: &Repository,
    stream: &str,
    task: &Task,
) -> Result<()> {
    let Some(known) = log_records::last_batch(context, target, repository.name(), stream)? else { return Ok(()) };
    let (history, next) = ((stream, known.lineage), known.last_transaction + 1);
    match repository.has_batch_from(&context.environment, &target.name, history, next)? {
        true => read_again(context, target, repository, task),
        false => Ok(()),
    }
}

/// Makes the record agree with what a repository holds of a target's log.
fn read_again(context: &Context, target: &Target, repository: &Repository, task: &Task) -> Result<()> {
    let name = repository.name();
    // What cannot be opened is `verify`'s to report.
    let found = rescan::read_log(context, target, repository, &mut Vec::new(), task)
        .map_err(|error| error.context("reading the log's batches again"))?;
    let (added, _) = log_records::replace_repository(context, name, &target.name, &found)?;
    if added > 0 {
        let what = format!("{added} batches of the log of {}", target.name);
        task.warn(format!("repository {name} held {what} that were not on record here; it goes on after them"));
    }
    Ok(())
}

/// Whether there is a batch beyond the last one that is on record.
fn is_behind(context: &Context, target: &Target, repository: &Repository, stream: &str) -> Result<bool> {
    let place = |key: &object_key::ObjectKey| object_key::batch_place(&context.environment, &target.name, key);
    // What others were merged into ends where its key says; of every other one the begin is enough.
    let rank = |place: &BatchPlace| (place.lineage, place.merged_to.unwrap_or(place.first_transaction));
    let there = repository
        .batch_objects(&context.environment, &target.name)?
        .into_keys()
        .filter(|key| key.as_str().ends_with(MANIFEST_SUFFIX))
        .filter_map(|key| place(&key))
        .filter(|place| place.stream == stream)
        .map(|place| rank(&place))
        .max();
    let known = log_records::last_batch(context, target, repository.name(), stream)?;
    Ok(there > known.map(|known| (known.lineage, known.last_transaction)))
}
