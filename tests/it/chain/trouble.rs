//! Repositories that fail or are away, two runs at once, batches that are damaged, and what retention may take.

use super::{
    archive, archive_fails, archived, at, batches, commit, copy, in_place, keep_the_ledger, live, lose_the_ledger,
    put_back, restore, restored, set_the_ledger_back, two_repositories,
};
use crate::site::{BACKUPD, Site, backup_request};
use crate::workshop::{INTERVAL, PATIENCE};
use neo4j_backup_agent::base::Code;
use neo4j_backup_agent::base::clock::{Clock, SystemClock, wait_until};
use neo4j_backup_agent::base::ids::TargetName;
use neo4j_backup_agent::driver::log::RecoveryTarget;
use neo4j_backup_agent::driver::sim::log;
use neo4j_backup_agent::operation::answer::Answer;
use neo4j_backup_agent::operation::request::Request;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

// req: X2
#[test]
fn a_repository_that_was_away_catches_up_without_a_gap() {
    let site = two_repositories();
    let mut states = Vec::new();
    commit(&site, 5, &mut states);
    archive(&site);
    // A file where a directory was: as if the disk were gone.
    fs::rename(site.path("second"), site.path("away")).expect("rename");
    fs::write(site.path("second"), "not a directory").expect("write");
    for _ in 0..3 {
        commit(&site, 5, &mut states);
        assert_eq!(archive_fails(&site), Code::BackupPartial);
    }
    fs::remove_file(site.path("second")).expect("remove");
    fs::rename(site.path("away"), site.path("second")).expect("rename");
    commit(&site, 5, &mut states);
    let report = archive(&site);
    assert_eq!((report.gaps.len(), report.bases.len(), report.repositories.len()), (0, 0, 2), "{report:?}");
    let of = |name: &str| report.repositories.iter().find(|done| done.repository == name).expect("there");
    assert_eq!((of("main").transactions, of("second").transactions), (5, 20));
    site.verify().expect("sound in both");
    // The second one alone is enough.
    fs::remove_dir_all(site.path("repository")).expect("remove");
    let (state, report) = restored(&site, None);
    assert_eq!((state, report.repository.as_str()), (live(&site), "second"));
}

#[test]
fn a_clock_that_ran_back_does_not_make_the_shorter_archive_the_newest() {
    let site = two_repositories();
    let mut states = Vec::new();
    commit(&site, 5, &mut states);
    archive(&site);
    // As it stands when the clock was ahead while both were archived to.
    let ledger = rusqlite::Connection::open(site.path("state/ledger.db")).expect("open");
    let ahead =
        ledger.execute("UPDATE log_ends SET covered_until = covered_until + 600000000 WHERE repository = 'main'", []);
    assert_eq!(ahead, Ok(1));
    drop(ledger);
    fs::rename(site.path("repository"), site.path("away")).expect("rename");
    commit(&site, 2, &mut states);
    assert_eq!(archive_fails(&site), Code::BackupPartial);
    fs::rename(site.path("away"), site.path("repository")).expect("rename");
    let (state, report) = restored(&site, None);
    assert_eq!((state, report.repository.as_str()), (live(&site), "second"));
    let log = super::status(&site).log.expect("log");
    assert_eq!((log.repository.as_str(), log.to_transaction), ("second", 7));
}

/// Changes a byte in the middle of the newest file of `directory` whose name has `part` in it.
pub(super) fn flip_newest(directory: &Path, part: &str) {
    let mut files = Vec::new();
    crate::site::walk(directory, &mut files);
    files.retain(|path| path.file_name().is_some_and(|name| name.to_string_lossy().contains(part)));
    files.sort_by_key(|path| path.file_name().map(std::ffi::OsStr::to_owned));
    let path = files.last().expect("a file");
    let mut bytes = fs::read(path).expect("read");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(path, bytes).expect("write");
}

