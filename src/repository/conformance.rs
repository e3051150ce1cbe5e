//! What every store promises, as one suite. A new store runs it in its own tests and is done when it passes.
//!
//! It panics at the first promise that is broken, naming it.

use super::small_object::{put, read};
use super::store::{Commit, ObjectInfo, Store};
use crate::artifact::digest::{PART_SIZE, sha256_hex};
use crate::artifact::object_key::ObjectKey;
use crate::base::{Code, Result};
use std::io::{Read, Write};
use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Runs every check, each on an empty store of its own from `make`.
pub fn conformance(make: &dyn Fn() -> Box<dyn Store>) {
    for check in [
        what_is_put_is_there,
        an_empty_object_is_an_object,
        a_large_object_is_whole,
        ranges_are_exact_and_bounded,
        what_is_absent_is_told,
        nothing_is_visible_before_its_commit,
        an_abandoned_writer_leaves_nothing,
        a_second_content_is_refused,
        replacing_is_whole,
        lists_are_in_the_order_of_keys,
        lists_honour_the_prefix,
        a_list_ends_when_its_visitor_fails,
        deletion_is_idempotent,
        a_key_can_be_used_again_after_its_deletion,
        one_of_many_writers_wins,
        writing_and_deleting_side_by_side_loses_nothing,
        sweeping_spares_living_writers,
    ] {
        check(&*make());
    }
}

fn key(text: &str) -> ObjectKey {
    ObjectKey::new(text).expect("a well-formed key")
}

fn code<T>(result: Result<T>) -> Option<Code> {
    result.err().map(|error| error.code())
}

fn all(store: &dyn Store, prefix: &str) -> Vec<ObjectInfo> {
    let mut found = Vec::new();
    store
        .list(prefix, &mut |object| {
            found.push(object);
            Ok(())
        })
        .expect("listing");
    found
}

fn names(store: &dyn Store, prefix: &str) -> Vec<String> {
    all(store, prefix).into_iter().map(|object| object.key.to_string()).collect()
}

fn content(store: &dyn Store, name: &str) -> Vec<u8> {
    read(store, &key(name), u64::MAX).expect("reading back")
}

fn what_is_put_is_there(store: &dyn Store) {
    let name = key("environment=prod/year=2026/month=11/day=20/graph-20261120T020000Z.dump.enc");
    let info = put(store, &name, b"content", Commit::IfAbsent).expect("putting");
    assert_eq!((&info.key, info.size), (&name, 7), "a commit tells what was committed");
    assert_eq!(store.stat(&name).expect("stat"), Some(info.clone()), "stat agrees with the commit");
    assert_eq!(all(store, ""), [info], "list agrees with the commit");
    assert_eq!(content(store, name.as_str()), b"content");
    assert!(!store.location().is_empty(), "a store can be named");
}

fn an_empty_object_is_an_object(store: &dyn Store) {
    put(store, &key("a/empty"), b"", Commit::IfAbsent).expect("putting");
    assert_eq!(store.stat(&key("a/empty")).expect("stat").map(|object| object.size), Some(0));
    assert_eq!(content(store, "a/empty"), b"");
    let mut nothing = Vec::new();
    store.read(&key("a/empty"), Some(0..0)).expect("an empty range").read_to_end(&mut nothing).expect("reading");
    assert!(nothing.is_empty());
}

fn a_large_object_is_whole(store: &dyn Store) {
    let piece: Vec<u8> = (0..1u32 << 18).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    let pieces = PART_SIZE as usize / piece.len() + 1;
    let name = key("large");
    let mut writer = store.create(&name).expect("beginning");
    for _ in 0..pieces {
        writer.write_all(&piece).expect("writing");
    }
    writer.write_all(b"tail").expect("writing");
    let info = writer.commit(Commit::IfAbsent).expect("committing");
    assert!(info.size > PART_SIZE && info.size == (piece.len() * pieces + 4) as u64);
    let expected = [piece.repeat(pieces), b"tail".to_vec()].concat();
    assert_eq!(sha256_hex(&content(store, "large")), sha256_hex(&expected), "the content is unchanged");
    let (start, end) = (PART_SIZE - 3, PART_SIZE + 5);
    let mut across = Vec::new();
    store.read(&name, Some(start..end)).expect("a range").read_to_end(&mut across).expect("reading");
    assert_eq!(across, expected[start as usize..end as usize], "a range across parts");
}

