//! Small batches that are merged into larger ones: which can be, and which were and wait to be deleted.

use super::{ChainName, Ledger};
use crate::artifact::log_batch::LogBatch;
use crate::base::Result;
use crate::base::ids::TargetName;
use jiff::Timestamp;
use rusqlite::{Connection, Row, params};

/// A batch as far as merging asks for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Its manifest's key.
    pub key: String,
    /// How often its parts were merged.
    pub level: u32,
    /// Its first transaction.
    pub first_transaction: u64,
    /// Its last transaction.
    pub last_transaction: u64,
    /// Bytes before compression.
    pub plain_bytes: u64,
    /// Whether nothing is known against it.
    pub sound: bool,
}

impl Ledger {
    /// The last batches of a history, at most `limit`, in the order of the log.
    pub fn merge_candidates(&self, target: &TargetName, chain: &ChainName, limit: u32) -> Result<Vec<Candidate>> {
        self.with(|connection| {
            let mut statement = connection.prepare_cached(
                "SELECT key, level, first_transaction, last_transaction, plain_bytes, state IN ('COMPLETE','VALIDATED')
                 FROM log_batches WHERE target = ?1 AND repository = ?2 AND stream = ?3 AND lineage = ?4
                 ORDER BY last_transaction DESC LIMIT ?5",
            )?;
            let number = |row: &Row<'_>, column| row.get::<_, i64>(column).map(|value| value as u64);
            let rows = statement.query_map(
                params![target.as_str(), chain.repository, chain.stream, i64::from(chain.lineage), limit],
                |row| {
                    Ok(Candidate {
                        key: row.get(0)?,
                        level: number(row, 1)? as u32,
                        first_transaction: number(row, 2)?,
                        last_transaction: number(row, 3)?,
                        plain_bytes: number(row, 4)?,
                        sound: row.get(5)?,
                    })
                },
            )?;
            let mut found: Vec<Candidate> = rows.collect::<rusqlite::Result<_>>()?;
            found.reverse();
            Ok(found)
        })
    }

    /// Manifests of a target's batches in a repository that were merged at or before `since` and wait to be deleted, oldest
    /// first, at most `limit`.
    pub fn merged_parts(
        &self,
        target: &TargetName,
        repository: &str,
        since: Timestamp,
        limit: u32,
    ) -> Result<Vec<String>> {
        self.with(|connection| {
            let mut statement = connection.prepare_cached(
                "SELECT key FROM log_parts WHERE target = ?1 AND repository = ?2 AND since <= ?3 ORDER BY key LIMIT ?4",
            )?;
            let rows = statement
                .query_map(params![target.as_str(), repository, since.as_microsecond(), limit], |row| row.get(0))?;
            rows.collect()
        })
    }

    /// Manifests of batches that others were merged into and that hold these transactions of a history, the shortest first.
    pub fn merged_around(&self, target: &TargetName, chain: &ChainName, first: u64, last: u64) -> Result<Vec<String>> {
        self.with(|connection| {
            let mut statement = connection.prepare_cached(
                "SELECT key FROM log_batches WHERE target = ?1 AND repository = ?2 AND stream = ?3 AND lineage = ?4
                   AND last_transaction >= ?6 AND first_transaction <= ?5 AND level > 0 ORDER BY last_transaction",
            )?;
            let lineage = i64::from(chain.lineage);
            let rows = statement.query_map(
                params![target.as_str(), chain.repository, chain.stream, lineage, first as i64, last as i64],
                |row| row.get(0),
            )?;
            rows.collect()
        })
    }

    /// A batch that was merged is deleted.
    pub fn forget_part(&self, repository: &str, key: &str) -> Result<()> {
        self.transact(|transaction| remove(transaction, repository, key))
    }
}

/// What `whole` was merged of no longer counts, and waits.
pub(super) fn replace(connection: &Connection, repository: &str, whole: &LogBatch, key: &str) -> rusqlite::Result<()> {
    let Some(merged) = &whole.merged else { return Ok(()) };
    let parts = "repository = ?1 AND target = ?2 AND stream = ?3 AND lineage = ?4 AND level < ?5
                 AND first_transaction >= ?6 AND last_transaction <= ?7 AND key <> ?8";
    let (target, stream) = (whole.target.as_str(), &whole.stream);
    let (lineage, level) = (i64::from(whole.lineage), i64::from(merged.level));
    let (first, last) = (whole.first_transaction as i64, whole.last_transaction as i64);
    connection.execute(
        &format!(
            "INSERT OR IGNORE INTO log_parts (repository, key, target, since)
             SELECT repository, key, target, ?9 FROM log_batches WHERE {parts}"
        ),
        params![repository, target, stream, lineage, level, first, last, key, merged.at.as_microsecond()],
    )?;
    connection.execute(
        &format!("DELETE FROM log_batches WHERE {parts}"),
        params![repository, target, stream, lineage, level, first, last, key],
    )?;
    Ok(())
}

/// A batch that was merged waits.
pub(super) fn enter(
    connection: &Connection,
    repository: &str,
    part: &LogBatch,
    key: &str,
    since: Timestamp,
) -> rusqlite::Result<()> {
    connection.execute("DELETE FROM log_batches WHERE repository = ?1 AND key = ?2", params![repository, key])?;
    connection.execute(
        "INSERT OR IGNORE INTO log_parts (repository, key, target, since) VALUES (?1, ?2, ?3, ?4)",
        params![repository, key, part.target.as_str(), since.as_microsecond()],
    )?;
    Ok(())
}

/// A batch no longer waits.
pub(super) fn remove(connection: &Connection, repository: &str, key: &str) -> rusqlite::Result<()> {
    connection.execute("DELETE FROM log_parts WHERE repository = ?1 AND key = ?2", params![repository, key])?;
    Ok(())
}
