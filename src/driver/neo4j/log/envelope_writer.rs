//! Writes enveloped logs as a server would, for tests.

use super::checkpoint::Checkpoint;
use super::checkpoint::tests::entry;
use super::envelope::ENVELOPE_BYTES;
use super::files::{CHECKPOINTS, TRANSACTIONS};
use super::format::{COMMIT, Kernel, START};
use super::header::tests::real_header;
use super::scan::Transaction;
use std::path::Path;

/// A log that grows, file by file.
#[derive(Clone)]
pub(super) struct EnvelopedWriter {
    segment: usize,
    /// At the end of the segment that reaches this size a file ends.
    file_bytes: usize,
    /// What is left of a segment is padding up to this size.
    padding: usize,
    /// Id and append index of the last transaction, checksum of the last envelope.
    pub(super) last: (u64, u64, u32),
    pub(super) files: Vec<Vec<u8>>,
}

impl EnvelopedWriter {
    /// File 0 of an empty store.
    pub(super) fn new(segment: usize, file_bytes: usize, padding: usize) -> Self {
        let last = (1, 1, 0xdead_5eed);
        let mut writer = EnvelopedWriter { segment, file_bytes, padding, last, files: Vec::new() };
        writer.begin_file(1);
        writer
    }

    fn begin_file(&mut self, index: u64) {
        let number = self.files.len() as u64;
        self.files.push(header(number, index, self.segment as u32, self.last.2));
    }

    /// The rest of the segment is padding.
    fn next_segment(&mut self, index: u64) {
        let (segment, file_bytes) = (self.segment, self.file_bytes);
        let file = self.files.last_mut().expect("a file");
        file.resize(file.len().next_multiple_of(segment), 0);
        if file.len() >= file_bytes {
            self.begin_file(index);
        }
    }

    /// Appends a transaction of these command bytes; says in which file it ends.
    pub(super) fn commit(&mut self, commands: &[u8], committed_ms: i64) -> (u64, Transaction) {
        let id = self.last.0 + 1;
        let ending = [&[COMMIT][..], &id.to_le_bytes(), &committed_ms.to_le_bytes()].concat();
        self.append(START, commands, &ending, committed_ms)
    }

    /// Appends an entry that begins and ends like this.
    pub(super) fn append(&mut self, kind: u8, commands: &[u8], ending: &[u8], committed_ms: i64) -> (u64, Transaction) {
        let (id, index, previous) = (self.last.0 + 1, self.last.1 + 1, self.last.2);
        let start = [&[kind][..], &committed_ms.to_le_bytes(), &[0; 8], &[255; 8], &[0; 4]].concat();
        let payload = [&start[..], commands, ending].concat();
        let (mut rest, mut first, mut places) = (&payload[..], true, Vec::new());
        while !rest.is_empty() {
            let file = self.files.last().expect("a file");
            let room = self.segment - file.len() % self.segment;
            let full = room == self.segment && file.len() >= self.file_bytes;
            if room <= self.padding || full {
                self.next_segment(if first { index - 1 } else { index });
                continue;
            }
            let taken = rest.len().min(room - ENVELOPE_BYTES);
            let (piece, later) = rest.split_at(taken);
            let part = match (first, later.is_empty()) {
                (true, true) => 1,
                (true, false) => 2,
                (false, false) => 3,
                (false, true) => 4,
            };
            let envelope = envelope(part, index, self.last.2, piece);
            self.last.2 = u32::from_le_bytes(envelope[..4].try_into().expect("four bytes"));
            let number = self.files.len() - 1;
            let file = &mut self.files[number];
            places.push((number, file.len() as u64, envelope.len() as u64));
            file.extend(envelope);
            (rest, first) = (later, false);
        }
        (self.last.0, self.last.1) = (id, index);
        let (number, at, length) = places[places.len() - 1];
        let start = places.iter().find(|place| place.0 == number).map_or(at, |place| place.1);
        let earlier_bytes = places.iter().filter(|place| place.0 != number).map(|place| place.2).sum();
        let transaction = Transaction {
            id,
            append_index: Some(index),
            kernel: Kernel::V2026_08,
            start,
            end: at + length,
            committed_ms,
            checksum: self.last.2,
            previous_checksum: Some(previous),
            earlier_bytes,
        };
        (number as u64, transaction)
    }

    /// Writes all files to `directory`, as they are.
    pub(super) fn store(&self, directory: &Path) {
        for (number, bytes) in self.files.iter().enumerate() {
            std::fs::write(directory.join(format!("{TRANSACTIONS}{number}")), bytes).expect("write");
        }
    }
}

fn header(number: u64, index: u64, segment: u32, checksum: u32) -> Vec<u8> {
    let mut bytes = (10u64 << 56 | number).to_be_bytes().to_vec();
    bytes.extend(index.to_be_bytes());
    bytes.extend(&real_header()[24..88]);
    bytes.extend(segment.to_be_bytes());
    bytes.extend(checksum.to_be_bytes());
    bytes.extend([0; 8]);
    bytes.push(Kernel::V2026_08.0);
    bytes.resize(segment as usize, 0);
    bytes
}

fn envelope(part: u8, index: u64, previous: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0, 0, 0, 0, part];
    bytes.extend((payload.len() as u32).to_le_bytes());
    bytes.extend(index.to_le_bytes());
    bytes.push(Kernel::V2026_08.0);
    bytes.extend(previous.to_le_bytes());
    bytes.extend([0; 8]);
    bytes.push(64);
    bytes.extend(payload);
    let sum = crc32c::crc32c(&bytes[4..]);
    bytes[..4].copy_from_slice(&sum.to_le_bytes());
    bytes
}

/// The bytes of an enveloped checkpoint log with these entries.
pub(super) fn checkpoint_log(of: &[Checkpoint], segment: u32) -> Vec<u8> {
    let mut bytes = header(0, 0, segment, 0xdead_5eed);
    let mut last = 0xdead_5eed;
    for (index, checkpoint) in of.iter().enumerate() {
        let plain = entry(Kernel::V2026_08, checkpoint);
        let envelope = envelope(1, index as u64 + 1, last, &plain[1..plain.len() - 4]);
        last = u32::from_le_bytes(envelope[..4].try_into().expect("four bytes"));
        bytes.extend(envelope);
    }
    bytes
}

/// Writes an enveloped checkpoint log to `directory`.
pub(super) fn store_checkpoint(directory: &Path, of: Checkpoint) {
    let mut bytes = checkpoint_log(&[of], 4096);
    bytes.resize(bytes.len() + 5000, 0);
    std::fs::write(directory.join(format!("{CHECKPOINTS}0")), bytes).expect("write");
}
