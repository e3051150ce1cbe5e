//! The file that `neo4j-admin database backup` left, examined before and while it is read.
//!
//! The directory belongs to the server's account, and so does what is in it: nothing there is followed, and nothing is
//! believed because the tool claimed success.

use super::commands::Asked;
use super::description::Description;
use crate::artifact::digest::sha256_of;
use crate::artifact::log_batch::LogMark;
use crate::base::process::OsUser;
use crate::base::task::Task;
use crate::base::{Code, Error, Result};
use crate::driver::VolumeReader;
use crate::driver::neo4j::dump_shape::DumpShape;
use sha2::{Digest, Sha256};
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The ending of an artifact's name.
pub(super) const ENDING: &str = ".backup";
/// Names of files that an error tells.
const NAMES_TOLD: usize = 5;
/// Bytes that are read at once where an artifact is only looked through.
const PIECE_BYTES: usize = 256 << 10;

/// What an artifact must be of.
#[derive(Clone, Copy)]
pub(super) struct Wanted<'a> {
    /// The account that made it.
    pub(super) owner: Option<&'a OsUser>,
    /// The database.
    pub(super) database: &'a str,
    /// The store's identity; `None` = any.
    pub(super) identity: Option<&'a str>,
    /// What the tool was asked for.
    pub(super) asked: Asked,
}

/// An artifact that is of what was asked for, as far as its beginning tells.
pub(super) struct Artifact {
    /// Where it is.
    pub(super) path: PathBuf,
    file: File,
    /// Its size.
    pub(super) bytes: u64,
    /// What it says of itself.
    pub(super) description: Description,
}

impl Artifact {
    /// Finds the one artifact in `directory` that is not among `known` names and examines it. Whether it is a full one
    /// is compared by whoever asked for a differential one.
    ///
    /// Error `NEO4J_ADMIN_FAILED`: the tool claims success, but there is none, more than one, or another one.
    pub(super) fn find(directory: &Path, known: &[&str], wanted: Wanted<'_>) -> Result<Artifact> {
        let path = only_artifact(directory, known)?;
        let artifact = Artifact::examine(&path, wanted)?;
        if wanted.asked == Asked::Full && !artifact.description.full {
            return Err(refusal(&path, wanted)("it is a differential one"));
        }
        Ok(artifact)
    }

    /// Opens and examines one.
    pub(super) fn examine(path: &Path, wanted: Wanted<'_>) -> Result<Artifact> {
        let refuse = refusal(path, wanted);
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK)
            .open(path)
            .map_err(|cause| Error::io("opening", path, cause))?;
        let metadata = file.metadata().map_err(|cause| Error::io("examining", path, cause))?;
        let own = wanted.owner.is_none_or(|owner| metadata.uid() == owner.uid);
        if !metadata.is_file() || !own || metadata.nlink() != 1 {
            return Err(refuse("it is not a plain file of the server's account"));
        }
        let description = Description::read(&file).map_err(|error| refuse(error.message()))?;
        if !description.database.eq_ignore_ascii_case(wanted.database) {
            return Err(refuse(&format!("it is of database {:?}", description.database)));
        }
        if wanted.identity.is_some_and(|identity| identity != description.store) {
            let why = format!("it is of another store ({})", description.store);
            return Err(refuse(&why).with_hint(
                "another server answers at this backup address: set `server.backup.listen_address` in its own neo4j.conf",
            ));
        }
        Ok(Artifact { path: path.to_owned(), file, bytes: metadata.len(), description })
    }

    /// Its name.
    pub(super) fn name(&self) -> String {
        self.path.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// The point that it leads to.
    pub(super) fn mark(&self) -> LogMark {
        mark(self.description.highest, self.bytes)
    }

    /// Reads all of it: its SHA-256, if it is whole up to its last frame.
    pub(super) fn sha256(&mut self, task: &Task) -> Result<String> {
        let fail = |cause| Error::io("reading", &self.path, cause);
        self.file.seek(SeekFrom::Start(self.description.frames_at)).map_err(fail)?;
        let (mut shape, mut buffer) = (self.description.shape(), vec![0; PIECE_BYTES]);
        loop {
            task.check()?;
            match self.file.read(&mut buffer).map_err(fail)? {
                0 => break,
                count => shape.push(&buffer[..count]),
            }
        }
        shape.finish(&format!("reading {}", self.path.display()))?;
        self.file.seek(SeekFrom::Start(0)).map_err(fail)?;
        sha256_of(&mut self.file).map_err(fail)
    }

    /// A stream of it, from its beginning. `sha256` is what its bytes must still have at the end.
    pub(super) fn open(self, sha256: Option<String>) -> Result<ArtifactReader> {
        let Artifact { path, mut file, bytes, description } = self;
        file.seek(SeekFrom::Start(0)).map_err(|cause| Error::io("reading", &path, cause))?;
        let (before_frames, shape) = (description.frames_at, description.shape());
        let digest = sha256.map(|expected| (Sha256::new(), expected));
        Ok(ArtifactReader { path, file, bytes, read: 0, before_frames, shape, digest })
    }
}

