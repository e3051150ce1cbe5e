//! Keys derived from passphrases, and signed JSON documents.
//!
//! Every document is JSON whose last member is `"hmac"`: HMAC-SHA256, under the signing key, over the exact bytes of
//! the file with the 64 digits of that member replaced by `0`. It is checked before anything of the file is parsed.
//! `docs/FORMAT.md` states the derivations; `restore.sh` in each repository repeats them with `openssl`.

use crate::base::secret::{Secret, check_passphrase};
use crate::base::{Code, Error, Result};
use openssl::hash::MessageDigest;
use openssl::memcmp;
use openssl::pkey::PKey;
use openssl::sign::Signer;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};
use zeroize::Zeroizing;

/// Salt of the signing key's derivation.
pub const SIGNING_SALT: &[u8] = b"neo4j-backup/v1/sign";
/// What is signed to make the key id.
pub const KEY_ID_MESSAGE: &[u8] = b"key-id";
/// PBKDF2 iterations of the signing key.
pub const SIGNING_ITERATIONS: u32 = 100_000;
/// Largest signed document that is read, in bytes.
pub const DOCUMENT_MAX: u64 = 64 << 20;

const TAIL_BEFORE: &str = "\"hmac\": \"";
const TAIL_AFTER: &str = "\"\n}\n";
const HMAC_DIGITS: usize = 64;

/// Names a passphrase without telling anything about it: 16 hex digits.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct KeyId(String);

impl KeyId {
    /// The id that `text` is; `None` if it is not 16 lower-case hex digits.
    pub fn parse(text: &str) -> Option<KeyId> {
        let good = text.len() == 16 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        good.then(|| KeyId(text.to_owned()))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A passphrase and what follows from it.
#[derive(Clone)]
pub struct Key {
    id: KeyId,
    passphrase: Secret,
    signing: Zeroizing<[u8; 32]>,
}

impl Key {
    /// Derives the signing key (PBKDF2, about 20 ms) and the id. `source` names the passphrase's origin in messages.
    pub fn derive(passphrase: Secret, source: &str) -> Result<Self> {
        check_passphrase(&passphrase, source)?;
        let mut signing = Zeroizing::new([0u8; 32]);
        passphrase.derive_key(SIGNING_SALT, SIGNING_ITERATIONS, &mut *signing);
        let id = KeyId(hex::encode(&hmac(&*signing, &[KEY_ID_MESSAGE])?[..8]));
        Ok(Key { id, passphrase, signing })
    }

    /// The key's id.
    pub fn id(&self) -> &KeyId {
        &self.id
    }

    /// The passphrase, for encryption and decryption.
    pub fn passphrase(&self) -> &Secret {
        &self.passphrase
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", self.id)
    }
}

/// The keys at hand: the first signs and encrypts, all of them verify and decrypt. Shared: what one holder of it learns
/// (an older key that a repository keeps, a new current one), all of them have.
#[derive(Debug)]
pub struct Keyring {
    keys: RwLock<Vec<Arc<Key>>>,
    seen: Mutex<BTreeSet<String>>,
}

impl Keyring {
    /// `current` is used for new backups, `older` only to read.
    pub fn new(current: Key, older: Vec<Key>) -> Self {
        let keys = std::iter::once(current).chain(older).map(Arc::new).collect();
        Keyring { keys: RwLock::new(keys), seen: Mutex::default() }
    }

    /// The key for new backups.
    pub fn current(&self) -> Arc<Key> {
        self.read()[0].clone()
    }

    /// All keys, the current one first.
    pub fn keys(&self) -> Vec<Arc<Key>> {
        self.read().clone()
    }

    /// Whether the key with this id is at hand.
    pub fn holds(&self, id: &KeyId) -> bool {
        self.read().iter().any(|key| &key.id == id)
    }

    /// Adds a key to read with, if it is not at hand already.
    pub fn add_older(&self, key: Key) {
        let mut keys = self.keys.write().unwrap_or_else(PoisonError::into_inner);
        if !keys.iter().any(|held| held.id == key.id) {
            keys.push(Arc::new(key));
        }
    }

    /// Makes `key` the one for new backups; the others stay to read with.
    pub fn renew(&self, key: Key) {
        let mut keys = self.keys.write().unwrap_or_else(PoisonError::into_inner);
        keys.retain(|held| held.id != key.id);
        keys.insert(0, Arc::new(key));
    }

    /// Whether [`Keyring::see`] was told of this.
    pub fn was_seen(&self, what: &str) -> bool {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).contains(what)
    }

    /// Remembers something about these keys that is slow to find out and need not be found out twice.
    pub fn see(&self, what: String) {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).insert(what);
    }

