//! `backup`: preflight, stop where a cold copy needs it, volumes into every repository, start, read back, manifest last.
//!
//! The order is the promise: an object is durable before the manifest that names it is written, the manifest is
//! written after everything was opened once and read back, and the ledger learns of it last.

mod config_archive;
mod manifest;
pub(crate) mod objects;
pub(crate) mod preparation;
pub(crate) mod read_back;
pub(crate) mod stopped_server;

pub(crate) use manifest::{FACT_OS_USER, FACT_SOURCE_BYTES};

use crate::artifact::manifest::{Content, Manifest, ObjectRecord, Role, SignedManifest};
use crate::artifact::statistics::Statistics;
use crate::base::clock::Stopwatch;
use crate::base::ids::{BackupId, BackupKind};
use crate::base::lock::once_free;
use crate::base::task::{Severity, Task};
use crate::base::{Code, Error, Result, bytes};
use crate::driver::{Census, FullReport, Source};
use crate::operation::answer::BackupReport;
use crate::operation::context::{Context, Lane, Target};
use crate::operation::records::Happening;
use crate::operation::request::{ArchiveRequest, BackupRequest};
use crate::operation::{archive, records, restore, unfinished};
use objects::{Branch, LANES_AT_ONCE, Outline, Shape, require_survivor, write_object, write_volumes};
use preparation::Prepared;
use read_back::read_back;
use std::time::Duration;
use stopped_server::StoppedServer;

/// How long a dump waits for whoever archives the log, and how often it looks.
const ARCHIVE_PATIENCE: Duration = Duration::from_secs(600);
const ARCHIVE_INTERVAL: Duration = Duration::from_millis(50);

/// What was read from the database, before the manifest is made of it.
struct Taken {
    objects: Vec<ObjectRecord>,
    report: FullReport,
    census: Census,
    downtime: Duration,
}

/// Takes a full backup of a target.
///
/// Errors: `BUSY`, `BACKUP_NO_SPACE`, `OWNER_CONFLICT`, the driver's own, `BACKUP_PARTIAL` if it is complete in some
/// repositories only. Whatever the error, the server runs again and nothing unfinished is left in a repository.
pub fn run(context: &Context, request: &BackupRequest, task: &Task) -> Result<BackupReport> {
    run_into(context, request, &context.target(&request.target)?.repositories, task)
}

/// [`run`] into some of the target's repositories only.
pub(crate) fn run_into(
    context: &Context,
    request: &BackupRequest,
    repositories: &[String],
    task: &Task,
) -> Result<BackupReport> {
    let watch = Stopwatch::start();
    let target = context.target(&request.target)?;
    let kind = request.kind.unwrap_or_else(|| target.driver.default_kind());
    let of_a_copy = is_made_of_a_copy(target, kind, task)?;
    if of_a_copy && !request.dry_run {
        target.driver.check_tools(kind, task)?;
        bring_up_to_date(context, target, task)?;
    }
    let lane = context.lane(&target.name, Lane::Base)?;
    task.phase("preflight", 0);
    let source = target.driver.inspect(task).map_err(|error| error.context(format!("examining {}", target.name)))?;
    target.driver.check_tools(kind, task)?;
    if request.dry_run {
        return preparation::rehearse(context, target, &source, kind, of_a_copy);
    }

    let Prepared { branches, left_out, id } =
        preparation::prepare(context, target, &source, kind, repositories, &lane, task)?;
    let shape = Shape::of(target, &source, &context.environment, &id)?;
    let taken = match of_a_copy {
        true => take_of_copy(context, target, &shape, &branches, task),
        false => take(context, target, &shape, &branches, &source, task),
    };
    let outcome =
        taken.and_then(|taken| finish(context, target, request, &source, &shape, &branches, taken, watch, task));
    let failures: Vec<Error> = left_out.into_iter().chain(branches.iter().filter_map(Branch::take_failure)).collect();
    let conflicts = |error: &Error| error.code() == Code::ObjectConflict;
    if outcome.is_ok() && failures.is_empty() {
        // Each repository's record went with its manifest.
    } else if outcome.as_ref().err().is_some_and(conflicts) || failures.iter().any(conflicts) {
        // Another agent writes under the same id: what is there may be its own.
        task.warn(format!("objects of {id} were left where they are: another agent may be writing them"));
        for branch in &branches {
            unfinished::complete(context, &id, branch.repository.name())?;
        }
    } else {
        drop(branches);
        unfinished::settle(context, target, &lane, &task.shielded());
    }
    let (signed, complete) = outcome?;
    report(failures, signed, complete)
}

/// Whether a dump is made of a private copy of what is archived, so that the server need not stop: unless it is down
/// already, or the configuration has it stopped for dumps.
fn is_made_of_a_copy(target: &Target, kind: BackupKind, task: &Task) -> Result<bool> {
    let driver = &target.driver;
    let may = kind == BackupKind::Dump && driver.default_kind() != BackupKind::Dump && driver.log().is_some();
    Ok(may && driver.needs_stop(kind) && driver.is_running(task)?)
}

