//! The batches of the log that a restore replays: read from a repository, checked, and put in order by [`plan`].

use super::plan::{self, Base, History, Obstacle, Path, Piece};
use crate::artifact::log_batch::{LogBatch, LogMark, SignedLogBatch};
use crate::artifact::log_point::{self, Lsn};
use crate::artifact::manifest::{Engine, Manifest};
use crate::artifact::object_key::{BatchPlace, ObjectKey};
use crate::base::{Code, Error, Result, bytes};
use crate::driver::log::RecoveryTarget;
use crate::ledger::log::ends::LogEnd;
use crate::operation::answer::Reached;
use crate::operation::context::{Context, Target};
use crate::repository::catalog::Repository;
use jiff::Timestamp;
use std::collections::BTreeSet;

/// What is replayed, and where it must arrive.
pub(super) struct LogPlan {
    /// Whose log it is.
    pub(super) engine: Engine,
    /// The history it belongs to.
    pub(super) history: History,
    /// The batches, in order.
    pub(super) batches: Vec<LogBatch>,
    /// What the operator asked for.
    pub(super) until: RecoveryTarget,
    /// Where the base ends.
    pub(super) base: LogMark,
    /// Where the last batch ends, or the base.
    pub(super) end: LogMark,
    /// Whether the target lies before that end.
    pub(super) cut: bool,
    /// Where the archive of this history ends.
    pub(super) archived: LogMark,
}

impl LogPlan {
    /// What the driver is told: a target behind everything there is, is the end of it.
    pub(super) fn for_driver(&self) -> RecoveryTarget {
        if self.cut { self.until } else { RecoveryTarget::End }
    }

    /// Bytes of log to write.
    pub(super) fn plain_bytes(&self) -> u64 {
        self.batches.iter().map(|batch| batch.object.plain.size).sum()
    }

    /// Where it arrives, as far as that is known beforehand.
    pub(super) fn expected(&self) -> Reached {
        let transaction = if self.cut { plan::transaction_of(self.until) } else { Some(self.end.transaction) };
        let time = if self.cut { None } else { self.end.committed_at };
        let position = transaction.and_then(|point| log_point::position(self.engine, point));
        Reached { stream: self.history.stream.clone(), lineage: self.history.lineage, transaction, time, position }
    }

    /// Compares where the log ends after the cut with the plan. Less than planned is an error, and so is more.
    pub(super) fn check(&self, found: &LogMark) -> Result<()> {
        let failed = |why: String| Err(Error::new(Code::RestoreFailed, format!("the restored log {why}")));
        if let Some(expected) = self.expected().transaction {
            if found.transaction != expected {
                let (found, expected) =
                    (log_point::named(self.engine, found.transaction), log_point::named(self.engine, expected));
                return failed(format!("ends with {found}, not with {expected} as planned"));
            }
            return Ok(());
        }
        // Of a time it is known that everything before the last batch lies before it.
        let least = self.batches.iter().rev().nth(1).map_or(self.base.transaction, |batch| batch.end.transaction);
        if found.transaction < least.max(self.base.transaction) || found.transaction > self.end.transaction {
            let name = |point| log_point::named(self.engine, point);
            let (found, end) = (name(found.transaction), name(self.end.transaction));
            return failed(format!("ends with {found}, which is not between {} and {end} as planned", name(least)));
        }
        match (self.until, found.committed_at) {
            (RecoveryTarget::Time(time), Some(at)) if at > time && found.transaction > self.base.transaction => {
                let found = log_point::named(self.engine, found.transaction);
                failed(format!("ends with {found} of {at}, later than {time}"))
            }
            _ => Ok(()),
        }
    }

