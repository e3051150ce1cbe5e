//! What is said of a chain of which pieces are gone or whose history was left, and that nothing older passes for the
//! newest state.

use super::{
    State, archive, archive_fails, archived, at, batches, commit, in_place, live, lose_the_ledger, restore, restored,
    status, told, two_repositories,
};
use crate::site::{Site, restore_request};
use crate::workshop::{INTERVAL, PATIENCE};
use neo4j_backup_agent::base::clock::wait_until;
use neo4j_backup_agent::base::task::Severity;
use neo4j_backup_agent::base::{Code, Result};
use neo4j_backup_agent::driver::log::RecoveryTarget;
use neo4j_backup_agent::driver::sim::log;
use neo4j_backup_agent::operation::answer::{Answer, RestoreReport};
use neo4j_backup_agent::operation::request::{Destination, Request, RestoreRequest};
use std::fs;
use std::path::PathBuf;

/// Manifests of full backups, oldest first.
fn bases(site: &Site) -> Vec<PathBuf> {
    let mut found = site.objects();
    found.retain(|path| !path.to_string_lossy().contains("/log/") && path.to_string_lossy().ends_with("meta.json"));
    found
}

fn id_of(manifest: &std::path::Path) -> String {
    let name = manifest.file_name().expect("name").to_string_lossy();
    format!("{}-base", name.trim_end_matches(".meta.json"))
}

/// Two histories: the first with transactions up to 20 and a base at 10, the second from 15 on with a base at 18.
fn forked(batches: &[u64]) -> (Site, Vec<State>) {
    let (site, first) = archived(10, &[10]);
    in_place(&site, Some(RecoveryTarget::Transaction(15)));
    for count in std::iter::once(&3).chain(batches) {
        otherwise(&site, *count);
        archive(&site);
    }
    (site, first)
}

fn otherwise(site: &Site, count: u64) {
    let database = site.path("database");
    for _ in 0..count {
        let number = log::last_transaction(&database).expect("last") + 1;
        log::commit(&database, (number % 5) as u8, &format!("otherwise {number}"), at(100 + number)).expect("commit");
    }
}

fn named(site: &Site, backup: &str, until: RecoveryTarget) -> Result<RestoreReport> {
    let destination = Destination::Into(site.path("named"));
    let request =
        RestoreRequest { backup: Some(backup.to_owned()), until: Some(until), ..restore_request("sim", destination) };
    match site.ask(&Request::Restore(request))? {
        Answer::Restore(report) => Ok(report),
        other => panic!("{other:?}"),
    }
}

