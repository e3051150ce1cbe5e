//! Writes logs as a server would, for tests.

use super::format::{CHUNK_END, COMMIT, Kernel, LogFormat, START, StartLayout};
use super::header::tests::header_of;
use super::scan::Transaction;

/// A log that grows.
#[derive(Clone)]
pub(super) struct LogWriter {
    pub(super) kernel: Kernel,
    /// Id, append index and checksum of the last transaction.
    pub(super) last: (u64, u64, u32),
    /// The file being written.
    pub(super) bytes: Vec<u8>,
    pub(super) number: u64,
}

impl LogWriter {
    /// File 0 of an empty store.
    pub(super) fn new(kernel: Kernel) -> Self {
        let mut writer = LogWriter { kernel, last: (1, 1, 0xdead_5eed), bytes: Vec::new(), number: 0 };
        writer.bytes = writer.header();
        writer
    }

    fn format(&self) -> LogFormat {
        if self.kernel < Kernel::V5_20 { LogFormat::V8 } else { LogFormat::V9 }
    }

    fn header(&self) -> Vec<u8> {
        header_of(self.format(), self.number, if self.format() == LogFormat::V8 { self.last.0 } else { self.last.1 })
    }

    /// Begins the next file and hands over the one before.
    pub(super) fn rotate(&mut self) -> Vec<u8> {
        self.number += 1;
        let header = self.header();
        std::mem::replace(&mut self.bytes, header)
    }

    /// Appends a transaction of these command bytes.
    pub(super) fn commit(&mut self, commands: &[u8], committed_ms: i64) -> Transaction {
        self.write(commands, committed_ms, COMMIT)
    }

    /// Appends the first chunk of a transaction.
    pub(super) fn chunk(&mut self, commands: &[u8]) -> Transaction {
        self.write(commands, 1, CHUNK_END)
    }

    fn write(&mut self, commands: &[u8], committed_ms: i64, end: u8) -> Transaction {
        let (id, index, before) = (self.last.0 + 1, self.last.1 + 1, self.last.2);
        let layout = self.kernel.start_layout().expect("a known kernel");
        let begin = self.bytes.len();
        let long = |bytes: &mut Vec<u8>, number: u64| bytes.extend(number.to_le_bytes());
        self.bytes.extend([self.kernel.0, START]);
        long(&mut self.bytes, committed_ms as u64);
        long(&mut self.bytes, self.last.0);
        if layout.has_previous_checksum() {
            self.bytes.extend(before.to_le_bytes());
        }
        if layout.has_append_index() {
            long(&mut self.bytes, index);
        }
        if layout == StartLayout::Sequenced {
            long(&mut self.bytes, u64::MAX);
        }
        self.bytes.extend(0u32.to_le_bytes());
        self.bytes.extend(commands);
        self.bytes.extend([self.kernel.0, end]);
        long(&mut self.bytes, id);
        long(&mut self.bytes, committed_ms as u64);
        let checksum = crc32c::crc32c(&self.bytes[begin..]);
        self.bytes.extend(checksum.to_le_bytes());
        self.last = (id, index, checksum);
        Transaction {
            id,
            append_index: layout.has_append_index().then_some(index),
            kernel: self.kernel,
            start: begin as u64,
            end: self.bytes.len() as u64,
            committed_ms,
            checksum,
            previous_checksum: layout.has_previous_checksum().then_some(before),
            earlier_bytes: 0,
        }
    }
}
