//! Differential artifacts as the log of a target: each is one piece, which begins where the artifact before it ends.
//!
//! What a differential artifact follows is a full one of the same chain, never one before it. So every full backup begins a
//! chain of its own ([`LogSource::in_chains`]), and where the kept chain does not end where the archive does, there is a
//! gap, which a full backup closes.

use super::artifact::{Artifact, Wanted, refusal};
use super::commands::{self, Asked};
use super::kept::{Entry, Kept};
use crate::artifact::log_batch::{LogMark, LogSegment};
use crate::base::clock::{Clock, SystemClock};
use crate::base::task::Task;
use crate::base::{Code, Error, Result, bytes};
use crate::driver::log::{LogChunk, LogReader, LogSource, Resumption};
use crate::driver::neo4j::Neo4jDriver;
use crate::driver::neo4j::dump::Admin;
use jiff::Timestamp;

/// What a manifest calls such a piece, before the artifact's own letters.
pub(in crate::driver::neo4j) const FORMAT: &str = "artifact";

impl Neo4jDriver {
    /// Where the artifacts of this target are kept.
    pub(super) fn kept(&self) -> Result<Kept> {
        let owner = self.layout()?.owner(&self.settings.database)?;
        Ok(Kept::at(self.settings.artifacts.clone(), Some(owner)))
    }
}

impl LogSource for Neo4jDriver {
    fn resume(&self, after: &LogMark, task: &Task) -> Result<Resumption> {
        let (kept, layout) = (self.kept()?, self.layout()?);
        let (database, identity) = (self.settings.database.clone(), self.store_id(&layout)?.identity());
        let entries = match kept.read(&database, &identity) {
            Ok(entries) => entries,
            Err(error) if error.code() == Code::LogGap => return Ok(Resumption::Gap(error.message().to_owned())),
            Err(error) => return Err(error),
        };
        if !entries.iter().any(|entry| entry.highest == after.transaction) {
            let newest = entries.last().map_or(0, |entry| entry.highest);
            let why = format!(
                "no artifact that is kept in {} ends with {}; the newest ends with {newest}",
                kept.chain().display(),
                after.transaction
            );
            return Ok(Resumption::Gap(why));
        }
        let admin = self.admin(Some(layout.owner(&database)?));
        // Where a base is only to be placed, as for a dump of a stopped server, nothing is made of it.
        let from = self.check_enterprise(task).map(|(from, _)| from);
        let (after, state) = (after.clone(), State::Going);
        Ok(Resumption::Continues(Box::new(Chain { admin, kept, from, database, identity, after, state })))
    }

    fn in_chains(&self) -> bool {
        true
    }