// req: X4
#[test]
fn what_is_damaged_in_one_repository_is_taken_from_another() {
    for part in [".base.", ".log."] {
        let site = two_repositories();
        let mut states = Vec::new();
        for count in [5, 3, 4] {
            commit(&site, count, &mut states);
            archive(&site);
        }
        // It is found on the way, told of, and what leads to the same is taken instead: also where nothing is on record yet.
        flip_newest(&site.path("repository"), part);
        let (state, report) = restored(&site, Some(RecoveryTarget::Transaction(12)));
        assert_eq!((state, report.repository.as_str()), (live(&site), "second"), "{part}");
        for until in [None, Some(RecoveryTarget::Transaction(12))] {
            assert_eq!(restored(&site, until).0, live(&site), "{part}");
        }
        // Where nobody has it whole, nothing less is given unasked, and nothing is left.
        flip_newest(&site.path("second/repository"), ".log.");
        if part == ".log." {
            let error = restore(&site, None, &site.path("less")).expect_err("damaged in both");
            assert!(matches!(error.code(), Code::BackupCorrupted | Code::LogGap), "{error}");
            assert!(!site.path("less").exists());
        }
    }
}

// req: X3 X4
#[test]
fn a_time_behind_which_the_log_is_damaged_is_never_reached_by_less() {
    for found in ["by a verification", "on the way"] {
        let site = two_repositories();
        let mut states = Vec::new();
        let mut times = Vec::new();
        for number in 1..=10u64 {
            let before = SystemClock.now().as_millisecond();
            assert!(wait_until(PATIENCE, INTERVAL, || SystemClock.now().as_millisecond() > before));
            let now = SystemClock.now();
            log::commit(&site.path("database"), (number % 7) as u8, &format!("{number}"), now).expect("commit");
            states.push(live(&site));
            times.push(now);
            if [4, 7, 10].contains(&number) {
                archive(&site);
            }
        }
        // Looked again, and found nothing: the archive is known to hold every moment since.
        archive(&site);
        flip_newest(&site.path("repository"), ".log.");
        if found == "by a verification" {
            site.verify().expect_err("damaged");
        }
        let until = |number: usize| Some(RecoveryTarget::Time(times[number - 1]));
        for _ in 0..2 {
            for number in [10, 9, 8] {
                let (state, report) = restored(&site, until(number));
                assert_eq!((&state, report.repository.as_str()), (&states[number - 1], "second"), "{found}, {number}");
            }
        }
        flip_newest(&site.path("second/repository"), ".log.");
        let batch = site.path("less");
        for _ in 0..2 {
            for number in [10, 9, 8] {
                let error = restore(&site, until(number), &batch).expect_err("damaged in both");
                assert!(matches!(error.code(), Code::BackupCorrupted | Code::LogGap), "{found}, {number}: {error}");
            }
        }
        assert_eq!(restored(&site, until(6)).0, states[5], "{found}: what lies before is there");
        assert_eq!(restored(&site, Some(RecoveryTarget::Transaction(7))).0, states[6], "{found}");
    }
}

