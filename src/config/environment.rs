//! Settings from the environment, for containers: the exact form of any key, and the common names such images use.
//!
//! `NEO4J_BACKUP__TARGET__GRAPH__BOLT=…` is `target.graph.bolt`: levels are separated by two underscores and lower-cased.
//! The common names ([`COMMON`]) are weaker than the exact form, and stronger than every file.

use super::fragment;
use super::problem::Problem;
use super::schema;
use super::value::{Node, Origin, Table, Value};
use super::{calendar, merge::merge};
use toml::de::DeValue;

/// What the exact form begins with.
pub const PREFIX: &str = "NEO4J_BACKUP__";
/// Deepest key: `target.graph.alerts.mail.to`.
const LEVELS_MAX: usize = 5;
/// Tells the way Neo4j is backed up: `full`, `incremental`, or a value of `full`.
const MODE: &str = "NEO4J_BACKUP_MODE";

/// A common name: what it is called, the key it sets, and how its value is understood.
pub struct Common {
    /// The variable.
    pub name: &'static str,
    /// The key, as in the table of keys.
    pub key: &'static str,
    /// What it takes, for people.
    pub takes: &'static str,
    translate: fn(&str) -> Result<Value, String>,
}

/// The common names. An empty value counts as not set.
pub const COMMON: &[Common] = &[
    Common { name: "BACKUP_STORAGE_PATH", key: "repository.main.path", takes: "a directory", translate: text },
    Common {
        name: "BACKUP_SCHEDULE",
        key: "schedule.full",
        takes: "OnCalendar, or cron's five fields",
        translate: time,
    },
    Common {
        name: "BACKUP_INCREMENTAL_SCHEDULE",
        key: "schedule.incremental",
        takes: "OnCalendar, or cron's five fields",
        translate: time,
    },
    Common { name: "BACKUP_ON_START", key: "schedule.at_start", takes: "true, false, yes, no, 1, 0", translate: flag },
    Common { name: "BACKUP_RETENTION_DAYS", key: "retention.days", takes: "a number", translate: number },
    Common {
        name: "BACKUP_COMPRESSION",
        key: "compression.algorithm",
        takes: "gzip, zstd, none; true = gzip, false = none",
        translate: compression,
    },
    Common {
        name: "BACKUP_ALERT_EMAIL",
        key: "alerts.mail.to",
        takes: "addresses, separated by commas",
        translate: list,
    },
    Common { name: "BACKUP_PASSPHRASE_FILE", key: "encryption.passphrase_file", takes: "a path", translate: text },
];

/// The variable for the way Neo4j is backed up, as the reference shows it: name, keys, values.
pub const MODE_DOCUMENTED: (&str, &str, &str) = (
    MODE,
    "target.*.default_type (full, incremental) or target.*.full (online, dump, export, enterprise) of every Neo4j target",
    "one of these words",
);

fn text(value: &str) -> Result<Value, String> {
    Ok(Value::Text(value.to_owned()))
}

fn time(value: &str) -> Result<Value, String> {
    calendar::from_cron(value).map(Value::Text)
}

fn flag(value: &str) -> Result<Value, String> {
    switch(value).map(Value::Flag).ok_or_else(|| format!("must be true or false, not {value:?}"))
}

fn number(value: &str) -> Result<Value, String> {
    value.trim().parse().map(Value::Integer).map_err(|_| format!("must be a whole number, not {value:?}"))
}

fn compression(value: &str) -> Result<Value, String> {
    let word = match switch(value) {
        Some(true) => "gzip".to_owned(),
        Some(false) => "none".to_owned(),
        None => value.trim().to_ascii_lowercase(),
    };
    Ok(Value::Text(word))
}

fn list(value: &str) -> Result<Value, String> {
    Ok(Value::texts(value.split(',').map(str::trim).filter(|item| !item.is_empty())))
}

fn switch(value: &str) -> Option<bool> {
    match value.trim().to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" | "1" => Some(true),
        "false" | "no" | "off" | "0" => Some(false),
        _ => None,
    }
}

