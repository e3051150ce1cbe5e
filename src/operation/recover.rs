//! After a start: whatever an agent that was killed left behind is finished, undone or removed, and said.
//!
//! The order matters. Programs of the dead agent end first; then swaps are settled, so that the right data is in
//! place; then servers that had been stopped are started on it; then staging is cleared and jobs are marked.

use crate::base::Result;
use crate::base::atomic_file;
use crate::base::process::LocalLauncher;
use crate::base::task::Task;
use crate::operation::context::{Context, Lane};
use crate::operation::{archive, records, rescan, restore, unfinished};

/// Recovers; returns a line for everything that was found. Called by whoever holds the state directory alone.
pub fn run(context: &Context, leftovers: &LocalLauncher, task: &Task) -> Result<Vec<String>> {
    let mut lines = Vec::new();
    lines.extend(leftovers.sweep().into_iter().map(|name| format!("ended {name}, left running by an earlier agent")));
    let service_of = |name: &_| context.targets.get(name).map(|target| target.service.clone());
    let recovery = context.host.recover(&service_of, task)?;
    lines.extend(
        recovery
            .rolled_back
            .iter()
            .map(|id| format!("undid the exchange of restore {id}: the earlier data is in service")),
    );
    for id in &recovery.rolled_back {
        records::restore_undone(context, id)?;
    }
    lines.extend(
        recovery.restarted.iter().map(|name| format!("started the server of {name}, stopped by a job that was killed")),
    );
    lines.extend(restore::staging::recover(context, task));
    lines.extend(clear_scratch(context));
    sweep_temporaries(context, task);
    lines.extend(settle_backups(context, task));
    lines.extend(rebuild_ledger(context, task)?);
    for job in records::interrupt_jobs(context)? {
        let target = job.target.as_ref().map(|name| format!(" {name}")).unwrap_or_default();
        lines.push(format!("job {} ({}{target}) was interrupted: the agent ended under it", job.id, job.verb));
    }
    Ok(lines)
}

/// Halves of small files that were being written when the agent ended.
fn sweep_temporaries(context: &Context, task: &Task) {
    let entries = std::fs::read_dir(&context.state_directory).into_iter().flatten().flatten();
    let below = entries.map(|entry| entry.path()).filter(|path| path.is_dir());
    for directory in below.chain([context.state_directory.clone()]) {
        if let Err(error) = atomic_file::sweep(&directory) {
            task.warn(format!("leftovers could not be removed: {error}"));
        }
    }
}

/// A ledger that knows of no backup may have been lost; what the repositories hold is entered again.
fn rebuild_ledger(context: &Context, task: &Task) -> Result<Option<String>> {
    if !records::is_empty(context)? {
        return Ok(None);
    }
    match rescan::run(context, &Task::unobserved()) {
        Ok(report) if report.found > 0 => {
            Ok(Some(format!("the ledger knew of no backup; {} were found in the repositories", report.found)))
        }
        Ok(_) => Ok(None),
        Err(error) => {
            task.warn(format!("the ledger knows of no backup, and the repositories cannot be read: {error}"));
            Ok(None)
        }
    }
}

fn clear_scratch(context: &Context) -> Vec<String> {
    let directory = context.state_directory.join("scratch");
    let mut lines = Vec::new();
    for entry in std::fs::read_dir(&directory).into_iter().flatten().flatten() {
        if std::fs::remove_dir_all(entry.path()).is_ok() {
            lines.push(format!("removed {}", entry.path().display()));
        }
    }
    lines
}

/// What killed backups left in the repositories, target by target. A lane that is busy (a `run` beside us) is left
/// alone: its own next run settles it.
fn settle_backups(context: &Context, task: &Task) -> Vec<String> {
    let mut lines = Vec::new();
    for target in context.targets.values() {
        let of_log = match context.lane(&target.name, Lane::Log) {
            Ok(lane) => archive::leftover::settle(context, target, &lane, task),
            Err(_) => 0,
        };
        let of_backups = match context.lane(&target.name, Lane::Base) {
            Ok(lane) => unfinished::settle(context, target, &lane, task),
            Err(_) => 0,
        };
        match of_log + of_backups {
            0 => {}
            count => lines.push(format!("removed {count} unfinished objects from the repositories of {}", target.name)),
        }
    }
    lines
}
