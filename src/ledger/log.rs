//! The log's archive: batches by repository, the [bases](bases) they go on from, how far each repository is known to
//! reach ([ends]), the [parts] that were merged, and the [order] in which all that was done.

pub mod bases;
pub mod ends;
pub mod order;
pub mod parts;

use super::backups::CopyState;
use super::{Ledger, parsed, time};
use crate::artifact::log_batch::{LogBatch, LogMark, SignedLogBatch, part_merged};
use crate::base::Result;
use crate::base::ids::TargetName;
use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, Row, params};
use std::collections::{BTreeMap, BTreeSet};

/// A batch on record.
#[derive(Clone, Debug, PartialEq)]
pub struct BatchRecord {
    /// Its manifest's key.
    pub key: String,
    /// Whose log it is.
    pub stream: String,
    /// Which of its histories.
    pub lineage: u32,
    /// Its number there.
    pub sequence: u64,
    /// Its first transaction.
    pub first_transaction: u64,
    /// Its last transaction.
    pub last_transaction: u64,
    /// The latest time of commit in it.
    pub last_committed_at: Timestamp,
    /// Where it ends.
    pub end: LogMark,
    /// SHA-256 of its manifest.
    pub manifest_sha256: String,
    /// How it stands.
    pub state: CopyState,
    /// When it was taken from the source.
    pub created_at: Timestamp,
}

/// A history of a log in a repository.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ChainName {
    /// The repository.
    pub repository: String,
    /// Whose log it is.
    pub stream: String,
    /// Which of its histories.
    pub lineage: u32,
}

/// What a chain holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChainSums {
    /// Batches.
    pub batches: u64,
    /// Transactions.
    pub transactions: u64,
    /// Bytes before compression.
    pub plain_bytes: u64,
    /// Stored bytes.
    pub stored_bytes: u64,
}

/// Where a sound batch ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchEnd {
    /// Its last transaction.
    pub transaction: u64,
    /// The latest time of commit in it.
    pub last_committed_at: Timestamp,
    /// When it was taken from the source.
    pub created_at: Timestamp,
}

macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT key, stream, lineage, sequence, first_transaction, last_transaction, last_committed_at, end_mark, ",
            "manifest_sha256, state, created_at FROM log_batches ",
            $rest
        )
    };
}

impl Ledger {
    /// Records that `repository` holds this batch. Recording it again changes nothing.
    pub fn record_batch(&self, signed: &SignedLogBatch, repository: &str) -> Result<()> {
        self.transact(|transaction| insert(transaction, signed, repository))
    }

    /// Makes the record of a target's batches in `repository` agree with what was found there. Verification results are
    /// kept; what was not found is marked missing. Returns how many were added and how many are missing.
    pub fn replace_batches(
        &self,
        repository: &str,
        target: &TargetName,
        found: &[SignedLogBatch],
    ) -> Result<(u64, u64)> {
        self.transact(|transaction| {
            let mut before: BTreeMap<String, String> = transaction
                .prepare("SELECT key, state FROM log_batches WHERE target = ?1 AND repository = ?2")?
                .query_map(params![target.as_str(), repository], |row| Ok((row.get(0)?, row.get(1)?)))?
                .collect::<rusqlite::Result<_>>()?;
            let mut added = 0;
            let (found, merged) = part_merged(found);
            for (part, since) in merged {
                let key = part.batch.key().map(|key| key.to_string()).unwrap_or_default();
                before.remove(&key);
                parts::enter(transaction, repository, &part.batch, &key, since)?;
            }
            for signed in &found {
                insert(transaction, signed, repository)?;
                let key = signed.batch.key().map(|key| key.to_string()).unwrap_or_default();
                match before.remove(&key).as_deref() {
                    None => added += 1,
                    Some("MISSING") => set_state(transaction, repository, &key, CopyState::Complete)?,
                    Some(_) => {}
                }
            }
            for key in before.keys() {
                set_state(transaction, repository, key, CopyState::Missing)?;
            }
            enter_holes(transaction, repository, &found)?;
            Ok((added, before.len() as u64))
        })
    }

    /// The last batch of a target in a repository, of the newest lineage of the log `stream`.
    pub fn last_batch(&self, target: &TargetName, repository: &str, stream: &str) -> Result<Option<BatchRecord>> {
        self.with(|connection| {
            let mut statement = connection.prepare_cached(select!(
                "WHERE target = ?1 AND repository = ?2 AND stream = ?3 AND state <> 'MISSING'
                 ORDER BY lineage DESC, last_transaction DESC LIMIT 1"
            ))?;
            statement.query_row(params![target.as_str(), repository, stream], record).optional()
        })
    }

