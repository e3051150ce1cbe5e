//! `kill -9` of the agent at points spread over a backup and over a restore in place of a real PostgreSQL.
//!
//! A first run under strace counts the agent's calls; the kills then fall on points spread evenly over what changes
//! something durable or starts something, and over the writes of the data.

use super::postgres::Scene;
use super::{areas, debris};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};

/// The calls that change what is durable, or what runs.
const STEPS: &[&str] = &["fsync", "fdatasync", "rename", "renameat2", "unlink", "unlinkat", "mkdir", "clone3", "clone"];
/// The calls that move data.
const WRITES: &[&str] = &["write", "pwrite64", "writev"];
/// Kills that every walk must make.
const KILLS: usize = 20;

/// A call of the agent: its name, and which one of its thread it is. That is how strace counts.
type Point = (String, u32);

/// Runs `neo4j-backupd run …` under strace, which lets go of every program that the agent starts.
fn traced(scene: &Scene, options: &[String], arguments: &[&str]) -> ExitStatus {
    let said = fs::File::create(scene.site.path("said")).expect("file");
    let mut command = Command::new("strace");
    command.args(["-f", "-b", "execve", "-qqq"]).args(options);
    command.arg(crate::site::BACKUPD).arg("--config").arg(scene.site.config()).arg("run").args(arguments);
    // Files, not pipes: a server started by the agent would hold a pipe open.
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(said);
    command.status().expect("strace starts; install it with scripts/install-prerequisites.sh")
}

/// Every point of a whole run, in the order of time.
fn points(scene: &Scene, arguments: &[&str]) -> Vec<Point> {
    let log = scene.site.path("calls");
    let calls = STEPS.iter().chain(WRITES).copied().collect::<Vec<_>>().join(",");
    let options = [
        "-o".to_owned(),
        log.display().to_string(),
        "-e".to_owned(),
        format!("trace={calls}"),
        "-esignal=none".to_owned(),
    ];
    let status = traced(scene, &options, arguments);
    assert!(status.success(), "{}", fs::read_to_string(scene.site.path("said")).unwrap_or_default());
    let mut numbers: BTreeMap<(String, String), u32> = BTreeMap::new();
    let (mut seen, mut found) = (BTreeSet::new(), Vec::new());
    for line in fs::read_to_string(&log).expect("calls").lines() {
        let Some((thread, call)) = line.split_once(char::is_whitespace) else { continue };
        let Some((name, _)) = call.trim_start().split_once('(') else { continue };
        if !STEPS.iter().chain(WRITES).any(|known| *known == name) {
            continue;
        }
        let number = numbers.entry((thread.to_owned(), name.to_owned())).or_default();
        *number += 1;
        if seen.insert((name.to_owned(), *number)) {
            found.push((name.to_owned(), *number));
        }
    }
    found
}

/// `count` of them, evenly spread.
fn spread(points: &[&Point], count: usize) -> Vec<Point> {
    let count = count.min(points.len());
    (0..count).map(|index| points[index * points.len() / count].clone()).collect()
}

/// Kills a run at 20 points; `check` looks at what is left after each.
fn walk(scene: &Scene, arguments: &[&str], mut check: impl FnMut(&str)) {
    let all = points(scene, arguments);
    check("not killed");
    let (steps, writes): (Vec<_>, Vec<_>) = all.iter().partition(|(name, _)| STEPS.contains(&name.as_str()));
    // Threads share their work differently each time, so that some points are not reached: a few more than needed.
    let chosen = [spread(&steps, 18), spread(&writes, 10)].concat();
    println!("{} steps, {} writes, chosen: {chosen:?}", steps.len(), writes.len());
    let mut kills = 0;
    for (name, number) in &chosen {
        let inject = format!("inject={name}:signal=KILL:when={number}");
        let options = ["-o", "/dev/null", "-e", &format!("trace={name}"), "-e", &inject].map(str::to_owned);
        let status = traced(scene, &options, arguments);
        let when = format!("{arguments:?} killed at {name} number {number}");
        if !status.success() {
            let said = fs::read_to_string(scene.site.path("said")).unwrap_or_default();
            assert_eq!(status.code(), None, "{when}: {said}");
            kills += 1;
        }
        check(&when);
        if kills == chosen.len() {
            break;
        }
    }
    println!("{kills} kills");
    assert!(kills >= KILLS, "{kills}");
}

/// The next run recovers by itself; nothing of the killed one is left.
fn recovered(scene: &Scene, when: &str) {
    let next = scene.site.run(&["list"]);
    assert!(next.status.success(), "{when}: {}", String::from_utf8_lossy(&next.stderr));
    assert_eq!(debris(&scene.site, &scene.server.directory), Vec::<PathBuf>::new(), "{when}");
    let checked = scene.site.verify();
    assert!(checked.is_ok(), "{when}: {checked:?}");
}

// req: A14
#[test]
fn a_backup_of_a_real_cluster_killed_at_20_points_counts_or_leaves_nothing() {
    let scene = Scene::set_up(&[]);
    let content = scene.content();
    walk(&scene, &["backup", "metrics"], |when| {
        recovered(&scene, when);
        assert_eq!(scene.content(), content, "{when}");
        // One that counts is deleted, so that each run starts from the same.
        while scene.site.run(&["delete", "--yes", "latest"]).status.success() {}
    });
    // And it still works.
    scene.site.backup("metrics");
    scene.site.verify().expect("sound");
}

// req: A14
#[test]
fn a_restore_in_place_of_a_real_cluster_killed_at_20_points_leaves_old_or_new_data() {
    let scene = Scene::set_up(&[]);
    let old = scene.content();
    scene.site.backup("metrics");
    let write = || scene.server.sql_in("metrics", "INSERT INTO sensor VALUES (99, 'after the backup')");
    write();
    let newer = scene.content();
    let (mut olds, mut newers) = (0, 0);
    walk(&scene, &["restore", "metrics", "--in-place", "--yes"], |when| {
        recovered(&scene, when);
        let now = scene.content();
        assert!(now == old || now == newer, "{when}: neither the old nor the new data: {now}");
        if now == old {
            olds += 1;
            // Make the two differ again, for the next kill.
            write();
        } else {
            newers += 1;
        }
        // What was set aside is the operator's; here it would only fill the disk.
        for area in areas(&scene.server.directory) {
            fs::remove_dir_all(area).expect("remove");
        }
    });
    println!("{olds} times the restored data, {newers} times the data before");
    // Until the new data is accepted a kill takes the exchange back, so few kills leave the restored data.
    assert!(newers > 0 && olds > 0, "the kills lie on both sides of the exchange");
}
