//! A multipart upload: parts travel side by side, a few at a time, each compared with what the store says it received.

use super::Checksums;
use super::bridge::block;
use super::buffers::Buffers;
use super::client::Bucket;
use super::fault::{Attempt, Failure};
use super::head;
use super::journal::{Journal, Record};
use super::writer::Facts;
use crate::artifact::digest::PART_SIZE;
use crate::artifact::object_key::ObjectKey;
use crate::base::{Code, Error, Result};
use crate::repository::store::Commit;
use aws_sdk_s3::Client;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{ChecksumAlgorithm, CompletedMultipartUpload, CompletedPart, ServerSideEncryption};
use bytes::Bytes;
use openssl::hash::{MessageDigest, hash};
use std::sync::Arc;
use tokio::task::JoinSet;

/// Parts on their way at once. With the one that is being filled this is 48 MiB of memory.
const PARTS_IN_FLIGHT: usize = 2;
/// Parts that an upload may have; S3 allows no more.
const PARTS_MAX: i32 = 10_000;
/// How often an upload is ended before it counts as gone: a part that was on its way can arrive after the first time.
const ABORTS_MAX: u32 = 3;

/// A part that the store has.
struct Sent {
    part: CompletedPart,
    md5: Option<Vec<u8>>,
}

/// See the module.
pub(super) struct Upload {
    bucket: Arc<Bucket>,
    key: ObjectKey,
    id: String,
    record: Record,
    parts: JoinSet<Result<Sent>>,
    sent: Vec<Sent>,
    next: i32,
    buffers: Buffers,
}

/// MD5 where this host's OpenSSL has it; it only answers what S3 calls an ETag.
pub(super) fn md5(bytes: &[u8]) -> Option<Vec<u8>> {
    hash(MessageDigest::md5(), bytes).ok().map(|digest| digest.to_vec())
}

/// Whether an ETag tells other bytes than these. With a key service's encryption it is no checksum at all.
pub(super) fn contradicts(etag: &str, md5: Option<&[u8]>, encryption: Option<&ServerSideEncryption>) -> bool {
    let plain = matches!(encryption, None | Some(ServerSideEncryption::Aes256));
    let is_sum = etag.len() == 32 && etag.bytes().all(|byte| byte.is_ascii_hexdigit());
    plain && is_sum && md5.is_some_and(|md5| !hex::encode(md5).eq_ignore_ascii_case(etag))
}

impl Upload {
    /// Begins one, with a record of it first.
    pub(super) fn begin(bucket: Arc<Bucket>, journal: &Journal, key: ObjectKey, facts: &Facts) -> Result<Upload> {
        let name = bucket.name(key.as_str());
        let mut record = journal.begin(&name)?;
        let (encryption, kms) = bucket.encryption();
        let request = bucket.clients()?.transfer.create_multipart_upload().bucket(&bucket.settings.bucket).key(name);
        let request = request
            .set_metadata(Some(facts.of_a_stream()))
            .set_checksum_algorithm(checksum_of(&bucket))
            .set_server_side_encryption(encryption)
            .set_ssekms_key_id(kms);
        let answer = bucket.call(request.send())?;
        let answer = answer.map_err(|failure| bucket.error("beginning to upload", "s3:PutObject", &key, failure))?;
        let Some(id) = answer.upload_id().map(str::to_owned) else {
            let text = format!("beginning to upload {key} in {}: the store gave the upload no id", bucket.location());
            return Err(Error::new(Code::RepositoryIo, text).with_hint("the store's own log says more"));
        };
        let noted = record.begun(&id);
        let upload = Upload {
            bucket,
            key,
            id,
            record,
            parts: JoinSet::new(),
            sent: Vec::new(),
            next: 1,
            buffers: Buffers::new(),
        };
        match noted {
            Ok(()) => Ok(upload),
            Err(error) => {
                upload.abandon();
                Err(error)
            }
        }
    }

    /// Sends a part on its way; waits while too many are. Returns an empty buffer for the next.
    pub(super) fn send(&mut self, content: Vec<u8>) -> Result<Vec<u8>> {
        if self.next > PARTS_MAX {
            let most = PARTS_MAX as u64 * PART_SIZE;
            let text = format!("uploading {} to {}: it is larger than {most} bytes", self.key, self.bucket.location());
            return Err(Error::new(Code::NotAvailable, text)
                .with_hint("an object of a bucket cannot be larger in this version; use a repository in a directory"));
        }
        while self.parts.len() >= PARTS_IN_FLIGHT {
            self.collect()?;
        }
        let (client, number) = (self.bucket.clients()?.transfer, self.next);
        let body = self.buffers.lend(content);
        let work = part(client, self.bucket.clone(), self.key.clone(), self.id.clone(), number, body);
        self.parts.spawn_on(work, self.bucket.bridge.handle()?);
        self.next += 1;
        Ok(self.buffers.empty())
    }

    /// Takes in one part that has arrived; nothing if none is on its way.
    fn collect(&mut self) -> Result<()> {
        if let Some(ended) = block(self.parts.join_next()) {
            let ended = ended.map_err(|cause| Error::new(Code::Internal, format!("uploading a part: {cause}")))?;
            self.sent.push(ended?);
        }
        Ok(())
    }

