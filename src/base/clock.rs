//! The only place that reads the wall clock.

use jiff::Timestamp;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Where the time comes from. Tests set it; everything else asks the system.
pub trait Clock: Send + Sync {
    /// The current time in UTC.
    fn now(&self) -> Timestamp;
}

/// The host's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }
}

/// A clock that stands still until it is moved.
#[derive(Debug)]
pub struct FixedClock(Mutex<Timestamp>);

impl FixedClock {
    /// A clock that shows `time`.
    pub fn new(time: Timestamp) -> Self {
        FixedClock(Mutex::new(time))
    }

    /// Moves the clock, backwards too.
    pub fn set(&self, time: Timestamp) {
        *self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = time;
    }
}

impl Clock for FixedClock {
    fn now(&self) -> Timestamp {
        *self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// Measures how long something takes; unaffected by changes of the wall clock.
#[derive(Clone, Copy, Debug)]
pub struct Stopwatch(Instant);

impl Stopwatch {
    /// Starts measuring.
    pub fn start() -> Self {
        Stopwatch(Instant::now())
    }

    /// The time since the start.
    pub fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }
}

/// Polls `ready` every `interval` until it says yes or `timeout` has passed; tells which.
/// For conditions of other processes, which offer nothing to wait on.
pub fn wait_until(timeout: Duration, interval: Duration, mut ready: impl FnMut() -> bool) -> bool {
    let watch = Stopwatch::start();
    loop {
        if ready() {
            return true;
        }
        if watch.elapsed() >= timeout {
            return false;
        }
        std::thread::sleep(interval.min(timeout.saturating_sub(watch.elapsed())));
    }
}
