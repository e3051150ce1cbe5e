//! What people are shown: `config show`, the template, the reference.

use super::{FakeHost, name};
use crate::config::schema::{KEYS, Standing};
use crate::config::{Settings, reference, template};

const CONFIG: &str = "\
environment = 'staging'

[repository.main]
path = '/backup'
[repository.offsite]
url = 's3://db-backups/%H?region=eu-central-1'

[target.graph]
kind = 'neo4j'
stop_command = \"/bin/ctl stop 'a b'\"
start_command = ['/bin/ctl', 'start']
[target.graph.retention]
daily = 30
[target.graph.alerts.mail]
to = 'ops@example.net'
[target.metrics]
kind = 'postgresql'
repositories = ['offsite']
";

fn host() -> FakeHost {
    let host = FakeHost::with(CONFIG);
    host.install_neo4j().install_cluster("15", "main", 5433);
    host.file("/etc/neo4j-backup/config.d/50-limits.toml", "[limits]\nmemory = '150MB'\n");
    host.variable("BACKUP_RETENTION_DAYS", "30").variable("NEO4J_BACKUP__COMPRESSION__LEVEL", "9")
}

#[test]
fn every_value_is_shown_with_its_origin() {
    let host = host();
    insta::assert_snapshot!("show_origin", host.plain(&host.load().show(true)));
}

#[test]
fn what_is_shown_means_the_same_when_it_is_read() {
    let host = host();
    let loaded = host.load();
    for origin in [false, true] {
        let copy = FakeHost::with(&loaded.show(origin));
        copy.install_neo4j().install_cluster("15", "main", 5433);
        assert_eq!(copy.settings(), loaded.settings);
    }
    assert!(!loaded.show(false).contains('#'), "{}", loaded.show(false));
}

#[test]
fn settings_that_nothing_acts_on_yet_are_called_so() {
    let loaded = host().variable("NEO4J_BACKUP__SLO__RPO", "1h").load();
    let warning = loaded.warnings.iter().find(|text| text.contains("does not act on it yet")).expect("warning");
    for said in ["slo.rpo (environment NEO4J_BACKUP__SLO__RPO)", "target.graph.alerts.mail.to ("] {
        assert!(warning.contains(said), "{warning}");
    }
    // `cleanup` acts on these.
    assert!(!warning.contains("retention"), "{warning}");
    // Defaults are nobody's wish.
    assert!(!warning.contains("schedule.full"), "{warning}");
}

/// Takes the `#` from every line that is a setting or a header.
fn uncommented(template: &str) -> String {
    let line = |line: &str| match line.strip_prefix('#') {
        Some(rest) if !rest.starts_with(' ') => rest.to_owned(),
        _ => line.to_owned(),
    };
    template.lines().map(line).collect::<Vec<_>>().join("\n")
}

// req: D8
#[test]
fn the_template_says_nothing_until_a_mark_is_taken_away() {
    let loaded = FakeHost::with(&template()).load();
    let empty = FakeHost::with("").load();
    assert_eq!(loaded.settings, empty.settings);
}

// req: D8
#[test]
fn the_uncommented_template_is_a_valid_configuration_with_every_key() {
    let text = uncommented(&template());
    let settings: Settings = FakeHost::with(&text).settings();
    assert_eq!(settings.targets.len(), 2);
    assert_eq!(settings.targets[&name("metrics")].repositories, ["main", "offsite"]);
    for key in KEYS.iter().filter(|key| key.standing != Standing::Hidden) {
        let setting = format!("\n{} = ", key.name());
        let alternative = format!("\n# or: {} = ", key.name());
        let wanted = if key.alternative { &alternative } else { &setting };
        assert!(text.contains(wanted.as_str()), "{} is not in the template", key.path);
    }
    assert!(!template().contains("sim"), "the simulated database is for tests alone");
}

/// Defaults that the template states are the defaults.
#[test]
fn the_templates_shared_tables_change_nothing() {
    let text = uncommented(&template());
    let shared: String = text
        .split_inclusive('\n')
        .scan(String::new(), |table, line| {
            if line.starts_with('[') {
                *table = line.trim().to_owned();
            }
            let kept =
                !table.starts_with("[target") && !table.starts_with("[repository") && !table.starts_with("[alerts");
            Some(if kept { line } else { "" })
        })
        .collect();
    let mut settings = FakeHost::with(&shared).settings();
    // The one example that is no default.
    assert!(shared.contains("days = 30"));
    settings.targets.clear();
    assert_eq!(settings, FakeHost::with("").settings());
}

#[test]
fn the_reference_lists_what_the_table_of_keys_has() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/CONFIGURATION.md");
    let document = std::fs::read_to_string(path).expect("docs/CONFIGURATION.md");
    let current = reference::insert_into(&document).expect("marks of the generated part");
    if std::env::var_os("UPDATE_REFERENCE").is_some() {
        std::fs::write(path, &current).expect("write");
    }
    assert!(current == document, "docs/CONFIGURATION.md is not current: run this test with UPDATE_REFERENCE=1");
    for key in KEYS.iter().filter(|key| key.standing != Standing::Hidden) {
        assert!(document.contains(&format!("\n| `{}` | ", key.name())), "{}", key.path);
    }
}