    /// The steps as a person reads them.
    pub(super) fn steps(&self) -> Vec<String> {
        let mut steps = Vec::new();
        let stored: u64 = self.batches.iter().map(|batch| batch.object.stored.size).sum();
        let name = |point| log_point::named(self.engine, point);
        let (from, to) = (name(self.base.transaction + 1), name(self.end.transaction));
        if self.batches.is_empty() {
            steps.push("replay nothing: no log after the backup is needed".to_owned());
        } else {
            let times: Vec<Timestamp> = self.batches.iter().map(|batch| batch.last_committed_at).collect();
            let begin = self.base.committed_at.map_or(String::new(), |time| format!("from {time} "));
            let end = times.iter().max().map_or(String::new(), |time| format!("to {time}"));
            steps.push(format!(
                "replay the log of lineage {}: {} batches ({} stored, {} to write), {from} to {}, {begin}{end}",
                self.history.lineage,
                self.batches.len(),
                bytes::human(stored),
                bytes::human(self.plain_bytes()),
                self.expected().transaction.map_or(format!("at most {to}"), name),
            ));
        }
        steps.push(match self.until {
            RecoveryTarget::End => format!("end with {to}, the last one that is archived"),
            RecoveryTarget::Time(time) => format!("stop before the first transaction committed later than {time}"),
            RecoveryTarget::Transaction(number) => format!("end with transaction {number}"),
            RecoveryTarget::BeforeTransaction(number) => format!("stop before transaction {number}"),
            RecoveryTarget::Lsn(position) => format!("stop before the first record that ends after {}", Lsn(position)),
            RecoveryTarget::Point(name) => format!("end with the restore point {name}"),
            RecoveryTarget::Immediate => "end as soon as the backup is consistent".to_owned(),
        });
        steps.push(self.lost());
        steps
    }

    fn lost(&self) -> String {
        if self.engine == Engine::Postgresql {
            // Positions are bytes of the log: their difference counts nothing that anybody knows.
            let (end, last) = (Lsn(self.end.transaction), Lsn(self.archived.transaction));
            return match self.end.transaction >= self.archived.transaction && !self.cut {
                true => "leave out nothing that is archived".to_owned(),
                false => {
                    format!("leave out what is archived behind the target, up to {last}; batches are read up to {end}")
                }
            };
        }
        let last = self.archived.transaction;
        let at = self.archived.committed_at.map_or(String::new(), |time| format!(" of {time}"));
        match self.expected().transaction {
            Some(end) if end >= last => "leave out nothing that is archived".to_owned(),
            Some(end) => format!("leave out {} archived transactions: {} to {last}{at}", last - end, end + 1),
            None => {
                let least =
                    self.batches.iter().rev().nth(1).map_or(self.base.transaction, |batch| batch.end.transaction);
                let (few, many) = (last.saturating_sub(self.end.transaction), last.saturating_sub(least));
                format!(
                    "leave out {few} to {many} archived transactions, up to {last}{at}: how many lie before the time is seen when they are read"
                )
            }
        }
    }
}

