//! `key list`.

use super::super::output::{Output, lines};
use crate::operation::answer::KeyRecord;

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
