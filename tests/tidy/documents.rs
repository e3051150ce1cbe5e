//! Documents beside the code: links that lead somewhere, the table of errors, no notes to self, scripts that stop at errors.

use super::source::Finding;
use neo4j_backup_agent::base::error::{Code, RetryClass};
use std::path::Path;

/// Where the generated part of `docs/ERRORS.md` begins.
const TABLE_BEGIN: &str = "<!-- The table is generated: UPDATE_DOCS=1 cargo test --release --test tidy -->\n";
/// Where it ends.
const TABLE_END: &str = "<!-- End of the table. -->\n";

/// Relative links in Markdown lead to a file or directory, and their anchors to a heading. `exists` and `read` look
/// at paths from the root of the checkout.
pub(crate) fn links_resolve(
    documents: &[(String, String)],
    exists: &dyn Fn(&str) -> bool,
    read: &dyn Fn(&str) -> Option<String>,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, text) in documents {
        let directory = Path::new(path).parent().unwrap_or(Path::new(""));
        for (line, target) in links(text) {
            if target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            let (file, anchor) = target.split_once('#').unwrap_or((&target, ""));
            let full = if file.is_empty() { path.clone() } else { normal(&directory.join(file)) };
            if !exists(&full) {
                findings.push(Finding::new(path, line, format!("link to {target}: there is no {full}")));
            } else if !anchor.is_empty() && !read(&full).is_some_and(|text| anchors(&text).iter().any(|a| a == anchor))
            {
                findings.push(Finding::new(path, line, format!("link to {target}: {full} has no such heading")));
            }
        }
    }
    findings
}

/// Lines of a document outside fenced code, with their numbers.
fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut fenced = false;
    text.lines().enumerate().map(|(index, line)| (index + 1, line)).filter(move |(_, line)| {
        let fence = line.trim_start().starts_with("```");
        fenced ^= fence;
        !fenced && !fence
    })
}

/// The targets of `[text](target)`, with their lines.
fn links(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (number, line) in prose(text) {
        for (index, piece) in line.split("](").enumerate() {
            if let (true, Some((target, _))) = (index > 0, piece.split_once(')')) {
                found.push((number, target.to_owned()));
            }
        }
    }
    found
}

/// The anchors that a Markdown page's headings get.
fn anchors(text: &str) -> Vec<String> {
    let slug = |heading: &str| -> String {
        let kept = heading.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
        kept.collect::<String>().trim().to_lowercase().replace(' ', "-")
    };
    prose(text).filter(|(_, line)| line.starts_with('#')).map(|(_, line)| slug(line.trim_start_matches('#'))).collect()
}

/// `a/../b` is `b`.
fn normal(path: &Path) -> String {
    let mut parts: Vec<String> = Vec::new();
    for part in path.components().map(|c| c.as_os_str().to_string_lossy().into_owned()) {
        match part.as_str() {
            "." => {}
            ".." => drop(parts.pop()),
            _ => parts.push(part),
        }
    }
    parts.join("/")
}

/// No notes to self: what is left undone is said where its user reads it.
pub(crate) fn no_notes_to_self(files: &[(String, String)]) -> Vec<Finding> {
    // In pieces, so that this file does not find itself.
    let notes = [["TO", "DO"].concat(), ["FIX", "ME"].concat(), ["XX", "X"].concat(), ["HA", "CK"].concat()];
    let mut findings = Vec::new();
    for (path, text) in files {
        for (index, line) in text.lines().enumerate() {
            for note in notes.iter().filter(|note| !super::source::occurrences(line, note).is_empty()) {
                findings.push(Finding::new(path, index + 1, format!("{note}: do it, or say it to the user")));
            }
        }
    }
    findings
}

/// A script that goes on after an error reports success it did not have.
pub(crate) fn scripts_stop_at_errors(files: &[(String, String)]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, text) in files {
        let first = text.lines().next().unwrap_or_default();
        let strict = match first {
            "#!/usr/bin/env bash" | "#!/bin/bash" => text.contains("\nset -euo pipefail\n"),
            "#!/bin/sh" => text.contains("\nset -eu\n"),
            _ => false,
        };
        if !strict {
            let text = "a script begins with `#!/usr/bin/env bash` and sets `-euo pipefail`, or with `#!/bin/sh` and sets `-eu`";
            findings.push(Finding::new(path, 1, text));
        }
    }
    findings
}

/// The table of `docs/ERRORS.md`, made from the registry.
pub(crate) fn error_table() -> String {
    let mut table = "| number | name | exit | again? | D-Bus | what to do |\n|---|---|---|---|---|---|\n".to_owned();
    for code in Code::ALL {
        let again = match code.retry() {
            RetryClass::Never => "no",
            RetryClass::Later => "later",
            RetryClass::Probe => "hourly",
        };
        table.push_str(&format!(
            "| {} | `{}` | {} | {again} | `{}` | {} |\n",
            code.number(),
            code.name(),
            code.exit(),
            code.dbus_name(),
            code.hint().replace('|', "\\|"),
        ));
    }
    table
}

