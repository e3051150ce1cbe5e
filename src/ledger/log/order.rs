//! What came after what. A clock can be wrong, be set right, or run back, so what puts data into service or archives its log is
//! numbered for each target in the order in which this host did it. Times say up to when something holds; numbers say what
//! came later.
//!
//! What was found rather than done, in a repository or by an earlier release, has no number: the clock is all there is.

use super::super::Ledger;
use crate::base::Result;
use crate::base::ids::{BackupId, TargetName};
use jiff::Timestamp;
use rusqlite::{Connection, params};

/// When something was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct When {
    /// Its number among what was done to the target; 0 = unknown.
    pub number: u64,
    /// By the clock of then.
    pub at: Timestamp,
}

impl When {
    /// Known by the clock alone.
    pub fn by_the_clock(at: Timestamp) -> When {
        When { number: 0, at }
    }

    /// Whether it came after the other.
    pub fn is_after(&self, other: &When) -> bool {
        match self.number > 0 && other.number > 0 {
            true => self.number > other.number,
            false => self.at > other.at,
        }
    }
}

/// What came last: the last of what has numbers, unless something without one was later than that by the clock.
pub fn last<T>(done: impl IntoIterator<Item = (When, T)>) -> Option<(When, T)> {
    let (numbered, found): (Vec<_>, Vec<_>) = done.into_iter().partition(|(when, _)| when.number > 0);
    let numbered = numbered.into_iter().max_by_key(|(when, _)| when.number);
    let found = found.into_iter().max_by_key(|(when, _)| when.at);
    match (numbered, found) {
        (Some(numbered), Some(found)) if found.0.is_after(&numbered.0) => Some(found),
        (numbered, found) => numbered.or(found),
    }
}

/// The number of what is done now.
pub(in crate::ledger) fn next(connection: &Connection, target: &TargetName) -> rusqlite::Result<i64> {
    connection.query_row(
        "SELECT 1 + max(coalesce((SELECT max(number) FROM log_bases WHERE target = ?1), 0),
                        coalesce((SELECT max(number) FROM log_ends WHERE target = ?1), 0),
                        coalesce((SELECT max(number) FROM restores WHERE target = ?1), 0))",
        [target.as_str()],
        |row| row.get(0),
    )
}

impl Ledger {
    /// Numbers a base that was taken just now and is on record in a repository.
    pub fn number_base(&self, target: &TargetName, backup: &BackupId, repository: &str) -> Result<()> {
        self.transact(|transaction| {
            let number = next(transaction, target)?;
            let statement = "UPDATE log_bases SET number = ?1 WHERE backup = ?2 AND repository = ?3";
            transaction.execute(statement, params![number, backup.to_string(), repository]).map(drop)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn when(number: u64, at: i64) -> When {
        When { number, at: Timestamp::from_second(at).expect("time") }
    }

    #[test]
    fn numbers_tell_where_both_have_one() {
        assert!(when(2, 100).is_after(&when(1, 900)));
        assert!(!when(1, 900).is_after(&when(2, 100)));
        assert!(when(0, 900).is_after(&when(2, 100)));
        assert!(!when(2, 100).is_after(&when(0, 900)));
        assert!(!when(3, 5).is_after(&when(3, 5)));
    }

    #[test]
    fn what_was_found_is_last_only_where_the_clock_says_so() {
        let of = |all: &[When]| last(all.iter().copied().zip(0..)).map(|(_, place)| place);
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[when(1, 900), when(2, 100)]), Some(1));
        assert_eq!(of(&[when(1, 900), when(2, 100), when(0, 101)]), Some(2));
        assert_eq!(of(&[when(1, 900), when(2, 100), when(0, 99)]), Some(1));
        assert_eq!(of(&[when(0, 7), when(0, 9)]), Some(1));
    }

    proptest! {
        #[test]
        fn nothing_came_after_the_last_that_has_a_number(all in prop::collection::vec((0u64..5, 0i64..20), 1..8)) {
            let all: Vec<When> = all.into_iter().map(|(number, at)| when(number, at)).collect();
            let (found, ()) = last(all.iter().map(|one| (*one, ()))).expect("some");
            if found.number > 0 {
                prop_assert!(!all.iter().any(|other| other.is_after(&found)));
            }
        }
    }
}
