//! Who may write a chain and delete from it, and what becomes of bases that an agent does not remember.

use super::{
    archive, archive_fails, archive_request, archived, at, commit, copy, keep_the_ledger, live, put_back, restored,
    set_the_ledger_back,
};
use crate::site::{Site, backup_request};
use neo4j_backup_agent::base::Code;
use neo4j_backup_agent::driver::log::RecoveryTarget;
use neo4j_backup_agent::driver::sim::log;
use neo4j_backup_agent::operation::request::Request;
use std::fs;

/// Commits what the history that was left does not have.
fn otherwise(site: &Site, count: u64) {
    let first = log::last_transaction(&site.path("database")).expect("last") + 1;
    for number in first..first + count {
        log::commit(&site.path("database"), 1, &format!("otherwise {number}"), at(300 + number)).expect("commit");
    }
}

// req: X4
#[test]
fn a_base_beyond_the_archived_log_is_compared_before_anything_is_added() {
    let (site, mut states) = archived(4, &[6]);
    let (aside, kept) = (site.path("aside"), keep_the_ledger(&site));
    copy(&site.path("database/data"), &aside);
    commit(&site, 3, &mut states);
    site.backup("sim");
    let objects = site.objects();
    // The database alone was set back, or the machine with all that its agent remembers; it may have gone on since.
    for (whole_machine, more) in [(false, 1), (false, 8), (true, 1), (true, 8)] {
        for request in [archive_request(), Request::Backup(backup_request("sim"))] {
            put_back(&site, &aside);
            otherwise(&site, more);
            if whole_machine {
                set_the_ledger_back(&site, &kept);
            }
            let error = site.ask(&request).expect_err("another history");
            assert_eq!(error.code(), Code::LogForked, "{whole_machine} {more} {request:?}: {error}");
            assert_eq!(site.objects(), objects, "nothing was stored");
        }
    }
    assert!(!site.run(&["backup", "sim", "--type", "incremental"]).status.success());
    let out = site.path("out").display().to_string();
    let said = super::told(&site.run(&["restore", "sim", "--into", &out, "--dry-run"]));
    assert!(said.contains("LOG_FORKED"), "{said}");
    assert_eq!(restored(&site, None).0, states[13], "the history that was left");
    assert!(site.run(&["adopt", "sim", "--yes"]).status.success());
    assert_eq!(archive(&site).repositories[0].lineage, 2);
    assert_eq!(restored(&site, None).0, live(&site));
    site.verify().expect("sound");
}

#[test]
fn a_base_that_is_not_on_record_is_learned_and_the_log_goes_on() {
    let (site, mut states) = archived(4, &[6]);
    let kept = keep_the_ledger(&site);
    commit(&site, 3, &mut states);
    let base = site.backup("sim").id;
    set_the_ledger_back(&site, &kept);
    commit(&site, 2, &mut states);
    let report = archive(&site);
    assert_eq!((report.bases.len(), report.repositories[0].transactions), (0, 5), "{report:?}");
    let listed = String::from_utf8_lossy(&site.run(&["list", "sim"]).stdout).into_owned();
    assert!(listed.contains(&base.to_string()), "{listed}");
    assert_eq!(restored(&site, None).0, live(&site));
}

// req: B9
#[test]
fn an_agent_that_is_not_the_writer_deletes_nothing() {
    let (site, mut states) = archived(4, &[6]);
    commit(&site, 3, &mut states);
    site.backup("sim");
    let own = fs::read_to_string(site.config()).expect("configuration");
    let root = site.root().display();
    let second = own.replace(&format!("{root}/state"), &format!("{root}/second-state"));
    fs::write(site.config(), second).expect("configuration");
    let read = site.run(&["rescan"]);
    assert!(read.status.success(), "it may read: {}", String::from_utf8_lossy(&read.stderr));
    let objects = site.objects();
    let deleted = site.run(&["delete", "latest", "--yes"]);
    let said = String::from_utf8_lossy(&deleted.stderr).into_owned();
    assert_eq!(deleted.status.code(), Some(i32::from(Code::OwnerConflict.exit())), "{said}");
    assert!(said.contains("adopt TARGET"), "{said}");
    assert_eq!(archive_fails(&site), Code::OwnerConflict);
    assert_eq!(site.objects(), objects);
    assert!(site.run(&["adopt", "sim", "--yes"]).status.success());
    let deleted = site.run(&["delete", "latest", "--yes"]);
    assert!(deleted.status.success(), "{}", String::from_utf8_lossy(&deleted.stderr));
    assert!(site.objects().len() < objects.len());
}

#[test]
fn a_machine_that_was_set_back_past_a_restore_does_not_go_on_in_the_older_history() {
    let (site, mut states) = archived(4, &[6]);
    let (aside, kept) = (site.path("aside"), keep_the_ledger(&site));
    copy(&site.path("database/data"), &aside);
    super::in_place(&site, Some(RecoveryTarget::Transaction(7)));
    otherwise(&site, 3);
    archive(&site);
    otherwise(&site, 2);
    assert_eq!(archive(&site).repositories[0].lineage, 2);
    states.push(live(&site));
    let objects = site.objects();
    for request in [archive_request(), Request::Backup(backup_request("sim"))] {
        put_back(&site, &aside);
        commit(&site, 2, &mut Vec::new());
        set_the_ledger_back(&site, &kept);
        let error = site.ask(&request).expect_err("another history");
        assert_eq!(error.code(), Code::LogForked, "{request:?}: {error}");
        assert_eq!(site.objects(), objects);
    }
    assert_eq!(Some(&restored(&site, None).0), states.last(), "the history that was left");
    assert!(site.run(&["adopt", "sim", "--yes"]).status.success());
    assert_eq!(archive(&site).repositories[0].lineage, 3);
    assert_eq!(restored(&site, None).0, live(&site));
}