// req: A11
#[test]
fn what_lies_under_a_mount_point_is_never_taken_for_the_repository() {
    let (site, mut states) = archived(5, &[5]);
    commit(&site, 5, &mut states);
    let (repository, away) = (site.path("repository"), site.path("away"));
    fs::rename(&repository, &away).expect("unmount");
    // With the mount point there, and without.
    for make in [true, false] {
        if make {
            fs::create_dir(&repository).expect("mount point");
        }
        let code = if make { Code::RepositoryForeign } else { Code::RepositoryNotFound };
        assert_eq!(archive_fails(&site), code);
        let taken = site.ask(&Request::Backup(backup_request("sim"))).map(drop).map_err(|error| error.code());
        assert_eq!(taken, Err(code));
        let found: Vec<_> = fs::read_dir(&repository).into_iter().flatten().flatten().map(|e| e.path()).collect();
        assert_eq!(found, Vec::<std::path::PathBuf>::new(), "nothing was written there");
        let _ = fs::remove_dir(&repository);
    }
    fs::rename(&away, &repository).expect("mount");
    assert_eq!(archive(&site).repositories[0].transactions, 5);
    assert_eq!(restored(&site, None).0, live(&site));
    // Another one, which is taken once somebody says that it is meant.
    fs::rename(&repository, &away).expect("unmount");
    fs::create_dir(&repository).expect("a new disk");
    let target = TargetName::new("sim").expect("name");
    // Who adopts for another reason does not mean the mount point.
    let adopt = |new_repository| {
        let adopted = site.ask(&Request::Adopt { target: target.clone(), new_repository });
        adopted.map(drop).map_err(|error| error.code())
    };
    assert_eq!(adopt(false), Err(Code::RepositoryForeign));
    assert_eq!(adopt(true), Ok(()));
    site.backup("sim");
    fs::rename(&repository, site.path("other")).expect("unmount");
    fs::rename(&away, &repository).expect("mount the old one");
    assert_eq!(archive_fails(&site), Code::RepositoryForeign);
}

#[test]
fn of_two_archives_at_once_one_is_busy() {
    let (site, mut states) = archived(5, &[]);
    commit(&site, 50, &mut states);
    fs::create_dir_all(site.path("database/control")).expect("control");
    fs::write(site.path("database/control/pause-log-at"), "100").expect("control");
    let mut command = std::process::Command::new(BACKUPD);
    command.arg("--config").arg(site.config()).args(["run", "backup", "sim", "--type", "incremental"]);
    let first = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("neo4j-backupd starts");
    let begun = wait_until(PATIENCE, INTERVAL, || {
        let mut found = Vec::new();
        crate::site::walk(&site.path("repository/.incomplete"), &mut found);
        !found.is_empty()
    });
    assert!(begun, "it never began to write");
    assert_eq!(archive_fails(&site), Code::Busy);
    // A base does not wait for the log, nor the log for a base.
    site.backup("sim");
    fs::write(site.path("database/control/go"), "").expect("control");
    let output = first.wait_with_output().expect("ended");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(restored(&site, None).0, live(&site));
    site.verify().expect("sound");
}

