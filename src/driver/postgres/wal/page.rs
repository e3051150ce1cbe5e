//! The headers of pages in the log (`XLogPageHeaderData`, `XLogLongPageHeaderData` in `src/include/access/xlog_internal.h`),
//! in the byte order of the machine that wrote them, which is this one: a log of another order is refused.

use super::name::{Segment, is_segment_size};
use crate::artifact::log_point::Lsn;
use crate::base::{Code, Error, Result};

/// Bytes of a page. Servers can be built with others; those are refused.
pub(crate) const PAGE: usize = 8192;
/// Bytes of a header.
const SHORT_HEADER: usize = 24;
/// Bytes of the header that begins a segment.
const LONG_HEADER: usize = 40;
/// `XLOG_PAGE_MAGIC` from version 13 on; each version has a higher one, and all have had 0xD1 since version 10.
const MAGICS: std::ops::RangeInclusive<u16> = 0xD106..=0xD1FF;
/// The page begins with the rest of a record.
const FIRST_IS_CONTINUED: u16 = 0x0001;
/// The header is a long one.
const LONG: u16 = 0x0002;
/// The record whose rest should stand here was given up in a crash; another one stands here.
const FIRST_IS_OVERWRITTEN: u16 = 0x0008;

/// A page's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PageHeader {
    /// By which the server's version is known.
    pub(crate) magic: u16,
    /// The timeline that the page was written on: that of its segment, or an ancestor.
    pub(crate) timeline: u32,
    /// Position of the page.
    pub(crate) position: u64,
    /// Bytes of a record from before that stand first; 0 = none.
    pub(crate) continued: u32,
    /// Whether a record from before was given up.
    pub(crate) overwritten: bool,
    /// What a segment's first page says besides.
    pub(crate) long: Option<LongHeader>,
}

/// What only the first page of a segment says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LongHeader {
    /// The cluster.
    pub(crate) system_identifier: u64,
    /// Bytes of a segment.
    pub(crate) segment_size: u32,
    /// Bytes of a page.
    pub(crate) page_size: u32,
}

/// Reads `N` bytes at `at`.
pub(super) fn bytes<const N: usize>(from: &[u8], at: usize) -> Option<[u8; N]> {
    from.get(at..at.checked_add(N)?)?.try_into().ok()
}

impl PageHeader {
    /// Reads a header; `None` for bytes that are none.
    pub(crate) fn parse(page: &[u8]) -> Option<PageHeader> {
        let magic = u16::from_ne_bytes(bytes(page, 0)?);
        let flags = u16::from_ne_bytes(bytes(page, 2)?);
        let long = if flags & LONG != 0 {
            Some(LongHeader {
                system_identifier: u64::from_ne_bytes(bytes(page, 24)?),
                segment_size: u32::from_ne_bytes(bytes(page, 32)?),
                page_size: u32::from_ne_bytes(bytes(page, 36)?),
            })
        } else {
            None
        };
        let continued = u32::from_ne_bytes(bytes(page, 16)?);
        (MAGICS.contains(&magic) && page.len() >= SHORT_HEADER).then_some(PageHeader {
            magic,
            timeline: u32::from_ne_bytes(bytes(page, 4)?),
            position: u64::from_ne_bytes(bytes(page, 8)?),
            continued: if flags & FIRST_IS_CONTINUED != 0 { continued } else { 0 },
            overwritten: flags & FIRST_IS_OVERWRITTEN != 0,
            long,
        })
    }

    /// Its own length.
    pub(crate) fn length(&self) -> usize {
        if self.long.is_some() { LONG_HEADER } else { SHORT_HEADER }
    }
}

