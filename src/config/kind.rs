//! The kinds of value a key can take, and how each judges what was written.

use super::text_rules::Rule;
use super::value::Value;
use super::{calendar, command_line, duration};
use crate::base::bytes;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

/// What a key takes.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// A string that follows a rule.
    Text(Rule),
    /// One of some words. The hidden ones are taken but never offered.
    Choice {
        /// Offered.
        words: &'static [&'static str],
        /// Taken all the same.
        hidden: &'static [&'static str],
    },
    /// An absolute path.
    Path,
    /// `true` or `false`.
    Flag,
    /// A whole number.
    Integer {
        /// Least.
        min: i64,
        /// Most.
        max: i64,
    },
    /// A size in bytes: a number, or text like `200MB`.
    Size {
        /// Least, apart from 0 where that is allowed.
        min: u64,
        /// Whether 0 is taken: no limit.
        zero: bool,
    },
    /// A span of time like `14d`.
    Span {
        /// Least, in seconds.
        min: u64,
        /// Whether `off` is taken.
        off: bool,
    },
    /// An `OnCalendar` value or `off`.
    Calendar,
    /// A list of strings that follow a rule. A single string is a list of one.
    List(Rule),
    /// A list of absolute paths. A single string is a list of one.
    Paths,
    /// An argument vector: a list of strings, or one string that is split at blanks outside quotes.
    Command,
}

/// A choice without hidden words.
pub const fn choice(words: &'static [&'static str]) -> Kind {
    Kind::Choice { words, hidden: &[] }
}

impl Kind {
    /// Whether a bare word of the environment is meant as text, whatever else it looks like.
    pub fn is_textual(self) -> bool {
        !matches!(self, Kind::Flag | Kind::Integer { .. } | Kind::List(_) | Kind::Paths | Kind::Command)
    }

    /// Whether it takes several values.
    pub fn is_list(self) -> bool {
        matches!(self, Kind::List(_) | Kind::Paths)
    }

    /// What it takes, for people.
    pub fn describe(self) -> String {
        match self {
            Kind::Text(_) => "text".to_owned(),
            Kind::Choice { words, .. } => {
                words.iter().map(|word| format!("`\"{word}\"`")).collect::<Vec<_>>().join(", ")
            }
            Kind::Path => "absolute path".to_owned(),
            Kind::Flag => "`true`, `false`".to_owned(),
            Kind::Integer { min, max } => format!("{min}–{max}"),
            Kind::Size { zero: true, .. } => "size; `\"0\"` = no limit".to_owned(),
            Kind::Size { .. } => "size".to_owned(),
            Kind::Span { off: true, .. } => "duration or `\"off\"`".to_owned(),
            Kind::Span { .. } => "duration".to_owned(),
            Kind::Calendar => "OnCalendar or `\"off\"`".to_owned(),
            Kind::List(_) => "list of texts".to_owned(),
            Kind::Paths => "list of absolute paths".to_owned(),
            Kind::Command => "command".to_owned(),
        }
    }

    /// Judges a value; an error is one line that follows the key's name.
    pub fn check(self, value: &Value) -> Result<(), String> {
        match self {
            Kind::Text(rule) => text(value, rule),
            Kind::Choice { words, hidden } => among(value, words, hidden),
            Kind::Path => path(value),
            Kind::Flag => match value {
                Value::Flag(_) => Ok(()),
                other => Err(format!("must be true or false, not {}", other.describe())),
            },
            Kind::Integer { min, max } => match value {
                Value::Integer(number) if (min..=max).contains(number) => Ok(()),
                other => Err(format!("must be a whole number from {min} to {max}, not {}", other.describe())),
            },
            Kind::Size { min, zero } => size_in_range(value, min, zero),
            Kind::Span { min, off } => span_in_range(value, min, off),
            Kind::Calendar => match value.as_text() {
                Some("off") => Ok(()),
                Some(text) => calendar::check(text),
                None => Err(format!("must be a time like \"02:00 UTC\", or \"off\", not {}", value.describe())),
            },
            Kind::List(rule) => members(value, |item| text(item, rule)),
            Kind::Paths => members(value, path),
            Kind::Command => command(value).map(drop),
        }
    }
}