/// `document` with its generated part replaced; `None` if its marks are not there.
pub(crate) fn with_table(document: &str, table: &str) -> Option<String> {
    let begin = document.find(TABLE_BEGIN)? + TABLE_BEGIN.len();
    let end = begin + document[begin..].find(TABLE_END)?;
    Some(format!("{}\n{table}\n{}", &document[..begin], &document[end..]))
}

/// The document lists every code of the registry with its number, exit, hint, and none more.
pub(crate) fn errors_are_documented(document: &str, table: &str) -> Vec<Finding> {
    const PATH: &str = "docs/ERRORS.md";
    let Some(wanted) = with_table(document, table) else {
        return vec![Finding::new(PATH, 0, format!("lacks the lines {TABLE_BEGIN:?} and {TABLE_END:?}"))];
    };
    if wanted == document {
        return Vec::new();
    }
    let (have, want): (Vec<_>, Vec<_>) = (document.lines().collect(), wanted.lines().collect());
    let mut findings = Vec::new();
    for row in want.iter().filter(|row| !have.contains(row)) {
        findings.push(Finding::new(PATH, 0, format!("lacks: {row}")));
    }
    for (index, row) in have.iter().enumerate().filter(|(_, row)| !want.contains(row)) {
        findings.push(Finding::new(PATH, index + 1, format!("is not in the registry: {row}")));
    }
    findings.push(Finding::new(PATH, 0, "UPDATE_DOCS=1 cargo test --release --test tidy writes the table anew"));
    findings
}

#[test]
fn a_dead_link_is_found() {
    let text = "[a](b.md) [c](gone.md)\n[d](b.md#a-heading) [e](#nowhere) [f](https://example.net/x)\n```\n[g](gone.md)\n```\n";
    let documents = [("docs/a.md".to_owned(), text.to_owned())];
    let exists = |path: &str| ["docs/a.md", "docs/b.md"].contains(&path);
    let read = |path: &str| (path == "docs/b.md").then(|| "# A heading\n".to_owned());
    let found = links_resolve(&documents, &exists, &read);
    assert_eq!(found.iter().map(|f| f.line).collect::<Vec<_>>(), [1, 2]);
    assert!(found[0].text.contains("docs/gone.md") && found[1].text.contains("#nowhere"), "{found:?}");
    assert_eq!(normal(Path::new("docs/../README.md")), "README.md");
    assert_eq!(anchors("## What it can't do, yet\n"), ["what-it-cant-do-yet"]);
}

#[test]
fn a_note_to_self_is_found() {
    let note = format!("fine\n// {}DO: later\nMETHODOLOGY\n", "TO");
    let found = no_notes_to_self(&[("src/x.rs".to_owned(), note)]);
    assert_eq!(found.iter().map(|f| f.line).collect::<Vec<_>>(), [2]);
}

#[test]
fn a_lax_script_is_found() {
    let found = |text: &str| scripts_stop_at_errors(&[("scripts/x.sh".to_owned(), text.to_owned())]).len();
    assert_eq!(found("#!/usr/bin/env bash\nset -euo pipefail\n"), 0);
    assert_eq!(found("#!/bin/sh\n# why\nset -eu\n"), 0);
    for lax in ["#!/usr/bin/env bash\nset -e\n", "#!/bin/sh\n", "set -euo pipefail\n", ""] {
        assert_eq!(found(lax), 1, "{lax}");
    }
}

#[test]
fn an_error_that_is_not_documented_is_found() {
    let table = error_table();
    let document = with_table(&format!("# E\n{TABLE_BEGIN}{TABLE_END}end\n"), &table).expect("marks");
    assert_eq!(errors_are_documented(&document, &table), []);
    let row = table.lines().find(|line| line.contains("`WRONG_KEY`")).expect("row");
    let without = document.replace(&format!("{row}\n"), "");
    assert!(errors_are_documented(&without, &table).iter().any(|f| f.text.contains("WRONG_KEY")));
    let more = document.replace(row, &format!("{row}\n| 999 | `MADE_UP` | 1 |"));
    assert!(errors_are_documented(&more, &table).iter().any(|f| f.text.contains("MADE_UP") && f.line > 0));
    let other_exit = document.replace("| `WRONG_KEY` | 12 |", "| `WRONG_KEY` | 13 |");
    assert!(!errors_are_documented(&other_exit, &table).is_empty());
    assert!(!errors_are_documented("# E\n", &table).is_empty());
}
