//! What the scanner accepts of enveloped logs, and that it accepts nothing else.

use crate::artifact::log_batch::LogMark;
use crate::base::{Code, Error};
use crate::driver::neo4j::log::envelope_writer::EnvelopedWriter;
use crate::driver::neo4j::log::format::{CHUNK_END, ROLLBACK, START};
use crate::driver::neo4j::log::scan::{Predecessor, Scanner, Step, Tail, Transaction};
use proptest::prelude::*;
use sha2::{Digest, Sha256};

const SEGMENT: usize = 4096;

type Written = (u64, Transaction);

fn body(size: usize, seed: usize) -> Vec<u8> {
    // Zeros and the bytes of types, so that payloads look like headers and padding.
    (0..size).map(|n| [0, 1, 5, 4, 0, 32, 64, 2][(n * 7 + seed + n / 13) % 8]).collect()
}

fn log(sizes: &[usize], file_segments: usize, padding: usize) -> (EnvelopedWriter, Vec<Written>) {
    let mut writer = EnvelopedWriter::new(SEGMENT, SEGMENT * file_segments, padding);
    let written =
        sizes.iter().enumerate().map(|(n, &size)| writer.commit(&body(size, n), 1_795_000_000_000 + n as i64));
    let written = written.collect();
    (writer, written)
}

/// Goes through files one after the other, as whoever reads a directory does.
fn scan(files: &[Vec<u8>]) -> (Vec<Written>, Result<Tail, Error>) {
    let (mut found, mut before) = (Vec::new(), Predecessor::default());
    for (number, file) in files.iter().enumerate() {
        let mut scanner = Scanner::new(&file[..], "log", 0, before.clone());
        before.part = None;
        let tail = loop {
            match scanner.step() {
                Ok(Step::Transaction(transaction)) => {
                    before = Predecessor::from(&transaction);
                    found.push((number as u64, transaction));
                }
                Ok(Step::Remainder(_)) => panic!("every beginning is there"),
                Ok(Step::End(tail)) => break tail,
                Err(error) => return (found, Err(error)),
            }
        };
        match tail {
            Tail::Continues(part) if number + 1 < files.len() => before.part = Some(part),
            Tail::Eof | Tail::Zeros if number + 1 < files.len() => {}
            tail => return (found, Ok(tail)),
        }
    }
    (found, Ok(Tail::Eof))
}

#[test]
fn transactions_are_found_across_segments_and_files() {
    let sizes = [0, 1, 3900, 5, 4100, 40_000, 17, 12_000, 3, 8];
    for padding in 31..=39 {
        let (writer, written) = log(&sizes, 3, padding);
        assert!(written.iter().any(|(_, transaction)| transaction.earlier_bytes > 2 * 2 * SEGMENT as u64 - 500));
        assert!(writer.files.len() > 5);
        let (found, tail) = scan(&writer.files);
        assert_eq!((found, tail.expect("tail")), (written.clone(), Tail::Eof));
        let mut files = writer.files;
        files.last_mut().expect("a file").resize(SEGMENT * 3, 0);
        let (found, tail) = scan(&files);
        assert_eq!((found, tail.expect("tail")), (written, Tail::Zeros));
    }
}

#[test]
fn wherever_a_transaction_ends_in_a_segment_the_next_is_found() {
    for size in 3_930..4_030 {
        let (writer, written) = log(&[size, 10, 4000, 20], 2, 31 + size % 9);
        assert_eq!(scan(&writer.files).0, written, "{size}");
    }
}

#[test]
fn the_digest_is_that_of_whole_transactions_and_of_a_file_that_ends_inside_one() {
    let (writer, written) = log(&[100, 3000, 9000, 5], 3, 39);
    let file = &writer.files[0];
    let mut scanner = Scanner::new(&file[..], "log", 0, Predecessor::default()).with_digest(&file[..SEGMENT]);
    let mut last = None;
    let part = loop {
        match scanner.step().expect("step") {
            Step::Transaction(transaction) => last = Some(transaction),
            Step::End(Tail::Continues(part)) => break part,
            other => panic!("{other:?}"),
        }
    };
    let last = last.expect("transactions");
    let digest = |end: u64| hex::encode(Sha256::digest(&file[..end as usize]));
    assert_eq!(scanner.sha256(), digest(last.end));
    assert_eq!(scanner.sha256_before_last(), digest(last.start));
    assert_eq!((part.file_end, scanner.sha256_open()), (file.len() as u64, digest(file.len() as u64)));
    assert_eq!(part.bytes, written[2].1.earlier_bytes);
}

