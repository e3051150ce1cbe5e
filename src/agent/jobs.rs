//! The registry of jobs: starts each on a thread of its own, refuses what a busy lane forbids, ends them when asked.

use super::job::Happening;
use super::lanes;
use super::observed::{Job, Outcome};
use super::renewal::Renewal;
use super::workshop::Workshop;
use crate::base::clock::Stopwatch;
use crate::base::ids::{JobId, TargetName};
use crate::base::task::{Cancel, Observer, Severity, Task, Unobserved};
use crate::base::{Code, Error, Result};
use crate::operation::answer::{Answer, JobState};
use crate::operation::fetch::Fetched;
use crate::operation::request::Request;
use crate::telemetry::record::{Occasion, Record};
use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, RwLock, RwLockReadGuard};
use std::time::Duration;

/// Jobs that may run at once, dry runs and verifications included.
pub const JOBS_RUNNING_MAX: usize = 32;
/// Ended jobs that are kept, so that whoever asked can still read the answer.
pub const JOBS_ENDED_KEPT: usize = 32;

/// How often whoever waits for a job's end looks whether it missed it.
pub(super) const END_INTERVAL: Duration = Duration::from_millis(200);

/// The jobs of this process.
pub struct Registry {
    /// Exchanged for one with another configuration when nobody works in it.
    pub(super) workshop: RwLock<Arc<dyn Workshop>>,
    /// Held from the look at the lanes until the new job occupies them, while the ledger gives the number: one start
    /// after the other, and readers of the table need not wait for the disk.
    pub(super) starting: Mutex<()>,
    table: Mutex<Table>,
    pub(super) ended: Condvar,
}

/// What became of a turn at shipping a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// It was shipped, as far as it goes.
    Done {
        /// A full backup must be taken before the log can go on.
        base_needed: bool,
    },
    /// A job works on the log.
    Taken,
}

#[derive(Default)]
pub(super) struct Table {
    pub(super) running: BTreeMap<JobId, Arc<Job>>,
    /// Logs that are being shipped between the timers.
    shipping: BTreeMap<TargetName, Cancel>,
    ended: VecDeque<Arc<Job>>,
    pub(super) stopping: bool,
    pub(super) renewal: Renewal,
}

impl Registry {
    /// A registry whose work is done by `workshop`.
    pub fn new(workshop: Arc<dyn Workshop>) -> Arc<Self> {
        Arc::new(Registry {
            workshop: RwLock::new(workshop),
            starting: Mutex::new(()),
            table: Mutex::new(Table::default()),
            ended: Condvar::new(),
        })
    }

    /// Starts a job and returns at once. `BUSY` names the job that holds the lane.
    pub fn start(self: &Arc<Self>, request: Request, actor: &str) -> Result<Arc<Job>> {
        debug_assert!(request.is_job());
        let lanes = lanes::of_request(&request);
        let _one_at_a_time = self.starting.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        self.lock().admit(&lanes)?;
        let id = self.workshop().job_begin(&request, actor)?;
        let job = Arc::new(Job::new(id, request, actor, self.workshop().now(), lanes));
        self.lock().running.insert(id, job.clone());
        report(Occasion::JobStarted, &job, None);
        let thread = std::thread::Builder::new().name(format!("job-{id}")).spawn({
            let (registry, job) = (self.clone(), job.clone());
            move || registry.work(&job)
        });
        if let Err(cause) = thread {
            let error = Error::new(Code::IoFailed, format!("starting a thread for job {id}: {cause}"));
            self.finish(&job, Happening::Fail, Err(error));
        }
        Ok(job)
    }

    /// Answers what is not a job.
    pub fn query(&self, request: &Request, actor: &str) -> Result<Answer> {
        match request {
            Request::Jobs => Ok(Answer::Jobs { jobs: self.running().iter().map(|job| job.record()).collect() }),
            Request::Cancel { job } => self.cancel(*job).map(|()| Answer::Cancel { job: *job }),
            other => self.workshop().execute(other, None, actor, &Task::unobserved()),
        }
    }

    /// A job that runs, or ended a short while ago.
    pub fn find(&self, id: JobId) -> Option<Arc<Job>> {
        let table = self.lock();
        table.running.get(&id).or_else(|| table.ended.iter().find(|job| job.id == id)).cloned()
    }

    /// The jobs that run, oldest first.
    pub fn running(&self) -> Vec<Arc<Job>> {
        self.lock().running.values().cloned().collect()
    }

    /// The jobs that ended and are still kept, oldest first.
    pub fn ended(&self) -> Vec<Arc<Job>> {
        self.lock().ended.iter().cloned().collect()
    }

    /// Asks a running job to end. Asking again is fine; a job that has ended is `JOB_NOT_FOUND`.
    pub fn cancel(&self, id: JobId) -> Result<()> {
        let job = self.lock().running.get(&id).cloned();
        let job = job.ok_or_else(|| Error::new(Code::JobNotFound, format!("job {id} is not running")))?;
        // The state first: whoever sees the work end early must see that it was asked to.
        if job.apply(Happening::Cancel).is_ok() {
            job.cancel.cancel();
            job.event(Severity::Info, "asked to end");
        }
        Ok(())
    }

