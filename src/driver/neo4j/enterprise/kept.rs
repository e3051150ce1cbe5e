//! The artifacts that a differential one follows: kept below the state directory, because `neo4j-admin` looks in its target
//! directory for the end of the chain that it is to continue.
//!
//! `DIRECTORY/chain` belongs to the server's account and holds one full artifact and the differential ones since, no more;
//! `DIRECTORY/kept.json` is the agent's and says which. What is not on record there is removed before the tool runs, and
//! what is on record and not as it was ends the chain: the next backup is a full one. Nothing here is needed for a restore.

use super::artifact::{Artifact, Wanted};
use super::commands::Asked;
use crate::base::lock::{FileLock, once_free};
use crate::base::process::OsUser;
use crate::base::task::Task;
use crate::base::{Code, Error, Result, atomic_file};
use crate::driver::neo4j::private::{check_searchable, give};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::fs::{self, DirBuilder};
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long a full backup waits for a differential one that is under way.
const WAIT: Duration = Duration::from_secs(3600);
/// How often it looks.
const WAIT_INTERVAL: Duration = Duration::from_millis(200);
/// Longest record that is read, in bytes: one of 200 000 artifacts.
const RECORD_BYTES_MAX: u64 = 64 << 20;

/// The place where a target's artifacts are kept.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    directory: PathBuf,
    owner: Option<OsUser>,
}

/// What is on record of one artifact.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Entry {
    /// Its name.
    pub(super) name: String,
    /// Its size.
    pub(super) bytes: u64,
    /// Its first append index.
    pub(super) lowest: u64,
    /// Its last.
    pub(super) highest: u64,
    /// Whether it is a full one.
    pub(super) full: bool,
    /// A moment before which all that was committed is in it, or in one before.
    pub(super) taken_at: Timestamp,
}

impl Entry {
    /// What is to be recorded of an artifact.
    pub(super) fn of(artifact: &Artifact, taken_at: Timestamp) -> Entry {
        let (name, bytes, described) = (artifact.name(), artifact.bytes, &artifact.description);
        let (lowest, highest, full) = (described.lowest, described.highest, described.full);
        Entry { name, bytes, lowest, highest, full, taken_at }
    }
}

#[derive(Default, Serialize, Deserialize)]
struct Record {
    /// In the order of the log; the first one is full.
    artifacts: Vec<Entry>,
    /// Why the chain that was here cannot be continued.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    left: Option<String>,
}

fn broken(why: impl Into<String>) -> Error {
    Error::new(Code::LogGap, why)
}

impl Kept {
    /// The place; nothing is made.
    pub(super) fn at(directory: PathBuf, owner: Option<OsUser>) -> Kept {
        Kept { directory, owner }
    }

    /// The directory that the tool is given.
    pub(super) fn chain(&self) -> PathBuf {
        self.directory.join("chain")
    }

    fn record(&self) -> PathBuf {
        self.directory.join("kept.json")
    }

    /// Takes the place for this run, or says at once who has it. Makes its directories.
    pub(super) fn lock(&self) -> Result<FileLock> {
        // The server's account must be able to pass through to the chain.
        let make = |path: &Path, mode| {
            let made = DirBuilder::new().recursive(true).mode(mode).create(path);
            made.map_err(|cause| Error::io("making", path, cause))
        };
        make(&self.directory, 0o711)?;
        let lock = FileLock::exclusive(&self.directory.join("lock"), "the chain of differential artifacts")?;
        let chain = self.chain();
        make(&chain, 0o700)?;
        if let Some(owner) = &self.owner {
            check_searchable(&chain, owner).map_err(|error| error.recode(Code::Neo4jAdminFailed))?;
        }
        give(&chain, self.owner.as_ref())?;
        Ok(lock)
    }

    /// Takes it as soon as it is free.
    pub(super) fn lock_patiently(&self, task: &Task) -> Result<FileLock> {
        once_free((WAIT, WAIT_INTERVAL), task, || {}, || self.lock())
    }

    /// The chain, each artifact compared with the record. Error `LOG_GAP` says why there is none that could go on.
    pub(super) fn read(&self, database: &str, identity: &str) -> Result<Vec<Entry>> {
        let record = self.read_record()?;
        if let Some(why) = record.left {
            return Err(broken(why));
        }
        for entry in &record.artifacts {
            self.open(entry, database, identity)?;
        }
        let follow = |pair: &[Entry]| !pair[1].full && pair[1].lowest == pair[0].highest + 1;
        if !record.artifacts.first().is_some_and(|first| first.full) || !record.artifacts.windows(2).all(follow) {
            return Err(broken(format!("{} makes no sense", self.record().display())));
        }
        Ok(record.artifacts)
    }

