//! Writing an object: in one request if it fits into a part, otherwise as a multipart upload.

use super::buffers::PART;
use super::client::Bucket;
use super::fault::Failure;
use super::head::{self, Head, TOKEN};
use super::journal::Journal;
use super::upload::{Upload, contradicts, md5};
use crate::artifact::digest::sha256_hex;
use crate::artifact::object_key::ObjectKey;
use crate::base::clock::{Clock, SystemClock};
use crate::base::{Code, Error, Result};
use crate::repository::fault::StoreError;
use crate::repository::store::{Commit, ObjectFacts, ObjectInfo, ObjectWriter};
use aws_sdk_s3::primitives::ByteStream;
use bytes::Bytes;
use std::collections::HashMap;
use std::io::{self, Write};
use std::sync::Arc;

/// How often the last request is repeated while the store does something else with the object or beside it.
const CROSSINGS_MAX: u32 = 8;
/// Random bytes of a writer's token.
const TOKEN_BYTES: usize = 16;

/// Longest text of a fact: all metadata of an object together have 2 KiB.
const FACT_MAX: usize = 128;

/// What is kept with an object as its metadata.
#[derive(Debug)]
pub(super) struct Facts {
    token: String,
    known: HashMap<String, String>,
}

impl Facts {
    pub(super) fn new(hostname: &str, said: &ObjectFacts) -> Result<Self> {
        let mut chance = [0u8; TOKEN_BYTES];
        openssl::rand::rand_bytes(&mut chance)
            .map_err(|cause| Error::new(Code::Internal, format!("drawing a writer's token: {cause}")))?;
        let token = hex::encode(chance);
        // Metadata travels in headers, which carry no more than this.
        let hostname: String = hostname.chars().filter(|c| c.is_ascii_graphic()).collect();
        let mut known = HashMap::from([
            (TOKEN.to_owned(), token.clone()),
            ("created-by".to_owned(), concat!("neo4j-backup-agent ", env!("CARGO_PKG_VERSION")).to_owned()),
            ("created-at".to_owned(), SystemClock.now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()),
            ("hostname".to_owned(), hostname),
        ]);
        let header = |text: &str| text.chars().filter(|&c| c == ' ' || c.is_ascii_graphic()).take(FACT_MAX).collect();
        known.extend(said.iter().map(|(name, text)| (name.replace('_', "-"), header(text))));
        Ok(Facts { token, known })
    }

    /// What is known before the content is.
    pub(super) fn of_a_stream(&self) -> HashMap<String, String> {
        self.known.clone()
    }

    /// What is known of content that is at hand.
    fn of(&self, content: &[u8]) -> HashMap<String, String> {
        let mut facts = self.known.clone();
        facts.entry("sha256".to_owned()).or_insert_with(|| sha256_hex(content));
        facts
    }
}

/// What must be found in the bucket after the last request.
struct Expected {
    size: u64,
    /// ETag that the last request was answered with.
    etag: Option<String>,
    /// ETag that follows from the content, where ETags are checksums.
    own: Option<String>,
}

/// See the module.
pub(super) struct S3Writer {
    bucket: Arc<Bucket>,
    journal: Journal,
    key: ObjectKey,
    facts: Facts,
    buffer: Vec<u8>,
    size: u64,
    upload: Option<Upload>,
    failed: bool,
}

impl S3Writer {
    pub(super) fn begin(bucket: Arc<Bucket>, journal: Journal, key: ObjectKey, facts: &ObjectFacts) -> Result<Self> {
        let facts = Facts::new(&bucket.settings.hostname, facts)?;
        Ok(S3Writer { bucket, journal, key, facts, buffer: Vec::new(), size: 0, upload: None, failed: false })
    }

    fn take(&mut self, bytes: &[u8]) -> Result<usize> {
        if self.buffer.len() == PART {
            self.send_part()?;
        }
        let count = bytes.len().min(PART - self.buffer.len());
        self.buffer.extend_from_slice(&bytes[..count]);
        self.size += count as u64;
        Ok(count)
    }