    /// Takes no more jobs, asks those that run to end, and waits for them to clean up after themselves.
    /// Tells whether all of them did within `patience`.
    pub fn stop(&self, patience: Duration) -> bool {
        let watch = Stopwatch::start();
        self.lock().stopping = true;
        for job in self.running() {
            let _ = self.cancel(job.id);
        }
        let mut table = self.lock();
        table.shipping.values().for_each(Cancel::cancel);
        self.ended.notify_all();
        while !table.running.is_empty() || !table.shipping.is_empty() {
            let left = patience.saturating_sub(watch.elapsed());
            if left.is_zero() {
                return false;
            }
            table = self.ended.wait_timeout(table, left).unwrap_or_else(|poisoned| poisoned.into_inner()).0;
        }
        true
    }

    /// The targets whose log is shipped between the timers, and how often.
    pub fn continuous(&self) -> Vec<(TargetName, Duration)> {
        self.workshop().continuous()
    }

    /// See [`Workshop::pulse`].
    pub fn pulse(&self, target: &TargetName) -> Option<u64> {
        self.workshop().pulse(target)
    }

    /// See [`Workshop::take_log`].
    pub fn take_log(&self, target: &TargetName, caller: u32, name: &str, piece: &mut File) -> Result<()> {
        self.workshop().take_log(target, caller, name, piece)
    }

    /// See [`Workshop::fetch_log`].
    pub fn fetch_log(&self, target: &TargetName, caller: u32, name: &str) -> Result<Fetched> {
        self.workshop().fetch_log(target, caller, name, &Task::unobserved())
    }

    /// See [`Workshop::read_log_ahead`]; what keeps it from that is told by the next call that needs the file.
    pub fn read_log_ahead(&self, target: &TargetName, name: &str) {
        let _ = self.workshop().read_log_ahead(target, name, &Task::unobserved());
    }

    /// Waits; `false` once no more work is taken, or another configuration comes.
    pub fn pause(&self, wait: Duration) -> bool {
        let watch = Stopwatch::start();
        let mut table = self.lock();
        while !table.stopping && !table.renewal.begun {
            let left = wait.saturating_sub(watch.elapsed());
            if left.is_zero() {
                return true;
            }
            table = self.ended.wait_timeout(table, left).unwrap_or_else(|poisoned| poisoned.into_inner()).0;
        }
        false
    }

    /// Ships a target's log without a job, unless a job works on it. A job that comes meanwhile ends it and goes first.
    pub fn ship(&self, target: &TargetName) -> Result<Turn> {
        let cancel = Cancel::default();
        {
            let lanes = [lanes::Lane { target: target.clone(), kind: lanes::LaneKind::Log }];
            let mut table = self.lock();
            match table.admit(&lanes) {
                Ok(()) => table.shipping.insert(target.clone(), cancel.clone()),
                Err(_) => return Ok(Turn::Taken),
            };
        }
        let task = Task::new(Arc::new(Unobserved), cancel);
        let worked = catch_unwind(AssertUnwindSafe(|| self.workshop().ship(target, &task)));
        self.lock().shipping.remove(target);
        self.ended.notify_all();
        let base_needed = worked.unwrap_or_else(|panic| Err(Error::new(Code::Internal, said_in(&*panic))))?;
        Ok(Turn::Done { base_needed })
    }

    /// Waits for a job's end; returns the error that it ended with.
    pub fn wait_for(&self, job: &Job) -> Option<Error> {
        let mut table = self.lock();
        loop {
            if let Some(outcome) = job.snapshot().outcome {
                return outcome.error();
            }
            // A job shows its end without holding the table, so that its word can be missed once.
            table = self.ended.wait_timeout(table, END_INTERVAL).unwrap_or_else(|poisoned| poisoned.into_inner()).0;
        }
    }

    /// Ends the shipping of logs that the job needs for itself.
    fn clear_the_way(&self, job: &Job) {
        let mut table = self.lock();
        let needed = |table: &Table| {
            let logs = job.lanes.iter().filter(|lane| lane.kind == lanes::LaneKind::Log);
            let busy: Vec<Cancel> = logs.filter_map(|lane| table.shipping.get(&lane.target).cloned()).collect();
            busy
        };
        loop {
            let busy = needed(&table);
            if busy.is_empty() {
                return;
            }
            busy.iter().for_each(Cancel::cancel);
            table = self.ended.wait(table).unwrap_or_else(|poisoned| poisoned.into_inner());
        }
    }

