//! `wal push`: what a server's `archive_command` runs.
//!
//! A server takes every status above 125 for a reason to stop, and every other one but 0 for a reason to try again; a
//! file that was not taken is always one to try again.

use super::args::Wal;
use super::exit;
use super::later::{self, Among};
use super::over_bus::OverBus;
use super::program::Parts;
use crate::base::ids::TargetName;
use crate::base::{Code, Error, Result};
use crate::dbus::address::BusAddress;
use crate::operation::hand_over;
use std::fs::File;
use std::path::Path;

/// Highest status that a server does not take for a reason to stop.
const STATUS_MAX: u8 = 125;

/// What a server's `restore_command` must end with so that it stops: it takes a lower status for the end of the log, and
/// goes into service without the rest. No word that might stand there ends otherwise.
const FETCH_FAILED: u8 = 126;

/// Where files of the log go.
pub enum Way {
    /// Into the agent's directory, by this process; it needs nothing that a running agent holds.
    Direct,
    /// To the agent.
    Bus(BusAddress),
}

/// Carries out `wal …` and gives its exit status.
pub fn run(command: &Wal, way: Result<Way>, parts: &Parts<'_>, config: &Path) -> u8 {
    let (target, path) = match command {
        Wal::Push { target, path } => (target, path),
        Wal::Other(words) => {
            let error = later::unknown_word(words, Among::WalCommands, &["push".to_owned()]);
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
