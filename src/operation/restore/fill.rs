//! Fills an empty directory from a backup's objects and has the result checked by a scratch server.

use super::bases;
use super::choose::Chosen;
use super::log_plan::{self, LogPlan};
use super::plan::Base;
use crate::artifact::log_batch::LogMark;
use crate::artifact::log_point;
use crate::artifact::manifest::{Content, Engine, ObjectRecord, Role};
use crate::base::process::OsUser;
use crate::base::side_by_side;
use crate::base::task::Task;
use crate::base::{Code, Error, Result};
use crate::driver::log::RecoveryTarget;
use crate::driver::{HealthCheck, RestorePlace, RestoreSession};
use crate::operation::answer::{BackupState, RestoreReport};
use crate::operation::backup::FACT_OS_USER;
use crate::operation::backup::objects::LANES_AT_ONCE;
use crate::operation::context::{Context, Target};
use crate::operation::request::RestoreRequest;
use crate::operation::{log_object, log_records, records};
use crate::pipeline;
use std::path::Path;

/// What a directory was filled with.
pub(super) struct Filled {
    /// What was checked.
    pub(super) checks: Vec<HealthCheck>,
    /// Where the log that was replayed ends.
    pub(super) end: Option<LogMark>,
    /// Whose log it is.
    pub(super) engine: Engine,
}

impl Filled {
    /// Puts it into the report.
    pub(super) fn tell(self, report: &mut RestoreReport) {
        report.checks = self.checks;
        if let (Some(end), Some(reached)) = (self.end, &mut report.reached) {
            (reached.transaction, reached.time) = (Some(end.transaction), end.committed_at);
            reached.position = log_point::position(self.engine, end.transaction);
        }
    }
}

/// Writes the data into `directory`, recovers and checks it. The directory's fate after an error is the caller's.
pub(super) fn fill(
    context: &Context,
    target: &Target,
    chosen: &Chosen,
    directory: &Path,
    request: &RestoreRequest,
    task: &Task,
) -> Result<Filled> {
    let workspace = context.workspace(&format!("restore-{}", chosen.manifest.id))?;
    let place = RestorePlace {
        directory: directory.to_owned(),
        workspace: workspace.path().to_owned(),
        owner: owner(target, chosen, task)?,
        without_system: request.without_system,
        histories: histories(context, target, chosen)?,
        immediate: request.until == Some(RecoveryTarget::Immediate),
        branches: target.driver.branches(&chosen.manifest, &request.options)?,
        options: request.options.clone(),
    };
    if let Some(owner) = &place.owner {
        for directory in std::iter::once(directory).chain(place.branches.iter().map(|branch| &*branch.directory)) {
            context.host.give(directory, owner)?;
        }
        context.host.give(workspace.path(), owner)?;
    }
    let mut session = target.driver.begin_restore(&chosen.manifest, &place, task)?;
    write_objects(target, chosen, &mut *session, task)
        .map_err(|error| put_on_record(context, target, chosen, error, task))?;
    let end = chosen.log.as_ref().map(|log| write_log(context, target, chosen, log, &mut *session, task));
    let end = end.transpose()?.flatten();
    task.phase("completing", 0);
    session.complete(task)?;
    // A standby goes on recovering: a server that ends it would make something else of it.
    if request.no_recover || request.options.standby.is_some() {
        session.hand_over()?;
        let skipped = HealthCheck::skipped("all", "recovery and checks were left to the first start");
        return Ok(Filled { checks: vec![skipped], end, engine: chosen.manifest.engine });
    }
    task.phase("recovering and checking", 0);
    let checks = session.check(task)?;
    if checks.iter().all(|check| check.passed != Some(false)) {
        session.hand_over()?;
    }
    Ok(Filled { checks, end, engine: chosen.manifest.engine })
}

/// The points of all bases on record, for a database that hands its log over under names that must not come twice.
fn histories(context: &Context, target: &Target, chosen: &Chosen) -> Result<Vec<LogMark>> {
    let mut marks = Vec::new();
    if target.driver.log_inbox().is_none() {
        return Ok(marks);
    }
    for name in &target.repositories {
        let found = match context.repository(target, name) {
            Ok(repository) => bases::find(context, target, &repository, None, &Task::unobserved()),
            Err(error) => Err(error),
        };
        match found {
            Ok(found) => {
                let same = |base: &Base| base.history.stream == chosen.manifest.owner.data_identity;
                marks.extend(
                    found.candidates.into_iter().map(|candidate| candidate.base).filter(same).map(|base| base.mark),
                );
            }
            Err(error) if name == chosen.repository.name() => return Err(error),
            // What is stored elsewhere and cannot be asked for must not keep anybody from a restore.
            Err(_) => {}
        }
    }
    Ok(marks)
}

