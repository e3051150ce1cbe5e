//! Between the verbs and the ledger: what happened goes in, rows of answers come out.

use crate::artifact::manifest::{Manifest, Predecessor, SignedManifest};
use crate::artifact::object_key::ObjectKey;
use crate::base::ids::{BackupId, JobId, TargetName};
use crate::base::task::Severity;
use crate::base::{Code, Error, Result};
use crate::ledger::backups::{BackupRecord, CopyState};
use crate::ledger::jobs::JobEntry;
use crate::ledger::journal::{EventEntry, ReachedEntry, RestoreEntry};
use crate::ledger::log::order::{self, When};
use crate::operation::answer::{
    BackupRow, BackupState, EventRecord, JobRecord, JobState, Reached, RestoreRecord, RestoreReport,
};
use crate::operation::context::{Context, Target};
use crate::operation::set_aside::{self, SetAside};
use crate::repository::catalog::Repository;
use crate::telemetry::record::{Occasion, Record};
use jiff::Timestamp;
use std::collections::{BTreeMap, BTreeSet};

/// A backup as selecting one needs it.
#[derive(Clone, Debug)]
pub(crate) struct KnownBackup {
    /// Its id.
    pub(crate) id: BackupId,
    /// Whether some copy is neither damaged nor missing.
    pub(crate) usable: bool,
}

/// The end of a target's chain in a repository.
pub(crate) struct ChainEnd {
    /// The last backup's number.
    pub(crate) sequence: u64,
    /// What the next one names.
    pub(crate) predecessor: Predecessor,
}

/// Something to put on record.
pub(crate) struct Happening<'a> {
    /// How much it matters.
    pub(crate) severity: Severity,
    /// Its stable name.
    pub(crate) name: &'a str,
    /// The target, if any.
    pub(crate) target: Option<&'a TargetName>,
    /// The job, if any.
    pub(crate) job: Option<JobId>,
    /// Who asked.
    pub(crate) actor: &'a str,
    /// What happened.
    pub(crate) text: &'a str,
}

/// Puts an event on record.
pub(crate) fn event(context: &Context, happening: Happening<'_>) -> Result<()> {
    context.ledger.record_event(&EventEntry {
        at: context.clock.now(),
        severity: severity_name(happening.severity).to_owned(),
        name: happening.name.to_owned(),
        target: happening.target.cloned(),
        job: happening.job,
        actor: happening.actor.to_owned(),
        text: happening.text.to_owned(),
    })
}

fn severity_name(severity: Severity) -> &'static str {
    match severity {
        Severity::Info => "info",
        Severity::Warning => "warning",
        Severity::Error => "error",
    }
}

/// A backup that was taken just now is complete in a repository.
pub(crate) fn backup_made(context: &Context, repository: &str, signed: &SignedManifest) -> Result<()> {
    backup_taken(context, repository, signed)?;
    context.ledger.number_base(signed.manifest.target(), &signed.manifest.id, repository)
}

/// A backup was found complete in a repository.
pub(crate) fn backup_taken(context: &Context, repository: &str, signed: &SignedManifest) -> Result<()> {
    context.ledger.record_backup(signed, repository)
}

/// Plain and stored bytes of a target's newest backup.
pub(crate) fn last_sizes(context: &Context, target: &TargetName) -> Result<Option<(u64, u64)>> {
    context.ledger.newest_sizes(target)
}

