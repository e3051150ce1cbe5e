//! The fake database keeps the promises of a driver, and the control files do what they say.

use super::generated_bytes::GeneratedBytes;
use super::*;
use crate::artifact::digest::{StoredDigest, sha256_hex};
use crate::artifact::identity::Owner;
use crate::artifact::manifest::{BackupDocument, Content, ObjectRecord, PlainDigest};
use crate::artifact::object_key;
use crate::base::process::{LocalLauncher, Tool, run};
use crate::driver::restore_options::RestoreOptions;
use crate::driver::{HealthCheck, VolumeReader, VolumeSpec};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

const PATIENCE: Duration = Duration::from_secs(20);

struct Fake {
    place: tempfile::TempDir,
    driver: SimDriver,
}

impl Fake {
    fn of(files: usize, bytes: usize) -> Fake {
        let place = tempfile::tempdir().expect("tempdir");
        let directory = place.path().join("sim");
        populate(&directory, files, bytes).expect("populate");
        Fake { driver: SimDriver::new(directory), place }
    }

    fn control(&self, name: &str, text: &str) {
        let directory = self.driver.directory.join("control");
        fs::create_dir_all(&directory).expect("control");
        fs::write(directory.join(name), text).expect("control file");
    }

    fn stop(&self) {
        fs::remove_file(self.driver.running()).expect("stop");
    }

    fn open(&self, kind: BackupKind, task: &Task) -> (VolumeSpec, Box<dyn VolumeReader>) {
        let mut full = self.driver.begin_full(kind, self.place.path(), task).expect("begin");
        let mut volumes = full.take_volumes();
        assert_eq!(volumes.len(), 1);
        assert!(full.take_volumes().is_empty(), "volumes are taken once");
        let volume = volumes.remove(0);
        let reader = (volume.open)(task).expect("open");
        full.finish(task).expect("finish");
        (volume.spec, reader)
    }

    fn read(&self, kind: BackupKind) -> (VolumeSpec, Vec<u8>) {
        let task = Task::unobserved();
        let (spec, mut reader) = self.open(kind, &task);
        let mut bytes = Vec::new();
        reader.read_to_end(&mut bytes).expect("read");
        reader.finish(&task).expect("finish");
        (spec, bytes)
    }

    fn census(&self) -> Census {
        self.driver.census(&Task::unobserved()).expect("census")
    }

    /// Restores `bytes` below a new directory named `name`; returns its data directory and the checks.
    fn restore(&self, name: &str, spec: &VolumeSpec, bytes: &[u8], recorded: Statistics) -> (PathBuf, Restored) {
        let directory = self.place.path().join(name);
        fs::create_dir(&directory).expect("directory");
        let place = RestorePlace {
            directory: directory.clone(),
            workspace: self.place.path().to_owned(),
            owner: None,
            without_system: false,
            histories: Vec::new(),
            immediate: false,
            options: RestoreOptions::default(),
            branches: Vec::new(),
        };
        let manifest = manifest(spec, bytes, recorded);
        let session = self.driver.begin_restore(&manifest, &place, &Task::unobserved()).expect("begin");
        let restored = Restored { session };
        (directory.join("data"), restored.filled(&manifest.objects[0], bytes))
    }
}

struct Restored {
    session: Box<dyn RestoreSession>,
}

impl Restored {
    fn filled(mut self, object: &ObjectRecord, bytes: &[u8]) -> Restored {
        let task = Task::unobserved();
        let mut sink = self.session.sink(object, &task).expect("sink").expect("wanted");
        for piece in bytes.chunks(1000) {
            sink.write_all(piece).expect("write");
        }
        sink.finish(&task).expect("finish");
        self.session.complete(&task).expect("complete");
        self
    }

    fn checks(&mut self) -> BTreeMap<String, HealthCheck> {
        let checks = self.session.check(&Task::unobserved()).expect("check");
        checks.into_iter().map(|check| (check.name.clone(), check)).collect()
    }

