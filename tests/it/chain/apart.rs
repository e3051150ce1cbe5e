//! Repositories that are away in turn while histories are left: one history is never known by two numbers, nor two by one,
//! and what comes back is what is in service.

use super::{State, archive, archive_fails, at, commit, in_place, live, restored, status, two_repositories};
use crate::site::Site;
use neo4j_backup_agent::base::Code;
use neo4j_backup_agent::base::clock::{Clock, SystemClock};
use neo4j_backup_agent::driver::log::RecoveryTarget;
use neo4j_backup_agent::driver::sim::log;
use std::fs;
use std::path::PathBuf;

const MAIN: &str = "repository";
const SECOND: &str = "second/repository";

/// A repository whose disk is not there; it comes back when this is dropped.
struct Away(PathBuf);

impl Away {
    fn take(site: &Site, repository: &str) -> Away {
        let path = site.path(repository);
        fs::rename(&path, path.with_extension("away")).expect("rename");
        // Something is in the way, so that nobody takes it for a place where a new one could be made.
        fs::write(&path, b"").expect("in the way");
        Away(path)
    }
}

impl Drop for Away {
    fn drop(&mut self) {
        fs::remove_file(&self.0).expect("remove");
        fs::rename(self.0.with_extension("away"), &self.0).expect("rename");
    }
}

/// The transaction that histories are forked at.
const FORK: u64 = 5;

/// Two repositories that hold `FORK` transactions and two more; the states after each transaction.
fn both() -> (Site, Vec<State>) {
    let site = two_repositories();
    let mut states = Vec::new();
    commit(&site, FORK, &mut states);
    archive(&site);
    commit(&site, 2, &mut states);
    archive(&site);
    (site, states)
}

/// Goes back to a transaction, and on with one that no other history has.
fn go_back(site: &Site, fork: u64, states: &mut Vec<State>) {
    in_place(site, Some(RecoveryTarget::Transaction(fork)));
    states.truncate(fork as usize + 1);
    let (number, history) = (fork + 1, SystemClock.now());
    let value = format!("{number} of {history}");
    log::commit(&site.path("database"), (number % 7) as u8, &value, at(number)).expect("commit");
    states.push(live(site));
}

/// The same at `FORK`, with `count` transactions in all, archived to whichever repository is there: a base, and the rest.
fn fork(site: &Site, count: u64, states: &mut Vec<State>) {
    go_back(site, FORK, states);
    assert_eq!(archive_fails(site), Code::BackupPartial);
    commit(site, count - 1, states);
    assert_eq!(archive_fails(site), Code::BackupPartial);
}

/// What can be asked for of the history in service is given as it was there.
fn holds(site: &Site, states: &[State], what: &str) {
    assert_eq!(restored(site, None).0, live(site), "{what}: to the end");
    for number in FORK + 1..states.len() as u64 {
        let until = Some(RecoveryTarget::Transaction(number));
        assert_eq!(restored(site, until).0, states[number as usize], "{what}: to {number}");
    }
}

// req: X3 X4
#[test]
fn a_history_in_service_comes_before_those_that_were_left_elsewhere() {
    for (first, second) in [(1, 9), (2, 9), (2, 3)] {
        let (site, mut states) = both();
        let away = Away::take(&site, MAIN);
        (0..first).for_each(|_| fork(&site, 6, &mut states));
        drop(away);
        let away = Away::take(&site, SECOND);
        fork(&site, second, &mut states);
        drop(away);
        let what = format!("{first} forks and {second} transactions");
        holds(&site, &states, &what);
        assert_eq!(status(&site).log.expect("log").to_transaction, FORK + second, "{what}");
        commit(&site, 1, &mut states);
        archive(&site);
        holds(&site, &states, &what);
        site.verify().expect("sound");
        // Each alone has all that is in service.
        for repository in [MAIN, SECOND] {
            let _away = Away::take(&site, repository);
            assert_eq!(restored(&site, None).0, live(&site), "{what}, without {repository}");
        }
    }
}

// req: X3 X4
#[test]
fn a_history_has_one_number_wherever_it_was_seen_first() {
    let (site, mut states) = both();
    // Begun in one repository, joined by the other one while the first is away, and gone on with in the first alone.
    let away = Away::take(&site, MAIN);
    fork(&site, 4, &mut states);
    drop(away);
    let away = Away::take(&site, SECOND);
    commit(&site, 2, &mut states);
    assert_eq!(archive_fails(&site), Code::BackupPartial);
    drop(away);
    let away = Away::take(&site, MAIN);
    commit(&site, 3, &mut states);
    assert_eq!(archive_fails(&site), Code::BackupPartial);
    drop(away);
    assert_eq!(restored(&site, None).0, live(&site));
    let report = archive(&site);
    assert!(report.repositories.iter().all(|done| done.lineage == 2), "{report:?}");
    assert_eq!(restored(&site, None).0, live(&site));

    // One that never saw what was left goes on under the number of the others.
    let away = Away::take(&site, SECOND);
    commit(&site, 2, &mut states);
    assert_eq!(archive_fails(&site), Code::BackupPartial);
    go_back(&site, states.len() as u64 - 3, &mut states);
    drop(away);
    let report = archive(&site);
    assert!(report.repositories.iter().all(|done| done.lineage == 3), "{report:?}");
    assert_eq!(restored(&site, None).0, live(&site));
    site.verify().expect("sound");
}

// req: X3 X4
#[test]
fn without_the_record_no_number_is_given_that_a_repository_out_of_reach_may_have_given() {
    let (site, mut states) = both();
    let away = Away::take(&site, MAIN);
    fork(&site, 6, &mut states);
    fork(&site, 6, &mut states);
    drop(away);
    let away = Away::take(&site, SECOND);
    super::lose_the_ledger(&site);
    fork(&site, 2, &mut states);
    drop(away);
    let _ = site.run(&["rescan"]);
    assert_eq!(restored(&site, None).0, live(&site));
    commit(&site, 1, &mut states);
    archive(&site);
    assert_eq!(restored(&site, None).0, live(&site));
}