/// The point that an artifact of this size leads to: its last append index stands for the number of the file and of the
/// transaction.
pub(super) fn mark(highest: u64, bytes: u64) -> LogMark {
    LogMark {
        file: highest,
        offset: bytes,
        transaction: highest,
        began: None,
        checksum: None,
        append_index: Some(highest),
        committed_at: None,
    }
}

/// An error that says what an artifact is not.
pub(super) fn refusal(path: &Path, wanted: Wanted<'_>) -> impl Fn(&str) -> Error {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let sort = match wanted.asked {
        Asked::Full => "full",
        Asked::Differential => "differential",
    };
    let what = format!("its artifact {name} is no {sort} backup of database {}", wanted.database);
    move |why| lied(format!("{what}: {why}"))
}

fn lied(what: String) -> Error {
    Error::new(Code::Neo4jAdminFailed, format!("neo4j-admin claims success, but {what}"))
}

/// The one artifact that is not `known`. What else a release of the tool may leave beside it is no reason to doubt it.
fn only_artifact(directory: &Path, known: &[&str]) -> Result<PathBuf> {
    let fail = |cause| Error::io("listing", directory, cause);
    let (mut found, mut others) = (Vec::new(), Vec::new());
    for entry in fs::read_dir(directory).map_err(fail)? {
        let entry = entry.map_err(fail)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if known.contains(&name.as_str()) {
            continue;
        }
        if name.ends_with(ENDING) { found.push((name, entry.path())) } else { others.push(name) }
    }
    found.sort();
    let some = |names: Vec<String>| names.into_iter().take(NAMES_TOLD).collect::<Vec<_>>().join(", ");
    match found.as_slice() {
        [(_, path)] => Ok(path.clone()),
        [] if others.is_empty() => Err(lied("it left no artifact".to_owned())),
        [] => Err(lied(format!("it left no artifact, only {}", some(others)))),
        several => {
            let names = several.iter().map(|(name, _)| name.clone()).collect();
            Err(lied(format!("it left {} artifacts where one was expected: {}", several.len(), some(names))))
        }
    }
}

/// The stream of one artifact.
pub(super) struct ArtifactReader {
    path: PathBuf,
    file: File,
    bytes: u64,
    read: u64,
    before_frames: u64,
    shape: DumpShape,
    /// Of what was read, and what it must be.
    digest: Option<(Sha256, String)>,
}

impl Read for ArtifactReader {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.file.read(buffer)?;
        self.read += count as u64;
        let before = self.before_frames.min(count as u64);
        self.before_frames -= before;
        self.shape.push(&buffer[before as usize..count]);
        if let Some((hasher, _)) = &mut self.digest {
            hasher.update(&buffer[..count]);
        }
        Ok(count)
    }
}

