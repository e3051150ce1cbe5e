//! The Neo4j driver against a real server.

use crate::servers::neo4j::{Jars, Neo4jOptions, Neo4jServer};
use neo4j_backup_agent::artifact::digest::StoredDigest;
use neo4j_backup_agent::artifact::identity::Owner;
use neo4j_backup_agent::artifact::manifest::{BackupDocument, Engine, Manifest, ObjectRecord, PlainDigest};
use neo4j_backup_agent::artifact::object_key::ObjectKey;
use neo4j_backup_agent::artifact::statistics::Statistics;
use neo4j_backup_agent::base::ids::BackupKind;
use neo4j_backup_agent::base::process::{LocalLauncher, OsUser};
use neo4j_backup_agent::base::task::{Severity, Task};
use neo4j_backup_agent::base::{Code, Error};
use neo4j_backup_agent::driver::neo4j::{Neo4jDriver, Neo4jDriverSettings};
use neo4j_backup_agent::driver::restore_options::RestoreOptions;
use neo4j_backup_agent::driver::{Census, Driver, FullReport, HealthCheck, RestorePlace, Source, VolumeSpec};
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// A backup as it would come out of a repository.
struct Backup {
    source: Source,
    objects: Vec<(VolumeSpec, Vec<u8>)>,
    report: FullReport,
}

fn driver(settings: Neo4jDriverSettings) -> Neo4jDriver {
    Neo4jDriver::new(settings, Arc::new(LocalLauncher::default()))
}

fn back_up(driver: &Neo4jDriver, workspace: &Path) -> Result<Backup, Error> {
    let task = Task::unobserved();
    let source = driver.inspect(&task)?;
    let mut full = driver.begin_full(BackupKind::Dump, workspace, &task)?;
    let mut objects = Vec::new();
    for volume in full.take_volumes() {
        let mut reader = (volume.open)(&task)?;
        let mut bytes = Vec::new();
        reader.read_to_end(&mut bytes).map_err(|cause| Error::from_io("reading", Path::new("dump"), cause))?;
        reader.finish(&task)?;
        objects.push((volume.spec, bytes));
    }
    let report = full.finish(&task)?;
    Ok(Backup { source, objects, report })
}

fn manifest(backup: &Backup, statistics: &Statistics) -> Manifest {
    let time: jiff::Timestamp = "2026-11-20T02:00:00Z".parse().expect("time");
    let objects = backup.objects.iter().map(|(spec, bytes)| ObjectRecord {
        key: ObjectKey::new(format!("environment=dev/graph.{}", spec.extension)).expect("key"),
        role: spec.role,
        name: spec.name.clone(),
        lane: spec.lane,
        content: spec.content,
        stored: StoredDigest::of(bytes),
        plain: PlainDigest { size: bytes.len() as u64, crc32c: String::new(), sha256: None },
        filters: Vec::new(),
        encryption: None,
    });
    Manifest {
        document: BackupDocument::Backup,
        format: 1,
        id: "graph-20261120T020000Z-dump".parse().expect("id"),
        environment: "dev".to_owned(),
        engine: Engine::Neo4j,
        db_name: backup.source.database.clone(),
        created_at: time,
        finished_at: time,
        duration_ms: 1,
        downtime_ms: 1,
        created_by: "test".to_owned(),
        tool_version: "0".to_owned(),
        hostname: "here".to_owned(),
        owner: Owner {
            host: "here".to_owned(),
            machine_id: "0".to_owned(),
            data_identity: backup.source.data_identity.clone(),
            epoch: 1,
        },
        sequence: 1,
        predecessor: None,
        server: backup.source.server.clone(),
        position: backup.report.position.clone(),
        statistics: statistics.clone(),
        rows_estimate: statistics.rows(),
        sha256: String::new(),
        objects: objects.collect(),
        warnings: Vec::new(),
        suspect: Vec::new(),
        note: None,
    }
}

fn place(below: &Path, name: &str, without_system: bool, owner: Option<OsUser>) -> RestorePlace {
    let place = RestorePlace {
        directory: below.join(name),
        workspace: below.join(format!("{name}-work")),
        owner,
        without_system,
        histories: Vec::new(),
        immediate: false,
        options: RestoreOptions::default(),
        branches: Vec::new(),
    };
    fs::create_dir(&place.directory).expect("directory");
    fs::create_dir(&place.workspace).expect("workspace");
    place
}

