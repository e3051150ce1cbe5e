//! A restore in place: filled and checked aside on the same filesystem, then exchanged for the data in service.
//!
//! The server is stopped only for the exchange itself. The earlier data is set aside, not deleted; if the server does
//! not come up healthy on the new data, the exchange is undone and the old data is in service again.

use super::choose::Chosen;
use super::staging::{AREA_PREFIX, FILLED, SET_ASIDE};
use super::{fill, needed_bytes, place, refuse_unhealthy, staging};
use crate::base::atomic_file;
use crate::base::process::{LocalLauncher, OsUser, Tool, run as run_tool};
use crate::base::space;
use crate::base::task::Task;
use crate::base::{Code, Error, Result};
use crate::driver::{HealthCheck, LivePath};
use crate::host::{Exchange, Service, SwapPlan, is_mount_point, share_mount};
use crate::operation::answer::RestoreReport;
use crate::operation::backup::stopped_server::{READY_TIMEOUT, StoppedServer};
use crate::operation::context::{Context, Target};
use crate::operation::request::RestoreRequest;
use crate::operation::{adopt, records};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// Restores over the data in service.
pub(super) fn run(
    context: &Context,
    target: &Target,
    chosen: &Chosen,
    request: &RestoreRequest,
    report: &mut RestoreReport,
    task: &Task,
) -> Result<()> {
    let live = live_paths(target, request, task)?;
    let running = target.driver.is_running(task)?;
    if running {
        target.driver.check_in_place(task)?;
    }
    if running && target.service == Service::Unmanaged {
        let text =
            format!("the server of {} is running and the configuration does not say how to stop it", target.name);
        return Err(Error::new(Code::RestoreServerRunning, text)
            .with_hint("stop it yourself, or set `unit` (or `stop_command` and `start_command`) of the target"));
    }
    let area = area_of(&live[0])?.join(format!("{AREA_PREFIX}{}", report.restore));
    report.directory = live[0].live.clone();
    place::check_room(&area, needed_bytes(chosen))?;
    report.steps.push(format!("fill and check {}", area.join(FILLED).display()));
    report.steps.push(
        "stop the server, set the current data aside, put the new data in its place, start the server".to_owned(),
    );
    for path in &live {
        report.steps.push(format!(
            "{} moves below {}",
            path.live.display(),
            set_aside_of(path, &area, &report.restore)?.display()
        ));
    }
    if request.dry_run {
        return Ok(());
    }

    let filled = area.join(FILLED);
    let claimed = staging::claim(context, &report.restore, &filled)?;
    fill::fill(context, target, chosen, &filled, request, task)?.tell(report);
    refuse_unhealthy(&report.checks)?;
    let (plan, mut claims) = plan_swap(context, target, report, &live, &area, task)?;
    claims.push(claimed);
    report.set_aside = plan.exchanges.iter().filter(|e| e.live.exists()).map(|e| e.set_aside.clone()).collect();
    // The archive holds files of the log open against pruning; no lane of ours reads them now.
    if let Some(log) = target.driver.log() {
        log.release();
    }
    exchange(context, target, &plan, &mut claims, chosen, report, running, task)?;
    claims.into_iter().for_each(staging::Claim::clear);
    Ok(())
}

fn live_paths(target: &Target, request: &RestoreRequest, task: &Task) -> Result<Vec<LivePath>> {
    let mut live = target.driver.live_paths(task)?;
    if request.without_system {
        live.retain(|path| path.staged.file_name().is_none_or(|name| name != "system"));
    }
    if live.is_empty() {
        return Err(Error::new(Code::Internal, format!("{} names no directory in service", target.name)));
    }
    refuse_mounted(&live)?;
    Ok(live)
}

/// Where staging and set-aside data of a live path lie: on its filesystem, outside of what the server looks at as far as
/// that goes.
pub(crate) fn area_of(path: &LivePath) -> Result<PathBuf> {
    let depth = path.staged.components().count();
    let beside = path.live.parent();
    let missing = || Error::new(Code::RestoreFailed, format!("there is no place beside {}", path.live.display()));
    if depth == 0 {
        // The data directory itself: beside it, or inside if it is a mount point of its own.
        let inside = is_mount_point(&path.live).then_some(path.live.as_path());
        return inside.or(beside).map(Path::to_owned).ok_or_else(missing);
    }
    // Up to where the copy begins, or to where its filesystem does.
    let beside = beside.ok_or_else(missing)?;
    let up = path.live.ancestors().skip(1).take(depth);
    let area = up.take_while(|place| share_mount(place, beside).unwrap_or(false)).last();
    Ok(area.unwrap_or(beside).to_owned())
}

