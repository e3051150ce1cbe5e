//! What can be said at all. [`KEYS`] lists every key once: template, reference, nearest names, `config show` and
//! validation all read this one table.

pub use super::keys::KEYS;
use super::kind::Kind;

/// Tables of the top level that may be repeated below a target and override there.
pub const OVERRIDABLE: [&str; 8] =
    ["encryption", "compression", "schedule", "retention", "preflight", "limits", "slo", "alerts"];

/// What holds when a key is not given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fallback {
    /// This value, as TOML writes it.
    Value(&'static str),
    /// It is looked up on the host; says where.
    Discovered(&'static str),
    /// Nothing; says what that means.
    Unset(&'static str),
    /// It must be given.
    Required,
}

/// Whether a key does something already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It does.
    Acts,
    /// It is accepted and validated, and a later release acts on it; whoever sets it is warned.
    Later,
    /// For tests: acts, but stands in no template and no reference.
    Hidden,
}

/// One key.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Its path; `*` stands for a name that is the user's: `target.*.home`.
    pub path: &'static str,
    /// The `kind` of target or `type` of repository it belongs to; empty = every.
    pub only: &'static [&'static str],
    /// What it takes.
    pub kind: Kind,
    /// What holds without it.
    pub default: Fallback,
    /// An example, as TOML writes it; empty = the default is one.
    pub example: &'static str,
    /// What it is for, in one line.
    pub about: &'static str,
    /// Whether it does something already.
    pub standing: Standing,
    /// Whether it excludes another key of the template, which then shows it as prose.
    pub alternative: bool,
}

impl Key {
    /// A key for every kind or type.
    pub const fn new(path: &'static str, kind: Kind, default: Fallback, about: &'static str) -> Key {
        Key { path, only: &[], kind, default, example: "", about, standing: Standing::Acts, alternative: false }
    }

    /// Belongs to these kinds or types.
    pub const fn only(mut self, kinds: &'static [&'static str]) -> Key {
        self.only = kinds;
        self
    }

    /// Has this example.
    pub const fn example(mut self, example: &'static str) -> Key {
        self.example = example;
        self
    }

    /// Is not acted upon yet.
    pub const fn later(mut self) -> Key {
        self.standing = Standing::Later;
        self
    }

    /// Is for tests.
    pub const fn hidden(mut self) -> Key {
        self.standing = Standing::Hidden;
        self
    }

    /// Excludes another key.
    pub const fn alternative(mut self) -> Key {
        self.alternative = true;
        self
    }

    /// The last part of its path.
    pub fn name(&self) -> &'static str {
        self.path.rsplit('.').next().unwrap_or(self.path)
    }

    /// The table it stands in: `target.*`; empty for the top level.
    pub fn table(&self) -> &'static str {
        self.path.rsplit_once('.').map_or("", |(table, _)| table)
    }

    /// Whether it belongs to that kind or type.
    pub fn serves(&self, kind: &str) -> bool {
        self.only.is_empty() || self.only.contains(&kind)
    }

    /// An example value, as TOML writes it.
    pub fn sample(&self) -> &'static str {
        match self.default {
            Fallback::Value(value) if self.example.is_empty() => value,
            _ => self.example,
        }
    }
}

/// The part of a path that the table of keys knows: `target.graph.retention.daily` → `retention.daily`.
pub fn without_override<'a, 'b>(path: &'a [&'b str]) -> &'a [&'b str] {
    match path {
        ["target", _, section, ..] if OVERRIDABLE.contains(section) => &path[2..],
        _ => path,
    }
}

fn matches(pattern: &str, path: &[&str]) -> bool {
    let mut parts = pattern.split('.');
    path.iter().all(|name| parts.next().is_some_and(|part| part == "*" || part == *name)) && parts.next().is_none()
}

fn begins(pattern: &str, path: &[&str]) -> bool {
    let mut parts = pattern.split('.');
    path.iter().all(|name| parts.next().is_some_and(|part| part == "*" || part == *name)) && parts.next().is_some()
}

/// Every key with this path; several where its meaning depends on the kind.
pub fn keys_at(path: &[&str]) -> Vec<&'static Key> {
    let path = without_override(path);
    KEYS.iter().filter(|key| matches(key.path, path)).collect()
}

/// The key with exactly this pattern that serves `kind`. For our own code, which knows what it asks for.
pub fn key(pattern: &str, kind: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.path == pattern && key.serves(kind))
}

/// Whether some key lies below this path.
pub fn is_table(path: &[&str]) -> bool {
    let path = without_override(path);
    KEYS.iter().any(|key| begins(key.path, path))
}

/// The names that may stand in the table at `path`, without the tests' own.
pub fn names_in(path: &[&str], kind: Option<&str>) -> Vec<&'static str> {
    let inner = without_override(path);
    let mut names = Vec::new();
    for key in KEYS.iter().filter(|key| key.standing != Standing::Hidden && begins(key.path, inner)) {
        let name = key.path.split('.').nth(inner.len()).unwrap_or_default();
        if name != "*" && kind.is_none_or(|kind| key.serves(kind)) && !names.contains(&name) {
            names.push(name);
        }
    }
    if matches!(path, ["target", _]) {
        names.extend(OVERRIDABLE);
    }
    names
}

/// The table a key of this name stands in, for somebody who wrote it in the wrong one.
pub fn table_of(name: &str) -> Option<&'static str> {
    let mut found = KEYS.iter().filter(|key| key.standing != Standing::Hidden && key.name() == name);
    let first = found.next()?;
    found.all(|key| key.table() == first.table()).then(|| first.table())
}

/// The name that was probably meant: close by edits, or one that begins with what was written.
pub fn nearest<'a>(written: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let written = written.to_lowercase().replace('-', "_");
    let distance = |name: &str| strsim::damerau_levenshtein(&written, name);
    let near = |name: &str| {
        let edits = (name.len().max(written.len()) / 3).max(1);
        distance(name) <= edits || (written.len() >= 3 && name.starts_with(&written))
    };
    // Long input is never a slip of the pen, and edit distance costs the product of both lengths.
    if written.len() > 64 {
        return None;
    }
    names.into_iter().filter(|name| near(name)).min_by_key(|name| distance(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_described_and_its_values_are_good() {
        for key in KEYS {
            assert!(!key.about.is_empty() && !key.about.ends_with('.'), "{}", key.path);
            if !(key.standing == Standing::Hidden && key.sample().is_empty()) {
                let text = format!("value = {}", key.sample());
                let table = super::super::fragment::parse(std::path::Path::new("/sample"), &text).expect(&text);
                let super::super::value::Node::Leaf(value, _) = &table.entries["value"] else { panic!("{text}") };
                key.kind.check(value).expect(key.path);
            }
            let twins = KEYS.iter().filter(|other| {
                let shared = other.only.is_empty() || key.only.is_empty() || other.only.iter().any(|k| key.serves(k));
                other.path == key.path && shared
            });
            assert_eq!(twins.count(), 1, "{} is listed twice", key.path);
        }
    }

    #[test]
    fn the_nearest_name_is_found() {
        let names = ["retention", "repositories", "bolt", "home"];
        assert_eq!(nearest("retentoin", names), Some("retention"));
        assert_eq!(nearest("hoem", names), Some("home"));
        assert_eq!(nearest("repo", names), Some("repositories"));
        assert_eq!(nearest("BOLT", names), Some("bolt"));
        assert_eq!(nearest("colour", names), None);
        assert_eq!(nearest("", names), None);
    }
}
