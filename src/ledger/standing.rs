//! How a target stands, a query each: what `status` and a backup's preparation ask without reading every backup.

use super::{Ledger, parsed, time};
use crate::base::Result;
use crate::base::ids::{BackupId, TargetName};
use jiff::Timestamp;
use rusqlite::{OptionalExtension, Row, params};
use std::collections::BTreeSet;

/// A target's newest usable backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewestBackup {
    /// Its id.
    pub id: BackupId,
    /// When it was taken.
    pub created_at: Timestamp,
    /// Bytes before compression.
    pub plain_bytes: u64,
}

/// What there is of a target in all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Backups on record.
    pub backups: u64,
    /// Their stored bytes, each in one repository.
    pub stored_bytes: u64,
}

impl Ledger {
    /// The id of the repository that was last found under a configured name.
    pub fn repository_id(&self, name: &str) -> Result<Option<String>> {
        self.with(|connection| {
            connection.query_row("SELECT id FROM repositories WHERE name = ?1", [name], |row| row.get(0)).optional()
        })
    }

    /// Puts on record which repository is the one of that name.
    pub fn recognise_repository(&self, name: &str, id: &str) -> Result<()> {
        self.with(|connection| {
            let statement = "INSERT INTO repositories (name, id) VALUES (?1, ?2)
                             ON CONFLICT (name) DO UPDATE SET id = excluded.id";
            connection.execute(statement, params![name, id]).map(drop)
        })
    }

    /// The same where another one was found under that name before: what that one held is off the record, for all targets.
    pub fn replace_repository(&self, name: &str, id: &str) -> Result<()> {
        self.transact(|transaction| {
            for table in ["log_batches", "log_parts", "log_ends", "copies"] {
                transaction.execute(&format!("DELETE FROM {table} WHERE repository = ?1"), [name])?;
            }
            transaction.execute(
                "DELETE FROM backups WHERE NOT EXISTS (SELECT 1 FROM copies WHERE copies.backup = backups.id)",
                [],
            )?;
            transaction.execute("UPDATE repositories SET id = ?2 WHERE name = ?1", params![name, id]).map(drop)
        })
    }

    /// The newest backup of a target that some repository holds undamaged.
    pub fn newest_usable(&self, target: &TargetName) -> Result<Option<NewestBackup>> {
        self.one(
            "SELECT id, created_at, plain_bytes FROM backups b WHERE target = ?1
                AND EXISTS (SELECT 1 FROM copies c WHERE c.backup = b.id AND c.state IN ('COMPLETE', 'VALIDATED'))
             ORDER BY created_at DESC, id DESC LIMIT 1",
            target,
            |row| {
                let plain_bytes: i64 = row.get(2)?;
                Ok(NewestBackup { id: parsed(row, 0)?, created_at: time(row.get(1)?), plain_bytes: plain_bytes as u64 })
            },
        )
    }

    /// How many backups of a target are on record, and how large they are.
    pub fn totals(&self, target: &TargetName) -> Result<Totals> {
        let totals = self.one("SELECT count(*), sum(stored_bytes) FROM backups WHERE target = ?1", target, |row| {
            let (backups, bytes): (i64, Option<i64>) = (row.get(0)?, row.get(1)?);
            Ok(Totals { backups: backups as u64, stored_bytes: bytes.unwrap_or(0) as u64 })
        })?;
        Ok(totals.unwrap_or_default())
    }

    /// Plain and stored bytes of a target's newest backup.
    pub fn newest_sizes(&self, target: &TargetName) -> Result<Option<(u64, u64)>> {
        self.one(
            "SELECT plain_bytes, stored_bytes FROM backups WHERE target = ?1
             ORDER BY created_at DESC, id DESC LIMIT 1",
            target,
            |row| Ok((row.get::<_, i64>(0)? as u64, row.get::<_, i64>(1)? as u64)),
        )
    }

    /// When a backup of a target was last verified and found good.
    pub fn last_verified(&self, target: &TargetName) -> Result<Option<Timestamp>> {
        self.one(
            "SELECT c.verified_at FROM copies c CROSS JOIN backups b ON b.id = c.backup
             WHERE c.state = 'VALIDATED' AND c.verified_at IS NOT NULL AND b.target = ?1
             ORDER BY c.verified_at DESC LIMIT 1",
            target,
            |row| row.get(0).map(time),
        )
    }

    /// Ids of a target's backups that are on record in a repository, missing ones among them.
    pub fn recorded_in(&self, target: &TargetName, repository: &str) -> Result<BTreeSet<BackupId>> {
        self.with(|connection| {
            let mut statement = connection.prepare_cached(
                "SELECT b.id FROM backups b JOIN copies c ON c.backup = b.id
                 WHERE b.target = ?1 AND c.repository = ?2",
            )?;
            let rows = statement.query_map(params![target.as_str(), repository], |row| parsed(row, 0))?;
            rows.collect()
        })
    }

