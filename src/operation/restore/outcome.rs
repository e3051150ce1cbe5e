//! What a restore leads to, so that two ways to the same state can be told from one to another.

use super::choose::Chosen;
use super::plan::History;
use crate::base::ids::BackupId;
use crate::driver::log::RecoveryTarget;

/// The state that a plan leads to, whichever way and from wherever.
#[derive(PartialEq, Eq)]
pub(super) enum Outcome {
    /// This backup's.
    Backup(BackupId),
    /// That of a history at its end or before: where it is cut, and the last transaction that there is.
    Log(History, Option<RecoveryTarget>, u64),
}

impl Chosen {
    /// What it leads to.
    pub(super) fn outcome(&self) -> Outcome {
        match &self.log {
            None => Outcome::Backup(self.manifest.id.clone()),
            Some(log) if log.cut => Outcome::Log(log.history.clone(), Some(log.until), 0),
            Some(log) => Outcome::Log(log.history.clone(), None, log.end.transaction),
        }
    }
}
