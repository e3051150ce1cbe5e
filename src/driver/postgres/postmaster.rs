//! Whether a server uses a data directory, from `postmaster.pid` and the processes themselves.
//!
//! A server that was killed leaves `postmaster.pid` behind, and the number in it may belong to a stranger since. So the
//! process is looked at: a postmaster and its children work in the data directory. Where another account's processes
//! cannot be looked at closely, the answer errs on the side of "running".

use crate::base::{Error, Result};
use nix::errno::Errno;
use nix::unistd::Pid;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

/// Whether a server uses `data_directory` now.
pub(crate) fn is_running(data_directory: &Path) -> Result<bool> {
    let path = data_directory.join("postmaster.pid");
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        // Also when the directory is not there at all: nothing can run on it.
        Err(cause) if cause.kind() == ErrorKind::NotFound => return Ok(false),
        Err(cause) => return Err(Error::io("reading", &path, cause)),
    };
    // A negative number is a single-user server's.
    let pid = text.lines().next().and_then(|line| line.trim().parse::<i32>().ok()).map(i32::saturating_abs);
    if pid.is_some_and(|pid| pid > 0 && is_server_on(pid, data_directory)) {
        return Ok(true);
    }
    // Children of a killed postmaster need a moment to notice, and write until then.
    Ok(any_process_in(data_directory))
}

/// Whether the process of this number works in `data_directory`, as a server's all do.
pub(crate) fn is_process_in(pid: i32, data_directory: &Path) -> bool {
    fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|directory| is_same(&directory, data_directory))
}

fn is_server_on(pid: i32, data_directory: &Path) -> bool {
    match state(pid) {
        Some('Z' | 'X' | 'x') => return false,
        Some(_) => {}
        // Not to be seen under /proc: with `hidepid` that may only mean that it is another account's.
        None => return nix::sys::signal::kill(Pid::from_raw(pid), None) != Err(Errno::ESRCH),
    }
    match fs::read_link(format!("/proc/{pid}/cwd")) {
        Ok(directory) => is_same(&directory, data_directory),
        // Another account's directory is not shown to us, but what it runs is.
        Err(_) => match fs::read_to_string(format!("/proc/{pid}/comm")) {
            Ok(name) => name.starts_with("postgres") || name.starts_with("postmaster"),
            Err(cause) => cause.kind() != ErrorKind::NotFound,
        },
    }
}

fn any_process_in(data_directory: &Path) -> bool {
    let Ok(processes) = fs::read_dir("/proc") else { return false };
    processes.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok()).any(|pid| {
        let named = fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.starts_with("postgres"));
        named
            && !matches!(state(pid), None | Some('Z' | 'X' | 'x'))
            && fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|directory| is_same(&directory, data_directory))
    })
}

/// The letter for a process's state; `Z` is one that ended and that nobody has waited for yet.
fn state(pid: i32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.trim_start().chars().next()
}

fn is_same(one: &Path, other: &Path) -> bool {
    one == other || matches!((one.canonicalize(), other.canonicalize()), (Ok(one), Ok(other)) if one == other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_file_does_not_count() {
        let place = tempfile::tempdir().expect("tempdir");
        assert!(!is_running(place.path()).expect("no file"));
        assert!(!is_running(&place.path().join("missing")).expect("no directory"));
        for content in ["", "nonsense\n", "0\n"] {
            fs::write(place.path().join("postmaster.pid"), content).expect("write");
            assert!(!is_running(place.path()).expect("checked"), "{content:?}");
        }
        // Our own number stands for a stranger's: it lives, but works elsewhere.
        fs::write(place.path().join("postmaster.pid"), format!("{}\n", std::process::id())).expect("write");
        assert!(!is_running(place.path()).expect("checked"));
    }
}
