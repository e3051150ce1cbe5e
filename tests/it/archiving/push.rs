//! What `archive_command` meets.

use super::Scene;
use super::writers::{INTERVAL, PATIENCE};
use neo4j_backup_agent::base::Code;
use neo4j_backup_agent::base::clock::wait_until;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

fn push(scene: &Scene, path: &Path) -> Output {
    scene.site.run(&["wal", "push", "metrics", &path.display().to_string()])
}

fn status(output: &Output) -> i32 {
    output.status.code().expect("a status")
}

/// Where the spool has the cluster's files.
fn spool(scene: &Scene) -> PathBuf {
    let clusters = fs::read_dir(scene.site.path("state/spool/metrics")).expect("spool");
    clusters.flatten().next().expect("a cluster").path()
}

/// Writes into the log and waits until the segment was handed over; its name.
fn segment(scene: &Scene) -> String {
    let name = scene.server.sql(
        "CREATE TABLE IF NOT EXISTS t (x text); INSERT INTO t VALUES (repeat('x', 1000));
         SELECT pg_walfile_name(pg_switch_wal())",
    );
    assert!(wait_until(PATIENCE, INTERVAL, || scene.spooled().contains(&name)), "{name} in {:?}", scene.spooled());
    name
}

// req: D2 E2
#[test]
fn a_segment_is_taken_once_and_no_other_ever_under_its_name() {
    let scene = Scene::set_up("");
    let name = segment(&scene);
    let spooled = spool(&scene).join(&name);
    let own = scene.server.data.join("pg_wal").join(&name);
    assert_eq!(fs::read(&own).expect("own"), fs::read(&spooled).expect("spooled"));
    let again = push(&scene, &own);
    assert_eq!(status(&again), 0, "{again:?}");

    // The same name with other bytes, from the server itself and from a copy of it.
    let mut content = fs::read(&own).expect("own");
    content[5000] ^= 1;
    let copy = scene.site.path(&name);
    fs::write(&copy, &content).expect("copy");
    let foreign = push(&scene, &copy);
    assert_eq!(status(&foreign), i32::from(Code::OwnerConflict.exit()), "{foreign:?}");
    fs::write(&own, &content).expect("own");
    let changed = push(&scene, &own);
    assert_eq!(status(&changed), i32::from(Code::ObjectConflict.exit()), "{changed:?}");

    // Another cluster's, a piece, and what is no log at all.
    let mut of_another = content.clone();
    of_another[24] ^= 1;
    let later = scene.site.path("0000000100000000000000EE");
    for (bytes, code) in [
        (&of_another[..], Code::OwnerConflict),
        (&content[..], Code::LogCorrupted),
        (&content[..content.len() - 1], Code::LogCorrupted),
        (&b""[..], Code::LogCorrupted),
    ] {
        fs::write(&later, bytes).expect("file");
        let output = push(&scene, &later);
        assert_eq!(status(&output), i32::from(code.exit()), "{output:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains(code.name()), "{output:?}");
    }
    assert_eq!(status(&push(&scene, Path::new("/nowhere/00000001000000000000000A"))), 1);
    assert!(!scene.spooled().contains(&"0000000100000000000000EE".to_owned()));
}

// req: D2
#[test]
fn a_full_spool_makes_the_server_wait_and_nothing_is_lost() {
    let scene = Scene::set_up("[limits]\nspool = \"16MiB\"\n");
    scene.server.sql("CREATE TABLE t (n int, x text)");
    scene.site.backup("metrics");
    let blocked = || scene.server.sql("SELECT failed_count > 0 FROM pg_stat_archiver") == "t";
    for n in 0..24 {
        scene.server.sql(&format!("INSERT INTO t VALUES ({n}, repeat('x', 1000)); SELECT pg_switch_wal()"));
    }
    assert!(wait_until(PATIENCE, INTERVAL, blocked), "the server was never told to wait");
    assert!(scene.spooled().len() <= 16, "{:?}", scene.spooled());
    let log = fs::read_to_string(scene.server.directory.join("log")).expect("the server's log");
    assert!(log.contains("SPOOL_FULL"), "{log}");
    assert!(log.contains("fills its room"), "at half it is said: {log}");
    // What is archived makes room; the server goes on by itself, and every row comes back.
    let caught_up = || {
        let _ = scene.try_archive();
        scene.try_archive().is_ok_and(|report| report.repositories[0].covered_until.is_some())
    };
    assert!(wait_until(PATIENCE * 2, INTERVAL, caught_up), "it never caught up");
    let (_, copy) = scene.restore("aside", None);
    assert_eq!(copy.sql("SELECT count(*), max(n) FROM t"), "24|23");
}

// req: D2 X3
/// The restart that archiving needs ends the segment that the base ended in; the server never hands that one over.
#[test]
fn what_was_finished_before_archiving_was_switched_on_is_no_gap() {
    let scene = Scene::set_up("");
    scene.server.sql("ALTER SYSTEM SET archive_mode = off");
    scene.server.stop();
    scene.server.run();
    scene.server.sql("CREATE TABLE kept (n int); INSERT INTO kept VALUES (1)");
    scene.site.backup("metrics");
    scene.server.sql("INSERT INTO kept VALUES (2)");
    scene.server.sql("SELECT pg_switch_wal()");
    scene.server.sql("INSERT INTO kept VALUES (3)");
    scene.server.sql("ALTER SYSTEM RESET archive_mode");
    scene.server.stop();
    scene.server.run();
    // Quiet since: nothing but what was finished before can be archived.
    scene.archive();
    let (_, copy) = scene.restore("quiet", None);
    assert_eq!(copy.sql("SELECT string_agg(n::text, ',' ORDER BY n) FROM kept"), "1,2,3");
    scene.server.sql("INSERT INTO kept VALUES (4)");
    let report = scene.archive();
    assert!(report.gaps.is_empty() && report.bases.is_empty(), "{report:?}");
    let (_, copy) = scene.restore("busy", None);
    assert_eq!(copy.sql("SELECT string_agg(n::text, ',' ORDER BY n) FROM kept"), "1,2,3,4");
}

/// As above, but the server has used that segment again: nothing waits for it, the gap is told, and a base closes it.
#[test]
fn what_was_lost_before_archiving_was_switched_on_is_told_and_a_base_taken() {
    let scene = Scene::set_up("");
    scene.server.sql("ALTER SYSTEM SET archive_mode = off");
    scene.server.stop();
    scene.server.run();
    scene.server.sql("CREATE TABLE kept (n int); INSERT INTO kept VALUES (1)");
    scene.site.backup("metrics");
    let before = scene.server.sql("SELECT pg_walfile_name(pg_current_wal_lsn())");
    scene.server.sql("INSERT INTO kept VALUES (2)");
    for _ in 0..3 {
        scene.server.sql("CHECKPOINT; SELECT pg_switch_wal(); SELECT txid_current(); CHECKPOINT");
    }
    scene.server.sql("ALTER SYSTEM RESET archive_mode");
    scene.server.stop();
    let _ = std::fs::remove_file(scene.server.data.join("pg_wal").join(&before));
    scene.server.run();
    let report = scene.archive();
    assert!(!report.gaps.is_empty() && !report.bases.is_empty(), "{report:?}");
    scene.server.sql("INSERT INTO kept VALUES (3)");
    let report = scene.archive();
    assert!(report.gaps.is_empty() && report.bases.is_empty(), "{report:?}");
    let (_, copy) = scene.restore("after", None);
    assert_eq!(copy.sql("SELECT string_agg(n::text, ',' ORDER BY n) FROM kept"), "1,2,3");
}

#[test]
fn a_spool_that_gives_up_says_so_and_a_base_closes_the_gap() {
    let scene = Scene::set_up("[limits]\nspool = \"16MiB\"\nspool_full = \"drop\"\n");
    scene.server.sql("CREATE TABLE t (n int, x text)");
    scene.site.backup("metrics");
    scene.archive();
    for n in 0..30 {
        scene.server.sql(&format!("INSERT INTO t VALUES ({n}, repeat('x', 1000)); SELECT pg_switch_wal()"));
    }
    let behind = || {
        scene
            .server
            .sql("SELECT last_archived_wal < pg_walfile_name(pg_current_wal_lsn() - 1048576) FROM pg_stat_archiver")
    };
    assert!(wait_until(PATIENCE, INTERVAL, || behind() != "t"), "the server is held up");
    let mut reports = vec![scene.archive()];
    reports.push(scene.archive());
    let gaps: Vec<_> = reports.iter().flat_map(|report| report.gaps.clone()).collect();
    let bases: usize = reports.iter().map(|report| report.bases.len()).sum();
    assert!(gaps.len() == 1 && gaps[0].contains("given up"), "{reports:?}");
    assert_eq!(bases, 1, "{reports:?}");
    let (_, copy) = scene.restore("aside", None);
    assert_eq!(copy.sql("SELECT count(*) FROM t"), "30");
}

// req: D2
#[test]
fn a_server_that_hands_nothing_over_is_told_what_to_set() {
    let scene = Scene::set_up("");
    scene.server.sql("ALTER SYSTEM SET archive_command = 'cp %p /elsewhere/%f'");
    scene.server.sql("SELECT pg_reload_conf()");
    let noticed = || scene.server.sql("SHOW archive_command").starts_with("cp");
    assert!(wait_until(PATIENCE, INTERVAL, noticed));
    let error = scene.try_archive().expect_err("nothing is handed over");
    assert_eq!(error.code(), Code::NotAvailable);
    assert!(
        error.hint().contains("ALTER SYSTEM SET archive_command = 'neo4j-backupctl wal push metrics %p'"),
        "{error:?}"
    );
    // A full backup needs none of that.
    scene.site.backup("metrics");
}

#[test]
fn beside_another_tool_both_get_every_segment() {
    let scene = Scene::set_up("");
    let (server, other) = (&scene.server, scene.site.path("other"));
    fs::create_dir(&other).expect("directory");
    server.give(&other);
    let own = server.sql("SHOW archive_command");
    server.sql(&format!("ALTER SYSTEM SET archive_command = 'cp %p {}/%f && {own}'", other.display()));
    server.sql("SELECT pg_reload_conf()");
    server.sql("CREATE TABLE t (n int)");
    scene.site.backup("metrics");
    for number in 1..=3 {
        server.sql(&format!("INSERT INTO t VALUES ({number})"));
        scene.archive();
    }
    let spooled = scene.spooled();
    assert!(spooled.len() >= 3, "{spooled:?}");
    let taken = spool(&scene);
    for name in spooled {
        let both = [other.join(&name), taken.join(&name)].map(|path| fs::read(path).expect("a segment"));
        assert!(both[0] == both[1], "{name}");
    }
    let (_, copy) = scene.restore("end", None);
    assert_eq!(copy.sql("SELECT count(*) FROM t"), "3");
}
