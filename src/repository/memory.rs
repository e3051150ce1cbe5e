//! A repository in memory, with the promises of every store except the one that outlives the process. For tests.

use super::fault::StoreError;
use super::store::{Commit, ObjectInfo, ObjectWriter, Store};
use crate::artifact::object_key::ObjectKey;
use crate::base::clock::{Clock, SystemClock};
use crate::base::space::Space;
use crate::base::{Error, Result};
use jiff::Timestamp;
use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard};

#[derive(Clone, Debug)]
struct Held {
    bytes: Arc<Vec<u8>>,
    modified: Timestamp,
}

type Objects = BTreeMap<ObjectKey, Held>;

/// See the module. Clones share their objects, as two openings of one directory do.
#[derive(Clone, Debug, Default)]
pub struct MemoryStore {
    objects: Arc<Mutex<Objects>>,
}

const LOCATION: &str = "memory:";

fn locked(objects: &Mutex<Objects>) -> MutexGuard<'_, Objects> {
    objects.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

fn absent(key: &ObjectKey) -> StoreError {
    StoreError::NotFound { key: key.clone(), location: LOCATION.to_owned() }
}

impl MemoryStore {
    /// Changes an object's bytes behind the store's back, as a failing disk or an intruder does. For tests of damage.
    pub fn damage(&self, key: &ObjectKey, change: impl FnOnce(&mut Vec<u8>)) -> Result<()> {
        let mut objects = locked(&self.objects);
        let held = objects.get_mut(key).ok_or_else(|| absent(key))?;
        change(Arc::make_mut(&mut held.bytes));
        Ok(())
    }

    /// Everything that is there.
    pub fn contents(&self) -> BTreeMap<ObjectKey, Vec<u8>> {
        locked(&self.objects).iter().map(|(key, held)| (key.clone(), held.bytes.to_vec())).collect()
    }
}

struct MemoryWriter {
    objects: Arc<Mutex<Objects>>,
    key: ObjectKey,
    bytes: Vec<u8>,
}

impl Write for MemoryWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl ObjectWriter for MemoryWriter {
    fn commit(self: Box<Self>, how: Commit) -> Result<ObjectInfo> {
        let mut objects = locked(&self.objects);
        if how == Commit::IfAbsent && objects.contains_key(&self.key) {
            return Err(StoreError::Conflict { key: self.key, location: LOCATION.to_owned() }.into());
        }
        let held = Held { bytes: Arc::new(self.bytes), modified: SystemClock.now() };
        let info = info(&self.key, &held);
        objects.insert(self.key, held);
        Ok(info)
    }
}

fn info(key: &ObjectKey, held: &Held) -> ObjectInfo {
    ObjectInfo { key: key.clone(), size: held.bytes.len() as u64, modified: held.modified }
}

struct MemoryReader {
    bytes: Arc<Vec<u8>>,
    left: Range<usize>,
}

impl Read for MemoryReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = buffer.len().min(self.left.len());
        buffer[..count].copy_from_slice(&self.bytes[self.left.start..self.left.start + count]);
        self.left.start += count;
        Ok(count)
    }
}

impl Store for MemoryStore {
    fn location(&self) -> String {
        LOCATION.to_owned()
    }

    fn create(&self, key: &ObjectKey) -> Result<Box<dyn ObjectWriter>> {
        Ok(Box::new(MemoryWriter { objects: self.objects.clone(), key: key.clone(), bytes: Vec::new() }))
    }

    fn read(&self, key: &ObjectKey, range: Option<Range<u64>>) -> Result<Box<dyn Read + Send>> {
        let bytes = locked(&self.objects).get(key).ok_or_else(|| absent(key))?.bytes.clone();
        let size = bytes.len() as u64;
        let wanted = range.unwrap_or(0..size);
        if wanted.start > wanted.end || wanted.end > size {
            let location = LOCATION.to_owned();
            return Err(Error::from(StoreError::TooShort { key: key.clone(), location, size, range: wanted }));
        }
        Ok(Box::new(MemoryReader { bytes, left: wanted.start as usize..wanted.end as usize }))
    }

    fn stat(&self, key: &ObjectKey) -> Result<Option<ObjectInfo>> {
        Ok(locked(&self.objects).get(key).map(|held| info(key, held)))
    }

    fn list(&self, prefix: &str, visit: &mut dyn FnMut(ObjectInfo) -> Result<()>) -> Result<()> {
        // Collected first: the visitor may well delete.
        let found: Vec<ObjectInfo> = locked(&self.objects)
            .iter()
            .filter(|(key, _)| key.as_str().starts_with(prefix))
            .map(|(key, held)| info(key, held))
            .collect();
        found.into_iter().try_for_each(visit)
    }

    fn delete(&self, key: &ObjectKey) -> Result<bool> {
        Ok(locked(&self.objects).remove(key).is_some())
    }

    fn space(&self) -> Result<Option<Space>> {
        Ok(None)
    }

    fn sweep(&self) -> Result<Vec<String>> {
        Ok(Vec::new())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repository::conformance::conformance;

    // req: A16
    #[test]
    fn memory_keeps_every_promise_of_a_store() {
        conformance(&|| Box::new(MemoryStore::default()));
    }
}
