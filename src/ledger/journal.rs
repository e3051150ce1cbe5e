//! Events and restores: what happened on this host, and who asked for it.

use super::log::order::{self, When};
use super::{Ledger, parsed, parsed_option, time};
use crate::base::Result;
use crate::base::ids::{BackupId, JobId, TargetName};
use jiff::Timestamp;
use rusqlite::{OptionalExtension, Row, params};
use std::path::PathBuf;

/// An event on record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventEntry {
    /// When.
    pub at: Timestamp,
    /// `info`, `warning`, `error`.
    pub severity: String,
    /// Its stable name.
    pub name: String,
    /// The target, if any.
    pub target: Option<TargetName>,
    /// The job, if any.
    pub job: Option<JobId>,
    /// Who asked.
    pub actor: String,
    /// What happened.
    pub text: String,
}

/// A restore on record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestoreEntry {
    /// Its name.
    pub name: String,
    /// The target.
    pub target: TargetName,
    /// What was restored.
    pub backup: BackupId,
    /// When it ended.
    pub at: Timestamp,
    /// Where it is.
    pub directory: PathBuf,
    /// Whether it went into service.
    pub in_place: bool,
    /// What it set aside.
    pub set_aside: Vec<PathBuf>,
    /// Plaintext bytes.
    pub plain_bytes: u64,
    /// How long it took, in milliseconds; 0 while it is not finished.
    pub duration_ms: u64,
    /// Whether all checks passed; `None` = none were made.
    pub healthy: Option<bool>,
    /// Where in the database's log it arrived; `None` = that is not known.
    pub reached: Option<ReachedEntry>,
    /// Batches of the log that it replayed.
    pub batches: u64,
    /// Its number among what was done to the target; given when it is recorded, 0 = by an earlier release. See
    /// [`super::log::order`].
    pub number: u64,
}

impl RestoreEntry {
    /// When it was made.
    pub fn when(&self) -> When {
        When { number: self.number, at: self.at }
    }
}

/// Where in a database's log a restore arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReachedEntry {
    /// Whose log.
    pub stream: String,
    /// Which of its histories.
    pub lineage: u32,
    /// The last transaction.
    pub transaction: u64,
}

macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT name, target, backup, at, directory, in_place, set_aside, plain_bytes, duration_ms, healthy, ",
            "stream, lineage, reached, batches, number FROM restores ",
            $rest
        )
    };
}

impl Ledger {
    /// Records an event; `at` is now.
    pub fn record_event(&self, event: &EventEntry) -> Result<()> {
        let now = self.now();
        self.transact(|transaction| {
            transaction.execute(
                "INSERT INTO events (at, severity, name, target, job, actor, text) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
                params![
                    now,
                    event.severity,
                    event.name,
                    event.target.as_ref().map(TargetName::as_str),
                    event.job.map(|job| job.0 as i64),
                    event.actor,
                    event.text
                ],
            )?;
            Ok(())
        })
    }

    /// Events, newest first.
    pub fn events(&self, limit: u32) -> Result<Vec<EventEntry>> {
        self.with(|connection| {
            let mut statement = connection.prepare_cached(
                "SELECT at, severity, name, target, job, actor, text FROM events ORDER BY id DESC LIMIT ?1",
            )?;
            let rows = statement.query_map([limit], |row| {
                let job: Option<i64> = row.get(4)?;
                Ok(EventEntry {
                    at: time(row.get(0)?),
                    severity: row.get(1)?,
                    name: row.get(2)?,
                    target: parsed_option(row, 3)?,
                    job: job.map(|number| JobId(number as u64)),
                    actor: row.get(5)?,
                    text: row.get(6)?,
                })
            })?;
            rows.collect()
        })
    }

