//! What the sources say before anybody judges it: a tree of values, each with its [`Origin`].

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// A line of a file, counted from 1.
    File {
        /// The file.
        file: PathBuf,
        /// The line.
        line: usize,
    },
    /// An environment variable, by its name.
    Environment(String),
    /// Looked up on this host; says how.
    Discovered(String),
    /// Built in.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::File { file, line } => write!(f, "{}:{line}", file.display()),
            Origin::Environment(name) => write!(f, "environment {name}"),
            Origin::Discovered(how) => write!(f, "discovered: {how}"),
            Origin::Default => f.write_str("default"),
        }
    }
}

/// A value as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// A string.
    Text(String),
    /// A whole number.
    Integer(i64),
    /// `true` or `false`.
    Flag(bool),
    /// An array.
    List(Vec<Value>),
    /// Something no key takes; the words name it in messages.
    Other(&'static str),
}

impl Value {
    /// A list of texts.
    pub fn texts<T: Into<String>>(items: impl IntoIterator<Item = T>) -> Value {
        Value::List(items.into_iter().map(|item| Value::Text(item.into())).collect())
    }

    /// The string, if it is one.
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// What it is, for messages: `"7x"`, `12`, `a list`.
    pub fn describe(&self) -> String {
        match self {
            Value::Text(text) => format!("{text:?}"),
            Value::Integer(number) => number.to_string(),
            Value::Flag(flag) => flag.to_string(),
            Value::List(_) => "a list".to_owned(),
            Value::Other(what) => (*what).to_owned(),
        }
    }
}

/// As TOML writes it.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Text(text) => write!(f, "{}", toml::Value::String(text.clone())),
            Value::Integer(number) => write!(f, "{number}"),
            Value::Flag(flag) => write!(f, "{flag}"),
            Value::List(items) => {
                f.write_str("[")?;
                for (index, item) in items.iter().enumerate() {
                    write!(f, "{}{item}", if index > 0 { ", " } else { "" })?;
                }
                f.write_str("]")
            }
            Value::Other(what) => f.write_str(what),
        }
    }
}

/// Values with their origins, by dotted path.
pub type Values = BTreeMap<String, (Value, Origin)>;

/// A node of the tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Node {
    /// A table.
    Table(Table),
    /// A value.
    Leaf(Value, Origin),
}

/// A table and where it was first named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// Where.
    pub origin: Origin,
    /// Its members.
    pub entries: BTreeMap<String, Node>,
}

impl Table {
    /// An empty one.
    pub fn new(origin: Origin) -> Table {
        Table { origin, entries: BTreeMap::new() }
    }
}

impl Node {
    /// Where it was said.
    pub fn origin(&self) -> &Origin {
        match self {
            Node::Table(table) => &table.origin,
            Node::Leaf(_, origin) => origin,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_print_as_toml_reads_them() {
        for text in ["plain", "with \"quotes\" and \\", "tab\tand\nline", "'", "", "ünï", "\u{7f}\u{1}"] {
            let line = format!("key = {}", Value::texts([text]));
            let table: toml::Table = line.parse().expect(&line);
            assert_eq!(table["key"][0].as_str(), Some(text));
        }
    }
}
