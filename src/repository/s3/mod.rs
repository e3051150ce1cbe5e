//! A repository in a bucket of any store that speaks S3.
//!
//! An object is one PUT, or a multipart upload in parts of 16 MiB of which a few travel at once. It appears whole, by
//! the request that ends it, and only if the key is free where that was asked for. Before a commit returns, the store is
//! asked what it holds: size, checksum and encryption must be what was sent.
//!
//! Each object carries a random token of its writer. When the answer to the last request is lost, the token tells
//! whether the object that is there is ours, so that a repeated request is neither a false conflict nor a false failure.
//!
//! Begun multipart uploads are on record on this host ([`journal`]), so that [`Store::sweep`] ends what killed writers
//! left, and nobody else's.

mod bridge;
mod buffers;
mod client;
mod fault;
mod head;
mod journal;
mod listing;
mod presign;
mod reader;
mod rights;
mod sweep;
mod upload;
mod writer;

use super::store::{ObjectFacts, ObjectInfo, ObjectWriter, Store};
use crate::artifact::object_key::ObjectKey;
use crate::base::space::Space;
use crate::base::{Error, Result};
use client::{Bucket, Patience};
use journal::Journal;
use std::io::Read;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// What the store is asked to encrypt with, on top of our own encryption.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Encryption {
    /// Nothing is asked for.
    None,
    /// Keys of the store (SSE-S3).
    S3,
    /// A key of its key service (SSE-KMS); `None` = the account's default key.
    Kms(Option<String>),
}

/// Whether requests carry the newer checksums, which some stores refuse.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checksums {
    /// Only where the protocol demands one.
    WhenRequired,
    /// Wherever the protocol knows one.
    WhenSupported,
}

/// Where a bucket is and how it is spoken to.
#[derive(Clone, Debug)]
pub struct S3StoreSettings {
    /// The bucket.
    pub bucket: String,
    /// What every key begins with, without a slash at either end; may be empty.
    pub prefix: String,
    /// `None` = as the SDK's own chain finds it.
    pub region: Option<String>,
    /// `None` = Amazon's.
    pub endpoint: Option<String>,
    /// The bucket in the path, not in the host's name.
    pub path_style: bool,
    /// Whether it may be spoken to without TLS.
    pub allow_http: bool,
    /// Encryption at the store's side.
    pub encryption: Encryption,
    /// Checksums of requests.
    pub checksums: Checksums,
    /// Directory of this host's record of begun uploads.
    pub uploads: PathBuf,
    /// This host's name, kept with each object.
    pub hostname: String,
}

/// See the module. Opening asks nothing of the network.
pub struct S3Store {
    bucket: Arc<Bucket>,
    journal: Journal,
}

impl S3Store {
    /// The store, with credentials as the SDK's default chain finds them: environment, profile, web identity, role of
    /// the container or the machine. They are renewed when they expire.
    pub fn new(settings: S3StoreSettings) -> S3Store {
        S3Store::with(settings, Patience::default(), None)
    }

    /// The store with credentials given. For tests: product code never sees a secret of the store.
    #[doc(hidden)]
    pub fn with_keys(settings: S3StoreSettings, id: &str, secret: &str) -> S3Store {
        S3Store::with(settings, Patience::default(), Some((id.to_owned(), secret.to_owned())))
    }

    fn with(settings: S3StoreSettings, patience: Patience, keys: Option<(String, String)>) -> S3Store {
        let place = format!("{} {}", settings.endpoint.as_deref().unwrap_or_default(), settings.bucket);
        let journal = Journal::new(settings.uploads.clone(), &place);
        S3Store { bucket: Arc::new(Bucket::new(settings, patience, keys)), journal }
    }
}

impl std::fmt::Debug for S3Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "S3Store({})", self.location())
    }
}

impl Store for S3Store {
    fn location(&self) -> String {
        self.bucket.location()
    }

    fn create(&self, key: &ObjectKey) -> Result<Box<dyn ObjectWriter>> {
        self.create_with(key, &ObjectFacts::new())
    }

    fn create_with(&self, key: &ObjectKey, facts: &ObjectFacts) -> Result<Box<dyn ObjectWriter>> {
        Ok(Box::new(writer::S3Writer::begin(self.bucket.clone(), self.journal.clone(), key.clone(), facts)?))
    }

    fn read(&self, key: &ObjectKey, range: Option<Range<u64>>) -> Result<Box<dyn Read + Send>> {
        Ok(Box::new(reader::S3Reader::open(&self.bucket, key, range)?))
    }

    fn stat(&self, key: &ObjectKey) -> Result<Option<ObjectInfo>> {
        Ok(head::of(&self.bucket, key)?.map(|head| head.info(key)))
    }

    fn list(&self, prefix: &str, visit: &mut dyn FnMut(ObjectInfo) -> Result<()>) -> Result<()> {
        listing::list(&self.bucket, prefix, visit)
    }

    fn delete(&self, key: &ObjectKey) -> Result<bool> {
        // The answer to a deletion does not say whether there was anything.
        if head::of(&self.bucket, key)?.is_none() {
            return Ok(false);
        }
        head::delete(&self.bucket, key)?;
        Ok(true)
    }

    fn presign(&self, key: &ObjectKey, lifetime: Duration) -> Result<Option<String>> {
        presign::address(&self.bucket, key, lifetime).map(Some)
    }

    fn missing_rights(&self) -> Vec<Error> {
        rights::missing(&self.bucket, &self.journal)
    }

    fn space(&self) -> Result<Option<Space>> {
        Ok(None)
    }

    fn sweep(&self) -> Result<Vec<String>> {
        sweep::sweep(&self.bucket, &self.journal)
    }
}

#[cfg(test)]
mod tests;
