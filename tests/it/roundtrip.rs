//! The whole product on real servers: back up, lose, restore, prove; through the operations as the programs ask for them.
//!
//! - `postgres`: one cluster, restored into directories and in place, and opened with foreign tools alone
//! - `neo4j`: one server, the same
//! - `dump`: logical dumps of PostgreSQL
//! - `kill`: `kill -9` of the agent in the middle, on the real servers

mod dump;
mod kill;
mod neo4j;
mod postgres;

use crate::site::{Site, restore_request};
use neo4j_backup_agent::driver::HealthCheck;
use neo4j_backup_agent::operation::answer::{Answer, RestoreRecord, RestoreReport};
use neo4j_backup_agent::operation::request::{Destination, Request, RestoreRequest};
use std::path::{Path, PathBuf};

fn restored(site: &Site, request: RestoreRequest) -> RestoreReport {
    match site.ask(&Request::Restore(request)) {
        Ok(Answer::Restore(report)) => report,
        other => panic!("the restore failed: {other:?}"),
    }
}

/// A restore in place of the newest backup.
fn in_place(site: &Site, target: &str) -> RestoreReport {
    restored(site, restore_request(target, Destination::InPlace))
}

/// A restore of the newest backup into a new directory.
fn into(site: &Site, target: &str, directory: &Path) -> RestoreReport {
    restored(site, restore_request(target, Destination::Into(directory.to_owned())))
}

/// Every check was made, and passed.
pub(crate) fn all_passed(checks: &[HealthCheck], names: &[&str]) {
    assert!(checks.iter().all(|check| check.passed == Some(true)), "{checks:?}");
    for name in names {
        assert!(checks.iter().any(|check| check.name == *name), "{name} is missing: {checks:?}");
    }
}

/// The named checks were made and passed, and none failed.
pub(crate) fn all_checked(checks: &[HealthCheck], names: &[&str]) {
    assert!(checks.iter().all(|check| check.passed != Some(false)), "{checks:?}");
    for name in names {
        assert!(checks.iter().any(|check| check.name == *name && check.passed == Some(true)), "{name}: {checks:?}");
    }
}

fn restores(site: &Site) -> Vec<RestoreRecord> {
    match site.ask(&Request::Restores) {
        Ok(Answer::Restores { restores }) => restores,
        other => panic!("the restores are not listed: {other:?}"),
    }
}

/// The ledger is lost: what a restore in place set aside is found all the same.
fn found_without_the_ledger(site: &Site, report: &RestoreReport) {
    for name in ["ledger.db", "ledger.db-wal", "ledger.db-shm"] {
        let _ = std::fs::remove_file(site.path("state").join(name));
    }
    let found = restores(site);
    let last = found.iter().find(|record| record.restore == report.restore).expect("it is listed");
    assert_eq!((&last.set_aside, &last.directory), (&report.set_aside, &report.directory));
    assert_eq!((&last.backup, last.healthy, last.in_place), (&None, None, true), "nothing is made up");
}

/// What our restores in place put beside live data, below `place`.
fn areas(place: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(place).into_iter().flatten().flatten().map(|entry| entry.path());
    entries
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().contains("neo4j-backup")))
        .collect()
}

/// Files of ours that a finished run never leaves; `beside` is where restores in place are prepared.
fn debris(site: &Site, beside: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let ours = ["scratch", "staging", "host", "unfinished", "processes"].map(|name| site.path("state").join(name));
    for place in ours.iter().chain([&site.path("repository/.incomplete")]) {
        crate::site::walk(place, &mut found);
    }
    found.extend(areas(beside).into_iter().map(|area| area.join("new")).filter(|new| new.exists()));
    found
}
