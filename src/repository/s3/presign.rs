//! Addresses that carry their own permission: signed with our credentials, good for a while, for one object.

use super::client::Bucket;
use crate::artifact::object_key::ObjectKey;
use crate::base::{Code, Error, Result};
use aws_sdk_s3::presigning::PresigningConfig;
use std::time::Duration;

/// The address of an object. Signed here; of the network only what the credentials need is asked.
pub(super) fn address(bucket: &Bucket, key: &ObjectKey, lifetime: Duration) -> Result<String> {
    let config = PresigningConfig::expires_in(lifetime).map_err(|cause| {
        Error::new(Code::Usage, format!("an address for {} s: {cause}", lifetime.as_secs()))
            .with_hint("an address is good for at least a second and at most seven days")
    })?;
    let request = bucket.clients()?.quick.get_object().bucket(&bucket.settings.bucket).key(bucket.name(key.as_str()));
    // The store answers nothing here, so this is no call of it.
    let signed = bucket.bridge.wait(async move { request.presigned(config).await })?;
    let signed = signed.map_err(|cause| bucket.error("signing an address for", "s3:GetObject", key, cause.into()))?;
    Ok(signed.uri().to_owned())
}