    /// Opens one that is on record.
    pub(super) fn open(&self, entry: &Entry, database: &str, identity: &str) -> Result<Artifact> {
        let path = self.chain().join(&entry.name);
        let asked = if entry.full { Asked::Full } else { Asked::Differential };
        let wanted = Wanted { owner: self.owner.as_ref(), database, identity: Some(identity), asked };
        let artifact = Artifact::examine(&path, wanted).map_err(|error| {
            let there = fs::symlink_metadata(&path).is_ok();
            let why = if there { error.message().to_owned() } else { "it is missing".to_owned() };
            broken(format!("the kept artifact {} cannot be continued: {why}", path.display()))
        })?;
        if Entry::of(&artifact, entry.taken_at) != *entry {
            let text = format!("the kept artifact {} is not what it was when it was stored", path.display());
            return Err(broken(text));
        }
        Ok(artifact)
    }

    fn read_record(&self) -> Result<Record> {
        let path = self.record();
        let text = match fs::metadata(&path) {
            Ok(metadata) if metadata.len() <= RECORD_BYTES_MAX => {
                fs::read(&path).map_err(|cause| Error::io("reading", &path, cause))?
            }
            Ok(_) => return Err(broken(format!("{} is too long", path.display()))),
            Err(cause) if cause.kind() == ErrorKind::NotFound => {
                let text =
                    format!("no artifact that a differential one could follow is kept in {}", self.chain().display());
                return Err(broken(text));
            }
            Err(cause) => return Err(Error::io("examining", &path, cause)),
        };
        serde_json::from_slice(&text).map_err(|cause| broken(format!("{} cannot be read: {cause}", path.display())))
    }

    fn write(&self, record: &Record) -> Result<()> {
        let path = self.record();
        let text = serde_json::to_vec_pretty(record)
            .map_err(|cause| Error::new(Code::Internal, format!("writing {}: {cause}", path.display())))?;
        atomic_file::write(&path, &text, 0o600)
    }

    /// Begins a chain with a full artifact, which is moved here; what was here goes.
    pub(super) fn begin(&self, from: &Path, entry: Entry) -> Result<()> {
        let to = self.chain().join(&entry.name);
        fs::rename(from, &to).map_err(|cause| Error::io("moving to the kept artifacts", from, cause))?;
        atomic_file::sync_directory(&self.chain())?;
        self.write(&Record { artifacts: vec![entry], left: None })?;
        self.tidy()
    }

    /// Continues the chain with an artifact that the tool has left in it.
    pub(super) fn add(&self, entry: Entry) -> Result<()> {
        atomic_file::sync_directory(&self.chain())?;
        let mut record = self.read_record()?;
        record.artifacts.push(entry);
        self.write(&record)
    }

    /// Ends the chain, for a reason that the next run tells.
    pub(super) fn leave(&self, why: &str) -> Result<()> {
        self.write(&Record { artifacts: Vec::new(), left: Some(why.to_owned()) })?;
        self.tidy()
    }

