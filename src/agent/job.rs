//! A job's life, as a pure state machine: what may follow what, and nothing else.
//!
//! ```text
//!   ┌────────┐ start  ┌─────────┐ succeed  ┌───────────┐
//!   │ queued │ ─────► │ running │ ───────► │ succeeded │ ◄─┐
//!   └────────┘        └─────────┘          └───────────┘   │
//!     │    │ cancel    │       │ fail      ┌───────────┐   │
//!     │    │    cancel │       └─────────► │  failed   │   │ succeed: it was done before it looked
//!     │    ▼           ▼                   └───────────┘   │
//!     │  ┌───────────────┐ fail                  ▲  ▲      │
//!     │  │  cancelling   │ ──────────────────────┘  │      │
//!     │  │               │ ─────────────────────────┼──────┘
//!     │  └───────────────┘ stop    ┌───────────┐    │
//!     │          └───────────────► │ cancelled │    │
//!     │                            └───────────┘    │
//!     └─ fail: its thread could not be started ─────┘
//!
//!   queued, running, cancelling ── agent-ended ──► interrupted
//! ```
//!
//! A final state is entered together with the job's outcome, so a job that is cancelled before it began is first
//! cancelling, too.

use crate::operation::answer::JobState;

/// Something that happens to a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Happening {
    /// Its thread begins to work.
    Start,
    /// Someone asks it to end.
    Cancel,
    /// The work ended well.
    Succeed,
    /// The work ended in an error.
    Fail,
    /// The work ended early because it was asked to.
    Stop,
    /// The agent ended under it; found out at its next start.
    AgentEnded,
}

impl Happening {
    /// Everything that can happen.
    pub const ALL: &'static [Happening] = &[
        Happening::Start,
        Happening::Cancel,
        Happening::Succeed,
        Happening::Fail,
        Happening::Stop,
        Happening::AgentEnded,
    ];
}

/// Something happened that cannot happen in this state: a bug of the caller's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a job that is {} cannot {happening:?}", state.as_str())]
pub struct IllegalTransition {
    /// The state it was in, and stays in.
    pub state: JobState,
    /// What was said to have happened.
    pub happening: Happening,
}

impl JobState {
    /// The state after `happening`.
    pub fn next(self, happening: Happening) -> Result<JobState, IllegalTransition> {
        use Happening as H;
        use JobState as S;
        Ok(match (self, happening) {
            (S::Queued, H::Start) => S::Running,
            (S::Queued | S::Running | S::Cancelling, H::Cancel) => S::Cancelling,
            (S::Running | S::Cancelling, H::Succeed) => S::Succeeded,
            (S::Queued | S::Running | S::Cancelling, H::Fail) => S::Failed,
            (S::Cancelling, H::Stop) => S::Cancelled,
            (S::Queued | S::Running | S::Cancelling, H::AgentEnded) => S::Interrupted,
            (state, happening) => return Err(IllegalTransition { state, happening }),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn happenings() -> impl Strategy<Value = Vec<Happening>> {
        proptest::collection::vec(proptest::sample::select(Happening::ALL.to_vec()), 0..40)
    }

    proptest! {
        #[test]
        fn what_is_final_stays(happenings in happenings()) {
            let mut state = JobState::Queued;
            for happening in happenings {
                match state.next(happening) {
                    Ok(next) => {
                        prop_assert!(!state.is_final(), "{state:?} was left by {happening:?}");
                        // Nothing is "cancelled" unless somebody asked.
                        if next == JobState::Cancelled {
                            prop_assert_eq!(state, JobState::Cancelling);
                        }
                        // Nothing succeeds that was never started.
                        if next == JobState::Succeeded {
                            prop_assert!(state != JobState::Queued);
                        }
                        state = next;
                    }
                    Err(refused) => prop_assert_eq!(refused, IllegalTransition { state, happening }),
                }
            }
        }
    }

    #[test]
    fn every_state_that_is_not_final_can_end() {
        for state in [JobState::Queued, JobState::Running, JobState::Cancelling] {
            assert_eq!(state.next(Happening::AgentEnded), Ok(JobState::Interrupted));
            assert_eq!(state.next(Happening::Fail), Ok(JobState::Failed));
        }
    }

    #[test]
    fn asking_twice_is_asking_once() {
        for state in [JobState::Queued, JobState::Running] {
            let cancelling = state.next(Happening::Cancel).expect("first");
            assert_eq!(cancelling.next(Happening::Cancel), Ok(JobState::Cancelling));
            assert!(cancelling.next(Happening::Start).is_err(), "what was cancelled is not begun");
        }
    }
}
