//! Shipping the log between the timers: for each target with `continuous`, a thread that archives what was committed
//! every few seconds.
//!
//! A round leaves no job and no events behind; there would be 17 000 a day. What goes on record is a change: a round that
//! fails is repeated as a job, which says in the ledger, in `status` and to whoever watches what is wrong, and so is the
//! first one that works again. A job that needs the log, or a restore, ends a round and goes first.

use super::jobs::{Registry, Turn};
use crate::base::Code;
use crate::base::clock::Stopwatch;
use crate::base::ids::TargetName;
use crate::operation::request::{ArchiveRequest, Request};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

/// Longest wait between two tries of what fails.
const RETRY_MAX: Duration = Duration::from_secs(60);
/// Wait after a base that the log needs could not be taken.
const BASE_RETRY: Duration = Duration::from_secs(900);
/// A log that looks untouched is read all the same after this long.
const UNTOUCHED_MAX: Duration = Duration::from_secs(60);
/// Who asks for the jobs that this starts.
pub const ACTOR: &str = "continuous";

/// What came of a round or of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Came {
    /// Everything that was committed is archived.
    Archived,
    /// Somebody else works on the log.
    Busy,
    /// A full backup must be taken first.
    BaseNeeded,
    /// It failed.
    Failed(Code),
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Another round after this long.
    Round(Duration),
    /// The same as a job, which goes on record.
    Job,
}

/// What is on record of the shipping, and how often it failed since.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shipping {
    recorded_failure: Option<Code>,
    failures: u32,
}

impl Shipping {
    /// After a round.
    pub fn after_round(&mut self, came: Came, interval: Duration) -> Next {
        match came {
            Came::Busy => Next::Round(interval),
            Came::Archived if self.recorded_failure.is_none() => {
                self.failures = 0;
                Next::Round(interval)
            }
            // That it works again goes on record, as its failure did.
            Came::Archived | Came::BaseNeeded => Next::Job,
            Came::Failed(code) if self.recorded_failure == Some(code) => Next::Round(self.wait_after(code, interval)),
            Came::Failed(_) => Next::Job,
        }
    }

    /// After a job; `needed` is why it was run.
    pub fn after_job(&mut self, came: Came, needed: Came, interval: Duration) -> Duration {
        match came {
            Came::Busy => interval,
            Came::Archived | Came::BaseNeeded => {
                *self = Shipping::default();
                interval
            }
            Came::Failed(code) => {
                self.recorded_failure = Some(code);
                let wait = self.wait_after(code, interval);
                if needed == Came::BaseNeeded { wait.max(BASE_RETRY) } else { wait }
            }
        }
    }

    /// Repositories that can be reached must not wait for one that is away: the server may remove what they lack.
    fn wait_after(&mut self, code: Code, interval: Duration) -> Duration {
        if code == Code::BackupPartial { interval } else { self.back_off(interval) }
    }

    fn back_off(&mut self, interval: Duration) -> Duration {
        self.failures = self.failures.saturating_add(1);
        interval
            .saturating_mul(1u32.checked_shl(self.failures.min(16)).unwrap_or(u32::MAX))
            .min(RETRY_MAX.max(interval))
    }
}

/// The thread that looks after those that ship. It ends when the registry stops.
pub struct Shippers(Option<JoinHandle<()>>);

impl Shippers {
    /// Waits for their end.
    pub fn join(self) {
        self.0.into_iter().for_each(|thread| drop(thread.join()));
    }
}

/// Ships the logs of the targets that want it, and exchanges the configuration when another one is asked for.
pub fn start(registry: &Arc<Registry>) -> Shippers {
    let registry = registry.clone();
    let thread = std::thread::Builder::new().name("shippers".to_owned()).spawn(move || look_after(&registry));
    let thread = thread.inspect_err(|cause| tracing::error!("continuous shipping could not be started: {cause}"));
    Shippers(thread.ok())
}

fn look_after(registry: &Arc<Registry>) {
    loop {
        let threads = ship_all(registry);
        let another = registry.await_renewal();
        threads.into_iter().for_each(|thread| drop(thread.join()));
        if !another {
            return;
        }
        registry.renew();
    }
}

/// A thread for each target that ships continuously.
fn ship_all(registry: &Arc<Registry>) -> Vec<JoinHandle<()>> {
    let mut threads = Vec::new();
    for (target, interval) in registry.continuous() {
        let name = format!("ship-{target}");
        let shipper = Shipper { registry: registry.clone(), target, interval, untouched: None };
        match std::thread::Builder::new().name(name).spawn(move || shipper.work()) {
            Ok(thread) => threads.push(thread),
            Err(cause) => tracing::error!("continuous shipping could not be started: {cause}"),
        }
    }
    threads
}

struct Shipper {
    registry: Arc<Registry>,
    target: TargetName,
    interval: Duration,
    /// What the log looked like when all of it was archived, and when that was.
    untouched: Option<(u64, Stopwatch)>,
}

impl Shipper {
    fn work(mut self) {
        let mut shipping = Shipping::default();
        let mut wait = self.interval;
        while self.registry.pause(wait) {
            let came = self.round();
            wait = match shipping.after_round(came, self.interval) {
                Next::Round(wait) => wait,
                Next::Job => shipping.after_job(self.job(), came, self.interval),
            };
        }
    }

