//! What becomes of a chain when its source's log is pruned, or its history is another one.

use super::{
    archive, archive_fails, archive_request, archived, at, commit, copy, events, in_place, keep_the_ledger, live,
    lose_the_ledger, put_back, restore, restored, set_the_ledger_back, status, told,
};
use crate::site::Site;
use neo4j_backup_agent::base::Code;
use neo4j_backup_agent::driver::log::RecoveryTarget;
use neo4j_backup_agent::driver::sim::log;
use neo4j_backup_agent::operation::request::Request;
use std::fs;

// req: X2
#[test]
fn a_pruned_log_is_announced_at_once_and_closed_by_a_new_base() {
    let (site, mut states) = archived(10, &[10]);
    commit(&site, 20, &mut states);
    log::prune(&site.path("database"), 1).expect("prune");
    let report = archive(&site);
    assert_eq!((report.gaps.len(), report.bases.len()), (1, 1), "{report:?}");
    assert_eq!(report.repositories[0].lineage, 1, "a gap is no new history");
    assert_eq!(events(&site, "log-gap"), 1);
    assert_eq!(status(&site).log.expect("log").gaps, [40]);
    // A base has closed the gap: `status` tells of it, and no later run again.
    for count in [0, 5, 5] {
        commit(&site, count, &mut states);
        let report = archive(&site);
        assert_eq!((report.gaps, report.bases.len()), (Vec::new(), 0));
        assert_eq!((events(&site, "log-gap"), status(&site).log.expect("log").gaps), (1, vec![40]));
    }
    let log = status(&site).log.expect("log");
    assert_eq!((log.gaps, log.from_transaction, log.to_transaction), (vec![40], 40, 50));
    site.verify().expect("a gap that was announced is no damage");
    for number in (10..=20).chain(40..=50) {
        let (state, _) = restored(&site, Some(RecoveryTarget::Transaction(number)));
        assert_eq!(state, states[number as usize], "{number}");
    }
    // Every moment that is promised can be had, the first ones too.
    for number in 40..=42 {
        let (state, _) = restored(&site, Some(RecoveryTarget::Time(at(number))));
        assert_eq!(state, states[number as usize], "{number}");
    }
    for number in 21..40 {
        let error = restore(&site, Some(RecoveryTarget::Transaction(number)), &site.path("out")).expect_err("lost");
        assert_eq!(error.code(), Code::LogGap, "{number}: {error}");
        assert!(error.message().contains("after transaction 20"), "{error}");
    }
}

// req: X3
#[test]
fn a_restore_in_place_is_remembered_without_the_ledger() {
    let (site, _) = archived(4, &[3]);
    in_place(&site, Some(RecoveryTarget::Transaction(6)));
    lose_the_ledger(&site);
    let out = site.path("out");
    let output = site.run(&["restore", "sim", "--into", &out.display().to_string()]);
    assert!(told(&output).contains("may be a history that was left"), "{output:?}");
    fs::remove_dir_all(&out).expect("remove");
    archive(&site);
    let output = site.run(&["restore", "sim", "--into", &out.display().to_string()]);
    assert!(output.status.success() && !told(&output).contains("was left"), "{output:?}");
    assert_eq!(log::last_transaction(&out).expect("last"), 6);
}

// req: X3
#[test]
fn a_restore_in_place_that_a_set_back_ledger_forgot_is_remembered_beside_an_older_one() {
    let (site, mut states) = archived(4, &[3]);
    in_place(&site, Some(RecoveryTarget::Transaction(6)));
    commit(&site, 2, &mut states);
    archive(&site);
    let kept = keep_the_ledger(&site);
    in_place(&site, Some(RecoveryTarget::Transaction(7)));
    set_the_ledger_back(&site, &kept);
    let out = site.path("out");
    let restore = || {
        let _ = fs::remove_dir_all(&out);
        site.run(&["restore", "sim", "--into", &out.display().to_string()])
    };
    let output = restore();
    assert!(told(&output).contains("may be a history that was left"), "{output:?}");
    archive(&site);
    let output = restore();
    assert!(output.status.success() && !told(&output).contains("was left"), "{output:?}");
    assert_eq!(log::last_transaction(&out).expect("last"), 7);
}

// req: X3
#[test]
fn a_restore_in_place_begins_a_lineage_and_both_can_be_restored() {
    let (site, first) = archived(10, &[10]);
    in_place(&site, Some(RecoveryTarget::Transaction(15)));
    assert_eq!(live(&site), first[15]);
    // As long as nothing was archived since, the archive ends with what was just left: nobody wants that back unasked.
    let error = restore(&site, None, &site.path("out")).expect_err("it was left");
    assert_eq!(error.code(), Code::RestoreTargetUnreachable, "{error}");
    assert!(error.hint().contains("--to-tx 15` gives the state that was restored"), "{}", error.hint());
    let checked = || String::from_utf8_lossy(&site.run(&["check", "sim"]).stdout).into_owned();
    let warned = || checked().contains("nothing was archived since the restore in place");
    assert!(warned());
    assert_eq!(restored(&site, Some(RecoveryTarget::Transaction(20))).0, first[20]);
    let mut second = first[..=15].to_vec();
    let database = site.path("database");
    for number in 16..=30 {
        log::commit(&database, (number % 5) as u8, &format!("otherwise {number}"), at(100 + number)).expect("commit");
        second.push(live(&site));
    }
    let report = archive(&site);
    assert_eq!((report.bases.len(), report.repositories[0].lineage, report.gaps.len()), (1, 2, 0), "{report:?}");
    assert!(!warned());
    commit(&site, 3, &mut second);
    assert_eq!(archive(&site).repositories[0].lineage, 2);
    assert_eq!(restored(&site, None).0, live(&site));
    assert_eq!(restored(&site, Some(RecoveryTarget::Transaction(31))).0, second[31]);
    // What was before is the other history, by its times and by its numbers.
    for number in 10..=20 {
        assert_eq!(restored(&site, Some(RecoveryTarget::Time(at(number)))).0, first[number as usize], "{number}");
        assert_eq!(restored(&site, Some(RecoveryTarget::Transaction(number))).0, first[number as usize], "{number}");
    }
    site.verify().expect("sound");
    assert_eq!(events(&site, "log-forked"), 0);
}

