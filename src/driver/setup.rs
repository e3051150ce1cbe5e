//! What a server needs before it can be backed up, and doing it.

use serde::Serialize;
use std::path::PathBuf;

/// Who takes a step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum SetupBy {
    /// A statement to the server, as its administrator.
    Statement,
    /// A line in a file of the server's configuration.
    File(PathBuf),
    /// A person: it interrupts the service, or is not ours to decide.
    Person,
}

/// One thing that a server lacks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SetupStep {
    /// What for.
    pub text: String,
    /// The literal statement, line or command.
    pub statement: String,
    /// Who does it.
    pub by: SetupBy,
    /// Whether it was done now.
    pub done: bool,
}

impl SetupStep {
    /// A step that was not taken yet.
    pub fn new(by: SetupBy, text: impl Into<String>, statement: impl Into<String>) -> Self {
        SetupStep { text: text.into(), statement: statement.into(), by, done: false }
    }
}