    fn outcome(&mut self) -> Vec<(String, Option<bool>)> {
        self.checks().into_iter().map(|(name, check)| (name, check.passed)).collect()
    }
}

fn expected(connectivity: Option<bool>, counts: Option<bool>, orphans: Option<bool>) -> Vec<(String, Option<bool>)> {
    [("connectivity", connectivity), ("counts", counts), ("orphan_detection", orphans)]
        .map(|(name, passed)| (name.to_owned(), passed))
        .to_vec()
}

fn exact(census: Census) -> Statistics {
    Statistics { exact: true, ..census.statistics }
}

fn manifest(spec: &VolumeSpec, bytes: &[u8], statistics: Statistics) -> Manifest {
    let id: crate::base::ids::BackupId = "fake-20261119T020000Z-dump".parse().expect("id");
    let object = ObjectRecord {
        key: object_key::backup_object("test", &id, &spec.extension).expect("key"),
        role: spec.role,
        name: spec.name.clone(),
        lane: spec.lane,
        content: spec.content,
        stored: StoredDigest::of(bytes),
        plain: PlainDigest { size: bytes.len() as u64, crc32c: String::new(), sha256: None },
        filters: vec![],
        encryption: None,
    };
    Manifest {
        document: BackupDocument::Backup,
        format: 1,
        environment: "test".into(),
        engine: Engine::Sim,
        db_name: "sim".into(),
        created_at: id.stamp.timestamp(),
        finished_at: id.stamp.timestamp(),
        duration_ms: 1,
        downtime_ms: 0,
        created_by: "test".into(),
        tool_version: "0".into(),
        hostname: "h".into(),
        owner: Owner { host: "h".into(), machine_id: "m".into(), data_identity: "d".into(), epoch: 1 },
        sequence: 1,
        predecessor: None,
        server: ServerRecord::default(),
        position: None,
        statistics,
        rows_estimate: 0,
        sha256: String::new(),
        objects: vec![object],
        warnings: vec![],
        suspect: Vec::new(),
        note: None,
        id,
    }
}

/// Every path below `root` with its content; a directory has none.
fn tree(root: &Path) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
    let scanned = DataTree::scan(root, &Task::unobserved()).expect("scan");
    let content = |path: &Path| fs::read(root.join(path)).expect("read");
    scanned.entries.into_iter().map(|e| (e.path.clone(), e.size.map(|_| content(&e.path)))).collect()
}

#[test]
fn what_was_dumped_comes_back_and_passes_its_checks() {
    let fake = Fake::of(5, 300_001);
    let nested = fake.driver.data().join("nested").join("n".repeat(120));
    fs::create_dir_all(&nested).expect("nested");
    fs::create_dir(fake.driver.data().join("empty")).expect("empty directory");
    fs::write(nested.join("o".repeat(200)), b"a name beyond the header's room").expect("file");
    fs::write(fake.driver.data().join("nothing"), b"").expect("empty file");
    let census = fake.census();
    fake.stop();

    let (spec, bytes) = fake.read(BackupKind::Dump);
    assert_eq!((spec.name.as_str(), spec.extension.as_str(), spec.content), ("data", "dump.tar", Content::Tar));
    assert!(spec.hash_plain && !spec.compressed && spec.lane == 0);
    assert_eq!(spec.estimated_bytes, 300_001 + 31);
    assert_eq!(fake.read(BackupKind::Dump).1, bytes, "the same tree gives the same stream");

    let (data, mut restored) = fake.restore("restored", &spec, &bytes, exact(census.clone()));
    assert_eq!(restored.outcome(), expected(Some(true), Some(true), Some(true)));
    assert_eq!(tree(&data), tree(&fake.driver.data()));
    let copy = DataTree::scan(&data, &Task::unobserved()).expect("scan").census(&Task::unobserved()).expect("census");
    assert_eq!(copy.mark, census.mark);
}

