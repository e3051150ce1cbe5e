//! What jobs report when they end: `backup`, `restore`, `verify`, `delete`, `rescan`.

use super::super::output::Output;
use super::{log, moment};
use crate::base::bytes::human;
use crate::operation::answer::{BackupReport, CleanupReport, DeleteReport, RescanReport, RestoreReport, VerifyReport};
use std::fmt::Write as _;

// req: B4 — version, what ran, sizes, checksum, id, duration.
pub(super) fn backup(report: &BackupReport, _: &Output) -> String {
    let mut text = String::new();
    if report.dry_run {
        let _ = writeln!(text, "dry run, nothing was written: {} would be taken", report.id);
    } else {
        let _ = writeln!(text, "{} is complete in {}", report.id, report.repositories.join(", "));
    }
    let mut line = |name: &str, value: String| {
        let _ = writeln!(text, "  {name:<9} {value}");
    };
    line("server", report.server_version.clone());
    line("method", report.method.clone());
    if report.dry_run {
        line("size", format!("about {}", human(report.plain_bytes)));
    } else {
        line("size", moment::sizes(report.plain_bytes, report.stored_bytes));
        line("checksum", format!("sha256:{}", report.sha256));
        let inexact = if report.counts_exact || report.counts.is_empty() { "" } else { " (not of the very moment)" };
        line("content", format!("{}{inexact}", moment::counts(&report.counts, 6)));
        line("duration", moment::duration(report.duration_ms));
        if report.downtime_ms > 0 {
            line("downtime", moment::duration(report.downtime_ms));
        }
    }
    for warning in &report.warnings {
        line("warning", warning.clone());
    }
    numbered(&mut text, &report.steps);
    text
}

fn numbered(text: &mut String, steps: &[String]) {
    for (number, step) in steps.iter().enumerate() {
        let _ = writeln!(text, "  {}. {step}", number + 1);
    }
}

pub(super) fn restore(report: &RestoreReport, output: &Output) -> String {
    let mut text = String::new();
    let place = report.directory.display();
    if report.dry_run {
        let _ = writeln!(text, "dry run, nothing was written: restoring {} to {place} would be", report.backup);
        if let Some(until) = report.until {
            let _ = writeln!(text, "  until {}", log::until(until, output));
        }
        numbered(&mut text, &report.steps);
        return text;
    }
    let state = if report.in_place { "is in service at" } else { "is restored in" };
    let _ = writeln!(text, "{} {state} {place}", report.backup);
    let mut line = |name: &str, value: String| {
        let _ = writeln!(text, "  {name:<9} {value}");
    };
    line("restore", report.restore.clone());
    line("from", report.repository.clone());
    if let Some(until) = report.until {
        line("until", log::until(until, output));
    }
    if let Some(reached) = &report.reached {
        line("reached", format!("{} ({} of the log)", log::reached(reached, output), log::batches(report.batches)));
    }
    line("size", human(report.plain_bytes));
    line("duration", moment::duration(report.duration_ms));
    for path in &report.set_aside {
        line("set aside", path.display().to_string());
    }
    for check in &report.checks {
        let verdict = match check.passed {
            Some(true) => "passed",
            Some(false) => "FAILED",
            None => "not made",
        };
        line("check", format!("{} {verdict}: {}", check.name, check.found));
    }
    text
}

pub(super) fn verify(report: &VerifyReport, output: &Output) -> String {
    let mut text = String::new();
    let mut bad = 0;
    for backup in &report.backups {
        let verdict = if backup.problems.is_empty() { "sound" } else { "DAMAGED" };
        bad += u64::from(!backup.problems.is_empty());
        let (objects, read) = (moment::number_of(backup.objects, "object"), human(backup.bytes));
        let _ = writeln!(text, "{} in {}: {verdict} ({objects}, {read})", backup.backup, backup.repository);
        for problem in &backup.problems {
            let _ = writeln!(text, "  {}: {}: {}", problem.code, problem.object, problem.text);
        }
    }
    if output.legend {
        let how = if report.quick { "sizes and signatures only" } else { "every byte" };
        let count = moment::number_of(report.backups.len() as u64, "copy").replace("copys", "copies");
        let _ = writeln!(text, "{count} looked at ({how}), {bad} damaged");
    }
    text
}

pub(super) fn delete(report: &DeleteReport) -> String {
    let (objects, bytes) = (moment::number_of(report.objects, "object"), human(report.bytes));
    let batches = with_batches(report.batches);
    if report.dry_run {
        return format!("dry run, nothing was deleted: {} has {objects}, {bytes}{batches}", report.backup);
    }
    format!("{} is deleted: {objects}, {bytes}{batches}", report.backup)
}

/// The part of a sentence that says that batches of the log go too.
fn with_batches(batches: u64) -> String {
    match batches {
        0 => String::new(),
        count => format!(", with {} of the log that nothing else needs", log::batches(count)),
    }
}

pub(super) fn cleanup(report: &CleanupReport) -> String {
    let (count, bytes) = (moment::number_of(report.deleted.len() as u64, "backup"), human(report.bytes));
    let batches = with_batches(report.batches);
    let mut text = match report.dry_run {
        true => {
            format!("dry run, nothing was deleted: {count}, {bytes} would go{batches}, {} would stay\n", report.kept)
        }
        false => format!("{count}, {bytes} deleted{batches}, {} kept\n", report.kept),
    };
    for id in &report.deleted {
        let _ = writeln!(text, "  {id}");
    }
    for id in &report.halted_by {
        let _ = writeln!(text, "nothing of {} goes while {id} is there, which was taken of damaged files", id.target);
    }
    text
}

pub(super) fn rescan(report: &RescanReport) -> String {
    let mut found = moment::number_of(report.found, "backup");
    if report.batches > 0 {
        found = format!("{found} and {} of logs", log::batches(report.batches));
    }
    let mut text = format!("{found} found, {} new in the ledger, {} missing\n", report.added, report.missing);
    for problem in &report.problems {
        let _ = writeln!(text, "  {}: {}: {}", problem.code, problem.object, problem.text);
    }
    text
}
