//! Threads, bounded channels and buffers: how the stages of a chain run side by side.
//!
//! The source runs in the caller's thread, every stage and the sink in a thread of its own. A stage that fails records
//! its error and lets go of its channels; its neighbours notice at their next step, and so the whole chain ends. The
//! first error recorded is the one that is reported. A channel that closes without [`Message::End`] is a failure,
//! never the end of the data. What cannot be interrupted is a source or sink that blocks in its own call: whoever
//! hands in a pipe closes it, or ends the program behind it, on cancel.

use super::{Filter, Outlet};
use crate::base::task::Task;
use crate::base::{Code, Error, Result};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

/// Bytes in a buffer: small enough that what one stage has written is still in the cache when the next one reads it.
pub(super) const BUFFER_BYTES: usize = 256 << 10;
/// Buffers that wait between two stages: enough that a stage does not wait for each hiccup of the next.
pub(super) const QUEUE_BUFFERS: usize = 8;
/// Most stages between source and sink when sealing: hash plain, compress, encrypt, digest stored, write, and opening it
/// again: decrypt, decompress, hash plain.
const SEAL_STAGES: usize = 8;
/// Most bytes in the buffers of one chain that seals: every queue full, and each stage with one buffer in and one out.
const SEAL_BYTES_MAX: usize = BUFFER_BYTES * ((SEAL_STAGES + 1) * QUEUE_BUFFERS + (SEAL_STAGES + 2) * 2);
const _: () = assert!(SEAL_BYTES_MAX <= 24 << 20);

/// A piece of the stream.
pub(super) struct Buffer {
    bytes: Box<[u8]>,
    len: usize,
}

impl Buffer {
    /// What it holds.
    pub(super) fn content(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    /// What is still free in it.
    pub(super) fn free(&mut self) -> &mut [u8] {
        &mut self.bytes[self.len..]
    }

    /// The first `bytes` of what was free are filled.
    pub(super) fn filled(&mut self, bytes: usize) {
        self.len += bytes;
        assert!(self.len <= self.bytes.len(), "a buffer was filled beyond its end");
    }
}

/// Buffers that nobody uses at the moment. How many there are in all follows from the lengths of the queues.
#[derive(Default)]
pub(super) struct Pool(Mutex<Vec<Buffer>>);

impl Pool {
    pub(super) fn take(&self) -> Buffer {
        let reused = self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).pop();
        reused.unwrap_or_else(|| Buffer { bytes: vec![0; BUFFER_BYTES].into_boxed_slice(), len: 0 })
    }

    pub(super) fn give(&self, mut buffer: Buffer) {
        buffer.len = 0;
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).push(buffer);
    }
}

/// What goes from stage to stage.
enum Message {
    Data(Buffer),
    End,
}

/// The first error of any stage.
#[derive(Default)]
struct Failure {
    happened: AtomicBool,
    first: Mutex<Option<Error>>,
}

impl Failure {
    fn record(&self, error: Error) {
        self.first.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).get_or_insert(error);
        self.happened.store(true, Ordering::Release);
    }

    fn happened(&self) -> bool {
        self.happened.load(Ordering::Acquire)
    }

    fn into_result(self) -> Result<()> {
        match self.first.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner()) {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }
}

/// A stage's way out: collects bytes in buffers and hands the full ones on.
pub(super) struct Feed<'run> {
    pool: &'run Pool,
    next: SyncSender<Message>,
    current: Option<Buffer>,
}

