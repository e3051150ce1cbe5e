//! Targets that only the log itself can place: PostgreSQL's transactions, whose numbers are in no order, and restore
//! points. They are looked for in the archive, from its end backwards, and stand for the position where they are found.

use super::bases::Candidate;
use super::plan::{self, Base, History};
use crate::base::task::Task;
use crate::base::{Code, Error, Result};
use crate::driver::log::{LogSearch, RecoveryTarget};
use crate::operation::context::{Context, Target};
use crate::operation::log_object;
use crate::repository::catalog::Repository;

/// What a restore is aimed at.
pub(super) struct Aim {
    /// A target that says by itself where recovery ends.
    pub(super) until: RecoveryTarget,
    /// The history that it was found in: the same position of another one is another state. `None` = any.
    pub(super) history: Option<History>,
}

/// The target, or the position of what it names: the newest of that name, in the newest history that has it. Only what lies
/// after the oldest of `candidates` of a history can be restored, and no more is read.
///
/// Errors: `RESTORE_TARGET_UNREACHABLE` if it is not there, and those of reading batches.
pub(super) fn aim(
    context: &Context,
    target: &Target,
    repository: &Repository,
    candidates: &[Candidate],
    until: RecoveryTarget,
    task: &Task,
) -> Result<Aim> {
    let bases: Vec<Base> = candidates.iter().map(|candidate| candidate.base.clone()).collect();
    let mut searched: Vec<&History> = Vec::new();
    for index in plan::bases_for(&bases, RecoveryTarget::End) {
        let history = &bases[index].history;
        let Some(search) = target.driver.search_log(until)? else { break };
        if searched.contains(&history) {
            continue;
        }
        searched.push(history);
        let of_history = bases.iter().filter(|base| &base.history == history);
        let begin = of_history.map(|base| base.mark.transaction).min().unwrap_or(0);
        if let Some(until) = look(context, target, repository, (history, begin), search, task)? {
            return Ok(Aim { until, history: Some(history.clone()) });
        }
    }
    if searched.is_empty() {
        return Ok(Aim { until, history: None });
    }
    let text =
        format!("{} is not in the archived log of {} in repository {}", named(until), target.name, repository.name());
    Err(Error::new(Code::RestoreTargetUnreachable, text)
        .with_hint("`neo4j-backupctl status` says how far the log is archived; a time (`--to-time`) needs no name"))
}

fn look(
    context: &Context,
    target: &Target,
    repository: &Repository,
    (history, begin): (&History, u64),
    mut search: Box<dyn LogSearch>,
    task: &Task,
) -> Result<Option<RecoveryTarget>> {
    let keys = repository.batch_keys(&context.environment, &target.name, &history.stream, history.lineage)?;
    for (_, key) in keys.iter().rev() {
        task.check()?;
        let batch = repository.batch(key)?.batch;
        if batch.end.transaction <= begin {
            break;
        }
        search.begin(&batch)?;
        log_object::open(repository, target, &batch.object, &batch.segments, &mut search, task)?;
        if let Some(found) = search.end()? {
            let at = found.at.map_or(String::new(), |time| format!(", made at {time}"));
            task.info(format!("found in {}{at}", batch.object.key.file_name()));
            return Ok(Some(found.until));
        }
    }
    Ok(None)
}

fn named(until: RecoveryTarget) -> String {
    match until {
        RecoveryTarget::Transaction(number) | RecoveryTarget::BeforeTransaction(number) => {
            format!("the commit of transaction {number}")
        }
        RecoveryTarget::Point(name) => format!("a restore point {:?}", name.to_string()),
        other => format!("{other:?}"),
    }
}