    fn send_part(&mut self) -> Result<()> {
        let upload = match &mut self.upload {
            Some(upload) => upload,
            none => none.insert(Upload::begin(self.bucket.clone(), &self.journal, self.key.clone(), &self.facts)?),
        };
        self.buffer = upload.send(std::mem::take(&mut self.buffer))?;
        Ok(())
    }

    fn conflict(&self) -> Error {
        StoreError::Conflict { key: self.key.clone(), location: self.bucket.location() }.into()
    }

    fn publish(&mut self, how: Commit) -> Result<ObjectInfo> {
        if self.failed {
            let (key, location) = (self.key.clone(), self.bucket.location());
            return Err(StoreError::Incomplete { key, location }.into());
        }
        // Stores that do not know the condition of the last request ignore it silently.
        if how == Commit::IfAbsent && head::of(&self.bucket, &self.key)?.is_some() {
            return Err(self.conflict());
        }
        let expected = self.send_last(how)?;
        let info = self.check(&expected)?;
        if let Some(upload) = self.upload.take() {
            upload.forget()?;
        }
        Ok(info)
    }

    /// The request that makes the object; again while it crosses another one.
    fn send_last(&mut self, how: Commit) -> Result<Expected> {
        let content = match &mut self.upload {
            None => Bytes::from(std::mem::take(&mut self.buffer)),
            Some(upload) => {
                if !self.buffer.is_empty() {
                    upload.send(std::mem::take(&mut self.buffer))?;
                }
                Bytes::new()
            }
        };
        let own = match &mut self.upload {
            None => md5(&content).map(hex::encode),
            Some(upload) => upload.all_sent()?.map(|sum| format!("{}-{}", hex::encode(sum), upload.count())),
        };
        let mut crossings = 0;
        loop {
            let answer = match &self.upload {
                None => self.put(&content, how)?,
                Some(upload) => upload.complete(how)?,
            };
            match answer {
                Ok(etag) => return Ok(Expected { size: self.size, etag, own }),
                Err(failure) => {
                    let again = (failure.is_crossing() || failure.is_condition()) && crossings < CROSSINGS_MAX;
                    if self.look_into(failure, how, again)? {
                        return Ok(Expected { size: self.size, etag: None, own });
                    }
                    crossings += 1;
                    let pause = self.bucket.patience.first_pause * crossings;
                    self.bucket.bridge.wait(async move { tokio::time::sleep(pause).await })?;
                }
            }
        }
    }

    fn put(&self, content: &Bytes, how: Commit) -> Result<Result<Option<String>, Failure>> {
        let (encryption, kms) = self.bucket.encryption();
        let request = self.bucket.clients()?.transfer.put_object().bucket(&self.bucket.settings.bucket);
        let request = request
            .key(self.bucket.name(self.key.as_str()))
            .set_metadata(Some(self.facts.of(content)))
            .set_server_side_encryption(encryption)
            .set_ssekms_key_id(kms)
            .set_if_none_match((how == Commit::IfAbsent).then(|| "*".to_owned()))
            .content_length(content.len() as i64)
            .body(ByteStream::from(content.clone()));
        Ok(self.bucket.call(request.send())?.map(|answer| answer.e_tag().map(head::bare)))
    }

