//! Writes what a log reader gives, batch by batch, into every repository whose archive ends at the same point.
//!
//! The order is that of a backup: the object is durable and was read back before its manifest is written, and the ledger
//! learns of it last.

use super::chain_end::ResumePoint;
use super::leftover::{self, Unfinished};
use crate::artifact::identity::{FORMAT, Owner};
use crate::artifact::log_batch::{LogBatch, LogBatchDocument, LogBatchLink, LogMark, LogSegment};
use crate::artifact::log_point;
use crate::artifact::manifest::{Engine, ObjectRecord};
use crate::artifact::object_key::{self, MANIFEST_SUFFIX, ObjectKey};
use crate::base::task::Task;
use crate::base::{Code, Error, Result, bytes};
use crate::driver::Source;
use crate::driver::log::{LogChunk, LogReader};
use crate::ledger::log::ChainName;
use crate::operation::answer::ArchivedIn;
use crate::operation::backup::objects::{Branch, Outline, Sealing, require_survivor, write_object};
use crate::operation::backup::read_back::read_back;
use crate::operation::context::{Context, Target};
use crate::operation::log_records;
use jiff::Timestamp;
use std::collections::BTreeMap;

/// Most bytes of log in one batch. Each batch costs a manifest and 20 ms of key derivation; larger ones would make the
/// repetition after a kill longer.
pub(super) const BATCH_BYTES_MAX: u64 = 256 << 20;
/// Objects without a manifest that may be in the way of a batch's own name.
const NAMES_MAX: usize = 16;

/// Repositories whose archive ends at the same point.
pub(super) struct Group {
    /// Which of the log's histories.
    pub(super) lineage: u32,
    /// Where the archive ends.
    pub(super) mark: LogMark,
    /// Reads on from there.
    pub(super) reader: Box<dyn LogReader>,
    /// The repositories.
    pub(super) branches: Vec<Branch>,
    /// What the next batch names, by repository.
    pub(super) chains: Vec<Chained>,
}

/// The end of one repository's chain.
pub(super) struct Chained {
    sequence: u64,
    predecessor: Option<LogBatchLink>,
    /// The writer's epoch as this repository knows it.
    epoch: u64,
    /// What was archived there.
    pub(super) done: ArchivedIn,
}

impl Chained {
    /// A chain that goes on at `point`.
    pub(super) fn at(point: &ResumePoint, engine: Engine, repository: &str, lineage: u32, epoch: u64) -> Chained {
        let done = ArchivedIn {
            repository: repository.to_owned(),
            lineage,
            from_transaction: point.mark.transaction,
            to_transaction: point.mark.transaction,
            to_time: point.mark.committed_at,
            to_position: log_point::position(engine, point.mark.transaction),
            ..ArchivedIn::default()
        };
        Chained { sequence: point.sequence, predecessor: point.predecessor.clone(), epoch, done }
    }
}

/// Archives all there is by now; what is committed while that is done is for the next run, or a busy database would keep
/// this one for ever. Failures of repositories are kept in their branches.
pub(super) fn write_all(
    context: &Context,
    target: &Target,
    source: &Source,
    group: &mut Group,
    task: &Task,
) -> Result<()> {
    let sealing = Sealing::of(target, source)?;
    loop {
        task.check()?;
        task.phase("archiving the log", 0);
        // Whatever was committed before this moment is in what the reader gives, or there is nothing.
        let taken_at = context.clock.now();
        let Some(chunk) = group.reader.next(BATCH_BYTES_MAX, task)? else {
            return cover(context, target, source, group, taken_at);
        };
        let (asked, taken_at) = (taken_at, chunk.covered_until.unwrap_or(taken_at));
        if !chunk.start.same_point(&group.mark) {
            let text = format!("the log's reader went on at {:?}, not at {:?}", chunk.start, group.mark);
            return Err(Error::new(Code::Internal, text));
        }
        group.mark = chunk.end.clone();
        let complete = chunk.complete;
        write(context, target, source, &sealing, group, chunk, taken_at, task)?;
        if complete {
            return cover(context, target, source, group, asked);
        }
    }
}

/// Says of every repository that took part to the end how far its archive reaches, as far as the source is sure of it.
fn cover(context: &Context, target: &Target, source: &Source, group: &mut Group, asked: Timestamp) -> Result<()> {
    let Some(until) = group.reader.covered_until(asked) else { return require_survivor(&group.branches) };
    for (branch, chained) in group.branches.iter().zip(&mut group.chains).filter(|(branch, _)| branch.is_alive()) {
        let chain = ChainName {
            repository: branch.repository.name().to_owned(),
            stream: source.data_identity.clone(),
            lineage: group.lineage,
        };
        chained.done.covered_until = Some(until);
        log_records::covered(context, &target.name, chain, group.mark.transaction, until)?;
    }
    require_survivor(&group.branches)
}