#[test]
fn the_stream_is_the_same_however_it_is_read() {
    let fake = Fake::of(3, 5_000);
    let (_, whole) = fake.read(BackupKind::Base);
    for step in [1, 7, 511, 513, 4096] {
        let (_, mut reader) = fake.open(BackupKind::Base, &Task::unobserved());
        let (mut bytes, mut buffer) = (Vec::new(), vec![0; step]);
        loop {
            match reader.read(&mut buffer).expect("read") {
                0 => break,
                count => bytes.extend_from_slice(&buffer[..count]),
            }
        }
        assert!(bytes == whole, "with {step} bytes at once");
    }
}

// req: B8
#[test]
fn a_restored_copy_that_differs_fails_its_checks() {
    let fake = Fake::of(3, 3_000);
    let recorded = exact(fake.census());
    let (spec, bytes) = fake.read(BackupKind::Base);
    assert_eq!((spec.extension.as_str(), spec.hash_plain), ("base.tar", false));
    let (data, mut restored) = fake.restore("restored", &spec, &bytes, recorded.clone());
    fs::remove_file(data.join("table-01")).expect("remove");
    let checks = restored.checks();
    assert_eq!(checks["counts"].passed, Some(false));
    assert!(checks["counts"].found.contains("table-01"), "{}", checks["counts"].found);

    fs::write(data.join(".left-behind"), b"x").expect("hidden file");
    fake.control("fail-check", "the moon is full\n");
    assert_eq!(restored.outcome(), expected(Some(false), Some(false), Some(false)));
    assert_eq!(restored.checks()["connectivity"].found, "the moon is full");

    fs::remove_file(fake.driver.directory.join("control/fail-check")).expect("remove");
    let inexact = Statistics { exact: false, remark: Some("was written to".to_owned()), ..recorded };
    let (_, mut restored) = fake.restore("inexact", &spec, &bytes, inexact);
    assert_eq!(restored.outcome(), expected(Some(true), None, Some(true)));
    assert_eq!(restored.checks()["counts"].found, "was written to");
}

#[test]
fn a_cut_stream_is_not_taken_for_whole() {
    let fake = Fake::of(2, 2_000);
    let (spec, bytes) = fake.read(BackupKind::Base);
    let task = Task::unobserved();
    let place = RestorePlace {
        directory: fake.place.path().to_owned(),
        workspace: fake.place.path().to_owned(),
        owner: None,
        without_system: false,
        histories: Vec::new(),
        immediate: false,
        options: RestoreOptions::default(),
        branches: Vec::new(),
    };
    let manifest = manifest(&spec, &bytes, Statistics::default());
    let mut session = fake.driver.begin_restore(&manifest, &place, &task).expect("begin");
    let mut sink = session.sink(&manifest.objects[0], &task).expect("sink").expect("wanted");
    sink.write_all(&bytes[..bytes.len() - 512]).expect("write");
    assert_eq!(sink.finish(&task).map_err(|error| error.code()), Err(Code::BackupCorrupted));
}

#[test]
fn a_dump_wants_the_server_stopped_and_unknown_kinds_are_refused() {
    let fake = Fake::of(1, 10);
    let begin = |kind| fake.driver.begin_full(kind, fake.place.path(), &Task::unobserved()).map(drop);
    let code = |kind| begin(kind).map_err(|error| error.code());
    assert!(fake.driver.needs_stop(BackupKind::Dump) && !fake.driver.needs_stop(BackupKind::Base));
    assert_eq!(code(BackupKind::Dump), Err(Code::ServerControlFailed));
    assert_eq!(code(BackupKind::Base), Ok(()));
    assert_eq!(code(BackupKind::Export), Err(Code::NotAvailable));
    assert_eq!(code(BackupKind::Enterprise), Err(Code::NotAvailable));
    fake.stop();
    assert_eq!(code(BackupKind::Dump), Ok(()));
}

