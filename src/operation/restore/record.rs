//! What the record knows of the newest state, so that nothing less passes for it: which repository reaches farthest, and
//! which holds a later history than what can be had.

use super::bases::Turns;
use super::choose::Chosen;
use super::in_service::InService;
use super::plan;
use crate::artifact::log_point;
use crate::base::ids::BackupId;
use crate::base::{Code, Error, Result};
use crate::driver::log::RecoveryTarget;
use crate::driver::restore_options::Timeline;
use crate::ledger::log::ChainName;
use crate::ledger::log::ends::LogEnd;
use crate::operation::context::{Context, Target};
use crate::operation::{log_reach, log_records, records};

/// Refuses a plan to less than what a repository that failed is known to hold.
pub(super) fn refuse_less(
    context: &Context,
    target: &Target,
    chosen: &Chosen,
    (until, timeline): (RecoveryTarget, Option<Timeline>),
    (failures, in_service): (&[(&str, Error)], &InService),
) -> Result<()> {
    if until == RecoveryTarget::End {
        let farthest = match timeline {
            Some(Timeline::Number(_)) => farthest_of(context, target, chosen)?,
            _ => farthest(context, target)?,
        };
        if let Some(end) = farthest.filter(|end| falls_short(chosen, end, !failures.is_empty())) {
            let of_it = failures.iter().find(|(name, _)| *name == end.chain.repository).or(failures.first());
            return Err(only_less(target, chosen, &end, of_it.map(|(_, error)| error)));
        }
    }
    if timeline.is_some() {
        return Ok(());
    }
    for (name, error) in failures {
        if let Some(lineage) = later_history(context, target, name, chosen, (until, in_service))? {
            return Err(of_a_history_that_was_left(target, chosen, until, (name, lineage), error));
        }
    }
    Ok(())
}

/// The number of a later history than the plan's that a repository is known to hold, or of one of the data in service where the
/// plan's is another, and that has what is asked for.
fn later_history(
    context: &Context,
    target: &Target,
    repository: &str,
    chosen: &Chosen,
    (until, in_service): (RecoveryTarget, &InService),
) -> Result<Option<u32>> {
    let Some(log) = &chosen.log else { return Ok(None) };
    let bases = context.ledger.log_bases(&target.name)?;
    let turns = Turns::of_records(&bases);
    let bases = bases.into_iter().filter(|base| {
        let later = match base.chain.stream == log.history.stream {
            true => base.chain.lineage > log.history.lineage,
            false => in_service.is(&base.chain.stream),
        };
        base.chain.repository == repository && later && plan::admits(until, base.mark.transaction, turns.ended_at(base))
    });
    Ok(bases.map(|base| base.chain.lineage).max())
}

fn of_a_history_that_was_left(
    target: &Target,
    chosen: &Chosen,
    until: RecoveryTarget,
    (repository, lineage): (&str, u32),
    error: &Error,
) -> Error {
    let text = format!(
        "repository {repository}, which holds the history that came later (lineage {lineage}), cannot give it, and repository {} \
         holds what was left: {error}",
        chosen.repository.name()
    );
    let option = match until {
        RecoveryTarget::Time(time) => format!(" --to-time {time}"),
        _ => chosen.log.as_ref().map_or(String::new(), |log| {
            let point = plan::transaction_of(until).unwrap_or(log.end.transaction);
            format!(" {}", log_point::option(chosen.manifest.engine, point))
        }),
    };
    Error::new(error.code(), text).with_hint(format!(
        "`neo4j-backupctl restore {} {}{option}` gives the state of the history that was left",
        target.name, chosen.manifest.id
    ))
}

/// How far each repository of a target is known to reach: by the last run of the archive, and by bases.
fn ends(context: &Context, target: &Target) -> Result<Vec<LogEnd>> {
    let mut ends = context.ledger.log_ends(&target.name)?;
    ends.extend(context.ledger.log_bases(&target.name)?.into_iter().map(|base| LogEnd {
        chain: base.chain,
        transaction: base.mark.transaction,
        covered_until: base.created_at,
        number: base.number,
    }));
    ends.retain(|end| target.repositories.contains(&end.chain.repository));
    Ok(ends)
}

/// The farthest that any repository is known to reach.
fn farthest(context: &Context, target: &Target) -> Result<Option<LogEnd>> {
    let ends = ends(context, target)?.into_iter();
    Ok(ends.reduce(|end, other| if log_reach::is_later(&other, &end) { other } else { end }))
}

