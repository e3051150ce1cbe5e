//! The host's clock is wrong, or is set right, while databases are exchanged: what came later is still what came later.

use super::anew::make_anew;
use super::{archive, archived, at, commit, in_place, live, restore, restored};
use crate::site::Site;
use jiff::SignedDuration;
use neo4j_backup_agent::base::Code;
use neo4j_backup_agent::base::ids::TargetName;
use neo4j_backup_agent::driver::log::RecoveryTarget;
use neo4j_backup_agent::driver::sim::log;
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

// req: X3 X4
#[test]
fn what_is_restored_in_place_after_the_clock_was_set_back_is_the_present() {
    let (mut site, mut states) = archived(10, &[10]);
    site.set_clock_ahead(-HALF_AN_HOUR);
    in_place(&site, Some(RecoveryTarget::Transaction(15)));
    let error = restore(&site, None, &site.path("out")).expect_err("what was left is not the present");
    assert_eq!(error.code(), Code::RestoreTargetUnreachable, "{error}");
    states.truncate(16);
    commit(&site, 2, &mut states);
    let report = archive(&site);
    assert_eq!((report.bases.len(), report.repositories[0].lineage), (1, 2), "{report:?}");
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
