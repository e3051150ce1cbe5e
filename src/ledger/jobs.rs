//! Jobs: begun, ended, or found interrupted after the process that ran them is gone.

use super::Ledger;
use super::process_mark::ProcessMark;
use super::row::{micros, number, parsed_option, time, time_option, unsigned};
use crate::base::ids::{JobId, TargetName};
use crate::base::{Code, Error, Result};
use jiff::Timestamp;
use rusqlite::{Params, Row, params};

/// Jobs that are kept; older ones are dropped as new ones begin.
pub const JOBS_KEPT: i64 = 100_000;

/// How a job ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobOutcome {
    /// Well.
    Succeeded,
    /// In an error.
    Failed,
    /// Because someone asked.
    Cancelled,
    /// Its process was gone.
    Interrupted,
}

impl JobOutcome {
    /// The word in the ledger.
    pub fn as_str(self) -> &'static str {
        match self {
            JobOutcome::Succeeded => "succeeded",
            JobOutcome::Failed => "failed",
            JobOutcome::Cancelled => "cancelled",
            JobOutcome::Interrupted => "interrupted",
        }
    }

    fn of(state: &str) -> Option<JobOutcome> {
        [JobOutcome::Succeeded, JobOutcome::Failed, JobOutcome::Cancelled, JobOutcome::Interrupted]
            .into_iter()
            .find(|outcome| outcome.as_str() == state)
    }
}

/// A job on record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobRow {
    /// Its number.
    pub id: JobId,
    /// The verb.
    pub verb: String,
    /// The target, if it has one.
    pub target: Option<TargetName>,
    /// Who asked for it.
    pub actor: String,
    /// How it ended; `None` = it runs.
    pub outcome: Option<JobOutcome>,
    /// The process that ran it.
    pub process: ProcessMark,
    /// When it began.
    pub started_at: Timestamp,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// The registered name of the error it ended with.
    pub error_code: Option<String>,
    /// The message it ended with.
    pub message: Option<String>,
}

const COLUMNS: &str =
    "id, verb, target, actor, state, pid, process_start, boot_id, started_at, ended_at, error_code, message";

pub(super) const RUNNING: &str = "WHERE state = 'running' ORDER BY id";
pub(super) const ENDED: &str = "WHERE state <> 'running' ORDER BY id DESC LIMIT ?1";
/// Each `MAX` is one look at the end of an index, however many jobs have failed.
pub(super) const LAST_FAILURE: &str = "WHERE id = max( \
        coalesce((SELECT MAX(id) FROM jobs WHERE target = ?1 AND verb = ?2 AND state = 'failed'), 0), \
        coalesce((SELECT MAX(id) FROM jobs WHERE target = ?1 AND verb = ?2 AND state = 'interrupted'), 0)) \
    AND id > coalesce((SELECT MAX(id) FROM jobs WHERE target = ?1 AND verb = ?2 AND state = 'succeeded'), 0)";

pub(super) fn query(condition: &str) -> String {
    format!("SELECT {COLUMNS} FROM jobs {condition}")
}

impl Ledger {
    /// Enters a job that runs in this process now. Its number was never used before on this host.
    pub fn job_begin(&self, verb: &str, target: Option<&TargetName>, actor: &str) -> Result<JobId> {
        let (now, process) = (self.now(), ProcessMark::current());
        self.write("entering a job in", |steps| {
            steps.execute(
                "INSERT INTO jobs (verb, target, actor, state, pid, process_start, boot_id, started_at) \
                 VALUES (?1, ?2, ?3, 'running', ?4, ?5, ?6, ?7)",
                params![
                    verb,
                    target.map(TargetName::as_str),
                    actor,
                    process.pid,
                    number(process.start),
                    process.boot_id,
                    micros(now)
                ],
            )?;
            let id = steps.0.last_insert_rowid();
            steps.execute("DELETE FROM jobs WHERE id <= ?1 AND state <> 'running'", params![id - JOBS_KEPT])?;
            Ok(JobId(id.unsigned_abs()))
        })
    }