/// The account that shall own the data: that of the source today, or the one it had when it was backed up. An agent
/// that is not root keeps the files itself.
pub(super) fn owner(target: &Target, chosen: &Chosen, task: &Task) -> Result<Option<OsUser>> {
    if !nix::unistd::geteuid().is_root() {
        return Ok(None);
    }
    if let Ok(source) = target.driver.inspect(task) {
        return Ok(Some(source.owner));
    }
    match chosen.manifest.server.facts.get(FACT_OS_USER) {
        Some(name) => match name.parse::<u32>() {
            Ok(uid) => Ok(Some(OsUser::of_uid(uid, uid))),
            Err(_) => OsUser::of_name(name).map(Some).map_err(|error| error.recode(Code::RestoreFailed)),
        },
        None => Ok(None),
    }
}

/// Lays the log over the base, cuts it at the target, and compares where it ends with the plan. Every batch is
/// authenticated as it is read: nothing starts a server on the directory before all of them were whole.
fn write_log(
    context: &Context,
    target: &Target,
    chosen: &Chosen,
    log: &LogPlan,
    session: &mut dyn RestoreSession,
    task: &Task,
) -> Result<Option<LogMark>> {
    if log.batches.is_empty() {
        return Ok(None);
    }
    task.phase("replaying the log", log.plain_bytes());
    let mut reachable = &log.base;
    for batch in &log.batches {
        task.check()?;
        let mut sink = session.log_sink(batch, task)?;
        let opened = log_object::open(&chosen.repository, target, &batch.object, &batch.segments, &mut sink, task);
        opened.and_then(|()| sink.finish(task)).map_err(|error| match error.code() {
            Code::BackupCorrupted | Code::ObjectNotFound => {
                if let Ok(key) = batch.key() {
                    let marked =
                        log_records::mark(context, chosen.repository.name(), key.as_str(), BackupState::Corrupted);
                    told(marked, task);
                }
                log_plan::gap(target, &chosen.repository, reachable, error.message())
            }
            _ => error.context(format!("replaying {}", batch.object.key)),
        })?;
        reachable = &batch.end;
    }
    let end = session.end_log(log.for_driver(), task)?;
    log.check(&end)?;
    task.info(format!("the log ends with {}", log_point::named(log.engine, end.transaction)));
    Ok(Some(end))
}

/// What a restore finds damaged is on record from then on: `status` and `check` tell of it, and the next restore begins
/// elsewhere.
fn put_on_record(context: &Context, target: &Target, chosen: &Chosen, error: Error, task: &Task) -> Error {
    let state = match error.code() {
        Code::BackupCorrupted => BackupState::Corrupted,
        Code::ObjectNotFound => BackupState::Missing,
        _ => return error,
    };
    let (id, name) = (&chosen.manifest.id, &target.name);
    told(records::mark(context, id, chosen.repository.name(), state), task);
    error.with_hint(format!(
        "{id} is on record as damaged now: `neo4j-backupctl restore {name}` passes over it and replays the log over an older \
         base, if there is one; `neo4j-backupctl verify {id}` says what is wrong with it"
    ))
}

/// That something cannot be put on record must not hide why.
fn told(outcome: Result<()>, task: &Task) {
    if let Err(error) = outcome {
        task.warn(format!("the damage could not be put on record: {error}"));
    }
}

fn write_objects(target: &Target, chosen: &Chosen, session: &mut dyn RestoreSession, task: &Task) -> Result<()> {
    let keyring = target.keyring.get()?;
    let data = || chosen.manifest.objects.iter().filter(|object| object.role == Role::Data);
    task.phase("restoring", chosen.manifest.plain_bytes());
    // What is not written is authenticated all the same: a backup is sound as a whole or not at all.
    for object in chosen.manifest.objects.iter().filter(|object| object.role != Role::Data) {
        let mut stored = chosen.repository.store().read(&object.key, None)?;
        pipeline::unseal(object, &keyring, &target.read_policy, &mut stored, &mut std::io::sink(), task)?;
    }
    let objects: Vec<&ObjectRecord> = data().collect();
    if objects.is_empty() {
        return Err(Error::new(Code::BackupCorrupted, format!("{} holds no data", chosen.manifest.id)));
    }
    let parallel = session.takes_lanes_side_by_side();
    let same_tree =
        |a: &ObjectRecord, b: &ObjectRecord| a.content == Content::Tar && b.content == Content::Tar && a.name == b.name;
    for lanes in objects.chunk_by(|a, b| parallel && same_tree(a, b)) {
        let mut sinks = Vec::new();
        for object in lanes {
            sinks.extend(session.sink(object, task)?.map(|sink| (*object, sink)));
        }
        side_by_side::each(sinks, LANES_AT_ONCE, |(object, mut sink)| {
            task.check()?;
            let mut stored = chosen.repository.store().read(&object.key, None)?;
            let opened = pipeline::unseal(object, &keyring, &target.read_policy, &mut stored, &mut sink, task);
            opened.and_then(|()| sink.finish(task)).map_err(|error| error.context(format!("restoring {}", object.key)))
        })?;
    }
    Ok(())
}
