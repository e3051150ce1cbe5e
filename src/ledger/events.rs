//! What happened, for the history and the audit: every backup, restore and deletion, by whom and with what result.

use super::Ledger;
use super::row::{micros, number, parsed_option, time, unreadable, unsigned};
use crate::base::Result;
use crate::base::ids::{JobId, TargetName};
use crate::base::task::Severity;
use jiff::Timestamp;
use rusqlite::{Row, params};

/// Events that are kept; older ones are dropped as new ones come in.
pub const EVENTS_KEPT: i64 = 100_000;

/// An event on record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventRow {
    /// Counts up.
    pub id: u64,
    /// When.
    pub at: Timestamp,
    /// How much it matters.
    pub severity: Severity,
    /// Stable name: `backup-succeeded`.
    pub name: String,
    /// The target, if any.
    pub target: Option<TargetName>,
    /// The job, if any.
    pub job: Option<JobId>,
    /// Who asked.
    pub actor: String,
    /// What happened.
    pub text: String,
}

pub(super) const NEWEST: &str =
    "SELECT id, at, severity, name, target, job, actor, text FROM events ORDER BY id DESC LIMIT ?1";

fn word(severity: Severity) -> &'static str {
    match severity {
        Severity::Info => "info",
        Severity::Warning => "warning",
        Severity::Error => "error",
    }
}

impl Ledger {
    /// Enters an event.
    pub fn event(
        &self,
        severity: Severity,
        name: &str,
        target: Option<&TargetName>,
        job: Option<JobId>,
        actor: &str,
        text: &str,
    ) -> Result<()> {
        let now = self.now();
        self.write("entering an event in", |steps| {
            steps.execute(
                "INSERT INTO events (at, severity, name, target, job, actor, text) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
                params![
                    micros(now),
                    word(severity),
                    name,
                    target.map(TargetName::as_str),
                    job.map(|job| number(job.0)),
                    actor,
                    text
                ],
            )?;
            let id = steps.0.last_insert_rowid();
            steps.execute("DELETE FROM events WHERE id <= ?1", params![id - EVENTS_KEPT])?;
            Ok(())
        })
    }

    /// Events, newest first.
    pub fn events(&self, limit: u32) -> Result<Vec<EventRow>> {
        self.read("listing the events in", |connection| {
            connection.prepare_cached(NEWEST)?.query_map(params![limit], read_event)?.collect()
        })
    }
}

fn read_event(row: &Row<'_>) -> rusqlite::Result<EventRow> {
    let severity = match row.get_ref(2)?.as_str()? {
        "info" => Severity::Info,
        "warning" => Severity::Warning,
        "error" => Severity::Error,
        other => return Err(unreadable(2, format!("{other:?} is no severity"))),
    };
    Ok(EventRow {
        id: unsigned(row, 0)?,
        at: time(row, 1)?,
        severity,
        name: row.get(3)?,
        target: parsed_option(row, 4)?,
        job: row.get::<_, Option<i64>>(5)?.map(|job| JobId(job.unsigned_abs())),
        actor: row.get(6)?,
        text: row.get(7)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::tests::{ledger, target};

    // req: D10, B13
    #[test]
    fn events_come_back_newest_first_and_are_bounded() {
        let (_directory, ledger) = ledger();
        let graph = target("graph");
        let job = Some(JobId(7));
        ledger.event(Severity::Info, "backup-started", Some(&graph), job, "alice", "it's \"on\"; --").expect("event");
        ledger.event(Severity::Error, "backup-failed", None, None, "root", "").expect("event");
        let events = ledger.events(10).expect("events");
        let names: Vec<&str> = events.iter().map(|event| event.name.as_str()).collect();
        assert_eq!(names, ["backup-failed", "backup-started"]);
        assert_eq!((events[1].job, &events[1].target, events[1].text.as_str()), (job, &Some(graph), "it's \"on\"; --"));
        assert_eq!(events[0].severity, Severity::Error);
        assert_eq!(ledger.events(1).expect("events").len(), 1);
        ledger
            .write("test", |steps| {
                steps.execute("UPDATE sqlite_sequence SET seq = ?1 WHERE name = 'events'", [EVENTS_KEPT + 1])
            })
            .expect("skip");
        ledger.event(Severity::Warning, "late", None, None, "root", "").expect("event");
        let names: Vec<String> = ledger.events(10).expect("events").into_iter().map(|event| event.name).collect();
        assert_eq!(names, ["late"]);
    }
}
