//! Buffers of one part that go round: what was sent comes back to be filled again.
//!
//! Allocated anew for each part, and freed on another thread than they were allocated on, they would leave the
//! allocator holding twice the memory that is ever in use.

use crate::artifact::digest::PART_SIZE;
use bytes::Bytes;
use std::sync::mpsc::{Receiver, Sender, channel};

/// Bytes of a part.
pub(super) const PART: usize = PART_SIZE as usize;

/// See the module.
#[derive(Debug)]
pub(super) struct Buffers {
    back: Sender<Vec<u8>>,
    free: Receiver<Vec<u8>>,
}

/// A buffer that is on its way; the last of its readers sends it back.
struct Lent {
    buffer: Vec<u8>,
    back: Sender<Vec<u8>>,
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.buffer
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.clear();
        // Nobody waits for it where the upload has ended.
        let _ = self.back.send(buffer);
    }
}

impl Buffers {
    pub(super) fn new() -> Self {
        let (back, free) = channel();
        Buffers { back, free }
    }

    /// Gives a full buffer away to be read.
    pub(super) fn lend(&self, buffer: Vec<u8>) -> Bytes {
        Bytes::from_owner(Lent { buffer, back: self.back.clone() })
    }

    /// An empty one: one that came back, or another.
    pub(super) fn empty(&self) -> Vec<u8> {
        self.free.try_recv().unwrap_or_else(|_| Vec::with_capacity(PART))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_read_by_all_comes_back() {
        let buffers = Buffers::new();
        let mut first = buffers.empty();
        let place = first.as_ptr();
        first.extend_from_slice(b"content");
        let lent = buffers.lend(first);
        let copy = lent.clone();
        drop(lent);
        let other = buffers.empty();
        assert_ne!(other.as_ptr(), place, "somebody reads it still");
        assert_eq!(&copy[..], b"content");
        drop(copy);
        let again = buffers.empty();
        assert_eq!((again.as_ptr(), again.len()), (place, 0));
    }
}
