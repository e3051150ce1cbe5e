//! `wal fetch`: gives a server that recovers back what was archived of its log, file by file.
//!
//! A server takes "it is not there" for the end of the log and may go into service with what it has. So that answer is
//! given only where every repository was asked and each one's signed chain ends before the file; everything else is an
//! error. A batch holds several files: all of them are unpacked at once, and while the server replays them the next batch
//! is unpacked ahead.

mod find;
mod unpacked;

use self::find::{Batch, Place};
use self::unpacked::Unpacked;
use crate::base::clock::wait_until;
use crate::base::ids::TargetName;
use crate::base::task::Task;
use crate::base::{Code, Error, Result};
use crate::driver::log::{Asked, LogOutbox, Piece};
use crate::operation::context::{Context, Target};
use crate::operation::hand_over;
use nix::sys::memfd::{MFdFlags, memfd_create};
use std::fs::File;
use std::io::{Seek, Write};
use std::time::Duration;

/// Bytes of log that are unpacked ahead of the server, at least.
const AHEAD_BYTES: u64 = 128 << 20;
/// How long one file may take, unpacking its batch included.
const PATIENCE: Duration = Duration::from_secs(600);
/// How often it is looked for while another call unpacks.
const INTERVAL: Duration = Duration::from_millis(10);

/// What a server gets.
#[derive(Debug)]
pub enum Fetched {
    /// The file, from its beginning.
    File(File),
    /// It lies behind everything that was archived; says how far that goes.
    Beyond(String),
}

/// The file that the server calls `name`, for `caller`, who must own the server's data. Whatever cannot be said for
/// certain is an error: `LOG_GAP` for a file that should be there and is not, those of repositories that cannot be asked,
/// `BACKUP_CORRUPTED`, `NOT_AUTHORISED`, `USAGE` for a name that no server asks for.
pub fn run(context: &Context, target: &TargetName, caller: u32, name: &str, task: &Task) -> Result<Fetched> {
    let target = context.target(target)?;
    let outbox = outbox(target)?;
    hand_over::authorise(target, caller, "restore_command")?;
    if let Some(file) = outbox.waiting(name)? {
        return Ok(Fetched::File(file));
    }
    let unpacked = Unpacked::of(context, target);
    match outbox.asked(name)? {
        Asked::Nothing => Ok(Fetched::Beyond(format!("{name}: there is no such file"))),
        Asked::Origin { stream, history } => {
            let origin = find::origin(context, target, name, &stream, &history, task)?;
            // Servers ask so before they begin to recover and after they have come to the end.
            unpacked.clear()?;
            match origin {
                Some(text) => in_memory(&text).map(Fetched::File),
                None => Ok(Fetched::Beyond(format!("{name}: no log of that timeline was archived"))),
            }
        }
        Asked::Piece(piece) => {
            if let Some(file) = unpacked.open(name)? {
                return Ok(Fetched::File(file));
            }
            let mut turn = None;
            let mut here = Ok(None);
            wait_until(PATIENCE, INTERVAL, || {
                turn = unpacked.turn().ok();
                here = unpacked.open(name);
                turn.is_some() || !matches!(here, Ok(None)) || task.cancel().is_cancelled()
            });
            task.check()?;
            if let Some(file) = here? {
                return Ok(Fetched::File(file));
            }
            if turn.is_none() {
                let text = format!("the log of {} is being unpacked by another call, for too long", target.name);
                return Err(Error::new(Code::Busy, text));
            }
            let batches = match find::batch(context, target, name, &piece, task)? {
                Place::In(batches) => batches,
                Place::Beyond(end) => return Ok(Fetched::Beyond(end)),
            };
            unpack(context, target, outbox, &unpacked, &batches, task)?;
            let file = unpacked.open(name)?;
            let missing = || Error::new(Code::LogGap, format!("{name} was not in the batch that names it"));
            file.map(Fetched::File).ok_or_else(missing)
        }
    }
}

/// Unpacks what follows the file that the server calls `name`, unless enough is there. Nothing depends on it: whatever
/// stands in its way stands in the way of the next call, which says so.
pub fn read_ahead(context: &Context, target: &TargetName, name: &str, task: &Task) -> Result<()> {
    let target = context.target(target)?;
    let outbox = outbox(target)?;
    let Asked::Piece(piece) = outbox.asked(name)? else { return Ok(()) };
    let unpacked = Unpacked::of(context, target);
    for ahead in 1..=AHEAD_BYTES.div_ceil(piece.length) {
        let next = Piece { file: piece.file + ahead, ..piece.clone() };
        let Some(name) = outbox.name_of(&next.history, next.file, next.length) else { return Ok(()) };
        if unpacked.open(&name)?.is_some() || outbox.waiting(&name)?.is_some() {
            continue;
        }
        let Ok(_turn) = unpacked.turn() else { return Ok(()) };
        return match find::batch(context, target, &name, &next, task)? {
            Place::In(batches) => unpack(context, target, outbox, &unpacked, &batches, task),
            Place::Beyond(_) => Ok(()),
        };
    }
    Ok(())
}

/// A file that is nowhere.
fn in_memory(text: &str) -> Result<File> {
    let failed = |cause: std::io::Error| Error::io("making", "a file in memory".as_ref(), cause);
    let made = memfd_create("origin", MFdFlags::MFD_CLOEXEC).map_err(|errno| failed(errno.into()))?;
    let mut file = File::from(made);
    file.write_all(text.as_bytes()).and_then(|()| file.rewind()).map_err(failed)?;
    Ok(file)
}

fn outbox(target: &Target) -> Result<&dyn LogOutbox> {
    target.driver.log_outbox().ok_or_else(|| {
        Error::new(Code::NotAvailable, format!("the servers of {} do not ask for their log by name", target.name))
    })
}

/// Unpacks the batch from the first repository that gives it whole.
fn unpack(
    context: &Context,
    target: &Target,
    outbox: &dyn LogOutbox,
    unpacked: &Unpacked,
    batches: &[Batch],
    task: &Task,
) -> Result<()> {
    let mut failure = None;
    for Batch { repository, batch } in batches {
        match unpacked.take_in(context, target, outbox, repository, batch, task) {
            Ok(()) => return Ok(()),
            Err(error) => failure = failure.or(Some(error.context(format!("repository {}", repository.name())))),
        }
    }
    Err(failure.unwrap_or_else(|| Error::new(Code::Internal, "no batch was looked for")))
}
