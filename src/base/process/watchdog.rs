//! What follows a started program: the watchdog that ends it, and the reader of its last words.

use super::super::clock::Stopwatch;
use super::super::task::Cancel;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex};
use std::time::Duration;

/// Lines of standard error that are kept for the message.
const STDERR_LINES_KEPT: usize = 40;
/// How often the watchdog looks.
const WATCHDOG_INTERVAL: Duration = Duration::from_millis(50);

/// Shared between a program's owner, its reader and its watchdog.
pub(super) struct Watch {
    pub(super) pid: Pid,
    pub(super) ended: Mutex<bool>,
    pub(super) wake: Condvar,
    since: Stopwatch,
    /// Milliseconds on `since` when somebody began to wait for the program; `u64::MAX` = nobody waits.
    waiting_from: AtomicU64,
    pub(super) timed_out: AtomicBool,
}

impl Watch {
    /// Watches the group of the process `pid`, which has just been started; nobody waits for it yet.
    pub(super) fn of(pid: Pid) -> Self {
        Watch {
            pid,
            ended: Mutex::new(false),
            wake: Condvar::new(),
            since: Stopwatch::start(),
            waiting_from: AtomicU64::new(u64::MAX),
            timed_out: AtomicBool::new(false),
        }
    }

    pub(super) fn wait_begins(&self) {
        self.waiting_from.store(self.since.elapsed().as_millis() as u64, Ordering::SeqCst);
    }

    pub(super) fn wait_ends(&self) {
        self.waiting_from.store(u64::MAX, Ordering::SeqCst);
    }

    pub(super) fn kill(&self) {
        let ended = self.ended.lock().unwrap_or_else(|p| p.into_inner());
        // After the child was reaped its number may be someone else's.
        if !*ended {
            let _ = killpg(self.pid, Signal::SIGKILL);
        }
    }

    pub(super) fn guard(&self, cancel: &Cancel, idle_timeout: Duration) {
        let mut ended = self.ended.lock().unwrap_or_else(|p| p.into_inner());
        while !*ended {
            let from = self.waiting_from.load(Ordering::SeqCst);
            let now = self.since.elapsed().as_millis() as u64;
            let idle = from != u64::MAX && now.saturating_sub(from) > idle_timeout.as_millis() as u64;
            if idle {
                self.timed_out.store(true, Ordering::SeqCst);
            }
            if idle || cancel.is_cancelled() {
                let _ = killpg(self.pid, Signal::SIGKILL);
            }
            ended = self.wake.wait_timeout(ended, WATCHDOG_INTERVAL).unwrap_or_else(|p| p.into_inner()).0;
        }
    }
}

/// The last lines of a program's standard error, read to its end.
pub(super) fn last_lines(pipe: impl Read) -> String {
    let mut kept: VecDeque<String> = VecDeque::new();
    let mut reader = BufReader::new(pipe);
    let mut line = Vec::new();
    loop {
        line.clear();
        // A program that never ends its line must not fill our memory.
        match reader.by_ref().take(8192).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => break,
            Ok(_) => {
                if kept.len() == STDERR_LINES_KEPT {
                    kept.pop_front();
                }
                kept.push_back(String::from_utf8_lossy(&line).trim_end().to_owned());
            }
        }
    }
    kept.into_iter().collect::<Vec<_>>().join("\n")
}
