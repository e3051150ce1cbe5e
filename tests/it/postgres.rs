//! The PostgreSQL driver against a real server.

use crate::servers::postgres::{PostgresOptions, PostgresServer};
use neo4j_backup_agent::artifact::digest::StoredDigest;
use neo4j_backup_agent::artifact::identity::{FORMAT, Owner};
use neo4j_backup_agent::artifact::manifest::{
    BackupDocument, Content, Engine, LogPosition, Manifest, ObjectRecord, PlainDigest, Role,
};
use neo4j_backup_agent::artifact::object_key;
use neo4j_backup_agent::artifact::statistics::Statistics;
use neo4j_backup_agent::base::clock::wait_until;
use neo4j_backup_agent::base::ids::{BackupId, BackupKind, Stamp, TargetName};
use neo4j_backup_agent::base::process::LocalLauncher;
use neo4j_backup_agent::base::task::Task;
use neo4j_backup_agent::base::{Code, Result};
use neo4j_backup_agent::driver::postgres::{PostgresDriver, PostgresDriverSettings};
use neo4j_backup_agent::driver::{Driver, FullReport, HealthCheck, RestorePlace, RestoreSession};
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(30);
const SCHEMA: &str = "
    CREATE TABLE sensors (id int PRIMARY KEY, name text NOT NULL UNIQUE);
    INSERT INTO sensors SELECT n, 'sensor ' || n FROM generate_series(1, 50) n;
    CREATE TABLE samples (at timestamptz NOT NULL, sensor int REFERENCES sensors, value float8) PARTITION BY RANGE (at);
    CREATE TABLE samples_a PARTITION OF samples FOR VALUES FROM ('2026-01-01') TO ('2026-07-01');
    CREATE TABLE samples_b PARTITION OF samples FOR VALUES FROM ('2026-07-01') TO ('2027-01-01');
    INSERT INTO samples SELECT '2026-01-01'::timestamptz + n * interval '13 minutes', n % 50 + 1, n FROM generate_series(1, 30000) n;
    CREATE INDEX ON samples (sensor, at);
    CREATE TABLE \"odd.name\" (x int); INSERT INTO \"odd.name\" VALUES (1), (2);
    CREATE TABLE written (n bigint PRIMARY KEY, filler text);
    CREATE UNLOGGED TABLE cache (x int); INSERT INTO cache VALUES (1);";

fn settings(server: &PostgresServer) -> PostgresDriverSettings {
    PostgresDriverSettings {
        data_directory: server.data.clone(),
        bin_directory: server.bin.clone(),
        host: server.directory.display().to_string(),
        port: server.port,
        user: "postgres".to_owned(),
        databases: Vec::new(),
        password_file: None,
        config_directory: None,
        full: BackupKind::Base,
    }
}

fn driver(server: &PostgresServer) -> PostgresDriver {
    PostgresDriver::new(settings(server), Arc::new(LocalLauncher::default()))
}

/// A cluster with a database `metrics` in it, and the directory that holds everything.
fn cluster(options: &PostgresOptions) -> (tempfile::TempDir, PostgresServer) {
    let place = tempfile::tempdir().expect("tempdir");
    let server = PostgresServer::start(place.path(), options);
    server.sql("CREATE DATABASE metrics");
    server.sql_in("metrics", SCHEMA);
    (place, server)
}

/// Takes a base backup into the file `into`.
fn back_up(driver: &dyn Driver, into: &Path) -> Result<FullReport> {
    let (task, workspace) = (Task::unobserved(), tempfile::tempdir().expect("workspace"));
    let mut backup = driver.begin_full(BackupKind::Base, workspace.path(), &task)?;
    let volume = backup.take_volumes().pop().expect("a volume");
    assert_eq!((volume.spec.name.as_str(), volume.spec.extension.as_str()), ("base", "base.tar"));
    let mut reader = (volume.open)(&task)?;
    let mut file = fs::File::create(into).expect("file");
    std::io::copy(&mut reader, &mut file)
        .map_err(|cause| neo4j_backup_agent::base::Error::from_io("reading the base backup into", into, cause))?;
    reader.finish(&task)?;
    backup.finish(&task)
}

