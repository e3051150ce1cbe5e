//! Logs as a server writes them, whole and damaged.

use super::*;
use crate::driver::postgres::wal::page::tests::first_page;
use proptest::prelude::*;

pub(in crate::driver::postgres::wal) const SIZE: u64 = 1 << 20;
pub(in crate::driver::postgres::wal) const FIRST: u64 = 3;
pub(in crate::driver::postgres::wal) const CLUSTER_TIMELINE: u32 = 1;
const CLUSTER: u64 = 42;

/// What a test writes.
#[derive(Clone, Debug)]
pub(in crate::driver::postgres::wal) enum Written {
    /// A record of so many bytes of data.
    Data(usize),
    /// A commit at this second.
    Commit(i64),
    /// A restore point.
    Point(String),
    /// A tablespace is made there.
    Tablespace(String),
    /// Which transactions run.
    Housekeeping,
    /// The segment ends here.
    Switch,
}

/// A log as a server writes it.
pub(in crate::driver::postgres::wal) struct Log {
    pub(in crate::driver::postgres::wal) bytes: Vec<u8>,
    pub(in crate::driver::postgres::wal) records: Vec<Record>,
}

fn header_at(position: u64, continued: u32) -> Vec<u8> {
    let segment = Segment { timeline: 1, number: position / SIZE };
    let mut page = first_page(segment, SIZE, CLUSTER);
    let long = position.is_multiple_of(SIZE);
    let flags = if long { 2u16 } else { 0 } | u16::from(continued > 0);
    page[2..4].copy_from_slice(&flags.to_ne_bytes());
    page[8..16].copy_from_slice(&position.to_ne_bytes());
    page[16..20].copy_from_slice(&continued.to_ne_bytes());
    page.truncate(if long { 40 } else { 24 });
    page
}

fn record(kind: &Written) -> Vec<u8> {
    let (info, manager, data) = match kind {
        Written::Data(length) => (0, 10, (0..*length).map(|at| (at * 31) as u8).collect::<Vec<u8>>()),
        Written::Commit(second) => {
            let mut data = vec![253, 1, 0, 255, 8];
            data.extend((second * 1_000_000 - EPOCH_MICROSECONDS).to_ne_bytes());
            (0x80, RM_XACT, data)
        }
        Written::Point(name) => {
            let mut data = vec![255, 72];
            data.extend(0i64.to_ne_bytes());
            data.extend(name.as_bytes());
            data.resize(2 + 72, 0);
            (XLOG_POINT, RM_XLOG, data)
        }
        Written::Tablespace(place) => {
            let length = 4 + place.len() + 1;
            let mut data = if length < 256 { vec![255, length as u8] } else { vec![254] };
            if length >= 256 {
                data.extend((length as u32).to_ne_bytes());
            }
            data.extend(16384u32.to_ne_bytes());
            data.extend(place.as_bytes());
            data.push(0);
            (TBLSPC_CREATE, RM_TBLSPC, data)
        }
        Written::Housekeeping => (RUNNING_XACTS, RM_STANDBY, vec![255, 24, 0, 0, 0, 0, 0, 0, 0, 0]),
        Written::Switch => (XLOG_SWITCH, RM_XLOG, Vec::new()),
    };
    let mut header = vec![0; HEADER];
    header[..4].copy_from_slice(&((HEADER + data.len()) as u32).to_ne_bytes());
    header[4..8].copy_from_slice(&77u32.to_ne_bytes());
    (header[16], header[17]) = (info, manager);
    let crc = crc32c::crc32c_append(crc32c::crc32c(&data), &header[..20]);
    header[20..24].copy_from_slice(&crc.to_ne_bytes());
    [header, data].concat()
}

impl Log {
    pub(in crate::driver::postgres::wal) fn write(written: &[Written]) -> Log {
        let mut log = Log { bytes: Vec::new(), records: Vec::new() };
        for kind in written {
            log.open_page(0);
            let (start, bytes) = (log.position(), record(kind));
            let mut rest = &bytes[..];
            while !rest.is_empty() {
                log.open_page(if rest.len() == bytes.len() { 0 } else { rest.len() as u32 });
                let room = PAGE - log.bytes.len() % PAGE;
                let (now, later) = rest.split_at(rest.len().min(room));
                log.bytes.extend_from_slice(now);
                rest = later;
            }
            log.bytes.resize(log.bytes.len().next_multiple_of(8), 0);
            if matches!(kind, Written::Switch) {
                log.bytes.resize(log.bytes.len().next_multiple_of(SIZE as usize), 0);
            }
            let commit = match kind {
                Written::Commit(second) => {
                    Some(Commit { start, time: Timestamp::from_second(*second).expect("time"), xid: 77 })
                }
                _ => None,
            };
            let point = match kind {
                Written::Point(name) => Some(PointName::new(name).expect("name")),
                _ => None,
            };
            let tablespace = match kind {
                Written::Tablespace(place) => Some(PathBuf::from(place)),
                _ => None,
            };
            let housekeeping = matches!(kind, Written::Housekeeping);
            log.records.push(Record { start, end: log.position(), commit, point, tablespace, housekeeping });
        }
        log
    }

