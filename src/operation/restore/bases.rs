//! The backups that a log can be replayed over: those whose manifests a repository holds, and those that it is known to
//! have held. What was lost takes part in choosing, or an older history would pass for the newest state.

use super::choose;
use super::plan::{Base, History};
use crate::artifact::log_batch::LogMark;
use crate::artifact::manifest::{LogPosition, Manifest, SignedManifest};
use crate::artifact::object_key::{MANIFEST_SUFFIX, batch_place};
use crate::base::ids::BackupId;
use crate::base::task::Task;
use crate::base::{Code, Error, Result};
use crate::ledger::log::bases::BaseRecord;
use crate::operation::archive::chain_end::lineage_of;
use crate::operation::archive::lineage::FIRST_LINEAGE;
use crate::operation::context::{Context, Target};
use crate::operation::records;
use crate::repository::catalog::Repository;
use jiff::Timestamp;
use std::collections::{BTreeMap, BTreeSet};

/// A base, as planning sees it, and what there is of it.
pub(super) struct Candidate {
    /// Where it stands.
    pub(super) base: Base,
    /// Its manifest; the signature was checked.
    pub(super) manifest: Result<Manifest, Lost>,
}

/// Why a base that must have been there cannot be used.
pub(super) struct Lost(String);

impl Lost {
    /// As the reason of a refusal.
    pub(super) fn error(&self) -> Error {
        Error::new(Code::RestoreTargetUnreachable, self.0.clone())
    }
}

/// The backups of a target in a repository.
pub(crate) struct Found {
    /// Those that a log can be replayed over.
    pub(super) candidates: Vec<Candidate>,
    /// The newest of the others.
    pub(super) without_log: Option<(Timestamp, BackupId)>,
}

impl Found {
    /// Where the bases of a log end, and what their manifests say of that, as far as they are there.
    pub(crate) fn points(&self, stream: &str) -> impl Iterator<Item = (&LogMark, Option<&LogPosition>)> {
        let of_stream = self.candidates.iter().filter(move |candidate| candidate.base.history.stream == stream);
        of_stream.map(|Candidate { base, manifest }| {
            (&base.mark, manifest.as_ref().ok().and_then(|manifest| manifest.position.as_ref()))
        })
    }
}

/// The backup that was named, or all that are there or are known to have been.
pub(crate) fn find(
    context: &Context,
    target: &Target,
    repository: &Repository,
    named: Option<&BackupId>,
    task: &Task,
) -> Result<Found> {
    if let Some(id) = named {
        // Another repository may have a sound one.
        if records::damaged_in(context, &target.name, repository.name())?.contains(id) {
            let text = format!("{id} was found damaged or incomplete in repository {}", repository.name());
            return Err(Error::new(Code::BackupCorrupted, text).with_hint(format!(
                "`neo4j-backupctl verify {id}` looks at it again; `neo4j-backupctl list` shows others"
            )));
        }
        let signed = choose::find(context, repository, id)?;
        let Some(base) = base_of(&signed) else {
            let text = format!("{id} names no point of the log that a replay could begin at");
            return Err(Error::new(Code::NotAvailable, text));
        };
        return Ok(Found { candidates: vec![Candidate { base, manifest: Ok(signed.manifest) }], without_log: None });
    }
    let damaged = records::damaged_in(context, &target.name, repository.name())?;
    let mut found = Found { candidates: Vec::new(), without_log: None };
    for info in repository.manifest_keys(Some(&context.environment))? {
        task.check()?;
        if !info.key.file_name().starts_with(&format!("{}-", target.name)) {
            continue;
        }
        match repository.manifest(&info.key) {
            Ok(signed) if signed.manifest.target() != &target.name => {}
            Ok(signed) if damaged.contains(&signed.manifest.id) => {
                task.warn(format!(
                    "passing over {0}: it was found damaged or incomplete, until `neo4j-backupctl verify {0}` finds it sound",
                    signed.manifest.id
                ));
            }
            Ok(signed) => match base_of(&signed) {
                Some(base) => found.candidates.push(Candidate { base, manifest: Ok(signed.manifest) }),
                // A dump that was loaded is another cluster: nobody gets that unasked where there is a base.
                None if signed.manifest.is_logical() => {}
                None => {
                    found.without_log = found.without_log.max(Some((signed.manifest.created_at, signed.manifest.id)))
                }
            },
            Err(error) if error.code() == Code::WrongKey => return Err(error),
            Err(error) => task.warn(format!("passing over {}: {error}", info.key)),
        }
    }
    let lost = lost(context, target, repository, &found.candidates)?;
    found.candidates.extend(lost);
    let turns = turns(context, target, &found.candidates)?;
    for Candidate { base, .. } in &mut found.candidates {
        base.ended_at = turns.within(&base.history.stream, base.ended_at);
    }
    Ok(found)
}

/// When the first base of each stream was begun, as far as manifests and the record tell.
fn turns(context: &Context, target: &Target, present: &[Candidate]) -> Result<Turns> {
    let manifests = present.iter().filter_map(|candidate| {
        let manifest = candidate.manifest.as_ref().ok()?;
        Some((candidate.base.history.stream.clone(), manifest.created_at))
    });
    let recorded = context.ledger.log_bases(&target.name)?.into_iter().map(|base| (base.chain.stream, base.created_at));
    Ok(Turns::of(manifests.chain(recorded)))
}

/// When each of a target's databases took the place of the one before: the time of the first base of its stream.
pub(crate) struct Turns(BTreeMap<String, Timestamp>);