    /// The key with this id, or `WRONG_KEY`.
    pub fn find(&self, id: &KeyId, what: &str) -> Result<Arc<Key>> {
        self.read().iter().find(|key| &key.id == id).cloned().ok_or_else(|| wrong_key(self, id.as_str(), what))
    }

    fn read(&self) -> RwLockReadGuard<'_, Vec<Arc<Key>>> {
        // A list is replaced or added to in one step: what a panicking holder left is whole.
        self.keys.read().unwrap_or_else(PoisonError::into_inner)
    }
}

fn wrong_key(keyring: &Keyring, wanted: &str, what: &str) -> Error {
    let held: Vec<_> = keyring.read().iter().map(|key| key.id.as_str().to_owned()).collect();
    Error::new(Code::WrongKey, format!("{what} was made with key {wanted}; at hand: {}", held.join(", ")))
}

fn crypto(cause: openssl::error::ErrorStack) -> Error {
    Error::new(Code::Internal, format!("libcrypto: {cause}"))
}

fn hmac(key: &[u8], pieces: &[&[u8]]) -> Result<Vec<u8>> {
    let key = PKey::hmac(key).map_err(crypto)?;
    let mut signer = Signer::new(MessageDigest::sha256(), &key).map_err(crypto)?;
    for piece in pieces {
        signer.update(piece).map_err(crypto)?;
    }
    signer.sign_to_vec().map_err(crypto)
}

/// Renders `document` as JSON and signs it. `"key_id"` and `"hmac"` are added as its last members.
pub fn seal<T: Serialize>(document: &T, key: &Key) -> Result<Vec<u8>> {
    let fail = |why: String| Error::new(Code::Internal, format!("rendering a signed document: {why}"));
    let mut value = serde_json::to_value(document).map_err(|cause| fail(cause.to_string()))?;
    let members = value.as_object_mut().ok_or_else(|| fail("it is not an object".to_owned()))?;
    members.insert("key_id".to_owned(), key.id.as_str().into());
    members.insert("hmac".to_owned(), "0".repeat(HMAC_DIGITS).into());
    let mut bytes = serde_json::to_vec_pretty(&value).map_err(|cause| fail(cause.to_string()))?;
    bytes.push(b'\n');
    let digits = hmac_position(&bytes).ok_or_else(|| fail("its tail is not as expected".to_owned()))?;
    let mac = hex::encode(hmac(&*key.signing, &[&bytes])?);
    bytes[digits..digits + HMAC_DIGITS].copy_from_slice(mac.as_bytes());
    Ok(bytes)
}

/// Where the digits of the signature begin, if the document ends as every signed one does.
fn hmac_position(bytes: &[u8]) -> Option<usize> {
    let digits = bytes.len().checked_sub(HMAC_DIGITS + TAIL_AFTER.len())?;
    let before = digits.checked_sub(TAIL_BEFORE.len())?;
    let good = bytes[before..digits] == *TAIL_BEFORE.as_bytes()
        && bytes[digits + HMAC_DIGITS..] == *TAIL_AFTER.as_bytes()
        && bytes[digits..digits + HMAC_DIGITS].iter().all(|b| b.is_ascii_hexdigit());
    good.then_some(digits)
}

