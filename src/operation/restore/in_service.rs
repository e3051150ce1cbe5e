//! Which log is that of the data in service, where repositories hold those of several: a database that was made anew has a log of
//! its own, whose transactions count from the beginning again. It is the one of the base that was taken last, wherever.

use super::bases::Candidate;
use super::log_plan::LogPlan;
use crate::base::Result;
use crate::operation::context::{Context, Target};
use jiff::Timestamp;

/// The log that a base was taken of last, as far as is known.
pub(super) struct InService(Option<(Timestamp, String)>);

impl InService {
    /// As the record says, which may be older than the repositories.
    pub(super) fn by_the_record(context: &Context, target: &Target) -> Result<InService> {
        let bases = context.ledger.log_bases(&target.name)?.into_iter();
        Ok(InService(bases.map(|base| (base.created_at, base.chain.stream)).max()))
    }

    /// What a repository holds.
    pub(super) fn see(&mut self, candidates: &[Candidate]) {
        let held = candidates.iter().filter_map(|candidate| {
            let manifest = candidate.manifest.as_ref().ok()?;
            Some((manifest.created_at, candidate.base.history.stream.clone()))
        });
        self.0 = self.0.take().into_iter().chain(held).max();
    }

    /// Whether it is this one.
    pub(super) fn is(&self, stream: &str) -> bool {
        self.0.as_ref().is_some_and(|(_, newest)| newest == stream)
    }

    /// What is to be said of a plan that leads to another one.
    pub(super) fn remark(&self, log: &LogPlan) -> Option<String> {
        let (since, newest) = self.0.as_ref().filter(|_| !self.is(&log.history.stream))?;
        Some(format!(
            "this is the history of other data, which was left: of {}, while {newest} was backed up since, last at {since}",
            log.history.stream
        ))
    }
}
