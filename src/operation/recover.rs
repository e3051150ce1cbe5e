//! After a start: whatever an agent that was killed left behind is finished, undone or removed, and said.
//!
//! The order matters. Programs of the dead agent end first; then swaps are settled, so that the right data is in
//! place; then servers that had been stopped are started on it; then staging is cleared and jobs are marked.

use crate::base::Result;
use crate::base::process::LocalLauncher;
use crate::base::task::Task;
use crate::operation::context::{Context, Lane};
use crate::operation::{debris, records, restore};

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
    lines.extend(recovery.rolled_forward.iter().map(|id| format!("finished the exchange of restore {id}")));
    lines.extend(
        recovery.restarted.iter().map(|name| format!("started the server of {name}, stopped by a job that was killed")),
    );
    lines.extend(restore::staging::recover(context, task));
    lines.extend(clear_scratch(context));
    lines.extend(sweep_repositories(context, task));
    for job in records::interrupt_jobs(context)? {
        let target = job.target.as_ref().map(|name| format!(" {name}")).unwrap_or_default();
        lines.push(format!("job {} ({}{target}) was interrupted: the agent ended under it", job.id, job.verb));
    }
    Ok(lines)
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

/// Objects without a manifest and unfinished files of this host, target by target. A lane that is busy (a `run` beside
/// us) is left alone: its own next run sweeps.
fn sweep_repositories(context: &Context, task: &Task) -> Vec<String> {
    let mut lines = Vec::new();
    for target in context.targets.values() {
        let Ok(lane) = context.lane(&target.name, Lane::Base) else { continue };
        for name in &target.repositories {
            let Ok(repository) = context.repository(target, name) else { continue };
            match debris::remove(context, target, &repository, &lane) {
                Ok(0) => {}
                Ok(count) => lines.push(format!("removed {count} unfinished objects of {} from {name}", target.name)),
                Err(error) => task.warn(format!("leftovers in {name} could not be removed: {error}")),
            }
        }
    }
    lines
}
