//! `encrypt` and `decrypt`: any file, exactly as `openssl enc -aes-256-cbc -pbkdf2` does it. The passphrase comes from
//! a file, never from the command line.

use super::args::{Crypt, Style};
use super::interrupt;
use super::output::{Output, say};
use super::progress::{Display, Shared};
use crate::base::secret::read_passphrase;
use crate::base::task::{Cancel, Task};
use crate::base::{Code, Error, Result, bytes};
use crate::config::{self, EncryptionSettings, Sources};
use crate::operation::crypt::{CryptOptions, CryptReport, decrypt_file, encrypt_file};
use serde_json::json;
use std::path::{Path, PathBuf};

/// Standard input or output, by the custom of file names.
const STANDARD: &str = "-";
/// The ending of encrypted files.
const SUFFIX: &str = ".enc";

/// `encrypt FILE [-o OUT]`.
pub fn encrypt(args: &Crypt, style: &Style, config: &Path, output: &Output) -> Result<()> {
    let target = args.output.clone().unwrap_or_else(|| with_suffix(&args.file));
    let (passphrase_file, options) = key(args, config)?;
    let passphrase = read_passphrase(&passphrase_file)?;
    let report = watched(style, |task| encrypt_file(&args.file, &target, &passphrase, &options, task))?;
    tell("is encrypted in", args, &target, &report, output)
}

/// `decrypt FILE [-o OUT]`.
pub fn decrypt(args: &Crypt, style: &Style, config: &Path, output: &Output) -> Result<()> {
    let target = match &args.output {
        Some(target) => target.clone(),
        None => without_suffix(&args.file)?,
    };
    let (passphrase_file, options) = key(args, config)?;
    let passphrase = read_passphrase(&passphrase_file)?;
    let report = watched(style, |task| decrypt_file(&args.file, &target, &passphrase, &options, task))?;
    tell("is decrypted in", args, &target, &report, output)
}

/// The configuration is read only for what the command line leaves out, so that a file can be decrypted on a machine
/// that has none.
fn key(args: &Crypt, config: &Path) -> Result<(PathBuf, CryptOptions)> {
    let configured: Option<EncryptionSettings> = match (&args.passphrase_file, args.iterations) {
        (Some(_), Some(_)) => None,
        (Some(_), None) if !config.exists() => None,
        _ => Some(config::load(&Sources::of_file(config))?.settings.encryption),
    };
    let iterations = args
        .iterations
        .or(configured.as_ref().map(|settings| settings.iterations))
        .unwrap_or(CryptOptions::default().iterations);
    if iterations == 0 {
        return Err(Error::new(Code::Usage, "0 iterations derive no key"));
    }
    let file = args.passphrase_file.clone().or(configured.map(|settings| settings.passphrase.path().clone()));
    let file =
        file.ok_or_else(|| Error::new(Code::Usage, "no passphrase file is known").with_hint("give --passphrase-file"))?;
    Ok((file, CryptOptions { iterations }))
}

fn watched(style: &Style, work: impl FnOnce(&Task) -> Result<CryptReport>) -> Result<CryptReport> {
    let display = Shared::new(Display::new(style.quiet, style.verbose > 0));
    let cancel = Cancel::default();
    interrupt::cancels(&cancel)?;
    let result = work(&Task::new(display.clone(), cancel));
    display.finish();
    result
}

fn tell(what: &str, args: &Crypt, target: &Path, report: &CryptReport, output: &Output) -> Result<()> {
    let value = json!({
        "input": args.file, "output": target,
        "input_bytes": report.input_bytes, "output_bytes": report.output_bytes,
        "sha256_stored": report.sha256_stored, "sha256_plain": report.sha256_plain,
        "sha256_checked": report.sha256_checked,
    });
    if target == Path::new(STANDARD) {
        // Standard output holds the file.
        if let Some(json) = output.as_json(&value)? {
            say(&json);
        }
        return Ok(());
    }
    output.print(&value, || {
        let mut text = format!(
            "{} {what} {}: {} → {}\n  sha256 of the encrypted file  {}\n  sha256 of its content         {}\n",
            args.file.display(),
            target.display(),
            bytes::human(report.input_bytes),
            bytes::human(report.output_bytes),
            report.sha256_stored,
            report.sha256_plain
        );
        if report.sha256_checked {
            text.push_str("  the encrypted file is the one its .sha256 describes\n");
        }
        text
    })
}

/// Standard input goes to standard output.
fn with_suffix(file: &Path) -> PathBuf {
    if file == Path::new(STANDARD) {
        return file.to_owned();
    }
    let mut name = file.as_os_str().to_owned();
    name.push(SUFFIX);
    PathBuf::from(name)
}

fn without_suffix(file: &Path) -> Result<PathBuf> {
    if file == Path::new(STANDARD) {
        return Ok(file.to_owned());
    }
    match file.extension() {
        Some(extension) if extension == &SUFFIX[1..] => Ok(file.with_extension("")),
        _ => Err(Error::new(Code::Usage, format!("{} does not end in {SUFFIX}", file.display()))
            .with_hint("say where the result goes: `--output FILE`")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ending_comes_and_goes() {
        assert_eq!(with_suffix(Path::new("/x/a.tar.zst")), Path::new("/x/a.tar.zst.enc"));
        assert_eq!(without_suffix(Path::new("/x/a.tar.zst.enc")).ok().as_deref(), Some(Path::new("/x/a.tar.zst")));
        assert_eq!(with_suffix(Path::new("-")), Path::new("-"));
        assert_eq!(without_suffix(Path::new("/x/a.tar.zst")).map_err(|e| e.code()), Err(Code::Usage));
    }
}
