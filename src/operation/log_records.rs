//! Between the verbs and the ledger: the log's archive.

use crate::artifact::log_batch::{Known, LogMark, SignedLogBatch};
use crate::artifact::object_key::ObjectKey;
use crate::base::Result;
use crate::base::ids::{BackupId, TargetName};
use crate::base::task::Severity;
use crate::ledger::backups::CopyState;
use crate::ledger::log::bases::BaseRecord;
use crate::ledger::log::ends::LogEnd;
use crate::ledger::log::order::When;
use crate::ledger::log::{BatchRecord, ChainName};
use crate::operation::answer::{BackupState, ChainStatus, LogRange};
use crate::operation::context::{Context, Target};
use crate::operation::log_reach::{self, Reach, Standing};
use crate::operation::records::{self, Happening};
use crate::telemetry::record::{Occasion, Record};
use jiff::Timestamp;
use std::collections::BTreeMap;

/// The newest base of a log in a repository, and the SHA-256 of its manifest.
pub(crate) fn newest_base(
    context: &Context,
    target: &Target,
    repository: &str,
    stream: &str,
) -> Result<Option<(BackupId, String)>> {
    context.ledger.newest_log_base(&target.name, repository, stream)
}

/// The bases of a history (stream and lineage) in a repository that nothing is known against, in the order of the log.
pub(crate) fn usable_bases(
    context: &Context,
    target: &Target,
    repository: &str,
    (stream, lineage): (&str, u32),
) -> Result<Vec<BaseRecord>> {
    let bases = context.ledger.log_bases(&target.name)?.into_iter().filter(|base| {
        let chain = &base.chain;
        base.is_usable()
            && (chain.repository.as_str(), chain.stream.as_str(), chain.lineage) == (repository, stream, lineage)
    });
    Ok(bases.collect())
}

/// The last batch of a log in a repository.
pub(crate) fn last_batch(
    context: &Context,
    target: &Target,
    repository: &str,
    stream: &str,
) -> Result<Option<BatchRecord>> {
    context.ledger.last_batch(&target.name, repository, stream)
}

/// The latest time of commit in the batches of a history (stream and lineage) that end at or before `transaction`.
pub(crate) fn latest_commit(
    context: &Context,
    target: &Target,
    repository: &str,
    (stream, lineage): (&str, u32),
    transaction: u64,
) -> Result<Option<Timestamp>> {
    let chain = ChainName { repository: repository.to_owned(), stream: stream.to_owned(), lineage };
    context.ledger.latest_commit(&target.name, &chain, transaction)
}

/// The end of a log's chain in a repository, as far as it is on record.
pub(crate) struct RecordedEnd {
    /// The newest of its histories.
    pub(crate) lineage: u32,
    /// Where that ends.
    pub(crate) mark: LogMark,
    /// When what it ends with was taken.
    pub(crate) since: Timestamp,
}

/// Where the chain of a log ends in a repository.
pub(crate) fn end_in(
    context: &Context,
    target: &Target,
    repository: &str,
    stream: &str,
) -> Result<Option<RecordedEnd>> {
    let bases = context.ledger.log_bases(&target.name)?.into_iter();
    let bases = bases.filter(|base| base.chain.repository == repository && base.chain.stream == stream);
    let base = bases.map(|base| RecordedEnd { lineage: base.chain.lineage, mark: base.mark, since: base.finished_at });
    let batch = last_batch(context, target, repository, stream)?.map(|batch| RecordedEnd {
        lineage: batch.lineage,
        mark: batch.end,
        since: batch.created_at,
    });
    Ok(base.chain(batch).max_by_key(|end| (end.lineage, end.mark.transaction)))
}

/// Where the chains of a log end in the repositories of a target but one, as far as they are on record.
pub(crate) fn beside(
    context: &Context,
    target: &Target,
    repository: &str,
    stream: &str,
) -> Result<BTreeMap<String, Known>> {
    let mut known = BTreeMap::new();
    for name in target.repositories.iter().filter(|name| *name != repository) {
        if let Some(end) = end_in(context, target, name, stream)? {
            known.insert(name.clone(), Known { lineage: end.lineage, transaction: end.mark.transaction });
        }
    }
    Ok(known)
}

