//! `wal push` and `wal fetch`: what a server's `archive_command` and `restore_command` run.
//!
//! To archive, a server takes every status above 125 for a reason to stop, and every other one but 0 for a reason to try
//! again; a file that was not taken is always one to try again. To recover, it takes every status up to 125 for the end of
//! the log, and goes into service with what it has: only what is certain may end so.

use super::args::Wal;
use super::exit;
use super::later::{self, Among};
use super::output::say;
use super::over_bus::OverBus;
use super::program::Parts;
use crate::base::ids::TargetName;
use crate::base::task::Task;
use crate::base::{Code, Error, Result, atomic_file};
use crate::dbus::address::BusAddress;
use crate::operation::fetch::Fetched;
use crate::operation::hand_over;
use std::ffi::OsString;
use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

/// Highest status that a server does not take for a reason to stop.
const STATUS_MAX: u8 = 125;
/// Ends a recovery that could not be given what it asked for.
pub const FETCH_FAILED: u8 = 126;
/// Every repository was asked, and the log ends before what was asked for.
const BEYOND: u8 = 1;

/// Where files of the log go to and come from.
pub enum Way {
    /// The agent's directory, by this process; `push` needs nothing that a running agent holds.
    Direct,
    /// The agent.
    Bus(BusAddress),
}

/// Whether a command line is that of a `restore_command`, so that whatever is wrong with it must end the recovery.
pub fn is_fetch(mut arguments: impl Iterator<Item = OsString>) -> bool {
    arguments.any(|word| word == "wal") && arguments.next().is_some_and(|word| word != "push")
}

/// Carries out `wal …` and gives its exit status.
pub fn run(command: &Wal, way: Result<Way>, parts: &Parts<'_>, config: &Path) -> u8 {
    let (target, path) = match command {
        Wal::Push { target, path } => (target, path),
        Wal::Fetch { target, name, path } => {
            let fetch = || way.and_then(|way| fetch(target, name, path, way, parts, config));
            // A panic would end with 101.
            return match catch_unwind(AssertUnwindSafe(fetch)) {
                Ok(Ok(status)) => status,
                Ok(Err(error)) => {
                    exit::fail(&error, None);
                    FETCH_FAILED
                }
                Err(_) => FETCH_FAILED,
            };
        }
        Wal::Other(words) => {
            let error = later::unknown_word(words, Among::WalCommands, &["push".to_owned(), "fetch".to_owned()]);
            exit::fail(&error, None);
            return FETCH_FAILED;
        }
    };
    let pushed = way.and_then(|way| push(target, path, way, parts, config));
    pushed.map_or_else(|error| exit::fail(&error, None).min(STATUS_MAX), |()| exit::DONE)
}

fn push(target: &TargetName, path: &Path, way: Way, parts: &Parts<'_>, config: &Path) -> Result<()> {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let mut file = File::open(path).map_err(|cause| Error::io("opening", path, cause))?;
    match way {
        Way::Bus(address) => OverBus::connect(&address, false)?.push_wal(target, name, file),
        Way::Direct => {
            let driver = (parts.driver)(config, target)?;
            let inbox = driver.log_inbox().ok_or_else(|| hand_over::not_handed_over(target))?;
            hand_over::take_in(target, inbox, name, &mut file, &mut |notice| notice.emit(target))
        }
    }
    .map_err(|error| match error.code() {
        Code::PostgresUnsupported => error.context(format!("archiving {name}")),
        _ => error,
    })
}

fn fetch(target: &TargetName, name: &str, path: &Path, way: Way, parts: &Parts<'_>, config: &Path) -> Result<u8> {
    let fetched = match way {
        Way::Bus(address) => OverBus::connect(&address, false)?.fetch_wal(target, name)?,
        Way::Direct => {
            let own = nix::unistd::geteuid().as_raw();
            (parts.workshop)(config)?.fetch_log(target, own, name, &Task::unobserved())?
        }
    };
    match fetched {
        Fetched::File(mut file) => atomic_file::copy(path, &mut file, 0o600).map(|()| exit::DONE),
        Fetched::Beyond(reason) => {
            say(&reason);
            Ok(BEYOND)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restore_command_is_known_by_its_words() {
        let found = |line: &str| is_fetch(line.split(' ').map(OsString::from));
        for text in ["wal fetch metrics", "--bus x wal fetch", "run wal fetch", "wal get"] {
            assert!(found(text), "{text}");
        }
        for text in ["wal push metrics x", "wal", "backup wal", "fetch wal"] {
            assert!(!found(text), "{text}");
        }
    }
}
