//! The PostgreSQL driver against a real server: what all these tests need.
//!
//! - `restored_copies`: quiet and busy clusters come back
//! - `obstacles`: what cannot be backed up, and what the doctor says to it
//! - `damage`: tools that lie, archives that were damaged
//! - `online`: bases that are read beside a working server
//! - `surroundings`: stopped and killed servers, cancelled backups, files and directories outside

mod damage;
mod obstacles;
mod online;
mod restored_copies;
mod surroundings;

use crate::servers::postgres::{PostgresOptions, PostgresServer};
use neo4j_backup_agent::artifact::digest::StoredDigest;
use neo4j_backup_agent::artifact::identity::{FORMAT, Owner};
use neo4j_backup_agent::artifact::manifest::{
    BackupDocument, Content, Engine, LogPosition, Manifest, ObjectRecord, PlainDigest, Role,
};
use neo4j_backup_agent::artifact::object_key;
use neo4j_backup_agent::artifact::statistics::Statistics;
use neo4j_backup_agent::base::ids::{BackupId, BackupKind, Stamp, TargetName};
use neo4j_backup_agent::base::process::LocalLauncher;
use neo4j_backup_agent::base::task::Task;
use neo4j_backup_agent::base::{Code, Result};
use neo4j_backup_agent::driver::postgres::{DumpFormat, PostgresDriver, PostgresDriverSettings};
use neo4j_backup_agent::driver::restore_options::RestoreOptions;
use neo4j_backup_agent::driver::{Driver, FullReport, HealthCheck, RestorePlace, RestoreSession};
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
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
        dump_format: DumpFormat::Custom,
        lanes: None,
        target: "metrics".to_owned(),
        spool: server.directory.join("spool"),
        spool_limit: 1 << 30,
        spool_drop: false,
        by_slot: false,
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
        suspect: Vec::new(),
        note: None,
        id,
    }
}

struct Restored {
    directory: PathBuf,
    workspace: PathBuf,
    session: Box<dyn RestoreSession>,
}

/// A place for a restore, in two new directories below `place`.
fn place_below(place: &Path) -> RestorePlace {
    let (directory, workspace) = (place.join("restored"), place.join("workspace"));
    fs::create_dir(&directory).expect("directory");
    fs::create_dir(&workspace).expect("workspace");
    RestorePlace {
        directory,
        workspace,
        owner: None,
        without_system: false,
        histories: Vec::new(),
        immediate: false,
        options: RestoreOptions::default(),
        branches: Vec::new(),
    }
}

/// Restores an archive below `place` up to and including `complete`.
fn restore(driver: &dyn Driver, manifest: &Manifest, archive: &[u8], place: &Path) -> Result<Restored> {
    let task = Task::unobserved();
    let target = place_below(place);
    let (directory, workspace) = (target.directory.clone(), target.workspace.clone());
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
