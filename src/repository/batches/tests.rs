//! What the catalog promises of batches, on a store in memory.

use super::*;
use crate::artifact::digest::{StoredDigest, sha256_hex};
use crate::artifact::log_batch::sample::{self as log, target};
use crate::base::clock::FixedClock;
use crate::repository::memory::MemoryStore;
use crate::repository::sample::{self, keyring};
use std::sync::Arc;

fn repository() -> (MemoryStore, Repository) {
    let memory = MemoryStore::default();
    let clock = FixedClock::new(sample::time());
    let made = Repository::open_or_create("main", Arc::new(memory.clone()), keyring(), &clock).expect("create");
    (memory, made)
}

/// A batch of the transactions after `from` up to `to`.
fn batch(lineage: u32, from: u64, to: u64, plain: &[u8], stored: &[u8]) -> LogBatch {
    let mut batch = log::batch(lineage, 1, from, to);
    batch.segments[0].sha256 = sha256_hex(plain);
    batch.object.stored = StoredDigest::of(stored);
    batch
}

// req: X5
#[test]
fn the_same_batch_again_is_the_same_and_another_is_a_conflict() {
    let (memory, repository) = repository();
    let first = repository.commit_batch(&batch(1, 0, 5, b"content", b"salted so")).expect("commit");
    let before = memory.contents();
    // The same log, sealed another time: other stored bytes, another moment.
    let again = LogBatch { created_at: jiff::Timestamp::UNIX_EPOCH, ..batch(1, 0, 5, b"content", b"salted otherwise") };
    assert_eq!(repository.commit_batch(&again).expect("again"), first);
    for other in [batch(1, 0, 5, b"another content", b"x"), batch(1, 0, 6, b"content", b"x")] {
        assert_eq!(repository.commit_batch(&other).map_err(|error| error.code()), Err(Code::ObjectConflict));
    }
    assert_eq!(memory.contents(), before);
    repository.commit_batch(&batch(2, 0, 5, b"another content", b"x")).expect("another lineage is another place");
}

#[test]
fn batches_are_listed_in_the_order_of_the_log_and_by_lineage() {
    let (_, repository) = repository();
    for (from, to) in [(90, 120), (0, 9), (9, 90)] {
        repository.commit_batch(&batch(1, from, to, b"c", b"s")).expect("commit");
    }
    repository.commit_batch(&batch(2, 50, 60, b"c", b"s")).expect("commit");
    let listed = |lineage| {
        let keys = repository.batch_keys("prod", &target(), "0a", lineage).expect("list");
        keys.into_iter().map(|(place, _)| place.first_transaction).collect::<Vec<_>>()
    };
    assert_eq!((listed(1), listed(2), listed(3)), (vec![1, 10, 91], vec![51], vec![]));
    assert_eq!(repository.batch_objects("prod", &target()).expect("list").len(), 4);
    let other = TargetName::new("graph2").expect("name");
    assert!(repository.batch_objects("prod", &other).expect("list").is_empty());
}

#[test]
fn a_deleted_batch_loses_its_manifest_first() {
    let (memory, repository) = repository();
    let one = batch(1, 0, 5, b"content", b"stored");
    repository.put_document(&one.object.key, b"stored").expect("put");
    repository.commit_batch(&one).expect("commit");
    let (objects, bytes) = repository.delete_batch(&one).expect("delete");
    assert_eq!(objects, 2);
    assert!(bytes > 6);
    assert_eq!(repository.find_batch(&one.key().expect("key")).expect("look"), None);
    assert!(memory.contents().keys().all(|key| !key.as_str().contains("/log/")));
}

#[test]
fn a_batch_that_was_altered_is_refused() {
    let (memory, repository) = repository();
    let one = batch(1, 0, 5, b"content", b"stored");
    repository.commit_batch(&one).expect("commit");
    let key = one.key().expect("key");
    memory.damage(&key, |bytes| bytes[30] ^= 1).expect("damage");
    assert_eq!(repository.batch(&key).map_err(|error| error.code()), Err(Code::SignatureInvalid));
    assert_eq!(repository.commit_batch(&one).map_err(|error| error.code()), Err(Code::SignatureInvalid));
}
