//! Backups that are cancelled, crowded, partial or only rehearsed; and a ledger that is lost.

use super::{as_if_nothing_happened, control, failed, failed_by_name, listed, release};
use crate::site::{Site, content};
use crate::workshop::{INTERVAL, PATIENCE};
use neo4j_backup_agent::base::Code;
use neo4j_backup_agent::base::clock::wait_until;
use neo4j_backup_agent::operation::answer::Answer;
use neo4j_backup_agent::operation::request::{Destination, Request};
use std::fs;
use std::path::PathBuf;
use std::process::{Child, Stdio};

/// `backup sim` as a process of its own.
fn start(site: &Site) -> Child {
    let mut command = site.command();
    command.args(["backup", "sim"]).stdout(Stdio::null()).stderr(Stdio::piped());
    command.spawn().expect("neo4j-backupd starts")
}

fn has_begun_to_write(site: &Site) -> bool {
    let mut found = Vec::new();
    crate::site::walk(&site.path("repository/.incomplete"), &mut found);
    !found.is_empty()
}

// req: A14
#[test]
fn a_cancelled_backup_leaves_nothing_and_the_server_up() {
    let site = Site::simulated();
    control(&site, "pause-at", "10000");
    let agent = start(&site);
    // A cold copy is being taken: the server is away.
    let begun = wait_until(PATIENCE, INTERVAL, || !super::server_is_up(&site) && has_begun_to_write(&site));
    assert!(begun, "it never began to write");
    let pid = nix::unistd::Pid::from_raw(i32::try_from(agent.id()).expect("pid"));
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).expect("terminate");
    let said = failed(&agent.wait_with_output().expect("ended"), Code::Cancelled);
    assert!(said.contains("cancelled"), "{said}");
    assert_eq!(site.objects(), Vec::<PathBuf>::new());
    assert_eq!(listed(&site), Vec::<String>::new());
    as_if_nothing_happened(&site);
}

#[test]
fn a_repository_inside_the_data_is_refused() {
    let site = Site::simulated();
    let text = fs::read_to_string(site.config()).expect("read");
    let inside = site.path("database/data/backups").display().to_string();
    let outside = site.path("repository").display().to_string();
    fs::write(site.config(), text.replace(&outside, &inside)).expect("write");
    let said = failed(&start(&site).wait_with_output().expect("ended"), Code::ConfigInvalid);
    assert!(said.contains("inside the data of sim") && said.contains(&inside), "{said}");
}

#[test]
fn who_writes_the_backups_and_how_to_recover_them_is_missed_when_it_is_gone() {
    let site = Site::simulated();
    site.backup("sim");
    let repository = site.path("repository");
    fs::remove_file(repository.join("environment=dev/log/sim/owner.json")).expect("remove");
    fs::write(repository.join("restore.sh"), "#!/bin/sh\nrm -rf /\n").expect("write");
    fs::write(repository.join("keys-of-others"), "").expect("write");
    fs::create_dir_all(repository.join("keys")).expect("mkdir");
    fs::write(repository.join("keys/0123456789abcdef.enc"), "Salted__12345678").expect("write");
    let error = site.verify().expect_err("the owner is missing");
    assert!(error.to_string().contains("owner.json"), "{error}");
    let Answer::Check { findings } = site.ask(&Request::Check { target: None }).expect("check") else { panic!() };
    let codes: Vec<&str> = findings.iter().map(|found| found.finding.code.as_str()).collect();
    for code in ["instructions", "key-locked"] {
        assert!(codes.contains(&code), "{code} in {codes:?}");
    }
    site.backup("sim");
    site.verify().expect("the next backup puts it right");
}

