//! Commands → requests.

use super::args::{Backup, BackupType, Command, Restore, Verify};
use super::when;
use crate::base::clock::{Clock, SystemClock};
use crate::base::ids::BackupKind;
use crate::base::{Code, Error, Result};
use crate::driver::log::{PointName, RecoveryTarget};
use crate::operation::request::{ArchiveRequest, BackupRequest, Destination, Request, RestoreRequest, VerifyRequest};
use jiff::tz::TimeZone;
use std::path::{Path, PathBuf};

/// The request that a command stands for; `None` for those that need no agent, or are more than one request.
pub fn request(command: &Command) -> Result<Option<Request>> {
    Ok(Some(match command {
        Command::Status { target } => Request::Status { target: target.clone() },
        Command::Backup(args) if args.kind == BackupType::Incremental => Request::Archive(archive(args)?),
        Command::Backup(args) => Request::Backup(backup(args)?),
        Command::Adopt { target, new_repository } => {
            Request::Adopt { target: target.clone(), new_repository: *new_repository }
        }
        Command::List { target } => Request::List { target: target.clone() },
        Command::Show { backup } => Request::Show { backup: backup.clone() },
        Command::Presign { backup, expires } => Request::Presign { backup: backup.clone(), seconds: expires.as_secs() },
        Command::History { limit } => Request::History { limit: *limit },
        Command::Jobs => Request::Jobs,
        Command::Cancel { job } => Request::Cancel { job: *job },
        Command::Restore(args) => Request::Restore(restore(args)?),
        Command::Restores => Request::Restores,
        Command::Verify(args) => Request::Verify(verify(args)),
        Command::Check { target, .. } => Request::Check { target: target.clone() },
        Command::Delete { backup, dry_run } => Request::Delete { backup: backup.clone(), dry_run: *dry_run },
        Command::Cleanup { dry_run } => Request::Cleanup { dry_run: *dry_run },
        Command::Rescan => Request::Rescan,
        Command::Key(super::args::Key::List) => Request::KeyList,
        Command::Key(super::args::Key::Rotate { dry_run }) => Request::KeyRotate { dry_run: *dry_run },
        Command::Follow { .. }
        | Command::Init(_)
        | Command::Setup { .. }
        | Command::Enable { .. }
        | Command::Disable { .. }
        | Command::Key(_)
        | Command::Wal(_)
        | Command::Encrypt(_)
        | Command::Decrypt(_)
        | Command::Config(_)
        | Command::Completions { .. }
        | Command::Other(_) => return Ok(None),
    }))
}

fn backup(args: &Backup) -> Result<BackupRequest> {
    let kind = match args.kind {
        BackupType::Full => None,
        BackupType::Dump => Some(BackupKind::Dump),
        BackupType::Export => Some(BackupKind::Export),
        BackupType::Incremental => {
            return Err(Error::new(Code::Internal, "an incremental backup is a request of its own"));
        }
    };
    Ok(BackupRequest { target: args.target.clone(), kind, note: args.note.clone(), dry_run: args.dry_run })
}

fn archive(args: &Backup) -> Result<ArchiveRequest> {
    if args.note.is_some() {
        return Err(Error::new(Code::Usage, "an incremental backup keeps no note")
            .with_hint("notes stand in the manifests of full backups; leave out `--note`"));
    }
    Ok(ArchiveRequest { target: args.target.clone(), dry_run: args.dry_run })
}

fn until(args: &Restore) -> Result<Option<RecoveryTarget>> {
    let clock = SystemClock;
    if args.postgres.to_immediate {
        return Ok(Some(RecoveryTarget::Immediate));
    }
    if let Some(position) = args.to_lsn {
        return Ok(Some(RecoveryTarget::Lsn(position)));
    }
    if let Some(name) = &args.to_name {
        return Ok(Some(RecoveryTarget::Point(PointName::new(name)?)));
    }
    Ok(match (&args.to_time, args.to_tx, args.before_tx) {
        (Some(text), ..) => Some(RecoveryTarget::Time(when::parse(text, clock.now(), &TimeZone::system())?)),
        (None, Some(number), _) => Some(RecoveryTarget::Transaction(number)),
        (None, None, Some(number)) => Some(RecoveryTarget::BeforeTransaction(number)),
        (None, None, None) => None,
    })
}

fn restore(args: &Restore) -> Result<RestoreRequest> {
    args.later.refuse()?;
    let target = args.target.clone().ok_or_else(|| Error::new(Code::Usage, "no target was named"))?;
    let destination = match (&args.into, args.in_place) {
        (Some(directory), false) => Destination::Into(absolute(directory)?),
        (None, true) => Destination::InPlace,
        _ => {
            return Err(Error::new(Code::Usage, "a restore needs exactly one destination").with_hint(format!(
                "`neo4j-backupctl restore {target} --into DIR` leaves the data in service alone, `--in-place` replaces it"
            )));
        }
    };
    Ok(RestoreRequest {
        target,
        backup: args.backup.clone(),
        destination,
        until: until(args)?,
        no_recover: args.no_recover,
        without_system: args.without_system,
        options: args.postgres.options()?,
        dry_run: args.dry_run,
    })
}

fn verify(args: &Verify) -> VerifyRequest {
    VerifyRequest { backup: args.backup.clone(), quick: args.quick }
}

/// The agent has another working directory than the person who asks.
pub(super) fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).map_err(|cause| Error::io("finding the absolute path of", path, cause))
}
