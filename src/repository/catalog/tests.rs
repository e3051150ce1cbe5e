//! What the catalog promises, on a store in memory that records its calls.

use super::*;
use crate::artifact::manifest::{Content, Engine};
use crate::base::clock::FixedClock;
use crate::repository::dry_run::DryRunStore;
use crate::repository::memory::MemoryStore;
use crate::repository::record::RecordStore;
use crate::repository::sample::{self, id, key_of, keyring, owner, owner_record};
use std::collections::BTreeSet;

fn clock() -> FixedClock {
    FixedClock::new(sample::time())
}

fn repository() -> (MemoryStore, Arc<RecordStore>, Repository) {
    let memory = MemoryStore::default();
    let record = Arc::new(RecordStore::new(Arc::new(memory.clone())));
    let repository = Repository::open_or_create("main", record.clone(), keyring(), &clock()).expect("create");
    record.forget();
    (memory, record, repository)
}

fn code<T>(result: Result<T>) -> Code {
    result.err().expect("an error").code()
}

fn target(name: &str) -> TargetName {
    TargetName::new(name).expect("target")
}

/// A backup of one object, whose manifest is not stored yet.
fn sample_backup(repository: &Repository, text: &str) -> Manifest {
    let id = id(text);
    let object = sample::object(&id, "dump", "neo4j", Content::Neo4jDump, &[], b"stored", b"stored");
    repository.put_document(&object.key, b"stored").expect("put");
    sample::manifest(&id, Engine::Neo4j, vec![object])
}

#[test]
fn a_repository_is_made_once_and_keeps_its_id() {
    let (memory, record, repository) = repository();
    assert_eq!(repository.id().len(), 32);
    let again = Repository::open_or_create("main", record.clone(), keyring(), &clock()).expect("again");
    assert_eq!(again.id(), repository.id());
    assert!(!record.calls().iter().any(|call| call.starts_with("create")), "nothing is written twice");
    let opened = Repository::open("other", Arc::new(memory.clone()), keyring()).expect("open");
    assert_eq!((opened.id(), opened.name()), (repository.id(), "other"));
    let keys: Vec<String> = memory.contents().keys().map(ToString::to_string).collect();
    assert_eq!(keys, ["RECOVER.txt", "repository.json", "restore.sh"]);
    let (_, _, another) = self::repository();
    assert_ne!(another.id(), repository.id());
}

#[test]
fn what_is_no_repository_of_ours_is_refused() {
    let empty = Arc::new(MemoryStore::default());
    assert_eq!(code(Repository::open("main", empty.clone(), keyring())), Code::RepositoryNotFound);
    assert!(empty.contents().is_empty(), "opening makes nothing");
    let (memory, ..) = repository();
    let stranger = Arc::new(Keyring::new(key_of("another passphrase, long enough"), vec![]));
    assert_eq!(code(Repository::open("main", Arc::new(memory.clone()), stranger.clone())), Code::WrongKey);
    let made = Repository::open_or_create("main", Arc::new(memory.clone()), stranger, &clock());
    assert_eq!(code(made), Code::WrongKey);
    let rotated = Arc::new(Keyring::new(key_of("another passphrase, long enough"), vec![key_of(sample::PASSPHRASE)]));
    assert!(Repository::open("main", Arc::new(memory.clone()), rotated).is_ok());
    memory.damage(&object_key::repository(), |bytes| bytes[20] ^= 1).expect("damage");
    assert_eq!(code(Repository::open("main", Arc::new(memory), keyring())), Code::SignatureInvalid);
}

#[test]
fn a_newer_format_is_refused_politely() {
    let (memory, _, repository) = repository();
    let newer = RepositoryRecord { format: FORMAT + 1, ..repository.record.clone() };
    let bytes = signing::seal(&newer, &keyring().current()).expect("seal");
    memory.damage(&object_key::repository(), |stored| *stored = bytes).expect("damage");
    assert_eq!(code(Repository::open("main", Arc::new(memory), keyring())), Code::FormatUnsupported);
}

#[test]
fn many_that_make_it_at_once_agree() {
    let memory = MemoryStore::default();
    let make = || {
        let store = Arc::new(memory.clone());
        Repository::open_or_create("main", store, keyring(), &clock()).expect("create").id().to_owned()
    };
    let ids: BTreeSet<String> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(make)).collect();
        threads.into_iter().map(|thread| thread.join().expect("join")).collect()
    });
    assert_eq!(ids.len(), 1);
}