/// The end of a target's chain in a repository: from the ledger if the repository agrees, else from the repository.
pub(crate) fn last_in(context: &Context, target: &Target, repository: &Repository) -> Result<Option<ChainEnd>> {
    if let Some(last) = context.ledger.last_copy(&target.name, repository.name())? {
        match repository.find_manifest(&context.environment, &last.id) {
            Ok(signed) if signed.bytes_sha256 == last.manifest_sha256 => return Ok(Some(chain_end(signed))),
            Ok(_) => {}
            Err(error) if matches!(error.code(), Code::RepositoryIo | Code::IoFailed) => {
                return Err(error.context("reading the end of the chain"));
            }
            // A manifest that was lost or damaged must not keep new backups from being taken; `verify` reports it.
            Err(_) => {}
        }
    }
    let mut end: Option<SignedManifest> = None;
    for info in repository.manifest_keys(Some(&context.environment))? {
        if !info.key.file_name().starts_with(&format!("{}-", target.name)) {
            continue;
        }
        // A damaged manifest is `verify`'s to report; the chain goes on from the last sound one.
        let Ok(signed) = repository.manifest(&info.key) else { continue };
        let newer = end.as_ref().is_none_or(|end| end.manifest.sequence < signed.manifest.sequence);
        if signed.manifest.target() == &target.name && newer {
            end = Some(signed);
        }
    }
    Ok(end.map(chain_end))
}

fn chain_end(signed: SignedManifest) -> ChainEnd {
    let Manifest { id, sequence, .. } = signed.manifest;
    ChainEnd { sequence, predecessor: Predecessor { id, manifest_sha256: signed.bytes_sha256 } }
}

/// Backups on record, newest first.
pub(crate) fn known(context: &Context, target: Option<&TargetName>) -> Result<Vec<KnownBackup>> {
    let usable = |backup: &BackupRecord| matches!(state_of(backup), BackupState::Complete | BackupState::Validated);
    let backups = context.ledger.backups(target)?;
    Ok(backups.into_iter().map(|backup| KnownBackup { usable: usable(&backup), id: backup.id }).collect())
}

/// The backups of a target whose copies in a repository are on record as damaged or missing.
pub(crate) fn damaged_in(context: &Context, target: &TargetName, repository: &str) -> Result<BTreeSet<BackupId>> {
    let damaged = |backup: &BackupRecord| {
        let here = backup.copies.iter().find(|copy| copy.repository == repository);
        here.is_some_and(|copy| matches!(copy.state, CopyState::Corrupted | CopyState::Missing))
    };
    Ok(context.ledger.backups(Some(target))?.into_iter().filter(damaged).map(|backup| backup.id).collect())
}

/// Whether the ledger knows of any backup of a target in a repository.
pub(crate) fn any_in(context: &Context, target: &TargetName, repository: &str) -> Result<bool> {
    context.ledger.any_recorded_in(target, repository)
}

/// Ids of a target's backups that are on record in a repository.
pub(crate) fn recorded_in(context: &Context, target: &TargetName, repository: &str) -> Result<BTreeSet<BackupId>> {
    context.ledger.recorded_in(target, repository)
}

/// Whether no backup is on record.
pub(crate) fn is_empty(context: &Context) -> Result<bool> {
    context.ledger.has_no_backups()
}

/// SHA-256 of a manifest as it was recorded.
pub(crate) fn manifest_sha256(context: &Context, id: &BackupId, repository: &str) -> Result<Option<String>> {
    context.ledger.manifest_sha256(id, repository)
}

/// Records what verification found.
pub(crate) fn mark(context: &Context, id: &BackupId, repository: &str, state: BackupState) -> Result<()> {
    let state = match state {
        BackupState::Complete => CopyState::Complete,
        BackupState::Validated => CopyState::Validated,
        BackupState::Corrupted => CopyState::Corrupted,
        BackupState::Missing => CopyState::Missing,
    };
    context.ledger.mark_copy(id, repository, state)
}

/// Records that a manifest could not be used. A wrong key says nothing about the backup.
pub(crate) fn mark_by_manifest(context: &Context, repository: &str, key: &ObjectKey, error: &Error) -> Result<()> {
    if matches!(error.code(), Code::WrongKey | Code::SecretUnsafe | Code::PassphraseInvalid) {
        return Ok(());
    }
    let stem = key.file_name().trim_end_matches(crate::artifact::object_key::MANIFEST_SUFFIX);
    for backup in context.ledger.backups(None)? {
        if format!("{}-{}", backup.id.target, backup.id.stamp) == stem {
            mark(context, &backup.id, repository, BackupState::Corrupted)?;
        }
    }
    Ok(())
}

