//! Another configuration for an agent that runs. What works with the present one is left to end first: no two
//! configurations are ever at work at the same time, so that nothing in them need know of the other.

use super::jobs::{END_INTERVAL, Registry};
use crate::base::clock::Stopwatch;
use crate::base::{Code, Error, Result};
use crate::telemetry::record::{Occasion, Record};
use std::sync::TryLockError;
use std::time::Duration;

/// How far an exchange of the configuration is.
#[derive(Debug, Default)]
pub(super) struct Renewal {
    /// Somebody asked for it.
    wanted: bool,
    /// No job runs, and continuous shipping ends for it.
    pub(super) begun: bool,
    /// How many there were.
    count: u64,
    /// Why the last one came to nothing.
    failure: Option<String>,
}

/// What became of a request for the present configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reloaded {
    /// It is in force.
    InForce,
    /// It will be, once the jobs that run have ended.
    Awaited,
}

impl Registry {
    /// Reads the configuration again. One that is wrong is an error, and the present one stays in force. Waits for
    /// `patience` until it is in force.
    pub fn reload(&self, patience: Duration) -> Result<Reloaded> {
        // Only to see whether it could be used: by the time of the exchange it is read again.
        self.workshop().renewed()?;
        let watch = Stopwatch::start();
        let mut table = self.lock();
        if table.stopping {
            return Err(Error::new(Code::Busy, "the agent is stopping"));
        }
        table.renewal.wanted = true;
        let before = table.renewal.count;
        self.ended.notify_all();
        while table.renewal.count == before {
            let left = patience.saturating_sub(watch.elapsed());
            if left.is_zero() || table.stopping {
                return Ok(Reloaded::Awaited);
            }
            table = self.ended.wait_timeout(table, left).unwrap_or_else(|poisoned| poisoned.into_inner()).0;
        }
        match &table.renewal.failure {
            None => Ok(Reloaded::InForce),
            Some(why) => Err(Error::new(Code::ConfigInvalid, format!("the configuration changed meanwhile: {why}"))),
        }
    }

    /// Waits until another configuration is wanted and no job runs; continuous shipping then ends. `false` once the
    /// agent stops.
    pub(super) fn await_renewal(&self) -> bool {
        let mut table = self.lock();
        loop {
            if table.stopping {
                return false;
            }
            if table.renewal.wanted && table.running.is_empty() {
                table.renewal.begun = true;
                self.ended.notify_all();
                return true;
            }
            table = self.ended.wait_timeout(table, END_INTERVAL).unwrap_or_else(|poisoned| poisoned.into_inner()).0;
        }
    }

    /// Exchanges the configuration, unless a job came first: then there will be another turn. Continuous shipping has
    /// ended.
    pub(super) fn renew(&self) {
        // No job can begin until this is over.
        let _one_at_a_time = self.starting.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let mut table = self.lock();
        table.renewal.begun = false;
        if !table.running.is_empty() || table.stopping {
            return;
        }
        // Questions and pieces of logs that came before are still being answered; new ones need not wait for them.
        let mut workshop = match self.workshop.try_write() {
            Ok(workshop) => workshop,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => {
                let _ = self.ended.wait_timeout(table, END_INTERVAL);
                return;
            }
        };
        table.renewal.wanted = false;
        table.renewal.count += 1;
        let renewed = workshop.renewed();
        table.renewal.failure = renewed.as_ref().err().map(ToString::to_string);
        match renewed {
            Ok(renewed) => {
                *workshop = renewed;
                Record::new(Occasion::AgentReloaded, "the configuration was read again and is in force").emit();
            }
            Err(error) => tracing::error!("the configuration was not taken over: {error}"),
        }
        self.ended.notify_all();
    }
}
