//! A restore over an older copy: the same bytes as a restore into nothing, and never a server on half of it.

use super::Scene;
use super::damage::batches;
use super::writers::{INTERVAL, PATIENCE};
use crate::site::{content, restore_request};
use neo4j_backup_agent::base::Code;
use neo4j_backup_agent::base::clock::wait_until;
use neo4j_backup_agent::driver::restore_options::RestoreOptions;
use neo4j_backup_agent::operation::request::{Destination, RestoreRequest};
use std::fs;
use std::path::Path;
use std::process::Stdio;

fn request(directory: &Path, delta: bool, no_recover: bool) -> RestoreRequest {
    RestoreRequest {
        no_recover,
        options: RestoreOptions { delta, ..RestoreOptions::default() },
        ..restore_request("metrics", Destination::Into(directory.to_owned()))
    }
}

/// A cluster that went on after an older copy of it was made, used and stopped.
fn scene() -> Scene {
    let scene = Scene::set_up("");
    scene.server.sql("CREATE TABLE t (n int, filler text); CREATE TABLE still AS SELECT generate_series(1, 50000) n");
    scene.server.sql("INSERT INTO t SELECT n, repeat('x', 500) FROM generate_series(1, 20000) n");
    scene.site.backup("metrics");
    let older = scene.site.path("older");
    scene.ask_restore(request(&older, false, false)).expect("the older copy");
    let copy = scene.server.open_copy(&older, "older");
    copy.sql("CREATE TABLE junk AS SELECT generate_series(1, 1000) n; DELETE FROM t WHERE n < 10; CHECKPOINT");
    copy.stop();
    fs::write(older.join("base/superfluous"), b"x").expect("superfluous");
    fs::create_dir_all(older.join("a/b")).expect("superfluous");
    std::os::unix::fs::symlink("/etc/passwd", older.join("a/link")).expect("superfluous");
    scene.server.sql("INSERT INTO t SELECT n, 'late' FROM generate_series(20001, 20100) n");
    scene.site.backup("metrics");
    scene.server.sql("INSERT INTO t VALUES (20101, 'last')");
    scene.archive();
    scene
}

/// A server that is told to start on a directory gives up at once, whoever owns that.
fn does_not_start(scene: &Scene, directory: &Path) {
    assert!(!directory.join("global/pg_control").exists());
    scene.server.give(directory);
    let mut command = scene.server.command("postgres");
    let output = command.arg("-D").arg(directory).output().expect("postgres");
    assert!(!output.status.success(), "{output:?}");
}

// req: D5
#[test]
fn an_older_copy_becomes_what_a_new_directory_would() {
    let scene = scene();
    let (older, fresh) = (scene.site.path("older"), scene.site.path("fresh"));
    scene.ask_restore(request(&fresh, false, true)).expect("restored");
    let plan = scene.ask_restore(RestoreRequest { dry_run: true, ..request(&older, true, true) }).expect("a plan");
    assert!(plan.steps.iter().any(|step| step.starts_with("change the older copy")), "{:?}", plan.steps);
    assert!(older.join("base/superfluous").exists(), "a dry run changes nothing");
    scene.ask_restore(request(&older, true, true)).expect("restored over the older copy");
    let (is, due) = (content(&older), content(&fresh));
    let names =
        |files: &[(std::path::PathBuf, Vec<u8>)]| files.iter().map(|(path, _)| path.clone()).collect::<Vec<_>>();
    assert_eq!(names(&is), names(&due));
    let other: Vec<_> = is.iter().zip(&due).filter(|(is, due)| is.1 != due.1).map(|(is, _)| &is.0).collect();
    assert!(other.is_empty(), "{other:?}");
    assert!(!older.join("a").exists());

    // Again, recovered and checked, and put to use.
    let report = scene.ask_restore(request(&older, true, false)).expect("restored over what is the same");
    let judged: Vec<_> = report.checks.iter().filter(|check| check.name != "counts").cloned().collect();
    crate::roundtrip::all_passed(&judged, &["pg_verifybackup", "connectivity", "recovered_end", "timeline"]);
    assert!(!older.join("neo4j-backup-delta").exists());
    let copy = scene.server.open_copy(&older, "older");
    assert_eq!(copy.sql("SELECT count(*), (SELECT count(*) FROM still) FROM t"), "20101|50000");
    let refused = scene.ask_restore(request(&older, true, true)).map(|_| ()).map_err(|error| error.code());
    assert_eq!(refused, Err(Code::RestoreServerRunning));
    assert_eq!(copy.sql("SELECT count(*) FROM t"), "20101", "it was not touched");
}

