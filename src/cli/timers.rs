//! `enable` and `disable`: whether a database is backed up by itself. The timers are systemd's, and it is asked to enable
//! and start them; which there are, and when, is the agent's configuration's to say.

use super::connection::Backend;
use super::output::{Output, say};
use super::over_bus::{OverBus, may_ask};
use super::render::moment;
use super::{args::Style, exit};
use crate::base::ids::TargetName;
use crate::base::process::terminal::AuthenticationAgent;
use crate::base::{Code, Error, Result};
use crate::dbus::address::BusAddress;
use crate::dbus::systemd::ServiceManager;
use crate::operation::answer::{Answer, TargetStatus, TimerStatus};
use crate::operation::request::Request;
use crate::operation::schedule;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

/// The agent's own unit.
const AGENT_UNIT: &str = "neo4j-backupd.service";

/// What `check` calls a server that keeps its log to itself.
const LOG_NOT_ARCHIVED: &str = "log-not-archived";

struct Host {
    runtime: Runtime,
    manager: ServiceManager,
    /// Whoever may be asked for a password by polkit while units are changed.
    _asks: Option<AuthenticationAgent>,
}

impl Host {
    fn reach(address: &BusAddress, style: &Style) -> Result<Host> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|cause| Error::new(Code::IoFailed, format!("starting the client's event loop: {cause}")))?;
        let manager = runtime.block_on(ServiceManager::connect(address, !style.no_ask_password))?;
        let asks = may_ask(address, !style.no_ask_password).then(AuthenticationAgent::start).flatten();
        Ok(Host { runtime, manager, _asks: asks })
    }

    /// The agent runs, now and after a boot.
    fn with_agent(&self) -> Result<()> {
        self.runtime.block_on(async {
            if self.manager.enable(&[AGENT_UNIT]).await? {
                self.manager.reload().await?;
            }
            self.manager.start(AGENT_UNIT).await
        })
    }

    fn switch_on(&self, timers: &[(&str, &str)]) -> Result<()> {
        let units: Vec<&str> = timers.iter().map(|(unit, _)| *unit).collect();
        self.runtime.block_on(async {
            self.manager.enable(&units).await?;
            // What the generator makes of `[schedule]` is read here too.
            self.manager.reload().await?;
            for (unit, calendar) in timers {
                self.manager.start(unit).await.map_err(|error| match *calendar {
                    "" => error,
                    calendar => error.with_hint(format!(
                        "`systemd-analyze calendar {calendar:?}` says whether systemd understands that time of \
                         [schedule]; `systemctl status {unit}` shows the timer"
                    )),
                })?;
            }
            Ok(())
        })
    }

    /// Tells whether anything was on.
    fn switch_off(&self, units: &[&str]) -> Result<bool> {
        self.runtime.block_on(async {
            let changed = self.manager.disable(units).await?;
            for unit in units {
                self.manager.stop(unit).await?;
            }
            if changed {
                self.manager.reload().await?;
            }
            Ok(changed)
        })
    }
}

/// Fails where there is no service manager.
pub fn reach(address: &BusAddress, style: &Style) -> Result<()> {
    Host::reach(address, style).map(drop).map_err(|error| {
        error.with_hint("`--direct` works without bus and systemd, and then something else must run the backups")
    })
}

/// Has the agent run, now and after each boot, with the configuration as it is.
pub fn agent(address: &BusAddress, style: &Style) -> Result<()> {
    Host::reach(address, style)?.with_agent()?;
    OverBus::connect(address, !style.no_ask_password)?.reload().map(drop)
}

/// What enabling came to.
#[derive(Debug)]
pub struct Enabled {
    /// As JSON.
    pub value: Value,
    /// As text.
    pub text: String,
    /// Timers that would only fail, and why.
    pub left_out: Vec<(String, String)>,
}

/// `enable`.
pub fn enable(target: &TargetName, address: &BusAddress, style: &Style, output: &Output) -> Result<u8> {
    let Enabled { value, text, left_out } = switch_on(target, address, style, output)?;
    for (unit, why) in left_out.iter().filter(|_| output.json.is_none()) {
        say(&format!("warning: {unit} is left out: {why}"));
    }
    output.print(&value, || text)?;
    Ok(exit::DONE)
}

