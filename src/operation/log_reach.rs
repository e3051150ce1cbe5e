//! What can be restored of a target's archived log, as the ledger knows it: ranges within which every moment comes back.
//!
//! A range begins at a base and ends where the log breaks off: at a batch that is damaged or gone, at a piece that was
//! lost before it was archived, or at the archive's end. Only ranges that a base opens are told; what lies between a hole
//! and the next base cannot be restored, whatever is stored of it.

use crate::base::Result;
use crate::base::ids::{BackupId, TargetName};
use crate::ledger::log::bases::BaseRecord;
use crate::ledger::log::ends::LogEnd;
use crate::ledger::log::{BatchEnd, ChainName};
use crate::operation::answer::LogRange;
use crate::operation::context::{Context, Target};
use crate::operation::restore::bases::Turns;
use jiff::{SignedDuration, Timestamp};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

/// What commit times are stored to.
const INSTANT: SignedDuration = SignedDuration::from_micros(1);

/// A range, and the bases in it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Reach {
    /// The range.
    pub(crate) range: LogRange,
    /// Its bases, in the order of the log, and from when on each tells what the database held.
    pub(crate) bases: Vec<(BackupId, Timestamp)>,
}

/// How a target's log stands in one repository.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Standing {
    /// Where its archive ends; in the history that is in service.
    pub(crate) end: LogEnd,
    /// What can be restored, the newest first. Those of histories that were left come after those of the current one.
    pub(crate) reaches: Vec<Reach>,
    /// Where the log of the current history begins again after a piece was lost that something restorable lies before.
    pub(crate) gaps: Vec<u64>,
    /// Batches that were found damaged or missing.
    pub(crate) unsound: u64,
}

impl Standing {
    /// What can be restored to the newest moment.
    pub(crate) fn newest(&self) -> Option<&Reach> {
        self.reaches.first().filter(|reach| !reach.range.left)
    }

    /// Whether it gives a newer state, or as new a one and more of what was before. Times tell only where nothing else does:
    /// a clock may have run back.
    pub(crate) fn gives_more_than(&self, other: &Standing) -> bool {
        let (Some(one), Some(two)) = (self.newest(), other.newest()) else { return self.newest().is_some() };
        let (one, two) = (&one.range, &two.range);
        let place = |range: &LogRange| (range.lineage, range.to_transaction, range.to, Reverse(range.from));
        match one.stream == two.stream {
            true => place(one) > place(two),
            false => (one.to, Reverse(one.from)) > (two.to, Reverse(two.from)),
        }
    }

    /// Whether all that is archived of the history in service can be had to its end.
    pub(crate) fn is_whole(&self) -> bool {
        self.newest().is_some_and(|reach| reach.range.to_transaction >= self.end.transaction)
    }
}

/// Whether each base of a target begins a chain of its own.
pub(crate) fn is_in_chains(target: &Target) -> bool {
    target.driver.log().is_some_and(|log| log.in_chains())
}

/// How a target's log stands in each of its repositories that is known to hold some of it.
pub(crate) fn standings(context: &Context, target: &TargetName) -> Result<Vec<Standing>> {
    let repositories = &context.target(target)?.repositories;
    let bases = context.ledger.log_bases(target)?;
    let mut chains: BTreeSet<ChainName> = context.ledger.log_sums(target)?.into_keys().collect();
    chains.extend(bases.iter().map(|base| base.chain.clone()));
    let mut by_repository: BTreeMap<&str, Vec<&ChainName>> = BTreeMap::new();
    for chain in chains.iter().filter(|chain| repositories.contains(&chain.repository)) {
        by_repository.entry(chain.repository.as_str()).or_default().push(chain);
    }
    let known = context.ledger.log_ends(target)?;
    let mut standings = Vec::new();
    for (repository, chains) in by_repository {
        let known = known.iter().find(|end| end.chain.repository == repository);
        if let Some(end) = current_end(known, bases.iter().filter(|base| base.chain.repository == repository)) {
            standings.push(standing(context, target, end, &chains, &bases)?);
        }
    }
    Ok(standings)
}

