//! Quiet and busy clusters come back, and what came back is compared.

use super::*;
use neo4j_backup_agent::artifact::manifest::LogPosition;
use neo4j_backup_agent::base::clock::wait_until;
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

/// Everything dangerous that a base can carry with it. Returns the directory where it would show.
fn booby_trap(server: &PostgresServer, place: &Path) -> PathBuf {
    let traces = place.join("traces");
    fs::create_dir(&traces).expect("traces");
    fs::set_permissions(&traces, fs::Permissions::from_mode(0o777)).expect("mode");
    for setting in [
        "archive_mode = 'always'".to_owned(),
        format!("archive_command = 'touch {}/%f'", traces.display()),
        format!("restore_command = 'touch {}/%f'", traces.display()),
        "listen_addresses = '*'".to_owned(),
        "primary_conninfo = 'host=production'".to_owned(),
        "synchronous_standby_names = 'nobody'".to_owned(),
        "recovery_target_time = '2020-01-01'".to_owned(),
        "shared_buffers = '4TB'".to_owned(),
    ] {
        server.sql(&format!("ALTER SYSTEM SET {setting}"));
    }
    // Written by hand, because the server itself refuses a library that is not there.
    let auto = server.data.join("postgresql.auto.conf");
    let text = fs::read_to_string(&auto).expect("auto.conf") + "shared_preload_libraries = 'not_there'\n";
    fs::write(&auto, text).expect("auto.conf");
    traces
}

/// A backup of a cluster that nobody wrote to, with exact statistics.
fn quiet_backup(place: &Path, server: &PostgresServer, driver: &PostgresDriver) -> (Manifest, Vec<u8>) {
    let task = Task::unobserved();
    server.sql("VACUUM ANALYZE");
    server.sql_in("metrics", "VACUUM ANALYZE");
    let before = driver.census(&task).expect("census");
    let path = place.join("base.tar");
    let report = back_up(driver, &path).expect("backup");
    let after = driver.census(&task).expect("census");
    assert!(before.mark.is_some() && before.mark == after.mark, "{:?} {:?}", before.mark, after.mark);
    let counts = &before.statistics.counts;
    assert_eq!(before.statistics.remark, None);
    assert_eq!((counts["metrics.public.samples"], counts["metrics.public.\"odd.name\""]), (30_000, 2));
    assert!(!counts.keys().any(|name| name.contains("samples_a") || name.contains("cache")));
    assert!(report.warnings.iter().any(|warning| warning.contains("metrics.public.cache")), "{:?}", report.warnings);
    let position = report.position.as_ref().expect("position");
    assert!(position.log_contained && position.lineage == "1", "{position:?}");
    let archive = fs::read(&path).expect("archive");
    let statistics = Statistics { exact: true, ..before.statistics };
    let manifest = manifest(driver, statistics, report.position, archive.len() as u64);
    assert_eq!((&*manifest.server.facts["data_checksums"], &*manifest.server.facts["superuser"]), ("on", "postgres"));
    (manifest, archive)
}

// req: B8 D5
#[test]
fn a_quiet_cluster_comes_back_exactly() {
    let (place, server) = cluster(&PostgresOptions::default());
    let traces = booby_trap(&server, place.path());
    let (driver, task) = (driver(&server), Task::unobserved());
    let (manifest, archive) = quiet_backup(place.path(), &server, &driver);
    server.stop();
    let elsewhere = open_directory();
    let mut restored = restore(&driver, &manifest, &archive, elsewhere.path()).expect("restore");
    let checks = restored.session.check(&task).expect("checks");
    let made = ["pg_verifybackup", "connectivity", "recovered_end", "schema_consistency", "counts", "orphan_detection"];
    for name in made.into_iter().chain(["amcheck"]) {
        assert_eq!(passed(&checks, name).passed, Some(true), "{checks:?}");
    }
    assert!(checks.iter().all(|check| check.passed != Some(false)), "{checks:?}");
    assert_eq!(fs::read_dir(&traces).expect("traces").count(), 0, "the scratch server archived or fetched");
    assert_eq!(fs::read_dir(&restored.workspace).expect("workspace").count(), 0);
    for leftover in ["postmaster.pid", "postmaster.opts"] {
        assert!(!restored.directory.join(leftover).exists(), "{leftover}");
    }
    let (was, is) = (server.data.metadata().expect("old"), restored.directory.metadata().expect("new"));
    assert_eq!((is.uid(), is.mode() & 0o7777), (was.uid(), 0o700));
}

// req: B8
#[test]
fn a_copy_that_is_not_what_was_recorded_fails_its_checks() {
    let (place, server) = cluster(&PostgresOptions::default());
    let (driver, task) = (driver(&server), Task::unobserved());
    let (mut wrong, archive) = quiet_backup(place.path(), &server, &driver);
    *wrong.statistics.counts.get_mut("metrics.public.sensors").expect("count") += 1;
    wrong.statistics.schema.insert("table metrics.public.lost".to_owned());
    wrong.position = wrong.position.map(|position| LogPosition { end: "FF/0".to_owned(), ..position });
    let elsewhere = open_directory();
    let mut restored = restore(&driver, &wrong, &archive, elsewhere.path()).expect("restore");
    let checks = restored.session.check(&task).expect("checks");
    for name in ["recovered_end", "schema_consistency", "counts"] {
        assert_eq!(passed(&checks, name).passed, Some(false), "{checks:?}");
    }
    // The record of another cluster is refused before anything is started.
    wrong.owner.data_identity = "1".to_owned();
    let elsewhere = open_directory();
    let refused = restore(&driver, &wrong, &archive, elsewhere.path()).map(|_| ()).map_err(|e| e.code());
    assert_eq!(refused, Err(Code::BackupCorrupted));
}