impl Turns {
    /// As bases on record tell.
    pub(crate) fn of_records(bases: &[BaseRecord]) -> Turns {
        Turns::of(bases.iter().map(|base| (base.chain.stream.clone(), base.created_at)))
    }

    fn of(bases: impl Iterator<Item = (String, Timestamp)>) -> Turns {
        let mut first: BTreeMap<String, Timestamp> = BTreeMap::new();
        for (stream, time) in bases {
            let known = first.entry(stream).or_insert(time);
            *known = time.min(*known);
        }
        Turns(first)
    }

    /// From when on a base on record tells what the target held.
    pub(crate) fn ended_at(&self, base: &BaseRecord) -> Timestamp {
        self.within(
            &base.chain.stream,
            ended_at(base.chain.lineage, base.mark.committed_at, base.created_at, base.finished_at),
        )
    }

    /// `time`, or when the stream's turn came, where another one was archived before: a database that was put in another's
    /// place says nothing of the time before, however old its last commit is.
    fn within(&self, stream: &str, time: Timestamp) -> Timestamp {
        let Some(own) = self.0.get(stream) else { return time };
        let is_second = self.0.iter().any(|(other, begun)| other != stream && begun < own);
        if is_second { time.max(*own) } else { time }
    }
}

fn base_of(signed: &SignedManifest) -> Option<Base> {
    let manifest = &signed.manifest;
    let position = manifest.position.as_ref()?;
    let mark = position.mark.clone()?;
    let history = History { stream: manifest.owner.data_identity.clone(), lineage: lineage_of(signed)? };
    let ended_at = ended_at(history.lineage, mark.committed_at, manifest.created_at, manifest.finished_at);
    Some(Base { history, sequence: manifest.sequence, mark, ended_at, latest_commit: position.latest_commit })
}

/// From when on a base tells what the database held. A lineage that was forked off repeats what another one holds: it
/// tells nothing of the time before its bases.
fn ended_at(lineage: u32, committed_at: Option<Timestamp>, created_at: Timestamp, finished_at: Timestamp) -> Timestamp {
    let committed_at = committed_at.unwrap_or(finished_at);
    if lineage > FIRST_LINEAGE { committed_at.max(created_at) } else { committed_at }
}

/// Bases that are gone or damaged: those on record, and one for each history that has batches and no base at all.
fn lost(context: &Context, target: &Target, repository: &Repository, present: &[Candidate]) -> Result<Vec<Candidate>> {
    let there: BTreeSet<&BackupId> =
        present.iter().filter_map(|candidate| candidate.manifest.as_ref().ok()).map(|manifest| &manifest.id).collect();
    let recorded = context.ledger.log_bases(&target.name)?;
    let recorded = recorded.into_iter().filter(|base| base.chain.repository == repository.name());
    let mut lost: Vec<Candidate> =
        recorded.filter(|base| !there.contains(&base.backup)).map(|base| of_record(base, repository)).collect();
    let based: BTreeSet<History> =
        present.iter().chain(&lost).map(|candidate| candidate.base.history.clone()).collect();
    // The ledger knows which histories there are; without it the batches themselves tell.
    let known =
        context.ledger.log_sums(&target.name)?.into_keys().filter(|chain| chain.repository == repository.name());
    let known: BTreeSet<History> =
        known.map(|chain| History { stream: chain.stream, lineage: chain.lineage }).collect();
    if known.is_empty() || !known.is_subset(&based) {
        let begun = first_transactions(context, target, repository)?.into_iter();
        let baseless = begun.filter(|(history, _)| !based.contains(history));
        lost.extend(baseless.map(|(history, first)| without_base(history, first, repository)));
    }
    Ok(lost)
}

fn of_record(record: BaseRecord, repository: &Repository) -> Candidate {
    let BaseRecord { backup, chain, sequence, mark, created_at, finished_at, .. } = record;
    let ended_at = ended_at(chain.lineage, mark.committed_at, created_at, finished_at);
    let why = format!(
        "{backup}, from which lineage {} of the log goes on, is missing or damaged in repository {}",
        chain.lineage,
        repository.name()
    );
    let history = History { stream: chain.stream, lineage: chain.lineage };
    Candidate { base: Base { history, sequence, mark, ended_at, latest_commit: None }, manifest: Err(Lost(why)) }
}

/// The first transaction of the batches of each history.
fn first_transactions(context: &Context, target: &Target, repository: &Repository) -> Result<BTreeMap<History, u64>> {
    let mut first: BTreeMap<History, u64> = BTreeMap::new();
    for key in repository.batch_objects(&context.environment, &target.name)?.into_keys() {
        let place = batch_place(&context.environment, &target.name, &key);
        if let Some(place) = place.filter(|_| key.as_str().ends_with(MANIFEST_SUFFIX)) {
            let number = first.entry(History { stream: place.stream, lineage: place.lineage }).or_insert(u64::MAX);
            *number = place.first_transaction.min(*number);
        }
    }
    Ok(first)
}

/// The base that a history must have had whose batches are there.
fn without_base(history: History, first: u64, repository: &Repository) -> Candidate {
    let why =
        format!("there is log of lineage {} in repository {}, and no base of it", history.lineage, repository.name());
    let mark = LogMark {
        file: 0,
        offset: 0,
        transaction: first.saturating_sub(1),
        began: None,
        checksum: None,
        append_index: None,
        committed_at: None,
    };
    // When it ended nobody knows: no time is taken to lie after it.
    let base = Base { history, sequence: 0, mark, ended_at: Timestamp::MAX, latest_commit: None };
    Candidate { base, manifest: Err(Lost(why)) }
}
