//! Compares what a database's log holds with where its archive ends in each repository.

use super::catch_up::Holdings;
use super::chain_end::{self, ChainEnd, ResumePoint};
use super::lineage::{self, Chain, Event, Found, Others};
use super::others;
use crate::artifact::log_batch::LogMark;
use crate::base::task::Task;
use crate::base::{Code, Error, Result};
use crate::driver::Source;
use crate::driver::log::{LogReader, LogSource, Resumption};
use crate::ledger::log::ChainName;
use crate::operation::answer::BackupState;
use crate::operation::backup::objects::{Branch, require_survivor};
use crate::operation::context::{Context, Target};
use crate::operation::log_records;
use crate::telemetry::record::Occasion;

/// Where a base stands in a repository's histories of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BasePlace {
    /// How the chain stands before the base.
    pub(crate) chain: Chain,
    /// Its lineage.
    pub(crate) lineage: u32,
    /// The last transaction that the archive of this lineage holds.
    pub(crate) archived: u64,
}

impl BasePlace {
    /// Refuses a base that ends before what is archived of its lineage: history went back, and nothing says why.
    pub(crate) fn admit(&self, mark: &LogMark) -> Result<()> {
        let taken = self.chain.next(Event::BaseTaken(self.lineage));
        taken.map_err(|illegal| Error::new(Code::Internal, illegal.to_string()))?;
        if mark.transaction >= self.archived {
            return Ok(());
        }
        let text = format!(
            "the backup ends with transaction {}, but {} is archived: the database's history went back",
            mark.transaction, self.archived
        );
        Err(Error::new(Code::LogForked, text))
    }
}

/// A piece of the log that is not archived and can no longer be.
#[derive(Clone, Debug)]
pub(super) struct Lost {
    /// Which; the same words as long as it is the same piece.
    pub(super) what: String,
    /// What the source says of it.
    pub(super) why: String,
}

/// A repository and what was found.
pub(super) struct Compared {
    /// The repository; it has failed if it cannot be archived to.
    pub(super) branch: Branch,
    /// How its chain stands.
    pub(super) chain: Chain,
    /// What is lost between its end and where the log can go on.
    pub(super) lost: Option<Lost>,
    /// Where the log goes on.
    pub(super) resume: Option<(ResumePoint, Box<dyn LogReader>)>,
}

/// What was found in one repository.
struct Look {
    found: Found,
    lost: Option<Lost>,
    resume: Option<(ResumePoint, Box<dyn LogReader>)>,
    archived: u64,
    /// Why the log could not be compared, where a base may be taken all the same.
    unread: Option<Error>,
    /// How the source differs.
    difference: Option<String>,
    /// Whether a change of history is explained.
    explained: bool,
    /// Whether another database's log was archived since.
    interrupted: bool,
}

impl Look {
    fn of(found: Found) -> Look {
        Look {
            found,
            lost: None,
            resume: None,
            archived: 0,
            unread: None,
            difference: None,
            explained: false,
            interrupted: false,
        }
    }
}

impl Look {
    /// The source has another history, and how that shows.
    fn forked(self, lineage: u32, why: String) -> Look {
        Look { found: Found::Fork { lineage, explained: self.explained }, difference: Some(why), ..self }
    }

    /// What a restore in place begins is another history, also where the source goes on exactly where this chain ends: what was
    /// committed in between and lost by it was in service once, and what comes back by a second one was not. So it is where
    /// another database was in service meanwhile: this history tells nothing of that time.
    fn begin_anew_after_an_absence(&mut self) {
        if let (Found::Continues(lineage), true) = (self.found, self.explained || self.interrupted) {
            self.found = Found::Fork { lineage, explained: true };
        }
    }

    /// A history that can still be archived to its end may have been left by the source: a base is of the next one.
    fn stand_where_the_source_is(&mut self) {
        if let Found::Left(lineage) = self.found {
            self.found = Found::Fork { lineage, explained: self.explained };
            self.difference = Some("the source has left it".to_owned());
        }
    }
}

/// Compares all branches. A history that nothing explains is announced and fails its branch with `LOG_FORKED`.
pub(super) fn compare_all(
    context: &Context,
    target: &Target,
    log: &dyn LogSource,
    source: &Source,
    branches: Vec<Branch>,
    task: &Task,
) -> Result<Vec<Compared>> {
    let mut looks = look_at_all(context, target, log, source, &branches, task)?;
    let others = others_of(context, target, log, source, &branches, &looks, task)?;
    looks.iter_mut().for_each(Look::begin_anew_after_an_absence);
    let chains = judge(&looks, others)?;
    let mut compared = Vec::new();
    for ((branch, look), chain) in branches.into_iter().zip(looks).zip(chains) {
        if let Some(error) = look.unread {
            branch.fail(error);
        }
        refuse_fork(context, target, &branch, chain, look.difference.as_deref())?;
        compared.push(Compared { branch, chain, lost: look.lost, resume: look.resume });
    }
    Ok(compared)
}

