//! What the registry of jobs needs from the layer below. The real one is an assembled [`Context`]; tests have one whose
//! work they steer.
//!
//! [`Context`]: crate::operation::context::Context

use crate::base::ids::{JobId, TargetName};
use crate::base::task::Task;
use crate::base::{Code, Error, Result};
use crate::operation::answer::{Answer, JobRecord};
use crate::operation::fetch::Fetched;
use crate::operation::request::Request;
use jiff::Timestamp;
use std::fs::File;
use std::sync::Arc;
use std::time::Duration;

/// Where the work is done and put on record.
pub trait Workshop: Send + Sync {
    /// Does what is asked, in the calling thread. [`Request::Jobs`] and [`Request::Cancel`] never arrive here: the
    /// registry answers them. `job` is set for what [`Request::is_job`]; `actor` is who asked, a user's name.
    fn execute(&self, request: &Request, job: Option<JobId>, actor: &str, task: &Task) -> Result<Answer>;

    /// Puts a new job on record and gives it its number.
    fn job_begin(&self, request: &Request, actor: &str) -> Result<JobId>;

    /// Puts a job's end on record. `record.state` is final; `bytes` are those that went through in all of its
    /// phases.
    fn job_end(&self, record: &JobRecord, bytes: u64, actor: &str) -> Result<()>;

    /// The targets whose log is shipped between the timers, and how often.
    fn continuous(&self) -> Vec<(TargetName, Duration)> {
        Vec::new()
    }

    /// Archives what was committed, without a job's records; takes no base. Tells whether one is needed.
    fn ship(&self, target: &TargetName, _task: &Task) -> Result<bool> {
        Err(Error::new(Code::Internal, format!("the log of {target} is not shipped continuously")))
    }

    /// A number that is another one once the log was written to; `None` = not known, or being written right now.
    fn pulse(&self, _target: &TargetName) -> Option<u64> {
        None
    }

    /// Takes in what a server hands over of its log, from the user `caller`; see `operation::hand_over`.
    fn take_log(&self, target: &TargetName, _caller: u32, _name: &str, _piece: &mut File) -> Result<()> {
        Err(Error::new(Code::NotAvailable, format!("{target} does not hand over its log")))
    }

    /// Gives a server back a file of its log; see `operation::fetch`.
    fn fetch_log(&self, target: &TargetName, _caller: u32, _name: &str, _task: &Task) -> Result<Fetched> {
        Err(Error::new(Code::NotAvailable, format!("{target} does not ask for its log")))
    }

    /// Prepares what follows a file that was given back.
    fn read_log_ahead(&self, _target: &TargetName, _name: &str, _task: &Task) -> Result<()> {
        Ok(())
    }

    /// Another one, with the configuration as it is now. This one goes on until it is exchanged for that.
    fn renewed(&self) -> Result<Arc<dyn Workshop>> {
        Err(Error::new(Code::NotAvailable, "the configuration of this process is not read again"))
    }

    /// The time, from the one clock that everything uses.
    fn now(&self) -> Timestamp;
}
