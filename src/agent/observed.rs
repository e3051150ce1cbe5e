//! One job as its followers see it. The newest numbers are kept and overwritten, so that however often the work
//! reports, a follower reads as often as it likes and never misses the last state; events are kept in order.

use super::job::Happening;
use super::lanes::Lane;
use crate::base::clock::Stopwatch;
use crate::base::ids::JobId;
use crate::base::task::{Cancel, Observer, Progress, Severity};
use crate::base::{Code, Error};
use crate::operation::answer::{Answer, JobRecord, JobState};
use crate::operation::request::Request;
use jiff::Timestamp;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::sync::{broadcast, watch};

/// Events that a job keeps for those who begin to follow it late.
pub const EVENTS_KEPT: usize = 100;
/// Events that a slow follower may fall behind by before it misses some.
pub const EVENTS_QUEUED: usize = 256;

/// Something a job said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// How much it matters.
    pub severity: Severity,
    /// What was said.
    pub text: String,
}

/// How a job ended.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// With an answer, which can be bad news: see [`Outcome::error`].
    Answer(Arc<Answer>),
    /// With an error: code, message, hint.
    Error {
        /// The registered code.
        code: Code,
        /// What was tried on what.
        message: String,
        /// What to do.
        hint: String,
    },
}

impl Outcome {
    /// The outcome as the caller of the work would have got it.
    pub fn to_result(&self) -> Result<Answer, Error> {
        match self {
            Outcome::Answer(answer) => Ok((**answer).clone()),
            Outcome::Error { code, message, hint } => Err(Error::new(*code, message.clone()).with_hint(hint.clone())),
        }
    }

    /// The error it ended with: its own, or the one that its answer amounts to.
    pub fn error(&self) -> Option<Error> {
        match self {
            Outcome::Answer(answer) => answer.verdict(),
            Outcome::Error { .. } => self.to_result().err(),
        }
    }
}

/// A job at one moment.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Its state.
    pub state: JobState,
    /// Its newest numbers; after the end, its last ones.
    pub progress: Progress,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// How it ended.
    pub outcome: Option<Outcome>,
}

/// What a follower gets: the past, and two ends to wait on.
pub struct Following {
    /// Events so far, oldest first, at most [`EVENTS_KEPT`].
    pub past: Vec<Event>,
    /// Events from now on.
    pub events: broadcast::Receiver<Event>,
    /// The newest state; its last value is final.
    pub snapshot: watch::Receiver<Snapshot>,
}

/// A job, running or recently ended.
pub struct Job {
    /// Its number.
    pub id: JobId,
    /// What was asked.
    pub request: Request,
    /// Who asked: a user's name.
    pub actor: String,
    /// When it was taken on.
    pub started_at: Timestamp,
    /// The lanes it occupies while it runs.
    pub lanes: Vec<Lane>,
    pub(super) cancel: Cancel,
    watch: Stopwatch,
    snapshot: watch::Sender<Snapshot>,
    events: Mutex<Events>,
}

struct Events {
    kept: VecDeque<Event>,
    sender: broadcast::Sender<Event>,
}

impl Job {
    pub(super) fn new(id: JobId, request: Request, actor: &str, started_at: Timestamp, lanes: Vec<Lane>) -> Self {
        let first = Snapshot { state: JobState::Queued, progress: Progress::default(), ended_at: None, outcome: None };
        Job {
            id,
            request,
            actor: actor.to_owned(),
            started_at,
            lanes,
            cancel: Cancel::default(),
            watch: Stopwatch::start(),
            snapshot: watch::Sender::new(first),
            events: Mutex::new(Events {
                kept: VecDeque::with_capacity(EVENTS_KEPT),
                sender: broadcast::Sender::new(EVENTS_QUEUED),
            }),
        }
    }

    /// Follows the job from here on, without a gap to the past that comes along.
    pub fn follow(&self) -> Following {
        let events = self.lock_events();
        Following {
            past: events.kept.iter().cloned().collect(),
            events: events.sender.subscribe(),
            snapshot: self.snapshot.subscribe(),
        }
    }

    /// The job now.
    pub fn snapshot(&self) -> Snapshot {
        self.snapshot.borrow().clone()
    }

    /// Microseconds since it was taken on; once it has ended, how long it took.
    pub fn elapsed_us(&self) -> u64 {
        match self.snapshot.borrow().ended_at {
            Some(end) => end.as_microsecond().saturating_sub(self.started_at.as_microsecond()).max(0) as u64,
            None => self.watch.elapsed().as_micros() as u64,
        }
    }

    /// The job as `jobs` lists it and the ledger keeps it.
    pub fn record(&self) -> JobRecord {
        let snapshot = self.snapshot();
        let error = snapshot.outcome.as_ref().and_then(Outcome::error);
        let (error_code, message) =
            error.map(|error| (error.code().name().to_owned(), error.message().to_owned())).unzip();
        JobRecord {
            id: self.id,
            verb: self.request.verb().to_owned(),
            target: self.request.target().cloned(),
            state: snapshot.state,
            started_at: self.started_at,
            ended_at: snapshot.ended_at,
            progress: (!snapshot.state.is_final()).then_some(snapshot.progress),
            error_code,
            message,
        }
    }

    /// Moves the state; what is illegal is refused and changes nothing.
    pub(super) fn apply(&self, happening: Happening) -> Result<JobState, super::job::IllegalTransition> {
        let mut result = Ok(JobState::Queued);
        self.snapshot.send_if_modified(|snapshot| {
            result = snapshot.state.next(happening);
            match result {
                Ok(next) => {
                    let moved = next != snapshot.state;
                    snapshot.state = next;
                    moved
                }
                Err(_) => false,
            }
        });
        result
    }

    /// Moves the state to its end, with the outcome, in one step that no follower sees half of.
    pub(super) fn end(&self, state: JobState, at: Timestamp, outcome: Outcome) {
        debug_assert!(state.is_final());
        self.snapshot.send_modify(|snapshot| {
            snapshot.state = state;
            snapshot.ended_at = Some(at);
            snapshot.outcome = Some(outcome);
        });
    }

    fn lock_events(&self) -> MutexGuard<'_, Events> {
        self.events.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Observer for Job {
    fn event(&self, severity: Severity, text: &str) {
        let event = Event { severity, text: text.to_owned() };
        let mut events = self.lock_events();
        if events.kept.len() == EVENTS_KEPT {
            events.kept.pop_front();
        }
        events.kept.push_back(event.clone());
        // Nobody follows: fine.
        let _ = events.sender.send(event);
    }

    fn progress(&self, progress: &Progress) {
        self.snapshot.send_if_modified(|snapshot| {
            let moves = !snapshot.state.is_final() && snapshot.progress != *progress;
            if moves {
                snapshot.progress = progress.clone();
            }
            moves
        });
    }
}
