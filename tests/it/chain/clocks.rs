//! The host's clock is wrong, or is set right, while databases are archived and exchanged: what came later is still what came
//! later, and no time is promised that has not come.

use super::anew::{bring_back, keep, make_anew};
use super::{archive, archived, at, commit, in_place, live, restore, restored};
use crate::site::Site;
use jiff::SignedDuration;
use neo4j_backup_agent::base::Code;
use neo4j_backup_agent::base::clock::{Clock, SystemClock};
use neo4j_backup_agent::base::ids::TargetName;
use neo4j_backup_agent::driver::log::RecoveryTarget;
use neo4j_backup_agent::driver::sim::log;
use neo4j_backup_agent::operation::answer::Answer;
use neo4j_backup_agent::operation::request::Request;

/// How far the clock is set back.
const HALF_AN_HOUR: SignedDuration = SignedDuration::from_mins(30);

/// What is in service is archived without a further base, and is what comes back.
fn goes_on(site: &Site, lineage: u32) {
    for number in 0..3 {
        log::commit(&site.path("database"), 0, &format!("later {lineage} {number}"), at(200)).expect("commit");
        let report = archive(site);
        assert_eq!((report.bases.len(), report.repositories[0].lineage), (0, lineage), "{report:?}");
        assert_eq!(restored(site, None).0, live(site));
    }
}

/// Whether `check` says that nothing was archived since a restore in place.
fn is_told(site: &Site) -> bool {
    let Ok(Answer::Check { findings }) = site.ask(&Request::Check { target: None }) else { panic!("the check failed") };
    findings.iter().any(|found| found.finding.code == "restored-not-archived")
}

// req: X3 X4
#[test]
fn what_is_restored_in_place_after_the_clock_was_set_back_is_the_present() {
    let (mut site, mut states) = archived(10, &[10]);
    site.set_clock_ahead(-HALF_AN_HOUR);
    in_place(&site, Some(RecoveryTarget::Transaction(15)));
    let error = restore(&site, None, &site.path("out")).expect_err("what was left is not the present");
    assert_eq!(error.code(), Code::RestoreTargetUnreachable, "{error}");
    assert!(is_told(&site), "`check` says that what is in service is in no backup");
    states.truncate(16);
    commit(&site, 2, &mut states);
    let report = archive(&site);
    assert_eq!((report.bases.len(), report.repositories[0].lineage), (1, 2), "{report:?}");
    assert!(!is_told(&site));
    goes_on(&site, 2);
}

// req: X3 X4
#[test]
fn a_restore_in_place_by_a_clock_that_was_ahead_is_archived_when_it_is_right_again() {
    let (mut site, mut states) = archived(10, &[10]);
    site.set_clock_ahead(HALF_AN_HOUR);
    in_place(&site, Some(RecoveryTarget::Transaction(15)));
    site.set_clock_ahead(SignedDuration::ZERO);
    states.truncate(16);
    commit(&site, 2, &mut states);
    assert!(is_told(&site));
    let report = archive(&site);
    assert_eq!((report.bases.len(), report.repositories[0].lineage), (1, 2), "{report:?}");
    assert!(!is_told(&site));
    goes_on(&site, 2);
}

// req: X3 X4
#[test]
fn what_was_archived_by_a_clock_that_was_ahead_is_left_by_a_restore_when_it_is_right_again() {
    let (mut site, mut states) = archived(10, &[10]);
    site.set_clock_ahead(HALF_AN_HOUR);
    commit(&site, 3, &mut states);
    archive(&site);
    site.set_clock_ahead(SignedDuration::ZERO);
    in_place(&site, Some(RecoveryTarget::Transaction(15)));
    let error = restore(&site, None, &site.path("out")).expect_err("what was left is not the present");
    assert_eq!(error.code(), Code::RestoreTargetUnreachable, "{error}");
    assert!(is_told(&site));
    states.truncate(16);
    commit(&site, 2, &mut states);
    let report = archive(&site);
    assert_eq!((report.bases.len(), report.repositories[0].lineage), (1, 2), "{report:?}");
    goes_on(&site, 2);
}

// req: X3 X4
#[test]
fn a_database_that_was_made_anew_after_the_clock_was_set_back_is_the_present() {
    let (mut site, former) = archived(10, &[10]);
    site.set_clock_ahead(-HALF_AN_HOUR);
    make_anew(&site);
    commit(&site, 3, &mut Vec::new());
    let target = TargetName::new("sim").expect("name");
    site.ask(&Request::Adopt { target, new_repository: false }).expect("adopted");
    let report = archive(&site);
    assert_eq!((report.bases.len(), report.repositories[0].lineage), (1, 1), "{report:?}");
    assert_eq!(restored(&site, None).0, live(&site));
    goes_on(&site, 1);
    // The one before is there as well.
    assert_eq!(restored(&site, Some(RecoveryTarget::Transaction(20))).0, former[20]);
}

// req: X3 X4
#[test]
fn an_archive_dated_by_a_clock_that_was_ahead_promises_no_time_that_has_not_come() {
    for batches in [&[10][..], &[10, 3]] {
        let (mut site, _) = archived(10, batches);
        site.set_clock_ahead(SignedDuration::from_mins(30));
        archive(&site);
        site.set_clock_ahead(SignedDuration::ZERO);
        log::commit(&site.path("database"), 0, "when the clock was right", SystemClock.now()).expect("commit");
        let then = RecoveryTarget::Time(SystemClock.now());
        // By the record, which alone knows of a run that archived nothing.
        let error = restore(&site, Some(then), &site.path("out")).expect_err("it is not archived");
        assert_eq!(error.code(), Code::RestoreTargetUnreachable, "{error}");
        archive(&site);
        assert_eq!(restored(&site, Some(then)).0, live(&site));
    }
}

// req: X3 X4
#[test]
fn a_database_that_was_made_anew_while_the_clock_was_ahead_gives_way_to_the_former_when_it_is_right_again() {
    let (mut site, mut former) = archived(10, &[10]);
    keep(&site);
    site.set_clock_ahead(HALF_AN_HOUR);
    let adopt = Request::Adopt { target: TargetName::new("sim").expect("name"), new_repository: false };
    make_anew(&site);
    commit(&site, 3, &mut Vec::new());
    site.ask(&adopt).expect("adopted");
    archive(&site);
    assert_eq!(restored(&site, None).0, live(&site));
    site.set_clock_ahead(SignedDuration::ZERO);
    bring_back(&site);
    commit(&site, 2, &mut former);
    site.ask(&adopt).expect("adopted");
    let report = archive(&site);
    assert_eq!(report.bases.len(), 1, "{report:?}");
    assert_eq!(restored(&site, None).0, live(&site));
    goes_on(&site, report.repositories[0].lineage);
}
