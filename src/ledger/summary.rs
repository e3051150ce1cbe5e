//! Totals, from indexes alone: they are asked for all the time, and backups may be many.

use super::Ledger;
use super::row::{parsed, time, time_option, unsigned};
use crate::base::Result;
use crate::base::ids::{BackupId, TargetName};
use jiff::Timestamp;
use rusqlite::params;

/// What a target has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TargetSummary {
    /// Backups to restore from.
    pub backups: u64,
    /// Their bytes before compression.
    pub plain_bytes: u64,
    /// Their stored bytes, each backup counted once however many repositories have it.
    pub stored_bytes: u64,
    /// Backups of which damage is known.
    pub corrupted: u64,
    /// Backups that are in no repository any more.
    pub missing: u64,
    /// The newest backup to restore from, and when it was begun.
    pub newest: Option<(BackupId, Timestamp)>,
    /// When a copy of any backup was last read in full and was sound.
    pub last_proven: Option<Timestamp>,
}

/// How long something of what size took; newest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Measured {
    /// Bytes before compression and encryption.
    pub plain_bytes: u64,
    /// How long it took.
    pub duration_ms: u64,
}

pub(super) const TOTALS: &str = "SELECT state, COUNT(*), COALESCE(SUM(plain_bytes), 0), COALESCE(SUM(stored_bytes), 0) \
    FROM backups WHERE target = ?1 GROUP BY state";
pub(super) const NEWEST: &str = "SELECT id, created_at FROM backups WHERE target = ?1 \
    AND state IN ('complete', 'validated') ORDER BY created_at DESC, id DESC LIMIT 1";
pub(super) const PROVEN: &str = "SELECT MAX(verified_at) FROM backup_repositories WHERE target = ?1";
pub(super) const BY_KEY: &str = "SELECT signed_by, COUNT(*) FROM backup_repositories GROUP BY signed_by";

impl Ledger {
    /// How a target stands.
    pub fn summary(&self, target: &TargetName) -> Result<TargetSummary> {
        self.read("adding up the backups in", |connection| {
            let mut summary = TargetSummary::default();
            let mut totals = connection.prepare_cached(TOTALS)?;
            let mut rows = totals.query(params![target.as_str()])?;
            while let Some(row) = rows.next()? {
                match row.get_ref(0)?.as_str()? {
                    "corrupted" => summary.corrupted = unsigned(row, 1)?,
                    "missing" => summary.missing = unsigned(row, 1)?,
                    _ => {
                        summary.backups += unsigned(row, 1)?;
                        summary.plain_bytes += unsigned(row, 2)?;
                        summary.stored_bytes += unsigned(row, 3)?;
                    }
                }
            }
            summary.newest = connection
                .prepare_cached(NEWEST)?
                .query_map(params![target.as_str()], |row| Ok((parsed(row, 0)?, time(row, 1)?)))?
                .next()
                .transpose()?;
            summary.last_proven =
                connection.prepare_cached(PROVEN)?.query_row(params![target.as_str()], |row| time_option(row, 0))?;
            Ok(summary)
        })
    }

    /// How many copies each key signed, by the key's id.
    pub fn copies_by_key(&self) -> Result<Vec<(String, u64)>> {
        self.read("counting the keys in", |connection| {
            connection.prepare_cached(BY_KEY)?.query_map([], |row| Ok((row.get(0)?, unsigned(row, 1)?)))?.collect()
        })
    }

    /// How long a target's last backups took.
    pub fn backup_durations(&self, target: &TargetName, limit: u32) -> Result<Vec<Measured>> {
        self.measured(
            "SELECT plain_bytes, duration_ms FROM backups WHERE target = ?1 ORDER BY created_at DESC, id DESC LIMIT ?2",
            target,
            limit,
        )
    }

    /// How long a target's last restores took; those that failed are not among them.
    pub fn restore_durations(&self, target: &TargetName, limit: u32) -> Result<Vec<Measured>> {
        self.measured(
            "SELECT plain_bytes, duration_ms FROM restores WHERE target = ?1 AND healthy IS NOT 0 \
             ORDER BY at DESC LIMIT ?2",
            target,
            limit,
        )
    }

    fn measured(&self, sql: &str, target: &TargetName, limit: u32) -> Result<Vec<Measured>> {
        self.read("looking up durations in", |connection| {
            connection
                .prepare_cached(sql)?
                .query_map(params![target.as_str(), limit], |row| {
                    Ok(Measured { plain_bytes: unsigned(row, 0)?, duration_ms: unsigned(row, 1)? })
                })?
                .collect()
        })
    }
}
