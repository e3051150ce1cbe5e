//! Commands that need no agent: new keys, completions, and the way to the others of that sort.

use super::args::{self, Client, Command, Style};
use super::output::{Output, print};
use super::{config_commands, exit, file_crypt};
use crate::artifact::signing::Key;
use crate::base::atomic_file;
use crate::base::secret::Secret;
use crate::base::{Code, Error, Result};
use crate::operation::keys;
use clap::CommandFactory;
use serde_json::json;
use std::path::Path;

/// Carries out a command of this sort.
pub fn run(command: &Command, style: &Style, config: &Path, output: &Output) -> Result<u8> {
    match command {
        Command::Encrypt(args) => file_crypt::encrypt(args, style, config, output)?,
        Command::Decrypt(args) => file_crypt::decrypt(args, style, config, output)?,
        Command::Config(command) => return config_commands::run(command, config, output),
        Command::Key(args::Key::New { output: file }) => new_key(file.as_deref(), output)?,
        Command::Completions { shell } => completions(*shell)?,
        other => return Err(Error::new(Code::Internal, format!("{other:?} was taken for a command without an agent"))),
    }
    Ok(exit::DONE)
}

fn new_key(file: Option<&Path>, output: &Output) -> Result<()> {
    let passphrase = keys::new_passphrase()?;
    let source = file.map_or("a new key".to_owned(), |path| path.display().to_string());
    let key_id = Key::derive(passphrase.clone(), &source)?.id().to_string();
    let Some(path) = file else {
        let line = passphrase.expose_text()?;
        return output.print(&json!({ "key_id": key_id, "passphrase": line }), || line.to_owned());
    };
    write_key(path, &passphrase)?;
    match output.as_json(&json!({ "key_id": key_id, "path": path }))? {
        Some(json) => print(&json),
        None => Ok(()),
    }
}

/// Writes a passphrase into a new file that only its owner may read. `OBJECT_CONFLICT` if there is one.
pub(super) fn write_key(path: &Path, passphrase: &Secret) -> Result<()> {
    atomic_file::create(path, &[passphrase.expose(), b"\n"].concat(), 0o600).map_err(|error| match error.code() {
        Code::ObjectConflict => {
            error.with_hint("a key that is replaced is lost, and so are its backups: choose another name")
        }
        _ => error,
    })
}

fn completions(shell: clap_complete::Shell) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Client::command(), "neo4j-backupctl", &mut script);
    print(&String::from_utf8_lossy(&script))
}
