//! One encrypted stream without any record: what `openssl enc` makes, and reads.
//!
//! Nothing here authenticates: the caller has a digest to check, or says that there was none.

use super::chain::{self, Feed, QUEUE_BUFFERS, Stage};
use super::decrypt::Decrypt;
use super::encrypt::Encrypt;
use super::seal::{flush, read_all, write_all};
use super::{Filter, Outlet};
use crate::base::Result;
use crate::base::secret::Secret;
use crate::base::task::Task;
use sha2::{Digest, Sha256};
use std::io::{Read, Write};

/// What went through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Passed {
    /// Bytes read.
    pub input_bytes: u64,
    /// Bytes written.
    pub output_bytes: u64,
    /// SHA-256 of what was read, 64 hex digits.
    pub input_sha256: String,
    /// SHA-256 of what was written, 64 hex digits.
    pub output_sha256: String,
}

/// Encrypts `source` to its end. Counts bytes read as the task's progress.
pub fn encrypt_stream(
    source: &mut (dyn Read + Send),
    sink: &mut (dyn Write + Send),
    passphrase: &Secret,
    iterations: u32,
    task: &Task,
) -> Result<Passed> {
    pass(source, sink, Encrypt::new(passphrase, iterations)?, task)
}

/// Decrypts `source` to its end. What was written before a failure is to be thrown away.
///
/// Errors: `WRONG_KEY` if the end does not decrypt, `BACKUP_CORRUPTED` if the stream was cut or never encrypted.
/// One wrong passphrase in about 256 goes unnoticed: the format holds nothing to tell it by.
pub fn decrypt_stream(
    source: &mut (dyn Read + Send),
    sink: &mut (dyn Write + Send),
    passphrase: &Secret,
    iterations: u32,
    task: &Task,
) -> Result<Passed> {
    pass(source, sink, Decrypt::new(passphrase, iterations)?, task)
}

fn pass(
    source: &mut (dyn Read + Send),
    sink: &mut (dyn Write + Send),
    filter: impl Filter,
    task: &Task,
) -> Result<Passed> {
    let (mut input, mut output) = (Sha256::new(), Sha256::new());
    let (mut input_bytes, mut output_bytes) = (0u64, 0u64);
    let stages = vec![
        Stage::look("sha256 input", |bytes| input.update(bytes)),
        Stage::filter(filter),
        Stage::look("sha256 output", |bytes| output.update(bytes)),
    ];
    let read = |feed: &mut Feed<'_>| {
        read_all(source, feed, "the input", |bytes| {
            task.check()?;
            input_bytes += bytes.len() as u64;
            task.advance(bytes.len() as u64);
            Ok(())
        })
    };
    let write = |bytes: &[u8]| {
        output_bytes += bytes.len() as u64;
        write_all(sink, bytes, "the output")
    };
    chain::run(task, QUEUE_BUFFERS, read, stages, write)?;
    flush(sink, "the output")?;
    Ok(Passed {
        input_bytes,
        output_bytes,
        input_sha256: hex::encode(input.finalize()),
        output_sha256: hex::encode(output.finalize()),
    })
}

/// Size and SHA-256 of `source`, read to its end. Counts bytes as the task's progress.
pub fn digest_stream(source: &mut (dyn Read + Send), task: &Task) -> Result<(u64, String)> {
    let (mut hasher, mut size) = (Sha256::new(), 0u64);
    let read = |feed: &mut Feed<'_>| read_all(source, feed, "the input", |_| task.check());
    let digest = |bytes: &[u8]| {
        hasher.update(bytes);
        size += bytes.len() as u64;
        task.advance(bytes.len() as u64);
        Ok(())
    };
    chain::run(task, QUEUE_BUFFERS, read, Vec::new(), digest)?;
    Ok((size, hex::encode(hasher.finalize())))
}

/// Encrypts bytes at hand, for small things such as a passphrase under another one.
pub fn encrypt_bytes(plain: &[u8], passphrase: &Secret, iterations: u32) -> Result<Vec<u8>> {
    through(&mut Encrypt::new(passphrase, iterations)?, plain)
}