// req: A3
#[test]
fn the_same_document_is_not_sent_twice_and_another_is_refused() {
    let (memory, record, repository) = repository();
    let key = ObjectKey::new("environment=prod/x").expect("key");
    assert_eq!(repository.put_document(&key, b"one").expect("put"), PutOutcome::Stored);
    record.forget();
    assert_eq!(repository.put_document(&key, b"one").expect("put"), PutOutcome::Identical);
    assert!(!record.calls().iter().any(|call| call.starts_with("create")), "{:?}", record.calls());
    for other in [&b"two"[..], b"longer", b""] {
        assert_eq!(code(repository.put_document(&key, other)), Code::ObjectConflict);
    }
    assert_eq!(memory.contents()[&key], b"one");
}

// req: A4
#[test]
fn a_manifest_is_written_once_and_read_back_before_it_counts() {
    let (memory, record, repository) = repository();
    let manifest = sample_backup(&repository, "graph-20261120T020000Z-dump");
    record.forget();
    let signed = repository.commit_manifest(&manifest).expect("commit");
    assert_eq!(signed.manifest, manifest);
    let key = manifest.key().expect("key");
    let size = memory.contents()[&key].len();
    assert_eq!(
        record.calls(),
        [
            format!("stat {key}"),
            format!("create {key}"),
            format!("write {key} {size}"),
            format!("commit {key} IfAbsent"),
            format!("read {key}"),
        ]
    );
    assert_eq!(repository.commit_manifest(&manifest).expect("again").bytes_sha256, signed.bytes_sha256);
    let changed = Manifest { duration_ms: 2, ..manifest.clone() };
    assert_eq!(code(repository.commit_manifest(&changed)), Code::ObjectConflict);
    assert_eq!(repository.manifest(&key).expect("manifest").manifest, manifest);
}

#[test]
fn a_fault_at_any_call_leaves_a_whole_manifest_or_none() {
    for number in 1.. {
        let (memory, record, repository) = repository();
        let manifest = sample_backup(&repository, "graph-20261120T020000Z-dump");
        record.forget();
        record.fail_at(number, Error::new(Code::RepositoryIo, "fault"));
        let done = repository.commit_manifest(&manifest);
        if record.is_fault_pending() {
            done.expect("a run without a fault");
            assert!(number > 4);
            break;
        }
        assert!(done.is_err(), "call {number}");
        assert!(!memory.contents().contains_key(&manifest.key().expect("key")), "call {number}");
        repository.commit_manifest(&manifest).expect("the next run is clean");
    }
}

#[test]
fn a_backup_is_found_by_its_id_and_an_incomplete_one_is_told() {
    let (_, _, repository) = repository();
    let manifest = sample_backup(&repository, "graph-20261120T020000Z-dump");
    assert_eq!(code(repository.find_manifest("prod", &manifest.id)), Code::BackupIncomplete);
    repository.commit_manifest(&manifest).expect("commit");
    assert_eq!(repository.find_manifest("prod", &manifest.id).expect("found").manifest, manifest);
    for other in ["graph-20261120T020000Z-base", "graph-20261120T020001Z-dump", "grap-20261120T020000Z-dump"] {
        assert_eq!(code(repository.find_manifest("prod", &id(other))), Code::BackupNotFound, "{other}");
    }
    assert_eq!(code(repository.find_manifest("dev", &manifest.id)), Code::BackupNotFound);
}

#[test]
fn manifests_are_listed_in_order_and_those_of_the_log_are_not() {
    let (memory, record, repository) = repository();
    for text in ["metrics-20261120T020000Z-dump", "graph-20261120T020000Z-dump", "graph-20251231T235959Z-dump"] {
        let manifest = sample_backup(&repository, text);
        repository.commit_manifest(&manifest).expect("commit");
    }
    for other in [
        "environment=dev/year=2026/month=01/day=01/x-20260101T000000Z.meta.json",
        "environment=prod/log/graph/1.meta.json",
    ] {
        put(&memory, &ObjectKey::new(other).expect("key"), b"{}", Commit::IfAbsent).expect("put");
    }
    record.forget();
    let names = |environment| -> Vec<String> {
        let found = repository.manifest_keys(environment).expect("list");
        found.iter().map(|object| object.key.file_name().to_owned()).collect()
    };
    let prod =
        ["graph-20251231T235959Z.meta.json", "graph-20261120T020000Z.meta.json", "metrics-20261120T020000Z.meta.json"];
    assert_eq!(names(Some("prod")), prod);
    assert_eq!(record.calls(), ["list environment=prod/year="]);
    assert_eq!(names(None).len(), 4);
    assert!(names(Some("pro")).is_empty());
}

