//! The log held by a replication slot, beside whatever else archives it.

use super::Scene;
use super::writers::{INTERVAL, PATIENCE};
use neo4j_backup_agent::base::Code;
use neo4j_backup_agent::base::clock::{Clock, SystemClock, wait_until};
use neo4j_backup_agent::driver::log::RecoveryTarget;
use neo4j_backup_agent::operation::answer::Answer;
use neo4j_backup_agent::operation::request::Request;
use std::fs;
use std::path::PathBuf;

const SLOT: &str = "neo4j_backup_log_metrics";

/// A cluster whose `archive_command` is another tool's, which keeps its segments in a directory of its own.
fn beside_another_tool(limits: &str) -> (Scene, PathBuf) {
    let scene = Scene::set_up(&format!("wal = \"slot\"\n{limits}"));
    let server = &scene.server;
    let other = scene.site.path("other");
    fs::create_dir(&other).expect("directory");
    server.give(&other);
    let command = format!("test ! -e {0}/%f && cp %p {0}/%f", other.display());
    server.sql(&format!("ALTER SYSTEM SET archive_command = '{command}'"));
    server.sql("SELECT pg_reload_conf()");
    assert!(wait_until(PATIENCE, INTERVAL, || server.sql("SHOW archive_command") == command));
    server.sql("CREATE TABLE t (n int)");
    (scene, other)
}

/// What the server says of the slot, as one value.
fn slot(scene: &Scene, what: &str) -> String {
    scene.server.sql(&format!("SELECT {what} FROM pg_replication_slots WHERE slot_name = '{SLOT}'"))
}

/// Kills the server and starts it again.
fn restart(scene: &Scene) {
    scene.server.kill9();
    assert!(wait_until(PATIENCE, INTERVAL, || !scene.server.has_processes()));
    scene.server.run();
}

/// Codes of what `check` finds.
fn findings(scene: &Scene) -> Vec<String> {
    match scene.site.ask(&Request::Check { target: None }) {
        Ok(Answer::Check { findings }) => findings.into_iter().map(|found| found.finding.code).collect(),
        other => panic!("the check answered {other:?}"),
    }
}

// req: D2 X4
#[test]
fn a_slot_holds_the_log_beside_another_tools_archive_command() {
    let (scene, other) = beside_another_tool("");
    let server = &scene.server;
    let command = server.sql("SHOW archive_command");
    scene.site.backup("metrics");
    assert_eq!(slot(&scene, "slot_type || ' ' || active || ' ' || temporary"), "physical false false");
    server.sql("INSERT INTO t SELECT generate_series(1, 10000)");
    let first = scene.archive();
    assert_eq!((first.gaps.len(), first.bases.len(), first.repositories[0].batches), (0, 0, 1), "{first:?}");
    let moment = SystemClock.now();
    server.sql("INSERT INTO t VALUES (10001)");
    restart(&scene);
    server.sql("INSERT INTO t VALUES (10002)");
    let second = scene.archive();
    assert_eq!((second.gaps.len(), second.bases.len()), (0, 0), "{second:?}");
    assert!(second.repositories[0].covered_until.is_some_and(|covered| covered > moment), "{second:?}");
    // What is in the spool the server need not keep, and the next round finds nothing to do.
    assert_eq!(slot(&scene, "pg_current_wal_lsn() - restart_lsn < 1048576"), "t");
    let third = scene.archive();
    assert_eq!(third.repositories[0].batches, 0, "{third:?}");
    assert_eq!(server.sql("SHOW archive_command"), command);
    let segments = |directory: &PathBuf| fs::read_dir(directory).expect("list").count();
    assert!(wait_until(PATIENCE, INTERVAL, || segments(&other) >= 2), "the other tool gets its own");

    let (_, copy) = scene.restore("end", None);
    assert_eq!(copy.sql("SELECT count(*), max(n) FROM t"), "10002|10002");
    assert_eq!(copy.sql("SELECT count(*) FROM pg_replication_slots"), "0");
    let (_, copy) = scene.restore("moment", Some(RecoveryTarget::Time(moment)));
    assert_eq!(copy.sql("SELECT count(*), max(n) FROM t"), "10000|10000");
    scene.site.verify().expect("all is sound");
}

// req: D2 X3
#[test]
fn log_that_a_slot_lost_is_a_gap_and_a_base_closes_it() {
    let (scene, _) = beside_another_tool("");
    let server = &scene.server;
    scene.site.backup("metrics");
    server.sql("INSERT INTO t VALUES (1)");
    scene.archive();
    assert_eq!(findings(&scene).iter().filter(|code| code.starts_with("slot")).count(), 1, "unbounded");
    server.sql("ALTER SYSTEM SET max_slot_wal_keep_size = '1MB'");
    server.sql("ALTER SYSTEM SET wal_keep_size = 0");
    server.sql("SELECT pg_reload_conf()");
    let lost = || {
        server.sql("INSERT INTO t SELECT generate_series(1, 20000)");
        server.sql("SELECT pg_switch_wal()");
        server.sql("CHECKPOINT");
        slot(&scene, "wal_status") == "lost"
    };
    assert!(wait_until(PATIENCE, INTERVAL, lost), "{}", slot(&scene, "wal_status"));
    assert!(findings(&scene).contains(&"slot-lost".to_owned()), "{:?}", findings(&scene));
    let rows = server.sql("SELECT count(*) FROM t");
    let report = scene.archive();
    assert_eq!((report.gaps.len(), report.bases.len()), (1, 1), "{report:?}");
    assert!(!findings(&scene).contains(&"slot-lost".to_owned()), "{:?}", findings(&scene));
    let (_, copy) = scene.restore("end", None);
    assert_eq!(copy.sql("SELECT count(*) FROM t"), rows);
}

// req: D2
#[test]
fn a_full_spool_leaves_the_log_in_the_slot_and_a_slot_that_nobody_uses_is_named() {
    let (scene, _) = beside_another_tool("[limits]\nspool = \"16MiB\"\n");
    let server = &scene.server;
    scene.site.backup("metrics");
    for n in 0..40 {
        server.sql(&format!("INSERT INTO t VALUES ({n}); SELECT pg_switch_wal()"));
    }
    // Nothing waits for anybody: the server has gone on all the while. One run takes all of it, in turns.
    let report = scene.archive();
    assert_eq!((report.gaps.len(), report.bases.len()), (0, 0), "{report:?}");
    assert!(scene.spooled().len() <= 16, "{:?}", scene.spooled());
    let (_, copy) = scene.restore("end", None);
    assert_eq!(copy.sql("SELECT count(*), max(n) FROM t"), "40|39");

    scene.configure("");
    assert!(findings(&scene).contains(&"slot-left-behind".to_owned()), "{:?}", findings(&scene));
    server.sql(&format!("SELECT pg_drop_replication_slot('{SLOT}')"));
    assert!(!findings(&scene).contains(&"slot-left-behind".to_owned()), "{:?}", findings(&scene));
    scene.configure("wal = \"slot\"\n");
    server.sql("ALTER SYSTEM SET max_replication_slots = 0");
    restart(&scene);
    let error = scene.try_archive().expect_err("no slot is free");
    assert_eq!(error.code(), Code::NotAvailable, "{error:?}");
    assert!(error.hint().contains("max_replication_slots"), "{error:?}");
}