    /// Removes what is not on record: what a killed run of the tool left, and chains that have ended.
    pub(super) fn tidy(&self) -> Result<()> {
        let known = self.read_record().unwrap_or_default().artifacts;
        let chain = self.chain();
        let fail = |cause| Error::io("listing", &chain, cause);
        for entry in fs::read_dir(&chain).map_err(fail)? {
            let entry = entry.map_err(fail)?;
            if known.iter().any(|known| entry.file_name() == known.name.as_str()) {
                continue;
            }
            let directory = entry.file_type().is_ok_and(|sort| sort.is_dir());
            let removed = if directory { fs::remove_dir_all(entry.path()) } else { fs::remove_file(entry.path()) };
            removed.map_err(|cause| Error::io("removing", &entry.path(), cause))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::description::tests::artifact_of;
    use super::*;

    const STORE: &str = "000001a1f8c208e6d0a548bae547ce2a";

    struct Scene {
        directory: tempfile::TempDir,
        kept: Kept,
        _lock: FileLock,
    }

    impl Scene {
        /// A chain of a full artifact up to 42 and a differential one up to 50.
        fn new() -> Scene {
            let directory = tempfile::tempdir().expect("tempdir");
            let kept = Kept::at(directory.path().join("graph"), None);
            let lock = kept.lock().expect("lock");
            let scene = Scene { directory, kept, _lock: lock };
            let full = scene.directory.path().join("full.backup");
            fs::write(&full, artifact_of("BZV2", "neo4j", true, (1, 42))).expect("write");
            let entry = scene.entry(&full, Asked::Full);
            scene.kept.begin(&full, entry).expect("begin");
            let path = scene.kept.chain().join("diff.backup");
            fs::write(&path, artifact_of("BZV2", "neo4j", false, (43, 50))).expect("write");
            let entry = scene.entry(&path, Asked::Differential);
            scene.kept.add(entry).expect("add");
            scene
        }

        fn entry(&self, path: &Path, asked: Asked) -> Entry {
            let wanted = Wanted { owner: None, database: "neo4j", identity: Some(STORE), asked };
            Entry::of(&Artifact::examine(path, wanted).expect("sound"), Timestamp::UNIX_EPOCH)
        }

        fn read(&self) -> Result<Vec<Entry>> {
            self.kept.read("neo4j", STORE)
        }

        fn why(&self) -> String {
            let error = self.read().expect_err("broken");
            assert_eq!(error.code(), Code::LogGap);
            error.message().to_owned()
        }
    }

    #[test]
    fn a_chain_reads_back_and_a_full_artifact_replaces_it() {
        let scene = Scene::new();
        let ranges = |entries: Vec<Entry>| entries.iter().map(|e| (e.lowest, e.highest, e.full)).collect::<Vec<_>>();
        assert_eq!(ranges(scene.read().expect("sound")), [(1, 42, true), (43, 50, false)]);
        let full = scene.directory.path().join("next.backup");
        fs::write(&full, artifact_of("BZV3", "neo4j", true, (1, 60))).expect("write");
        let entry = scene.entry(&full, Asked::Full);
        scene.kept.begin(&full, entry).expect("begin");
        assert_eq!(ranges(scene.read().expect("sound")), [(1, 60, true)]);
        let left: Vec<_> = fs::read_dir(scene.kept.chain()).expect("list").flatten().map(|e| e.file_name()).collect();
        assert_eq!(left, ["next.backup"]);
    }

    #[test]
    fn whatever_is_missing_or_not_as_it_was_ends_the_chain_by_name() {
        type Damage<'a> = &'a dyn Fn(&Path);
        let cases: [(&str, Damage<'_>); 5] = [
            ("full.backup cannot be continued: it is missing", &|chain| {
                fs::remove_file(chain.join("full.backup")).expect("remove")
            }),
            ("full.backup is not what it was", &|chain| {
                let path = chain.join("full.backup");
                let longer = [fs::read(&path).expect("read"), vec![0]].concat();
                fs::write(&path, longer).expect("write");
            }),
            ("diff.backup is not what it was", &|chain| {
                let other = artifact_of("BZV2", "neo4j", false, (43, 51));
                fs::write(chain.join("diff.backup"), other).expect("write");
            }),
            ("it is of database \"movies\"", &|chain| {
                let other = artifact_of("BZV2", "movies", false, (43, 50));
                fs::write(chain.join("diff.backup"), other).expect("write");
            }),
            ("kept.json cannot be read", &|chain| fs::write(chain.join("../kept.json"), "{").expect("write")),
        ];
        for (words, damage) in cases {
            let scene = Scene::new();
            damage(&scene.kept.chain());
            assert!(scene.why().contains(words), "{words}: {}", scene.why());
        }
        let scene = Scene::new();
        scene.kept.leave("the log is gone").expect("leave");
        assert_eq!(scene.why(), "the log is gone");
        assert_eq!(fs::read_dir(scene.kept.chain()).expect("list").count(), 0);
    }

    #[test]
    fn what_a_killed_tool_left_is_removed_and_what_is_on_record_stays() {
        let scene = Scene::new();
        fs::write(scene.kept.chain().join("half.backup"), b"BZV2").expect("write");
        fs::create_dir_all(scene.kept.chain().join("neo4j-temp/x")).expect("mkdir");
        scene.kept.tidy().expect("tidy");
        assert_eq!(scene.read().expect("sound").len(), 2);
        assert_eq!(fs::read_dir(scene.kept.chain()).expect("list").count(), 2);
    }

    #[test]
    fn two_runs_never_have_the_chain_at_once() {
        let scene = Scene::new();
        assert_eq!(scene.kept.lock().map(drop).map_err(|error| error.code()), Err(Code::Busy));
        let task = Task::unobserved();
        drop(scene._lock);
        scene.kept.lock_patiently(&task).expect("free");
    }
}