/// Checks the first page of a file that claims to be `segment` (or the beginning of it). `LOG_CORRUPTED` for what is no
/// log or another piece of it, `OWNER_CONFLICT` for another cluster's.
pub(crate) fn check_first(page: &[u8], segment: Segment, size: u64, cluster: u64) -> Result<PageHeader> {
    let name = segment.name(size);
    let refuse = |why: String| Err(Error::new(Code::LogCorrupted, format!("{name} {why}")));
    let Some(header) = PageHeader::parse(page) else {
        return refuse("does not begin as a segment of PostgreSQL's log does".to_owned());
    };
    let Some(long) = header.long else { return refuse("begins with a page from the middle of a segment".to_owned()) };
    if long.system_identifier != cluster {
        let text = format!("{name} is of cluster {}, the target's is {cluster}", long.system_identifier);
        return Err(Error::new(Code::OwnerConflict, text)
            .with_hint("another cluster's archive_command names this target: give each cluster a target of its own"));
    }
    if u64::from(long.segment_size) != size || !is_segment_size(size) {
        return refuse(format!("has segments of {} bytes, the cluster has {size}", long.segment_size));
    }
    if long.page_size as usize != PAGE {
        return Err(Error::new(Code::PostgresUnsupported, format!("{name} has pages of {} bytes", long.page_size)));
    }
    if header.position != segment.start(size) {
        return refuse(format!("holds the log from {}, not from {}", Lsn(header.position), Lsn(segment.start(size))));
    }
    if header.timeline > segment.timeline || header.timeline == 0 {
        return refuse(format!("was written on timeline {}", header.timeline));
    }
    Ok(header)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    const SIZE: u64 = 1 << 20;

    /// The first page of a segment.
    pub(in crate::driver::postgres::wal) fn first_page(segment: Segment, size: u64, cluster: u64) -> Vec<u8> {
        let mut page = vec![0; PAGE];
        page[..2].copy_from_slice(&0xD110u16.to_ne_bytes());
        page[2..4].copy_from_slice(&LONG.to_ne_bytes());
        page[4..8].copy_from_slice(&segment.timeline.to_ne_bytes());
        page[8..16].copy_from_slice(&segment.start(size).to_ne_bytes());
        page[24..32].copy_from_slice(&cluster.to_ne_bytes());
        page[32..36].copy_from_slice(&(size as u32).to_ne_bytes());
        page[36..40].copy_from_slice(&(PAGE as u32).to_ne_bytes());
        page
    }

    #[test]
    fn a_segment_that_is_not_what_its_name_says_is_refused() {
        let segment = Segment { timeline: 3, number: 7 };
        let page = first_page(segment, SIZE, 99);
        let code =
            |page: &[u8], segment, size, cluster| check_first(page, segment, size, cluster).map_err(|e| e.code());
        assert_eq!(code(&page, segment, SIZE, 99).map(|header| header.position), Ok(7 * SIZE));
        assert_eq!(code(&page, segment, SIZE, 98).err(), Some(Code::OwnerConflict));
        assert_eq!(code(&page, segment.next(), SIZE, 99).err(), Some(Code::LogCorrupted));
        assert_eq!(code(&page, segment, 2 * SIZE, 99).err(), Some(Code::LogCorrupted));
        let earlier = Segment { timeline: 2, ..segment };
        assert_eq!(code(&page, earlier, SIZE, 99).err(), Some(Code::LogCorrupted), "a later timeline's page");
        let later = Segment { timeline: 4, ..segment };
        assert!(code(&page, later, SIZE, 99).is_ok(), "a fork copies the pages before it");
        assert_eq!(code(&[0; PAGE], segment, SIZE, 99).err(), Some(Code::LogCorrupted));
        assert_eq!(code(b"", segment, SIZE, 99).err(), Some(Code::LogCorrupted));
    }

    proptest! {
        #[test]
        fn a_changed_header_never_passes_unnoticed(at in 0usize..40, bit in 0u8..8) {
            let segment = Segment { timeline: 1, number: 7 };
            let whole = first_page(segment, SIZE, 99);
            let mut page = whole.clone();
            page[at] ^= 1 << bit;
            // What the header has besides (flags, the rest of a record, alignment) is judged when records are read.
            let judged = matches!(at, 4..16 | 24..40) || at == 1;
            prop_assert!(!judged || check_first(&page, segment, SIZE, 99).is_err());
        }

        #[test]
        fn foreign_bytes_never_panic(page in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = check_first(&page, Segment { timeline: 1, number: 0 }, SIZE, 1);
        }
    }
}
