//! Restores that are refused or undone.

use super::{as_if_nothing_happened, control, debris, failed, failed_by_name, server_is_up};
use crate::site::{Site, content, restore_request};
use neo4j_backup_agent::base::Code;
use neo4j_backup_agent::base::task::Task;
use neo4j_backup_agent::host::Service;
use neo4j_backup_agent::operation;
use neo4j_backup_agent::operation::request::{Destination, Request};
use std::fs;
use std::sync::Arc;

/// A restore into `directory` by the program.
fn into(directory: &str) -> [&str; 4] {
    ["restore", "sim", "--into", directory]
}

// req: A3
#[test]
fn a_wrong_passphrase_is_told_apart_and_nothing_is_written() {
    let site = Site::simulated();
    site.backup("sim");
    fs::write(site.path("passphrase"), "another passphrase altogether\n").expect("passphrase");
    let out = site.path("out");
    failed(&site.run(&into(&out.display().to_string())), Code::WrongKey);
    failed_by_name(&site, &into(&out.display().to_string()), Code::WrongKey);
    assert!(!out.exists());
    as_if_nothing_happened(&site);
}

// req: D5
#[test]
fn what_only_postgresql_has_is_refused_before_anything_is_looked_at() {
    let site = Site::simulated();
    site.backup("sim");
    let out = site.path("out").display().to_string();
    for (option, instead) in [
        (&["--tablespace-map", "a=/b"][..], "--into"),
        (&["--tablespace-map-all", "/b"], "--into"),
        (&["--standby"], "restore again"),
        (&["--timeline", "latest"], "--to-time"),
        (&["--to-immediate"], "name a backup"),
    ] {
        let output = site.run(&[&into(&out)[..], option].concat());
        failed(&output, Code::Usage);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains(option[0]) && said.contains(instead), "{said}");
    }
    assert!(!site.path("out").exists());
}

// req: A4 B15
#[test]
fn a_damaged_backup_is_refused_and_its_directory_goes() {
    let site = Site::simulated();
    site.backup("sim");
    let objects = site.objects();
    let data = objects.iter().find(|path| path.to_string_lossy().contains(".dump.tar")).expect("data");
    let mut bytes = fs::read(data).expect("read");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(data, bytes).expect("damage");
    let before = content(&site.path("database/data"));
    let out = site.path("out");
    let said = failed_by_name(&site, &into(&out.display().to_string()), Code::BackupCorrupted);
    assert!(said.contains(&data.file_name().expect("name").to_string_lossy().into_owned()), "{said}");
    assert!(!out.exists());
    failed_by_name(&site, &["restore", "sim", "--in-place", "--yes"], Code::BackupCorrupted);
    assert!(content(&site.path("database/data")) == before, "the data in service was touched");
    as_if_nothing_happened(&site);
}

// req: B15
#[test]
fn an_incomplete_backup_is_named_and_nothing_of_it_is_deleted() {
    let site = Site::simulated();
    let backup = site.backup("sim");
    let manifest = site.objects().into_iter().find(|path| path.to_string_lossy().ends_with("meta.json"));
    fs::remove_file(manifest.expect("manifest")).expect("remove");
    let left = site.objects();
    assert_eq!(left.len(), 2, "data and configuration: {left:?}");
    let out = site.path("out");
    let id = backup.id.to_string();
    let place = out.display().to_string();
    let said = failed_by_name(&site, &["restore", "sim", &id, "--into", &place], Code::BackupIncomplete);
    assert!(said.contains(&id), "{said}");
    assert!(!out.exists());
    // Whose manifest was lost may still be rescued by a person: neither the next start nor the next backup deletes it.
    assert!(site.run(&["list"]).status.success());
    site.backup("sim");
    assert!(left.iter().all(|path| path.exists()), "objects were deleted");
}

// req: B8
#[test]
fn places_that_hold_something_are_refused() {
    let site = Site::simulated();
    site.backup("sim");
    let full = site.path("full");
    fs::create_dir(&full).expect("directory");
    fs::write(full.join("letter"), "do not lose").expect("write");
    failed_by_name(&site, &into(&full.display().to_string()), Code::RestoreNotEmpty);
    assert_eq!(content(&full), [("letter".into(), b"do not lose".to_vec())]);

    let before = content(&site.path("database/data"));
    for place in ["database/data", "database/data/below", "database"] {
        let place = site.path(place).display().to_string();
        failed_by_name(&site, &into(&place), Code::RestoreServerRunning);
    }
    assert!(content(&site.path("database/data")) == before);
    as_if_nothing_happened(&site);
}

// req: B8
#[test]
fn a_copy_that_fails_its_check_never_gets_into_service() {
    let site = Site::simulated();
    site.backup("sim");
    fs::write(site.path("database/data/later"), b"written after the backup").expect("write");
    let before = content(&site.path("database/data"));
    control(&site, "fail-check", "the copy does not answer");
    let said = failed_by_name(&site, &["restore", "sim", "--in-place", "--yes"], Code::RestoreHealthFailed);
    assert!(said.contains("the copy does not answer"), "{said}");
    assert!(content(&site.path("database/data")) == before, "the data in service was touched");
    as_if_nothing_happened(&site);
    let out = site.path("out");
    failed_by_name(&site, &into(&out.display().to_string()), Code::RestoreHealthFailed);
    assert!(!out.exists());
}

// req: B8
#[test]
fn new_data_on_which_the_server_does_not_come_up_is_taken_out_of_service_again() {
    let site = Site::simulated();
    site.backup("sim");
    fs::write(site.path("database/data/later"), b"written after the backup").expect("write");
    let before = content(&site.path("database/data"));
    // A server that comes up on the earlier data only.
    control(&site, "ready-or-not", "");
    let script = format!(
        "cd {}; touch running; if test -e data/later; then rm -f control/fail-ready; \
         else touch control/fail-ready data/by-a-client; fi",
        site.path("database").display()
    );
    let mut context = site.context();
    let own = Arc::get_mut(&mut context).expect("nobody else has it");
    let target = own.targets.values_mut().next().expect("target");
    let Service::Commands { stop, .. } = target.service.clone() else { panic!("commands") };
    target.service = Service::Commands { stop, start: ["/bin/sh", "-c", &script].map(str::to_owned).to_vec() };
    let request = Request::Restore(restore_request("sim", Destination::InPlace));
    let error = operation::execute(&context, &request, None, "test", &Task::unobserved()).expect_err("undone");
    assert_eq!(error.code(), Code::RestoreHealthFailed, "{error:?}");
    assert!(error.message().contains("the earlier data is in service again"), "{error:?}");
    assert!(server_is_up(&site));
    assert!(content(&site.path("database/data")) == before, "the earlier data is not back");
    drop(context);
    // What clients wrote while the new data was in service is nowhere else.
    let left = debris(&site);
    let [area] = &left[..] else { panic!("{left:?}") };
    assert!(area.join("set-aside/data/by-a-client").exists() && !area.join("new").exists());
    assert!(error.message().contains(&area.join("set-aside").display().to_string()), "{error:?}");
    fs::remove_dir_all(area).expect("remove");
    as_if_nothing_happened(&site);
}