/// Decrypts bytes at hand; fails as [`decrypt_stream`] does. The result may be secret: wrap it before it travels.
pub fn decrypt_bytes(encrypted: &[u8], passphrase: &Secret, iterations: u32) -> Result<Vec<u8>> {
    through(&mut Decrypt::new(passphrase, iterations)?, encrypted)
}

fn through(filter: &mut dyn Filter, input: &[u8]) -> Result<Vec<u8>> {
    let mut output = Collected::default();
    filter.push(input, &mut output)?;
    filter.finish(&mut output)?;
    Ok(output.into_bytes())
}

/// Bytes at the least that are added when the room is used up.
const COLLECT_BYTES: usize = 4096;

/// An outlet that keeps everything.
#[derive(Default)]
pub(super) struct Collected {
    bytes: Vec<u8>,
    len: usize,
}

impl Collected {
    pub(super) fn into_bytes(mut self) -> Vec<u8> {
        self.bytes.truncate(self.len);
        self.bytes
    }
}

impl Outlet for Collected {
    fn room(&mut self, least: usize) -> Result<&mut [u8]> {
        if self.bytes.len() - self.len < least {
            self.bytes.resize(self.len + least.max(COLLECT_BYTES), 0);
        }
        Ok(&mut self.bytes[self.len..])
    }

    fn filled(&mut self, bytes: usize) {
        self.len += bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{FEW, PASSPHRASE, bytes};
    use super::*;
    use crate::artifact::digest::sha256_hex;
    use crate::base::Code;
    use proptest::prelude::*;
    use std::path::Path;
    use std::process::Command;

    fn passphrase() -> Secret {
        Secret::new(PASSPHRASE.to_vec())
    }

    /// The real program, with the passphrase from a file, as the format's description says.
    fn openssl(directory: &Path, decrypt: bool, iterations: u32, input: &[u8]) -> Vec<u8> {
        let (key, from, to) = (directory.join("key"), directory.join("from"), directory.join("to"));
        std::fs::write(&key, [PASSPHRASE, b"\n"].concat()).expect("key");
        std::fs::write(&from, input).expect("input");
        let mut command = Command::new("openssl");
        command.args(["enc", "-aes-256-cbc", "-pbkdf2", "-md", "sha256", "-salt", "-iter", &iterations.to_string()]);
        if decrypt {
            command.arg("-d");
        }
        command.arg("-pass").arg(format!("file:{}", key.display())).arg("-in").arg(&from).arg("-out").arg(&to);
        assert!(command.status().expect("openssl is needed for this test").success());
        std::fs::read(&to).expect("output")
    }

    // req: K6 D3
    #[test]
    fn the_openssl_program_reads_ours_and_we_read_its() {
        let directory = tempfile::tempdir().expect("tempdir");
        let kib = 1 << 10;
        for size in [0, 1, 15, 16, 17, 64 * kib - 1, 64 * kib, 64 * kib + 1, 256 * kib, 5_000_003] {
            let iterations = if size == 17 { 100_000 } else { FEW };
            let plain = bytes(size);
            let ours = encrypt_bytes(&plain, &passphrase(), iterations).expect("encrypt");
            assert_eq!(ours.len(), 16 + (size / 16 + 1) * 16);
            assert!(openssl(directory.path(), true, iterations, &ours) == plain, "openssl reads {size}");
            let theirs = openssl(directory.path(), false, iterations, &plain);
            assert!(decrypt_bytes(&theirs, &passphrase(), iterations).expect("decrypt") == plain, "we read {size}");

            let (mut stream, task) = (Vec::new(), Task::unobserved());
            let passed =
                encrypt_stream(&mut &plain[..], &mut stream, &passphrase(), iterations, &task).expect("stream");
            assert_eq!(passed.input_sha256, sha256_hex(&plain));
            assert_eq!(passed.output_sha256, sha256_hex(&stream));
            assert_eq!((passed.input_bytes, passed.output_bytes), (plain.len() as u64, stream.len() as u64));
            assert_eq!(task.progress().done, plain.len() as u64);
            assert!(openssl(directory.path(), true, iterations, &stream) == plain, "openssl reads a stream of {size}");
            let mut out = Vec::new();
            decrypt_stream(&mut &theirs[..], &mut out, &passphrase(), iterations, &task).expect("stream");
            assert!(out == plain, "we read a stream of {size}");
        }
    }

    #[test]
    fn every_salt_is_new() {
        let salts: std::collections::HashSet<_> =
            (0..20).map(|_| encrypt_bytes(b"", &passphrase(), 1).expect("encrypt")[8..16].to_vec()).collect();
        assert_eq!(salts.len(), 20);
    }

    #[test]
    fn what_is_cut_or_was_never_encrypted_is_refused() {
        let encrypted = encrypt_bytes(&bytes(100), &passphrase(), FEW).expect("encrypt");
        for length in 0..encrypted.len() {
            let error = decrypt_bytes(&encrypted[..length], &passphrase(), FEW).err();
            // Cut between two blocks, only the padding can tell, and that reads as a wrong passphrase.
            let expected = if length % 16 == 0 && length > 16 { Code::WrongKey } else { Code::BackupCorrupted };
            assert_eq!(error.map(|e| e.code()), Some(expected), "cut at {length}");
        }
        for foreign in [&b"just text, and long enough to be read"[..], b"text", &bytes(500)] {
            let error = decrypt_bytes(foreign, &passphrase(), FEW).expect_err("never encrypted");
            assert!(error.message().contains("Salted__"), "{error}");
        }
    }

    #[test]
    fn a_wrong_passphrase_is_noticed_as_often_as_padding_allows() {
        let encrypted = encrypt_bytes(&bytes(1000), &passphrase(), 1).expect("encrypt");
        let mut unnoticed = 0;
        for number in 0..2000 {
            let wrong = Secret::new(format!("wrong passphrase {number:04}").into_bytes());
            match decrypt_bytes(&encrypted, &wrong, 1) {
                Ok(_) => unnoticed += 1,
                Err(error) => assert_eq!(error.code(), Code::WrongKey),
            }
        }
        // 2000 / 256 are expected, 8 ± 3.
        assert!(unnoticed < 30, "{unnoticed}");
    }

    #[test]
    fn numbers_of_iterations_that_make_no_sense_are_refused() {
        for iterations in [0, u32::MAX] {
            assert_eq!(
                encrypt_bytes(b"", &passphrase(), iterations).err().map(|e| e.code()),
                Some(Code::FormatUnsupported)
            );
            assert_eq!(
                decrypt_bytes(b"", &passphrase(), iterations).err().map(|e| e.code()),
                Some(Code::FormatUnsupported)
            );
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1000))]

