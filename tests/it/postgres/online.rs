//! A base that is read from the data directory while the server works in it.

use super::*;
use neo4j_backup_agent::base::Error;
use neo4j_backup_agent::base::clock::wait_until;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};

/// The lanes of a backup, by number.
type Lanes = Vec<(u32, Vec<u8>)>;

fn in_lanes(server: &PostgresServer, lanes: u32) -> PostgresDriver {
    let settings = PostgresDriverSettings { lanes: Some(lanes), ..settings(server) };
    PostgresDriver::new(settings, Arc::new(LocalLauncher::default()))
}

/// Takes a backup; `meanwhile` is done after it was begun and before any file is read.
fn back_up_lanes(driver: &dyn Driver, meanwhile: impl FnOnce()) -> Result<(FullReport, Lanes)> {
    let (task, workspace) = (Task::unobserved(), tempfile::tempdir().expect("workspace"));
    let mut backup = driver.begin_full(BackupKind::Base, workspace.path(), &task)?;
    assert_eq!(fs::read_dir(workspace.path()).expect("workspace").count(), 0);
    meanwhile();
    let volumes = backup.take_volumes();
    let striped = volumes.len() > 1;
    let lanes: Result<Lanes> = std::thread::scope(|scope| {
        let read = volumes.into_iter().map(|volume| {
            assert_eq!(volume.spec.striped, striped);
            let task = task.clone();
            scope.spawn(move || {
                let mut reader = (volume.open)(&task)?;
                let mut bytes = Vec::new();
                std::io::copy(&mut reader, &mut bytes)
                    .map_err(|cause| Error::from_io("reading", "a lane".as_ref(), cause))?;
                reader.finish(&task)?;
                Ok((volume.spec.lane, bytes))
            })
        });
        let read: Vec<_> = read.collect();
        read.into_iter().map(|lane| lane.join().expect("lane")).collect()
    });
    let lanes = lanes?;
    Ok((backup.finish(&task)?, lanes))
}

/// Restores lanes side by side, as `restore` does it, and checks the result.
fn restore_lanes(driver: &dyn Driver, manifest: &Manifest, lanes: Lanes, place: &Path) -> (Restored, Vec<HealthCheck>) {
    let task = Task::unobserved();
    let target = place_below(place);
    let (directory, workspace) = (target.directory.clone(), target.workspace.clone());
    let mut session = driver.begin_restore(manifest, &target, &task).expect("begin");
    assert!(session.takes_lanes_side_by_side());
    std::thread::scope(|scope| {
        for (lane, bytes) in &lanes {
            let mut object = manifest.objects[0].clone();
            (object.lane, object.plain.size) = (*lane, bytes.len() as u64);
            let mut sink = session.sink(&object, &task).expect("sink").expect("a sink");
            let task = &task;
            scope.spawn(move || {
                bytes.chunks(100_000).for_each(|piece| sink.write_all(piece).expect("unpacked"));
                sink.finish(task).expect("whole");
            });
        }
    });
    session.complete(&task).expect("complete");
    let checks = session.check(&task).expect("checks");
    (Restored { directory, workspace, session }, checks)
}

fn assert_sound(checks: &[HealthCheck]) {
    for name in ["pg_verifybackup", "connectivity", "recovered_end", "orphan_detection", "amcheck"] {
        assert_eq!(passed(checks, name).passed, Some(true), "{checks:?}");
    }
    assert!(checks.iter().all(|check| check.passed != Some(false)), "{checks:?}");
}

fn record(driver: &dyn Driver, report: &FullReport) -> Manifest {
    manifest(driver, Statistics::default(), report.position.clone(), 1)
}

/// Runs statements again and again until it is told to stop.
fn repeat(server: &PostgresServer, statements: &'static str, stop: &Arc<AtomicBool>) -> std::thread::JoinHandle<()> {
    let (host, port, stop) = (server.directory.display().to_string(), server.port, stop.clone());
    std::thread::spawn(move || {
        let mut config = ::postgres::Config::new();
        config.host(&host).port(port).user("postgres").dbname("metrics");
        let mut client = config.connect(::postgres::NoTls).expect("connect");
        while !stop.load(Ordering::SeqCst) {
            client.batch_execute(statements).expect("statements");
        }
    })
}