/// Where the history in service ends: as the last run of the archive left it, unless a base was taken since.
pub(crate) fn current_end<'a>(known: Option<&LogEnd>, bases: impl Iterator<Item = &'a BaseRecord>) -> Option<LogEnd> {
    let newest = bases.max_by_key(|base| base.sequence).map(|base| LogEnd {
        chain: base.chain.clone(),
        transaction: base.mark.transaction,
        covered_until: base.created_at,
        number: base.number,
    });
    match (known, newest) {
        // A base within the same history is a point on its way.
        (Some(known), Some(newest)) if newest.chain != known.chain && is_later(&newest, known) => Some(newest),
        (known, newest) => known.cloned().or(newest),
    }
}

/// Whether one end is of the history that came after the other's, or farther in the same one. Within a stream lineages and
/// transactions tell; the second in which a base was begun is not exact enough, and may even lie ahead.
pub(crate) fn is_later(end: &LogEnd, than: &LogEnd) -> bool {
    match end.chain.stream == than.chain.stream {
        true => {
            let place = |end: &LogEnd| (end.chain.lineage, end.transaction, end.covered_until);
            place(end) > place(than)
        }
        false => end.when().is_after(&than.when()),
    }
}

fn standing(
    context: &Context,
    target: &TargetName,
    end: LogEnd,
    chains: &[&ChainName],
    bases: &[BaseRecord],
) -> Result<Standing> {
    let unsound = context.ledger.unsound_batches(target, &end.chain.repository)?;
    let mut standing = Standing { unsound, end, reaches: Vec::new(), gaps: Vec::new() };
    let turns = Turns::of_records(bases);
    for chain in chains {
        let bases: Vec<&BaseRecord> = bases.iter().filter(|base| base.chain == **chain && base.is_usable()).collect();
        let end = Some(&standing.end).filter(|end| end.chain == **chain);
        let mut log = Log::read(context, target, chain, end, &turns)?;
        if is_in_chains(context.target(target)?) {
            log.break_before(&bases, &|until| context.ledger.batch_end_before(target, chain, until))?;
        }
        let reaches = log.reaches(chain, &bases, &|until| context.ledger.batch_end_before(target, chain, until))?;
        if end.is_some() {
            let first = reaches.iter().map(|reach| reach.range.from_transaction).min().unwrap_or(u64::MAX);
            standing.gaps = log.lost.iter().copied().filter(|lost| first < *lost).collect();
        }
        standing.reaches.extend(reaches);
    }
    standing.reaches.sort_by_key(|Reach { range, .. }| (range.left, Reverse((range.lineage, range.to_transaction))));
    Ok(standing)
}

/// What is known of the log of one history.
struct Log<'a> {
    /// When each database's turn came.
    turns: &'a Turns,
    /// Its end, if it is the history in service.
    end: Option<LogEnd>,
    /// Pieces that cannot be replayed: the last transaction before each, and its own last.
    breaks: Vec<(u64, u64)>,
    /// Where the log begins again after a piece of it was lost before it was archived.
    lost: Vec<u64>,
    /// The end of the last sound batch.
    last: Option<BatchEnd>,
}