/// Archives what was committed since; takes the first base where there is none. What ships the log between the timers
/// is at it for a moment only, and is waited for.
fn bring_up_to_date(context: &Context, target: &Target, task: &Task) -> Result<()> {
    let request = ArchiveRequest { target: target.name.clone(), dry_run: false };
    let waiting = || task.phase("waiting for whoever archives the log", 0);
    match once_free((ARCHIVE_PATIENCE, ARCHIVE_INTERVAL), task, waiting, || archive::run(context, &request, task)) {
        Ok(_) => Ok(()),
        // One repository that has everything is enough to make the copy of.
        Err(error) if error.code() == Code::BackupPartial => {
            task.warn(error.to_string());
            Ok(())
        }
        Err(error) => Err(error.context("archiving what the dump is to hold")),
    }
}

/// A dump of a private copy: the newest archived state, restored, recovered and checked.
fn take_of_copy(
    context: &Context,
    target: &Target,
    shape: &Shape<'_>,
    branches: &[Branch],
    task: &Task,
) -> Result<Taken> {
    let copy = restore::copy::newest(context, target, task)?;
    task.phase("backing up", 0);
    let mut full = target.driver.begin_dump_of_copy(&copy.place, &copy.end, task)?;
    let objects = write_volumes(shape, full.take_volumes(), branches, LANES_AT_ONCE, task)?;
    let mut report = full.finish(task)?;
    task.info(format!("made of {} and the log up to transaction {}", copy.base, copy.end.transaction));
    let statistics = report.statistics.take().unwrap_or_else(|| Statistics::not_checked("a copy was not counted"));
    Ok(Taken { objects, report, census: Census { statistics, mark: None }, downtime: Duration::ZERO })
}

fn take(
    context: &Context,
    target: &Target,
    shape: &Shape<'_>,
    branches: &[Branch],
    source: &Source,
    task: &Task,
) -> Result<Taken> {
    let driver = &target.driver;
    let workspace = context.workspace(&shape.id.to_string())?;
    let before = match driver.counts_by_itself(shape.id.kind) {
        true => Census { statistics: Statistics::default(), mark: None },
        false => driver.census(task)?,
    };
    let stopped = match driver.needs_stop(shape.id.kind) && driver.is_running(task)? {
        true => Some(StoppedServer::stop(&*context.host, target, task)?),
        false => None,
    };
    let was_running = stopped.is_some() || !driver.needs_stop(shape.id.kind);
    task.phase("backing up", source.estimated_bytes);
    let mut full = driver.begin_full(shape.id.kind, workspace.path(), task)?;
    let objects = write_volumes(shape, full.take_volumes(), branches, LANES_AT_ONCE, task)?;
    let mut report = full.finish(task)?;
    let downtime = match stopped {
        Some(stopped) => stopped.start()?,
        None => Duration::ZERO,
    };
    let census = match report.statistics.take() {
        Some(statistics) => Census { statistics, mark: None },
        None => {
            let mut census = settle_census(before, if was_running { driver.census_mark(task)? } else { None });
            if was_running && !census.statistics.exact {
                census.statistics.keep_schema_of(&driver.schema(task)?);
            }
            census
        }
    };
    report.warnings.extend(census.statistics.unusable.iter().map(|line| {
        format!("{line} cannot be used in the source, which could not build it; a restored copy has it as it is")
    }));
    Ok(Taken { objects, report, census, downtime })
}

/// Counts hold for the backup's very moment only if nothing was written from the counting until after that moment.
fn settle_census(before: Census, after_mark: Option<String>) -> Census {
    let mut census = before;
    census.statistics.exact =
        !census.statistics.counts.is_empty() && census.mark.is_some() && census.mark == after_mark;
    if !census.statistics.exact && census.statistics.remark.is_none() {
        census.statistics.remark = Some("the database was written to while it was backed up".to_owned());
    }
    census
}