/// Puts what the environment says over `tree`.
pub fn apply(variables: &[(String, String)], tree: &mut Table, problems: &mut Vec<Problem>) {
    let (common, exact) = read(variables, problems);
    merge(tree, common);
    merge(tree, exact);
    if let Some((_, value)) = variables.iter().find(|(name, value)| name == MODE && !value.trim().is_empty()) {
        apply_mode(value.trim(), tree);
    }
}

fn read(variables: &[(String, String)], problems: &mut Vec<Problem>) -> (Table, Table) {
    let mut common = Table::new(Origin::Default);
    let mut exact = Table::new(Origin::Default);
    // Names in order, so that the same environment always gives the same messages.
    let mut variables: Vec<_> = variables.iter().collect();
    variables.sort();
    for (name, value) in variables {
        let origin = Origin::Environment(name.clone());
        let known = COMMON.iter().find(|known| known.name == name && !value.trim().is_empty());
        let outcome = if let Some(known) = known {
            let path: Vec<&str> = known.key.split('.').collect();
            (known.translate)(value).and_then(|value| insert(&mut common, &path, value, &origin))
        } else if let Some(rest) = name.strip_prefix(PREFIX) {
            let lowered = rest.to_lowercase();
            let path: Vec<&str> = lowered.split("__").collect();
            if path.len() > LEVELS_MAX || path.contains(&"") {
                Err(format!("is not a key: write {PREFIX}TARGET__GRAPH__BOLT for target.graph.bolt"))
            } else {
                insert(&mut exact, &path, understand(&path, value), &origin)
            }
        } else {
            Ok(())
        };
        if let Err(text) = outcome {
            problems.push(Problem::at(origin, text));
        }
    }
    (common, exact)
}

/// What a variable's text means for the key at `path`: text stays text, whatever it looks like; for a list it may be
/// separated by commas; else it is a TOML value.
fn understand(path: &[&str], written: &str) -> Value {
    let plain = || Value::Text(written.to_owned());
    let parsed = || {
        let value = DeValue::parse(written.trim()).ok()?;
        match fragment::leaf(value.get_ref()) {
            Value::Other(_) => None,
            value => Some(value),
        }
    };
    let Some(key) = schema::keys_at(path).first().copied() else { return plain() };
    match parsed() {
        Some(text @ Value::Text(_)) => text,
        Some(list @ Value::List(_)) if !key.kind.is_textual() => list,
        _ if key.kind.is_list() => Value::texts(written.split(',').map(str::trim).filter(|item| !item.is_empty())),
        Some(value) if !key.kind.is_textual() => value,
        _ => plain(),
    }
}

fn insert(tree: &mut Table, path: &[&str], value: Value, origin: &Origin) -> Result<(), String> {
    let Some((last, tables)) = path.split_last() else { return Ok(()) };
    let mut table = tree;
    for name in tables {
        let node = table.entries.entry((*name).to_owned()).or_insert_with(|| Node::Table(Table::new(origin.clone())));
        match node {
            Node::Table(inner) => table = inner,
            Node::Leaf(_, other) => return Err(format!("contradicts {other}: a value cannot hold another")),
        }
    }
    match table.entries.get((*last).to_owned().as_str()) {
        Some(other) => Err(format!("contradicts {}: both set {}", other.origin(), path.join("."))),
        None => {
            table.entries.insert((*last).to_owned(), Node::Leaf(value, origin.clone()));
            Ok(())
        }
    }
}