fn ranges_are_exact_and_bounded(store: &dyn Store) {
    let name = key("a/b");
    put(store, &name, b"0123456789", Commit::IfAbsent).expect("putting");
    for (range, expected) in [(0..10, &b"0123456789"[..]), (3..5, b"34"), (9..10, b"9"), (10..10, b"")] {
        let mut bytes = Vec::new();
        store.read(&name, Some(range.clone())).expect("a range").read_to_end(&mut bytes).expect("reading");
        assert_eq!(bytes, expected, "{range:?}");
    }
    #[allow(clippy::reversed_empty_ranges)]
    for range in [0..11, 10..11, 11..11, 5..3] {
        assert_eq!(code(store.read(&name, Some(range.clone()))), Some(Code::BackupCorrupted), "{range:?}");
    }
}

fn what_is_absent_is_told(store: &dyn Store) {
    put(store, &key("a/b"), b"x", Commit::IfAbsent).expect("putting");
    for name in ["a/c", "b", "a/b.meta.json", "c/d/e"] {
        assert_eq!(code(store.read(&key(name), None)), Some(Code::ObjectNotFound), "{name}");
        assert_eq!(store.stat(&key(name)).expect("stat"), None, "{name}");
        assert!(!store.delete(&key(name)).expect("delete"), "{name}");
    }
    assert!(names(store, "nothing/").is_empty());
}

fn nothing_is_visible_before_its_commit(store: &dyn Store) {
    let name = key("a/b");
    let mut writer = store.create(&name).expect("beginning");
    writer.write_all(b"half").expect("writing");
    writer.flush().expect("flushing");
    assert_eq!(store.stat(&name).expect("stat"), None, "an unfinished object has no size");
    assert!(names(store, "").is_empty(), "an unfinished object is not listed");
    assert_eq!(code(store.read(&name, None)), Some(Code::ObjectNotFound), "an unfinished object cannot be read");
    writer.write_all(b" and half").expect("writing");
    writer.commit(Commit::IfAbsent).expect("committing");
    assert_eq!(content(store, "a/b"), b"half and half");
}

fn an_abandoned_writer_leaves_nothing(store: &dyn Store) {
    let mut writer = store.create(&key("a/b")).expect("beginning");
    writer.write_all(b"half").expect("writing");
    drop(writer);
    assert!(names(store, "").is_empty());
    assert!(store.sweep().expect("sweeping").is_empty(), "there is nothing left to sweep");
    put(store, &key("a/b"), b"whole", Commit::IfAbsent).expect("the key is free");
}

fn a_second_content_is_refused(store: &dyn Store) {
    put(store, &key("a"), b"one", Commit::IfAbsent).expect("putting");
    // Equal or not: whether that is a success is for the caller to decide.
    for again in [&b"two"[..], b"one", b""] {
        assert_eq!(code(put(store, &key("a"), again, Commit::IfAbsent)), Some(Code::ObjectConflict));
        assert_eq!(content(store, "a"), b"one");
    }
    assert_eq!(names(store, ""), ["a"], "a refused commit leaves nothing behind");
    assert!(store.sweep().expect("sweeping").is_empty());
}

fn replacing_is_whole(store: &dyn Store) {
    put(store, &key("a/owner.json"), b"a longer first content", Commit::Replace).expect("the first one");
    let old = store.read(&key("a/owner.json"), None).expect("opening");
    put(store, &key("a/owner.json"), b"second", Commit::Replace).expect("the second one");
    assert_eq!(content(store, "a/owner.json"), b"second");
    assert_eq!(names(store, ""), ["a/owner.json"]);
    let mut seen = Vec::new();
    // A reader that was on its way sees one content or fails, never a mixture.
    if { old }.read_to_end(&mut seen).is_ok() {
        assert!(seen == b"a longer first content" || seen == b"second", "a reader saw a mixture");
    }
}

fn lists_are_in_the_order_of_keys(store: &dyn Store) {
    let mut expected = ["a/b", "a.x", "a-b/c", "b", "a/b.c/d", "a/b.c-d", "a/B", "a=b/c", "a0"].map(String::from);
    for name in &expected {
        put(store, &key(name), b"x", Commit::IfAbsent).expect("putting");
    }
    expected.sort_unstable();
    assert_eq!(names(store, ""), expected, "the order is that of the keys' bytes");
}