#[test]
fn a_second_writer_is_refused_and_both_are_named() {
    let (memory, _, repository) = repository();
    assert_eq!(repository.owner("prod", &target("graph")).expect("owner"), None);
    let first = owner_record("graph", owner("db1", "machine-1"));
    repository.claim(&first).expect("claim");
    assert_eq!(repository.owner("prod", &target("graph")).expect("owner"), Some(first.clone()));
    repository.claim(&owner_record("graph", owner("renamed", "machine-1"))).expect("the host's name may change");
    assert_eq!(
        repository.owner("prod", &target("graph")).expect("owner"),
        Some(first.clone()),
        "the first record stays"
    );
    let mut epoch = owner("db1", "machine-1");
    epoch.epoch = 2;
    let mut data = owner("db1", "machine-1");
    data.data_identity = "store-2".to_owned();
    for other in [owner("db2", "machine-2"), epoch, data] {
        let error = repository.claim(&owner_record("graph", other.clone())).expect_err("another writer");
        assert_eq!(error.code(), Code::OwnerConflict);
        for named in ["db1", "machine-1", "/state", &other.host, &other.machine_id, &other.data_identity] {
            assert!(error.message().contains(named), "{error}");
        }
    }
    let elsewhere = OwnerRecord { state_directory: Some("/other".to_owned()), ..first.clone() };
    let error = repository.claim(&elsewhere).expect_err("another agent of the same machine");
    assert!(error.code() == Code::OwnerConflict && error.message().contains("/other"), "{error}");
    repository.claim(&OwnerRecord { state_directory: None, ..first.clone() }).expect("one that does not say where");
    // What an earlier release left says nothing of that either, and then belongs to the first that comes.
    let silent = OwnerRecord { state_directory: None, ..first.clone() };
    repository.take_over(&silent).expect("as an earlier release wrote it");
    repository.claim(&first).expect("the first");
    let present = repository.owner("prod", &first.target).expect("owner").expect("present");
    assert_eq!((present.state_directory, present.since), (first.state_directory.clone(), silent.since));
    assert_eq!(repository.claim(&elsewhere).map_err(|error| error.code()), Err(Code::OwnerConflict));
    repository.claim(&owner_record("metrics", owner("db2", "machine-2"))).expect("another target is free");
    // A soundly signed record in another's place is no owner.
    let (graph, metrics) = (
        object_key::owner("prod", &target("graph")).expect("key"),
        object_key::owner("prod", &target("metrics")).expect("key"),
    );
    let bytes = memory.contents()[&graph].clone();
    memory.damage(&metrics, |stored| *stored = bytes).expect("damage");
    assert_eq!(code(repository.owner("prod", &target("metrics"))), Code::SignatureInvalid);
}

// req: B1
#[test]
fn a_deleted_backup_stops_counting_before_its_objects_go() {
    let (memory, record, repository) = repository();
    let manifest = sample_backup(&repository, "graph-20261120T020000Z-dump");
    repository.commit_manifest(&manifest).expect("commit");
    let (key, object) = (manifest.key().expect("key"), manifest.objects[0].key.clone());
    let size = memory.contents()[&key].len() as u64;
    record.forget();
    let task = Task::unobserved();
    assert_eq!(repository.delete_backup(&manifest, &task).expect("delete"), (2, size + 6));
    let deletions: Vec<String> = record.calls().into_iter().filter(|call| call.starts_with("delete")).collect();
    assert_eq!(deletions, [format!("delete {key}"), format!("delete {object}")]);
    assert_eq!(repository.delete_backup(&manifest, &task).expect("again"), (0, 0));
    task.cancel().cancel();
    assert_eq!(code(repository.delete_backup(&manifest, &task)), Code::Cancelled);
}

// req: A7
#[test]
fn a_dry_run_goes_through_everything_with_nothing_behind_it() {
    let store = Arc::new(DryRunStore::new(None));
    let repository = Repository::open_or_create("main", store.clone(), keyring(), &clock()).expect("create");
    repository.claim(&owner_record("graph", owner("db1", "machine-1"))).expect("claim");
    let manifest = sample_backup(&repository, "graph-20261120T020000Z-dump");
    repository.commit_manifest(&manifest).expect("commit");
    assert_eq!(repository.manifest_keys(Some("prod")).expect("list").len(), 1);
    assert_eq!(store.planned().len(), 6);
}
