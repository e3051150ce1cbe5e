//! Whether the ledger knows all that a repository holds of a target. A state directory that was put back, alone or with
//! the whole machine, does not, and a base that is compared with less than there is would weave two histories into one.

use crate::artifact::object_key::{self, BatchPlace, MANIFEST_SUFFIX};
use crate::base::Result;
use crate::base::lock::once_free;
use crate::base::task::Task;
use crate::ledger::log::BatchRecord;
use crate::operation::context::{Context, Lane, Target};
use crate::operation::{log_records, records, rescan, unfinished};
use crate::repository::catalog::Repository;
use crate::repository::store::ObjectInfo;
use jiff::{SignedDuration, Timestamp};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// How long whoever archives the log is waited for, and how often that is looked at.
const LANE_PATIENCE: Duration = Duration::from_secs(60);
const LANE_INTERVAL: Duration = Duration::from_millis(50);
/// How many days are listed one by one.
const DAYS_MAX: i32 = 7;
const DAY: SignedDuration = SignedDuration::from_hours(24);

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
        let learned = self.learn(self.repository.manifest_keys(Some(&self.context.environment))?, task)?;
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
        let learned = self.learn(self.repository.manifest_keys(Some(&self.context.environment))?, task)?;
        if learned || self.are_beyond_the_record()? { self.enter(task) } else { Ok(()) }
    }

    /// The same before every archive: looks no further than whether another batch is where the next one belongs, and
    /// whether backups were begun that are not on record since the newest that is.
    pub(super) fn before_an_archive(&self, task: &Task) -> Result<()> {
        if self.learn(self.recent_manifests()?, task)? {
            // It may begin another history, whose batches nobody would look for.
            return self.enter(task);
        }
        let Some(known) = self.last_known()? else { return Ok(()) };
        let (history, next) = ((self.stream, known.lineage), known.last_transaction + 1);
        let environment = &self.context.environment;
        let taken = self.repository.has_batch_from(environment, &self.target.name, history, next)?;
        if taken { self.enter(task) } else { Ok(()) }
    }

    /// The manifests of the days since the newest backup on record.
    fn recent_manifests(&self) -> Result<Vec<ObjectInfo>> {
        let (environment, name) = (&self.context.environment, self.repository.name());
        let known = self.context.ledger.known_in(&self.target.name, name)?;
        let (now, newest) = (self.context.clock.now(), known.iter().map(|id| id.stamp.timestamp()).max());
        // A clock that ran back makes the newest one of the future.
        let Some((first, last)) = newest.map(|newest| (newest.min(now), newest.max(now))) else {
            return self.repository.manifest_keys(Some(environment));
        };
        if last.duration_since(first) > DAYS_MAX * DAY {
            return self.repository.manifest_keys(Some(environment));
        }
        let mut days: BTreeMap<String, Timestamp> = BTreeMap::new();
        let mut day = first;
        while day < last {
            days.insert(object_key::day_prefix(environment, day), day);
            day = day.saturating_add(DAY).unwrap_or(last);
        }
        days.insert(object_key::day_prefix(environment, last), last);
        let mut found = Vec::new();
        for day in days.into_values() {
            found.extend(self.repository.manifest_keys_of_day(environment, day)?);
        }
        Ok(found)
    }

    /// Enters the backups of these manifests that are not on record; whether there were any.
    fn learn(&self, manifests: Vec<ObjectInfo>, task: &Task) -> Result<bool> {
        let mut learned = false;
        let (target, name) = (&self.target.name, self.repository.name());
        let known = self.context.ledger.known_in(target, name)?;
        // What is being taken goes on record by itself.
        let taken = unfinished::of_target(self.context, self.target);
        let known: BTreeSet<String> =
            known.iter().chain(&taken).map(|id| format!("{target}-{}{MANIFEST_SUFFIX}", id.stamp)).collect();
        for info in manifests {
            let file = info.key.file_name();
            if !file.starts_with(&format!("{target}-")) || known.contains(file) {
                continue;
            }
            // What cannot be opened is `verify`'s to report.
            let Ok(signed) = self.repository.manifest(&info.key) else { continue };
            if signed.manifest.target() == target {
                task.warn(format!("repository {name} held {}, which was not on record here", signed.manifest.id));
                records::backup_taken(self.context, name, &signed)?;
                learned = true;
            }
        }
        Ok(learned)
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
            if beyond && self.repository.batch(&key).is_ok() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn last_known(&self) -> Result<Option<BatchRecord>> {
        log_records::last_batch(self.context, self.target, self.repository.name(), self.stream)
    }
}
