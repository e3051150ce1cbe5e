//! How single values of the command line are read. What is wrong is said in one line, with what would be right.

use crate::artifact::log_point::Lsn;
use crate::base::ids::{JobId, TargetName};
use crate::config::duration;
use crate::driver::log::PointName;
use std::time::Duration;

pub(super) fn target_name(text: &str) -> Result<TargetName, String> {
    TargetName::new(text).map_err(|error| error.hint().to_owned())
}

pub(super) fn transaction(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| "a transaction is named by its number, 0 or more".to_owned())
}

pub(super) fn later_transaction(text: &str) -> Result<u64, String> {
    let number = text.parse().ok().filter(|number| *number > 0);
    number.ok_or_else(|| "a transaction that others lie before is named by its number, 1 or more".to_owned())
}

pub(super) fn position(text: &str) -> Result<u64, String> {
    Lsn::parse(text).map(|position| position.0).ok_or_else(|| "a position looks like 0/3000060".to_owned())
}

pub(super) fn point(text: &str) -> Result<String, String> {
    PointName::new(text).map(String::from).map_err(|error| error.message().to_owned())
}

pub(super) fn job_number(text: &str) -> Result<JobId, String> {
    text.parse().map_err(|_| "a job is named by its number; `neo4j-backupctl jobs` lists them".to_owned())
}

pub(super) fn span(text: &str) -> Result<Duration, String> {
    duration::parse(text).ok_or_else(|| "a time looks like 30min, 12h or 7d".to_owned())
}