/// The log from a base to the target; `next_base` is the end of the base of this history that comes next. `LOG_GAP` names what is missing and what can still be restored;
/// `RESTORE_TARGET_UNREACHABLE` says how far the archive reaches.
pub(super) fn make(
    context: &Context,
    target: &Target,
    repository: &Repository,
    manifest: &Manifest,
    (base, next_base): (&Base, Option<&LogMark>),
    until: RecoveryTarget,
) -> Result<LogPlan> {
    let History { stream, lineage } = &base.history;
    let keys = repository.batch_keys(&context.environment, &target.name, stream, *lineage)?;
    let archived = archive_end(repository, &keys, &base.mark)?;
    let unsound = context.ledger.unsound_keys(&target.name, repository.name())?;
    let Opened { signed, damaged } = open_needed(repository, &keys, &unsound, base, until)?;
    require_one_history(target, repository, manifest, base, &signed)?;
    let pieces: Vec<Piece> = signed.iter().map(|signed| piece(&signed.batch)).collect();
    let known = known_end(context, target, repository, base)?;
    let covered = known.as_ref().map(|end| (end.transaction, end.covered_until));
    let (begun, now) = (manifest.created_at.min(manifest.finished_at), context.clock.now());
    match plan::path(&base.mark, begun, &pieces, until, covered, now) {
        Ok(Path { pieces: chosen, end, cut }) => {
            check_reached(target, repository, (until, cut), &end, &damaged, known.as_ref())?;
            check_links(&chosen, &signed)?;
            let batches: Vec<LogBatch> = chosen.iter().map(|index| signed[*index].batch.clone()).collect();
            check_objects(target, repository, base, &batches)?;
            let history = base.history.clone();
            Ok(LogPlan {
                engine: manifest.engine,
                history,
                batches,
                until,
                base: base.mark.clone(),
                end,
                cut,
                archived,
            })
        }
        Err(Obstacle::Hole { after, next }) => {
            let next = &signed[next].batch;
            Err(hole(target, repository, &after, next, &damaged))
        }
        Err(Obstacle::Beyond { end, covered_until }) => match damaged_after(&damaged, &end).or(damaged.first()) {
            Some(damaged) => Err(gap(target, repository, &end, &damaged.to_string())),
            None if next_base.is_some_and(|next| next.transaction > end.transaction) => {
                let next = next_base.map_or(0, |next| next.transaction);
                let next = log_point::named(manifest.engine, next);
                let why = format!("nothing is archived between that and the full backup that ends with {next}");
                Err(gap(target, repository, &end, &why))
            }
            None => Err(beyond(target, repository, manifest, &base.history, &end, covered_until)),
        },
    }
}

/// The archive does not reach the target; how far it does.
fn beyond(
    target: &Target,
    repository: &Repository,
    manifest: &Manifest,
    history: &History,
    end: &LogMark,
    covered_until: Option<Timestamp>,
) -> Error {
    let holds = match covered_until {
        Some(until) => format!("is known to hold everything up to {until}"),
        None => "what it holds after that is not known: it was dated by a clock that was ahead, and the next increment sets that \
                 right"
            .to_owned(),
    };
    let text = format!(
        "the archive of {} in repository {} ends with {}{}, and {holds}",
        target.name,
        repository.name(),
        log_point::named(manifest.engine, end.transaction),
        end.committed_at.map_or(String::new(), |time| format!(" of {time}")),
    );
    // The same number may be in several histories: the backup says which one is meant.
    Error::new(Code::RestoreTargetUnreachable, text).with_hint(format!(
        "`neo4j-backupctl restore {} {} {}` restores all that is archived of lineage {}",
        target.name,
        manifest.id,
        log_point::option(manifest.engine, end.transaction),
        history.lineage
    ))
}

/// A base whose last transaction is another one in the log beside it is of another history, however it came there.
fn require_one_history(
    target: &Target,
    repository: &Repository,
    manifest: &Manifest,
    base: &Base,
    signed: &[SignedLogBatch],
) -> Result<()> {
    let other = |signed: &&SignedLogBatch| {
        signed.batch.start.contradicts(&base.mark) || signed.batch.end.contradicts(&base.mark)
    };
    let Some(other) = signed.iter().find(other) else { return Ok(()) };
    let (engine, name) = (manifest.engine, &target.name);
    let text = format!(
        "{} and the log of lineage {} in repository {} are of different histories: {} is another one in {}",
        manifest.id,
        base.history.lineage,
        repository.name(),
        log_point::named(engine, base.mark.transaction),
        other.batch.object.key
    );
    Err(Error::new(Code::LogForked, text).with_hint(format!(
        "`neo4j-backupctl restore {name} {}` gives what that backup holds, an older backup with `--to-time` or `{}` what the log \
         holds; `neo4j-backupctl backup {name}` makes what is in service restorable",
        manifest.id,
        log_point::option(engine, base.mark.transaction)
    )))
}

struct Opened {
    signed: Vec<SignedLogBatch>,
    damaged: Vec<Damaged>,
}

/// A batch that cannot be used.
struct Damaged {
    /// Of its manifest.
    key: ObjectKey,
    /// The object that is damaged.
    what: ObjectKey,
    first_transaction: u64,
    error: Error,
}

