//! A workshop whose work the tests steer: targets' names say what becomes of a job.
//!
//! - `graph`, `metrics`: the backup waits at a gate until the test opens it
//! - `quick`: ends at once
//! - `chatty`: reports progress and events thousands of times, then ends
//! - `broken`: fails with the error code that stands in the note
//! - `panicking`: panics
//! - `metrics` does not archive its log, `nowhere` is not configured
//! - `stubborn`: works on through a cancellation until the gate opens, and succeeds

use jiff::Timestamp;
use neo4j_backup_agent::agent::workshop::Workshop;
use neo4j_backup_agent::base::clock::{Clock, SystemClock, wait_until};
use neo4j_backup_agent::base::ids::{BackupId, BackupKind, JobId, Stamp, TargetName};
use neo4j_backup_agent::base::task::{Severity, Task};
use neo4j_backup_agent::base::{Code, Error, Result};
use neo4j_backup_agent::driver::Finding;
use neo4j_backup_agent::operation::answer::{
    Answer, BackupList, BackupReport, DeleteReport, JobRecord, Problem, RescanReport, RestoreReport, TargetFinding,
    TargetStatus, TimerStatus, VerifiedBackup, VerifyReport,
};
use neo4j_backup_agent::operation::request::{BackupRequest, Destination, Request, RestoreRequest, VerifyRequest};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

/// Longest time any wait of a test takes before the test fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
/// How often a wait looks again.
pub(crate) const INTERVAL: Duration = Duration::from_millis(2);

/// See `Request::History` below.
pub(crate) const ERRORS_FROM: u32 = 10_000;

/// See the module.
#[derive(Default)]
pub(crate) struct FakeWorkshop {
    numbers: AtomicU64,
    gate: AtomicBool,
    pub(crate) executed: AtomicU64,
    /// What another reading of the configuration gives.
    itself: Weak<FakeWorkshop>,
    /// Whether the configuration is wrong now.
    pub(crate) wrong: AtomicBool,
    /// How often it was read again.
    pub(crate) renewed: AtomicU64,
    /// How each job ended, with its actor.
    pub(crate) ended: Mutex<Vec<(JobRecord, u64, String)>>,
}

impl FakeWorkshop {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new_cyclic(|itself| FakeWorkshop { itself: itself.clone(), ..FakeWorkshop::default() })
    }

    /// Lets waiting jobs end.
    pub(crate) fn open_gate(&self) {
        self.gate.store(true, Ordering::SeqCst);
    }

    fn wait_at_gate(&self, task: &Task, heed: bool) -> Result<()> {
        let passed = || self.gate.load(Ordering::SeqCst) || (heed && task.cancel().is_cancelled());
        assert!(wait_until(PATIENCE, INTERVAL, passed), "the test never opened the gate");
        if heed { task.check() } else { Ok(()) }
    }

    fn backup(&self, request: &BackupRequest, task: &Task) -> Result<Answer> {
        task.phase("dumping", 1000);
        task.advance(400);
        match request.target.as_str() {
            "graph" | "metrics" if !request.dry_run => {
                task.warn("the server was stopped for this");
                self.wait_at_gate(task, true)?;
            }
            "stubborn" => self.wait_at_gate(task, false)?,
            "chatty" => {
                for number in 0..5_000 {
                    task.advance(0);
                    task.phase(&format!("part {number}"), 5_000);
                    if number % 50 == 0 {
                        task.info(format!("part {number}"));
                    }
                }
            }
            "broken" => {
                let code = request.note.as_deref().and_then(Code::from_name).unwrap_or(Code::Internal);
                return Err(Error::new(code, "the work broke").with_hint("mend it"));
            }
            "panicking" => panic!("something no one thought of"),
            _ => {}
        }
        task.phase("reading back", 1000);
        task.advance(1000);
        Ok(Answer::Backup(backup_report(&request.target, request.dry_run)))
    }
}

pub(crate) fn target(name: &str) -> TargetName {
    TargetName::new(name).expect("name")
}

pub(crate) fn backup_id(name: &TargetName) -> BackupId {
    let second: Timestamp = "2026-11-20T02:00:00Z".parse().expect("time");
    BackupId { target: name.clone(), stamp: Stamp::new(second), kind: BackupKind::Dump }
}

pub(crate) fn backup_report(name: &TargetName, dry_run: bool) -> BackupReport {
    BackupReport {
        id: backup_id(name),
        dry_run,
        repositories: vec!["main".to_owned()],
        server_version: "5.26.0".to_owned(),
        method: "neo4j-admin database dump".to_owned(),
        plain_bytes: 6000,
        stored_bytes: 1000,
        sha256: "ab".repeat(32),
        counts: vec![("nodes".to_owned(), 12), ("relationships".to_owned(), 7)],
        counts_exact: true,
        duration_ms: 1234,
        downtime_ms: 800,
        warnings: Vec::new(),
        steps: Vec::new(),
    }
}

/// The name of the backup tells what it finds: `damaged` has two problems, `ruined` more than a signal may carry.
pub(crate) fn verify_report(request: &VerifyRequest) -> VerifyReport {
    let count = match request.backup.as_deref() {
        Some("damaged") => 2,
        Some("ruined") => 2_000,
        _ => 0,
    };
    let problem = |number| Problem {
        object: format!("environment=dev/graph-20261120T020000Z.dump.enc.{number}"),
        code: "BACKUP_CORRUPTED".to_owned(),
        text: "its first part is not what was signed".to_owned(),
    };
    let backup = VerifiedBackup {
        backup: request.backup.clone().unwrap_or_else(|| backup_id(&target("graph")).to_string()),
        repository: "main".to_owned(),
        objects: 2,
        bytes: 1000,
        problems: (0..count).map(problem).collect(),
    };
    VerifyReport { quick: request.quick, backups: vec![backup] }
}

