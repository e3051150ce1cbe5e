//! Writing to a server that fails, lies, or is left alone in the middle.

use super::faulty::{Begun, Fault, Reply, Request};
use super::{Bench, IMPATIENT, bench, first, key, keys, settings};
use crate::artifact::digest::{PART_SIZE, sha256_hex};
use crate::artifact::manifest::{Content, Engine};
use crate::artifact::object_key::ObjectKey;
use crate::base::Code;
use crate::base::clock::FixedClock;
use crate::repository::catalog::Repository;
use crate::repository::s3::S3Store;
use crate::repository::s3::journal::Journal;
use crate::repository::sample;
use crate::repository::small_object::{put, put_with, read};
use crate::repository::store::{Commit, ObjectInfo, Store};
use std::collections::{BTreeMap, HashSet};
use std::io::Write;
use std::sync::Arc;

const PART: usize = PART_SIZE as usize;

fn large() -> Vec<u8> {
    (0..2 * PART as u32 + 77).map(|number| (number % 249) as u8).collect()
}

fn put_large(bench: &Bench) -> crate::base::Result<ObjectInfo> {
    put(&bench.store, &key("large"), &large(), Commit::IfAbsent)
}

fn is_part(request: &Request) -> bool {
    request.method == "PUT" && request.query.contains("partNumber")
}

fn is_last(request: &Request) -> bool {
    request.method == "POST" && request.query.contains("uploadId")
}

// req: A2
#[test]
fn the_metadata_of_backups_say_what_they_are() {
    let bench = bench(|_| Fault::None);
    let clock = FixedClock::new(sample::time());
    let repository =
        Repository::open_or_create("main", Arc::new(bench.store), sample::keyring(), &clock).expect("make");
    let id = sample::id("graph-20261120T020000Z-dump");
    let object = sample::object(&id, "dump", "neo4j", Content::Neo4jDump, &[], b"stored", b"stored");
    let facts = BTreeMap::from([("db_name", "grüße\r\nx: y".to_owned()), ("tool_version", "0.1.0".to_owned())]);
    put_with(&**repository.store(), &object.key, b"stored", Commit::IfAbsent, &facts).expect("put");
    let manifest = sample::manifest(&id, Engine::Neo4j, vec![object.clone()]);
    repository.commit_manifest(&manifest).expect("commit");
    let contents = bench.server.contents();
    let said = |key: &ObjectKey, name: &str| {
        let held = contents.objects.get(key.as_str()).expect("an object");
        let of = |(header, value): &(String, String)| (*header == format!("x-amz-meta-{name}")).then(|| value.clone());
        held.metadata.iter().find_map(of).unwrap_or_else(|| panic!("{name} of {key}: {:?}", held.metadata))
    };
    let document = manifest.key().expect("key");
    for (name, value) in [
        ("sha256", manifest.sha256.clone()),
        ("db-name", manifest.db_name.replace('\n', "")),
        ("tool-version", manifest.tool_version.clone()),
        ("rows-estimate", manifest.rows_estimate.to_string()),
        ("hostname", manifest.hostname.clone()),
        ("created-by", manifest.created_by.clone()),
        ("created-at", manifest.created_at.to_string()),
    ] {
        assert_eq!(said(&document, name), value, "{name}");
    }
    // What cannot stand in a header is left out, and never begins another one.
    assert_eq!(
        (said(&object.key, "db-name"), said(&object.key, "tool-version")),
        ("grex: y".to_owned(), "0.1.0".to_owned())
    );
    assert_eq!(said(&object.key, "sha256"), sha256_hex(b"stored"));
    for name in ["hostname", "created-by", "created-at"] {
        assert!(!said(&object.key, name).is_empty(), "{name}");
    }
}

#[test]
fn a_connection_lost_in_every_part_costs_a_repetition() {
    let mut seen = HashSet::new();
    let bench = bench(move |request| match is_part(request) && seen.insert(request.query.clone()) {
        true => Fault::Lost,
        false => Fault::None,
    });
    let info = put_large(&bench).expect("put");
    assert_eq!(info.size, large().len() as u64);
    assert_eq!(read(&bench.store, &key("large"), u64::MAX).expect("read"), large());
    assert_eq!((bench.server.contents().uploads.len(), bench.records()), (0, 0));
}

