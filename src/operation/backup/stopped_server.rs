//! A server that was stopped for a backup or a restore, and is started again whatever happens.

use crate::base::Result;
use crate::base::clock::Stopwatch;
use crate::base::task::Task;
use crate::host::HostOps;
use crate::operation::context::Target;
use std::time::Duration;

/// How long a started server has to answer.
pub(crate) const READY_TIMEOUT: Duration = Duration::from_secs(180);

/// Holds a server stopped. Dropping it starts the server: on an error, on a cancelled job, on a panic. After a kill,
/// the record that `HostOps::stop` made first does the same at the agent's next start.
pub(crate) struct StoppedServer<'a> {
    host: &'a dyn HostOps,
    target: &'a Target,
    task: Task,
    watch: Stopwatch,
    started: bool,
}

impl<'a> StoppedServer<'a> {
    /// Stops the target's server.
    pub(crate) fn stop(host: &'a dyn HostOps, target: &'a Target, task: &Task) -> Result<Self> {
        task.info(format!("stopping the server of {}", target.name));
        let watch = Stopwatch::start();
        host.stop(&target.name, &target.service, task)?;
        // A cancelled job must not cancel the restart.
        Ok(StoppedServer { host, target, task: task.shielded(), watch, started: false })
    }

    /// Starts it and waits until it answers; returns how long it was away.
    pub(crate) fn start(mut self) -> Result<Duration> {
        self.started = true;
        self.host.start(&self.target.name, &self.target.service, &self.task)?;
        self.target.driver.wait_ready(READY_TIMEOUT, &self.task)?;
        self.task.info(format!("the server of {} is up again", self.target.name));
        Ok(self.watch.elapsed())
    }
}

impl Drop for StoppedServer<'_> {
    fn drop(&mut self) {
        if self.started {
            return;
        }
        if let Err(error) = self.host.start(&self.target.name, &self.target.service, &self.task) {
            // The record stays, so the agent's next start tries again; nobody must learn it from the users.
            self.task.warn(format!("the server of {} could not be started again: {error}", self.target.name));
        }
    }
}
