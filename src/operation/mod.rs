//! Layer 3: the verbs, a file each. [`request::Request`] is what can be asked for, [`answer::Answer`] what comes back;
//! both are plain data, so that a call travels over D-Bus and in-process alike. [`execute`] carries one out.

pub mod adopt;
pub mod answer;
pub mod archive;
pub mod backup;
pub mod check;
pub mod context;
pub mod crypt;
pub mod delete;
pub mod expire;
pub mod fetch;
pub mod hand_over;
pub mod keys;
pub mod list;
pub(crate) mod log_object;
pub(crate) mod log_reach;
pub(crate) mod log_records;
pub(crate) mod log_retention;
pub(crate) mod log_window;
pub mod preflight;
pub mod presign;
pub mod records;
pub mod recover;
pub mod request;
pub mod rescan;
pub mod restore;
pub mod rotate;
pub mod schedule;
pub(crate) mod select;
pub(crate) mod set_aside;
pub mod status;
pub(crate) mod unfinished;
pub mod verdict;
pub mod verify;

use crate::base::ids::JobId;
use crate::base::task::{Severity, Task};
use crate::base::{Code, Error, Result, bytes};
use answer::Answer;
use context::Context;
use records::Happening;
use request::Request;
use std::time::Duration;

/// Carries a request out in the calling thread. Jobs leave their beginning and end in the ledger's events, with the
/// name of who asked. `Jobs` and `Cancel` are the agent's own and refused here. An answer can be bad news: see
/// [`Answer::verdict`].
pub fn execute(context: &Context, request: &Request, job: Option<JobId>, actor: &str, task: &Task) -> Result<Answer> {
    if !request.is_job() {
        return answer(context, request, task);
    }
    let happening = |name: &str, severity, text: String| {
        let name = format!("{}-{name}", request.verb());
        records::event(context, Happening { severity, name: &name, target: request.target(), job, actor, text: &text })
    };
    happening("started", Severity::Info, format!("{} was asked for by {actor}", request.verb()))?;
    match answer(context, request, task) {
        Ok(answer) => {
            match answer.verdict() {
                Some(error) => happening("failed", Severity::Error, error.to_string())?,
                None => happening("succeeded", Severity::Info, summary(&answer))?,
            }
            Ok(answer)
        }
        Err(error) => {
            // The error itself matters more than a ledger that cannot take it.
            let _ = happening("failed", Severity::Error, error.to_string());
            Err(error)
        }
    }
}

fn answer(context: &Context, request: &Request, task: &Task) -> Result<Answer> {
    Ok(match request {
        Request::Backup(request) => Answer::Backup(backup::run(context, request, task)?),
        Request::Archive(request) => Answer::Archive(archive::run(context, request, task)?),
        Request::Adopt { target, new_repository } => Answer::Adopt(adopt::run(context, target, *new_repository, task)?),
        Request::Restore(request) => Answer::Restore(restore::run(context, request, task)?),
        Request::Verify(request) => Answer::Verify(verify::run(context, request, task)?),
        Request::Delete { backup, dry_run } => Answer::Delete(delete::run(context, backup, *dry_run, task)?),
        Request::Cleanup { dry_run } => Answer::Cleanup(expire::cleanup(context, *dry_run, task)?),
        Request::Rescan => Answer::Rescan(rescan::run(context, task)?),
        Request::Status { target } => Answer::Status { targets: status::run(context, target.as_ref(), task)? },
        Request::List { target } => Answer::List(list::list(context, target.as_ref())?),
        Request::Show { backup } => Answer::Show(Box::new(list::show(context, backup)?)),
        Request::Presign { backup, seconds } => {
            Answer::Presign(presign::run(context, backup, Duration::from_secs(*seconds), task)?)
        }
        Request::History { limit } => {
            let (jobs, events) = records::history(context, *limit)?;
            Answer::History { jobs, events }
        }
        Request::Restores => Answer::Restores { restores: records::restores(context)? },
        Request::Check { target } => Answer::Check { findings: check::run(context, target.as_ref(), task)? },
        Request::KeyRotate { dry_run } => Answer::Rotate(rotate::run(context, *dry_run, task)?),
        Request::KeyList => Answer::KeyList { keys: keys::list(context)? },
        Request::Jobs | Request::Cancel { .. } => {
            return Err(Error::new(Code::Internal, format!("{} is the agent's own to answer", request.verb())));
        }
    })
}

fn only_said(dry_run: bool) -> &'static str {
    if dry_run { " (dry run)" } else { "" }
}

/// One line for the log.
fn summary(answer: &Answer) -> String {
    match answer {
        Answer::Backup(report) => backup::summary(report),
        Answer::Archive(report) => archive::summary(report),
        Answer::Adopt(report) => {
            let names: Vec<_> = report.repositories.iter().map(|adopted| adopted.repository.as_str()).collect();
            format!("this host writes the chain of {} in {}", report.target, names.join(", "))
        }
        Answer::Restore(report) => format!(
            "{} from {} into {} in {} s{}",
            report.backup,
            report.repository,
            report.directory.display(),
            report.duration_ms / 1000,
            only_said(report.dry_run)
        ),
        Answer::Verify(report) => format!("{} backups are sound", report.backups.len()),
        Answer::Delete(report) => {
            let said = only_said(report.dry_run);
            format!("{}: {} objects, {}{said}", report.backup, report.objects, bytes::human(report.bytes))
        }
        Answer::Cleanup(report) => {
            format!(
                "{} backups deleted, {} kept, {} freed{}",
                report.deleted.len(),
                report.kept,
                bytes::human(report.bytes),
                only_said(report.dry_run)
            )
        }
        Answer::Rotate(report) => {
            let gave = if report.dry_run { "would give way" } else { "gave way" };
            let of = |key: &answer::RotatedKey| format!("{}: key {} {gave}", key.file.display(), key.from);
            report.keys.iter().map(of).collect::<Vec<_>>().join("; ")
        }
        Answer::Rescan(report) => format!("{} found, {} added, {} missing", report.found, report.added, report.missing),
        _ => String::new(),
    }
}