fn manifest(driver: &dyn Driver, statistics: Statistics, position: Option<LogPosition>, plain_size: u64) -> Manifest {
    let source = driver.inspect(&Task::unobserved()).expect("inspect");
    let now = "2026-11-20T02:00:00Z".parse().expect("time");
    let target = TargetName::new("metrics").expect("name");
    let id = BackupId { target, stamp: Stamp::new(now), kind: BackupKind::Base };
    let key = object_key::backup_object("prod", &id, "base.tar").expect("key");
    Manifest {
        document: BackupDocument::Backup,
        format: FORMAT,
        environment: "prod".to_owned(),
        engine: Engine::Postgresql,
        db_name: source.database,
        created_at: now,
        finished_at: now,
        duration_ms: 0,
        downtime_ms: 0,
        created_by: "test".to_owned(),
        tool_version: "0".to_owned(),
        hostname: "host".to_owned(),
        owner: Owner {
            host: "host".to_owned(),
            machine_id: "0".repeat(32),
            data_identity: source.data_identity,
            epoch: 1,
        },
        sequence: 1,
        predecessor: None,
        server: source.server,
        position,
        rows_estimate: statistics.rows(),
        statistics,
        sha256: "0".repeat(64),
        objects: vec![ObjectRecord {
            key,
            role: Role::Data,
            name: "base".to_owned(),
            lane: 0,
            content: Content::Tar,
            stored: StoredDigest::of(b""),
            plain: PlainDigest { size: plain_size, crc32c: "00000000".to_owned(), sha256: None },
            filters: Vec::new(),
            encryption: None,
        }],
        warnings: Vec::new(),
        note: None,
        id,
    }
}

struct Restored {
    directory: PathBuf,
    workspace: PathBuf,
    session: Box<dyn RestoreSession>,
}

/// Restores an archive below `place` up to and including `complete`.
fn restore(driver: &dyn Driver, manifest: &Manifest, archive: &[u8], place: &Path) -> Result<Restored> {
    let task = Task::unobserved();
    let (directory, workspace) = (place.join("restored"), place.join("workspace"));
    fs::create_dir(&directory).expect("directory");
    fs::create_dir(&workspace).expect("workspace");
    let target =
        RestorePlace { directory: directory.clone(), workspace: workspace.clone(), owner: None, without_system: false };
    let mut session = driver.begin_restore(manifest, &target, &task)?;
    let mut sink = session.sink(&manifest.objects[0], &task)?.expect("a sink");
    for piece in archive.chunks(100_000) {
        sink.write_all(piece)
            .map_err(|cause| neo4j_backup_agent::base::Error::from_io("unpacking into", &directory, cause))?;
    }
    sink.finish(&task)?;
    session.complete(&task)?;
    Ok(Restored { directory, workspace, session })
}

/// A directory that the cluster's account may pass through.
fn open_directory() -> tempfile::TempDir {
    let place = tempfile::tempdir().expect("tempdir");
    fs::set_permissions(place.path(), fs::Permissions::from_mode(0o755)).expect("mode");
    place
}

fn passed<'a>(checks: &'a [HealthCheck], name: &str) -> &'a HealthCheck {
    checks.iter().find(|check| check.name == name).unwrap_or_else(|| panic!("no check {name} in {checks:?}"))
}

