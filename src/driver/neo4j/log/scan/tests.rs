//! What the scanner accepts, and that it accepts nothing else.

use super::super::writer::LogWriter;
use super::*;
use proptest::prelude::*;

/// Kernels of every layout.
const KERNELS: [u8; 6] = [5, 16, 17, 20, 22, 32];

fn scan(bytes: &[u8]) -> (Vec<Transaction>, Result<Tail>) {
    let mut scanner = Scanner::new(bytes, "log", 0, Predecessor::default());
    let mut found = Vec::new();
    loop {
        match scanner.step() {
            Ok(Step::Transaction(transaction)) => found.push(transaction),
            Ok(Step::Remainder(rest)) => panic!("{rest:?} in a log without envelopes"),
            Ok(Step::End(tail)) => return (found, Ok(tail)),
            Err(error) => return (found, Err(error)),
        }
    }
}

/// Command bytes that try to look like ends of transactions.
fn commands(kernel: Kernel, size: usize, seed: u64) -> Vec<u8> {
    let mut state = seed;
    let mut byte = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        match state >> 61 {
            0 => kernel.0,
            1 => COMMIT,
            2 => CHUNK_END,
            3 => 0,
            _ => (state >> 33) as u8,
        }
    };
    (0..size).map(|_| byte()).collect()
}

fn log(kernel: Kernel, sizes: &[usize]) -> (LogWriter, Vec<Transaction>) {
    let mut writer = LogWriter::new(kernel);
    let written = sizes
        .iter()
        .enumerate()
        .map(|(n, &size)| writer.commit(&commands(kernel, size, n as u64 * 77), 1_795_000_000_000 + n as i64))
        .collect();
    (writer, written)
}

#[test]
fn every_kernels_transactions_are_found() {
    for kernel in KERNELS.map(Kernel) {
        let (mut writer, written) = log(kernel, &[0, 1, 21, 22, 23, 500, 70_000, 3]);
        let (found, tail) = scan(&writer.bytes);
        assert_eq!((found, tail.expect("tail")), (written.clone(), Tail::Eof), "{kernel:?}");
        writer.bytes.resize(writer.bytes.len() + 9000, 0);
        let (found, tail) = scan(&writer.bytes);
        assert_eq!((found, tail.expect("tail")), (written, Tail::Zeros), "{kernel:?}");
    }
}

#[test]
fn a_transaction_larger_than_the_window_is_found_wherever_it_ends() {
    // The window's reads are powers of two: the COMMIT is laid across and beside their bounds.
    for size in [(64 << 10) - 150, (192 << 10) - 10, (9 << 20) - 1, 9 << 20, (9 << 20) + 13] {
        for shift in 0..24 {
            let mut writer = LogWriter::new(Kernel::V5_25);
            let transaction = writer.commit(&vec![7; size + shift], 5);
            let next = writer.commit(b"next", 6);
            let (found, tail) = scan(&writer.bytes);
            assert_eq!((found, tail.expect("tail")), (vec![transaction, next], Tail::Eof));
        }
    }
}

#[test]
fn the_digest_is_that_of_whole_transactions() {
    let (mut writer, written) = log(Kernel::V2026_08, &[100, 3_000_000, 9_000_000, 5]);
    let whole = writer.bytes.len();
    writer.commit(&[1; 6_000_000], 3);
    writer.bytes.truncate(whole + 5_000_000);
    let mut scanner =
        Scanner::new(&writer.bytes[..], "log", 0, Predecessor::default()).with_digest(&writer.bytes[..128]);
    let mut count = 0;
    while let Step::Transaction(_) = scanner.step().expect("step") {
        count += 1;
    }
    assert_eq!((count, scanner.position()), (written.len(), whole as u64));
    assert_eq!(scanner.sha256(), hex::encode(Sha256::digest(&writer.bytes[..whole])));
    let last = written[written.len() - 1].start as usize;
    assert_eq!(scanner.sha256_before_last(), hex::encode(Sha256::digest(&writer.bytes[..last])));
    assert_eq!(scanner.step().expect("step"), Step::End(Tail::Incomplete));
    assert_eq!(scanner.sha256(), hex::encode(Sha256::digest(&writer.bytes[..whole])));
}

