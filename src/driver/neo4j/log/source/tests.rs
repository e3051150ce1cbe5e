//! Archiving a log that a writer in the test extends, rotates, prunes, tears and forks.

use super::super::checkpoint::tests::checkpoint;
use super::super::envelope_writer::EnvelopedWriter;
use super::super::files::TRANSACTIONS;
use super::super::format::Kernel;
use super::super::header::HEADER_BYTES;
use super::super::scan::Transaction;
use super::super::writer::LogWriter;
use super::*;
use crate::artifact::digest::sha256_hex;
use crate::base::{Code, Error};
use crate::driver::log::{LogChunk, LogReader};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::fs;
use std::io::Read;

const UNLIMITED: u64 = u64::MAX;

/// A log directory, its writer, and what was archived of it.
struct Site {
    directory: tempfile::TempDir,
    writer: LogWriter,
    source: Neo4jLog,
    archived: BTreeMap<u64, Vec<u8>>,
}

impl Site {
    fn new(kernel: Kernel) -> Site {
        let directory = tempfile::tempdir().expect("tempdir");
        let path = directory.path().to_owned();
        let site = Site {
            source: Neo4jLog::new(move || Ok(path.clone())),
            writer: LogWriter::new(kernel),
            directory,
            archived: BTreeMap::new(),
        };
        site.flush(0);
        site
    }

    fn path(&self, number: u64) -> PathBuf {
        self.directory.path().join(format!("{TRANSACTIONS}{number}"))
    }

    /// Writes the current file in place, as a server does, with `zeros` preallocated behind.
    fn flush(&self, zeros: usize) {
        self.flush_part(self.writer.bytes.len(), zeros);
    }

    fn flush_part(&self, length: usize, zeros: usize) {
        use std::io::Write;
        let mut file = fs::OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(self.path(self.writer.number))
            .expect("open");
        file.write_all(&self.writer.bytes[..length]).expect("write");
        file.set_len(length as u64).expect("set length");
        file.set_len((length + zeros) as u64).expect("set length");
    }

    fn commit(&mut self, size: usize) -> Transaction {
        let id = self.writer.last.0;
        self.writer.commit(&vec![id as u8; size], 1_795_000_000_000 + id as i64)
    }

    fn rotate(&mut self) {
        self.flush(0);
        self.writer.rotate();
        self.flush(0);
    }

    fn resume(&self, after: &LogMark) -> Resumption {
        self.source.resume(after, &Task::unobserved()).expect("resume")
    }

    fn reader(&self, after: &LogMark) -> Box<dyn LogReader> {
        match self.resume(after) {
            Resumption::Continues(reader) => reader,
            Resumption::Forked(what) => panic!("forked: {what}"),
            Resumption::Gap(what) => panic!("gap: {what}"),
        }
    }

    /// Reads a batch and lays its bytes into the archive, checking what it says of itself.
    fn archive(&mut self, chunk: LogChunk) -> LogMark {
        let LogChunk { start, end, segments, mut reader, .. } = chunk;
        let mut bytes = Vec::new();
        reader.read_to_end(&mut bytes).expect("read");
        reader.finish(&Task::unobserved()).expect("finish");
        let mut rest = &bytes[..];
        assert!(segments.windows(2).all(|pair| pair[0].file < pair[1].file));
        for segment in &segments {
            let (own, others) = rest.split_at(segment.length as usize);
            rest = others;
            assert_eq!(segment.sha256, sha256_hex(own));
            assert!(segment.transactions > 0);
            let file = self.archived.entry(segment.file).or_default();
            if segment.offset == 0 {
                assert!(file.is_empty());
            } else if file.is_empty() {
                // Where the archive began.
                file.resize(segment.offset as usize, 0);
            }
            assert_eq!(file.len() as u64, segment.offset);
            file.extend(own);
        }
        assert!(rest.is_empty());
        let last = segments.last().expect("a segment");
        assert_eq!((end.file, end.offset), (last.file, last.offset + last.length));
        assert_eq!(Some(end.transaction), last.last_transaction);
        assert_eq!(segments[0].first_transaction, Some(start.transaction + 1));
        end
    }