/// A copy was deleted.
pub(crate) fn forget_in(context: &Context, id: &BackupId, repository: &str) -> Result<()> {
    context.ledger.forget_copy(id, repository)
}

/// Takes a backup that is in no repository off the record; `false` if it is not on record either.
pub(crate) fn forget_missing(context: &Context, id: &BackupId, dry_run: bool) -> Result<bool> {
    let Some(backup) = context.ledger.backup(id)? else { return Ok(false) };
    if !dry_run {
        for copy in &backup.copies {
            context.ledger.forget_copy(id, &copy.repository)?;
        }
    }
    Ok(true)
}

/// Makes the record agree with a repository; returns how many copies were added and how many are missing.
pub(crate) fn replace_repository(context: &Context, repository: &str, found: &[SignedManifest]) -> Result<(u64, u64)> {
    let replaced = context.ledger.replace_copies(repository, found)?;
    Ok((replaced.added, replaced.missing))
}

/// Rows of `list`, newest first.
pub(crate) fn rows(context: &Context, target: Option<&TargetName>) -> Result<Vec<BackupRow>> {
    Ok(context.ledger.backups(target)?.into_iter().map(row).collect())
}

fn row(backup: BackupRecord) -> BackupRow {
    BackupRow {
        state: state_of(&backup),
        engine: backup.engine,
        created_at: backup.created_at,
        expires_at: None,
        plain_bytes: backup.plain_bytes,
        stored_bytes: backup.stored_bytes,
        sha256: backup.sha256,
        counts: backup.counts.into_iter().collect(),
        duration_ms: backup.duration_ms,
        suspect: backup.suspect,
        repositories: backup.copies.into_iter().map(|copy| copy.repository).collect(),
        id: backup.id,
    }
}

/// A backup stands as its best copy does.
fn state_of(backup: &BackupRecord) -> BackupState {
    let any = |state| backup.copies.iter().any(|copy| copy.state == state);
    match () {
        () if any(CopyState::Validated) => BackupState::Validated,
        () if any(CopyState::Complete) => BackupState::Complete,
        () if any(CopyState::Corrupted) => BackupState::Corrupted,
        () => BackupState::Missing,
    }
}

/// When some copy of a backup was last verified.
pub(crate) fn verified_at(context: &Context, id: &BackupId) -> Result<Option<Timestamp>> {
    Ok(context.ledger.backup(id)?.and_then(|backup| backup.copies.iter().filter_map(|copy| copy.verified_at).max()))
}

/// When a backup of the target was last verified or restored with all checks passed.
pub(crate) fn last_proven(context: &Context, target: &TargetName) -> Result<Option<Timestamp>> {
    let verified = context.ledger.last_verified(target)?;
    let restored = context.ledger.last_healthy_restore(target)?.map(|restore| restore.at);
    Ok(verified.max(restored))
}

/// Bytes a second of the last healthy restore.
pub(crate) fn last_restore_rate(context: &Context, target: &TargetName) -> Result<Option<u64>> {
    let last = context.ledger.last_healthy_restore(target)?.filter(|restore| restore.duration_ms > 0);
    Ok(last.map(|restore| restore.plain_bytes * 1000 / restore.duration_ms))
}

/// A restore is finished.
pub(crate) fn restored(context: &Context, target: &Target, report: &RestoreReport) -> Result<()> {
    context.ledger.record_restore(&restore_entry(target, report))?;
    if healthy(report) == Some(true) {
        mark(context, &report.backup, &report.repository, BackupState::Validated)?;
    }
    Ok(())
}

/// Data was set aside; on record before the journal of the exchange goes.
pub(crate) fn set_aside(context: &Context, target: &Target, report: &RestoreReport) -> Result<()> {
    context.ledger.record_restore(&restore_entry(target, report))
}

/// A restore was undone: it is as if it had not been made.
pub(crate) fn restore_undone(context: &Context, name: &str) -> Result<()> {
    context.ledger.forget_restore(name)
}

