//! `config show`: every value in force, as TOML that can be read back, on demand with where each came from.

use super::schema::{self, OVERRIDABLE};
use super::value::{Origin, Values};
use std::collections::BTreeMap;

/// Origins line up behind the values of a table, unless a value is longer than this many characters.
const ALIGN_MAX: usize = 56;

/// A line, where it stands in its table, and where it comes from.
type Line<'v> = (usize, String, &'v Origin);

/// The values as TOML, grouped by table in the order of the reference.
pub fn show(values: &Values, origin: bool) -> String {
    let mut tables: BTreeMap<(usize, String), Vec<Line<'_>>> = BTreeMap::new();
    for (path, (value, origin)) in values {
        let (table, name) = path.rsplit_once('.').unwrap_or(("", path));
        let line = format!("{name} = {value}");
        tables.entry((rank(table), table.to_owned())).or_default().push((position(path), line, origin));
    }
    let mut text = String::new();
    for ((_, table), mut lines) in tables {
        lines.sort();
        if !table.is_empty() {
            text.push_str(if text.is_empty() { "" } else { "\n" });
            text.push_str(&format!("[{table}]\n"));
        }
        let lengths = lines.iter().map(|(_, line, _)| line.chars().count());
        let width = lengths.filter(|length| *length <= ALIGN_MAX).max().unwrap_or_default();
        for (_, line, from) in lines {
            let comment = if origin { format!("  # {from}") } else { String::new() };
            let padded = if origin { format!("{line:width$}") } else { line };
            text.push_str(&format!("{padded}{comment}\n"));
        }
    }
    text
}

/// The top level, the repositories, the shared tables, the targets.
fn rank(table: &str) -> usize {
    let first = table.split('.').next().unwrap_or_default();
    match first {
        "" => 0,
        "repository" => 1,
        "target" => 3 + OVERRIDABLE.len(),
        other => 2 + OVERRIDABLE.iter().position(|name| *name == other).unwrap_or(OVERRIDABLE.len()),
    }
}

/// Where the key stands in the table of keys.
fn position(path: &str) -> usize {
    let parts: Vec<&str> = path.split('.').collect();
    let first = schema::keys_at(&parts).first().map(|key| key.path);
    schema::KEYS.iter().position(|key| Some(key.path) == first).unwrap_or(usize::MAX)
}
