//! One piece of work as its workers see it: may it go on, how far is it, what is there to say.

use super::clock::Stopwatch;
use super::{Code, Error, Result};
use serde::{Deserialize, Serialize};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// How much an event matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Worth a line for whoever follows the job.
    Info,
    /// The job goes on, but something is weaker than it should be.
    Warning,
    /// Something was lost or refused.
    Error,
}

/// How far a job is. `total` is 0 while nobody knows.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// What is being done now, in a few words: `dumping`, `reading back`.
    pub phase: String,
    /// Plaintext bytes that went through in this phase.
    pub done: u64,
    /// Plaintext bytes expected in all; an estimate.
    pub total: u64,
    /// Bytes that went through in all phases so far: what was written once and read back once counts twice.
    #[serde(default)]
    pub moved: u64,
    /// Milliseconds since the job began.
    pub elapsed_ms: u64,
}

/// Someone who follows a job: the agent, a progress bar, a test.
pub trait Observer: Send + Sync {
    /// Something worth saying happened.
    fn event(&self, severity: Severity, text: &str);
    /// The numbers moved; called often, the observer thins it out.
    fn progress(&self, progress: &Progress);
}

/// An observer that looks away.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unobserved;

impl Observer for Unobserved {
    fn event(&self, _: Severity, _: &str) {}
    fn progress(&self, _: &Progress) {}
}

/// A switch that many threads look at and anybody may throw, once.
#[derive(Clone, Debug, Default)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// Asks the work to end soon.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    /// Whether someone asked.
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

/// A piece of work in progress. Cheap to clone: clones share one state.
#[derive(Clone)]
pub struct Task {
    inner: Arc<Inner>,
}

struct Inner {
    cancel: Cancel,
    observer: Arc<dyn Observer>,
    phase: Mutex<String>,
    done: AtomicU64,
    total: AtomicU64,
    /// Shared with the shielded pieces of the same work.
    moved: Arc<AtomicU64>,
    watch: Stopwatch,
}

impl Task {
    /// Work that `observer` follows and `cancel` can end.
    pub fn new(observer: Arc<dyn Observer>, cancel: Cancel) -> Self {
        Task::counting(observer, cancel, Arc::new(AtomicU64::new(0)))
    }

    fn counting(observer: Arc<dyn Observer>, cancel: Cancel, moved: Arc<AtomicU64>) -> Self {
        Task {
            inner: Arc::new(Inner {
                cancel,
                observer,
                phase: Mutex::new(String::new()),
                done: AtomicU64::new(0),
                total: AtomicU64::new(0),
                moved,
                watch: Stopwatch::start(),
            }),
        }
    }

    /// Work nobody follows.
    pub fn unobserved() -> Self {
        Task::new(Arc::new(Unobserved), Cancel::default())
    }

    /// Fails with `CANCELLED` once someone asked for the end.
    pub fn check(&self) -> Result<()> {
        if self.inner.cancel.is_cancelled() {
            return Err(Error::new(Code::Cancelled, "the job was cancelled"));
        }
        Ok(())
    }

    /// The switch, for handing on.
    pub fn cancel(&self) -> &Cancel {
        &self.inner.cancel
    }

    /// A piece of the same work that can no longer be cancelled: what must be finished once begun,
    /// such as starting a server again.
    pub fn shielded(&self) -> Task {
        Task::counting(self.inner.observer.clone(), Cancel::default(), self.inner.moved.clone())
    }

    /// Begins a phase: the counter starts at 0 of `total` bytes (0 = not known).
    pub fn phase(&self, name: &str, total: u64) {
        *self.inner.phase.lock().unwrap_or_else(|p| p.into_inner()) = name.to_owned();
        self.inner.done.store(0, Ordering::Relaxed);
        self.inner.total.store(total, Ordering::Relaxed);
        self.inner.observer.progress(&self.progress());
    }

    /// `bytes` more went through.
    pub fn advance(&self, bytes: u64) {
        self.inner.done.fetch_add(bytes, Ordering::Relaxed);
        self.inner.moved.fetch_add(bytes, Ordering::Relaxed);
        self.inner.observer.progress(&self.progress());
    }

    /// The numbers now.
    pub fn progress(&self) -> Progress {
        Progress {
            phase: self.inner.phase.lock().unwrap_or_else(|p| p.into_inner()).clone(),
            done: self.inner.done.load(Ordering::Relaxed),
            total: self.inner.total.load(Ordering::Relaxed),
            moved: self.inner.moved.load(Ordering::Relaxed),
            elapsed_ms: self.inner.watch.elapsed().as_millis() as u64,
        }
    }

    /// Says something to whoever follows.
    pub fn info(&self, text: impl AsRef<str>) {
        self.inner.observer.event(Severity::Info, text.as_ref());
    }

    /// Says that something is weaker than it should be.
    pub fn warn(&self, text: impl AsRef<str>) {
        self.inner.observer.event(Severity::Warning, text.as_ref());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shielded_task_outlives_the_cancel() {
        let task = Task::unobserved();
        let shielded = task.shielded();
        task.cancel().cancel();
        assert_eq!(task.check().map_err(|e| e.code()), Err(Code::Cancelled));
        assert!(shielded.check().is_ok());
    }

    #[test]
    fn what_moved_is_counted_over_all_phases() {
        let task = Task::unobserved();
        task.phase("dumping", 10);
        task.advance(7);
        task.phase("reading back", 10);
        task.advance(3);
        task.shielded().advance(5);
        let progress = task.progress();
        assert_eq!((progress.done, progress.moved), (3, 15));
        task.phase("signing", 0);
        assert_eq!((task.progress().done, task.progress().moved), (0, 15));
    }
}
