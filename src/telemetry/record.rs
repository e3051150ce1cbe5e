//! The occasions worth a message id, and the fields of the record that tells of them.
//!
//! Message ids are random, made once, and never change: `journalctl MESSAGE_ID=…` and catalogue entries rely on them.

use tracing::{Level, event};

/// Records travel through `tracing` under this name, by which subscribers tell them from free-form lines.
pub const RECORD_TARGET: &str = "neo4j_backup::record";

/// Something that happened to the agent or a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Occasion {
    /// The agent answers on the bus.
    AgentReady,
    /// The agent was told to end.
    AgentStopping,
    /// What an earlier process left was found and cleaned up.
    AgentRecovered,
    /// Another configuration is in force.
    AgentReloaded,
    /// A job began.
    JobStarted,
    /// A job ended well.
    JobSucceeded,
    /// A job ended in an error.
    JobFailed,
    /// A job was ended by someone.
    JobCancelled,
    /// A job was found that an earlier agent process had left unfinished.
    JobInterrupted,
    /// A job shows no progress.
    JobStalled,
    /// A piece of a database's log was lost before it was archived.
    LogGap,
    /// A database's history is not the one that was archived, and nothing on record says why.
    LogForked,
    /// A database's log that waits for a repository fills the room that it has.
    LogSpoolFilling,
    /// There is no room left for it.
    LogSpoolFull,
}

impl Occasion {
    /// Every occasion.
    pub const ALL: &'static [Occasion] = &[
        Occasion::AgentReady,
        Occasion::AgentStopping,
        Occasion::AgentRecovered,
        Occasion::AgentReloaded,
        Occasion::JobStarted,
        Occasion::JobSucceeded,
        Occasion::JobFailed,
        Occasion::JobCancelled,
        Occasion::JobInterrupted,
        Occasion::JobStalled,
        Occasion::LogGap,
        Occasion::LogForked,
        Occasion::LogSpoolFilling,
        Occasion::LogSpoolFull,
    ];

    /// The record's `MESSAGE_ID`: 128 bits, 32 hex digits.
    pub fn message_id(self) -> &'static str {
        match self {
            Occasion::AgentReady => "babcab79df1a474183ecef7eea03237d",
            Occasion::AgentStopping => "85be7bed23d44dec85404e94ee15f26f",
            Occasion::AgentRecovered => "ad074280ca8a4be996ebe09a957d1588",
            Occasion::AgentReloaded => "8d6fb96d3b4745f8b12cad02d735958e",
            Occasion::JobStarted => "1e18be29e5d44ba49a89336ba8120b29",
            Occasion::JobSucceeded => "ffad7b93675c42aea8ebf501c90a47f7",
            Occasion::JobFailed => "e03a43e6a0e74516ab5619f43b7bdbab",
            Occasion::JobCancelled => "a8bc5fcaf68642cab8c64c1407c7c8fd",
            Occasion::JobInterrupted => "f200b9ee66b347c0b6d612922018988c",
            Occasion::JobStalled => "c7f47085da7043f19e95c4060036852a",
            Occasion::LogGap => "1c1c708f93cd14b41fc974efc2f54034",
            Occasion::LogForked => "9445a3f8771120c0c1f15fe9ec2ce104",
            Occasion::LogSpoolFilling => "0316d52248a2494f82516f27a9c48ab4",
            Occasion::LogSpoolFull => "578ebdee392f4a498c3b7fb0e5fdb5cc",
        }
    }

    fn level(self) -> Level {
        match self {
            Occasion::JobFailed | Occasion::LogGap | Occasion::LogForked | Occasion::LogSpoolFull => Level::ERROR,
            Occasion::JobInterrupted | Occasion::JobStalled | Occasion::AgentRecovered | Occasion::LogSpoolFilling => {
                Level::WARN
            }
            _ => Level::INFO,
        }
    }
}

/// One record. Absent fields are not written.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// What happened; gives `MESSAGE_ID` and `PRIORITY`.
    pub occasion: Occasion,
    /// `MESSAGE`: a line for people.
    pub message: &'a str,
    /// `TARGET`: the database.
    pub target: Option<&'a str>,
    /// `BACKUP_ID`.
    pub backup: Option<&'a str>,
    /// `JOB`: its number.
    pub job: Option<u64>,
    /// `ACTOR`: who asked.
    pub actor: Option<&'a str>,
    /// `ERROR_CODE`: the registered name.
    pub error_code: Option<&'a str>,
    /// `BYTES`: bytes that went through in all phases: a backup is written once and read back once.
    pub bytes: Option<u64>,
    /// `DURATION_US`: microseconds.
    pub duration_us: Option<u64>,
}

impl<'a> Record<'a> {
    /// A record with nothing but its message.
    pub fn new(occasion: Occasion, message: &'a str) -> Self {
        Record {
            occasion,
            message,
            target: None,
            backup: None,
            job: None,
            actor: None,
            error_code: None,
            bytes: None,
            duration_us: None,
        }
    }

    /// Writes it to whatever the process logs to.
    pub fn emit(&self) {
        macro_rules! at {
            ($level:expr) => {
                event!(
                    target: RECORD_TARGET,
                    $level,
                    MESSAGE_ID = self.occasion.message_id(),
                    TARGET = self.target,
                    BACKUP_ID = self.backup,
                    JOB = self.job,
                    ACTOR = self.actor,
                    ERROR_CODE = self.error_code,
                    BYTES = self.bytes,
                    DURATION_US = self.duration_us,
                    "{}",
                    self.message
                )
            };
        }
        // The level of an event is part of its static description, so each needs its own.
        match self.occasion.level() {
            Level::ERROR => at!(Level::ERROR),
            Level::WARN => at!(Level::WARN),
            _ => at!(Level::INFO),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn message_ids_are_unique_and_well_formed() {
        let ids: HashSet<_> = Occasion::ALL.iter().map(|occasion| occasion.message_id()).collect();
        assert_eq!(ids.len(), Occasion::ALL.len());
        assert!(
            ids.iter().all(|id| id.len() == 32 && id.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)))
        );
    }
}
