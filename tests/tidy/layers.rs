//! Which module may import which, and who may name the concrete drivers and stores.

use super::source::{Finding, Source, closing, line_of, occurrences};

/// Each top-level module and its layer, as `src/lib.rs` lists them.
const LAYERS: [(&str, u32); 13] = [
    ("base", 0),
    ("artifact", 1),
    ("config", 1),
    ("driver", 2),
    ("pipeline", 2),
    ("repository", 2),
    ("ledger", 2),
    ("telemetry", 2),
    ("host", 2),
    ("operation", 3),
    ("agent", 4),
    ("dbus", 5),
    ("cli", 6),
];

/// The one import within a layer: the client asks through the proxy that stands beside the service.
const WITHIN_A_LAYER: [(&str, &str); 1] = [("cli", "dbus")];

/// What only its own module and the assembly may name: the type, and the module it lives in.
const CONCRETE: [(&str, &str); 6] = [
    ("Neo4jDriver", "driver/neo4j"),
    ("PostgresDriver", "driver/postgres"),
    ("SimDriver", "driver/sim"),
    ("LocalStore", "repository/local"),
    ("MemoryStore", "repository/memory"),
    ("S3Store", "repository/s3"),
];
const ASSEMBLY: &str = "src/agent/assemble.rs";

fn layer(module: &str) -> Option<u32> {
    LAYERS.iter().find(|(name, _)| *name == module).map(|(_, layer)| *layer)
}

/// A layer imports only layers below it; modules of layer 2 do not import `config` either.
pub(crate) fn imports_point_downwards(sources: &[Source]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for source in sources.iter().filter(|s| s.path.starts_with("src/") && !s.path.starts_with("src/bin/")) {
        let module = source.module();
        let Some(&own) = module.first() else { continue };
        let Some(own_layer) = layer(own) else {
            findings.push(Finding::new(&source.path, 1, format!("module `{own}` has no layer: enter it in LAYERS")));
            continue;
        };
        for (at, imported) in imports(source) {
            let Some(imported_layer) = layer(&imported) else { continue };
            let allowed = imported == own
                || WITHIN_A_LAYER.contains(&(own, imported.as_str()))
                || (imported_layer < own_layer && !(own_layer == 2 && imported == "config"));
            if !allowed {
                let text = format!(
                    "`{own}` (layer {own_layer}) imports `{imported}` (layer {imported_layer}): a layer imports only \
                     layers below it, and layer 2 not `config`"
                );
                findings.push(Finding::new(&source.path, line_of(&source.product, at), text));
            }
        }
    }
    findings
}

/// The top-level modules that a file's paths lead to: `crate::x`, `crate::{x, y}`, and `super::…` up to the root.
fn imports(source: &Source) -> Vec<(usize, String)> {
    let code = &source.product;
    let mut found = Vec::new();
    for at in occurrences(code, "crate::") {
        found.extend(heads(code, at + "crate::".len()).into_iter().map(|name| (at, name)));
    }
    let depth = source.module().len();
    for at in occurrences(code, "super::") {
        if code[..at].ends_with("super::") {
            continue;
        }
        let ups = code.as_bytes()[at..].chunks(7).take_while(|chunk| *chunk == b"super::").count();
        if ups == depth {
            found.extend(heads(code, at + ups * "super::".len()).into_iter().map(|name| (at, name)));
        }
    }
    found
}

/// The names at `at`: one, or those of a `{…}` group.
fn heads(code: &str, at: usize) -> Vec<String> {
    let word =
        |text: &str| text.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    if !code[at..].starts_with('{') {
        return vec![word(&code[at..])];
    }
    let end = closing(code, at).unwrap_or(code.len());
    let mut depth = 0;
    code[at + 1..end]
        .split_inclusive(|c| {
            depth += i32::from(c == '{') - i32::from(c == '}');
            c == ',' && depth == 0
        })
        .map(word)
        .collect()
}

/// Only the assembly names concrete drivers and stores, whether by type or by module.
pub(crate) fn concrete_parts_are_named_once(sources: &[Source]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let ordinary = |s: &&Source| s.path.starts_with("src/") && !s.path.starts_with("src/bin/") && s.path != ASSEMBLY;
    for source in sources.iter().filter(ordinary) {
        for (name, home) in CONCRETE {
            let inside = source.path.starts_with(&format!("src/{home}"));
            let (parent, child) = home.split_once('/').expect("a module within a module");
            let path = format!("{parent}::{child}");
            for needle in [name, path.as_str()] {
                for at in occurrences(&source.product, needle).into_iter().filter(|_| !inside) {
                    let text = format!("`{needle}` is concrete: only {ASSEMBLY} names it, others take the trait");
                    findings.push(Finding::new(&source.path, line_of(&source.product, at), text));
                }
            }
        }
    }
    findings
}

#[test]
fn an_import_upwards_or_sideways_is_found() {
    let found = |path: &str, text: &str| {
        imports_point_downwards(&[Source::new(path, text)]).iter().map(|f| f.line).collect::<Vec<_>>()
    };
    assert_eq!(found("src/base/x.rs", "\nuse crate::artifact::digest;\n"), [2]);
    assert_eq!(found("src/driver/neo4j/x.rs", "use crate::{\n    base::{Code, Error},\n    ledger,\n};\n"), [1]);
    assert_eq!(found("src/driver/mod.rs", "fn f(_: crate::config::Settings) {}\n"), [1]);
    assert_eq!(found("src/host/mod.rs", "use super::driver::Driver;\n"), [1]);
    assert_eq!(found("src/driver/sim/x.rs", "use super::super::super::agent::Job;\n"), [1]);
    assert_eq!(found("src/dbus/x.rs", "use crate::cli;\n"), [1]);
    assert_eq!(found("src/stray/x.rs", ""), [1]);
}

#[test]
fn an_import_downwards_is_fine() {
    let text = "use crate::{base::{Code, ids}, artifact::manifest};\nuse super::Driver;\n// crate::agent\n\
                #[cfg(test)]\nmod tests { use crate::agent::Job; }\nconst X: &str = \"crate::cli\";\n";
    assert_eq!(imports_point_downwards(&[Source::new("src/driver/sim/mod.rs", text)]), []);
    assert_eq!(imports_point_downwards(&[Source::new("src/operation/x.rs", "use crate::config::Settings;\n")]), []);
    assert_eq!(imports_point_downwards(&[Source::new("src/cli/x.rs", "use crate::dbus::proxy;\n")]), []);
    assert_eq!(imports_point_downwards(&[Source::new("src/bin/x.rs", "use neo4j_backup_agent::cli;\n")]), []);
}

#[test]
fn a_concrete_part_named_elsewhere_is_found() {
    let found = |path: &str| {
        let text = "use crate::driver::postgres::PostgresDriver;\n";
        concrete_parts_are_named_once(&[Source::new(path, text)]).len()
    };
    assert_eq!(found("src/operation/backup.rs"), 2);
    assert_eq!(found(ASSEMBLY), 0);
    assert_eq!(found("src/driver/postgres/mod.rs"), 0);
}