// req: B8 D5
#[test]
fn a_quiet_cluster_comes_back_exactly() {
    // Everything dangerous that a base carries with it: archiving, standby settings, a library that is not there.
    let (place, server) = cluster(&PostgresOptions::default());
    let archived = place.path().join("archived");
    fs::create_dir(&archived).expect("archive");
    fs::set_permissions(&archived, fs::Permissions::from_mode(0o777)).expect("mode");
    for setting in [
        "archive_mode = 'always'".to_owned(),
        format!("archive_command = 'touch {}/%f'", archived.display()),
        format!("restore_command = 'touch {}/%f'", archived.display()),
        "listen_addresses = '*'".to_owned(),
        "primary_conninfo = 'host=production'".to_owned(),
        "synchronous_standby_names = 'nobody'".to_owned(),
        "recovery_target_time = '2020-01-01'".to_owned(),
        "shared_buffers = '4TB'".to_owned(),
    ] {
        server.sql(&format!("ALTER SYSTEM SET {setting}"));
    }
    // A file of that name would stop the start of a copy: it is written by hand, as the server refuses such a library.
    let auto = server.data.join("postgresql.auto.conf");
    let text = fs::read_to_string(&auto).expect("auto.conf") + "shared_preload_libraries = 'not_there'\n";
    fs::write(&auto, text).expect("auto.conf");

    let (driver, task) = (driver(&server), Task::unobserved());
    server.sql("VACUUM ANALYZE");
    server.sql_in("metrics", "VACUUM ANALYZE");
    let before = driver.census(&task).expect("census");
    let archive = place.path().join("base.tar");
    let report = back_up(&driver, &archive).expect("backup");
    let after = driver.census(&task).expect("census");
    assert!(before.mark.is_some() && before.mark == after.mark, "{:?} {:?}", before.mark, after.mark);
    assert_eq!(before.statistics.remark, None);
    assert_eq!(before.statistics.counts["metrics.public.samples"], 30_000);
    assert_eq!(before.statistics.counts["metrics.public.\"odd.name\""], 2);
    assert!(!before.statistics.counts.keys().any(|name| name.contains("samples_a") || name.contains("cache")));
    assert!(report.warnings.iter().any(|warning| warning.contains("metrics.public.cache")), "{:?}", report.warnings);
    let position = report.position.clone().expect("position");
    assert!(position.log_contained && position.lineage == "1", "{position:?}");

    let archive = fs::read(&archive).expect("archive");
    let statistics = Statistics { exact: true, ..before.statistics };
    let manifest = manifest(&driver, statistics, report.position, archive.len() as u64);
    assert_eq!(manifest.server.facts["data_checksums"], "on");
    assert_eq!(manifest.server.facts["superuser"], "postgres");
    server.stop();
    let elsewhere = open_directory();
    let mut restored = restore(&driver, &manifest, &archive, elsewhere.path()).expect("restore");
    let checks = restored.session.check(&task).expect("checks");
    for name in [
        "pg_verifybackup",
        "connectivity",
        "recovered_end",
        "schema_consistency",
        "counts",
        "orphan_detection",
        "amcheck",
    ] {
        assert_eq!(passed(&checks, name).passed, Some(true), "{checks:?}");
    }
    assert!(checks.iter().all(|check| check.passed != Some(false)), "{checks:?}");
    assert_eq!(fs::read_dir(&archived).expect("archive").count(), 0, "the scratch server archived or restored");
    assert_eq!(fs::read_dir(&restored.workspace).expect("workspace").count(), 0);
    assert!(
        !restored.directory.join("postmaster.pid").exists() && !restored.directory.join("postmaster.opts").exists()
    );
    let (was, is) = (server.data.metadata().expect("old"), restored.directory.metadata().expect("new"));
    assert_eq!((is.uid(), is.mode() & 0o7777), (was.uid(), 0o700));

    // The same directory against a record that says otherwise: each difference is found.
    let mut wrong = manifest.clone();
    *wrong.statistics.counts.get_mut("metrics.public.sensors").expect("count") += 1;
    wrong.statistics.schema.insert("table metrics.public.lost".to_owned());
    wrong.position = wrong.position.map(|position| LogPosition { end: "FF/0".to_owned(), ..position });
    let elsewhere = open_directory();
    let mut restored = restore(&driver, &wrong, &archive, elsewhere.path()).expect("restore");
    let checks = restored.session.check(&task).expect("checks");
    for name in ["recovered_end", "schema_consistency", "counts"] {
        assert_eq!(passed(&checks, name).passed, Some(false), "{checks:?}");
    }
    // Another cluster's record is refused at once.
    wrong.owner.data_identity = "1".to_owned();
    let elsewhere = open_directory();
    let refused = restore(&driver, &wrong, &archive, elsewhere.path()).map(|_| ()).map_err(|e| e.code());
    assert_eq!(refused, Err(Code::BackupCorrupted));
}

