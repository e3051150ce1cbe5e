//! Merges small batches of the log into larger ones, from the repository alone: what is shipped every few seconds would
//! cost a restore a key derivation each.
//!
//! [`FAN_IN`] batches that follow each other and were merged equally often become one, so that each byte is written again
//! once for each power of [`FAN_IN`], and what a restore opens grows with the logarithm of what was shipped. The newest
//! batch is never merged: it is where the archive goes on. A merged batch has a key of its own and lies beside its
//! parts; whatever reads the log may take either. The parts are deleted an hour later, for whoever on another host has
//! planned with them.

use super::leftover::{self, Unfinished};
use crate::artifact::log_batch::{LogBatch, LogSegment, Merged, SignedLogBatch};
use crate::artifact::object_key::{MANIFEST_SUFFIX, ObjectKey};
use crate::base::task::Task;
use crate::base::{Code, Error, Result};
use crate::driver::Source;
use crate::ledger::log::ChainName;
use crate::ledger::log::parts::Candidate;
use crate::operation::answer::BackupState;
use crate::operation::backup::objects::{Branch, Outline, Sealing, write_object};
use crate::operation::backup::read_back::read_back;
use crate::operation::context::{Context, Target};
use crate::operation::{log_object, log_records};
use crate::repository::catalog::Repository;
use jiff::{SignedDuration, Timestamp};
use sha2::{Digest, Sha256};
use std::collections::VecDeque;
use std::io::{Cursor, Read};
use std::sync::Mutex;

/// Batches that become one.
pub(crate) const FAN_IN: usize = 16;
/// Most bytes of log in a merged batch; one part at a time is held in memory.
const MERGED_BYTES_MAX: u64 = 64 << 20;
/// Batches that are looked at, from the newest on: enough for every level that [`MERGED_BYTES_MAX`] allows, and for a backlog.
const WINDOW: u32 = 1024;
/// How long parts stay beside what they were merged into.
const GRACE: SignedDuration = SignedDuration::from_hours(1);
/// Parts that are deleted in one go.
const DELETED_AT_ONCE: u32 = 4 * FAN_IN as u32;

/// Merges what there is to merge of a history, one group at most, and deletes parts that were merged an hour ago.
/// Returns whether a group was merged. The caller holds the lane of the log.
pub(super) fn tend(
    context: &Context,
    target: &Target,
    source: &Source,
    repository: &Repository,
    lineage: u32,
    task: &Task,
) -> Result<bool> {
    let chain = ChainName { repository: repository.name().to_owned(), stream: source.data_identity.clone(), lineage };
    let candidates = context.ledger.merge_candidates(&target.name, &chain, WINDOW)?;
    let merged = match group_of(&candidates) {
        Some(group) => merge(context, target, source, repository, group, task)?,
        None => false,
    };
    delete_parts(context, target, repository, task)?;
    Ok(merged)
}

/// The oldest batches that can be merged: as many as [`FAN_IN`], equally often merged, sound, without a hole between them,
/// not too large together, and not the newest.
fn group_of(candidates: &[Candidate]) -> Option<&[Candidate]> {
    let (_, candidates) = candidates.split_last()?;
    candidates.windows(FAN_IN).find(|group| {
        let level = group.first().map(|first| first.level);
        let alike = |one: &Candidate| one.sound && Some(one.level) == level;
        let follow = |pair: &[Candidate]| pair[1].first_transaction == pair[0].last_transaction + 1;
        group.iter().all(alike)
            && group.windows(2).all(follow)
            && group.iter().map(|one| one.plain_bytes).sum::<u64>() <= MERGED_BYTES_MAX
    })
}

