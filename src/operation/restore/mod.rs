//! `restore`: a signed manifest chosen, its objects authenticated and opened into a directory that is not in service,
//! recovered and checked there; only then, if asked, exchanged for the data in service, which is set aside.
//!
//! A restore that fails, is cancelled or killed leaves the data in service as it was. What it had begun elsewhere is
//! on record ([`staging`]) and is removed at the latest by the agent's next start.

pub(crate) mod bases;
mod branches;
mod choose;
mod continuations;
pub(crate) mod copy;
mod demands;
mod fill;
pub(crate) mod in_place;
mod in_service;
mod landmark;
mod log_plan;
mod outcome;
mod over;
mod place;
mod plan;
mod record;
pub(crate) mod staging;
mod timelines;

use crate::artifact::log_point;
use crate::base::clock::Stopwatch;
use crate::base::ids::Stamp;
use crate::base::task::Task;
use crate::base::{Code, Error, Result, bytes};
use crate::driver::HealthCheck;
use crate::driver::log::RecoveryTarget;
use crate::driver::restore_options::Standby;
use crate::operation::answer::{Reached, RestoreReport};
use crate::operation::context::{Context, Lane, Target};
use crate::operation::request::{Destination, RestoreRequest};
use crate::operation::{records, request, verify};
use choose::Chosen;
use log_plan::LogPlan;

/// What every program says when a filesystem is full.
const NO_SPACE: &str = "No space left on device";
/// Failures of a restore that lie with what a repository holds.
const OF_A_REPOSITORY: [Code; 6] = [
    Code::BackupCorrupted,
    Code::BackupIncomplete,
    Code::ObjectNotFound,
    Code::SignatureInvalid,
    Code::LogCorrupted,
    Code::LogGap,
];

/// Restores a backup of a target. What one repository turns out to hold damaged is taken from the next.
///
/// Errors: `BACKUP_NOT_FOUND`, `WRONG_KEY`, `SIGNATURE_INVALID`, `BACKUP_CORRUPTED`, `OBJECT_NOT_FOUND`,
/// `RESTORE_NOT_EMPTY`, `RESTORE_SERVER_RUNNING`, `BACKUP_NO_SPACE`, `RESTORE_HEALTH_FAILED`, `SWAP_FAILED`.
pub fn run(context: &Context, request: &RestoreRequest, task: &Task) -> Result<RestoreReport> {
    let watch = Stopwatch::start();
    let target = context.target(&request.target)?;
    demands::check(target, request)?;
    let in_place = request.destination == Destination::InPlace;
    let _lanes = match in_place {
        true => vec![
            context.lane(&target.name, Lane::Restore)?,
            context.lane(&target.name, Lane::Base)?,
            context.lane(&target.name, Lane::Log)?,
        ],
        false => Vec::new(),
    };
    let _lease = context.reading(&target.name, false)?;
    let mut chosen = choose_for(context, target, request, task)?;
    let mut tried = Vec::new();
    let mut report = loop {
        let outcome = chosen.outcome();
        tried.push((chosen.repository.name().to_owned(), chosen.manifest.id.clone()));
        let failure = match attempt(context, target, request, chosen, task) {
            Ok(report) => break report,
            Err(error) => error,
        };
        task.check()?;
        if !OF_A_REPOSITORY.contains(&failure.code()) {
            return Err(failure);
        }
        // What was found damaged on the way is on record by now; what leads to the same elsewhere may be whole. Anything less
        // is for the operator to ask for.
        let is_untried = |next: &Chosen| {
            tried
                .iter()
                .all(|(repository, id)| (repository.as_str(), id) != (next.repository.name(), &next.manifest.id))
        };
        chosen = match choose_for(context, target, request, task) {
            Ok(next) if is_untried(&next) && next.outcome() == outcome => next,
            _ => return Err(failure),
        };
        let (id, place) = (&chosen.manifest.id, chosen.repository.name());
        task.warn(format!("going on with {id} from repository {place}: {failure}"));
    };
    report.steps.push(estimate(context, target, &report)?);
    report.duration_ms = watch.elapsed().as_millis() as u64;
    if !request.dry_run {
        records::restored(context, target, &report).map_err(|error| done_all_the_same(&report, error))?;
    }
    Ok(report)
}

/// What is restored stays so, whether or not that could be put on record.
fn done_all_the_same(report: &RestoreReport, error: Error) -> Error {
    let place = report.directory.display();
    let done = match report.set_aside.iter().map(|path| path.display().to_string()).collect::<Vec<_>>() {
        aside if report.in_place && !aside.is_empty() => {
            format!("the restored data is in service at {place}, what was there before is kept in {}", aside.join(", "))
        }
        _ if report.in_place => format!("the restored data is in service at {place}"),
        _ => format!("the restored data is in {place}"),
    };
    error.context(format!("{done}; how the restore went could not be put on record"))
}

