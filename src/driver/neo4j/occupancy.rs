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

/// Where the server that has these databases open writes a database's log, if that is not where `layout` says: a directory of
/// one of the databases' names. `None` if it is, and if nobody has a log open or his open files cannot be seen.
pub(super) fn logs_elsewhere(layout: &Layout, databases: &[&str]) -> Result<Option<PathBuf>> {
    let Some(Holder { pid: Some(pid) }) = holder(&layout.databases.join("store_lock"))? else { return Ok(None) };
    let files = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let open: BTreeSet<PathBuf> = files
        .filter_map(|file| std::fs::read_link(file.path()).ok())
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(LOG_PREFIX)))
        .filter_map(|path| Some(path.parent()?.to_owned()))
        .collect();
    let elsewhere = |name: &&str| {
        let ours = layout.logs(name).canonicalize().ok();
        let is_ours = |directory: &&PathBuf| Some(*directory) == ours.as_ref();
        let of_that_name = |directory: &&PathBuf| directory.file_name().is_some_and(|last| last == *name);
        if open.iter().any(|directory| is_ours(&directory)) { None } else { open.iter().find(of_that_name).cloned() }
    };
    Ok(databases.iter().find_map(elsewhere))
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