/// The same of the history that was chosen.
fn farthest_of(context: &Context, target: &Target, chosen: &Chosen) -> Result<Option<LogEnd>> {
    let Some(log) = &chosen.log else { return Ok(None) };
    let of_history =
        |end: &LogEnd| (&end.chain.stream, end.chain.lineage) == (&log.history.stream, log.history.lineage);
    Ok(ends(context, target)?.into_iter().filter(of_history).max_by_key(|end| end.transaction))
}

/// The repositories as they are configured; to the end of the log, the one that is known to reach farthest comes first.
pub(super) fn in_order<'a>(context: &Context, target: &'a Target, until: RecoveryTarget) -> Result<Vec<&'a str>> {
    let mut names: Vec<&str> = target.repositories.iter().map(String::as_str).collect();
    if let (RecoveryTarget::End, Some(end)) = (until, farthest(context, target)?) {
        names.sort_by_key(|name| *name != end.chain.repository);
    }
    Ok(names)
}

/// Whether a plan to the end leads to less than what is known to be archived. Another log than the one that is known may
/// have been begun since; where a repository failed, that is not certain (`unsure`).
fn falls_short(chosen: &Chosen, end: &LogEnd, unsure: bool) -> bool {
    let Some(log) = &chosen.log else { return unsure };
    match log.history.stream == end.chain.stream {
        true => (log.history.lineage, log.end.transaction) < (end.chain.lineage, end.transaction),
        false => unsure,
    }
}

fn only_less(target: &Target, chosen: &Chosen, end: &LogEnd, error: Option<&Error>) -> Error {
    let engine = chosen.manifest.engine;
    let reached = chosen.log.as_ref().map_or(0, |log| log.end.transaction);
    let why = error.map_or_else(|| "what leads there is damaged or missing".to_owned(), Error::to_string);
    let text = format!(
        "repository {}, which holds {}, cannot give it, and repository {} ends with {}: {why}",
        end.chain.repository,
        log_point::named(engine, end.transaction),
        chosen.repository.name(),
        log_point::named(engine, reached)
    );
    let code = error.map_or(Code::RestoreTargetUnreachable, Error::code);
    Error::new(code, text).with_hint(format!(
        "`neo4j-backupctl restore {} {} {}` gives that older state",
        target.name,
        chosen.manifest.id,
        log_point::option(engine, reached)
    ))
}

/// A restore in place to an earlier state leaves the end of its history behind. As long as nothing was archived since, that end is
/// still the newest there is, and nobody who does not name it wants it back: how a plan leads there, if it does.
pub(super) fn left_by_a_restore(context: &Context, target: &Target, chosen: &Chosen) -> Result<Option<Error>> {
    let Some(log) = &chosen.log else { return Ok(None) };
    let Some((_, last)) = records::last_in_place(context, &target.name)? else { return Ok(None) };
    let Some((reached, state)) = last.reached.and_then(|reached| reached.transaction.map(|state| (reached, state)))
    else {
        return Ok(None);
    };
    // Whatever was archived after it goes on from it. Of what the record does not know, as after its loss, the clock tells. (A base
    // begins at a whole second.)
    let own = ChainName {
        repository: chosen.repository.name().to_owned(),
        stream: log.history.stream.clone(),
        lineage: log.history.lineage,
    };
    let written = log.batches.iter().map(|batch| batch.created_at).chain([chosen.manifest.finished_at]).max();
    let since = !log_records::restored_since(context, &target.name, &own, written.unwrap_or(last.at))?;
    let (lineage, end) = (log.history.lineage, log.end.transaction);
    // Other data's was left as a whole.
    let left = reached.stream != log.history.stream || (lineage, end) > (reached.lineage, state);
    if since || !left {
        return Ok(None);
    }
    let engine = chosen.manifest.engine;
    let text = format!(
        "{} was restored in place to {} at {}, and nothing was archived since: the archive ends with {} of the history that was \
         left then",
        target.name,
        log_point::named(engine, state),
        last.at,
        log_point::named(engine, end)
    );
    let command = |id: &BackupId, point| {
        format!("`neo4j-backupctl restore {} {id} {}`", target.name, log_point::option(engine, point))
    };
    let restored = last.backup.as_ref().unwrap_or(&chosen.manifest.id);
    Ok(Some(Error::new(Code::RestoreTargetUnreachable, text).with_hint(format!(
        "{} gives the state that was restored, {} the one that was left; `neo4j-backupctl backup {}` makes what is in service \
         restorable",
        command(restored, state),
        command(&chosen.manifest.id, end),
        target.name
    ))))
}
