//! Backups that are cancelled, crowded, partial or only rehearsed; and a ledger that is lost.

use super::{as_if_nothing_happened, control, failed, failed_by_name, listed, release};
use crate::site::{Site, content};
use crate::workshop::{INTERVAL, PATIENCE};
use neo4j_backup_agent::base::Code;
use neo4j_backup_agent::base::clock::wait_until;
use neo4j_backup_agent::operation::answer::Answer;
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
