//! The tree's rules, each a test: layers, sizes, names, what stands where, and documents that match the code.
//! A finding is printed as `file:line: what, and what to do instead`. Each rule is itself tested on small bad samples.

#[path = "tidy/catalog.rs"]
mod catalog;
#[path = "tidy/cloud.rs"]
mod cloud;
#[path = "tidy/cloud_forms.rs"]
mod cloud_forms;
#[path = "tidy/commands.rs"]
mod commands;
#[path = "tidy/documents.rs"]
mod documents;
#[path = "tidy/layers.rs"]
mod layers;
#[path = "tidy/rules.rs"]
mod rules;
#[path = "tidy/source.rs"]
mod source;

use neo4j_backup_agent::telemetry::record::Occasion;
use source::{files, report, root, tree};
use std::fs;

/// Text files of the tree that people wrote: code, scripts, documents, settings.
fn written() -> Vec<(String, String)> {
    let mut written = Vec::new();
    for directory in ["src", "tests", "testing", "docs", "scripts", ".ci", "packaging", "systemd", "debian"] {
        written.extend(files(
            directory,
            &[".rs", ".md", ".sh", ".toml", ".service", ".timer", "run", "README", ".yml", ".tf"],
        ));
    }
    for name in ["Makefile", "Cargo.toml", "deny.toml", "README.md", "CHANGELOG.md", "SECURITY.md"] {
        let text = fs::read_to_string(root().join(name)).unwrap_or_else(|cause| panic!("{name}: {cause}"));
        written.push((name.to_owned(), text));
    }
    written
}

#[test]
fn the_tree_is_found() {
    // The other tests would pass on an empty list.
    let sources = tree();
    assert!(sources.len() > 30, "{} Rust files", sources.len());
    for path in ["src/base/error.rs", "src/lib.rs", "src/bin/neo4j-backupd.rs", "tests/tidy/source.rs"] {
        assert!(sources.iter().any(|source| source.path == path), "{path}");
    }
    assert!(written().iter().any(|(path, _)| path == ".ci/run"));
}

// req: K3
#[test]
fn the_top_level_is_what_was_asked_for() {
    for name in ["Cargo.toml", "src", "packaging", "systemd", "tests", "docs", "README.md", "debian"] {
        assert!(root().join(name).exists(), "{name}");
    }
}

// req: B13
#[test]
fn the_journals_catalog_explains_every_record() {
    let path = "packaging/journal.catalog";
    let text = fs::read_to_string(root().join(path)).expect("the catalog");
    let ids: Vec<&str> = Occasion::ALL.iter().map(|occasion| occasion.message_id()).collect();
    report(catalog::explains_every_record(path, &text, &ids));
}

#[test]
fn layers_import_downwards() {
    report(layers::imports_point_downwards(&tree()));
}

#[test]
fn concrete_drivers_and_stores_are_named_in_one_place() {
    report(layers::concrete_parts_are_named_once(&tree()));
}

#[test]
fn files_are_short() {
    let sources = tree();
    report(rules::files_are_short(&sources));
    report(rules::median_is_low(&sources));
}

#[test]
fn functions_are_short() {
    report(rules::functions_are_short(&tree()));
}

#[test]
fn every_file_says_what_it_is() {
    report(rules::files_say_what_they_are(&tree()));
}

#[test]
fn no_name_is_a_bag() {
    report(rules::no_bags(&tree()));
}

#[test]
fn nothing_stands_where_it_is_banned() {
    report(rules::bans_hold(&tree()));
}

#[test]
fn no_note_to_self_is_left() {
    report(documents::no_notes_to_self(&written()));
}

#[test]
fn scripts_stop_at_errors() {
    let scripts: Vec<_> =
        written().into_iter().filter(|(path, _)| path.ends_with(".sh") || path.starts_with(".ci/")).collect();
    assert!(scripts.len() > 3, "{}", scripts.len());
    report(documents::scripts_stop_at_errors(&scripts));
}

#[test]
fn links_in_documents_lead_somewhere() {
    let documents: Vec<_> = written().into_iter().filter(|(path, _)| path.ends_with(".md")).collect();
    let exists = |path: &str| root().join(path).exists();
    let read = |path: &str| fs::read_to_string(root().join(path)).ok();
    report(documents::links_resolve(&documents, &exists, &read));
}

// req: B11
#[test]
fn what_a_hint_says_to_type_can_be_typed() {
    // The tests name commands of other versions on purpose.
    let shown: Vec<_> = written().into_iter().filter(|(path, _)| !path.starts_with("tests/")).collect();
    report(commands::named_commands_exist(&shown));
}

// req: B11
#[test]
fn every_error_is_documented() {
    let path = root().join("docs/ERRORS.md");
    let table = documents::error_table();
    let document = fs::read_to_string(&path).expect("docs/ERRORS.md");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        let updated = documents::with_table(&document, &table).expect("the table's marks in docs/ERRORS.md");
        fs::write(&path, updated).expect("docs/ERRORS.md");
        return;
    }
    report(documents::errors_are_documented(&document, &table));
}
