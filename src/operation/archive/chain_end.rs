//! Where a target's archived log ends in a repository: found through the ledger where the repository agrees with it,
//! else by looking through the repository.

use crate::artifact::log_batch::{LogBatchLink, LogMark, SignedLogBatch};
use crate::artifact::manifest::SignedManifest;
use crate::artifact::object_key::{BatchPlace, MANIFEST_SUFFIX, ObjectKey};
use crate::base::{Code, Error, Result};
use crate::operation::context::{Context, Target};
use crate::operation::log_records;
use crate::repository::catalog::Repository;
use jiff::Timestamp;

/// The end of a chain.
#[derive(Clone, Debug)]
pub(crate) struct ChainEnd {
    /// Which of the log's histories.
    pub(crate) lineage: u32,
    /// The last batch of that lineage, if there is one.
    pub(crate) batch: Option<LastBatch>,
    /// The newest base of that lineage, if there is one.
    pub(crate) base: Option<LogMark>,
    /// The other usable bases of that lineage that are on record, in the order of the log.
    pub(crate) earlier: Vec<LogMark>,
    /// When the newer of the two was taken.
    pub(crate) since: Timestamp,
    /// The writer's epoch then.
    pub(crate) epoch: u64,
    /// Manifests after the last batch that cannot be opened, with the first transaction that their keys name.
    pub(crate) damaged: Vec<(u64, ObjectKey)>,
}

/// The last batch of a lineage.
#[derive(Clone, Debug)]
pub(crate) struct LastBatch {
    /// Where it ends.
    pub(crate) end: LogMark,
    /// Its number.
    pub(crate) sequence: u64,
    /// What its successor names.
    pub(crate) link: LogBatchLink,
}

/// A point that the log may go on from.
#[derive(Clone, Debug)]
pub(crate) struct ResumePoint {
    /// The point.
    pub(crate) mark: LogMark,
    /// The number of the batch that comes next.
    pub(crate) sequence: u64,
    /// The batch before it; `None` = it begins at a base.
    pub(crate) predecessor: Option<LogBatchLink>,
}

impl ChainEnd {
    /// Where the log may go on, best first: after the last batch; else at a base beyond it, the earliest first, with a piece
    /// lost between.
    pub(crate) fn points(&self) -> Vec<ResumePoint> {
        let mut points = Vec::new();
        let next = self.batch.as_ref().map_or(0, |batch| batch.sequence) + 1;
        if let Some(batch) = self.batch.as_ref().filter(|_| self.damaged.is_empty()) {
            points.push(ResumePoint { mark: batch.end.clone(), sequence: next, predecessor: Some(batch.link.clone()) });
        }
        // Beyond the last batch, and beyond what cannot be opened: the key of the next one must not be taken.
        let archived = self.batch.as_ref().map_or(0, |batch| batch.end.transaction + 1);
        let taken = self.damaged.iter().map(|(first, _)| *first).max().unwrap_or(0);
        let beyond = |base: &&LogMark| base.transaction >= archived.max(taken);
        let bases = self.earlier.iter().chain(&self.base).filter(beyond);
        let sequence = next + self.damaged.len() as u64;
        points.extend(bases.map(|base| ResumePoint { mark: base.clone(), sequence, predecessor: None }));
        points
    }

    /// Why the newest base and the last batch are of different histories, if they are.
    pub(crate) fn contradiction(&self) -> Option<String> {
        let (batch, base) = (self.batch.as_ref()?, self.base.as_ref()?);
        let number = base.transaction;
        batch.end.contradicts(base).then(|| {
            format!("transaction {number} of the newest full backup is another one than that of the archived log")
        })
    }

    /// The last transaction that is known to be in the chain.
    pub(crate) fn last_transaction(&self) -> u64 {
        let batch = self.batch.as_ref().map(|batch| batch.end.transaction);
        batch.max(self.base.as_ref().map(|base| base.transaction)).unwrap_or(0)
    }
}

/// Finds the end of the chain of the log `stream`; `None` if there is neither a batch nor a base of it.
pub(crate) fn find(
    context: &Context,
    target: &Target,
    repository: &Repository,
    stream: &str,
) -> Result<Option<ChainEnd>> {
    let base = newest_base(context, target, repository, stream)?;
    let (batch, damaged) = last_batch(context, target, repository, stream)?;
    let base_lineage = base.as_ref().and_then(lineage_of);
    let batch_lineage = batch.as_ref().map(|signed| signed.batch.lineage);
    let Some(lineage) = base_lineage.max(batch_lineage) else { return Ok(None) };
    let batch = batch.filter(|signed| signed.batch.lineage == lineage);
    let base = base.filter(|_| base_lineage == Some(lineage));
    // Those of a history that was left are in nobody's way.
    let in_the_way = damaged.into_iter().filter(|(place, _)| place.lineage >= lineage);
    let damaged: Vec<_> = in_the_way.map(|(place, key)| (place.first_transaction, key)).collect();
    let since = base.as_ref().map(|signed| signed.manifest.finished_at);
    let since = since.max(batch.as_ref().map(|signed| signed.batch.created_at));
    let earlier = earlier_bases(context, target, repository, (stream, lineage), base.as_ref())?;
    let epoch = base.as_ref().map(|signed| signed.manifest.owner.epoch);
    let epoch = epoch.max(batch.as_ref().map(|signed| signed.batch.owner.epoch));
    Ok(Some(ChainEnd {
        lineage,
        damaged: if batch.is_some() || base.is_some() { damaged } else { Vec::new() },
        batch: batch.map(last).transpose()?,
        base: base.and_then(|signed| signed.manifest.position?.mark),
        earlier,
        since: since.unwrap_or(Timestamp::UNIX_EPOCH),
        epoch: epoch.unwrap_or(1),
    }))
}