fn text(value: &Value, rule: Rule) -> Result<(), String> {
    match value.as_text() {
        Some(text) => rule(text).map_err(|expected| format!("must be {expected}, not {text:?}")),
        None => Err(format!("must be text in quotes, not {}", value.describe())),
    }
}

fn among(value: &Value, words: &[&str], hidden: &[&str]) -> Result<(), String> {
    if value.as_text().is_some_and(|text| words.contains(&text) || hidden.contains(&text)) {
        return Ok(());
    }
    let offered = words.iter().map(|word| format!("\"{word}\"")).collect::<Vec<_>>().join(", ");
    let near = value.as_text().and_then(|text| super::schema::nearest(text, words.iter().copied()));
    let guess = near.map(|word| format!("; did you mean \"{word}\"?")).unwrap_or_default();
    Err(format!("must be one of {offered}, not {}{guess}", value.describe()))
}

fn path(value: &Value) -> Result<(), String> {
    let Some(text) = value.as_text() else {
        return Err(format!("must be an absolute path in quotes, not {}", value.describe()));
    };
    let path = Path::new(text);
    if !path.is_absolute() || text.chars().any(char::is_control) {
        return Err(format!("must be an absolute path, not {text:?}"));
    }
    if path.components().any(|component| component == Component::ParentDir) {
        return Err(format!("must be a path without \"..\", not {text:?}"));
    }
    Ok(())
}

fn members(value: &Value, judge: impl Fn(&Value) -> Result<(), String>) -> Result<(), String> {
    match value {
        Value::List(items) => items.iter().try_for_each(judge),
        Value::Text(_) => judge(value),
        other => Err(format!("must be a list like [\"a\", \"b\"], not {}", other.describe())),
    }
}

fn size_in_range(value: &Value, min: u64, zero: bool) -> Result<(), String> {
    match size(value) {
        Some(0) if zero => Ok(()),
        Some(size) if size >= min => Ok(()),
        Some(_) => Err(format!("must be at least {}, not {}", bytes::human(min), value.describe())),
        None => Err(format!("must be a size like \"200MB\" or \"10GiB\", not {}", value.describe())),
    }
}

fn span_in_range(value: &Value, min: u64, off: bool) -> Result<(), String> {
    let or_off = if off { ", or \"off\"" } else { "" };
    match span(value) {
        Some(span) if span.as_secs() >= min => Ok(()),
        Some(_) => Err(format!("must be at least {min} s, not {}", value.describe())),
        None if off && value.as_text() == Some("off") => Ok(()),
        None => Err(format!("must be a duration like \"15min\" or \"14d\"{or_off}, not {}", value.describe())),
    }
}

/// A size, if it is one.
pub fn size(value: &Value) -> Option<u64> {
    match value {
        Value::Integer(number) => u64::try_from(*number).ok(),
        Value::Text(text) => bytes::parse(text).ok(),
        _ => None,
    }
}

/// A span of time, if it is one. A bare number is none, because nobody could tell its unit.
pub fn span(value: &Value) -> Option<Duration> {
    value.as_text().and_then(duration::parse)
}

/// The members of a list of texts; a single text is a list of one.
pub fn texts(value: &Value) -> Vec<String> {
    match value {
        Value::List(items) => items.iter().filter_map(Value::as_text).map(str::to_owned).collect(),
        Value::Text(text) => vec![text.clone()],
        _ => Vec::new(),
    }
}

/// The argument vector of a command, whose program is an absolute path.
pub fn command(value: &Value) -> Result<Vec<String>, String> {
    let arguments = match value {
        Value::Text(text) => command_line::split(text)?,
        Value::List(items) if items.iter().all(|item| item.as_text().is_some()) => texts(value),
        other => return Err(format!("must be a command as text or as a list of texts, not {}", other.describe())),
    };
    match arguments.first() {
        None => Err("must be a command, not nothing".to_owned()),
        Some(program) if !PathBuf::from(program).is_absolute() => {
            Err(format!("must begin with the absolute path of a program, not {program:?}"))
        }
        Some(_) if arguments.iter().any(|argument| argument.contains('\0')) => Err("must not hold NUL".to_owned()),
        Some(_) => Ok(arguments),
    }
}