/// A batch counts in a repository.
pub(crate) fn batch_taken(context: &Context, repository: &str, signed: &SignedLogBatch) -> Result<()> {
    context.ledger.record_batch(signed, repository)
}

/// Everything committed up to `covered_until` is archived in a repository.
pub(crate) fn covered(
    context: &Context,
    target: &TargetName,
    chain: ChainName,
    transaction: u64,
    covered_until: Timestamp,
) -> Result<()> {
    context.ledger.record_log_end(target, &LogEnd { chain, transaction, covered_until, number: 0 })
}

/// Makes the record agree with a repository; returns how many batches were added and how many are missing.
pub(crate) fn replace_repository(
    context: &Context,
    repository: &str,
    target: &TargetName,
    found: &[SignedLogBatch],
) -> Result<(u64, u64)> {
    let replaced = context.ledger.replace_batches(repository, target, found)?;
    let known = context.ledger.log_ends(target)?.into_iter().find(|end| end.chain.repository == repository);
    let bases = context.ledger.log_bases(target)?;
    let newest = log_reach::current_end(None, bases.iter().filter(|base| base.chain.repository == repository));
    let archived = found.iter().map(|signed| &signed.batch).map(|batch| LogEnd {
        chain: ChainName { repository: repository.to_owned(), stream: batch.stream.clone(), lineage: batch.lineage },
        transaction: batch.last_transaction,
        covered_until: batch.created_at,
        number: 0,
    });
    // What a run of the archive left on record knows more than batches and bases say.
    let end = archived.chain(newest).reduce(|end, other| if log_reach::is_later(&other, &end) { other } else { end });
    if let Some(end) = end.filter(|end| known.is_none_or(|known| log_reach::is_later(end, &known))) {
        context.ledger.record_found_log_end(target, &end)?;
    }
    Ok(replaced)
}

/// Keys of the manifests of a target's batches that are on record in a repository.
pub(crate) fn recorded_in(context: &Context, target: &Target, repository: &str) -> Result<Vec<ObjectKey>> {
    context.ledger.batch_keys(&target.name, repository)?.into_iter().map(ObjectKey::new).collect()
}

/// A batch was deleted.
pub(crate) fn forget(context: &Context, repository: &str, key: &str) -> Result<()> {
    context.ledger.forget_batch(repository, key)
}

/// Missing batches of a history are given up: those that end at or before `needed_from`, or all.
pub(crate) fn forget_missing(
    context: &Context,
    target: &TargetName,
    chain: &ChainName,
    needed_from: Option<u64>,
) -> Result<()> {
    context.ledger.forget_missing_batches(target, chain, needed_from)
}

/// How far a target's log can be replayed, in the repository that can give the newest state; and what else of it can be
/// restored from any repository.
pub(crate) fn standing(context: &Context, target: &Target) -> Result<(Option<ChainStatus>, Vec<LogRange>)> {
    let standings = log_reach::standings(context, &target.name)?;
    let best = standings.iter().reduce(|best, other| if other.gives_more_than(best) { other } else { best });
    let chain = best.map(|standing| chain_status(context, target, standing)).transpose()?.flatten();
    let mut told: Vec<LogRange> =
        best.and_then(Standing::newest).map(|newest| newest.range.clone()).into_iter().collect();
    let shown = told.len();
    let ranges = standings.into_iter().flat_map(|standing| standing.reaches).map(|reach| reach.range);
    for range in ranges {
        let within = |other: &LogRange| {
            (&other.stream, other.lineage) == (&range.stream, range.lineage)
                && other.from_transaction <= range.from_transaction
                && range.to_transaction <= other.to_transaction
        };
        if !told.iter().any(within) {
            told.push(range);
        }
    }
    let earlier = told.split_off(shown);
    Ok((chain, earlier))
}