    /// Records a restore, or what more is known of it; `at` is now.
    pub fn record_restore(&self, restore: &RestoreEntry) -> Result<()> {
        let now = self.now();
        self.transact(|transaction| {
            let number = order::next(transaction, &restore.target)?;
            transaction.execute(
                "INSERT OR REPLACE INTO restores
                 (name, target, backup, at, directory, in_place, set_aside, plain_bytes, duration_ms, healthy,
                  stream, lineage, reached, batches, number)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15)",
                params![
                    restore.name,
                    restore.target.as_str(),
                    restore.backup.to_string(),
                    now,
                    restore.directory.to_string_lossy(),
                    restore.in_place,
                    serde_json::to_string(&restore.set_aside).unwrap_or_default(),
                    restore.plain_bytes as i64,
                    restore.duration_ms as i64,
                    restore.healthy,
                    restore.reached.as_ref().map(|reached| reached.stream.as_str()),
                    restore.reached.as_ref().map(|reached| i64::from(reached.lineage)),
                    restore.reached.as_ref().map(|reached| reached.transaction as i64),
                    restore.batches as i64,
                    number
                ],
            )?;
            Ok(())
        })
    }

    /// Takes a restore off the record.
    pub fn forget_restore(&self, name: &str) -> Result<()> {
        self.transact(|transaction| transaction.execute("DELETE FROM restores WHERE name = ?1", [name]).map(|_| ()))
    }

    /// Restores, newest first.
    pub fn restores(&self) -> Result<Vec<RestoreEntry>> {
        self.with(|connection| {
            let mut statement = connection.prepare_cached(select!("ORDER BY at DESC"))?;
            let rows = statement.query_map([], restore)?;
            rows.collect()
        })
    }

    /// When data in service of a target was last exchanged for restored data.
    pub fn last_restore_in_place(&self, target: &TargetName) -> Result<Option<RestoreEntry>> {
        let in_place: Vec<RestoreEntry> = self.with(|connection| {
            let mut statement = connection.prepare_cached(select!("WHERE target = ?1 AND in_place"))?;
            let rows = statement.query_map([target.as_str()], restore)?;
            rows.collect()
        })?;
        Ok(order::last(in_place.into_iter().map(|restore| (restore.when(), restore))).map(|(_, restore)| restore))
    }

    /// Whether this very event is on record.
    pub fn has_event(&self, name: &str, target: &TargetName, text: &str) -> Result<bool> {
        self.with(|connection| {
            connection.query_row(
                "SELECT EXISTS (SELECT 1 FROM events WHERE name = ?1 AND target = ?2 AND text = ?3)",
                params![name, target.as_str(), text],
                |row| row.get(0),
            )
        })
    }

    /// The newest restore of a target whose checks passed.
    pub fn last_healthy_restore(&self, target: &TargetName) -> Result<Option<RestoreEntry>> {
        self.with(|connection| {
            connection
                .query_row(
                    select!("WHERE target = ?1 AND healthy ORDER BY at DESC LIMIT 1"),
                    [target.as_str()],
                    restore,
                )
                .optional()
        })
    }
}

fn restore(row: &Row<'_>) -> rusqlite::Result<RestoreEntry> {
    let set_aside: String = row.get(6)?;
    let directory: String = row.get(4)?;
    Ok(RestoreEntry {
        name: row.get(0)?,
        target: parsed(row, 1)?,
        backup: parsed(row, 2)?,
        at: time(row.get(3)?),
        directory: directory.into(),
        in_place: row.get(5)?,
        set_aside: serde_json::from_str(&set_aside).unwrap_or_default(),
        plain_bytes: row.get::<_, i64>(7)? as u64,
        duration_ms: row.get::<_, i64>(8)? as u64,
        healthy: row.get(9)?,
        reached: reached(row)?,
        batches: row.get::<_, i64>(13)? as u64,
        number: row.get::<_, i64>(14)? as u64,
    })
}

fn reached(row: &Row<'_>) -> rusqlite::Result<Option<ReachedEntry>> {
    let (stream, lineage, transaction): (Option<String>, Option<i64>, Option<i64>) =
        (row.get(10)?, row.get(11)?, row.get(12)?);
    Ok(match (stream, lineage, transaction) {
        (Some(stream), Some(lineage), Some(transaction)) => {
            Some(ReachedEntry { stream, lineage: lineage as u32, transaction: transaction as u64 })
        }
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::SystemClock;
    use std::sync::Arc;

    // req: D10
    #[test]
    fn who_did_what_is_on_record() {
        let directory = tempfile::tempdir().expect("tempdir");
        let ledger = Ledger::open(&directory.path().join("ledger.db"), Arc::new(SystemClock)).expect("open");
        let event = EventEntry {
            at: Timestamp::UNIX_EPOCH,
            severity: "info".into(),
            name: "restore-succeeded".into(),
            target: Some(TargetName::new("graph").expect("name")),
            job: Some(JobId(7)),
            actor: "alice".into(),
            text: "x".into(),
        };
        ledger.record_event(&event).expect("record");
        let found = ledger.events(10).expect("events");
        assert_eq!((found[0].actor.as_str(), found[0].job), ("alice", Some(JobId(7))));
        assert!(found[0].at > Timestamp::UNIX_EPOCH);

        let restore = RestoreEntry {
            name: "graph-20261120T020000Z".into(),
            target: TargetName::new("graph").expect("name"),
            backup: "graph-20261120T020000Z-dump".parse().expect("id"),
            at: Timestamp::UNIX_EPOCH,
            directory: "/x".into(),
            in_place: true,
            set_aside: vec!["/y".into()],
            plain_bytes: 1,
            duration_ms: 0,
            healthy: Some(true),
            reached: Some(ReachedEntry { stream: "s".into(), lineage: 2, transaction: 7 }),
            batches: 3,
            number: 0,
        };
        ledger.record_restore(&restore).expect("record");
        ledger.record_restore(&RestoreEntry { duration_ms: 9, ..restore.clone() }).expect("record again");
        assert_eq!(ledger.restores().expect("restores").len(), 1);
        let last = ledger.last_healthy_restore(&restore.target).expect("last").expect("some");
        assert_eq!((last.duration_ms, last.set_aside), (9, vec![PathBuf::from("/y")]));
        let in_place = ledger.last_restore_in_place(&restore.target).expect("last").expect("some");
        assert_eq!((in_place.reached, in_place.batches), (restore.reached.clone(), 3));
        ledger.forget_restore(&restore.name).expect("forget");
        assert!(ledger.restores().expect("restores").is_empty());
    }
}
