//! Encrypting and decrypting any file, as `openssl enc -aes-256-cbc -pbkdf2 -iter N -md sha256` does it.
//!
//! What `openssl enc` lacks comes beside it: the output is whole or not there, never replaces anything, and a
//! `.sha256` file tells a damaged input before anything is decrypted. The path `-` means standard input or output; a
//! stream has no `.sha256`, and what was written to standard output before a failure cannot be taken back.

mod checksum_file;

use crate::artifact::signing::Key;
use crate::base::secret::{Secret, check_passphrase};
use crate::base::task::Task;
use crate::base::{Code, Error, Result, atomic_file};
use crate::pipeline::DEFAULT_ITERATIONS;
use crate::pipeline::standalone::{Passed, decrypt_stream, digest_stream, encrypt_stream};
use checksum_file::Checksum;
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// The path that means standard input or output.
const STANDARD: &str = "-";
/// Where a passphrase came from, in messages: the caller read the file.
const SOURCE: &str = "the key file";
/// Nobody else may read what may be secret.
const MODE: u32 = 0o600;

/// How to encrypt or decrypt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CryptOptions {
    /// PBKDF2 iterations; they are not stored in the file, so that both sides must know them.
    pub iterations: u32,
}

impl Default for CryptOptions {
    fn default() -> Self {
        CryptOptions { iterations: DEFAULT_ITERATIONS }
    }
}

/// What was encrypted or decrypted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CryptReport {
    /// Bytes read.
    pub input_bytes: u64,
    /// Bytes written.
    pub output_bytes: u64,
    /// SHA-256 of the encrypted bytes, 64 hex digits.
    pub sha256_stored: String,
    /// SHA-256 of the plaintext, 64 hex digits.
    pub sha256_plain: String,
    /// Whether a `.sha256` file was there and agreed; only decryption checks one.
    pub sha256_checked: bool,
}

/// Encrypts `input` into the new file `output`, and writes `<output>.sha256` in the format of sha256sum(1).
///
/// Both are durable when this returns. Errors: `OBJECT_CONFLICT` if `output` exists, `PASSPHRASE_INVALID`,
/// `BACKUP_NO_SPACE`, `IO_FAILED`, `CANCELLED`; nothing is left behind then.
pub fn encrypt_file(
    input: &Path,
    output: &Path,
    passphrase: &Secret,
    options: &CryptOptions,
    task: &Task,
) -> Result<CryptReport> {
    check_passphrase(passphrase, SOURCE)?;
    let doing = |error: Error| error.context(format_args!("encrypting {}", input.display()));
    let mut source = open(input)?;
    let mut sink = Output::create(output)?;
    task.phase("encrypting", size(&source));
    // Deriving the key's id takes as long as deriving the cipher's key: both at once.
    let (passed, key) = std::thread::scope(|scope| {
        let key = scope.spawn(|| Key::derive(passphrase.clone(), SOURCE));
        let passed = encrypt_stream(&mut source, &mut sink.file, passphrase, options.iterations, task);
        (passed, joined(key))
    });
    let Passed { input_bytes, output_bytes, input_sha256, output_sha256 } = passed.map_err(doing)?;
    let checksum = Checksum { sha256: output_sha256.clone(), key_id: Some(key?.id().to_string()) };
    sink.commit(Some(&checksum))?;
    Ok(CryptReport {
        input_bytes,
        output_bytes,
        sha256_stored: output_sha256,
        sha256_plain: input_sha256,
        sha256_checked: false,
    })
}

