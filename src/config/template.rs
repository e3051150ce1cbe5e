//! `config template`: every key with its default or an example, commented out, so that the file says nothing until
//! somebody takes a `#` away. Made from the table of keys.

use super::schema::{Fallback, KEYS, Key, Standing};

/// A table of the template: its header, the table of keys' name for it, the kind or type it shows, and what it is.
pub struct Section {
    /// As TOML writes it: `repository.main`; empty for the top of the file.
    pub header: &'static str,
    /// As the table of keys writes it: `repository.*`.
    pub table: &'static str,
    /// Only keys of this kind or type; empty where there is no difference.
    pub kind: &'static str,
    /// What it is for.
    pub about: &'static str,
}

const fn section(header: &'static str, table: &'static str, kind: &'static str, about: &'static str) -> Section {
    Section { header, table, kind, about }
}

/// The tables in their order; template and reference share them.
#[rustfmt::skip]
pub const SECTIONS: &[Section] = &[
    section("", "", "", "Before the first table."),
    section("repository.main", "repository.*", "local", "A directory of this host. Backups are written to several repositories at once; without any, there is `main`, below `state_directory`."),
    section("repository.offsite", "repository.*", "s3", "A bucket of any store that speaks S3. `bucket`, `prefix` and the rest may stand in one `url`."),
    section("encryption", "encryption", "", "Keys. Without the passphrase nothing can be restored: keep it in two other places."),
    section("compression", "compression", "", "Compression, before encryption."),
    section("target.graph", "target.*", "neo4j", "A Neo4j database, Community or Enterprise. `kind` is enough where a package is installed."),
    section("target.metrics", "target.*", "postgresql", "A PostgreSQL cluster, with or without TimescaleDB. `kind` is enough where one cluster is installed."),
    section("schedule", "schedule", "", "When, as systemd's OnCalendar= takes it; \"off\" = never by itself."),
    section("retention", "retention", "", "What is kept. The last good chain always is."),
    section("preflight", "preflight", "", "What must hold before a job begins."),
    section("limits", "limits", "", "Bounds."),
    section("slo", "slo", "", "What was promised to those who use the data."),
    section("alerts.mail", "alerts.mail", "", "Alerts by mail. Failures are always in the journal, whatever is said here."),
    section("alerts.webhook", "alerts.webhook", "", "Alerts by an HTTP request."),
    section("alerts.ping", "alerts.ping", "", "A request after each success, for a service that notices silence."),
];

/// Examples that differ from the key's own in one table.
const SAMPLES: &[(&str, &str, &str)] = &[
    ("repository.offsite", "type", "\"s3\""),
    ("target.metrics", "kind", "\"postgresql\""),
    ("target.metrics", "unit", "\"postgresql@15-main.service\""),
    ("target.metrics", "stop_command", "[\"/usr/bin/pg_ctlcluster\", \"15\", \"main\", \"stop\"]"),
    ("target.metrics", "start_command", "\"/usr/bin/pg_ctlcluster 15 main start\""),
];

const HEAD: &str = "\
# Configuration of neo4j-backup-agent: /etc/neo4j-backup/config.toml
#
# Everything here is optional but a target and its kind; `neo4j-backupctl config show --origin` says what is in force
# and from where, `neo4j-backupctl config check` what is wrong. Lines that begin with `#` and no blank are settings:
# take the `#` away, of the table's [header] too. Files in config.d/*.toml are read after this one, in the order of
# their names; the environment has the last word. (later) = checked today, acted upon by a later release.
#
# The smallest useful file:
#
#     [target.graph]
#     kind = \"neo4j\"
#     [target.metrics]
#     kind = \"postgresql\"
";

const TAIL: &str = "
# Any of the tables encryption, compression, schedule, retention, preflight, limits, slo and alerts may be repeated
# below a target, and overrides the shared one there, key by key:
#
#     [target.graph.retention]
#     daily = 30
";

/// The documented template. Every setting in it is commented out.
pub fn template() -> String {
    let mut text = HEAD.to_owned();
    for section in SECTIONS {
        text.push_str(&format!("\n# {}\n", section.about));
        if !section.header.is_empty() {
            text.push_str(&format!("#[{}]\n", section.header));
        }
        let lines: Vec<(String, String)> =
            section.keys().map(|key| (line(section, key), remark(section, key))).collect();
        let width = lines.iter().map(|(line, _)| line.chars().count()).max().unwrap_or_default();
        for (line, remark) in lines {
            text.push_str(&format!("{line:width$}  # {remark}\n"));
        }
    }
    text + TAIL
}

impl Section {
    /// Its keys, without those that only tests use.
    pub fn keys(&self) -> impl Iterator<Item = &'static Key> {
        let visible = |key: &&Key| key.standing != Standing::Hidden && key.table() == self.table;
        KEYS.iter().filter(visible).filter(|key| self.kind.is_empty() || key.serves(self.kind))
    }
}

fn sample(section: &Section, key: &Key) -> &'static str {
    let own = SAMPLES.iter().find(|(header, name, _)| *header == section.header && *name == key.name());
    own.map_or_else(|| key.sample(), |(_, _, sample)| sample)
}

fn line(section: &Section, key: &Key) -> String {
    // What excludes another setting stays prose even when every `#` is taken away.
    let mark = if key.alternative { "# or: " } else { "#" };
    format!("{mark}{} = {}", key.name(), sample(section, key))
}

fn remark(section: &Section, key: &Key) -> String {
    let without = match key.default {
        Fallback::Value(value) if value != sample(section, key) => format!("; default {value}"),
        Fallback::Discovered(how) | Fallback::Unset(how) => format!("; without it: {how}"),
        _ => String::new(),
    };
    let later = if key.standing == Standing::Later { " (later)" } else { "" };
    format!("{}{}{later}", key.about, without.replace('`', ""))
}
