//! A window that slides over a log file: bounded memory, each byte read once.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

/// The most bytes of a file that are in memory at a time.
const WINDOW_BYTES: usize = 4 << 20;
/// Bytes of the first read; each further one doubles. Most looks at a log find little that is new.
const FIRST_READ_BYTES: usize = 64 << 10;

/// How many bytes are looked at to tell whether anything was written.
const PROBE_BYTES: usize = 32;

/// Bytes that can be read at any offset without moving anything.
pub trait ReadAt {
    /// Reads some bytes at `offset`; 0 = the end.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
}

impl ReadAt for File {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        FileExt::read_at(self, buffer, offset)
    }
}

impl<T: ReadAt + ?Sized> ReadAt for &T {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        (**self).read_at(buffer, offset)
    }
}

impl<T: ReadAt + ?Sized> ReadAt for Arc<T> {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        (**self).read_at(buffer, offset)
    }
}

impl ReadAt for [u8] {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let rest = usize::try_from(offset).ok().and_then(|offset| self.get(offset..)).unwrap_or_default();
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }
}

/// Part of a file. Offsets are those in the file and only rise.
pub(super) struct Window<R: ReadAt> {
    source: R,
    buffer: Vec<u8>,
    /// Where the buffer begins in the file.
    begin: u64,
    next_read: usize,
}

impl<R: ReadAt> Window<R> {
    pub(super) fn new(source: R, offset: u64) -> Self {
        Window { source, buffer: Vec::new(), begin: offset, next_read: FIRST_READ_BYTES }
    }

    /// The bytes in memory from `offset` on, which is not before anything that was let go.
    pub(super) fn from(&self, offset: u64) -> &[u8] {
        let at = usize::try_from(offset.saturating_sub(self.begin)).unwrap_or(usize::MAX);
        self.buffer.get(at..).unwrap_or_default()
    }

    /// Lets go of what lies before `offset` and reads on. Whether anything was read: if not, this is the file's end.
    pub(super) fn slide(&mut self, offset: u64) -> io::Result<bool> {
        let let_go = usize::try_from(offset.saturating_sub(self.begin)).unwrap_or(usize::MAX).min(self.buffer.len());
        self.buffer.drain(..let_go);
        self.begin += let_go as u64;
        let kept = self.buffer.len();
        self.buffer.resize(kept + self.next_read, 0);
        let read = loop {
            match self.source.read_at(&mut self.buffer[kept..], self.begin + kept as u64) {
                Err(cause) if cause.kind() == io::ErrorKind::Interrupted => {}
                other => break other,
            }
        };
        self.buffer.truncate(kept + *read.as_ref().unwrap_or(&0));
        self.next_read = (self.next_read * 2).min(WINDOW_BYTES);
        Ok(read? > 0)
    }

    /// Whether anything was written at `offset`, which need not be in memory.
    pub(super) fn is_written(&self, offset: u64) -> io::Result<bool> {
        let mut probe = [0; PROBE_BYTES];
        let count = self.source.read_at(&mut probe, offset)?;
        Ok(probe[..count].iter().any(|&byte| byte != 0))
    }

    /// Reads on until `count` bytes from `offset` on are in memory, or the file ends; returns what is there.
    pub(super) fn at_least(&mut self, offset: u64, count: usize) -> io::Result<&[u8]> {
        while self.from(offset).len() < count && self.slide(offset)? {}
        Ok(self.from(offset))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_passes_once_and_memory_stays_bounded() {
        let bytes: Vec<u8> = (0..20 << 20).map(|n: u32| (n % 251) as u8).collect();
        let mut window = Window::new(&bytes[..], 0);
        let mut seen = 0;
        while window.slide(seen as u64).expect("read") {
            let now = window.from(seen as u64);
            assert_eq!(now, &bytes[seen..seen + now.len()]);
            assert!(now.len() <= WINDOW_BYTES, "{}", now.len());
            seen += now.len();
        }
        assert_eq!(seen, bytes.len());
    }

    #[test]
    fn the_end_is_not_an_error() {
        let mut window = Window::new(&[1u8, 2, 3][..], 1);
        assert_eq!(window.at_least(1, 10).expect("read"), &[2, 3]);
        assert!(!window.slide(3).expect("read"));
        assert_eq!(window.from(3), &[] as &[u8]);
        assert_eq!(Window::new(&[1u8][..], 9).at_least(9, 1).expect("read"), &[] as &[u8]);
    }
}
