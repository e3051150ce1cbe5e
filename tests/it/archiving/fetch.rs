//! `wal fetch` as `restore_command` of a server that recovers from a base: to the archive's end, and never to less.

use super::Scene;
use super::bus::Agent;
use super::damage::batches;
use super::writers::{INTERVAL, PATIENCE};
use crate::servers::bus::PrivateBus;
use crate::site::BACKUPCTL;
use crate::site::restore_request;
use neo4j_backup_agent::base::clock::wait_until;
use neo4j_backup_agent::operation::request::{Destination, RestoreRequest};
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A cluster whose log is archived and whose server and spool are lost, and a base of it that waits for its first start.
struct Lost {
    scene: Scene,
    bus: PrivateBus,
    aside: PathBuf,
}

/// Rows of each of three increments; they fill several segments.
const ROWS: u32 = 2000;

impl Lost {
    fn set_up() -> Lost {
        let scene = Scene::set_up("");
        scene.server.sql("CREATE TABLE t (n int, filler text)");
        let backup = scene.site.backup("metrics");
        for _ in 0..3 {
            scene.server.sql(&format!("INSERT INTO t SELECT n, repeat('x', 1000) FROM generate_series(1, {ROWS}) n"));
            scene.archive();
        }
        let aside = scene.site.path("copy");
        let request = RestoreRequest {
            backup: Some(backup.id.to_string()),
            no_recover: true,
            ..restore_request("metrics", Destination::Into(aside.clone()))
        };
        scene.ask_restore(request).expect("the base is restored");
        scene.server.stop();
        let spool = scene.site.path("state/spool/metrics");
        let cluster = fs::read_dir(&spool).expect("spool").flatten().next().expect("a cluster");
        fs::rename(cluster.path(), scene.site.path("kept")).expect("kept to be compared");
        fs::remove_dir_all(spool).expect("the spool is lost");
        let lost = Lost { scene, bus: PrivateBus::start(), aside };
        let command = format!("{BACKUPCTL} --bus {} wal fetch metrics %f \"%p\"", lost.bus.address());
        let settings = format!("restore_command = '{command}'\nrecovery_target_timeline = 'latest'\n");
        let own = OpenOptions::new().append(true).open(lost.aside.join("postgresql.auto.conf"));
        own.and_then(|mut file| file.write_all(settings.as_bytes())).expect("settings");
        lost
    }

    fn fetch(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(BACKUPCTL);
        command.args(["--bus", self.bus.address(), "wal", "fetch"]).args(arguments).output().expect("the client")
    }

    /// Starts the copy's server, which must give up; says why.
    fn is_refused(&self) -> String {
        let log = self.scene.site.path("refused.log");
        let _ = fs::remove_file(&log);
        fs::write(&log, "").expect("log");
        self.scene.server.give(&log);
        let mut command = self.scene.server.command("pg_ctl");
        command.arg("-D").arg(&self.aside).arg("-l").arg(&log);
        let sockets = self.scene.server.directory.display();
        let options = format!("-c archive_mode=off -c unix_socket_directories={sockets}");
        let _ = command.arg("-o").arg(options).args(["-W", "-s", "start"]).output().expect("pg_ctl");
        // It may be read while it recovers: what counts is how that ends.
        let (pid, said) = (self.aside.join("postmaster.pid"), || fs::read_to_string(&log).expect("log"));
        let ended = || !pid.exists() && said().contains("database system is shut down");
        assert!(wait_until(PATIENCE, INTERVAL, ended), "it goes on: {}", said());
        let said = said();
        assert!(!said.contains("selected new timeline"), "{said}");
        assert!(self.aside.join("recovery.signal").exists(), "it would not go on recovering");
        said
    }
}

// req: E2 D2
#[test]
fn a_server_that_fetches_recovers_to_the_archives_end_and_stops_where_it_cannot_be_told() {
    let lost = Lost::set_up();
    let said = lost.is_refused();
    assert!(said.contains("FATAL"), "without an agent: {said}");

    let agent = Agent::start(&lost.scene, lost.bus.address());
    let beyond = "000000010000000000000F00";
    let answers = || lost.fetch(&["metrics", beyond, "/nonexistent/x"]).status.code() == Some(1);
    assert!(wait_until(PATIENCE, INTERVAL, answers), "{:?}", lost.fetch(&["metrics", beyond, "/nonexistent/x"]));

    let batches = batches(&lost.scene);
    let second = batches.iter().filter(|path| path.extension().is_some_and(|suffix| suffix != "json")).nth(1);
    let second = second.unwrap_or_else(|| panic!("no second batch in {batches:?}"));
    let whole = fs::read(second).expect("read");
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 1;
    fs::write(second, &flipped).expect("damage");
    let said = lost.is_refused();
    assert!(said.contains("FATAL") && said.contains("BACKUP_CORRUPTED"), "with a damaged batch: {said}");
    fs::remove_file(second).expect("damage");
    let said = lost.is_refused();
    assert!(said.contains("FATAL"), "without a batch's object: {said}");
    fs::write(second, &whole).expect("mend");

    let (repository, away) = (lost.scene.site.path("repository"), lost.scene.site.path("away"));
    fs::rename(&repository, &away).expect("rename");
    let said = lost.is_refused();
    assert!(said.contains("FATAL"), "without a repository: {said}");
    fs::rename(&away, &repository).expect("rename");

    let copy = lost.scene.server.open_copy(&lost.aside, "copy");
    let said = || fs::read_to_string(copy.directory.join("log")).expect("log");
    let up = || said().contains("database system is ready to accept connections");
    assert!(wait_until(PATIENCE, INTERVAL, || up() || said().contains("FATAL")) && up(), "{}", said());
    assert_eq!(copy.sql("SELECT count(*), count(DISTINCT n) FROM t"), format!("{}|{ROWS}", 3 * ROWS));
    let left = fs::read_dir(lost.scene.site.path("state/fetched/metrics")).expect("unpacked").flatten();
    let left: Vec<_> = left.map(|entry| entry.file_name()).filter(|name| name != "lock").collect();
    assert!(left.is_empty(), "what was unpacked is not needed any more: {left:?}");
    drop(agent);
}

