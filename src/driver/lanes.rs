//! Lanes of one tree, read side by side: the first one takes what must come last and so waits for all others.

use crate::base::{Code, Error, Result};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

/// How far the lanes beside the first are.
#[derive(Default)]
pub(super) struct Lanes {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Lanes beside the first that have not ended.
    running: usize,
    /// One of them failed.
    failed: bool,
}

impl Lanes {
    /// The ends of `others` lanes, to be kept by each until it has read all its files.
    pub(super) fn begin(others: usize) -> (Arc<Lanes>, Vec<LaneEnd>) {
        let lanes = Arc::new(Lanes::default());
        lanes.lock().running = others;
        let ends = (0..others).map(|_| LaneEnd { lanes: lanes.clone(), whole: false }).collect();
        (lanes, ends)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Waits until every other lane has read its files, but no longer than `at_most`; whether they have.
    pub(super) fn await_others(&self, at_most: Duration) -> Result<bool> {
        let waiting = |state: &mut State| state.running > 0 && !state.failed;
        let (state, _) = self
            .changed
            .wait_timeout_while(self.lock(), at_most, waiting)
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        if state.failed {
            return Err(Error::new(Code::Cancelled, "another lane of the backup failed"));
        }
        Ok(state.running == 0)
    }
}

/// Counts a lane as ended, also when it is abandoned before it was opened.
pub(super) struct LaneEnd {
    lanes: Arc<Lanes>,
    whole: bool,
}

impl LaneEnd {
    /// The lane has read all its files.
    pub(super) fn succeed(mut self) {
        self.whole = true;
    }
}

impl Drop for LaneEnd {
    fn drop(&mut self) {
        let mut state = self.lanes.lock();
        state.running -= 1;
        state.failed |= !self.whole;
        self.lanes.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOMENT: Duration = Duration::from_millis(1);

    #[test]
    fn the_first_lane_goes_on_when_all_others_have_ended_well() {
        let (lanes, mut ends) = Lanes::begin(2);
        ends.pop().expect("a lane").succeed();
        assert!(!lanes.await_others(MOMENT).expect("waiting"));
        ends.pop().expect("a lane").succeed();
        assert!(lanes.await_others(MOMENT).expect("ended"));
        assert!(Lanes::begin(0).0.await_others(MOMENT).expect("alone"));
    }

    #[test]
    fn a_lane_that_fails_ends_the_first() {
        let (lanes, mut ends) = Lanes::begin(2);
        ends.pop().expect("a lane").succeed();
        drop(ends);
        assert_eq!(lanes.await_others(MOMENT).map_err(|e| e.code()), Err(Code::Cancelled));
    }
}
