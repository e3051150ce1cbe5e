//! A store that writes down every call, for tests that state exactly what a piece of work reads and writes, and that
//! can fail at the N-th call, so that a fault is walked through all of them: N = 1, 2, … until a run ends clean.

use super::store::{Commit, ObjectFacts, ObjectInfo, ObjectWriter, Store};
use crate::artifact::object_key::ObjectKey;
use crate::base::space::Space;
use crate::base::{Error, Result};
use std::io::{self, Read, Write};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

#[derive(Default)]
struct Log {
    calls: Vec<String>,
    /// Calls that count towards the fault: everything but `abandon`, which is no call of anybody's.
    counted: usize,
    fault: Option<(usize, Error)>,
}

/// See the module. Calls read `create KEY`, `write KEY BYTES`, `commit KEY HOW`, `abandon KEY`, `read KEY [RANGE]`,
/// `stat KEY`, `list PREFIX`, `delete KEY`, `space`, `sweep`.
pub struct RecordStore {
    inner: Arc<dyn Store>,
    log: Arc<Mutex<Log>>,
}

fn locked(log: &Mutex<Log>) -> MutexGuard<'_, Log> {
    log.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

fn called(log: &Mutex<Log>, call: String) -> Result<()> {
    let mut log = locked(log);
    log.calls.push(call);
    log.counted += 1;
    if log.fault.as_ref().is_some_and(|(number, _)| *number == log.counted)
        && let Some((_, error)) = log.fault.take()
    {
        return Err(error);
    }
    Ok(())
}

impl RecordStore {
    /// Records what is asked of `inner`.
    pub fn new(inner: Arc<dyn Store>) -> Self {
        RecordStore { inner, log: Arc::default() }
    }

    /// The calls since the beginning, or since [`RecordStore::forget`].
    pub fn calls(&self) -> Vec<String> {
        locked(&self.log).calls.clone()
    }

    /// Forgets all calls and a fault that has not happened; counting begins anew.
    pub fn forget(&self) {
        *locked(&self.log) = Log::default();
    }

    /// Fails call number `number` (from 1, counted like [`RecordStore::calls`] without `abandon`), once.
    pub fn fail_at(&self, number: usize, error: Error) {
        locked(&self.log).fault = Some((number, error));
    }

    /// Whether the fault is still to come: the run had fewer calls, and so ended clean.
    pub fn is_fault_pending(&self) -> bool {
        locked(&self.log).fault.is_some()
    }

    fn called(&self, call: String) -> Result<()> {
        called(&self.log, call)
    }
}

struct RecordWriter {
    inner: Option<Box<dyn ObjectWriter>>,
    key: ObjectKey,
    log: Arc<Mutex<Log>>,
}

impl Write for RecordWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        called(&self.log, format!("write {} {}", self.key, bytes.len()))?;
        self.inner.as_mut().map_or(Ok(0), |inner| inner.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.as_mut().map_or(Ok(()), |inner| inner.flush())
    }
}

impl ObjectWriter for RecordWriter {
    fn commit(mut self: Box<Self>, how: Commit) -> Result<ObjectInfo> {
        called(&self.log, format!("commit {} {how:?}", self.key))?;
        match self.inner.take() {
            Some(inner) => inner.commit(how),
            None => Err(Error::new(crate::base::Code::Internal, "a writer was committed twice")),
        }
    }
}

impl Drop for RecordWriter {
    fn drop(&mut self) {
        if self.inner.is_some() {
            locked(&self.log).calls.push(format!("abandon {}", self.key));
        }
    }
}

impl Store for RecordStore {
    fn location(&self) -> String {
        self.inner.location()
    }

    fn create(&self, key: &ObjectKey) -> Result<Box<dyn ObjectWriter>> {
        self.create_with(key, &ObjectFacts::new())
    }

    fn create_with(&self, key: &ObjectKey, facts: &ObjectFacts) -> Result<Box<dyn ObjectWriter>> {
        self.called(format!("create {key}"))?;
        let inner = Some(self.inner.create_with(key, facts)?);
        Ok(Box::new(RecordWriter { inner, key: key.clone(), log: self.log.clone() }))
    }

    fn read(&self, key: &ObjectKey, range: Option<Range<u64>>) -> Result<Box<dyn Read + Send>> {
        self.called(match &range {
            Some(range) => format!("read {key} {range:?}"),
            None => format!("read {key}"),
        })?;
        self.inner.read(key, range)
    }

    fn stat(&self, key: &ObjectKey) -> Result<Option<ObjectInfo>> {
        self.called(format!("stat {key}"))?;
        self.inner.stat(key)
    }

    fn list(&self, prefix: &str, visit: &mut dyn FnMut(ObjectInfo) -> Result<()>) -> Result<()> {
        self.called(format!("list {prefix}"))?;
        self.inner.list(prefix, visit)
    }

    fn delete(&self, key: &ObjectKey) -> Result<bool> {
        self.called(format!("delete {key}"))?;
        self.inner.delete(key)
    }

    fn presign(&self, key: &ObjectKey, lifetime: Duration) -> Result<Option<String>> {
        self.called(format!("presign {key}"))?;
        self.inner.presign(key, lifetime)
    }

    fn missing_rights(&self) -> Vec<Error> {
        self.inner.missing_rights()
    }

    fn space(&self) -> Result<Option<Space>> {
        self.called("space".to_owned())?;
        self.inner.space()
    }

    fn sweep(&self) -> Result<Vec<String>> {
        self.called("sweep".to_owned())?;
        self.inner.sweep()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Code;
    use crate::repository::conformance::conformance;
    use crate::repository::memory::MemoryStore;
    use crate::repository::small_object::put;

    #[test]
    fn it_keeps_every_promise_of_a_store() {
        conformance(&|| Box::new(RecordStore::new(Arc::new(MemoryStore::default()))));
    }

    #[test]
    fn a_fault_can_be_walked_through_every_call() {
        let store = RecordStore::new(Arc::new(MemoryStore::default()));
        let key = ObjectKey::new("a").expect("key");
        let mut failures = 0;
        for number in 1.. {
            store.forget();
            store.fail_at(number, Error::new(Code::RepositoryIo, "fault"));
            let done = put(&store, &key, b"xy", Commit::Replace);
            if store.is_fault_pending() {
                done.expect("a run without a fault");
                break;
            }
            assert_eq!(done.map(|_| ()).map_err(|e| e.code()), Err(Code::RepositoryIo));
            failures += 1;
        }
        assert_eq!(failures, 3);
        assert_eq!(store.calls(), ["create a", "write a 2", "commit a Replace"]);
    }
}
