//! The time that what happens to a target's history is dated with.
//!
//! Histories are told apart by what came after what: a base after a restore in place begins another one, a database that
//! was archived last is the one in service. A clock that is set back must not turn that round.

use super::{Ledger, time};
use crate::base::Result;
use crate::base::ids::TargetName;
use jiff::{SignedDuration, Timestamp};

/// How much later than the clock the record may be and still be believed. Beyond it the clock was wrong before, and a
/// record that lies years ahead must not date everything to come.
const SET_BACK_MAX: SignedDuration = SignedDuration::from_hours(1);

/// The latest time on record of a target up to another one. Each part is the end of an index. Backups are not asked: their
/// names are whole seconds, and may lie ahead where one is taken already; the jobs that took them are.
const LATEST: &str = "
SELECT max(at) FROM (
    SELECT max(created_at) AS at FROM log_batches WHERE target = ?1 AND created_at <= ?2
    UNION ALL SELECT max(covered_until) FROM log_ends WHERE target = ?1 AND covered_until <= ?2
    UNION ALL SELECT max(at) FROM restores WHERE target = ?1 AND at <= ?2
    UNION ALL SELECT * FROM (SELECT ended_at FROM jobs WHERE target = ?1 AND ended_at IS NOT NULL ORDER BY id DESC LIMIT 1)
              WHERE ended_at <= ?2
)";

impl Ledger {
    /// The time of what happens to a target now. It is the clock's, unless the record knows of something later, as after the
    /// clock was set back by up to an hour: then just after that.
    pub fn moment(&self, target: &TargetName) -> Result<Timestamp> {
        let now = self.clock.now();
        let until = now.saturating_add(SET_BACK_MAX).unwrap_or(Timestamp::MAX).as_microsecond();
        let latest: Option<i64> = self.with(|connection| {
            let mut statement = connection.prepare_cached(LATEST)?;
            statement.query_row(rusqlite::params![target.as_str(), until], |row| row.get(0))
        })?;
        Ok(latest.map_or(now, |latest| now.max(time(latest + 1))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::{Clock, FixedClock};
    use crate::ledger::log::{ChainName, LogEnd};
    use std::sync::Arc;

    #[test]
    fn what_happens_is_later_than_what_is_on_record_unless_that_lies_far_ahead() {
        let directory = tempfile::tempdir().expect("tempdir");
        let noon: Timestamp = "2026-11-20T12:00:00Z".parse().expect("time");
        let clock = Arc::new(FixedClock::new(noon));
        let ledger = Ledger::open(&directory.path().join("ledger.db"), clock.clone()).expect("open");
        let [target, other] = ["graph", "metrics"].map(|name| TargetName::new(name).expect("name"));
        let moment = || ledger.moment(&target).expect("moment");
        assert_eq!(moment(), noon);
        let chain = ChainName { repository: "main".to_owned(), stream: "x".to_owned(), lineage: 1 };
        let end = LogEnd { chain, transaction: 1, covered_until: noon };
        ledger.record_log_end(&target, &end).expect("end");
        for (minutes_back, follows) in [(0, true), (1, true), (60, true), (61, false), (-1, false)] {
            let now = noon - SignedDuration::from_mins(minutes_back);
            clock.set(now);
            assert_eq!(moment(), if follows { noon + SignedDuration::from_micros(1) } else { now }, "{minutes_back}");
            assert_eq!(ledger.moment(&other).expect("moment"), clock.now());
        }
    }
}