/// What the exchange could not do is said before the server is stopped: the directory of one database that is a
/// filesystem of its own, since nothing can be set aside beside it and inside the server would see it; and a link.
fn refuse_mounted(live: &[LivePath]) -> Result<()> {
    for path in live {
        let shown = path.live.display();
        let inside = !path.staged.as_os_str().is_empty();
        let (why, instead) = if path.live.is_symlink() {
            (
                format!("{shown} is a symbolic link, and cannot be exchanged"),
                "mount what it leads to there, or name it in the configuration",
            )
        } else if inside && is_mount_point(&path.live) {
            let text = format!(
                "{shown} lies on another filesystem than the directory it is in, and cannot be exchanged there"
            );
            (text, "mount the directory above it")
        } else {
            continue;
        };
        return Err(Error::new(Code::NotAvailable, why).with_hint(format!(
            "{instead}, or restore with `--into DIR`, stop the server and move the files by hand"
        )));
    }
    Ok(())
}

fn set_aside_of(path: &LivePath, area: &Path, restore: &str) -> Result<PathBuf> {
    let own_area = match share_mount(&path.live, area)? {
        true => area.to_owned(),
        false => area_of(path)?.join(format!("{AREA_PREFIX}{restore}")),
    };
    Ok(own_area.join(SET_ASIDE).join(member_of(path)))
}

/// What the earlier data of a live path is called among what was set aside.
pub(crate) fn member_of(path: &LivePath) -> &Path {
    if path.staged.as_os_str().is_empty() { Path::new("data") } else { &path.staged }
}

/// The exchanges. Where a live path lies on another filesystem than the staging area, its successor is copied there
/// first: the exchange itself only renames. The claims keep those copies on record.
fn plan_swap(
    context: &Context,
    target: &Target,
    report: &RestoreReport,
    live: &[LivePath],
    area: &Path,
    task: &Task,
) -> Result<(SwapPlan, Vec<staging::Claim>)> {
    let mut exchanges = Vec::new();
    let mut relocated = Vec::new();
    for path in live {
        let mut staged = area.join(FILLED).join(&path.staged);
        if !staged.exists() {
            continue;
        }
        if !share_mount(&path.live, area)? {
            let other = area_of(path)?.join(format!("{AREA_PREFIX}{}", report.restore)).join(FILLED).join(&path.staged);
            place::check_room(&other, space::tree_bytes(&staged))?;
            relocated.push(staging::claim(context, &report.restore, &other)?);
            copy_tree(&staged, &other, task)?;
            staged = other;
        }
        let set_aside = set_aside_of(path, area, &report.restore)?;
        exchanges.push(Exchange { live: path.live.clone(), staged, set_aside });
    }
    Ok((SwapPlan { id: report.restore.clone(), target: target.name.clone(), exchanges }, relocated))
}

fn copy_tree(from: &Path, to: &Path, task: &Task) -> Result<()> {
    let launcher = LocalLauncher::default();
    let copy = Tool::new("cp").args(["--archive", "--no-target-directory", "--"]).arg(from).arg(to);
    run_tool(&launcher, &copy, task)?.expect_success(Code::RestoreFailed, "copying to the other filesystem")?;
    let sync = Tool::new("sync").args(["--file-system", "--"]).arg(to);
    run_tool(&launcher, &sync, task)?.expect_success(Code::RestoreFailed, "flushing the other filesystem").map(|_| ())
}

