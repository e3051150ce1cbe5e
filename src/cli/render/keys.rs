//! `key list`.

use super::super::output::{Output, lines};
use crate::operation::answer::{KeyRecord, RotateReport};

pub(super) fn keys(keys: &[KeyRecord], output: &Output) -> String {
    if keys.is_empty() {
        return "there is no key; `neo4j-backupctl key new --output FILE` makes one".to_owned();
    }
    let mut table = output.table(&["KEY", "USE", "PASSPHRASE", "BACKUPS"]);
    for key in keys {
        let purpose = if key.current { "new backups" } else { "older backups" };
        let passphrase = if key.at_hand { "at hand" } else { "NOT HERE" };
        table.add_row([key.id.clone(), purpose.to_owned(), passphrase.to_owned(), key.backups.to_string()]);
    }
    lines(&table)
}

pub(super) fn rotated(report: &RotateReport) -> String {
    let mut text = String::new();
    for key in &report.keys {
        let (file, from, kept) = (key.file.display(), &key.from, key.kept_as.display());
        let kept_in = match key.repositories.is_empty() {
            true => String::new(),
            false => format!(" and, encrypted under the new one, in {}", key.repositories.join(", ")),
        };
        text += &match &key.to {
            Some(to) => format!("{file}: key {to} makes new backups; key {from} is kept in {kept}{kept_in}\n"),
            None => format!("{file}: key {from} would be kept in {kept}{kept_in}\n"),
        };
    }
    text += match report.dry_run {
        true => "nothing was changed",
        false => {
            "put a copy of the new passphrase where you keep the old one: without it, backups made from now on are lost"
        }
    };
    text
}
