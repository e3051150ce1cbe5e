//! What the bucket knows of an object, and taking it away.

use super::client::Bucket;
use super::fault::Failure;
use crate::artifact::object_key::ObjectKey;
use crate::base::{Code, Error, Result};
use crate::repository::store::ObjectInfo;
use aws_sdk_s3::primitives::DateTime;
use aws_sdk_s3::types::ServerSideEncryption;
use jiff::Timestamp;

/// Name of the metadata with the writer's token.
pub(super) const TOKEN: &str = "writer";

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Head {
    pub(super) size: u64,
    /// With the quotes taken off.
    pub(super) etag: Option<String>,
    pub(super) token: Option<String>,
    pub(super) encryption: Option<ServerSideEncryption>,
    modified: Timestamp,
}

impl Head {
    pub(super) fn info(&self, key: &ObjectKey) -> ObjectInfo {
        ObjectInfo { key: key.clone(), size: self.size, modified: self.modified }
    }
}

/// Whole seconds: HEAD knows no others, and a listing must agree with it.
pub(super) fn time(at: Option<&DateTime>) -> Timestamp {
    at.and_then(|at| Timestamp::from_second(at.secs()).ok()).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// An ETag without its quotes.
pub(super) fn bare(etag: &str) -> String {
    etag.trim_matches('"').to_owned()
}

/// Looks at an object; `None` if it is not there.
pub(super) fn of(bucket: &Bucket, key: &ObjectKey) -> Result<Option<Head>> {
    let request = bucket.clients()?.quick.head_object().bucket(&bucket.settings.bucket).key(bucket.name(key.as_str()));
    let answer = match bucket.call(request.send())? {
        Ok(answer) => answer,
        Err(failure) if failure.is_absent() => return Ok(None),
        Err(failure) => {
            let failure = if failure.is_mute_refusal() { reason(bucket, key)?.unwrap_or(failure) } else { failure };
            return Err(bucket.error("examining", "s3:GetObject", key, failure));
        }
    };
    let size = answer.content_length().and_then(|size| u64::try_from(size).ok()).ok_or_else(|| {
        Error::new(Code::RepositoryIo, format!("examining {key} in {}: the store tells no size", bucket.location()))
            .with_hint("a proxy between may have taken it away; the store's own log says more")
    })?;
    Ok(Some(Head {
        size,
        etag: answer.e_tag().map(bare),
        token: answer.metadata().and_then(|metadata| metadata.get(TOKEN)).cloned(),
        encryption: answer.server_side_encryption().cloned(),
        modified: time(answer.last_modified()),
    }))
}

/// HEAD's refusals have no body; the same question as a GET of one byte says why.
fn reason(bucket: &Bucket, key: &ObjectKey) -> Result<Option<Failure>> {
    let request = bucket.clients()?.quick.get_object().bucket(&bucket.settings.bucket);
    Ok(bucket.call(request.key(bucket.name(key.as_str())).range("bytes=0-0").send())?.err())
}

/// Removes an object; one that is not there is fine.
pub(super) fn delete(bucket: &Bucket, key: &ObjectKey) -> Result<()> {
    let request =
        bucket.clients()?.quick.delete_object().bucket(&bucket.settings.bucket).key(bucket.name(key.as_str()));
    match bucket.call(request.send())? {
        Ok(_) => Ok(()),
        Err(failure) if failure.is_absent() => Ok(()),
        Err(failure) => Err(bucket.error("deleting", "s3:DeleteObject", key, failure)),
    }
}
