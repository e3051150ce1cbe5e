//! A base backup read straight from the data directory of a running server.
//!
//! The server is told when it begins and ends, which makes it write what recovery needs into the log (full pages, and
//! where to start); between the two, files are read as they are, of any age and torn, because replaying the log makes them
//! right. Source: "Making a Base Backup Using the Low Level API" in PostgreSQL's manual. What that needs:
//! 1. the session in which it was begun stays open ([`session`]);
//! 2. the list of files is made after the start ([`survey`]), and they are spread over lanes as these come to them;
//! 3. pages are held against their checksums on the way ([`copy`], [`page`]);
//! 4. `global/pg_control` is read last of all files ([`control`]);
//! 5. the log from start to end goes with it ([`wal`]), and so do `backup_label` and a manifest ([`pg_manifest`]).
//!
//! A server on another host, and one whose functions or files are closed to us, is read by `pg_basebackup` instead.

mod archive;
mod control;
mod copy;
mod page;
mod pg_manifest;
mod relation;
mod session;
mod survey;
mod wal;

use self::archive::Archive;
use self::copy::Source;
use self::pg_manifest::{ManifestFile, ManifestFrame};
use self::session::{Answer, Session, Stopped};
use self::survey::{CONTROL, ClusterFile, Survey};
use self::wal::{Lsn, WalTail};
use super::PostgresDriverSettings;
use super::connection::{Address, TALK_TIMEOUT, within};
use super::control_file;
use crate::artifact::manifest::{Content, LogPosition, Role};
use crate::base::bytes::MIB;
use crate::base::clock::Stopwatch;
use crate::base::task::Task;
use crate::base::{Code, Error, Result};
use crate::driver::lanes::{LaneEnd, Lanes};
use crate::driver::stream::{self, Producer};
use crate::driver::{FullBackup, FullReport, Volume, VolumeReader, VolumeSpec};
use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

pub(super) use self::session::{refused_in, signatures};

/// A second lane is worth its own compressor from this many bytes on.
const LANE_BYTES: u64 = 256 * MIB;
/// Lanes by themselves: as many as are stored side by side.
const LANES: usize = 2;
/// Lanes at most, if so many are asked for.
const LANES_MAX: usize = 8;
/// The first version that has tablespaces inside the data directory, as a restore leaves them.
const TABLESPACES_SINCE: i32 = 150_000;
/// How often the segments of the log that are complete are copied.
const WAL_INTERVAL: Duration = Duration::from_millis(100);
/// Most strange files that are named in a warning.
const NAMED_MAX: usize = 10;

/// What is between the server and a backup that reads its files.
pub(super) enum Outlook {
    /// Nothing.
    Ready(Box<Ready>),
    /// It has to be another way, and why.
    Unfit(String),
}

/// A cluster that can be read.
pub(super) struct Ready {
    prepared: session::Prepared,
    root: PathBuf,
    system_identifier: u64,
}

/// Asks the server and looks at its files.
pub(super) fn prepare(settings: &PostgresDriverSettings, address: &Address, task: &Task) -> Result<Outlook> {
    let root = settings.data_directory.clone();
    let identifier = match control_file::read(&root).and_then(|control| readable(&root).map(|()| control)) {
        Ok(control) => control.system_identifier,
        Err(cause) => return Ok(Outlook::Unfit(format!("its files cannot be read ({})", cause.message()))),
    };
    let (asked, directory) = (address.clone(), root.clone());
    let talk = move || session::prepare(&asked, &directory);
    Ok(match within(TALK_TIMEOUT, "preparing the base backup", task, talk)? {
        Answer::Ready(prepared) => {
            Outlook::Ready(Box::new(Ready { prepared: *prepared, root, system_identifier: identifier }))
        }
        Answer::Unfit(why) => Outlook::Unfit(why),
    })
}

/// Whether a backup of a server of this version could hold tablespaces outside the data directory.
pub(super) fn takes_tablespaces(version_num: i32) -> bool {
    version_num >= TABLESPACES_SINCE
}

/// Files of a cluster all belong to one account with one mode; two of them stand for the rest.
fn readable(root: &Path) -> Result<()> {
    let listed = root.join("base");
    std::fs::read_dir(&listed).map_err(|cause| Error::io("listing", &listed, cause))?;
    control::read_whole(root).map(|_| ())
}

