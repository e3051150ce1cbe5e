//! An online base: a copy of a store and its logs taken while the server writes, without stopping or touching it.
//!
//! The argument is PostgreSQL's: a known starting point, a fuzzy copy, and the log from the point to the copy's end.
//! What must hold for each kind of file decides the order ([`survey`] tells the kinds apart):
//! 1. the checkpoint log first: it says where recovery starts. The transaction logs from there on are opened at once, so
//!    that pruning cannot take them ([`logs`]);
//! 2. trees, each validated by its state pages and copied again if a checkpoint fell into the copy ([`tree_file`]), cloned
//!    first where the filesystem can ([`mod@reflink`]);
//! 3. Lucene indexes, each as one commit ([`lucene`]);
//! 4. record stores, pages of any age: recovery rewrites every record that was touched since the checkpoint;
//! 5. the transaction logs last, up to the end of the last whole transaction.
//!
//! What can be derived from the rest and would not hold still is left out and built anew by the server's recovery.
//! Larger stores are split into lanes that are copied side by side; the first lane takes the logs once all others are
//! through. `neo4j` below is the database, `system` goes with it.

pub(super) mod archive;
mod logs;
mod lucene;
mod reflink;
mod survey;
mod tree_file;

use self::archive::Archive;
use self::logs::{LogEnd, PinnedLogs};
use self::reflink::Cloner;
use self::survey::Survey;
use self::tree_file::Outcome;
use super::layout::Layout;
use crate::artifact::manifest::{Content, LogPosition, Role};
use crate::base::task::Task;
use crate::base::{Code, Error, Result};
use crate::driver::lanes::{LaneEnd, Lanes};
use crate::driver::stream::{self, Producer, Stream};
use crate::driver::{FullBackup, FullReport, Volume, VolumeReader, VolumeSpec};
use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

/// A lane is worth its own compressor from this many bytes of record stores on.
const LANE_BYTES: u64 = 2 << 30;
/// Lanes at most.
const LANES_MAX: usize = 8;
/// How often a cancelled job is noticed while one lane waits for the others.
const WAIT_INTERVAL: Duration = Duration::from_millis(200);

/// One database's part of a base.
struct Part {
    name: String,
    store: PathBuf,
    survey: Survey,
    logs: PinnedLogs,
    cloner: Arc<Cloner>,
}

/// A base in progress.
pub(super) struct OnlineBackup {
    shared: Arc<Shared>,
    first: Option<Vec<Part>>,
    lanes: Vec<Vec<RecordFile>>,
    estimated_bytes: u64,
    /// Where recovery of the database starts.
    start: u64,
}

/// A record store and its name in the archive.
struct RecordFile {
    source: PathBuf,
    name: PathBuf,
    bytes: u64,
}

/// What the lanes find out.
#[derive(Default)]
struct Shared {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    warnings: Vec<String>,
    end: Option<LogEnd>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn warn(&self, text: String, task: &Task) {
        task.warn(&text);
        self.lock().warnings.push(text);
    }
}

impl OnlineBackup {
    /// Reads the checkpoint logs and pins the transaction logs of `databases`; the first one is the one that counts.
    /// Clones of trees go to `workspace`, where that is on the store's filesystem.
    pub(super) fn begin(layout: &Layout, databases: &[&str], workspace: &Path, task: &Task) -> Result<Self> {
        let (mut parts, cloner) = (Vec::new(), Arc::new(Cloner::new(workspace)));
        for name in databases {
            task.check()?;
            let logs = PinnedLogs::pin(&layout.logs(name))?;
            let store = layout.store(name);
            let survey = Survey::of(&store)?;
            parts.push(Part { name: (*name).to_owned(), store, survey, logs, cloner: cloner.clone() });
        }
        let start = parts.first().map_or(0, |part| part.logs.checkpoint().transaction);
        let estimated_bytes = parts.iter().map(|part| part.survey.bytes() + part.logs.bytes()).sum();
        let mut records = Vec::new();
        for part in &mut parts {
            for (path, bytes) in std::mem::take(&mut part.survey.records) {
                let name = in_databases(&part.name, &path);
                records.push(RecordFile { source: part.store.join(path), name, bytes });
            }
        }
        let lanes = assign(records, lane_count(estimated_bytes));
        let shared = Arc::new(Shared::default());
        Ok(OnlineBackup { shared, first: Some(parts), lanes, estimated_bytes, start })
    }
}

fn lane_count(bytes: u64) -> usize {
    // Each lane compresses with two workers.
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let wanted = usize::try_from(bytes / LANE_BYTES).unwrap_or(usize::MAX);
    wanted.clamp(1, (cores / 2).clamp(1, LANES_MAX))
}

/// Spreads files over lanes of about equal size: each goes to the lane that has least, the largest files first.
fn assign(mut files: Vec<RecordFile>, lanes: usize) -> Vec<Vec<RecordFile>> {
    files.sort_by(|a, b| b.bytes.cmp(&a.bytes).then_with(|| a.name.cmp(&b.name)));
    let mut assigned: Vec<(u64, Vec<RecordFile>)> = (0..lanes.max(1)).map(|_| (0, Vec::new())).collect();
    for file in files {
        if let Some((bytes, lane)) = assigned.iter_mut().min_by_key(|(bytes, _)| *bytes) {
            *bytes += file.bytes;
            lane.push(file);
        }
    }
    assigned.into_iter().map(|(_, lane)| lane).collect()
}

fn in_databases(database: &str, path: &Path) -> PathBuf {
    Path::new("databases").join(database).join(path)
}

