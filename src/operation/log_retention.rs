//! Which batches of the log go with a base that is deleted: those that no base that stays can use.
//!
//! A base needs every batch that ends after it. So all batches go that end at or before the oldest base that stays in
//! their history, and all of them if none stays. Where each base begins a chain of its own, those go that no base which
//! stays leads to.

use crate::artifact::manifest::Manifest;
use crate::base::ids::BackupId;
use crate::base::task::Task;
use crate::base::{Code, Result};
use crate::ledger::log::ChainName;
use crate::operation::archive::chain_end::lineage_of;
use crate::operation::context::{Context, Target};
use crate::operation::log_reach::is_in_chains;
use crate::operation::log_records;
use crate::operation::unfinished::deletion;
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
    let mut stay: Vec<u64> = Vec::new();
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
            stay.push(mark.transaction);
        }
    }
    delete_unneeded(context, target, repository, (&stream, lineage), &stay, dry_run, task)
}

fn history_of(manifest: &Manifest) -> Option<(String, u32)> {
    let position = manifest.position.as_ref()?;
    position.mark.as_ref()?;
    Some((manifest.owner.data_identity.clone(), position.lineage.parse().ok()?))
}

/// The batches that follow each other as they are read, and whether one of them is needed.
struct Walk<'a> {
    /// Where the bases end that stay.
    stay: &'a [u64],
    in_chains: bool,
    /// Where the batches that follow each other begin and end.
    run: Option<(u64, u64)>,
    /// One could not be read: what it led to is not known.
    broken: bool,
}

impl Walk<'_> {
    fn oldest(&self) -> Option<u64> {
        self.stay.iter().min().copied()
    }

    fn needs(&mut self, start: u64, end: u64) -> bool {
        if !self.in_chains || self.broken {
            return self.oldest().is_some_and(|oldest| end > oldest);
        }
        let begin = self.run.filter(|(_, before)| *before == start).map_or(start, |(begin, _)| begin);
        self.run = Some((begin, end));
        self.stay.iter().any(|base| (begin..end).contains(base))
    }
}

fn delete_unneeded(
    context: &Context,
    target: &Target,
    repository: &Repository,
    (stream, lineage): (&str, u32),
    stay: &[u64],
    dry_run: bool,
    task: &Task,
) -> Result<Gone> {
    let mut went = Gone::default();
    let mut walk = Walk { stay, in_chains: is_in_chains(target), run: None, broken: false };
    let oldest = walk.oldest();
    for (place, key) in repository.batch_keys(&context.environment, &target.name, stream, lineage)? {
        task.check()?;
        if !walk.in_chains && oldest.is_some_and(|oldest| place.first_transaction > oldest) {
            break;
        }
        let batch = match repository.batch(&key) {
            Ok(signed) => signed.batch,
            // What is damaged is left for a person to look at.
            Err(error) if matches!(error.code(), Code::SignatureInvalid | Code::BackupCorrupted) => {
                walk.broken = true;
                continue;
            }
            Err(error) => return Err(error),
        };
        let needed = walk.needs(batch.start.transaction, batch.end.transaction);
        if needed || batch.owner.machine_id != context.identity.machine_id {
            continue;
        }
        went.batches += 1;
        if dry_run {
            went.objects += 2;
            went.bytes += batch.object.stored.size;
            continue;
        }
        let (objects, bytes) = deletion::delete_batch(context, target, repository, &batch)?;
        went.objects += objects;
        went.bytes += bytes;
    }
    if !dry_run {
        // What is missing without anybody needing it is no finding any more.
        let chain = ChainName { repository: repository.name().to_owned(), stream: stream.to_owned(), lineage };
        log_records::forget_missing(context, &target.name, &chain, oldest)?;
    }
    Ok(went)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Which of the batches are needed, in order.
    fn needed(stay: &[u64], in_chains: bool, batches: &[(u64, u64)]) -> Vec<bool> {
        let mut walk = Walk { stay, in_chains, run: None, broken: false };
        batches.iter().map(|(start, end)| walk.needs(*start, *end)).collect()
    }

    #[test]
    fn a_log_is_needed_from_the_oldest_base_on() {
        let batches = [(42, 50), (50, 60), (60, 70)];
        assert_eq!(needed(&[50, 65], false, &batches), [false, true, true]);
        assert_eq!(needed(&[], false, &batches), [false; 3]);
    }

    #[test]
    fn of_chains_only_those_are_needed_whose_base_stays() {
        let batches = [(42, 50), (50, 55), (60, 70), (80, 85)];
        assert_eq!(needed(&[42, 60, 80], true, &batches), [true; 4]);
        assert_eq!(needed(&[42, 80], true, &batches), [true, true, false, true]);
        assert_eq!(needed(&[60], true, &batches), [false, false, true, false]);
        // Nothing was committed between the end of a chain and the next base: both lead on.
        assert_eq!(needed(&[50], true, &[(42, 50), (50, 55)]), [false, true]);
        assert_eq!(needed(&[42], true, &[(42, 50), (50, 55)]), [true, true]);
    }

    #[test]
    fn behind_what_cannot_be_read_nothing_is_let_go_that_an_older_base_may_lead_to() {
        let mut walk = Walk { stay: &[42], in_chains: true, run: None, broken: true };
        assert!(walk.needs(60, 70));
    }
}
