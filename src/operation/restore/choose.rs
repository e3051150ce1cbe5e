//! What a restore consists of, and from which repository: the first one whose manifests and objects hold what they
//! promise. A backup that was named without a target is restored alone; in all other cases the log is replayed over it.

use super::log_plan::{self, LogPlan};
use super::plan::{self, Base, History};
use crate::artifact::manifest::{Manifest, SignedManifest};
use crate::artifact::object_key;
use crate::base::ids::BackupId;
use crate::base::task::Task;
use crate::base::{Code, Error, Result};
use crate::driver::log::RecoveryTarget;
use crate::operation::archive::chain_end::lineage_of;
use crate::operation::context::{Context, Target};
use crate::operation::request::RestoreRequest;
use crate::operation::{records, select};
use crate::repository::catalog::Repository;
use jiff::Timestamp;
use std::collections::BTreeSet;

/// The lineage that began with the archive; every later one was forked off.
const FIRST_LINEAGE: u32 = 1;

/// What may be restored.
pub(super) struct Chosen {
    /// The backup's manifest; the signature was checked.
    pub(super) manifest: Manifest,
    /// Where it is.
    pub(super) repository: Repository,
    /// The log that is replayed over it; `None` = none.
    pub(super) log: Option<LogPlan>,
}

/// Resolves what the operator asked for and finds a repository that has all of it.
pub(super) fn choose(context: &Context, target: &Target, request: &RestoreRequest, task: &Task) -> Result<Chosen> {
    let named = match (&request.backup, request.until) {
        (Some(wanted), None) => return choose_alone(context, target, wanted, task),
        (Some(wanted), Some(_)) => Some(select::backup_of(context, target, wanted)?),
        (None, _) => None,
    };
    let until = request.until.unwrap_or(RecoveryTarget::End);
    let mut first_error: Option<Error> = None;
    let mut any_chain = request.until.is_some();
    for name in &target.repositories {
        let planned = context.repository(target, name).and_then(|repository| {
            let found = bases(context, target, &repository, named.as_ref(), task)?;
            any_chain |= !found.bases.is_empty();
            Ok((with_log(context, target, repository, found.bases, until, task)?, found.without_log))
        });
        match planned {
            // The last state that is stored is wanted: it may be that of a backup without a log.
            Ok((chosen, Some((at, id)))) if request.until.is_none() && at > reach(&chosen) => {
                task.info(format!("{id} is newer than the archived log and has none to replay over it"));
                return choose_alone(context, target, &id.to_string(), task);
            }
            Ok((chosen, _)) => return Ok(chosen),
            Err(error) => {
                keep_first(&mut first_error, &error);
                if any_chain {
                    task.warn(format!("repository {name}: {error}"));
                }
            }
        }
    }
    if !any_chain {
        // Backups of a database without a log: the newest of them is what there is.
        return choose_alone(context, target, "latest", task).map_err(|error| match first_error {
            // "There is none" says less than why a repository could not be asked.
            Some(first) if error.code() == Code::BackupNotFound => first,
            _ => error,
        });
    }
    Err(first_error.unwrap_or_else(|| Error::new(Code::BackupNotFound, format!("{} has no repository", target.name))))
}

/// When the newest state was taken that a plan reaches.
fn reach(chosen: &Chosen) -> Timestamp {
    let last = chosen.log.as_ref().and_then(|log| log.batches.last()).map(|batch| batch.created_at);
    last.unwrap_or(chosen.manifest.created_at).max(chosen.manifest.created_at)
}

/// "Not there" says less than what is wrong where it is.
fn keep_first(first: &mut Option<Error>, error: &Error) {
    if first.as_ref().is_none_or(|first| first.code() == Code::BackupNotFound) {
        *first = Some(Error::new(error.code(), error.message()).with_hint(error.hint()));
    }
}

/// The backups of a target in a repository.
struct Found {
    /// Those that a log can be replayed over.
    bases: Vec<SignedManifest>,
    /// The newest of the others.
    without_log: Option<(Timestamp, BackupId)>,
}

/// Manifests of the backups that a log can be replayed over: of the one that was named, or of all that are not known to be
/// damaged.
fn bases(
    context: &Context,
    target: &Target,
    repository: &Repository,
    named: Option<&BackupId>,
    task: &Task,
) -> Result<Found> {
    if let Some(id) = named {
        let signed = find(context, repository, id)?;
        if lineage_of(&signed).is_none() {
            let text = format!("{id} names no point of the log that a replay could begin at");
            return Err(Error::new(Code::NotAvailable, text));
        }
        return Ok(Found { bases: vec![signed], without_log: None });
    }
    let known = records::known(context, Some(&target.name))?;
    let damaged: BTreeSet<BackupId> =
        known.into_iter().filter(|backup| !backup.usable).map(|backup| backup.id).collect();
    let mut found = Found { bases: Vec::new(), without_log: None };
    for info in repository.manifest_keys(Some(&context.environment))? {
        task.check()?;
        if !info.key.file_name().starts_with(&format!("{}-", target.name)) {
            continue;
        }
        match repository.manifest(&info.key) {
            Ok(signed) if signed.manifest.target() != &target.name => {}
            Ok(signed) if damaged.contains(&signed.manifest.id) => {
                task.warn(format!("passing over {}: it is damaged or missing", signed.manifest.id));
            }
            Ok(signed) if lineage_of(&signed).is_none() => {
                found.without_log = found.without_log.max(Some((signed.manifest.created_at, signed.manifest.id)));
            }
            Ok(signed) => found.bases.push(signed),
            Err(error) if error.code() == Code::WrongKey => return Err(error),
            Err(error) => task.warn(format!("passing over {}: {error}", info.key)),
        }
    }
    Ok(found)
}

