//! Two repositories of which neither was written with what the other holds. A host that is set back with its record goes on as if
//! nothing had been written since: a repository that was away then holds what was, another one what is, under numbers that say
//! nothing of each other any more. What each was told of the others when it was written shows it.

use super::bases::Candidate;
use super::choose::Chosen;
use super::log_plan::LogPlan;
use super::plan;
use crate::artifact::log_batch::{Known, LogMark};
use crate::artifact::log_point;
use crate::base::{Code, Error, Result};
use crate::driver::log::RecoveryTarget;
use crate::ledger::log::ChainName;
use crate::operation::context::{Context, Target};
use crate::operation::log_records;
use crate::repository::catalog::Repository;
use jiff::Timestamp;
use std::collections::{BTreeMap, BTreeSet};

/// The end of a log's chain in a repository, as its own manifests tell.
pub(super) struct End {
    repository: String,
    stream: String,
    lineage: u32,
    mark: LogMark,
    /// When its newest history began.
    born: Timestamp,
    /// When what it ends with was written.
    written: Timestamp,
    /// Its writer's epoch then.
    epoch: u64,
    /// What its writer knew of the others.
    knows: BTreeMap<String, Known>,
}

impl End {
    /// The log.
    pub(super) fn stream(&self) -> &str {
        &self.stream
    }

    /// When what it ends with was written.
    pub(super) fn written(&self) -> Timestamp {
        self.written
    }

    /// Its newest history.
    pub(super) fn chain(&self) -> ChainName {
        ChainName { repository: self.repository.clone(), stream: self.stream.clone(), lineage: self.lineage }
    }

    /// Where it is.
    pub(super) fn at(&self) -> Known {
        Known { lineage: self.lineage, transaction: self.mark.transaction }
    }

    fn learn(&mut self, beside: &BTreeMap<String, Known>) {
        for (name, known) in beside {
            let best = self.knows.entry(name.clone()).or_default();
            *best = (*best).max(*known);
        }
    }

    /// Up to where this and another chain are known to be one, if they may part behind it.
    fn parts_from(&self, other: &End) -> Option<Known> {
        if self.stream != other.stream {
            return None;
        }
        let (here, there) = (*self.knows.get(&other.repository)?, *other.knows.get(&self.repository)?);
        if self.at() == other.at() {
            return self.mark.contradicts(&other.mark).then_some(here.max(there));
        }
        if here >= other.at() || there >= self.at() {
            return None;
        }
        // Whoever began the newer history knew that there may be others before it.
        let (older, newer) = if self.lineage < other.lineage { (self, other) } else { (other, self) };
        let before = older.lineage < newer.lineage && older.written < newer.born;
        (!before).then_some(here.max(there))
    }
}

/// Where the chains of all logs end of which a repository has bases.
pub(super) fn ends(
    context: &Context,
    target: &Target,
    repository: &Repository,
    candidates: &[Candidate],
) -> Result<Vec<End>> {
    let streams: BTreeSet<&str> = candidates.iter().map(|candidate| candidate.base.history.stream.as_str()).collect();
    let mut ends = Vec::new();
    for stream in streams {
        ends.extend(end_of(context, target, repository, candidates, stream)?);
    }
    Ok(ends)
}

fn end_of(
    context: &Context,
    target: &Target,
    repository: &Repository,
    candidates: &[Candidate],
    stream: &str,
) -> Result<Option<End>> {
    let of_stream = || candidates.iter().filter(|candidate| candidate.base.history.stream == stream);
    let Some(lineage) = of_stream().map(|candidate| candidate.base.history.lineage).max() else { return Ok(None) };
    let keys = repository.batch_keys(&context.environment, &target.name, stream, lineage)?;
    let batch = keys.iter().rev().find_map(|(_, key)| repository.batch(key).ok()).map(|signed| signed.batch);
    let mut end = batch.map(|batch| End {
        repository: repository.name().to_owned(),
        stream: stream.to_owned(),
        lineage,
        mark: batch.end,
        born: batch.created_at,
        written: batch.created_at,
        epoch: batch.owner.epoch,
        knows: batch.beside,
    });
    let newest = of_stream().filter(|candidate| candidate.base.history.lineage == lineage);
    for (base, manifest) in newest.filter_map(|found| Some((&found.base, found.manifest.as_ref().ok()?))) {
        let end = end.get_or_insert_with(|| End {
            repository: repository.name().to_owned(),
            stream: stream.to_owned(),
            lineage,
            mark: base.mark.clone(),
            born: manifest.created_at,
            written: manifest.finished_at,
            epoch: manifest.owner.epoch,
            knows: BTreeMap::new(),
        });
        end.born = end.born.min(manifest.created_at);
        end.written = end.written.max(manifest.finished_at);
        end.epoch = end.epoch.max(manifest.owner.epoch);
        if base.mark.transaction > end.mark.transaction {
            end.mark = base.mark.clone();
        }
        if let Some(position) = &manifest.position {
            end.learn(&position.beside);
        }
    }
    Ok(end)
}