/// Decrypts `input` into the new file `output`.
///
/// If `<input>.sha256` exists, all of `input` is compared with it before anything is decrypted or written. Without
/// it, one wrong passphrase in about 256 goes unnoticed, and so do changes inside the file: the format cannot tell.
///
/// Errors: `BACKUP_CORRUPTED` if the file is not the one its `.sha256` describes, was cut or was never encrypted;
/// `WRONG_KEY`; `OBJECT_CONFLICT` if `output` exists; `BACKUP_NO_SPACE`, `IO_FAILED`, `CANCELLED`. No output is left
/// behind then.
pub fn decrypt_file(
    input: &Path,
    output: &Path,
    passphrase: &Secret,
    options: &CryptOptions,
    task: &Task,
) -> Result<CryptReport> {
    let doing = |error: Error| about_the_file(error).context(format_args!("decrypting {}", input.display()));
    let mut source = open(input)?;
    let expected = if is_standard(input) { None } else { checksum_file::read(input)? };
    if let Some(expected) = &expected {
        check_input(input, &mut source, expected, passphrase, task)?;
    }
    let mut sink = Output::create(output)?;
    task.phase("decrypting", size(&source));
    let passed = decrypt_stream(&mut source, &mut sink.file, passphrase, options.iterations, task);
    let Passed { input_bytes, output_bytes, input_sha256, output_sha256 } = passed.map_err(doing)?;
    if expected.as_ref().is_some_and(|expected| expected.sha256 != input_sha256) {
        let said = format!("{} changed while it was read", input.display());
        return Err(about_the_file(Error::new(Code::BackupCorrupted, said)));
    }
    sink.commit(None)?;
    Ok(CryptReport {
        input_bytes,
        output_bytes,
        sha256_stored: input_sha256,
        sha256_plain: output_sha256,
        sha256_checked: expected.is_some(),
    })
}

/// Compares the file with its `.sha256`, and the passphrase with the key named there; leaves the file at its start.
fn check_input(input: &Path, source: &mut File, expected: &Checksum, passphrase: &Secret, task: &Task) -> Result<()> {
    task.phase("checking", size(source));
    let (digest, key) = std::thread::scope(|scope| {
        // A passphrase that we would not accept today may still have encrypted a file of another program.
        let nameable = expected.key_id.is_some() && check_passphrase(passphrase, SOURCE).is_ok();
        let key = nameable.then(|| scope.spawn(|| Key::derive(passphrase.clone(), SOURCE)));
        let digest = digest_stream(source, task);
        (digest, key.map(joined).transpose())
    });
    let (_, found) = digest.map_err(|error| error.context(format_args!("checking {}", input.display())))?;
    if found != expected.sha256 {
        let said =
            format!("the SHA-256 of {} is not the one in {}", input.display(), checksum_file::path_of(input).display());
        return Err(about_the_file(Error::new(Code::BackupCorrupted, said)));
    }
    if let (Some(key), Some(id)) = (key?, &expected.key_id)
        && key.id().as_str() != id
    {
        let said = format!("{} was encrypted with key {id}, this passphrase is key {}", input.display(), key.id());
        return Err(Error::new(Code::WrongKey, said).with_hint("give the passphrase it was encrypted with"));
    }
    source.rewind().map_err(|cause| Error::io("reading", input, cause))
}

/// The code's own hint is about a repository's backups; here a file of anybody's is damaged.
fn about_the_file(error: Error) -> Error {
    match error.code() {
        Code::BackupCorrupted => {
            error.with_hint("the file was changed or cut, or was never encrypted; get another copy")
        }
        _ => error,
    }
}

fn joined<T>(thread: std::thread::ScopedJoinHandle<'_, Result<T>>) -> Result<T> {
    thread.join().unwrap_or_else(|_| Err(Error::new(Code::Internal, "deriving a key panicked")))
}

fn is_standard(path: &Path) -> bool {
    path == Path::new(STANDARD)
}

/// Bytes of a regular file; 0, not known, of anything else.
fn size(file: &File) -> u64 {
    file.metadata().ok().filter(fs::Metadata::is_file).map_or(0, |metadata| metadata.len())
}

fn open(input: &Path) -> Result<File> {
    let opened =
        if is_standard(input) { io::stdin().as_fd().try_clone_to_owned().map(File::from) } else { File::open(input) };
    opened.map_err(|cause| Error::io("opening", input, cause))
}

/// A file that gets its name once it is whole, or standard output.
struct Output {
    file: File,
    path: PathBuf,
    /// Where it grows; `None` for standard output and once it has its name.
    temporary: Option<PathBuf>,
}

impl Output {
    fn create(path: &Path) -> Result<Self> {
        if is_standard(path) {
            let file = io::stdout().as_fd().try_clone_to_owned().map(File::from);
            let file = file.map_err(|cause| Error::io("opening", path, cause))?;
            return Ok(Output { file, path: path.to_owned(), temporary: None });
        }
        if fs::symlink_metadata(path).is_ok() {
            return Err(exists(path));
        }
        let temporary = atomic_file::temporary_beside(path);
        let file = OpenOptions::new().write(true).create_new(true).mode(MODE).open(&temporary);
        let file = file.map_err(|cause| Error::io("creating", path, cause))?;
        Ok(Output { file, path: path.to_owned(), temporary: Some(temporary) })
    }