    /// A target's batches in a repository, in the order of the log.
    pub fn batches(&self, target: &TargetName, repository: &str) -> Result<Vec<BatchRecord>> {
        self.with(|connection| {
            let mut statement = connection.prepare_cached(select!(
                "WHERE target = ?1 AND repository = ?2 ORDER BY stream, lineage, last_transaction"
            ))?;
            let rows = statement.query_map(params![target.as_str(), repository], record)?;
            rows.collect()
        })
    }

    /// Keys of the manifests of a target's batches in a repository.
    pub fn batch_keys(&self, target: &TargetName, repository: &str) -> Result<Vec<String>> {
        self.with(|connection| {
            let mut statement =
                connection.prepare_cached("SELECT key FROM log_batches WHERE target = ?1 AND repository = ?2")?;
            let rows = statement.query_map(params![target.as_str(), repository], |row| row.get(0))?;
            rows.collect()
        })
    }

    /// What each history of a target's log holds, by repository.
    pub fn log_sums(&self, target: &TargetName) -> Result<BTreeMap<ChainName, ChainSums>> {
        self.with(|connection| {
            let mut statement = connection.prepare_cached(
                "SELECT repository, stream, lineage, batches, transactions, plain_bytes, stored_bytes
                 FROM log_sums WHERE target = ?1",
            )?;
            let rows = statement.query_map([target.as_str()], |row| {
                let number = |column| row.get::<_, i64>(column).map(|value| value as u64);
                let chain = ChainName { repository: row.get(0)?, stream: row.get(1)?, lineage: number(2)? as u32 };
                let sums = ChainSums {
                    batches: number(3)?,
                    transactions: number(4)?,
                    plain_bytes: number(5)?,
                    stored_bytes: number(6)?,
                };
                Ok((chain, sums))
            })?;
            rows.collect()
        })
    }

    /// Batches that begin anew after a piece of the log was lost, in the order of the log: the transactions at which
    /// each such piece ended.
    pub fn log_gaps(&self, target: &TargetName, chain: &ChainName) -> Result<Vec<LogMark>> {
        self.with(|connection| {
            let mut statement = connection.prepare_cached(
                "SELECT start_mark FROM log_batches
                 WHERE anew AND target = ?1 AND repository = ?2 AND stream = ?3 AND lineage = ?4
                 ORDER BY last_transaction",
            )?;
            let rows = statement.query_map(
                params![target.as_str(), chain.repository, chain.stream, i64::from(chain.lineage)],
                |row| mark(row, 0),
            )?;
            rows.collect()
        })
    }

    /// Batches of a history that were found damaged or missing: the transactions that each follows and ends with.
    pub fn unsound_pieces(&self, target: &TargetName, chain: &ChainName) -> Result<Vec<(u64, u64)>> {
        self.with(|connection| {
            let mut statement = connection.prepare_cached(
                "SELECT first_transaction - 1, last_transaction FROM log_batches INDEXED BY log_batches_unsound
                 WHERE target = ?1 AND repository = ?2 AND stream = ?3 AND lineage = ?4
                   AND state IN ('CORRUPTED','MISSING') ORDER BY last_transaction",
            )?;
            let number = |row: &Row<'_>, column| row.get::<_, i64>(column).map(|value| value as u64);
            let rows = statement.query_map(
                params![target.as_str(), chain.repository, chain.stream, i64::from(chain.lineage)],
                |row| Ok((number(row, 0)?, number(row, 1)?)),
            )?;
            rows.collect()
        })
    }

    /// Keys of the manifests of batches that were found damaged or missing in a repository.
    pub fn unsound_keys(&self, target: &TargetName, repository: &str) -> Result<BTreeSet<String>> {
        self.with(|connection| {
            let mut statement = connection.prepare_cached(
                "SELECT key FROM log_batches INDEXED BY log_batches_unsound
                 WHERE target = ?1 AND repository = ?2 AND state IN ('CORRUPTED','MISSING')",
            )?;
            let rows = statement.query_map(params![target.as_str(), repository], |row| row.get(0))?;
            rows.collect()
        })
    }