    /// Archives all there is in batches of `limit` bytes.
    fn archive_all(&mut self, after: &LogMark, limit: u64) -> LogMark {
        let mut reader = self.reader(after);
        let mut mark = after.clone();
        while let Some(chunk) = reader.next(limit, &Task::unobserved()).expect("next") {
            assert_eq!(chunk.start, mark);
            mark = self.archive(chunk);
        }
        mark
    }
}

/// The beginning of an empty store's log.
fn beginning() -> LogMark {
    LogMark {
        file: 0,
        offset: HEADER_BYTES,
        transaction: 1,
        began: None,
        checksum: None,
        append_index: Some(1),
        committed_at: None,
    }
}

#[test]
fn nothing_is_new_until_something_is_committed() {
    let mut site = Site::new(Kernel::V5_25);
    let mut reader = site.reader(&beginning());
    assert!(reader.next(UNLIMITED, &Task::unobserved()).expect("next").is_none());
    let first = site.commit(40);
    let second = site.commit(60);
    // The second is being written.
    site.flush_part(first.end as usize + 30, 4096);
    let chunk = reader.next(UNLIMITED, &Task::unobserved()).expect("next").expect("chunk");
    assert_eq!((chunk.start.clone(), chunk.end.clone()), (beginning(), first.mark(0)));
    assert_eq!(chunk.segments[0].log_format, "V9");
    site.archive(chunk);
    assert!(reader.next(UNLIMITED, &Task::unobserved()).expect("next").is_none());
    site.flush(4096);
    let chunk = reader.next(UNLIMITED, &Task::unobserved()).expect("next").expect("chunk");
    assert_eq!((chunk.start.clone(), chunk.end.clone()), (first.mark(0), second.mark(0)));
}

#[test]
fn a_rotation_is_followed_once_the_next_file_has_a_transaction() {
    for kernel in [Kernel::V5_0, Kernel::V5_25, Kernel::V2026_08] {
        let mut site = Site::new(kernel);
        let first = site.commit(40);
        site.rotate();
        let mut reader = site.reader(&beginning());
        let chunk = reader.next(UNLIMITED, &Task::unobserved()).expect("next").expect("chunk");
        assert_eq!((chunk.segments.len(), chunk.end.clone()), (1, first.mark(0)));
        site.archive(chunk);
        assert!(reader.next(UNLIMITED, &Task::unobserved()).expect("next").is_none());
        let second = site.commit(50);
        site.flush(1000);
        let chunk = reader.next(UNLIMITED, &Task::unobserved()).expect("next").expect("chunk");
        assert_eq!((chunk.start.clone(), chunk.end.clone()), (first.mark(0), second.mark(1)));
        assert_eq!(chunk.segments[0].offset, 0);
        site.archive(chunk);
        // A run that begins anew finds the same place.
        site.rotate();
        site.commit(60);
        site.flush(0);
        let end = site.archive_all(&second.mark(1), UNLIMITED);
        assert_eq!((end.file, end.transaction), (2, 4));
        assert_eq!(site.archived[&1], fs::read(site.path(1)).expect("read"));
    }
}

#[test]
fn batches_keep_to_their_limit_but_let_one_large_transaction_through() {
    let mut site = Site::new(Kernel::V2026_08);
    let sizes = [10, 20, 5_000, 30, 40];
    for (n, size) in sizes.into_iter().enumerate() {
        site.commit(size);
        if n % 2 == 1 {
            site.rotate();
        }
    }
    site.flush(0);
    let mut reader = site.reader(&beginning());
    let mut mark = beginning();
    let mut counts = Vec::new();
    while let Some(chunk) = reader.next(400, &Task::unobserved()).expect("next") {
        assert_eq!(chunk.start, mark);
        let bytes: u64 = chunk.segments.iter().map(|segment| segment.length).sum();
        let transactions: u64 = chunk.segments.iter().map(|segment| segment.transactions).sum();
        assert!(bytes <= 400 || transactions == 1, "{bytes}");
        counts.push(transactions);
        mark = site.archive(chunk);
    }
    assert_eq!(counts, [2, 1, 2]);
    assert_eq!(site.archived[&0][128..], fs::read(site.path(0)).expect("read")[128..]);
}

