//! `kill -9` of the agent at every durable step of a backup and of a restore in place, walked one by one with strace:
//! afterwards a complete, verified backup or none; old or new data; no debris after the next run; the server up.

use crate::chain::two_repositories;
use crate::site::{Site, content};
use neo4j_backup_agent::driver::sim::log;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

/// The calls that change what is durable, or what runs. A kill right before each of them covers every state on disk.
const STEPS: &[&str] = &["fsync", "rename", "renameat2", "unlink", "unlinkat", "mkdir", "clone3"];
/// A walk that never ends is a bug in the walk.
const WALK_MAX: u32 = 400;

/// Runs `neo4j-backupd run …` and kills it when it is about to make its `number`-th call of `step`.
fn run_killed(site: &Site, arguments: &[&str], step: &str, number: u32) -> Output {
    let mut command = Command::new("strace");
    command
        .args(["-f", "-qq", "-o", "/dev/null", "-e", &format!("trace={step}")])
        .args(["-e", &format!("inject={step}:signal=KILL:when={number}")])
        .arg(crate::site::BACKUPD)
        .arg("--config")
        .arg(site.config())
        .arg("run")
        .args(arguments);
    command.output().expect("strace starts; install it with scripts/install-prerequisites.sh")
}

/// Walks a kill through every call of a run; `check` looks at what is left after each. Returns how many kills there were.
fn walk(site: &Site, arguments: &[&str], check: impl FnMut(&str)) -> u32 {
    walk_after(site, arguments, || (), check)
}

/// [`walk`], with something done before each run.
fn walk_after(site: &Site, arguments: &[&str], mut prepare: impl FnMut(), mut check: impl FnMut(&str)) -> u32 {
    let mut kills = 0;
    for step in STEPS {
        for number in 1..WALK_MAX {
            prepare();
            let output = run_killed(site, arguments, step, number);
            if output.status.success() {
                break;
            }
            assert_eq!(output.status.code(), None, "{step} {number}: {}", String::from_utf8_lossy(&output.stderr));
            kills += 1;
            check(&format!("killed at {step} number {number}"));
        }
    }
    kills
}

fn server_is_up(site: &Site) -> bool {
    site.path("database/running").exists()
}

/// Files of ours that a finished run never leaves.
fn debris(site: &Site) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for place in [
        "state/scratch",
        "state/staging",
        "state/host",
        "state/unfinished",
        "state/processes",
        "repository/.incomplete",
    ] {
        crate::site::walk(&site.path(place), &mut found);
    }
    for entry in fs::read_dir(site.path("database")).expect("database").flatten() {
        let ours = entry.file_name().to_string_lossy().starts_with(".neo4j-backup-");
        let set_aside = entry.path().join("set-aside/data/table-00").exists();
        if ours && (entry.path().join("new").exists() || !set_aside) {
            found.push(entry.path());
        }
    }
    found
}

// req: A14
#[test]
fn a_backup_killed_anywhere_counts_or_leaves_nothing() {
    let site = Site::simulated();
    site.backup("sim");
    let kills = walk(&site, &["backup", "sim"], |when| {
        // The next run recovers by itself.
        let next = site.run(&["list"]);
        assert!(next.status.success(), "{when}: {}", String::from_utf8_lossy(&next.stderr));
        assert!(server_is_up(&site), "{when}: the server was left stopped");
        assert_eq!(debris(&site), Vec::<PathBuf>::new(), "{when}");
        let checked = site.verify();
        assert!(checked.is_ok(), "{when}: {checked:?}");
    });
    println!("figure: backup sim: {kills} kills, each at another durable step");
    assert!(kills >= 20, "{kills}");
    site.run(&["rescan"]);
    let report = site.verify().expect("everything is sound in the end");
    println!("{report:?}");
}

// req: A14 X2
#[test]
fn an_archive_killed_anywhere_leaves_a_whole_chain() {
    let site = Site::logged();
    let database = site.path("database");
    let commit = || {
        let number = log::last_transaction(&database).expect("last") + 1;
        let at = jiff::Timestamp::from_second(1_790_000_000 + number as i64).expect("time");
        log::commit(&database, (number % 5) as u8, &format!("value {number}"), at).expect("commit");
    };
    commit();
    let archive = ["backup", "sim", "--type", "incremental"];
    assert!(site.run(&archive).status.success());
    let kills = walk_after(&site, &archive, commit, |when| {
        let next = site.run(&["list"]);
        assert!(next.status.success(), "{when}: {}", String::from_utf8_lossy(&next.stderr));
        assert_eq!(debris(&site), Vec::<PathBuf>::new(), "{when}");
        let checked = site.verify();
        assert!(checked.is_ok(), "{when}: {checked:?}");
    });
    println!("{kills} kills");
    assert!(kills >= 10, "{kills}");
    commit();
    assert!(site.run(&archive).status.success());
    let out = site.path("out");
    let place = out.display().to_string();
    let restored = site.run(&["restore", "sim", "--into", &place]);
    assert!(restored.status.success(), "{}", String::from_utf8_lossy(&restored.stderr));
    let state = |data: PathBuf| log::state(&data).expect("state");
    assert_eq!(state(out.join("data")), state(database.join("data")), "every transaction is there");
    site.run(&["rescan"]);
    site.verify().expect("everything is sound in the end");
}