    /// The last sound batch of a history that ends at or before `transaction`.
    pub fn batch_end_before(
        &self,
        target: &TargetName,
        chain: &ChainName,
        transaction: u64,
    ) -> Result<Option<BatchEnd>> {
        let (lineage, transaction) = (i64::from(chain.lineage), i64::try_from(transaction).unwrap_or(i64::MAX));
        self.with(|connection| {
            let mut statement = connection.prepare_cached(
                "SELECT last_transaction, last_committed_at, created_at FROM log_batches
                 WHERE target = ?1 AND repository = ?2 AND stream = ?3 AND lineage = ?4 AND last_transaction <= ?5
                   AND state IN ('COMPLETE','VALIDATED') ORDER BY last_transaction DESC LIMIT 1",
            )?;
            let end = |row: &Row<'_>| {
                Ok(BatchEnd {
                    transaction: row.get::<_, i64>(0)? as u64,
                    last_committed_at: time(row.get(1)?),
                    created_at: time(row.get(2)?),
                })
            };
            statement
                .query_row(params![target.as_str(), chain.repository, chain.stream, lineage, transaction], end)
                .optional()
        })
    }

    /// The latest time of commit in the batches of a history that end at or before `transaction`.
    pub fn latest_commit(&self, target: &TargetName, chain: &ChainName, transaction: u64) -> Result<Option<Timestamp>> {
        let (lineage, transaction) = (i64::from(chain.lineage), i64::try_from(transaction).unwrap_or(i64::MAX));
        self.with(|connection| {
            let mut statement = connection.prepare_cached(
                "SELECT max(last_committed_at) FROM log_batches
                 WHERE target = ?1 AND repository = ?2 AND stream = ?3 AND lineage = ?4 AND last_transaction <= ?5",
            )?;
            let latest = |row: &Row<'_>| Ok(row.get::<_, Option<i64>>(0)?.map(time));
            statement.query_row(params![target.as_str(), chain.repository, chain.stream, lineage, transaction], latest)
        })
    }

    /// How many batches of a target were found damaged or missing in a repository.
    pub fn unsound_batches(&self, target: &TargetName, repository: &str) -> Result<u64> {
        self.with(|connection| {
            let mut statement = connection.prepare_cached(
                "SELECT count(*) FROM log_batches
                 WHERE target = ?1 AND repository = ?2 AND state IN ('CORRUPTED','MISSING')",
            )?;
            statement.query_row(params![target.as_str(), repository], |row| row.get::<_, i64>(0)).map(|n| n as u64)
        })
    }

    /// SHA-256 of a batch's manifest as it was recorded.
    pub fn batch_sha256(&self, repository: &str, key: &str) -> Result<Option<String>> {
        self.with(|connection| {
            let mut statement = connection
                .prepare_cached("SELECT manifest_sha256 FROM log_batches WHERE repository = ?1 AND key = ?2")?;
            statement.query_row(params![repository, key], |row| row.get(0)).optional()
        })
    }

    /// Records how a batch was found to stand.
    pub fn mark_batch(&self, repository: &str, key: &str, state: CopyState) -> Result<()> {
        self.transact(|transaction| set_state(transaction, repository, key, state))
    }

    /// Takes missing batches of a history off the record: those that end at or before `last`, or all.
    pub fn forget_missing_batches(&self, target: &TargetName, chain: &ChainName, last: Option<u64>) -> Result<()> {
        let last = last.and_then(|last| i64::try_from(last).ok()).unwrap_or(i64::MAX);
        self.transact(|transaction| {
            let forget =
                "DELETE FROM log_batches WHERE target = ?1 AND repository = ?2 AND stream = ?3 AND lineage = ?4
                          AND last_transaction <= ?5 AND state = 'MISSING'";
            let lineage = i64::from(chain.lineage);
            transaction
                .execute(forget, params![target.as_str(), chain.repository, chain.stream, lineage, last])
                .map(|_| ())
        })
    }

    /// Takes a batch off the record.
    pub fn forget_batch(&self, repository: &str, key: &str) -> Result<()> {
        self.transact(|transaction| {
            parts::remove(transaction, repository, key)?;
            transaction
                .execute("DELETE FROM log_batches WHERE repository = ?1 AND key = ?2", params![repository, key])
                .map(|_| ())
        })
    }
}