/// Begins the backup: a checkpoint is taken and the files are listed.
pub(super) fn begin(
    ready: Ready,
    lanes: Option<u32>,
    mut warnings: Vec<String>,
    task: &Task,
) -> Result<Box<dyn FullBackup>> {
    let Ready { prepared, root, system_identifier } = ready;
    let session = prepared.start(task)?;
    let survey = Survey::of(&root, task)?;
    let tablespaces = survey.directories.iter().any(|path| path.parent() == Some(Path::new("pg_tblspc")));
    if tablespaces && !takes_tablespaces(session.facts.version_num) {
        let text = "the cluster has tablespaces, which are restored into the data directory, and that needs version 15";
        return Err(Error::new(Code::PostgresUnsupported, text)
            .with_hint("ALTER TABLE ALL IN TABLESPACE … SET TABLESPACE pg_default; DROP TABLESPACE …;"));
    }
    if !survey.strange.is_empty() {
        let named: Vec<_> = survey.strange.iter().take(NAMED_MAX).map(|path| path.display().to_string()).collect();
        let more = if survey.strange.len() > named.len() { " and more" } else { "" };
        warnings
            .push(format!("links and other things that are no files are not backed up: {}{more}", named.join(", ")));
    }
    let segment = session.facts.wal_segment_size;
    let wal = WalTail::new(wal::directory_of(&root), session.timeline, segment, session.start)?;
    let bytes = survey.bytes() + segment;
    let lanes = match lanes {
        Some(lanes) => (lanes as usize).clamp(1, LANES_MAX),
        None if bytes >= LANE_BYTES => LANES,
        None => 1,
    };
    let Survey { directories, mut files, .. } = survey;
    // The largest first, so that no lane is left with one of them at the end.
    files.sort_by(|a, b| b.bytes.cmp(&a.bytes).then_with(|| a.path.cmp(&b.path)));
    let source = Source::new(root, session.facts, session.start);
    let shared = Arc::new(Shared { source, queue: Mutex::new(files.into()), found: Mutex::default() });
    let first = First { session, wal, directories, system_identifier };
    Ok(Box::new(OnlineBackup { shared, first: Some(first), lanes, bytes, warnings }))
}

/// What the lanes have in common.
struct Shared {
    source: Source,
    queue: Mutex<VecDeque<ClusterFile>>,
    found: Mutex<Found>,
}

/// What the lanes find out.
#[derive(Default)]
struct Found {
    files: BTreeMap<String, ManifestFile>,
    position: Option<LogPosition>,
    damage: Vec<String>,
}

impl Shared {
    fn next(&self) -> Option<ClusterFile> {
        self.queue.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).pop_front()
    }

    fn found(&self) -> MutexGuard<'_, Found> {
        self.found.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// What only the first lane does.
struct First {
    session: Session,
    wal: WalTail,
    directories: Vec<PathBuf>,
    system_identifier: u64,
}

/// A base in progress.
struct OnlineBackup {
    shared: Arc<Shared>,
    first: Option<First>,
    lanes: usize,
    bytes: u64,
    warnings: Vec<String>,
}

impl FullBackup for OnlineBackup {
    fn take_volumes(&mut self) -> Vec<Volume> {
        let Some(first) = self.first.take() else { return Vec::new() };
        let (lanes, bytes) = (self.lanes, self.bytes);
        let spec = |lane: usize| VolumeSpec {
            name: "base".to_owned(),
            role: Role::Data,
            content: Content::Tar,
            extension: "base.tar".to_owned(),
            lane: lane as u32,
            striped: lanes > 1,
            compressed: false,
            hash_plain: false,
            estimated_bytes: bytes / lanes as u64,
        };
        // The first lane waits for the others, so it is opened last; restored in any order.
        let (waiting, ends) = Lanes::begin(lanes - 1);
        let mut volumes = Vec::new();
        for (index, end) in ends.into_iter().enumerate() {
            let shared = self.shared.clone();
            let open = move |task: &Task| {
                let task = task.clone();
                Ok(boxed(move |out| other_lane(&shared, out, end, &task)))
            };
            volumes.push(Volume { spec: spec(index + 1), open: Box::new(open) });
        }
        let shared = self.shared.clone();
        let open = move |task: &Task| {
            let task = task.clone();
            Ok(boxed(move |out| first_lane(&shared, first, &waiting, out, &task)))
        };
        volumes.push(Volume { spec: spec(0), open: Box::new(open) });
        volumes
    }

