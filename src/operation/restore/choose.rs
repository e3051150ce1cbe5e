//! What a restore consists of, and from which repository: the first one whose manifests and objects hold what they
//! promise. A backup that was named without a target is restored alone; in all other cases the log is replayed over it.

use super::bases::{self, Candidate, Lost};
use super::continuations;
use super::in_service::InService;
use super::landmark::{self, Aim};
use super::log_plan::{self, LogPlan};
use super::plan::{self, Base, History};
use super::record;
use super::timelines;
use crate::artifact::log_batch::LogMark;
use crate::artifact::log_point;
use crate::artifact::manifest::{Manifest, SignedManifest};
use crate::artifact::object_key;
use crate::base::ids::BackupId;
use crate::base::task::Task;
use crate::base::{Code, Error, Result};
use crate::driver::log::RecoveryTarget;
use crate::driver::restore_options::Timeline;
use crate::operation::context::{Context, Target};
use crate::operation::request::RestoreRequest;
use crate::operation::{log_records, records, select};
use crate::repository::catalog::Repository;
use jiff::Timestamp;
use std::collections::BTreeMap;

/// What may be restored.
pub(super) struct Chosen {
    /// The backup's manifest; the signature was checked.
    pub(super) manifest: Manifest,
    /// Where it is.
    pub(super) repository: Repository,
    /// The log that is replayed over it; `None` = none.
    pub(super) log: Option<LogPlan>,
    /// What has to be said if it is this that is restored, and not what another repository gives.
    remarks: Vec<String>,
}

/// Resolves what the operator asked for and finds a repository that has all of it.
pub(super) fn choose(context: &Context, target: &Target, request: &RestoreRequest, task: &Task) -> Result<Chosen> {
    let named = match (&request.backup, request.until) {
        (Some(wanted), None | Some(RecoveryTarget::Immediate)) => return choose_alone(context, target, wanted, task),
        (Some(wanted), Some(_)) => Some(select::backup_of(context, target, wanted)?),
        (None, _) => None,
    };
    let until = request.until.unwrap_or(RecoveryTarget::End);
    let timeline = request.options.timeline;
    let mut failures: Vec<(&str, Error)> = Vec::new();
    let mut any_chain = request.until.is_some() || timeline.is_some();
    let mut plans: Vec<(Chosen, Option<(Timestamp, BackupId)>)> = Vec::new();
    let mut ends = Vec::new();
    let mut in_service = InService::by_the_record(context, target)?;
    for name in record::in_order(context, target, until)? {
        let planned = context.repository(target, name).and_then(|repository| {
            let mut found = bases::find(context, target, &repository, named.as_ref(), task)?;
            timelines::retain(target, timeline, &mut found.candidates, &repository)?;
            any_chain |= !found.candidates.is_empty();
            let here = continuations::ends(context, target, &repository, &found.candidates)?;
            in_service.see(name, &found.candidates, &here);
            ends.extend(here);
            let Aim { until, history } = landmark::aim(context, target, &repository, &found.candidates, until, task)?;
            let mut candidates = found.candidates;
            candidates.retain(|candidate| history.as_ref().is_none_or(|history| &candidate.base.history == history));
            Ok((with_log(context, target, repository, candidates, until, task)?, found.without_log))
        });
        match planned {
            Ok(planned) => {
                plans.push(planned);
                // What is asked for may lie in a history that one repository has and another has not, and the record may be
                // older than all of them.
                if named.is_some() {
                    break;
                }
            }
            Err(error) => failures.push((name, error)),
        }
    }
    if let Some(best) =
        (0..plans.len()).reduce(|best, next| match is_newer(&plans[next].0, &plans[best].0, until, &in_service) {
            true => next,
            false => best,
        })
    {
        let (mut chosen, without_log) = plans.swap_remove(best);
        if named.is_none() {
            chosen.remarks.extend(chosen.log.as_ref().and_then(|log| in_service.remark(log)));
            record::refuse_less(context, target, &chosen, (until, timeline), (&failures, &in_service))?;
            let failed: Vec<&str> = failures.iter().map(|(name, _)| *name).collect();
            continuations::refuse_unclear(context, target, &chosen, &ends, &failed)?;
            chosen.remarks.extend(continuations::remark_forgotten(context, target, &chosen, &ends)?);
        }
        for (name, error) in &failures {
            task.warn(format!("repository {name}: {error}"));
        }
        return settled(context, target, request, chosen, without_log, task);
    }
    if !any_chain {
        // Backups of a database without a log: the newest of them is what there is.
        return choose_alone(context, target, "latest", task).map_err(|error| {
            // "There is none" says less than why a repository could not be asked.
            let telling = |other: &Error| other.code() != Code::BackupNotFound;
            let first = failures.into_iter().map(|(_, failure)| failure).find(telling);
            let error = only_damaged(context, target).filter(|_| error.code() == Code::BackupNotFound).unwrap_or(error);
            first.filter(|_| error.code() == Code::BackupNotFound).unwrap_or(error)
        });
    }
    Err(told_once(failures, task).unwrap_or_else(|| no_repository(target)))
}

