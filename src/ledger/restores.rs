//! Restores that were made, and the data they set aside.

use super::row::{bytes, micros, number, parsed, path, time, unsigned};
use super::{Ledger, Steps};
use crate::base::Result;
use crate::base::ids::{BackupId, TargetName};
use jiff::Timestamp;
use rusqlite::{Connection, Params, params};
use std::path::PathBuf;

/// A restore.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestoreEntry {
    /// Its name: `TARGET-STAMP`.
    pub name: String,
    /// The target.
    pub target: TargetName,
    /// What was restored.
    pub backup: BackupId,
    /// Where it came from.
    pub repository: String,
    /// When it ended.
    pub at: Timestamp,
    /// Where it is.
    pub directory: PathBuf,
    /// Whether it was put into service.
    pub in_place: bool,
    /// What it set aside and is still there, in order.
    pub set_aside: Vec<PathBuf>,
    /// Bytes before compression and encryption.
    pub plain_bytes: u64,
    /// How long it took.
    pub duration_ms: u64,
    /// Whether all checks passed; `None` = none were made.
    pub healthy: Option<bool>,
}

const COLUMNS: &str = "name, target, backup, repository, at, directory, in_place, plain_bytes, duration_ms, healthy";
pub(super) const NEWEST: &str = "ORDER BY at DESC, name DESC LIMIT ?1";

impl Ledger {
    /// Enters a restore; one of the same name is replaced.
    pub fn record_restore(&self, entry: &RestoreEntry) -> Result<()> {
        self.write("recording a restore in", |steps| {
            steps.execute("DELETE FROM restores WHERE name = ?1", params![entry.name])?;
            steps.execute(
                &format!("INSERT INTO restores ({COLUMNS}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)"),
                params![
                    entry.name,
                    entry.target.as_str(),
                    entry.backup.to_string(),
                    entry.repository,
                    micros(entry.at),
                    bytes(&entry.directory),
                    entry.in_place,
                    number(entry.plain_bytes),
                    number(entry.duration_ms),
                    entry.healthy,
                ],
            )?;
            enter_set_aside(steps, &entry.name, &entry.set_aside)
        })
    }

    /// Restores, newest first.
    pub fn restores(&self, limit: u32) -> Result<Vec<RestoreEntry>> {
        self.read("listing the restores in", |connection| select(connection, NEWEST, params![limit]))
    }

    /// One restore.
    pub fn restore(&self, name: &str) -> Result<Option<RestoreEntry>> {
        self.read("looking up a restore in", |connection| {
            Ok(select(connection, "WHERE name = ?1", params![name])?.pop())
        })
    }

    /// Replaces the list of what a restore set aside and is still there; `false` if there is no such restore.
    pub fn update_set_aside(&self, name: &str, still_there: &[PathBuf]) -> Result<bool> {
        self.write("recording set-aside data in", |steps| {
            let known = steps.first("SELECT 1 FROM restores WHERE name = ?1", params![name], |_| Ok(()))?;
            if known.is_none() {
                return Ok(false);
            }
            steps.execute("DELETE FROM set_aside WHERE restore = ?1", params![name])?;
            enter_set_aside(steps, name, still_there)?;
            Ok(true)
        })
    }
}

fn enter_set_aside(steps: &Steps<'_>, name: &str, paths: &[PathBuf]) -> rusqlite::Result<()> {
    for (position, path) in paths.iter().enumerate() {
        steps.execute(
            "INSERT INTO set_aside (restore, position, path) VALUES (?1, ?2, ?3)",
            params![name, position as i64, bytes(path)],
        )?;
    }
    Ok(())
}

fn select(connection: &Connection, condition: &str, parameters: impl Params) -> rusqlite::Result<Vec<RestoreEntry>> {
    let mut aside = connection.prepare_cached("SELECT path FROM set_aside WHERE restore = ?1 ORDER BY position")?;
    connection
        .prepare_cached(&format!("SELECT {COLUMNS} FROM restores {condition}"))?
        .query_map(parameters, |row| {
            let name: String = row.get(0)?;
            let set_aside = aside.query_map(params![name], |row| path(row, 0))?.collect::<rusqlite::Result<_>>()?;
            Ok(RestoreEntry {
                name,
                target: parsed(row, 1)?,
                backup: parsed(row, 2)?,
                repository: row.get(3)?,
                at: time(row, 4)?,
                directory: path(row, 5)?,
                in_place: row.get(6)?,
                set_aside,
                plain_bytes: unsigned(row, 7)?,
                duration_ms: unsigned(row, 8)?,
                healthy: row.get(9)?,
            })
        })?
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::summary::Measured;
    use crate::ledger::tests::{id, ledger, target};
    use std::ffi::OsString;
    use std::os::unix::ffi::OsStringExt;

    fn entry(name: &str, second: i64, healthy: Option<bool>) -> RestoreEntry {
        RestoreEntry {
            name: name.to_owned(),
            target: target("graph"),
            backup: id("graph-20261120T020000Z-dump"),
            repository: "main".to_owned(),
            at: Timestamp::from_second(second).expect("time"),
            // A path is bytes, not text.
            directory: PathBuf::from(OsString::from_vec(b"/srv/\xff\n'x".to_vec())),
            in_place: true,
            set_aside: vec!["/data.b".into(), "/data.a".into()],
            plain_bytes: 10,
            duration_ms: second as u64,
            healthy,
        }
    }

    // req: D10
    #[test]
    fn a_restore_reads_back_and_its_set_aside_data_can_go() {
        let (_directory, ledger) = ledger();
        let (one, two) = (entry("graph-1", 1, Some(true)), entry("graph-2", 2, None));
        for entry in [&one, &two] {
            ledger.record_restore(entry).expect("record");
        }
        assert_eq!(ledger.restores(10).expect("restores"), [two.clone(), one.clone()]);
        assert!(ledger.update_set_aside("graph-1", &["/data.b".into()]).expect("update"));
        assert!(!ledger.update_set_aside("graph-9", &[]).expect("update"));
        let left = ledger.restore("graph-1").expect("restore").expect("there").set_aside;
        assert_eq!(left, [PathBuf::from("/data.b")]);
        ledger.record_restore(&RestoreEntry { set_aside: vec![], ..one.clone() }).expect("again");
        assert!(ledger.restore("graph-1").expect("restore").expect("there").set_aside.is_empty());
        assert_eq!(ledger.restore("graph-9").expect("restore"), None);
        ledger.integrity_check().expect("sound");
    }

    #[test]
    fn what_restores_took_is_known_and_failed_ones_do_not_count() {
        let (_directory, ledger) = ledger();
        for (name, second, healthy) in [("a", 1, Some(true)), ("b", 2, Some(false)), ("c", 3, None)] {
            ledger.record_restore(&entry(name, second, healthy)).expect("record");
        }
        let took = |duration_ms| Measured { plain_bytes: 10, duration_ms };
        assert_eq!(ledger.restore_durations(&target("graph"), 10).expect("durations"), [took(3), took(1)]);
        assert!(ledger.restore_durations(&target("metrics"), 10).expect("durations").is_empty());
    }
}
