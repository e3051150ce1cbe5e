//! Answers as text, a file for each sort. JSON is the answer itself; what is here is for people.

mod backups;
mod findings;
mod jobs;
mod keys;
mod log;
pub mod moment;
mod reports;
mod restores;
mod status;

use super::output::Output;
use crate::operation::answer::{Answer, TargetFinding};

/// An answer as text.
pub fn answer(answer: &Answer, output: &Output) -> String {
    match answer {
        Answer::Backup(report) => reports::backup(report, output),
        Answer::Archive(report) => log::archive(report, output),
        Answer::Adopt(report) => log::adopt(report),
        Answer::Restore(report) => reports::restore(report, output),
        Answer::Verify(report) => reports::verify(report, output),
        Answer::Delete(report) => reports::delete(report),
        Answer::Cleanup(report) => reports::cleanup(report),
        Answer::Rescan(report) => reports::rescan(report),
        Answer::Status { targets } => status::status(targets, output),
        Answer::List(list) => backups::list(list, output),
        Answer::Show(detail) => backups::show(detail, output),
        Answer::Presign(report) => backups::presign(report, output),
        Answer::History { jobs, events } => jobs::history(jobs, events, output),
        Answer::Jobs { jobs } => jobs::running(jobs, output),
        Answer::Restores { restores } => restores::restores(restores, output),
        Answer::Check { findings } => findings::findings(findings, output),
        Answer::Rotate(report) => keys::rotated(report),
        Answer::KeyList { keys } => keys::keys(keys, output),
        Answer::Cancel { job } => {
            format!("job {job} was asked to end; `neo4j-backupctl follow {job}` shows how it does")
        }
    }
}

/// Findings as a monitoring plugin's one line.
pub fn nagios(found: &[TargetFinding]) -> String {
    findings::nagios(found)
}

#[cfg(test)]
mod tests {
    use super::Output;
    use jiff::tz::TimeZone;

    /// What a program that reads a pipe in UTC gets.
    pub(super) fn output() -> Output {
        let now = "2026-11-20T03:00:00Z".parse().expect("time");
        Output { json: None, terminal: false, colors: false, page: None, legend: true, zone: TimeZone::UTC, now }
    }
}
