//! Repositories that are away in turn while histories are left: one history is never known by two numbers, nor two by one,
//! and what comes back is what is in service.

use super::{
    State, archive, archive_fails, archived, at, commit, copy, in_place, keep_the_ledger, live, put_back, restore,
    restored, set_the_ledger_back, status, two_repositories,
};
use crate::site::{Site, backup_request, restore_request};
use crate::workshop::{INTERVAL, PATIENCE};
use neo4j_backup_agent::base::Code;
use neo4j_backup_agent::base::clock::{Clock, SystemClock, wait_until};
use neo4j_backup_agent::driver::log::RecoveryTarget;
use neo4j_backup_agent::driver::sim::log;
use neo4j_backup_agent::operation::answer::ArchiveReport;
use neo4j_backup_agent::operation::request::{Destination, Request, RestoreRequest};
use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

pub(super) const MAIN: &str = "repository";
pub(super) const SECOND: &str = "second/repository";

/// A repository whose disk is not there; it comes back when this is dropped.
pub(super) struct Away(PathBuf);

impl Away {
    pub(super) fn take(site: &Site, repository: &str) -> Away {
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
pub(super) fn both() -> (Site, Vec<State>) {
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
    // Where a repository is out of reach, the second of a history is its number.
    let second = SystemClock.now().as_second();
    assert!(wait_until(PATIENCE, INTERVAL, || SystemClock.now().as_second() > second));
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

/// The numbers that the history in service has.
fn lineages(report: &ArchiveReport) -> BTreeSet<u32> {
    report.repositories.iter().map(|done| done.lineage).collect()
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
    assert_eq!(lineages(&archive(&site)).len(), 1);
    assert_eq!(restored(&site, None).0, live(&site));

    // One that never saw what was left goes on under the number of the others.
    let away = Away::take(&site, SECOND);
    commit(&site, 2, &mut states);
    assert_eq!(archive_fails(&site), Code::BackupPartial);
    go_back(&site, states.len() as u64 - 3, &mut states);
    drop(away);
    assert_eq!(lineages(&archive(&site)).len(), 1);
    assert_eq!(restored(&site, None).0, live(&site));
    site.verify().expect("sound");
}

/// What becomes of the record between two histories.
#[derive(Clone, Copy, Debug)]
enum Record {
    Lost,
    SetBack,
}

// req: X3 X4
#[test]
fn without_the_record_no_number_is_given_that_a_repository_out_of_reach_may_have_given() {
    for record in [Record::Lost, Record::SetBack] {
        for (first, second) in [(1, 2), (2, 2), (2, 9)] {
            let (site, mut states) = both();
            let kept = super::keep_the_ledger(&site);
            let forget = || match record {
                Record::Lost => super::lose_the_ledger(&site),
                Record::SetBack => super::set_the_ledger_back(&site, &kept),
            };
            let away = Away::take(&site, MAIN);
            for _ in 0..first {
                forget();
                fork(&site, 6, &mut states);
            }
            drop(away);
            let away = Away::take(&site, SECOND);
            forget();
            fork(&site, second, &mut states);
            drop(away);
            let what = format!("{record:?}, {first} forks and {second} transactions");
            holds(&site, &states, &what);
            let _ = site.run(&["rescan"]);
            holds(&site, &states, &what);
            commit(&site, 1, &mut states);
            archive(&site);
            holds(&site, &states, &what);
            forget();
            assert_eq!(restored(&site, None).0, live(&site), "{what}");
        }
    }
}

// req: X3 X4
#[test]
fn a_restore_to_the_end_of_a_chain_begins_a_number_where_another_repository_may_have_gone_further() {
    let (site, mut states) = both();
    log::prune(&site.path("database"), 1).expect("prune");
    assert_eq!(archive(&site).gaps.len(), 0);
    let base = site.backup("sim");
    commit(&site, 1, &mut states);
    archive(&site);
    let end = states.clone();
    let away = Away::take(&site, MAIN);
    fork(&site, 4, &mut states);
    drop(away);
    let away = Away::take(&site, SECOND);
    // The other repository holds a later history, so that the one that was left has to be named.
    let until = Some(RecoveryTarget::Transaction(end.len() as u64 - 1));
    let backup = Some(base.id.to_string());
    let unnamed = RestoreRequest { until, ..restore_request("sim", Destination::InPlace) };
    site.ask(&Request::Restore(unnamed.clone())).expect_err("a later history is out of reach");
    site.ask(&Request::Restore(RestoreRequest { backup, ..unnamed })).expect("restored in place");
    states = end;
    commit(&site, 3, &mut states);
    assert_eq!(archive_fails(&site), Code::BackupPartial);
    drop(away);
    assert_eq!(restored(&site, None).0, live(&site));
    commit(&site, 1, &mut states);
    assert_eq!(lineages(&archive(&site)).len(), 1);
    assert_eq!(restored(&site, None).0, live(&site));
}

// req: X3 X4
#[test]
fn what_was_left_is_never_given_for_what_a_repository_that_fails_holds() {
    for damaged in [false, true] {
        let (site, mut states) = both();
        let away = Away::take(&site, MAIN);
        fork(&site, 8, &mut states);
        drop(away);
        let away = Away::take(&site, SECOND);
        fork(&site, 8, &mut states);
        drop(away);
        holds(&site, &states, "both are there");
        let away = (!damaged).then(|| Away::take(&site, MAIN));
        if damaged {
            super::trouble::flip_newest(&site.path(MAIN), ".log.");
        }
        let last = FORK + 8;
        for until in [RecoveryTarget::End, RecoveryTarget::Transaction(last), RecoveryTarget::BeforeTransaction(last)] {
            let refused = restore(&site, Some(until), &site.path("less"));
            let error = refused.expect_err("the other repository holds another history");
            assert!(!site.path("less").exists(), "{until:?}: {error}");
        }
        drop(away);
    }
}

// req: X3
#[test]
fn what_goes_on_from_the_archives_end_after_a_restore_is_what_is_in_service() {
    for until in [None, Some(RecoveryTarget::Transaction(6))] {
        let (site, mut states) = archived(4, &[2]);
        in_place(&site, until);
        commit(&site, 3, &mut states);
        archive(&site);
        assert_eq!(restored(&site, None).0, live(&site), "{until:?}");
    }
}

// req: X3
#[test]
fn what_a_restore_left_is_told_from_what_was_restored_in_whichever_history() {
    let (site, mut states) = archived(4, &[4]);
    go_back(&site, 7, &mut states);
    site.backup("sim");
    // Of the first history again.
    in_place(&site, Some(RecoveryTarget::Transaction(5)));
    let error = restore(&site, None, &site.path("left")).expect_err("nothing was archived since");
    assert_eq!(error.code(), Code::RestoreTargetUnreachable, "{error}");
    assert!(error.hint().contains("--to-tx 5"), "{}", error.hint());
    archive(&site);
    assert_eq!(restored(&site, None).0, live(&site));
}

// req: X3 X4
#[test]
fn a_base_that_no_increment_has_followed_is_the_newest_state_all_the_same() {
    let (site, mut states) = both();
    let away = Away::take(&site, SECOND);
    commit(&site, 3, &mut states);
    assert!(site.ask(&Request::Backup(backup_request("sim"))).is_err_and(|error| error.code() == Code::BackupPartial));
    drop(away);
    assert_eq!(restored(&site, None).0, live(&site));
    let away = Away::take(&site, MAIN);
    let error = restore(&site, None, &site.path("less")).expect_err("the newest state is not there");
    assert!(error.hint().contains(&format!("--to-tx {}", FORK + 2)), "{error}: {}", error.hint());
    drop(away);
    // One that has the history in service is farther than one with more of what was left.
    in_place(&site, Some(RecoveryTarget::Transaction(FORK)));
    let away = Away::take(&site, MAIN);
    assert!(site.ask(&Request::Backup(backup_request("sim"))).is_err_and(|error| error.code() == Code::BackupPartial));
    assert_eq!(restored(&site, None).0, live(&site));
    drop(away);
}

// req: X3 X4
#[test]
fn a_host_that_was_set_back_while_a_repository_was_away_gives_nothing_of_which_it_cannot_tell() {
    let (site, mut states) = both();
    let (aside, kept) = (site.path("aside"), keep_the_ledger(&site));
    copy(&site.path("database/data"), &aside);
    // What nobody will know of but the first repository.
    let away = Away::take(&site, SECOND);
    commit(&site, 4, &mut states);
    assert_eq!(archive_fails(&site), Code::BackupPartial);
    drop(away);
    let away = Away::take(&site, MAIN);
    put_back(&site, &aside);
    set_the_ledger_back(&site, &kept);
    states.truncate(FORK as usize + 3);
    for _ in 0..3 {
        let number = states.len() as u64;
        log::commit(&site.path("database"), 1, &format!("otherwise {number}"), at(100 + number)).expect("commit");
        states.push(live(&site));
        assert_eq!(archive_fails(&site), Code::BackupPartial);
    }
    drop(away);
    for rescanned in [false, true] {
        if rescanned {
            assert!(site.run(&["rescan"]).status.success());
        }
        for until in [None, Some(RecoveryTarget::Transaction(FORK + 3)), Some(RecoveryTarget::Transaction(FORK + 5))] {
            let error = restore(&site, until, &site.path("unclear")).expect_err("which of the two?");
            assert_eq!(error.code(), Code::LogForked, "{until:?}: {error}");
            assert!(error.hint().contains("--type incremental"), "{}", error.hint());
        }
        let common = Some(RecoveryTarget::Transaction(FORK + 2));
        assert_eq!(restored(&site, common).0, states[FORK as usize + 2], "both have it");
    }
    // The one that holds what was, is told apart once the source is compared with it.
    assert_eq!(archive_fails(&site), Code::BackupPartial);
    assert_eq!(restored(&site, None).0, live(&site));
    assert!(site.run(&["adopt", "sim", "--yes"]).status.success());
    archive(&site);
    assert_eq!(restored(&site, None).0, live(&site));
}

// req: X3 X4
#[test]
fn a_record_that_was_set_back_hides_no_later_history_of_a_repository_that_is_away() {
    let (site, mut states) = both();
    let kept = keep_the_ledger(&site);
    let away = Away::take(&site, MAIN);
    commit(&site, 3, &mut states);
    assert_eq!(archive_fails(&site), Code::BackupPartial);
    go_back(&site, FORK + 4, &mut states);
    assert_eq!(archive_fails(&site), Code::BackupPartial);
    commit(&site, 2, &mut states);
    assert_eq!(archive_fails(&site), Code::BackupPartial);
    drop(away);
    let away = Away::take(&site, SECOND);
    set_the_ledger_back(&site, &kept);
    for _ in 0..2 {
        commit(&site, 2, &mut states);
        assert_eq!(archive_fails(&site), Code::BackupPartial);
    }
    drop(away);
    let error = restore(&site, None, &site.path("less")).expect_err("one of the two has less");
    assert_eq!(error.code(), Code::LogForked, "{error}");
    archive(&site);
    holds(&site, &states[..=FORK as usize + 4], "before");
    assert_eq!(restored(&site, None).0, live(&site));
}

/// A moment behind everything that was committed, and before everything that will be.
fn a_moment() -> RecoveryTarget {
    let moment = SystemClock.now();
    assert!(wait_until(PATIENCE, INTERVAL, || SystemClock.now().as_second() > moment.as_second() + 1));
    RecoveryTarget::Time(moment)
}

/// Commits with the time that it is.
fn commit_now(site: &Site, count: u64) {
    for _ in 0..count {
        let number = log::last_transaction(&site.path("database")).expect("last") + 1;
        log::commit(&site.path("database"), 3, &format!("now {number}"), SystemClock.now()).expect("commit");
    }
}

// req: X2 X4
#[test]
fn a_time_between_two_restores_in_place_gives_what_was_in_service_then_or_nothing() {
    // Forth and back: what comes back was not in service in between.
    let site = Site::logged();
    for count in [3, 6] {
        commit_now(&site, count);
        archive(&site);
    }
    // Backups are stamped with whole seconds, no two with the same.
    a_moment();
    in_place(&site, Some(RecoveryTarget::Transaction(5)));
    archive(&site);
    a_moment();
    let (then, moment) = (live(&site), a_moment());
    archive(&site);
    assert_eq!(restored(&site, Some(moment)).0, then);
    in_place(&site, Some(RecoveryTarget::Transaction(9)));
    archive(&site);
    commit_now(&site, 1);
    archive(&site);
    // How far the archive of a history was looked at is known of the newest one alone.
    let error = restore(&site, Some(moment), &site.path("later")).expect_err("not what came back later");
    assert_eq!(error.code(), Code::RestoreTargetUnreachable, "{error}");
    assert!(error.hint().contains("--to-tx 5"), "{}", error.hint());
    assert_eq!(restored(&site, None).0, live(&site));

    // What was lost by a restore to the archive's end was in service until then.
    let site = Site::logged();
    commit_now(&site, 7);
    archive(&site);
    a_moment();
    commit_now(&site, 3);
    let moment = a_moment();
    in_place(&site, None);
    archive(&site);
    let error = restore(&site, Some(moment), &site.path("less")).expect_err("it was never archived");
    assert_eq!(error.code(), Code::RestoreTargetUnreachable, "{error}");
    assert_eq!(restored(&site, None).0, live(&site));
}

// req: X3
#[test]
fn a_new_repository_in_the_place_of_one_that_was_lost_begins_a_history_of_its_own() {
    let (site, _) = archived(6, &[3]);
    in_place(&site, Some(RecoveryTarget::Transaction(6)));
    let left = archive(&site).repositories[0].lineage;
    fs::remove_dir_all(site.path("repository")).expect("lose it");
    assert_eq!(archive_fails(&site), Code::RepositoryNotFound);
    assert!(site.run(&["adopt", "sim", "--new-repository", "--yes"]).status.success());
    commit_now(&site, 2);
    let report = archive(&site);
    assert!(report.repositories[0].lineage > left, "{report:?}");
    assert_eq!(restored(&site, None).0, live(&site));
    site.verify().expect("nothing of the lost one is missed");
}

// req: X3 X4
#[test]
fn a_database_that_was_set_back_while_a_repository_was_away_says_what_is_to_be_done_there() {
    let (site, mut states) = both();
    let aside = site.path("aside");
    copy(&site.path("database/data"), &aside);
    commit(&site, 2, &mut states);
    archive(&site);
    put_back(&site, &aside);
    states.truncate(FORK as usize + 3);
    let number = FORK + 3;
    log::commit(&site.path("database"), 1, "another", at(number)).expect("commit");
    let away = Away::take(&site, SECOND);
    let refused = archive_fails(&site);
    assert!(matches!(refused, Code::LogForked | Code::RepositoryNotFound), "one is forked and one is away: {refused}");
    assert!(!site.run(&["adopt", "sim", "--yes"]).status.success(), "one of the two is not there");
    assert_eq!(archive_fails(&site), Code::BackupPartial);
    drop(away);
    for _ in 0..2 {
        let out = site.path("out");
        let output = site.run(&["restore", "sim", "--into", &out.display().to_string()]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success() && !said.contains("was left"), "what is in service was not left: {said}");
        assert_eq!(log::last_transaction(&out).expect("last"), number);
        fs::remove_dir_all(out).expect("remove");
        let error = site.ask(&super::archive_request()).expect_err("not everywhere");
        assert_eq!(error.code(), Code::BackupPartial, "{error}");
        assert!(error.hint().contains("adopt sim"), "{}", error.hint());
    }
    assert!(site.run(&["adopt", "sim", "--yes"]).status.success());
    archive(&site);
    assert_eq!(restored(&site, None).0, live(&site));
    site.verify().expect("sound");
}