/// What a plan amounts to: nothing that was left unasked, and a backup without a log where that is newer.
fn settled(
    context: &Context,
    target: &Target,
    request: &RestoreRequest,
    chosen: Chosen,
    without_log: Option<(Timestamp, BackupId)>,
    task: &Task,
) -> Result<Chosen> {
    let timeline = request.options.timeline;
    if request.backup.is_none()
        && !matches!(timeline, Some(Timeline::Number(_)))
        && let Some(left) = record::left_by_a_restore(context, target, &chosen)?
    {
        if request.until.is_none_or(|until| until == RecoveryTarget::End) {
            return Err(left);
        }
        task.warn(left.message());
    }
    // A standby begins with a base: what is loaded from a dump follows nothing.
    let newest = request.until.is_none() && timeline.is_none() && request.options.standby.is_none();
    match without_log {
        // The last state that is stored is wanted: it may be that of a backup without a log.
        Some((at, id)) if newest && at > reach(&chosen) => {
            task.info(format!("{id} is newer than the archived log and has none to replay over it"));
            choose_alone(context, target, &id.to_string(), task)
        }
        _ => {
            chosen.remarks.iter().for_each(|remark| task.warn(remark));
            Ok(chosen)
        }
    }
}

/// Whether a plan is for the log in service and another one is not, or for a later history of the same log; to the end, also
/// whether it reaches farther in the same one.
fn is_newer(chosen: &Chosen, other: &Chosen, until: RecoveryTarget, in_service: &InService) -> bool {
    let (Some(one), Some(two)) = (&chosen.log, &other.log) else { return false };
    let farther = |log: &LogPlan| if until == RecoveryTarget::End { log.end.transaction } else { 0 };
    if one.history.stream != two.history.stream {
        return in_service.is(&one.history.stream);
    }
    (one.history.lineage, farther(one)) > (two.history.lineage, farther(two))
}

/// That there are backups, all of which were found damaged.
fn only_damaged(context: &Context, target: &Target) -> Option<Error> {
    let known = records::known(context, Some(&target.name)).ok()?;
    let first = known.first().filter(|_| known.iter().all(|backup| !backup.usable))?;
    let text = format!("every backup of {} on record is damaged or missing, the newest is {}", target.name, first.id);
    Some(Error::new(Code::BackupCorrupted, text).with_hint(format!(
        "`neo4j-backupctl verify {}` says what is wrong with it, `neo4j-backupctl backup {}` takes a new one",
        first.id, target.name
    )))
}

