//! Bases and batches of the log, from the archive to every single state that can be restored; on a simulated database
//! whose states are known exactly.
//!
//! - `anew`: several databases in one place
//! - `apart`: repositories that are away in turn
//! - `clocks`: a clock that was ahead
//! - `merging`: small batches become larger ones
//! - `older`: chains that an earlier release began
//! - `restore`: to the end, to each transaction, to each time
//! - `history`: pruned, forked, restored, adopted
//! - `standing`: what is said of it when pieces are gone, and that nothing older passes for it
//! - `trouble`: repositories that fail or are away, two runs at once, damage
//! - `writers`: who may write and delete, and bases that an agent does not remember

mod anew;
mod apart;
mod clocks;
mod history;
pub(crate) mod merging;
mod older;
mod restore;
mod standing;
mod trouble;
mod writers;

use crate::site::{Site, restore_request};
use jiff::Timestamp;
use neo4j_backup_agent::base::ids::TargetName;
use neo4j_backup_agent::base::{Code, Result};
use neo4j_backup_agent::driver::log::RecoveryTarget;
use neo4j_backup_agent::driver::sim::log::{self, state};
use neo4j_backup_agent::operation::answer::{Answer, ArchiveReport, RestoreReport, TargetStatus};
use neo4j_backup_agent::operation::request::{ArchiveRequest, Destination, Request, RestoreRequest};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

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

/// A site whose log was archived after `first` transactions, which makes the base, and after each of `batches` more.
fn archived(first: u64, batches: &[u64]) -> (Site, Vec<State>) {
    let site = Site::logged();
    let mut states = Vec::new();
    for count in std::iter::once(&first).chain(batches) {
        commit(&site, *count, &mut states);
        archive(&site);
    }
    (site, states)
}

fn events(site: &Site, name: &str) -> usize {
    match site.ask(&Request::History { limit: 1000 }) {
        Ok(Answer::History { events, .. }) => events.iter().filter(|event| event.name == name).count(),
        other => panic!("{other:?}"),
    }
}

fn status(site: &Site) -> TargetStatus {
    match site.ask(&Request::Status { target: None }) {
        Ok(Answer::Status { mut targets }) => targets.remove(0),
        other => panic!("{other:?}"),
    }
}

/// What a program told people on standard error; the journal has its own lines.
fn told(output: &std::process::Output) -> String {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    said.lines().filter(|line| !line.contains("TARGET=")).collect::<Vec<_>>().join("\n")
}

/// Puts the data directory back to what it was, as somebody would who knows nothing of us.
fn put_back(site: &Site, aside: &Path) {
    let data = site.path("database/data");
    fs::remove_dir_all(&data).expect("remove");
    copy(aside, &data);
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("directory");
    for entry in fs::read_dir(from).expect("list").flatten() {
        fs::copy(entry.path(), to.join(entry.file_name())).expect("copy");
    }
}

fn in_place(site: &Site, until: Option<RecoveryTarget>) {
    let request = RestoreRequest { until, ..restore_request("sim", Destination::InPlace) };
    site.ask(&Request::Restore(request)).expect("the restore in place");
}

/// A copy of what the agent remembers now.
fn keep_the_ledger(site: &Site) -> PathBuf {
    let kept = site.path("kept");
    fs::create_dir(&kept).expect("directory");
    put_ledger(&site.path("state"), &kept);
    kept
}

/// It remembers no more than it did then, as a restored state directory has it.
fn set_the_ledger_back(site: &Site, kept: &Path) {
    lose_the_ledger(site);
    put_ledger(kept, &site.path("state"));
}

/// Puts what `from` has of the ledger into `to`.
fn put_ledger(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).expect("list").flatten() {
        if entry.file_name().to_string_lossy().starts_with("ledger") {
            fs::copy(entry.path(), to.join(entry.file_name())).expect("copy");
        }
    }
}

fn lose_the_ledger(site: &Site) {
    for entry in fs::read_dir(site.path("state")).expect("state").flatten() {
        if entry.file_name().to_string_lossy().starts_with("ledger") {
            fs::remove_file(entry.path()).expect("remove");
        }
    }
}

/// Objects of the log's archive, manifests too.
pub(crate) fn batches(site: &Site) -> Vec<PathBuf> {
    let mut found = site.objects();
    found.retain(|path| path.to_string_lossy().contains("/log/"));
    found
}

pub(crate) fn two_repositories() -> Site {
    let site = Site::logged();
    let root = site.root().display();
    site.configure(&format!(
        "[repository.second]\ntype = \"local\"\npath = \"{root}/second/repository\"\n\
         [target.sim]\nkind = \"sim\"\ndirectory = \"{root}/database\"\n"
    ));
    fs::create_dir(site.path("second")).expect("directory");
    site
}