    fn round(&mut self) -> Came {
        // Looked at first: what is written during the round is the next round's.
        let pulse = self.registry.pulse(&self.target);
        if let (Some(pulse), Some((then, since))) = (pulse, &self.untouched)
            && pulse == *then
            && since.elapsed() < UNTOUCHED_MAX
        {
            return Came::Archived;
        }
        let came = match self.registry.ship(&self.target) {
            Ok(Turn::Done { base_needed: false }) => Came::Archived,
            Ok(Turn::Done { base_needed: true }) => Came::BaseNeeded,
            Ok(Turn::Taken) => Came::Busy,
            Err(error) if matches!(error.code(), Code::Busy | Code::Cancelled) => Came::Busy,
            Err(error) => {
                tracing::debug!("shipping the log of {}: {error}", self.target);
                Came::Failed(error.code())
            }
        };
        self.untouched = pulse.filter(|_| came == Came::Archived).map(|pulse| (pulse, Stopwatch::start()));
        came
    }

    fn job(&self) -> Came {
        let request = Request::Archive(ArchiveRequest { target: self.target.clone(), dry_run: false });
        let job = match self.registry.start(request, ACTOR) {
            Ok(job) => job,
            Err(error) if error.code() == Code::Busy => return Came::Busy,
            Err(error) => return Came::Failed(error.code()),
        };
        match self.registry.wait_for(&job) {
            None => Came::Archived,
            Some(error) if matches!(error.code(), Code::Busy | Code::Cancelled) => Came::Busy,
            Some(error) => Came::Failed(error.code()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: Duration = Duration::from_secs(5);

    #[test]
    fn what_works_leaves_no_record() {
        let mut shipping = Shipping::default();
        for _ in 0..3 {
            assert_eq!(shipping.after_round(Came::Archived, SECOND), Next::Round(SECOND));
            assert_eq!(shipping.after_round(Came::Busy, SECOND), Next::Round(SECOND));
        }
    }

    #[test]
    fn one_repository_that_is_away_slows_nothing() {
        let mut shipping = Shipping::default();
        let partial = Came::Failed(Code::BackupPartial);
        assert_eq!(shipping.after_round(partial, SECOND), Next::Job);
        assert_eq!(shipping.after_job(partial, partial, SECOND), SECOND);
        for _ in 0..9 {
            assert_eq!(shipping.after_round(partial, SECOND), Next::Round(SECOND));
        }
    }

    #[test]
    fn a_failure_goes_on_record_once_and_so_does_its_end() {
        let mut shipping = Shipping::default();
        let failed = Came::Failed(Code::IoFailed);
        assert_eq!(shipping.after_round(failed, SECOND), Next::Job);
        assert_eq!(shipping.after_job(failed, failed, SECOND), 2 * SECOND);
        let Next::Round(wait) = shipping.after_round(failed, SECOND) else { panic!("it is on record") };
        assert!(wait > 2 * SECOND);
        assert_eq!(shipping.after_round(Came::Failed(Code::LogForked), SECOND), Next::Job, "another failure");
        let forked = Came::Failed(Code::LogForked);
        shipping.after_job(forked, forked, SECOND);
        assert_eq!(shipping.after_round(Came::Archived, SECOND), Next::Job, "it works again");
        assert_eq!(shipping.after_job(Came::Archived, Came::Archived, SECOND), SECOND);
        assert_eq!(shipping.after_round(Came::Archived, SECOND), Next::Round(SECOND));
    }

    #[test]
    fn a_base_that_cannot_be_taken_is_not_tried_every_few_seconds() {
        let mut shipping = Shipping::default();
        assert_eq!(shipping.after_round(Came::BaseNeeded, SECOND), Next::Job);
        let failed = Came::Failed(Code::BackupNoSpace);
        assert_eq!(shipping.after_job(failed, Came::BaseNeeded, SECOND), BASE_RETRY);
    }

    fn any_came() -> impl Strategy<Value = Came> {
        prop_oneof![
            Just(Came::Archived),
            Just(Came::Busy),
            Just(Came::BaseNeeded),
            Just(Came::Failed(Code::IoFailed)),
            Just(Came::Failed(Code::LogForked)),
        ]
    }

    proptest! {
        /// Whatever comes: what is on record as failed is what failed last, and no wait is longer than it may be.
        #[test]
        fn what_is_on_record_is_true_and_waits_are_bounded(
            rounds in proptest::collection::vec((any_came(), any_came()), 0..60),
            seconds in 1u64..600,
        ) {
            let interval = Duration::from_secs(seconds);
            let mut shipping = Shipping::default();
            for (round, job) in rounds {
                let wait = match shipping.after_round(round, interval) {
                    Next::Round(wait) => {
                        if let Came::Failed(code) = round {
                            prop_assert_eq!(shipping.recorded_failure, Some(code));
                        }
                        wait
                    }
                    Next::Job => {
                        let wait = shipping.after_job(job, round, interval);
                        match job {
                            Came::Failed(code) => prop_assert_eq!(shipping.recorded_failure, Some(code)),
                            Came::Archived | Came::BaseNeeded => prop_assert_eq!(shipping.recorded_failure, None),
                            Came::Busy => {}
                        }
                        wait
                    }
                };
                prop_assert!(wait >= interval && wait <= interval.max(BASE_RETRY));
            }
        }
    }
}
