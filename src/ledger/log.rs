//! The log's archive: batches by repository, the bases they go on from, and how far each repository is known to reach.

use super::backups::CopyState;
use super::{Ledger, parsed, time};
use crate::artifact::log_batch::{LogMark, SignedLogBatch};
use crate::artifact::manifest::SignedManifest;
use crate::base::Result;
use crate::base::ids::{BackupId, TargetName};
use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, Row, params};
use std::collections::BTreeMap;

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

/// A base from which a log goes on.
#[derive(Clone, Debug, PartialEq)]
pub struct BaseRecord {
    /// The backup.
    pub backup: BackupId,
    /// Where its log ends.
    pub mark: LogMark,
    /// When it was taken.
    pub created_at: Timestamp,
}

/// How far the archive of a repository is known to reach.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogEnd {
    /// Which history.
    pub chain: ChainName,
    /// Its last transaction.
    pub transaction: u64,
    /// Everything committed up to here is archived.
    pub covered_until: Timestamp,
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
            for signed in found {
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

    /// The bases of a history, by where their logs end. Damaged and missing ones are left out.
    pub fn log_bases(&self, target: &TargetName, chain: &ChainName) -> Result<Vec<BaseRecord>> {
        self.with(|connection| {
            let mut statement = connection.prepare_cached(
                "SELECT b.backup, b.mark, b.created_at FROM log_bases b
                 JOIN copies c ON c.backup = b.backup AND c.repository = b.repository
                 WHERE b.target = ?1 AND b.repository = ?2 AND b.stream = ?3 AND b.lineage = ?4
                   AND c.state IN ('COMPLETE','VALIDATED') ORDER BY b.last_transaction",
            )?;
            let rows = statement.query_map(
                params![target.as_str(), chain.repository, chain.stream, i64::from(chain.lineage)],
                |row| Ok(BaseRecord { backup: parsed(row, 0)?, mark: mark(row, 1)?, created_at: time(row.get(2)?) }),
            )?;
            rows.collect()
        })
    }

    /// The newest base of the log `stream` in a repository, and the SHA-256 of its manifest.
    pub fn newest_log_base(
        &self,
        target: &TargetName,
        repository: &str,
        stream: &str,
    ) -> Result<Option<(BackupId, String)>> {
        self.with(|connection| {
            let mut statement = connection.prepare_cached(
                "SELECT b.backup, c.manifest_sha256 FROM log_bases b
                 JOIN copies c ON c.backup = b.backup AND c.repository = b.repository
                 WHERE b.target = ?1 AND b.repository = ?2 AND b.stream = ?3 AND c.state <> 'MISSING'
                 ORDER BY b.lineage DESC, b.last_transaction DESC, c.sequence DESC LIMIT 1",
            )?;
            let row = |row: &Row<'_>| Ok((parsed(row, 0)?, row.get(1)?));
            statement.query_row(params![target.as_str(), repository, stream], row).optional()
        })
    }

    /// Records how far a repository's archive reaches.
    pub fn record_log_end(&self, target: &TargetName, end: &LogEnd) -> Result<()> {
        self.transact(|transaction| {
            transaction.execute(
                "INSERT OR REPLACE INTO log_ends
                 (target, repository, stream, lineage, last_transaction, covered_until) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                params![
                    target.as_str(),
                    end.chain.repository,
                    end.chain.stream,
                    i64::from(end.chain.lineage),
                    end.transaction as i64,
                    end.covered_until.as_microsecond()
                ],
            )?;
            Ok(())
        })
    }

    /// How far a target's archive is known to reach, by repository.
    pub fn log_ends(&self, target: &TargetName) -> Result<Vec<LogEnd>> {
        self.with(|connection| {
            let mut statement = connection.prepare_cached(
                "SELECT repository, stream, lineage, last_transaction, covered_until FROM log_ends WHERE target = ?1",
            )?;
            let rows = statement.query_map([target.as_str()], |row| {
                let lineage: i64 = row.get(2)?;
                Ok(LogEnd {
                    chain: ChainName { repository: row.get(0)?, stream: row.get(1)?, lineage: lineage as u32 },
                    transaction: row.get::<_, i64>(3)? as u64,
                    covered_until: time(row.get(4)?),
                })
            })?;
            rows.collect()
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

    /// Takes a batch off the record.
    pub fn forget_batch(&self, repository: &str, key: &str) -> Result<()> {
        self.transact(|transaction| {
            transaction
                .execute("DELETE FROM log_batches WHERE repository = ?1 AND key = ?2", params![repository, key])
                .map(|_| ())
        })
    }
}

/// Enters where a base's log ends, so that it is known without its manifest. Called with every copy that is recorded.
pub(super) fn insert_base(connection: &Connection, signed: &SignedManifest, repository: &str) -> rusqlite::Result<()> {
    let manifest = &signed.manifest;
    let Some((mark, lineage)) =
        manifest.position.as_ref().and_then(|p| Some((p.mark.as_ref()?, p.lineage.parse().ok()?)))
    else {
        return Ok(());
    };
    let lineage: u32 = lineage;
    connection.execute(
        "INSERT OR REPLACE INTO log_bases
         (backup, repository, target, stream, lineage, last_transaction, mark, created_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        params![
            manifest.id.to_string(),
            repository,
            manifest.target().as_str(),
            manifest.owner.data_identity,
            i64::from(lineage),
            mark.transaction as i64,
            json(mark),
            manifest.created_at.as_microsecond()
        ],
    )?;
    Ok(())
}

fn insert(connection: &Connection, signed: &SignedLogBatch, repository: &str) -> rusqlite::Result<()> {
    let batch = &signed.batch;
    let key = batch.key().map(|key| key.to_string()).unwrap_or_default();
    // A batch that names no predecessor and is not the first begins at a base, because the log before it was lost.
    let anew = batch.predecessor.is_none() && batch.sequence > 1;
    // Another batch under the same key: the one before lost its manifest, and its range was archived again.
    connection.execute(
        "DELETE FROM log_batches WHERE repository = ?1 AND key = ?2 AND manifest_sha256 <> ?3",
        params![repository, key, signed.bytes_sha256],
    )?;
    connection.execute(
        "INSERT INTO log_batches (repository, key, target, stream, lineage, sequence, first_transaction, last_transaction,
             transactions, first_committed_at, last_committed_at, start_mark, end_mark, anew, plain_bytes, stored_bytes,
             manifest_sha256, state, created_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, 'COMPLETE', ?18)
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
            batch.created_at.as_microsecond()
        ],
    )?;
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
