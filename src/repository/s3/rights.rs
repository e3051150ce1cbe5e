//! Which rights the credentials have, tried one by one with requests that leave nothing behind.
//!
//! Deleting is not tried: a writer that must not delete is a good one, and in a bucket with versions a deletion leaves a marker.

use super::client::Bucket;
use super::fault::{Attempt, Failure};
use super::journal::Journal;
use super::reader::S3Reader;
use super::upload::{Upload, abort};
use super::writer::Facts;
use crate::artifact::object_key::{self, ObjectKey};
use crate::base::{Code, Error, Result};
use crate::repository::store::ObjectFacts;
use std::sync::Arc;

/// Object that an upload is begun and ended for. It never comes to be.
const PROBE: &str = "check/rights";
/// An upload that no store has: where ending it is refused, it is for want of the right.
const NO_UPLOAD: &str = "neo4j-backup-agent-tries-its-rights";

/// Every refusal, with the right that lacks. What else goes wrong says nothing of rights.
pub(super) fn missing(bucket: &Arc<Bucket>, journal: &Journal) -> Vec<Error> {
    let mut tried = vec![list(bucket), read(bucket)];
    let may_end = end(bucket);
    // What could not be ended would be left behind by each try.
    if may_end.is_ok() {
        tried.push(begin_and_end(bucket, journal));
    }
    tried.extend([may_end, list_uploads(bucket)]);
    tried.into_iter().filter_map(Result::err).filter(|error| error.code() == Code::StorageDenied).collect()
}

fn list(bucket: &Bucket) -> Result<()> {
    let request = bucket.clients()?.quick.list_objects_v2().bucket(&bucket.settings.bucket);
    let answer = bucket.call(request.prefix(bucket.name("")).max_keys(1).send())?;
    refused(bucket, answer, "listing", "s3:ListBucket", "everything")
}

fn read(bucket: &Arc<Bucket>) -> Result<()> {
    S3Reader::open(bucket, &object_key::repository(), None).map(drop)
}

fn end(bucket: &Bucket) -> Result<()> {
    match abort(bucket, &bucket.name(PROBE), NO_UPLOAD) {
        // Some stores do not take the id for one.
        Err(error) if error.code() == Code::RepositoryIo => Ok(()),
        ended => ended.map(drop),
    }
}

fn begin_and_end(bucket: &Arc<Bucket>, journal: &Journal) -> Result<()> {
    let facts = Facts::new(&bucket.settings.hostname, &ObjectFacts::new())?;
    Upload::begin(bucket.clone(), journal, ObjectKey::new(PROBE)?, &facts)?.abandon();
    Ok(())
}

fn list_uploads(bucket: &Bucket) -> Result<()> {
    let request = bucket.clients()?.quick.list_multipart_uploads().bucket(&bucket.settings.bucket);
    let answer = bucket.call(request.prefix(bucket.name("")).max_uploads(1).send())?;
    refused(bucket, answer, "listing", "s3:ListBucketMultipartUploads", "unfinished uploads")
}

fn refused<T>(
    bucket: &Bucket,
    answer: std::result::Result<T, Failure>,
    doing: &'static str,
    right: &'static str,
    what: &str,
) -> Result<()> {
    let attempt = Attempt { doing, right, what: what.to_owned() };
    answer.map(drop).map_err(|failure| failure.into_error(&attempt, &bucket.location()))
}
