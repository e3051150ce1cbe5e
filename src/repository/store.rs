//! The seam between the agent and a place that keeps objects: a directory, a bucket, memory.
//!
//! What every store promises, and the conformance suite checks on each of them:
//! - an object is there whole or not at all, under its key, whatever is killed when;
//! - `commit` returns after the bytes, the name and the directory that holds it are durable;
//! - a key is never given a second content behind anybody's back ([`Commit::IfAbsent`]);
//! - listing is in the order of keys and shows no unfinished object.

use crate::artifact::object_key::ObjectKey;
use crate::base::space::Space;
use crate::base::{Error, Result};
use jiff::Timestamp;
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::ops::Range;
use std::time::Duration;

/// What a store knows of an object without reading it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectInfo {
    /// Its key.
    pub key: ObjectKey,
    /// Stored bytes.
    pub size: u64,
    /// The store's own time of its last change.
    pub modified: Timestamp,
}

/// What becomes of an object that already has the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Commit {
    /// It stays, and the commit fails with `OBJECT_CONFLICT`, also when both would be equal: the caller compares.
    IfAbsent,
    /// It is replaced at once; only for the few small documents that change (`owner.json`, `RECOVER.txt`).
    Replace,
}

/// An object being written. Dropping it without [`ObjectWriter::commit`] abandons it and leaves nothing behind.
pub trait ObjectWriter: Write + Send {
    /// Makes the object durable and visible.
    fn commit(self: Box<Self>, how: Commit) -> Result<ObjectInfo>;
}

/// What is said of an object beside its bytes, for people and programs that look at the store itself: `db_name`,
/// `tool_version`. A store that has no room for such things leaves them out; nothing relies on them.
pub type ObjectFacts = BTreeMap<&'static str, String>;

/// A place that keeps objects.
pub trait Store: Send + Sync {
    /// The place as a person names it: a path or a URL.
    fn location(&self) -> String;

    /// Begins to write an object.
    fn create(&self, key: &ObjectKey) -> Result<Box<dyn ObjectWriter>>;

    /// [`Store::create`] with facts for the object's metadata, where the store has such.
    fn create_with(&self, key: &ObjectKey, _facts: &ObjectFacts) -> Result<Box<dyn ObjectWriter>> {
        self.create(key)
    }

    /// Reads an object, or a range of its bytes. `OBJECT_NOT_FOUND` if it is not there.
    fn read(&self, key: &ObjectKey, range: Option<Range<u64>>) -> Result<Box<dyn Read + Send>>;

    /// What is known of an object; `None` if it is not there.
    fn stat(&self, key: &ObjectKey) -> Result<Option<ObjectInfo>>;

    /// Shows every object whose key begins with `prefix`, in the order of keys.
    fn list(&self, prefix: &str, visit: &mut dyn FnMut(ObjectInfo) -> Result<()>) -> Result<()>;

    /// Removes an object durably; `false` if it was not there.
    fn delete(&self, key: &ObjectKey) -> Result<bool>;

    /// An address from which anybody can fetch an object until `lifetime` has passed; `None` where there are none. Nothing is
    /// asked of the store: whether the object is there, and may be read, shows when it is fetched.
    fn presign(&self, _key: &ObjectKey, _lifetime: Duration) -> Result<Option<String>> {
        Ok(None)
    }

    /// Tries one by one what backups and restores must be allowed to do here, and leaves nothing behind: a refusal for each right
    /// that lacks, which its hint names. Empty where there are no such rights. Deleting is not tried.
    fn missing_rights(&self) -> Vec<Error> {
        Vec::new()
    }

    /// The filesystem's space; `None` where there is no such limit.
    fn space(&self) -> Result<Option<Space>>;

    /// Removes what writers of this host that no longer live have left unfinished; returns their names.
    fn sweep(&self) -> Result<Vec<String>>;
}