#[allow(clippy::too_many_arguments)]
fn write(
    context: &Context,
    target: &Target,
    source: &Source,
    sealing: &Sealing,
    group: &mut Group,
    chunk: LogChunk,
    taken_at: Timestamp,
    task: &Task,
) -> Result<()> {
    let LogChunk { start, end, segments, reader, .. } = chunk;
    let first = segments.first().ok_or_else(|| Error::new(Code::Internal, "the log's reader gave an empty chunk"))?;
    let (file, offset) = (first.file, first.offset);
    let first_transaction = start.transaction + 1;
    let place = (first_transaction, file, offset);
    let stem =
        object_key::log_batch_stem(&context.environment, &target.name, &source.data_identity, group.lineage, place);
    let manifest = ObjectKey::new(format!("{stem}{MANIFEST_SUFFIX}"))?;
    let outline = free_name(sealing, &stem, &manifest, &group.branches)?;
    let object_key = outline.key(sealing, &stem)?;
    let record = Unfinished::new(&manifest, &object_key, &group.branches);
    leftover::begin(context, target, &record)?;
    let written = write_object(sealing, &stem, &outline, &group.branches, reader, |reader| reader.finish(task), task);
    let object = written.map_err(|error| error.context(format!("archiving the log of {}", target.name)))?;
    read_back(std::slice::from_ref(&object), &group.branches, task)?;
    let batch = compose(context, target, source, group.lineage, (start, end), segments, object, taken_at)?;
    commit(context, target, group, &batch, task)?;
    require_survivor(&group.branches)?;
    // Where a repository failed, that stays on record until what it has of the batch is settled.
    let rest = record.rest(&group.branches);
    if rest.as_ref() == Some(&record) {
        return Ok(());
    }
    rest.map_or(Ok(()), |rest| leftover::begin(context, target, &rest))?;
    leftover::complete(context, target, &record)
}

/// `log`, or a name that no object without a manifest has taken: what such an object is, a person decides.
fn free_name(sealing: &Sealing, stem: &str, manifest: &ObjectKey, branches: &[Branch]) -> Result<Outline> {
    for number in 1..=NAMES_MAX {
        let extension = if number == 1 { "log".to_owned() } else { format!("log-{number}") };
        let outline = Outline::of_log(&extension);
        let key = outline.key(sealing, stem)?;
        let mut taken = false;
        for branch in branches.iter().filter(|branch| branch.is_alive()) {
            match branch.repository.store().stat(&key) {
                // With a manifest it is a batch of its own, and the commit compares the two.
                Ok(Some(_)) => taken = true,
                Ok(None) => {}
                Err(error) => branch.fail(error),
            }
        }
        require_survivor(branches)?;
        if !taken {
            return Ok(outline);
        }
    }
    let text = format!("{NAMES_MAX} objects without a manifest are in the way of {manifest}");
    Err(Error::new(Code::ObjectConflict, text))
}

#[allow(clippy::too_many_arguments)]
fn compose(
    context: &Context,
    target: &Target,
    source: &Source,
    lineage: u32,
    (start, end): (LogMark, LogMark),
    segments: Vec<LogSegment>,
    object: ObjectRecord,
    taken_at: Timestamp,
) -> Result<LogBatch> {
    let first_committed_at = segments.iter().filter_map(|segment| segment.first_committed_at).min();
    let last_committed_at = segments.iter().filter_map(|segment| segment.last_committed_at).max();
    let untimed = || Error::new(Code::Internal, "the log's reader gave a batch without any transaction");
    Ok(LogBatch {
        document: LogBatchDocument::LogBatch,
        format: FORMAT,
        environment: context.environment.clone(),
        target: target.name.clone(),
        engine: target.driver.engine(),
        db_name: source.database.clone(),
        stream: source.data_identity.clone(),
        lineage,
        sequence: 1,
        predecessor: None,
        first_transaction: start.transaction + 1,
        last_transaction: end.transaction,
        transactions: segments.iter().map(|segment| segment.transactions).sum(),
        first_committed_at: first_committed_at.ok_or_else(untimed)?,
        last_committed_at: last_committed_at.ok_or_else(untimed)?,
        start,
        segments,
        object,
        created_at: taken_at,
        created_by: format!("neo4j-backupd {}", env!("CARGO_PKG_VERSION")),
        hostname: context.identity.name.clone(),
        owner: context.owner(&source.data_identity, 1),
        server_version: source.server.version.clone(),
        merged: None,
        origin: target.driver.log().map_or(Ok(None), |log| log.origin(&end))?,
        beside: BTreeMap::new(),
        end,
    })
}

/// Commits the manifest in each living branch; from then on the batch counts there.
fn commit(context: &Context, target: &Target, group: &mut Group, template: &LogBatch, task: &Task) -> Result<()> {
    for (branch, chained) in group.branches.iter().zip(&mut group.chains).filter(|(branch, _)| branch.is_alive()) {
        let repository = branch.repository.name();
        let batch = LogBatch {
            beside: log_records::beside(context, target, repository, &template.stream)?,
            sequence: chained.sequence,
            predecessor: chained.predecessor.clone(),
            owner: Owner { epoch: chained.epoch, ..template.owner.clone() },
            ..template.clone()
        };
        match branch.repository.commit_batch(&batch) {
            Ok(signed) => {
                log_records::batch_taken(context, branch.repository.name(), &signed)?;
                chained.sequence = signed.batch.sequence + 1;
                chained.predecessor = Some(signed.link()?);
                let done = &mut chained.done;
                done.batches += 1;
                done.transactions += batch.transactions;
                done.plain_bytes += batch.object.plain.size;
                done.stored_bytes += batch.object.stored.size;
                done.to_transaction = batch.last_transaction;
                done.to_position = log_point::position(batch.engine, batch.last_transaction);
                done.to_time = batch.end.committed_at.or(Some(batch.last_committed_at));
            }
            Err(error) => branch.fail(error),
        }
    }
    let name = |point| log_point::named(template.engine, point);
    task.info(format!(
        "{} to {}: {} of log, {} stored",
        name(template.first_transaction),
        name(template.last_transaction),
        bytes::human(template.object.plain.size),
        bytes::human(template.object.stored.size)
    ));
    Ok(())
}
