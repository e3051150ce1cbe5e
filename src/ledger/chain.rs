//! The end of each chain: which manifest the next backup names as its predecessor.

use super::entry::BackupEntry;
use super::row::{number, parsed, unsigned};
use super::{Ledger, Steps};
use crate::base::Result;
use crate::base::ids::{BackupId, TargetName};
use rusqlite::params;

/// The newest manifest of a target's chain in a repository, by sequence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChainEnd {
    /// The backup.
    pub id: BackupId,
    /// Its place in the chain.
    pub sequence: u64,
    /// SHA-256 of its manifest's bytes.
    pub manifest_sha256: String,
}

impl Ledger {
    /// The end of a chain, also when that backup was deleted since; `None` before the first.
    pub fn chain_end(&self, environment: &str, target: &TargetName, repository: &str) -> Result<Option<ChainEnd>> {
        self.read("looking up a chain in", |connection| {
            connection
                .prepare_cached(
                    "SELECT id, sequence, manifest_sha256 FROM chains \
                     WHERE environment = ?1 AND target = ?2 AND repository = ?3",
                )?
                .query_map(params![environment, target.as_str(), repository], |row| {
                    Ok(ChainEnd { id: parsed(row, 0)?, sequence: unsigned(row, 1)?, manifest_sha256: row.get(2)? })
                })?
                .next()
                .transpose()
        })
    }

    /// The next backup's place in its chain; never one that was given before.
    pub fn next_sequence(&self, environment: &str, target: &TargetName, repository: &str) -> Result<u64> {
        Ok(self.chain_end(environment, target, repository)?.map_or(1, |end| end.sequence + 1))
    }
}

/// Moves the end of the chain to `entry` if it is further.
pub(super) fn extend(steps: &Steps<'_>, entry: &BackupEntry, repository: &str) -> rusqlite::Result<()> {
    steps.execute(
        "INSERT INTO chains (environment, target, repository, sequence, id, manifest_sha256) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6) \
         ON CONFLICT (environment, target, repository) DO UPDATE \
             SET sequence = excluded.sequence, id = excluded.id, manifest_sha256 = excluded.manifest_sha256 \
             WHERE excluded.sequence > chains.sequence",
        params![
            entry.environment,
            entry.id.target.as_str(),
            repository,
            number(entry.sequence),
            entry.id.to_string(),
            entry.manifest_sha256,
        ],
    )?;
    Ok(())
}
