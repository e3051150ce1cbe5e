//! `archive`: ships what was committed since the archive's end, or says at once why it cannot.
//!
//! - [`lineage`]: which history a chain goes on in, as a state machine
//! - [`chain_end`]: where the archive ends in a repository
//! - [`catch_up`]: whether the ledger knows all that a repository holds
//! - [`comparison`]: what the source holds there; [`others`]: the same by the record, of repositories that are away
//! - [`broken`]: chains of which nothing reaches the end any more
//! - [`batch`]: writes the batches
//! - [`merge`]: small batches become larger ones
//! - [`leftover`]: the batch that is being written, and what a kill leaves of it

mod batch;
mod broken;
mod catch_up;
pub(crate) mod chain_end;
mod comparison;
pub(crate) mod leftover;
pub(crate) mod lineage;
pub(crate) mod merge;
mod others;

pub(crate) use comparison::{BasePlace, place_base};

use crate::artifact::log_point;
use crate::base::clock::Stopwatch;
use crate::base::error::RetryClass;
use crate::base::ids::{BackupKind, TargetName};
use crate::base::lock::FileLock;
use crate::base::task::Task;
use crate::base::{Code, Error, Result};
use crate::driver::Source;
use crate::driver::log::LogSource;
use crate::operation::answer::{ArchiveReport, ArchivedIn};
use crate::operation::backup::objects::Branch;
use crate::operation::backup::preparation::claim;
use crate::operation::context::{Context, Lane, Target};
use crate::operation::preflight::{self, Need};
use crate::operation::request::{ArchiveRequest, BackupRequest};
use crate::operation::{backup, hand_over, log_records};
use crate::repository::catalog::Repository;
use crate::telemetry::record::Occasion;
use batch::{Chained, Group};
use catch_up::Holdings;
use comparison::{Compared, Lost};
use lineage::Chain;
use std::fs::File;

/// Groups of batches that one run merges at most: shipping goes before.
const MERGES_AT_ONCE: usize = 4;
/// How often room is made for what a server keeps, before the rest is left to the next run.
const ROOM_ROUNDS_MAX: usize = 64;

/// What is collected along the way.
struct Run<'a> {
    context: &'a Context,
    target: &'a Target,
    log: &'a dyn LogSource,
    source: Source,
    report: ArchiveReport,
    failures: Vec<Error>,
    /// Repositories that hold all of a history that the source has left.
    left: Vec<String>,
}

/// Archives the log of a target into every repository.
///
/// Errors: `NOT_AVAILABLE` for a database whose log cannot be archived, `BUSY`, `OWNER_CONFLICT`, `LOG_FORKED`,
/// `LOG_CORRUPTED`, `BACKUP_NO_SPACE`, the driver's own, `BACKUP_PARTIAL` if some repositories failed. What was archived
/// before an error stays and counts.
pub fn run(context: &Context, request: &ArchiveRequest, task: &Task) -> Result<ArchiveReport> {
    let watch = Stopwatch::start();
    let (mut run, lane) = Run::begin(context, &request.target, request.dry_run, task)?;
    match &lane {
        Some(lane) => run.settled(lane, task, |run| run.rounds(task))?,
        None => run.rehearse(task)?,
    }
    run.conclude(watch, task)
}

/// The same without a job, for shipping between the timers: takes no base, but tells whether one is needed.
pub fn ship(context: &Context, target: &TargetName, task: &Task) -> Result<bool> {
    let watch = Stopwatch::start();
    let (mut run, lane) = Run::begin(context, target, false, task)?;
    let Some(lane) = &lane else { return Ok(false) };
    let all = run.target.repositories.clone();
    let base_needed = run.settled(lane, task, |run| run.whole_round(&all, task))?;
    let broken = run.broken(task)?;
    run.conclude(watch, task)?;
    Ok(!base_needed.is_empty() || !broken.is_empty())
}

fn not_available(target: &Target) -> Error {
    let text = format!("the log of {} cannot be archived: {}", target.name, target.driver.why_no_log());
    Error::new(Code::NotAvailable, text)
        .with_hint(format!("`neo4j-backupctl backup {}` takes a full backup", target.name))
}

impl<'a> Run<'a> {
    /// Takes the lane, which only a dry run does without, and examines the source.
    fn begin(context: &'a Context, name: &TargetName, dry_run: bool, task: &Task) -> Result<(Self, Option<FileLock>)> {
        let target = context.target(name)?;
        let log = target.driver.log().ok_or_else(|| not_available(target))?;
        if !dry_run {
            // Before the repositories are asked: while one is away, the server must not prune what it lacks.
            log.hold();
        }
        let lane = match dry_run {
            true => None,
            false => Some(context.lane(&target.name, Lane::Log)?),
        };
        task.phase("preflight", 0);
        let source =
            target.driver.inspect(task).map_err(|error| error.context(format!("examining {}", target.name)))?;
        let report = ArchiveReport::blank(&target.name, dry_run);
        Ok((Run { context, target, log, source, report, failures: Vec::new(), left: Vec::new() }, lane))
    }
}

