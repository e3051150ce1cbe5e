//! Ending what this host's killed writers left unfinished in the bucket, and nothing else.

use super::client::Bucket;
use super::fault::Attempt;
use super::journal::{Begun, Journal};
use super::upload::abort;
use crate::base::Result;
use crate::base::clock::{Clock, SystemClock};
use jiff::{SignedDuration, Timestamp};

/// How far the store's clock may be from this host's, for an upload whose id never came back: signatures are refused
/// when the clocks differ by more.
const CLOCKS_DIFFER_MAX: SignedDuration = SignedDuration::from_mins(15);

/// Ends every recorded upload whose writer is dead; returns the names of their objects. Without a record nothing is
/// asked of the store.
pub(super) fn sweep(bucket: &Bucket, journal: &Journal) -> Result<Vec<String>> {
    let (dead, living) = journal.sort()?;
    let mut ended = Vec::new();
    for (mut record, begun) in dead {
        let found = match &begun.upload {
            Some(id) => vec![id.clone()],
            // The writer was killed while it waited for the id. A living writer that waits for one under the same name
            // could not be told from it.
            None if living.iter().any(|other| other.name == begun.name && other.upload.is_none()) => continue,
            None => unnamed(bucket, &begun, &living)?,
        };
        let mut was_there = false;
        for id in &found {
            was_there |= abort(bucket, &begun.name, id)?;
        }
        // Not there is not yet over: a part may still be on its way, or the request for the upload itself.
        match begun.ended {
            None => record.ended()?,
            Some(at) if SystemClock.now().duration_since(at).abs().unsigned_abs() >= bucket.patience.latecomers => {
                record.remove()?;
            }
            Some(_) => {}
        }
        if was_there {
            ended.push(begun.name);
        }
    }
    Ok(ended)
}

/// Uploads of exactly this name that began when the record was made, and are no living writer's.
fn unnamed(bucket: &Bucket, begun: &Begun, living: &[Begun]) -> Result<Vec<String>> {
    let (mut found, mut marker) = (Vec::new(), (None::<String>, None::<String>));
    loop {
        let request = bucket.clients()?.quick.list_multipart_uploads().bucket(&bucket.settings.bucket);
        let request =
            request.prefix(&begun.name).set_key_marker(marker.0.clone()).set_upload_id_marker(marker.1.clone());
        let page = bucket.call(request.send())?.map_err(|failure| {
            let what = format!("unfinished uploads of {}", begun.name);
            let attempt = Attempt { doing: "listing", right: "s3:ListBucketMultipartUploads", what };
            failure.into_error(&attempt, &bucket.location())
        })?;
        for upload in page.uploads() {
            let Some(id) = upload.upload_id() else { continue };
            let at = upload.initiated().and_then(|at| Timestamp::from_second(at.secs()).ok());
            let near = at.is_some_and(|at| at.duration_since(begun.at).abs() <= CLOCKS_DIFFER_MAX);
            let alive = living.iter().any(|other| other.upload.as_deref() == Some(id));
            if upload.key() == Some(&begun.name) && near && !alive {
                found.push(id.to_owned());
            }
        }
        let next = (page.next_key_marker().map(str::to_owned), page.next_upload_id_marker().map(str::to_owned));
        if page.is_truncated() != Some(true) || next == marker || next.0.is_none() {
            return Ok(found);
        }
        marker = next;
    }
}