fn lists_honour_the_prefix(store: &dyn Store) {
    for name in ["environment=prod/a/b", "environment=prod/ab", "environment=prod2/c", "keys/1", "environment=prod/a.c"]
    {
        put(store, &key(name), b"x", Commit::IfAbsent).expect("putting");
    }
    assert_eq!(names(store, "environment=prod/").len(), 3);
    assert_eq!(names(store, "environment=prod").len(), 4);
    assert_eq!(
        names(store, "environment=prod/a"),
        ["environment=prod/a.c", "environment=prod/a/b", "environment=prod/ab"]
    );
    assert_eq!(names(store, "environment=prod/a/"), ["environment=prod/a/b"]);
    assert_eq!(names(store, "environment=prod/ab"), ["environment=prod/ab"], "a whole key is a prefix of itself");
    for nothing in ["environment=prod/ab/", "x", "../", "environment=prod//", "/"] {
        assert!(names(store, nothing).is_empty(), "{nothing}");
    }
}

fn a_list_ends_when_its_visitor_fails(store: &dyn Store) {
    for name in ["a", "b", "c"] {
        put(store, &key(name), b"x", Commit::IfAbsent).expect("putting");
    }
    let mut seen = 0;
    let ended = store.list("", &mut |_| {
        seen += 1;
        if seen == 2 { Err(crate::base::Error::new(Code::Cancelled, "enough")) } else { Ok(()) }
    });
    assert_eq!((code(ended), seen), (Some(Code::Cancelled), 2), "the visitor's error comes back as it is");
}

fn deletion_is_idempotent(store: &dyn Store) {
    for name in ["a/b/c", "a/d"] {
        put(store, &key(name), b"x", Commit::IfAbsent).expect("putting");
    }
    assert!(store.delete(&key("a/b/c")).expect("deleting"));
    assert!(!store.delete(&key("a/b/c")).expect("deleting again"));
    assert!(!store.delete(&key("a")).expect("what is no object is not there"));
    assert_eq!(names(store, ""), ["a/d"], "only what was named goes");
}

fn a_key_can_be_used_again_after_its_deletion(store: &dyn Store) {
    for round in 0..3u8 {
        put(store, &key("a/b/c"), &[round], Commit::IfAbsent).expect("putting");
        assert_eq!(content(store, "a/b/c"), [round]);
        assert!(store.delete(&key("a/b/c")).expect("deleting"));
    }
    assert!(names(store, "").is_empty());
}

fn one_of_many_writers_wins(store: &dyn Store) {
    const WRITERS: usize = 8;
    let (barrier, winners, winner) = (Barrier::new(WRITERS), AtomicUsize::new(0), AtomicUsize::new(usize::MAX));
    std::thread::scope(|scope| {
        for number in 0..WRITERS {
            let (barrier, winners, winner) = (&barrier, &winners, &winner);
            scope.spawn(move || {
                let mut writer = store.create(&key("a/b")).expect("beginning");
                writer.write_all(&[number as u8; 1000]).expect("writing");
                barrier.wait();
                match writer.commit(Commit::IfAbsent) {
                    Ok(_) => {
                        winners.fetch_add(1, Ordering::SeqCst);
                        winner.store(number, Ordering::SeqCst);
                    }
                    Err(error) => assert_eq!(error.code(), Code::ObjectConflict, "{error}"),
                }
            });
        }
    });
    assert_eq!(winners.load(Ordering::SeqCst), 1, "exactly one writer wins");
    assert_eq!(content(store, "a/b"), [winner.load(Ordering::SeqCst) as u8; 1000], "and its content stays");
    assert_eq!(names(store, ""), ["a/b"]);
}

fn writing_and_deleting_side_by_side_loses_nothing(store: &dyn Store) {
    // Deleting the last object of a directory may remove the directory, just when another wants to write into it.
    std::thread::scope(|scope| {
        for number in 0..2 {
            scope.spawn(move || {
                let name = key(&format!("a/b/c/{number}"));
                for _ in 0..50 {
                    put(store, &name, b"x", Commit::IfAbsent).expect("putting");
                    assert!(store.delete(&name).expect("deleting"), "what was committed is there");
                }
            });
        }
    });
    assert!(names(store, "").is_empty());
}

fn sweeping_spares_living_writers(store: &dyn Store) {
    let mut writer = store.create(&key("a/b")).expect("beginning");
    writer.write_all(b"half").expect("writing");
    assert!(store.sweep().expect("sweeping").is_empty(), "a living writer's work is not debris");
    writer.write_all(b" and half").expect("writing");
    writer.commit(Commit::IfAbsent).expect("committing");
    assert_eq!(content(store, "a/b"), b"half and half");
}