    /// Enters how a job ended, once: `JOB_NOT_FOUND` if it does not run.
    pub fn job_end(
        &self,
        id: JobId,
        outcome: JobOutcome,
        error_code: Option<Code>,
        message: Option<&str>,
    ) -> Result<()> {
        let now = self.now();
        let touched = self.write("ending a job in", |steps| {
            steps.execute(
                "UPDATE jobs SET state = ?2, ended_at = ?3, error_code = ?4, message = ?5 \
                 WHERE id = ?1 AND state = 'running'",
                params![number(id.0), outcome.as_str(), micros(now), error_code.map(Code::name), message],
            )
        })?;
        match touched {
            0 => Err(Error::new(Code::JobNotFound, format!("job {id} does not run"))),
            _ => Ok(()),
        }
    }

    /// One job.
    pub fn job(&self, id: JobId) -> Result<Option<JobRow>> {
        Ok(self.select_jobs("WHERE id = ?1", params![number(id.0)])?.pop())
    }

    /// Jobs that run as far as the ledger knows, oldest first.
    pub fn running_jobs(&self) -> Result<Vec<JobRow>> {
        self.select_jobs(RUNNING, [])
    }

    /// Jobs that have ended, newest first.
    pub fn ended_jobs(&self, limit: u32) -> Result<Vec<JobRow>> {
        self.select_jobs(ENDED, params![limit])
    }

    /// The last job of this verb that failed or was interrupted, unless one has succeeded since.
    pub fn last_failure(&self, target: &TargetName, verb: &str) -> Result<Option<JobRow>> {
        Ok(self.select_jobs(LAST_FAILURE, params![target.as_str(), verb])?.pop())
    }

    /// Ends the jobs whose process no longer lives as interrupted; returns them. Jobs of living processes, this one
    /// too, are left alone.
    pub fn mark_interrupted(&self) -> Result<Vec<JobRow>> {
        self.mark_interrupted_unless(&ProcessMark::is_alive)
    }

    fn mark_interrupted_unless(&self, lives: &dyn Fn(&ProcessMark) -> bool) -> Result<Vec<JobRow>> {
        let now = self.now();
        self.write("marking interrupted jobs in", |steps| {
            let mut interrupted = steps.rows(&query(RUNNING), [], read_job)?;
            interrupted.retain(|job| !lives(&job.process));
            for job in &mut interrupted {
                let message = format!("process {} ended in the middle of it", job.process.pid);
                steps.execute(
                    "UPDATE jobs SET state = 'interrupted', ended_at = ?2, error_code = ?3, message = ?4 WHERE id = ?1",
                    params![number(job.id.0), micros(now), Code::Interrupted.name(), message],
                )?;
                job.outcome = Some(JobOutcome::Interrupted);
                job.ended_at = Some(now);
                job.error_code = Some(Code::Interrupted.name().to_owned());
                job.message = Some(message);
            }
            Ok(interrupted)
        })
    }

    fn select_jobs(&self, condition: &str, parameters: impl Params) -> Result<Vec<JobRow>> {
        self.read("listing the jobs in", |connection| {
            connection.prepare_cached(&query(condition))?.query_map(parameters, read_job)?.collect()
        })
    }
}

