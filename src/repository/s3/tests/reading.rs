//! Reading from a server that breaks off.

use super::faulty::{Fault, Reply};
use super::{bench, first, key};
use crate::base::Code;
use crate::repository::small_object::{put, read};
use crate::repository::store::{Commit, Store};
use std::io::Read;

fn content() -> Vec<u8> {
    (0..3_000_000u32).map(|number| (number % 251) as u8).collect()
}

#[test]
fn a_body_cut_short_is_taken_up_where_it_broke_off() {
    let bench = bench(first(3, "GET", || Fault::Altered(|reply| reply.cut = Some(reply.body.len() / 2))));
    put(&bench.store, &key("a"), &content(), Commit::IfAbsent).expect("put");
    assert_eq!(read(&bench.store, &key("a"), u64::MAX).expect("read"), content());
    let contents = bench.server.contents();
    let gets: Vec<_> = contents.requests.iter().filter(|request| request.method == "GET").collect();
    assert_eq!(gets.len(), 4);
    assert!(gets[1..].iter().all(|get| get.headers.contains_key("if-match") && get.headers.contains_key("range")));
}

#[test]
fn a_range_cut_short_is_taken_up_too() {
    let bench = bench(first(2, "GET", || Fault::Altered(|reply| reply.cut = Some(reply.body.len() / 3))));
    put(&bench.store, &key("a"), &content(), Commit::IfAbsent).expect("put");
    let mut bytes = Vec::new();
    bench.store.read(&key("a"), Some(1_000..2_000_000)).expect("open").read_to_end(&mut bytes).expect("read");
    assert_eq!(bytes, content()[1_000..2_000_000]);
}

#[test]
fn a_body_that_never_comes_is_given_up() {
    let bench = bench(|request| match request.method.as_str() {
        "GET" => Fault::Altered(|reply| reply.cut = Some(0)),
        _ => Fault::None,
    });
    put(&bench.store, &key("a"), b"content", Commit::IfAbsent).expect("put");
    let error = read(&bench.store, &key("a"), u64::MAX).expect_err("cut");
    assert_eq!(error.code(), Code::StorageUnreachable, "{error}");
    assert!(error.message().contains("reading a in s3://bucket from byte 0"), "{error}");
}

#[test]
fn two_contents_are_never_mixed() {
    let bench = bench(first(1, "GET", || Fault::Altered(|reply| reply.cut = Some(reply.body.len() / 2))));
    put(&bench.store, &key("a"), &content(), Commit::IfAbsent).expect("put");
    let mut reader = bench.store.read(&key("a"), None).expect("open");
    let mut start = [0; 10];
    reader.read_exact(&mut start).expect("the beginning");
    let mut other = content();
    other.reverse();
    put(&bench.store, &key("a"), &other, Commit::Replace).expect("replace");
    let mut rest = Vec::new();
    let error = reader.read_to_end(&mut rest).expect_err("changed");
    assert!(error.to_string().contains("changed while it was read"), "{error}");
}

#[test]
fn a_server_that_ignores_the_range_is_found_out() {
    let bench = bench(|request| match request.headers.contains_key("range") {
        true => Fault::Instead(Reply::new(200, &[("etag", "\"9a0364b9e99bb480dd25e1f0284c8555\"")], b"content")),
        false => Fault::None,
    });
    put(&bench.store, &key("a"), b"content", Commit::IfAbsent).expect("put");
    let error = bench.store.read(&key("a"), Some(2..4)).err().expect("another range");
    assert_eq!(error.code(), Code::RepositoryIo, "{error}");
}