fn merge(
    context: &Context,
    target: &Target,
    source: &Source,
    repository: &Repository,
    group: &[Candidate],
    task: &Task,
) -> Result<bool> {
    let mut parts = Vec::new();
    for candidate in group {
        let key = ObjectKey::new(candidate.key.as_str())?;
        match repository.batch(&key) {
            Ok(signed) => parts.push(signed),
            Err(error) => return unsound(context, repository, &key, error, task),
        }
    }
    let Some(template) = outline_of(context, &parts)? else { return Ok(false) };
    let manifest = template.key()?;
    let stem = manifest.as_str().trim_end_matches(MANIFEST_SUFFIX);
    let sealing = Sealing::of(target, source)?;
    let outline = Outline::of_log("log");
    let object_key = outline.key(&sealing, stem)?;
    let branch = [Branch::new(repository.clone())];
    let record = Unfinished::new(&manifest, &object_key, &branch);
    leftover::begin(context, target, &record)?;
    let (mut segments, damaged) = (Vec::new(), Mutex::new(None));
    let joined = Joined::of(repository, target, &parts, &damaged, task);
    let finished = |joined: Joined<'_>| {
        segments = joined.segments.into_iter().map(Segment::finish).collect();
        Ok(())
    };
    let object = match write_object(&sealing, stem, &outline, &branch, joined, finished, task) {
        Ok(object) => object,
        Err(error) => match damaged.into_inner().unwrap_or_else(|p| p.into_inner()) {
            Some(key) => return unsound(context, repository, &key, error, task),
            None => return Err(error),
        },
    };
    read_back(std::slice::from_ref(&object), &branch, task)?;
    let signed = repository.commit_batch(&LogBatch { segments, object, ..template })?;
    log_records::batch_taken(context, repository.name(), &signed)?;
    leftover::complete(context, target, &record)?;
    Ok(true)
}

/// A part that cannot be opened is on record from now on, and no group holds it again.
fn unsound(context: &Context, repository: &Repository, key: &ObjectKey, error: Error, task: &Task) -> Result<bool> {
    task.check()?;
    let state = match error.code() {
        Code::SignatureInvalid | Code::BackupCorrupted => BackupState::Corrupted,
        Code::ObjectNotFound => BackupState::Missing,
        _ => return Err(error),
    };
    task.warn(format!("a batch of the log was found damaged when it was to be merged: {error}"));
    log_records::mark(context, repository.name(), key.as_str(), state)?;
    Ok(false)
}

/// What the merged batch is, without its object; `None` if the parts do not follow each other as one writer's do.
fn outline_of(context: &Context, parts: &[SignedLogBatch]) -> Result<Option<LogBatch>> {
    let (Some(first), Some(last)) = (parts.first(), parts.last()) else { return Ok(None) };
    for pair in parts.windows(2) {
        let (before, after) = (&pair[0], &pair[1].batch);
        let follows = after.predecessor.as_ref() == Some(&before.link()?)
            && after.start.same_point(&before.batch.end)
            && after.owner == before.batch.owner;
        if !follows {
            return Ok(None);
        }
    }
    let batches = || parts.iter().map(|signed| &signed.batch);
    let merged = Merged {
        level: first.batch.level() + 1,
        first_sequence: first.batch.first_sequence(),
        last: last.link()?,
        at: context.clock.now(),
    };
    Ok(Some(LogBatch {
        predecessor: first.batch.predecessor.clone(),
        start: first.batch.start.clone(),
        first_transaction: first.batch.first_transaction,
        transactions: batches().map(|batch| batch.transactions).sum(),
        first_committed_at: batches().map(|batch| batch.first_committed_at).min().unwrap_or_default(),
        last_committed_at: batches().map(|batch| batch.last_committed_at).max().unwrap_or_default(),
        segments: first.batch.segments.clone(),
        merged: Some(merged),
        ..last.batch.clone()
    }))
}

/// One range of the merged batch: ranges that follow each other in the same file are one.
struct Segment {
    record: LogSegment,
    hasher: Sha256,
}

impl Segment {
    fn finish(mut self) -> LogSegment {
        self.record.sha256 = hex::encode(self.hasher.finalize());
        self.record
    }
}

