//! Tries every secret file that the settings name, without keeping what is in it.

use super::settings::{AlertSettings, DatabaseSettings, EncryptionMethod, EncryptionSettings, Settings, UrlSource};
use crate::base::Result;
use crate::base::secret::{read_first_line, read_passphrase};
use std::collections::BTreeSet;
use std::path::Path;

/// What is wrong with the secret files, a line each: missing, readable by others, too short. Empty = all are good.
pub fn check_secrets(settings: &Settings) -> Vec<String> {
    let mut check = SecretCheck::default();
    check.encryption("encryption", &settings.encryption, settings.targets.is_empty());
    for target in settings.targets.values() {
        let table = format!("target.{}", target.name);
        check.encryption("encryption", &target.encryption, true);
        if let DatabaseSettings::Neo4j(neo4j) = &target.database
            && let Some(path) = &neo4j.password_file
        {
            check.line(&format!("{table}.password_file"), path);
        }
        check.alerts(&target.alerts);
    }
    check.problems
}

#[derive(Default)]
struct SecretCheck {
    tried: BTreeSet<std::path::PathBuf>,
    problems: Vec<String>,
}

impl SecretCheck {
    fn attempt<T>(&mut self, what: &str, path: &Path, read: impl FnOnce(&Path) -> Result<T>) {
        if self.tried.insert(path.to_owned())
            && let Err(error) = read(path)
        {
            self.problems.push(format!("{what}: {} (hint: {})", error.message(), error.hint()));
        }
    }

    fn line(&mut self, what: &str, path: &Path) {
        self.attempt(what, path, read_first_line);
    }

    /// `in_use`: some target relies on it, so that it must be there.
    fn encryption(&mut self, table: &str, encryption: &EncryptionSettings, in_use: bool) {
        if in_use && encryption.method != EncryptionMethod::None {
            self.attempt(&format!("{table}.passphrase_file"), encryption.passphrase.path(), read_passphrase);
        }
        for path in &encryption.older {
            self.attempt(&format!("{table}.older_passphrase_files"), path, read_passphrase);
        }
        if let Some(signing) = &encryption.signing_file {
            self.attempt(&format!("{table}.signing_file"), signing.path(), read_passphrase);
        }
    }

    fn alerts(&mut self, alerts: &AlertSettings) {
        if let Some(path) = alerts.mail.as_ref().and_then(|mail| mail.password_file.as_ref()) {
            self.line("alerts.mail.password_file", path);
        }
        if let Some(UrlSource::File(path)) = alerts.webhook.as_ref().map(|webhook| &webhook.url) {
            self.line("alerts.webhook.url_file", path);
        }
        if let Some(UrlSource::File(path)) = &alerts.ping {
            self.line("alerts.ping.url_file", path);
        }
    }
}