#[test]
fn lanes_of_a_cluster_that_never_rests_are_one_sound_cluster() {
    // So that log is written faster than it is kept, and pages are written while they are read.
    let settings = ["max_wal_size = 64MB", "min_wal_size = 32MB", "shared_buffers = 2MB", "bgwriter_delay = 10ms"];
    let settings = settings.map(str::to_owned).to_vec();
    let (_place, server) = cluster(&PostgresOptions { settings, ..PostgresOptions::default() });
    server.sql_in(
        "metrics",
        "CREATE TABLE accounts (id int PRIMARY KEY, balance int, filler text) WITH (fillfactor = 50); \
         INSERT INTO accounts SELECT n, 0, repeat('x', 200) FROM generate_series(1, 100000) n; CREATE INDEX ON accounts (balance)",
    );
    let stop = Arc::new(AtomicBool::new(false));
    let busy = [
        "UPDATE accounts SET balance = balance + 1 WHERE id % 97 = (random() * 97)::int",
        "CHECKPOINT; SELECT pg_sleep(0.3)",
        "CREATE TABLE passing AS SELECT * FROM samples LIMIT 2000; DROP TABLE passing; \
         CREATE TEMP TABLE IF NOT EXISTS t AS SELECT 1; TRUNCATE \"odd.name\"; INSERT INTO \"odd.name\" VALUES (1)",
    ]
    .map(|statements| repeat(&server, statements, &stop));
    let driver = in_lanes(&server, 3);
    for _ in 0..3 {
        let (report, lanes) = back_up_lanes(&driver, || ()).expect("backup");
        assert_eq!((lanes.len(), &report.suspect), (3, &Vec::new()));
        let elsewhere = open_directory();
        let (_restored, checks) = restore_lanes(&driver, &record(&driver, &report), lanes, elsewhere.path());
        assert_sound(&checks);
    }
    stop.store(true, Ordering::SeqCst);
    busy.into_iter().for_each(|thread| thread.join().expect("writer"));
}

#[test]
fn files_that_come_and_go_while_a_backup_is_read_are_made_right_by_the_log() {
    let (_place, server) = cluster(&PostgresOptions::default());
    let driver = in_lanes(&server, 1);
    let archived = |state: &str| {
        server.sql(&format!("ALTER SYSTEM SET archive_mode = '{state}'"));
        server.sql("ALTER SYSTEM SET archive_command = 'false'");
        server.stop();
        server.run();
    };
    for state in ["off", "on"] {
        archived(state);
        let (report, lanes) = back_up_lanes(&driver, || {
            server.sql_in(
                "metrics",
                "DROP TABLE samples_a; CREATE TABLE later AS SELECT n FROM generate_series(1, 9999) n",
            );
            server.sql_in("metrics", "TRUNCATE written; DELETE FROM samples_b WHERE sensor > 5");
            server.sql_in("metrics", "VACUUM samples_b");
            server.sql_in("metrics", "VACUUM FULL sensors");
            server.sql("CREATE DATABASE young TEMPLATE metrics");
            server.sql("CHECKPOINT");
        })
        .expect("backup");
        let elsewhere = open_directory();
        let statistics = driver.census(&Task::unobserved()).expect("census").statistics;
        let statistics = Statistics { exact: true, ..statistics };
        let manifest = manifest(&driver, statistics, report.position.clone(), 1);
        let (_restored, checks) = restore_lanes(&driver, &manifest, lanes, elsewhere.path());
        assert_sound(&checks);
        assert_eq!(passed(&checks, "counts").passed, Some(true), "{checks:?}");
        server.sql_in("metrics", "DROP TABLE later; CREATE TABLE samples_a (x int)");
        server.sql("DROP DATABASE young");
    }
}

#[test]
fn log_is_held_by_a_slot_and_missed_where_it_was_recycled() {
    let (_place, server) = cluster(&PostgresOptions::default());
    let driver = in_lanes(&server, 1);
    let recycle = || {
        for _ in 0..4 {
            server.sql_in("metrics", "INSERT INTO written SELECT coalesce(max(n), 0) + 1 FROM written");
            server.sql("SELECT pg_switch_wal()");
            server.sql("CHECKPOINT");
        }
    };
    back_up_lanes(&driver, recycle).expect("a slot holds the log");
    let slots = || server.sql("SELECT count(*) FROM pg_replication_slots") == "0";
    assert!(wait_until(PATIENCE, Duration::from_millis(20), slots));
    server.sql("ALTER SYSTEM SET max_replication_slots = 0");
    server.stop();
    server.run();
    let error = back_up_lanes(&driver, recycle).map(|_| ()).expect_err("the log is gone");
    assert!(error.code() == Code::PostgresToolFailed && error.message().contains("recycled"), "{error:?}");
    assert!(error.hint().contains("wal_keep_size"), "{error:?}");
    // It kept no backup running.
    let idle = || server.sql("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'neo4j-backup'") == "0";
    assert!(wait_until(PATIENCE, Duration::from_millis(20), idle));
    server.sql("ALTER SYSTEM SET wal_keep_size = '256MB'");
    server.sql("SELECT pg_reload_conf()");
    back_up_lanes(&driver, recycle).expect("the log is kept");
}

#[test]
fn a_damaged_page_makes_a_backup_suspect() {
    let (_place, server) = cluster(&PostgresOptions::default());
    let driver = in_lanes(&server, 2);
    server.sql("CHECKPOINT");
    let path = server.sql_in("metrics", "SELECT pg_relation_filepath('samples_a')");
    let file = fs::File::options().read(true).write(true).open(server.data.join(&path)).expect("relation");
    let at = 3 * 8192 + 5000;
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).expect("read");
    file.write_all_at(&[byte[0] ^ 1], at).expect("flip");
    let (report, lanes) = back_up_lanes(&driver, || ()).expect("backup");
    assert_eq!(report.suspect, [format!("{path}: wrong checksum on page 3")]);
    assert!(report.warnings.iter().any(|warning| warning.contains(&path)), "{:?}", report.warnings);
    assert_eq!(lanes.len(), 2);
    file.write_all_at(&byte, at).expect("mend");
    let (report, _) = back_up_lanes(&driver, || ()).expect("backup");
    assert!(report.suspect.is_empty());
}

