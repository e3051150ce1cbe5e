//! What the tests of this module share: keys that are derived once, bytes that compress, and records of sealed bytes.

use super::{Compression, Protection, ReadPolicy, SealSpec, Sealed, seal, unseal};
use crate::artifact::manifest::{Content, ObjectRecord, Role};
use crate::artifact::object_key::ObjectKey;
use crate::artifact::signing::{Key, Keyring};
use crate::base::Result;
use crate::base::secret::Secret;
use crate::base::task::Task;
use std::sync::LazyLock;

/// The passphrase of [`key`].
pub(super) const PASSPHRASE: &[u8] = b"correct horse battery staple";
/// Few iterations, so that hundreds of objects are sealed in a moment.
pub(super) const FEW: u32 = 10;
/// Accepts them.
pub(super) const POLICY: ReadPolicy = ReadPolicy { minimum_iterations: FEW, allow_plain: true };

static KEYS: LazyLock<[Key; 2]> = LazyLock::new(|| {
    [PASSPHRASE, b"another passphrase, long enough"]
        .map(|text| Key::derive(Secret::new(text.to_vec()), "test").expect("key"))
});

pub(super) fn key() -> Key {
    KEYS[0].clone()
}

pub(super) fn other_key() -> Key {
    KEYS[1].clone()
}

pub(super) fn keyring() -> Keyring {
    Keyring::new(key(), vec![])
}

pub(super) const COMPRESSIONS: [Compression; 4] = [
    Compression::None,
    Compression::Gzip(1),
    Compression::Zstd { level: 1, workers: 0 },
    Compression::Zstd { level: 3, workers: 2 },
];

pub(super) fn spec(compression: Compression) -> SealSpec {
    SealSpec { compression, protection: Protection::Encrypted { key: key(), iterations: FEW }, hash_plain: true }
}

/// Bytes that look random and are the same in each run; every fourth KiB is zero, so that they compress a little.
pub(super) fn bytes(size: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut bytes = Vec::with_capacity(size + 8);
    while bytes.len() < size {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let word = if (bytes.len() >> 10) % 4 == 3 { 0 } else { state };
        bytes.extend_from_slice(&word.to_le_bytes());
    }
    bytes.truncate(size);
    bytes
}

pub(super) fn record(sealed: Sealed) -> ObjectRecord {
    ObjectRecord {
        key: ObjectKey::new("environment=test/graph.base.tar.zst.enc").expect("key"),
        role: Role::Data,
        name: "base".to_owned(),
        lane: 0,
        content: Content::Opaque,
        stored: sealed.stored,
        plain: sealed.plain,
        filters: sealed.filters,
        encryption: sealed.encryption,
    }
}

/// Seals bytes at hand.
pub(super) fn sealed(plain: &[u8], spec: &SealSpec) -> (ObjectRecord, Vec<u8>) {
    let mut stored = Vec::new();
    let sealed = seal(&mut &plain[..], &mut stored, spec, &Task::unobserved()).expect("seal");
    (record(sealed), stored)
}

/// Opens bytes at hand; what came out stands beside the result.
pub(super) fn opened(record: &ObjectRecord, stored: &[u8]) -> (Result<()>, Vec<u8>) {
    let mut plain = Vec::new();
    let result = unseal(record, &keyring(), &POLICY, &mut &stored[..], &mut plain, &Task::unobserved());
    (result, plain)
}