fn healthy(report: &RestoreReport) -> Option<bool> {
    let made: Vec<bool> = report.checks.iter().filter_map(|check| check.passed).collect();
    (!made.is_empty()).then(|| made.iter().all(|passed| *passed))
}

fn restore_entry(target: &Target, report: &RestoreReport) -> RestoreEntry {
    RestoreEntry {
        name: report.restore.clone(),
        target: target.name.clone(),
        backup: report.backup.clone(),
        at: Timestamp::UNIX_EPOCH,
        directory: report.directory.clone(),
        in_place: report.in_place,
        set_aside: report.set_aside.clone(),
        plain_bytes: report.plain_bytes,
        duration_ms: report.duration_ms,
        healthy: healthy(report),
        reached: report.reached.as_ref().and_then(|reached| {
            let (stream, lineage) = (reached.stream.clone(), reached.lineage);
            Some(ReachedEntry { stream, lineage, transaction: reached.transaction? })
        }),
        batches: report.batches,
        number: 0,
    }
}

/// The last restore in place of a target, whether it is on record or was found by what it set aside.
pub(crate) fn last_in_place(context: &Context, target: &TargetName) -> Result<Option<(When, RestoreRecord)>> {
    let numbers: BTreeMap<String, u64> =
        context.ledger.restores()?.into_iter().map(|entry| (entry.name, entry.number)).collect();
    let restores = restores(context)?.into_iter();
    let in_place = restores.filter(|restore| &restore.target == target && restore.in_place).map(|restore| {
        let number = numbers.get(&restore.restore).copied().unwrap_or(0);
        (When { number, at: restore.at }, restore)
    });
    Ok(order::last(in_place))
}

/// Restores, newest first. Set-aside data that is no longer there is not listed; set-aside data that is there is,
/// whatever the ledger knows of it.
pub(crate) fn restores(context: &Context) -> Result<Vec<RestoreRecord>> {
    let record = |entry: RestoreEntry| RestoreRecord {
        restore: entry.name,
        target: entry.target,
        backup: Some(entry.backup),
        at: entry.at,
        directory: entry.directory,
        in_place: entry.in_place,
        set_aside: entry.set_aside.into_iter().filter(|path| path.exists()).collect(),
        duration_ms: entry.duration_ms,
        healthy: entry.healthy,
        reached: entry.reached.map(|reached| Reached {
            stream: reached.stream,
            lineage: reached.lineage,
            transaction: Some(reached.transaction),
            time: None,
            position: None,
        }),
    };
    let mut restores: Vec<RestoreRecord> = context.ledger.restores()?.into_iter().map(record).collect();
    for found in set_aside::find(context) {
        if !restores.iter().any(|known| known.restore == found.restore) {
            restores.push(unrecorded(found));
        }
    }
    restores.sort_by_key(|restore| std::cmp::Reverse(restore.at));
    Ok(restores)
}

fn unrecorded(found: SetAside) -> RestoreRecord {
    RestoreRecord {
        restore: found.restore,
        target: found.target,
        backup: None,
        at: found.stamp.timestamp(),
        directory: found.live,
        in_place: true,
        set_aside: found.paths,
        duration_ms: 0,
        healthy: None,
        reached: None,
    }
}

/// A job as answers show it.
pub(crate) fn job_record(entry: JobEntry) -> JobRecord {
    let states = [
        JobState::Queued,
        JobState::Running,
        JobState::Cancelling,
        JobState::Succeeded,
        JobState::Cancelled,
        JobState::Interrupted,
    ];
    let state = states.into_iter().find(|state| state.as_str() == entry.state).unwrap_or(JobState::Failed);
    JobRecord {
        id: entry.id,
        verb: entry.verb,
        target: entry.target,
        state,
        started_at: entry.started_at,
        ended_at: entry.ended_at,
        progress: None,
        error_code: entry.error_code,
        message: entry.message,
    }
}

