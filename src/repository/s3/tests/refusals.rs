//! Answers that say no, and no answers.

use super::faulty::{Fault, Reply, Request};
use super::{Bench, IMPATIENT, bench, bench_with, first, key, keys, settings};
use crate::base::Code;
use crate::repository::s3::client::Patience;
use crate::repository::s3::{Encryption, S3Store};
use crate::repository::small_object::{put, read};
use crate::repository::store::{Commit, Store};
use openssl::asn1::Asn1Time;
use openssl::hash::MessageDigest;
use openssl::pkey::PKey;
use openssl::rsa::Rsa;
use openssl::ssl::{SslAcceptor, SslMethod};
use openssl::x509::{X509, X509NameBuilder};
use std::net::TcpListener;
use std::time::Duration;

#[test]
fn overload_is_waited_out() {
    let mut number = 0;
    let bench = bench(move |_| {
        number += 1;
        match number % 3 {
            0 => Fault::Instead(Reply::error(503, "SlowDown")),
            1 => Fault::Instead(Reply::error(500, "InternalError")),
            _ => Fault::None,
        }
    });
    put(&bench.store, &key("a"), b"content", Commit::IfAbsent).expect("put");
    assert_eq!(read(&bench.store, &key("a"), 100).expect("read"), b"content");
}

#[test]
fn overload_without_end_is_temporary() {
    let bench = bench(|_| Fault::Instead(Reply::error(503, "SlowDown")));
    let error = read(&bench.store, &key("a"), 100).expect_err("overloaded");
    assert_eq!((error.code(), error.code().exit()), (Code::StorageUnreachable, 75), "{error}");
    assert_eq!(bench.server.asked().len(), IMPATIENT.attempts as usize, "tried again, and not for ever");
}

#[test]
fn a_missing_right_is_named() {
    let bench = bench(|request| match request.method.as_str() {
        "PUT" => Fault::Instead(Reply::error(403, "AccessDenied")),
        _ => Fault::None,
    });
    let error = put(&bench.store, &key("a/b"), b"x", Commit::IfAbsent).expect_err("denied");
    assert_eq!((error.code(), error.code().exit()), (Code::StorageDenied, 15), "{error}");
    assert!(error.hint().contains("s3:PutObject on a/b in s3://bucket"), "{}", error.hint());
    assert!(!format!("{error:?}").contains("secret"), "{error:?}");
}

#[test]
fn a_refusal_without_words_is_asked_for_its_reason() {
    let bench = bench(|_| Fault::Instead(Reply::error(403, "InvalidAccessKeyId")));
    let error = bench.store.stat(&key("a")).expect_err("refused");
    assert_eq!(error.code(), Code::StorageCredentials, "{error}");
    assert!(bench.server.asked().contains(&"GET a".to_owned()));
}

#[test]
fn a_bucket_that_is_not_there_is_no_missing_object() {
    let bench = bench(|_| Fault::Instead(Reply::error(404, "NoSuchBucket")));
    let error = read(&bench.store, &key("repository.json"), 100).expect_err("no bucket");
    assert_eq!(error.code(), Code::RepositoryNotFound, "{error}");
    assert!(error.hint().contains("bucket must exist"), "{}", error.hint());
}

fn nobody(endpoint: String, patience: Patience) -> crate::base::Error {
    let directory = tempfile::tempdir().expect("tempdir");
    let settings = crate::repository::s3::S3StoreSettings { endpoint: Some(endpoint), ..settings(1, directory.path()) };
    S3Store::with(settings, patience, keys()).stat(&key("a")).expect_err("nobody there")
}

#[test]
fn silence_and_closed_ports_are_temporary() {
    let closed = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("port").port();
    let error = nobody(format!("http://127.0.0.1:{closed}"), IMPATIENT);
    assert_eq!(error.code(), Code::StorageUnreachable, "{error}");
    let Bench { server, .. } = bench(|_| Fault::Silent);
    let hasty = Patience { first_byte: Duration::from_millis(20), attempt: Duration::from_millis(100), ..IMPATIENT };
    let error = nobody(format!("http://127.0.0.1:{}", server.port), hasty);
    assert_eq!(error.code(), Code::StorageUnreachable, "{error}");
    assert_eq!(server.asked().len(), IMPATIENT.attempts as usize);
}

