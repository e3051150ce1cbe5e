//! Bases and batches of the log, from the archive to every single state that can be restored; on a simulated database
//! whose states are known exactly.
//!
//! - `restore`: to the end, to each transaction, to each time
//! - `history`: pruned, forked, restored, adopted
//! - `trouble`: repositories that fail or are away, two runs at once, damage

mod history;
mod restore;
mod trouble;

use crate::site::{Site, restore_request};
use jiff::Timestamp;
use neo4j_backup_agent::base::ids::TargetName;
use neo4j_backup_agent::base::{Code, Result};
use neo4j_backup_agent::driver::log::RecoveryTarget;
use neo4j_backup_agent::driver::sim::log::{self, state};
use neo4j_backup_agent::operation::answer::{Answer, ArchiveReport, RestoreReport};
use neo4j_backup_agent::operation::request::{ArchiveRequest, Destination, Request, RestoreRequest};
use std::collections::BTreeMap;
use std::path::Path;

/// Each key's value, and the transaction that wrote it.
type State = BTreeMap<u8, (u64, String)>;

fn archive_request() -> Request {
    Request::Archive(ArchiveRequest { target: TargetName::new("sim").expect("name"), dry_run: false })
}

fn archive(site: &Site) -> ArchiveReport {
    match site.ask(&archive_request()) {
        Ok(Answer::Archive(report)) => report,
        other => panic!("the log was not archived: {other:?}"),
    }
}

fn archive_fails(site: &Site) -> Code {
    site.ask(&archive_request()).expect_err("archiving must fail").code()
}

/// Transaction N is committed at second N of a certain day.
fn at(number: u64) -> Timestamp {
    Timestamp::from_second(1_790_000_000 + number as i64).expect("time")
}

/// Commits `count` transactions and keeps the state after each.
fn commit(site: &Site, count: u64, states: &mut Vec<State>) {
    let database = site.path("database");
    if states.is_empty() {
        states.push(live(site));
    }
    for _ in 0..count {
        let number = log::last_transaction(&database).expect("last") + 1;
        log::commit(&database, (number % 7) as u8, &format!("value {number}"), at(number)).expect("commit");
        states.push(live(site));
    }
}

fn live(site: &Site) -> State {
    state(&site.path("database/data")).expect("state")
}

fn restore(site: &Site, until: Option<RecoveryTarget>, directory: &Path) -> Result<RestoreReport> {
    let request = RestoreRequest { until, ..restore_request("sim", Destination::Into(directory.to_owned())) };
    match site.ask(&Request::Restore(request))? {
        Answer::Restore(report) => Ok(report),
        other => panic!("{other:?}"),
    }
}

/// Restores into a fresh directory and gives the state that came back.
fn restored(site: &Site, until: Option<RecoveryTarget>) -> (State, RestoreReport) {
    let directory = site.path("restored");
    let report = restore(site, until, &directory).unwrap_or_else(|error| panic!("{until:?}: {error:?}"));
    let found = state(&directory.join("data")).expect("state");
    std::fs::remove_dir_all(&directory).expect("remove");
    (found, report)
}
