//! `verify`: is what the repository holds still what was signed? Every byte is read, authenticated, decrypted and
//! decompressed, unless only sizes and signatures are asked for.

mod log;

use crate::artifact::manifest::Manifest;
use crate::artifact::object_key::{self, ObjectKey};
use crate::base::ids::{BackupId, TargetName};
use crate::base::task::Task;
use crate::base::{Code, Error, Result};
use crate::operation::answer::{BackupState, Problem, VerifiedBackup, VerifyReport};
use crate::operation::context::{Context, Target};
use crate::operation::request::VerifyRequest;
use crate::operation::{records, select};
use crate::pipeline;
use crate::repository::catalog::Repository;
use std::collections::{BTreeMap, BTreeSet};

/// Verifies one backup, or all of them, in every repository that should have it.
///
/// The report holds what is wrong; [`verdict`](crate::operation::answer::Answer::verdict) is the error it amounts to.
pub fn run(context: &Context, request: &VerifyRequest, task: &Task) -> Result<VerifyReport> {
    let wanted = request.backup.as_deref().map(|text| select::backup(context, text)).transpose()?;
    let mut report = VerifyReport { quick: request.quick, backups: Vec::new() };
    for target in context.targets.values() {
        if wanted.as_ref().is_some_and(|id| id.target != target.name) {
            continue;
        }
        let _lease = context.reading(&target.name, false)?;
        for name in &target.repositories {
            match context.repository(target, name) {
                Ok(repository) => verify_repository(context, target, &repository, wanted.as_ref(), &mut report, task)?,
                Err(error)
                    if error.code() == Code::RepositoryNotFound && !records::any_in(context, &target.name, name)? => {}
                Err(error) => report.backups.push(unreadable(&target.name, name, error)),
            }
        }
    }
    if let Some(id) = wanted
        && report.backups.is_empty()
    {
        return Err(Error::new(Code::BackupNotFound, format!("{id} is in no repository and not on record")));
    }
    Ok(report)
}

fn unreadable(target: &TargetName, repository: &str, error: Error) -> VerifiedBackup {
    let problem = Problem {
        object: "repository.json".to_owned(),
        code: error.code().name().to_owned(),
        text: error.message().to_owned(),
    };
    VerifiedBackup {
        backup: format!("all of {target}"),
        repository: repository.to_owned(),
        objects: 0,
        bytes: 0,
        problems: vec![problem],
    }
}

fn verify_repository(
    context: &Context,
    target: &Target,
    repository: &Repository,
    wanted: Option<&BackupId>,
    report: &mut VerifyReport,
    task: &Task,
) -> Result<()> {
    let key = object_key::owner(&context.environment, &target.name)?;
    let owner = match repository.owner(&context.environment, &target.name) {
        Ok(None) if records::any_in(context, &target.name, repository.name())? => {
            let text = "it is missing: nothing says whose backups these are; the next backup writes it again";
            Some(Error::new(Code::ObjectNotFound, text))
        }
        other => other.err(),
    };
    if let Some(error) = owner {
        let problems = vec![problem(&key, &error)];
        let (backup, repository) = (format!("owner of {}", target.name), repository.name().to_owned());
        report.backups.push(VerifiedBackup { backup, repository, objects: 1, bytes: 0, problems });
    }
    let stored = stored_keys(context, target, repository)?;
    let manifests = stored.keys().filter(|key| key.as_str().ends_with(object_key::MANIFEST_SUFFIX));
    let mut pending: BTreeSet<ObjectKey> = match wanted {
        Some(id) => BTreeSet::from([object_key::backup_manifest(&context.environment, id)?]),
        None => manifests.cloned().collect(),
    };
    // What the ledger knows and the repository lacks is a problem too, not an absence.
    if wanted.is_none() {
        for id in records::recorded_in(context, &target.name, repository.name())? {
            pending.insert(object_key::backup_manifest(&context.environment, &id)?);
        }
        report.backups.extend(orphans(repository, &stored, &pending));
        report.backups.extend(log::verify(context, target, repository, report.quick, task)?);
    }
    for key in pending {
        task.check()?;
        if wanted.is_some() && !stored.contains_key(&key) && !is_expected(context, repository, wanted)? {
            continue;
        }
        report.backups.push(verify_backup(context, target, repository, &key, &stored, report.quick, task)?);
    }
    Ok(())
}

fn is_expected(context: &Context, repository: &Repository, wanted: Option<&BackupId>) -> Result<bool> {
    let Some(id) = wanted else { return Ok(false) };
    Ok(records::manifest_sha256(context, id, repository.name())?.is_some())
}

/// Every object of this target's backups, with its size.
fn stored_keys(context: &Context, target: &Target, repository: &Repository) -> Result<BTreeMap<ObjectKey, u64>> {
    let log = object_key::log_prefix(&context.environment, &target.name);
    let own = format!("{}-", target.name);
    let mut stored = BTreeMap::new();
    repository.store().list(&object_key::environment_prefix(&context.environment), &mut |info| {
        if info.key.file_name().starts_with(&own) && !info.key.as_str().starts_with(&log) {
            stored.insert(info.key, info.size);
        }
        Ok(())
    })?;
    Ok(stored)
}

/// `TARGET-STAMP` of what has objects and no manifest, in order.
pub(crate) fn stems_without_manifest(
    context: &Context,
    target: &Target,
    repository: &Repository,
) -> Result<BTreeSet<String>> {
    let stored = stored_keys(context, target, repository)?;
    let stem = |key: &ObjectKey| key.file_name().split('.').next().unwrap_or_default().to_owned();
    let (manifests, objects): (Vec<_>, Vec<_>) =
        stored.keys().partition(|key| key.as_str().ends_with(object_key::MANIFEST_SUFFIX));
    let known: BTreeSet<String> = manifests.into_iter().map(stem).collect();
    Ok(objects.into_iter().map(stem).filter(|stem| !known.contains(stem)).collect())
}