    /// Makes it durable under its name, and then the file that tells its checksum.
    fn commit(mut self, checksum: Option<&Checksum>) -> Result<()> {
        let failed = |cause| Error::io("writing", &self.path, cause);
        let Some(temporary) = &self.temporary else {
            return self.file.flush().map_err(failed);
        };
        self.file.sync_all().map_err(failed)?;
        // The name is claimed first: two that write the same output cannot mix their files.
        rename_new(temporary, &self.path)?;
        self.temporary = None;
        let rest = atomic_file::sync_parent(&self.path)
            .and_then(|()| checksum.map_or(Ok(()), |checksum| checksum_file::write(&self.path, checksum)));
        if rest.is_err() {
            let _ = fs::remove_file(&self.path);
        }
        rest
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        if let Some(temporary) = &self.temporary {
            let _ = fs::remove_file(temporary);
        }
    }
}

fn exists(path: &Path) -> Error {
    Error::new(Code::ObjectConflict, format!("{} exists already and is not replaced", path.display()))
        .with_hint("name another output, or move that one away")
}

/// Renames, unless `to` exists.
fn rename_new(from: &Path, to: &Path) -> Result<()> {
    match renameat2(AT_FDCWD, from, AT_FDCWD, to, RenameFlags::RENAME_NOREPLACE) {
        Ok(()) => Ok(()),
        Err(Errno::EEXIST) => Err(exists(to)),
        // Filesystems that cannot say "unless": look first, a moment's race remains there.
        Err(Errno::EINVAL | Errno::ENOSYS) if fs::symlink_metadata(to).is_ok() => Err(exists(to)),
        Err(Errno::EINVAL | Errno::ENOSYS) => fs::rename(from, to).map_err(|cause| Error::io("writing", to, cause)),
        Err(cause) => Err(Error::io("writing", to, cause.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::artifact::digest::sha256_hex;
    use crate::base::task::{Cancel, Observer, Progress, Severity};
    use std::process::Command;
    use std::sync::Arc;

    const PASSPHRASE: &[u8] = b"correct horse battery staple";
    const OPTIONS: CryptOptions = CryptOptions { iterations: 10 };

    struct Place {
        directory: tempfile::TempDir,
    }

    impl Place {
        fn new(content: &[u8]) -> Self {
            let place = Place { directory: tempfile::tempdir().expect("tempdir") };
            fs::write(place.path("plain"), content).expect("write");
            fs::write(place.path("key"), [PASSPHRASE, b"\n"].concat()).expect("key");
            place
        }

        fn path(&self, name: &str) -> PathBuf {
            self.directory.path().join(name)
        }

        fn names(&self) -> Vec<String> {
            let entries = fs::read_dir(self.directory.path()).expect("list");
            let mut names: Vec<_> =
                entries.map(|entry| entry.expect("entry").file_name().to_string_lossy().into_owned()).collect();
            names.sort();
            names
        }

        fn encrypt(&self) -> Result<CryptReport> {
            encrypt_file(&self.path("plain"), &self.path("out.enc"), &secret(PASSPHRASE), &OPTIONS, &Task::unobserved())
        }

        fn decrypt_with(&self, passphrase: &[u8]) -> Result<CryptReport> {
            decrypt_file(&self.path("out.enc"), &self.path("back"), &secret(passphrase), &OPTIONS, &Task::unobserved())
        }

        fn decrypt(&self) -> Result<CryptReport> {
            self.decrypt_with(PASSPHRASE)
        }

        fn openssl(&self, more: &[&str]) -> bool {
            let mut command = Command::new("openssl");
            command.current_dir(self.directory.path()).args(["enc", "-aes-256-cbc", "-pbkdf2", "-md", "sha256"]);
            command.args(["-iter", "10", "-salt", "-pass", "file:key"]).args(more).status().expect("openssl").success()
        }
    }

    fn secret(text: &[u8]) -> Secret {
        Secret::new(text.to_vec())
    }

    fn code<T>(result: Result<T>) -> Option<Code> {
        result.err().map(|error| error.code())
    }

    fn content() -> Vec<u8> {
        (0u32..300_000).flat_map(|number| number.to_le_bytes()).collect()
    }

    // req: D3 K6
    #[test]
    fn a_file_comes_back_and_the_standard_programs_agree() {
        for content in [Vec::new(), b"x".to_vec(), content()] {
            let place = Place::new(&content);
            let report = place.encrypt().expect("encrypt");
            assert_eq!(place.names(), ["key", "out.enc", "out.enc.sha256", "plain"]);
            let stored = fs::read(place.path("out.enc")).expect("stored");
            assert_eq!((report.input_bytes, report.output_bytes), (content.len() as u64, stored.len() as u64));
            assert_eq!((report.sha256_plain, &report.sha256_stored), (sha256_hex(&content), &sha256_hex(&stored)));
            let mut command = Command::new("sha256sum");
            let check = command.current_dir(place.directory.path()).args(["--strict", "-c", "out.enc.sha256"]);
            assert!(check.output().expect("sha256sum").status.success());
            assert!(place.openssl(&["-d", "-in", "out.enc", "-out", "theirs"]));
            assert_eq!(fs::read(place.path("theirs")).expect("theirs"), content);
            let back = place.decrypt().expect("decrypt");
            assert!(back.sha256_checked);
            assert_eq!(back.sha256_stored, report.sha256_stored);
            assert_eq!(back.sha256_plain, sha256_hex(&content));
            assert_eq!(fs::read(place.path("back")).expect("back"), content);
        }
    }

    #[test]
    fn a_file_of_openssl_decrypts_without_a_checksum() {
        let place = Place::new(b"made elsewhere");
        assert!(place.openssl(&["-in", "plain", "-out", "out.enc"]));
        let report = place.decrypt().expect("decrypt");
        assert!(!report.sha256_checked);
        assert_eq!(fs::read(place.path("back")).expect("back"), b"made elsewhere");
    }

    #[test]
    fn nothing_is_ever_replaced() {
        let place = Place::new(b"content");
        fs::write(place.path("out.enc"), b"precious").expect("write");
        assert_eq!(code(place.encrypt()), Some(Code::ObjectConflict));
        assert_eq!(fs::read(place.path("out.enc")).expect("read"), b"precious");
        fs::remove_file(place.path("out.enc")).expect("remove");
        place.encrypt().expect("encrypt");
        std::os::unix::fs::symlink("nowhere", place.path("back")).expect("link");
        assert_eq!(code(place.decrypt()), Some(Code::ObjectConflict));
        assert_eq!(place.names(), ["back", "key", "out.enc", "out.enc.sha256", "plain"]);
        let (from, to) = (place.path("out.enc"), place.path("plain"));
        assert_eq!(code(rename_new(&from, &to)), Some(Code::ObjectConflict), "the last moment counts too");
    }

    #[test]
    fn damage_is_found_before_anything_is_written() {
        let place = Place::new(&content());
        place.encrypt().expect("encrypt");
        let good = fs::read(place.path("out.enc")).expect("read");
        let mut flipped = good.clone();
        flipped[1000] ^= 1;
        for bad in [&flipped[..], &good[..good.len() - 16], &good[..7], &[&good[..], b"x"].concat(), b""] {
            fs::write(place.path("out.enc"), bad).expect("damage");
            let error = place.decrypt().expect_err("damaged");
            assert_eq!(error.code(), Code::BackupCorrupted);
            assert!(error.message().contains("out.enc.sha256"), "{error}");
            assert_eq!(place.names(), ["key", "out.enc", "out.enc.sha256", "plain"]);
        }
        fs::write(place.path("out.enc"), &good).expect("repair");
        fs::write(place.path("out.enc.sha256"), "not a checksum").expect("damage");
        assert_eq!(code(place.decrypt()), Some(Code::BackupCorrupted));
        assert_eq!(place.names(), ["key", "out.enc", "out.enc.sha256", "plain"]);
    }

    #[test]
    fn without_a_checksum_a_cut_is_still_found_and_nothing_is_left() {
        let place = Place::new(&content());
        place.encrypt().expect("encrypt");
        fs::remove_file(place.path("out.enc.sha256")).expect("remove");
        let good = fs::read(place.path("out.enc")).expect("read");
        for length in [0, 7, 16, good.len() - 1] {
            fs::write(place.path("out.enc"), &good[..length]).expect("cut");
            let error = place.decrypt().expect_err("it was cut");
            assert_eq!(error.code(), Code::BackupCorrupted, "{length}");
            assert!(
                error.hint().contains("another copy") && !error.hint().contains("neo4j-backupctl"),
                "{}",
                error.hint()
            );
            assert_eq!(place.names(), ["key", "out.enc", "plain"]);
        }
        fs::write(place.path("out.enc"), &good[..good.len() - 16]).expect("cut");
        assert_eq!(code(place.decrypt()), Some(Code::WrongKey));
        assert_eq!(place.names(), ["key", "out.enc", "plain"]);
    }

    #[test]
    fn every_wrong_passphrase_is_noticed_where_there_is_a_checksum() {
        let place = Place::new(b"content");
        place.encrypt().expect("encrypt");
        for number in 0..20 {
            let wrong = format!("a wrong passphrase, number {number:03}");
            let error = place.decrypt_with(wrong.as_bytes()).expect_err("wrong");
            assert_eq!(error.code(), Code::WrongKey);
            assert!(error.message().contains("encrypted with key"), "{error}");
        }
        assert_eq!(place.names(), ["key", "out.enc", "out.enc.sha256", "plain"]);
    }

    #[test]
    fn unsuitable_passphrases_and_paths_are_refused() {
        let place = Place::new(b"content");
        let encrypt = |input: &str, output: &str, passphrase: &[u8]| {
            let (input, output) = (place.path(input), place.path(output));
            code(encrypt_file(&input, &output, &secret(passphrase), &OPTIONS, &Task::unobserved()))
        };
        assert_eq!(encrypt("plain", "out.enc", b"short"), Some(Code::PassphraseInvalid));
        assert_eq!(encrypt("absent", "out.enc", PASSPHRASE), Some(Code::IoFailed));
        assert_eq!(encrypt(".", "out.enc", PASSPHRASE), Some(Code::IoFailed));
        assert_eq!(encrypt("plain", "absent/out.enc", PASSPHRASE), Some(Code::IoFailed));
        assert_eq!(place.names(), ["key", "plain"]);
    }

    /// Cancels at the first byte.
    struct CancelAtOnce(Cancel);

    impl Observer for CancelAtOnce {
        fn event(&self, _: Severity, _: &str) {}
        fn progress(&self, progress: &Progress) {
            if progress.done > 0 {
                self.0.cancel();
            }
        }
    }

    #[test]
    fn a_cancelled_run_leaves_nothing_behind() {
        let place = Place::new(&content());
        let cancel = Cancel::default();
        let task = Task::new(Arc::new(CancelAtOnce(cancel.clone())), cancel);
        let result = encrypt_file(&place.path("plain"), &place.path("out.enc"), &secret(PASSPHRASE), &OPTIONS, &task);
        assert_eq!(code(result), Some(Code::Cancelled));
        assert_eq!(place.names(), ["key", "plain"]);
    }

    #[test]
    fn a_full_disk_has_its_own_code() {
        let place = Place::new(b"content");
        let mut sink = Output::create(&place.path("out.enc")).expect("create");
        sink.file = OpenOptions::new().write(true).open("/dev/full").expect("full");
        let mut source = open(&place.path("plain")).expect("open");
        let result = encrypt_stream(&mut source, &mut sink.file, &secret(PASSPHRASE), 10, &Task::unobserved());
        assert_eq!(code(result), Some(Code::BackupNoSpace));
        drop(sink);
        assert_eq!(place.names(), ["key", "plain"]);
    }

    #[test]
    fn what_is_written_is_for_its_owner_alone() {
        use std::os::unix::fs::PermissionsExt;
        let place = Place::new(b"content");
        place.encrypt().expect("encrypt");
        place.decrypt().expect("decrypt");
        for name in ["out.enc", "back"] {
            let mode = fs::metadata(place.path(name)).expect("metadata").permissions().mode();
            assert_eq!(mode & 0o077, 0, "{name}");
        }
    }
}
