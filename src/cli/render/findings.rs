//! `check`: the doctor's findings, each with what mends it.

use super::super::exit;
use super::super::output::Output;
use super::jobs::severity;
use crate::base::task::Severity;
use crate::operation::answer::TargetFinding;

pub(super) fn findings(findings: &[TargetFinding], output: &Output) -> String {
    let mut text = String::new();
    for found in findings {
        let (finding, subject) = (&found.finding, subject(found));
        text.push_str(&format!("{:<7} {subject}: {} [{}]\n", severity(finding.severity), finding.text, finding.code));
        if !finding.fix.is_empty() {
            text.push_str(&format!("        → {}\n", finding.fix));
        }
    }
    if output.legend {
        text.push_str(&format!("{}\n", summary(findings)));
    }
    text
}

fn subject(found: &TargetFinding) -> String {
    found.target.as_ref().map_or("agent".to_owned(), ToString::to_string)
}

fn summary(findings: &[TargetFinding]) -> String {
    let count = |severity| findings.iter().filter(|found| found.finding.severity == severity).count();
    match (count(Severity::Error), count(Severity::Warning)) {
        (0, 0) => "nothing is wrong".to_owned(),
        (errors, warnings) => format!("{errors} errors, {warnings} warnings"),
    }
}

/// The line of a monitoring plugin: `NEO4J-BACKUP CRITICAL - graph: … (2 errors, 1 warnings)`.
pub(super) fn nagios(findings: &[TargetFinding]) -> String {
    let state = match exit::of_findings(findings) {
        0 => "OK",
        1 => "WARNING",
        2 => "CRITICAL",
        _ => "UNKNOWN",
    };
    let worst =
        findings.iter().filter(|found| found.finding.severity > Severity::Info).max_by_key(|f| f.finding.severity);
    let detail = match worst {
        // A pipe sign would begin performance data.
        Some(found) => {
            format!("{}: {} ({})", subject(found), found.finding.text.replace(['|', '\n'], " "), summary(findings))
        }
        None => summary(findings),
    };
    format!("NEO4J-BACKUP {state} - {detail}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::Finding;

    #[test]
    fn a_monitoring_plugin_says_the_worst() {
        let finding = |severity, text: &str| TargetFinding {
            target: None,
            finding: Finding { code: "x".to_owned(), severity, text: text.to_owned(), fix: String::new() },
        };
        assert_eq!(nagios(&[]), "NEO4J-BACKUP OK - nothing is wrong");
        let found = [finding(Severity::Warning, "old"), finding(Severity::Error, "gone | lost")];
        assert_eq!(nagios(&found), "NEO4J-BACKUP CRITICAL - agent: gone   lost (1 errors, 1 warnings)");
        assert_eq!((exit::of_findings(&found), exit::of_findings(&found[..1]), exit::of_findings(&[])), (2, 1, 0));
    }
}
