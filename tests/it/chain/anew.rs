//! Several databases in one place, one after the other: each has a log of its own, and what comes back is what is in service.

use super::apart::{Away, MAIN, SECOND, both};
use super::{State, archive, archive_fails, archived, commit, copy, live, restore, restored, told};
use crate::site::Site;
use crate::workshop::{INTERVAL, PATIENCE};
use neo4j_backup_agent::base::Code;
use neo4j_backup_agent::base::clock::{Clock, SystemClock, wait_until};
use neo4j_backup_agent::driver::log::RecoveryTarget;
use neo4j_backup_agent::driver::sim::log;
use std::fs;

/// Another database in the place of the one that was there.
pub(super) fn make_anew(site: &Site) {
    fs::remove_dir_all(site.path("database")).expect("drop it");
    neo4j_backup_agent::driver::sim::populate(&site.path("database"), 12, 40_000).expect("populate");
    fs::write(site.path("database/identity"), "sim-anew\n").expect("identity");
    log::begin(&site.path("database")).expect("log");
}

/// Bases are stamped by the second; one that finds its second taken is stamped ahead.
fn next_second() {
    let now = SystemClock.now().as_second();
    assert!(wait_until(PATIENCE, INTERVAL, || SystemClock.now().as_second() > now));
}

/// The database that is there, kept beside it.
pub(super) fn keep(site: &Site) {
    copy(&site.path("database/data"), &site.path("former"));
    fs::copy(site.path("database/identity"), site.path("former-identity")).expect("identity");
}

/// The one that was kept takes the place again.
pub(super) fn bring_back(site: &Site) {
    super::put_back(site, &site.path("former"));
    fs::copy(site.path("former-identity"), site.path("database/identity")).expect("identity");
}

// req: X3 X4
#[test]
fn a_database_that_was_made_anew_is_not_mistaken_for_the_one_before() {
    let (site, mut former) = both();
    commit(&site, 8, &mut former);
    let away = Away::take(&site, MAIN);
    assert_eq!(archive_fails(&site), Code::BackupPartial);
    make_anew(&site);
    let mut states = Vec::new();
    commit(&site, 12, &mut states);
    site.run(&["adopt", "sim", "--yes"]);
    assert_eq!(archive_fails(&site), Code::BackupPartial);
    commit(&site, 2, &mut states);
    assert_eq!(archive_fails(&site), Code::BackupPartial);
    drop(away);
    assert_eq!(restored(&site, None).0, live(&site));
    assert_eq!(restored(&site, Some(RecoveryTarget::Transaction(13))).0, states[13], "not the former one's");
    let out = site.path("former");
    let output = site.run(&["restore", "sim", "--to-tx", "15", "--into", &out.display().to_string()]);
    assert!(output.status.success(), "{output:?}");
    assert!(super::told(&output).contains("history of other data, which was left"), "{output:?}");
}

// req: X3 X4
#[test]
fn a_former_database_that_comes_back_begins_a_history_and_is_what_is_restored() {
    let (site, mut former) = both();
    keep(&site);
    let away = Away::take(&site, MAIN);
    make_anew(&site);
    let mut states = Vec::new();
    commit(&site, 3, &mut states);
    site.run(&["adopt", "sim", "--yes"]);
    assert_eq!(archive_fails(&site), Code::BackupPartial);
    commit(&site, 2, &mut states);
    assert_eq!(archive_fails(&site), Code::BackupPartial);
    drop(away);
    let then = SystemClock.now();
    next_second();
    let away = Away::take(&site, SECOND);
    bring_back(&site);
    for _ in 0..2 {
        commit(&site, 2, &mut former);
        assert_eq!(archive_fails(&site), Code::BackupPartial);
    }
    assert_eq!(restored(&site, None).0, live(&site), "the one that held the other database is away");
    let error = restore(&site, Some(RecoveryTarget::Time(then)), &site.path("out")).expect_err("the other's time");
    assert_eq!(error.code(), Code::RestoreTargetUnreachable, "{error}");
    drop(away);
    let in_service = |text: &str| {
        let (state, report) = restored(&site, None);
        assert_eq!(state, live(&site), "{text}");
        assert_eq!(report.reached.expect("reached").lineage, 2, "{text}: one of its own");
    };
    in_service("all are here");
    site.run(&["rescan"]);
    in_service("by what the repositories hold");
    let number = RecoveryTarget::Transaction(former.len() as u64 - 1);
    assert_eq!(restored(&site, Some(number)).0, live(&site));
}

/// Its last commit may be older than the archive of the one before: that tells when it was written, not when it was in service.
// req: X3 X4
#[test]
fn a_database_that_was_written_elsewhere_says_nothing_of_the_time_before_it_came() {
    let (site, former) = archived(4, &[3]);
    next_second();
    make_anew(&site);
    let mut states: Vec<State> = Vec::new();
    commit(&site, 3, &mut states);
    site.run(&["adopt", "sim", "--yes"]);
    archive(&site);
    for text in ["by the record", "by what the repository holds"] {
        for number in [4, 6, 7] {
            let time = RecoveryTarget::Time(super::at(number));
            assert_eq!(restored(&site, Some(time)).0, former[number as usize], "{text}: transaction {number}");
        }
        assert_eq!(restored(&site, None).0, live(&site), "{text}");
        site.run(&["rescan"]);
    }
}

// req: X3 X4
#[test]
fn what_a_restore_of_a_former_database_took_out_of_service_is_not_restored_unasked() {
    let (site, former) = archived(4, &[3]);
    keep(&site);
    next_second();
    let list = String::from_utf8_lossy(&site.run(&["list"]).stdout).into_owned();
    let base = list.split_whitespace().find(|word| word.starts_with("sim-")).expect("a backup").to_owned();
    make_anew(&site);
    let mut states: Vec<State> = Vec::new();
    commit(&site, 3, &mut states);
    site.run(&["adopt", "sim", "--yes"]);
    archive(&site);
    commit(&site, 2, &mut states);
    archive(&site);
    let back = site.run(&["restore", "sim", &base, "--to-tx", "7", "--in-place", "--yes"]);
    assert!(back.status.success(), "{}", told(&back));
    assert_eq!(live(&site), former[7]);
    let error = restore(&site, None, &site.path("out")).expect_err("the other one was left");
    assert_eq!(error.code(), Code::RestoreTargetUnreachable, "{error}");
    assert!(error.message().contains("was restored in place to transaction 7"), "{error}");
    let checked = || String::from_utf8_lossy(&site.run(&["check", "sim"]).stdout).into_owned();
    assert!(checked().contains("nothing was archived since the restore in place"), "{}", checked());
    // Which database it is stands beside its data here.
    fs::copy(site.path("former-identity"), site.path("database/identity")).expect("identity");
    archive(&site);
    assert_eq!(restored(&site, None).0, former[7]);
    assert!(!checked().contains("nothing was archived since"), "{}", checked());
}
