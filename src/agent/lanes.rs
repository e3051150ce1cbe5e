//! Which work excludes which. A target has three lanes; different lanes run side by side, because a full backup of two
//! hours must not stop the archive of the log. A restore in place takes all three.
//!
//! Lanes here are those of one process, and their point is the message: who is busy with what. Processes that share a
//! state directory keep out of each other's way by the lock files that the operations take.

use crate::base::ids::TargetName;
use crate::operation::request::{Destination, Request};
use std::fmt;

/// A lane of a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LaneKind {
    /// Full backups.
    Base,
    /// The archive of the log.
    Log,
    /// Restores.
    Restore,
}

/// One lane of one target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lane {
    /// The target.
    pub target: TargetName,
    /// Which of its lanes.
    pub kind: LaneKind,
}

impl fmt::Display for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            LaneKind::Base => "base",
            LaneKind::Log => "log",
            LaneKind::Restore => "restore",
        };
        write!(f, "{kind} lane of {}", self.target)
    }
}

/// The lanes that a request occupies while it runs. A dry run changes nothing and occupies none; what only reads the
/// repository takes leases there instead.
pub fn of_request(request: &Request) -> Vec<Lane> {
    let lane = |target: &TargetName, kind| Lane { target: target.clone(), kind };
    match request {
        Request::Backup(backup) if !backup.dry_run => vec![lane(&backup.target, LaneKind::Base)],
        Request::Archive(archive) if !archive.dry_run => vec![lane(&archive.target, LaneKind::Log)],
        Request::Adopt { target, .. } => vec![lane(target, LaneKind::Base), lane(target, LaneKind::Log)],
        Request::Restore(restore) if !restore.dry_run => match restore.destination {
            Destination::InPlace => [LaneKind::Base, LaneKind::Log, LaneKind::Restore]
                .into_iter()
                .map(|kind| lane(&restore.target, kind))
                .collect(),
            Destination::Into(_) => vec![lane(&restore.target, LaneKind::Restore)],
        },
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::restore_options::RestoreOptions;
    use crate::operation::request::{BackupRequest, RestoreRequest};

    fn target(name: &str) -> TargetName {
        TargetName::new(name).expect("name")
    }

    fn backup(name: &str, dry_run: bool) -> Vec<Lane> {
        of_request(&Request::Backup(BackupRequest { target: target(name), kind: None, note: None, dry_run }))
    }

    fn restore(name: &str, destination: Destination) -> Vec<Lane> {
        of_request(&Request::Restore(RestoreRequest {
            target: target(name),
            backup: None,
            destination,
            until: None,
            no_recover: false,
            without_system: false,
            options: RestoreOptions::default(),
            dry_run: false,
        }))
    }

    fn collide(one: &[Lane], other: &[Lane]) -> bool {
        one.iter().any(|lane| other.contains(lane))
    }

    #[test]
    fn a_restore_in_place_excludes_everything_of_its_target_and_nothing_else() {
        let in_place = restore("graph", Destination::InPlace);
        let log = [Lane { target: target("graph"), kind: LaneKind::Log }];
        assert!(collide(&in_place, &backup("graph", false)));
        assert!(collide(&in_place, &log));
        assert!(collide(&in_place, &restore("graph", Destination::Into("/tmp/x".into()))));
        assert!(!collide(&in_place, &backup("metrics", false)));
        assert!(!collide(&log, &backup("graph", false)), "base and log run side by side");
        assert!(!collide(&backup("graph", false), &restore("graph", Destination::Into("/tmp/x".into()))));
        assert!(backup("graph", true).is_empty(), "a dry run occupies nothing");
    }
}
