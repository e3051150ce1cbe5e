//! Whether somebody uses a data directory right now.
//!
//! A server holds a POSIX write lock on `databases/store_lock` and, for each open database, on its `database_lock`;
//! the official tools take the latter too. The kernel drops these locks with the process, however it ends, so that they
//! tell the truth after a kill as well. Before the locks are taken and after they are dropped, the process table
//! shows a server by its `--home-dir`.

use super::layout::Layout;
use crate::base::{Error, Result};
use nix::fcntl::{FcntlArg, fcntl};
use std::fs::File;
use std::path::Path;

/// Whether a server or an official tool has the directories open.
pub(super) fn is_locked(layout: &Layout, databases: &[&str]) -> Result<bool> {
    let mut files = vec![layout.databases.join("store_lock")];
    files.extend(databases.iter().map(|name| layout.store(name).join("database_lock")));
    for path in files {
        if holder(&path)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether another process holds a POSIX lock on the file. Asking neither takes nor disturbs a lock.
fn holder(path: &Path) -> Result<bool> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => return Ok(false),
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
    Ok(question.l_type != libc::F_UNLCK as libc::c_short)
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