#[test]
fn a_busy_cluster_comes_back_consistent() {
    let (place, server) = cluster(&PostgresOptions::default());
    let (driver, task) = (driver(&server), Task::unobserved());
    let stop = Arc::new(AtomicBool::new(false));
    let writer = {
        let (stop, host, port) = (stop.clone(), server.directory.display().to_string(), server.port);
        std::thread::spawn(move || {
            let mut config = postgres::Config::new();
            config.host(&host).port(port).user("postgres").dbname("metrics");
            let mut client = config.connect(postgres::NoTls).expect("connect");
            let mut written = 0i64;
            while !stop.load(Ordering::SeqCst) {
                written += 1;
                // One transaction touches two tables; a consistent copy has both or none.
                client
                    .batch_execute(&format!(
                        "BEGIN; INSERT INTO written VALUES ({written}, repeat('x', 2000)); \
                         UPDATE sensors SET name = 'written {written}' WHERE id = 1; COMMIT"
                    ))
                    .expect("write");
            }
            written
        })
    };
    let begun = wait_until(PATIENCE, Duration::from_millis(5), || {
        server.sql_in("metrics", "SELECT count(*) > 0 FROM written") == "t"
    });
    assert!(begun, "the writer did not write");
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
    assert_eq!(passed(&checks, "counts").passed, None);
    assert_eq!(passed(&checks, "amcheck").passed, Some(true));

    // Put into service, it holds every transaction up to one, and nothing of later ones.
    server.stop();
    fs::rename(&server.data, place.path().join("aside")).expect("aside");
    fs::rename(&restored.directory, &server.data).expect("swap");
    server.run();
    let state =
        server.sql_in("metrics", "SELECT max(n), count(*), (SELECT name FROM sensors WHERE id = 1) FROM written");
    let parts: Vec<&str> = state.split('|').collect();
    assert_eq!((parts[0], parts[2]), (parts[1], format!("written {}", parts[0]).as_str()), "{state}");
    assert!((1..=written).contains(&parts[0].parse().expect("number")));
}

#[test]
fn a_killed_server_is_not_running_and_is_read_from_its_files() {
    let (_place, server) = cluster(&PostgresOptions::default());
    let (driver, task) = (driver(&server), Task::unobserved());
    let running = driver.inspect(&task).expect("running");
    assert!(driver.is_running(&task).expect("running"));
    driver.wait_ready(PATIENCE, &task).expect("ready");
    server.kill9();
    let gone = wait_until(PATIENCE, Duration::from_millis(20), || !driver.is_running(&task).expect("looked"));
    assert!(gone && server.data.join("postmaster.pid").exists());
    let unreachable = driver.wait_ready(Duration::from_millis(300), &task);
    assert_eq!(unreachable.map_err(|e| e.code()), Err(Code::PostgresUnreachable));
    let census = driver.census(&task).expect("census");
    assert!(census.mark.is_none() && census.statistics.remark.expect("why").contains("connecting"));

    let stopped = driver.inspect(&task).expect("stopped");
    assert_eq!(stopped.data_identity, running.data_identity);
    assert_eq!(stopped.owner, running.owner);
    for name in ["data_checksums", "wal_segment_size", "max_connections", "max_prepared_transactions"] {
        assert_eq!(stopped.server.facts[name], running.server.facts[name], "{name}");
    }
    let refused = driver.begin_full(BackupKind::Base, Path::new("/"), &task).map(|_| ()).map_err(|e| e.code());
    assert_eq!(refused, Err(Code::PostgresUnreachable));
    server.run();
    assert!(driver.is_running(&task).expect("running again"));
}