/// Stops, exchanges, starts, looks; undoes it all if the look disappoints.
#[allow(clippy::too_many_arguments)]
fn exchange(
    context: &Context,
    target: &Target,
    plan: &SwapPlan,
    claims: &mut [staging::Claim],
    chosen: &Chosen,
    report: &mut RestoreReport,
    running: bool,
    task: &Task,
) -> Result<()> {
    task.check()?;
    task.phase("exchanging", 0);
    // From here on a cancel would only leave the server stopped for longer.
    let task = &task.shielded();
    let stopped = stop_if_needed(context, target, task)?;
    if target.driver.is_running(task)? {
        let text = format!("the server of {} still runs after it was stopped", target.name);
        return Err(Error::new(Code::RestoreServerRunning, text));
    }
    for exchange in &plan.exchanges {
        make_parents(context, &exchange.set_aside, &exchange.staged)?;
        // After a loss of the whole disk nothing above the data is there either.
        make_parents(context, &exchange.live, &exchange.staged)?;
    }
    context.host.swap(plan, task)?;
    // Clients may write from the start on, whatever becomes of the exchange.
    if let Err(error) = claims.iter_mut().try_for_each(|claim| serve(claim, plan)) {
        context.host.undo_swap(plan, task)?;
        return Err(error.context("the exchange was taken back"));
    }
    let healthy = start(context, target, stopped, task).and_then(|started| match started {
        true => look(target, chosen, report, task),
        false => Ok(()),
    });
    // On record before the journal goes: what is archived from here on is explained by it.
    let stands = healthy.and_then(|()| {
        let recorded = records::set_aside(context, target, report);
        recorded.map_err(|error| error.context("putting the exchange on record"))
    });
    if let Err(error) = stands {
        task.warn(format!("the new data is taken out of service again: {error}"));
        let undone = undo(context, target, plan, task);
        // What failed to be recorded may be on record all the same.
        let _ = records::restore_undone(context, &report.restore);
        report.set_aside.clear();
        return Err(taken_back(error, undone, plan));
    }
    context.host.swap_done(plan)?;
    if target.driver.log().is_some() {
        adopt::after_restore(context, target, &chosen.manifest.owner.data_identity, task);
    }
    if !running && target.service == Service::Unmanaged {
        task.info(format!("the data is in place; start the server of {} yourself", target.name));
    }
    Ok(())
}

/// What is filled in at a claim goes, if it comes back, where the data would be that it takes the place of.
fn serve(claim: &mut staging::Claim, plan: &SwapPlan) -> Result<()> {
    let filled = claim.directory().to_owned();
    let within = plan.exchanges.iter().find_map(|e| Some((e, e.staged.strip_prefix(&filled).ok()?)));
    let aside = within.and_then(|(exchange, rest)| exchange.set_aside.ancestors().nth(rest.components().count()));
    aside.map_or(Ok(()), |aside| claim.serve(aside.to_owned()))
}

/// Why the new data is not in service, and where everything is.
fn taken_back(error: Error, undone: Result<Result<()>>, plan: &SwapPlan) -> Error {
    let kept = plan.exchanges.first().map_or(Path::new(""), |exchange| exchange.set_aside.as_path());
    let kept = kept.ancestors().find(|path| path.ends_with(SET_ASIDE)).unwrap_or(kept).display();
    let after = match undone {
        Ok(Ok(())) => "the earlier data is in service again".to_owned(),
        Err(also) => {
            return error.recode(Code::SwapFailed).context(format!("taking the exchange back failed ({also})"));
        }
        Ok(Err(also)) => format!("the earlier data is put back, and its server does not answer yet ({also})"),
    };
    let text = format!("{after}; what was in service meanwhile, and may have been written to, is kept in {kept}");
    match error.code() {
        // Nothing is wrong with the data.
        Code::BackupNoSpace | Code::LedgerFailed => error.context(text),
        _ => error.recode(Code::RestoreHealthFailed).context(text),
    }
}

/// Makes the directories above `path` that are missing, owned like the restored data.
fn make_parents(context: &Context, path: &Path, staged: &Path) -> Result<()> {
    let Some(parent) = path.parent().filter(|parent| !parent.exists()) else { return Ok(()) };
    let missing: Vec<&Path> = parent.ancestors().take_while(|ancestor| !ancestor.exists()).collect();
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o750)
        .create(parent)
        .map_err(|c| Error::io("making", parent, c))?;
    let owner = OsUser::owner_of(staged)?;
    if let Some(topmost) = missing.last()
        && !owner.is_current()
    {
        context.host.give(topmost, &owner)?;
    }
    missing.iter().try_for_each(|directory| atomic_file::sync_parent(directory))
}

/// Stops the server where it runs. A unit is stopped in any case: systemd may be about to restart it.
fn stop_if_needed<'a>(context: &'a Context, target: &'a Target, task: &Task) -> Result<Option<StoppedServer<'a>>> {
    let needed = match target.service {
        Service::Unit(_) => true,
        Service::Commands { .. } => target.driver.is_running(task)?,
        Service::Unmanaged => false,
    };
    needed.then(|| StoppedServer::stop(&*context.host, target, task)).transpose()
}

