//! `key list`: the keys at hand, and how many backups each has signed. `key new` makes a passphrase.

use crate::base::secret::Secret;
use crate::base::{Code, Error, Result};
use crate::operation::answer::KeyRecord;
use crate::operation::context::Context;
use crate::operation::records;
use std::collections::BTreeMap;

/// Random bytes in a generated passphrase: 256 bits, as strong as the cipher.
const PASSPHRASE_BYTES: usize = 32;

/// The keys of all targets, the current ones first.
pub fn list(context: &Context) -> Result<Vec<KeyRecord>> {
    let used = records::backups_by_key(context)?;
    let record = |id: &str| KeyRecord {
        id: id.to_owned(),
        current: false,
        at_hand: false,
        backups: used.get(id).copied().unwrap_or(0),
    };
    // A key that signed backups and is not at hand is what the operator must see most.
    let mut keys: BTreeMap<String, KeyRecord> = used.keys().map(|id| (id.clone(), record(id))).collect();
    for target in context.targets.values() {
        let keyring = target.keyring.get()?;
        for repository in &target.repositories {
            // A repository keeps older passphrases; one that cannot be opened is `check`'s to tell.
            let _ = context.repository(target, repository);
        }
        for key in keyring.keys() {
            let entry = keys.entry(key.id().to_string()).or_insert_with(|| record(key.id().as_str()));
            entry.at_hand = true;
            entry.current |= key.id() == keyring.current().id();
        }
    }
    let mut keys: Vec<_> = keys.into_values().collect();
    keys.sort_by_key(|key| (std::cmp::Reverse(key.current), key.at_hand));
    Ok(keys)
}

/// A fresh passphrase: 64 hex digits, so that it can be read aloud, typed, and pasted into any file.
pub fn new_passphrase() -> Result<Secret> {
    let mut random = [0u8; PASSPHRASE_BYTES];
    openssl::rand::rand_bytes(&mut random)
        .map_err(|cause| Error::new(Code::Internal, format!("asking libcrypto for random bytes: {cause}")))?;
    Ok(Secret::new(hex::encode(random).into_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::secret::check_passphrase;

    // req: D8
    #[test]
    fn a_new_passphrase_is_acceptable_and_new() {
        let (one, two) = (new_passphrase().expect("one"), new_passphrase().expect("two"));
        check_passphrase(&one, "test").expect("acceptable");
        assert_ne!(one.expose(), two.expose());
    }
}