#[test]
fn what_was_pruned_is_read_while_it_is_held_and_a_gap_otherwise() {
    let mut site = Site::new(Kernel::V5_25);
    let first = site.commit(40);
    site.flush(0);
    let mark = site.archive_all(&beginning(), UNLIMITED);
    site.commit(50);
    site.rotate();
    let third = site.commit(60);
    site.rotate();
    site.flush(0);
    // Seen by this run, pruned before the next one.
    let _ = site.reader(&mark);
    fs::remove_file(site.path(0)).expect("prune");
    fs::remove_file(site.path(1)).expect("prune");
    let end = site.archive_all(&mark, UNLIMITED);
    assert_eq!(end, third.mark(1));
    // Another process has not held them.
    let path = site.directory.path().to_owned();
    site.source = Neo4jLog::new(move || Ok(path.clone()));
    let Resumption::Gap(what) = site.resume(&first.mark(0)) else { panic!("no gap") };
    assert!(what.contains("the oldest file") && what.contains("is 2"), "{what}");
    // The mark stood at the very end of the last file that was pruned.
    let mut reader = site.reader(&end);
    assert!(reader.next(UNLIMITED, &Task::unobserved()).expect("next").is_none());
    let fourth = site.commit(1);
    site.flush(0);
    assert_eq!(site.archive_all(&end, UNLIMITED), fourth.mark(2));
    assert!(matches!(site.resume(&beginning()), Resumption::Gap(_)));
    fs::remove_file(site.path(2)).expect("remove");
    assert!(matches!(site.resume(&first.mark(0)), Resumption::Gap(_) | Resumption::Continues(_)));
}

#[test]
fn a_file_that_a_recovery_removed_and_made_again_is_no_fork_while_the_one_before_it_is_the_same() {
    let mut site = Site::new(Kernel::V2026_08);
    let remake = |site: &Site| {
        // Made before the other is removed, so that it is another file.
        fs::write(site.path(9_999), &site.writer.bytes).expect("write");
        fs::rename(site.path(9_999), site.path(site.writer.number)).expect("rename");
    };
    site.commit(40);
    site.rotate();
    let second = site.commit(50);
    site.rotate();
    let mut reader = site.reader(&beginning());
    for expected in [&second, &second] {
        let chunk = reader.next(UNLIMITED, &Task::unobserved()).expect("next");
        let end = chunk.map(|chunk| site.archive(chunk));
        assert!(end.is_none_or(|end| end == expected.mark(1)));
    }
    // The reader stands before the first transaction of the third file, which a recovery empties and replaces.
    fs::remove_file(site.path(0)).expect("prune");
    fs::write(site.path(2), "").expect("truncate");
    assert!(reader.next(UNLIMITED, &Task::unobserved()).expect("next").is_none());
    let third = site.commit(60);
    remake(&site);
    let chunk = reader.next(UNLIMITED, &Task::unobserved()).expect("next").expect("chunk");
    assert_eq!((chunk.start.clone(), chunk.end.clone()), (second.mark(1), third.mark(2)));
    site.archive(chunk);
    // One that is removed and not made again yet takes nothing else with it.
    site.rotate();
    let _ = site.reader(&third.mark(2));
    fs::remove_file(site.path(3)).expect("remove");
    let _ = site.reader(&third.mark(2));
    let fourth = site.commit(10);
    site.flush(0);
    let mut reader = site.reader(&third.mark(2));
    let chunk = reader.next(UNLIMITED, &Task::unobserved()).expect("next").expect("chunk");
    assert_eq!(chunk.end, fourth.mark(3));
    site.archive(chunk);
    // The file that the archive ends in is another matter.
    remake(&site);
    let code = reader.next(UNLIMITED, &Task::unobserved()).map(|_| ()).map_err(|error| error.code());
    assert_eq!(code, Err(Code::LogForked));
}