    fn work(&self, job: &Arc<Job>) {
        if job.apply(Happening::Start).is_err() {
            let error = Error::new(Code::Cancelled, "the job was cancelled before it began");
            return self.finish(job, Happening::Stop, Err(error));
        }
        self.clear_the_way(job);
        let task = Task::new(job.clone(), job.cancel.clone());
        let worked =
            catch_unwind(AssertUnwindSafe(|| self.workshop().execute(&job.request, Some(job.id), &job.actor, &task)));
        let result = worked.unwrap_or_else(|panic| Err(Error::new(Code::Internal, said_in(&*panic))));
        let happening = match &result {
            Ok(answer) if answer.verdict().is_some() => Happening::Fail,
            Ok(_) => Happening::Succeed,
            Err(error) if error.code() == Code::Cancelled && job.cancel.is_cancelled() => Happening::Stop,
            Err(_) => Happening::Fail,
        };
        self.finish(job, happening, result);
    }

    /// The order matters: the ledger knows first, then the lane is free, then followers learn of it, so that a client
    /// that saw the end can start the next job and finds this one in `history`.
    fn finish(&self, job: &Arc<Job>, happening: Happening, result: Result<Answer>) {
        let state = job.snapshot().state.next(happening).unwrap_or_else(|refused| match refused.state {
            state if state.is_final() => state,
            _ => JobState::Failed,
        });
        let at = self.workshop().now();
        let mut record = job.record();
        (record.state, record.ended_at, record.progress) = (state, Some(at), None);
        let outcome = match result {
            Ok(answer) => Outcome::Answer(Arc::new(answer)),
            Err(error) => Outcome::Error {
                code: error.code(),
                message: error.message().to_owned(),
                hint: error.hint().to_owned(),
            },
        };
        if let Some(error) = outcome.error() {
            record.error_code = Some(error.code().name().to_owned());
            record.message = Some(error.message().to_owned());
        }
        if let Err(error) = self.workshop().job_end(&record, job.snapshot().progress.moved, &job.actor) {
            // The work is done or undone whatever the index says; the next rescan or start mends the index.
            job.event(Severity::Warning, &format!("the ledger could not record the end of this job: {error}"));
            tracing::warn!("the ledger could not record the end of job {}: {error}", job.id);
        }
        let occasion = match state {
            JobState::Succeeded => Occasion::JobSucceeded,
            JobState::Cancelled => Occasion::JobCancelled,
            _ => Occasion::JobFailed,
        };
        report(occasion, job, Some(&outcome));
        {
            let mut table = self.lock();
            table.running.remove(&job.id);
            table.ended.push_back(job.clone());
            while table.ended.len() > JOBS_ENDED_KEPT {
                table.ended.pop_front();
            }
        }
        job.end(state, at, outcome);
        self.ended.notify_all();
    }

    pub(super) fn workshop(&self) -> RwLockReadGuard<'_, Arc<dyn Workshop>> {
        self.workshop.read().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Table {
    fn admit(&self, lanes: &[lanes::Lane]) -> Result<()> {
        if self.stopping {
            return Err(Error::new(Code::Busy, "the agent is stopping and takes no more jobs")
                .with_hint("`systemctl status neo4j-backupd` shows when it is up again"));
        }
        for job in self.running.values() {
            if let Some(lane) = lanes.iter().find(|lane| job.lanes.contains(lane)) {
                let what = format!("the {lane} is busy with job {} ({})", job.id, job.request.verb());
                return Err(Error::new(Code::Busy, what).with_hint(format!(
                    "`neo4j-backupctl follow {0}` waits for it, `neo4j-backupctl cancel {0}` ends it",
                    job.id
                )));
            }
        }
        if self.running.len() >= JOBS_RUNNING_MAX {
            return Err(Error::new(Code::Busy, format!("{JOBS_RUNNING_MAX} jobs run already, and no more may")));
        }
        Ok(())
    }
}

fn said_in(panic: &(dyn std::any::Any + Send)) -> String {
    let said = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("the job panicked: {}", said.unwrap_or("without a word"))
}

fn report(occasion: Occasion, job: &Job, outcome: Option<&Outcome>) {
    let target = job.request.target().map(|target| target.as_str());
    let subject = target.map(|target| format!(" of {target}")).unwrap_or_default();
    let verb = job.request.verb();
    let error = outcome.and_then(Outcome::error);
    let message = match (outcome, &error) {
        (None, _) => format!("job {}: {verb}{subject} started for {}", job.id, job.actor),
        (Some(_), None) => format!("job {}: {verb}{subject} succeeded", job.id),
        (Some(_), Some(error)) => format!("job {}: {verb}{subject} ended: {}", job.id, error.message()),
    };
    let backup = match outcome {
        Some(Outcome::Answer(answer)) => backup_in(answer),
        _ => None,
    };
    Record {
        occasion,
        message: &message,
        target,
        backup: backup.as_deref(),
        job: Some(job.id.0),
        actor: Some(&job.actor),
        error_code: error.as_ref().map(|error| error.code().name()),
        bytes: outcome.map(|_| job.snapshot().progress.moved),
        duration_us: outcome.map(|_| job.elapsed_us()),
    }
    .emit();
}

fn backup_in(answer: &Answer) -> Option<String> {
    match answer {
        Answer::Backup(report) => Some(report.id.to_string()),
        Answer::Restore(report) => Some(report.backup.to_string()),
        Answer::Delete(report) => Some(report.backup.to_string()),
        _ => None,
    }
}
