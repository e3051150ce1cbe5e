//! The host's clock was ahead for a while, and is right again.

use super::{archive, archived, live, restore, restored};
use jiff::SignedDuration;
use neo4j_backup_agent::base::Code;
use neo4j_backup_agent::base::clock::{Clock, SystemClock};
use neo4j_backup_agent::driver::log::RecoveryTarget;
use neo4j_backup_agent::driver::sim::log;

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