    fn finish(mut self: Box<Self>, task: &Task) -> Result<FullReport> {
        let mut found = self.shared.found();
        let Some(position) = found.position.take() else {
            return Err(Error::new(Code::PostgresToolFailed, "the base backup was not read to its end"));
        };
        let damage = std::mem::take(&mut found.damage);
        for line in &damage {
            let text = format!("the cluster itself is damaged: {line}");
            task.warn(&text);
            self.warnings.push(text);
        }
        drop(found);
        Ok(FullReport { position: Some(position), warnings: self.warnings, suspect: damage, statistics: None })
    }
}

fn boxed(work: impl FnOnce(Producer) -> Result<()> + Send + 'static) -> Box<dyn VolumeReader> {
    Box::new(stream::spawn(work))
}

fn other_lane(shared: &Shared, out: Producer, end: LaneEnd, task: &Task) -> Result<()> {
    let mut archive = Archive::new(out);
    while let Some(file) = shared.next() {
        task.check()?;
        shared.source.copy(&mut archive, &file)?;
    }
    shared.found().files.append(&mut archive.take_files());
    archive.finish()?;
    end.succeed();
    Ok(())
}

fn first_lane(shared: &Shared, first: First, lanes: &Lanes, out: Producer, task: &Task) -> Result<()> {
    let First { mut session, mut wal, directories, system_identifier } = first;
    let mut archive = Archive::new(out);
    for directory in &directories {
        archive.directory(directory)?;
    }
    let mut watch = Stopwatch::start();
    loop {
        task.check()?;
        let copied = match shared.next() {
            Some(file) => shared.source.copy(&mut archive, &file).map(|()| false)?,
            None => lanes.await_others(WAL_INTERVAL)?,
        };
        if copied {
            break;
        }
        if watch.elapsed() > WAL_INTERVAL {
            let (kept, written) = session.written(task)?;
            session = kept;
            if let Some(copied) = wal.copy_complete(&mut archive, written)? {
                session = session.release(copied, task)?;
            }
            watch = Stopwatch::start();
        }
    }
    let root = &shared.source.root;
    let control = control::read_whole(root)?;
    let modified = modified(&root.join(CONTROL));
    archive.bytes(Path::new(CONTROL), &control, modified)?;
    let (session, stopped) = session.stop(task)?;
    wal.copy_rest(&mut archive, stopped.end)?;
    archive.bytes(Path::new("backup_label"), stopped.label.as_bytes(), modified)?;
    conclude(shared, archive, &session, &stopped, system_identifier)
}

fn modified(path: &Path) -> jiff::Timestamp {
    let time = std::fs::metadata(path).and_then(|metadata| metadata.modified()).ok();
    time.and_then(|time| jiff::Timestamp::try_from(time).ok()).unwrap_or_default()
}

/// Adds what is known only at the end.
fn conclude(
    shared: &Shared,
    mut archive: Archive<Producer>,
    session: &Session,
    stopped: &Stopped,
    system_identifier: u64,
) -> Result<()> {
    if !stopped.tablespace_map.is_empty() {
        archive.wal_bytes("tablespace_map", stopped.tablespace_map.as_bytes())?;
    }
    let (start, end): (Lsn, Lsn) = (session.start, stopped.end);
    let mut found = shared.found();
    found.files.append(&mut archive.take_files());
    let (major, timeline) = (session.facts.major(), session.timeline);
    let frame = ManifestFrame { major, system_identifier, timeline, start, end };
    archive.wal_bytes("backup_manifest", pg_manifest::render(&found.files, &frame).as_bytes())?;
    archive.finish()?;
    found.damage = shared.source.damage(end);
    found.position = Some(LogPosition {
        lineage: timeline.to_string(),
        start: start.to_string(),
        end: end.to_string(),
        log_contained: true,
        mark: None,
        latest_commit: None,
        beside: Default::default(),
    });
    Ok(())
}
