//! Plaintext to stored bytes, and the proof that they open.

use super::chain::{self, Feed, QUEUE_BUFFERS, Stage};
use super::compress::{GzipCompress, ZstdCompress};
use super::decompress::{GzipDecompress, ZstdDecompress};
use super::decrypt::Decrypt;
use super::encrypt::Encrypt;
use super::measure::PlainMeter;
use super::{Compression, Filter, Outlet, Protection, SealSpec, Sealed};
use crate::artifact::digest::PartHasher;
use crate::artifact::manifest::EncryptionRecord;
use crate::base::task::Task;
use crate::base::{Code, Error, Result};
use sha2::{Digest, Sha256};
use std::io::{ErrorKind, Read, Write};
use std::path::Path;

/// How an object's salt is chosen; the only policy there is.
pub(super) const SALT_POLICY: &str = "random-per-object";

/// Reads plaintext from `source` to its end and writes the stored bytes to `sink`, each stage on a thread of its own. What
/// is written is opened again at once, and must be the plaintext: whoever finds later that the stored bytes have the
/// digest that is returned here, knows that they open.
///
/// At most 24 MiB are in flight besides what zstd itself needs. Counts plaintext as the task's progress. Nothing is
/// made durable here: that is the sink's owner's business, once this has succeeded. A cancelled task ends it at the
/// next buffer; a source that blocks in its own `read` is not interrupted.
///
/// Errors: whatever `source` and `sink` report (also an [`Error`] that travels inside their `io::Error`),
/// `CONFIG_INVALID` for a level that does not exist, `INTERNAL` if it does not open again, `CANCELLED`.
pub fn seal(
    source: &mut (dyn Read + Send),
    sink: &mut (dyn Write + Send),
    spec: &SealSpec,
    task: &Task,
) -> Result<Sealed> {
    let (mut meter, mut stored) = (PlainMeter::default(), PartHasher::default());
    let mut plain_sha256 = spec.hash_plain.then(Sha256::new);
    let mut opened_sha256 = spec.hash_plain.then(Sha256::new);
    let (mut stages, mut filters) = (Vec::new(), Vec::new());
    if let Some(hasher) = plain_sha256.as_mut() {
        stages.push(Stage::look("sha256 plain", |bytes| hasher.update(bytes)));
    }
    match spec.compression {
        Compression::None => {}
        Compression::Gzip(level) => stages.push(Stage::filter(GzipCompress::new(level)?)),
        Compression::Zstd { level, workers } => stages.push(Stage::filter(ZstdCompress::new(level, workers)?)),
    }
    let mut encryption = None;
    if let Protection::Encrypted { key, iterations } = &spec.protection {
        stages.push(Stage::filter(Encrypt::new(key.passphrase(), *iterations)?));
        encryption =
            Some(EncryptionRecord { key_id: key.id().clone(), iterations: *iterations, salt: SALT_POLICY.to_owned() });
    }
    for stage in &stages {
        if let Stage::Filter(filter) = stage {
            filters.push(filter.name().to_owned());
        }
    }
    stages.push(Stage::look("sha256 stored", |bytes| stored.update(bytes)));
    stages.push(Stage::try_look("write", |bytes| write_all(sink, bytes, "the stored bytes")));
    stages.extend(opening(spec)?);
    if let Some(hasher) = opened_sha256.as_mut() {
        stages.push(Stage::look("sha256 opened", |bytes| hasher.update(bytes)));
    }
    let mut opened = PlainMeter::default();
    let read = |feed: &mut Feed<'_>| {
        read_all(source, feed, "the plaintext", |bytes| {
            meter.update(bytes);
            task.check()?;
            task.advance(bytes.len() as u64);
            Ok(())
        })
    };
    let prove = |bytes: &[u8]| {
        opened.update(bytes);
        Ok(())
    };
    chain::run(task, QUEUE_BUFFERS, read, stages, prove)?;
    flush(sink, "the stored bytes")?;
    let plain = meter.finish(plain_sha256);
    if opened.finish(opened_sha256) != plain {
        return Err(unproven("something else comes out"));
    }
    Ok(Sealed { plain, stored: stored.finish(), filters, encryption })
}

/// The stages that open what was just sealed, while it is sealed: a fault of memory, of a library or of a processor shows
/// before the source is gone. Reading back then needs to compare the stored bytes alone.
fn opening<'env>(spec: &SealSpec) -> Result<Vec<Stage<'env>>> {
    let mut stages = Vec::new();
    if let Protection::Encrypted { key, iterations } = &spec.protection {
        stages.push(Stage::filter(Proof(Decrypt::new(key.passphrase(), *iterations)?)));
    }
    match spec.compression {
        Compression::None => {}
        Compression::Gzip(_) => stages.push(Stage::filter(Proof(GzipDecompress::new()))),
        Compression::Zstd { .. } => stages.push(Stage::filter(Proof(ZstdDecompress::new()?))),
    }
    Ok(stages)
}

fn unproven(why: impl std::fmt::Display) -> Error {
    let text = format!("what was just sealed does not open again: {why}");
    Error::new(Code::Internal, text)
        .with_hint("memory or processor may be faulty: look into the kernel's log; nothing was counted")
}

/// A filter that opens again what was just sealed: that it fails is nobody's key's fault.
struct Proof<F>(F);

impl<F: Filter> Filter for Proof<F> {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn push(&mut self, input: &[u8], output: &mut dyn Outlet) -> Result<()> {
        self.0.push(input, output).map_err(told)
    }

    fn finish(&mut self, output: &mut dyn Outlet) -> Result<()> {
        self.0.finish(output).map_err(told)
    }
}

fn told(error: Error) -> Error {
    match error.code() {
        Code::WrongKey | Code::BackupCorrupted => unproven(error),
        _ => error,
    }
}

/// Reads `source` to its end, in full buffers; `seen` looks at each before it is handed on.
pub(super) fn read_all<R: Read + ?Sized>(
    source: &mut R,
    feed: &mut Feed<'_>,
    what: &str,
    mut seen: impl FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    loop {
        let mut buffer = feed.take();
        let mut end = false;
        while !end && !buffer.free().is_empty() {
            let read = read_some(source, buffer.free(), what)?;
            buffer.filled(read);
            end = read == 0;
        }
        seen(buffer.content())?;
        feed.send(buffer)?;
        if end {
            return Ok(());
        }
    }
}

/// One `read` that a signal does not end. 0 = the end.
pub(super) fn read_some<R: Read + ?Sized>(source: &mut R, room: &mut [u8], what: &str) -> Result<usize> {
    loop {
        match source.read(room) {
            Err(cause) if cause.kind() == ErrorKind::Interrupted => {}
            result => return result.map_err(|cause| Error::from_io("reading", Path::new(what), cause)),
        }
    }
}

pub(super) fn write_all<W: Write + ?Sized>(sink: &mut W, bytes: &[u8], what: &str) -> Result<()> {
    sink.write_all(bytes).map_err(|cause| Error::from_io("writing", Path::new(what), cause))
}

pub(super) fn flush<W: Write + ?Sized>(sink: &mut W, what: &str) -> Result<()> {
    sink.flush().map_err(|cause| Error::from_io("writing", Path::new(what), cause))
}