#[test]
fn a_part_that_arrived_as_something_else_is_not_taken() {
    let bench = bench(|request| match is_part(request) {
        true => Fault::Altered(|reply| reply.set("etag", "\"00000000000000000000000000000000\"")),
        false => Fault::None,
    });
    let error = put_large(&bench).expect_err("another checksum");
    assert_eq!(error.code(), Code::RepositoryIo, "{error}");
    assert!(error.message().contains("received other bytes"), "{error}");
    // The other part may have been on its way.
    assert!(bench.store.sweep().expect("sweep").is_empty());
    let contents = bench.server.contents();
    assert_eq!((contents.uploads.len(), contents.objects.len(), bench.records()), (0, 0, 0));
}

#[test]
fn an_object_that_is_not_what_was_sent_does_not_count_and_goes() {
    for alter in [
        (|reply: &mut Reply| reply.set("etag", "\"00000000000000000000000000000000\"")) as fn(&mut Reply),
        |reply: &mut Reply| reply.set("content-length", "6"),
    ] {
        let lying = bench(move |request| match request.method.as_str() {
            "HEAD" => Fault::Altered(alter),
            _ => Fault::None,
        });
        let error = put(&lying.store, &key("a"), b"content", Commit::Replace).expect_err("a lie");
        assert_eq!(error.code(), Code::RepositoryIo, "{error}");
        assert!(lying.server.contents().objects.is_empty());
    }
}

#[test]
fn an_answer_that_was_lost_is_no_conflict() {
    let bench = bench(first(1, "PUT", || Fault::Deaf));
    put(&bench.store, &key("a"), b"content", Commit::IfAbsent).expect("it was carried out");
    assert_eq!(bench.server.contents().objects["a"].content, b"content");
    let puts = bench.server.asked().iter().filter(|asked| asked.starts_with("PUT")).count();
    assert_eq!(puts, 2, "the repetition was refused as a conflict with itself");
}

#[test]
fn the_last_answer_of_an_upload_that_was_lost_is_no_failure() {
    let mut left = 1;
    let bench = bench(move |request| {
        if is_last(request) && left > 0 {
            left -= 1;
            return Fault::Deaf;
        }
        Fault::None
    });
    put_large(&bench).expect("it was carried out");
    assert_eq!(bench.server.contents().objects["large"].content, large());
    assert_eq!(bench.records(), 0);
}

#[test]
fn another_content_is_never_replaced() {
    for unconditional in [false, true] {
        let bench = bench(|_| Fault::None);
        bench.server.contents().unconditional = unconditional;
        put(&bench.store, &key("a"), b"one", Commit::IfAbsent).expect("put");
        let error = put(&bench.store, &key("a"), b"two", Commit::IfAbsent).expect_err("taken");
        assert_eq!(error.code(), Code::ObjectConflict, "{error}");
        assert_eq!(bench.server.contents().objects["a"].content, b"one");
    }
}

#[test]
fn a_conflict_that_arises_in_between_is_one() {
    let bench = bench(first(1, "PUT", || Fault::Instead(Reply::error(409, "ConditionalRequestConflict"))));
    put(&bench.store, &key("a"), b"one", Commit::IfAbsent).expect("the crossing request went away");
    let late = super::bench(first(9, "PUT", || Fault::Instead(Reply::error(412, "PreconditionFailed"))));
    let error = put(&late.store, &key("a"), b"one", Commit::IfAbsent).expect_err("refused");
    assert_eq!(error.code(), Code::StorageUnreachable, "nothing is there, so it may be tried again: {error}");
}

#[test]
fn an_abandoned_upload_is_ended_and_off_the_record() {
    let bench = bench(|_| Fault::None);
    let mut writer = bench.store.create(&key("large")).expect("create");
    writer.write_all(&large()).expect("write");
    assert_eq!(bench.records(), 1);
    drop(writer);
    assert!(bench.store.sweep().expect("sweep").is_empty());
    let contents = bench.server.contents();
    assert_eq!((contents.uploads.len(), contents.objects.len(), bench.records()), (0, 0, 0));
}