#[test]
fn a_file_that_was_pruned_between_others_is_a_gap_for_whoever_reads_and_for_who_comes_next() {
    for pruned_while_reading in [false, true] {
        let mut site = Site::new(Kernel::V2026_08);
        site.commit(40);
        let second = site.commit(50);
        site.flush(0);
        // The file is held, as by a run that saw it.
        let mut reader = site.reader(&beginning());
        let first =
            if pruned_while_reading { None } else { reader.next(UNLIMITED, &Task::unobserved()).expect("next") };
        let mark = first.map(|chunk| site.archive(chunk));
        let third = site.commit(60);
        for _ in 0..3 {
            site.rotate();
            site.commit(10);
        }
        site.flush(0);
        fs::remove_file(site.path(0)).expect("prune");
        fs::remove_file(site.path(1)).expect("prune");
        // What the held file still has is given, and no moment after it is promised.
        let chunk = reader.next(UNLIMITED, &Task::unobserved()).expect("next").expect("chunk");
        assert_eq!((chunk.end.clone(), chunk.complete), (third.mark(0), false));
        assert_eq!(chunk.covered_until, third.mark(0).committed_at);
        assert!(mark.is_none_or(|mark| mark == second.mark(0)));
        site.archive(chunk);
        assert!(reader.next(UNLIMITED, &Task::unobserved()).expect("next").is_none());
        assert_eq!((reader.covered_until(jiff::Timestamp::MAX), reader.is_left()), (None, true));
        let Resumption::Gap(what) = site.resume(&third.mark(0)) else { panic!("no gap") };
        assert!(what.contains("db.1 is not there") && what.contains("file 2 is"), "{what}");
        // From a mark before the rest of the held file that goes first.
        let mut reader = site.reader(&second.mark(0));
        let chunk = reader.next(UNLIMITED, &Task::unobserved()).expect("next").expect("chunk");
        assert_eq!(chunk.end, third.mark(0));
    }
}

#[test]
fn files_are_held_before_anybody_says_where_the_archive_ends() {
    let mut site = Site::new(Kernel::V5_25);
    site.commit(40);
    site.rotate();
    let second = site.commit(50);
    site.source.hold();
    site.rotate();
    let third = site.commit(50);
    site.flush(0);
    site.source.hold();
    fs::remove_file(site.path(0)).expect("prune");
    fs::remove_file(site.path(1)).expect("prune");
    let end = site.archive_all(&beginning(), UNLIMITED);
    assert_eq!((end.transaction, third.id), (third.id, second.id + 1));
}

#[test]
fn a_history_that_was_forked_is_noticed() {
    let mut site = Site::new(Kernel::V2026_08);
    let first = site.commit(40);
    site.flush(0);
    let snapshot = site.writer.clone();
    let second = site.commit(50);
    let third = site.commit(50);
    site.flush(0);
    assert!(matches!(site.resume(&third.mark(0)), Resumption::Continues(_)));
    // Restored to the first, then other transactions under the same ids.
    site.writer = snapshot.clone();
    site.flush(5000);
    let forked = |site: &Site, mark: &LogMark| match site.resume(mark) {
        Resumption::Forked(what) => what,
        Resumption::Continues(_) => panic!("continues"),
        Resumption::Gap(what) => panic!("gap: {what}"),
    };
    assert!(forked(&site, &third.mark(0)).contains("transactions end at byte"));
    site.writer.commit(&[9; 50], 77);
    site.writer.commit(&[9; 50], 78);
    site.flush(5000);
    assert!(forked(&site, &third.mark(0)).contains("checksum"));
    assert!(forked(&site, &second.mark(0)).contains("checksum"));
    assert!(matches!(site.resume(&first.mark(0)), Resumption::Continues(_)));
    // Other lengths: the mark is in the middle of something.
    site.writer = snapshot.clone();
    site.writer.commit(&[9; 500], 77);
    site.flush(0);
    forked(&site, &third.mark(0));
    // The newest file is older than the mark's.
    let mut later = third.mark(0);
    later.file = 3;
    assert!(forked(&site, &later).contains("the newest file"));
    // Rotated at another place.
    site.writer = snapshot;
    site.rotate();
    site.writer.commit(&[9; 50], 77);
    site.flush(0);
    fs::remove_file(site.path(0)).expect("prune");
    forked(&site, &third.mark(0));
}