/// Batches that become one.
const FAN_IN: u64 = 16;

// req: A14 X2
#[test]
fn merging_killed_anywhere_loses_no_transaction() {
    let site = Site::logged();
    let database = site.path("database");
    let commit = |count: u64| {
        for _ in 0..count {
            let number = log::last_transaction(&database).expect("last") + 1;
            let at = jiff::Timestamp::from_second(1_790_000_000 + number as i64).expect("time");
            log::commit(&database, (number % 5) as u8, &format!("value {number}"), at).expect("commit");
        }
    };
    let archive = ["backup", "sim", "--type", "incremental"];
    for _ in 0..=FAN_IN {
        commit(1);
        assert!(site.run(&archive).status.success());
    }
    let keep = site.path("kept");
    let copy = |from: PathBuf, to: PathBuf| {
        let _ = fs::remove_dir_all(&to);
        let copied = Command::new("cp").arg("-a").args([from, to]).status().expect("cp");
        assert!(copied.success());
    };
    fs::create_dir(&keep).expect("directory");
    // First the run that merges, then one that deletes what was merged an hour ago.
    for merged in [false, true] {
        if merged {
            commit(1);
            assert!(site.run(&archive).status.success());
            let ledger = rusqlite::Connection::open(site.path("state/ledger.db")).expect("open");
            let waiting = ledger.execute("UPDATE log_parts SET since = 0", []).expect("update");
            assert_eq!(waiting, FAN_IN as usize, "the run before merged");
        }
        commit(1);
        for place in ["state", "repository"] {
            copy(site.path(place), keep.join(place));
        }
        let prepare = || ["state", "repository"].iter().for_each(|place| copy(keep.join(place), site.path(place)));
        let mut number = 0;
        let kills = walk_after(&site, &archive, prepare, |when| {
            let next = site.run(&archive);
            assert!(next.status.success(), "{when}: {}", String::from_utf8_lossy(&next.stderr));
            assert_eq!(debris(&site), Vec::<PathBuf>::new(), "{when}");
            let checked = site.verify();
            assert!(checked.is_ok(), "{when}: {checked:?}");
            number += 1;
            if number % 4 == 0 {
                let out = site.path("out");
                let restored = site.run(&["restore", "sim", "--into", &out.display().to_string()]);
                assert!(restored.status.success(), "{when}: {}", String::from_utf8_lossy(&restored.stderr));
                let state = |data: PathBuf| log::state(&data).expect("state");
                assert_eq!(state(out.join("data")), state(database.join("data")), "{when}");
                fs::remove_dir_all(&out).expect("remove");
            }
        });
        println!("figure: merging sim, parts deleted {merged}: {kills} kills");
        assert!(kills >= 10, "{kills}");
        prepare();
        assert!(site.run(&archive).status.success());
    }
}

// req: A14 X3
#[test]
fn a_deletion_killed_anywhere_is_finished_by_the_next_run() {
    let site = Site::logged();
    let database = site.path("database");
    let archive = ["backup", "sim", "--type", "incremental"];
    let mut ids = Vec::new();
    for _ in 0..3 {
        let number = log::last_transaction(&database).expect("last") + 1;
        let at = jiff::Timestamp::from_second(1_790_000_000 + number as i64).expect("time");
        log::commit(&database, (number % 5) as u8, &format!("value {number}"), at).expect("commit");
        assert!(site.run(&archive).status.success());
        ids.push(site.backup("sim").id.to_string());
    }
    // The first increment took a base of its own.
    let first = site.run(&["list"]);
    let first = String::from_utf8_lossy(&first.stdout).into_owned();
    let oldest = first.split_whitespace().filter(|word| word.starts_with("sim-")).min().expect("a backup").to_owned();
    site.run(&["delete", &oldest, "--yes"]);
    let keep = site.path("kept");
    let copy = |from: PathBuf, to: PathBuf| {
        let _ = fs::remove_dir_all(&to);
        let copied = Command::new("cp").arg("-a").args([from, to]).status().expect("cp");
        assert!(copied.success());
    };
    fs::create_dir(&keep).expect("directory");
    for place in ["state", "repository"] {
        copy(site.path(place), keep.join(place));
    }
    let prepare = || ["state", "repository"].iter().for_each(|place| copy(keep.join(place), site.path(place)));
    let delete = ["delete", ids[0].as_str(), "--yes"];
    let kills = walk_after(&site, &delete, prepare, |when| {
        let next = site.run(&["list"]);
        assert!(next.status.success(), "{when}: {}", String::from_utf8_lossy(&next.stderr));
        assert_eq!(debris(&site), Vec::<PathBuf>::new(), "{when}");
        let checked = site.verify();
        assert!(checked.is_ok(), "{when}: {checked:?}");
        let again = site.run(&delete);
        assert!(matches!(again.status.code(), Some(0 | 4)), "{when}: {}", String::from_utf8_lossy(&again.stderr));
        let checked = site.verify();
        assert!(checked.is_ok(), "{when}, and deleted again: {checked:?}");
        let listed = String::from_utf8_lossy(&site.run(&["list"]).stdout).into_owned();
        assert!(!listed.contains(&ids[0]) && listed.contains(&ids[1]), "{when}: {listed}");
    });
    println!("figure: delete sim: {kills} kills");
    assert!(kills >= 8, "{kills}");
    let out = site.path("out");
    let restored = site.run(&["restore", "sim", "--into", &out.display().to_string()]);
    assert!(restored.status.success(), "{}", String::from_utf8_lossy(&restored.stderr));
    let state = |data: PathBuf| log::state(&data).expect("state");
    assert_eq!(state(out.join("data")), state(database.join("data")));
}

