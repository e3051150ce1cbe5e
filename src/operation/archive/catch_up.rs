//! Whether the ledger knows all that a repository holds of a target. A state directory that was put back, alone or with
//! the whole machine, does not, and a base that is compared with less than there is would weave two histories into one.

use super::chain_end::is_damage;
use crate::artifact::object_key::{self, BatchPlace, MANIFEST_SUFFIX};
use crate::base::Result;
use crate::base::ids::BackupId;
use crate::base::lock::once_free;
use crate::base::task::Task;
use crate::ledger::log::BatchRecord;
use crate::operation::context::{Context, Lane, Target};
use crate::operation::{log_records, records, rescan, unfinished};
use crate::repository::catalog::Repository;
use std::collections::BTreeSet;
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
    /// Whether the caller has the lane of the base, and has begun none yet.
    pub(super) takes_the_base: bool,
}

impl Holdings<'_> {
    /// For a base that is about to be taken: enters what is there and not on record. Waits for whoever archives just
    /// now, who may be about to record it. Errors: `BUSY`, those of the repository.
    pub(super) fn before_a_base(&self, task: &Task) -> Result<()> {
        let learned = self.learn(task)?;
        if !learned && !self.are_beyond_the_record()? {
            return Ok(());
        }
        let waiting = || task.phase("waiting for whoever archives the log", 0);
        let lane = || self.context.lane(&self.target.name, Lane::Log);
        let _lane = once_free((LANE_PATIENCE, LANE_INTERVAL), task, waiting, lane)?;
        self.before_a_base_with_lane(task)
    }

    /// The same for whoever has the lane of the log.
    pub(super) fn before_a_base_with_lane(&self, task: &Task) -> Result<()> {
        let learned = self.learn(task)?;
        if learned || self.are_beyond_the_record()? { self.enter(task) } else { Ok(()) }
    }

    /// The same before every archive: of batches it looks no further than whether another one is where the next belongs.
    pub(super) fn before_an_archive(&self, task: &Task) -> Result<()> {
        if self.learn(task)? {
            // It may begin another history, whose batches nobody would look for.
            return self.enter(task);
        }
        let Some(known) = self.last_known()? else { return Ok(()) };
        let (history, next) = ((self.stream, known.lineage), known.last_transaction + 1);
        let environment = &self.context.environment;
        let taken = self.repository.has_batch_from(environment, &self.target.name, history, next)?;
        if taken { self.enter(task) } else { Ok(()) }
    }

    /// Enters the backups that are not on record; whether there were any. All are looked at: by what a clock said when they
    /// were taken none can be left out.
    fn learn(&self, task: &Task) -> Result<bool> {
        let mut learned = false;
        let (target, name) = (&self.target.name, self.repository.name());
        let known = self.context.ledger.known_in(target, name)?;
        let taken = self.being_taken();
        let known: BTreeSet<String> =
            known.iter().chain(&taken).map(|id| format!("{target}-{}{MANIFEST_SUFFIX}", id.stamp)).collect();
        for info in self.repository.manifest_keys(Some(&self.context.environment))? {
            let file = info.key.file_name();
            if !file.starts_with(&format!("{target}-")) || known.contains(file) {
                continue;
            }
            let signed = match self.repository.manifest(&info.key) {
                Ok(signed) => signed,
                // Nothing can be restored from it; it is `verify`'s to report.
                Err(error) if is_damage(&error) => continue,
                Err(error) => return Err(error.context("reading a backup that is not on record")),
            };
            if signed.manifest.target() == target {
                task.warn(format!("repository {name} held {}, which was not on record here", signed.manifest.id));
                records::backup_taken(self.context, name, &signed)?;
                learned = true;
            }
        }
        Ok(learned)
    }

    /// The backups that go on record by themselves: those that somebody takes just now, and not what a killed run left.
    fn being_taken(&self) -> Vec<BackupId> {
        let begun = unfinished::of_target(self.context, self.target);
        let nobody_is_at_it = || self.context.lane(&self.target.name, Lane::Base).is_ok();
        if begun.is_empty() || self.takes_the_base || nobody_is_at_it() { Vec::new() } else { begun }
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

    /// Whether there is a batch beyond the last one that is on record. One that cannot be opened never will be on record.
    fn are_beyond_the_record(&self) -> Result<bool> {
        let (environment, target) = (&self.context.environment, &self.target.name);
        // What others were merged into ends where its key says; of every other one the begin is enough.
        let rank = |place: &BatchPlace| (place.lineage, place.merged_to.unwrap_or(place.first_transaction));
        let known = self.last_known()?.map(|known| (known.lineage, known.last_transaction));
        for key in self.repository.batch_objects(environment, target)?.into_keys() {
            let place = object_key::batch_place(environment, target, &key).filter(|place| place.stream == self.stream);
            let is_manifest = key.as_str().ends_with(MANIFEST_SUFFIX);
            let beyond = place.filter(|place| is_manifest && Some(rank(place)) > known).is_some();
            match beyond.then(|| self.repository.batch(&key)) {
                Some(Ok(_)) => return Ok(true),
                Some(Err(error)) if !is_damage(&error) => {
                    return Err(error.context("reading a batch that is not on record"));
                }
                _ => {}
            }
        }
        Ok(false)
    }

    fn last_known(&self) -> Result<Option<BatchRecord>> {
        log_records::last_batch(self.context, self.target, self.repository.name(), self.stream)
    }
}
