//! PostgreSQL's checksum of a page, and what a page says of itself.
//!
//! The checksum is a variant of FNV-1a with 32 sums side by side, over the page with its own checksum taken as zero, mixed
//! with the number of the page in its relation. Source: `src/include/storage/checksum_impl.h`, the same since
//! PostgreSQL 9.3, and `bufpage.h` for the header.

/// Sums that are kept side by side.
const SUMS: usize = 32;
/// Bytes that all sums take in at once.
const STRIDE: usize = SUMS * 4;
/// FNV's prime for 32 bits.
const PRIME: u32 = 16_777_619;
/// What the sums begin with.
const OFFSETS: [u32; SUMS] = [
    0x5B1F_36E9,
    0xB852_5960,
    0x02AB_50AA,
    0x1DE6_6D2A,
    0x79FF_467A,
    0x9BB9_F8A3,
    0x217E_7CD2,
    0x83E1_3D2C,
    0xF8D4_474F,
    0xE39E_B970,
    0x42C6_AE16,
    0x9932_16FA,
    0x7B09_3B5D,
    0x98DA_FF3C,
    0xF718_902A,
    0x0B1C_9CDB,
    0xE58F_764B,
    0x1876_36BC,
    0x5D7B_3BB1,
    0xE73D_E7DE,
    0x92BE_C979,
    0xCCA6_C0B2,
    0x304A_0979,
    0x85AA_43D4,
    0x7831_25BB,
    0x6CA8_EAA2,
    0xE407_EAC6,
    0x4B5C_FC3E,
    0x9FBF_8C76,
    0x15CA_20BE,
    0xF2CA_9FD3,
    0x959B_D756,
];
/// Bytes of a page's header that are looked at here.
const HEADER: usize = 16;
/// Sizes that a server can be built with.
const SIZES: std::ops::RangeInclusive<usize> = 1024..=32_768;

/// The size of this cluster's pages in bytes; `None` for one that no server has.
pub(super) fn supported_size(bytes: usize) -> Option<usize> {
    (bytes.is_power_of_two() && SIZES.contains(&bytes)).then_some(bytes)
}

/// What a page looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Its checksum is right.
    Sound,
    /// It was allocated and never filled; it has no checksum.
    New,
    /// Its checksum is wrong; the position in the log that it claims to be of.
    Wrong(u64),
}

/// Looks at a page: number `block` of its relation, whose size is [`supported_size`].
pub(super) fn look(page: &[u8], block: u32) -> Verdict {
    let field = |at: usize| u16::from_ne_bytes([page[at], page[at + 1]]);
    debug_assert!(page.len() >= HEADER);
    // pd_upper
    if field(14) == 0 {
        return Verdict::New;
    }
    // pd_checksum
    if field(8) == checksum(page, block) {
        return Verdict::Sound;
    }
    let half = |at: usize| u64::from(u32::from_ne_bytes([page[at], page[at + 1], page[at + 2], page[at + 3]]));
    Verdict::Wrong(half(0) << 32 | half(4))
}

/// The checksum that a page should carry.
pub(super) fn checksum(page: &[u8], block: u32) -> u16 {
    let mut sums = OFFSETS;
    let (first, rest) = page.split_at(STRIDE.min(page.len()));
    let mut words = words_of(first);
    // The checksum itself is the lower half of the third word in memory.
    words[2] = u32::from_ne_bytes([0, 0, first[10], first[11]]);
    take(&mut sums, &words);
    for stride in rest.chunks_exact(STRIDE) {
        take(&mut sums, &words_of(stride));
    }
    for _ in 0..2 {
        take(&mut sums, &[0; SUMS]);
    }
    let folded = sums.iter().fold(block, |folded, sum| folded ^ sum);
    (folded % 65_535 + 1) as u16
}

fn words_of(stride: &[u8]) -> [u32; SUMS] {
    let mut words = [0; SUMS];
    for (word, bytes) in words.iter_mut().zip(stride.chunks_exact(4)) {
        *word = u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    }
    words
}

#[inline(always)]
fn take(sums: &mut [u32; SUMS], words: &[u32; SUMS]) {
    for (sum, word) in sums.iter_mut().zip(words) {
        let mixed = *sum ^ word;
        *sum = mixed.wrapping_mul(PRIME) ^ (mixed >> 17);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Two pages of a real cluster of version 15: the first two of `pg_class`.
    const REAL: &[u8] = include_bytes!("../../../../tests/data/postgres/pages.bin");
    const SIZE: usize = 8192;

    #[test]
    fn pages_of_a_real_cluster_are_sound() {
        assert_eq!(REAL.len(), 2 * SIZE);
        for (block, page) in REAL.chunks(SIZE).enumerate() {
            assert_eq!(look(page, block as u32), Verdict::Sound, "{block}");
        }
        // A page that stands in another's place is noticed.
        assert!(matches!(look(&REAL[..SIZE], 1), Verdict::Wrong(lsn) if lsn > 0));
        assert_eq!(look(&[0; SIZE], 7), Verdict::New);
    }

    /// As the manual's words say it, one sum after the other.
    fn plainly(page: &[u8], block: u32) -> u16 {
        let mut page = page.to_vec();
        page[8..10].fill(0);
        page.extend([0; 2 * STRIDE]);
        let mut folded = 0;
        for (lane, offset) in OFFSETS.into_iter().enumerate() {
            let mut sum = offset;
            for row in page.chunks(STRIDE) {
                let word = u32::from_ne_bytes(row[lane * 4..lane * 4 + 4].try_into().expect("4 bytes"));
                let mixed = sum ^ word;
                sum = mixed.wrapping_mul(PRIME) ^ (mixed >> 17);
            }
            folded ^= sum;
        }
        ((folded ^ block) % 65_535 + 1) as u16
    }

    /// A sum of 16 bits misses one change in 65 535, which for the 65 536 bits of a page is about one of them.
    #[test]
    fn a_flipped_bit_of_a_real_page_is_noticed_but_for_what_16_bits_miss() {
        let mut page = REAL[..SIZE].to_vec();
        let mut missed = 0;
        for bit in 0..SIZE * 8 {
            page[bit / 8] ^= 1 << (bit % 8);
            missed += u32::from(look(&page, 0) == Verdict::Sound);
            page[bit / 8] ^= 1 << (bit % 8);
        }
        assert!(missed <= 3, "{missed} flipped bits went unnoticed");
    }

    proptest! {
        #[test]
        fn it_is_the_sum_that_is_described(
            page in proptest::collection::vec(any::<u8>(), SIZE), block: u32, size in 10u32..=15
        ) {
            prop_assert_eq!(checksum(&page, block), plainly(&page, block));
            let other = vec![page[0]; 1 << size];
            prop_assert_eq!(checksum(&other, block), plainly(&other, block));
        }
    }
}
