//! Commands that need no agent: new keys, completions, and the way to the others of that sort.

use super::args::{Client, Command, Key, Style};
use super::output::{Output, print};
use super::{config_commands, exit, file_crypt};
use crate::base::{Code, Error, Result};
use clap::CommandFactory;
use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use zeroize::Zeroizing;

/// Random bytes in a passphrase: 256 bits.
const PASSPHRASE_BYTES: usize = 32;

/// Carries out a command of this sort.
pub fn run(command: &Command, style: &Style, config: &Path, output: &Output) -> Result<u8> {
    match command {
        Command::Encrypt(args) => file_crypt::encrypt(args, style, config, output)?,
        Command::Decrypt(args) => file_crypt::decrypt(args, style, config, output)?,
        Command::Config(command) => return config_commands::run(command, config, output),
        Command::Key(Key::New { output: file }) => new_key(file.as_deref())?,
        Command::Completions { shell } => completions(*shell)?,
        other => return Err(Error::new(Code::Internal, format!("{other:?} was taken for a command without an agent"))),
    }
    Ok(exit::DONE)
}

fn new_key(file: Option<&Path>) -> Result<()> {
    let source = Path::new("/dev/urandom");
    let mut random = Zeroizing::new([0u8; PASSPHRASE_BYTES]);
    std::fs::File::open(source)
        .and_then(|mut urandom| urandom.read_exact(&mut *random))
        .map_err(|cause| Error::io("reading random bytes from", source, cause))?;
    let line = Zeroizing::new(hex::encode(*random));
    let Some(path) = file else { return print(&line) };
    let mut target = match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Ok(target) => target,
        Err(cause) if cause.kind() == std::io::ErrorKind::AlreadyExists => {
            return Err(Error::new(
                Code::ObjectConflict,
                format!("{} is there already and is left as it is", path.display()),
            )
            .with_hint("a key that is replaced is lost, and so are its backups: choose another name"));
        }
        Err(cause) => return Err(Error::io("making", path, cause)),
    };
    let written =
        target.write_all(line.as_bytes()).and_then(|()| target.write_all(b"\n")).and_then(|()| target.sync_all());
    if let Err(cause) = written {
        // Half a key must not be taken for one.
        let _ = std::fs::remove_file(path);
        return Err(Error::io("writing", path, cause));
    }
    crate::base::atomic_file::sync_parent(path)
}

fn completions(shell: clap_complete::Shell) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Client::command(), "neo4j-backupctl", &mut script);
    print(&String::from_utf8_lossy(&script))
}