#[test]
fn a_newer_backup_that_lost_its_manifest_is_told_of_even_without_a_ledger() {
    let site = Site::simulated();
    site.backup("sim");
    let newest = site.backup("sim").id.to_string();
    let stem = newest.rsplit_once('-').expect("a kind").0.to_owned();
    let manifest = site.objects().into_iter().find(|path| path.ends_with(format!("{stem}.meta.json")));
    fs::remove_file(manifest.expect("a manifest")).expect("remove");
    fs::remove_dir_all(site.path("state")).expect("lose the state");
    let warned = |output: std::process::Output| {
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains(&stem) && said.contains("no manifest"), "{said}");
    };
    warned(site.run(&["rescan"]));
    let into = site.path("restored").display().to_string();
    warned(site.run(&["restore", "sim", "--into", &into]));
}

// req: D8
#[test]
fn a_passphrase_that_is_in_use_for_long_is_a_finding() {
    let site = Site::simulated();
    let old = std::time::SystemTime::now() - std::time::Duration::from_secs(92 * 86_400);
    fs::File::options().write(true).open(site.path("passphrase")).and_then(|file| file.set_modified(old)).expect("age");
    let Answer::Check { findings } = site.ask(&Request::Check { target: None }).expect("check") else { panic!() };
    let found = findings.iter().find(|found| found.finding.code == "key-age").expect("a finding");
    assert!(found.finding.text.contains("92 days") && found.finding.fix.contains("key rotate"), "{found:?}");
}

#[test]
fn a_wrong_passphrase_is_told_from_no_backup_even_without_a_ledger() {
    let site = Site::simulated();
    site.backup("sim");
    fs::remove_dir_all(site.path("state")).expect("lose the state");
    fs::write(site.path("passphrase"), "another passphrase than the right one\n").expect("write");
    let request = crate::site::restore_request("sim", Destination::Into(site.path("restored")));
    assert_eq!(site.ask(&Request::Restore(request)).map_err(|error| error.code()).err(), Some(Code::WrongKey));
}

// req: K7
#[test]
fn of_fifty_starts_at_once_one_runs() {
    let site = Site::simulated();
    control(&site, "pause-at", "10000");
    let mut agents: Vec<Child> = (0..50).map(|_| start(&site)).collect();
    let mut ended = Vec::new();
    let all_but_one = wait_until(PATIENCE, INTERVAL, || {
        let (done, running) = agents.drain(..).partition::<Vec<_>, _>(|agent| !runs(agent));
        ended.extend(done);
        agents = running;
        agents.len() <= 1
    });
    assert!(all_but_one, "{} still run", agents.len());
    assert_eq!((agents.len(), ended.len()), (1, 49));
    for agent in ended {
        failed(&agent.wait_with_output().expect("ended"), Code::Busy);
    }
    control(&site, "go", "");
    let last = agents.pop().expect("the one that runs").wait_with_output().expect("ended");
    assert!(last.status.success(), "{}", String::from_utf8_lossy(&last.stderr));
    assert_eq!(listed(&site).len(), 1);
    as_if_nothing_happened(&site);
    site.verify().expect("sound");
}

/// Whether a child has not ended, without reaping it.
fn runs(agent: &Child) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", agent.id())).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

// req: A14
#[test]
fn a_source_that_fails_in_the_middle_leaves_nothing() {
    let site = Site::simulated();
    control(&site, "fail-at", "20000");
    let said = failed_by_name(&site, &["backup", "sim"], Code::IoFailed);
    assert!(said.contains("told to fail"), "{said}");
    assert_eq!(site.objects(), Vec::<PathBuf>::new());
    as_if_nothing_happened(&site);
    release(&site, "fail-at");
    site.backup("sim");
}