impl FullBackup for OnlineBackup {
    fn take_volumes(&mut self) -> Vec<Volume> {
        let Some(parts) = self.first.take() else { return Vec::new() };
        let mut lanes = std::mem::take(&mut self.lanes).into_iter();
        let own = lanes.next().unwrap_or_default();
        let others: Vec<_> = lanes.collect();
        let striped = !others.is_empty();
        let spec = |lane: usize, estimated_bytes: u64| VolumeSpec {
            name: "base".to_owned(),
            role: Role::Data,
            content: Content::Tar,
            extension: "base.tar".to_owned(),
            lane: lane as u32,
            striped,
            compressed: false,
            hash_plain: false,
            estimated_bytes,
        };
        // The first lane waits for the others, so it is opened last; restored in any order.
        let mut volumes = Vec::new();
        let (waiting, ends) = Lanes::begin(others.len());
        for (index, (records, end)) in others.into_iter().zip(ends).enumerate() {
            let bytes = records.iter().map(|file| file.bytes).sum();
            let open = move |task: &Task| Ok(boxed(open_records(records, end, task)));
            volumes.push(Volume { spec: spec(index + 1, bytes), open: Box::new(open) });
        }
        let (shared, bytes) = (self.shared.clone(), self.estimated_bytes);
        let open = move |task: &Task| Ok(boxed(open_first(parts, own, shared, waiting, task)));
        volumes.push(Volume { spec: spec(0, bytes), open: Box::new(open) });
        volumes
    }

    fn finish(self: Box<Self>, _task: &Task) -> Result<FullReport> {
        let mut state = self.shared.lock();
        let LogEnd { mark, latest_commit } = state
            .end
            .take()
            .ok_or_else(|| Error::new(Code::Internal, "the online base was finished before its logs were copied"))?;
        let position = LogPosition { latest_commit, ..LogPosition::ending_at(self.start, mark) };
        let warnings = std::mem::take(&mut state.warnings);
        Ok(FullReport { position: Some(position), warnings, ..FullReport::default() })
    }
}

fn boxed(stream: Stream) -> Box<dyn VolumeReader> {
    Box::new(stream)
}

fn open_records(records: Vec<RecordFile>, end: LaneEnd, task: &Task) -> Stream {
    let task = task.clone();
    stream::spawn(move |out| {
        let mut archive = Archive::new(out);
        copy_records(&mut archive, &records, &task)?;
        archive.finish()?;
        end.succeed();
        Ok(())
    })
}

fn open_first(
    parts: Vec<Part>,
    records: Vec<RecordFile>,
    shared: Arc<Shared>,
    lanes: Arc<Lanes>,
    task: &Task,
) -> Stream {
    let task = task.clone();
    stream::spawn(move |out| {
        let mut archive = Archive::new(out);
        for part in &parts {
            part.logs.copy_checkpoints(&mut archive, &in_transactions(&part.name))?;
        }
        for part in &parts {
            copy_derived(&mut archive, part, &shared, &task)?;
        }
        copy_records(&mut archive, &records, &task)?;
        while !lanes.await_others(WAIT_INTERVAL)? {
            task.check()?;
        }
        // The first database's end is the backup's.
        let mut end = None;
        for part in parts {
            let log_end = part.logs.copy(&mut archive, &in_transactions(&part.name), &task)?;
            end.get_or_insert(log_end);
        }
        archive.finish()?;
        shared.lock().end = end;
        Ok(())
    })
}

fn in_transactions(database: &str) -> PathBuf {
    Path::new("transactions").join(database)
}

fn copy_derived(archive: &mut Archive<Producer>, part: &Part, shared: &Shared, task: &Task) -> Result<()> {
    let restless = |path: &Path| {
        let text =
            format!("{}: {} would not hold still and is left out; restoring builds it anew", part.name, path.display());
        shared.warn(text, task);
    };
    for (path, _) in &part.survey.trees {
        let (source, name) = (part.store.join(path), in_databases(&part.name, path));
        let outcome = tree_file::copy(archive, &source, &name, &part.cloner, task)?;
        if outcome == Outcome::Restless {
            restless(path);
        }
    }
    for path in &part.survey.lucene {
        let source = part.store.join(path);
        if !lucene::copy(archive, &source, &in_databases(&part.name, path), task)? && source.exists() {
            restless(path);
        }
    }
    for path in &part.survey.unknown {
        let text = format!(
            "{}: {} is an index of a kind that is not known; restoring builds it anew",
            part.name,
            path.display()
        );
        shared.warn(text, task);
    }
    Ok(())
}

fn copy_records(archive: &mut Archive<Producer>, records: &[RecordFile], task: &Task) -> Result<()> {
    for record in records {
        task.check()?;
        let file = match File::open(&record.source) {
            Ok(file) => file,
            // Record stores live as long as the database; what else is here comes and goes.
            Err(cause) if cause.kind() == ErrorKind::NotFound && !is_store(&record.source) => continue,
            Err(cause) => return Err(Error::io("opening", &record.source, cause)),
        };
        let size = file.metadata().map_err(|cause| Error::io("examining", &record.source, cause))?.len();
        archive.file(&record.name, size, |buffer, offset| file.read_at(buffer, offset))?;
    }
    Ok(())
}

fn is_store(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("neostore"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_spread_evenly() {
        let file = |name: &str, bytes| RecordFile { source: name.into(), name: name.into(), bytes };
        let files = vec![file("a", 5), file("b", 9), file("c", 4), file("d", 1)];
        let lanes = assign(files, 2);
        let sums: Vec<u64> = lanes.iter().map(|lane| lane.iter().map(|file| file.bytes).sum()).collect();
        assert_eq!(sums, [10, 9]);
        assert_eq!(assign(Vec::new(), 0).len(), 1);
    }
}
