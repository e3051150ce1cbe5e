//! Stopped and killed servers, cancelled backups, files and directories outside.

use super::*;
use neo4j_backup_agent::base::clock::wait_until;
use std::io::Read;

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
