//! A store that tries again what can be tried again.
//!
//! Opening for reading, stat, listing and deletion are repeated with growing pauses while the error's code says that
//! it may help. Nothing that makes an object is: a commit whose answer was lost must be looked into by its caller, and
//! a failed flush must never be repeated.

use super::store::{ObjectFacts, ObjectInfo, ObjectWriter, Store};
use crate::artifact::object_key::ObjectKey;
use crate::base::retry::RetryPolicy;
use crate::base::space::Space;
use crate::base::task::Task;
use crate::base::{Error, Result};
use std::io::Read;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

/// See the module.
pub struct RetryStore {
    inner: Arc<dyn Store>,
    policy: RetryPolicy,
    task: Task,
}

impl RetryStore {
    /// Tries again on `inner` as `policy` says; `task` hears of it and can end it.
    pub fn new(inner: Arc<dyn Store>, policy: RetryPolicy, task: Task) -> Self {
        RetryStore { inner, policy, task }
    }
}

impl Store for RetryStore {
    fn location(&self) -> String {
        self.inner.location()
    }

    fn create(&self, key: &ObjectKey) -> Result<Box<dyn ObjectWriter>> {
        self.inner.create(key)
    }

    fn create_with(&self, key: &ObjectKey, facts: &ObjectFacts) -> Result<Box<dyn ObjectWriter>> {
        self.inner.create_with(key, facts)
    }

    fn read(&self, key: &ObjectKey, range: Option<Range<u64>>) -> Result<Box<dyn Read + Send>> {
        self.policy.run(&self.task, &format!("opening {key}"), || self.inner.read(key, range.clone()))
    }

    fn stat(&self, key: &ObjectKey) -> Result<Option<ObjectInfo>> {
        self.policy.run(&self.task, &format!("examining {key}"), || self.inner.stat(key))
    }

    fn list(&self, prefix: &str, visit: &mut dyn FnMut(ObjectInfo) -> Result<()>) -> Result<()> {
        let mut last: Option<ObjectKey> = None;
        // The visitor's own error ends the listing; it must not look like the store's and be tried again.
        let mut refused = None;
        self.policy.run(&self.task, &format!("listing {prefix:?}"), || {
            let ended = self.inner.list(prefix, &mut |object| {
                // Shown already, before the listing broke off.
                if last.as_ref().is_some_and(|last| object.key <= *last) {
                    return Ok(());
                }
                let key = object.key.clone();
                visit(object).map_err(|error| {
                    let copy = crate::base::Error::new(error.code(), "the visitor ended the listing");
                    refused = Some(error);
                    copy
                })?;
                last = Some(key);
                Ok(())
            });
            if refused.is_some() { Ok(()) } else { ended }
        })?;
        refused.map_or(Ok(()), Err)
    }

    fn delete(&self, key: &ObjectKey) -> Result<bool> {
        let mut failed_before = false;
        self.policy.run(&self.task, &format!("deleting {key}"), || match self.inner.delete(key) {
            // What a failed try may have removed was there when this call began.
            Ok(deleted) => Ok(deleted || failed_before),
            Err(error) => {
                failed_before = true;
                Err(error)
            }
        })
    }

    fn presign(&self, key: &ObjectKey, lifetime: Duration) -> Result<Option<String>> {
        self.inner.presign(key, lifetime)
    }

    fn missing_rights(&self) -> Vec<Error> {
        self.inner.missing_rights()
    }

    fn space(&self) -> Result<Option<Space>> {
        self.inner.space()
    }

