//! Jobs that show no progress. They are told of and not ended: what holds one up is most often a server, a disk or a
//! network, and the job goes on once that does.

use super::observed::Job;
use crate::base::clock::Stopwatch;
use crate::base::ids::JobId;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// A job without progress for this long is told of.
pub const STALLED_AFTER: Duration = Duration::from_secs(15 * 60);

/// What is remembered of a job: what it looked like, since when, and whether it was told of.
struct Seen {
    phase: String,
    moved: (u64, u64),
    since: Stopwatch,
    told: bool,
}

/// Looks at the jobs again and again.
#[derive(Default)]
pub struct Stalls(BTreeMap<JobId, Seen>);

impl Stalls {
    /// The jobs without progress for longer than `limit`, each once until it goes on.
    pub fn newly(&mut self, running: &[Arc<Job>], limit: Duration) -> Vec<Arc<Job>> {
        self.0.retain(|id, _| running.iter().any(|job| job.id == *id));
        running.iter().filter(|job| self.look(job, limit)).cloned().collect()
    }

    fn look(&mut self, job: &Job, limit: Duration) -> bool {
        let progress = job.snapshot().progress;
        let moved = (progress.done, progress.moved);
        match self.0.get_mut(&job.id) {
            Some(seen) if seen.moved == moved && seen.phase == progress.phase => {
                let stalled = !seen.told && seen.since.elapsed() >= limit;
                seen.told |= stalled;
                stalled
            }
            _ => {
                let seen = Seen { phase: progress.phase, moved, since: Stopwatch::start(), told: false };
                self.0.insert(job.id, seen);
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::task::{Observer, Progress};
    use crate::operation::request::Request;

    #[test]
    fn a_job_is_told_of_once_until_it_goes_on() {
        let job = Arc::new(Job::new(JobId(7), Request::Rescan, "root", jiff::Timestamp::UNIX_EPOCH, Vec::new()));
        let running = [job.clone()];
        let mut stalls = Stalls::default();
        let mut told = |running: &[Arc<Job>]| stalls.newly(running, Duration::ZERO).len();
        assert_eq!((told(&running), told(&running), told(&running)), (0, 1, 0));
        job.progress(&Progress { moved: 5, ..Progress::default() });
        assert_eq!((told(&running), told(&running)), (0, 1), "it went on, and stopped again");
        assert_eq!((told(&[]), told(&running), told(&running)), (0, 0, 1), "another one of that number");
        assert!(Stalls::default().newly(&running, STALLED_AFTER).is_empty());
    }
}