/// The failure that says most; the others are told beside it, none twice.
fn told_once(mut failures: Vec<(&str, Error)>, task: &Task) -> Option<Error> {
    // "Not there" says less than what is wrong where it is.
    let most = failures.iter().position(|(_, error)| error.code() != Code::BackupNotFound).unwrap_or(0);
    let first = (most < failures.len()).then(|| failures.remove(most).1)?;
    for (name, error) in failures.iter().filter(|(_, error)| error.message() != first.message()) {
        task.warn(format!("repository {name}: {error}"));
    }
    Some(first)
}

fn no_repository(target: &Target) -> Error {
    Error::new(Code::BackupNotFound, format!("{} has no repository", target.name))
}

/// When the newest state was taken that a plan reaches.
fn reach(chosen: &Chosen) -> Timestamp {
    let last = chosen.log.as_ref().and_then(|log| log.batches.last()).map(|batch| batch.created_at);
    last.unwrap_or(chosen.manifest.created_at).max(chosen.manifest.created_at)
}

/// What the record knows of the log that a base holds, beside what the base itself says.
fn look_up_latest_commit(context: &Context, target: &Target, repository: &Repository, base: &mut Base) -> Result<()> {
    let history = (base.history.stream.as_str(), base.history.lineage);
    let recorded = log_records::latest_commit(context, target, repository.name(), history, base.mark.transaction)?;
    base.latest_commit = base.latest_commit.max(recorded);
    Ok(())
}

/// The best base for the target, and the log from there.
fn with_log(
    context: &Context,
    target: &Target,
    repository: Repository,
    candidates: Vec<Candidate>,
    until: RecoveryTarget,
    task: &Task,
) -> Result<Chosen> {
    let mut bases: Vec<Base> = candidates.iter().map(|candidate| candidate.base.clone()).collect();
    if matches!(until, RecoveryTarget::Time(_)) {
        bases.iter_mut().try_for_each(|base| look_up_latest_commit(context, target, &repository, base))?;
    }
    let mut first_error: Option<Error> = None;
    let mut tried: BTreeMap<&History, u64> = BTreeMap::new();
    // What a newer history holds but cannot give must never come from an older one: that is another state.
    let mut blocked: Option<&History> = None;
    let mut left: Option<&Candidate> = None;
    let mut passed_over = false;
    for index in plan::bases_for(&bases, until) {
        let (candidate, base) = (&candidates[index], &bases[index]);
        // An earlier base of the same history meets the same obstacle further on.
        if tried.get(&base.history).is_some_and(|from| base.mark.transaction <= *from) {
            continue;
        }
        if blocked.is_some_and(|blocked| blocked != &base.history) {
            left = left.or(Some(candidate).filter(|candidate| candidate.manifest.is_ok()));
            continue;
        }
        let usable = candidate.manifest.as_ref().map_err(Lost::error).and_then(|manifest| {
            check_engine(target, manifest).and_then(|()| check_objects(&repository, manifest)).map(|()| manifest)
        });
        let manifest = match usable {
            Ok(manifest) => manifest,
            Err(error) => {
                (blocked, passed_over) = (Some(&base.history), true);
                first_error.get_or_insert(error);
                continue;
            }
        };
        match log_plan::make(context, target, &repository, manifest, (base, next_mark(&bases, base)), until) {
            Ok(log) => {
                if let Some(error) = first_error.filter(|_| passed_over) {
                    task.warn(format!("passing over a newer base: {error}"));
                }
                let mut remarks: Vec<_> = remark_if_left(context, target, &bases, base)?.into_iter().collect();
                remarks.extend(remark_later_commits(manifest, base, until));
                if tried.contains_key(&base.history) {
                    remarks.push(LESS_THAN_A_SECOND.to_owned());
                }
                let (manifest, log) = (manifest.clone(), Some(log));
                return Ok(Chosen { manifest, repository, log, remarks });
            }
            Err(error) => {
                tried.entry(&base.history).or_insert(base.mark.transaction);
                if error.code() != Code::RestoreTargetUnreachable {
                    blocked = Some(&base.history);
                }
                first_error.get_or_insert(error);
            }
        }
    }
    let error = first_error.unwrap_or_else(|| no_base(target, &repository, &candidates));
    Err(match left.filter(|_| passed_over) {
        Some(left) => error.with_hint(how_to_get(context, target, &repository, left)),
        None => error,
    })
}