    /// The last request failed. `true`: it was carried out all the same and its answer was lost, as the object with this
    /// writer's token shows. `false`: the caller may try `again`.
    fn look_into(&self, failure: Failure, how: Commit, again: bool) -> Result<bool> {
        let refused = failure.is_condition() || failure.is_crossing() || failure.is_no_upload();
        if refused || failure.is_uncertain() {
            match head::of(&self.bucket, &self.key) {
                Ok(Some(head)) if head.token.as_deref() == Some(&self.facts.token) => return Ok(true),
                Ok(Some(_)) if how == Commit::IfAbsent && refused => return Err(self.conflict()),
                _ => {}
            }
        }
        if again {
            return Ok(false);
        }
        if failure.is_condition() || failure.is_crossing() {
            let error = self.bucket.error("uploading", "s3:PutObject", &self.key, failure);
            return Err(error
                .recode(Code::StorageUnreachable)
                .with_hint("somebody else writes there now; run it again"));
        }
        Err(self.bucket.error("uploading", "s3:PutObject", &self.key, failure))
    }

    /// Compares what the bucket holds with what was sent. An object that is ours and not right is taken away again.
    fn check(&self, expected: &Expected) -> Result<ObjectInfo> {
        let Some(head) = head::of(&self.bucket, &self.key)? else {
            return Err(self.not_stored("it is not there after its upload", Code::RepositoryIo));
        };
        let Some((why, code)) = self.fault_of(&head, expected) else { return Ok(head.info(&self.key)) };
        if head.token.as_deref() == Some(&self.facts.token) {
            // The error that matters is the first one.
            let _ = head::delete(&self.bucket, &self.key);
        }
        Err(self.not_stored(&why, code))
    }

    fn fault_of(&self, head: &Head, expected: &Expected) -> Option<(String, Code)> {
        let wanted = self.bucket.encryption().0;
        if head.token.as_ref().is_some_and(|token| *token != self.facts.token) {
            return Some(("another writer has replaced it".to_owned(), Code::ObjectConflict));
        }
        if head.size != expected.size {
            let text = format!("the store holds {} bytes, {} were sent", head.size, expected.size);
            return Some((text, Code::RepositoryIo));
        }
        let held = head.etag.as_deref().unwrap_or_default();
        let answered = expected.etag.as_deref().unwrap_or(held);
        if held != answered || is_other(held, expected.own.as_deref(), head) {
            return Some(("the store's checksum is not that of what was sent".to_owned(), Code::RepositoryIo));
        }
        if wanted.is_some() && head.encryption != wanted {
            return Some(("the store did not encrypt it as `sse` asks".to_owned(), Code::ConfigInvalid));
        }
        None
    }

    fn not_stored(&self, why: &str, code: Code) -> Error {
        let error = Error::new(code, format!("uploading {} to {}: {why}", self.key, self.bucket.location()));
        match code {
            Code::ConfigInvalid => {
                error.with_hint("set sse = \"none\" for a store that cannot, or let the store have keys")
            }
            Code::RepositoryIo => error.with_hint("run it again; if it comes back, the store's own log says more"),
            _ => error,
        }
    }
}

/// Whether the ETag is a checksum, and that of something else.
fn is_other(held: &str, own: Option<&str>, head: &Head) -> bool {
    let Some(own) = own else { return false };
    match (held.split_once('-'), own.split_once('-')) {
        (Some((held, held_parts)), Some((own, own_parts))) => {
            let sum = hex::decode(own).ok();
            held_parts == own_parts && contradicts(held, sum.as_deref(), head.encryption.as_ref())
        }
        (None, None) => contradicts(held, hex::decode(own).ok().as_deref(), head.encryption.as_ref()),
        // Made in another way than it was sent: no store's ETag means the same thing then.
        _ => false,
    }
}

impl Write for S3Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.failed {
            let (key, location) = (self.key.clone(), self.bucket.location());
            return Err(Error::from(StoreError::Incomplete { key, location }).into());
        }
        self.take(bytes).map_err(|error| {
            self.failed = true;
            error.into()
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl ObjectWriter for S3Writer {
    fn commit(mut self: Box<Self>, how: Commit) -> Result<ObjectInfo> {
        self.publish(how)
    }
}

impl Drop for S3Writer {
    fn drop(&mut self) {
        if let Some(upload) = self.upload.take() {
            upload.abandon();
        }
    }
}