/// Ended jobs and events, newest first.
pub(crate) fn history(context: &Context, limit: u32) -> Result<(Vec<JobRecord>, Vec<EventRecord>)> {
    let severity = |name: &str| match name {
        "error" => Severity::Error,
        "warning" => Severity::Warning,
        _ => Severity::Info,
    };
    let event = |entry: EventEntry| EventRecord {
        at: entry.at,
        severity: severity(&entry.severity),
        name: entry.name,
        target: entry.target,
        job: entry.job,
        actor: entry.actor,
        text: entry.text,
    };
    let jobs = context.ledger.ended_jobs(limit)?.into_iter().map(job_record).collect();
    Ok((jobs, context.ledger.events(limit)?.into_iter().map(event).collect()))
}

/// The running job of a target.
pub(crate) fn running_job(context: &Context, target: &TargetName) -> Result<Option<JobId>> {
    let running = context.ledger.running_jobs()?;
    Ok(running.into_iter().find(|job| job.target.as_ref() == Some(target)).map(|job| job.id))
}

/// The last backup job, if it did not succeed. `newest` is when the newest backup was begun that
/// counts, and everything up to `covered` is archived.
pub(crate) fn last_failure(
    context: &Context,
    target: &TargetName,
    newest: Option<Timestamp>,
    covered: Option<Timestamp>,
) -> Result<Option<JobRecord>> {
    let mut last = Vec::new();
    for verb in ["backup", "archive"] {
        last.extend(context.ledger.last_job(verb, target)?.map(job_record));
    }
    let succeeded = last.iter().filter(|job| job.state == JobState::Succeeded).map(|job| job.id.0).max();
    let is = |job: &JobRecord, codes: &[Code]| codes.iter().any(|code| job.error_code.as_deref() == Some(code.name()));
    // A full backup that succeeded says nothing of the log, and the other way round: the later failure is told. But who
    // writes the chain, and which history it goes on in, was settled for both; and what this version cannot do at all is
    // no failure of the database's backups.
    // A base that the log needed was taken by the job that archives.
    let settled = |job: &JobRecord| {
        is(job, &[Code::LogForked, Code::OwnerConflict]) && succeeded.is_some_and(|success| success > job.id.0)
            // Shipping between the timers leaves no job when it succeeds.
            || is(job, &[Code::Busy, Code::Cancelled]) && job.verb == "archive" && job.ended_at < covered
            || job.verb == "backup" && job.ended_at.is_some_and(|ended| newest.is_some_and(|newest| newest > ended))
    };
    let failed = |job: &JobRecord| job.state != JobState::Succeeded && !is(job, &[Code::NotAvailable]) && !settled(job);
    Ok(last.into_iter().filter(failed).max_by_key(|job| job.id.0))
}

/// Marks every job that has not ended as interrupted; returns them. Only for whoever holds the state directory alone:
/// no other agent can be alive then, whatever a number in the process table looks like.
pub(crate) fn interrupt_jobs(context: &Context) -> Result<Vec<JobRecord>> {
    let orphans = context.ledger.interrupt_running()?;
    for job in &orphans {
        let text = format!("job {} ({}) was interrupted: the agent ended under it", job.id, job.verb);
        Record {
            target: job.target.as_ref().map(TargetName::as_str),
            job: Some(job.id.0),
            error_code: Some(Code::Interrupted.name()),
            ..Record::new(Occasion::JobInterrupted, &text)
        }
        .emit();
        event(
            context,
            Happening {
                severity: Severity::Error,
                name: "job-interrupted",
                target: job.target.as_ref(),
                job: Some(job.id),
                actor: "neo4j-backupd",
                text: &text,
            },
        )?;
    }
    Ok(orphans.into_iter().map(job_record).collect())
}

/// Whether the ledger's file is sound.
pub(crate) fn integrity(context: &Context) -> Result<()> {
    context.ledger.integrity_check()
}

/// How many backups each key has signed.
pub(crate) fn backups_by_key(context: &Context) -> Result<BTreeMap<String, u64>> {
    context.ledger.copies_by_key()
}
