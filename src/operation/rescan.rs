//! `rescan`: rebuilds the ledger's list of backups from the repositories, which are the truth.

use crate::artifact::log_batch::SignedLogBatch;
use crate::artifact::manifest::SignedManifest;
use crate::artifact::object_key::MANIFEST_SUFFIX;
use crate::base::task::Task;
use crate::base::{Code, Result};
use crate::operation::answer::{Problem, RescanReport};
use crate::operation::context::{Context, Target};
use crate::operation::{log_records, records, verify};
use crate::repository::catalog::Repository;
use std::collections::BTreeMap;

/// Reads every manifest of every configured repository. A repository that cannot be read changes nothing of what the
/// ledger knows of it.
pub fn run(context: &Context, task: &Task) -> Result<RescanReport> {
    let mut report = RescanReport { found: 0, added: 0, missing: 0, problems: Vec::new(), batches: 0 };
    let (mut first_error, mut any_readable) = (None, false);
    for (name, targets) in by_repository(context) {
        task.phase(&format!("reading the manifests of {name}"), 0);
        let mut found: Vec<SignedManifest> = Vec::new();
        let mut readable = true;
        let mut unused = BTreeMap::new();
        let mut logs = Vec::new();
        for target in targets {
            let repository = match context.repository(target, name) {
                Ok(repository) => repository,
                Err(error) if error.code() == Code::RepositoryNotFound && records::is_empty(context)? => {
                    task.info(format!("repository {name} does not exist yet"));
                    readable = false;
                    continue;
                }
                Err(error) => {
                    readable = false;
                    let error = error.context(format!("repository {name}"));
                    let told = problem("repository.json", &error);
                    if !report.problems.contains(&told) {
                        report.problems.push(told);
                    }
                    first_error.get_or_insert(error);
                    continue;
                }
            };
            for stem in verify::stems_without_manifest(context, target, &repository)? {
                task.warn(format!(
                    "repository {name} holds objects of {stem} and no manifest of it: `verify --all` names them"
                ));
            }
            logs.push((target, read_log(context, target, &repository, &mut report.problems, task)?));
            for info in repository.manifest_keys(None)? {
                task.check()?;
                match repository.manifest(&info.key) {
                    Ok(signed) => {
                        if signed.manifest.id.target == target.name {
                            found.push(signed);
                        }
                        unused.insert(info.key.to_string(), None);
                    }
                    // Another target's key may open it.
                    Err(error) => {
                        unused.entry(info.key.to_string()).or_insert(Some(problem(info.key.as_str(), &error)));
                    }
                }
            }
        }
        report.problems.extend(unused.into_values().flatten());
        any_readable |= readable;
        if readable {
            let (added, missing) = records::replace_repository(context, name, &found)?;
            report.found += found.len() as u64;
            report.added += added;
            report.missing += missing;
            enter_logs(context, name, logs, &mut report)?;
        }
    }
    match first_error {
        // Nothing was done at all: that is a failure, not a report.
        Some(error) if !any_readable => Err(error),
        _ => Ok(report),
    }
}

fn by_repository(context: &Context) -> BTreeMap<&str, Vec<&Target>> {
    let mut found: BTreeMap<&str, Vec<&Target>> = BTreeMap::new();
    for target in context.targets.values() {
        for name in &target.repositories {
            found.entry(name).or_default().push(target);
        }
    }
    found
}

/// Makes the ledger agree with what was found of logs in a repository.
fn enter_logs(
    context: &Context,
    repository: &str,
    logs: Vec<(&Target, Vec<SignedLogBatch>)>,
    report: &mut RescanReport,
) -> Result<()> {
    for (target, batches) in logs {
        let (added, missing) = log_records::replace_repository(context, repository, &target.name, &batches)?;
        report.batches += batches.len() as u64;
        report.added += added;
        report.missing += missing;
    }
    Ok(())
}

/// Every batch of a target's log whose manifest can be used; the others become problems.
pub(crate) fn read_log(
    context: &Context,
    target: &Target,
    repository: &Repository,
    problems: &mut Vec<Problem>,
    task: &Task,
) -> Result<Vec<SignedLogBatch>> {
    let mut found = Vec::new();
    let objects = repository.batch_objects(&context.environment, &target.name)?;
    for key in objects.into_keys().filter(|key| key.as_str().ends_with(MANIFEST_SUFFIX)) {
        task.check()?;
        match repository.batch(&key) {
            Ok(signed) => found.push(signed),
            Err(error) => problems.push(problem(key.as_str(), &error)),
        }
    }
    Ok(found)
}

fn problem(object: &str, error: &crate::base::Error) -> Problem {
    Problem { object: object.to_owned(), code: error.code().name().to_owned(), text: error.message().to_owned() }
}