type Damage = (&'static str, fn(&mut Vec<u8>, &[u8]));

const DAMAGES: &[Damage] = &[
    ("the first byte flipped", |bytes, _| bytes[0] ^= 1),
    ("byte 20 flipped", |bytes, _| bytes[20] ^= 0x10),
    ("the middle flipped", |bytes, _| {
        let at = bytes.len() / 2;
        bytes[at] ^= 0x20;
    }),
    ("the last byte flipped", |bytes, _| *bytes.last_mut().expect("byte") ^= 1),
    ("one byte cut", |bytes, _| bytes.truncate(bytes.len() - 1)),
    ("cut in half", |bytes, _| bytes.truncate(bytes.len() / 2)),
    ("emptied", |bytes, _| bytes.clear()),
    ("a byte appended", |bytes, _| bytes.push(0)),
    ("zeroed", |bytes, _| bytes.iter_mut().for_each(|byte| *byte = 0)),
    ("another's content", |bytes, other| *bytes = other.to_vec()),
    ("another's tail", |bytes, other| {
        let half = bytes.len() / 2;
        bytes.truncate(half);
        bytes.extend(&other[other.len() / 2..]);
    }),
];

// req: A4 X5
#[test]
fn every_damage_to_a_batch_is_found_named_and_stops_a_restore() {
    let (site, states) = archived(4, &[6, 6, 6]);
    let all = batches(&site);
    assert_eq!(all.len(), 6, "three objects, three manifests: {all:?}");
    let mut tried = 0;
    for (index, path) in all.iter().enumerate() {
        let other = &all[(index + 2) % all.len()];
        let (sound, other) = (fs::read(path).expect("read"), fs::read(other).expect("read"));
        for (what, damage) in DAMAGES {
            let mut bytes = sound.clone();
            damage(&mut bytes, &other);
            fs::write(path, &bytes).expect("damage");
            refused(&site, path, what);
            tried += 1;
        }
        fs::remove_file(path).expect("remove");
        refused(&site, path, "removed");
        fs::write(path, &sound).expect("mend");
        tried += 1;
        // What lies before the damage is still there to restore.
        let before = 4 + 6 * (index as u64 / 2);
        fs::write(path, b"").expect("damage");
        let (state, _) = restored(&site, Some(RecoveryTarget::Transaction(before)));
        assert_eq!(state, states[before as usize]);
        fs::write(path, &sound).expect("mend");
    }
    // Objects and manifests of two batches exchanged under each other's names.
    for (one, two) in [(0, 2), (1, 3)] {
        let (a, b) = (fs::read(&all[one]).expect("read"), fs::read(&all[two]).expect("read"));
        fs::write(&all[one], &b).expect("write");
        fs::write(&all[two], &a).expect("write");
        refused(&site, &all[one], "exchanged");
        fs::write(&all[one], &a).expect("write");
        fs::write(&all[two], &b).expect("write");
    }
    println!("{tried} damages tried");
    assert!(tried >= 60, "{tried}");
    site.verify().expect("sound again");
    assert_eq!(restored(&site, None).0, live(&site));
}

fn refused(site: &Site, path: &Path, what: &str) {
    let name = path.file_name().expect("name").to_string_lossy().into_owned();
    let found = match site.verify() {
        Ok(answer) => answer.verdict().map(|error| error.to_string()).unwrap_or_default(),
        Err(error) => error.to_string(),
    };
    assert!(found.contains(&name), "{name}, {what}: verify said {found:?}");
    let out = site.path("out");
    let error = restore(site, None, &out).expect_err(&format!("{name}, {what}: it was restored"));
    assert!(
        matches!(error.code(), Code::LogGap | Code::SignatureInvalid | Code::RestoreTargetUnreachable),
        "{what}: {error}"
    );
    assert!(!out.exists(), "{name}, {what}: the refused restore left {}", out.display());
}

// req: X2 D1
#[test]
fn what_is_archived_behind_something_damaged_gets_a_new_base_at_once() {
    for part in [".base.", ".log."] {
        let (site, mut states) = archived(4, &[6, 3]);
        flip_newest(&site.path("repository"), part);
        // As long as nobody knows, the archive goes on.
        commit(&site, 2, &mut states);
        assert_eq!(archive(&site).bases.len(), 0);
        assert!(site.verify().is_err());
        commit(&site, 2, &mut states);
        let report = archive(&site);
        assert_eq!((report.gaps.len(), report.bases.len()), (1, 1), "{part}: {report:?}");
        assert_eq!(restored(&site, None).0, live(&site), "{part}");
        commit(&site, 2, &mut states);
        let report = archive(&site);
        assert_eq!((report.gaps.len(), report.bases.len()), (0, 0), "{part}: {report:?}");
        assert_eq!(restored(&site, None).0, live(&site), "{part}");
    }
}

// req: X3
#[test]
fn what_is_damaged_in_a_history_that_was_left_is_in_nobodys_way() {
    let (site, mut states) = archived(5, &[4, 6]);
    in_place(&site, Some(RecoveryTarget::Transaction(5)));
    states.truncate(6);
    let manifest = batches(&site).into_iter().rfind(|path| path.to_string_lossy().ends_with("meta.json"));
    let manifest = manifest.expect("manifest");
    let mut bytes = fs::read(&manifest).expect("read");
    bytes[30] ^= 1;
    fs::write(&manifest, &bytes).expect("damage");
    assert_eq!(archive(&site).bases.len(), 1, "of the history that begins");
    for _ in 0..2 {
        commit(&site, 2, &mut states);
        let report = archive(&site);
        assert_eq!((report.bases.len(), report.repositories[0].transactions), (0, 2), "{report:?}");
    }
    assert_eq!(restored(&site, None).0, live(&site));
}

// req: X2
#[test]
fn a_chain_whose_end_is_damaged_goes_on_from_a_new_base() {
    let (site, mut states) = archived(4, &[]);
    for quiet in [true, false] {
        commit(&site, 6, &mut states);
        archive(&site);
        let manifest = batches(&site).into_iter().rfind(|path| path.to_string_lossy().ends_with("meta.json"));
        let manifest = manifest.expect("manifest");
        let mut bytes = fs::read(&manifest).expect("read");
        bytes[30] ^= 1;
        fs::write(&manifest, &bytes).expect("damage");
        if !quiet {
            commit(&site, 3, &mut states);
        }
        let report = archive(&site);
        assert_eq!((report.gaps.len(), report.bases.len()), (1, 1), "{report:?}");
        commit(&site, 3, &mut states);
        let report = archive(&site);
        assert_eq!((report.bases.len(), report.repositories[0].transactions), (0, 3), "{report:?}");
        assert_eq!(report.gaps, Vec::<String>::new(), "said until a base has closed the gap, and not after");
        assert_eq!(restored(&site, None).0, live(&site));
    }
    assert!(site.verify().is_err(), "the damaged manifests are still named");
}

#[test]
fn a_missing_batch_in_the_middle_is_named_with_what_can_still_be_restored() {
    let (site, states) = archived(4, &[6, 6, 6]);
    let middle =
        batches(&site).into_iter().filter(|path| path.to_string_lossy().contains("00000011-")).collect::<Vec<_>>();
    assert_eq!(middle.len(), 2, "{middle:?}");
    for path in &middle {
        fs::remove_file(path).expect("remove");
    }
    let error = restore(&site, None, &site.path("out")).expect_err("there is a hole");
    assert_eq!(error.code(), Code::LogGap);
    assert!(error.message().contains("after transaction 10") && error.message().contains("00000011-"), "{error}");
    assert!(error.hint().contains("--to-tx 10"), "{}", error.hint());
    assert_eq!(restored(&site, Some(RecoveryTarget::Transaction(10))).0, states[10]);
    assert_eq!(restored(&site, Some(RecoveryTarget::Time(at(9)))).0, states[9]);
}

// req: B15
#[test]
fn a_deleted_base_takes_the_batches_that_nothing_else_needs() {
    let site = Site::logged();
    let mut states = Vec::new();
    commit(&site, 4, &mut states);
    let first = archive(&site).bases.remove(0);
    for _ in 0..2 {
        commit(&site, 6, &mut states);
        archive(&site);
    }
    let second = site.backup("sim").id;
    commit(&site, 6, &mut states);
    archive(&site);
    assert_eq!(batches(&site).len(), 6);
    let dry = site.run(&["delete", &first.to_string(), "--dry-run"]);
    assert!(String::from_utf8_lossy(&dry.stdout).contains("2 batches"), "{}", String::from_utf8_lossy(&dry.stdout));
    assert_eq!(batches(&site).len(), 6);
    match site.ask(&Request::Delete { backup: first.to_string(), dry_run: false }) {
        Ok(Answer::Delete(report)) => assert_eq!(report.batches, 2),
        other => panic!("{other:?}"),
    }
    assert_eq!(batches(&site).len(), 2);
    for number in 16..=22 {
        assert_eq!(restored(&site, Some(RecoveryTarget::Transaction(number))).0, states[number as usize], "{number}");
    }
    site.verify().expect("what was let go is not missed");
    site.run(&["rescan"]);
    site.verify().expect("nor after a rescan");
    // Deleting the newer base keeps what the older one needs.
    commit(&site, 2, &mut states);
    archive(&site);
    let third = site.backup("sim").id;
    site.ask(&Request::Delete { backup: third.to_string(), dry_run: false }).expect("delete");
    assert_eq!(restored(&site, None).0, live(&site));
    site.ask(&Request::Delete { backup: second.to_string(), dry_run: false }).expect("delete");
    assert_eq!(batches(&site), Vec::<PathBuf>::new(), "no base is left that could use them");
}

#[test]
fn a_rescan_rebuilds_what_the_ledger_knew_of_the_log() {
    let (site, mut states) = archived(4, &[6, 6]);
    lose_the_ledger(&site);
    assert_eq!(restored(&site, None).0, live(&site));
    match site.ask(&Request::Rescan) {
        Ok(Answer::Rescan(report)) => assert_eq!((report.batches, report.missing), (2, 0)),
        other => panic!("{other:?}"),
    }
    commit(&site, 6, &mut states);
    let report = archive(&site);
    assert_eq!((report.bases.len(), report.repositories[0].transactions), (0, 6), "the chain goes on: {report:?}");
    // An object that lost its manifest is in nobody's way, and is not deleted.
    let manifest = batches(&site).into_iter().rfind(|path| path.to_string_lossy().ends_with("meta.json"));
    fs::remove_file(manifest.expect("manifest")).expect("remove");
    commit(&site, 1, &mut states);
    let report = archive(&site);
    assert_eq!((report.bases.len(), report.repositories[0].transactions), (0, 7), "archived again: {report:?}");
    assert_eq!(restored(&site, None).0, live(&site));
}

#[test]
fn a_record_that_is_older_than_the_repository_learns_what_is_there() {
    let (site, mut states) = archived(4, &[6, 6]);
    let (kept, data) = (keep_the_ledger(&site), site.path("data"));
    copy(&site.path("database/data"), &data);
    for count in [3, 5] {
        commit(&site, count, &mut states);
        archive(&site);
    }
    set_the_ledger_back(&site, &kept);
    commit(&site, 4, &mut states);
    let report = archive(&site);
    assert_eq!((report.bases.len(), report.gaps.len(), report.repositories[0].transactions), (0, 0, 4), "{report:?}");
    assert_eq!(restored(&site, None).0, live(&site));
    site.verify().expect("the chain is whole");

    // Put back together with the database, it is another history: neither its log nor a base of it is taken in.
    put_back(&site, &data);
    let number = log::last_transaction(&site.path("database")).expect("last") + 1;
    log::commit(&site.path("database"), 1, "otherwise", at(number)).expect("commit");
    for request in [super::archive_request(), Request::Backup(backup_request("sim"))] {
        set_the_ledger_back(&site, &kept);
        assert_eq!(site.ask(&request).expect_err("another history").code(), Code::LogForked, "{request:?}");
    }
}

// req: X3
#[test]
fn status_promises_nothing_of_a_batch_that_an_archive_found_damaged() {
    let (site, mut states) = archived(4, &[6, 3]);
    let mut manifests = batches(&site);
    manifests.retain(|path| path.to_string_lossy().ends_with(".meta.json"));
    manifests.sort();
    fs::write(manifests.last().expect("a batch"), "{}").expect("damage");
    commit(&site, 2, &mut states);
    let report = archive(&site);
    assert_eq!((report.gaps.len(), report.bases.len()), (1, 1), "{report:?}");
    let told = super::status(&site);
    let ranges = told.log.iter().map(|log| (log.from_transaction, log.to_transaction));
    let ranges: Vec<_> =
        ranges.chain(told.earlier.iter().map(|range| (range.from_transaction, range.to_transaction))).collect();
    assert_eq!(ranges, [(15, 15), (4, 10)]);
    for number in (4..=10).chain([15]) {
        assert_eq!(restored(&site, Some(RecoveryTarget::Transaction(number))).0, states[number as usize], "{number}");
    }
}
