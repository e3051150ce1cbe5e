//! `point_in_time`: which bases the log needs, so that every moment within the window can be restored that can be now.
//!
//! Within a range that reaches into the window, that is the newest base at or before the window's beginning, or the oldest
//! there is. The others in it only make a restore shorter; the calendar decides about them. Histories that were left count
//! like the one in service: a restore in place must not cost the moments before it. Of the newest range the newest base
//! is needed, whatever its age: without it the last good chain would be gone.

use super::log_reach::{Reach, Standing};
use crate::base::ids::BackupId;
use jiff::{SignedDuration, Timestamp};
use std::collections::{BTreeMap, BTreeSet};

/// The pause to the next base that expiry is reckoned with.
const NEXT_BASE: SignedDuration = SignedDuration::from_hours(24);

/// Bases that must stay at `now`.
pub(crate) fn needed(standings: &[Standing], window: SignedDuration, now: Timestamp) -> BTreeSet<BackupId> {
    let begin = now.saturating_sub(window).unwrap_or(Timestamp::MIN);
    let mut needed = BTreeSet::new();
    for standing in standings {
        for reach in standing.reaches.iter().filter(|reach| end_of(reach) >= begin) {
            let before = reach.bases.iter().rfind(|(_, from)| *from <= begin);
            needed.extend(before.or(reach.bases.first()).map(|(id, _)| id.clone()));
        }
        needed.extend(standing.newest().and_then(|newest| newest.bases.last()).map(|(id, _)| id.clone()));
    }
    needed
}

/// Until when each base will be needed, if a base a day is taken. `calendar` is how long a base stays in any case; one that
/// goes before the window's beginning comes to it, leaves its place to the one before.
pub(crate) fn needed_until(
    standings: &[Standing],
    window: SignedDuration,
    calendar: &dyn Fn(&BackupId) -> Timestamp,
) -> BTreeMap<BackupId, Timestamp> {
    let mut until: BTreeMap<BackupId, Timestamp> = BTreeMap::new();
    let after = |time: Timestamp| time.saturating_add(window).unwrap_or(Timestamp::MAX);
    for standing in standings {
        for reach in &standing.reaches {
            let in_service = standing.newest() == Some(reach) && standing.is_whole();
            let last = reach.bases.last().map_or(Timestamp::MIN, |(_, from)| *from);
            let mut next = match in_service {
                true => last.saturating_add(NEXT_BASE).unwrap_or(Timestamp::MAX),
                false => end_of(reach),
            };
            for (index, (id, from)) in reach.bases.iter().enumerate().rev() {
                // The oldest one has no other before it that could take its place.
                if index > 0 && calendar(id) < after(*from) {
                    continue;
                }
                let known = until.entry(id.clone()).or_insert(Timestamp::MIN);
                *known = after(next).max(*known);
                next = *from;
            }
        }
    }
    until
}

/// The latest moment of a range.
fn end_of(reach: &Reach) -> Timestamp {
    let newest = reach.bases.iter().map(|(_, from)| *from).max();
    reach.range.to.max(newest).unwrap_or(Timestamp::MIN)
}
