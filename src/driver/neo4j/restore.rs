//! Restoring dumps: each object's plaintext is piped into `neo4j-admin database load`, which runs with a generated
//! configuration of its own and so never sees the server in service.

use super::dump::Admin;
use super::health;
use super::layout::{Layout, SYSTEM};
use super::scratch::{self, Scratch, Start};
use crate::artifact::manifest::{Content, Manifest, ObjectRecord, Role};
use crate::artifact::statistics::Statistics;
use crate::base::atomic_file::sync_parent;
use crate::base::process::{OsUser, Running, Streams};
use crate::base::task::Task;
use crate::base::{Code, Error, Result};
use crate::driver::{HealthCheck, RestorePlace, RestoreSession, VolumeSink};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};
use std::process::ChildStdin;
use std::time::Duration;

/// How long `neo4j-admin database load` may take no data before it counts as hung.
const LOAD_STALL_TIMEOUT: Duration = Duration::from_secs(170);
/// How long it may take to finish after the last byte: it flushes everything it wrote.
const LOAD_END_TIMEOUT: Duration = Duration::from_secs(1800);

/// A restore of dumps in progress.
pub(super) struct DumpRestore {
    admin: Admin,
    server_command: PathBuf,
    database: String,
    recorded: Statistics,
    place: RestorePlace,
    loaded: Vec<String>,
}

impl DumpRestore {
    /// Prepares the place. `admin` names the programs of the server in service; its configuration is replaced by a
    /// generated one in the workspace.
    pub(super) fn begin(
        admin: Admin,
        server_command: PathBuf,
        manifest: &Manifest,
        place: &RestorePlace,
    ) -> Result<Self> {
        if let Some(owner) = place.owner.as_ref().filter(|owner| !owner.is_current()) {
            for directory in [&place.directory, &place.workspace] {
                check_searchable(directory, owner)?;
                chown(directory, Some(owner.uid), Some(owner.gid))
                    .map_err(|cause| Error::io("giving to the server's account", directory, cause))?;
            }
        }
        let conf = scratch::write_configuration(place, &manifest.db_name, None)?;
        Ok(DumpRestore {
            admin: Admin { conf, user: place.owner.clone(), ..admin },
            server_command,
            database: manifest.db_name.clone(),
            recorded: manifest.statistics.clone(),
            place: place.clone(),
            loaded: Vec::new(),
        })
    }
}

impl RestoreSession for DumpRestore {
    fn sink(&mut self, object: &ObjectRecord, task: &Task) -> Result<Option<Box<dyn VolumeSink>>> {
        let wanted = object.role == Role::Data && object.content == Content::Neo4jDump;
        if !wanted || (object.name == SYSTEM && self.place.without_system) {
            return Ok(None);
        }
        check_database_name(&object.name)?;
        let what = format!("loading database {}", object.name);
        let tool = self
            .admin
            .database("load")
            .args(["--from-stdin", "--overwrite-destination=true", &object.name])
            .idle_timeout(LOAD_END_TIMEOUT);
        let mut running = self
            .admin
            .launcher
            .launch(&tool, Streams { input: true, output: false }, task)
            .map_err(|error| error.context(&what))?;
        let input = running.take_input().map(never_block).transpose()?;
        self.loaded.push(object.name.clone());
        Ok(Some(Box::new(LoadSink { what, input, running: Some(running), stall: LOAD_STALL_TIMEOUT })))
    }

    fn complete(&mut self, task: &Task) -> Result<()> {
        task.check()?;
        let layout = Layout::below(&self.place.directory);
        if !self.loaded.contains(&self.database) {
            return Err(Error::new(
                Code::BackupIncomplete,
                format!("the backup holds no dump of database {:?}", self.database),
            ));
        }
        for name in &self.loaded {
            for directory in [layout.store(name), layout.logs(name)] {
                if !directory.is_dir() {
                    let text = format!("loading database {name}: the tool left no {}", directory.display());
                    return Err(Error::new(Code::RestoreFailed, text));
                }
            }
        }
        make_durable(&self.place.directory)
    }

