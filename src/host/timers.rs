//! What the service manager says of timers: whether they are enabled, and when they elapse next.

use crate::base::process::{Launcher, Tool, run};
use crate::base::task::Task;
use crate::base::{Code, Result};
use jiff::Timestamp;
use std::path::Path;

/// Exists where systemd manages the host, and nowhere else: `sd_booted(3)`.
const BOOTED: &str = "/run/systemd/system";

/// A timer, as the service manager has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timer {
    /// Its unit.
    pub unit: String,
    /// Whether it is set off by itself, now and after a reboot.
    pub enabled: bool,
    /// When it elapses next; `None` = it does not run.
    pub next: Option<Timestamp>,
}

/// How timers stand, in the order of `units`; `None` where no systemd manages this host.
pub(super) fn look(launcher: &dyn Launcher, units: &[String], task: &Task) -> Result<Option<Vec<Timer>>> {
    if units.is_empty() || !Path::new(BOOTED).is_dir() {
        return Ok(None);
    }
    let tool = Tool::new("systemctl")
        .args([
            "show",
            "--no-pager",
            "--timestamp=unix",
            "--property=Id,UnitFileState,ActiveState,NextElapseUSecRealtime",
        ])
        .env("TZ", "UTC")
        .arg("--")
        .args(units);
    let shown = run(launcher, &tool, task)?;
    let shown = shown.expect_success(Code::ServerControlFailed, "asking systemd for the timers (`systemctl show`)")?;
    Ok(Some(parse(&String::from_utf8_lossy(&shown.stdout), units)))
}

/// Reads blocks of `NAME=value`, one for each unit, with an empty line between.
fn parse(shown: &str, units: &[String]) -> Vec<Timer> {
    let blocks: Vec<&str> = shown.split("\n\n").collect();
    let value = |block: &str, name: &str| {
        block.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('=')).unwrap_or_default().to_owned()
    };
    let of = |unit: &String| {
        let block = blocks.iter().find(|block| value(block, "Id") == *unit).copied().unwrap_or_default();
        let active = value(block, "ActiveState") == "active";
        let next = value(block, "NextElapseUSecRealtime");
        Timer {
            unit: unit.clone(),
            enabled: matches!(value(block, "UnitFileState").as_str(), "enabled" | "enabled-runtime"),
            next: moment(&next).filter(|_| active),
        }
    };
    units.iter().map(of).collect()
}

/// A time as systemd shows it: `@SECONDS` where `--timestamp=unix` is heeded, else `Mon 2026-11-23 02:10:00 UTC`.
fn moment(shown: &str) -> Option<Timestamp> {
    match shown.strip_prefix('@') {
        Some(seconds) => Timestamp::from_second(seconds.parse().ok()?).ok(),
        None => {
            let time = jiff::civil::DateTime::strptime("%a %Y-%m-%d %H:%M:%S UTC", shown).ok()?;
            time.to_zoned(jiff::tz::TimeZone::UTC).ok().map(|zoned| zoned.timestamp())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHOWN: &str = "\
NextElapseUSecRealtime=@1795399800
Id=neo4j-backup-full@graph.timer
ActiveState=active
UnitFileState=enabled

NextElapseUSecRealtime=
Id=neo4j-backup-incremental@graph.timer
ActiveState=inactive
UnitFileState=disabled
";

    #[test]
    fn each_unit_has_its_own_block_and_one_that_is_not_told_of_is_off() {
        let unit = |what: &str| format!("neo4j-backup-{what}.timer");
        let units = [unit("incremental@graph"), unit("full@graph"), unit("drill@graph")];
        let timers = parse(SHOWN, &units);
        let off = |unit: &String| Timer { unit: unit.clone(), enabled: false, next: None };
        let full = Timer { unit: units[1].clone(), enabled: true, next: "2026-11-23T02:10:00Z".parse().ok() };
        assert_eq!(timers, [off(&units[0]), full, off(&units[2])]);
        assert_eq!(moment("Mon 2026-11-23 02:10:00 UTC"), "2026-11-23T02:10:00Z".parse().ok());
        assert_eq!((moment(""), moment("n/a")), (None, None));
        assert_eq!(parse("", &units[..1]), [off(&units[0])]);
    }
}
