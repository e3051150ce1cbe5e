//! Listing a bucket, page by page.

use super::client::Bucket;
use super::fault::Attempt;
use super::head::time;
use crate::artifact::object_key::ObjectKey;
use crate::base::{Code, Error, Result};
use crate::repository::store::ObjectInfo;

/// Shows every object below the repository's prefix whose key begins with `prefix`, in the order of keys. What is no
/// well-formed key is not ours.
pub(super) fn list(bucket: &Bucket, prefix: &str, visit: &mut dyn FnMut(ObjectInfo) -> Result<()>) -> Result<()> {
    let own = bucket.name("");
    let whole = format!("{own}{prefix}");
    let mut token: Option<String> = None;
    let mut last: Option<String> = None;
    loop {
        let request = bucket.clients()?.quick.list_objects_v2().bucket(&bucket.settings.bucket);
        let request = request.prefix(&whole).set_continuation_token(token.clone());
        let page = bucket.call(request.send())?.map_err(|failure| {
            let what = if prefix.is_empty() { "everything".to_owned() } else { format!("{prefix}…") };
            failure.into_error(&Attempt { doing: "listing", right: "s3:ListBucket", what }, &bucket.location())
        })?;
        for object in page.contents() {
            let name = object.key().unwrap_or_default();
            // Whoever goes through the keys relies on their order, and a page that came twice would be counted twice.
            if last.as_deref().is_some_and(|last| name <= last) {
                return Err(unordered(bucket, name));
            }
            last = Some(name.to_owned());
            let Some(key) = name.strip_prefix(&own).filter(|_| name.starts_with(&whole)) else { continue };
            let Ok(key) = ObjectKey::new(key) else { continue };
            let size = object.size().and_then(|size| u64::try_from(size).ok()).unwrap_or_default();
            visit(ObjectInfo { key, size, modified: time(object.last_modified()) })?;
        }
        let next = page.next_continuation_token().filter(|_| page.is_truncated() == Some(true)).map(str::to_owned);
        match next {
            None if page.is_truncated() == Some(true) => return Err(endless(bucket)),
            None => return Ok(()),
            next if next == token => return Err(endless(bucket)),
            next => token = next,
        }
    }
}

fn unordered(bucket: &Bucket, name: &str) -> Error {
    let text = format!("listing {}: the store shows {name:?} out of the order of keys", bucket.location());
    Error::new(Code::RepositoryIo, text)
        .with_hint("a bucket that lists without order (a directory bucket) cannot be used")
}

fn endless(bucket: &Bucket) -> Error {
    Error::new(Code::RepositoryIo, format!("listing {}: the store does not say how it goes on", bucket.location()))
        .with_hint("the store did not take the request; its own log says more")
}
