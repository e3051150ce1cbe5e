//! Commands that texts name: what a hint tells somebody to type must be there to be typed.

use super::source::Finding;
use clap::CommandFactory;
use neo4j_backup_agent::cli::args::Client;

/// The program whose commands are looked at.
const PROGRAM: &str = "neo4j-backupctl ";
/// Commands that are being built: hints may name them already.
const COMING: &[&str] = &[];

/// Every command that follows the client's name in code, quotes, or at the beginning of a line is one of its commands.
pub(crate) fn named_commands_exist(files: &[(String, String)]) -> Vec<Finding> {
    let client = Client::command();
    let mut findings = Vec::new();
    for (path, text) in files {
        for (index, line) in text.lines().enumerate() {
            for (at, _) in line.match_indices(PROGRAM) {
                let prose = !matches!(line[..at].trim_end().chars().last(), None | Some('`' | '"' | '|' | '('));
                let words: Vec<&str> = line[at + PROGRAM.len()..].split(' ').take(2).collect();
                if !prose && let Some(unknown) = unknown(&client, &words) {
                    let text = format!("names `{PROGRAM}{unknown}`, which is not a command of this version");
                    findings.push(Finding::new(path, index + 1, text));
                }
            }
        }
    }
    findings
}

/// The words up to the first that is not a command; options, values and what a program fills in are let pass.
fn unknown(client: &clap::Command, words: &[&str]) -> Option<String> {
    let mut command = client.clone();
    for (index, word) in words.iter().enumerate() {
        let word = word.trim_end_matches(['`', '"', '.', ',', ';', ':', ')', '\\']);
        let a_name = !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-');
        if !a_name || word.starts_with('-') || word == "help" || COMING.contains(&word) || !command.has_subcommands() {
            return None;
        }
        match command.find_subcommand(word) {
            Some(found) => command = found.clone(),
            None => return Some(words[..=index].join(" ")),
        }
    }
    None
}

#[test]
fn a_command_that_is_not_there_is_found() {
    let text = "run `neo4j-backupctl list`, `neo4j-backupctl key new --output X` or `neo4j-backupctl nothing TARGET`\n\
                the word neo4j-backupctl stands in prose; \"neo4j-backupctl key nothing\"\n\
                neo4j-backupctl --direct status · neo4j-backupctl backup {}\n";
    let found = named_commands_exist(&[("src/x.rs".to_owned(), text.to_owned())]);
    assert_eq!(found.iter().map(|f| f.line).collect::<Vec<_>>(), [1, 2], "{found:?}");
}
