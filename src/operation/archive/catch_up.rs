//! Whether the ledger knows all that a repository holds of a target. A state directory that was put back, alone or with
//! the whole machine, does not, and a base that is compared with less than there is would weave two histories into one.

use crate::artifact::object_key::{self, BatchPlace, MANIFEST_SUFFIX};
use crate::base::Result;
use crate::base::lock::once_free;
use crate::base::task::Task;
use crate::ledger::log::BatchRecord;
use crate::operation::context::{Context, Lane, Target};
use crate::operation::{log_records, rescan};
use crate::repository::catalog::Repository;
use std::time::Duration;

/// How long whoever archives the log is waited for, and how often that is looked at.
const LANE_PATIENCE: Duration = Duration::from_secs(60);
const LANE_INTERVAL: Duration = Duration::from_millis(50);

/// What a repository holds of a target's log, beside what the ledger knows of it.
pub(super) struct Holdings<'a> {
    /// Where the ledger is.
    pub(super) context: &'a Context,
    /// Whose log.
    pub(super) target: &'a Target,
    /// The repository.
    pub(super) repository: &'a Repository,
    /// Which log.
    pub(super) stream: &'a str,
}

impl Holdings<'_> {
    /// For a base that is about to be taken: enters what is there and not on record. Waits for whoever archives just
    /// now, who may be about to record it. Errors: `BUSY`, those of the repository.
    pub(super) fn before_a_base(&self, task: &Task) -> Result<()> {
        if !self.are_beyond_the_record()? {
            return Ok(());
        }
        let waiting = || task.phase("waiting for whoever archives the log", 0);
        let lane = || self.context.lane(&self.target.name, Lane::Log);
        let _lane = once_free((LANE_PATIENCE, LANE_INTERVAL), task, waiting, lane)?;
        self.before_a_base_with_lane(task)
    }

    /// The same for whoever has the lane of the log.
    pub(super) fn before_a_base_with_lane(&self, task: &Task) -> Result<()> {
        if self.are_beyond_the_record()? { self.enter(task) } else { Ok(()) }
    }

    /// The same before every archive: looks no further than whether another batch is where the next one belongs.
    pub(super) fn before_an_archive(&self, task: &Task) -> Result<()> {
        let Some(known) = self.last_known()? else { return Ok(()) };
        let (history, next) = ((self.stream, known.lineage), known.last_transaction + 1);
        let environment = &self.context.environment;
        let taken = self.repository.has_batch_from(environment, &self.target.name, history, next)?;
        if taken { self.enter(task) } else { Ok(()) }
    }

    /// Makes the record agree with what is there.
    fn enter(&self, task: &Task) -> Result<()> {
        let name = self.repository.name();
        // What cannot be opened is `verify`'s to report.
        let found = rescan::read_log(self.context, self.target, self.repository, &mut Vec::new(), task)
            .map_err(|error| error.context("reading the log's batches again"))?;
        let (added, _) = log_records::replace_repository(self.context, name, &self.target.name, &found)?;
        if added > 0 {
            let what = format!("{added} batches of the log of {}", self.target.name);
            task.warn(format!("repository {name} held {what} that were not on record here; it goes on after them"));
        }
        Ok(())
    }

    /// Whether there is a batch beyond the last one that is on record.
    fn are_beyond_the_record(&self) -> Result<bool> {
        let (environment, target) = (&self.context.environment, &self.target.name);
        // What others were merged into ends where its key says; of every other one the begin is enough.
        let rank = |place: BatchPlace| (place.lineage, place.merged_to.unwrap_or(place.first_transaction));
        let there = self
            .repository
            .batch_objects(environment, target)?
            .into_keys()
            .filter(|key| key.as_str().ends_with(MANIFEST_SUFFIX))
            .filter_map(|key| object_key::batch_place(environment, target, &key))
            .filter(|place| place.stream == self.stream)
            .map(rank)
            .max();
        Ok(there > self.last_known()?.map(|known| (known.lineage, known.last_transaction)))
    }

    fn last_known(&self) -> Result<Option<BatchRecord>> {
        log_records::last_batch(self.context, self.target, self.repository.name(), self.stream)
    }
}