/// Objects whose backup has no manifest: unfinished, or the manifest was removed.
fn orphans(
    repository: &Repository,
    stored: &BTreeMap<ObjectKey, u64>,
    manifests: &BTreeSet<ObjectKey>,
) -> Vec<VerifiedBackup> {
    let stems: BTreeSet<&str> =
        manifests.iter().map(|key| key.as_str().trim_end_matches(object_key::MANIFEST_SUFFIX)).collect();
    let mut found: BTreeMap<String, VerifiedBackup> = BTreeMap::new();
    for (key, size) in stored {
        let name_start = key.as_str().len() - key.file_name().len();
        let stem_end = key.file_name().find('.').map_or(key.as_str().len(), |dot| name_start + dot);
        let stem = &key.as_str()[..stem_end];
        if stems.contains(stem) {
            continue;
        }
        let entry = found.entry(stem.to_owned()).or_insert_with(|| VerifiedBackup {
            backup: stem.rsplit('/').next().unwrap_or(stem).to_owned(),
            repository: repository.name().to_owned(),
            objects: 0,
            bytes: 0,
            problems: Vec::new(),
        });
        entry.objects += 1;
        entry.bytes += size;
        entry.problems.push(Problem {
            object: key.to_string(),
            code: Code::BackupIncomplete.name().to_owned(),
            text: "its backup has no manifest".to_owned(),
        });
    }
    found.into_values().collect()
}

fn verify_backup(
    context: &Context,
    target: &Target,
    repository: &Repository,
    key: &ObjectKey,
    stored: &BTreeMap<ObjectKey, u64>,
    quick: bool,
    task: &Task,
) -> Result<VerifiedBackup> {
    let mut verified = VerifiedBackup {
        backup: key.file_name().trim_end_matches(object_key::MANIFEST_SUFFIX).to_owned(),
        repository: repository.name().to_owned(),
        objects: 1,
        bytes: 0,
        problems: Vec::new(),
    };
    let signed = match open_manifest(context, repository, key, stored) {
        Ok(signed) => signed,
        Err(error) => {
            task.check()?;
            verified.problems.push(problem(key, &error));
            records::mark_by_manifest(context, repository.name(), key, &error)?;
            return Ok(verified);
        }
    };
    let manifest = signed.manifest;
    verified.backup = manifest.id.to_string();
    task.phase(&format!("verifying {}", manifest.id), if quick { 0 } else { manifest.plain_bytes() });
    for object in &manifest.objects {
        task.check()?;
        verified.objects += 1;
        verified.bytes += object.stored.size;
        let result = match stored.get(&object.key) {
            None => Err(Error::new(Code::ObjectNotFound, format!("{} is missing", object.key))),
            Some(size) if *size != object.stored.size => {
                let text = format!("{} has {size} bytes, its manifest says {}", object.key, object.stored.size);
                Err(Error::new(Code::BackupCorrupted, text))
            }
            Some(_) if quick => Ok(()),
            Some(_) => repository.store().read(&object.key, None).and_then(|mut source| {
                let keyring = target.keyring.get()?;
                pipeline::unseal(object, &keyring, &target.read_policy, &mut source, &mut std::io::sink(), task)
            }),
        };
        if let Err(error) = result {
            task.check()?;
            verified.problems.push(problem(&object.key, &error));
        }
    }
    verified.problems.extend(strays(key, &manifest, stored));
    let state = if verified.problems.is_empty() { BackupState::Validated } else { BackupState::Corrupted };
    if !quick || state == BackupState::Corrupted {
        records::mark(context, &manifest.id, repository.name(), state)?;
    }
    Ok(verified)
}

/// Objects beside a backup's own that its manifest does not name: put there, or left by something that went wrong.
fn strays(key: &ObjectKey, manifest: &Manifest, stored: &BTreeMap<ObjectKey, u64>) -> Vec<Problem> {
    let stem = key.as_str().trim_end_matches("meta.json");
    let named = |found: &ObjectKey| found == key || manifest.objects.iter().any(|object| &object.key == found);
    let stray = stored.keys().filter(|found| found.as_str().starts_with(stem) && !named(found));
    let told = |found: &ObjectKey| Problem {
        object: found.to_string(),
        code: Code::BackupCorrupted.name().to_owned(),
        text: "its backup's manifest does not name it".to_owned(),
    };
    stray.map(told).collect()
}

/// Opens a manifest and, where the ledger knows it, compares it with the one that was committed: an older, validly
/// signed manifest put in its place would otherwise pass.
fn open_manifest(
    context: &Context,
    repository: &Repository,
    key: &ObjectKey,
    stored: &BTreeMap<ObjectKey, u64>,
) -> Result<crate::artifact::manifest::SignedManifest> {
    if !stored.contains_key(key) {
        return Err(Error::new(Code::BackupIncomplete, format!("{key} is on record but missing from the repository")));
    }
    let signed = repository.manifest(key)?;
    let recorded = records::manifest_sha256(context, &signed.manifest.id, repository.name())?;
    if recorded.is_some_and(|recorded| recorded != signed.bytes_sha256) {
        let text = format!("{key} is signed, but it is not the manifest that this host committed or last read");
        return Err(Error::new(Code::SignatureInvalid, text));
    }
    Ok(signed)
}

fn problem(key: &ObjectKey, error: &Error) -> Problem {
    Problem { object: key.to_string(), code: error.code().name().to_owned(), text: error.message().to_owned() }
}