/// The best base for the target, and the log from there.
fn with_log(
    context: &Context,
    target: &Target,
    repository: Repository,
    manifests: Vec<SignedManifest>,
    until: RecoveryTarget,
    task: &Task,
) -> Result<Chosen> {
    let (manifests, bases): (Vec<_>, Vec<_>) =
        manifests.into_iter().filter_map(|signed| base_of(&signed).map(|base| (signed, base))).unzip();
    let mut first_error: Option<Error> = None;
    let mut tried: BTreeSet<History> = BTreeSet::new();
    // What a newer history holds but cannot give must never come from an older one: that is another state.
    let mut blocked = 0;
    for index in plan::bases_for(&bases, until) {
        let (manifest, base) = (&manifests[index].manifest, &bases[index]);
        // Another base of the same history meets the same obstacle further on.
        if tried.contains(&base.history) || base.history.lineage < blocked {
            continue;
        }
        if let Err(error) = check_engine(target, manifest).and_then(|()| check_objects(&repository, manifest)) {
            task.warn(format!("passing over {}: {error}", manifest.id));
            blocked = blocked.max(base.history.lineage);
            first_error.get_or_insert(error);
            continue;
        }
        match log_plan::make(context, target, &repository, manifest, base, until) {
            Ok(log) => {
                if base.history.lineage < bases.iter().map(|base| base.history.lineage).max().unwrap_or(0) {
                    task.warn(format!("lineage {} was left by a later restore", base.history.lineage));
                }
                let (manifest, log) = (manifest.clone(), Some(log));
                return Ok(Chosen { manifest, repository, log });
            }
            Err(error) => {
                tried.insert(base.history.clone());
                if error.code() != Code::RestoreTargetUnreachable {
                    blocked = blocked.max(base.history.lineage);
                }
                first_error.get_or_insert(error);
            }
        }
    }
    Err(first_error.unwrap_or_else(|| no_base(target, &repository, &bases)))
}

fn no_base(target: &Target, repository: &Repository, bases: &[Base]) -> Error {
    let oldest = bases.iter().min_by_key(|base| base.ended_at);
    let text = match oldest {
        Some(base) => format!(
            "no backup of {} in repository {} ends before that; the oldest ends with transaction {} at {}",
            target.name,
            repository.name(),
            base.mark.transaction,
            base.ended_at
        ),
        None => {
            let text = format!(
                "no backup of {} in repository {} names a point of the log that a replay could begin at",
                target.name,
                repository.name()
            );
            return Error::new(Code::BackupNotFound, text);
        }
    };
    Error::new(Code::RestoreTargetUnreachable, text)
}

fn base_of(signed: &SignedManifest) -> Option<Base> {
    let manifest = &signed.manifest;
    let mark = manifest.position.as_ref()?.mark.clone()?;
    let history = History { stream: manifest.owner.data_identity.clone(), lineage: lineage_of(signed)? };
    let committed_at = mark.committed_at.unwrap_or(manifest.finished_at);
    // A lineage that was forked off repeats what another one holds: it tells nothing of the time before its bases.
    let forked = history.lineage > FIRST_LINEAGE;
    let ended_at = if forked { committed_at.max(manifest.created_at) } else { committed_at };
    Some(Base { history, sequence: manifest.sequence, mark, ended_at })
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
    let mut first_error: Option<Error> = None;
    for name in &target.repositories {
        match try_repository(context, target, name, &id) {
            Ok(chosen) => return Ok(chosen),
            Err(error) => {
                task.warn(format!("repository {name}: {error}"));
                keep_first(&mut first_error, &error);
            }
        }
    }
    Err(first_error.unwrap_or_else(|| Error::new(Code::BackupNotFound, format!("{id} is in no repository"))))
}

fn try_repository(context: &Context, target: &Target, name: &str, id: &BackupId) -> Result<Chosen> {
    let repository = context.repository(target, name)?;
    let manifest = find(context, &repository, id)?.manifest;
    check_engine(target, &manifest)?;
    check_objects(&repository, &manifest)?;
    Ok(Chosen { manifest, repository, log: None })
}

fn find(context: &Context, repository: &Repository, id: &BackupId) -> Result<SignedManifest> {
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