#[test]
fn what_does_not_follow_is_refused() {
    let (writer, written) = log(Kernel::V5_25, &[10, 20, 30]);
    let (first, second) = (written[0].end as usize, written[1].end as usize);
    // The second transaction is taken out: ids, indexes and the chain all say so.
    let without = [&writer.bytes[..first], &writer.bytes[second..]].concat();
    let (found, end) = scan(&without);
    assert_eq!(found, written[..1]);
    let error = end.expect_err("gap");
    assert_eq!(error.code(), Code::LogCorrupted);
    assert!(error.message().contains("transaction 4 follows transaction 2"), "{error}");
    let objection = |predecessor: Predecessor| predecessor.objection(&written[1]);
    assert_eq!(objection(Predecessor::default()), None);
    assert_eq!(objection(Predecessor::from(&written[0])), None);
    let mut other = Predecessor::from(&written[0]);
    other.checksum = Some("00000000".to_owned());
    assert!(objection(other).is_some_and(|text| text.contains("checksum")));
    let mut other = Predecessor::from(&written[0]);
    other.append_index = Some(7);
    assert!(objection(other).is_some_and(|text| text.contains("append index 3")));
}

#[test]
fn what_this_release_does_not_know_is_named() {
    let (mut writer, written) = log(Kernel::V5_25, &[10]);
    let whole = writer.bytes.clone();
    writer.chunk(b"part of a large transaction");
    let (found, end) = scan(&writer.bytes);
    assert_eq!(found, written);
    let error = end.expect_err("chunks");
    assert_eq!(error.code(), Code::Neo4jUnsupported);
    assert!(error.message().contains("a transaction in chunks"), "{error}");
    for (bytes, what) in [([33, 1], "kernel version 33"), ([20, 12], "rolled-back"), ([32, 13], "empty transaction")] {
        let error = scan(&[&whole[..], &bytes, &[0; 80]].concat()).1.expect_err("refuse");
        assert_eq!(error.code(), Code::Neo4jUnsupported);
        assert!(error.message().contains(what), "{error}");
    }
    let error = scan(&[&whole[..], b"garbage"].concat()).1.expect_err("garbage");
    assert_eq!(error.code(), Code::LogCorrupted);
}

#[test]
fn the_end_of_data_is_told() {
    let (mut writer, written) = log(Kernel::V5_25, &[10, 20, 30]);
    let end = data_end(&writer.bytes[..], "log", 0, Predecessor::default(), &|| Ok(())).expect("scan");
    assert_eq!((end.offset, end.tail, end.transactions), (written[2].end, Tail::Eof, 3));
    assert_eq!((end.first.as_ref(), end.last.as_ref()), (Some(&written[0]), Some(&written[2])));
    writer.rotate();
    let end = data_end(&writer.bytes[..], "log", 0, Predecessor::default(), &|| Ok(())).expect("scan");
    assert_eq!((end.offset, end.tail, end.last), (HEADER_BYTES, Tail::Eof, None));
}

