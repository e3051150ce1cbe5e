//! Which log is that of the data in service, where repositories hold those of several: a database that was made anew has a log of
//! its own, whose transactions count from the beginning again. It is the one that was backed up, archived or restored in place
//! last, wherever.

use super::bases::Candidate;
use super::continuations::End;
use super::log_plan::LogPlan;
use crate::base::Result;
use crate::operation::context::{Context, Target};
use crate::operation::records;
use jiff::Timestamp;

/// The log of the data in service, as far as is known, and since when that is known.
pub(super) struct InService(Option<(Timestamp, String)>);

impl InService {
    /// As the record says, which may be older than the repositories.
    pub(super) fn by_the_record(context: &Context, target: &Target) -> Result<InService> {
        let bases = context
            .ledger
            .log_bases(&target.name)?
            .into_iter()
            .map(|base| (base.created_at.min(base.finished_at), base.chain.stream));
        let ends = context.ledger.log_ends(&target.name)?.into_iter().map(|end| (end.covered_until, end.chain.stream));
        let restored = records::last_in_place(context, &target.name)?.map(|(at, reached)| (at, reached.stream));
        Ok(InService(bases.chain(ends).chain(restored).max()))
    }

    /// What a repository holds: its bases, and where the chains of its logs end.
    pub(super) fn see(&mut self, candidates: &[Candidate], ends: &[End]) {
        let held = candidates.iter().filter_map(|candidate| {
            let manifest = candidate.manifest.as_ref().ok()?;
            Some((manifest.created_at.min(manifest.finished_at), candidate.base.history.stream.clone()))
        });
        let written = ends.iter().map(|end| (end.written(), end.stream().to_owned()));
        self.0 = self.0.take().into_iter().chain(held).chain(written).max();
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