fn insert(connection: &Connection, signed: &SignedLogBatch, repository: &str) -> rusqlite::Result<()> {
    let batch = &signed.batch;
    let key = batch.key().map(|key| key.to_string()).unwrap_or_default();
    // A batch that names no predecessor and is not the first begins at a base, because the log before it was lost.
    let anew = batch.predecessor.is_none() && batch.first_sequence() > 1;
    parts::replace(connection, repository, batch, &key)?;
    // Another batch under the same key: the one before lost its manifest, and its range was archived again. Or it was only
    // known by its successor.
    connection.execute(
        "DELETE FROM log_batches WHERE repository = ?1 AND key = ?2 AND (manifest_sha256 <> ?3 OR transactions = 0)",
        params![repository, key, signed.bytes_sha256],
    )?;
    connection.execute(
        "INSERT INTO log_batches (repository, key, target, stream, lineage, sequence, first_transaction, last_transaction,
             transactions, first_committed_at, last_committed_at, start_mark, end_mark, anew, plain_bytes, stored_bytes,
             manifest_sha256, state, created_at, level)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, 'COMPLETE', ?18, ?19)
         ON CONFLICT DO NOTHING",
        params![
            repository,
            key,
            batch.target.as_str(),
            batch.stream,
            i64::from(batch.lineage),
            batch.sequence as i64,
            batch.first_transaction as i64,
            batch.last_transaction as i64,
            batch.transactions as i64,
            batch.first_committed_at.as_microsecond(),
            batch.last_committed_at.as_microsecond(),
            json(&batch.start),
            json(&batch.end),
            anew,
            batch.object.plain.size as i64,
            batch.object.stored.size as i64,
            signed.bytes_sha256,
            batch.created_at.as_microsecond(),
            i64::from(batch.level())
        ],
    )?;
    Ok(())
}

/// Between two batches there is one that the later one names, or the log begins anew: what is neither there nor on record
/// is entered as missing.
fn enter_holes(connection: &Connection, repository: &str, found: &[&SignedLogBatch]) -> rusqlite::Result<()> {
    let mut ordered: Vec<&LogBatch> = found.iter().map(|signed| &signed.batch).collect();
    ordered.sort_by_key(|batch| (&batch.stream, batch.lineage, batch.first_transaction));
    for pair in ordered.windows(2) {
        let (before, after) = (pair[0], pair[1]);
        let same = (&before.stream, before.lineage) == (&after.stream, after.lineage);
        let Some(link) = after.predecessor.as_ref().filter(|_| same) else { continue };
        if after.first_transaction <= before.last_transaction + 1 {
            continue;
        }
        connection.execute(
            "INSERT INTO log_batches (repository, key, target, stream, lineage, sequence, first_transaction, last_transaction,
                 transactions, first_committed_at, last_committed_at, start_mark, end_mark, anew, plain_bytes, stored_bytes,
                 manifest_sha256, state, created_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, 0, ?9, ?10, ?11, ?12, FALSE, 0, 0, ?13, 'MISSING', ?14)
             ON CONFLICT DO NOTHING",
            params![
                repository,
                link.key.as_str(),
                after.target.as_str(),
                after.stream,
                i64::from(after.lineage),
                after.sequence.saturating_sub(1) as i64,
                before.last_transaction as i64 + 1,
                after.first_transaction as i64 - 1,
                before.last_committed_at.as_microsecond(),
                after.first_committed_at.as_microsecond(),
                json(&before.end),
                json(&after.start),
                link.manifest_sha256,
                after.created_at.as_microsecond()
            ],
        )?;
    }
    Ok(())
}

fn set_state(connection: &Connection, repository: &str, key: &str, state: CopyState) -> rusqlite::Result<()> {
    connection.execute(
        "UPDATE log_batches SET state = ?3 WHERE repository = ?1 AND key = ?2",
        params![repository, key, state.as_str()],
    )?;
    Ok(())
}

fn json(mark: &LogMark) -> String {
    serde_json::to_string(mark).unwrap_or_default()
}

fn mark(row: &Row<'_>, column: usize) -> rusqlite::Result<LogMark> {
    let text: String = row.get(column)?;
    serde_json::from_str(&text).map_err(|cause| {
        rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, Box::new(cause))
    })
}

fn record(row: &Row<'_>) -> rusqlite::Result<BatchRecord> {
    let number = |column| row.get::<_, i64>(column).map(|value| value as u64);
    Ok(BatchRecord {
        key: row.get(0)?,
        stream: row.get(1)?,
        lineage: number(2)? as u32,
        sequence: number(3)?,
        first_transaction: number(4)?,
        last_transaction: number(5)?,
        last_committed_at: time(row.get(6)?),
        end: mark(row, 7)?,
        manifest_sha256: row.get(8)?,
        state: parsed(row, 9)?,
        created_at: time(row.get(10)?),
    })
}

#[cfg(test)]
mod tests;