#[test]
fn what_a_base_backup_cannot_hold_is_refused_before_it_starts() {
    let options = PostgresOptions { checksums: false, port: 5499, ..PostgresOptions::default() };
    let (place, server) = cluster(&options);
    let (driver, task) = (driver(&server), Task::unobserved());
    let begin = |kind| driver.begin_full(kind, place.path(), &task).map(|_| ());
    for kind in [BackupKind::Dump, BackupKind::Export, BackupKind::Enterprise] {
        let error = begin(kind).expect_err("refused");
        assert!(error.code() == Code::NotAvailable && error.hint().contains("full = \"base\""));
    }
    begin(BackupKind::Base).expect("possible");
    let (fast, findings) = (server.directory.join("fast"), || driver.doctor(&task));
    let codes = |found: &[neo4j_backup_agent::driver::Finding]| {
        found.iter().map(|finding| finding.code.clone()).collect::<Vec<_>>()
    };
    assert_eq!(codes(&findings()), ["no-data-checksums", "fsync-off"], "{:?}", findings());

    fs::create_dir(&fast).expect("tablespace");
    server.give(&fast);
    server.sql(&format!("CREATE TABLESPACE fast LOCATION '{}'", fast.display()));
    let error = begin(BackupKind::Base).expect_err("refused");
    assert!(error.code() == Code::PostgresUnsupported && error.message().contains("fast in /"), "{error:?}");
    assert!(codes(&findings()).contains(&"tablespaces".to_owned()));
    server.sql("DROP TABLESPACE fast");

    // A role without rights: each obstacle names the statement that removes it, and the statement does.
    let mut settings = settings(&server);
    settings.user = "neo4j-backup".to_owned();
    let driver = PostgresDriver::new(settings, Arc::new(LocalLauncher::default()));
    let doctor = |code: &str| driver.doctor(&task).into_iter().find(|finding| finding.code == code);
    let missing = doctor("role-missing").expect("role missing");
    server.sql(&missing.fix.replace("REPLICATION", "NOREPLICATION"));
    let error = driver.begin_full(BackupKind::Base, place.path(), &task).map(|_| ()).expect_err("refused");
    assert!(error.code() == Code::PostgresUnsupported && error.hint().starts_with("ALTER ROLE"), "{error:?}");
    for code in ["role-without-replication", "role-without-pg-read-all-data", "role-without-pg-read-all-settings"] {
        let finding = doctor(code).unwrap_or_else(|| panic!("{code}"));
        if code == "role-without-pg-read-all-data" {
            let remark = driver.census(&task).expect("census").statistics.remark.expect("remark");
            assert!(remark.contains("metrics.public.samples (the role may not read it)"), "{remark}");
        }
        server.sql(&finding.fix);
        assert!(doctor(code).is_none(), "{code} stays after {}", finding.fix);
    }
    let archive = place.path().join("base.tar");
    back_up(&driver, &archive).expect("the role's own backup");
    assert_eq!(driver.census(&task).expect("census").statistics.counts["metrics.public.samples"], 30_000);

    // Without the line for replication the server refuses; the remedy is in the hint and in the doctor's finding.
    let hba = server.data.join("pg_hba.conf");
    fs::write(&hba, "local all all trust\n").expect("pg_hba.conf");
    server.sql("SELECT pg_reload_conf()");
    let noticed = wait_until(PATIENCE, Duration::from_millis(50), || doctor("replication-not-admitted").is_some());
    assert!(noticed);
    let error = back_up(&driver, &archive).expect_err("refused");
    assert!(
        error.code() == Code::PostgresToolFailed && error.hint().contains("local replication neo4j-backup"),
        "{error:?}"
    );
}