/// Restores and checks; `edit` may damage an object's bytes on their way.
fn restore(
    driver: &Neo4jDriver,
    manifest: &Manifest,
    backup: &Backup,
    place: &RestorePlace,
    edit: &dyn Fn(&str, &[u8]) -> Vec<u8>,
) -> Result<Vec<HealthCheck>, Error> {
    let task = Task::unobserved();
    let mut session = driver.begin_restore(manifest, place, &task)?;
    for (object, (_, bytes)) in manifest.objects.iter().zip(&backup.objects) {
        let Some(mut sink) = session.sink(object, &task)? else { continue };
        sink.write_all(&edit(&object.name, bytes))
            .map_err(|cause| Error::from_io("loading", &place.directory, cause))?;
        sink.finish(&task)?;
    }
    session.complete(&task)?;
    session.check(&task)
}

/// What happens to an object's bytes on their way into a restore.
type Damage = fn(&str, &[u8]) -> Vec<u8>;

fn whole(_: &str, bytes: &[u8]) -> Vec<u8> {
    bytes.to_vec()
}

fn failed(checks: &[HealthCheck]) -> Vec<&str> {
    checks.iter().filter(|check| check.passed == Some(false)).map(|check| check.name.as_str()).collect()
}

fn assert_all_passed(checks: &[HealthCheck]) {
    let names: Vec<_> = checks.iter().map(|check| check.name.as_str()).collect();
    assert_eq!(
        names,
        ["connectivity", "schema_consistency", "orphan_detection", "counts", "database_check", "recovered_end"]
    );
    assert!(checks.iter().all(|check| check.passed == Some(true)), "{checks:#?}");
}

/// Every file of the live data directory with size and time of change.
fn fingerprint(directory: &Path, into: &mut Vec<(PathBuf, u64, i64, i64)>) {
    for entry in fs::read_dir(directory).expect("list").map(|entry| entry.expect("entry").path()) {
        let metadata = fs::symlink_metadata(&entry).expect("metadata");
        if metadata.is_dir() {
            fingerprint(&entry, into);
        } else {
            into.push((entry, metadata.len(), metadata.mtime(), metadata.mtime_nsec()));
        }
    }
    into.sort();
}

