//! Retention: which backups are kept, until when, and `cleanup`, which deletes the others.
//!
//! Grandfather, father, son: the newest backup of each of the last `daily` days, `weekly` ISO weeks and `monthly`
//! months that have one. Whatever the numbers say, the newest usable backup of a target is never let go, nor are the
//! newest `minimum_verified` verified ones; and nothing is let go while fewer than those are verified at all. Bases that
//! `point_in_time` needs stay as well, in every history of the log ([`log_window`]). While a target has a suspect backup, one
//! whose source was damaged when it was taken, nothing of that target is let go.

use crate::base::Result;
use crate::base::ids::{BackupId, TargetName};
use crate::base::task::Task;
use crate::operation::answer::{BackupRow, BackupState, CleanupReport};
use crate::operation::context::{Context, RetentionPolicy};
use crate::operation::log_reach::{self, Standing};
use crate::operation::{delete, log_window, records};
use jiff::civil::{Date, Weekday};
use jiff::{SignedDuration, Timestamp, tz::TimeZone};
use std::collections::{BTreeMap, BTreeSet};

/// Which of a target's backups retention keeps, given newest first, of which the log needs `needed`.
fn kept(backups: &[&BackupRow], needed: &BTreeSet<BackupId>, policy: RetentionPolicy, now: Timestamp) -> Vec<bool> {
    // Nobody knows since when the source is damaged, so nobody knows which of the older ones will be needed.
    if backups.iter().any(|row| row.suspect) {
        return vec![true; backups.len()];
    }
    let usable: Vec<usize> = (0..backups.len()).filter(|index| is_usable(backups[*index])).collect();
    let mut kept: Vec<bool> = backups.iter().map(|row| needed.contains(&row.id)).collect();
    let mut keep_newest_of = |limit: u32, bucket: &dyn Fn(Timestamp) -> (i64, i64)| {
        let mut seen = BTreeSet::new();
        for index in &usable {
            let group = bucket(backups[*index].created_at);
            if seen.contains(&group) {
                continue;
            }
            if seen.len() as u32 >= limit {
                break;
            }
            seen.insert(group);
            kept[*index] = true;
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
    let verified: Vec<usize> =
        usable.iter().copied().filter(|index| backups[*index].state == BackupState::Validated).collect();
    // Too few are proven: nobody knows which of the others will be needed.
    let unproven = (verified.len() as u32) < policy.minimum_verified;
    for index in &usable {
        kept[*index] |= unproven || now.duration_since(backups[*index].created_at) < young;
    }
    let last_good = verified.iter().take(policy.minimum_verified as usize).chain(usable.first());
    last_good.for_each(|index| kept[*index] = true);
    kept
}

/// What may go of a target's backups, given newest first: usable ones that are not kept. Damaged and missing ones are left
/// for a person to look at.
pub fn expired(
    backups: &[BackupRow],
    needed: &BTreeSet<BackupId>,
    policy: RetentionPolicy,
    now: Timestamp,
) -> Vec<BackupId> {
    let backups: Vec<&BackupRow> = backups.iter().collect();
    let kept = kept(&backups, needed, policy, now);
    let gone = backups.iter().zip(kept).filter(|(row, kept)| is_usable(row) && !kept);
    gone.map(|(row, _)| row.id.clone()).collect()
}

fn is_usable(row: &BackupRow) -> bool {
    matches!(row.state, BackupState::Complete | BackupState::Validated)
}

/// When each backup will be let go if one more is taken each day: what `list` shows as `expires`. `rows` are all backups of
/// the targets they belong to, newest first. What `cleanup` would delete at once has expired, and only that has.
pub(crate) fn fill_expiry(context: &Context, rows: &mut [BackupRow]) -> Result<()> {
    let mut by_target: BTreeMap<TargetName, Vec<usize>> = BTreeMap::new();
    for (index, row) in rows.iter().enumerate() {
        by_target.entry(row.id.target.clone()).or_default().push(index);
    }
    let now = context.clock.now();
    for (name, indexes) in by_target {
        let Some(target) = context.targets.get(&name) else { continue };
        let of_target: Vec<&BackupRow> = indexes.iter().map(|index| &rows[*index]).collect();
        let standings = log_reach::standings(context, &name)?;
        let expiries = expiries(&of_target, &standings, target.retention, now);
        for (index, expires_at) in indexes.into_iter().zip(expiries) {
            rows[index].expires_at = expires_at;
        }
    }
    Ok(())
}

/// [`fill_expiry`] for one target; `None` = kept for as long as nothing takes its place.
fn expiries(
    rows: &[&BackupRow],
    standings: &[Standing],
    policy: RetentionPolicy,
    now: Timestamp,
) -> Vec<Option<Timestamp>> {
    let calendar = calendar(rows, policy);
    let kept = kept(rows, &log_window::needed(standings, policy.point_in_time, now), policy, now);
    let bases: BTreeSet<&BackupId> = standings
        .iter()
        .flat_map(|standing| &standing.reaches)
        .flat_map(|reach| &reach.bases)
        .map(|(id, _)| id)
        .collect();
    let of_bases = rows.iter().zip(&calendar).filter(|(row, _)| bases.contains(&row.id));
    let of_bases: BTreeMap<&BackupId, Timestamp> = of_bases.map(|(row, until)| (&row.id, *until)).collect();
    let by_calendar = |id: &BackupId| of_bases.get(id).copied().unwrap_or(Timestamp::MIN);
    let needed = log_window::needed_until(standings, policy.point_in_time, &by_calendar);
    let expiry = |(row, (calendar, kept)): (&&BackupRow, (Timestamp, bool))| {
        let at = calendar.max(needed.get(&row.id).copied().unwrap_or(Timestamp::MIN));
        match kept || !is_usable(row) {
            true => Some(at).filter(|at| *at > now),
            false => Some(at.clamp(row.created_at, now.max(row.created_at))),
        }
    };
    rows.iter().zip(calendar.into_iter().zip(kept)).map(expiry).collect()
}

/// Until when days, weeks and months keep each backup: only the newest usable one of a day has its place there.
fn calendar(rows: &[&BackupRow], policy: RetentionPolicy) -> Vec<Timestamp> {
    let mut last_day = None;
    let until = |row: &&BackupRow| {
        let day = row.created_at.to_zoned(TimeZone::UTC).date();
        let newest = is_usable(row) && last_day.replace(day) != Some(day);
        let days = if newest { expiry_days(day, policy) } else { i64::from(policy.days.unwrap_or(0)) };
        row.created_at.saturating_add(SignedDuration::from_hours(24 * days)).unwrap_or(Timestamp::MAX)
    };
    rows.iter().map(until).collect()
}

/// A backup lives `daily` days; one taken on a Sunday is its week's newest and one on a month's last day its month's,
/// and lives that much longer.
fn expiry_days(date: Date, policy: RetentionPolicy) -> i64 {
    let mut days = i64::from(policy.daily.max(policy.days.unwrap_or(0)));
    if date.weekday() == Weekday::Sunday {
        days = days.max(7 * i64::from(policy.weekly));
    }
    if date.day() == date.days_in_month() {
        days = days.max(31 * i64::from(policy.monthly));
    }
    days
}

/// Deletes what may go, target by target. In a dry run only says what that is.
pub fn cleanup(context: &Context, dry_run: bool, task: &Task) -> Result<CleanupReport> {
    let mut report =
        CleanupReport { dry_run, deleted: Vec::new(), kept: 0, bytes: 0, batches: 0, halted_by: Vec::new() };
    for (name, target) in &context.targets {
        let rows = records::rows(context, Some(name))?;
        let (now, policy) = (context.clock.now(), target.retention);
        let needed = log_window::needed(&log_reach::standings(context, name)?, policy.point_in_time, now);
        let gone = expired(&rows, &needed, policy, now);
        report.halted_by.extend(rows.iter().filter(|row| row.suspect).map(|row| row.id.clone()));
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
    use crate::ledger::log::ChainName;
    use crate::ledger::log::ends::LogEnd;
    use crate::operation::answer::LogRange;
    use crate::operation::log_reach::Reach;
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
            suspect: false,
            repositories: vec![],
        }
    }

    const NOW: Timestamp = Timestamp::MAX;
    const DAYS: RetentionPolicy = RetentionPolicy {
        days: None,
        daily: 7,
        weekly: 0,
        monthly: 0,
        point_in_time: SignedDuration::from_hours(24 * 14),
        minimum_verified: 2,
    };

    // req: B15
    #[test]
    fn of_ten_daily_backups_the_newest_seven_stay() {
        let rows: Vec<_> = (0..10).rev().map(|day| row(1_700_000_000 + day * 86_400, BackupState::Validated)).collect();
        let gone = expired(&rows, &BTreeSet::new(), DAYS, NOW);
        assert_eq!(gone, rows[7..].iter().map(|row| row.id.clone()).collect::<Vec<_>>());
    }

    // req: B15
    #[test]
    fn nothing_goes_while_too_few_are_verified() {
        let rows: Vec<_> = (0..10).rev().map(|day| row(1_700_000_000 + day * 86_400, BackupState::Complete)).collect();
        assert!(expired(&rows, &BTreeSet::new(), DAYS, NOW).is_empty());
    }

    #[test]
    fn a_suspect_backup_halts_everything() {
        let mut rows: Vec<_> =
            (0..30).rev().map(|day| row(1_700_000_000 + day * 86_400, BackupState::Validated)).collect();
        assert!(!expired(&rows, &BTreeSet::new(), DAYS, NOW).is_empty());
        rows[3].suspect = true;
        assert!(expired(&rows, &BTreeSet::new(), DAYS, NOW).is_empty());
        let shown = expiries(&rows.iter().collect::<Vec<_>>(), &[], DAYS, NOW);
        assert!(shown.iter().all(|expires| expires.is_none_or(|at| at > NOW)));
    }

    /// Rows as `seconds` says, cut into ranges of the log at random; the last one is of the history in service.
    fn standing(rows: &[BackupRow], seed: u64, lag: i64) -> Standing {
        let history = |lineage| ChainName { repository: "main".into(), stream: "s".into(), lineage };
        let mut reaches: Vec<Reach> = Vec::new();
        for (number, row) in rows.iter().rev().filter(|row| is_usable(row)).enumerate() {
            let base = (row.id.clone(), row.created_at);
            let at = row.created_at.saturating_add(SignedDuration::from_secs(lag)).expect("time");
            match reaches.last_mut() {
                Some(reach) if seed >> (number % 64) & 3 != 0 => {
                    reach.bases.push(base);
                    (reach.range.to, reach.range.to_transaction) = (Some(at), number as u64);
                }
                _ => {
                    let chain = history(reaches.len() as u32 + 1);
                    reaches.push(Reach {
                        range: LogRange {
                            repository: chain.repository,
                            stream: chain.stream,
                            lineage: chain.lineage,
                            from: row.created_at,
                            from_transaction: number as u64,
                            to: Some(at),
                            to_transaction: number as u64,
                            left: true,
                        },
                        bases: vec![base],
                    });
                }
            }
        }
        reaches.reverse();
        let end = LogEnd {
            chain: history(reaches.len() as u32),
            transaction: reaches.first().map_or(0, |reach| reach.range.to_transaction),
            covered_until: reaches.first().and_then(|reach| reach.range.to).unwrap_or(Timestamp::UNIX_EPOCH),
            number: 0,
        };
        if let Some(newest) = reaches.first_mut() {
            newest.range.left = false;
        }
        Standing { end, reaches, gaps: Vec::new(), unsound: 0 }
    }

    proptest! {
        #[test]
        fn what_is_shown_is_done_and_the_window_keeps_its_moments(
            hours in proptest::collection::btree_set(0i64..2_000, 1..40),
            states in proptest::collection::vec(0u8..4, 40),
            seed in any::<u64>(), later in 0i64..1_000, daily in 0u32..9, window in 0i64..40, minimum in 0u32..3,
        ) {
            let state = |n: u8| [BackupState::Validated, BackupState::Validated, BackupState::Complete, BackupState::Corrupted][n as usize];
            let second = |hour: &i64| 1_700_000_000 + hour * 3600;
            let rows: Vec<_> = hours.iter().rev().zip(states).map(|(hour, n)| row(second(hour), state(n))).collect();
            let now = Timestamp::from_second(second(&(2_000 + later))).expect("time");
            let point_in_time = SignedDuration::from_hours(24 * window);
            let policy = RetentionPolicy { daily, point_in_time, minimum_verified: minimum, ..DAYS };
            let standings = [standing(&rows, seed, 1_800)];
            let gone = expired(&rows, &log_window::needed(&standings, point_in_time, now), policy, now);
            for (row, expires) in rows.iter().zip(expiries(&rows.iter().collect::<Vec<_>>(), &standings, policy, now)) {
                let due = expires.is_some_and(|at| at <= now);
                prop_assert!(!is_usable(row) || due == gone.contains(&row.id), "{} {expires:?} {now}", row.id);
            }
            let begin = now.saturating_sub(point_in_time).expect("time");
            for (number, reach) in standings[0].reaches.iter().enumerate() {
                let kept: Vec<Timestamp> =
                    reach.bases.iter().filter(|(id, _)| !gone.contains(id)).map(|(_, from)| *from).collect();
                if reach.range.to.is_some_and(|to| to >= begin) {
                    // The earliest moment in the window that this range could give, it still gives.
                    let earliest = begin.max(reach.bases[0].1);
                    prop_assert!(kept.iter().any(|from| *from <= earliest), "{reach:?} {kept:?}");
                }
                prop_assert!(number > 0 || !kept.is_empty(), "the last good chain");
            }
        }

        #[test]
        fn the_last_good_and_the_minimum_always_stay(
            seconds in proptest::collection::btree_set(0i64..2_000_000_000, 1..60),
            states in proptest::collection::vec(0u8..4, 60),
            daily in 0u32..9, weekly in 0u32..5, monthly in 0u32..4, minimum in 0u32..4,
        ) {
            let state = |n: u8| [BackupState::Complete, BackupState::Validated, BackupState::Corrupted, BackupState::Missing][n as usize];
            let rows: Vec<_> = seconds.iter().rev().zip(states).map(|(second, n)| row(*second, state(n))).collect();
            let policy = RetentionPolicy { daily, weekly, monthly, minimum_verified: minimum, ..DAYS };
            let gone = expired(&rows, &BTreeSet::new(), policy, NOW);
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
