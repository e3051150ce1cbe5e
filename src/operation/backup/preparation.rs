//! Before a backup: owner, room, leftovers, an id of its own.

use super::objects::Branch;
use crate::base::ids::{BackupId, BackupKind, Stamp};
use crate::base::lock::FileLock;
use crate::base::task::Task;
use crate::base::{Code, Error, Result, bytes};
use crate::driver::Source;
use crate::operation::answer::BackupReport;
use crate::operation::context::{Context, Target};
use crate::operation::preflight::{self, Need};
use crate::operation::{adopt, archive, records, unfinished};
use crate::repository::catalog::Repository;

/// A backup that may begin.
pub(super) struct Prepared {
    /// The repositories that take part.
    pub(super) branches: Vec<Branch>,
    /// Why others do not; the backup then ends as partial.
    pub(super) left_out: Vec<Error>,
    /// Its id.
    pub(super) id: BackupId,
}

/// Opens the repositories, checks owner and room in each, removes what an earlier run left, and finds a free id.
/// A repository that cannot take part is left out with its reason; none left is an error.
pub(super) fn prepare(
    context: &Context,
    target: &Target,
    source: &Source,
    kind: BackupKind,
    repositories: &[String],
    lane: &FileLock,
    task: &Task,
) -> Result<Prepared> {
    preflight::check_path(
        &context.state_directory,
        Need { required: 0, minimum_free_percent: target.minimum_free_percent },
    )?;
    let mut branches = Vec::new();
    let mut left_out = Vec::new();
    for name in repositories {
        match context
            .repository_to_write(target, name)
            .and_then(|repository| admit(context, target, source, repository, task))
        {
            Ok(repository) => branches.push(Branch::new(repository)),
            Err(error) => {
                task.warn(format!("repository {name}: {error}"));
                left_out.push(error.context(format!("repository {name}")));
            }
        }
    }
    if branches.is_empty() {
        let none = || Error::new(Code::ConfigInvalid, format!("no repository is configured for {}", target.name));
        return Err(left_out.into_iter().next().unwrap_or_else(none));
    }
    unfinished::settle(context, target, lane, task);
    archive::place_base(context, target, source, &mut branches, task)?;
    let id = free_id(context, target, kind, &branches)?;
    for branch in &branches {
        unfinished::begin(context, &id, branch.repository.name())?;
    }
    Ok(Prepared { branches, left_out, id })
}

/// A repository inside the data would be copied into itself, and a restore in place would set it aside.
fn outside_of_the_data(target: &Target, repository: &Repository, task: &Task) -> Result<()> {
    let location = repository.store().location();
    let Ok(place) = std::fs::canonicalize(&location) else { return Ok(()) };
    // A driver that cannot say where its data is says why when it reads it.
    for path in target.driver.live_paths(task).unwrap_or_default() {
        if std::fs::canonicalize(&path.live).is_ok_and(|live| place.starts_with(live)) {
            let text = format!("it lies inside the data of {} ({} in {})", target.name, location, path.live.display());
            return Err(Error::new(Code::ConfigInvalid, text)
                .with_hint("give the repository a directory outside of the data, best on a filesystem of its own"));
        }
    }
    Ok(())
}

fn admit(
    context: &Context,
    target: &Target,
    source: &Source,
    repository: Repository,
    task: &Task,
) -> Result<Repository> {
    outside_of_the_data(target, &repository, task)?;
    claim(context, target, source, &repository)?;
    if let Some(space) = repository.store().space()? {
        let last = records::last_sizes(context, &target.name)?;
        let required = preflight::expected_stored(source.estimated_bytes, last);
        let need = Need { required, minimum_free_percent: target.minimum_free_percent };
        preflight::judge(&repository.store().location(), space, need)?;
    }
    Ok(repository)
}

/// Makes sure that this host's data is the chain's writer: the first becomes it, another one is `OWNER_CONFLICT`.
pub(crate) fn claim(context: &Context, target: &Target, source: &Source, repository: &Repository) -> Result<()> {
    let current = repository.owner(&context.environment, &target.name)?;
    let epoch = match &current {
        Some(record) => record.owner.epoch,
        // The record may be gone, and what was written under it there.
        None => adopt::last_epoch(context, target, repository, &source.data_identity)?.unwrap_or(1),
    };
    let owner = context.owner(&source.data_identity, epoch);
    repository.claim(&adopt::record(context, target, owner))
}

/// The current second, or the next one of which no backup of this target has any object: one whose manifest was lost
/// still has its name.
fn free_id(context: &Context, target: &Target, kind: BackupKind, branches: &[Branch]) -> Result<BackupId> {
    let mut id = BackupId { target: target.name.clone(), stamp: Stamp::new(context.clock.now()), kind };
    loop {
        let key = crate::artifact::object_key::backup_manifest(&context.environment, &id)?;
        let stem = key.as_str().trim_end_matches("meta.json");
        let mut taken = false;
        for branch in branches {
            branch.repository.store().list(stem, &mut |_| {
                taken = true;
                Ok(())
            })?;
        }
        if !taken {
            return Ok(id);
        }
        id.stamp = id.stamp.next();
    }
}

/// A dry run: everything that does not write. It needs no passphrase and no repository that exists (A7, A10).
pub(super) fn rehearse(
    context: &Context,
    target: &Target,
    source: &Source,
    kind: BackupKind,
    of_a_copy: bool,
) -> Result<BackupReport> {
    let last = records::last_sizes(context, &target.name)?;
    let required = preflight::expected_stored(source.estimated_bytes, last);
    let need = Need { required, minimum_free_percent: target.minimum_free_percent };
    let mut warnings = Vec::new();
    for name in &target.repositories {
        let store = context.repositories.get(name).map(|place| (place.open)(false));
        match store {
            Some(Ok(store)) => {
                if let Some(space) = store.space()? {
                    preflight::judge(&store.location(), space, need)?;
                }
            }
            Some(Err(error)) => warnings.push(format!("repository {name} is not there yet: {}", error.message())),
            None => warnings.push(format!("repository {name} is not configured")),
        }
    }
    let id = BackupId { target: target.name.clone(), stamp: Stamp::new(context.clock.now()), kind };
    let method = super::method_of(&id, target.driver.engine().as_str());
    let mut steps = vec![
        format!("read about {} with {method}", bytes::human(source.estimated_bytes)),
        format!("store about {} in each of {}", bytes::human(required), target.repositories.join(", ")),
        "read back what was stored, then write the manifest".to_owned(),
    ];
    if of_a_copy {
        let text = "archive what was committed since, restore all of it into a private copy, recover and check that, and dump it; \
                    the server is left alone";
        steps.insert(0, text.to_owned());
    } else if target.driver.needs_stop(kind) {
        steps.insert(0, "stop the server while it is read, and start it again".to_owned());
    }
    Ok(BackupReport {
        method,
        id,
        dry_run: true,
        repositories: target.repositories.clone(),
        server_version: source.server.version.clone(),
        plain_bytes: source.estimated_bytes,
        stored_bytes: required,
        sha256: String::new(),
        counts: Vec::new(),
        counts_exact: false,
        duration_ms: 0,
        downtime_ms: 0,
        warnings,
        steps,
    })
}
