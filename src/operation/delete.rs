//! `delete`: one backup out of every repository that has it, its manifest first.

use crate::artifact::manifest::Manifest;
use crate::base::ids::BackupId;
use crate::base::task::Task;
use crate::base::{Code, Error, Result};
use crate::operation::answer::DeleteReport;
use crate::operation::context::{Context, Lane, Target};
use crate::operation::{adopt, log_retention, records, select, unfinished};
use crate::repository::catalog::Repository;
use std::collections::BTreeSet;

/// Deletes a backup, and the batches of the log that only it could use. It is refused while someone reads the target's
/// backups.
pub fn run(context: &Context, backup: &str, dry_run: bool, task: &Task) -> Result<DeleteReport> {
    let id = select::backup(context, backup)?;
    delete(context, id, &BTreeSet::new(), dry_run, task)
}

/// [`run`]; `gone` are backups that a dry run counts as deleted already.
pub(crate) fn delete(
    context: &Context,
    id: BackupId,
    gone: &BTreeSet<BackupId>,
    dry_run: bool,
    task: &Task,
) -> Result<DeleteReport> {
    let target = context.target(&id.target)?;
    let lane = context.lane(&target.name, Lane::Base)?;
    let _alone = context.reading(&target.name, true)?;
    if !dry_run {
        unfinished::settle(context, target, &lane, task);
    }
    let mut report = DeleteReport { backup: id.clone(), dry_run, objects: 0, bytes: 0, batches: 0 };
    let (mut found, mut halves) = (false, Vec::new());
    for name in &target.repositories {
        let repository = match context.repository(target, name) {
            Ok(repository) => repository,
            Err(error) if error.code() == Code::RepositoryNotFound => continue,
            Err(error) => return Err(error.context(format!("repository {name}"))),
        };
        let manifest = match repository.find_manifest(&context.environment, &id) {
            Ok(signed) => signed.manifest,
            Err(error) if error.code() == Code::BackupNotFound => continue,
            Err(error) if error.code() == Code::BackupIncomplete => {
                halves.push((repository, error));
                continue;
            }
            Err(error) => return Err(error),
        };
        found = true;
        refuse_foreign(context, target, &repository, &manifest)?;
        if dry_run {
            report.objects += manifest.objects.len() as u64 + 1;
            report.bytes += manifest.stored_bytes();
        } else {
            // What a kill leaves half deleted, the next run deletes: without its manifest it counts no more.
            let (objects, bytes) = unfinished::while_deleting(context, &id, name, || {
                let went = repository.delete_backup(&manifest, task)?;
                records::forget_in(context, &id, name)?;
                Ok(went)
            })?;
            report.objects += objects;
            report.bytes += bytes;
        }
        // After the base: were this interrupted, batches would be left that nothing needs, and not the other way round.
        let went = log_retention::expire(context, target, &repository, &manifest, gone, dry_run, task)?;
        report.objects += went.objects;
        report.bytes += went.bytes;
        report.batches += went.batches;
    }
    report.objects += delete_halves(context, target, &id, halves, found, dry_run)?;
    if !found && !records::forget_missing(context, &id, dry_run)? {
        return Err(Error::new(Code::BackupNotFound, format!("{id} is in no repository and not on record")));
    }
    Ok(report)
}

/// What is left of a backup in repositories that lost its manifest goes with it, where another repository had that and proved
/// whose it is. By itself it may be all that is left: a person decides. Returns how many objects went.
fn delete_halves(
    context: &Context,
    target: &Target,
    id: &BackupId,
    halves: Vec<(Repository, Error)>,
    found: bool,
    dry_run: bool,
) -> Result<u64> {
    let mut removed = 0;
    for (repository, error) in halves {
        if !found {
            return Err(error);
        }
        adopt::require_own(context, target, &repository).map_err(|error| error.context(format!("deleting {id}")))?;
        if !dry_run {
            removed += unfinished::remove_objects(context, &repository, id)? as u64;
            records::forget_in(context, id, repository.name())?;
        }
    }
    Ok(removed)
}

/// Cleanup and deletion touch only what this host wrote, and only as long as this agent is the one that writes there.
fn refuse_foreign(context: &Context, target: &Target, repository: &Repository, manifest: &Manifest) -> Result<()> {
    let (id, machine_id) = (&manifest.id, &manifest.owner.machine_id);
    if *machine_id != context.identity.machine_id {
        return Err(Error::new(
            Code::OwnerConflict,
            format!("{id} was written by another host (machine {machine_id})"),
        ));
    }
    adopt::require_own(context, target, repository).map_err(|error| error.context(format!("deleting {id}")))
}