/// The sorted names in a directory.
fn names_in(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).expect("list").map(|entry| entry.expect("entry").file_name());
    let mut names: Vec<_> = entries.map(|name| name.to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// An account that is not root, where this test may become one.
fn other_account() -> Option<OsUser> {
    nix::unistd::geteuid().is_root().then(|| OsUser::of_name("nobody").expect("nobody"))
}

/// Looks at the running server: what the driver says must be what the server says.
fn look_while_running(driver: &Neo4jDriver, server: &Neo4jServer) -> (Source, Census) {
    let task = Task::unobserved();
    assert!(driver.needs_stop(BackupKind::Dump));
    assert!(driver.is_running(&task).expect("running"));
    driver.wait_ready(Duration::from_secs(10), &task).expect("ready");
    let before = driver.census(&task).expect("census");
    assert_eq!((before.statistics.counts["nodes"], before.statistics.counts["relationships"]), (1000, 1988));
    assert!(before.statistics.schema.contains("constraint UNIQUENESS on NODE (`City`) [`name`]"), "{before:?}");
    assert_eq!(driver.census(&task).expect("census").mark, before.mark, "nothing was written");
    server.cypher("CREATE (:Person {id: 990, name: 'late'})");
    let census = driver.census(&task).expect("census");
    assert_ne!(census.mark, before.mark, "a write moves the mark");
    let source = driver.inspect(&task).expect("inspect");
    assert_eq!((source.server.version.as_str(), source.server.edition.as_str()), ("5.26.0", "community"));
    assert_eq!(source.server.facts["store_format"], "record-aligned-1.1");
    let refused = driver.begin_full(BackupKind::Dump, server.home(), &task).map(|_| ()).map_err(|e| e.code());
    assert_eq!(refused, Err(Code::Neo4jAdminFailed), "a dump of a running server is refused");
    let outside = driver.outside_files(&task).expect("outside files");
    assert!(outside.iter().any(|file| file.path == server.home().join("conf/neo4j.conf")), "{outside:?}");
    (source, census)
}

/// Backs the stopped server up: what was counted before holds for this very moment.
fn back_up_stopped(driver: &Neo4jDriver, workspace: &Path, source: &Source, census: &Census) -> (Backup, Statistics) {
    let task = Task::unobserved();
    assert!(!driver.is_running(&task).expect("running"));
    assert_eq!(driver.census(&task).expect("census").mark, census.mark, "the closed store stands at the mark");
    let backup = back_up(driver, workspace).expect("backup");
    assert_eq!((&backup.source.data_identity, &backup.source.server), (&source.data_identity, &source.server));
    assert_eq!(backup.report.position.as_ref().map(|p| p.end.clone()), census.mark);
    let exact = backup.report.statistics.clone().expect("nothing was written after the census");
    assert!(exact.exact && exact.counts == census.statistics.counts);
    let names: Vec<_> = backup.objects.iter().map(|(spec, _)| (spec.name.as_str(), spec.extension.as_str())).collect();
    assert_eq!(names, [("neo4j", "dump"), ("system", "system.dump")]);
    (backup, exact)
}

/// Puts restored directories into service, the present ones aside.
fn put_into_service(driver: &Neo4jDriver, restored: &Path) {
    for live in driver.live_paths(&Task::unobserved()).expect("live paths") {
        let staged = restored.join(&live.staged);
        if staged.exists() {
            fs::rename(&live.live, live.live.with_extension("old")).expect("aside");
            fs::rename(staged, &live.live).expect("swap");
        }
    }
}

fn assert_all_belongs_to(directory: &Path, owner: &OsUser) {
    let mut files = Vec::new();
    fingerprint(directory, &mut files);
    for (path, ..) in files {
        assert_eq!(fs::symlink_metadata(&path).expect("metadata").uid(), owner.uid, "{}", path.display());
    }
}

/// A configuration that leads to another store than the server's own, written as `java.util.Properties` may be.
fn another_store_is_not_taken_for_the_one_in_service(server: &Neo4jServer, scene: &Path) {
    let settings = server.driver_settings();
    let (other, stale) = (scene.join("other"), scene.join("stale data"));
    fs::create_dir(&other).expect("mkdir");
    let copied = std::process::Command::new("cp").arg("-a").args([&server.data(), &stale]).status().expect("cp");
    assert!(copied.success());
    let mut text = fs::read_to_string(&settings.conf).expect("conf");
    text += &format!("\nserver.directories.data :\\\n  {}\n", stale.display());
    let conf = other.join("neo4j.conf");
    fs::write(&conf, text).expect("conf");
    let (driver, task) = (driver(Neo4jDriverSettings { conf, ..settings }), Task::unobserved());
    assert!(driver.live_paths(&task).expect("paths").iter().all(|path| path.live.starts_with(&stale)));
    let error = driver.inspect(&task).expect_err("another store");
    assert_eq!(error.code(), Code::Neo4jUnsupported, "{error}");
    assert!(error.message().contains(&format!("it keeps its data in {}", server.data().display())), "{error}");
    let codes: Vec<_> = driver.doctor(&task).into_iter().map(|finding| finding.code).collect();
    assert!(codes.contains(&"data-elsewhere".to_owned()), "{codes:?}");
    fs::remove_dir_all(&stale).expect("remove");
    a_log_that_is_not_written_any_more_is_not_taken_for_the_one_in_service(server, &other);
}

/// A database that lies where it should and is not served: one of a former configuration, or one that does not start.
fn a_database_that_the_server_has_not_open_is_refused(server: &Neo4jServer) {
    let shop = ["databases", "transactions"].map(|tree| server.data().join(tree).join("shop"));
    for directory in &shop {
        let own = directory.with_file_name("neo4j");
        assert!(std::process::Command::new("cp").arg("-a").args([&own, directory]).status().expect("cp").success());
    }
    let settings = Neo4jDriverSettings { database: "shop".to_owned(), ..server.driver_settings() };
    let (driver, task) = (driver(settings), Task::unobserved());
    let error = driver.inspect(&task).expect_err("nobody serves it");
    assert_eq!(error.code(), Code::Neo4jUnsupported, "{error}");
    assert!(error.message().contains("does not have the database shop open"), "{error}");
    let codes: Vec<_> = driver.doctor(&task).into_iter().map(|finding| finding.code).collect();
    assert!(codes.contains(&"database-not-open".to_owned()), "{codes:?}");
    shop.iter().for_each(|directory| fs::remove_dir_all(directory).expect("remove"));
}

/// The log of a server that was moved, by a setting that the configuration at hand does not have.
fn a_log_that_is_not_written_any_more_is_not_taken_for_the_one_in_service(server: &Neo4jServer, other: &Path) {
    let settings = server.driver_settings();
    let stale = other.join("transactions");
    let copied =
        std::process::Command::new("cp").arg("-a").args([&server.data().join("transactions"), &stale]).status();
    assert!(copied.expect("cp").success());
    let mut text = fs::read_to_string(&settings.conf).expect("conf");
    text += &format!("\ndbms.directories.transaction.logs.root={}\n", stale.display());
    let conf = other.join("moved.conf");
    fs::write(&conf, text).expect("conf");
    let (driver, task) = (driver(Neo4jDriverSettings { conf, ..settings }), Task::unobserved());
    let error = driver.inspect(&task).expect_err("a stale log");
    assert_eq!(error.code(), Code::Neo4jUnsupported, "{error}");
    let written = server.data().join("transactions/neo4j");
    assert!(error.message().contains(&format!("writes its transaction log in {}", written.display())), "{error}");
    // What is exchanged would not be what is in service.
    assert_eq!(driver.check_in_place(&task).map_err(|error| error.code()), Err(Code::Neo4jUnsupported));
    let codes: Vec<_> = driver.doctor(&task).into_iter().map(|finding| finding.code).collect();
    assert!(codes.contains(&"data-elsewhere".to_owned()), "{codes:?}");
    fs::remove_dir_all(&stale).expect("remove");
}

// req: B8, D5, X4
#[test]
fn a_dump_restores_into_a_fresh_directory_and_is_proven() {
    let scene = tempfile::tempdir().expect("tempdir");
    fs::set_permissions(scene.path(), fs::Permissions::from_mode(0o711)).expect("chmod");
    let server = Neo4jServer::start(scene.path(), &Neo4jOptions { jars: Jars::Own, ..Neo4jOptions::default() });
    server.fill();
    let (driver, task) = (driver(server.driver_settings()), Task::unobserved());
    let (source, census) = look_while_running(&driver, &server);
    another_store_is_not_taken_for_the_one_in_service(&server, scene.path());
    a_database_that_the_server_has_not_open_is_refused(&server);
    server.stop();
    let (backup, exact) = back_up_stopped(&driver, scene.path(), &source, &census);

    // Restored elsewhere, as another account, without touching the source.
    let (mut source_before, mut source_after) = (Vec::new(), Vec::new());
    fingerprint(&server.data(), &mut source_before);
    let owner = other_account();
    let first = place(scene.path(), "first", false, owner.clone());
    let checks = restore(&driver, &manifest(&backup, &exact), &backup, &first, &whole).expect("restore");
    assert_all_passed(&checks);
    fingerprint(&server.data(), &mut source_after);
    assert_eq!(source_before, source_after);
    assert_eq!(names_in(&first.directory), ["databases", "transactions"]);
    if let Some(owner) = owner {
        assert_all_belongs_to(&first.directory, &owner);
    }

    // In the place of the old data the server finds everything again.
    put_into_service(&driver, &first.directory);
    server.start_again();
    let restored = driver.census(&task).expect("census");
    assert!(exact.differences(&restored.statistics).is_empty());
    assert_eq!(restored.mark, census.mark);
    assert_eq!(server.number("MATCH (p:Person {id: 990, name: 'late'}) RETURN count(p)"), 1);

    // Killed: not running, and not closed.
    server.cypher("CREATE (:Person {id: 991})");
    server.kill();
    assert!(!driver.is_running(&task).expect("running"));
    assert_eq!(driver.census(&task).expect("census").mark, None, "a store that needs recovery has no certain mark");
    let error = back_up(&driver, scene.path()).err().expect("refused");
    assert_eq!(error.code(), Code::Neo4jAdminFailed);
    assert!(error.hint().contains("let it recover"), "{error:?}");
}

fn restore_onto_a_full_disk(driver: &Neo4jDriver, manifest: &Manifest, backup: &Backup, scene: &Path) {
    use nix::mount::{MntFlags, MsFlags, mount, umount2};
    let place = place(scene, "full", true, None);
    if let Err(cause) = mount(Some("tmpfs"), &place.directory, Some("tmpfs"), MsFlags::empty(), Some("size=300k")) {
        eprintln!("SKIPPED: mounting a small tmpfs is not possible here: {cause}");
        return;
    }
    let refused = restore(driver, manifest, backup, &place, &whole).map(|_| ());
    umount2(&place.directory, MntFlags::MNT_DETACH).expect("unmount");
    let error = refused.expect_err("the disk is full");
    assert_eq!(error.code(), Code::BackupNoSpace, "{error:?}");
}

// req: A11, B8, B15
#[test]
fn damaged_dumps_and_wrong_counts_are_refused_by_name() {
    let scene = tempfile::tempdir().expect("tempdir");
    let password = "not a secret, only a test".to_owned();
    let options = Neo4jOptions { password: Some(password), ..Neo4jOptions::default() };
    let server = Neo4jServer::start(scene.path(), &options);
    server.fill();
    let driver = driver(server.driver_settings());
    let task = Task::unobserved();
    assert!(driver.doctor(&task).is_empty(), "{:?}", driver.doctor(&task));
    let census = driver.census(&task).expect("census");
    assert_eq!(census.statistics.remark, None);
    server.stop();
    let backup = back_up(&driver, scene.path()).expect("backup");
    let exact = backup.report.statistics.clone().expect("exact");

    let damages: [(&str, Damage); 3] = [
        ("cut", |_, bytes| bytes[..bytes.len() / 2].to_vec()),
        ("flipped", |_, bytes| {
            let mut bytes = bytes.to_vec();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 0x10;
            bytes
        }),
        ("empty", |_, _| Vec::new()),
    ];
    for (name, damage) in damages {
        let place = place(scene.path(), name, true, None);
        let error = restore(&driver, &manifest(&backup, &exact), &backup, &place, &damage).err();
        assert_eq!(error.map(|e| e.code()), Some(Code::Neo4jAdminFailed), "{name}");
    }

    restore_onto_a_full_disk(&driver, &manifest(&backup, &exact), &backup, scene.path());

    // Other counts and a schema that is not there; without `system`, which the scratch server must not leave behind.
    let mut wrong = exact.clone();
    *wrong.counts.get_mut("nodes").expect("nodes") += 1;
    wrong.schema.insert("constraint UNIQUENESS on NODE (`Planet`) [`name`]".to_owned());
    let place = place(scene.path(), "wrong", true, None);
    let checks = restore(&driver, &manifest(&backup, &wrong), &backup, &place, &whole).expect("restore");
    assert_eq!(failed(&checks), ["schema_consistency", "counts"]);
    let counts = checks.iter().find(|check| check.name == "counts").expect("counts");
    let expected = format!("nodes: {} were backed up, {} are there", exact.counts["nodes"] + 1, exact.counts["nodes"]);
    assert_eq!(counts.found, expected);
    for tree in ["databases", "transactions"] {
        assert_eq!(names_in(&place.directory.join(tree)), ["neo4j"]);
    }

    // In service beside the old `system` it works as well.
    put_into_service(&driver, &place.directory);
    server.start_again();
    assert_eq!(server.number("MATCH (n) RETURN count(n)"), exact.counts["nodes"]);

    // A restored `system` database knows older passwords: who refuses a login is up all the same, and is not asked again.
    fs::write(server.password_file().expect("file"), "another password\n").expect("write");
    driver.wait_ready(Duration::from_secs(60), &task).expect("it is up");
    let findings = driver.doctor(&task);
    assert!(findings.iter().any(|f| f.code == "bolt-login-refused" && f.severity == Severity::Error), "{findings:?}");
    let blind = driver.census(&task).expect("census");
    assert!(blind.mark.is_none() && blind.statistics.remark.is_some());
}

/// A home whose tools are shell scripts, with just enough of a store to be recognised.
pub(crate) fn stub_home(scene: &Path, admin: &str) -> Neo4jDriverSettings {
    let home = scene.join("stub");
    for directory in ["bin", "conf", "data/databases/neo4j", "data/databases/system", "data/transactions/neo4j"] {
        fs::create_dir_all(home.join(directory)).expect("mkdir");
    }
    let mut header = hex::decode("090000000000000000000000000000000000000000000000").expect("hex");
    header.extend(hex::decode("01000001a1f8c208e6d0a548bae547ce2a067265636f726407616c69676e65640101").expect("hex"));
    header.resize(128, 0);
    fs::write(home.join("data/transactions/neo4j/checkpoint.0"), header).expect("header");
    fs::write(home.join("conf/neo4j.conf"), "").expect("conf");
    for (name, text) in [("neo4j-admin", admin), ("neo4j", "exit 1")] {
        fs::write(home.join("bin").join(name), format!("#!/bin/sh\n{text}\n")).expect("script");
        fs::set_permissions(home.join("bin").join(name), fs::Permissions::from_mode(0o755)).expect("chmod");
    }
    fs::create_dir_all(home.join("lib")).expect("mkdir");
    fs::write(home.join("lib/neo4j-kernel-5.26.0.jar"), b"").expect("jar");
    Neo4jDriverSettings {
        conf: home.join("conf/neo4j.conf"),
        admin: home.join("bin/neo4j-admin"),
        server_command: home.join("bin/neo4j"),
        bolt: None,
        user: None,
        password_file: None,
        database: "Neo4j".to_owned(),
        full: BackupKind::Dump,
        backup_servers: Vec::new(),
        artifacts: scene.join("artifacts"),
        home,
    }
}

// req: B11
#[test]
fn a_tool_that_lies_or_does_not_fit_is_caught() {
    let version = "[ \"$1\" = --version ] && echo 5.26.0 && exit 0; ";
    let cases = [
        ("fails", format!("{version} echo out of luck >&2; exit 3"), "out of luck"),
        ("is silent", format!("{version} exit 0"), "nothing at all"),
        ("prints text", format!("{version} yes usage | head -c 5000"), "does not begin like a dump"),
        (
            "breaks off",
            format!("{version} printf 'DZV1\\050\\265\\057\\375\\004\\130\\365\\377\\001'; head -c 9000 /dev/zero"),
            "broke off",
        ),
        ("is of another release", "echo 5.25.1".to_owned(), "5.25.1"),
        ("has no version", "echo hello".to_owned(), "no version"),
    ];
    for (name, script, words) in cases {
        let scene = tempfile::tempdir().expect("tempdir");
        let driver = driver(stub_home(scene.path(), &script));
        let error = back_up(&driver, scene.path()).err().unwrap_or_else(|| panic!("{name}: passed"));
        assert_eq!(error.code(), Code::Neo4jAdminFailed, "{name}: {error:?}");
        assert!(error.message().contains(words), "{name}: {error:?}");
    }
    let scene = tempfile::tempdir().expect("tempdir");
    let mut settings = stub_home(scene.path(), "exit 0");
    settings.admin = scene.path().join("absent");
    let error = back_up(&driver(settings), scene.path()).err().expect("error");
    assert_eq!(error.code(), Code::ToolMissing);
}

#[test]
fn what_is_not_there_yet_is_refused_with_what_to_set() {
    let scene = tempfile::tempdir().expect("tempdir");
    let driver = driver(Neo4jDriverSettings { full: BackupKind::Export, ..stub_home(scene.path(), "echo 5.26.0") });
    let task = Task::unobserved();
    assert_eq!(driver.default_kind(), BackupKind::Export);
    let error = driver.begin_full(BackupKind::Export, scene.path(), &task).err().expect("refused");
    assert_eq!(error.code(), Code::NotAvailable);
    assert!(error.hint().contains("full = \"online\""));
    let codes: Vec<_> = driver.doctor(&task).into_iter().map(|finding| finding.code).collect();
    assert!(
        codes.contains(&"kind-not-available".to_owned()) && codes.contains(&"bolt-not-configured".to_owned()),
        "{codes:?}"
    );
    let files: Vec<_> = driver.outside_files(&task).expect("files").into_iter().map(|f| f.archive_name).collect();
    assert_eq!(files, ["conf/neo4j.conf"]);
    let census = driver.census(&task).expect("census");
    assert!(census.statistics.remark.is_some() && census.mark.is_none());
}
