//! The real [`Workshop`]: the assembled [`Context`], its verbs and its ledger.

use super::assemble;
use super::workshop::Workshop;
use crate::base::Result;
use crate::base::ids::{JobId, TargetName};
use crate::base::task::Task;
use crate::operation::answer::{Answer, JobRecord};
use crate::operation::context::{Context, Target};
use crate::operation::fetch::{self, Fetched};
use crate::operation::hand_over;
use crate::operation::request::Request;
use jiff::Timestamp;
use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// The context, and the file that it was assembled from.
pub(super) struct Assembled {
    pub(super) context: Arc<Context>,
    pub(super) config: PathBuf,
}

impl Workshop for Assembled {
    fn execute(&self, request: &Request, job: Option<JobId>, actor: &str, task: &Task) -> Result<Answer> {
        crate::operation::execute(&self.context, request, job, actor, task)
    }

    fn job_begin(&self, request: &Request, actor: &str) -> Result<JobId> {
        self.context.ledger.job_begin(request.verb(), request.target(), actor)
    }

    fn job_end(&self, record: &JobRecord, _bytes: u64, _actor: &str) -> Result<()> {
        let error = record.error_code.as_deref().zip(record.message.as_deref());
        self.context.ledger.job_end(record.id, record.state.as_str(), error)
    }

    fn continuous(&self) -> Vec<(TargetName, Duration)> {
        let of = |target: &Target| Some((target.name.clone(), target.continuous?));
        self.context.targets.values().filter_map(of).collect()
    }

    fn ship(&self, target: &TargetName, task: &Task) -> Result<bool> {
        crate::operation::archive::ship(&self.context, target, task)
    }

    fn pulse(&self, target: &TargetName) -> Option<u64> {
        self.context.target(target).ok()?.driver.log()?.pulse()
    }

    fn take_log(&self, target: &TargetName, caller: u32, name: &str, piece: &mut File) -> Result<()> {
        hand_over::run(&self.context, target, caller, name, piece)
    }

    fn fetch_log(&self, target: &TargetName, caller: u32, name: &str, task: &Task) -> Result<Fetched> {
        fetch::run(&self.context, target, caller, name, task)
    }

    fn read_log_ahead(&self, target: &TargetName, name: &str, task: &Task) -> Result<()> {
        fetch::read_ahead(&self.context, target, name, task)
    }

    fn renewed(&self) -> Result<Arc<dyn Workshop>> {
        let context = assemble::renewed(&self.context, &self.config)?;
        Ok(Arc::new(Assembled { context, config: self.config.clone() }))
    }

    fn now(&self) -> Timestamp {
        self.context.clock.now()
    }
}
