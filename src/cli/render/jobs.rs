//! `jobs` and `history`.

use super::super::output::{Output, lines};
use super::moment;
use crate::base::bytes::human;
use crate::base::task::{Progress, Severity};
use crate::operation::answer::{EventRecord, JobRecord};

pub(super) fn running(jobs: &[JobRecord], output: &Output) -> String {
    if jobs.is_empty() {
        return "no job runs".to_owned();
    }
    let mut table = output.table(&["JOB", "VERB", "TARGET", "STATE", "SINCE", "PROGRESS"]);
    for job in jobs {
        table.add_row([
            job.id.to_string(),
            job.verb.clone(),
            subject(job),
            job.state.as_str().to_owned(),
            moment::at(job.started_at, output),
            job.progress.as_ref().map(how_far).unwrap_or_default(),
        ]);
    }
    lines(&table)
}

fn subject(job: &JobRecord) -> String {
    job.target.as_ref().map_or("–".to_owned(), ToString::to_string)
}

fn how_far(progress: &Progress) -> String {
    let amount = match (progress.done, progress.total) {
        (0, _) => String::new(),
        (done, 0) => human(done),
        (done, total) => format!("{} of {}", human(done), human(total.max(done))),
    };
    format!("{} {amount}", progress.phase).trim().to_owned()
}

pub(super) fn history(jobs: &[JobRecord], events: &[EventRecord], output: &Output) -> String {
    if jobs.is_empty() && events.is_empty() {
        return "nothing has happened yet".to_owned();
    }
    let mut table = output.table(&["JOB", "VERB", "TARGET", "RESULT", "STARTED", "TOOK", "ERROR"]);
    for job in jobs {
        let took = job.ended_at.map(|end| end.as_millisecond().saturating_sub(job.started_at.as_millisecond()).max(0));
        let error = match (&job.error_code, &job.message) {
            (Some(code), Some(message)) => format!("{code}: {message}"),
            (Some(code), None) => code.clone(),
            _ => String::new(),
        };
        table.add_row([
            job.id.to_string(),
            job.verb.clone(),
            subject(job),
            job.state.as_str().to_owned(),
            moment::at(job.started_at, output),
            took.map_or(String::new(), |took| moment::duration(took.unsigned_abs())),
            error.replace('\n', " "),
        ]);
    }
    let mut text = if jobs.is_empty() { String::new() } else { lines(&table) };
    if !events.is_empty() {
        let mut table = output.table(&["TIME", "SEVERITY", "EVENT", "TARGET", "JOB", "WHO", "WHAT"]);
        for event in events {
            table.add_row([
                moment::at(event.at, output),
                severity(event.severity).to_owned(),
                event.name.clone(),
                event.target.as_ref().map_or("–".to_owned(), ToString::to_string),
                event.job.map_or("–".to_owned(), |job| job.to_string()),
                event.actor.clone(),
                event.text.replace('\n', " "),
            ]);
        }
        let gap = if text.is_empty() { "" } else { "\n\n" };
        text = format!("{text}{gap}{}", lines(&table));
    }
    text
}

pub(super) fn severity(severity: Severity) -> &'static str {
    match severity {
        Severity::Info => "info",
        Severity::Warning => "warning",
        Severity::Error => "error",
    }
}