/// The plaintext of all parts, each authenticated, opened and compared with the digests of its ranges before the first of
/// its bytes is given.
struct Joined<'a> {
    repository: &'a Repository,
    target: &'a Target,
    task: &'a Task,
    parts: VecDeque<&'a LogBatch>,
    open: Cursor<Vec<u8>>,
    segments: Vec<Segment>,
    /// The part that could not be opened.
    damaged: &'a Mutex<Option<ObjectKey>>,
}

impl<'a> Joined<'a> {
    fn of(
        repository: &'a Repository,
        target: &'a Target,
        parts: &'a [SignedLogBatch],
        damaged: &'a Mutex<Option<ObjectKey>>,
        task: &'a Task,
    ) -> Self {
        let parts = parts.iter().map(|signed| &signed.batch).collect();
        let (open, segments) = (Cursor::default(), Vec::new());
        Joined { repository, target, task, parts, open, segments, damaged }
    }

    fn take(&mut self, part: &LogBatch) -> Result<()> {
        let mut plain = Vec::with_capacity(part.object.plain.size.min(MERGED_BYTES_MAX) as usize);
        log_object::open(self.repository, self.target, &part.object, &part.segments, &mut plain, self.task)?;
        let mut rest = &plain[..];
        for record in &part.segments {
            let (bytes, later) = rest.split_at_checked(record.length as usize).unwrap_or((rest, &[]));
            self.add(record, bytes);
            rest = later;
        }
        self.open = Cursor::new(plain);
        Ok(())
    }

    fn add(&mut self, record: &LogSegment, bytes: &[u8]) {
        let joins = |last: &&mut Segment| {
            let last = &last.record;
            (last.file, last.offset + last.length, &last.log_format) == (record.file, record.offset, &record.log_format)
        };
        match self.segments.last_mut().filter(joins) {
            Some(last) => {
                let known = &mut last.record;
                known.length += record.length;
                known.transactions += record.transactions;
                known.first_transaction = known.first_transaction.or(record.first_transaction);
                known.last_transaction = record.last_transaction.or(known.last_transaction);
                let times = [known.first_committed_at, record.first_committed_at];
                known.first_committed_at = times.into_iter().flatten().min();
                known.last_committed_at = known.last_committed_at.max(record.last_committed_at);
                last.hasher.update(bytes);
            }
            None => {
                let hasher = Sha256::new_with_prefix(bytes);
                self.segments.push(Segment { record: record.clone(), hasher });
            }
        }
    }
}

impl Read for Joined<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        loop {
            match self.open.read(buffer)? {
                0 => {}
                count => return Ok(count),
            }
            let Some(part) = self.parts.pop_front() else { return Ok(0) };
            if let Err(error) = self.take(part) {
                *self.damaged.lock().unwrap_or_else(|p| p.into_inner()) = part.key().ok();
                return Err(error.into());
            }
        }
    }
}

/// Deletes parts whose time has come, oldest first, so that those that are left still lead to the end of the merged one.
/// Each goes only while what it was merged into is there.
fn delete_parts(context: &Context, target: &Target, repository: &Repository, task: &Task) -> Result<()> {
    let name = repository.name();
    let until = context.clock.now().saturating_sub(GRACE).unwrap_or(Timestamp::MIN);
    let due = context.ledger.merged_parts(&target.name, name, until, DELETED_AT_ONCE)?;
    if due.is_empty() {
        return Ok(());
    }
    // Whoever on this host reads the archive may have planned with them.
    let Ok(_alone) = context.reading(&target.name, true) else { return Ok(()) };
    let mut known_whole: Option<LogBatch> = None;
    for key in due {
        task.check()?;
        let key = ObjectKey::new(key)?;
        let Some(part) = repository.find_batch(&key)? else {
            context.ledger.forget_part(name, key.as_str())?;
            continue;
        };
        if !known_whole.as_ref().is_some_and(|whole| whole.stands_for(&part.batch)) {
            known_whole = whole_of(context, target, repository, &part.batch)?;
        }
        if known_whole.is_none() {
            task.warn(format!("{key} stays: what it was merged into is not there"));
            continue;
        }
        // The object first: while its manifest is there, a run that is cut short finds both again.
        let deleted = repository.store().delete(&part.batch.object.key).and_then(|_| repository.store().delete(&key));
        match deleted {
            // A writer that may not delete leaves them to `cleanup`.
            Err(error) if error.code() == Code::StorageDenied => return Ok(()),
            deleted => deleted?,
        };
        context.ledger.forget_part(name, key.as_str())?;
    }
    Ok(())
}