#[test]
fn tablespaces_come_back_inside_the_data_directory() {
    let (_place, server) = cluster(&PostgresOptions::default());
    let driver = in_lanes(&server, 2);
    let fast = server.directory.join("fast");
    fs::create_dir(&fast).expect("tablespace");
    server.give(&fast);
    server.sql(&format!("CREATE TABLESPACE fast LOCATION '{}'", fast.display()));
    server.sql_in(
        "metrics",
        "CREATE TABLE quick (n int PRIMARY KEY) TABLESPACE fast; INSERT INTO quick SELECT generate_series(1, 5000)",
    );
    let statistics = driver.census(&Task::unobserved()).expect("census").statistics;
    let (report, lanes) = back_up_lanes(&driver, || ()).expect("backup");
    let manifest = manifest(&driver, Statistics { exact: true, ..statistics }, report.position.clone(), 1);
    let elsewhere = open_directory();
    // The original's place must not be needed, and not be touched.
    server.stop();
    fs::rename(&fast, server.directory.join("away")).expect("rename");
    let (restored, checks) = restore_lanes(&driver, &manifest, lanes, elsewhere.path());
    assert_sound(&checks);
    assert_eq!(passed(&checks, "counts").passed, Some(true), "{checks:?}");
    let spaces: Vec<_> = fs::read_dir(restored.directory.join("pg_tblspc")).expect("pg_tblspc").flatten().collect();
    assert!(spaces.len() == 1 && spaces[0].file_type().expect("type").is_dir());
    assert!(!fast.exists() && !restored.directory.join("tablespace_map").exists());
    let settings = fs::read_to_string(restored.directory.join("postgresql.auto.conf")).expect("settings");
    assert!(settings.ends_with("allow_in_place_tablespaces = on\n"), "{settings}");
}

#[test]
fn a_tablespace_that_is_made_meanwhile_is_in_no_backup() {
    let (_place, server) = cluster(&PostgresOptions::default());
    let driver = in_lanes(&server, 2);
    let place = server.directory.join("late");
    fs::create_dir(&place).expect("tablespace");
    server.give(&place);
    let make = || drop(server.sql(&format!("CREATE TABLESPACE late LOCATION '{}'", place.display())));
    let error = back_up_lanes(&driver, make).map(|_| ()).expect_err("refused");
    assert!(error.message().contains("a tablespace was made"), "{error}");
    back_up_lanes(&driver, || ()).expect("a backup");
}

#[test]
fn a_standby_is_a_source_too() {
    let (place, server) = cluster(&PostgresOptions::default());
    let standby_directory = place.path().join("standby");
    fs::create_dir(&standby_directory).expect("directory");
    server.give(&standby_directory);
    let data = standby_directory.join("data");
    let host = server.directory.display().to_string();
    let mut copy = server.command("pg_basebackup");
    copy.arg("-D").arg(&data).args(["-R", "-U", "postgres", "-h", &host, "-p", &server.port.to_string(), "-c", "fast"]);
    assert!(copy.status().expect("pg_basebackup").success());
    let log = standby_directory.join("log");
    let options = format!("-c unix_socket_directories={}", standby_directory.display());
    let control = |arguments: &[&str]| {
        let mut command = server.command("pg_ctl");
        assert!(command.arg("-D").arg(&data).args(arguments).status().expect("pg_ctl").success());
    };
    control(&["-l", log.to_str().expect("UTF-8"), "-o", &options, "-w", "-s", "start"]);
    server.sql_in("metrics", "CREATE TABLE streamed AS SELECT generate_series(1, 1000) n");
    let settings = PostgresDriverSettings {
        data_directory: data.clone(),
        host: standby_directory.display().to_string(),
        ..settings(&server)
    };
    let driver = PostgresDriver::new(settings, Arc::new(LocalLauncher::default()));
    let replayed = || driver.census(&Task::unobserved()).expect("census").statistics.counts.len() == 5;
    assert!(wait_until(PATIENCE, Duration::from_millis(20), replayed));
    let stop = Arc::new(AtomicBool::new(false));
    let busy = repeat(&server, "INSERT INTO streamed SELECT 1; CHECKPOINT", &stop);
    let outcome = back_up_lanes(&driver, || ());
    stop.store(true, Ordering::SeqCst);
    busy.join().expect("writer");
    let (report, lanes) = outcome.expect("backup");
    let manifest = record(&driver, &report);
    control(&["-w", "-s", "-m", "immediate", "stop"]);
    let elsewhere = open_directory();
    let (_restored, checks) = restore_lanes(&driver, &manifest, lanes, elsewhere.path());
    assert_sound(&checks);
}