/// How fast one core verifies, for whoever looks: `cargo test --release --lib log::scan -- speed --nocapture`.
#[test]
fn speed() {
    for size in [1_000, 4_000, 1_000_000, 20_000_000] {
        let mut writer = LogWriter::new(Kernel::V2026_08);
        let body: Vec<u8> = (0..size).map(|n: usize| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        while writer.bytes.len() < 48_000_000 {
            writer.commit(&body, 0);
        }
        for digest in [false, true] {
            let watch = crate::base::clock::Stopwatch::start();
            let mut scanner = Scanner::new(&writer.bytes[..], "log", 0, Predecessor::default());
            if digest {
                scanner = scanner.with_digest(&[]);
            }
            let mut count = 0;
            while let Step::Transaction(_) = scanner.step().expect("step") {
                count += 1;
            }
            let rate = writer.bytes.len() as f64 / 1e6 / watch.elapsed().as_secs_f64();
            println!("{count} transactions of {size} bytes, digest {digest}: {rate:.0} MB/s");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Any byte changed: everything before it is still found, nothing beyond it is believed.
    #[test]
    fn a_changed_byte_never_passes(
        kernel in proptest::sample::select(&KERNELS[..]),
        sizes in proptest::collection::vec(0usize..300, 1..8),
        at in any::<proptest::sample::Index>(),
        flip in 1u8..,
    ) {
        let (mut writer, written) = log(Kernel(kernel), &sizes);
        let at = HEADER_BYTES as usize + at.index(writer.bytes.len() - HEADER_BYTES as usize);
        writer.bytes[at] ^= flip;
        let (found, end) = scan(&writer.bytes);
        let sound = written.iter().filter(|t| t.end <= at as u64).count();
        prop_assert_eq!(&found[..], &written[..sound]);
        prop_assert!(!matches!(end, Ok(Tail::Eof)));
    }

    /// Cut anywhere, with or without zeros behind: exactly the whole transactions are found, and that is no error.
    #[test]
    fn a_cut_log_ends_at_its_last_whole_transaction(
        kernel in proptest::sample::select(&KERNELS[..]),
        sizes in proptest::collection::vec(0usize..300, 1..8),
        cut in any::<proptest::sample::Index>(),
        zeros in 0usize..5000,
    ) {
        let (writer, written) = log(Kernel(kernel), &sizes);
        let cut = HEADER_BYTES as usize + cut.index(writer.bytes.len() + 1 - HEADER_BYTES as usize);
        let mut bytes = writer.bytes[..cut].to_vec();
        bytes.resize(cut + zeros, 0);
        let (found, end) = scan(&bytes);
        // A checksum may end in zeros that were cut off and came back.
        let whole = |t: &&Transaction| bytes.get(..t.end as usize) == Some(&writer.bytes[..t.end as usize]);
        let sound: Vec<Transaction> = written.iter().take_while(whole).cloned().collect();
        let end_at = sound.last().map_or(HEADER_BYTES, |t| t.end) as usize;
        prop_assert_eq!(&found, &sound);
        let expected = match bytes.get(end_at) {
            None => Tail::Eof,
            Some(0) => Tail::Zeros,
            Some(_) => Tail::Incomplete,
        };
        prop_assert_eq!(end.expect("no error"), expected);
    }

    /// A transaction whose bytes are still partly zero, in any pattern, is one that is being written.
    #[test]
    fn holes_are_not_damage(
        kernel in proptest::sample::select(&KERNELS[..]),
        size in 0usize..300,
        holes in proptest::collection::vec((any::<proptest::sample::Index>(), 1usize..100), 1..4),
    ) {
        let (mut writer, written) = log(Kernel(kernel), &[50]);
        let begin = writer.bytes.len();
        writer.commit(&commands(Kernel(kernel), size, 5), 9);
        let whole = writer.bytes.clone();
        for (at, length) in holes {
            let at = begin + at.index(whole.len() - begin);
            let end = (at + length).min(whole.len());
            writer.bytes[at..end].fill(0);
        }
        let (found, end) = scan(&writer.bytes);
        if writer.bytes == whole {
            prop_assert_eq!(found.len(), 2);
        } else {
            prop_assert_eq!(&found, &written);
            prop_assert!(matches!(end, Ok(Tail::Incomplete | Tail::Zeros)));
        }
    }

    #[test]
    fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..2000), kernel in 5u8..=32) {
        let mut bytes = bytes;
        let _ = scan(&bytes);
        if bytes.len() > 130 {
            bytes[128] = kernel;
            bytes[129] = 1;
        }
        prop_assert!(scan(&bytes).0.is_empty());
    }
}