/// The batch that a part was merged into, if it counts and its object is there in its length.
fn whole_of(context: &Context, target: &Target, repository: &Repository, part: &LogBatch) -> Result<Option<LogBatch>> {
    let (stream, lineage) = (part.stream.clone(), part.lineage);
    let chain = ChainName { repository: repository.name().to_owned(), stream, lineage };
    let (first, last) = (part.first_transaction, part.last_transaction);
    for key in context.ledger.merged_around(&target.name, &chain, first, last)? {
        let Some(whole) = repository.find_batch(&ObjectKey::new(key)?)? else { continue };
        let stored = repository.store().stat(&whole.batch.object.key)?;
        if whole.batch.stands_for(part) && stored.is_some_and(|info| info.size == whole.batch.object.stored.size) {
            return Ok(Some(whole.batch));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn candidate(level: u32, transactions: (u64, u64), plain_bytes: u64) -> Candidate {
        let (first_transaction, last_transaction) = transactions;
        Candidate { key: String::new(), level, first_transaction, last_transaction, plain_bytes, sound: true }
    }

    fn row(levels: &[u32]) -> Vec<Candidate> {
        levels
            .iter()
            .enumerate()
            .map(|(n, level)| candidate(*level, (n as u64 * 10 + 1, n as u64 * 10 + 10), 1000))
            .collect()
    }

    #[test]
    fn sixteen_alike_are_merged_and_the_newest_never() {
        assert!(group_of(&[]).is_none());
        assert!(group_of(&row(&[0; FAN_IN])).is_none(), "the newest is one of them");
        let candidates = row(&[0; FAN_IN + 1]);
        assert_eq!(group_of(&candidates), Some(&candidates[..FAN_IN]));
    }

    #[test]
    fn nothing_is_merged_across_a_hole_damage_levels_or_beyond_its_size() {
        let whole = row(&[0; FAN_IN + 1]);
        let mut hole = whole.clone();
        hole[7].first_transaction += 1;
        let mut damaged = whole.clone();
        damaged[3].sound = false;
        let mut mixed = whole.clone();
        mixed[5].level = 1;
        let mut large = whole;
        large[5].plain_bytes = MERGED_BYTES_MAX;
        for row in [hole, damaged, mixed, large] {
            assert!(group_of(&row).is_none());
        }
    }

    proptest! {
        /// However many batches are shipped, few are left.
        #[test]
        fn what_is_left_grows_with_the_logarithm(shipped in 1usize..3000) {
            let mut chain: Vec<Candidate> = Vec::new();
            for number in 0..shipped as u64 {
                chain.push(candidate(0, (number + 1, number + 1), 1000));
                if let Some(group) = group_of(&chain) {
                    let (first, last) = (group[0].first_transaction, group[FAN_IN - 1].last_transaction);
                    let whole = candidate(group[0].level + 1, (first, last), 1000 * (last - first + 1));
                    let at = chain.iter().position(|one| one.first_transaction == first).expect("it is there");
                    chain.splice(at..at + FAN_IN, [whole]);
                }
            }
            prop_assert!(chain.len() <= 4 * FAN_IN, "{}", chain.len());
            prop_assert_eq!(chain.iter().map(|one| one.last_transaction - one.first_transaction + 1).sum::<u64>(), shipped as u64);
        }
    }
}
