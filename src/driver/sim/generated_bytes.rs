//! Bytes that are the same in every run and compress to about half, as real tables do.

use std::io::Read;

/// Bytes of one kind before the other follows.
const BLOCK: u64 = 4096;
/// What the compressible blocks consist of.
const TEXT: &[u8] = b"(:Person {name: 'Ada', born: 1815})-[:KNOWS]->(:Person {name: 'Charles'})\n";

/// A stream of `left` bytes: blocks of noise and blocks of repeated text by turns. The same seed gives the same bytes.
#[derive(Clone, Debug)]
pub(super) struct GeneratedBytes {
    seed: u64,
    left: u64,
    number: u64,
    block: Vec<u8>,
    used: usize,
}

impl GeneratedBytes {
    /// A stream of `size` bytes.
    pub(super) fn new(seed: u64, size: u64) -> Self {
        GeneratedBytes { seed, left: size, number: 0, block: Vec::new(), used: 0 }
    }

    fn next_block(&mut self) {
        self.block.clear();
        self.used = 0;
        if self.number % 2 == 1 {
            self.block.extend(TEXT.iter().cycle().take(BLOCK as usize));
        } else {
            // SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014). Each block
            // starts from its own number, so that no block is like another.
            let mut state = self.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(self.number << 32);
            while self.block.len() < BLOCK as usize {
                state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
                let mut mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
                mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
                self.block.extend_from_slice(&(mixed ^ (mixed >> 31)).to_le_bytes());
            }
        }
        self.number += 1;
    }
}

impl Read for GeneratedBytes {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let wanted = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let mut filled = 0;
        while filled < wanted {
            if self.used == self.block.len() {
                self.next_block();
            }
            let count = (wanted - filled).min(self.block.len() - self.used);
            buffer[filled..filled + count].copy_from_slice(&self.block[self.used..self.used + count]);
            self.used += count;
            filled += count;
        }
        self.left -= filled as u64;
        Ok(filled)
    }
}
