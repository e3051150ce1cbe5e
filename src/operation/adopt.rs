//! `adopt`: this host and this data directory become the writer of a target's chain, whoever was before.
//!
//! The epoch in `owner.json` is raised. That says two things: the writer before is refused from now on, and a history
//! that is not the archived one is meant, so that the next base or archive begins a new lineage. A repository that is another
//! one than before, or is gone, is left alone unless that is meant as well: most often its filesystem is not mounted.

use crate::artifact::identity::{FORMAT, Owner, OwnerDocument, OwnerRecord};
use crate::base::ids::TargetName;
use crate::base::task::Task;
use crate::base::{Code, Error, Result};
use crate::operation::answer::{AdoptReport, AdoptedIn};
use crate::operation::archive::chain_end;
use crate::operation::context::{Context, Lane, Target};
use crate::repository::catalog::Repository;
use crate::repository::ownership::describe;

/// Takes over in every repository of the target. A repository that cannot be reached is an error, after the others; one that is
/// another than before, or gone, is `REPOSITORY_FOREIGN` or `REPOSITORY_NOT_FOUND` unless `new_repository`.
pub fn run(context: &Context, name: &TargetName, new_repository: bool, task: &Task) -> Result<AdoptReport> {
    let target = context.target(name)?;
    let _lanes = (context.lane(name, Lane::Base)?, context.lane(name, Lane::Log)?);
    let source = target.driver.inspect(task).map_err(|error| error.context(format!("examining {name}")))?;
    let mut report = AdoptReport { target: name.clone(), repositories: Vec::new() };
    let mut first_error: Option<Error> = None;
    for repository in &target.repositories {
        let opened = match new_repository {
            true => context.repository_that_is_meant(target, repository),
            false => context.repository_to_write(target, repository),
        };
        let adopted = opened.and_then(|repository| take_over(context, target, &repository, &source.data_identity));
        match adopted {
            Ok(adopted) => report.repositories.push(adopted),
            Err(error) => {
                task.warn(format!("repository {repository}: {error}"));
                first_error.get_or_insert(error.context(format!("adopting in repository {repository}")));
            }
        }
    }
    first_error.map_or(Ok(report), Err)
}

/// Raises the epoch in one repository.
fn take_over(context: &Context, target: &Target, repository: &Repository, identity: &str) -> Result<AdoptedIn> {
    let (before, last) = match repository.owner(&context.environment, &target.name) {
        Ok(Some(record)) => (Some(describe(&record)), record.owner.epoch),
        Ok(None) => (None, 0),
        Err(error) if is_unusable(&error) => (Some(format!("a record that cannot be used: {error}")), 0),
        Err(error) => return Err(error),
    };
    // A record that is gone may have counted further than nothing: what it wrote still says how far.
    let epoch = last.max(last_epoch(context, target, repository, identity)?.unwrap_or(0)) + 1;
    repository.take_over(&record(context, target, context.owner(identity, epoch)))?;
    Ok(AdoptedIn { repository: repository.name().to_owned(), before, epoch })
}

/// Whether an owner's record tells nothing, and never will. One of a newer release is not among these.
fn is_unusable(error: &Error) -> bool {
    matches!(error.code(), Code::SignatureInvalid | Code::BackupCorrupted | Code::WrongKey)
}

/// The writer's epoch when the chain of this data was last written to; `None` if nothing of it is there.
pub(crate) fn last_epoch(
    context: &Context,
    target: &Target,
    repository: &Repository,
    identity: &str,
) -> Result<Option<u64>> {
    Ok(chain_end::find(context, target, repository, identity)?.map(|end| end.epoch))
}

/// What is put on record when `owner` becomes the writer of a target's chain.
pub(crate) fn record(context: &Context, target: &Target, owner: Owner) -> OwnerRecord {
    let state = &context.state_directory;
    let state = state.canonicalize().unwrap_or_else(|_| state.clone());
    OwnerRecord {
        document: OwnerDocument::Owner,
        format: FORMAT,
        environment: context.environment.clone(),
        target: target.name.clone(),
        owner,
        state_directory: Some(state.display().to_string()),
        since: context.clock.now(),
    }
}

/// Refuses to change anything where another agent is the writer: `OWNER_CONFLICT`. Where none is, nothing speaks against it.
pub(crate) fn require_own(context: &Context, target: &Target, repository: &Repository) -> Result<()> {
    let Some(present) = repository.owner(&context.environment, &target.name)? else { return Ok(()) };
    let ours = record(context, target, context.owner(&present.owner.data_identity, present.owner.epoch));
    if present.is_same_agent(&ours) {
        return Ok(());
    }
    let (name, repository) = (&target.name, repository.name());
    let text =
        format!("{name} in repository {repository} is written by {}, this is {}", describe(&present), describe(&ours));
    Err(Error::new(Code::OwnerConflict, text))
}

/// After a restore in place: the data in service has another history, which this host meant. Raises the epoch where this
/// agent is the writer, so that even without the ledger the next archive knows. Never takes over from another one: a
/// test restore there must not end the chain of the server that was restored from.
pub(crate) fn after_restore(context: &Context, target: &Target, identity: &str, task: &Task) {
    for name in &target.repositories {
        let raised = context.repository(target, name).and_then(|repository| {
            match repository.owner(&context.environment, &target.name)? {
                Some(present) => {
                    let ours = record(context, target, context.owner(identity, present.owner.epoch + 1));
                    if present.is_same_agent(&ours) { repository.take_over(&ours) } else { Ok(()) }
                }
                None => Ok(()),
            }
        });
        if let Err(error) = raised {
            // The ledger has the restore on record as well.
            task.warn(format!("repository {name} was not told of the restore: {error}"));
        }
    }
}