impl std::fmt::Display for Damaged {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} cannot be opened: {}", self.what, self.error)
    }
}

/// Opens the manifests from the one that the base lies in to the one that the target lies in.
fn open_needed(
    repository: &Repository,
    keys: &[(BatchPlace, ObjectKey)],
    unsound: &BTreeSet<String>,
    base: &Base,
    until: RecoveryTarget,
) -> Result<Opened> {
    let first = keys.iter().rposition(|(place, _)| place.first_transaction <= base.mark.transaction + 1).unwrap_or(0);
    let mut opened = Opened { signed: Vec::new(), damaged: Vec::new() };
    let needed = if until == RecoveryTarget::Immediate { &[] } else { &keys[first.min(keys.len())..] };
    for (place, key) in needed {
        match repository.batch(key) {
            Ok(signed) => {
                let batch = &signed.batch;
                let last = match until {
                    RecoveryTarget::End => false,
                    RecoveryTarget::Time(time) => {
                        batch.last_committed_at > time && batch.end.transaction > base.mark.transaction
                    }
                    _ => plan::transaction_of(until).is_some_and(|target| batch.end.transaction >= target),
                };
                if unsound.contains(key.as_str()) {
                    let first_transaction = place.first_transaction;
                    let text = "it is on record as damaged, until `verify --all` finds it sound";
                    let error = Error::new(Code::BackupCorrupted, text);
                    let what = signed.batch.object.key;
                    opened.damaged.push(Damaged { key: key.clone(), what, first_transaction, error });
                    // Its parts, or what it was merged into, may lead there as well.
                    continue;
                }
                opened.signed.push(signed);
                if last {
                    break;
                }
            }
            Err(error)
                if matches!(error.code(), Code::SignatureInvalid | Code::BackupCorrupted | Code::ObjectNotFound) =>
            {
                let first_transaction = place.first_transaction;
                opened.damaged.push(Damaged { key: key.clone(), what: key.clone(), first_transaction, error });
            }
            Err(error) => return Err(error),
        }
    }
    Ok(opened)
}

fn piece(batch: &LogBatch) -> Piece {
    Piece {
        start: batch.start.clone(),
        end: batch.end.clone(),
        last_committed_at: batch.last_committed_at,
        taken_at: batch.created_at,
    }
}

/// Where the archive of a history ends: the end of its last batch that can be opened, or the base.
fn archive_end(repository: &Repository, keys: &[(BatchPlace, ObjectKey)], base: &LogMark) -> Result<LogMark> {
    // Whether one that cannot be opened is in the way is decided when it is needed.
    let last = keys.iter().rev().find_map(|(_, key)| repository.batch(key).ok()).map(|signed| signed.batch.end);
    Ok(last.filter(|end| end.transaction > base.transaction).unwrap_or_else(|| base.clone()))
}

/// How far the ledger knows the archive to reach, beyond what its batches say: it knows of runs that found nothing to
/// archive, and of batches that have gone.
fn known_end(context: &Context, target: &Target, repository: &Repository, base: &Base) -> Result<Option<LogEnd>> {
    let ends = context.ledger.log_ends(&target.name)?;
    Ok(ends.into_iter().find(|end| {
        end.chain.repository == repository.name()
            && (&end.chain.stream, end.chain.lineage) == (&base.history.stream, base.history.lineage)
    }))
}

fn damaged_after<'a>(damaged: &'a [Damaged], end: &LogMark) -> Option<&'a Damaged> {
    damaged.iter().find(|damaged| damaged.first_transaction > end.transaction)
}

/// Whether a way that found no end behind the target may pass for all that leads there.
fn check_reached(
    target: &Target,
    repository: &Repository,
    (until, cut): (RecoveryTarget, bool),
    end: &LogMark,
    damaged: &[Damaged],
    known: Option<&LogEnd>,
) -> Result<()> {
    match until {
        RecoveryTarget::End => check_end(target, repository, end, damaged, known),
        // What cannot be read may hold an earlier one, as behind a hole.
        RecoveryTarget::Time(_) if !cut => check_end(target, repository, end, damaged, None),
        _ => Ok(()),
    }
}

