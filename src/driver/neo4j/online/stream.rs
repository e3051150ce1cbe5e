//! A stream that another thread writes: the archive is made by straightforward code that writes, and taken by a
//! pipeline that reads.

use crate::base::task::Task;
use crate::base::{Code, Error, Result};
use crate::driver::VolumeReader;
use std::io::{self, Read, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

/// Bytes handed over at once.
const CHUNK: usize = 256 << 10;
/// Chunks that may wait to be read.
const CHUNKS_WAITING: usize = 4;

/// The writing end.
pub(super) struct Producer {
    out: SyncSender<Vec<u8>>,
    chunk: Vec<u8>,
}

impl Write for Producer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = bytes.len().min(CHUNK - self.chunk.len());
        self.chunk.extend_from_slice(&bytes[..count]);
        if self.chunk.len() == CHUNK {
            self.flush()?;
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.chunk.is_empty() {
            return Ok(());
        }
        let chunk = std::mem::replace(&mut self.chunk, Vec::with_capacity(CHUNK));
        self.out.send(chunk).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

/// The reading end. Dropping it makes the writer's next write fail.
pub(super) struct Stream {
    from: Option<Receiver<Vec<u8>>>,
    chunk: Vec<u8>,
    used: usize,
    worker: Option<JoinHandle<Result<()>>>,
    ended: bool,
}

/// Starts `work` on a thread of its own.
pub(super) fn spawn(work: impl FnOnce(Producer) -> Result<()> + Send + 'static) -> Stream {
    let (out, from) = sync_channel(CHUNKS_WAITING);
    let worker = std::thread::spawn(move || work(Producer { out, chunk: Vec::with_capacity(CHUNK) }));
    Stream { from: Some(from), chunk: Vec::new(), used: 0, worker: Some(worker), ended: false }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.used == self.chunk.len() {
            match self.from.as_ref().and_then(|from| from.recv().ok()) {
                Some(chunk) => (self.chunk, self.used) = (chunk, 0),
                None => {
                    self.ended = true;
                    return Ok(0);
                }
            }
        }
        let count = buffer.len().min(self.chunk.len() - self.used);
        buffer[..count].copy_from_slice(&self.chunk[self.used..self.used + count]);
        self.used += count;
        Ok(count)
    }
}

impl Stream {
    fn join(&mut self) -> Result<()> {
        self.from = None;
        match self.worker.take().map(JoinHandle::join) {
            Some(Ok(outcome)) => outcome,
            Some(Err(_)) => Err(Error::new(Code::Internal, "the thread that copies the files panicked")),
            None => Ok(()),
        }
    }
}

impl VolumeReader for Stream {
    fn finish(mut self: Box<Self>, _task: &Task) -> Result<()> {
        let ended = self.ended;
        self.join()?;
        if ended { Ok(()) } else { Err(Error::new(Code::Internal, "the archive was not read to its end")) }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // The worker must not outlive what it reads from; its error no longer interests anybody.
        let _ = self.join();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_written_is_read_in_order() {
        let content: Vec<u8> = (0..1_000_000u32).flat_map(u32::to_le_bytes).collect();
        let expected = content.clone();
        let mut stream = spawn(move |mut out| {
            out.write_all(&content).and_then(|()| out.flush()).map_err(|_| Error::new(Code::Cancelled, "closed"))
        });
        let mut got = Vec::new();
        stream.read_to_end(&mut got).expect("read");
        assert_eq!(got, expected);
        Box::new(stream).finish(&Task::unobserved()).expect("finish");
    }

    #[test]
    fn a_failed_writer_is_told_by_finish_and_an_abandoned_one_ends() {
        let mut stream = spawn(|_| Err(Error::new(Code::LogGap, "pruned")));
        let mut got = Vec::new();
        stream.read_to_end(&mut got).expect("read");
        assert_eq!(Box::new(stream).finish(&Task::unobserved()).map_err(|e| e.code()), Err(Code::LogGap));
        let abandoned = spawn(|mut out| {
            loop {
                out.write_all(&[0; 1000]).map_err(|_| Error::new(Code::Cancelled, "closed"))?;
            }
        });
        drop(abandoned);
    }
}
