//! `setup`: what a server lacks before it can be backed up, shown, and done if somebody agrees. It works on this host,
//! as the server's own administrator, and needs neither agent nor keys.

use super::exit;
use super::output::{Output, say};
use super::questions::Person;
use crate::base::Result;
use crate::base::task::Task;
use crate::driver::Driver;
use crate::driver::setup::{SetupBy, SetupStep};
use serde_json::json;

/// What is done with what a server lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Will {
    /// It is shown.
    Show,
    /// It is shown, and done if somebody agrees.
    Ask,
}

/// Carries out `setup`.
pub fn run(target: &str, driver: &dyn Driver, will: Will, person: Person, output: &Output) -> Result<u8> {
    let steps = settle(target, driver, will, person)?;
    output.print(&json!({ "target": target, "steps": steps }), || told(target, &steps))?;
    Ok(exit::DONE)
}

/// Shows what the server lacks, and does it if that is the will and somebody agrees. Gives the steps as they are then.
pub fn settle(target: &str, driver: &dyn Driver, will: Will, person: Person) -> Result<Vec<SetupStep>> {
    let task = Task::unobserved();
    let steps = driver.setup(false, &task)?;
    let ours = steps.iter().any(|step| step.by != SetupBy::Person);
    if will == Will::Show || !ours {
        return Ok(steps);
    }
    say(&format!("{target}: the server lacks"));
    steps.iter().for_each(|step| say(&line(step)));
    if !person.agrees(&format!("{target}: shall this be done now, as the server's administrator?"))? {
        return Ok(steps);
    }
    driver.setup(true, &task)
}

/// Every step, a line each.
pub fn told(target: &str, steps: &[SetupStep]) -> String {
    if steps.is_empty() {
        return format!("{target}: the server lacks nothing");
    }
    steps.iter().map(line).collect::<Vec<_>>().join("\n")
}

fn line(step: &SetupStep) -> String {
    let SetupStep { text, statement, by, done } = step;
    let done = if *done { "done: " } else { "" };
    match by {
        SetupBy::Statement => format!("  {done}{statement};\n      -- {text}"),
        SetupBy::File(path) => format!("  {done}{statement}\n      -- in {}: {text}", path.display()),
        SetupBy::Person => format!("  {statement}\n      -- yours to do: {text}"),
    }
}
