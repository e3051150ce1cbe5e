//! Secrets: wiped when dropped, never printed, loaded only from files that nobody else can read.

use super::{Code, Error, Result};
use std::fs::OpenOptions;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use zeroize::{Zeroize, Zeroizing};

/// Largest secret file that is read, in bytes.
pub const SECRET_FILE_MAX: u64 = 64 * 1024;
/// Shortest passphrase, in bytes.
pub const PASSPHRASE_MIN: usize = 20;
/// Longest passphrase, in bytes: `openssl enc -pass file:` reads no more of a line.
pub const PASSPHRASE_MAX: usize = 1023;

/// Secret bytes.
#[derive(Clone)]
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// Takes over `bytes`.
    pub fn new(bytes: Vec<u8>) -> Self {
        Secret(Zeroizing::new(bytes))
    }

    /// The bytes; look, but do not keep.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// Fills `key` with PBKDF2-HMAC-SHA256 of the bytes, as `openssl enc -pbkdf2 -md sha256` derives keys: 20 ms for
    /// 100 000 iterations and up to 64 bytes, half of what libcrypto takes.
    pub fn derive_key(&self, salt: &[u8], iterations: u32, key: &mut [u8]) {
        pbkdf2::pbkdf2_hmac::<sha2::Sha256>(&self.0, salt, iterations, key);
    }

    /// The bytes as text, for protocols that want text.
    pub fn expose_text(&self) -> Result<&str> {
        std::str::from_utf8(&self.0)
            .map_err(|_| Error::new(Code::SecretUnsafe, "the secret is not valid UTF-8").with_hint("write it in UTF-8"))
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// Reads the first line of a secret file, without its `\n`.
///
/// Refused: a symbolic link, anything but a regular file, an owner other than root or this process's user, and a file
/// that others can read or write, or that the group can write. The checks are made on the open descriptor.
pub fn read_first_line(path: &Path) -> Result<Secret> {
    first_line(path, "write the secret into it, as its first line, and `chmod 0600` it")
}

/// `if_missing` is the hint where there is no such file.
fn first_line(path: &Path, if_missing: &str) -> Result<Secret> {
    let mut content = read_checked(path, if_missing)?;
    let end = content.iter().position(|&b| b == b'\n').unwrap_or(content.len());
    let line = content[..end].to_vec();
    content.zeroize();
    Ok(Secret::new(line))
}

/// Reads a passphrase: the first line, 20 to 1023 bytes, without `\r` and NUL.
pub fn read_passphrase(path: &Path) -> Result<Secret> {
    let if_missing = format!(
        "`neo4j-backupctl key new --output {}` makes one; if there are backups already, put the passphrase that they \
         were made with there instead",
        path.display()
    );
    let secret = first_line(path, &if_missing)?;
    check_passphrase(&secret, &path.display().to_string())?;
    Ok(secret)
}

/// The rule for passphrases; `source` names where it came from in the message.
pub fn check_passphrase(secret: &Secret, source: &str) -> Result<()> {
    let bytes = secret.expose();
    let complaint = if bytes.contains(&b'\r') {
        "holds a carriage return".to_owned()
    } else if bytes.contains(&0) {
        "holds a NUL byte".to_owned()
    } else if bytes.len() < PASSPHRASE_MIN {
        format!("has {} bytes, fewer than {PASSPHRASE_MIN}", bytes.len())
    } else if bytes.len() > PASSPHRASE_MAX {
        format!("has {} bytes, more than {PASSPHRASE_MAX}", bytes.len())
    } else {
        return Ok(());
    };
    Err(Error::new(Code::PassphraseInvalid, format!("the passphrase in {source} {complaint}")))
}

fn read_checked(path: &Path, if_missing: &str) -> Result<Vec<u8>> {
    let refuse = |why: &str| Error::new(Code::SecretUnsafe, format!("secret file {} {why}", path.display()));
    let mut file = match OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path) {
        Ok(file) => file,
        Err(cause) if cause.raw_os_error() == Some(libc::ELOOP) => return Err(refuse("is a symbolic link")),
        Err(cause) if cause.kind() == ErrorKind::NotFound => {
            return Err(refuse("does not exist").with_hint(if_missing));
        }
        Err(cause) => return Err(refuse(&format!("cannot be read: {cause}"))),
    };
    let metadata = file.metadata().map_err(|cause| refuse(&format!("cannot be examined: {cause}")))?;
    if !metadata.is_file() {
        return Err(refuse("is not a regular file"));
    }
    let user = nix::unistd::geteuid().as_raw();
    if metadata.uid() != 0 && metadata.uid() != user {
        return Err(refuse(&format!("belongs to user {}", metadata.uid())));
    }
    if metadata.mode() & 0o027 != 0 {
        return Err(refuse(&format!("has mode {:04o}: others could read it", metadata.mode() & 0o7777)));
    }
    if metadata.len() > SECRET_FILE_MAX {
        return Err(refuse(&format!("has {} bytes, more than {SECRET_FILE_MAX}", metadata.len())));
    }
    let mut content = Vec::with_capacity(metadata.len() as usize + 1);
    file.by_ref()
        .take(SECRET_FILE_MAX)
        .read_to_end(&mut content)
        .map_err(|cause| refuse(&format!("cannot be read: {cause}")))?;
    if content.is_empty() {
        return Err(refuse("is empty"));
    }
    Ok(content)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    fn file(content: &[u8], mode: u32) -> (tempfile::TempDir, std::path::PathBuf) {
        let directory = tempfile::tempdir().expect("tempdir");
        let path = directory.path().join("key");
        fs::write(&path, content).expect("write");
        fs::set_permissions(&path, Permissions::from_mode(mode)).expect("chmod");
        (directory, path)
    }

    #[test]
    fn the_first_line_counts() {
        let (_keep, path) = file(b"correct horse battery staple\nsecond\n", 0o600);
        assert_eq!(read_passphrase(&path).expect("read").expose(), b"correct horse battery staple");
    }

    #[test]
    fn loose_files_are_refused() {
        for mode in [0o644, 0o604, 0o660, 0o602, 0o777] {
            let (_keep, path) = file(b"correct horse battery staple\n", mode);
            assert_eq!(read_passphrase(&path).map_err(|e| e.code()).err(), Some(Code::SecretUnsafe), "{mode:o}");
        }
        let (_keep, path) = file(b"", 0o600);
        assert_eq!(read_passphrase(&path).map_err(|e| e.code()).err(), Some(Code::SecretUnsafe));
        let (keep, path) = file(b"correct horse battery staple\n", 0o600);
        let link = keep.path().join("link");
        std::os::unix::fs::symlink(&path, &link).expect("link");
        assert_eq!(read_passphrase(&link).map_err(|e| e.code()).err(), Some(Code::SecretUnsafe));
        assert_eq!(read_passphrase(keep.path()).map_err(|e| e.code()).err(), Some(Code::SecretUnsafe));
    }

    #[test]
    fn a_missing_file_says_how_to_make_one() {
        let directory = tempfile::tempdir().expect("tempdir");
        let path = directory.path().join("current");
        let error = read_passphrase(&path).expect_err("missing");
        assert_eq!(error.code(), Code::SecretUnsafe);
        assert!(error.message().ends_with("does not exist"), "{error}");
        assert!(error.hint().contains(&format!("`neo4j-backupctl key new --output {}`", path.display())), "{error:?}");
        let other = read_first_line(&path).expect_err("missing");
        assert!(!other.hint().contains("key new"), "a password is not a passphrase: {other:?}");
    }

    #[test]
    fn unsuitable_passphrases_are_refused() {
        let long = [b'x'; 1024];
        for bad in [&b"short\n"[..], b"correct horse battery\r\n", b"correct horse\0 battery staple\n", &long] {
            let (_keep, path) = file(bad, 0o600);
            assert_eq!(read_passphrase(&path).map_err(|e| e.code()).err(), Some(Code::PassphraseInvalid));
        }
    }

    #[test]
    fn debug_shows_nothing() {
        assert_eq!(format!("{:?}", Secret::new(b"canary".to_vec())), "Secret(…)");
    }
}
