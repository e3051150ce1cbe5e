//! Which batches of the log go with a base that is deleted: those that no base that stays can use.
//!
//! A base needs every batch that ends after it. So all batches go that end at or before the oldest base that stays in
//! their history, and all of them if none stays.

use crate::artifact::manifest::Manifest;
use crate::base::ids::BackupId;
use crate::base::task::Task;
use crate::base::{Code, Result};
use crate::ledger::log::ChainName;
use crate::operation::archive::chain_end::lineage_of;
use crate::operation::context::{Context, Target};
use crate::operation::log_records;
use crate::repository::catalog::Repository;
use std::collections::BTreeSet;

/// What went, or would go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Gone {
    /// Batches.
    pub(crate) batches: u64,
    /// Objects, manifests included.
    pub(crate) objects: u64,
    /// Stored bytes.
    pub(crate) bytes: u64,
}

/// Deletes the batches that nothing needs once `base` and `gone` are deleted; in a dry run only counts them. A base
/// whose manifest cannot be read may need any of them: then all stay.
pub(crate) fn expire(
    context: &Context,
    target: &Target,
    repository: &Repository,
    base: &Manifest,
    gone: &BTreeSet<BackupId>,
    dry_run: bool,
    task: &Task,
) -> Result<Gone> {
    let Some((stream, lineage)) = history_of(base) else { return Ok(Gone::default()) };
    let mut oldest: Option<u64> = None;
    for info in repository.manifest_keys(Some(&context.environment))? {
        task.check()?;
        if !info.key.file_name().starts_with(&format!("{}-", target.name)) {
            continue;
        }
        let signed = match repository.manifest(&info.key) {
            Ok(signed) => signed,
            Err(error) => {
                task.warn(format!("the log's batches stay: {} may need them, and cannot be read: {error}", info.key));
                return Ok(Gone::default());
            }
        };
        let manifest = &signed.manifest;
        let stays = manifest.id != base.id && !gone.contains(&manifest.id) && manifest.target() == &target.name;
        let same = manifest.owner.data_identity == stream && lineage_of(&signed) == Some(lineage);
        if let Some(mark) = manifest.position.as_ref().and_then(|position| position.mark.as_ref())
            && stays
            && same
        {
            oldest = Some(oldest.map_or(mark.transaction, |oldest| oldest.min(mark.transaction)));
        }
    }
    delete_before(context, target, repository, (&stream, lineage), oldest, dry_run, task)
}

fn history_of(manifest: &Manifest) -> Option<(String, u32)> {
    let position = manifest.position.as_ref()?;
    position.mark.as_ref()?;
    Some((manifest.owner.data_identity.clone(), position.lineage.parse().ok()?))
}

fn delete_before(
    context: &Context,
    target: &Target,
    repository: &Repository,
    (stream, lineage): (&str, u32),
    oldest: Option<u64>,
    dry_run: bool,
    task: &Task,
) -> Result<Gone> {
    let mut went = Gone::default();
    for (place, key) in repository.batch_keys(&context.environment, &target.name, stream, lineage)? {
        task.check()?;
        if oldest.is_some_and(|oldest| place.first_transaction > oldest) {
            break;
        }
        let batch = match repository.batch(&key) {
            Ok(signed) => signed.batch,
            // What is damaged is left for a person to look at.
            Err(error) if matches!(error.code(), Code::SignatureInvalid | Code::BackupCorrupted) => continue,
            Err(error) => return Err(error),
        };
        let needed = oldest.is_some_and(|oldest| batch.end.transaction > oldest);
        if needed || batch.owner.machine_id != context.identity.machine_id {
            continue;
        }
        went.batches += 1;
        if dry_run {
            went.objects += 2;
            went.bytes += batch.object.stored.size;
            continue;
        }
        let (objects, bytes) = repository.delete_batch(&batch)?;
        went.objects += objects;
        went.bytes += bytes;
        log_records::forget(context, repository.name(), key.as_str())?;
    }
    if !dry_run {
        // What is missing without anybody needing it is no finding any more.
        let chain = ChainName { repository: repository.name().to_owned(), stream: stream.to_owned(), lineage };
        log_records::forget_missing(context, &target.name, &chain, oldest)?;
    }
    Ok(went)
}
