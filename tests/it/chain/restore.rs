//! Every state that was archived comes back, exactly, and nothing else does.

use super::{State, archive, archived, at, commit, live, restore, restored};
use crate::site::Site;
use neo4j_backup_agent::base::Code;
use neo4j_backup_agent::driver::log::RecoveryTarget;
use neo4j_backup_agent::driver::sim::log;
use neo4j_backup_agent::operation::answer::RestoreReport;

fn reached(report: &RestoreReport) -> u64 {
    report.reached.as_ref().and_then(|reached| reached.transaction).expect("reached")
}

// req: X1 X2
#[test]
fn the_first_archive_takes_a_base_and_the_end_comes_back() {
    let site = Site::logged();
    let mut states = Vec::new();
    commit(&site, 5, &mut states);
    let first = archive(&site);
    assert_eq!((first.bases.len(), first.gaps.len()), (1, 0), "{first:?}");
    assert_eq!((first.repositories[0].batches, first.repositories[0].to_transaction), (0, 5));
    commit(&site, 20, &mut states);
    let second = archive(&site);
    assert_eq!((second.bases.len(), second.repositories[0].transactions), (0, 20), "{second:?}");
    assert_eq!((second.repositories[0].lineage, second.repositories[0].to_transaction), (1, 25));
    let (state, report) = restored(&site, None);
    assert_eq!((state, reached(&report), report.batches), (live(&site), 25, 1));
    // Nothing new: nothing is written.
    let objects = site.objects();
    assert_eq!(archive(&site).repositories[0].batches, 0);
    assert_eq!(site.objects(), objects);
}

// req: X2 X3
#[test]
fn every_transaction_and_every_second_comes_back_exactly() {
    let site = Site::logged();
    let mut states: Vec<State> = Vec::new();
    commit(&site, 3, &mut states);
    archive(&site);
    for _ in 0..3 {
        commit(&site, 9, &mut states);
        archive(&site);
    }
    // Another base in the middle: later targets begin there.
    site.backup("sim");
    commit(&site, 5, &mut states);
    archive(&site);
    for number in 3..states.len() as u64 {
        for until in [
            RecoveryTarget::Transaction(number),
            RecoveryTarget::BeforeTransaction(number + 1),
            RecoveryTarget::Time(at(number)),
        ] {
            let (state, report) = restored(&site, Some(until));
            assert_eq!(state, states[number as usize], "{until:?}");
            assert_eq!(reached(&report), number, "{until:?}");
            assert_eq!(report.until, Some(until));
            if number > 30 {
                assert!(report.batches <= 1, "{until:?} begins at the second base: {report:?}");
            }
        }
    }
    for until in [RecoveryTarget::Transaction(2), RecoveryTarget::BeforeTransaction(3), RecoveryTarget::Transaction(36)]
    {
        let error = restore(&site, Some(until), &site.path("out")).expect_err("it is not archived");
        assert_eq!(error.code(), Code::RestoreTargetUnreachable, "{until:?}: {error}");
    }
    assert!(!site.path("out").exists());
}

#[test]
fn a_base_taken_after_the_clock_ran_back_knows_what_it_holds() {
    let (site, mut states) = archived(5, &[1]);
    commit(&site, 4, &mut states);
    // From second 10 back to second 6, then a base, and a batch that spans it.
    for second in [6, 7] {
        log::commit(&site.path("database"), 1, &format!("again {second}"), at(second)).expect("commit");
        states.push(live(&site));
    }
    site.backup("sim");
    for second in [12, 13] {
        log::commit(&site.path("database"), 2, &format!("later {second}"), at(second)).expect("commit");
        states.push(live(&site));
    }
    assert_eq!(archive(&site).repositories[0].transactions, 8, "one batch spans the base");
    for (second, last) in [(9, 9), (10, 12), (12, 13)] {
        let (state, report) = restored(&site, Some(RecoveryTarget::Time(at(second))));
        assert_eq!((reached(&report), state), (last, states[last as usize].clone()), "second {second}");
    }
}
