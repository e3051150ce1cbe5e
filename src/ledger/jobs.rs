//! Jobs, running and ended.

use super::{Ledger, parsed_option, time};
use crate::base::Result;
use crate::base::ids::{JobId, TargetName};
use jiff::Timestamp;
use rusqlite::{Row, params};

/// A job on record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobEntry {
    /// Its number.
    pub id: JobId,
    /// The verb.
    pub verb: String,
    /// The target, if it has one.
    pub target: Option<TargetName>,
    /// `running`, or how it ended.
    pub state: String,
    /// When it began.
    pub started_at: Timestamp,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// The registered name of its error.
    pub error_code: Option<String>,
    /// Its error's message.
    pub message: Option<String>,
}

const COLUMNS: &str = "SELECT id, verb, target, state, started_at, ended_at, error_code, message FROM jobs";

impl Ledger {
    /// Takes a job on; its number is never used again.
    pub fn job_begin(&self, verb: &str, target: Option<&TargetName>, actor: &str) -> Result<JobId> {
        let now = self.now();
        self.transact(|transaction| {
            transaction.execute(
                "INSERT INTO jobs (verb, target, actor, state, started_at, pid) VALUES (?1, ?2, ?3, 'running', ?4, ?5)",
                params![verb, target.map(TargetName::as_str), actor, now, i64::from(std::process::id())],
            )?;
            Ok(JobId(transaction.last_insert_rowid() as u64))
        })
    }

    /// Records how a job ended. One that has ended already stays as it is.
    pub fn job_end(&self, id: JobId, state: &str, error: Option<(&str, &str)>) -> Result<()> {
        let now = self.now();
        self.transact(|transaction| {
            transaction.execute(
                "UPDATE jobs SET state = ?2, ended_at = ?3, error_code = ?4, message = ?5
                 WHERE id = ?1 AND ended_at IS NULL",
                params![id.0 as i64, state, now, error.map(|e| e.0), error.map(|e| e.1)],
            )?;
            Ok(())
        })
    }

    /// Jobs that have not ended, oldest first.
    pub fn running_jobs(&self) -> Result<Vec<JobEntry>> {
        self.with(|connection| {
            let mut statement = connection.prepare_cached(&format!("{COLUMNS} WHERE ended_at IS NULL ORDER BY id"))?;
            let rows = statement.query_map([], entry)?;
            rows.collect()
        })
    }

    /// Marks every job that has not ended as interrupted; returns them.
    pub fn interrupt_running(&self) -> Result<Vec<JobEntry>> {
        let now = self.now();
        self.transact(|transaction| {
            let mut statement = transaction.prepare(&format!("{COLUMNS} WHERE ended_at IS NULL ORDER BY id"))?;
            let running = statement.query_map([], entry)?.collect::<rusqlite::Result<Vec<_>>>()?;
            transaction.execute(
                "UPDATE jobs SET state = 'interrupted', ended_at = ?1, error_code = 'INTERRUPTED',
                        message = 'the agent ended in the middle of this job' WHERE ended_at IS NULL",
                [now],
            )?;
            Ok(running)
        })
    }

    /// Ended jobs, newest first.
    pub fn ended_jobs(&self, limit: u32) -> Result<Vec<JobEntry>> {
        self.with(|connection| {
            let query = format!("{COLUMNS} WHERE ended_at IS NOT NULL ORDER BY id DESC LIMIT ?1");
            let mut statement = connection.prepare_cached(&query)?;
            let rows = statement.query_map([limit], entry)?;
            rows.collect()
        })
    }

    /// The newest ended job of a verb for a target.
    pub fn last_job(&self, verb: &str, target: &TargetName) -> Result<Option<JobEntry>> {
        self.with(|connection| {
            let query =
                format!("{COLUMNS} WHERE target = ?1 AND verb = ?2 AND ended_at IS NOT NULL ORDER BY id DESC LIMIT 1");
            let mut statement = connection.prepare_cached(&query)?;
            let mut rows = statement.query_map(params![target.as_str(), verb], entry)?;
            rows.next().transpose()
        })
    }
}

fn entry(row: &Row<'_>) -> rusqlite::Result<JobEntry> {
    let ended: Option<i64> = row.get(5)?;
    Ok(JobEntry {
        id: JobId(row.get::<_, i64>(0)? as u64),
        verb: row.get(1)?,
        target: parsed_option(row, 2)?,
        state: row.get(3)?,
        started_at: time(row.get(4)?),
        ended_at: ended.map(time),
        error_code: row.get(6)?,
        message: row.get(7)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::SystemClock;
    use std::sync::Arc;

    #[test]
    fn a_job_ends_once_and_orphans_are_interrupted() {
        let directory = tempfile::tempdir().expect("tempdir");
        let ledger = Ledger::open(&directory.path().join("ledger.db"), Arc::new(SystemClock)).expect("open");
        let target = TargetName::new("graph").expect("name");
        let first = ledger.job_begin("backup", Some(&target), "root").expect("begin");
        let second = ledger.job_begin("rescan", None, "root").expect("begin");
        ledger.job_end(first, "failed", Some(("BUSY", "no"))).expect("end");
        ledger.job_end(first, "succeeded", None).expect("end again");
        assert_eq!(ledger.last_job("backup", &target).expect("last").expect("some").state, "failed");
        let orphans = ledger.interrupt_running().expect("interrupt");
        assert_eq!(orphans.iter().map(|job| job.id).collect::<Vec<_>>(), [second]);
        assert!(ledger.running_jobs().expect("running").is_empty());
        assert_eq!(ledger.ended_jobs(1).expect("ended")[0].state, "interrupted");
    }
}
