//! A target from its configuration to a verified backup.

use super::Surroundings;
use crate::base::ids::{BackupId, TargetName};
use crate::base::task::{Severity, Task};
use crate::base::{Code, Error, Result};
use crate::cli::connection::{Backend, Reply};
use crate::cli::output::say;
use crate::cli::progress::Display;
use crate::cli::setup::{self, Will};
use crate::cli::timers;
use crate::driver::Finding;
use crate::driver::setup::{SetupBy, SetupStep};
use crate::operation::answer::Answer;
use crate::operation::request::{BackupRequest, Request, VerifyRequest};
use serde_json::{Value, json};

/// How far a target came.
pub(super) struct Protected {
    target: TargetName,
    setup: Vec<SetupStep>,
    findings: Vec<Finding>,
    enabled: Option<timers::Enabled>,
    backup: Option<BackupId>,
    /// Why it came no further.
    pub(super) error: Option<Error>,
}

/// Sets the server up, takes a full backup and verifies it, and has the server backed up by itself from then on. What goes wrong is kept in the
/// value: another target may fare better. Only a person's leaving ends everything.
pub(super) fn protect(
    target: &TargetName,
    will: Will,
    backend: &dyn Backend,
    with: &Surroundings<'_>,
) -> Result<Protected> {
    let mut protected = Protected {
        target: target.clone(),
        setup: Vec::new(),
        findings: Vec::new(),
        enabled: None,
        backup: None,
        error: None,
    };
    match protected.go_on(will, backend, with) {
        Err(error) if [Code::Cancelled, Code::NotConfirmed].contains(&error.code()) => Err(error),
        Err(error) => {
            protected.error = Some(error);
            Ok(protected)
        }
        Ok(()) => Ok(protected),
    }
}

impl Protected {
    fn go_on(&mut self, will: Will, backend: &dyn Backend, with: &Surroundings<'_>) -> Result<()> {
        let driver = (with.parts.driver)(with.config, &self.target)?;
        self.setup = setup::settle(self.target.as_str(), &*driver, will, with.person)?;
        self.findings = driver.doctor(&Task::unobserved());
        self.findings.retain(|finding| finding.severity > Severity::Info);
        self.back_up(backend, with).map_err(|error| self.explained(error))?;
        if let Some(address) = &with.bus {
            self.enabled = Some(timers::switch_on(&self.target, address, with.style, with.output)?);
        }
        Ok(())
    }

    fn back_up(&mut self, backend: &dyn Backend, with: &Surroundings<'_>) -> Result<()> {
        let request = BackupRequest { target: self.target.clone(), kind: None, note: None, dry_run: false };
        let Answer::Backup(report) = job(&Request::Backup(request), backend, with)? else {
            return Err(Error::new(Code::Internal, "the backup gave another answer"));
        };
        let id = report.id.clone();
        let verdict = Answer::Backup(report).verdict();
        let verify = Request::Verify(VerifyRequest { backup: Some(id.to_string()), quick: false });
        let verified = job(&verify, backend, with)?;
        if let Some(error) = verdict.or(verified.verdict()) {
            return Err(error);
        }
        self.backup = Some(id);
        Ok(())
    }

    /// A failed backup with what mends it, where the server's doctor knew.
    fn explained(&self, error: Error) -> Error {
        let worst = self.findings.iter().find(|finding| finding.severity == Severity::Error && !finding.fix.is_empty());
        let hint = worst.map_or(error.hint().to_owned(), |finding| finding.fix.clone());
        error.with_hint(format!("{hint}; then `neo4j-backupctl init` goes on"))
    }

    pub(super) fn as_json(&self) -> Value {
        json!({
            "target": self.target,
            "setup": self.setup,
            "findings": self.findings,
            "enabled": self.enabled.as_ref().map(|enabled| &enabled.value),
            "backup": self.backup.as_ref().map(ToString::to_string),
            "verified": self.backup.is_some(),
            "error": self.error.as_ref().map(as_json),
        })
    }

    pub(super) fn told(&self) -> String {
        let mut lines = Vec::new();
        let target = &self.target;
        match (&self.backup, &self.error) {
            (Some(id), _) => lines.push(format!("{target}: {id} was taken and verified")),
            (None, Some(error)) => {
                lines.push(format!("{target}: NOT PROTECTED: {error}"));
                lines.push(format!("  hint: {}", error.hint()));
            }
            (None, None) => {}
        }
        if let Some(enabled) = &self.enabled {
            lines.extend(enabled.text.lines().map(|line| format!("  {line}")));
            lines.extend(enabled.left_out.iter().map(|(unit, why)| format!("  {unit} is left out: {why}")));
        }
        let left = self.setup.iter().filter(|step| !step.done);
        lines.extend(left.map(|step| match step.by {
            SetupBy::Person => format!("  yours to do: {}: {}", step.text, step.statement),
            _ => format!("  not done: {} ({})", step.statement, step.text),
        }));
        for Finding { code, severity, text, fix } in &self.findings {
            let word = if *severity == Severity::Error { "error" } else { "warning" };
            lines.push(format!("  {word}: {text} [{code}]"));
            lines.extend((*severity == Severity::Error && !fix.is_empty()).then(|| format!("    → {fix}")));
        }
        lines.join("\n")
    }
}

/// An error in JSON.
pub(super) fn as_json(error: &Error) -> Value {
    json!({ "code": error.code().name(), "message": error.message(), "hint": error.hint() })
}

fn job(request: &Request, backend: &dyn Backend, with: &Surroundings<'_>) -> Result<Answer> {
    let mut display = Display::new(with.style.quiet, with.style.verbose > 0);
    let reply = backend.run(request, true, &mut display);
    display.finish();
    match reply? {
        Reply::Answer(answer) => Ok(*answer),
        Reply::Started(job) | Reply::Detached(job) => {
            say(&format!("job {job} goes on: `neo4j-backupctl follow {job}` waits for it"));
            Err(Error::new(Code::Cancelled, "somebody left before the end").with_hint("`neo4j-backupctl init` goes on"))
        }
    }
}