fn last(signed: SignedLogBatch) -> Result<LastBatch> {
    let link = signed.link()?;
    Ok(LastBatch { end: signed.batch.end, sequence: signed.batch.sequence, link })
}

/// The bases of a history that come before its newest one. What was committed since an earlier one may still be there, and
/// was asked for by whoever took it.
fn earlier_bases(
    context: &Context,
    target: &Target,
    repository: &Repository,
    history: (&str, u32),
    newest: Option<&SignedManifest>,
) -> Result<Vec<LogMark>> {
    let Some(newest) = newest else { return Ok(Vec::new()) };
    let newest = newest.manifest.position.as_ref().and_then(|position| position.mark.as_ref());
    let end = newest.map_or(0, |mark| mark.transaction);
    let bases = log_records::usable_bases(context, target, repository.name(), history)?;
    Ok(bases.into_iter().map(|base| base.mark).filter(|mark| mark.transaction < end).collect())
}

/// The number of the lineage that a base belongs to.
pub(crate) fn lineage_of(signed: &SignedManifest) -> Option<u32> {
    let position = signed.manifest.position.as_ref()?;
    position.mark.as_ref()?;
    position.lineage.parse().ok()
}

/// The newest base of a log, of its newest lineage.
fn newest_base(
    context: &Context,
    target: &Target,
    repository: &Repository,
    stream: &str,
) -> Result<Option<SignedManifest>> {
    let recorded = log_records::newest_base(context, target, repository.name(), stream)?;
    if let Some((id, sha256)) = &recorded {
        match repository.find_manifest(&context.environment, id) {
            Ok(signed) if &signed.bytes_sha256 == sha256 => return Ok(Some(signed)),
            Ok(_) => {}
            Err(error) if is_damage(&error) => {}
            Err(error) => return Err(error.context("reading the newest base")),
        }
    }
    let mut newest: Option<SignedManifest> = None;
    for info in repository.manifest_keys(Some(&context.environment))? {
        if !info.key.file_name().starts_with(&format!("{}-", target.name)) {
            continue;
        }
        // A damaged manifest is `verify`'s to report.
        let Ok(signed) = repository.manifest(&info.key) else { continue };
        let ours = signed.manifest.target() == &target.name && signed.manifest.owner.data_identity == stream;
        let rank = |signed: &SignedManifest| (lineage_of(signed), signed.manifest.sequence);
        if ours && lineage_of(&signed).is_some() && newest.as_ref().is_none_or(|newest| rank(newest) < rank(&signed)) {
            newest = Some(signed);
        }
    }
    Ok(newest)
}

/// Manifests that cannot be opened: what their keys name, and the keys.
type Damaged = Vec<(BatchPlace, ObjectKey)>;

/// The last batch of the newest lineage that can be opened, and the manifests after it that cannot.
fn last_batch(
    context: &Context,
    target: &Target,
    repository: &Repository,
    stream: &str,
) -> Result<(Option<SignedLogBatch>, Damaged)> {
    if let Some(recorded) = log_records::last_batch(context, target, repository.name(), stream)? {
        match repository.batch(&ObjectKey::new(recorded.key.as_str())?) {
            Ok(signed) if signed.bytes_sha256 == recorded.manifest_sha256 => {
                // What is there and could not be entered is damaged, and in the way of the next one.
                let (history, next) = ((stream, signed.batch.lineage), signed.batch.last_transaction + 1);
                if !repository.has_batch_from(&context.environment, &target.name, history, next)? {
                    return Ok((Some(signed), Vec::new()));
                }
            }
            Ok(_) => {}
            Err(error) if is_damage(&error) => {}
            Err(error) => return Err(error.context("reading the last batch of the log")),
        }
    }
    let mut places: Vec<(BatchPlace, ObjectKey)> = repository
        .batch_objects(&context.environment, &target.name)?
        .into_keys()
        .filter(|key| key.as_str().ends_with(MANIFEST_SUFFIX))
        .filter_map(|key| Some((place_of(context, target, &key)?, key)))
        .filter(|(place, _)| place.stream == stream)
        .collect();
    places.sort_by_key(|(place, _)| (place.lineage, place.first_transaction));
    let mut damaged = Vec::new();
    for (place, key) in places.into_iter().rev() {
        match repository.batch(&key) {
            Ok(signed) => return Ok((Some(signed), damaged)),
            Err(error) if is_damage(&error) => damaged.push((place, key)),
            Err(error) => return Err(error.context("looking for the last batch of the log")),
        }
    }
    Ok((None, damaged))
}

fn place_of(context: &Context, target: &Target, key: &ObjectKey) -> Option<BatchPlace> {
    crate::artifact::object_key::batch_place(&context.environment, &target.name, key)
}

/// Whether an error says that the object is not what it was, rather than that it cannot be read at all.
pub(super) fn is_damage(error: &Error) -> bool {
    matches!(
        error.code(),
        Code::SignatureInvalid
            | Code::BackupCorrupted
            | Code::BackupNotFound
            | Code::BackupIncomplete
            | Code::ObjectNotFound
    )
}