/// Codes of `check`'s findings about the log, and how much each matters.
fn findings(site: &Site) -> Vec<(String, Severity)> {
    match site.ask(&Request::Check { target: None }) {
        Ok(Answer::Check { findings }) => findings
            .into_iter()
            .map(|found| (found.finding.code, found.finding.severity))
            .filter(|(code, _)| code.starts_with("damaged-log"))
            .collect(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_history_that_was_left_never_passes_for_the_newest_state() {
    for later in [&[][..], &[4]] {
        let (site, first) = forked(later);
        assert_eq!(restored(&site, None).0, live(&site));
        let manifests = bases(&site);
        fs::remove_file(&manifests[1]).expect("remove");
        let refused = |until: Option<RecoveryTarget>| {
            let out = site.path("out");
            let error = restore(&site, until, &out).expect_err("its base is gone");
            assert_eq!(error.code(), Code::RestoreTargetUnreachable, "{error}");
            assert!(
                error.hint().contains("--to-tx 20") && error.hint().contains(&id_of(&manifests[0])),
                "{}",
                error.hint()
            );
            assert!(!out.exists());
        };
        refused(None);
        // Transaction 19 is one of the history in service, too.
        refused(Some(RecoveryTarget::Transaction(19)));
        site.run(&["rescan"]);
        refused(None);
        if !later.is_empty() {
            // The batches tell of the history whose base is gone.
            lose_the_ledger(&site);
            refused(None);
            site.run(&["rescan"]);
            refused(None);
        }
        // What is asked for by name is given, and so is a time before the other history began.
        named(&site, &id_of(&manifests[0]), RecoveryTarget::Transaction(20)).expect("the older state");
        assert_eq!(super::state(&site.path("named/data")).expect("state"), first[20]);
        assert_eq!(restored(&site, Some(RecoveryTarget::Time(at(17)))).0, first[17]);
    }
}

#[test]
fn another_databases_log_never_passes_for_the_newest_state() {
    let (site, _) = archived(10, &[10]);
    // Another database has taken the place: its histories are numbered anew.
    fs::write(site.path("database/identity"), "sim-another").expect("identity");
    assert!(site.run(&["adopt", "sim", "--yes"]).status.success());
    let before = batches(&site);
    for count in [3, 4] {
        otherwise(&site, count);
        archive(&site);
    }
    assert_eq!(restored(&site, None).0, live(&site));
    let batch = batches(&site).into_iter().find(|path| !before.contains(path)).expect("a batch");
    fs::write(&batch, "damaged").expect("damage");
    let error = restore(&site, None, &site.path("out")).expect_err("the batch is damaged");
    assert_eq!(error.code(), Code::LogGap, "{error}");
}

#[test]
fn a_repository_that_lags_never_passes_for_the_newest_state() {
    for away in ["repository", "second"] {
        let site = two_repositories();
        let mut states = Vec::new();
        commit(&site, 5, &mut states);
        archive(&site);
        fs::rename(site.path(away), site.path("away")).expect("rename");
        fs::write(site.path(away), "not a directory").expect("write");
        commit(&site, 5, &mut states);
        assert_eq!(archive_fails(&site), Code::BackupPartial);
        fs::remove_file(site.path(away)).expect("remove");
        fs::rename(site.path("away"), site.path(away)).expect("rename");
        assert_eq!(restored(&site, None).0, live(&site), "from the one that was there");
        let other = if away == "second" { "repository" } else { "second/repository" };
        let mut objects = Vec::new();
        crate::site::walk(&site.path(other), &mut objects);
        let of_log = |path: &PathBuf| path.to_string_lossy().contains(".log") && !path.ends_with("owner.json");
        let batch = objects.into_iter().find(of_log).expect("a batch");
        fs::write(&batch, "damaged").expect("damage");
        let error = restore(&site, None, &site.path("out")).expect_err("what is left is older");
        assert!(error.message().contains("ends with transaction 5"), "{error}");
        assert!(error.hint().contains("--to-tx 5"), "{}", error.hint());
        assert_eq!(restored(&site, Some(RecoveryTarget::Transaction(5))).0, states[5]);
    }
}

#[test]
fn the_range_that_is_shown_ends_at_a_hole_and_a_new_base_begins_another() {
    for (verified, committed) in [(true, 0), (false, 3)] {
        let (site, mut states) = archived(4, &[6, 6, 6]);
        for path in batches(&site).iter().filter(|path| path.to_string_lossy().contains("00000011-")) {
            fs::remove_file(path).expect("remove");
        }
        match verified {
            true => assert!(site.verify().is_err()),
            false => assert!(site.ask(&Request::Rescan).is_ok()),
        }
        let log = status(&site).log.expect("log");
        assert_eq!((log.from_transaction, log.to_transaction, log.unreachable), (4, 10, Some(22)), "{log:?}");
        assert_eq!(restored(&site, Some(RecoveryTarget::Time(log.covered_until))).0, states[9], "as it is said");
        assert_eq!(restored(&site, Some(RecoveryTarget::Transaction(10))).0, states[10]);
        assert_eq!(findings(&site), [("damaged-log".to_owned(), Severity::Error)]);
        commit(&site, committed, &mut states);
        site.backup("sim");
        assert_eq!(findings(&site), [("damaged-log-before".to_owned(), Severity::Warning)]);
        commit(&site, 2, &mut states);
        archive(&site);
        for _ in 0..2 {
            let status = status(&site);
            let log = status.log.expect("log");
            let last = 24 + committed;
            assert_eq!((log.from_transaction, log.to_transaction, log.unreachable), (22 + committed, last, None));
            let earlier: Vec<_> =
                status.earlier.iter().map(|range| (range.from_transaction, range.to_transaction, range.left)).collect();
            assert_eq!(earlier, [(4, 10, false)]);
            assert_eq!(restored(&site, None).0, live(&site));
            // The batches say what the ledger has forgotten.
            lose_the_ledger(&site);
            site.run(&["rescan"]);
        }
        let shown = site.run(&["status"]);
        let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
        assert!(shown.contains("transactions 4 to 10") && shown.contains("damaged or missing"), "{shown}");
    }
}

#[test]
fn the_history_in_service_is_shown_and_those_that_were_left_beside_it() {
    for (later, forgotten) in [(&[][..], true), (&[4], true), (&[4], false)] {
        let (site, _) = forked(later);
        if forgotten {
            lose_the_ledger(&site);
            assert!(site.ask(&Request::Rescan).is_ok());
        }
        let status = status(&site);
        let log = status.log.expect("log");
        assert_eq!((log.lineage, log.from_transaction), (2, 18), "{log:?}");
        let earlier: Vec<_> =
            status.earlier.iter().map(|range| (range.lineage, range.to_transaction, range.left)).collect();
        assert_eq!(earlier, [(1, 20, true)]);
        for command in ["status", "list"] {
            let shown = site.run(&[command]);
            let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
            assert!(shown.contains("transactions 10 to 20, lineage 1, history that was left"), "{shown}");
        }
    }
}

#[test]
fn a_base_tells_which_history_is_in_service_before_its_log_does() {
    let (site, _) = archived(10, &[10]);
    in_place(&site, Some(RecoveryTarget::Transaction(15)));
    otherwise(&site, 3);
    site.backup("sim");
    let log = status(&site).log.expect("log");
    assert_eq!((log.lineage, log.to_transaction), (2, 18), "{log:?}");
}

#[test]
fn a_database_whose_log_is_not_archived_is_not_restored_to_a_point_and_told_so() {
    let site = Site::simulated();
    site.backup("sim");
    let error = restore(&site, Some(RecoveryTarget::Time(at(1))), &site.path("out")).expect_err("there is no log");
    assert_eq!(error.code(), Code::NotAvailable, "{error}");
}

/// What a dry run of `cleanup` would delete.
fn doomed(site: &Site) -> Vec<String> {
    match site.ask(&Request::Cleanup { dry_run: true }) {
        Ok(Answer::Cleanup(report)) => report.deleted.iter().map(ToString::to_string).collect(),
        other => panic!("{other:?}"),
    }
}

/// What `list` shows as expired.
fn expired(site: &Site) -> Vec<String> {
    match site.ask(&Request::List { target: None }) {
        Ok(Answer::List(list)) => list
            .backups
            .iter()
            .filter(|row| row.expires_at.is_some_and(|at| at <= jiff::Timestamp::now()))
            .map(|row| row.id.to_string())
            .collect(),
        other => panic!("{other:?}"),
    }
}

fn keep(site: &Site, point_in_time: &str) {
    let root = site.root().display();
    site.configure(&format!(
        "[retention]\npoint_in_time = \"{point_in_time}\"\nminimum_verified = 1\n\
         [target.sim]\nkind = \"sim\"\ndirectory = \"{root}/database\"\n"
    ));
}

#[test]
fn cleanup_keeps_what_the_window_needs_in_every_history_and_does_what_is_shown() {
    let (site, first) = forked(&[4]);
    site.backup("sim");
    otherwise(&site, 2);
    archive(&site);
    site.verify().expect("sound");
    let manifests = bases(&site);
    assert_eq!(manifests.len(), 3);
    keep(&site, "14d");
    // All of one day: the calendar alone would keep the last.
    assert_eq!((doomed(&site), expired(&site)), (Vec::new(), Vec::new()));
    site.ask(&Request::Cleanup { dry_run: false }).expect("cleanup");
    for number in 10..=20 {
        assert_eq!(restored(&site, Some(RecoveryTarget::Time(at(number)))).0, first[number as usize], "{number}");
    }
    keep(&site, "0s");
    // Bases of one second bear the names of the next ones: none of them lies ahead any more.
    let newest = status(&site).newest.expect("a base").stamp.timestamp();
    assert!(wait_until(PATIENCE, INTERVAL, || jiff::Timestamp::now() > newest));
    let older: Vec<String> = manifests[..2].iter().map(|path| id_of(path)).collect();
    assert_eq!((doomed(&site), expired(&site).len()), (older, 2), "what the window let go");
    site.ask(&Request::Cleanup { dry_run: false }).expect("cleanup");
    assert_eq!((doomed(&site), expired(&site)), (Vec::new(), Vec::new()));
    assert_eq!(batches(&site).len(), 2, "only the log after the last base is left");
    assert_eq!(restored(&site, None).0, live(&site));
    site.verify().expect("what was let go is not missed");
}

#[test]
fn a_missing_batch_that_no_base_needs_any_more_is_no_finding() {
    let (site, mut states) = archived(4, &[6, 6, 6]);
    for path in batches(&site).iter().filter(|path| path.to_string_lossy().contains("00000011-")) {
        fs::remove_file(path).expect("remove");
    }
    assert!(site.verify().is_err());
    site.backup("sim");
    commit(&site, 2, &mut states);
    archive(&site);
    let oldest = id_of(&bases(&site)[0]);
    site.ask(&Request::Delete { backup: oldest, dry_run: false }).expect("delete");
    assert_eq!(findings(&site), Vec::new());
    assert_eq!(status(&site).log.expect("log").unsound, 0);
    site.verify().expect("sound");
}

#[test]
fn a_target_that_is_refused_is_told_once() {
    let (site, _) = archived(4, &[6]);
    let output = site.run(&["restore", "sim", "--to-tx", "99", "--into", &site.path("out").display().to_string()]);
    let said = told(&output);
    assert!(!output.status.success());
    assert_eq!(said.matches("ends with transaction 10").count(), 1, "{said}");
}