    fn position(&self) -> u64 {
        FIRST * SIZE + self.bytes.len() as u64
    }

    fn open_page(&mut self, continued: u32) {
        if self.bytes.len().is_multiple_of(PAGE) {
            self.bytes.extend(header_at(self.position(), continued));
        }
    }

    /// Whole segments, the last of them filled up by a switch.
    pub(in crate::driver::postgres::wal) fn finished(mut written: Vec<Written>) -> Log {
        written.push(Written::Switch);
        Log::write(&written)
    }

    fn scan(&self, from: Option<u64>) -> Result<Vec<Record>> {
        let mut scanner = Scanner::new(1, SIZE, from);
        let mut found = Vec::new();
        for (index, content) in self.bytes.chunks(SIZE as usize).enumerate() {
            let segment = Segment { timeline: 1, number: FIRST + index as u64 };
            scanner.segment(segment, content, &mut |record| found.push(record))?;
        }
        Ok(found)
    }
}

fn written() -> impl Strategy<Value = Vec<Written>> {
    let one = prop_oneof![
        8 => (0usize..20_000).prop_map(Written::Data),
        1 => (900_000usize..1_200_000).prop_map(Written::Data),
        8 => (0i64..2_000_000_000).prop_map(Written::Commit),
        2 => "[a-z]{1,63}".prop_map(Written::Point),
        2 => "/[a-z]{1,1000}".prop_map(Written::Tablespace),
        1 => Just(Written::Switch),
    ];
    proptest::collection::vec(one, 0..40)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn every_record_is_found_wherever_reading_begins(written in written(), at in any::<prop::sample::Index>()) {
        let log = Log::finished(written);
        prop_assert_eq!(&log.scan(None).expect("sound"), &log.records);
        let from = &log.records[at.index(log.records.len())..];
        prop_assert_eq!(log.scan(Some(from[0].start)).expect("sound"), from);
    }

    #[test]
    fn a_flipped_bit_never_changes_what_is_found(written in written(), at in any::<prop::sample::Index>(), bit in 0u8..8) {
        let mut log = Log::finished(written);
        let at = at.index(log.bytes.len());
        log.bytes[at] ^= 1 << bit;
        if let Ok(found) = log.scan(None) {
            prop_assert_eq!(&found, &log.records, "byte {}", at);
        }
    }

    #[test]
    fn reading_from_the_middle_gives_what_follows(written in written()) {
        let log = Log::finished(written);
        let skipped = SIZE as usize;
        if log.bytes.len() > skipped {
            let mut scanner = Scanner::new(1, SIZE, None);
            let mut found = Vec::new();
            for (index, content) in log.bytes[skipped..].chunks(SIZE as usize).enumerate() {
                let segment = Segment { timeline: 1, number: FIRST + 1 + index as u64 };
                scanner.segment(segment, content, &mut |record| found.push(record)).expect("sound");
            }
            let later = (FIRST + 1) * SIZE;
            let expected: Vec<Record> = log.records.iter().filter(|record| record.start >= later).cloned().collect();
            prop_assert_eq!(found, expected);
        }
    }

    #[test]
    fn foreign_bytes_are_refused_and_never_panic(content in proptest::collection::vec(any::<u8>(), 0..20_000)) {
        let _ = Scanner::new(1, SIZE, None).segment(Segment { timeline: 1, number: 0 }, &content, &mut |_| {});
    }
}

#[test]
fn a_log_that_breaks_off_is_told_from_one_that_ends() {
    let log = Log::write(&[Written::Data(100), Written::Commit(5)]);
    let mut bytes = log.bytes.clone();
    bytes.resize(PAGE, 0);
    let zeroed = Log { bytes, records: Vec::new() };
    assert_eq!(zeroed.scan(None).map_err(|error| error.code()), Err(Code::LogCorrupted));
}

#[test]
fn a_record_that_was_given_up_in_a_crash_is_passed_over() {
    let mut log = Log::write(&[Written::Data(PAGE * 2 - 200)]);
    let whole = log.bytes.len();
    log.bytes.truncate(whole / PAGE * PAGE);
    let position = log.position();
    let mut page = header_at(position, 0);
    page[2..4].copy_from_slice(&8u16.to_ne_bytes());
    page.extend(record(&Written::Commit(9)));
    page.resize(page.len().next_multiple_of(8), 0);
    page.extend(record(&Written::Switch));
    log.bytes.extend(page);
    log.bytes.resize(log.bytes.len().next_multiple_of(SIZE as usize), 0);
    let found = log.scan(None).expect("sound");
    assert_eq!(found.iter().filter(|record| record.commit.is_some()).count(), 1);
    assert_eq!(found.len(), 2);
}