#[test]
fn the_end_of_a_closed_store_is_a_place_to_begin() {
    let mut site = Site::new(Kernel::V5_25);
    site.commit(40);
    let second = site.commit(40);
    site.flush(1000);
    let closed = |offset, transaction, checksum| {
        let mut checkpoint = checkpoint(0, offset, transaction);
        checkpoint.checksum = checksum;
        checkpoint.mark()
    };
    let mark = closed(second.end, second.id, second.checksum);
    assert!(site.reader(&mark).next(UNLIMITED, &Task::unobserved()).expect("next").is_none());
    let third = site.commit(10);
    site.flush(1000);
    assert_eq!(site.archive_all(&mark, UNLIMITED), third.mark(0));
    for wrong in [
        closed(second.end, second.id, 1),
        closed(second.end, second.id + 1, second.checksum),
        closed(second.end - 1, second.id, second.checksum),
        closed(third.end + 400, 9, 9),
    ] {
        assert!(matches!(site.resume(&wrong), Resumption::Forked(_)), "{wrong:?}");
    }
    let mut other = beginning();
    other.append_index = Some(5);
    assert!(matches!(site.resume(&other), Resumption::Forked(_)));
}

#[test]
fn a_torn_tail_that_is_written_anew_is_no_fork() {
    let mut site = Site::new(Kernel::V5_25);
    let first = site.commit(40);
    let before = site.writer.clone();
    site.commit(5000);
    site.flush_part(first.end as usize + 2000, 0);
    let mark = site.archive_all(&beginning(), UNLIMITED);
    assert_eq!(mark, first.mark(0));
    // Killed; the server's recovery cuts the tail off and goes on with something else.
    site.writer = before;
    site.flush(0);
    let second = site.commit(70);
    site.rotate();
    let third = site.commit(30);
    site.flush(9);
    assert_eq!(site.archive_all(&mark, UNLIMITED), third.mark(1));
    assert_eq!(site.archived[&0].len() as u64, second.end);
}

#[test]
fn damage_inside_the_log_is_told_and_what_lies_before_it_still_goes_out() {
    let mut site = Site::new(Kernel::V5_25);
    let first = site.commit(40);
    let second = site.commit(50);
    site.rotate();
    site.commit(60);
    site.flush(0);
    let mut bytes = fs::read(site.path(0)).expect("read");
    bytes[first.end as usize + 60] ^= 1;
    fs::write(site.path(0), &bytes).expect("damage");
    let mut reader = site.reader(&beginning());
    let chunk = reader.next(UNLIMITED, &Task::unobserved()).expect("next").expect("chunk");
    assert_eq!(chunk.end, first.mark(0));
    let error =
        |reader: &mut Box<dyn LogReader>| reader.next(UNLIMITED, &Task::unobserved()).map(|_| ()).expect_err("damage");
    assert_eq!(error(&mut reader).code(), Code::LogCorrupted);
    // The file ends before its time: the next one does not follow.
    fs::write(site.path(0), &bytes[..first.end as usize]).expect("cut");
    let found: Error = error(&mut site.reader(&first.mark(0)));
    assert_eq!(found.code(), Code::LogCorrupted);
    assert!(found.message().contains("begins after append index 3"), "{found}");
    assert!(second.end > first.end);
    // A format that is not known.
    let mut next = fs::read(site.path(1)).expect("read");
    next[0] = 11;
    fs::write(site.path(1), &next).expect("write");
    assert_eq!(error(&mut site.reader(&first.mark(0))).code(), Code::Neo4jUnsupported);
}