impl<'a> Log<'a> {
    fn read(
        context: &Context,
        target: &TargetName,
        chain: &ChainName,
        end: Option<&LogEnd>,
        turns: &'a Turns,
    ) -> Result<Self> {
        let ledger = &context.ledger;
        let mut breaks = ledger.unsound_pieces(target, chain)?;
        let mut lost: Vec<u64> = ledger.log_gaps(target, chain)?.iter().map(|mark| mark.transaction).collect();
        let last = ledger.batch_end_before(target, chain, u64::MAX)?;
        let archived = last.map(|last| last.transaction).max(breaks.iter().map(|(_, last)| *last).max());
        if let Some(end) = end.filter(|end| archived.is_some_and(|archived| archived < end.transaction)) {
            // The log goes on from a base, and no batch has been written since.
            lost.push(end.transaction);
        }
        // Nothing leads to the first batch from a base before it, nor, where there is none, from one base to the next.
        let first = ledger.first_batch_start(target, chain)?;
        breaks.push((0, first.unwrap_or(u64::MAX)));
        for begin in &lost {
            let before = ledger.batch_end_before(target, chain, *begin)?;
            breaks.push((before.map_or(0, |batch| batch.transaction), *begin));
        }
        breaks.sort_unstable();
        Ok(Log { turns, end: end.cloned(), breaks, lost, last })
    }

    /// Nothing leads from one chain into the next, unless nothing was committed between the two.
    fn break_before(
        &mut self,
        bases: &[&BaseRecord],
        batch_end: &dyn Fn(u64) -> Result<Option<BatchEnd>>,
    ) -> Result<()> {
        for base in bases.iter().map(|base| base.mark.transaction) {
            let before = batch_end(base)?.map_or(0, |batch| batch.transaction);
            if before < base {
                self.breaks.push((before, base));
            }
        }
        self.breaks.sort_unstable();
        Ok(())
    }

    /// The last transaction that a base's log leads to without a break.
    fn reach(&self, base: u64) -> u64 {
        let broken = self.breaks.iter().filter(|(_, last)| *last > base).map(|(before, _)| *before).min();
        let end = self.end.as_ref().map(|end| end.transaction).or(self.last.map(|last| last.transaction));
        // A base in the middle of such a piece, or beyond the end, stands for itself.
        broken.or(end).unwrap_or(base).max(base)
    }

    fn reaches(
        &self,
        chain: &ChainName,
        bases: &[&BaseRecord],
        batch_end: &dyn Fn(u64) -> Result<Option<BatchEnd>>,
    ) -> Result<Vec<Reach>> {
        let mut groups: BTreeMap<u64, Vec<&BaseRecord>> = BTreeMap::new();
        for base in bases {
            groups.entry(self.reach(base.mark.transaction)).or_default().push(base);
        }
        if let Some(end) = &self.end
            && groups.contains_key(&end.transaction)
        {
            // What follows is archived by the next run: such a base is no range of its own.
            groups.retain(|reached, _| *reached <= end.transaction);
        }
        groups.into_iter().map(|(reached, bases)| self.range(chain, reached, &bases, batch_end)).collect()
    }

    fn range(
        &self,
        chain: &ChainName,
        reached: u64,
        bases: &[&BaseRecord],
        batch_end: &dyn Fn(u64) -> Result<Option<BatchEnd>>,
    ) -> Result<Reach> {
        let begin = |base: &&BaseRecord| self.turns.ended_at(base);
        let newest = bases.iter().map(|base| base.created_at).max();
        let last = batch_end(reached)?.filter(|batch| batch.transaction == reached);
        let broken = self.breaks.iter().any(|(before, last)| *before <= reached && reached < *last);
        let to = match &self.end {
            Some(end) if end.transaction == reached => Some(end.covered_until),
            // A moment is certain only where something later is seen.
            _ if broken => last.and_then(|last| last.last_committed_at.checked_sub(INSTANT).ok()),
            _ => last.map(|last| last.created_at).max(newest),
        };
        let from = bases.iter().map(begin).min().unwrap_or(Timestamp::UNIX_EPOCH);
        let range = LogRange {
            repository: chain.repository.clone(),
            stream: chain.stream.clone(),
            lineage: chain.lineage,
            from,
            from_transaction: bases.iter().map(|base| base.mark.transaction).min().unwrap_or(reached),
            to: to.filter(|to| *to >= from),
            to_transaction: reached,
            left: self.end.is_none(),
        };
        Ok(Reach { range, bases: bases.iter().map(|base| (base.backup.clone(), begin(base))).collect() })
    }
}