fn chain_status(context: &Context, target: &Target, standing: &Standing) -> Result<Option<ChainStatus>> {
    let Some(Reach { range, .. }) = standing.newest() else { return Ok(None) };
    let (ledger, chain) = (&context.ledger, &standing.end.chain);
    let sums = ledger.log_sums(&target.name)?.remove(chain).unwrap_or_default();
    let last = ledger.batch_end_before(&target.name, chain, range.to_transaction)?;
    let covered_until = range.to.unwrap_or(range.from);
    Ok(Some(ChainStatus {
        repository: range.repository.clone(),
        lineage: range.lineage,
        from: range.from,
        from_transaction: range.from_transaction,
        to: last.filter(|last| last.transaction > range.from_transaction).map(|last| last.last_committed_at),
        to_transaction: range.to_transaction,
        covered_until,
        lag_seconds: context.clock.now().duration_since(covered_until).as_secs(),
        batches: sums.batches,
        transactions: sums.transactions,
        stored_bytes: sums.stored_bytes,
        // Between chains there is nothing that was to be archived.
        gaps: if log_reach::is_in_chains(target) { Vec::new() } else { standing.gaps.clone() },
        unsound: standing.unsound,
        unreachable: (!standing.is_whole()).then_some(standing.end.transaction),
    }))
}

/// Records what verification found of a batch.
pub(crate) fn mark(context: &Context, repository: &str, key: &str, state: BackupState) -> Result<()> {
    let state = match state {
        BackupState::Complete => CopyState::Complete,
        BackupState::Validated => CopyState::Validated,
        BackupState::Corrupted => CopyState::Corrupted,
        BackupState::Missing => CopyState::Missing,
    };
    context.ledger.mark_batch(repository, key, state)
}

/// When something of a history was last done in a repository, as far as the record tells, and what.
fn done_in_logs(context: &Context, target: &TargetName) -> Result<Vec<(When, ChainName)>> {
    let ends = context.ledger.log_ends(target)?.into_iter().map(|end| (end.when(), end.chain));
    let bases = context.ledger.log_bases(target)?.into_iter().map(|base| (base.when(), base.chain));
    Ok(ends.chain(bases).collect())
}

/// When the last thing on record was done that `of` is true of; `since` is its time, which the repository may know better.
fn when_done(done: &[(When, ChainName)], since: Timestamp, of: impl Fn(&ChainName) -> bool) -> When {
    let number = done.iter().filter(|(_, chain)| of(chain)).map(|(when, _)| when.number).max().unwrap_or(0);
    When { number, at: since }
}

/// Whether the log of another database than `stream`'s is on record as archived after what `repository` has of that, which
/// was written at `since`.
pub(crate) fn another_since(
    context: &Context,
    target: &TargetName,
    (repository, stream): (&str, &str),
    since: Timestamp,
) -> Result<bool> {
    let done = done_in_logs(context, target)?;
    let own = when_done(&done, since, |chain| chain.repository == repository && chain.stream == stream);
    Ok(done.iter().any(|(when, chain)| chain.stream != stream && when.is_after(&own)))
}

/// Whether a restore of ours put other data into service after the end of a history in a repository was written, at `since`.
pub(crate) fn restored_since(
    context: &Context,
    target: &TargetName,
    history: &ChainName,
    since: Timestamp,
) -> Result<bool> {
    let own = when_done(&done_in_logs(context, target)?, since, |chain| chain == history);
    Ok(context.ledger.last_restore_in_place(target)?.is_some_and(|restore| !own.is_after(&restore.when())))
}

/// Announces what must not go unnoticed: in the ledger's events and in the journal. Said once.
pub(crate) fn announce(context: &Context, target: &TargetName, occasion: Occasion, text: &str) -> Result<()> {
    if is_announced(context, target, occasion, text)? {
        return Ok(());
    }
    let (name, code) = event_of(occasion);
    Record { target: Some(target.as_str()), error_code: Some(code), ..Record::new(occasion, text) }.emit();
    let actor = "neo4j-backupd";
    let happening = Happening { severity: Severity::Error, name, target: Some(target), job: None, actor, text };
    records::event(context, happening)
}

/// Whether this was announced already.
pub(crate) fn is_announced(context: &Context, target: &TargetName, occasion: Occasion, text: &str) -> Result<bool> {
    context.ledger.has_event(event_of(occasion).0, target, text)
}

pub(crate) fn event_of(occasion: Occasion) -> (&'static str, &'static str) {
    match occasion {
        Occasion::LogForked => ("log-forked", "LOG_FORKED"),
        Occasion::LogSpoolFilling => ("log-spool-filling", "SPOOL_FULL"),
        Occasion::LogSpoolFull => ("log-spool-full", "SPOOL_FULL"),
        _ => ("log-gap", "LOG_GAP"),
    }
}
