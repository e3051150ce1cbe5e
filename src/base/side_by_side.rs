//! Some pieces of work at a time, each on a thread of its own.

use super::Result;
use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Does `work` on each of `items`, up to `at_once` of them at a time, beginning in their order. The results come back in
/// that order too. After the first error no further piece is begun; that error is the result.
pub fn each<T: Send, R: Send>(items: Vec<T>, at_once: usize, work: impl Fn(T) -> Result<R> + Sync) -> Result<Vec<R>> {
    let threads = at_once.min(items.len());
    let queue: Mutex<VecDeque<(usize, T)>> = Mutex::new(items.into_iter().enumerate().collect());
    let (done, failure) = (Mutex::new(Vec::new()), Mutex::new(None));
    let take = || {
        while lock(&failure).is_none() {
            let next = lock(&queue).pop_front();
            let Some((index, item)) = next else { return };
            match work(item) {
                Ok(result) => lock(&done).push((index, result)),
                Err(error) => {
                    lock(&failure).get_or_insert(error);
                }
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..threads {
            scope.spawn(take);
        }
        take();
    });
    if let Some(error) = failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
        return Err(error);
    }
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_by_key(|(index, _)| *index);
    Ok(done.into_iter().map(|(_, result)| result).collect())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{Code, Error};
    use std::sync::Barrier;

    #[test]
    fn results_come_in_order_and_work_goes_side_by_side() {
        let both = Barrier::new(2);
        let doubled = each(vec![1, 2], 2, |n| {
            // Neither gets past this alone.
            both.wait();
            Ok(2 * n)
        });
        assert_eq!(doubled.expect("done"), [2, 4]);
        assert_eq!(each((0..100).collect(), 3, Ok).expect("done"), (0..100).collect::<Vec<_>>());
        assert!(each(Vec::<u8>::new(), 2, Ok).expect("nothing").is_empty());
    }

    #[test]
    fn nothing_is_begun_after_an_error() {
        let begun = Mutex::new(Vec::new());
        let outcome = each((0..10).collect(), 1, |n| {
            lock(&begun).push(n);
            if n == 3 { Err(Error::new(Code::IoFailed, "three")) } else { Ok(()) }
        });
        assert_eq!((outcome.map_err(|e| e.code()), lock(&begun).len()), (Err(Code::IoFailed), 4));
    }
}
