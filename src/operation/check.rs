//! `check`: one doctor for the agent, its repositories and its targets. Each finding carries the literal command that
//! mends it.

use crate::base::ids::TargetName;
use crate::base::task::{Severity, Task};
use crate::base::{Code, Error, Result};
use crate::driver::Finding;
use crate::host::Service;
use crate::ledger::log::ChainName;
use crate::ledger::log::bases::BaseRecord;
use crate::ledger::log::order::{self, When};
use crate::operation::answer::{BackupState, JobRecord, TargetFinding, TargetStatus};
use crate::operation::context::{Context, KeyFile, Target};
use crate::operation::log_reach::{self, Standing};
use crate::operation::{records, schedule, status};
use crate::repository::catalog::Repository;
use std::collections::BTreeMap;

/// No fresh backup for this long is a finding, whatever the schedule says.
const STALE_AFTER_S: i64 = 26 * 3600;
/// A passphrase that has been in use for this long is a finding.
const ROTATE_AFTER_DAYS: i64 = 90;

/// Examines everything, or one target. Worst findings first.
pub fn run(context: &Context, only: Option<&TargetName>, task: &Task) -> Result<Vec<TargetFinding>> {
    let mut findings = Vec::new();
    if only.is_none() {
        own(context, &mut findings);
    }
    let targets: Vec<&Target> = match only {
        Some(name) => vec![context.target(name)?],
        None => context.targets.values().collect(),
    };
    let mut denied: BTreeMap<&str, bool> = BTreeMap::new();
    for target in targets {
        task.check()?;
        let mut add = |finding| findings.push(TargetFinding { target: Some(target.name.clone()), finding });
        target.driver.doctor(task).into_iter().for_each(&mut add);
        if target.service == Service::Unmanaged {
            add(Finding {
                code: "service-unmanaged".to_owned(),
                severity: Severity::Warning,
                text: "the configuration does not say how the server is stopped and started".to_owned(),
                fix: format!("set `unit` in [target.{}]", target.name),
            });
        }
        match target.keyring.get() {
            Ok(_) => key_age(context, target, &mut add),
            Err(error) => add(of_error("passphrase", &error)),
        }
        for name in &target.repositories {
            let denied = *denied.entry(name).or_insert_with(|| lacks_rights(context, name, &mut add));
            repository(context, target, (name, denied), &mut add);
        }
        freshness(context, target, task, &mut add)?;
    }
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.finding.severity));
    Ok(findings)
}

fn own(context: &Context, findings: &mut Vec<TargetFinding>) {
    if context.targets.is_empty() {
        findings.push(TargetFinding {
            target: None,
            finding: Finding {
                code: "no-targets".to_owned(),
                severity: Severity::Error,
                text: "no database is configured".to_owned(),
                fix: "neo4j-backupctl config template".to_owned(),
            },
        });
    }
    if let Err(error) = records::integrity(context) {
        findings.push(TargetFinding { target: None, finding: of_error("ledger", &error) });
    }
}

fn of_error(code: &str, error: &Error) -> Finding {
    Finding {
        code: code.to_owned(),
        severity: Severity::Error,
        text: error.message().to_owned(),
        fix: error.hint().to_owned(),
    }
}

/// Whether the passphrase is due for rotation. A credential's file tells nothing of its age.
fn key_age(context: &Context, target: &Target, add: &mut dyn FnMut(Finding)) {
    let KeyFile::File(path) = &target.key_file else { return };
    let Ok(written) = std::fs::metadata(path).and_then(|metadata| metadata.modified()) else { return };
    let Ok(written) = jiff::Timestamp::try_from(written) else { return };
    let days = context.clock.now().duration_since(written).as_hours() / 24;
    if days > ROTATE_AFTER_DAYS {
        add(Finding {
            code: "key-age".to_owned(),
            severity: Severity::Warning,
            text: format!("the passphrase in {} is {days} days old, more than {ROTATE_AFTER_DAYS}", path.display()),
            fix: "neo4j-backupctl key rotate".to_owned(),
        });
    }
}

/// What lies beside the backups: the instructions for the day when nothing of ours is left, and older passphrases.
fn beside_the_backups(target: &Target, repository: &Repository, add: &mut dyn FnMut(Finding)) {
    match repository.outdated_instructions() {
        Ok(names) if names.is_empty() => {}
        Ok(names) => add(Finding {
            code: "instructions".to_owned(),
            severity: Severity::Warning,
            text: format!(
                "repository {}: {} missing or not as this release writes; the next backup puts that right",
                repository.name(),
                names.join(" and ")
            ),
            fix: format!("neo4j-backupctl backup {}", target.name),
        }),
        Err(error) => add(of_error("instructions", &error.context(format!("repository {}", repository.name())))),
    }
    match repository.locked_keys() {
        Ok(ids) if ids.is_empty() => {}
        Ok(ids) => add(Finding {
            code: "key-locked".to_owned(),
            severity: Severity::Error,
            text: format!(
                "repository {} keeps passphrases that no key at hand opens: {}",
                repository.name(),
                ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
            ),
            fix: "name the files with these passphrases in `older_passphrase_files` of `[encryption]`".to_owned(),
        }),
        Err(error) => add(of_error("keys", &error.context(format!("repository {}", repository.name())))),
    }
}