/// Fails with `LOG_FORKED` where `chosen` leads behind the point up to which its repository is known to hold what the others
/// hold: those that were asked (`ends`), and by the record those that failed.
pub(super) fn refuse_unclear(
    context: &Context,
    target: &Target,
    chosen: &Chosen,
    ends: &[End],
    failed: &[&str],
) -> Result<()> {
    let Some(log) = &chosen.log else { return Ok(()) };
    let own = ends.iter().find(|end| end.repository == chosen.repository.name() && end.stream == log.history.stream);
    let Some(own) = own else { return Ok(()) };
    let here = ends.iter().filter(|other| other.repository != own.repository);
    let here = here.filter_map(|other| Some((own.parts_from(other)?, other.repository.as_str(), other.at())));
    let elsewhere = by_the_record(context, target, own, failed)?;
    let Some((agreed, name, other)) = here.chain(elsewhere).min() else { return Ok(()) };
    match reached(log) <= agreed {
        true => Ok(()),
        false => Err(unclear(target, chosen, (own, (name, other)), agreed)),
    }
}

fn reached(log: &LogPlan) -> Known {
    let transaction = plan::transaction_of(log.until).unwrap_or(log.end.transaction);
    Known { lineage: log.history.lineage, transaction }
}

/// What is to be said of a plan to the end where the repository remembers a restore in place, or an adoption, behind everything
/// that it holds, and the record, which would say more, knows of none since then: it was lost, or set back.
pub(super) fn remark_forgotten(
    context: &Context,
    target: &Target,
    chosen: &Chosen,
    ends: &[End],
) -> Result<Option<String>> {
    let Some(log) = &chosen.log else { return Ok(None) };
    let here = |end: &&End| end.repository == chosen.repository.name() && end.stream == log.history.stream;
    let Some(own) = ends.iter().find(here) else { return Ok(None) };
    let owner = chosen.repository.owner(&context.environment, &target.name);
    let epoch = owner.ok().flatten().map_or(0, |record| record.owner.epoch);
    let is_known = log_records::restored_since(context, &target.name, &own.chain(), own.written)?;
    if epoch <= own.epoch || log.until != RecoveryTarget::End || is_known {
        return Ok(None);
    }
    Ok(Some(format!(
        "{} was restored in place or adopted since repository {} was last written to: what it ends with may be a history that \
         was left then, and what is in service is not archived",
        target.name, own.repository
    )))
}

/// A repository that cannot be asked now: what is on record of it was not known where this one was written, which goes on behind
/// what is on record of it.
fn by_the_record<'a>(
    context: &Context,
    target: &Target,
    own: &End,
    failed: &[&'a str],
) -> Result<Option<(Known, &'a str, Known)>> {
    let known = log_records::beside(context, target, "", &own.stream)?;
    if known.get(&own.repository).is_none_or(|known| own.at() <= *known) {
        return Ok(None);
    }
    let parted = failed.iter().filter_map(|name| {
        let (end, agreed) = (*known.get(*name)?, *own.knows.get(*name)?);
        (agreed < end).then_some((agreed, *name, end))
    });
    Ok(parted.min())
}

fn unclear(target: &Target, chosen: &Chosen, (own, other): (&End, (&str, Known)), agreed: Known) -> Error {
    let (engine, name) = (chosen.manifest.engine, &target.name);
    let at = |known: Known| format!("lineage {} to {}", known.lineage, log_point::named(engine, known.transaction));
    let text = format!(
        "{name}: repository {} holds {}, repository {} {}, and behind {} neither was written with what the other holds: this host \
         was set back with its record, or its record was, and which of the two is in service cannot be told",
        own.repository,
        at(own.at()),
        other.0,
        at(other.1),
        at(agreed),
    );
    Error::new(Code::LogForked, text).with_hint(format!(
        "`neo4j-backupctl backup {name} --type incremental` compares both with the database in service; without that, name in \
         `[target.{name}] repositories` only the one that is to be restored from"
    ))
}
