//! Which batch holds a file of the log, or that the signed chain ends before it.

use crate::artifact::log_batch::{LogBatch, LogMark};
use crate::artifact::log_point::Lsn;
use crate::artifact::manifest::LogPosition;
use crate::artifact::object_key::{BatchPlace, MANIFEST_SUFFIX, ObjectKey, batch_place};
use crate::base::task::Task;
use crate::base::{Code, Error, Result};
use crate::driver::log::Piece;
use crate::operation::context::{Context, Target};
use crate::operation::restore::bases;
use crate::repository::catalog::Repository;
use std::collections::BTreeMap;

/// A batch, and where it is.
pub(super) struct Batch {
    /// The repository.
    pub(super) repository: Repository,
    /// Its record; the signature was checked.
    pub(super) batch: LogBatch,
}

/// Where a file is.
pub(super) enum Place {
    /// In this batch, which may be in several repositories.
    In(Vec<Batch>),
    /// Behind the end of the chain in each of them; says where that is.
    Beyond(String),
}

/// What one repository says of it.
enum Said {
    In(Box<LogBatch>),
    Beyond(String),
}

/// Asks every repository of the target. One that cannot be asked may hold the file: without a batch from another, that is
/// the answer.
pub(super) fn batch(context: &Context, target: &Target, name: &str, piece: &Piece, task: &Task) -> Result<Place> {
    let (mut found, mut beyond, mut failure) = (Vec::new(), None, None);
    for repository in &target.repositories {
        task.check()?;
        let said = context.repository(target, repository).and_then(|repository| {
            let said = ask(context, target, &repository, name, piece, task)?;
            Ok((repository, said))
        });
        match said {
            Ok((repository, Said::In(batch))) => found.push(Batch { repository, batch: *batch }),
            Ok((_, Said::Beyond(end))) => beyond = Some(end),
            Err(error) => {
                failure = failure.or(Some(error.context(format!("asking repository {repository} for {name}"))))
            }
        }
    }
    match (found.is_empty(), failure, beyond) {
        (false, _, _) => Ok(Place::In(found)),
        (true, Some(failure), _) => Err(failure),
        (true, None, Some(end)) => Ok(Place::Beyond(end)),
        (true, None, None) => Err(Error::new(Code::ConfigInvalid, format!("{} has no repository", target.name))),
    }
}

/// How a history came to be, as its newest batch says it; `None` = nothing of that history is archived. If the archive holds
/// any of it and does not say, that is an error: a server that is told that there is none would stay on the one before it.
pub(super) fn origin(
    context: &Context,
    target: &Target,
    name: &str,
    stream: &str,
    history: &str,
    task: &Task,
) -> Result<Option<String>> {
    for repository in &target.repositories {
        let asking = |error: Error| error.context(format!("asking repository {repository} for {name}"));
        let repository = context.repository(target, repository).map_err(asking)?;
        let batches = newest_of_lineages(context, target, &repository, stream).map_err(asking)?;
        let of_history = |batch: &&LogBatch| batch.end.checksum.as_deref() == Some(history);
        if let Some(text) = batches.iter().rev().find(of_history).and_then(|batch| batch.origin.clone()) {
            return Ok(Some(text));
        }
        let of_batches = batches.iter().any(|batch| of_history(&batch));
        let bases = bases::find(context, target, &repository, None, task).map_err(asking)?;
        let of_bases = bases.points(stream).any(|(mark, _)| mark.checksum.as_deref() == Some(history));
        if of_batches || of_bases {
            let text = format!(
                "{name} is not in the spool, and repository {} holds log of that timeline: it must not be passed over",
                repository.name()
            );
            return Err(Error::new(Code::LogGap, text).with_hint(
                "`neo4j-backupctl restore` needs no history files: restore with it, or put the file into pg_wal",
            ));
        }
    }
    Ok(None)
}

type Keys = Vec<(BatchPlace, ObjectKey)>;