// req: K7 B3
#[test]
fn a_lost_ledger_is_rebuilt_from_the_repository() {
    let site = Site::simulated();
    for _ in 0..3 {
        site.backup("sim");
    }
    let before = listed(&site);
    assert_eq!(before.len(), 3);
    let mut lost = 0;
    for entry in fs::read_dir(site.path("state")).expect("state").flatten() {
        if entry.file_name().to_string_lossy().starts_with("ledger") {
            fs::remove_file(entry.path()).expect("remove");
            lost += 1;
        }
    }
    assert!(lost > 0, "there is a ledger");
    // An empty ledger is rebuilt by the next start; asking for it again changes nothing.
    assert_eq!(listed(&site), before);
    for run in 1..3 {
        let output = site.run(&["-j", "rescan"]);
        let value: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
        assert_eq!((&value["found"], &value["added"]), (&3.into(), &0.into()), "run {run}: {value}");
        assert_eq!(listed(&site), before, "run {run}");
    }
    // A backup that came back by hand, or was never entered, is found by asking.
    let context = site.context();
    for id in &before {
        context.ledger.forget_copy(&id.parse().expect("id"), "main").expect("forget");
    }
    let request = neo4j_backup_agent::operation::request::Request::Rescan;
    let task = neo4j_backup_agent::base::task::Task::unobserved();
    match neo4j_backup_agent::operation::execute(&context, &request, None, "test", &task) {
        Ok(neo4j_backup_agent::operation::answer::Answer::Rescan(report)) => assert_eq!(report.added, 3),
        other => panic!("{other:?}"),
    }
    drop(context);
    // What was found again is as good as before.
    site.restore_into("sim", &before[2], &site.path("out")).expect("restores");
}

// req: B1
#[test]
fn a_repository_that_fails_makes_the_backup_partial_and_the_other_complete() {
    let site = Site::simulated();
    let root = site.root().display();
    // Below a file no directory can be made.
    site.configure(&format!(
        "[repository.second]\ntype = \"local\"\npath = \"{root}/passphrase/below\"\n\
         [target.sim]\nkind = \"sim\"\ndirectory = \"{root}/database\"\n"
    ));
    let said = failed_by_name(&site, &["backup", "sim"], Code::BackupPartial);
    assert!(said.contains("complete in main") && said.contains("second"), "{said}");
    let ids = listed(&site);
    assert_eq!(ids.len(), 1);
    site.restore_into("sim", &ids[0], &site.path("out")).expect("the first repository has all of it");
    assert!(super::server_is_up(&site));
}

// req: B3
#[test]
fn a_deleted_backup_is_gone_from_list_and_repository() {
    let site = Site::simulated();
    let (first, second) = (site.backup("sim"), site.backup("sim"));
    let id = first.id.to_string();
    assert!(site.run(&["delete", "--yes", "--dry-run", &id]).status.success());
    assert_eq!((listed(&site).len(), site.objects().len()), (2, 6), "a dry run deletes nothing");
    let output = site.run(&["delete", "--yes", &id]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(listed(&site), [second.id.to_string()]);
    assert_eq!(site.objects().len(), 3);
    failed_by_name(&site, &["delete", "--yes", &id], Code::BackupNotFound);
    site.verify().expect("the other is sound");
}

// req: A7 A10
#[test]
fn a_rehearsal_needs_no_passphrase_and_no_repository_and_writes_nothing() {
    let site = Site::simulated();
    fs::remove_file(site.path("passphrase")).expect("remove");
    let before = content(&site.path("database"));
    let output = site.run(&["backup", "sim", "--dry-run"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    for step in ["  1. stop the server while it is read", "  3. store about"] {
        assert!(said.contains(step), "{step} in {said}");
    }
    let json = site.run(&["backup", "sim", "--dry-run", "--json=short"]);
    let Ok(Answer::Backup(report)) = serde_json::from_slice(&json.stdout) else { panic!("no report") };
    assert!(report.steps.len() == 4 && report.warnings.iter().all(|text| text.contains("repository")), "{report:?}");
    assert!(!site.path("repository").exists(), "a repository was made");
    assert!(content(&site.path("database")) == before, "the database was touched");
    assert_eq!(listed(&site), Vec::<String>::new());
    as_if_nothing_happened(&site);
}