    fn check(&mut self, task: &Task) -> Result<Vec<HealthCheck>> {
        let before = entries(&self.place.directory)?;
        let layout = Layout::below(&self.place.directory);
        let system_was_there = layout.store(SYSTEM).exists();
        let mut checks = match Scratch::start(&self.admin, &self.server_command, &self.place, &self.database, task)? {
            Start::Ready(scratch) => {
                let checks = health::of_server(scratch.bolt(), &self.database, &self.recorded, task)?;
                scratch.stop(task)?;
                checks
            }
            Start::Failed(why) => health::not_connected(&why),
        };
        let databases: Vec<&str> =
            std::iter::once(self.database.as_str()).chain(system_was_there.then_some(SYSTEM)).collect();
        checks.push(health::of_files(&self.admin, &self.place.workspace, &databases, task)?);
        // A server cannot run without a system database and an id; it made what was not restored.
        if !system_was_there {
            for made in [layout.store(SYSTEM), layout.logs(SYSTEM)] {
                remove(&made)?;
            }
        }
        for name in entries(&self.place.directory)?.into_iter().filter(|name| !before.contains(name)) {
            remove(&self.place.directory.join(name))?;
        }
        remove(&layout.databases.join("store_lock"))?;
        make_durable(&self.place.directory)?;
        Ok(checks)
    }
}

/// The input of one `neo4j-admin database load`. Dropped before [`VolumeSink::finish`], it kills the tool.
struct LoadSink {
    what: String,
    input: Option<ChildStdin>,
    running: Option<Running>,
    stall: Duration,
}

impl Write for LoadSink {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        loop {
            let Some(input) = &mut self.input else { return Err(ErrorKind::BrokenPipe.into()) };
            match input.write(bytes) {
                Err(cause) if cause.kind() == ErrorKind::WouldBlock => wait_writable(input, &self.what, self.stall)?,
                // The tool is gone; why, it has said on its standard error.
                Err(cause) if cause.kind() == ErrorKind::BrokenPipe => {
                    self.end()?;
                    return Err(cause);
                }
                result => return result,
            }
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.input.as_mut().map_or(Ok(()), ChildStdin::flush)
    }
}

/// A tool that stopped reading would block a write for ever, where nobody could end it.
fn never_block(input: ChildStdin) -> Result<ChildStdin> {
    fcntl(&input, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))
        .map_err(|cause| Error::new(Code::Internal, format!("preparing a pipe: {cause}")))?;
    Ok(input)
}

fn wait_writable(input: &ChildStdin, what: &str, limit: Duration) -> Result<()> {
    let mut waiting = [PollFd::new(input.as_fd(), PollFlags::POLLOUT)];
    match poll(&mut waiting, PollTimeout::try_from(limit).unwrap_or(PollTimeout::MAX)) {
        Ok(0) => {
            let text = format!("{what}: the tool took no data for {} s", limit.as_secs());
            Err(Error::new(Code::ToolTimeout, text))
        }
        Ok(_) | Err(nix::Error::EINTR) => Ok(()),
        Err(cause) => Err(Error::new(Code::IoFailed, format!("{what}: waiting for the tool: {cause}"))),
    }
}

impl LoadSink {
    fn end(&mut self) -> Result<()> {
        self.input = None;
        let Some(running) = self.running.take() else {
            return Err(Error::new(Code::Neo4jAdminFailed, format!("{}: the tool has ended before", self.what)));
        };
        let finished = running.wait().map_err(|error| error.context(&self.what))?;
        // The JVM's words for ENOSPC; a full disk has an exit code of its own.
        let full = finished.stderr.contains("No space left on device");
        let code = if full { Code::BackupNoSpace } else { Code::Neo4jAdminFailed };
        finished.expect_success(code, &self.what).map(|_| ())
    }
}

impl VolumeSink for LoadSink {
    fn finish(mut self: Box<Self>, _task: &Task) -> Result<()> {
        self.end()
    }
}

/// A name out of a manifest becomes an argument and a directory: nothing that could be an option, a pattern or a path.
fn check_database_name(name: &str) -> Result<()> {
    let good = (1..=63).contains(&name.len())
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'.' || b == b'-' || b == b'_')
        && !name.contains("..");
    if good {
        return Ok(());
    }
    Err(Error::new(Code::HostileArchive, format!("the manifest names a database {name:?}, which is no database name")))
}

