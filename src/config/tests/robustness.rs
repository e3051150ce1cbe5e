//! No text and no environment makes the loader panic, and what it accepts keeps its promises.

use super::super::schema::{self, KEYS, OVERRIDABLE, Standing};
use super::super::{Input, Loaded, Sources, problem::ConfigError};
use crate::config::settings::*;
use proptest::prelude::*;
use std::path::{Path, PathBuf};

fn load_texts(texts: &[&str], environment: Vec<(String, String)>) -> Result<Loaded, ConfigError> {
    let root = PathBuf::from("/nonexistent");
    let sources = Sources { main: "/c.toml".into(), fragments: "/c.d".into(), environment, root };
    let files = texts.iter().enumerate().map(|(index, text)| (Path::new("/").join(index.to_string()), (*text).into()));
    Input { files: files.collect(), ..Input::default() }.load(&sources)
}

/// A value of some kind, often of the wrong one.
fn value() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<i64>().prop_map(|number| number.to_string()),
        any::<bool>().prop_map(|flag| flag.to_string()),
        any::<f64>().prop_filter("TOML has it", |f| f.is_finite()).prop_map(|number| format!("{number:e}")),
        "\\PC{0,20}".prop_map(|text| toml::Value::String(text).to_string()),
        proptest::sample::select(KEYS)
            .prop_map(|key| if key.sample().is_empty() { "[]" } else { key.sample() }.to_owned()),
        "['\"a-z0-9{}\\[\\],=. ]{0,12}",
    ]
}

fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("graph".to_owned()),
        Just("main".to_owned()),
        "[a-z_]{1,8}",
        "\\PC{0,8}".prop_map(|text| toml::Value::String(text).to_string()),
    ]
}

/// `path = value` for a key that exists, sometimes below a target, or for one that does not.
fn line() -> impl Strategy<Value = String> {
    let key = prop_oneof![
        8 => proptest::sample::select(KEYS).prop_map(|key| key.path.to_owned()),
        2 => proptest::sample::select(KEYS).prop_map(|key| format!("target.*.{}", key.path)),
        1 => "[a-z_.]{1,20}",
    ];
    (key, name(), value()).prop_map(|(key, name, value)| format!("{} = {value}\n", key.replace('*', &name)))
}

/// `path = value` that is good by itself; several may still contradict each other.
fn good_line() -> impl Strategy<Value = String> {
    let good = |key: &&schema::Key| key.standing != Standing::Hidden && key.serves("neo4j") && !key.alternative;
    let keys: Vec<schema::Key> = KEYS.iter().filter(good).copied().collect();
    (proptest::sample::select(keys), any::<bool>()).prop_map(|(key, below_target)| {
        let path = key.path.replace('*', "graph");
        let shared = OVERRIDABLE.iter().any(|table| path.starts_with(table));
        let path = if shared && below_target { format!("target.graph.{path}") } else { path };
        format!("{path} = {}\n", key.sample().replace("\"main\", \"offsite\"", "\"graph\""))
    })
}

fn hold_promises(loaded: &Loaded) {
    let settings = &loaded.settings;
    assert!(!settings.repositories.is_empty());
    assert!(settings.state_directory.is_absolute());
    for target in settings.targets.values() {
        assert!(!target.repositories.is_empty());
        assert!(target.repositories.iter().all(|name| settings.repositories.contains_key(name)));
        assert!(target.preflight.minimum_free_percent < 100 && target.limits.memory >= 64 << 20);
        let encryption = &target.encryption;
        assert!(encryption.iterations >= 100_000 || encryption.allow_low_iterations);
        assert!(encryption.method != EncryptionMethod::None || encryption.signing_file.is_some());
        assert!(encryption.passphrase.path().is_absolute());
        if let DatabaseSettings::Neo4j(neo4j) = &target.database {
            assert!([&neo4j.home, &neo4j.conf, &neo4j.admin].iter().all(|path| path.is_absolute()));
        }
    }
    for origin in [false, true] {
        let shown = loaded.show(origin);
        shown.parse::<toml::Table>().expect("what is shown is TOML");
        let again = load_texts(&[&shown], Vec::new()).unwrap_or_else(|error| panic!("{error}\n{shown}"));
        assert_eq!(again.settings, loaded.settings, "{shown}");
    }
}

fn judge(outcome: Result<Loaded, ConfigError>) {
    match outcome {
        Ok(loaded) => hold_promises(&loaded),
        Err(error) => {
            assert!(!error.problems.is_empty());
            assert!(error.problems.iter().all(|problem| !problem.to_string().contains('\n')), "{error}");
        }
    }
}

proptest! {
    #[test]
    fn what_is_shown_means_the_same(lines in proptest::collection::vec(good_line(), 0..10)) {
        let mut lines = lines;
        lines.push("target.graph.kind = \"neo4j\"\n".to_owned());
        lines.push("repository.graph.type = \"local\"\n".to_owned());
        lines.sort();
        lines.dedup();
        judge(load_texts(&[&lines.concat()], Vec::new()));
    }

    #[test]
    fn random_settings_never_panic(lines in proptest::collection::vec(line(), 0..12)) {
        let text = lines.concat();
        judge(load_texts(&[&format!("{text}target.graph.kind = \"neo4j\"\n")], Vec::new()));
        judge(load_texts(&[&text, "[target.graph]\nkind = \"postgresql\"\n"], Vec::new()));
        // One line a file, so that a broken line does not hide the others.
        let apart: Vec<&str> = lines.iter().map(String::as_str).collect();
        judge(load_texts(&apart, Vec::new()));
    }

    #[test]
    fn random_text_never_panics(text in "\\PC{0,200}", lines in proptest::collection::vec("[\\[\\]{}=\"'.#a-z0-9 \n\\\\]{0,40}", 0..8)) {
        judge(load_texts(&[&text, &lines.join("\n")], Vec::new()));
    }

    #[test]
    fn random_environments_never_panic(variables in proptest::collection::vec((line(), "\\PC{0,20}"), 0..8)) {
        let upper = |path: &str| path.to_uppercase().replace('.', "__");
        let variables = variables.iter().map(|(line, extra)| {
            let (path, value) = line.split_once(" = ").unwrap_or((line, extra));
            (format!("NEO4J_BACKUP__{}", upper(path)), value.trim().to_owned())
        });
        let common = ["BACKUP_SCHEDULE", "BACKUP_RETENTION_DAYS", "NEO4J_BACKUP_MODE", "BACKUP_ALERT_EMAIL"];
        let variables: Vec<_> = variables.collect();
        let common = variables.iter().zip(common).map(|((_, value), name)| (name.to_owned(), value.clone()));
        let all: Vec<_> = common.chain(variables.clone()).collect();
        judge(load_texts(&["target.graph.kind = 'neo4j'"], all));
    }
}

#[test]
fn deep_nesting_is_refused_by_name() {
    let deep = format!("a = {}1{}", "[".repeat(50_000), "]".repeat(50_000));
    assert!(load_texts(&[&deep], Vec::new()).is_err());
    let dotted = format!("{}a = 1", "a.".repeat(50_000));
    assert!(load_texts(&[&dotted], Vec::new()).is_err());
}
