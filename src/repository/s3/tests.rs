//! The store against a server that fails in every way that a test can think of.

mod faulty;
mod reading;
mod refusals;
mod writing;

use super::client::Patience;
use super::{Checksums, Encryption, S3Store, S3StoreSettings};
use crate::artifact::object_key::ObjectKey;
use faulty::{Fault, Faulty, Request};
use std::time::Duration;

/// Nothing waits for long, and whatever may be tried again is tried again often.
const IMPATIENT: Patience = Patience {
    connect: Duration::from_secs(5),
    first_byte: Duration::from_secs(20),
    attempt: Duration::from_secs(30),
    operation: Duration::from_secs(60),
    transfer_attempt: Duration::from_secs(30),
    transfer_operation: Duration::from_secs(60),
    stall: Duration::from_secs(20),
    attempts: 3,
    transfer_attempts: 6,
    first_pause: Duration::from_millis(1),
    longest_pause: Duration::from_millis(2),
    latecomers: Duration::ZERO,
};

/// A store on a faulty server, and the directory of its records.
struct Bench {
    server: Faulty,
    store: S3Store,
    directory: tempfile::TempDir,
}

fn key(text: &str) -> ObjectKey {
    ObjectKey::new(text).expect("key")
}

fn settings(port: u16, uploads: &std::path::Path) -> S3StoreSettings {
    S3StoreSettings {
        bucket: "bucket".to_owned(),
        prefix: String::new(),
        region: Some("eu-central-1".to_owned()),
        endpoint: Some(format!("http://127.0.0.1:{port}")),
        path_style: true,
        allow_http: true,
        encryption: Encryption::None,
        checksums: Checksums::WhenRequired,
        uploads: uploads.join("uploads"),
        hostname: "db1".to_owned(),
    }
}

fn keys() -> Option<(String, String)> {
    Some(("id".to_owned(), "secret".to_owned()))
}

/// A store whose server asks `spoil` about every request.
fn bench(spoil: impl FnMut(&Request) -> Fault + Send + 'static) -> Bench {
    bench_with(|_| {}, spoil)
}

fn bench_with(
    change: impl FnOnce(&mut S3StoreSettings),
    spoil: impl FnMut(&Request) -> Fault + Send + 'static,
) -> Bench {
    let directory = tempfile::tempdir().expect("tempdir");
    let server = Faulty::start(spoil);
    let mut settings = settings(server.port, directory.path());
    change(&mut settings);
    Bench { store: S3Store::with(settings, IMPATIENT, keys()), server, directory }
}

/// Spoils the first `times` requests whose method is `method`.
fn first(times: u32, method: &'static str, fault: fn() -> Fault) -> impl FnMut(&Request) -> Fault + Send {
    let mut left = times;
    move |request| {
        if request.method != method || left == 0 {
            return Fault::None;
        }
        left -= 1;
        fault()
    }
}

impl Bench {
    /// Records of uploads that are still there.
    fn records(&self) -> usize {
        std::fs::read_dir(self.directory.path().join("uploads")).into_iter().flatten().count()
    }
}
