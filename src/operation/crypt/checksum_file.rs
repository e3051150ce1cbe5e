//! `FILE.sha256` beside an encrypted file, in the format of sha256sum(1), so that `sha256sum -c` checks it too.
//!
//! A comment line, which GNU's sha256sum skips, names the passphrase by its key id: the format of the encrypted file
//! itself lets one wrong passphrase in about 256 pass, and decrypts to garbage then.

use crate::base::{Code, Error, Result, atomic_file};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// What is appended to the encrypted file's name.
const SUFFIX: &str = ".sha256";
/// Largest file of this kind that is read, in bytes.
const BYTES_MAX: u64 = 64 << 10;
const KEY_COMMENT: &str = "# neo4j-backup key ";
const SHA256_DIGITS: usize = 64;
const MODE: u32 = 0o644;

/// What such a file says of one encrypted file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Checksum {
    /// SHA-256, 64 hex digits in lower case.
    pub(super) sha256: String,
    /// Id of the key, if it is told.
    pub(super) key_id: Option<String>,
}

/// The name of the file that belongs to `encrypted`.
pub(super) fn path_of(encrypted: &Path) -> PathBuf {
    let mut name = encrypted.as_os_str().to_owned();
    name.push(SUFFIX);
    PathBuf::from(name)
}

/// Writes it, durable when this returns.
pub(super) fn write(encrypted: &Path, checksum: &Checksum) -> Result<()> {
    atomic_file::write(&path_of(encrypted), &render(name_of(encrypted), checksum), MODE)
}

/// Reads it; `None` if there is none. `BACKUP_CORRUPTED` if it says nothing about `encrypted`.
pub(super) fn read(encrypted: &Path) -> Result<Option<Checksum>> {
    let path = path_of(encrypted);
    let mut content = Vec::new();
    match File::open(&path).and_then(|file| file.take(BYTES_MAX).read_to_end(&mut content)) {
        Ok(_) => {}
        Err(cause) if cause.kind() == ErrorKind::NotFound => return Ok(None),
        Err(cause) => return Err(Error::io("reading", &path, cause)),
    }
    parse(&content, name_of(encrypted)).map(Some).ok_or_else(|| {
        Error::new(Code::BackupCorrupted, format!("{} holds no SHA-256 of {}", path.display(), encrypted.display()))
            .with_hint("get the right .sha256 file, or move this one away to decrypt without a check")
    })
}

fn name_of(path: &Path) -> &OsStr {
    path.file_name().unwrap_or(path.as_os_str())
}

/// Names with a backslash, a newline or a carriage return are escaped, and the line begins with a backslash then.
fn render(name: &OsStr, checksum: &Checksum) -> Vec<u8> {
    let mut escaped = Vec::with_capacity(name.len());
    for &byte in name.as_bytes() {
        match byte {
            b'\\' => escaped.extend_from_slice(b"\\\\"),
            b'\n' => escaped.extend_from_slice(b"\\n"),
            b'\r' => escaped.extend_from_slice(b"\\r"),
            _ => escaped.push(byte),
        }
    }
    let mut line = Vec::new();
    if escaped != name.as_bytes() {
        line.push(b'\\');
    }
    line.extend_from_slice(checksum.sha256.as_bytes());
    line.extend_from_slice(b"  ");
    line.extend_from_slice(&escaped);
    line.push(b'\n');
    if let Some(id) = &checksum.key_id {
        line.extend_from_slice(format!("{KEY_COMMENT}{id}\n").as_bytes());
    }
    line
}

/// The line about `name`; a file with a single line is about whatever it stands beside, since both may be renamed.
fn parse(content: &[u8], name: &OsStr) -> Option<Checksum> {
    let mut key_id = None;
    let mut entries = Vec::new();
    for line in content.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()) {
        if line.starts_with(b"#") {
            let id = line.strip_prefix(KEY_COMMENT.as_bytes()).map(|id| String::from_utf8_lossy(id).trim().to_owned());
            key_id = key_id.or(id);
        } else {
            entries.push(parse_line(line)?);
        }
    }
    let found = match entries.len() {
        1 => entries.pop(),
        _ => entries.into_iter().find(|(_, entry)| name_of(Path::new(entry)) == name),
    };
    found.map(|(sha256, _)| Checksum { sha256, key_id })
}

