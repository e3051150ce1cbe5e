//! Which log is that of the data in service, where repositories hold those of several: a database that was made anew has a log of
//! its own, whose transactions count from the beginning again. It is the one that was backed up, archived or restored in place
//! last, wherever.

use super::bases::Candidate;
use super::continuations::End;
use super::log_plan::LogPlan;
use crate::artifact::log_batch::Known;
use crate::base::Result;
use crate::base::ids::BackupId;
use crate::ledger::log::order::{self, When};
use crate::operation::context::{Context, Target};
use crate::operation::{log_records, records};
use std::collections::{BTreeMap, BTreeSet};

/// The log of the data in service, as far as is known.
pub(super) struct InService {
    /// The last of what is known to have been done with any log, and with which.
    last: Option<(When, String)>,
    /// Bases that the record knows of, by repository.
    bases: BTreeSet<(String, BackupId)>,
    /// Where the chains end that the record knows of, by repository and stream.
    ends: BTreeMap<(String, String), Known>,
}

impl InService {
    /// As the record says, which may be older than the repositories.
    pub(super) fn by_the_record(context: &Context, target: &Target) -> Result<InService> {
        let bases = context.ledger.log_bases(&target.name)?;
        let mut ends = BTreeMap::new();
        for base in &bases {
            let chain = (base.chain.repository.clone(), base.chain.stream.clone());
            if !ends.contains_key(&chain)
                && let Some(end) = log_records::end_in(context, target, &chain.0, &chain.1)?
            {
                ends.insert(chain, Known { lineage: end.lineage, transaction: end.mark.transaction });
            }
        }
        let archived = context.ledger.log_ends(&target.name)?.into_iter().map(|end| (end.when(), end.chain.stream));
        let restored = records::last_in_place(context, &target.name)?;
        let restored = restored.and_then(|(when, restore)| Some((when, restore.reached?.stream)));
        let taken = bases.iter().map(|base| (base.when(), base.chain.stream.clone()));
        let last = order::last(taken.chain(archived).chain(restored));
        let bases = bases.into_iter().map(|base| (base.chain.repository, base.backup)).collect();
        Ok(InService { last, bases, ends })
    }

    /// What `repository` holds: its bases, and where the chains of its logs end. What the record knows of already says nothing
    /// more: the record has it in its order, and only the clock's is seen here.
    pub(super) fn see(&mut self, repository: &str, candidates: &[Candidate], ends: &[End]) {
        let taken = candidates.iter().filter_map(|candidate| {
            let manifest = candidate.manifest.as_ref().ok()?;
            let known = self.bases.contains(&(repository.to_owned(), manifest.id.clone()));
            let at = manifest.created_at.min(manifest.finished_at);
            (!known).then(|| (When::by_the_clock(at), candidate.base.history.stream.clone()))
        });
        let unknown = ends.iter().filter(|end| {
            self.ends.get(&(repository.to_owned(), end.stream().to_owned())).is_none_or(|known| *known < end.at())
        });
        let written = unknown.map(|end| (When::by_the_clock(end.written()), end.stream().to_owned()));
        let last = order::last(self.last.clone().into_iter().chain(taken).chain(written));
        self.last = last;
    }

    /// Whether it is this one.
    pub(super) fn is(&self, stream: &str) -> bool {
        self.last.as_ref().is_some_and(|(_, newest)| newest == stream)
    }

    /// What is to be said of a plan that leads to another one.
    pub(super) fn remark(&self, log: &LogPlan) -> Option<String> {
        let (since, newest) = self.last.as_ref().filter(|_| !self.is(&log.history.stream))?;
        Some(format!(
            "this is the history of other data, which was left: of {}, while {newest} was backed up since, last at {}",
            log.history.stream, since.at
        ))
    }
}