/// Whether something is not allowed in a repository, each of which is a finding. What else goes wrong shows when it is opened.
fn lacks_rights(context: &Context, name: &str, add: &mut dyn FnMut(Finding)) -> bool {
    let refusals = context.missing_rights(name);
    let denied = !refusals.is_empty();
    for refusal in refusals {
        add(of_error("repository-rights", &refusal.context(format!("repository {name}"))));
    }
    denied
}

/// A repository, and whether it is told already that something is not allowed there.
fn repository(context: &Context, target: &Target, (name, denied): (&str, bool), add: &mut dyn FnMut(Finding)) {
    match context.repository(target, name) {
        Ok(repository) => {
            if let Err(error) = repository.owner(&context.environment, &target.name) {
                add(of_error("owner", &error.context(format!("repository {name}"))));
            }
            beside_the_backups(target, &repository, add);
            if let Ok(Some(space)) = repository.store().space()
                && space.available_percent() < f64::from(target.minimum_free_percent)
            {
                add(Finding {
                    code: "repository-space".to_owned(),
                    severity: Severity::Error,
                    text: format!(
                        "{}: only {:.1} % are free",
                        repository.store().location(),
                        space.available_percent()
                    ),
                    fix: "neo4j-backupctl cleanup --dry-run".to_owned(),
                });
            }
        }
        // With a hint of its own it is no repository that the first backup would make.
        Err(error) if error.code() == Code::RepositoryNotFound && error.hint() == error.code().hint() => add(Finding {
            code: "repository-absent".to_owned(),
            severity: Severity::Warning,
            text: format!("repository {name}: {}", error.message()),
            fix: format!("neo4j-backupctl backup {}", target.name),
        }),
        Err(error) if denied && error.code() == Code::StorageDenied => {}
        Err(error) => add(of_error("repository", &error.context(format!("repository {name}")))),
    }
}

/// Whether a failed run says anything of the database or its backups: a request that was refused or cancelled does not.
fn tells_of_trouble(failure: &JobRecord) -> bool {
    let quiet = [Code::NotAvailable, Code::Busy, Code::Cancelled, Code::Usage, Code::NotConfirmed, Code::NotAuthorised];
    !failure.error_code.as_deref().and_then(Code::from_name).is_some_and(|code| quiet.contains(&code))
}

fn hint_of(code: &str, target: &Target) -> String {
    match Code::from_name(code) {
        Some(Code::LogForked) => format!("neo4j-backupctl adopt {}", target.name),
        Some(code) => code.hint().to_owned(),
        None => format!("neo4j-backupctl backup {}", target.name),
    }
}

/// A hole in the way to the newest state is an alarm. One before the newest range took moments that no new backup brings
/// back: that is said as long as something of them is stored, and is no alarm.
fn damaged_log(standing: &Standing, target: &Target) -> Option<Finding> {
    let repository = &standing.end.chain.repository;
    let count = standing.unsound;
    let which = match count {
        1 => format!("1 batch of the log in {repository} is damaged or missing"),
        _ => format!("{count} batches of the log in {repository} are damaged or missing"),
    };
    match standing.newest() {
        _ if count == 0 => None,
        Some(newest) if standing.is_whole() => Some(Finding {
            code: "damaged-log-before".to_owned(),
            severity: Severity::Warning,
            text: format!(
                "{which}: moments before {} cannot all be restored; what was archived since can",
                newest.range.from
            ),
            fix: "neo4j-backupctl verify --all".to_owned(),
        }),
        reached => Some(Finding {
            code: "damaged-log".to_owned(),
            severity: Severity::Error,
            text: match reached {
                Some(newest) => {
                    format!("{which}: the log breaks off after transaction {}", newest.range.to_transaction)
                }
                None => format!("{which}, and no base of the history in service is usable"),
            },
            fix: format!("neo4j-backupctl backup {}", target.name),
        }),
    }
}