    fn release(&self) {
        // The data that the chain belongs to is about to be replaced: nothing may follow it.
        if let Ok(kept) = self.kept()
            && let Ok(_lock) = kept.lock()
        {
            let _ = kept.leave("the data was replaced by a restore");
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Going,
    /// There was nothing more.
    Ended,
    /// The server no longer has what follows.
    Left,
}

/// Reads a chain on: artifacts that are kept and another repository has already, then one more of the tool's.
struct Chain {
    admin: Admin,
    kept: Kept,
    /// The backup service, or why there is none.
    from: Result<String>,
    database: String,
    identity: String,
    after: LogMark,
    state: State,
}

impl LogReader for Chain {
    fn next(&mut self, _limit: u64, task: &Task) -> Result<Option<LogChunk>> {
        if self.state != State::Going {
            return Ok(None);
        }
        let _lock = self.kept.lock()?;
        let entries = self.kept.read(&self.database, &self.identity)?;
        if let Some(entry) = entries.iter().find(|entry| entry.lowest == self.after.transaction + 1 && !entry.full) {
            let artifact = self.kept.open(entry, &self.database, &self.identity)?;
            return self.chunk(artifact, entry.taken_at, false, task).map(Some);
        }
        match entries.last() {
            Some(last) if last.highest == self.after.transaction => {}
            _ => return Err(Error::new(Code::LogGap, "the kept chain has changed: the next run looks anew")),
        }
        self.make(&entries, task)
    }

    fn covered_until(&self, asked: Timestamp) -> Option<Timestamp> {
        (self.state != State::Left).then_some(asked)
    }

    fn is_left(&self) -> bool {
        self.state == State::Left
    }
}

impl Chain {
    /// Has the tool make one more.
    fn make(&mut self, entries: &[Entry], task: &Task) -> Result<Option<LogChunk>> {
        let from = std::mem::replace(&mut self.from, Err(Error::new(Code::Internal, "the chain was read on twice")))?;
        let what = format!("taking a differential backup of database {} from {from}", self.database);
        self.kept.tidy()?;
        let asked_at = SystemClock.now();
        let tool = commands::backup(&self.admin, Asked::Differential, &from, &self.kept.chain(), &self.database);
        task.info(format!("{what}: {}", tool.command_line()));
        let made = commands::succeed(&*self.admin.launcher, &tool, &what, task)
            .map_err(|error| self.with_way_out(error))
            .and_then(|()| self.examine(entries, task).map_err(|error| error.context(&what)));
        let made = match made {
            Ok(made) => made,
            Err(error) => {
                // Nothing that was refused may be the parent of the next one.
                self.kept.tidy()?;
                return Err(error);
            }
        };
        let Some((artifact, sha256)) = made else {
            return Ok(None);
        };
        self.kept.add(Entry::of(&artifact, asked_at))?;
        task.info(format!("{what}: {}", told(&artifact)));
        self.piece(artifact, sha256, asked_at, true).map(Some)
    }

    fn with_way_out(&self, error: Error) -> Error {
        if error.code() != Code::Neo4jAdminFailed {
            return error;
        }
        error.with_hint("if it says that the server no longer has the log: a full backup begins the next chain")
    }

    /// Holds what the tool left against what it was asked for; `None` = nothing was committed since, or the chain has ended.
    fn examine(&mut self, entries: &[Entry], task: &Task) -> Result<Option<(Artifact, String)>> {
        let known: Vec<&str> = entries.iter().map(|entry| entry.name.as_str()).collect();
        let (owner, identity) = (self.admin.user.as_ref(), Some(self.identity.as_str()));
        let wanted = Wanted { owner, database: &self.database, identity, asked: Asked::Differential };
        let mut artifact = Artifact::find(&self.kept.chain(), &known, wanted)?;
        for entry in entries {
            self.kept.open(entry, &self.database, &self.identity)?;
        }
        let (after, found) = (self.after.transaction, artifact.description.clone());
        if found.full {
            self.state = State::Left;
            self.kept.leave(&format!(
                "neo4j-admin made the full artifact {} where a differential one was asked for, as it does when the server no \
                 longer has the log after {after}; it was thrown away",
                artifact.name()
            ))?;
            return Ok(None);
        }
        // Before it is believed that it is empty, it must be whole.
        let sha256 = artifact.sha256(task)?;
        if (found.lowest, found.highest) == (0, 0) {
            self.state = State::Ended;
            self.kept.tidy()?;
            return Ok(None);
        }
        if found.lowest != after + 1 || found.highest < found.lowest {
            let why = format!("it holds {} to {}, and should begin with {}", found.lowest, found.highest, after + 1);
            return Err(refusal(&artifact.path, wanted)(&why));
        }
        Ok(Some((artifact, sha256)))
    }

    fn chunk(&mut self, mut artifact: Artifact, taken_at: Timestamp, complete: bool, task: &Task) -> Result<LogChunk> {
        let sha256 = artifact.sha256(task)?;
        self.piece(artifact, sha256, taken_at, complete)
    }

    fn piece(&mut self, artifact: Artifact, sha256: String, taken_at: Timestamp, complete: bool) -> Result<LogChunk> {
        let (start, end, found) = (self.after.clone(), artifact.mark(), artifact.description.clone());
        let segment = LogSegment {
            file: end.file,
            offset: 0,
            length: artifact.bytes,
            sha256: sha256.clone(),
            first_transaction: Some(found.lowest),
            last_transaction: Some(found.highest),
            transactions: found.highest - found.lowest + 1,
            // An artifact does not tell when its transactions were committed.
            first_committed_at: Some(taken_at),
            last_committed_at: Some(taken_at),
            log_format: FORMAT.to_owned(),
        };
        self.after = end.clone();
        let reader = Box::new(artifact.open(Some(sha256))?);
        Ok(LogChunk { start, end, complete, covered_until: Some(taken_at), segments: vec![segment], reader })
    }
}

/// Why a restore cannot be aimed at a time.
pub(in crate::driver::neo4j) fn no_times() -> Error {
    let text = "artifacts of Neo4j Enterprise do not tell when their transactions were committed";
    Error::new(Code::NotAvailable, text)
        .with_hint("`--to-tx` with the last transaction of an artifact restores the chain up to it")
}

/// Whether a manifest's piece is an artifact.
pub(in crate::driver::neo4j) fn is_artifact(segments: &[LogSegment]) -> bool {
    matches!(segments, [only] if only.log_format == FORMAT)
}

fn told(artifact: &Artifact) -> String {
    let found = &artifact.description;
    format!("{}, append indexes {} to {}", bytes::human(artifact.bytes), found.lowest, found.highest)
}
