//! Where requests go: over the bus to the agent, or to work done in this process.

use crate::base::Result;
use crate::base::ids::JobId;
use crate::base::task::{Progress, Severity};
use crate::operation::answer::Answer;
use crate::operation::request::Request;

/// Someone who watches a job from the terminal.
pub trait Watcher {
    /// The job has a number now.
    fn started(&mut self, job: JobId);
    /// The numbers moved.
    fn progress(&mut self, progress: &Progress);
    /// The job said something.
    fn event(&mut self, severity: Severity, text: &str);
}

/// What came of a request.
#[derive(Debug)]
pub enum Reply {
    /// Its answer.
    Answer(Box<Answer>),
    /// The job runs, and nobody wanted to wait for it.
    Started(JobId),
    /// The job runs on, but whoever waited for it left.
    Detached(JobId),
}

/// Takes requests.
pub trait Backend {
    /// Asks something that is answered at once.
    fn query(&self, request: &Request) -> Result<Answer>;

    /// Starts a job and, if `wait`, follows it to its end.
    fn run(&self, request: &Request, wait: bool, watcher: &mut dyn Watcher) -> Result<Reply>;

    /// Follows a job that runs already.
    fn follow(&self, job: JobId, watcher: &mut dyn Watcher) -> Result<Reply>;
}