fn suspects(context: &Context, target: &Target, add: &mut dyn FnMut(Finding)) -> Result<()> {
    for row in records::rows(context, Some(&target.name))?.iter().filter(|row| row.suspect) {
        add(Finding {
            code: "suspect-backup".to_owned(),
            severity: Severity::Error,
            text: format!("{} was taken of damaged files; cleanup deletes nothing while it is there", row.id),
            fix: format!("neo4j-backupctl show {}", row.id),
        });
    }
    Ok(())
}

/// A restore in place has left the end of the archived log behind, and nothing was archived since: what is in service cannot
/// be restored.
fn unarchived_restore(context: &Context, target: &Target, add: &mut dyn FnMut(Finding)) -> Result<()> {
    let Some((when, restore)) = records::last_in_place(context, &target.name)? else { return Ok(()) };
    let (at, Some(reached)) = (when.at, restore.reached) else { return Ok(()) };
    let ends = context.ledger.log_ends(&target.name)?;
    let bases = context.ledger.log_bases(&target.name)?;
    let of_ends = ends.iter().map(|end| (end.when(), (&end.chain, end.transaction)));
    let finished = |base: &BaseRecord| When { at: base.finished_at, ..base.when() };
    let of_bases = bases.iter().map(|base| (finished(base), (&base.chain, base.mark.transaction)));
    let known: Vec<_> = of_ends.chain(of_bases).collect();
    let state = (reached.lineage, reached.transaction.unwrap_or(u64::MAX));
    let since = known.iter().any(|(taken, _)| taken.is_after(&when));
    // What is archived of other data, which the restore took out of service, is not what it led to either.
    let beyond = |(chain, end): (&ChainName, u64)| chain.stream != reached.stream || (chain.lineage, end) > state;
    let of_stream = known.iter().map(|(_, known)| *known).filter(|(chain, _)| chain.stream == reached.stream);
    let newest = order::last(known.iter().copied()).map(|(_, known)| known);
    let left = of_stream.chain(newest).any(beyond);
    if !since && left {
        add(Finding {
            code: "restored-not-archived".to_owned(),
            severity: Severity::Warning,
            text: format!(
                "nothing was archived since the restore in place of {at}: what is in service is in no backup"
            ),
            fix: format!("neo4j-backupctl backup {}", target.name),
        });
    }
    Ok(())
}

/// A timer that the configuration has and nobody enabled. Where no log is archived, nobody need want increments.
fn timers(status: &TargetStatus) -> Option<Finding> {
    let incremental = schedule::incremental_unit(&status.target);
    let off = status.timers.iter().filter(|timer| timer.calendar.is_some() && timer.enabled == Some(false));
    let off: Vec<&str> = off
        .filter(|timer| timer.unit != incremental || status.log.is_some())
        .map(|timer| timer.unit.as_str())
        .collect();
    (!off.is_empty()).then(|| Finding {
        code: "timer-disabled".to_owned(),
        severity: Severity::Warning,
        text: format!("no backup is taken by itself: {} not enabled", off.join(" and ")),
        fix: format!("neo4j-backupctl enable {}", status.target),
    })
}

fn freshness(context: &Context, target: &Target, task: &Task, add: &mut dyn FnMut(Finding)) -> Result<()> {
    for row in records::rows(context, Some(&target.name))? {
        if matches!(row.state, BackupState::Corrupted | BackupState::Missing) {
            add(Finding {
                code: "damaged-backup".to_owned(),
                severity: Severity::Error,
                text: format!("{} is {}", row.id, row.state.as_str()),
                fix: format!("neo4j-backupctl backup {}", target.name),
            });
        }
    }
    suspects(context, target, add)?;
    for standing in log_reach::standings(context, &target.name)? {
        if let Some(finding) = damaged_log(&standing, target) {
            add(finding);
        }
    }
    unarchived_restore(context, target, add)?;
    for status in status::run(context, Some(&target.name), task)? {
        timers(&status).into_iter().for_each(&mut *add);
        if let Some(failure) = status.last_failure.as_ref().filter(|failure| tells_of_trouble(failure)) {
            let code = failure.error_code.as_deref().unwrap_or("INTERNAL");
            add(Finding {
                code: "last-run-failed".to_owned(),
                severity: Severity::Error,
                text: format!("the last {} failed: {code}: {}", failure.verb, failure.message.as_deref().unwrap_or("")),
                fix: hint_of(code, target),
            });
        }
        let text = match status.age_seconds {
            None => "there is no usable backup".to_owned(),
            Some(age) if age > STALE_AFTER_S => format!("the newest usable backup is {} hours old", age / 3600),
            Some(_) => continue,
        };
        add(Finding {
            code: "no-fresh-backup".to_owned(),
            severity: Severity::Error,
            text,
            fix: format!("neo4j-backupctl backup {}", target.name),
        });
    }
    Ok(())
}