#[test]
fn a_file_that_begins_inside_a_transaction_is_read_from_its_end_on() {
    let (writer, written) = log(&[9000, 10, 20], 2, 39);
    let (number, first) = written[0].clone();
    let mut scanner = Scanner::new(&writer.files[number as usize][..], "log", 0, Predecessor::default());
    let Step::Remainder(rest) = scanner.step().expect("step") else { panic!("no remainder") };
    assert_eq!((rest.append_index, rest.checksum, rest.end), (2, first.checksum, first.end));
    assert_eq!(scanner.step().expect("step"), Step::Transaction(written[1].1.clone()));
    // One that only goes on has no end to tell of.
    let middle = &writer.files[1];
    assert!(number > 1);
    let mut scanner = Scanner::new(&middle[..], "log", 0, Predecessor::default());
    assert_eq!(scanner.step().expect("step"), Step::End(Tail::Incomplete));
}

#[test]
fn what_does_not_follow_or_is_not_known_is_refused() {
    let (writer, written) = log(&[10, 20, 30], 8, 39);
    let file = &writer.files[0];
    let (first, second) = (written[0].1.end as usize, written[1].1.end as usize);
    let without = [&file[..first], &file[second..]].concat();
    let (found, end) = scan(&[without]);
    assert_eq!((found.len(), end.map_err(|error| error.code())), (1, Err(Code::LogCorrupted)));
    // From the middle on, the mark's checksum is what the next one must repeat.
    let mark = |checksum: &str| LogMark { checksum: Some(checksum.to_owned()), ..written[0].1.mark(0) };
    let step = |mark: &LogMark| Scanner::new(&file[..], "log", mark.offset, Predecessor::from(mark)).step();
    assert!(matches!(step(&written[0].1.mark(0)), Ok(Step::Transaction(_))));
    assert_eq!(step(&mark("00000001")).map_err(|error| error.code()), Err(Code::LogCorrupted));
    for (kind, ending, what) in [
        (START, CHUNK_END, "a transaction in chunks"),
        (START, ROLLBACK, "rolled-back"),
        (10, 5, "a transaction in chunks"),
        (13, 13, "an empty transaction"),
        (77, 5, "type 77"),
    ] {
        let mut writer = writer.clone();
        writer.append(kind, b"commands", &[&[ending][..], &[1; 16]].concat(), 5);
        let (found, end) = scan(&writer.files);
        let error = end.expect_err("refuse");
        assert_eq!((found.len(), error.code()), (3, Code::Neo4jUnsupported), "{error}");
        assert!(error.message().contains(what), "{error}");
    }
    let mut writer = writer;
    writer.append(START, b"", &[&[9][..], &[1; 16]].concat(), 5);
    assert_eq!(scan(&writer.files).1.map_err(|error| error.code()), Err(Code::LogCorrupted));
}

#[test]
fn a_file_of_another_history_does_not_follow() {
    let (one, _) = log(&[9000, 10], 2, 39);
    let mut other = EnvelopedWriter::new(SEGMENT, SEGMENT * 2, 39);
    other.commit(&body(9000, 1), 1_795_000_000_000);
    let end = scan(&[&one.files[..2], &other.files[2..3]].concat()).1;
    assert_eq!(end.map_err(|error| error.code()), Err(Code::LogCorrupted));
}

/// How fast one core verifies, for whoever looks: `cargo test --release --lib log::scan -- speed --nocapture`.
#[test]
fn speed() {
    for size in [1_000, 4_000, 1_000_000, 20_000_000] {
        let mut writer = EnvelopedWriter::new(128 << 10, usize::MAX, 39);
        let body = body(size, 3);
        while writer.files[0].len() < 48_000_000 {
            writer.commit(&body, 0);
        }
        for digest in [false, true] {
            let watch = crate::base::clock::Stopwatch::start();
            let mut scanner = Scanner::new(&writer.files[0][..], "log", 0, Predecessor::default());
            if digest {
                scanner = scanner.with_digest(&[]);
            }
            let mut count = 0;
            while let Step::Transaction(_) = scanner.step().expect("step") {
                count += 1;
            }
            let rate = writer.files[0].len() as f64 / 1e6 / watch.elapsed().as_secs_f64();
            println!("{count} enveloped transactions of {size} bytes, digest {digest}: {rate:.0} MB/s");
        }
    }
}