/// What is restored, and from which repository; what the operator has to know of it is told.
fn choose_for(context: &Context, target: &Target, request: &RestoreRequest, task: &Task) -> Result<Chosen> {
    task.phase("choosing", 0);
    let chosen = choose::choose(context, target, request, task)?;
    let in_place = request.destination == Destination::InPlace;
    target.driver.check_restore(&chosen.manifest, in_place, &request.options)?;
    if request.backup.is_none() {
        tell_of_newer_objects(context, target, &chosen, task)?;
        tell_of_a_fork(context, target, task)?;
    }
    if !chosen.manifest.suspect.is_empty() {
        task.warn(format!("{} was taken of damaged files: {}", chosen.manifest.id, chosen.manifest.suspect.join("; ")));
    }
    Ok(chosen)
}

/// Restores what was chosen. What fails leaves nothing behind but what [`over`] says.
fn attempt(
    context: &Context,
    target: &Target,
    request: &RestoreRequest,
    mut chosen: Chosen,
    task: &Task,
) -> Result<RestoreReport> {
    // A standby fetches the log itself, and goes on doing so.
    let fetched = if request.options.standby.is_some() { chosen.log.take() } else { None };
    let name = restore_name(context, target)?;
    task.info(format!("restoring {} from {}", chosen.manifest.id, chosen.repository.name()));
    let mut report = blank_report(&name, &chosen, request);
    report.steps.extend(
        fetched.map(|log| format!("leave {} archived batches to be fetched by the standby", log.batches.len())),
    );
    match &request.destination {
        Destination::Into(directory) => into(context, target, &chosen, directory, request, &mut report, task)?,
        Destination::InPlace => in_place::run(context, target, &chosen, request, &mut report, task)?,
    }
    Ok(report)
}

/// Objects of a newer backup without a manifest are those of one that is being taken, or all that is left of one: without
/// the ledger nobody can tell.
fn tell_of_newer_objects(context: &Context, target: &Target, chosen: &Chosen, task: &Task) -> Result<()> {
    let own = format!("{}-{}", target.name, chosen.manifest.id.stamp);
    for stem in verify::stems_without_manifest(context, target, &chosen.repository)? {
        if stem > own {
            task.warn(format!(
                "repository {} holds objects of {stem} and no manifest of it: it is being taken now, was never finished, or has \
                 lost its manifest, and then it is newer than what is restored",
                chosen.repository.name()
            ));
        }
    }
    Ok(())
}

/// What is in service may be of a history that was refused: then what comes back is the one that was archived before.
fn tell_of_a_fork(context: &Context, target: &Target, task: &Task) -> Result<()> {
    let failure = records::last_failure(context, &target.name, None, None)?;
    if let Some(failure) = failure.filter(|failure| failure.error_code.as_deref() == Some(Code::LogForked.name())) {
        task.warn(format!(
            "the history of {} was found to be another one than the archived one (job {}, LOG_FORKED): nothing of it was archived \
             since, and what is restored is of the archived one",
            target.name, failure.id
        ));
    }
    Ok(())
}

/// How long it will take, by what the last restore took.
fn estimate(context: &Context, target: &Target, report: &RestoreReport) -> Result<String> {
    Ok(match records::last_restore_rate(context, &target.name)? {
        Some(rate) => format!("about {} s in all, as fast as the last restore", report.plain_bytes / rate.max(1) + 1),
        None => "how long it takes is not known: nothing was restored on this host yet".to_owned(),
    })
}

/// `TARGET-STAMP`; the stamp is moved on while something of that name is on record, in the ledger or as staging.
fn restore_name(context: &Context, target: &Target) -> Result<String> {
    let taken: Vec<String> = records::restores(context)?.into_iter().map(|restore| restore.restore).collect();
    let mut stamp = Stamp::new(context.clock.now());
    loop {
        let name = format!("{}-{stamp}", target.name);
        if !taken.contains(&name) && !staging::is_recorded(context, &name) {
            return Ok(name);
        }
        stamp = stamp.next();
    }
}

fn blank_report(name: &str, chosen: &Chosen, request: &RestoreRequest) -> RestoreReport {
    RestoreReport {
        restore: name.to_owned(),
        backup: chosen.manifest.id.clone(),
        repository: chosen.repository.name().to_owned(),
        dry_run: request.dry_run,
        directory: match &request.destination {
            request::Destination::Into(directory) => directory.clone(),
            request::Destination::InPlace => std::path::PathBuf::new(),
        },
        in_place: request.destination == Destination::InPlace,
        set_aside: Vec::new(),
        plain_bytes: chosen.manifest.plain_bytes() + chosen.log.as_ref().map_or(0, LogPlan::plain_bytes),
        until: chosen.log.as_ref().map(|log| log.until).or(request.until),
        reached: expected(chosen),
        batches: chosen.log.as_ref().map_or(0, |log| log.batches.len() as u64),
        checks: Vec::new(),
        duration_ms: 0,
        steps: steps(chosen, request),
    }
}

