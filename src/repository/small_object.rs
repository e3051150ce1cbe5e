//! Objects that fit into memory, written and read in one call: manifests, owner records, instructions.

use super::fault::StoreError;
use super::store::{Commit, ObjectFacts, ObjectInfo, Store};
use crate::artifact::object_key::ObjectKey;
use crate::base::{Error, Result};
use std::io::{Read, Write};
use std::path::Path;

/// Writes `bytes` under `key`; durable when it returns.
pub fn put(store: &dyn Store, key: &ObjectKey, bytes: &[u8], how: Commit) -> Result<ObjectInfo> {
    put_with(store, key, bytes, how, &ObjectFacts::new())
}

/// [`put`] with facts for the object's metadata.
pub fn put_with(
    store: &dyn Store,
    key: &ObjectKey,
    bytes: &[u8],
    how: Commit,
    facts: &ObjectFacts,
) -> Result<ObjectInfo> {
    let mut writer = store.create_with(key, facts)?;
    writer.write_all(bytes).map_err(|cause| from_io("writing", store, key, cause))?;
    writer.commit(how)
}

/// Reads the whole object, at most `max` bytes. `OBJECT_NOT_FOUND` if it is not there, `BACKUP_CORRUPTED` if it is
/// larger: no document of ours is.
pub fn read(store: &dyn Store, key: &ObjectKey, max: u64) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    store
        .read(key, None)?
        .take(max.saturating_add(1))
        .read_to_end(&mut bytes)
        .map_err(|cause| from_io("reading", store, key, cause))?;
    if bytes.len() as u64 > max {
        return Err(StoreError::TooLarge { key: key.clone(), location: store.location(), max }.into());
    }
    Ok(bytes)
}

/// Takes back an error that a store's reader or writer sent through `std::io`.
pub fn from_io(doing: &str, store: &dyn Store, key: &ObjectKey, cause: std::io::Error) -> Error {
    Error::from_io(doing, &Path::new(&store.location()).join(key.as_str()), cause)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Code;
    use crate::repository::memory::MemoryStore;

    #[test]
    fn a_document_larger_than_allowed_is_not_taken_in() {
        let store = MemoryStore::default();
        let key = ObjectKey::new("a/b").expect("key");
        put(&store, &key, b"12345", Commit::IfAbsent).expect("put");
        assert_eq!(read(&store, &key, 5).expect("read"), b"12345");
        assert_eq!(read(&store, &key, 4).map_err(|e| e.code()), Err(Code::BackupCorrupted));
        assert_eq!(read(&store, &key, u64::MAX).expect("read"), b"12345");
    }
}
