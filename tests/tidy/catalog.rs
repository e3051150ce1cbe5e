//! The journal's catalog: an entry for each message id, and none for others.

use super::source::Finding;
use std::collections::BTreeMap;

/// Fields of a record that an entry's text may name.
const FIELDS: [&str; 7] = ["TARGET", "BACKUP_ID", "JOB", "ACTOR", "ERROR_CODE", "BYTES", "DURATION_US"];

/// Every id of `ids` has one entry in `text` (the file at `path`), with a subject, who defined it, a manual page, what
/// happened, and a command to go on with.
pub(crate) fn explains_every_record(path: &str, text: &str, ids: &[&str]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut entries: BTreeMap<&str, (usize, Vec<&str>)> = BTreeMap::new();
    let mut current = None;
    for (index, line) in text.lines().enumerate() {
        if let Some(id) = line.strip_prefix("-- ") {
            if entries.insert(id, (index + 1, Vec::new())).is_some() {
                findings.push(Finding::new(path, index + 1, format!("{id} has two entries: keep one")));
            }
            current = Some(id);
        } else if let Some((_, lines)) = current.and_then(|id| entries.get_mut(id)) {
            lines.push(line);
        }
    }
    for (id, (line, lines)) in &entries {
        if !ids.contains(id) {
            findings.push(Finding::new(path, *line, format!("no record has the id {id}: take the entry out")));
        }
        findings.extend(wrong_with(lines).into_iter().map(|wrong| Finding::new(path, *line, format!("{id}: {wrong}"))));
    }
    let missing = ids.iter().filter(|id| !entries.contains_key(**id));
    findings.extend(missing.map(|id| Finding::new(path, 1, format!("{id} has no entry: write one"))));
    findings
}

fn wrong_with(lines: &[&str]) -> Vec<String> {
    let blank = lines.iter().position(|line| line.is_empty()).unwrap_or(lines.len());
    let (head, body) = (&lines[..blank], lines[blank..].join("\n"));
    let mut wrong = Vec::new();
    for field in ["Subject: ", "Defined-By: neo4j-backup-agent", "Documentation: man:"] {
        if !head.iter().any(|line| line.starts_with(field)) {
            wrong.push(format!("its head has no line `{field}`"));
        }
    }
    if body.trim().split("\n\n").count() < 2 || !body.contains('`') {
        wrong.push("it must say what happened and, in a paragraph of its own, which command to go on with".to_owned());
    }
    if lines.iter().any(|line| line.chars().count() > 80) {
        wrong.push("a line is longer than 80 characters".to_owned());
    }
    let named = lines.iter().flat_map(|line| line.split('@').skip(1).step_by(2));
    wrong.extend(named.filter(|name| !FIELDS.contains(name)).map(|name| format!("no record has a field {name}")));
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "-- 0a\nSubject: Job @JOB@ began\nDefined-By: neo4j-backup-agent\nDocumentation: man:x(1)\n\nIt began.\n\n`x` ends it.\n";

    #[test]
    fn what_is_missing_too_much_or_empty_is_found() {
        let found = |text: &str, ids: &[&str]| explains_every_record("c", text, ids).len();
        assert_eq!(found(GOOD, &["0a"]), 0);
        assert_eq!(found(GOOD, &["0a", "0b"]), 1, "one without an entry");
        assert_eq!(found(GOOD, &[]), 1, "one without a record");
        assert_eq!(found(&format!("{GOOD}{GOOD}"), &["0a"]), 1, "two of one id");
        assert_eq!(found(&GOOD.replace("`x` ends it.\n", ""), &["0a"]), 1, "nothing to go on with");
        assert_eq!(found(&GOOD.replace("Subject", "About"), &["0a"]), 1);
        assert_eq!(found(&GOOD.replace("@JOB@", "@SECRET@"), &["0a"]), 1);
    }
}