impl VolumeReader for ArtifactReader {
    fn finish(self: Box<Self>, _task: &Task) -> Result<()> {
        if self.read != self.bytes {
            let text = format!("{} bytes of {} were read, it had {}", self.read, self.path.display(), self.bytes);
            return Err(Error::new(Code::Neo4jAdminFailed, text));
        }
        if let Some((hasher, expected)) = self.digest
            && hex::encode(hasher.finalize()) != expected
        {
            let text = format!("{} changed while it was read", self.path.display());
            return Err(Error::new(Code::Neo4jAdminFailed, text));
        }
        self.shape.finish(&format!("reading {}", self.path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::super::description::tests::artifact;
    use super::*;

    const STORE: &str = "000001a1f8c208e6d0a548bae547ce2a";

    fn wanted(identity: &str) -> Wanted<'_> {
        Wanted { owner: None, database: "neo4j", identity: Some(identity), asked: Asked::Full }
    }

    fn find_in(directory: &Path) -> Result<Artifact> {
        Artifact::find(directory, &[], wanted(STORE))
    }

    fn words(directory: &Path) -> String {
        find_in(directory).map(|_| ()).expect_err("refused").message().to_owned()
    }

    fn stream(directory: &Path) -> Result<Vec<u8>> {
        let mut reader = find_in(directory)?.open(None)?;
        let mut bytes = Vec::new();
        reader.read_to_end(&mut bytes).expect("read");
        Box::new(reader).finish(&Task::unobserved())?;
        Ok(bytes)
    }

    #[test]
    fn a_whole_artifact_is_streamed() {
        for letters in ["BZV1", "BZV2", "BZV3"] {
            let scene = tempfile::tempdir().expect("tempdir");
            let whole = artifact(letters, "Neo4j", true);
            fs::write(scene.path().join("neo4j-2026-11-20T02-00-00.backup"), &whole).expect("write");
            assert_eq!(stream(scene.path()).expect("sound"), whole);
        }
    }

    #[test]
    fn a_cut_one_is_noticed_wherever_it_is_cut() {
        let whole = artifact("BZV2", "neo4j", true);
        for cut in [0, 3, 4, 50, whole.len() / 2, whole.len() - 1] {
            let scene = tempfile::tempdir().expect("tempdir");
            fs::write(scene.path().join("neo4j-x.backup"), &whole[..cut]).expect("write");
            let error = stream(scene.path()).expect_err("cut");
            assert_eq!(error.code(), Code::Neo4jAdminFailed, "{cut}: {error:?}");
        }
    }

    #[test]
    fn whatever_is_not_what_was_asked_for_is_named() {
        let scene = tempfile::tempdir().expect("tempdir");
        assert!(words(scene.path()).ends_with("it left no artifact"));
        fs::create_dir(scene.path().join("neo4j-temp")).expect("mkdir");
        assert!(words(scene.path()).ends_with("no artifact, only neo4j-temp"));
        let path = scene.path().join("neo4j-x.backup");
        let cases: [(Vec<u8>, &str); 4] = [
            (Vec::new(), "it is empty"),
            (artifact("BZV2", "neo4j", false), "differential"),
            (artifact("BZV2", "movies", true), "of database \"movies\""),
            (b"Usage: neo4j-admin".to_vec(), "does not begin like"),
        ];
        for (bytes, expected) in cases {
            fs::write(&path, bytes).expect("write");
            assert!(words(scene.path()).contains(expected), "{}", words(scene.path()));
        }
        fs::write(&path, artifact("BZV2", "neo4j", true)).expect("write");
        let other = Artifact::find(scene.path(), &[], wanted("00")).map(|_| ()).expect_err("another store");
        assert!(other.message().contains("another store") && other.hint().contains("listen_address"), "{other:?}");
        let stranger = OsUser { name: "x".to_owned(), uid: 4_000_000, gid: 4_000_000 };
        let foreign = Wanted { owner: Some(&stranger), ..wanted(STORE) };
        let foreign = Artifact::find(scene.path(), &[], foreign).map(|_| ()).expect_err("foreign");
        assert!(foreign.message().contains("plain file of the server's account"), "{foreign:?}");
        fs::write(scene.path().join("another.backup"), b"").expect("write");
        assert!(words(scene.path()).contains("left 2 artifacts"));
    }

    #[test]
    fn links_are_not_followed() {
        let scene = tempfile::tempdir().expect("tempdir");
        let (inside, outside) = (scene.path().join("in"), scene.path().join("secret"));
        fs::create_dir(&inside).expect("mkdir");
        fs::write(&outside, artifact("BZV2", "neo4j", true)).expect("write");
        std::os::unix::fs::symlink(&outside, inside.join("neo4j-x.backup")).expect("link");
        assert!(find_in(&inside).is_err());
        fs::remove_file(inside.join("neo4j-x.backup")).expect("remove");
        fs::hard_link(&outside, inside.join("neo4j-x.backup")).expect("link");
        assert!(words(&inside).contains("plain file"));
    }

    #[test]
    fn one_that_changes_between_looking_through_and_streaming_is_noticed() {
        let scene = tempfile::tempdir().expect("tempdir");
        let path = scene.path().join("neo4j-x.backup");
        fs::write(&path, artifact("BZV2", "neo4j", true)).expect("write");
        let mut found = find_in(scene.path()).expect("sound");
        let sha256 = found.sha256(&Task::unobserved()).expect("whole");
        let changed = artifact("BZV2", "Neo4j", true);
        fs::write(&path, &changed).expect("write");
        found.bytes = changed.len() as u64;
        let mut reader = found.open(Some(sha256)).expect("open");
        std::io::copy(&mut reader, &mut std::io::sink()).expect("read");
        let error = Box::new(reader).finish(&Task::unobserved()).expect_err("changed");
        assert!(error.message().ends_with("changed while it was read"), "{error:?}");
    }
}