fn sizes() -> impl Strategy<Value = Vec<usize>> {
    proptest::collection::vec(prop_oneof![0usize..300, 3_800usize..4_200, 0usize..20_000], 1..8)
}

/// A place in the data of some file.
fn place(files: &[Vec<u8>], at: proptest::sample::Index) -> (usize, usize) {
    let data = |file: &Vec<u8>| file.len() - SEGMENT;
    let mut at = at.index(files.iter().map(data).sum());
    for (number, file) in files.iter().enumerate() {
        if at < data(file) {
            return (number, SEGMENT + at);
        }
        at -= data(file);
    }
    unreachable!("within the sum")
}

fn ends_by(written: &[Written], (file, at): (usize, usize)) -> usize {
    written.iter().filter(|(number, t)| (*number, t.end) <= (file as u64, at as u64)).count()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Any byte changed: everything before it is still found, nothing beyond it is believed.
    #[test]
    fn a_changed_byte_never_passes(
        sizes in sizes(), segments in 2usize..5, padding in 31usize..=39,
        at in any::<proptest::sample::Index>(), flip in 1u8..,
    ) {
        let (writer, written) = log(&sizes, segments, padding);
        let (file, byte) = place(&writer.files, at);
        let mut files = writer.files;
        files[file][byte] ^= flip;
        let (found, end) = scan(&files);
        prop_assert_eq!(&found[..], &written[..ends_by(&written, (file, byte))]);
        prop_assert!(!matches!(end, Ok(Tail::Eof | Tail::Zeros)));
    }

    /// Cut anywhere, with or without zeros behind: exactly the whole transactions are found, and that is no error.
    #[test]
    fn a_cut_log_ends_at_its_last_whole_transaction(
        sizes in sizes(), segments in 2usize..5, padding in 31usize..=39,
        at in any::<proptest::sample::Index>(), zeros in any::<bool>(),
    ) {
        let (writer, written) = log(&sizes, segments, padding);
        let (file, byte) = place(&writer.files, at);
        let mut files = writer.files.clone();
        files.truncate(file + 1);
        files[file].truncate(byte);
        if zeros {
            files[file].resize(byte.next_multiple_of(SEGMENT) + SEGMENT, 0);
        }
        let (found, end) = scan(&files);
        // What was cut off may have been zeros that came back.
        let back = |number: u64, end: u64| files[file].get(..end as usize) == Some(&writer.files[number as usize][..end as usize]);
        let sound = written.iter().take_while(|(number, t)| *number < file as u64 || (*number == file as u64 && back(*number, t.end)));
        prop_assert_eq!(found.len(), sound.count());
        prop_assert_eq!(&found[..], &written[..found.len()]);
        prop_assert!(end.is_ok());
    }

    /// Bytes at the end that are still zero, in any pattern, are being written.
    #[test]
    fn holes_are_not_damage(
        size in 0usize..9000,
        holes in proptest::collection::vec((any::<proptest::sample::Index>(), 1usize..100), 1..4),
    ) {
        let (mut writer, written) = log(&[50], 8, 39);
        let begin = writer.files[0].len();
        writer.commit(&body(size, 5), 9);
        let whole = writer.files[0].clone();
        for (at, length) in holes {
            let at = begin + at.index(whole.len() - begin);
            let end = (at + length).min(whole.len());
            writer.files[0][at..end].fill(0);
        }
        let (found, end) = scan(&writer.files);
        if writer.files[0] == whole {
            prop_assert_eq!(found.len(), 2);
        } else {
            prop_assert_eq!(&found, &written);
            prop_assert!(matches!(end, Ok(Tail::Incomplete | Tail::Zeros | Tail::Continues(_))), "{:?}", end);
        }
    }

    #[test]
    fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
        let (writer, written) = log(&[10], 8, 39);
        let (found, _) = scan(&[[&writer.files[0][..], &bytes].concat()]);
        prop_assert_eq!(&found[..1], &written[..]);
        let (found, _) = scan(&[[&writer.files[0][..SEGMENT], &bytes].concat()]);
        prop_assert!(found.is_empty());
    }
}