    /// Whether any backup of a target is on record in a repository.
    pub fn any_recorded_in(&self, target: &TargetName, repository: &str) -> Result<bool> {
        self.with(|connection| {
            connection.query_row(
                "SELECT EXISTS (SELECT 1 FROM backups b JOIN copies c ON c.backup = b.id
                                WHERE b.target = ?1 AND c.repository = ?2)",
                params![target.as_str(), repository],
                |row| row.get(0),
            )
        })
    }

    fn one<T>(
        &self,
        query: &str,
        target: &TargetName,
        read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Option<T>> {
        self.with(|connection| connection.prepare_cached(query)?.query_row([target.as_str()], read).optional())
    }
}

#[cfg(test)]
mod tests {
    use super::super::backups::CopyState;
    use super::super::backups::tests::{ledger, signed};
    use super::*;

    // req: B3
    #[test]
    fn a_target_stands_as_its_backups_do() {
        let (_keep, ledger) = ledger();
        let target = TargetName::new("graph").expect("name");
        assert_eq!(ledger.totals(&target).expect("totals"), Totals::default());
        assert_eq!(
            (ledger.newest_usable(&target).expect("none"), ledger.newest_sizes(&target).expect("none")),
            (None, None)
        );
        let (first, second) = (signed("graph-20261119T020000Z-dump", 1), signed("graph-20261120T020000Z-dump", 2));
        let other = signed("metrics-20261121T020000Z-base", 1);
        for signed in [&first, &second, &other] {
            ledger.record_backup(signed, "main").expect("record");
        }
        ledger.record_backup(&first, "offsite").expect("record");
        assert_eq!(ledger.totals(&target).expect("totals").backups, 2);
        assert_eq!(ledger.newest_sizes(&target).expect("sizes"), Some((0, 0)));
        let newest = || ledger.newest_usable(&target).expect("newest").map(|newest| newest.id);
        assert_eq!(newest(), Some(second.manifest.id.clone()));
        ledger.mark_copy(&second.manifest.id, "main", CopyState::Corrupted).expect("mark");
        assert_eq!(newest(), Some(first.manifest.id.clone()));
        ledger.mark_copy(&first.manifest.id, "main", CopyState::Missing).expect("mark");
        assert_eq!(newest(), Some(first.manifest.id.clone()), "its other copy is good");

        assert_eq!(ledger.last_verified(&target).expect("never"), None);
        ledger.mark_copy(&other.manifest.id, "main", CopyState::Validated).expect("mark");
        assert_eq!(ledger.last_verified(&target).expect("never"), None, "another target's");
        ledger.mark_copy(&first.manifest.id, "offsite", CopyState::Validated).expect("mark");
        assert!(ledger.last_verified(&target).expect("verified").is_some());

        let both = BTreeSet::from([first.manifest.id.clone(), second.manifest.id]);
        assert_eq!(ledger.recorded_in(&target, "main").expect("ids"), both);
        assert_eq!(ledger.recorded_in(&target, "offsite").expect("ids"), BTreeSet::from([first.manifest.id]));
        assert!(ledger.any_recorded_in(&target, "offsite").expect("any"));
        assert!(!ledger.any_recorded_in(&target, "elsewhere").expect("any"));
    }

    #[test]
    fn no_query_sorts_or_reads_a_whole_table() {
        let (_keep, ledger) = ledger();
        let plan = |query: &str| -> String {
            let lines: Vec<String> = ledger
                .with(|connection| {
                    let mut statement = connection.prepare(&format!("EXPLAIN QUERY PLAN {query}"))?;
                    let lines = statement.query_map([], |row| row.get(3))?;
                    lines.collect()
                })
                .expect("plan");
            lines.join("\n")
        };
        let sums = plan("SELECT count(*), sum(stored_bytes) FROM backups WHERE target = 'x'");
        assert!(sums.contains("COVERING INDEX backups_by_target"), "{sums}");
        let newest = plan("SELECT id FROM backups WHERE target = 'x' ORDER BY created_at DESC, id DESC LIMIT 1");
        assert!(newest.contains("backups_by_target") && !newest.contains("TEMP B-TREE"), "{newest}");
        let verified = plan(
            "SELECT c.verified_at FROM copies c CROSS JOIN backups b ON b.id = c.backup
             WHERE c.state = 'VALIDATED' AND c.verified_at IS NOT NULL AND b.target = 'x'
             ORDER BY c.verified_at DESC LIMIT 1",
        );
        assert!(verified.contains("copies_verified") && !verified.contains("TEMP B-TREE"), "{verified}");
    }
}