// req: D5 X2
#[test]
fn what_breaks_off_starts_no_server_and_goes_on() {
    let scene = scene();
    let older = scene.site.path("older");
    let damaged = batches(&scene).into_iter().find(|path| path.extension().is_some_and(|suffix| suffix != "json"));
    let damaged = damaged.expect("a batch");
    let whole = fs::read(&damaged).expect("read");
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 1;
    fs::write(&damaged, &flipped).expect("damage");
    let error = scene.ask_restore(request(&older, true, false)).expect_err("damaged");
    assert_eq!(error.code(), Code::LogGap, "{error}");
    assert!(error.message().contains("the same command goes on"), "{error}");
    does_not_start(&scene, &older);
    fs::write(&damaged, &whole).expect("mend");
    // It is on record as damaged until it was found sound.
    scene.site.verify().expect("sound again");

    let marker = older.join("neo4j-backup-delta");
    let mut killed = 0;
    for _ in 0..20 {
        let _ = fs::remove_file(&marker);
        let mut command = scene.site.command();
        command.args(["restore", "metrics", "--into"]).arg(&older).args(["--delta", "--yes", "--no-recover"]);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the agent");
        let mut ended = None;
        let reached = wait_until(PATIENCE, INTERVAL / 10, || {
            ended = child.try_wait().expect("wait");
            // From when on it is at work: the mark comes a moment before the control file goes.
            ended.is_some() || (marker.exists() && !older.join("global/pg_control").exists())
        });
        assert!(reached, "it neither works nor ends");
        if ended.is_none() {
            child.kill().expect("kill");
            child.wait().expect("wait");
            // Where the control file is, nothing was begun, or all is whole.
            if marker.exists() && !older.join("global/pg_control").exists() {
                killed += 1;
                does_not_start(&scene, &older);
            }
        }
        if killed == 3 {
            break;
        }
    }
    assert!(killed > 0, "it was never met at work");
    scene.ask_restore(request(&older, true, false)).expect("it goes on");
    let copy = scene.server.open_copy(&older, "older");
    assert_eq!(copy.sql("SELECT count(*), (SELECT count(*) FROM still) FROM t"), "20101|50000");
}

// req: D5
#[test]
fn what_is_no_older_copy_is_not_restored_over() {
    let scene = scene();
    let older = scene.site.path("older");
    let before = content(&older);
    let refused = |asked: RestoreRequest| scene.ask_restore(asked).map(|_| ()).map_err(|error| error.code());
    assert_eq!(refused(request(&scene.server.data, true, true)), Err(Code::RestoreServerRunning));
    let in_place = RestoreRequest { destination: Destination::InPlace, ..request(&older, true, true) };
    assert_eq!(refused(in_place), Err(Code::Usage));
    let strange = scene.site.path("strange");
    fs::create_dir(&strange).expect("directory");
    fs::write(strange.join("letters"), b"dear").expect("file");
    assert_eq!(refused(request(&strange, true, true)), Err(Code::RestoreNotEmpty));
    assert_eq!(fs::read(strange.join("letters")).expect("kept"), b"dear");

    let control = older.join("global/pg_control");
    let whole = fs::read(&control).expect("control file");
    let mut other = whole.clone();
    other[0] ^= 1;
    fs::write(&control, &other).expect("another cluster's");
    assert_eq!(refused(request(&older, true, true)), Err(Code::RestoreNotEmpty));
    fs::write(&control, &whole).expect("mend");
    let unasked = scene.site.command().args(["restore", "metrics", "--into"]).arg(&older).arg("--delta").output();
    let unasked: std::process::Output = unasked.expect("the agent");
    assert_eq!(unasked.status.code(), Some(i32::from(Code::NotConfirmed.exit())), "{unasked:?}");
    assert!(content(&older) == before, "it was touched");
    // A copy is restored over as little as data in service if its log or its tablespaces lie elsewhere.
    fs::rename(older.join("pg_wal"), scene.site.path("wal-elsewhere")).expect("move");
    std::os::unix::fs::symlink(scene.site.path("wal-elsewhere"), older.join("pg_wal")).expect("link");
    assert_eq!(refused(request(&older, true, true)), Err(Code::RestoreNotEmpty));
}