/// Every Neo4j target is backed up this way, unless the exact form says otherwise for one.
fn apply_mode(value: &str, tree: &mut Table) {
    let value = value.to_ascii_lowercase();
    let key =
        if matches!(value.as_str(), "online" | "dump" | "export" | "enterprise") { "full" } else { "default_type" };
    let Some(Node::Table(targets)) = tree.entries.get_mut("target") else { return };
    for node in targets.entries.values_mut() {
        let Node::Table(target) = node else { continue };
        let kind = target.entries.get("kind");
        let is_neo4j = matches!(kind, Some(Node::Leaf(Value::Text(kind), _)) if kind == "neo4j");
        let exact = target.entries.get(key).is_some_and(|node| matches!(node.origin(), Origin::Environment(_)));
        if is_neo4j && !exact {
            let leaf = Node::Leaf(Value::Text(value.clone()), Origin::Environment(MODE.to_owned()));
            target.entries.insert(key.to_owned(), leaf);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn applied(variables: &[(&str, &str)]) -> (Table, Vec<String>) {
        let variables: Vec<_> = variables.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        let mut tree = Table::new(Origin::Default);
        let mut problems = Vec::new();
        apply(&variables, &mut tree, &mut problems);
        (tree, problems.iter().map(ToString::to_string).collect())
    }

    fn value(tree: &Table, path: &str) -> Option<Value> {
        let mut table = tree;
        for name in path.split('.') {
            match table.entries.get(name)? {
                Node::Table(inner) => table = inner,
                Node::Leaf(value, _) => return Some(value.clone()),
            }
        }
        None
    }

    #[test]
    fn values_are_understood_by_their_key() {
        let (tree, problems) = applied(&[
            ("NEO4J_BACKUP__ENVIRONMENT", "2026"),
            ("NEO4J_BACKUP__ENCRYPTION__ITERATIONS", "200000"),
            ("NEO4J_BACKUP__REPOSITORY__R__PATH_STYLE", "true"),
            ("NEO4J_BACKUP__TARGET__M__DATABASES", "a, b"),
            ("NEO4J_BACKUP__TARGET__N__DATABASES", "[\"a,b\"]"),
            ("NEO4J_BACKUP__TARGET__M__STOP_COMMAND", "/bin/x 'y z'"),
            ("NEO4J_BACKUP__TARGET__G__BOLT", "\"bolt://h:1\""),
            ("NEO4J_BACKUP__TARGET__G__USER", "[x]"),
            ("HOME", "/root"),
        ]);
        assert_eq!(problems, Vec::<String>::new());
        let expected = [
            ("environment", Value::Text("2026".into())),
            ("encryption.iterations", Value::Integer(200_000)),
            ("repository.r.path_style", Value::Flag(true)),
            ("target.m.databases", Value::texts(["a", "b"])),
            ("target.n.databases", Value::texts(["a,b"])),
            ("target.m.stop_command", Value::Text("/bin/x 'y z'".into())),
            ("target.g.bolt", Value::Text("bolt://h:1".into())),
            ("target.g.user", Value::Text("[x]".into())),
        ];
        for (path, expected) in expected {
            assert_eq!(value(&tree, path), Some(expected), "{path}");
        }
        assert!(!tree.entries.contains_key("home"));
    }

    #[test]
    fn impossible_names_are_reported() {
        let deep = format!("NEO4J_BACKUP__{}", "A__".repeat(10_000));
        let (_, problems) = applied(&[
            (&deep, "1"),
            ("NEO4J_BACKUP__A____B", "1"),
            ("NEO4J_BACKUP__TARGET", "1"),
            ("NEO4J_BACKUP__TARGET__G", "1"),
            ("BACKUP_RETENTION_DAYS", "many"),
        ]);
        assert_eq!(problems.len(), 4, "{problems:?}");
        assert!(problems[0].starts_with("environment BACKUP_RETENTION_DAYS: must be a whole number"), "{problems:?}");
        assert!(problems[3].contains("contradicts environment NEO4J_BACKUP__TARGET:"), "{problems:?}");
    }

    #[test]
    fn empty_common_names_count_as_not_set() {
        let (tree, problems) = applied(&[("BACKUP_ALERT_EMAIL", ""), ("BACKUP_RETENTION_DAYS", " ")]);
        assert!(tree.entries.is_empty() && problems.is_empty());
    }
}