#[test]
fn the_service_commands_stop_and_start_it() {
    let fake = Fake::of(1, 10);
    let task = Task::unobserved();
    let (stop, start) = fake.driver.service_commands();
    for (command, running) in [(&stop, false), (&stop, false), (&start, true), (&start, true)] {
        let tool = Tool::new(&command[0]).args(&command[1..]);
        run(&LocalLauncher::default(), &tool, &task).expect("command");
        assert_eq!(fake.driver.is_running(&task).expect("running"), running, "{command:?}");
    }
}

#[test]
fn readiness_is_refused_while_the_control_file_stands() {
    let fake = Fake::of(1, 10);
    let ready = |timeout| fake.driver.wait_ready(timeout, &Task::unobserved()).map_err(|error| error.code());
    assert_eq!(ready(PATIENCE), Ok(()));
    fake.control("fail-ready", "");
    assert_eq!(ready(PATIENCE), Err(Code::ServerControlFailed));
    fs::remove_file(fake.driver.directory.join("control/fail-ready")).expect("remove");
    fake.stop();
    assert_eq!(ready(Duration::ZERO), Err(Code::ServerControlFailed));
    let cancelled = Task::unobserved();
    cancelled.cancel().cancel();
    let waited = fake.driver.wait_ready(PATIENCE, &cancelled).map_err(|error| error.code());
    assert_eq!(waited, Err(Code::Cancelled));
}

/// Reads `reader` to its end on another thread and tells how far it is.
fn in_background(mut reader: Box<dyn VolumeReader>) -> (Arc<AtomicU64>, std::thread::JoinHandle<Result<u64>>) {
    let read = Arc::new(AtomicU64::new(0));
    let shared = read.clone();
    let thread = std::thread::spawn(move || {
        let mut buffer = [0; 300];
        loop {
            match reader.read(&mut buffer) {
                Ok(0) => return Ok(shared.load(Ordering::SeqCst)),
                Ok(count) => shared.fetch_add(count as u64, Ordering::SeqCst),
                Err(cause) => return Err(Error::from_io("reading", "the volume".as_ref(), cause)),
            };
        }
    });
    (read, thread)
}

#[test]
fn a_paused_reader_waits_for_its_sign() {
    let fake = Fake::of(4, 40_000);
    let whole = fake.read(BackupKind::Base).1.len() as u64;
    fake.control("pause-at", "10001\n");
    let (read, thread) = in_background(fake.open(BackupKind::Base, &Task::unobserved()).1);
    let arrived = || read.load(Ordering::SeqCst) == 10_001;
    assert!(wait_until(PATIENCE, POLL_INTERVAL, arrived), "it stands at {}", read.load(Ordering::SeqCst));
    // Several polls of the paused reader later it still stands there.
    assert!(!wait_until(POLL_INTERVAL * 10, POLL_INTERVAL, || !arrived() || thread.is_finished()));
    fake.control("go", "");
    assert_eq!(thread.join().expect("thread").expect("read"), whole);
}

#[test]
fn a_paused_reader_can_be_cancelled() {
    let fake = Fake::of(4, 40_000);
    fake.control("pause-at", "0");
    let task = Task::unobserved();
    let (read, thread) = in_background(fake.open(BackupKind::Base, &task).1);
    assert!(!wait_until(POLL_INTERVAL * 4, POLL_INTERVAL, || thread.is_finished()));
    task.cancel().cancel();
    let result = thread.join().expect("thread").map_err(|error| error.code());
    assert_eq!((result, read.load(Ordering::SeqCst)), (Err(Code::Cancelled), 0));
}

#[test]
fn a_reader_fails_at_the_very_byte() {
    let fake = Fake::of(4, 40_000);
    fake.control("fail-at", "7777");
    let (read, thread) = in_background(fake.open(BackupKind::Base, &Task::unobserved()).1);
    let result = thread.join().expect("thread").map_err(|error| error.code());
    assert_eq!((result, read.load(Ordering::SeqCst)), (Err(Code::IoFailed), 7777));
    fake.control("fail-at", "soon");
    let mut full = fake.driver.begin_full(BackupKind::Base, fake.place.path(), &Task::unobserved()).expect("begin");
    let opened = (full.take_volumes().remove(0).open)(&Task::unobserved()).map(drop).map_err(|error| error.code());
    assert_eq!(opened, Err(Code::ConfigInvalid));
}