/// Decides for a base that is about to be taken which lineage it belongs to in each repository.
pub(crate) fn place_base(
    context: &Context,
    target: &Target,
    source: &Source,
    branches: &mut [Branch],
    task: &Task,
) -> Result<()> {
    let Some(log) = target.driver.log() else { return Ok(()) };
    for branch in branches.iter() {
        let stream = &source.data_identity;
        let holdings = Holdings { context, target, repository: &branch.repository, stream, takes_the_base: true };
        if let Err(error) = holdings.before_a_base(task) {
            task.check()?;
            branch.fail(error);
        }
    }
    let mut looks = look_at_all(context, target, log, source, branches, task)?;
    looks.iter_mut().for_each(Look::stand_where_the_source_is);
    let others = others_of(context, target, log, source, branches, &looks, task)?;
    looks.iter_mut().for_each(Look::begin_anew_after_an_absence);
    let chains = judge(&looks, others)?;
    for ((branch, look), chain) in branches.iter_mut().zip(looks).zip(chains) {
        if let Some(error) = &look.unread {
            // The very remedy for a log that cannot be read is a base.
            task.warn(format!("repository {}: the log was not compared: {error}", branch.repository.name()));
        }
        refuse_fork(context, target, branch, chain, look.difference.as_deref())?;
        branch.place = match chain {
            Chain::Whole(lineage) | Chain::Torn(lineage) => Some(BasePlace { chain, lineage, archived: look.archived }),
            Chain::Opened(lineage) => Some(BasePlace { chain, lineage, archived: 0 }),
            Chain::Absent | Chain::Forked(_) => None,
        };
    }
    require_survivor(branches)
}

/// What is on record of the other repositories. Where nothing is archived anywhere, but a restore in place was made before, there
/// were histories once whose numbers nobody knows any more.
fn others_of(
    context: &Context,
    target: &Target,
    log: &dyn LogSource,
    source: &Source,
    branches: &[Branch],
    looks: &[Look],
    task: &Task,
) -> Result<Others> {
    let mut others = others::on_record(context, target, log, source, branches, task)?;
    let forgotten = others.highest == 0 && looks.iter().all(|look| look.found == Found::Nothing);
    if forgotten && context.ledger.last_restore_in_place(&target.name)?.is_some() {
        others.unsure_at = Some(others::number_of_now(context));
    }
    Ok(others)
}

fn judge(looks: &[Look], others: Others) -> Result<Vec<Chain>> {
    let found: Vec<Found> = looks.iter().map(|look| look.found).collect();
    lineage::judge(&found, others).map_err(|illegal| Error::new(Code::Internal, illegal.to_string()))
}

fn refuse_fork(
    context: &Context,
    target: &Target,
    branch: &Branch,
    chain: Chain,
    difference: Option<&str>,
) -> Result<()> {
    let Chain::Forked(lineage) = chain else { return Ok(()) };
    let text = format!(
        "the history of {} is not the one that is archived as lineage {lineage} in repository {}, and no restore of this \
         agent is on record since: {}",
        target.name,
        branch.repository.name(),
        difference.unwrap_or("it differs")
    );
    log_records::announce(context, &target.name, Occasion::LogForked, &text)?;
    let hint =
        format!("if that is meant: `neo4j-backupctl adopt {}`; the next run then begins a new lineage", target.name);
    branch.fail(Error::new(Code::LogForked, text).with_hint(hint));
    Ok(())
}

fn look_at_all(
    context: &Context,
    target: &Target,
    log: &dyn LogSource,
    source: &Source,
    branches: &[Branch],
    task: &Task,
) -> Result<Vec<Look>> {
    let mut looks = Vec::new();
    for branch in branches {
        task.check()?;
        let end = chain_end::find(context, target, &branch.repository, &source.data_identity);
        looks.push(match end {
            Ok(Some(end)) => {
                let look = look(context, target, log, source, branch, &end, task)?;
                let log = (branch.repository.name(), source.data_identity.as_str());
                Look { interrupted: log_records::another_since(context, &target.name, log, end.since)?, ..look }
            }
            Ok(None) => Look::of(Found::Nothing),
            Err(error) => {
                branch.fail(error);
                Look::of(Found::Nothing)
            }
        });
    }
    Ok(looks)
}

