//! Whether somebody uses a data directory right now.
//!
//! A server holds a POSIX write lock on `databases/store_lock` and, for each open database, on its `database_lock`;
//! the official tools take the latter too. The kernel drops these locks with the process, however it ends, so that they
//! tell the truth after a kill as well. Before the locks are taken and after they are dropped, the process table
//! shows a server by its `--home-dir`.

use super::layout::Layout;
use crate::base::{Error, Result};
use nix::fcntl::{FcntlArg, fcntl};
use std::collections::BTreeSet;
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// How the names of a log's files begin.
const LOG_PREFIX: &str = "neostore.transaction.db.";

/// Whether a server or an official tool has the directories open.
pub(super) fn is_locked(layout: &Layout, databases: &[&str]) -> Result<bool> {
    let mut files = vec![layout.databases.join("store_lock")];
    files.extend(databases.iter().map(|name| layout.store(name).join("database_lock")));
    for path in files {
        if holder(&path)?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether a server has the directory of databases open.
pub(super) fn is_served(layout: &Layout) -> Result<bool> {
    Ok(holder(&layout.databases.join("store_lock"))?.is_some())
}

/// Whether somebody has a database open.
pub(super) fn is_open(layout: &Layout, database: &str) -> Result<bool> {
    Ok(holder(&layout.store(database).join("database_lock"))?.is_some())
}

/// Where the server that has these databases open writes a database's log, if that is not where `layout` says: a directory of
/// one of the databases' names. `None` if it is, and if nobody has a log open or his open files cannot be seen.
///
/// Files are compared, not their names: those of a server in a container, or of a unit with places of its own, are that
/// namespace's.
pub(super) fn logs_elsewhere(layout: &Layout, databases: &[&str]) -> Result<Option<PathBuf>> {
    match holder(&layout.databases.join("store_lock"))? {
        Some(Holder { pid: Some(pid) }) => Ok(elsewhere(&open_logs(pid), layout, databases)),
        _ => Ok(None),
    }
}

/// A file of a log that a process has open: its name there, and which file it is.
type OpenLog = (PathBuf, Identity);
/// Device and inode.
type Identity = (u64, u64);

fn identity(path: &Path) -> Option<Identity> {
    std::fs::metadata(path).ok().map(|metadata| (metadata.dev(), metadata.ino()))
}

fn open_logs(pid: u32) -> Vec<OpenLog> {
    let files = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten().map(|entry| entry.path());
    let log = |path: PathBuf| Some((std::fs::read_link(&path).ok()?, identity(&path)?));
    files.filter_map(log).filter(|(name, _)| is_log(name)).collect()
}

fn is_log(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(LOG_PREFIX))
}

fn elsewhere(open: &[OpenLog], layout: &Layout, databases: &[&str]) -> Option<PathBuf> {
    databases.iter().find_map(|name| {
        let ours = std::fs::read_dir(layout.logs(name)).into_iter().flatten().flatten().map(|entry| entry.path());
        let ours: BTreeSet<Identity> = ours.filter(|path| is_log(path)).filter_map(|path| identity(&path)).collect();
        if open.iter().any(|(_, file)| ours.contains(file)) {
            return None;
        }
        let directories = open.iter().filter_map(|(path, _)| path.parent());
        directories
            .into_iter()
            .find(|directory| directory.file_name().is_some_and(|last| last == *name))
            .map(Path::to_owned)
    })
}

/// Who holds a lock.
struct Holder {
    /// His process; `None` where the kernel does not tell, as across containers.
    pid: Option<u32>,
}

/// The other process that holds a POSIX lock on the file, if one does. Asking neither takes nor disturbs a lock.
fn holder(path: &Path) -> Result<Option<Holder>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(cause) => return Err(Error::io("opening", path, cause)),
    };
    let mut question = libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    fcntl(&file, FcntlArg::F_GETLK(&mut question))
        .map_err(|cause| Error::io("asking for locks on", path, cause.into()))?;
    let locked = question.l_type != libc::F_UNLCK as libc::c_short;
    Ok(locked.then(|| Holder { pid: u32::try_from(question.l_pid).ok().filter(|pid| *pid > 0) }))
}

/// Whether a server process with this home is there, even if it has no lock yet or no longer.
pub(super) fn has_process(home: &Path) -> bool {
    let canonical = home.canonicalize();
    let is_home = |path: &Path| path == home || canonical.as_deref().is_ok_and(|canonical| path == canonical);
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    processes
        .filter(|entry| entry.file_name().to_str().is_some_and(|name| name.bytes().all(|b| b.is_ascii_digit())))
        .filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok())
        .any(|command| is_server(&command, &is_home))
}

fn is_server(command: &[u8], is_home: &dyn Fn(&Path) -> bool) -> bool {
    use std::os::unix::ffi::OsStrExt;
    let mut arguments = command.split(|&byte| byte == 0);
    let main = arguments
        .any(|argument| argument.starts_with(b"org.neo4j.server.") || argument.starts_with(b"com.neo4j.server."));
    main && arguments
        .filter_map(|argument| argument.strip_prefix(b"--home-dir="))
        .any(|home| is_home(Path::new(std::ffi::OsStr::from_bytes(home))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_server_with_this_home_counts() {
        let is_home = |path: &Path| path == Path::new("/srv/neo4j");
        let command = |main: &str, home: &str| format!("java\0-Xmx1g\0{main}\0--home-dir={home}\0--config-dir=/etc\0");
        assert!(is_server(command("org.neo4j.server.CommunityEntryPoint", "/srv/neo4j").as_bytes(), &is_home));
        assert!(!is_server(command("org.neo4j.server.CommunityEntryPoint", "/srv/other").as_bytes(), &is_home));
        assert!(!is_server(command("org.example.Main", "/srv/neo4j").as_bytes(), &is_home));
    }

    // A server in a container has its log open under another name.
    #[test]
    fn a_log_is_known_by_its_file_and_not_by_its_name() {
        let home = tempfile::tempdir().expect("tempdir");
        let layout = Layout::below(home.path());
        let (logs, other) = (layout.logs("neo4j"), home.path().join("other/neo4j"));
        for directory in [&logs, &other] {
            std::fs::create_dir_all(directory).expect("mkdir");
            std::fs::write(directory.join(format!("{LOG_PREFIX}0")), b"log").expect("write");
        }
        let file = |directory: &Path| identity(&directory.join(format!("{LOG_PREFIX}0"))).expect("file");
        let open = |name: &str, file: Identity| vec![(Path::new(name).join(format!("{LOG_PREFIX}0")), file)];
        assert_eq!(elsewhere(&open("/data/transactions/neo4j", file(&logs)), &layout, &["neo4j"]), None);
        let found = elsewhere(&open("/fast/neo4j", file(&other)), &layout, &["neo4j"]);
        assert_eq!(found.as_deref(), Some(Path::new("/fast/neo4j")));
        // Another database's, or nothing, tells nothing of this one.
        assert_eq!(elsewhere(&open("/fast/system", file(&other)), &layout, &["neo4j"]), None);
        assert_eq!(elsewhere(&[], &layout, &["neo4j"]), None);
    }

    #[test]
    fn files_that_nobody_locked_are_free() {
        let home = tempfile::tempdir().expect("tempdir");
        let layout = Layout::below(home.path());
        assert!(!is_locked(&layout, &["neo4j"]).expect("ask"));
        std::fs::create_dir_all(layout.store("neo4j")).expect("mkdir");
        std::fs::write(layout.databases.join("store_lock"), b"").expect("write");
        assert!(!is_locked(&layout, &["neo4j"]).expect("ask"));
    }
}