pub(crate) fn backup_request(name: &str) -> Request {
    Request::Backup(BackupRequest { target: target(name), kind: None, note: None, dry_run: false })
}

fn not_archived(target: &TargetName) -> TargetFinding {
    let finding = Finding {
        code: "log-not-archived".to_owned(),
        severity: Severity::Warning,
        text: "archive_mode is off".to_owned(),
        fix: "ALTER SYSTEM".to_owned(),
    };
    TargetFinding { target: Some(target.clone()), finding }
}

fn timer(target: &str, what: &str) -> TimerStatus {
    let unit = format!("neo4j-backup-{what}@{target}.timer");
    TimerStatus { unit, calendar: Some("hourly".to_owned()), enabled: None, next: None }
}

fn status(name: &str) -> TargetStatus {
    TargetStatus {
        target: target(name),
        engine: "neo4j".to_owned(),
        newest: Some(backup_id(&target(name))),
        restorable_to: "2026-11-20T02:00:00Z".parse().ok(),
        age_seconds: Some(60),
        rto_seconds: Some(90),
        last_proven: None,
        backups: 1,
        stored_bytes: 1000,
        job: None,
        last_failure: None,
        next_run: None,
        timers: ["full", "incremental"].map(|what| timer(name, what)).to_vec(),
        log: None,
        earlier: Vec::new(),
    }
}

fn restore_report(request: &RestoreRequest) -> Answer {
    let (directory, in_place) = match &request.destination {
        Destination::Into(directory) => (directory.clone(), false),
        Destination::InPlace => ("/var/lib/neo4j/data".into(), true),
    };
    Answer::Restore(RestoreReport {
        restore: "graph-20261120T030000Z".to_owned(),
        backup: backup_id(&request.target),
        repository: "main".to_owned(),
        dry_run: request.dry_run,
        directory,
        in_place,
        set_aside: Vec::new(),
        plain_bytes: 6000,
        until: None,
        reached: None,
        batches: 0,
        checks: Vec::new(),
        duration_ms: 10,
        steps: vec!["read the manifest".to_owned()],
    })
}

impl Workshop for FakeWorkshop {
    fn execute(&self, request: &Request, job: Option<JobId>, _actor: &str, task: &Task) -> Result<Answer> {
        self.executed.fetch_add(1, Ordering::SeqCst);
        assert_eq!(job.is_some(), request.is_job(), "{request:?}");
        Ok(match request {
            Request::Backup(request) => return self.backup(request, task),
            Request::Restore(request) => {
                if request.target.as_str() == "graph" && !request.dry_run {
                    self.wait_at_gate(task, true)?;
                }
                restore_report(request)
            }
            Request::Verify(request) => Answer::Verify(verify_report(request)),
            Request::Delete { dry_run, .. } => Answer::Delete(DeleteReport {
                backup: backup_id(&target("graph")),
                dry_run: *dry_run,
                objects: 2,
                bytes: 1000,
                batches: 0,
            }),
            Request::Rescan => {
                Answer::Rescan(RescanReport { found: 1, added: 0, missing: 0, problems: Vec::new(), batches: 0 })
            }
            Request::Status { target: Some(only) } if only.as_str() == "nowhere" => {
                return Err(Error::new(Code::TargetUnknown, "there is no target nowhere"));
            }
            Request::Status { target: only } => {
                Answer::Status { targets: vec![status(only.as_ref().map_or("graph", |only| only.as_str()))] }
            }
            Request::List { .. } => Answer::List(BackupList {
                backups: Vec::new(),
                plain_bytes: 0,
                stored_bytes: 0,
                expiring_soon: Vec::new(),
                logs: Vec::new(),
                earlier: Vec::new(),
            }),
            // Above 10 000 the limit stands for an error's number: every registered error can be had.
            Request::History { limit } => {
                let code = Code::ALL.iter().copied().find(|code| ERRORS_FROM + u32::from(code.number()) == *limit);
                return match code {
                    Some(code) => Err(Error::new(code, "reading the history").with_hint("a hint: of two\nlines")),
                    None => Ok(Answer::History { jobs: Vec::new(), events: Vec::new() }),
                };
            }
            Request::Restores => Answer::Restores { restores: Vec::new() },
            Request::Check { target: Some(only) } if only.as_str() == "metrics" => {
                Answer::Check { findings: vec![not_archived(only)] }
            }
            Request::Check { .. } => Answer::Check { findings: Vec::new() },
            Request::KeyList => Answer::KeyList { keys: Vec::new() },
            Request::Show { backup } => {
                return Err(Error::new(Code::BackupNotFound, format!("there is no backup {backup}")));
            }
            other => panic!("{other:?} must not arrive in the workshop"),
        })
    }

    fn job_begin(&self, _request: &Request, _actor: &str) -> Result<JobId> {
        Ok(JobId(self.numbers.fetch_add(1, Ordering::SeqCst) + 1))
    }

    fn job_end(&self, record: &JobRecord, bytes: u64, actor: &str) -> Result<()> {
        self.ended.lock().expect("ended").push((record.clone(), bytes, actor.to_owned()));
        Ok(())
    }

    fn renewed(&self) -> Result<Arc<dyn Workshop>> {
        if self.wrong.load(Ordering::SeqCst) {
            return Err(Error::new(Code::ConfigInvalid, "config.toml:3: nonsense"));
        }
        self.renewed.fetch_add(1, Ordering::SeqCst);
        Ok(self.itself.upgrade().expect("it is alive"))
    }

    fn now(&self) -> Timestamp {
        SystemClock.now()
    }
}
