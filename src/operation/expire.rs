//! Retention: which backups are kept, until when, and `cleanup`, which deletes the others.
//!
//! Grandfather, father, son: the newest backup of each of the last `daily` days, `weekly` ISO weeks and `monthly`
//! months that have one. Whatever the numbers say, the newest usable backup of a target is never let go, nor are the
//! newest `minimum_verified` verified ones; and nothing is let go while fewer than those are verified at all.

use crate::base::Result;
use crate::base::ids::{BackupId, TargetName};
use crate::base::task::Task;
use crate::operation::answer::{BackupRow, BackupState, CleanupReport};
use crate::operation::context::{Context, RetentionPolicy};
use crate::operation::{delete, records};
use jiff::{SignedDuration, Timestamp, tz::TimeZone};
use std::collections::{BTreeMap, BTreeSet};

/// What retention says of a target's backups, given newest first. Backups not in the answer may go.
pub fn keepers(backups: &[BackupRow], policy: RetentionPolicy, now: Timestamp) -> BTreeSet<BackupId> {
    let usable: Vec<_> =
        backups.iter().filter(|row| matches!(row.state, BackupState::Complete | BackupState::Validated)).collect();
    let mut kept: BTreeSet<BackupId> = BTreeSet::new();
    let mut keep_newest_of = |limit: u32, bucket: &dyn Fn(Timestamp) -> (i64, i64)| {
        let mut seen = BTreeSet::new();
        for row in &usable {
            let group = bucket(row.created_at);
            if seen.contains(&group) {
                continue;
            }
            if seen.len() as u32 >= limit {
                break;
            }
            seen.insert(group);
            kept.insert(row.id.clone());
        }
    };
    let date = |at: Timestamp| at.to_zoned(TimeZone::UTC).date();
    keep_newest_of(policy.daily, &|at| (i64::from(date(at).year()), i64::from(date(at).day_of_year())));
    keep_newest_of(policy.weekly, &|at| {
        let week = date(at).iso_week_date();
        (i64::from(week.year()), i64::from(week.week()))
    });
    keep_newest_of(policy.monthly, &|at| (i64::from(date(at).year()), i64::from(date(at).month())));
    let young = SignedDuration::from_hours(24 * i64::from(policy.days.unwrap_or(0)));
    kept.extend(usable.iter().filter(|row| now.duration_since(row.created_at) < young).map(|row| row.id.clone()));
    let verified: Vec<_> = usable.iter().filter(|row| row.state == BackupState::Validated).collect();
    if (verified.len() as u32) < policy.minimum_verified {
        // Too few are proven: nobody knows which of the others will be needed.
        kept.extend(usable.iter().map(|row| row.id.clone()));
    }
    kept.extend(verified.iter().take(policy.minimum_verified as usize).map(|row| row.id.clone()));
    kept.extend(usable.first().map(|row| row.id.clone()));
    kept
}

/// What may go: usable backups that are not kept. Damaged and missing ones are left for a person to look at.
pub fn expired(backups: &[BackupRow], policy: RetentionPolicy, now: Timestamp) -> Vec<BackupId> {
    let kept = keepers(backups, policy, now);
    let usable = |row: &&BackupRow| matches!(row.state, BackupState::Complete | BackupState::Validated);
    backups.iter().filter(usable).filter(|row| !kept.contains(&row.id)).map(|row| row.id.clone()).collect()
}

/// When each backup will be let go if one more is taken each day: what `list` shows as `expires`.
pub(crate) fn fill_expiry(context: &Context, rows: &mut [BackupRow]) {
    let mut by_target: BTreeMap<TargetName, Vec<usize>> = BTreeMap::new();
    for (index, row) in rows.iter().enumerate() {
        by_target.entry(row.id.target.clone()).or_default().push(index);
    }
    for (name, indexes) in by_target {
        let Some(target) = context.targets.get(&name) else { continue };
        for index in indexes {
            let days = expiry_days(rows[index].created_at, target.retention);
            rows[index].expires_at = rows[index].created_at.checked_add(SignedDuration::from_hours(24 * days)).ok();
        }
    }
}

