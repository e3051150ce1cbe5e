//! Gives every key its value: what was said, else what was found on the host, else the default; and remembers where
//! each came from, for `config show --origin`.

use super::discovery::host::Host;
use super::kind;
use super::problem::Problem;
use super::schema::{self, Fallback};
use super::validate::Said;
use super::value::{Node, Origin, Value, Values};
use super::{duration, fragment};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A value, the dotted path it was found at, and where that was said.
#[derive(Clone, Debug)]
pub struct Pick {
    /// The value; always of the key's kind.
    pub value: Value,
    /// Where it was said.
    pub origin: Origin,
    /// Its dotted path, for messages: the target's own, or that of the top level.
    pub path: String,
}

impl Pick {
    /// The text, or nothing.
    pub fn text(&self) -> String {
        self.value.as_text().unwrap_or_default().to_owned()
    }

    /// The path.
    pub fn path_buf(&self) -> PathBuf {
        PathBuf::from(self.text())
    }

    /// The number; in the range that the key's kind demands.
    pub fn integer<N: TryFrom<i64> + Default>(&self) -> N {
        match &self.value {
            Value::Integer(number) => N::try_from(*number).unwrap_or_default(),
            _ => N::default(),
        }
    }

    /// Whether it is `true`.
    pub fn flag(&self) -> bool {
        self.value == Value::Flag(true)
    }

    /// The size in bytes.
    pub fn size(&self) -> u64 {
        kind::size(&self.value).unwrap_or_default()
    }

    /// The span of time; zero for `off`.
    pub fn span(&self) -> Duration {
        self.value.as_text().and_then(duration::parse).unwrap_or_default()
    }
}

/// See the module.
pub struct Resolver<'h> {
    said: Said,
    /// The host that is looked at.
    pub host: Host<'h>,
    /// `$CREDENTIALS_DIRECTORY`.
    pub credentials: Option<PathBuf>,
    /// What is worth a word but no reason to stop.
    pub warnings: Vec<String>,
    settled: Values,
}

impl<'h> Resolver<'h> {
    /// Over what was said.
    pub fn new(said: Said, host: Host<'h>, credentials: Option<PathBuf>) -> Self {
        Resolver { said, host, credentials, warnings: Vec::new(), settled: Values::new() }
    }

    /// The problems found, the warnings, and every value with its origin.
    pub fn finish(self) -> (Vec<Problem>, Vec<String>, Values) {
        (self.said.problems, self.warnings, self.settled)
    }

    /// Something is wrong with a value.
    pub fn wrong(&mut self, pick: &Pick, text: impl std::fmt::Display) {
        self.said.problems.push(Problem::at(pick.origin.clone(), format!("{}: {text}", pick.path)));
    }

    /// Something is wrong at a table, or because of what was not said anywhere in it.
    pub fn wrong_table(&mut self, table: &str, text: impl std::fmt::Display) {
        let origin = self.said.tables.get(table).cloned().unwrap_or(Origin::Default);
        self.said.problems.push(Problem::at(origin, format!("{table}: {text}")));
    }

    /// Whether the table was named.
    pub fn has_table(&self, path: &str) -> bool {
        self.said.tables.contains_key(path)
    }

    /// The user's names below `repository` or `target`.
    pub fn names_below(&self, table: &str) -> Vec<String> {
        let below = |path: &String| {
            let name = path.strip_prefix(table)?.strip_prefix('.')?;
            (!name.contains('.')).then(|| name.to_owned())
        };
        self.said.tables.keys().filter_map(below).collect()
    }

    /// Whether a value was given there, even a refused one: then it is not missing.
    pub fn was_given(&self, path: &str) -> bool {
        self.said.values.contains_key(path) || self.said.refused.contains(path)
    }

    /// Adds a value that another one stands for (a part of a URL); refused if both were said.
    pub fn stands_for(&mut self, path: &str, value: Value, by: &Pick) {
        if self.was_given(path) {
            return self.wrong(by, format_args!("says {path} too, which is given separately"));
        }
        self.said.values.insert(path.to_owned(), (value, by.origin.clone()));
    }

    /// What was said at exactly this path.
    pub fn said(&mut self, path: &str) -> Option<Pick> {
        let (value, origin) = self.said.values.get(path)?.clone();
        self.settled.insert(path.to_owned(), (value.clone(), origin.clone()));
        Some(Pick { value, origin, path: path.to_owned() })
    }

    /// The text that was said at a path, without settling it.
    pub fn peek(&self, path: &str) -> Option<String> {
        self.said.values.get(path).and_then(|(value, _)| value.as_text()).map(str::to_owned)
    }

    /// Settles what nobody said.
    pub fn settle(&mut self, path: &str, value: Value, origin: Origin) -> Pick {
        self.settled.insert(path.to_owned(), (value.clone(), origin.clone()));
        Pick { value, origin, path: path.to_owned() }
    }

    /// Does not show a value, because others say the same in its place.
    pub fn replaced(&mut self, path: &str) {
        self.settled.remove(path);
    }

    /// What was said at `path`, else the default that the table of keys has for `pattern`.
    pub fn value(&mut self, path: &str, pattern: &str, kind: &str) -> Option<Pick> {
        self.said(path).or_else(|| {
            let value = default_of(pattern, kind)?;
            Some(self.settle(path, value, Origin::Default))
        })
    }

    /// A key of a table that may be repeated below a target: the target's own, else the top level's, else the default.
    pub fn section(&mut self, target: Option<&str>, key: &str) -> Option<Pick> {
        self.section_said(target, key).or_else(|| self.value(key, key, ""))
    }

    /// As [`Resolver::section`], without the default.
    pub fn section_said(&mut self, target: Option<&str>, key: &str) -> Option<Pick> {
        let own = target.and_then(|target| self.said(&format!("target.{target}.{key}")));
        own.or_else(|| self.said(key))
    }

    /// As [`Resolver::section`], for a key that always has a value.
    pub fn section_value(&mut self, target: Option<&str>, key: &str) -> Pick {
        self.section(target, key).unwrap_or_else(|| Pick {
            value: Value::Other("nothing"),
            origin: Origin::Default,
            path: key.to_owned(),
        })
    }

    /// Warns when a path is not there; what cannot be looked at is not called missing.
    pub fn warn_if_missing(&mut self, pick: &Pick) {
        let path = pick.text();
        if self.host.missing(Path::new(&path)) {
            self.warnings.push(format!("{}: {path} does not exist ({})", pick.path, pick.origin));
        }
    }
}

/// The default that stands in the table of keys.
fn default_of(pattern: &str, kind: &str) -> Option<Value> {
    let key = schema::key(pattern, kind)?;
    let Fallback::Value(text) = key.default else { return None };
    let table = fragment::parse(Path::new("default"), &format!("value = {text}")).ok()?;
    match table.entries.get("value") {
        Some(Node::Leaf(value, _)) => Some(value.clone()),
        _ => None,
    }
}
