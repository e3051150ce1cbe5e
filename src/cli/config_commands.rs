//! `config show`, `config check`, `config template`.

use super::args::Config;
use super::exit;
use super::output::{Output, say};
use crate::base::{Code, Error, Result};
use crate::config::{self, Loaded, Sources};
use serde_json::json;
use std::path::Path;

/// Carries out a command below `config`.
pub fn run(command: &Config, file: &Path, output: &Output) -> Result<u8> {
    match command {
        Config::Template => {
            let template = config::template();
            output.print(&json!({ "template": template }), || template.clone())?;
            Ok(exit::DONE)
        }
        Config::Show { origin } => {
            let loaded = config::load(&Sources::of_file(file))?;
            loaded.warnings.iter().for_each(|warning| say(&format!("warning: {warning}")));
            let text = loaded.show(*origin);
            let value: serde_json::Value = toml::from_str(&text)
                .map_err(|cause| Error::new(Code::Internal, format!("reading back what is shown: {cause}")))?;
            output.print(&value, || text)?;
            Ok(exit::DONE)
        }
        Config::Check => check(&config::load(&Sources::of_file(file))?, file, output),
    }
}

fn check(loaded: &Loaded, file: &Path, output: &Output) -> Result<u8> {
    let secrets = config::check_secrets(&loaded.settings);
    let value = json!({ "file": file, "warnings": loaded.warnings, "secrets": secrets });
    output.print(&value, || {
        let mut text = String::new();
        for warning in &loaded.warnings {
            text.push_str(&format!("warning: {warning}\n"));
        }
        for problem in &secrets {
            text.push_str(&format!("error: {problem}\n"));
        }
        if secrets.is_empty() {
            let targets = loaded.settings.targets.len();
            let repositories = loaded.settings.repositories.len();
            text.push_str(&format!("{} is good: {targets} targets, {repositories} repositories\n", file.display()));
        }
        text
    })?;
    Ok(if secrets.is_empty() { exit::DONE } else { Code::SecretUnsafe.exit() })
}