// req: E2
#[test]
fn only_what_lies_behind_the_archive_ends_a_recovery() {
    let lost = Lost::set_up();
    let _agent = Agent::start(&lost.scene, lost.bus.address());
    let to = lost.scene.site.path("fetched");
    let fetch = |name: &str| lost.fetch(&["metrics", name, &to.display().to_string()]);
    let code = |output: &Output| output.status.code().expect("a status");
    let ready = || code(&fetch("000000010000000000000F00")) == 1;
    assert!(wait_until(PATIENCE, INTERVAL, ready), "{:?}", fetch("000000010000000000000F00"));
    assert!(!to.exists());

    // The segment that the base ends in, and all that follow up to the end, each as the server wrote it.
    let own = lost.scene.site.path("kept");
    let mut compared = 0;
    for name in segments(&own) {
        let output = fetch(&name);
        if code(&output) == 0 {
            assert_eq!(fs::read(&to).expect("fetched"), fs::read(own.join(&name)).expect("own"), "{name}");
            fs::remove_file(&to).expect("remove");
            compared += 1;
        }
    }
    assert!(compared >= 5, "{compared}");
    for name in ["00000001.history", "00000002.history"] {
        assert_eq!(code(&fetch(name)), 1, "{name} never was");
    }
    // Everything else: what should be there, what no server asks for, what was mistyped.
    for name in ["000000010000000000000001", "000000010000000000000001.00000028.backup", "../../etc/passwd", "x", ""] {
        assert_eq!(code(&fetch(name)), 126, "{name:?}");
    }
    let to = to.display().to_string();
    let known = "000000010000000000000F00";
    let wrong: [&[&str]; 5] = [
        &["other", known, &to],
        &["metrics", known],
        &["metrics"],
        &["metrics", "--bogus", known, &to],
        &["Ünknown", known, &to],
    ];
    for arguments in wrong {
        let output = lost.fetch(arguments);
        assert_eq!(code(&output), 126, "{arguments:?}: {output:?}");
    }
    let output = Command::new(BACKUPCTL).args(["wal", "get"]).output().expect("the client");
    assert_eq!(code(&output), 126, "{output:?}");
    // A segment in the archive that cannot be put where the server wants it.
    let there = segments(&own).into_iter().find(|name| code(&fetch(name)) == 0).expect("one is archived");
    assert_eq!(code(&lost.fetch(&["metrics", &there, "/nonexistent/x"])), 126);

    if nix::unistd::geteuid().is_root() {
        let mut stranger = Command::new("setpriv");
        stranger.args([
            "--reuid=daemon",
            "--regid=daemon",
            "--clear-groups",
            "--",
            BACKUPCTL,
            "--bus",
            lost.bus.address(),
        ]);
        let output = stranger.args(["wal", "fetch", "metrics", &there, "/tmp/none"]).output().expect("setpriv");
        assert_eq!(code(&output), 126, "{output:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("NOT_AUTHORISED"), "{output:?}");
    }
}

// req: E2
#[test]
fn the_history_of_a_timeline_outlives_the_spool() {
    let scene = Scene::set_up("");
    scene.server.sql("CREATE TABLE t (n int)");
    scene.site.backup("metrics");
    scene.server.sql("INSERT INTO t SELECT generate_series(1, 100)");
    scene.archive();
    scene.ask_restore(restore_request("metrics", Destination::InPlace)).expect("restored in place");
    scene.server.sql("INSERT INTO t SELECT generate_series(101, 200)");
    // The base of the timeline, and log after it.
    for _ in 0..2 {
        scene.server.sql("INSERT INTO t SELECT generate_series(1, 10)");
        scene.archive();
    }
    let own = fs::read(scene.server.data.join("pg_wal/00000002.history")).expect("its own history");
    // A server that runs would go on handing over into it.
    scene.server.stop();
    fs::remove_dir_all(scene.site.path("state/spool/metrics")).expect("the spool is lost");
    let bus = PrivateBus::start();
    let _agent = Agent::start(&scene, bus.address());
    let to = scene.site.path("fetched");
    let fetch = |name: &str| {
        let mut command = Command::new(BACKUPCTL);
        command.args(["--bus", bus.address(), "wal", "fetch", "metrics", name]).arg(&to).output().expect("the client")
    };
    let delivered = || fetch("00000002.history").status.code() == Some(0);
    assert!(wait_until(PATIENCE, INTERVAL, delivered), "{:?}", fetch("00000002.history"));
    assert_eq!(fs::read(&to).expect("fetched"), own);
    assert_eq!(fetch("00000003.history").status.code(), Some(1), "nobody began that timeline");
}

/// Names of the segments in a directory, in the order of the log.
fn segments(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).expect("list").flatten();
    let mut names: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.retain(|name| name.len() == 24);
    names.sort();
    names
}
