//! `status`: for each target one line that is the answer, then what stands behind it.

use super::super::output::Output;
use super::{log, moment};
use crate::base::bytes::human;
use crate::operation::answer::TargetStatus;
use crate::operation::schedule;

pub(super) fn status(targets: &[TargetStatus], output: &Output) -> String {
    if targets.is_empty() {
        return "no target is configured; `neo4j-backupctl config template` shows how".to_owned();
    }
    let blocks: Vec<_> = targets.iter().map(|target| block(target, output)).collect();
    blocks.join("\n")
}

fn block(target: &TargetStatus, output: &Output) -> String {
    let mut lines = vec![headline(target, output)];
    let mut more = |text: String| lines.push(format!("  {text}"));
    if output.legend {
        if let Some(newest) = &target.newest {
            let stored = human(target.stored_bytes);
            more(format!("{}, {stored} in all; newest {newest}", moment::number_of(target.backups, "backup")));
        }
        if let Some(chain) = &target.log {
            more(format!("log: {}", log::chain(chain, output)));
        }
        for range in target.earlier.iter().take(log::EARLIER_MAX) {
            more(log::earlier(range, output));
        }
        if let Some(more_of_them) = target.earlier.len().checked_sub(log::EARLIER_MAX + 1) {
            more(format!("before: {} more; `--json` lists them", more_of_them + 1));
        }
        if let Some(job) = target.job {
            more(format!("job {job} runs; `neo4j-backupctl follow {job}`"));
        }
        if let Some(line) = next_runs(target, output) {
            more(line);
        }
    }
    if target.timers.iter().any(|timer| timer.calendar.is_some())
        && target.timers.iter().all(|timer| timer.enabled == Some(false))
    {
        more(format!("nothing is backed up by itself: `neo4j-backupctl enable {}`", target.target));
    }
    for warning in target.log.iter().flat_map(log::warnings) {
        more(warning);
    }
    if let Some(failure) = &target.last_failure {
        let when = failure.ended_at.unwrap_or(failure.started_at);
        let code = failure.error_code.as_deref().unwrap_or(failure.state.as_str());
        let message = failure.message.as_deref().unwrap_or_default();
        more(format!("last {} failed {}: {code}: {message}", failure.verb, moment::ago(when, output)));
    }
    lines.join("\n")
}

/// `next full 02:30:12Z (in 3 h), next incremental 23:15:20Z (in 4 min)`
fn next_runs(target: &TargetStatus, output: &Output) -> Option<String> {
    let runs = target.timers.iter().filter_map(|timer| {
        let next = timer.next?;
        let what = if timer.unit == schedule::incremental_unit(&target.target) { "incremental" } else { "full" };
        Some(format!("next {what} {} ({})", moment::short(next, output), moment::ago(next, output)))
    });
    let runs: Vec<String> = runs.collect();
    (!runs.is_empty()).then(|| runs.join(", "))
}

/// `graph: restorable to 02:58:51Z (4 s ago), RTO ≈ 22 min, last proven 6 d ago`
fn headline(target: &TargetStatus, output: &Output) -> String {
    let Some(to) = target.restorable_to else {
        return format!("{}: NOT RESTORABLE: there is no usable backup", target.target);
    };
    let rto = target.rto_seconds.map_or("RTO unknown".to_owned(), |seconds| format!("RTO ≈ {}", moment::span(seconds)));
    let proven = match target.last_proven {
        Some(time) => format!("last proven {}", moment::ago(time, output)),
        None => "never proven".to_owned(),
    };
    format!(
        "{}: restorable to {} ({}), {rto}, {proven}",
        target.target,
        moment::short(to, output),
        moment::ago(to, output)
    )
}

#[cfg(test)]
mod tests {
    use super::super::tests::output;
    use super::*;
    use crate::base::ids::TargetName;
    use crate::operation::answer::TimerStatus;
    use jiff::Timestamp;

    #[test]
    fn the_first_line_is_the_answer() {
        let time = |text: &str| -> Timestamp { text.parse().expect("time") };
        let mut output = output();
        output.now = time("2026-11-20T02:58:55Z");
        let mut target = TargetStatus {
            target: TargetName::new("graph").expect("name"),
            engine: "neo4j".to_owned(),
            newest: None,
            restorable_to: Some(time("2026-11-20T02:58:51Z")),
            age_seconds: Some(4),
            rto_seconds: Some(1320),
            last_proven: Some(time("2026-11-14T02:00:00Z")),
            backups: 3,
            stored_bytes: 1 << 20,
            job: None,
            last_failure: None,
            next_run: None,
            timers: Vec::new(),
            log: None,
            earlier: Vec::new(),
        };
        let text = status(std::slice::from_ref(&target), &output);
        assert_eq!(text, "graph: restorable to 02:58:51Z (4 s ago), RTO ≈ 22 min, last proven 6 d ago");
        let timer = |what: &str, next: &str| TimerStatus {
            unit: format!("neo4j-backup-{what}@graph.timer"),
            calendar: Some("hourly".to_owned()),
            enabled: Some(!next.is_empty()),
            next: (!next.is_empty()).then(|| time(next)),
        };
        target.timers = vec![timer("full", "2026-11-20T05:00:00Z"), timer("incremental", "2026-11-20T03:03:00Z")];
        output.legend = true;
        let text = status(std::slice::from_ref(&target), &output);
        assert!(text.contains("next full 05:00:00Z (in 2 h), next incremental 03:03:00Z (in 4 min)"), "{text}");
        target.timers = vec![timer("full", "")];
        output.legend = false;
        let text = status(std::slice::from_ref(&target), &output);
        assert!(text.ends_with("`neo4j-backupctl enable graph`"), "without a legend too: {text}");
        target.restorable_to = None;
        assert!(status(&[target], &output).starts_with("graph: NOT RESTORABLE"));
    }
}
