//! Bounded, jittered delays between tries.

use super::error::RetryClass;
use super::task::Task;
use super::{Error, Result};
use std::time::Duration;

/// How often and how patiently something is tried again.
#[derive(Clone, Copy, Debug)]
pub struct RetryPolicy {
    /// Tries in all, the first included.
    pub attempts: u32,
    /// The pause after the first failure; it doubles each time.
    pub first_pause: Duration,
    /// No pause is longer.
    pub longest_pause: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        RetryPolicy { attempts: 4, first_pause: Duration::from_millis(200), longest_pause: Duration::from_secs(10) }
    }
}

impl RetryPolicy {
    /// The pause after failure number `failure` (from 1): doubling, capped, the upper half left to chance (`0.0..1.0`)
    /// so that many hosts do not come back in step.
    pub fn pause(&self, failure: u32, chance: f64) -> Duration {
        let doubled = self.first_pause.saturating_mul(1u32.checked_shl(failure.saturating_sub(1)).unwrap_or(u32::MAX));
        let capped = doubled.min(self.longest_pause);
        capped.mul_f64(0.5 + chance.clamp(0.0, 1.0) / 2.0)
    }

    /// Runs `work` until it succeeds, fails for good, or the tries are used up. Only errors whose code says that
    /// trying again can help are tried again.
    pub fn run<T>(&self, task: &Task, what: &str, mut work: impl FnMut() -> Result<T>) -> Result<T> {
        let mut failure = 0;
        loop {
            task.check()?;
            let error: Error = match work() {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            failure += 1;
            if error.code().retry() == RetryClass::Never || failure >= self.attempts {
                return Err(error);
            }
            let pause = self.pause(failure, chance());
            task.warn(format!("{what}: {error}; trying again in {} ms", pause.as_millis()));
            std::thread::sleep(pause);
        }
    }
}

fn chance() -> f64 {
    let mut byte = [0u8; 1];
    let _ = openssl::rand::rand_bytes(&mut byte);
    f64::from(byte[0]) / 255.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Code;

    #[test]
    fn pauses_grow_and_stay_below_the_cap() {
        let policy = RetryPolicy { attempts: 9, ..RetryPolicy::default() };
        assert!(policy.pause(1, 0.0) < policy.pause(3, 0.0));
        assert!(policy.pause(60, 1.0) <= policy.longest_pause);
    }

    #[test]
    fn what_cannot_get_better_is_not_tried_again() {
        let policy = RetryPolicy { first_pause: Duration::ZERO, ..RetryPolicy::default() };
        let mut calls = 0;
        let _ = policy.run(&Task::unobserved(), "x", || -> Result<()> {
            calls += 1;
            Err(Error::new(Code::WrongKey, "no"))
        });
        assert_eq!(calls, 1);
        let mut calls = 0;
        let _ = policy.run(&Task::unobserved(), "x", || -> Result<()> {
            calls += 1;
            Err(Error::new(Code::RepositoryIo, "no"))
        });
        assert_eq!(calls, policy.attempts);
    }
}
