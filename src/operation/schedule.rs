//! The timers of the targets: what the configuration wants, and how the service manager has them.

use crate::base::ids::TargetName;
use crate::base::task::Task;
use crate::host::Timer;
use crate::operation::answer::TimerStatus;
use crate::operation::context::{Context, Target};

/// The unit of the timer that takes full backups.
pub fn full_unit(target: &TargetName) -> String {
    format!("neo4j-backup-full@{target}.timer")
}

/// The unit of the timer that takes incremental backups.
pub fn incremental_unit(target: &TargetName) -> String {
    format!("neo4j-backup-incremental@{target}.timer")
}

/// Timers that serve all targets: retention, and the weekly look at every byte.
pub const SHARED_UNITS: [&str; 2] = ["neo4j-backup-cleanup.timer", "neo4j-backup-verify.timer"];

/// The timers of a target with the times that the configuration gives them; those that make no sense for its database
/// are not among them.
pub fn wanted(target: &Target) -> Vec<(String, Option<String>)> {
    let mut timers = vec![(full_unit(&target.name), target.schedule.full.clone())];
    if target.driver.log().is_some() {
        timers.push((incremental_unit(&target.name), target.schedule.incremental.clone()));
    }
    timers
}

/// How the timers of `targets` stand, a list for each. A service manager that does not answer is none.
pub fn standing(context: &Context, targets: &[&Target], task: &Task) -> Vec<Vec<TimerStatus>> {
    let wanted: Vec<_> = targets.iter().map(|target| wanted(target)).collect();
    let units: Vec<String> = wanted.iter().flatten().map(|(unit, _)| unit.clone()).collect();
    let told = context.host.timers(&units, task).unwrap_or_else(|error| {
        tracing::debug!("{error}");
        None
    });
    let of = |(unit, calendar): (String, Option<String>)| {
        let timer: Option<&Timer> = told.iter().flatten().find(|timer| timer.unit == unit);
        TimerStatus {
            enabled: timer.map(|timer| timer.enabled),
            next: timer.and_then(|timer| timer.next),
            unit,
            calendar,
        }
    };
    wanted.into_iter().map(|timers| timers.into_iter().map(of).collect()).collect()
}
