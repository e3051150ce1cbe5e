//! Where the store's asynchronous work runs: a small runtime of its own, on which synchronous callers wait.
//!
//! The caller's thread is parked, not entered into the runtime: so it does not matter whether it belongs to another
//! runtime already, and nothing here can panic because of it.

use crate::base::{Code, Error, Result};
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::OnceLock;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use tokio::runtime::{Handle, Runtime};

/// Threads that drive transfers: TLS and checksums of several parts at once keep two busy.
const WORKERS: usize = 2;

/// The runtime; made at the first call, so that a configured repository that nobody uses costs nothing.
#[derive(Default)]
pub(super) struct Bridge {
    runtime: OnceLock<Runtime>,
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Waits for a future on this thread.
pub(super) fn block<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut context = Context::from_waker(&waker);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park(),
        }
    }
}

impl Bridge {
    /// Where tasks can be spawned.
    pub(super) fn handle(&self) -> Result<&Handle> {
        if let Some(runtime) = self.runtime.get() {
            return Ok(runtime.handle());
        }
        let made = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(WORKERS)
            .thread_name("s3")
            .enable_all()
            .build()
            .map_err(|cause| Error::new(Code::IoFailed, format!("starting the threads of the S3 store: {cause}")))?;
        if let Err(second) = self.runtime.set(made) {
            // Two threads came first; a runtime must not be dropped the ordinary way inside another one.
            second.shutdown_background();
        }
        match self.runtime.get() {
            Some(runtime) => Ok(runtime.handle()),
            None => Err(Error::new(Code::Internal, "the S3 store has no runtime")),
        }
    }

    /// Runs a future to its end and waits for it.
    pub(super) fn wait<F>(&self, future: F) -> Result<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let task = self.handle()?.spawn(future);
        block(task).map_err(|cause| Error::new(Code::Internal, format!("a task of the S3 store ended early: {cause}")))
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_can_be_used_and_dropped_inside_another_runtime() {
        let outer = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
        outer.block_on(async {
            let bridge = Bridge::default();
            assert_eq!(bridge.wait(async { tokio::task::yield_now().await }).map_err(|e| e.code()), Ok(()));
        });
    }

    #[test]
    fn a_panic_in_a_task_is_an_error_of_its_caller() {
        let ended = Bridge::default().wait(async { panic!("on purpose") });
        assert_eq!(ended.map_err(|error| error.code()), Err(Code::Internal));
    }
}