#[test]
fn a_generated_stream_replaces_the_tree() {
    let fake = Fake::of(2, 100);
    fake.control("size", "123457");
    assert_eq!(fake.driver.inspect(&Task::unobserved()).expect("inspect").estimated_bytes, 123_457);
    let recorded = exact(fake.census());
    let (spec, bytes) = fake.read(BackupKind::Base);
    assert_eq!((spec.extension.as_str(), spec.content), ("opaque", Content::Opaque));
    assert_eq!((bytes.len() as u64, spec.estimated_bytes), (123_457, 123_457));
    let (data, mut restored) = fake.restore("restored", &spec, &bytes, recorded);
    assert_eq!(restored.outcome(), expected(Some(true), Some(true), Some(true)));
    assert!(fs::read(data.join("opaque")).expect("opaque") == bytes);
}

#[test]
fn the_mark_moves_with_every_write_and_needs_a_running_server() {
    let fake = Fake::of(3, 3_000);
    let before = fake.census();
    assert_eq!(before.statistics.counts, BTreeMap::from([("bytes".to_owned(), 3_000), ("files".to_owned(), 3)]));
    assert_eq!(before.statistics.schema.iter().collect::<Vec<_>>(), ["table-00", "table-01", "table-02"]);
    assert_eq!(fake.census().mark, before.mark);
    fs::write(fake.driver.data().join("table-01"), vec![7; 1_000]).expect("write");
    let written = fake.census();
    assert_eq!(written.statistics, before.statistics, "as many bytes in as many files");
    assert_ne!(written.mark, before.mark);
    fs::rename(fake.driver.data().join("table-02"), fake.driver.data().join("table-03")).expect("rename");
    assert_ne!(fake.census().mark, written.mark);
    fake.stop();
    let unasked = fake.census();
    assert!(unasked.mark.is_none() && unasked.statistics.counts.is_empty() && unasked.statistics.remark.is_some());
}

#[test]
fn the_source_is_described_and_missing_data_is_found_out() {
    let fake = Fake::of(3, 3_000);
    let task = Task::unobserved();
    let source = fake.driver.inspect(&task).expect("inspect");
    assert_eq!((source.estimated_bytes, source.owner.is_current()), (3_000, true));
    assert!(source.data_identity.starts_with("sim-"));
    let live = LivePath { staged: "data".into(), live: fake.driver.data() };
    assert_eq!(fake.driver.live_paths(&task).expect("live paths"), [live]);
    let outside = fake.driver.outside_files(&task).expect("outside files");
    assert_eq!(outside.iter().map(|file| file.archive_name.as_str()).collect::<Vec<_>>(), ["sim.conf"]);
    assert!(fake.driver.doctor(&task).is_empty());

    fs::remove_file(&outside[0].path).expect("remove");
    assert!(fake.driver.outside_files(&task).expect("outside files").is_empty());
    fs::remove_dir_all(fake.driver.data()).expect("remove");
    assert_eq!(fake.driver.inspect(&task).map(drop).map_err(|error| error.code()), Err(Code::IoFailed));
    assert_eq!(fake.driver.doctor(&task).len(), 1);
}

#[test]
fn generated_bytes_never_change_and_half_of_them_compress() {
    let mut bytes = Vec::new();
    GeneratedBytes::new(1, 100_000).read_to_end(&mut bytes).expect("read");
    // Pinned: whoever compares results between releases counts on the same bytes.
    assert_eq!(sha256_hex(&bytes), "b8230ef73d723b55cd96fac7a27dcde72328c9b22f7ed8f182b37d6532de5813");
    let compressed = zstd::encode_all(&bytes[..], 3).expect("compress").len();
    assert!((45_000..60_000).contains(&compressed), "{compressed} of 100000 bytes are left");
}