/// PostgreSQL's programs with one of them exchanged for a script.
fn stub(server: &PostgresServer, place: &Path, name: &str, script: &str) -> PathBuf {
    let bin = place.join("bin");
    fs::create_dir_all(&bin).expect("bin");
    for entry in fs::read_dir(&server.bin).expect("programs").flatten() {
        let link = bin.join(entry.file_name());
        let _ = fs::remove_file(&link);
        if entry.file_name() != name {
            std::os::unix::fs::symlink(entry.path(), link).expect("link");
        }
    }
    let path = bin.join(name);
    fs::write(
        &path,
        format!("#!/bin/sh\n[ \"$1\" = --version ] && exec {}/{name} --version\n{script}\n", server.bin.display()),
    )
    .expect("script");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("mode");
    bin
}

#[test]
fn a_tool_that_lies_and_an_archive_that_was_damaged_are_found_out() {
    let (place, server) = cluster(&PostgresOptions::default());
    let (good, task) = (driver(&server), Task::unobserved());
    let path = place.path().join("base.tar");
    let report = back_up(&good, &path).expect("backup");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("mode");
    let archive = fs::read(&path).expect("archive");
    let length = archive.len();

    // The tool claims success over an empty or cut stream.
    let run_stub = |script: &str| {
        let mut settings = settings(&server);
        settings.bin_directory = stub(&server, place.path(), "pg_basebackup", script);
        let driver = PostgresDriver::new(settings, Arc::new(LocalLauncher::default()));
        back_up(&driver, &place.path().join("stub.tar"))
    };
    run_stub(&format!("exec cat {}", path.display())).expect("the whole archive passes");
    let cuts = [0, 1, 511, 512, 513, 100_000, length / 2, length - 1025, length - 1024, length - 513, length - 1];
    for cut in cuts {
        let error =
            run_stub(&format!("exec head -c {cut} {}", path.display())).err().unwrap_or_else(|| panic!("{cut}"));
        assert_eq!(error.code(), Code::PostgresToolFailed, "{cut}: {error}");
    }
    let error = run_stub(&format!("cat {}; echo disk on fire >&2; exit 1", path.display())).expect_err("status");
    assert!(error.message().contains("disk on fire"), "{error}");

    // The archive was damaged afterwards.
    let manifest = manifest(&good, Statistics::default(), report.position, length as u64);
    let attempt = |archive: &[u8]| {
        let elsewhere = open_directory();
        let mut restored = restore(&good, &manifest, archive, elsewhere.path())?;
        restored.session.check(&task)
    };
    for cut in [0, 512, length / 3, length - 1024, length - 1] {
        let code = attempt(&archive[..cut]).map(|_| ()).map_err(|e| e.code());
        assert_eq!(code, Err(Code::BackupCorrupted), "{cut}");
    }
    let marker = b"sensor 17";
    let at = archive.windows(marker.len()).position(|window| window == marker).expect("a row");
    let mut flipped = archive.clone();
    flipped[at] ^= 1;
    let checks = attempt(&flipped).expect("unpacked");
    assert_eq!((checks[0].name.as_str(), checks[0].passed), ("pg_verifybackup", Some(false)), "{checks:?}");

    // An archive that would write elsewhere.
    let mut hostile = tar::Header::new_ustar();
    hostile.set_entry_type(tar::EntryType::Symlink);
    hostile.set_path("pg_wal").expect("name");
    hostile.set_link_name("/etc").expect("target");
    hostile.set_size(0);
    hostile.set_mode(0o700);
    hostile.set_cksum();
    let bytes = [hostile.as_bytes().as_slice(), &archive].concat();
    assert_eq!(attempt(&bytes).map(|_| ()).map_err(|e| e.code()), Err(Code::HostileArchive));
}

