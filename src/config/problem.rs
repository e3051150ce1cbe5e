//! What is wrong with a configuration. All problems are collected, so that one run of `config check` shows them all.

use super::value::Origin;
use crate::base::{Code, Coded};
use std::fmt;

/// One thing that is wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// Where; [`Origin::Default`] for what is wrong because it was left out everywhere.
    pub origin: Origin,
    /// What, in one line.
    pub text: String,
}

impl Problem {
    /// Something wrong at a place.
    pub fn at(origin: Origin, text: impl Into<String>) -> Problem {
        Problem { origin, text: text.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.origin {
            Origin::File { .. } | Origin::Environment(_) => write!(f, "{}: {}", self.origin, self.text),
            Origin::Discovered(_) | Origin::Default => f.write_str(&self.text),
        }
    }
}

/// A configuration that cannot be used: every problem, a line each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// At least one.
    pub problems: Vec<Problem>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let [only] = self.problems.as_slice() {
            return write!(f, "{only}");
        }
        write!(f, "{} problems in the configuration:", self.problems.len())?;
        self.problems.iter().try_for_each(|problem| write!(f, "\n{problem}"))
    }
}

impl std::error::Error for ConfigError {}

impl Coded for ConfigError {
    fn code(&self) -> Code {
        Code::ConfigInvalid
    }
}
