//! Logs that real servers wrote: `tests/data/neo4j-log/README.md` says how.

use super::checkpoint::{last_checkpoint, last_transaction_of_closed};
use super::files::{TRANSACTIONS, numbered};
use super::format::Kernel;
use super::header::{HEADER_BYTES, LogHeader, store_id};
use super::scan::{Predecessor, Scanner, Step, data_end};
use super::source::Neo4jLog;
use super::walk::{TransactionSummary, transactions};
use crate::artifact::log_batch::LogMark;
use crate::base::task::Task;
use crate::driver::log::{LogSource, Resumption};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::Path;

/// Directory of the fixture, its last transaction, its kernels in order.
const FIXTURES: [(&str, u64, &[u8]); 5] = [
    ("5.26.0", 809, &[20]),
    ("2026.08.1", 809, &[32]),
    ("upgraded", 1091, &[16, 20, 32]),
    ("enveloped-rotated", 1210, &[32]),
    ("enveloped", 89, &[32]),
];

fn unpack(name: &str) -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("tempdir");
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/neo4j-log").join(name);
    for entry in fs::read_dir(from).expect("fixture") {
        let path = entry.expect("entry").path();
        let bytes = zstd::decode_all(fs::File::open(&path).expect("open")).expect("zstd");
        fs::write(directory.path().join(path.file_stem().expect("name")), bytes).expect("write");
    }
    directory
}

fn listed(directory: &Path) -> Vec<TransactionSummary> {
    transactions(directory).expect("walk").map(|found| found.expect("transaction")).collect()
}

#[test]
fn every_transaction_is_found_up_to_the_last_checkpoint() {
    for (name, last, kernels) in FIXTURES {
        let directory = unpack(name);
        let found = listed(directory.path());
        assert!(found.iter().map(|t| t.id).eq(2..=last), "{name}: {:?}", found.last());
        let mut seen: Vec<u8> = found.iter().map(|t| t.kernel.0).collect();
        seen.dedup();
        assert_eq!(seen, kernels, "{name}");
        // The server was stopped cleanly: its checkpoint is its log's end.
        let end = found.last().expect("transactions");
        let checkpoint = last_checkpoint(directory.path()).expect("read").expect("checkpoint");
        assert_eq!(last_transaction_of_closed(directory.path()).expect("read"), Some(last), "{name}");
        let own = (checkpoint.log_version, checkpoint.log_offset, checkpoint.transaction);
        assert_eq!(own, (end.file, end.end, last), "{name}");
        assert_eq!(checkpoint.mark().committed_at, end.committed_at, "{name}");
        assert_eq!(store_id(directory.path()).expect("read").expect("id").format, "record-aligned-1.1");
    }
}

#[test]
fn they_are_archived_byte_for_byte() {
    for (name, last, _) in FIXTURES {
        let directory = unpack(name);
        let path = directory.path().to_owned();
        let source = Neo4jLog::new(move || Ok(path.clone()));
        let mut mark = LogMark {
            file: 0,
            offset: 0,
            transaction: 1,
            began: None,
            checksum: Some("dead5eed".to_owned()),
            append_index: None,
            committed_at: None,
        };
        let mut archived: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
        // Every batch is read by a reader of its own, so that every mark is looked for.
        loop {
            let Resumption::Continues(mut reader) = source.resume(&mark, &Task::unobserved()).expect("resume") else {
                panic!("{name}: no continuation at {mark:?}");
            };
            let Some(chunk) = reader.next(50_000, &Task::unobserved()).expect("next") else { break };
            let mut bytes = Vec::new();
            let mut stream = chunk.reader;
            stream.read_to_end(&mut bytes).expect("read");
            stream.finish(&Task::unobserved()).expect("finish");
            for segment in chunk.segments {
                archived.entry(segment.file).or_default().extend(bytes.drain(..segment.length as usize));
            }
            mark = chunk.end;
        }
        assert_eq!(mark.transaction, last, "{name}");
        assert!(matches!(
            source.resume(
                &last_checkpoint(directory.path()).expect("read").expect("checkpoint").mark(),
                &Task::unobserved()
            ),
            Ok(Resumption::Continues(_))
        ));
        for (number, path) in numbered(directory.path(), TRANSACTIONS).expect("list") {
            let file = fs::read(path).expect("read");
            let data = archived.get(&number).map_or(&[][..], Vec::as_slice);
            assert_eq!(&file[..data.len()], data, "{name} {number}");
            assert!(file[data.len().max(HEADER_BYTES as usize)..].iter().all(|&byte| byte == 0), "{name} {number}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// A real log with a byte changed, or cut: what is found is a beginning of what is there.
    #[test]
    fn damage_never_passes(
        fixture in 0..FIXTURES.len() - 1,
        at in any::<proptest::sample::Index>(),
        flip in any::<u8>(),
    ) {
        let directory = unpack(FIXTURES[fixture].0);
        let path = directory.path().join(format!("{TRANSACTIONS}1"));
        let mut bytes = fs::read(path).expect("read");
        let mut sound = Vec::new();
        let mut scanner = Scanner::new(&bytes[..], "log", 0, Predecessor::default());
        loop {
            match scanner.step().expect("step") {
                Step::Transaction(transaction) => sound.push(transaction),
                Step::Remainder(_) => {}
                Step::End(_) => break,
            }
        }
        let end = sound.last().expect("transactions").end as usize;
        let begin = LogHeader::parse(&bytes, "log", 1).expect("parse").expect("header").data_start as usize;
        let at = begin + at.index(end - begin);
        if flip == 0 {
            bytes.truncate(at);
        } else {
            bytes[at] ^= flip;
        }
        let whole = sound.iter().filter(|t| t.end <= at as u64).count();
        match data_end(&bytes[..], "log", 0, Predecessor::default(), &|| Ok(())) {
            Ok(found) => prop_assert_eq!(found.last.as_ref(), sound[..whole].last()),
            Err(_) => prop_assert_ne!(flip, 0),
        }
        prop_assert!(Kernel(sound[0].kernel.0).is_known());
    }
}