fn steps(chosen: &Chosen, request: &RestoreRequest) -> Vec<String> {
    let mut steps = vec![format!(
        "take {} of {} from {} ({} stored, {} to write), every part authenticated before it is decrypted",
        chosen.manifest.id,
        chosen.manifest.created_at,
        chosen.repository.store().location(),
        bytes::human(chosen.manifest.stored_bytes()),
        bytes::human(needed_bytes(chosen)),
    )];
    steps.extend(request.options.timeline.map(|timeline| format!("follow timeline {timeline}, and no other")));
    steps.extend(chosen.log.iter().flat_map(LogPlan::steps));
    if chosen.log.is_none() && request.until == Some(RecoveryTarget::Immediate) {
        steps.push("end as soon as the backup is consistent, with no log but its own".to_owned());
    }
    steps
}

/// Where the restore arrives in the log, as far as that is known beforehand.
fn expected(chosen: &Chosen) -> Option<Reached> {
    if let Some(log) = &chosen.log {
        return Some(log.expected());
    }
    let position = chosen.manifest.position.as_ref()?;
    let mark = position.mark.as_ref()?;
    Some(Reached {
        stream: chosen.manifest.owner.data_identity.clone(),
        lineage: position.lineage.parse().ok()?,
        transaction: Some(mark.transaction),
        time: mark.committed_at,
        position: log_point::position(chosen.manifest.engine, mark.transaction),
    })
}

/// Bytes that a restore writes: the data directory's size when it was backed up, or what the volumes say.
fn needed_bytes(chosen: &Chosen) -> u64 {
    let manifest = &chosen.manifest;
    let log = chosen.log.as_ref().map_or(0, LogPlan::plain_bytes);
    let recorded = manifest.server.facts.get(super::backup::FACT_SOURCE_BYTES).and_then(|text| text.parse().ok());
    manifest.plain_bytes().max(recorded.unwrap_or(0)) + log
}

fn into(
    context: &Context,
    target: &Target,
    chosen: &Chosen,
    directory: &std::path::Path,
    request: &RestoreRequest,
    report: &mut RestoreReport,
    task: &Task,
) -> Result<()> {
    let branches = target.driver.branches(&chosen.manifest, &request.options)?;
    let over = request.options.delta && over::holds_something(directory);
    if over {
        place::check_surroundings(context, target, directory, task)?;
        over::refuse_live(context, target, directory)?;
        target.driver.check_older_copy(&chosen.manifest, directory)?;
        over::check_room(directory, needed_bytes(chosen))?;
        report.steps.push(over::step(directory));
    } else {
        place::check_destination(context, target, directory, task)?;
        branches::check(context, target, directory, &branches, task)?;
        branches::check_room(directory, &branches, needed_bytes(chosen))?;
        report.steps.push(format!("fill {}", directory.display()));
        report.steps.extend(branches::steps(&branches));
    }
    report.steps.extend(match (&request.options.standby, request.no_recover) {
        (Some(Standby { primary: Some(primary) }), _) => Some(format!("leave it as a standby of {primary}")),
        (Some(_), _) => Some("leave it as a standby that follows the archive alone".to_owned()),
        (None, true) => None,
        (None, false) => Some("start a private scratch server on it, let it recover, check, stop it".to_owned()),
    });
    if request.dry_run {
        return Ok(());
    }
    if over {
        let filled = fill::fill(context, target, chosen, directory, request, task)
            .and_then(|filled| refuse_unhealthy(&filled.checks).map(|()| filled));
        return filled.map(|filled| filled.tell(report)).map_err(|error| over::broke_off(error, directory));
    }
    let places = std::iter::once(directory).chain(branches.iter().map(|branch| &*branch.directory));
    let claimed = places.map(|place| place::claim(context, &report.restore, place)).collect::<Result<Vec<_>>>()?;
    let filled = fill::fill(context, target, chosen, directory, request, task)
        .and_then(|filled| refuse_unhealthy(&filled.checks).map(|()| filled));
    match filled {
        Ok(filled) => {
            filled.tell(report);
            claimed.into_iter().try_for_each(staging::Claim::keep)
        }
        Err(error) => {
            claimed.into_iter().for_each(staging::Claim::clear);
            Err(error)
        }
    }
}

/// A restored copy that fails a check is not handed over.
fn refuse_unhealthy(checks: &[HealthCheck]) -> Result<()> {
    let failed: Vec<_> = checks
        .iter()
        .filter(|check| check.passed == Some(false))
        .map(|check| format!("{}: {}", check.name, check.found))
        .collect();
    if failed.is_empty() {
        return Ok(());
    }
    // A server that found no room says nothing about the backup.
    let full = failed.iter().any(|found| found.contains(NO_SPACE));
    let code = if full { Code::BackupNoSpace } else { Code::RestoreHealthFailed };
    Err(Error::new(code, format!("the restored copy is not healthy: {}", failed.join("; "))))
}