#[test]
fn a_cancelled_backup_ends_at_once_and_leaves_nothing_running() {
    let (place, server) = cluster(&PostgresOptions::default());
    let (driver, task) = (driver(&server), Task::unobserved());
    let mut backup = driver.begin_full(BackupKind::Base, place.path(), &task).expect("begin");
    let volume = backup.take_volumes().pop().expect("volume");
    let mut reader = (volume.open)(&task).expect("open");
    reader.read_exact(&mut [0; 4096]).expect("some bytes");
    task.cancel().cancel();
    std::io::copy(&mut reader, &mut std::io::sink()).expect("the stream ends");
    assert_eq!(reader.finish(&task).map_err(|e| e.code()), Err(Code::Cancelled));
    assert!(backup.finish(&Task::unobserved()).is_err());
    let idle = wait_until(PATIENCE, Duration::from_millis(50), || {
        server.sql("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'walsender'") == "0"
    });
    assert!(idle, "the server still sends");
}

#[test]
fn files_outside_the_data_directory_are_listed() {
    let place = tempfile::tempdir().expect("tempdir");
    let etc = place.path().join("etc");
    fs::create_dir_all(etc.join("conf.d")).expect("conf.d");
    for name in ["pg_hba.conf", "environment", "conf.d/tuning.conf", "server.crt"] {
        fs::write(etc.join(name), "local all all trust\nlocal replication all trust\n").expect("file");
    }
    fs::write(etc.join("environment"), "").expect("environment");
    let hba = format!("hba_file = '{}'", etc.join("pg_hba.conf").display());
    let options = PostgresOptions { settings: vec![hba], ..PostgresOptions::default() };
    let server = PostgresServer::start(place.path(), &options);
    let task = Task::unobserved();
    let names = |driver: &PostgresDriver| -> Vec<String> {
        let files = driver.outside_files(&task).expect("files");
        files.iter().map(|file| file.path.strip_prefix(&etc).expect("below etc").display().to_string()).collect()
    };
    let mut settings = settings(&server);
    assert_eq!(names(&PostgresDriver::new(settings.clone(), Arc::new(LocalLauncher::default()))), ["pg_hba.conf"]);
    settings.config_directory = Some(etc.clone());
    let all = ["conf.d/tuning.conf", "environment", "pg_hba.conf", "server.crt"];
    let driver = PostgresDriver::new(settings, Arc::new(LocalLauncher::default()));
    assert_eq!(names(&driver), all);
    server.stop();
    assert_eq!(names(&driver), all, "also while the server is stopped");
}

#[test]
fn a_directory_that_the_account_cannot_reach_is_named() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: only root restores for another account");
        return;
    }
    let (place, server) = cluster(&PostgresOptions::default());
    let (driver, task) = (driver(&server), Task::unobserved());
    let path = place.path().join("base.tar");
    let report = back_up(&driver, &path).expect("backup");
    let archive = fs::read(&path).expect("archive");
    let manifest = manifest(&driver, Statistics::default(), report.position, archive.len() as u64);
    let closed = tempfile::tempdir().expect("closed");
    fs::set_permissions(closed.path(), fs::Permissions::from_mode(0o700)).expect("close");
    let mut restored = restore(&driver, &manifest, &archive, closed.path()).expect("restore");
    let error = restored.session.check(&task).expect_err("unreachable");
    assert!(error.code() == Code::RestoreFailed && error.message().contains("cannot reach"), "{error}");
    assert!(error.hint().contains("chmod"));
    // Nothing was recorded, so nothing is compared; that is said.
    fs::set_permissions(closed.path(), fs::Permissions::from_mode(0o711)).expect("open");
    let checks = restored.session.check(&task).expect("checks");
    assert_eq!(passed(&checks, "counts").passed, None);
    assert_eq!(passed(&checks, "connectivity").passed, Some(true));
    assert!(checks.iter().all(|check| check.passed != Some(false)), "{checks:?}");
}