/// Goes on with the second repository alone, then with both, and looks for what the killed run left.
fn with_the_first_away_then_back(site: &Site, when: &str, again: &[&str]) {
    let (repository, away) = (site.path("repository"), site.path("away"));
    fs::rename(&repository, &away).expect("rename");
    // Something is in the way, so that nobody takes it for a place where a new one could be made.
    fs::write(&repository, b"").expect("in the way");
    site.run(again);
    fs::remove_file(&repository).expect("remove");
    fs::rename(&away, &repository).expect("rename");
    let next = site.run(&["backup", "sim", "--type", "incremental"]);
    assert!(next.status.success(), "{when}: {}", String::from_utf8_lossy(&next.stderr));
    let next = site.run(again);
    assert!(matches!(next.status.code(), Some(0 | 4)), "{when}: {}", String::from_utf8_lossy(&next.stderr));
    let checked = site.verify();
    assert!(checked.is_ok(), "{when}, then away, then back: {checked:?}");
    assert_eq!(debris(site), Vec::<PathBuf>::new(), "{when}");
}

// req: A14 X2
#[test]
fn what_a_kill_left_in_a_repository_that_is_away_then_is_settled_when_it_is_back() {
    let site = two_repositories();
    let database = site.path("database");
    let commit = || {
        let number = log::last_transaction(&database).expect("last") + 1;
        let at = jiff::Timestamp::from_second(1_790_000_000 + number as i64).expect("time");
        log::commit(&database, (number % 5) as u8, &format!("value {number}"), at).expect("commit");
    };
    let archive = ["backup", "sim", "--type", "incremental"];
    commit();
    assert!(site.run(&archive).status.success());
    let mut kills = 0;
    for (step, most) in [("rename", WALK_MAX), ("fsync", WALK_MAX), ("unlink", WALK_MAX)] {
        for number in 1..most {
            commit();
            if run_killed(&site, &archive, step, number).status.success() {
                break;
            }
            kills += 1;
            with_the_first_away_then_back(&site, &format!("increment killed at {step} number {number}"), &archive);
        }
    }
    assert!(kills >= 10, "{kills}");
    for number in 1..WALK_MAX {
        commit();
        let id = site.backup("sim").id.to_string();
        site.backup("sim");
        let delete = ["delete", id.as_str(), "--yes"];
        if run_killed(&site, &delete, "unlink", number).status.success() {
            break;
        }
        kills += 1;
        with_the_first_away_then_back(&site, &format!("deletion killed at unlink number {number}"), &delete);
    }
    println!("figure: repository away after a kill: {kills} kills");
    let out = site.path("out");
    let restored = site.run(&["restore", "sim", "--into", &out.display().to_string()]);
    assert!(restored.status.success(), "{}", String::from_utf8_lossy(&restored.stderr));
    let state = |data: PathBuf| log::state(&data).expect("state");
    assert_eq!(state(out.join("data")), state(database.join("data")));
}

#[test]
fn a_restore_in_place_killed_anywhere_leaves_old_or_new_data() {
    let site = Site::simulated();
    let old = content(&site.path("database/data"));
    site.backup("sim");
    fs::write(site.path("database/data/later"), b"written after the backup").expect("write");
    let newer = content(&site.path("database/data"));
    let kills = walk(&site, &["restore", "sim", "--in-place", "--yes"], |when| {
        let next = site.run(&["list"]);
        assert!(next.status.success(), "{when}: {}", String::from_utf8_lossy(&next.stderr));
        assert!(server_is_up(&site), "{when}: the server was left stopped");
        let now = content(&site.path("database/data"));
        assert!(now == old || now == newer, "{when}: neither the old nor the new data");
        assert_eq!(debris(&site), Vec::<PathBuf>::new(), "{when}");
        // Make the two differ again, for the next kill.
        fs::write(site.path("database/data/later"), b"written after the backup").expect("write");
    });
    println!("figure: restore sim: {kills} kills, each at another durable step");
    assert!(kills >= 20, "{kills}");
}