impl Feed<'_> {
    /// An empty buffer.
    pub(super) fn take(&self) -> Buffer {
        self.pool.take()
    }

    /// Hands a buffer on, after what was collected before it.
    pub(super) fn send(&mut self, buffer: Buffer) -> Result<()> {
        self.flush()?;
        self.hand_on(Message::Data(buffer))
    }

    fn flush(&mut self) -> Result<()> {
        match self.current.take() {
            Some(buffer) if buffer.len > 0 => self.hand_on(Message::Data(buffer)),
            Some(buffer) => {
                self.pool.give(buffer);
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn end(&mut self) -> Result<()> {
        self.flush()?;
        self.hand_on(Message::End)
    }

    fn hand_on(&self, message: Message) -> Result<()> {
        // Never the first error: whoever let go of the channel recorded its own before.
        self.next.send(message).map_err(|_| Error::new(Code::Internal, "the next stage of the pipeline has ended"))
    }
}

impl Outlet for Feed<'_> {
    fn room(&mut self, least: usize) -> Result<&mut [u8]> {
        if self.current.as_ref().is_some_and(|buffer| buffer.bytes.len() - buffer.len < least) {
            self.flush()?;
        }
        Ok(self.current.get_or_insert_with(|| self.pool.take()).free())
    }

    fn filled(&mut self, bytes: usize) {
        if let Some(buffer) = self.current.as_mut() {
            buffer.filled(bytes);
        }
    }
}

/// Something that only looks at the bytes that pass, or puts them somewhere.
pub(super) type Look<'env> = Box<dyn FnMut(&[u8]) -> Result<()> + Send + 'env>;

/// A stage between source and sink.
pub(super) enum Stage<'env> {
    /// Changes the bytes.
    Filter(Box<dyn Filter + 'env>),
    /// Looks at them and passes them on as they are, without a copy.
    Look(&'static str, Look<'env>),
}

impl<'env> Stage<'env> {
    pub(super) fn filter(filter: impl Filter + 'env) -> Self {
        Stage::Filter(Box::new(filter))
    }

    pub(super) fn look(name: &'static str, mut look: impl FnMut(&[u8]) + Send + 'env) -> Self {
        Stage::try_look(name, move |bytes| {
            look(bytes);
            Ok(())
        })
    }

    pub(super) fn try_look(name: &'static str, look: impl FnMut(&[u8]) -> Result<()> + Send + 'env) -> Self {
        Stage::Look(name, Box::new(look))
    }

    fn name(&self) -> &'static str {
        match self {
            Stage::Filter(filter) => filter.name(),
            Stage::Look(name, _) => name,
        }
    }

    fn push(&mut self, buffer: Buffer, output: &mut Feed<'_>) -> Result<()> {
        match self {
            Stage::Filter(filter) => {
                filter.push(buffer.content(), output)?;
                output.pool.give(buffer);
                Ok(())
            }
            Stage::Look(_, look) => {
                look(buffer.content())?;
                output.send(buffer)
            }
        }
    }

    fn finish(&mut self, output: &mut Feed<'_>) -> Result<()> {
        if let Stage::Filter(filter) = self {
            filter.finish(output)?;
        }
        output.end()
    }
}

/// Runs `source`, `stages` and `sink` side by side until the source has ended and the sink has seen everything, or
/// one of them failed. `first_queue` is the number of buffers that wait between the source and the first stage.
/// The threads have all ended when this returns.
pub(super) fn run<'env>(
    task: &Task,
    first_queue: usize,
    source: impl FnOnce(&mut Feed<'_>) -> Result<()>,
    stages: Vec<Stage<'env>>,
    mut sink: impl FnMut(&[u8]) -> Result<()> + Send,
) -> Result<()> {
    let (pool, failure) = (Pool::default(), Failure::default());
    let complete = thread::scope(|scope| {
        let (first, mut receiver) = sync_channel(first_queue);
        let mut threads = Vec::with_capacity(stages.len());
        for mut stage in stages {
            let (next, following) = sync_channel(QUEUE_BUFFERS);
            let input = std::mem::replace(&mut receiver, following);
            let (pool, failure, name) = (&pool, &failure, stage.name());
            let body = move || {
                let mut output = Feed { pool, next, current: None };
                let _guard = PanicGuard { failure, name };
                let result = drain(task, failure, &input, |message| match message {
                    Message::Data(buffer) => stage.push(buffer, &mut output),
                    Message::End => stage.finish(&mut output),
                });
                settle(failure, result);
            };
            threads.push(spawn(scope, failure, name, body));
        }
        let (drained, failed) = (&pool, &failure);
        let body = move || {
            let _guard = PanicGuard { failure: failed, name: "write" };
            let result = drain(task, failed, &receiver, |message| {
                if let Message::Data(buffer) = message {
                    sink(buffer.content())?;
                    drained.give(buffer);
                }
                Ok(())
            });
            settle(failed, result)
        };
        let last = spawn(scope, &failure, "write", body);
        let mut feed = Feed { pool: &pool, next: first, current: None };
        settle(&failure, source(&mut feed).and_then(|()| feed.end()));
        drop(feed);
        for thread in threads.into_iter().flatten() {
            // A panic was recorded by the thread itself.
            let _ = thread.join();
        }
        last.is_some_and(|thread| thread.join().unwrap_or(false))
    });
    failure.into_result()?;
    match complete {
        true => Ok(()),
        false => Err(Error::new(Code::Internal, "the pipeline ended before its data did")),
    }
}

