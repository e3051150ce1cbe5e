//! A store that changes nothing: it reads through, remembers what would have been written or deleted, and shows it as
//! if it had been. With nothing behind it, it needs neither credentials nor a network.
//!
//! Of small objects the content is kept, so that what is read back before it counts can be read back; of large ones
//! only the size.

use super::fault::StoreError;
use super::store::{Commit, ObjectInfo, ObjectWriter, Store};
use crate::artifact::object_key::ObjectKey;
use crate::base::clock::{Clock, SystemClock};
use crate::base::space::Space;
use crate::base::{Code, Error, Result};
use jiff::Timestamp;
use std::collections::BTreeMap;
use std::io::{self, Cursor, Read, Write};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

/// Larger objects are remembered by size only, in bytes.
pub const CONTENT_KEPT_MAX: u64 = 1 << 20;

/// What would have been done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Planned {
    /// An object would have been written.
    Write {
        /// Its key.
        key: ObjectKey,
        /// Its size in bytes.
        size: u64,
        /// How it would have been committed.
        how: Commit,
    },
    /// An object would have been deleted.
    Delete {
        /// Its key.
        key: ObjectKey,
    },
}

#[derive(Default)]
struct Plan {
    steps: Vec<Planned>,
    /// What the keys touched so far would hold; `None` = deleted.
    overlay: BTreeMap<ObjectKey, Option<Imagined>>,
}

#[derive(Clone)]
struct Imagined {
    size: u64,
    modified: Timestamp,
    content: Option<Arc<Vec<u8>>>,
}

/// See the module.
pub struct DryRunStore {
    inner: Option<Arc<dyn Store>>,
    plan: Arc<Mutex<Plan>>,
}

fn locked(plan: &Mutex<Plan>) -> MutexGuard<'_, Plan> {
    plan.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

impl DryRunStore {
    /// Reads through to `inner`; with `None`, it begins empty.
    pub fn new(inner: Option<Arc<dyn Store>>) -> Self {
        DryRunStore { inner, plan: Arc::default() }
    }

    /// What would have been done, in order.
    pub fn planned(&self) -> Vec<Planned> {
        locked(&self.plan).steps.clone()
    }
}

struct DryRunWriter {
    inner: Option<Arc<dyn Store>>,
    plan: Arc<Mutex<Plan>>,
    key: ObjectKey,
    size: u64,
    content: Option<Vec<u8>>,
}

