//! Exit statuses, and errors as people and programs read them.

use super::args::JsonMode;
use super::output::{print, say};
use crate::base::Error;
use crate::base::task::Severity;
use crate::operation::answer::{Answer, TargetFinding};
use serde_json::json;

/// Done.
pub const DONE: u8 = 0;
/// Done in part.
pub const PARTLY: u8 = 3;
/// Whoever waited left.
pub const INTERRUPTED: u8 = 130;

/// The exit status of an answer: some answers are bad news.
pub fn of_answer(answer: &Answer) -> u8 {
    if let Some(error) = answer.verdict() {
        return error.code().exit();
    }
    match answer {
        Answer::Rescan(report) if !report.problems.is_empty() => PARTLY,
        Answer::Check { findings } if worst(findings) == Some(Severity::Error) => 1,
        _ => DONE,
    }
}

/// The exit status of monitoring plugins: 0 fine, 1 warning, 2 critical, 3 unknown.
pub fn of_findings(findings: &[TargetFinding]) -> u8 {
    match worst(findings) {
        None | Some(Severity::Info) => 0,
        Some(Severity::Warning) => 1,
        Some(Severity::Error) => 2,
    }
}

fn worst(findings: &[TargetFinding]) -> Option<Severity> {
    findings.iter().map(|finding| finding.finding.severity).max()
}

/// Tells whoever reads text that the answer they have is bad news; the answer names each problem. JSON has it all.
pub fn tell_verdict(answer: &Answer, json: Option<JsonMode>) {
    if let (Some(error), None) = (answer.verdict(), json) {
        say(&format!("error: {}: the problems are named in the report", error.code().name()));
        say(&format!("hint: {}", error.hint()));
    }
}

/// Tells of an error and gives its exit status.
pub fn fail(error: &Error, json: Option<JsonMode>) -> u8 {
    if let Some(mode) = json {
        let value = json!({
            "error": { "code": error.code().name(), "message": error.message(), "hint": error.hint() }
        });
        let text =
            if mode == JsonMode::Pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) };
        // Whoever reads JSON reads standard output; if that is gone, there is nobody.
        let _ = print(&text.unwrap_or_default());
    } else {
        say(&format!("error: {}: {}", error.code().name(), error.message()));
        say(&format!("hint: {}", error.hint()));
    }
    error.code().exit()
}