/// Starts the server, whether it was us who stopped it or it did not run before; `false` if nobody said how.
fn start(context: &Context, target: &Target, stopped: Option<StoppedServer<'_>>, task: &Task) -> Result<bool> {
    match (stopped, &target.service) {
        (Some(stopped), _) => stopped.start().map(|_| true),
        (None, Service::Unmanaged) => Ok(false),
        (None, _) => {
            context.host.start(&target.name, &target.service, task)?;
            target.driver.wait_ready(READY_TIMEOUT, task).map(|()| true)
        }
    }
}

/// What the server in service says of the new data. Clients may be writing to it already, so its counts prove nothing
/// any more; they were compared in the scratch server.
fn look(target: &Target, chosen: &Chosen, report: &mut RestoreReport, task: &Task) -> Result<()> {
    let census = target.driver.census(task)?;
    let check = match &census.statistics.remark {
        Some(remark) if census.statistics.counts.is_empty() => HealthCheck::skipped("in_service", remark.clone()),
        _ => {
            let mut recorded = chosen.manifest.statistics.clone();
            recorded.exact = false;
            // What was replayed may have changed the schema; the scratch server has looked at the whole of it.
            let replayed = chosen.log.is_some();
            let differences = if replayed { Vec::new() } else { recorded.differences(&census.statistics) };
            HealthCheck::of(
                "in_service",
                differences.is_empty(),
                match differences.is_empty() {
                    true if replayed => "the server in service answers".to_owned(),
                    true => "the server in service answers and has the schema that was backed up".to_owned(),
                    false => differences.join("; "),
                },
            )
        }
    };
    report.checks.push(check);
    refuse_unhealthy(&report.checks)
}

/// Puts the earlier data back; within, whether its server came up again.
fn undo(context: &Context, target: &Target, plan: &SwapPlan, task: &Task) -> Result<Result<()>> {
    let stopped = stop_if_needed(context, target, task)?;
    context.host.undo_swap(plan, task)?;
    plan.exchanges.iter().for_each(|exchange| staging::remove_area_above(&exchange.set_aside));
    Ok(start(context, target, stopped, task).map(|_| ()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_in_the_place_of_a_database_is_refused_before_anything_is_stopped() {
        let place = tempfile::tempdir().expect("tempdir");
        let (real, link) = (place.path().join("real"), place.path().join("neo4j"));
        std::fs::create_dir(&real).expect("directory");
        std::os::unix::fs::symlink(&real, &link).expect("link");
        let refused = |live: &Path| {
            refuse_mounted(&[LivePath { live: live.to_owned(), staged: PathBuf::from("databases/neo4j") }])
        };
        assert_eq!(refused(&link).map_err(|error| error.code()), Err(Code::NotAvailable));
        refused(&real).expect("a directory");
        refused(&place.path().join("not there")).expect("nothing");
    }

    fn area(live: &str, staged: &str) -> PathBuf {
        area_of(&LivePath { live: PathBuf::from(live), staged: PathBuf::from(staged) }).expect("a place")
    }

    #[test]
    fn what_is_set_aside_stays_on_its_filesystem_and_out_of_sight() {
        assert_eq!(area("/usr/data/databases/neo4j", "databases/neo4j"), Path::new("/usr/data"));
        assert_eq!(area("/usr/postgresql/15/main", ""), Path::new("/usr/postgresql/15"));
        // A log on a disk of its own, mounted where the server keeps a directory for each database.
        let (shm, root) = (Path::new("/dev/shm"), Path::new("/"));
        if !share_mount(shm, root).expect("examined") {
            assert_eq!(area("/dev/shm/neo4j", "transactions/neo4j"), shm);
            assert_eq!(area("/dev/shm/data/transactions/neo4j", "transactions/neo4j"), Path::new("/dev/shm/data"));
            assert_eq!(area("/dev/shm", ""), shm);
            let mounted = [LivePath { live: shm.to_owned(), staged: PathBuf::from("transactions/shm") }];
            assert_eq!(refuse_mounted(&mounted).map_err(|error| error.code()), Err(Code::NotAvailable));
        }
    }
}