/// Where the base of the same history that comes next ends.
fn next_mark<'a>(bases: &'a [Base], base: &Base) -> Option<&'a LogMark> {
    let later = |next: &&Base| next.history == base.history && next.mark.transaction > base.mark.transaction;
    bases.iter().filter(later).map(|next| &next.mark).min_by_key(|mark| mark.transaction)
}

const LESS_THAN_A_SECOND: &str = "what leads there from an earlier full backup is lost, and this one ends less than a second before \
                                  that time: where the server's clock ran back just then, it holds something later";

fn remark_if_left(context: &Context, target: &Target, bases: &[Base], chosen: &Base) -> Result<Option<String>> {
    let here = bases.iter().map(|base| (base.history.stream.clone(), base.history.lineage));
    // Another repository may hold what came later.
    let recorded = context.ledger.log_bases(&target.name)?.into_iter();
    let known = here.chain(recorded.map(|base| (base.chain.stream, base.chain.lineage)));
    let newest = known.filter(|(stream, _)| *stream == chosen.history.stream).map(|(_, lineage)| lineage).max();
    Ok(newest.filter(|newest| chosen.history.lineage < *newest).map(|newest| {
        format!(
            "this is a history that was left: of lineage {}, while the database went on as lineage {newest}",
            chosen.history.lineage
        )
    }))
}

fn remark_later_commits(manifest: &Manifest, base: &Base, until: RecoveryTarget) -> Option<String> {
    let RecoveryTarget::Time(time) = until else { return None };
    let latest = base.latest_commit.filter(|latest| *latest > time)?;
    Some(format!(
        "the server's clock ran back before {} was taken: it holds transactions with times up to {latest}, later than \
         what is asked for; name an older backup to stop before them",
        manifest.id
    ))
}

/// How an operator gets what a history that was left holds: only by asking for it.
fn how_to_get(context: &Context, target: &Target, repository: &Repository, left: &Candidate) -> String {
    let Candidate { base, manifest: Ok(manifest) } = left else { return String::new() };
    let end = log_plan::make(context, target, repository, manifest, (base, None), RecoveryTarget::End);
    let end = end.map_or(base.mark.transaction, |plan| plan.end.transaction);
    format!(
        "`neo4j-backupctl backup {0}` makes what is in service restorable; `neo4j-backupctl restore {0} {1} {3}` \
         gives the end of lineage {2}, an older state",
        target.name,
        manifest.id,
        base.history.lineage,
        log_point::option(manifest.engine, end)
    )
}

fn no_base(target: &Target, repository: &Repository, candidates: &[Candidate]) -> Error {
    let bases = candidates.iter().filter(|candidate| candidate.manifest.is_ok()).map(|candidate| &candidate.base);
    let (name, place) = (&target.name, repository.name());
    let Some(base) = bases.min_by_key(|base| base.ended_at) else {
        let text =
            format!("no backup of {name} in repository {place} names a point of the log that a replay could begin at");
        return match target.driver.log() {
            Some(_) => Error::new(Code::BackupNotFound, text),
            None => Error::new(Code::NotAvailable, format!("{text}: {}", target.driver.why_no_log()))
                .with_hint(format!("without a target, `neo4j-backupctl restore {name}` gives the newest full backup")),
        };
    };
    let text = format!(
        "no backup of {name} in repository {place} ends before that; the oldest ends with {} at {}",
        log_point::named(target.driver.engine(), base.mark.transaction),
        base.ended_at
    );
    Error::new(Code::RestoreTargetUnreachable, text)
}