/// Has a database backed up by itself, from now on and after each boot.
pub fn switch_on(target: &TargetName, address: &BusAddress, style: &Style, output: &Output) -> Result<Enabled> {
    let host = Host::reach(address, style)?;
    host.with_agent()?;
    let agent = OverBus::connect(address, !style.no_ask_password)?;
    let in_force = agent.reload()?;
    let status = status_of(&agent, target).map_err(|error| match in_force {
        false if error.code() == Code::TargetUnknown => error.with_hint(
            "jobs run, and the agent takes over what was configured since once they have ended: `neo4j-backupctl jobs`",
        ),
        _ => error,
    })?;
    let left_out = what_cannot_be(&agent, target, &status);
    let reason = |timer: &TimerStatus| left_out.iter().find(|(unit, _)| *unit == timer.unit).map(|(_, why)| why);
    let (on, off): (Vec<_>, Vec<_>) =
        status.timers.iter().partition(|timer| timer.calendar.is_some() && reason(timer).is_none());
    if on.is_empty() {
        return Err(Error::new(Code::ConfigInvalid, format!("[schedule] has no time for any backup of {target}"))
            .with_hint(
                "give `schedule.full` a time: `neo4j-backupctl config show --origin` says where it is \"off\"",
            ));
    }
    let own = on.iter().map(|timer| (timer.unit.as_str(), timer.calendar.as_deref().unwrap_or_default()));
    let all: Vec<(&str, &str)> = own.chain(schedule::SHARED_UNITS.map(|unit| (unit, ""))).collect();
    host.switch_on(&all)?;
    let off: Vec<&str> = off.iter().map(|timer| timer.unit.as_str()).collect();
    host.switch_off(&off)?;
    let now = status_of(&agent, target)?;
    let enabled: Vec<&str> = all.iter().map(|(unit, _)| *unit).collect();
    let reasons: Vec<_> = left_out.iter().map(|(unit, why)| json!({ "unit": unit, "reason": why })).collect();
    let value = json!({ "target": target, "enabled": enabled, "left_out": reasons, "timers": now.timers });
    Ok(Enabled { value, text: told(&now, &enabled, output), left_out })
}

/// No longer has a database backed up by itself.
pub fn disable(target: &TargetName, address: &BusAddress, style: &Style, output: &Output) -> Result<u8> {
    let host = Host::reach(address, style)?;
    let units = [schedule::full_unit(target), schedule::incremental_unit(target)];
    let changed = host.switch_off(&units.each_ref().map(String::as_str))?;
    if !changed
        && let Ok(agent) = OverBus::connect(address, !style.no_ask_password)
        && let Err(error) = status_of(&agent, target)
        && error.code() == Code::TargetUnknown
    {
        return Err(error);
    }
    output.print(&json!({ "target": target, "disabled": changed, "units": units }), || match changed {
        true => format!(
            "{target} is no longer backed up by itself; what is stored stays, and cleanup and verification go on"
        ),
        false => format!("no timer of {target} was enabled"),
    })?;
    Ok(exit::DONE)
}

fn status_of(agent: &OverBus, target: &TargetName) -> Result<TargetStatus> {
    match agent.query(&Request::Status { target: Some(target.clone()) })? {
        Answer::Status { targets } => targets.into_iter().find(|status| status.target == *target),
        _ => None,
    }
    .ok_or_else(|| Error::new(Code::Internal, format!("the agent did not say how {target} stands")))
}

/// Timers that would only fail, and why: those of increments where the server's log is not archived.
fn what_cannot_be(agent: &OverBus, target: &TargetName, status: &TargetStatus) -> Vec<(String, String)> {
    let unit = schedule::incremental_unit(target);
    if !status.timers.iter().any(|timer| timer.unit == unit && timer.calendar.is_some()) {
        return Vec::new();
    }
    match agent.query(&Request::Check { target: Some(target.clone()) }) {
        Ok(Answer::Check { findings }) => {
            let findings = findings.into_iter().map(|found| found.finding);
            findings.filter(|found| found.code == LOG_NOT_ARCHIVED).map(|found| (unit.clone(), found.text)).collect()
        }
        // What is wrong today may not be so when the timer elapses, and is told then.
        _ => Vec::new(),
    }
}

fn told(status: &TargetStatus, enabled: &[&str], output: &Output) -> String {
    let mut lines = Vec::new();
    for timer in status.timers.iter().filter(|timer| enabled.contains(&timer.unit.as_str())) {
        let kind = if timer.unit == schedule::full_unit(&status.target) { "full" } else { "incremental" };
        let next =
            timer.next.map(|next| format!(", next {} ({})", moment::at(next, output), moment::ago(next, output)));
        let calendar = timer.calendar.as_deref().unwrap_or_default();
        lines.push(format!("{}: {kind} backups at {calendar}{}", status.target, next.unwrap_or_default()));
    }
    lines.push("every database: cleanup daily, verification weekly".to_owned());
    lines.join("\n")
}
