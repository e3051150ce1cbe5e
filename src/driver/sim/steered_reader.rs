//! A stream that pauses and fails where a test wants it to.

use super::POLL_INTERVAL;
use super::control::Control;
use crate::base::clock::wait_until;
use crate::base::task::Task;
use crate::base::{Code, Error, Result};
use std::io::Read;
use std::time::Duration;

/// Longest pause: a test that forgot its reader must not hang for ever.
const LONGEST_PAUSE: Duration = Duration::from_secs(600);

/// Passes `inner` on, up to the places that the control files name.
pub(super) struct SteeredReader<R> {
    inner: R,
    control: Control,
    task: Task,
    position: u64,
    pause_at: Option<u64>,
    fail_at: Option<u64>,
}

impl<R: Read> SteeredReader<R> {
    /// Reads the control files once, now.
    pub(super) fn new(inner: R, control: &Control, task: &Task) -> Result<Self> {
        let (pause_at, fail_at) = (control.pause_at()?, control.fail_at()?);
        Ok(SteeredReader { inner, control: control.clone(), task: task.clone(), position: 0, pause_at, fail_at })
    }

    /// A stream of the log, which pauses at a place of its own.
    pub(super) fn of_log(inner: R, control: &Control, task: &Task) -> Result<Self> {
        let pause_at = control.pause_log_at()?;
        Ok(SteeredReader { inner, control: control.clone(), task: task.clone(), position: 0, pause_at, fail_at: None })
    }

    fn pause(&self) -> Result<()> {
        let ended = wait_until(LONGEST_PAUSE, POLL_INTERVAL, || self.control.may_go() || self.task.check().is_err());
        self.task.check()?;
        if ended {
            return Ok(());
        }
        Err(Error::new(Code::ToolTimeout, "reading the fake database: nobody let the paused reader go on"))
    }
}

impl<R: Read> Read for SteeredReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.task.check()?;
        if self.fail_at.is_some_and(|at| at <= self.position) {
            let text = format!("reading the fake database: it was told to fail after {} bytes", self.position);
            return Err(Error::new(Code::IoFailed, text).into());
        }
        if self.pause_at.is_some_and(|at| at <= self.position) {
            self.pause()?;
            self.pause_at = None;
        }
        // Never across a place where something shall happen, so that it happens at that very byte.
        let next = self.pause_at.into_iter().chain(self.fail_at).min().unwrap_or(u64::MAX);
        let room = usize::try_from(next - self.position).unwrap_or(usize::MAX).min(buffer.len());
        let count = self.inner.read(&mut buffer[..room])?;
        self.position += count as u64;
        Ok(count)
    }
}