// req: X3
#[test]
fn a_damaged_batch_beyond_the_record_is_gone_around_with_a_base() {
    let (site, mut states) = archived(4, &[6]);
    let kept = keep_the_ledger(&site);
    commit(&site, 3, &mut states);
    let before = super::batches(&site);
    archive(&site);
    let newest = super::batches(&site)
        .into_iter()
        .find(|path| !before.contains(path) && path.to_string_lossy().ends_with(".meta.json"));
    fs::write(newest.expect("its manifest"), "{}").expect("damage");
    set_the_ledger_back(&site, &kept);
    commit(&site, 2, &mut states);
    let report = archive(&site);
    assert_eq!((report.gaps.len(), report.bases.len()), (1, 1), "{report:?}");
    assert_eq!(restored(&site, None).0, live(&site));
    commit(&site, 2, &mut states);
    assert!(archive(&site).gaps.is_empty());
    assert_eq!(restored(&site, None).0, live(&site));
}

#[test]
fn the_newest_history_that_any_repository_has_of_a_transaction_is_taken() {
    let site = super::two_repositories();
    let mut states = Vec::new();
    for count in [5, 5] {
        commit(&site, count, &mut states);
        archive(&site);
    }
    fs::rename(site.path("repository"), site.path("away")).expect("rename");
    super::in_place(&site, Some(RecoveryTarget::Transaction(7)));
    otherwise(&site, 1);
    assert_eq!(archive_fails(&site), Code::BackupPartial);
    let second = live(&site);
    otherwise(&site, 4);
    fs::rename(site.path("away"), site.path("repository")).expect("rename");
    archive(&site);
    // What is asked for is of the history in service, which the first repository has from a later point only.
    let (state, report) = restored(&site, Some(RecoveryTarget::Transaction(8)));
    assert_eq!((state, report.repository.as_str()), (second, "second"));
}

// req: X4
#[test]
fn two_histories_in_one_lineage_are_found_by_verify() {
    let (site, mut states) = archived(4, &[6]);
    let (aside, kept, away) = (site.path("aside"), keep_the_ledger(&site), site.path("away"));
    copy(&site.path("database/data"), &aside);
    commit(&site, 3, &mut states);
    let before = site.objects();
    let base = site.backup("sim").id;
    // Out of sight while the other history is archived, as a bucket does that lists late.
    fs::create_dir(&away).expect("directory");
    let objects: Vec<_> = site.objects().into_iter().filter(|path| !before.contains(path)).collect();
    let hidden = |path: &std::path::PathBuf| away.join(path.file_name().expect("name"));
    objects.iter().for_each(|path| fs::rename(path, hidden(path)).expect("hide"));
    set_the_ledger_back(&site, &kept);
    put_back(&site, &aside);
    otherwise(&site, 3);
    assert_eq!(archive(&site).repositories[0].lineage, 1);
    site.verify().expect("nothing tells yet");
    objects.iter().for_each(|path| fs::rename(hidden(path), path).expect("show"));
    assert!(site.run(&["rescan"]).status.success());
    let error = site.verify().expect_err("two histories");
    assert!(error.to_string().contains(&format!("transaction 13 is not that of {base}")), "{error}");
    assert_eq!(archive_fails(&site), Code::LogForked);
    let error = super::restore(&site, None, &site.path("out")).expect_err("neither of the two passes for the other");
    assert_eq!(error.code(), Code::LogForked, "{error}");
    assert!(error.message().contains("different histories"), "{error}");
}

#[test]
fn an_owners_record_that_is_damaged_or_gone_is_put_right_by_adopting() {
    let (site, mut states) = archived(4, &[6]);
    let owner = site.path("repository/environment=dev/log/sim/owner.json");
    let epoch = || {
        let record: serde_json::Value = serde_json::from_slice(&fs::read(&owner).expect("read")).expect("JSON");
        record["owner"]["epoch"].as_u64().expect("epoch")
    };
    assert!(site.run(&["adopt", "sim", "--yes"]).status.success());
    super::in_place(&site, Some(RecoveryTarget::Transaction(7)));
    otherwise(&site, 2);
    archive(&site);
    let written = epoch();
    assert!(written >= 2, "{written}");
    for damage in ["", "no JSON", "{\"key_id\": \"0123456789abcdef\",\n  \"hmac\": \"00\"\n}\n"] {
        fs::write(&owner, damage).expect("damage");
        commit(&site, 2, &mut states);
        for request in [archive_request(), Request::Backup(backup_request("sim"))] {
            let error = site.ask(&request).expect_err("damaged");
            assert_eq!(error.code(), Code::SignatureInvalid, "{error}");
            assert!(error.hint().contains("adopt sim"), "{}", error.hint());
        }
        let adopted = site.run(&["adopt", "sim", "--yes"]);
        let said = String::from_utf8_lossy(&adopted.stdout).into_owned();
        assert!(adopted.status.success() && said.contains("cannot be used"), "{said}");
        assert!(epoch() > written, "{} {written}", epoch());
        archive(&site);
    }
    let written = epoch();
    fs::remove_file(&owner).expect("lose it");
    commit(&site, 2, &mut states);
    archive(&site);
    assert_eq!(epoch(), written, "the next one goes on as the chain says");
    assert_eq!(restored(&site, None).0, live(&site));
    site.verify().expect("sound");
}
