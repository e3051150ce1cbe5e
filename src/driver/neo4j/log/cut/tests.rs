//! Cutting a log that a writer in the test wrote, to every kind of target.

use super::super::checkpoint::Checkpoint;
use super::super::checkpoint::tests::{checkpoint, entry};
use super::super::envelope_writer::{EnvelopedWriter, store_checkpoint};
use super::super::format::Kernel;
use super::super::header::tests::real_header;
use super::super::walk::transactions;
use super::super::writer::LogWriter;
use super::*;
use crate::base::task::{Cancel, Observer, Progress, Severity};
use std::collections::BTreeMap;
use std::fs;
use std::sync::{Arc, Mutex};

/// Transactions 2 to 10 in three files; the checkpoint is after transaction 3, the base ends with transaction 5.
struct Site {
    directory: tempfile::TempDir,
    written: BTreeMap<u64, (u64, Transaction)>,
}

/// Commit times, in seconds after an hour: the ninth runs back.
const TIMES: [i64; 9] = [10, 20, 30, 40, 50, 60, 70, 55, 80];
const BASE_END: u64 = 5;

fn time(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_795_000_000 + seconds).expect("a time")
}

impl Site {
    fn new() -> Site {
        let directory = tempfile::tempdir().expect("tempdir");
        let mut writer = LogWriter::new(Kernel::V5_25);
        let mut written = BTreeMap::new();
        let path = |number: u64| directory.path().join(format!("{TRANSACTIONS}{number}"));
        for (n, seconds) in TIMES.into_iter().enumerate() {
            let transaction = writer.commit(&vec![n as u8; 100 + n], time(seconds).as_millisecond());
            written.insert(transaction.id, (writer.number, transaction.clone()));
            if [4, 7].contains(&transaction.id) {
                fs::write(path(writer.number), &writer.bytes).expect("write");
                writer.rotate();
            }
        }
        writer.bytes.resize(writer.bytes.len() + 500, 0);
        fs::write(path(writer.number), &writer.bytes).expect("write");
        let site = Site { directory, written };
        site.checkpoint(|checkpoint| checkpoint);
        site
    }

    fn checkpoint(&self, change: impl Fn(Checkpoint) -> Checkpoint) {
        let (_, third) = &self.written[&3];
        let checkpoint = Checkpoint { checksum: third.checksum, ..checkpoint(0, third.end, third.id) };
        let entry = entry(Kernel::V5_25, &change(checkpoint));
        fs::write(self.directory.path().join("checkpoint.0"), [real_header(), entry].concat()).expect("write");
    }

    fn cut(&self, until: RecoveryTarget) -> Result<LogMark> {
        self.cut_to(until, None)
    }

    fn cut_to(&self, until: RecoveryTarget, covered_until: Option<Timestamp>) -> Result<LogMark> {
        cut(self.directory.path(), &CutPlan { base_end: BASE_END, until, covered_until }, &Task::unobserved())
    }

    /// That the log on disk ends with this transaction and nothing else is left.
    fn ends_with(&self, id: u64, end: &LogMark) {
        let (file, last) = &self.written[&id];
        assert_eq!(*end, last.mark(*file));
        let found: Vec<u64> =
            transactions(self.directory.path()).expect("walk").map(|t| t.expect("transaction").id).collect();
        assert_eq!(found, (2..=id).collect::<Vec<_>>());
        let newest = numbered(self.directory.path(), TRANSACTIONS).expect("list").pop().expect("a file");
        assert_eq!((newest.0, fs::metadata(newest.1).expect("metadata").len()), (*file, last.end));
    }
}

#[test]
fn every_kind_of_target_ends_the_log_where_it_says() {
    for (until, last) in [
        (RecoveryTarget::End, 10),
        (RecoveryTarget::Transaction(5), 5),
        (RecoveryTarget::Transaction(7), 7),
        (RecoveryTarget::Transaction(10), 10),
        (RecoveryTarget::BeforeTransaction(6), 5),
        (RecoveryTarget::BeforeTransaction(9), 8),
        (RecoveryTarget::BeforeTransaction(11), 10),
        (RecoveryTarget::Time(time(40)), 5),
        (RecoveryTarget::Time(time(49)), 5),
        (RecoveryTarget::Time(time(60)), 7),
        (RecoveryTarget::Time(time(79)), 9),
        (RecoveryTarget::Time(time(80)), 10),
    ] {
        let site = Site::new();
        site.ends_with(last, &site.cut(until).expect("cut"));
        // Once more changes nothing.
        site.ends_with(last, &site.cut(RecoveryTarget::End).expect("cut again"));
    }
}