/// Fails when `owner` could not get to `directory`, because then its tools would fail in ways that explain nothing.
fn check_searchable(directory: &Path, owner: &OsUser) -> Result<()> {
    for ancestor in directory.ancestors().skip(1) {
        let metadata = fs::metadata(ancestor).map_err(|cause| Error::io("examining", ancestor, cause))?;
        let bit = match (metadata.uid() == owner.uid, metadata.gid() == owner.gid) {
            (true, _) => 0o100,
            (_, true) => 0o010,
            _ => 0o001,
        };
        if owner.uid != 0 && metadata.mode() & bit == 0 {
            let (path, name) = (ancestor.display(), &owner.name);
            return Err(Error::new(
                Code::RestoreFailed,
                format!("{name} may not enter {path}, and so cannot load a database below it"),
            )
            .with_hint(format!("restore into a directory that {name} can reach, or `chmod o+x {path}`")));
        }
    }
    Ok(())
}

fn entries(directory: &Path) -> Result<Vec<std::ffi::OsString>> {
    let fail = |cause| Error::io("listing", directory, cause);
    fs::read_dir(directory).map_err(fail)?.map(|entry| entry.map(|e| e.file_name()).map_err(fail)).collect()
}

fn remove(path: &Path) -> Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(cause) => Err(cause),
    };
    match removed {
        Err(cause) if cause.kind() != std::io::ErrorKind::NotFound => Err(Error::io("removing", path, cause)),
        _ => Ok(()),
    }
}

/// Flushes the whole filesystem below `directory`: the files were written by other processes.
fn make_durable(directory: &Path) -> Result<()> {
    let handle = File::open(directory).map_err(|cause| Error::io("opening", directory, cause))?;
    nix::unistd::syncfs(&handle).map_err(|cause| Error::io("flushing the filesystem of", directory, cause.into()))?;
    sync_parent(directory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tool_that_takes_no_data_is_given_up() {
        use crate::base::process::{Launcher, LocalLauncher, Tool};
        let streams = Streams { input: true, output: false };
        let tool = Tool::new("/bin/sleep").arg("300");
        let mut running = LocalLauncher::default().launch(&tool, streams, &Task::unobserved()).expect("launch");
        let input = running.take_input().map(|input| never_block(input).expect("pipe"));
        let stall = Duration::from_millis(50);
        let mut sink = LoadSink { what: "loading".to_owned(), input, running: Some(running), stall };
        let error = sink.write_all(&vec![0; 1 << 20]).expect_err("a pipe holds less");
        assert_eq!(Error::from_io("loading", Path::new("x"), error).code(), Code::ToolTimeout);
    }

    #[test]
    fn hostile_names_are_refused() {
        for bad in ["", "-f", "../x", "a/b", "*", "a b", "a..b", "$(id)", "neo4j\n", &"x".repeat(64)] {
            assert_eq!(check_database_name(bad).map_err(|e| e.code()), Err(Code::HostileArchive), "{bad:?}");
        }
        for good in ["neo4j", "system", "my-graph.2", "Graph_1"] {
            check_database_name(good).expect("good");
        }
    }

    #[test]
    fn a_directory_that_the_owner_cannot_reach_is_named() {
        use std::os::unix::fs::PermissionsExt;
        let outer = tempfile::tempdir().expect("tempdir");
        let inner = outer.path().join("inner");
        fs::create_dir(&inner).expect("mkdir");
        let owner = OsUser { name: "nobody".to_owned(), uid: 65534, gid: 65534 };
        fs::set_permissions(outer.path(), fs::Permissions::from_mode(0o700)).expect("chmod");
        assert_eq!(check_searchable(&inner, &owner).map_err(|e| e.code()), Err(Code::RestoreFailed));
        fs::set_permissions(outer.path(), fs::Permissions::from_mode(0o711)).expect("chmod");
        check_searchable(&inner, &owner).expect("reachable");
    }
}
