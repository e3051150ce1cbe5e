//! Between the verbs and the ledger: the log's archive.

use crate::artifact::log_batch::SignedLogBatch;
use crate::artifact::object_key::ObjectKey;
use crate::base::Result;
use crate::base::ids::{BackupId, TargetName};
use crate::base::task::Severity;
use crate::ledger::backups::CopyState;
use crate::ledger::log::{BatchRecord, ChainName, LogEnd};
use crate::operation::answer::{BackupState, ChainStatus};
use crate::operation::context::{Context, Target};
use crate::operation::records::{self, Happening};
use crate::telemetry::record::{Occasion, Record};
use jiff::Timestamp;

/// The newest base of a log in a repository, and the SHA-256 of its manifest.
pub(crate) fn newest_base(
    context: &Context,
    target: &Target,
    repository: &str,
    stream: &str,
) -> Result<Option<(BackupId, String)>> {
    context.ledger.newest_log_base(&target.name, repository, stream)
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
    context.ledger.record_log_end(target, &LogEnd { chain, transaction, covered_until })
}

/// Makes the record agree with a repository; returns how many batches were added and how many are missing.
pub(crate) fn replace_repository(
    context: &Context,
    repository: &str,
    target: &TargetName,
    found: &[SignedLogBatch],
) -> Result<(u64, u64)> {
    let replaced = context.ledger.replace_batches(repository, target, found)?;
    let known = context.ledger.log_ends(target)?.into_iter().any(|end| end.chain.repository == repository);
    let last = found.iter().max_by_key(|signed| signed.batch.created_at);
    if let Some(batch) = last.map(|signed| &signed.batch).filter(|_| !known) {
        let chain =
            ChainName { repository: repository.to_owned(), stream: batch.stream.clone(), lineage: batch.lineage };
        covered(context, target, chain, batch.last_transaction, batch.created_at)?;
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

/// How far a target's log can be replayed, in the repository whose archive reaches farthest.
pub(crate) fn standing(context: &Context, target: &Target) -> Result<Option<ChainStatus>> {
    let ledger = &context.ledger;
    let Some(end) = ledger.log_ends(&target.name)?.into_iter().max_by_key(|end| end.covered_until) else {
        return Ok(None);
    };
    let bases = ledger.log_bases(&target.name, &end.chain)?;
    let mut gaps: Vec<u64> =
        ledger.log_gaps(&target.name, &end.chain)?.into_iter().map(|mark| mark.transaction).collect();
    let last = ledger.last_batch(&target.name, &end.chain.repository, &end.chain.stream)?;
    let last = last.filter(|batch| batch.lineage == end.chain.lineage);
    if last.as_ref().is_some_and(|batch| batch.last_transaction < end.transaction) {
        // The log goes on from a base, and no batch has been written since.
        gaps.push(end.transaction);
    }
    let whole_from = gaps.last().copied().unwrap_or(0);
    let Some(from) = bases.iter().find(|base| base.mark.transaction >= whole_from) else { return Ok(None) };
    let sums = ledger.log_sums(&target.name)?.remove(&end.chain).unwrap_or_default();
    let now = context.clock.now();
    Ok(Some(ChainStatus {
        unsound: ledger.unsound_batches(&target.name, &end.chain.repository)?,
        // A lineage that was forked off tells nothing of the time before its bases.
        from: from.mark.committed_at.filter(|_| end.chain.lineage == 1).unwrap_or(from.created_at),
        from_transaction: from.mark.transaction,
        to: last.as_ref().map(|batch| batch.last_committed_at).or(from.mark.committed_at),
        to_transaction: end.transaction,
        covered_until: end.covered_until,
        lag_seconds: now.duration_since(end.covered_until).as_secs(),
        batches: sums.batches,
        transactions: sums.transactions,
        stored_bytes: sums.stored_bytes,
        gaps,
        repository: end.chain.repository,
        lineage: end.chain.lineage,
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

/// Whether a restore of ours put other data into service after `since`.
pub(crate) fn restored_since(context: &Context, target: &TargetName, since: Timestamp) -> Result<bool> {
    Ok(context.ledger.last_restore_in_place(target)?.is_some_and(|restore| restore.at >= since))
}

/// Announces what must not go unnoticed: in the ledger's events, in the journal, to whoever follows the job. Said once;
/// the same again only reaches the job.
pub(crate) fn announce(context: &Context, target: &TargetName, occasion: Occasion, text: &str) -> Result<()> {
    let (name, code) = match occasion {
        Occasion::LogForked => ("log-forked", "LOG_FORKED"),
        _ => ("log-gap", "LOG_GAP"),
    };
    if context.ledger.has_event(name, target, text)? {
        return Ok(());
    }
    Record { target: Some(target.as_str()), error_code: Some(code), ..Record::new(occasion, text) }.emit();
    let actor = "neo4j-backupd";
    let happening = Happening { severity: Severity::Error, name, target: Some(target), job: None, actor, text };
    records::event(context, happening)
}