#[test]
fn without_tls_nothing_is_sent_unless_that_was_allowed() {
    let bench = bench_with(|settings| settings.allow_http = false, |_| Fault::None);
    let error = bench.store.stat(&key("a")).expect_err("plain");
    assert_eq!(error.code(), Code::ConfigInvalid, "{error}");
    assert!(error.hint().contains("allow_http"), "{}", error.hint());
    assert!(bench.server.asked().is_empty(), "nothing was sent");
}

#[test]
fn a_certificate_that_nobody_vouches_for_is_refused() {
    let key = PKey::from_rsa(Rsa::generate(2048).expect("key")).expect("key");
    let mut name = X509NameBuilder::new().expect("name");
    name.append_entry_by_text("CN", "127.0.0.1").expect("name");
    let name = name.build();
    let mut certificate = X509::builder().expect("certificate");
    certificate.set_version(2).expect("version");
    certificate.set_subject_name(&name).expect("subject");
    certificate.set_issuer_name(&name).expect("issuer");
    certificate.set_pubkey(&key).expect("key");
    certificate.set_not_before(&Asn1Time::days_from_now(0).expect("time")).expect("time");
    certificate.set_not_after(&Asn1Time::days_from_now(1).expect("time")).expect("time");
    certificate.sign(&key, MessageDigest::sha256()).expect("signature");
    let mut acceptor = SslAcceptor::mozilla_intermediate(SslMethod::tls()).expect("acceptor");
    acceptor.set_private_key(&key).expect("key");
    acceptor.set_certificate(&certificate.build()).expect("certificate");
    let acceptor = acceptor.build();
    let listener = TcpListener::bind("127.0.0.1:0").expect("listening");
    let port = listener.local_addr().expect("address").port();
    std::thread::spawn(move || listener.incoming().flatten().for_each(|stream| drop(acceptor.accept(stream))));
    let error = nobody(format!("https://127.0.0.1:{port}"), IMPATIENT);
    assert_eq!(error.code(), Code::StorageUnreachable, "{error}");
    assert!(error.hint().contains("certificate"), "{error:?}");
}

#[test]
fn a_store_that_ignores_sse_is_found_out() {
    let bench = bench_with(|settings| settings.encryption = Encryption::S3, |_| Fault::None);
    let error = put(&bench.store, &key("a"), b"x", Commit::IfAbsent).expect_err("not encrypted");
    assert_eq!(error.code(), Code::ConfigInvalid, "{error}");
    assert!(bench.server.contents().objects.is_empty(), "what is not as asked is taken away");
}

#[test]
fn what_only_looks_survives_lost_connections() {
    let bench = bench(first(2, "HEAD", || Fault::Lost));
    assert_eq!(bench.store.stat(&key("a")).expect("stat"), None);
}

// req: A6
#[test]
fn each_right_that_lacks_is_named_and_the_tries_leave_nothing() {
    type Is = fn(&Request) -> bool;
    let tried: [(&str, Is); 5] = [
        ("s3:ListBucket", |request| request.method == "GET" && request.query.contains("list-type=2")),
        ("s3:GetObject", |request| request.method == "GET" && request.key == "repository.json"),
        ("s3:PutObject", |request| request.method == "POST" && request.query.contains("uploads")),
        ("s3:AbortMultipartUpload", |request| request.method == "DELETE"),
        ("s3:ListBucketMultipartUploads", |request| request.method == "GET" && request.query.contains("uploads")),
    ];
    for denied in 0..=tried.len() {
        let is_denied = move |request: &Request| tried.get(denied).is_some_and(|(_, is)| is(request));
        let bench = bench(move |request| match is_denied(request) {
            true => Fault::Instead(Reply::error(403, "AccessDenied")),
            false => Fault::None,
        });
        let missing = bench.store.missing_rights();
        let named = |right: &str| missing.iter().any(|error| error.hint().contains(&format!("right {right} ")));
        for (number, (right, _)) in tried.iter().enumerate() {
            assert_eq!(named(right), number == denied, "{right}: {missing:?}");
        }
        // The record of what was refused goes with the sweeps: a try before that one may have been carried out.
        for _ in 0..2 {
            assert!(bench.store.sweep().expect("sweep").is_empty());
        }
        let contents = bench.server.contents();
        assert_eq!((contents.uploads.len(), contents.objects.len(), bench.records()), (0, 0, 0));
    }
}

#[test]
fn a_store_that_is_away_tells_nothing_of_rights() {
    let bench = bench(|_| Fault::Instead(Reply::error(503, "SlowDown")));
    assert!(bench.store.missing_rights().is_empty());
}