/// A bucket with an upload that its writer began and could not end.
fn left_under_way() -> Bench {
    let bench =
        bench(first(IMPATIENT.transfer_attempts, "DELETE", || Fault::Instead(Reply::error(500, "InternalError"))));
    let mut writer = bench.store.create(&key("large")).expect("create");
    writer.write_all(&large()).expect("write");
    drop(writer);
    bench
}

#[test]
fn an_upload_that_could_not_be_ended_is_swept_later() {
    let bench = left_under_way();
    assert_eq!((bench.server.contents().uploads.len(), bench.records()), (1, 1));
    assert_eq!(bench.store.sweep().expect("sweep"), ["large"]);
    assert_eq!((bench.server.contents().uploads.len(), bench.records()), (0, 1));
    assert!(bench.store.sweep().expect("sweep").is_empty());
    assert_eq!(bench.records(), 0);
}

#[test]
fn a_part_that_arrives_after_the_end_is_ended_by_the_next_sweep() {
    let bench = left_under_way();
    let begun = bench.server.contents().uploads.clone();
    assert_eq!(bench.store.sweep().expect("sweep"), ["large"]);
    // The store takes in what was on its way, and has the upload again.
    bench.server.contents().uploads = begun;
    assert_eq!(bench.store.sweep().expect("sweep"), ["large"]);
    assert!(bench.store.sweep().expect("sweep").is_empty());
    assert_eq!((bench.server.contents().uploads.len(), bench.records()), (0, 0));
}

#[test]
fn living_and_foreign_uploads_are_not_swept() {
    let bench = bench(|_| Fault::None);
    let mut writer = bench.store.create(&key("large")).expect("create");
    writer.write_all(&large()).expect("write");
    bench.server.contents().uploads.insert("foreign".to_owned(), Begun::default());
    assert!(bench.store.sweep().expect("sweep").is_empty());
    assert_eq!(bench.server.contents().uploads.len(), 2);
    writer.commit(Commit::IfAbsent).expect("commit");
    assert_eq!(bench.server.contents().uploads.keys().collect::<Vec<_>>(), ["foreign"]);
}

#[test]
fn an_upload_whose_id_never_came_back_is_found_by_name_and_time() {
    let directory = tempfile::tempdir().expect("tempdir");
    let bench = bench(|_| Fault::None);
    let settings = settings(bench.server.port, directory.path());
    let place = format!("{} {}", settings.endpoint.as_deref().expect("endpoint"), settings.bucket);
    let journal = Journal::new(settings.uploads.clone(), &place);
    let store = S3Store::with(settings, IMPATIENT, keys());
    for (when, ended) in [("2020-01-01T00:00:00Z".to_owned(), 0), (jiff::Timestamp::now().to_string(), 1)] {
        drop(journal.begin("p/a").expect("record"));
        {
            let mut contents = bench.server.contents();
            contents.initiated = when;
            contents.uploads.insert("ours".to_owned(), Begun::of("p/a"));
            contents.uploads.insert("longer".to_owned(), Begun::of("p/ab"));
        }
        assert_eq!(store.sweep().expect("sweep").len(), ended);
        assert_eq!(bench.server.contents().uploads.len(), 2 - ended);
    }
}

#[test]
fn a_writer_that_failed_cannot_be_committed() {
    let bench = bench(|request| match request.method.as_str() {
        "POST" => Fault::Instead(Reply::error(403, "AccessDenied")),
        _ => Fault::None,
    });
    let mut writer = bench.store.create(&key("large")).expect("create");
    let error = writer.write_all(&large()).expect_err("denied");
    assert!(error.to_string().contains("STORAGE_DENIED"), "{error}");
    assert_eq!(writer.commit(Commit::IfAbsent).map_err(|error| error.code()), Err(Code::RepositoryIo));
    assert!(bench.server.contents().objects.is_empty());
}
