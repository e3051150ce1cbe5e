//! An installation that an earlier release left in the middle of its chain: this one reads all of it, restores every
//! state, and goes on. The archives in `tests/data/installations` are never made again: what they hold must restore for
//! ever. The next release adds its own, by the ignored test below.

use super::{State, archive, archive_fails, restored, status};
use crate::site::Site;
use neo4j_backup_agent::base::Code;
use neo4j_backup_agent::base::ids::TargetName;
use neo4j_backup_agent::driver::log::RecoveryTarget;
use neo4j_backup_agent::driver::sim::log;
use neo4j_backup_agent::operation::request::Request;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What is kept of an installation.
const KEPT: [&str; 3] = ["state", "repository", "database"];
/// The transaction that a restore in place went back to, and the last one on either side of it.
const LEFT_AT: u64 = 8;
const LAST_LEFT: u64 = 12;
const LAST: u64 = 13;

fn archives() -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/installations");
    let entries = std::fs::read_dir(&directory).expect("the directory of installations").flatten();
    let mut found: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(|path| path.extension().is_some()).collect();
    found.sort();
    found
}

fn tar(arguments: &[&str], archive: &Path, directory: &Path) {
    let mut run = Command::new("tar");
    run.args(arguments).arg(archive).arg("-C").arg(directory);
    if arguments.contains(&"-cJf") {
        run.args(KEPT);
    }
    let output = run.output().expect("tar");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Transaction N writes this, at second N of a certain day before the restore in place and hours later after it.
fn write(database: &Path, number: u64, word: &str) {
    let time = super::at(if word == "first" { number } else { 10_000 + number });
    log::commit(database, (number % 7) as u8, &format!("{word} {number}"), time).expect("commit");
}

/// The state that the transactions up to `first`, and those from the restore in place on up to `then`, amount to.
fn expected(first: u64, then: u64) -> State {
    let words = (1..=first).map(|number| (number, "first")).chain((LEFT_AT + 1..=then).map(|number| (number, "then")));
    words.map(|(number, word)| ((number % 7) as u8, (number, format!("{word} {number}")))).collect()
}

fn adopt(site: &Site) {
    let request = Request::Adopt { target: TargetName::new("sim").expect("name"), new_repository: false };
    site.ask(&request).expect("adopted");
}

// req: X1
#[test]
fn what_an_earlier_release_left_in_mid_chain_is_restored_and_gone_on_with() {
    let archives = archives();
    assert!(!archives.is_empty(), "no installation is kept");
    for installation in archives {
        for with_ledger in [true, false] {
            let site = Site::logged();
            KEPT.iter().for_each(|name| drop(std::fs::remove_dir_all(site.path(name))));
            tar(&["-xJf"], &installation, site.root());
            if !with_ledger {
                std::fs::remove_dir_all(site.path("state")).expect("state");
                site.ask(&Request::Rescan).expect("rescan");
            }
            let what = format!("{} {with_ledger}", installation.display());
            site.verify().unwrap_or_else(|error| panic!("{what}: {error}"));
            let to = |until| restored(&site, Some(until)).0;
            assert_eq!(restored(&site, None).0, expected(LEFT_AT, LAST), "{what}");
            assert_eq!(to(RecoveryTarget::Transaction(11)), expected(LEFT_AT, 11), "{what}");
            assert_eq!(to(RecoveryTarget::BeforeTransaction(11)), expected(LEFT_AT, 10), "{what}");
            for number in [6, 7, 10, LAST_LEFT - 1] {
                assert_eq!(to(RecoveryTarget::Time(super::at(number))), expected(number, 0), "{what}: {number}");
            }
            // It was another host's, as far as this one can tell.
            write(&site.path("database"), LAST + 1, "then");
            assert_eq!(archive_fails(&site), Code::OwnerConflict, "{what}");
            adopt(&site);
            archive(&site);
            assert_eq!(restored(&site, None).0, expected(LEFT_AT, LAST + 1), "{what}");
            assert_eq!(to(RecoveryTarget::Transaction(11)), expected(LEFT_AT, 11), "{what}");
            assert!(status(&site).restorable_to.is_some(), "{what}");
            site.verify().unwrap_or_else(|error| panic!("{what}: {error}"));
        }
    }
}

/// What this release leaves behind. To keep it for the releases after this one:
/// `NEO4J_BACKUP_INSTALLATION=$PWD/tests/data/installations/0.2.0.tar.xz cargo test --release --test it this_release_leaves`
#[test]
fn this_release_leaves_what_the_next_one_must_read() {
    let place = tempfile::tempdir().expect("tempdir");
    let kept = std::env::var_os("NEO4J_BACKUP_INSTALLATION").map(PathBuf::from);
    let file = kept.unwrap_or_else(|| place.path().join("installation.tar.xz"));
    let site = Site::logged();
    let database = site.path("database");
    let commit = |numbers: std::ops::RangeInclusive<u64>, word| numbers.for_each(|n| write(&database, n, word));
    commit(1..=5, "first");
    site.backup("sim");
    for last in [7, 9, LAST_LEFT] {
        let next = log::last_transaction(&database).expect("last") + 1;
        commit(next..=last, "first");
        archive(&site);
    }
    super::in_place(&site, Some(RecoveryTarget::Transaction(LEFT_AT)));
    archive(&site);
    commit(LEFT_AT + 1..=10, "then");
    archive(&site);
    commit(11..=LAST, "then");
    archive(&site);
    drop(std::fs::remove_dir_all(site.path("state/processes")));
    tar(&["-cJf"], &file, site.root());
    let next = Site::logged();
    KEPT.iter().for_each(|name| drop(std::fs::remove_dir_all(next.path(name))));
    tar(&["-xJf"], &file, next.root());
    assert_eq!(restored(&next, None).0, expected(LEFT_AT, LAST));
}