/// Without any log: the backup that was named, from the first repository that has all of it.
fn choose_alone(context: &Context, target: &Target, wanted: &str, task: &Task) -> Result<Chosen> {
    let id = select::backup_of(context, target, wanted)?;
    if wanted.starts_with("latest") {
        // Older data than the operator expects must not come as a surprise.
        let known = records::known(context, Some(&target.name))?;
        for newer in known.iter().take_while(|known| known.id != id).filter(|known| !known.usable) {
            task.warn(format!("passing over {}: it is damaged or missing", newer.id));
        }
    }
    let mut failures: Vec<(&str, Error)> = Vec::new();
    for name in &soundest_first(context, target, &id)? {
        match try_repository(context, target, name, &id) {
            Ok(chosen) => {
                for (name, error) in &failures {
                    task.warn(format!("repository {name}: {error}"));
                }
                return Ok(chosen);
            }
            Err(error) => failures.push((name, error)),
        }
    }
    Err(told_once(failures, task).unwrap_or_else(|| no_repository(target)))
}

/// The repositories as they are configured, those last in which the copy is on record as damaged.
fn soundest_first<'a>(context: &Context, target: &'a Target, id: &BackupId) -> Result<Vec<&'a str>> {
    let (mut sound, mut damaged) = (Vec::new(), Vec::new());
    for name in &target.repositories {
        let here = records::damaged_in(context, &target.name, name)?.contains(id);
        if here { damaged.push(name.as_str()) } else { sound.push(name.as_str()) }
    }
    sound.extend(damaged);
    Ok(sound)
}

fn try_repository(context: &Context, target: &Target, name: &str, id: &BackupId) -> Result<Chosen> {
    let repository = context.repository(target, name)?;
    let manifest = find(context, &repository, id)?.manifest;
    check_engine(target, &manifest)?;
    check_objects(&repository, &manifest)?;
    Ok(Chosen { manifest, repository, log: None, remarks: Vec::new() })
}

/// The manifest of one backup.
pub(super) fn find(context: &Context, repository: &Repository, id: &BackupId) -> Result<SignedManifest> {
    match repository.find_manifest(&context.environment, id) {
        Err(error) if error.code() == Code::BackupNotFound => Err(explain_absence(context, repository, id, error)),
        other => other,
    }
}

fn check_engine(target: &Target, manifest: &Manifest) -> Result<()> {
    if manifest.engine == target.driver.engine() {
        return Ok(());
    }
    let text = format!(
        "{} is a backup of {}, {} is {}",
        manifest.id,
        manifest.engine.as_str(),
        target.name,
        target.driver.engine().as_str()
    );
    Err(Error::new(Code::Usage, text))
}

/// Whether every object is there with the size on record.
fn check_objects(repository: &Repository, manifest: &Manifest) -> Result<()> {
    for object in &manifest.objects {
        match repository.store().stat(&object.key)? {
            None => {
                let text = format!("{} lacks its object {}", manifest.id, object.key);
                return Err(Error::new(Code::ObjectNotFound, text));
            }
            Some(info) if info.size != object.stored.size => {
                let text = format!("{} has {} bytes, its manifest says {}", object.key, info.size, object.stored.size);
                return Err(Error::new(Code::BackupCorrupted, text));
            }
            Some(_) => {}
        }
    }
    Ok(())
}

/// A backup whose objects are there but whose manifest is not is incomplete, which is not the same as unknown.
fn explain_absence(context: &Context, repository: &Repository, id: &BackupId, error: Error) -> Error {
    let Ok(manifest_key) = object_key::backup_manifest(&context.environment, id) else { return error };
    let stem = manifest_key.as_str().trim_end_matches("meta.json").to_owned();
    let mut found = 0;
    let listed = repository.store().list(&stem, &mut |_| {
        found += 1;
        Ok(())
    });
    if listed.is_ok() && found > 0 {
        let text =
            format!("{id} has {found} objects but no manifest: it was never finished, or the manifest was removed");
        return Error::new(Code::BackupIncomplete, text);
    }
    error
}