/// Hands every message to `work`. Says whether the end of the data was reached; without it, a stage before this one
/// has failed and has said why.
fn drain(
    task: &Task,
    failure: &Failure,
    input: &Receiver<Message>,
    mut work: impl FnMut(Message) -> Result<()>,
) -> Result<bool> {
    while let Ok(message) = input.recv() {
        if failure.happened() {
            return Ok(false);
        }
        task.check()?;
        let end = matches!(message, Message::End);
        work(message)?;
        if end {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Records an error. Called before the stage's channels are dropped, so that its neighbours' errors come second.
fn settle<T: Default>(failure: &Failure, result: Result<T>) -> T {
    result.unwrap_or_else(|error| {
        failure.record(error);
        T::default()
    })
}

fn spawn<'scope, T: Send + 'scope>(
    scope: &'scope thread::Scope<'scope, '_>,
    failure: &Failure,
    name: &str,
    body: impl FnOnce() -> T + Send + 'scope,
) -> Option<thread::ScopedJoinHandle<'scope, T>> {
    match thread::Builder::new().name(name.to_owned()).spawn_scoped(scope, body) {
        Ok(handle) => Some(handle),
        Err(cause) => {
            failure.record(Error::new(Code::IoFailed, format!("starting a thread for {name}: {cause}")));
            None
        }
    }
}

/// Records that its thread panicked. The last local of a thread's body, so that it is dropped before the stage's
/// channels: the panic is recorded before a neighbour notices.
struct PanicGuard<'a> {
    failure: &'a Failure,
    name: &'static str,
}

impl Drop for PanicGuard<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            let said = format!("the pipeline's stage {} panicked", self.name);
            self.failure.record(Error::new(Code::Internal, said));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{COMPRESSIONS, bytes, opened, record, sealed, spec};
    use super::super::{Compression, Protection, SealSpec, seal, unseal, verify_stored};
    use super::*;
    use crate::base::clock::Stopwatch;
    use crate::base::task::{Cancel, Observer, Progress, Severity};
    use std::io::{self, Read, Write};
    use std::sync::Arc;
    use std::sync::atomic::AtomicU64;
    use std::time::Duration;

    /// Gives `bytes` zeros and then fails; for ever without an end.
    struct Zeros {
        left: u64,
        then: Option<fn() -> io::Error>,
    }

    impl Read for Zeros {
        fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
            if self.left == 0 {
                return match self.then {
                    Some(error) => Err(error()),
                    None => Ok(0),
                };
            }
            let given = (room.len() as u64).min(self.left) as usize;
            room[..given].fill(0);
            self.left -= given as u64;
            Ok(given)
        }
    }

    /// Takes `left` bytes and then fails.
    struct Brim {
        left: u64,
        error: fn() -> io::Error,
    }

    impl Write for Brim {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.left == 0 {
                return Err((self.error)());
            }
            let taken = (bytes.len() as u64).min(self.left) as usize;
            self.left -= taken as u64;
            Ok(taken)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    const FOR_EVER: u64 = u64::MAX;

    #[test]
    fn an_error_of_the_sink_ends_everything_and_is_the_one_reported() {
        for compression in COMPRESSIONS {
            for left in [0, 1, 100_000] {
                let mut spec = spec(compression);
                spec.hash_plain = left == 1;
                // Zeros compress so well that the sink would wait for ever: these stages get incompressible bytes.
                let noise = bytes(8 << 20);
                let mut source = noise.as_slice().chain(Zeros { left: 1 << 20, then: None });
                let mut sink = Brim { left, error: || io::ErrorKind::StorageFull.into() };
                let error = seal(&mut source, &mut sink, &spec, &Task::unobserved()).expect_err("full");
                assert_eq!(error.code(), Code::BackupNoSpace, "{error}");
                let mut sink = Brim { left, error: || Error::new(Code::RepositoryIo, "the store is gone").into() };
                let error = seal(&mut noise.as_slice(), &mut sink, &spec, &Task::unobserved()).expect_err("gone");
                assert_eq!((error.code(), error.message()), (Code::RepositoryIo, "the store is gone"));
            }
        }
    }

    #[test]
    fn a_sink_that_fails_stops_an_endless_source() {
        let spec = SealSpec { compression: Compression::None, ..spec(Compression::None) };
        let mut sink = Brim { left: 1 << 20, error: || io::ErrorKind::StorageFull.into() };
        let mut source = Zeros { left: FOR_EVER, then: None };
        assert!(seal(&mut source, &mut sink, &spec, &Task::unobserved()).is_err());
        assert!(FOR_EVER - source.left < (1 << 20) + SEAL_BYTES_MAX as u64, "more was read than fits the buffers");
    }

    #[test]
    fn an_error_of_the_source_is_the_one_reported() {
        for compression in COMPRESSIONS {
            for left in [0, 1, 3_000_000] {
                let broken: fn() -> io::Error = || Error::new(Code::ToolTimeout, "the program hangs").into();
                let mut source = Zeros { left, then: Some(broken) };
                let error = seal(&mut source, &mut io::sink(), &spec(compression), &Task::unobserved()).err();
                assert_eq!(error.map(|e| e.code()), Some(Code::ToolTimeout));
            }
        }
    }

    #[test]
    fn errors_of_both_ends_of_unsealing_are_reported() {
        let (record, stored) = sealed(&bytes(3_000_000), &spec(Compression::Zstd { level: 1, workers: 0 }));
        let (keyring, policy) = (super::super::fixture::keyring(), super::super::fixture::POLICY);
        let task = Task::unobserved();
        let mut sink = Brim { left: 1000, error: || io::ErrorKind::StorageFull.into() };
        let error = unseal(&record, &keyring, &policy, &mut &stored[..], &mut sink, &task).expect_err("full");
        assert_eq!(error.code(), Code::BackupNoSpace);
        let gone: fn() -> io::Error = || Error::new(Code::ObjectNotFound, "gone").into();
        let mut source = (&stored[..1000]).chain(Zeros { left: 0, then: Some(gone) });
        let error = unseal(&record, &keyring, &policy, &mut source, &mut io::sink(), &task).expect_err("gone");
        assert_eq!(error.code(), Code::ObjectNotFound);
        let mut source = (&stored[..1000]).chain(Zeros { left: 0, then: Some(gone) });
        assert_eq!(
            verify_stored(&record, 0..record.stored.parts.len(), &mut source, &task).err().map(|e| e.code()),
            Some(Code::ObjectNotFound)
        );
    }

    /// Cancels once `after` bytes went through.
    struct CancelAfter {
        cancel: Cancel,
        after: u64,
    }

    impl Observer for CancelAfter {
        fn event(&self, _: Severity, _: &str) {}
        fn progress(&self, progress: &Progress) {
            if progress.done >= self.after {
                self.cancel.cancel();
            }
        }
    }

    #[test]
    fn a_cancelled_task_ends_soon() {
        for compression in COMPRESSIONS {
            let cancel = Cancel::default();
            let task = Task::new(Arc::new(CancelAfter { cancel: cancel.clone(), after: 10 << 20 }), cancel);
            let mut source = Zeros { left: FOR_EVER, then: None };
            let watch = Stopwatch::start();
            let error = seal(&mut source, &mut io::sink(), &spec(compression), &task).err();
            assert_eq!(error.map(|e| e.code()), Some(Code::Cancelled));
            assert!(FOR_EVER - source.left < 64 << 20, "it read on");
            assert!(watch.elapsed() < Duration::from_secs(20));
        }
        let (record, stored) = sealed(&bytes(1000), &spec(Compression::None));
        let task = Task::unobserved();
        task.cancel().cancel();
        assert_eq!(
            verify_stored(&record, 0..1, &mut &stored[..], &task).err().map(|e| e.code()),
            Some(Code::Cancelled)
        );
    }

    #[test]
    fn progress_counts_plaintext() {
        let plain = bytes(1_000_000);
        let task = Task::unobserved();
        let mut stored = Vec::new();
        let sealed = seal(&mut &plain[..], &mut stored, &spec(Compression::Gzip(1)), &task).expect("seal");
        assert_eq!(task.progress().done, plain.len() as u64);
        assert!(opened(&record(sealed), &stored).0.is_ok());
    }

    /// Gives one byte at a time, and is interrupted by signals in between.
    struct Trickle<'a>(&'a [u8], bool);

    impl Read for Trickle<'_> {
        fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
            self.1 = !self.1;
            if self.1 {
                return Err(io::ErrorKind::Interrupted.into());
            }
            let mut one = &self.0[..self.0.len().min(1)];
            let given = one.read(room)?;
            self.0 = &self.0[given..];
            Ok(given)
        }
    }

    #[test]
    fn short_and_interrupted_reads_are_no_end() {
        let plain = bytes(BUFFER_BYTES + 7);
        let mut stored = Vec::new();
        let task = Task::unobserved();
        let sealed = seal(&mut Trickle(&plain, false), &mut stored, &spec(Compression::None), &task).expect("seal");
        let record = record(sealed);
        let mut out = Vec::new();
        let (keyring, policy) = (super::super::fixture::keyring(), super::super::fixture::POLICY);
        unseal(&record, &keyring, &policy, &mut Trickle(&stored, false), &mut out, &task).expect("unseal");
        assert!(out == plain);
    }

    struct Panicking;

    impl Filter for Panicking {
        fn name(&self) -> &'static str {
            "panicking"
        }
        fn push(&mut self, _: &[u8], _: &mut dyn Outlet) -> Result<()> {
            panic!("a bug in a filter");
        }
        fn finish(&mut self, _: &mut dyn Outlet) -> Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_panic_is_an_error_and_never_an_end() {
        let task = Task::unobserved();
        let source = |feed: &mut Feed<'_>| {
            for _ in 0..100 {
                let mut buffer = feed.take();
                buffer.filled(BUFFER_BYTES);
                feed.send(buffer)?;
            }
            Ok(())
        };
        let stages = vec![Stage::filter(Panicking)];
        let error = run(&task, QUEUE_BUFFERS, source, stages, |_| Ok(())).expect_err("panic");
        assert_eq!(error.code(), Code::Internal);
        assert!(error.message().contains("stage panicking panicked"), "{error}");
        let error = run(&task, 1, |feed| feed.send(feed.take()), Vec::new(), |_| panic!("a bug")).expect_err("panic");
        assert!(error.message().contains("stage write panicked"), "{error}");
    }

    #[test]
    fn buffers_do_not_grow_with_the_data() {
        // A slow sink: everything before it fills up, and the source has to wait.
        let read = AtomicU64::new(0);
        let written = AtomicU64::new(0);
        struct Counted<'a>(&'a AtomicU64, &'a AtomicU64, u64);
        impl Read for Counted<'_> {
            fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
                if self.0.load(Ordering::SeqCst) >= self.2 {
                    return Ok(0);
                }
                let done = self.0.fetch_add(room.len() as u64, Ordering::SeqCst) + room.len() as u64;
                let ahead = done - self.1.load(Ordering::SeqCst);
                assert!(ahead <= SEAL_BYTES_MAX as u64 + BUFFER_BYTES as u64, "{ahead} bytes in flight");
                Ok(room.len())
            }
        }
        struct Slow<'a>(&'a AtomicU64);
        impl Write for Slow<'_> {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                std::thread::yield_now();
                self.0.fetch_add(bytes.len() as u64, Ordering::SeqCst);
                Ok(bytes.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let spec = SealSpec { compression: Compression::None, protection: Protection::Plain, hash_plain: true };
        let mut source = Counted(&read, &written, 256 << 20);
        seal(&mut source, &mut Slow(&written), &spec, &Task::unobserved()).expect("seal");
        assert!(written.load(Ordering::SeqCst) >= 256 << 20);
    }
}