fn parse_line(line: &[u8]) -> Option<(String, OsString)> {
    let (escaped, line) = match line.strip_prefix(b"\\") {
        Some(rest) => (true, rest),
        None => (false, line),
    };
    let (digits, rest) = line.split_at_checked(SHA256_DIGITS)?;
    let name = rest.strip_prefix(b"  ").or_else(|| rest.strip_prefix(b" *"))?;
    if name.is_empty() || !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    let name = if escaped { unescape(name)? } else { name.to_vec() };
    Some((String::from_utf8_lossy(digits).to_ascii_lowercase(), OsString::from_vec(name)))
}

fn unescape(name: &[u8]) -> Option<Vec<u8>> {
    let mut plain = Vec::with_capacity(name.len());
    let mut bytes = name.iter();
    while let Some(&byte) = bytes.next() {
        plain.push(match byte {
            b'\\' => match bytes.next()? {
                b'\\' => b'\\',
                b'n' => b'\n',
                b'r' => b'\r',
                _ => return None,
            },
            byte => byte,
        });
    }
    Some(plain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::process::Command;

    fn checksum() -> Checksum {
        Checksum {
            sha256: "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855".to_owned(),
            key_id: Some("0123456789abcdef".to_owned()),
        }
    }

    // req: D3
    #[test]
    fn the_sha256sum_program_reads_ours_and_we_read_its() {
        let directory = tempfile::tempdir().expect("tempdir");
        for name in ["plain", "with space", "back\\slash", "new\nline", " *", "#"] {
            let path = directory.path().join(name);
            std::fs::write(&path, b"").expect("file");
            write(&path, &checksum()).expect("write");
            let sidecar = path_of(&path);
            let mut command = Command::new("sha256sum");
            command.current_dir(directory.path());
            let checked = command.args(["--strict", "-c"]).arg(&sidecar).output().expect("sha256sum");
            assert!(checked.status.success() && checked.stderr.is_empty(), "{name}: {checked:?}");
            assert_eq!(read(&path).expect("read"), Some(checksum()), "{name}");
            let mut command = Command::new("sha256sum");
            let theirs = command.current_dir(directory.path()).arg("--").arg(name).output().expect("sha256sum");
            std::fs::write(&sidecar, &theirs.stdout).expect("theirs");
            assert_eq!(read(&path).expect("read"), Some(Checksum { key_id: None, ..checksum() }), "{name}");
        }
        assert_eq!(read(&directory.path().join("absent")).expect("read"), None);
    }

    #[test]
    fn the_right_line_of_several_is_taken() {
        let (a, b) = ("a".repeat(64), "B".repeat(64));
        let list = format!("{a}  dir/one\n{b} *two\n");
        let of = |name: &str| parse(list.as_bytes(), OsStr::new(name)).map(|found| found.sha256);
        assert_eq!((of("one"), of("two"), of("three")), (Some(a.clone()), Some("b".repeat(64)), None));
        let single = format!("{a}  renamed since\n");
        assert_eq!(parse(single.as_bytes(), OsStr::new("x")).map(|found| found.sha256), Some(a));
        for bad in ["", "\n", "garbage\n", "# neo4j-backup key 0\n", "abc  x\n"] {
            assert_eq!(parse(bad.as_bytes(), OsStr::new("x")), None, "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn any_name_survives(name in proptest::collection::vec(1u8..255, 1..40)) {
            let name = OsString::from_vec(name);
            prop_assert_eq!(parse(&render(&name, &checksum()), &name), Some(checksum()));
        }

        #[test]
        fn garbage_never_panics(garbage in proptest::collection::vec(any::<u8>(), 0..300)) {
            parse(&garbage, OsStr::new("x"));
        }
    }
}