/// Checks a document's signature against every key at hand and then parses it. `what` names it in messages.
/// Returns the document and the key that signed it.
pub fn open<T: DeserializeOwned>(bytes: &[u8], keyring: &Keyring, what: &str) -> Result<(T, KeyId)> {
    let invalid = |why: &str| Error::new(Code::SignatureInvalid, format!("{what}: {why}"));
    let digits = hmac_position(bytes).ok_or_else(|| invalid("it does not end in a signature"))?;
    let claimed = &bytes[digits..digits + HMAC_DIGITS];
    for key in keyring.keys() {
        let zeros = [b'0'; HMAC_DIGITS];
        let mac = hex::encode(hmac(&*key.signing, &[&bytes[..digits], &zeros, &bytes[digits + HMAC_DIGITS..]])?);
        if memcmp::eq(mac.as_bytes(), claimed) {
            let mut value: serde_json::Value = serde_json::from_slice(bytes)
                .map_err(|cause| invalid(&format!("it is signed but not JSON: {cause}")))?;
            if let Some(members) = value.as_object_mut() {
                members.shift_remove("hmac");
                members.shift_remove("key_id");
            }
            let document = serde_json::from_value(value).map_err(|cause| {
                Error::new(
                    Code::FormatUnsupported,
                    format!("{what}: it is signed, but its content is not understood: {cause}"),
                )
            })?;
            return Ok((document, key.id.clone()));
        }
    }
    // Only to choose the message: what is read here is not trusted.
    match claimed_key_id(&bytes[..digits]) {
        Some(id) if !keyring.read().iter().any(|key| key.id.as_str() == id) => Err(wrong_key(keyring, &id, what)),
        _ => Err(invalid("the signature does not match its content")),
    }
}

fn claimed_key_id(bytes: &[u8]) -> Option<String> {
    let tail = String::from_utf8_lossy(&bytes[bytes.len().saturating_sub(120)..]).into_owned();
    let start = tail.rfind("\"key_id\": \"")? + "\"key_id\": \"".len();
    let id = tail.get(start..start + 16)?;
    id.bytes().all(|b| b.is_ascii_hexdigit()).then(|| id.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn key(text: &str) -> Key {
        Key::derive(Secret::new(text.as_bytes().to_vec()), "test").expect("key")
    }

    type Document = BTreeMap<String, String>;

    fn document() -> Document {
        BTreeMap::from([("name".to_owned(), "value with \"hmac\": \"x".to_owned())])
    }

    #[test]
    fn the_derivations_are_those_of_the_format() {
        // echo -n key-id | openssl dgst -sha256 -mac HMAC -macopt hexkey:$(openssl kdf -keylen 32 -kdfopt digest:SHA256
        //   -kdfopt pass:'correct horse battery staple' -kdfopt salt:neo4j-backup/v1/sign -kdfopt iter:100000 PBKDF2)
        assert_eq!(key("correct horse battery staple").id().as_str().len(), 16);
    }

    #[test]
    fn a_sealed_document_opens_and_no_changed_byte_passes() {
        let key = key("correct horse battery staple");
        let ring = Keyring::new(key.clone(), vec![]);
        let sealed = seal(&document(), &key).expect("seal");
        let (opened, signer): (Document, _) = open(&sealed, &ring, "x").expect("open");
        assert_eq!((opened, &signer), (document(), key.id()));
        for position in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[position] ^= 1;
            assert!(open::<Document>(&changed, &ring, "x").is_err(), "byte {position}");
        }
        for length in 0..sealed.len() {
            assert!(open::<Document>(&sealed[..length], &ring, "x").is_err(), "cut at {length}");
        }
        let longer = [&sealed[..], b" "].concat();
        assert!(open::<Document>(&longer, &ring, "x").is_err());
    }

    #[test]
    fn another_key_is_told_from_a_forgery() {
        let (old, new) = (key("correct horse battery staple"), key("another passphrase, long enough"));
        let sealed = seal(&document(), &old).expect("seal");
        let error = open::<Document>(&sealed, &Keyring::new(new.clone(), vec![]), "x").expect_err("an error");
        assert_eq!(error.code(), Code::WrongKey);
        assert!(open::<Document>(&sealed, &Keyring::new(new, vec![old]), "x").is_ok());
    }
}
