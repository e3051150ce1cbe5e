//! A private copy of the newest archived state, recovered and checked: what a dump is made of without touching the server.

use super::choose::choose;
use super::{fill, needed_bytes, place, refuse_unhealthy};
use crate::artifact::log_batch::LogMark;
use crate::base::ids::BackupId;
use crate::base::task::Task;
use crate::base::{Code, Error, Result};
use crate::driver::RestorePlace;
use crate::driver::restore_options::RestoreOptions;
use crate::operation::context::{Context, Target, Workspace};
use crate::operation::request::{Destination, RestoreRequest};

/// A copy; it is removed with the value.
pub(crate) struct Copy {
    /// Where it is.
    pub(crate) place: RestorePlace,
    /// The backup it began with.
    pub(crate) base: BackupId,
    /// Where it ends in the archived log.
    pub(crate) end: LogMark,
    _workspace: Workspace,
    _tools: Workspace,
}

/// Restores everything that is archived into a private directory, lets a scratch server recover it, and has it checked.
pub(crate) fn newest(context: &Context, target: &Target, task: &Task) -> Result<Copy> {
    let workspace = context.workspace(&format!("copy-{}", target.name))?;
    let tools = context.workspace(&format!("dump-{}", target.name))?;
    let directory = workspace.path().join("data");
    std::fs::create_dir(&directory).map_err(|cause| Error::io("making", &directory, cause))?;
    let request = RestoreRequest {
        target: target.name.clone(),
        backup: None,
        destination: Destination::Into(directory.clone()),
        until: None,
        no_recover: false,
        without_system: false,
        options: RestoreOptions::default(),
        dry_run: false,
    };
    let _lease = context.reading(&target.name, false)?;
    let chosen = choose(context, target, &request, task)?;
    place::check_room(workspace.path(), needed_bytes(&chosen))?;
    let owner = fill::owner(target, &chosen, task)?;
    if let Some(owner) = &owner {
        context.host.give(workspace.path(), owner)?;
        context.host.give(tools.path(), owner)?;
    }
    task.info(format!("restoring a private copy from {}", chosen.manifest.id));
    let filled = fill::fill(context, target, &chosen, &directory, &request, task)?;
    refuse_unhealthy(&filled.checks)?;
    let base_end = chosen.manifest.position.as_ref().and_then(|position| position.mark.clone());
    let Some(end) = filled.end.or(base_end) else {
        let text = format!("{} names no point of the log: what is made of it could not be placed", chosen.manifest.id);
        return Err(Error::new(Code::NotAvailable, text));
    };
    let place = RestorePlace {
        directory,
        workspace: tools.path().to_owned(),
        owner,
        without_system: false,
        histories: Vec::new(),
        immediate: false,
        options: RestoreOptions::default(),
        branches: Vec::new(),
    };
    Ok(Copy { place, base: chosen.manifest.id, end, _workspace: workspace, _tools: tools })
}