    fn sweep(&self) -> Result<Vec<String>> {
        self.inner.sweep()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{Code, Error};
    use crate::repository::conformance::conformance;
    use crate::repository::memory::MemoryStore;
    use crate::repository::record::RecordStore;
    use crate::repository::small_object::put;
    use crate::repository::store::Commit;

    fn impatient() -> RetryPolicy {
        RetryPolicy { first_pause: Duration::ZERO, ..RetryPolicy::default() }
    }

    fn recorded() -> (Arc<RecordStore>, RetryStore) {
        let record = Arc::new(RecordStore::new(Arc::new(MemoryStore::default())));
        let store = RetryStore::new(record.clone(), impatient(), Task::unobserved());
        for name in ["a", "b", "c"] {
            put(&store, &key(name), b"x", Commit::IfAbsent).expect("putting");
        }
        record.forget();
        (record, store)
    }

    fn key(text: &str) -> ObjectKey {
        ObjectKey::new(text).expect("key")
    }

    fn fault() -> Error {
        Error::new(Code::RepositoryIo, "a cable was pulled")
    }

    #[test]
    fn it_keeps_every_promise_of_a_store() {
        conformance(&|| Box::new(RetryStore::new(Arc::new(MemoryStore::default()), impatient(), Task::unobserved())));
    }

    #[test]
    fn what_only_looks_is_tried_again() {
        let (record, store) = recorded();
        record.fail_at(1, fault());
        assert!(store.stat(&key("a")).expect("stat").is_some());
        assert_eq!(record.calls(), ["stat a", "stat a"]);
        record.forget();
        record.fail_at(1, fault());
        assert!(store.read(&key("a"), None).is_ok());
        assert_eq!(record.calls(), ["read a", "read a"]);
        record.forget();
        record.fail_at(1, fault());
        assert!(store.delete(&key("a")).expect("delete"));
        assert_eq!(record.calls(), ["delete a", "delete a"]);
    }

    #[test]
    fn a_commit_and_a_write_are_never_repeated() {
        for call in 1..=3 {
            let (record, store) = recorded();
            record.fail_at(call, fault());
            let error = put(&store, &key("d"), b"x", Commit::IfAbsent).map(|_| ()).map_err(|e| e.code());
            assert_eq!(error, Err(Code::RepositoryIo), "call {call}");
            let made = record.calls().iter().filter(|call| !call.starts_with("abandon")).count();
            assert_eq!(made, call, "nothing follows the failure");
            assert_eq!(store.stat(&key("d")).expect("stat"), None);
        }
    }

    #[test]
    fn a_list_that_broke_off_shows_nothing_twice_and_the_visitor_is_not_asked_again() {
        let (record, store) = recorded();
        record.fail_at(1, fault());
        let mut seen = Vec::new();
        let visit = &mut |object: ObjectInfo| {
            seen.push(object.key.to_string());
            Ok(())
        };
        store.list("", visit).expect("list");
        assert_eq!(seen, ["a", "b", "c"]);
        record.forget();
        let mut asked = 0;
        let ended = store.list("", &mut |_| {
            asked += 1;
            Err(fault())
        });
        assert_eq!((ended.map_err(|e| e.code()), asked), (Err(Code::RepositoryIo), 1));
        assert_eq!(record.calls(), ["list "]);
    }

    #[test]
    fn a_list_that_broke_off_in_the_middle_goes_on_where_it_was() {
        struct Breaking(MemoryStore, std::sync::Mutex<u32>);
        impl Store for Breaking {
            fn location(&self) -> String {
                self.0.location()
            }
            fn create(&self, key: &ObjectKey) -> Result<Box<dyn ObjectWriter>> {
                self.0.create(key)
            }
            fn read(&self, key: &ObjectKey, range: Option<Range<u64>>) -> Result<Box<dyn Read + Send>> {
                self.0.read(key, range)
            }
            fn stat(&self, key: &ObjectKey) -> Result<Option<ObjectInfo>> {
                self.0.stat(key)
            }
            fn list(&self, prefix: &str, visit: &mut dyn FnMut(ObjectInfo) -> Result<()>) -> Result<()> {
                let mut left = self.1.lock().expect("lock");
                *left += 1;
                let mut shown = 0;
                self.0.list(prefix, &mut |object| {
                    shown += 1;
                    if shown > *left { Err(fault()) } else { visit(object) }
                })
            }
            fn delete(&self, key: &ObjectKey) -> Result<bool> {
                self.0.delete(key)
            }
            fn space(&self) -> Result<Option<Space>> {
                self.0.space()
            }
            fn sweep(&self) -> Result<Vec<String>> {
                self.0.sweep()
            }
        }
        let inner = Breaking(MemoryStore::default(), std::sync::Mutex::new(0));
        for name in ["a", "b", "c"] {
            put(&inner, &key(name), b"x", Commit::IfAbsent).expect("putting");
        }
        let store = RetryStore::new(Arc::new(inner), impatient(), Task::unobserved());
        let mut seen = Vec::new();
        store
            .list("", &mut |object| {
                seen.push(object.key.to_string());
                Ok(())
            })
            .expect("list");
        assert_eq!(seen, ["a", "b", "c"]);
    }
}