#[test]
fn a_checkpoint_among_writers_may_name_another_transaction_than_the_last_before_its_place() {
    let site = Site::new();
    let (_, fifth) = site.written[&5].clone();
    let ahead = |c| Checkpoint { transaction: 5, checksum: fifth.checksum, append_index: fifth.append_index, ..c };
    site.checkpoint(ahead);
    site.ends_with(10, &site.cut(RecoveryTarget::End).expect("cut"));
    // Or before it: then the log itself shows what lies between the two.
    let site = Site::new();
    let (_, second) = site.written[&2].clone();
    let behind = |c| Checkpoint { transaction: 2, checksum: second.checksum, append_index: second.append_index, ..c };
    site.checkpoint(behind);
    site.ends_with(10, &site.cut(RecoveryTarget::End).expect("cut"));
    // At the beginning of a file its header does.
    let site = Site::new();
    let fifth_starts = site.written[&5].1.start;
    site.checkpoint(|c| Checkpoint {
        log_version: 1,
        log_offset: fifth_starts,
        recovery_start: (1, fifth_starts),
        ..c
    });
    site.ends_with(10, &site.cut(RecoveryTarget::End).expect("cut"));
    // Nothing follows.
    let site = Site::new();
    let (file, last) = site.written[&10].clone();
    let ninth = site.written[&9].1.clone();
    site.checkpoint(|c| Checkpoint {
        log_version: file,
        log_offset: last.end,
        recovery_start: (file, last.end),
        transaction: 9,
        checksum: ninth.checksum,
        append_index: ninth.append_index,
        ..c
    });
    site.ends_with(10, &site.cut(RecoveryTarget::End).expect("cut"));
    // Another transaction of that number is another history.
    let site = Site::new();
    site.checkpoint(|c| Checkpoint { transaction: 2, ..c });
    assert_eq!(site.cut(RecoveryTarget::End).map_err(|error| error.code()), Err(Code::LogCorrupted));
}

#[test]
fn a_target_outside_the_log_is_refused_and_nothing_is_changed() {
    for (until, what) in [
        (RecoveryTarget::Transaction(4), "base's end"),
        (RecoveryTarget::BeforeTransaction(5), "base's end"),
        (RecoveryTarget::BeforeTransaction(0), "base's end"),
        (RecoveryTarget::Time(time(39)), "base's end"),
        (RecoveryTarget::Transaction(11), "holds transactions 5 to 10"),
        (RecoveryTarget::BeforeTransaction(12), "holds transactions 5 to 10"),
        (RecoveryTarget::Time(time(81)), "holds transactions 5 to 10"),
    ] {
        let site = Site::new();
        let error = site.cut(until).expect_err("refuse");
        assert_eq!(error.code(), Code::RestoreTargetUnreachable, "{until:?}");
        assert!(error.message().contains(what), "{error}");
        assert_eq!(transactions(site.directory.path()).expect("walk").count(), TIMES.len());
    }
    // The archive knows that nothing was committed until then.
    let site = Site::new();
    assert!(site.cut_to(RecoveryTarget::Time(time(100)), Some(time(99))).is_err());
    site.ends_with(10, &site.cut_to(RecoveryTarget::Time(time(100)), Some(time(100))).expect("cut"));
}

#[derive(Default)]
struct Heard(Mutex<Vec<String>>);

impl Observer for Heard {
    fn event(&self, _: Severity, text: &str) {
        self.0.lock().expect("lock").push(text.to_owned());
    }
    fn progress(&self, _: &Progress) {}
}

#[test]
fn a_clock_that_ran_back_is_worth_a_warning() {
    for (seconds, warned) in [(60, true), (50, false)] {
        let site = Site::new();
        let heard = Arc::new(Heard::default());
        let plan = CutPlan { base_end: BASE_END, until: RecoveryTarget::Time(time(seconds)), covered_until: None };
        let task = Task::new(heard.clone(), Cancel::default());
        cut(site.directory.path(), &plan, &task).expect("cut");
        assert_eq!(heard.0.lock().expect("lock").len(), usize::from(warned), "{seconds}");
    }
}

#[test]
fn recovery_may_start_before_the_checkpoint() {
    let site = Site::new();
    let begin = site.written[&2].1.end;
    site.checkpoint(|checkpoint| Checkpoint { recovery_start: (0, begin), ..checkpoint });
    site.ends_with(8, &site.cut(RecoveryTarget::Transaction(8)).expect("cut"));
}

