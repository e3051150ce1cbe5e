//! How far the archive of each repository is known to reach.

use super::super::{Ledger, time};
use super::ChainName;
use super::order::{self, When};
use crate::base::Result;
use crate::base::ids::TargetName;
use jiff::Timestamp;
use rusqlite::{Connection, params};

/// How far the archive of a repository is known to reach.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogEnd {
    /// Which history.
    pub chain: ChainName,
    /// Its last transaction.
    pub transaction: u64,
    /// Everything committed up to here is archived.
    pub covered_until: Timestamp,
    /// The number of the run that found it so; 0 = no run of this host's. See [`order`].
    pub number: u64,
}

impl LogEnd {
    /// When it was found so.
    pub fn when(&self) -> When {
        When { number: self.number, at: self.covered_until }
    }
}

impl Ledger {
    /// Records how far a repository's archive reaches, as a run of the archive left it now: it gets the next number.
    pub fn record_log_end(&self, target: &TargetName, end: &LogEnd) -> Result<()> {
        self.transact(|transaction| {
            let number = order::next(transaction, target)?;
            record_end(transaction, target, end, number)
        })
    }

    /// Records how far a repository's archive was found to reach, whoever wrote it and whenever.
    pub fn record_found_log_end(&self, target: &TargetName, end: &LogEnd) -> Result<()> {
        self.transact(|transaction| record_end(transaction, target, end, 0))
    }

    /// How far a target's archive is known to reach, by repository.
    pub fn log_ends(&self, target: &TargetName) -> Result<Vec<LogEnd>> {
        self.with(|connection| {
            let mut statement = connection.prepare_cached(
                "SELECT repository, stream, lineage, last_transaction, covered_until, number FROM log_ends
                 WHERE target = ?1",
            )?;
            let rows = statement.query_map([target.as_str()], |row| {
                let lineage: i64 = row.get(2)?;
                Ok(LogEnd {
                    chain: ChainName { repository: row.get(0)?, stream: row.get(1)?, lineage: lineage as u32 },
                    transaction: row.get::<_, i64>(3)? as u64,
                    covered_until: time(row.get(4)?),
                    number: row.get::<_, i64>(5)? as u64,
                })
            })?;
            rows.collect()
        })
    }
}

fn record_end(connection: &Connection, target: &TargetName, end: &LogEnd, number: i64) -> rusqlite::Result<()> {
    connection.execute(
        "INSERT OR REPLACE INTO log_ends (target, repository, stream, lineage, last_transaction, covered_until, number)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        params![
            target.as_str(),
            end.chain.repository,
            end.chain.stream,
            i64::from(end.chain.lineage),
            end.transaction as i64,
            end.covered_until.as_microsecond(),
            number
        ],
    )?;
    Ok(())
}
