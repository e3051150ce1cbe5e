//! Stopping and starting servers. Before a server is stopped, a small file says durably that it must be started again;
//! it goes when that has happened, so that a crash in between cannot leave the server down.

use super::Service;
use crate::base::ids::TargetName;
use crate::base::process::{Launcher, Tool, run};
use crate::base::task::Task;
use crate::base::{Code, Error, Result, atomic_file};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long a server may take to stop or start; a large one writes its caches first.
const CONTROL_TIMEOUT: Duration = Duration::from_secs(900);
const RECORD_PREFIX: &str = "stopped-";
const RECORD_SUFFIX: &str = ".json";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verb {
    Stop,
    Start,
}

/// How far a stop got.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Phase {
    /// It was begun.
    Stopping,
    /// The server has stopped.
    Stopped,
}

/// What is on record of a server that must be started again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    /// How far its stop got.
    pub(super) phase: Phase,
    /// How it was controlled then.
    pub(super) service: Service,
}

/// Stops and starts servers and keeps the records.
pub(super) struct Control<'a> {
    /// Where the records lie; it exists.
    pub(super) records: &'a Path,
    /// Runs the commands.
    pub(super) launcher: &'a dyn Launcher,
}

impl Control<'_> {
    /// Stops a server, or asks it to start again if that did not work.
    pub(super) fn stop(&self, target: &TargetName, service: &Service, task: &Task) -> Result<()> {
        task.check()?;
        check_managed(target, service)?;
        self.note(target, service, Phase::Stopping)?;
        let Err(error) = self.carry_out_stop(target, service, task) else { return Ok(()) };
        match self.start(target, service, task) {
            Ok(()) => Err(error),
            Err(also) => Err(error.context(format!("it could not be started again either ({})", also.message()))),
        }
    }

    /// Stops a server whose data must not be touched while it runs, and leaves it stopped, whatever the stop command
    /// said: some fail where nothing runs. It is on record for a start.
    pub(super) fn halt(&self, target: &TargetName, service: &Service, task: &Task) -> Result<()> {
        check_managed(target, service)?;
        self.note(target, service, Phase::Stopping)?;
        self.carry_out_stop(target, service, task)
    }

    /// Starts a server that is on record. One that a stop was interrupted for may still be on its way down, and told to
    /// start would only say that it runs: the stop is carried through first.
    pub(super) fn start_again(&self, target: &TargetName, service: &Service, phase: Phase, task: &Task) -> Result<()> {
        check_managed(target, service)?;
        if phase == Phase::Stopping {
            // Whatever it says: if the server cannot be used, the start tells.
            let _ = self.carry_out_stop(target, service, task);
        }
        self.start(target, service, task)
    }

    /// Starts a server and takes its record away. Not even a cancelled job keeps it from being started.
    pub(super) fn start(&self, target: &TargetName, service: &Service, task: &Task) -> Result<()> {
        check_managed(target, service)?;
        self.control(Verb::Start, target, service, &task.shielded())?;
        atomic_file::remove(&self.record(target))
    }

    fn carry_out_stop(&self, target: &TargetName, service: &Service, task: &Task) -> Result<()> {
        // A stop that was begun is carried through: a server told to start while it still stops might do neither.
        self.control(Verb::Stop, target, service, &task.shielded())?;
        self.note(target, service, Phase::Stopped)
    }

    fn note(&self, target: &TargetName, service: &Service, phase: Phase) -> Result<()> {
        let record = serde_json::to_vec_pretty(&Record { phase, service: service.clone() })
            .map_err(|cause| Error::new(Code::Internal, format!("recording the stop of {target}: {cause}")))?;
        atomic_file::write(&self.record(target), &record, 0o600)
    }

    fn control(&self, verb: Verb, target: &TargetName, service: &Service, task: &Task) -> Result<()> {
        let (tool, unit) = tool(verb, service)?;
        let doing = if verb == Verb::Stop { "stopping" } else { "starting" };
        let what = format!("{doing} the server of {target} (`{}`)", tool.command_line());
        let failed = |error: Error| error.context(&what).recode(Code::ServerControlFailed);
        let finished = run(self.launcher, &tool, task).map_err(failed)?;
        finished.expect_success(Code::ServerControlFailed, &what).map(|_| ()).map_err(|error| match unit {
            Some(unit) => {
                error.with_hint(format!("look at the unit: `systemctl status {unit}`, `journalctl -u {unit}`"))
            }
            None => {
                error.with_hint("run the command by hand and correct `stop_command` or `start_command` of the target")
            }
        })
    }

    fn record(&self, target: &TargetName) -> PathBuf {
        self.records.join(format!("{RECORD_PREFIX}{target}{RECORD_SUFFIX}"))
    }

    /// Every server on record as stopped, with what was recorded, if that can still be read.
    pub(super) fn on_record(&self) -> Result<Vec<(TargetName, Option<Record>)>> {
        let fail = |cause| Error::io("listing", self.records, cause);
        let mut found = Vec::new();
        for entry in std::fs::read_dir(self.records).map_err(fail)? {
            let entry = entry.map_err(fail)?;
            let name = entry.file_name();
            let target = name.to_str().and_then(|n| n.strip_prefix(RECORD_PREFIX)?.strip_suffix(RECORD_SUFFIX));
            if let Some(target) = target.and_then(|target| TargetName::new(target).ok()) {
                let record = std::fs::read(entry.path()).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
                found.push((target, record));
            }
        }
        found.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(found)
    }
}

fn check_managed(target: &TargetName, service: &Service) -> Result<()> {
    match service {
        Service::Unmanaged => Err(Error::new(
            Code::ServerControlFailed,
            format!("nobody said how the server of {target} is stopped and started"),
        )
        .with_hint(format!("set `unit`, or `stop_command` and `start_command`, in [target.{target}]"))),
        _ => Ok(()),
    }
}

/// The program for a verb, and the unit it is about.
fn tool(verb: Verb, service: &Service) -> Result<(Tool, Option<&str>)> {
    let (tool, unit) = match service {
        Service::Unit(unit) => {
            let verb = if verb == Verb::Stop { "stop" } else { "start" };
            (Tool::new("systemctl").args([verb, "--no-ask-password", "--", unit]), Some(unit.as_str()))
        }
        Service::Commands { stop, start } => {
            let words = if verb == Verb::Stop { stop } else { start };
            let (program, arguments) = words.split_first().ok_or_else(|| {
                Error::new(Code::ServerControlFailed, "the command that controls the server is empty")
            })?;
            (Tool::new(program).args(arguments), None)
        }
        Service::Unmanaged => return Err(Error::new(Code::Internal, "an unmanaged server cannot be controlled")),
    };
    // What starts a daemon must not be waited for until the daemon ends.
    let tool = if verb == Verb::Start { tool.leaves_daemon() } else { tool };
    Ok((tool.idle_timeout(CONTROL_TIMEOUT), unit))
}