/// The manifests of a log's batches, by lineage, in the order of the log.
fn keys(context: &Context, target: &Target, repository: &Repository, stream: &str) -> Result<BTreeMap<u32, Keys>> {
    let mut lineages: BTreeMap<u32, Keys> = BTreeMap::new();
    for (key, _) in repository.batch_objects(&context.environment, &target.name)? {
        let place = batch_place(&context.environment, &target.name, &key);
        if let Some(place) = place.filter(|place| place.stream == stream && key.as_str().ends_with(MANIFEST_SUFFIX)) {
            lineages.entry(place.lineage).or_default().push((place, key));
        }
    }
    Ok(lineages)
}

fn newest_of_lineages(
    context: &Context,
    target: &Target,
    repository: &Repository,
    stream: &str,
) -> Result<Vec<LogBatch>> {
    let lineages = keys(context, target, repository, stream)?;
    let newest = lineages.values().filter_map(|keys| keys.last());
    newest.map(|(_, key)| Ok(repository.batch(key)?.batch)).collect()
}

fn ask(
    context: &Context,
    target: &Target,
    repository: &Repository,
    name: &str,
    piece: &Piece,
    task: &Task,
) -> Result<Said> {
    let Piece { stream, history, file, length } = piece;
    let end_position = (file + 1).saturating_mul(*length);
    // A history that went on without a new name (a copy that was put back) is the newest of those that have it.
    for keys in keys(context, target, repository, stream)?.into_values().rev() {
        let before = keys.partition_point(|(place, _)| place.first_transaction < end_position);
        // None begins before its end: the first one tells which history this is.
        let Some((_, key)) = keys.get(before.saturating_sub(1)) else { continue };
        let batch = repository.batch(key)?.batch;
        if batch.end.checksum.as_deref() != Some(history) {
            continue;
        }
        if batch.segments.iter().any(|segment| segment.length != *length) {
            let text = format!("the archive's segments are not of {length} bytes like those of this cluster");
            return Err(Error::new(Code::LogGap, text));
        }
        if batch.segments.iter().any(|segment| segment.file == *file) {
            return Ok(Said::In(Box::new(batch)));
        }
        if before == 0 {
            break;
        }
        if before < keys.len() {
            let text = format!("{name} is missing from the archive, which goes on behind it");
            return Err(Error::new(Code::LogGap, text).with_hint("`neo4j-backupctl verify` says what is missing"));
        }
        return Ok(Said::Beyond(format!(
            "{name} lies behind the archive's end: it goes up to file {}",
            batch.end.file
        )));
    }
    ask_bases(context, target, repository, (name, piece), task)
}

/// The file lies before the first batch of its history, or there is none: the chain begins with a base, which carries the
/// log from its start to its end in itself.
fn ask_bases(
    context: &Context,
    target: &Target,
    repository: &Repository,
    (name, piece): (&str, &Piece),
    task: &Task,
) -> Result<Said> {
    let Piece { stream, history, file, length } = piece;
    let bases = bases::find(context, target, repository, None, task)?;
    let of_history = || bases.points(stream).filter(|(mark, _)| mark.checksum.as_deref() == Some(history));
    // To be told that a base's own log is not archived makes a server read what the base brought along; it cannot go into
    // service before that base's end.
    let carries = |position: &LogPosition, mark: &LogMark| {
        let start = Lsn::parse(&position.start).map(|start| start.0 / length);
        position.log_contained && start.is_some_and(|start| (start..=mark.file).contains(file))
    };
    let carried = of_history().any(|(mark, position)| position.is_some_and(|position| carries(position, mark)));
    Ok(Said::Beyond(match of_history().map(|(mark, _)| mark.file).max() {
        None => format!("{name}: no log of that timeline was archived"),
        Some(end) if *file > end => format!("{name} lies behind the archive's end: it goes up to file {end}"),
        Some(_) if carried => format!("{name} is part of a base backup, which brings it along in its pg_wal"),
        Some(_) => {
            let text = format!("{name} was not archived: it is older than the archive of its timeline");
            return Err(Error::new(Code::LogGap, text));
        }
    }))
}
