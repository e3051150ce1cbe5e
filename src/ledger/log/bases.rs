//! Bases on record: the full backups from which a log goes on.

use super::super::backups::CopyState;
use super::super::{Ledger, parsed, time};
use super::order::When;
use super::{ChainName, json, mark};
use crate::artifact::log_batch::LogMark;
use crate::artifact::manifest::SignedManifest;
use crate::base::Result;
use crate::base::ids::{BackupId, TargetName};
use jiff::{SignedDuration, Timestamp};
use rusqlite::{Connection, OptionalExtension, Row, params};

/// A base from which a log goes on.
#[derive(Clone, Debug, PartialEq)]
pub struct BaseRecord {
    /// The backup.
    pub backup: BackupId,
    /// The history it belongs to.
    pub chain: ChainName,
    /// Its number among the target's backups in that repository.
    pub sequence: u64,
    /// Where its log ends.
    pub mark: LogMark,
    /// When it was begun.
    pub created_at: Timestamp,
    /// When it was finished.
    pub finished_at: Timestamp,
    /// How it stands.
    pub state: CopyState,
    /// Its number among what was done to the target; 0 = it was found. See [`super::order`].
    pub number: u64,
}

impl BaseRecord {
    /// Whether nothing is known against it.
    pub fn is_usable(&self) -> bool {
        matches!(self.state, CopyState::Complete | CopyState::Validated)
    }

    /// When what it holds was in service for certain. (It may be stamped ahead of its time, where another one was begun in the
    /// same second.)
    pub fn when(&self) -> When {
        When { number: self.number, at: self.created_at.min(self.finished_at) }
    }
}

impl Ledger {
    /// Every base of a target's log, damaged and missing ones too: by repository and history, in the order of the log.
    pub fn log_bases(&self, target: &TargetName) -> Result<Vec<BaseRecord>> {
        self.with(|connection| {
            let mut statement = connection.prepare_cached(
                "SELECT l.backup, l.repository, l.stream, l.lineage, l.mark, l.created_at, c.sequence, c.state, b.duration_ms, l.number
                 FROM log_bases l
                 JOIN copies c ON c.backup = l.backup AND c.repository = l.repository
                 JOIN backups b ON b.id = l.backup
                 WHERE l.target = ?1 ORDER BY l.repository, l.stream, l.lineage, l.last_transaction",
            )?;
            let rows = statement.query_map([target.as_str()], base)?;
            rows.collect()
        })
    }

    /// The last transaction before the first batch of a history.
    pub fn first_batch_start(&self, target: &TargetName, chain: &ChainName) -> Result<Option<u64>> {
        self.with(|connection| {
            let mut statement = connection.prepare_cached(
                "SELECT first_transaction - 1 FROM log_batches
                 WHERE target = ?1 AND repository = ?2 AND stream = ?3 AND lineage = ?4 ORDER BY last_transaction LIMIT 1",
            )?;
            let start = |row: &Row<'_>| Ok(row.get::<_, i64>(0)? as u64);
            let lineage = i64::from(chain.lineage);
            statement.query_row(params![target.as_str(), chain.repository, chain.stream, lineage], start).optional()
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
}

fn base(row: &Row<'_>) -> rusqlite::Result<BaseRecord> {
    let number = |column| row.get::<_, i64>(column);
    let created_at = time(number(5)?);
    let took = SignedDuration::from_millis(number(8)?);
    Ok(BaseRecord {
        backup: parsed(row, 0)?,
        chain: ChainName { repository: row.get(1)?, stream: row.get(2)?, lineage: number(3)? as u32 },
        mark: mark(row, 4)?,
        created_at,
        finished_at: created_at.saturating_add(took).unwrap_or(created_at),
        sequence: number(6)? as u64,
        state: parsed(row, 7)?,
        number: number(9)? as u64,
    })
}

/// Enters where a base's log ends, so that it is known without its manifest. Called with every copy that is recorded.
pub(in crate::ledger) fn insert(
    connection: &Connection,
    signed: &SignedManifest,
    repository: &str,
) -> rusqlite::Result<()> {
    let manifest = &signed.manifest;
    let Some((mark, lineage)) =
        manifest.position.as_ref().and_then(|p| Some((p.mark.as_ref()?, p.lineage.parse().ok()?)))
    else {
        return Ok(());
    };
    let lineage: u32 = lineage;
    connection.execute(
        "INSERT INTO log_bases (backup, repository, target, stream, lineage, last_transaction, mark, created_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
         ON CONFLICT (backup, repository) DO UPDATE SET
             target = excluded.target, stream = excluded.stream, lineage = excluded.lineage,
             last_transaction = excluded.last_transaction, mark = excluded.mark, created_at = excluded.created_at",
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
