//! Manifests and keys for this layer's tests.

use crate::artifact::digest::StoredDigest;
use crate::artifact::identity::{FORMAT, Owner, OwnerDocument, OwnerRecord};
use crate::artifact::manifest::{
    BackupDocument, Content, EncryptionRecord, Engine, Manifest, ObjectRecord, PlainDigest, Role, ServerRecord,
};
use crate::artifact::object_key;
use crate::artifact::signing::{Key, Keyring};
use crate::artifact::statistics::Statistics;
use crate::base::ids::{BackupId, TargetName};
use crate::base::secret::Secret;
use jiff::Timestamp;
use std::sync::{Arc, OnceLock};

pub(super) const PASSPHRASE: &str = "correct horse battery staple";

pub(super) fn key_of(passphrase: &str) -> Key {
    Key::derive(Secret::new(passphrase.as_bytes().to_vec()), "test").expect("key")
}

pub(super) fn keyring() -> Arc<Keyring> {
    // Deriving takes its time; every test uses the same one.
    static KEYRING: OnceLock<Arc<Keyring>> = OnceLock::new();
    KEYRING.get_or_init(|| Arc::new(Keyring::new(key_of(PASSPHRASE), vec![]))).clone()
}

pub(super) fn time() -> Timestamp {
    "2026-11-20T02:00:00Z".parse().expect("time")
}

pub(super) fn id(text: &str) -> BackupId {
    text.parse().expect("id")
}

pub(super) fn owner(host: &str, machine: &str) -> Owner {
    Owner { host: host.to_owned(), machine_id: machine.to_owned(), data_identity: "store-1".to_owned(), epoch: 1 }
}

pub(super) fn owner_record(target: &str, owner: Owner) -> OwnerRecord {
    OwnerRecord {
        document: OwnerDocument::Owner,
        format: FORMAT,
        environment: "prod".to_owned(),
        target: TargetName::new(target).expect("target"),
        owner,
        state_directory: Some("/state".to_owned()),
        since: time(),
    }
}

/// An object whose stored bytes are `stored` and whose plaintext is `plain`.
pub(super) fn object(
    id: &BackupId,
    extension: &str,
    name: &str,
    content: Content,
    filters: &[&str],
    stored: &[u8],
    plain: &[u8],
) -> ObjectRecord {
    let encrypted = filters.contains(&"aes-256-cbc");
    ObjectRecord {
        key: object_key::backup_object("prod", id, extension).expect("key"),
        role: if name == "config" { Role::Config } else { Role::Data },
        name: name.to_owned(),
        lane: 0,
        content,
        stored: StoredDigest::of(stored),
        plain: PlainDigest {
            size: plain.len() as u64,
            crc32c: format!("{:08x}", crc32c::crc32c(plain)),
            sha256: (content != Content::Tar).then(|| crate::artifact::digest::sha256_hex(plain)),
        },
        filters: filters.iter().map(|&filter| filter.to_owned()).collect(),
        encryption: encrypted.then(|| EncryptionRecord {
            key_id: keyring().current().id().clone(),
            iterations: 100_000,
            salt: "random-per-object".to_owned(),
        }),
    }
}

/// A backup of these objects.
pub(super) fn manifest(id: &BackupId, engine: Engine, objects: Vec<ObjectRecord>) -> Manifest {
    Manifest {
        document: BackupDocument::Backup,
        format: FORMAT,
        id: id.clone(),
        environment: "prod".to_owned(),
        engine,
        // Names are text: nothing in them may mislead the script.
        db_name: "odd \"name\", {\n    \"key\": \"x\"".to_owned(),
        created_at: id.stamp.timestamp(),
        finished_at: id.stamp.timestamp(),
        duration_ms: 1000,
        downtime_ms: 0,
        created_by: "test".to_owned(),
        tool_version: "0".to_owned(),
        hostname: "host".to_owned(),
        owner: owner("host", "machine-1"),
        sequence: 1,
        predecessor: None,
        server: ServerRecord::default(),
        position: None,
        statistics: Statistics::not_checked("a sample"),
        rows_estimate: 0,
        sha256: objects.first().map(|object| object.stored.sha256.clone()).unwrap_or_default(),
        objects,
        warnings: vec![],
        suspect: vec![],
        note: Some("\"objects\": [\\\n  \"id\": \"forged\"".to_owned()),
    }
}
