//! A stream that another thread writes: the archive is made by straightforward code that writes, and taken by a
//! pipeline that reads.

use crate::base::task::Task;
use crate::base::{Code, Error, Result};
use crate::driver::VolumeReader;
use crate::driver::tar_archive::{ALIGNMENT, Sink};
use std::io::{self, Read, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

/// Bytes handed over at once.
const CHUNK: usize = 256 << 10;
/// Chunks that may wait to be read.
const CHUNKS_WAITING: usize = 4;

/// Some bytes, and how many of them count.
struct Chunk {
    bytes: Box<[u8]>,
    filled: usize,
}

impl Chunk {
    fn new() -> Self {
        Chunk { bytes: vec![0; CHUNK].into_boxed_slice(), filled: 0 }
    }
}

/// The writing end.
pub(super) struct Producer {
    out: SyncSender<Chunk>,
    /// Chunks that were read, to be filled again.
    back: Receiver<Chunk>,
    chunk: Chunk,
}

impl Write for Producer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = &mut self.chunk.bytes[self.chunk.filled..];
        let count = bytes.len().min(room.len());
        room[..count].copy_from_slice(&bytes[..count]);
        self.chunk.filled += count;
        if self.chunk.filled == CHUNK {
            self.flush()?;
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.chunk.filled == 0 {
            return Ok(());
        }
        let next = self.back.try_recv().unwrap_or_else(|_| Chunk::new());
        let chunk = std::mem::replace(&mut self.chunk, Chunk { filled: 0, ..next });
        self.out.send(chunk).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

impl Sink for Producer {
    fn fill(&mut self, most: usize, read: &mut dyn FnMut(&mut [u8]) -> io::Result<usize>) -> io::Result<usize> {
        if CHUNK - self.chunk.filled < most.min(ALIGNMENT) {
            self.flush()?;
        }
        let room = &mut self.chunk.bytes[self.chunk.filled..];
        let room = match room.len() {
            enough if enough >= most => &mut room[..most],
            less => &mut room[..less / ALIGNMENT * ALIGNMENT],
        };
        let count = read(room)?;
        self.chunk.filled += count;
        if self.chunk.filled == CHUNK {
            self.flush()?;
        }
        Ok(count)
    }
}

/// The reading end. Dropping it makes the writer's next write fail.
pub(super) struct Stream {
    from: Option<Receiver<Chunk>>,
    back: SyncSender<Chunk>,
    chunk: Option<Chunk>,
    used: usize,
    worker: Option<JoinHandle<Result<()>>>,
    ended: bool,
}

/// Starts `work` on a thread of its own.
pub(super) fn spawn(work: impl FnOnce(Producer) -> Result<()> + Send + 'static) -> Stream {
    let (out, from) = sync_channel(CHUNKS_WAITING);
    let (back, again) = sync_channel(CHUNKS_WAITING);
    let worker = std::thread::spawn(move || work(Producer { out, back: again, chunk: Chunk::new() }));
    Stream { from: Some(from), back, chunk: None, used: 0, worker: Some(worker), ended: false }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if let Some(chunk) = &self.chunk
                && self.used < chunk.filled
            {
                let count = buffer.len().min(chunk.filled - self.used);
                buffer[..count].copy_from_slice(&chunk.bytes[self.used..self.used + count]);
                self.used += count;
                return Ok(count);
            }
            if let Some(read) = self.chunk.take() {
                // A writer that has enough of them, or has ended, needs no more.
                let _ = self.back.try_send(read);
            }
            match self.from.as_ref().and_then(|from| from.recv().ok()) {
                Some(chunk) => (self.chunk, self.used) = (Some(chunk), 0),
                None => {
                    self.ended = true;
                    return Ok(0);
                }
            }
        }
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
    fn what_is_filled_in_place_stands_between_what_is_written() {
        let mut stream = spawn(move |mut out| {
            let mut left = 1_000_000;
            out.write_all(&[1; 512]).map_err(|_| Error::new(Code::Cancelled, "closed"))?;
            while left > 0 {
                let filled = out.fill(left, &mut |room| {
                    assert!(room.len() == left || room.len() % ALIGNMENT == 0);
                    room.fill(2);
                    Ok(room.len())
                });
                left -= filled.map_err(|_| Error::new(Code::Cancelled, "closed"))?;
            }
            out.write_all(&[3; 512]).and_then(|()| out.flush()).map_err(|_| Error::new(Code::Cancelled, "closed"))
        });
        let mut got = Vec::new();
        stream.read_to_end(&mut got).expect("read");
        assert_eq!(got.len(), 1_001_024);
        assert!(got[..512].iter().all(|&b| b == 1) && got[512..1_000_512].iter().all(|&b| b == 2));
        assert!(got[1_000_512..].iter().all(|&b| b == 3));
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