fn read_job(row: &Row<'_>) -> rusqlite::Result<JobRow> {
    Ok(JobRow {
        id: JobId(unsigned(row, 0)?),
        verb: row.get(1)?,
        target: parsed_option(row, 2)?,
        actor: row.get(3)?,
        outcome: JobOutcome::of(row.get_ref(4)?.as_str()?),
        process: ProcessMark { pid: row.get(5)?, start: unsigned(row, 6)?, boot_id: row.get(7)? },
        started_at: time(row, 8)?,
        ended_at: time_option(row, 9)?,
        error_code: row.get(10)?,
        message: row.get(11)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::Clock;
    use crate::ledger::tests::{clock, ledger, target};

    // req: D10
    #[test]
    fn a_job_runs_and_ends_once() {
        let (_directory, ledger) = ledger();
        let id = ledger.job_begin("backup", Some(&target("graph")), "alice").expect("begin");
        let other = ledger.job_begin("rescan", None, "root").expect("begin");
        assert_ne!(id, other);
        assert_eq!(ledger.running_jobs().expect("running").len(), 2);
        ledger.job_end(id, JobOutcome::Failed, Some(Code::BackupNoSpace), Some("full")).expect("end");
        let again = ledger.job_end(id, JobOutcome::Succeeded, None, None).map_err(|e| e.code());
        assert_eq!(again, Err(Code::JobNotFound));
        assert_eq!(ledger.job_end(JobId(99), JobOutcome::Failed, None, None).map_err(|e| e.code()), again);
        let row = ledger.job(id).expect("job").expect("there");
        assert_eq!(row.outcome, Some(JobOutcome::Failed));
        assert_eq!((row.error_code.as_deref(), row.message.as_deref()), (Some("BACKUP_NO_SPACE"), Some("full")));
        assert_eq!((row.actor.as_str(), row.target), ("alice", Some(target("graph"))));
        assert_eq!(ledger.ended_jobs(10).expect("ended").len(), 1);
        assert_eq!(ledger.job(JobId(99)).expect("job"), None);
    }

    #[test]
    fn jobs_of_dead_processes_are_found_and_those_of_the_living_left() {
        let (directory, ledger) = ledger();
        let dead = ledger.job_begin("backup", Some(&target("graph")), "root").expect("begin");
        let done = ledger.job_begin("backup", Some(&target("graph")), "root").expect("begin");
        ledger.job_end(done, JobOutcome::Cancelled, None, None).expect("end");
        assert!(ledger.mark_interrupted().expect("mark").is_empty(), "this process lives");
        let found = ledger.mark_interrupted_unless(&|_| false).expect("mark");
        assert_eq!(found.iter().map(|job| job.id).collect::<Vec<_>>(), [dead]);
        assert_eq!(ledger.job(dead).expect("job"), Some(found[0].clone()));
        assert!(ledger.running_jobs().expect("running").is_empty());
        assert!(ledger.mark_interrupted_unless(&|_| false).expect("mark").is_empty());
        drop(directory);
    }

    #[test]
    fn a_failure_is_the_last_word_until_a_success() {
        let (_directory, ledger) = ledger();
        let graph = target("graph");
        let run = |outcome| {
            let id = ledger.job_begin("backup", Some(&graph), "root").expect("begin");
            ledger.job_end(id, outcome, None, None).expect("end");
            ledger.last_failure(&graph, "backup").expect("failure").map(|job| job.id == id)
        };
        assert_eq!(run(JobOutcome::Succeeded), None);
        assert_eq!(run(JobOutcome::Failed), Some(true));
        assert_eq!(run(JobOutcome::Interrupted), Some(true));
        assert_eq!(run(JobOutcome::Cancelled), Some(false));
        assert_eq!(run(JobOutcome::Succeeded), None);
        assert_eq!(ledger.last_failure(&target("metrics"), "backup").expect("failure"), None);
    }

    #[test]
    fn old_jobs_are_dropped_and_their_numbers_never_given_again() {
        let (_directory, ledger) = ledger();
        let first = ledger.job_begin("backup", None, "root").expect("begin");
        ledger.job_end(first, JobOutcome::Succeeded, None, None).expect("end");
        let long_ago = ledger.job_begin("restore", None, "root").expect("begin");
        ledger
            .write("test", |steps| {
                steps.execute("UPDATE sqlite_sequence SET seq = ?1 WHERE name = 'jobs'", [JOBS_KEPT + 5])
            })
            .expect("skip");
        let late = ledger.job_begin("backup", None, "root").expect("begin");
        assert_eq!(late, JobId(JOBS_KEPT as u64 + 6));
        assert_eq!(ledger.job(first).expect("job"), None);
        assert!(ledger.job(long_ago).expect("job").is_some(), "one that runs is kept");
        assert_eq!(ledger.job(late).expect("job").map(|job| job.started_at), Some(clock().now()));
    }
}
