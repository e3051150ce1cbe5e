//! Holds the merged tree against the table of keys: unknown names, values of the wrong kind, keys that belong to
//! another kind of target. What passes goes on flat, by its dotted path; everything wrong is collected.

use super::problem::Problem;
use super::schema::{self, Key, Standing};
use super::text_rules;
use super::value::{Node, Origin, Table, Value, Values};
use crate::base::ids::TargetName;
use std::collections::{BTreeMap, BTreeSet};

/// What was said and is well-formed, key by key.
#[derive(Debug, Default)]
pub struct Said {
    /// Values by dotted path.
    pub values: Values,
    /// Tables by dotted path.
    pub tables: BTreeMap<String, Origin>,
    /// Paths of values that were refused, so that nobody also calls them missing.
    pub refused: BTreeSet<String>,
    /// What is wrong.
    pub problems: Vec<Problem>,
    /// Paths of values that this version does not act on, and where they were said.
    pub idle: Vec<(String, Origin)>,
}

/// Checks `tree`.
pub fn validate(tree: &Table) -> Said {
    let mut said = Said::default();
    said.table(&mut Vec::new(), tree, None);
    said
}

/// A path as messages and TOML write it: a part that is no plain word is quoted, so that a message stays one line.
pub fn dotted(path: &[&str]) -> String {
    let plain = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b));
    let part = |part: &&str| if plain(part) { (*part).to_owned() } else { format!("{part:?}") };
    path.iter().map(part).collect::<Vec<_>>().join(".")
}

/// The kind, if some key belongs to it.
fn known(kind: Option<&str>) -> Option<&str> {
    kind.filter(|kind| schema::KEYS.iter().any(|key| key.only.contains(kind)))
}

impl Said {
    fn wrong(&mut self, origin: &Origin, text: String) {
        self.problems.push(Problem::at(origin.clone(), text));
    }

    fn table<'t>(&mut self, path: &mut Vec<&'t str>, table: &'t Table, kind: Option<&'t str>) {
        for (name, node) in &table.entries {
            path.push(name);
            match node {
                Node::Table(inner) => self.inner_table(path, inner, kind),
                Node::Leaf(value, origin) => self.leaf(path, value, origin, kind),
            }
            path.pop();
        }
    }

    fn inner_table<'t>(&mut self, path: &mut Vec<&'t str>, table: &'t Table, kind: Option<&'t str>) {
        if !schema::is_table(path) {
            let text = match schema::keys_at(path).first() {
                Some(_) => format!("{}: must be a value, not a table", dotted(path)),
                None => unknown("table", path, kind),
            };
            return self.wrong(&table.origin, text);
        }
        let kind = match path.as_slice() {
            ["target", name] => {
                if TargetName::new(name).is_err() {
                    let text = format!("target name {name:?} must have 1 to 32 characters out of a-z, 0-9 and _");
                    return self.wrong(&table.origin, text);
                }
                text_of(table, "kind")
            }
            ["repository", name] => {
                if let Err(expected) = text_rules::repository_name(name) {
                    return self.wrong(&table.origin, format!("repository name {name:?} must be {expected}"));
                }
                Some(repository_type(table))
            }
            _ => kind,
        };
        self.tables.insert(dotted(path), table.origin.clone());
        self.table(path, table, kind);
    }

    fn leaf(&mut self, path: &[&str], value: &Value, origin: &Origin, kind: Option<&str>) {
        let dotted = dotted(path);
        let candidates = schema::keys_at(path);
        let Some(first) = candidates.first().copied() else {
            let text = if schema::is_table(path) {
                format!("{dotted}: must be a table, not {}", value.describe())
            } else {
                unknown("key", path, kind)
            };
            return self.wrong(origin, text);
        };
        // A kind that is missing or unknown is reported where it stands; its keys are then judged by any that fits.
        let key = match known(kind) {
            Some(kind) => candidates.iter().find(|key| key.serves(kind)).copied(),
            None => Some(candidates.iter().find(|key| key.kind.check(value).is_ok()).copied().unwrap_or(first)),
        };
        let outcome = match key {
            None => Err(misplaced(path, &candidates, kind.unwrap_or_default())),
            Some(key) => key.kind.check(value).map(|()| key),
        };
        match outcome {
            Ok(key) => {
                if key.standing == Standing::Later && !is_default(key, value) {
                    self.idle.push((dotted.clone(), origin.clone()));
                }
                self.values.insert(dotted, (value.clone(), origin.clone()));
            }
            Err(text) => {
                self.wrong(origin, format!("{dotted}: {text}"));
                self.refused.insert(dotted);
            }
        }
    }
}

fn text_of<'t>(table: &'t Table, key: &str) -> Option<&'t str> {
    match table.entries.get(key) {
        Some(Node::Leaf(Value::Text(text), _)) => Some(text),
        _ => None,
    }
}

/// What a repository is: said, or told by its URL, or local.
fn repository_type(table: &Table) -> &str {
    let by_url = || text_of(table, "url").map(|url| if url.starts_with("s3://") { "s3" } else { "local" });
    text_of(table, "type").or_else(by_url).unwrap_or("local")
}

/// Saying "off" to what is off anyway is no wish that goes unheard.
fn is_default(key: &Key, value: &Value) -> bool {
    key.default == schema::Fallback::Value("\"off\"") && value.as_text() == Some("off")
}

fn misplaced(path: &[&str], candidates: &[&Key], kind: &str) -> String {
    let word = if path.first() == Some(&"repository") { "type" } else { "kind" };
    let owners: Vec<&str> = candidates.iter().flat_map(|key| key.only.iter().copied()).collect();
    format!("is for {word} = \"{}\", and this {word} is {kind:?}", owners.join("\" or \""))
}

fn unknown(what: &str, path: &[&str], kind: Option<&str>) -> String {
    let (name, parent) = path.split_last().map_or(("", path), |(name, parent)| (*name, parent));
    let guess = if let Some(near) = schema::nearest(name, schema::names_in(parent, known(kind))) {
        format!("; did you mean \"{near}\"?")
    } else {
        match schema::table_of(name) {
            Some("") => "; it belongs at the top of the file, before the first table".to_owned(),
            Some(table) => format!("; it belongs in [{}]", table.replace('*', "NAME")),
            None => String::new(),
        }
    };
    match (what, parent) {
        ("table", _) => format!("unknown table [{}]{guess}", dotted(path)),
        (_, []) => format!("unknown {what} {name:?}{guess}"),
        _ => format!("unknown {what} {name:?} in [{}]{guess}", dotted(parent)),
    }
}