impl Write for DryRunWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.size += bytes.len() as u64;
        match &mut self.content {
            Some(content) if self.size <= CONTENT_KEPT_MAX => content.extend_from_slice(bytes),
            _ => self.content = None,
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl ObjectWriter for DryRunWriter {
    fn commit(self: Box<Self>, how: Commit) -> Result<ObjectInfo> {
        let mut plan = locked(&self.plan);
        let taken = match (plan.overlay.get(&self.key), &self.inner) {
            (Some(imagined), _) => imagined.is_some(),
            (None, Some(inner)) => inner.stat(&self.key)?.is_some(),
            (None, None) => false,
        };
        if taken && how == Commit::IfAbsent {
            let location = self.inner.as_ref().map_or_else(nowhere, |inner| inner.location());
            return Err(StoreError::Conflict { key: self.key, location }.into());
        }
        let imagined = Imagined { size: self.size, modified: SystemClock.now(), content: self.content.map(Arc::new) };
        let info = imagined.info(&self.key);
        plan.overlay.insert(self.key.clone(), Some(imagined));
        plan.steps.push(Planned::Write { key: self.key, size: self.size, how });
        Ok(info)
    }
}

impl Imagined {
    fn info(&self, key: &ObjectKey) -> ObjectInfo {
        ObjectInfo { key: key.clone(), size: self.size, modified: self.modified }
    }
}

fn nowhere() -> String {
    "dry-run:".to_owned()
}

impl Store for DryRunStore {
    fn location(&self) -> String {
        self.inner.as_ref().map_or_else(nowhere, |inner| inner.location())
    }

    fn create(&self, key: &ObjectKey) -> Result<Box<dyn ObjectWriter>> {
        Ok(Box::new(DryRunWriter {
            inner: self.inner.clone(),
            plan: self.plan.clone(),
            key: key.clone(),
            size: 0,
            content: Some(Vec::new()),
        }))
    }

    fn read(&self, key: &ObjectKey, range: Option<Range<u64>>) -> Result<Box<dyn Read + Send>> {
        let imagined = locked(&self.plan).overlay.get(key).cloned();
        let absent = || StoreError::NotFound { key: key.clone(), location: self.location() };
        match (imagined, &self.inner) {
            (None, Some(inner)) => inner.read(key, range),
            (None | Some(None), _) => Err(absent().into()),
            (Some(Some(imagined)), _) => {
                let wanted = range.unwrap_or(0..imagined.size);
                if wanted.start > wanted.end || wanted.end > imagined.size {
                    let (location, size) = (self.location(), imagined.size);
                    return Err(StoreError::TooShort { key: key.clone(), location, size, range: wanted }.into());
                }
                let content = imagined.content.ok_or_else(|| {
                    Error::new(Code::NotAvailable, format!("{key} was not really written: this is a dry run"))
                })?;
                Ok(Box::new(Cursor::new(content[wanted.start as usize..wanted.end as usize].to_vec())))
            }
        }
    }

    fn stat(&self, key: &ObjectKey) -> Result<Option<ObjectInfo>> {
        let imagined = locked(&self.plan).overlay.get(key).cloned();
        match (imagined, &self.inner) {
            (Some(imagined), _) => Ok(imagined.map(|imagined| imagined.info(key))),
            (None, Some(inner)) => inner.stat(key),
            (None, None) => Ok(None),
        }
    }

    fn list(&self, prefix: &str, visit: &mut dyn FnMut(ObjectInfo) -> Result<()>) -> Result<()> {
        let mut overlay: BTreeMap<ObjectKey, Option<Imagined>> = locked(&self.plan)
            .overlay
            .iter()
            .filter(|(key, _)| key.as_str().starts_with(prefix))
            .map(|(key, imagined)| (key.clone(), imagined.clone()))
            .collect();
        let mut show = |key: ObjectKey, imagined: Option<Imagined>| match imagined {
            Some(imagined) => visit(imagined.info(&key)),
            None => Ok(()),
        };
        if let Some(inner) = &self.inner {
            inner.list(prefix, &mut |object| {
                while let Some(entry) = overlay.first_entry()
                    && *entry.key() < object.key
                {
                    let (key, imagined) = entry.remove_entry();
                    show(key, imagined)?;
                }
                match overlay.remove(&object.key) {
                    Some(imagined) => show(object.key, imagined),
                    None => {
                        let real = Imagined { size: object.size, modified: object.modified, content: None };
                        show(object.key, Some(real))
                    }
                }
            })?;
        }
        overlay.into_iter().try_for_each(|(key, imagined)| show(key, imagined))
    }

    fn delete(&self, key: &ObjectKey) -> Result<bool> {
        let there = self.stat(key)?.is_some();
        if there {
            let mut plan = locked(&self.plan);
            plan.overlay.insert(key.clone(), None);
            plan.steps.push(Planned::Delete { key: key.clone() });
        }
        Ok(there)
    }

    fn presign(&self, key: &ObjectKey, lifetime: Duration) -> Result<Option<String>> {
        self.inner.as_ref().map_or(Ok(None), |inner| inner.presign(key, lifetime))
    }

    fn space(&self) -> Result<Option<Space>> {
        self.inner.as_ref().map_or(Ok(None), |inner| inner.space())
    }

    fn sweep(&self) -> Result<Vec<String>> {
        Ok(Vec::new())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repository::memory::MemoryStore;
    use crate::repository::record::RecordStore;
    use crate::repository::small_object::{put, read};

    fn key(text: &str) -> ObjectKey {
        ObjectKey::new(text).expect("key")
    }

    fn names(store: &dyn Store) -> Vec<String> {
        let mut names = Vec::new();
        store
            .list("", &mut |object| {
                names.push(object.key.to_string());
                Ok(())
            })
            .expect("list");
        names
    }

    // req: A7
    #[test]
    fn everything_is_simulated_with_nothing_behind_it() {
        let store = DryRunStore::new(None);
        put(&store, &key("a/b"), b"content", Commit::IfAbsent).expect("put");
        assert_eq!(read(&store, &key("a/b"), 100).expect("read back"), b"content");
        let again = put(&store, &key("a/b"), b"other", Commit::IfAbsent).map(|_| ()).map_err(|e| e.code());
        assert_eq!(again, Err(Code::ObjectConflict));
        put(&store, &key("large"), &vec![0; CONTENT_KEPT_MAX as usize + 1], Commit::IfAbsent).expect("put");
        assert_eq!(read(&store, &key("large"), u64::MAX).map_err(|e| e.code()), Err(Code::NotAvailable));
        assert_eq!(
            store.planned(),
            [
                Planned::Write { key: key("a/b"), size: 7, how: Commit::IfAbsent },
                Planned::Write { key: key("large"), size: CONTENT_KEPT_MAX + 1, how: Commit::IfAbsent },
            ]
        );
    }

    // req: A7
    #[test]
    fn what_is_there_is_seen_and_left_alone() {
        let inner = MemoryStore::default();
        for name in ["a", "c", "e"] {
            put(&inner, &key(name), b"old", Commit::IfAbsent).expect("put");
        }
        let record = Arc::new(RecordStore::new(Arc::new(inner.clone())));
        let store = DryRunStore::new(Some(record.clone()));
        let refused = put(&store, &key("a"), b"new", Commit::IfAbsent).map(|_| ()).map_err(|e| e.code());
        assert_eq!(refused, Err(Code::ObjectConflict));
        put(&store, &key("c"), b"newer", Commit::Replace).expect("replace");
        put(&store, &key("b"), b"new", Commit::IfAbsent).expect("put");
        put(&store, &key("f"), b"new", Commit::IfAbsent).expect("put");
        assert!(store.delete(&key("e")).expect("delete") && !store.delete(&key("e")).expect("delete"));
        assert_eq!(names(&store), ["a", "b", "c", "f"]);
        assert_eq!(read(&store, &key("c"), 100).expect("read"), b"newer");
        assert_eq!(read(&store, &key("a"), 100).expect("read"), b"old");
        assert_eq!(names(&inner), ["a", "c", "e"]);
        let wrote =
            |call: &String| ["create", "write", "commit", "delete", "sweep"].iter().any(|w| call.starts_with(w));
        assert!(!record.calls().iter().any(wrote), "{:?}", record.calls());
    }
}
