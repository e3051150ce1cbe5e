//! `status`: how far back each target can be restored, how long that would take, and what stands in the way.

use crate::base::Result;
use crate::base::ids::TargetName;
use crate::base::task::Task;
use crate::operation::answer::{TargetStatus, TimerStatus};
use crate::operation::context::{Context, Target};
use crate::operation::{log_records, records, schedule};
use jiff::Timestamp;

/// Bytes a second that a restore is expected to write where none was made yet. Pessimistic on purpose.
const ASSUMED_RESTORE_RATE: u64 = 50_000_000;
/// What every restore takes before and after the bytes, in seconds: starting servers, recovery, checks.
const ASSUMED_RESTORE_FIXED_S: u64 = 60;

/// One line per target, from the ledger and what the service manager says of its timers: no server and no repository is
/// asked, so it answers at once.
pub fn run(context: &Context, only: Option<&TargetName>, task: &Task) -> Result<Vec<TargetStatus>> {
    let targets: Vec<&Target> = match only {
        Some(name) => vec![context.target(name)?],
        None => context.targets.values().collect(),
    };
    let timers = schedule::standing(context, &targets, task);
    targets.into_iter().zip(timers).map(|(target, timers)| of(context, target, timers)).collect()
}

/// A base is as good a point to restore to as the log's end; the later of the two counts. A time that has not come was given by a
/// clock that was ahead, and counts only where there is no other.
fn restorable_to(begun: Option<Timestamp>, covered: Option<Timestamp>, now: Timestamp) -> Option<Timestamp> {
    let times = || begun.into_iter().chain(covered);
    times().filter(|time| *time <= now).max().or_else(|| times().min())
}

fn of(context: &Context, target: &Target, timers: Vec<TimerStatus>) -> Result<TargetStatus> {
    let newest = context.ledger.newest_usable(&target.name)?;
    let totals = context.ledger.totals(&target.name)?;
    let now = context.clock.now();
    let measured = records::last_restore_rate(context, &target.name)?;
    let rto = newest.as_ref().map(|newest| {
        let rate = measured.unwrap_or(ASSUMED_RESTORE_RATE).max(1);
        ASSUMED_RESTORE_FIXED_S + newest.plain_bytes / rate
    });
    let (log, earlier) = log_records::standing(context, target)?;
    let covered = log.as_ref().map(|log| log.covered_until);
    let begun = newest.as_ref().map(|newest| newest.created_at);
    let restorable_to = restorable_to(begun, covered, now);
    // What a clock that was ahead dated settles nothing that failed since.
    let begun = begun.filter(|begun| *begun <= now);
    Ok(TargetStatus {
        target: target.name.clone(),
        engine: target.driver.engine().as_str().to_owned(),
        restorable_to,
        age_seconds: restorable_to.map(|time| now.duration_since(time).as_secs()),
        newest: newest.map(|newest| newest.id),
        rto_seconds: rto,
        last_proven: records::last_proven(context, &target.name)?,
        backups: totals.backups,
        stored_bytes: totals.stored_bytes,
        job: records::running_job(context, &target.name)?,
        last_failure: records::last_failure(context, &target.name, begun, covered)?,
        next_run: timers.iter().filter_map(|timer| timer.next).min(),
        timers,
        log,
        earlier,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_that_has_not_come_is_told_only_where_there_is_no_other() {
        let at = |second| Timestamp::from_second(second).expect("time");
        let told = |begun: Option<i64>, covered: Option<i64>| {
            restorable_to(begun.map(at), covered.map(at), at(100)).map(Timestamp::as_second)
        };
        assert_eq!(told(Some(10), Some(20)), Some(20));
        assert_eq!(told(Some(30), Some(20)), Some(30));
        assert_eq!(told(Some(900), Some(20)), Some(20));
        assert_eq!(told(Some(900), Some(800)), Some(800));
        assert_eq!(told(Some(900), None), Some(900));
        assert_eq!(told(None, None), None);
    }
}