/// A backup lives `daily` days; one taken on a Sunday is its week's newest and one on a month's last day its month's,
/// and lives that much longer.
fn expiry_days(created: Timestamp, policy: RetentionPolicy) -> i64 {
    let date = created.to_zoned(TimeZone::UTC).date();
    let mut days = i64::from(policy.daily.max(policy.days.unwrap_or(0)));
    if date.weekday() == jiff::civil::Weekday::Sunday {
        days = days.max(7 * i64::from(policy.weekly));
    }
    if date.day() == date.days_in_month() {
        days = days.max(31 * i64::from(policy.monthly));
    }
    days
}

/// Deletes what may go, target by target. In a dry run only says what that is.
pub fn cleanup(context: &Context, dry_run: bool, task: &Task) -> Result<CleanupReport> {
    let mut report = CleanupReport { dry_run, deleted: Vec::new(), kept: 0, bytes: 0, batches: 0 };
    for (name, target) in &context.targets {
        let rows = records::rows(context, Some(name))?;
        let gone = expired(&rows, target.retention, context.clock.now());
        report.kept += (rows.len() - gone.len()) as u64;
        // Oldest first: whatever interrupts this, what is left is the newest.
        for id in gone.iter().rev() {
            task.check()?;
            let before: BTreeSet<BackupId> = report.deleted.iter().cloned().collect();
            let deleted = delete::delete(context, id.clone(), &before, dry_run, task)?;
            report.bytes += deleted.bytes;
            report.batches += deleted.batches;
            report.deleted.push(id.clone());
        }
    }
    Ok(report)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn row(second: i64, state: BackupState) -> BackupRow {
        let created_at = Timestamp::from_second(second).expect("time");
        let stamp = crate::base::ids::Stamp::new(created_at);
        BackupRow {
            id: format!("graph-{stamp}-dump").parse().expect("id"),
            engine: "neo4j".into(),
            created_at,
            expires_at: None,
            state,
            plain_bytes: 1,
            stored_bytes: 1,
            sha256: String::new(),
            counts: Vec::new(),
            duration_ms: 0,
            repositories: vec![],
        }
    }

    const NOW: Timestamp = Timestamp::MAX;
    const DAYS: RetentionPolicy = RetentionPolicy { days: None, daily: 7, weekly: 0, monthly: 0, minimum_verified: 2 };

    // req: B15
    #[test]
    fn of_ten_daily_backups_the_newest_seven_stay() {
        let rows: Vec<_> = (0..10).rev().map(|day| row(1_700_000_000 + day * 86_400, BackupState::Validated)).collect();
        let gone = expired(&rows, DAYS, NOW);
        assert_eq!(gone, rows[7..].iter().map(|row| row.id.clone()).collect::<Vec<_>>());
    }

    // req: B15
    #[test]
    fn nothing_goes_while_too_few_are_verified() {
        let rows: Vec<_> = (0..10).rev().map(|day| row(1_700_000_000 + day * 86_400, BackupState::Complete)).collect();
        assert!(expired(&rows, DAYS, NOW).is_empty());
    }

    proptest! {
        #[test]
        fn the_last_good_and_the_minimum_always_stay(
            seconds in proptest::collection::btree_set(0i64..2_000_000_000, 1..60),
            states in proptest::collection::vec(0u8..4, 60),
            daily in 0u32..9, weekly in 0u32..5, monthly in 0u32..4, minimum in 0u32..4,
        ) {
            let state = |n: u8| [BackupState::Complete, BackupState::Validated, BackupState::Corrupted, BackupState::Missing][n as usize];
            let rows: Vec<_> = seconds.iter().rev().zip(states).map(|(second, n)| row(*second, state(n))).collect();
            let policy = RetentionPolicy { days: None, daily, weekly, monthly, minimum_verified: minimum };
            let gone = expired(&rows, policy, NOW);
            let usable = |row: &&BackupRow| matches!(row.state, BackupState::Complete | BackupState::Validated);
            if let Some(newest) = rows.iter().find(usable) {
                prop_assert!(!gone.contains(&newest.id));
            }
            let verified = |rows: &mut dyn Iterator<Item = &BackupRow>| rows.filter(|r| r.state == BackupState::Validated).count() as u32;
            let before = verified(&mut rows.iter());
            let after = verified(&mut rows.iter().filter(|row| !gone.contains(&row.id)));
            prop_assert!(after >= before.min(minimum));
            prop_assert!(gone.is_empty() || before >= minimum);
        }
    }
}