#[test]
fn bytes_that_change_after_they_were_verified_fail_the_batch() {
    let mut site = Site::new(Kernel::V5_25);
    site.commit(40);
    site.flush(0);
    let chunk = site.reader(&beginning()).next(UNLIMITED, &Task::unobserved()).expect("next").expect("chunk");
    let mut bytes = fs::read(site.path(0)).expect("read");
    bytes[160] ^= 1;
    let file = fs::OpenOptions::new().write(true).open(site.path(0)).expect("open");
    std::os::unix::fs::FileExt::write_all_at(&file, &bytes, 0).expect("write");
    let mut reader = chunk.reader;
    let read = reader.read_to_end(&mut Vec::new());
    assert!(read.is_err() || reader.finish(&Task::unobserved()).is_err());
    let chunk = site.reader(&beginning());
    drop(chunk);
    // One that was not read to its end is not finished either.
    site.flush(0);
    let chunk = site.reader(&beginning()).next(UNLIMITED, &Task::unobserved()).expect("next").expect("chunk");
    assert!(chunk.reader.finish(&Task::unobserved()).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    /// Whatever is written, flushed in parts, rotated and pruned between looks: every byte is archived exactly once.
    #[test]
    fn every_transaction_is_archived_once(
        kernel in proptest::sample::select(&[5u8, 20, 22, 32][..]),
        steps in proptest::collection::vec((0usize..400, 0usize..8, 0usize..3000), 1..30),
        limit in 200u64..3000,
    ) {
        let mut site = Site::new(Kernel(kernel));
        let mut written: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
        let mut mark = beginning();
        let mut reader = site.reader(&mark);
        for (size, action, zeros) in steps {
            let begin = site.writer.bytes.len();
            site.commit(size);
            match action {
                0 => {
                    written.insert(site.writer.number, site.writer.bytes.clone());
                    site.rotate();
                }
                1 => site.flush_part(begin + size / 2, zeros),
                _ => site.flush(zeros),
            }
            match action {
                1..4 => while let Some(chunk) = reader.next(limit, &Task::unobserved()).expect("next") {
                    prop_assert_eq!(&chunk.start, &mark);
                    mark = site.archive(chunk);
                },
                4 => reader = site.reader(&mark),
                5 if mark.file > 0 => {
                    let _ = fs::remove_file(site.path(mark.file - 1));
                }
                _ => {}
            }
        }
        site.flush(0);
        site.archive_all(&mark, limit);
        written.insert(site.writer.number, site.writer.bytes.clone());
        for (number, bytes) in written {
            let archived = site.archived.get(&number).map_or(&[][..], Vec::as_slice);
            let from = if number == 0 { HEADER_BYTES as usize } else { 0 };
            if bytes.len() > HEADER_BYTES as usize {
                prop_assert_eq!(&archived[from..], &bytes[from..], "file {}", number);
            }
        }
    }
}

/// An enveloped log: its directory, its source, and what was archived of it.
struct Enveloped {
    directory: tempfile::TempDir,
    source: Neo4jLog,
    mark: LogMark,
    archived: BTreeMap<u64, Vec<u8>>,
}

impl Enveloped {
    fn new() -> Enveloped {
        let directory = tempfile::tempdir().expect("tempdir");
        let path = directory.path().to_owned();
        let mark = LogMark {
            file: 0,
            offset: 0,
            transaction: 1,
            began: None,
            checksum: Some("dead5eed".to_owned()),
            append_index: Some(1),
            committed_at: None,
        };
        Enveloped { source: Neo4jLog::new(move || Ok(path.clone())), directory, mark, archived: BTreeMap::new() }
    }

    /// Archives all there is with a reader of its own.
    fn archive(&mut self, limit: u64) {
        let resumed = self.source.resume(&self.mark, &Task::unobserved()).expect("resume");
        let Resumption::Continues(mut reader) = resumed else { panic!("no continuation") };
        while let Some(mut chunk) = reader.next(limit, &Task::unobserved()).expect("next") {
            assert_eq!(chunk.start, self.mark);
            let mut bytes = Vec::new();
            chunk.reader.read_to_end(&mut bytes).expect("read");
            chunk.reader.finish(&Task::unobserved()).expect("finish");
            assert!(chunk.segments.windows(2).all(|pair| pair[0].file < pair[1].file));
            assert!(chunk.segments.last().is_some_and(|last| last.transactions > 0));
            for segment in chunk.segments {
                let own: Vec<u8> = bytes.drain(..segment.length as usize).collect();
                assert_eq!((sha256_hex(&own), segment.log_format.as_str()), (segment.sha256, "V10"));
                let file = self.archived.entry(segment.file).or_default();
                assert_eq!(file.len() as u64, segment.offset);
                file.extend(own);
            }
            self.mark = chunk.end;
        }
    }
}

#[test]
fn an_enveloped_log_is_archived_with_what_goes_on_in_the_next_file() {
    for limit in [1, 5_000, 60_000, UNLIMITED] {
        let mut site = Enveloped::new();
        let mut writer = EnvelopedWriter::new(4096, 8192, 39);
        for n in 0..60 {
            writer.commit(&vec![n as u8; n * 397 % 9_000], 1_795_000_000_000);
            if n % 7 == 3 {
                writer.store(site.directory.path());
                site.archive(limit);
                assert_eq!(site.mark.transaction, writer.last.0);
            }
        }
        writer.store(site.directory.path());
        site.archive(limit);
        assert_eq!((site.mark.transaction, site.archived.len()), (61, writer.files.len()));
        for (number, bytes) in &site.archived {
            assert_eq!(bytes, &writer.files[*number as usize][..bytes.len()]);
        }
    }
}

#[test]
fn an_enveloped_transaction_that_is_torn_across_files_is_left_and_what_comes_instead_is_archived() {
    let mut site = Enveloped::new();
    let mut writer = EnvelopedWriter::new(4096, 8192, 39);
    writer.commit(&[1; 3000], 1);
    let mut recovered = writer.clone();
    writer.commit(&[2; 9000], 2);
    writer.store(site.directory.path());
    let newest = site.directory.path().join(format!("{TRANSACTIONS}{}", writer.files.len() - 1));
    let torn = fs::metadata(&newest).expect("metadata").len() - 1;
    fs::OpenOptions::new().write(true).open(&newest).and_then(|file| file.set_len(torn)).expect("tear");
    site.archive(UNLIMITED);
    assert_eq!((site.mark.transaction, site.archived.len()), (2, 1));
    // Recovery cuts it off and removes the files that it went on in.
    for number in recovered.files.len()..writer.files.len() {
        fs::remove_file(site.directory.path().join(format!("{TRANSACTIONS}{number}"))).expect("remove");
    }
    recovered.commit(&[3; 20_000], 3);
    recovered.store(site.directory.path());
    site.archive(UNLIMITED);
    assert_eq!(site.mark.transaction, 3);
    assert_eq!(site.archived.into_values().collect::<Vec<_>>(), recovered.files);
}

#[test]
fn a_fork_of_an_enveloped_log_is_noticed_by_its_checksum() {
    // The mark is once in the middle of a file, once at the end of what began in the file before.
    for (size, spanning) in [(100, false), (9000, true)] {
        let mut site = Enveloped::new();
        let mut writer = EnvelopedWriter::new(4096, 8192, 39);
        writer.commit(&[1; 100], 1);
        let mut other = writer.clone();
        let (_, last) = writer.commit(&vec![2; size], 2);
        assert_eq!(last.earlier_bytes > 0, spanning);
        writer.store(site.directory.path());
        site.archive(UNLIMITED);
        other.commit(&vec![3; size], 2);
        other.commit(&[4; 50], 3);
        other.store(site.directory.path());
        let resumed = site.source.resume(&site.mark, &Task::unobserved()).expect("resume");
        assert!(matches!(resumed, Resumption::Forked(_)));
        writer.store(site.directory.path());
        let resumed = site.source.resume(&site.mark, &Task::unobserved()).expect("resume");
        assert!(matches!(resumed, Resumption::Continues(_)));
    }
}