#[test]
fn a_log_that_is_not_whole_up_to_the_target_is_refused() {
    let site = Site::new();
    let path = |number: u64| site.directory.path().join(format!("{TRANSACTIONS}{number}"));
    let code = |until| site.cut(until).map_err(|error| error.code());
    let whole = fs::read(path(1)).expect("read");
    let cut_at = site.written[&6].1.end as usize;
    fs::write(path(1), &whole[..cut_at]).expect("cut");
    assert_eq!(code(RecoveryTarget::End), Err(Code::LogGap));
    assert_eq!(code(RecoveryTarget::Transaction(8)), Err(Code::LogGap));
    let mut damaged = whole.clone();
    damaged[cut_at + 50] ^= 1;
    fs::write(path(1), &damaged).expect("damage");
    assert_eq!(code(RecoveryTarget::End), Err(Code::LogGap));
    fs::remove_file(path(1)).expect("remove");
    fs::remove_file(path(2)).expect("remove");
    assert_eq!(code(RecoveryTarget::End), Err(Code::LogGap), "the base itself is not whole");
    fs::remove_file(path(0)).expect("remove");
    assert_eq!(code(RecoveryTarget::End), Err(Code::LogGap));
    fs::remove_file(site.directory.path().join("checkpoint.0")).expect("remove");
    assert_eq!(code(RecoveryTarget::End), Err(Code::Neo4jUnsupported));
}

#[test]
fn a_checkpoint_that_does_not_fit_the_log_is_refused() {
    let site = Site::new();
    site.checkpoint(|checkpoint| Checkpoint { checksum: 7, ..checkpoint });
    assert_eq!(site.cut(RecoveryTarget::End).map_err(|error| error.code()), Err(Code::LogCorrupted));
    site.checkpoint(|checkpoint| Checkpoint { log_offset: 131, recovery_start: (0, 131), ..checkpoint });
    assert!(site.cut(RecoveryTarget::End).is_err());
}

#[test]
fn a_torn_end_is_cut_off() {
    let site = Site::new();
    let path = site.directory.path().join(format!("{TRANSACTIONS}2"));
    let bytes = fs::read(&path).expect("read");
    let (_, tenth) = &site.written[&10];
    fs::write(&path, &bytes[..tenth.end as usize - 3]).expect("tear");
    site.ends_with(9, &site.cut(RecoveryTarget::End).expect("cut"));
}

#[test]
fn the_list_tells_sizes_and_ends_with_the_first_error() {
    let site = Site::new();
    let listed: Vec<_> = transactions(site.directory.path()).expect("walk").map(|t| t.expect("transaction")).collect();
    assert_eq!(listed.len(), TIMES.len());
    assert_eq!((listed[8].id, listed[8].file, listed[8].committed_at), (10, 2, Some(time(80))));
    assert_eq!(listed[8].bytes, listed[0].bytes + 8);
    fs::remove_file(site.directory.path().join(format!("{TRANSACTIONS}0"))).expect("remove");
    assert_eq!(transactions(site.directory.path()).expect("walk").count(), 6);
    fs::write(site.directory.path().join(format!("{TRANSACTIONS}1")), b"garbage".repeat(100)).expect("write");
    assert!(transactions(site.directory.path()).is_err());
    assert_eq!(transactions(&site.directory.path().join("none")).expect("walk").count(), 0);
}

#[test]
fn an_enveloped_log_is_cut_at_any_transaction() {
    for wanted in 3..=12 {
        let directory = tempfile::tempdir().expect("tempdir");
        let mut writer = EnvelopedWriter::new(4096, 8192, 39);
        let sizes = [10, 5000, 30, 20_000, 3990, 7, 8000, 1, 4000, 60, 9000];
        let written: BTreeMap<u64, (u64, Transaction)> = sizes
            .into_iter()
            .map(|size| writer.commit(&vec![7; size], 1_795_000_000_000))
            .map(|(file, transaction)| (transaction.id, (file, transaction)))
            .collect();
        writer.store(directory.path());
        let (file, third) = &written[&3];
        store_checkpoint(directory.path(), Checkpoint { checksum: third.checksum, ..checkpoint(*file, third.end, 3) });
        let plan = CutPlan { base_end: 3, until: RecoveryTarget::Transaction(wanted), covered_until: None };
        let end = cut(directory.path(), &plan, &Task::unobserved()).expect("cut");
        let (file, last) = &written[&wanted];
        assert!(end.same_point(&last.mark(*file)), "{end:?}");
        let found: Vec<u64> =
            transactions(directory.path()).expect("walk").map(|t| t.expect("transaction").id).collect();
        assert_eq!(found, (2..=wanted).collect::<Vec<_>>());
        let newest = numbered(directory.path(), TRANSACTIONS).expect("list").pop().expect("a file");
        assert_eq!((newest.0, fs::metadata(newest.1).expect("metadata").len()), (*file, last.end));
    }
}