/// All that was archived is wanted: an end that cannot be opened, or is gone, must not pass for a shorter archive.
fn check_end(
    target: &Target,
    repository: &Repository,
    end: &LogMark,
    damaged: &[Damaged],
    known: Option<&LogEnd>,
) -> Result<()> {
    if let Some(damaged) = damaged_after(damaged, end) {
        return Err(gap(target, repository, end, &damaged.to_string()));
    }
    match known {
        Some(known) if known.transaction > end.transaction => {
            let known = log_point::named(target.driver.engine(), known.transaction);
            let why = format!("it was archived up to {known}, and what follows is missing");
            Err(gap(target, repository, end, &why))
        }
        _ => Ok(()),
    }
}

/// A batch names the one before it by the hash of its manifest: an older one, validly signed, does not pass for it.
fn check_links(chosen: &[usize], signed: &[SignedLogBatch]) -> Result<()> {
    for pair in chosen.windows(2) {
        let (before, after) = (&signed[pair[0]], &signed[pair[1]]);
        let Some(link) = &after.batch.predecessor else { continue };
        let known = before.link()?;
        if link.key == known.key && link.manifest_sha256 != known.manifest_sha256 {
            let text = format!("manifest {} is signed, but it is not the one that its successor names", link.key);
            return Err(Error::new(Code::SignatureInvalid, text));
        }
    }
    Ok(())
}

/// Every object must be there with the size on record before anything is written.
fn check_objects(target: &Target, repository: &Repository, base: &Base, batches: &[LogBatch]) -> Result<()> {
    let mut before = &base.mark;
    for batch in batches {
        let object = &batch.object;
        match repository.store().stat(&object.key)? {
            Some(info) if info.size == object.stored.size => {}
            Some(info) => {
                let why = format!("{} has {} bytes, its manifest says {}", object.key, info.size, object.stored.size);
                return Err(gap(target, repository, before, &why));
            }
            None => return Err(gap(target, repository, before, &format!("{} is missing", object.key))),
        }
        before = &batch.end;
    }
    Ok(())
}

fn hole(target: &Target, repository: &Repository, after: &LogMark, next: &LogBatch, damaged: &[Damaged]) -> Error {
    let before_next = |damaged: &&Damaged| next.predecessor.as_ref().is_none_or(|link| link.key == damaged.key);
    let inside = damaged.iter().find(before_next);
    let why = match (inside.or(damaged.first()), &next.predecessor) {
        (Some(damaged), _) => damaged.to_string(),
        (None, Some(link)) => format!("the batch {} is missing", link.key),
        (None, None) => {
            let name = |point| log_point::named(target.driver.engine(), point);
            let (from, to) = (name(after.transaction + 1), name(next.start.transaction));
            format!("the log from {from} to {to} was lost before it was archived")
        }
    };
    gap(target, repository, after, &why)
}

/// `LOG_GAP`: what is wrong, and what can still be restored.
pub(super) fn gap(target: &Target, repository: &Repository, reachable: &LogMark, why: &str) -> Error {
    let engine = target.driver.engine();
    let (reached, option) =
        (log_point::named(engine, reachable.transaction), log_point::option(engine, reachable.transaction));
    let at = reachable.committed_at.map_or(String::new(), |time| format!(" of {time}"));
    let text = format!(
        "the archived log of {} in repository {} breaks off after {reached}{at}: {why}",
        target.name,
        repository.name()
    );
    Error::new(Code::LogGap, text).with_hint(format!(
        "`{option}` restores what lies before; `neo4j-backupctl verify --all` names what is wrong (a file that is none of the \
         agent's is to be removed); `neo4j-backupctl backup {}` makes what is in service restorable from there",
        target.name
    ))
}