        #[test]
        fn garbage_never_panics(garbage in proptest::collection::vec(any::<u8>(), 0..300), salted in any::<bool>(), cut in 0usize..40) {
            let begin: &[u8] = if salted { b"Salted__" } else { b"" };
            let input = [begin, &garbage].concat();
            let mut filter = Decrypt::new(&passphrase(), 1).expect("decrypt");
            let mut output = Collected::default();
            let (first, second) = input.split_at(cut.min(input.len()));
            let result = filter.push(first, &mut output)
                .and_then(|()| filter.push(second, &mut output))
                .and_then(|()| filter.finish(&mut output));
            prop_assert!(output.into_bytes().len() <= input.len());
            if let Err(error) = result {
                prop_assert!([Code::BackupCorrupted, Code::WrongKey].contains(&error.code()));
            }
        }

        #[test]
        fn the_way_it_is_cut_does_not_matter(plain in proptest::collection::vec(any::<u8>(), 0..3000), cuts in proptest::collection::vec(1usize..700, 0..6)) {
            let mut encrypted = &encrypt_bytes(&plain, &passphrase(), 1).expect("encrypt")[..];
            let mut filter = Decrypt::new(&passphrase(), 1).expect("decrypt");
            let mut output = Collected::default();
            for cut in cuts {
                let (now, later) = encrypted.split_at(cut.min(encrypted.len()));
                filter.push(now, &mut output).expect("push");
                encrypted = later;
            }
            filter.push(encrypted, &mut output).expect("push");
            filter.finish(&mut output).expect("finish");
            prop_assert_eq!(output.into_bytes(), plain);
        }
    }
}