#[test]
fn a_lost_ledger_does_not_make_a_restore_a_stranger() {
    let (site, _) = archived(10, &[10]);
    in_place(&site, Some(RecoveryTarget::Transaction(15)));
    log::commit(&site.path("database"), 0, "otherwise", at(100)).expect("commit");
    lose_the_ledger(&site);
    let report = archive(&site);
    assert_eq!((report.bases.len(), report.repositories[0].lineage), (1, 2), "{report:?}");
}

// req: X4
#[test]
fn a_history_that_nothing_explains_is_refused_until_it_is_adopted() {
    let (site, mut states) = archived(10, &[]);
    let aside = site.path("aside");
    copy(&site.path("database/data"), &aside);
    commit(&site, 10, &mut states);
    archive(&site);
    put_back(&site, &aside);
    let objects = site.objects();
    assert_eq!(archive_fails(&site), Code::LogForked, "the log is shorter than its archive");
    for number in 11..=25 {
        log::commit(&site.path("database"), 1, &format!("otherwise {number}"), at(200 + number)).expect("commit");
    }
    assert_eq!(archive_fails(&site), Code::LogForked);
    let error = site.ask(&Request::Backup(crate::site::backup_request("sim"))).expect_err("a base is refused as well");
    assert_eq!(error.code(), Code::LogForked);
    assert!(error.hint().contains("adopt sim"), "{}", error.hint());
    assert_eq!(site.objects(), objects, "nothing was stored");
    assert!(events(&site, "log-forked") >= 1);
    // What was archived is still there to restore.
    assert_eq!(restored(&site, None).0, states[20]);
    let refused = site.run(&["backup", "sim"]);
    let said = told(&refused);
    assert_eq!(said.matches("is not the one that is archived").count(), 1, "said once: {said}");
    let failure = status(&site).last_failure.expect("failure");
    assert_eq!(failure.error_code.as_deref(), Some("LOG_FORKED"));
    let adopted = site.run(&["adopt", "sim", "--yes"]);
    assert!(adopted.status.success(), "{}", String::from_utf8_lossy(&adopted.stderr));
    assert!(site.run(&["backup", "sim", "--type", "incremental"]).status.success());
    let after = status(&site);
    assert_eq!(after.log.map(|log| log.lineage), Some(2));
    assert_eq!(after.last_failure, None, "it was settled by the adoption");
    assert_eq!(restored(&site, None).0, live(&site));
    site.verify().expect("sound");
    // An adoption explains one fork, not every later one.
    put_back(&site, &aside);
    assert_eq!(archive_fails(&site), Code::LogForked);
}

#[test]
fn a_dry_run_writes_nothing_and_a_database_without_a_log_is_told_so() {
    let site = Site::simulated();
    assert_eq!(archive_fails(&site), Code::NotAvailable);
    let (site, mut states) = archived(5, &[]);
    commit(&site, 5, &mut states);
    let objects = site.objects();
    let output = site.run(&["backup", "sim", "--type", "incremental", "--dry-run"]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && said.contains("follows transaction 5"), "{said}");
    assert_eq!(site.objects(), objects);
    assert!(site.ask(&archive_request()).is_ok());
}

// req: X1 X2
#[test]
fn what_was_committed_between_two_bases_is_archived_by_the_first_increment() {
    for pruned in [false, true] {
        let site = Site::logged();
        let mut states = Vec::new();
        commit(&site, 5, &mut states);
        site.backup("sim");
        commit(&site, 10, &mut states);
        site.backup("sim");
        // Nothing is promised before it is archived.
        let log = status(&site).log.expect("log");
        assert_eq!((log.from_transaction, log.to_transaction), (15, 15), "{pruned}");
        if pruned {
            log::prune(&site.path("database"), 1).expect("prune");
        }
        commit(&site, 5, &mut states);
        let report = archive(&site);
        assert_eq!((report.bases.len(), report.gaps.len()), (0, 0), "{pruned} {report:?}");
        let first = if pruned { 15 } else { 5 };
        let log = status(&site).log.expect("log");
        assert_eq!((log.from_transaction, log.to_transaction), (first, 20), "{pruned}");
        for number in first..=20 {
            for until in [RecoveryTarget::Transaction(number), RecoveryTarget::Time(at(number))] {
                assert_eq!(restored(&site, Some(until)).0, states[number as usize], "{pruned} {until:?}");
            }
        }
        if pruned {
            let error = restore(&site, Some(RecoveryTarget::Transaction(9)), &site.path("out")).expect_err("not there");
            assert_eq!(error.code(), Code::LogGap, "{error}");
        }
        site.verify().expect("sound");
    }
}
