//! Older passphrases in a repository, on a store in memory.

use super::*;
use crate::base::clock::FixedClock;
use crate::repository::catalog::Repository;
use crate::repository::memory::MemoryStore;
use crate::repository::sample::{PASSPHRASE, key_of, time};

const SECOND: &str = "another passphrase, long enough";
const THIRD: &str = "a third passphrase, just as long";

fn ring(current: &str, older: &[&str]) -> Arc<Keyring> {
    Arc::new(Keyring::new(key_of(current), older.iter().map(|passphrase| key_of(passphrase)).collect()))
}

fn open(memory: &MemoryStore, keyring: &Arc<Keyring>) -> Result<Repository> {
    Repository::open("main", Arc::new(memory.clone()), keyring.clone())
}

fn create(memory: &MemoryStore, keyring: &Arc<Keyring>) -> Repository {
    let clock = FixedClock::new(time());
    Repository::open_or_create("main", Arc::new(memory.clone()), keyring.clone(), &clock).expect("create")
}

fn rotate(repository: &Repository, keyring: &Arc<Keyring>, next: &str) {
    repository.prepare_rotation(&key_of(next)).expect("prepare");
    keyring.renew(key_of(next));
    repository.finish_rotation("prod", &[]).expect("finish");
}

// req: D8
#[test]
fn the_newest_passphrase_opens_everything_after_two_rotations() {
    let memory = MemoryStore::default();
    let first = ring(PASSPHRASE, &[]);
    let repository = create(&memory, &first);
    rotate(&repository, &first, SECOND);
    rotate(&repository, &first, THIRD);
    let only_newest = ring(THIRD, &[]);
    assert_eq!(open(&memory, &only_newest).expect("open").id(), repository.id());
    assert!(only_newest.holds(key_of(PASSPHRASE).id()) && only_newest.holds(key_of(SECOND).id()));
    // Each of them directly, so that one call of openssl is enough.
    for older in [PASSPHRASE, SECOND] {
        let id = key_of(older).id().clone();
        let bytes = read(&memory, &escrowed_key(&id).expect("key"), ESCROW_MAX).expect("read");
        assert!(escrow::open(&bytes, &key_of(THIRD), &id).expect("open").is_some(), "{older}");
    }
}

// req: D8
#[test]
fn a_rotation_cut_short_locks_nobody_out_and_the_next_backup_mends_it() {
    let memory = MemoryStore::default();
    let keyring = ring(PASSPHRASE, &[]);
    let repository = create(&memory, &keyring);
    rotate(&repository, &keyring, SECOND);
    // Killed after the preparation: with the old file still in place, and with the new one.
    repository.prepare_rotation(&key_of(THIRD)).expect("prepare");
    for current in [SECOND, THIRD] {
        let held = ring(current, &[]);
        open(&memory, &held).expect("open");
        assert!(held.holds(key_of(PASSPHRASE).id()), "with {current}");
    }
    create(&memory, &ring(THIRD, &[]));
    let id = key_of(PASSPHRASE).id().clone();
    let bytes = read(&memory, &escrowed_key(&id).expect("key"), ESCROW_MAX).expect("read");
    assert!(escrow::open(&bytes, &key_of(THIRD), &id).expect("open").is_some(), "mended");
}

#[test]
fn a_key_that_was_rotated_by_hand_is_kept_by_the_next_backup() {
    let memory = MemoryStore::default();
    create(&memory, &ring(PASSPHRASE, &[]));
    create(&memory, &ring(SECOND, &[PASSPHRASE]));
    open(&memory, &ring(SECOND, &[])).expect("the older file is no longer needed");
}

#[test]
fn rubbish_among_the_keys_opens_nothing_and_stops_nothing() {
    let memory = MemoryStore::default();
    let keyring = ring(PASSPHRASE, &[]);
    create(&memory, &keyring);
    let large = vec![7; 1 << 20];
    for (name, bytes) in
        [("0123456789abcdef", &b"Salted__12345678rubbish"[..]), ("fedcba9876543210", &large), ("x", b"")]
    {
        put(&memory, &ObjectKey::new(format!("keys/{name}.enc")).expect("key"), bytes, Commit::IfAbsent).expect("put");
    }
    open(&memory, &keyring).expect("open");
    assert_eq!(keyring.keys().len(), 1);
    let stranger = ring(SECOND, &[]);
    assert_eq!(open(&memory, &stranger).map_err(|e| e.code()).err(), Some(Code::WrongKey));
}
