//! Commands and options that are part of the product's contract but not of this version. They are in no help; whoever
//! types one is told so, with a status that says that nothing changed, instead of being told it was mistyped.

use crate::base::{Code, Error};
use clap::Args;
use std::ffi::OsString;

const COMMANDS: &[&str] = &[
    "activate",
    "promote",
    "revert",
    "discard",
    "recover",
    "transactions",
    "drill",
    "undelete",
    "hold",
    "release",
    "replicate",
    "disk",
    "pause",
    "resume",
    "selftest",
    "alert",
];

const KEY_COMMANDS: &[&str] = &["kit"];
const WAL_COMMANDS: &[&str] = &[];
const ROLES: &[&str] = &["helper"];

/// Which list of words a command was looked for in.
#[derive(Clone, Copy, Debug)]
pub enum Among {
    /// Commands of the client.
    Commands,
    /// Commands below `key`.
    KeyCommands,
    /// Commands below `wal`.
    WalCommands,
    /// Roles of the agent.
    Roles,
}

/// The error for a word that the parser does not know: not there yet, or a slip.
pub fn unknown_word(words: &[OsString], among: Among, known: &[String]) -> Error {
    let word = words.first().map(|word| word.to_string_lossy().into_owned()).unwrap_or_default();
    let (later, prefix) = match among {
        Among::Commands => (COMMANDS, ""),
        Among::KeyCommands => (KEY_COMMANDS, "key "),
        Among::WalCommands => (WAL_COMMANDS, "wal "),
        Among::Roles => (ROLES, ""),
    };
    if later.contains(&word.as_str()) {
        return not_available(&format!("`{prefix}{word}`"));
    }
    let error = Error::new(Code::Usage, format!("`{prefix}{word}` is not a command"));
    let nearest = known.iter().max_by(|a, b| strsim::jaro_winkler(a, &word).total_cmp(&strsim::jaro_winkler(b, &word)));
    match nearest {
        Some(nearest) if strsim::jaro_winkler(nearest, &word) > 0.8 => {
            error.with_hint(format!("did you mean `{prefix}{nearest}`?"))
        }
        _ => error,
    }
}

fn not_available(what: &str) -> Error {
    Error::new(Code::NotAvailable, format!("{what} is not part of this version ({})", env!("CARGO_PKG_VERSION")))
}

/// Options of `restore` to come.
#[derive(Args, Clone, Debug, Default)]
pub struct LaterRestore {
    #[arg(long, hide = true)]
    serve: bool,
    #[arg(long, hide = true, value_name = "TIME", allow_hyphen_values = true)]
    ttl: Option<String>,
    #[arg(long, hide = true, value_name = "TIME", allow_hyphen_values = true)]
    as_of: Option<String>,
    #[arg(long, hide = true)]
    fallback: bool,
    #[arg(long, hide = true)]
    salvage: bool,
    #[arg(long, hide = true)]
    clean_target: bool,
    #[arg(long, hide = true)]
    promote: bool,
    #[arg(long, hide = true, value_name = "NAME", id = "group", allow_hyphen_values = true)]
    group: Option<String>,
}

impl LaterRestore {
    /// Fails if one of them was given.
    pub fn refuse(&self) -> Result<(), Error> {
        let given = [
            ("--serve", self.serve),
            ("--ttl", self.ttl.is_some()),
            ("--as-of", self.as_of.is_some()),
            ("--fallback", self.fallback),
            ("--salvage", self.salvage),
            ("--clean-target", self.clean_target),
            ("--promote", self.promote),
            ("--group", self.group.is_some()),
        ];
        match given.into_iter().find(|(_, given)| *given) {
            Some((option, _)) => Err(not_available(&format!("`restore {option}`"))),
            None => Ok(()),
        }
    }
}