#[allow(clippy::too_many_arguments)]
fn finish(
    context: &Context,
    target: &Target,
    request: &BackupRequest,
    source: &Source,
    shape: &Shape<'_>,
    branches: &[Branch],
    mut taken: Taken,
    watch: Stopwatch,
    task: &Task,
) -> Result<(SignedManifest, Vec<String>)> {
    let files = target.driver.outside_files(task)?;
    let (archive, warnings) = config_archive::build(source, &files, &context.own_files, task)?;
    taken.report.warnings.extend(warnings);
    let outline = Outline {
        name: "config".to_owned(),
        role: Role::Config,
        content: Content::Tar,
        lane: 0,
        extension: "config.tar".to_owned(),
        striped: false,
        compressed: false,
        hash_plain: true,
    };
    let stored: u64 = taken.objects.iter().map(|record| record.stored.size).sum();
    task.phase("reading back", stored * branches.iter().filter(|branch| branch.is_alive()).count() as u64);
    // Side by side: deriving the key of so small an object takes longer than all else about it.
    let (record, checked) = std::thread::scope(|scope| {
        let config = scope
            .spawn(|| write_object(&shape.sealing, &shape.stem, &outline, branches, &archive[..], |_| Ok(()), task));
        let checked = read_back(&taken.objects, branches, task);
        (config.join(), checked)
    });
    checked?;
    let panicked = |_| Error::new(Code::Internal, "writing the archive of the configuration panicked");
    let record = record.map_err(panicked)??;
    read_back(std::slice::from_ref(&record), branches, task)?;
    taken.objects.push(record);
    if let Some(remark) = &taken.census.statistics.remark {
        task.warn(format!("counts: {remark}"));
    }

    task.phase("signing", 0);
    let template = manifest::compose(context, target, request, source, shape.id, taken, watch.elapsed());
    let mut last = None;
    let mut complete = Vec::new();
    for branch in branches.iter().filter(|branch| branch.is_alive()) {
        // From here on a cancel comes too late: the next repository either gets its manifest or an error.
        match manifest::commit(context, target, branch, &template) {
            Ok(signed) => {
                records::backup_made(context, branch.repository.name(), &signed)?;
                unfinished::complete(context, shape.id, branch.repository.name())?;
                complete.push(branch.repository.name().to_owned());
                last = Some(signed);
            }
            Err(error) => branch.fail(error),
        }
    }
    require_survivor(branches)?;
    tell_of_damage(context, target, &template)?;
    let signed = last.ok_or_else(|| Error::new(Code::Internal, "no repository took the manifest"))?;
    Ok((signed, complete))
}

/// A backup of damaged files is better than none, but nobody may take it for a good one.
fn tell_of_damage(context: &Context, target: &Target, manifest: &Manifest) -> Result<()> {
    let Some(first) = manifest.suspect.first() else { return Ok(()) };
    let text = format!(
        "{} was taken of damaged files ({} of them, first {first}); cleanup deletes nothing of {} while it is there",
        manifest.id,
        manifest.suspect.len(),
        target.name
    );
    let (name, actor) = ("backup-suspect", "neo4j-backupd");
    let target = Some(&target.name);
    records::event(context, Happening { severity: Severity::Error, name, target, job: None, actor, text: &text })
}

fn report(failures: Vec<Error>, signed: SignedManifest, complete: Vec<String>) -> Result<BackupReport> {
    let manifest = signed.manifest;
    if !failures.is_empty() {
        let text: Vec<_> = failures.iter().map(Error::to_string).collect();
        return Err(Error::new(
            Code::BackupPartial,
            format!("{} is complete in {}, but not everywhere: {}", manifest.id, complete.join(", "), text.join("; ")),
        ));
    }
    Ok(BackupReport {
        plain_bytes: manifest.plain_bytes(),
        stored_bytes: manifest.stored_bytes(),
        method: method_of(&manifest.id, manifest.engine.as_str()),
        id: manifest.id,
        dry_run: false,
        repositories: complete,
        server_version: manifest.server.version,
        sha256: manifest.sha256,
        counts: manifest.statistics.counts.into_iter().collect(),
        counts_exact: manifest.statistics.exact,
        duration_ms: manifest.duration_ms,
        downtime_ms: manifest.downtime_ms,
        warnings: manifest.warnings,
        steps: Vec::new(),
    })
}

/// What ran, as B4 wants to read it.
fn method_of(id: &BackupId, engine: &str) -> String {
    match (engine, id.kind.as_str()) {
        ("neo4j", "enterprise") => "neo4j-admin database backup".to_owned(),
        ("neo4j", "dump") => "neo4j-admin database dump".to_owned(),
        (engine, kind) => format!("{engine} {kind}"),
    }
}

/// The line that the log gets.
pub(crate) fn summary(report: &BackupReport) -> String {
    if report.dry_run {
        return format!("dry run of {}: {} would be read", report.id, bytes::human(report.plain_bytes));
    }
    format!(
        "{}: {} stored as {} in {} s, server stopped for {} s",
        report.id,
        bytes::human(report.plain_bytes),
        bytes::human(report.stored_bytes),
        report.duration_ms / 1000,
        report.downtime_ms / 1000
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::artifact::statistics::Statistics;
    use std::collections::{BTreeMap, BTreeSet};

    fn census(nodes: u64, mark: Option<&str>) -> Census {
        let statistics = Statistics { counts: BTreeMap::from([("nodes".to_owned(), nodes)]), ..Statistics::default() };
        Census { statistics, mark: mark.map(str::to_owned) }
    }

    #[test]
    fn of_a_schema_that_changed_meanwhile_what_stayed_is_kept() {
        let lines = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<String>>();
        let mut statistics = Statistics { schema: lines(&["dropped", "stayed"]), ..Statistics::default() };
        statistics.keep_schema_of(&lines(&["stayed", "made"]));
        assert_eq!(statistics.schema, lines(&["stayed"]));
    }

    #[test]
    fn counts_are_exact_only_if_the_mark_stood_still() {
        assert!(settle_census(census(1, Some("7")), Some("7".to_owned())).statistics.exact);
        for (before, after) in
            [(census(1, Some("7")), Some("8".to_owned())), (census(1, None), None), (census(1, Some("7")), None)]
        {
            let settled = settle_census(before, after).statistics;
            assert!(!settled.exact && settled.remark.is_some());
        }
    }
}