impl Run<'_> {
    /// Does `work` between looks at what an earlier run left and what this one leaves.
    fn settled<T>(&mut self, lane: &FileLock, task: &Task, work: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        let state_space = Need { required: 0, minimum_free_percent: self.target.minimum_free_percent };
        preflight::check_path(&self.context.state_directory, state_space)?;
        leftover::settle(self.context, self.target, lane, task);
        let worked = self.have_current_finished(task).and_then(|()| work(self));
        // At once, so that a repository that failed does not keep half a batch until the next run.
        leftover::settle(self.context, self.target, lane, &task.shielded());
        worked
    }

    /// What the server keeps to itself fails the run, but not before the rest is archived. Where it keeps it because the
    /// place is full in which its log waits, archiving is what makes room.
    fn have_current_finished(&mut self, task: &Task) -> Result<()> {
        let all = self.target.repositories.clone();
        for _ in 0..ROOM_ROUNDS_MAX {
            let (context, target) = (self.context, self.target);
            let mut hand_over = |name: &str, piece: &mut File| hand_over::fetched(context, target, name, piece);
            match self.log.finish_current(&mut hand_over, task) {
                Ok(()) => return Ok(()),
                Err(error) if error.code() == Code::NotAvailable => return Err(error),
                Err(error) if error.code() == Code::SpoolFull => {
                    let moved = |run: &Self| run.report.repositories.iter().map(|done| done.batches).sum::<u64>();
                    let before = moved(self);
                    let need_base = self.whole_round(&all, task)?;
                    if !self.failures.is_empty() || !need_base.is_empty() || moved(self) == before {
                        self.failures.push(error);
                        return Ok(());
                    }
                }
                Err(error) => {
                    task.check()?;
                    self.failures.push(error);
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Archives where the chain goes on, takes a base where it needs one, and archives there.
    fn rounds(&mut self, task: &Task) -> Result<()> {
        let all = self.target.repositories.clone();
        let mut need_base = self.whole_round(&all, task)?;
        need_base.extend(self.broken(task)?);
        if need_base.is_empty() {
            return Ok(());
        }
        // A chain follows one base: one that some repositories lack would end theirs.
        let need_base = if self.log.in_chains() { all } else { need_base };
        if let Err(error) = self.take_base(&need_base, task) {
            task.check()?;
            self.failures.push(error);
            return Ok(());
        }
        if self.log.in_chains() {
            // What was committed since is for the next run: it has the server's tool make a file of its own.
            return Ok(());
        }
        let still = self.whole_round(&need_base, task)?;
        for name in still {
            let text = format!(
                "repository {name}: the full backup of {} names no point from which the log could go on",
                self.target.name
            );
            self.failures.push(Error::new(Code::LogGap, text).with_hint(
                "what was archived is newer than this by its date: the database was exchanged meanwhile, or the clock was ahead and is \
                 right now. Run it again; each run takes a full backup until the clock has passed that date",
            ));
        }
        Ok(())
    }

    /// A round, and another one where the source has left the history that was archived to its end: what it has gone on
    /// with is compared next.
    fn whole_round(&mut self, names: &[String], task: &Task) -> Result<Vec<String>> {
        self.left.clear();
        let mut need_base = self.round(names, task)?;
        let left = std::mem::take(&mut self.left);
        if !left.is_empty() {
            need_base.extend(self.round(&left, task)?);
        }
        Ok(need_base)
    }

    /// One round over repositories; returns those that need a base first.
    fn round(&mut self, names: &[String], task: &Task) -> Result<Vec<String>> {
        let branches = self.open(names, task);
        let compared = comparison::compare_all(self.context, self.target, self.log, &self.source, branches, task)?;
        let mut groups: Vec<Group> = Vec::new();
        let mut need_base = Vec::new();
        for Compared { branch, chain, lost, resume } in compared {
            let name = branch.repository.name().to_owned();
            if let Some(error) = branch.take_failure() {
                self.failures.push(error);
                continue;
            }
            if let Some(lost) = &lost {
                self.lost(&name, lost, resume.is_some(), task)?;
            }
            match (chain, resume) {
                (Chain::Whole(lineage), Some((point, reader))) => {
                    let owner = branch.repository.owner(&self.context.environment, &self.target.name)?;
                    let epoch = owner.map_or(1, |record| record.owner.epoch);
                    let chained = Chained::at(&point, self.target.driver.engine(), &name, lineage, epoch);
                    let same = |group: &&mut Group| group.lineage == lineage && group.mark.same_point(&point.mark);
                    match groups.iter_mut().find(same) {
                        Some(group) => {
                            group.branches.push(branch);
                            group.chains.push(chained);
                        }
                        None => groups.push(Group {
                            lineage,
                            mark: point.mark,
                            reader,
                            branches: vec![branch],
                            chains: vec![chained],
                        }),
                    }
                }
                _ => need_base.push(name),
            }
        }
        let mut marks = Vec::new();
        let everywhere =
            groups.iter().map(|group| group.branches.len()).sum::<usize>() == self.target.repositories.len();
        for mut group in groups {
            let written = batch::write_all(self.context, self.target, &self.source, &mut group, task);
            let alive = group.branches.iter().filter(|branch| branch.is_alive());
            let alive: Vec<Repository> = alive.map(|branch| branch.repository.clone()).collect();
            if group.reader.is_left() && written.is_ok() {
                self.left.extend(alive.iter().map(|repository| repository.name().to_owned()));
            }
            marks.push(group.mark.clone());
            self.failures.extend(group.branches.iter().filter_map(Branch::take_failure));
            self.report.repositories.extend(group.chains.into_iter().map(|chained| chained.done));
            if let Err(error) = written {
                task.check()?;
                // A repository's own failure stands in its branch already.
                if !self.failures.iter().any(|known| known.message() == error.message()) {
                    self.failures.push(error);
                }
                continue;
            }
            for repository in alive {
                self.tend(&repository, group.lineage, task)?;
            }
        }
        if everywhere && self.failures.is_empty() {
            self.log.durable(&marks)?;
        }
        Ok(need_base)
    }

    /// Merges small batches. What was archived counts whether that works or not.
    fn tend(&self, repository: &Repository, lineage: u32, task: &Task) -> Result<()> {
        if self.target.driver.log_inbox().is_some() || self.log.in_chains() {
            // What a server hands over are whole segments, and artifacts cannot be joined.
            return Ok(());
        }
        for _ in 0..MERGES_AT_ONCE {
            match merge::tend(self.context, self.target, &self.source, repository, lineage, task) {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) => {
                    task.check()?;
                    task.warn(format!("repository {}: merging small batches of the log: {error}", repository.name()));
                    break;
                }
            }
        }
        Ok(())
    }

    fn open(&mut self, names: &[String], task: &Task) -> Vec<Branch> {
        let mut branches = Vec::new();
        for name in names {
            let opened =
                self.context.repository_to_write(self.target, name).and_then(|repository| self.admit(repository, task));
            match opened {
                Ok(repository) => branches.push(Branch::new(repository)),
                Err(error) => self.failures.push(error.context(format!("repository {name}"))),
            }
        }
        branches
    }

    fn holdings<'b>(&'b self, repository: &'b Repository) -> Holdings<'b> {
        let stream = &self.source.data_identity;
        Holdings { context: self.context, target: self.target, repository, stream, takes_the_base: false }
    }

    fn admit(&self, repository: Repository, task: &Task) -> Result<Repository> {
        claim(self.context, self.target, &self.source, &repository)?;
        self.holdings(&repository).before_an_archive(task)?;
        if let Some(space) = repository.store().space()? {
            let need = Need { required: 0, minimum_free_percent: self.target.minimum_free_percent };
            preflight::judge(&repository.store().location(), space, need)?;
        }
        Ok(repository)
    }

    /// A piece of the log is lost: said at once, everywhere, until a base has closed the gap. On record it comes once.
    fn lost(&mut self, repository: &str, lost: &Lost, closed: bool, task: &Task) -> Result<()> {
        let name = &self.target.name;
        let what = match self.log.in_chains() {
            true => format!("the chain of differential backups of {name} ends"),
            false => format!("a piece of the log of {name} is lost"),
        };
        let text = format!("repository {repository}: {what}: {}", lost.what);
        if closed && log_records::is_announced(self.context, name, Occasion::LogGap, &text)? {
            return Ok(());
        }
        let told = format!("{text}: {}", lost.why);
        if self.report.gaps.contains(&told) {
            return Ok(());
        }
        task.warn(&told);
        if !self.report.dry_run {
            log_records::announce(self.context, name, Occasion::LogGap, &text)?;
        }
        self.report.gaps.push(told);
        Ok(())
    }

    fn take_base(&mut self, names: &[String], task: &Task) -> Result<()> {
        let kind = base_kind(self.target);
        task.info(format!(
            "taking a full backup of {}: the log needs a base in {}",
            self.target.name,
            names.join(", ")
        ));
        let request = BackupRequest {
            target: self.target.name.clone(),
            kind: Some(kind),
            note: Some("taken so that the log can be archived".to_owned()),
            dry_run: false,
        };
        for name in names {
            // A repository that fails here fails the base, which says so.
            if let Ok(repository) = self.context.repository(self.target, name) {
                self.holdings(&repository).before_a_base_with_lane(task)?;
            }
        }
        match backup::run_into(self.context, &request, names, task) {
            Ok(report) => {
                self.report.warnings.extend(report.warnings);
                self.report.bases.push(report.id);
                Ok(())
            }
            // Where it is complete, the log can go on.
            Err(error) if error.code() == Code::BackupPartial => {
                self.failures.push(error);
                Ok(())
            }
            Err(error) => Err(error.context("taking the base that the log needs")),
        }
    }

    /// Says what would be done.
    fn rehearse(&mut self, task: &Task) -> Result<()> {
        let mut branches = Vec::new();
        for name in &self.target.repositories {
            match self.context.repository(self.target, name) {
                Ok(repository) => branches.push(Branch::new(repository)),
                Err(error) => self.report.warnings.push(format!("repository {name}: {}", error.message())),
            }
        }
        let compared = comparison::compare_all(self.context, self.target, self.log, &self.source, branches, task)?;
        for Compared { branch, chain, lost, resume } in compared {
            let name = branch.repository.name().to_owned();
            if let Some(error) = branch.take_failure() {
                self.failures.push(error);
                continue;
            }
            if let Some(lost) = &lost {
                self.lost(&name, lost, resume.is_some(), task)?;
            }
            self.report.steps.push(match (chain, &resume) {
                (Chain::Whole(lineage), Some((point, _))) => {
                    let after = log_point::named(self.target.driver.engine(), point.mark.transaction);
                    format!("{name}: archive what follows {after}, in lineage {lineage}")
                }
                (Chain::Opened(lineage), _) => format!("{name}: take a full backup, which begins lineage {lineage}"),
                _ => format!("{name}: take a full backup, from which the log goes on"),
            });
        }
        Ok(())
    }

    fn conclude(mut self, watch: Stopwatch, task: &Task) -> Result<ArchiveReport> {
        self.report.repositories = merged(std::mem::take(&mut self.report.repositories));
        self.report.duration_ms = watch.elapsed().as_millis() as u64;
        if self.failures.is_empty() {
            return Ok(self.report);
        }
        let whole = |done: &&ArchivedIn| done.covered_until.is_some();
        let complete: Vec<_> =
            self.report.repositories.iter().filter(whole).map(|done| done.repository.as_str()).collect();
        if complete.is_empty() {
            let first = self.failures.remove(0);
            self.failures.iter().for_each(|error| task.warn(error.to_string()));
            return Err(first);
        }
        let text: Vec<_> = self.failures.iter().map(Error::to_string).collect();
        let complete = complete.join(", ");
        let text = format!(
            "the log of {} is archived in {complete}, but not everywhere: {}",
            self.target.name,
            text.join("; ")
        );
        // What does not pass by itself comes first.
        let lasting = self.failures.iter().find(|error| error.code().retry() == RetryClass::Never);
        let hint = match lasting {
            Some(error) => error.hint().replace("TARGET", self.target.name.as_str()),
            None => {
                "the next run catches up where a repository failed, as long as the database keeps its log".to_owned()
            }
        };
        Err(Error::new(Code::BackupPartial, text).with_hint(hint))
    }
}

/// One line for each history in each repository, however many rounds it took.
fn merged(rounds: Vec<ArchivedIn>) -> Vec<ArchivedIn> {
    let mut merged: Vec<ArchivedIn> = Vec::new();
    for round in rounds {
        let same = |known: &&mut ArchivedIn| (&known.repository, known.lineage) == (&round.repository, round.lineage);
        match merged.iter_mut().find(same) {
            Some(known) => {
                *known = ArchivedIn {
                    batches: known.batches + round.batches,
                    transactions: known.transactions + round.transactions,
                    from_transaction: known.from_transaction,
                    plain_bytes: known.plain_bytes + round.plain_bytes,
                    stored_bytes: known.stored_bytes + round.stored_bytes,
                    ..round
                };
            }
            None => merged.push(round),
        }
    }
    merged
}

/// The kind of base that is taken unasked: the configured one, unless it would stop the server.
fn base_kind(target: &Target) -> BackupKind {
    let configured = target.driver.default_kind();
    if target.driver.needs_stop(configured) { BackupKind::Base } else { configured }
}

/// The line that the log gets.
pub(crate) fn summary(report: &ArchiveReport) -> String {
    let of = |done: &ArchivedIn| {
        let (count, repository) = (done.transactions, &done.repository);
        let end = done.to_position.clone().unwrap_or_else(|| done.to_transaction.to_string());
        format!("{count} transactions up to {end} in {repository}")
    };
    let done: Vec<_> = report.repositories.iter().map(of).collect();
    let gaps = if report.gaps.is_empty() { String::new() } else { format!("; {}", report.gaps.join("; ")) };
    format!("{}: {}{gaps}", report.target, done.join(", "))
}