fn look(
    context: &Context,
    target: &Target,
    log: &dyn LogSource,
    source: &Source,
    branch: &Branch,
    end: &ChainEnd,
    task: &Task,
) -> Result<Look> {
    let lineage = end.lineage;
    let (repository, stream) = (branch.repository.name().to_owned(), source.data_identity.clone());
    let adopted = match branch.repository.owner(&context.environment, &target.name) {
        Ok(owner) => owner.is_some_and(|record| record.owner.epoch > end.epoch),
        Err(_) => false,
    };
    let explained = adopted
        || log_records::restored_since(context, &target.name, &ChainName { repository, stream, lineage }, end.since)?;
    let mut look = Look { archived: end.last_transaction(), explained, ..Look::of(Found::Gap(lineage)) };
    if let Some(why) = end.contradiction() {
        return Ok(look.forked(lineage, why));
    }
    let mut lost = unopened(context, branch, end)?;
    let mut points = end.points();
    if log.in_chains() && points.len() > 1 {
        // A base after the last piece begins a chain of its own, and nothing was to be archived between the two.
        points.drain(..points.len() - 1);
        lost = None;
    }
    let newest = points.last().map(|point| point.mark.clone());
    for point in points {
        match log.resume(&point.mark, task) {
            Ok(Resumption::Continues(reader)) => {
                if let Some(why) = woven(log, &point.mark, newest.as_ref(), task)? {
                    return Ok(look.forked(lineage, why));
                }
                // Without a base of this lineage nothing could be restored from its log.
                if end.base.is_some() {
                    look.found = if reader.is_left() { Found::Left(lineage) } else { Found::Continues(lineage) };
                    look.resume = Some((point, reader));
                }
                look.lost = lost;
                return Ok(look);
            }
            Ok(Resumption::Forked(why)) => {
                return Ok(look.forked(lineage, format!("after transaction {}: {why}", point.mark.transaction)));
            }
            // Where nothing was archived yet, nothing that was archived goes on behind an earlier base.
            Ok(Resumption::Gap(_)) if end.batch.is_none() && newest.as_ref() != Some(&point.mark) => {}
            Ok(Resumption::Gap(why)) => {
                lost.get_or_insert(Lost {
                    what: format!("what follows transaction {} is no longer there", point.mark.transaction),
                    why,
                });
            }
            Err(error) if is_about_the_log(error.code()) => {
                look.found = Found::Continues(lineage);
                look.unread = Some(error);
                return Ok(look);
            }
            Err(error) => return Err(error.context(format!("reading the log of {}", target.name))),
        }
    }
    if explained {
        // Whether the lost piece hid a fork cannot be seen any more; what is on record says that there was one.
        look.found = Found::Fork { lineage, explained };
        return Ok(look);
    }
    look.lost = lost;
    Ok(look)
}

/// The first batch that cannot be opened; all of them are on record as damaged from now on, so that `status` promises nothing
/// of them.
fn unopened(context: &Context, branch: &Branch, end: &ChainEnd) -> Result<Option<Lost>> {
    for (_, key) in &end.damaged {
        log_records::mark(context, branch.repository.name(), key.as_str(), BackupState::Corrupted)?;
    }
    Ok(end.damaged.first().map(|(_, key)| Lost {
        what: format!("the manifest {key} cannot be opened"),
        why: "`verify --all` says why".to_owned(),
    }))
}

/// Why the source is of another history than a base beyond the point where the log goes on, if it is: the two must not
/// be woven into one.
fn woven(log: &dyn LogSource, point: &LogMark, newest: Option<&LogMark>, task: &Task) -> Result<Option<String>> {
    let Some(base) = newest.filter(|newest| !newest.same_point(point)) else { return Ok(None) };
    match log.resume(base, task) {
        Ok(Resumption::Forked(why)) => Ok(Some(format!("after the base that ends with {}: {why}", base.transaction))),
        Ok(_) => Ok(None),
        Err(error) if is_about_the_log(error.code()) => Ok(None),
        Err(error) => Err(error.context("comparing the newest base")),
    }
}

/// Whether an error says that the log itself cannot be read.
fn is_about_the_log(code: Code) -> bool {
    matches!(code, Code::LogCorrupted | Code::Neo4jUnsupported | Code::PostgresUnsupported | Code::FormatUnsupported)
}