/// Writes transactions that touch two tables each until it is told to stop; returns how many.
fn writer(server: &PostgresServer, stop: Arc<AtomicBool>) -> JoinHandle<i64> {
    let (host, port) = (server.directory.display().to_string(), server.port);
    std::thread::spawn(move || {
        let mut config = ::postgres::Config::new();
        config.host(&host).port(port).user("postgres").dbname("metrics");
        let mut client = config.connect(::postgres::NoTls).expect("connect");
        let mut written = 0i64;
        while !stop.load(Ordering::SeqCst) {
            written += 1;
            let statements = format!(
                "BEGIN; INSERT INTO written VALUES ({written}, repeat('x', 2000)); \
                 UPDATE sensors SET name = 'written {written}' WHERE id = 1; COMMIT"
            );
            client.batch_execute(&statements).expect("write");
        }
        written
    })
}

#[test]
fn a_busy_cluster_comes_back_consistent() {
    let (place, server) = cluster(&PostgresOptions::default());
    let (driver, task) = (driver(&server), Task::unobserved());
    let stop = Arc::new(AtomicBool::new(false));
    let writer = writer(&server, stop.clone());
    let writes = || server.sql_in("metrics", "SELECT count(*) > 0 FROM written") == "t";
    assert!(wait_until(PATIENCE, Duration::from_millis(5), writes), "the writer did not write");
    let before = driver.census(&task).expect("census");
    let path = place.path().join("base.tar");
    let report = back_up(&driver, &path).expect("backup");
    let after = driver.census(&task).expect("census");
    stop.store(true, Ordering::SeqCst);
    let written = writer.join().expect("writer");
    assert_ne!(before.mark, after.mark, "{written} transactions did not move the mark");

    let archive = fs::read(&path).expect("archive");
    let manifest = manifest(&driver, before.statistics, report.position, archive.len() as u64);
    let elsewhere = open_directory();
    let mut restored = restore(&driver, &manifest, &archive, elsewhere.path()).expect("restore");
    let checks = restored.session.check(&task).expect("checks");
    assert!(checks.iter().all(|check| check.passed != Some(false)), "{checks:?}");
    assert_eq!((passed(&checks, "counts").passed, passed(&checks, "amcheck").passed), (None, Some(true)));

    // Put into service, it holds every transaction up to one, and nothing of later ones.
    server.stop();
    fs::rename(&server.data, place.path().join("aside")).expect("aside");
    fs::rename(&restored.directory, &server.data).expect("swap");
    server.run();
    let question = "SELECT max(n), count(*), (SELECT name FROM sensors WHERE id = 1) FROM written";
    let state = server.sql_in("metrics", question);
    let parts: Vec<&str> = state.split('|').collect();
    assert_eq!((parts[0], parts[2]), (parts[1], format!("written {}", parts[0]).as_str()), "{state}");
    assert!((1..=written).contains(&parts[0].parse().expect("number")));
}

#[test]
fn a_hypertable_comes_back_with_its_chunks() {
    let place = tempfile::tempdir().expect("tempdir");
    let probe = PostgresServer::start(place.path(), &PostgresOptions::default());
    if probe.sql("SELECT count(*) FROM pg_available_extensions WHERE name = 'timescaledb'") == "0" {
        eprintln!("SKIPPED: the extension timescaledb is not installed on this machine");
        return;
    }
    drop(probe);
    let settings = vec!["shared_preload_libraries = 'timescaledb'".to_owned()];
    let (place, server) = cluster(&PostgresOptions { settings, ..PostgresOptions::default() });
    server.sql_in(
        "metrics",
        "CREATE EXTENSION timescaledb; CREATE TABLE hyper (at timestamptz NOT NULL, v int); \
         SELECT create_hypertable('hyper', 'at'); \
         INSERT INTO hyper SELECT '2026-01-01'::timestamptz + n * interval '1 hour', n FROM generate_series(1, 5000) n",
    );
    let (driver, task) = (driver(&server), Task::unobserved());
    let (manifest, archive) = quiet_backup(place.path(), &server, &driver);
    assert!(manifest.server.facts.contains_key("timescaledb"));
    assert_eq!(manifest.statistics.counts["metrics.public.hyper"], 5000);
    assert!(!manifest.statistics.counts.keys().any(|name| name.contains("_timescaledb")));
    let elsewhere = open_directory();
    let mut restored = restore(&driver, &manifest, &archive, elsewhere.path()).expect("restore");
    let checks = restored.session.check(&task).expect("checks");
    assert!(checks.iter().all(|check| check.passed != Some(false)), "{checks:?}");
    assert_eq!(passed(&checks, "counts").passed, Some(true));
}