    /// Waits for every part; returns the MD5 that the whole object's ETag is made of.
    pub(super) fn all_sent(&mut self) -> Result<Option<Vec<u8>>> {
        while !self.parts.is_empty() {
            self.collect()?;
        }
        self.sent.sort_by_key(|sent| sent.part.part_number());
        let sums: Option<Vec<Vec<u8>>> = self.sent.iter().map(|sent| sent.md5.clone()).collect();
        Ok(sums.and_then(|sums| md5(&sums.concat())))
    }

    /// The parts in number.
    pub(super) fn count(&self) -> usize {
        self.sent.len()
    }

    /// Makes an object of the parts. The answer is the ETag.
    pub(super) fn complete(&self, how: Commit) -> Result<Result<Option<String>, Failure>> {
        let parts: Vec<CompletedPart> = self.sent.iter().map(|sent| sent.part.clone()).collect();
        let request = self.bucket.clients()?.transfer.complete_multipart_upload().bucket(&self.bucket.settings.bucket);
        let request = request
            .key(self.bucket.name(self.key.as_str()))
            .upload_id(&self.id)
            .multipart_upload(CompletedMultipartUpload::builder().set_parts(Some(parts)).build())
            .set_if_none_match((how == Commit::IfAbsent).then(|| "*".to_owned()));
        let answer = self.bucket.call(request.send())?;
        Ok(answer.map(|answer| answer.e_tag().map(head::bare)))
    }

    /// There is nothing left to be ended: the object is there.
    pub(super) fn forget(self) -> Result<()> {
        self.record.remove()
    }

    /// Ends the upload, whatever of it has arrived. One that cannot be ended stays on record, and so does one of which a part
    /// was on its way: the store may take that in after the end, and then has an upload again.
    pub(super) fn abandon(mut self) {
        let under_way = !self.parts.is_empty();
        self.parts.abort_all();
        while block(self.parts.join_next()).is_some() {}
        match abort(&self.bucket, &self.bucket.name(self.key.as_str()), &self.id) {
            Ok(_) if under_way => {
                // Without that line the next sweep counts from its own look.
                let _ = self.record.ended();
            }
            Ok(_) => {
                // A record that stays is found to stand for nothing by the next sweep.
                let _ = self.record.remove();
            }
            Err(error) => tracing::warn!("{error}; the next run ends it"),
        }
    }
}

/// The checksum that the upload and each of its parts name; they must agree.
fn checksum_of(bucket: &Bucket) -> Option<ChecksumAlgorithm> {
    (bucket.settings.checksums == Checksums::WhenSupported).then_some(ChecksumAlgorithm::Crc32)
}

/// Sends one part and looks at the answer.
async fn part(
    client: Client,
    bucket: Arc<Bucket>,
    key: ObjectKey,
    id: String,
    number: i32,
    body: Bytes,
) -> Result<Sent> {
    let sum = md5(&body);
    let request = client
        .upload_part()
        .bucket(&bucket.settings.bucket)
        .key(bucket.name(key.as_str()))
        .upload_id(id)
        .part_number(number)
        .set_checksum_algorithm(checksum_of(&bucket))
        .content_length(body.len() as i64)
        .body(ByteStream::from(body));
    let answer = request
        .send()
        .await
        .map_err(|cause| bucket.error("uploading a part of", "s3:PutObject", &key, Failure::from(cause)))?;
    let etag = answer.e_tag().unwrap_or_default();
    if contradicts(&head::bare(etag), sum.as_deref(), answer.server_side_encryption()) {
        let text = format!("uploading part {number} of {key} to {}: the store received other bytes", bucket.location());
        return Err(Error::new(Code::RepositoryIo, text)
            .with_hint("its checksum is not that of what was sent; run it again, and look at the network between"));
    }
    let part = CompletedPart::builder()
        .part_number(number)
        .e_tag(etag)
        .set_checksum_crc32(answer.checksum_crc32)
        .set_checksum_crc32_c(answer.checksum_crc32_c)
        .set_checksum_crc64_nvme(answer.checksum_crc64_nvme)
        .set_checksum_sha256(answer.checksum_sha256)
        .build();
    Ok(Sent { part, md5: sum })
}

/// Ends an upload; one that is not there any more is fine. Tells whether it was.
pub(super) fn abort(bucket: &Bucket, name: &str, id: &str) -> Result<bool> {
    for tried in 0..ABORTS_MAX {
        let request = bucket.clients()?.quick.abort_multipart_upload().bucket(&bucket.settings.bucket);
        match bucket.call(request.key(name).upload_id(id).send())? {
            Ok(_) => {}
            Err(failure) if failure.is_no_upload() => return Ok(tried > 0),
            Err(failure) => {
                let what = format!("the unfinished upload of {name}");
                let attempt = Attempt { doing: "ending", right: "s3:AbortMultipartUpload", what };
                return Err(failure.into_error(&attempt, &bucket.location()));
            }
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_checksum_that_is_one_contradicts() {
        let (sum, other) = (md5(b"abc").expect("md5"), md5(b"abd").expect("md5"));
        let etag = hex::encode(&sum);
        assert!(!contradicts(&etag, Some(&sum), None));
        assert!(!contradicts(&etag.to_uppercase(), Some(&sum), None));
        assert!(contradicts(&etag, Some(&other), None));
        assert!(contradicts(&etag, Some(&other), Some(&ServerSideEncryption::Aes256)));
        assert!(!contradicts(&etag, Some(&other), Some(&ServerSideEncryption::AwsKms)));
        assert!(!contradicts("opaque", Some(&other), None));
        assert!(!contradicts(&etag, None, None));
    }
}
