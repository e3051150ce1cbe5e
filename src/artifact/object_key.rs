//! Names of objects in a repository, as requirement A1 lays them out.

use crate::artifact::signing::KeyId;
use crate::base::ids::{BackupId, TargetName};
use crate::base::{Code, Error, Result};
use serde::{Deserialize, Serialize};
use std::fmt;

/// Longest key, in bytes; S3 allows no more.
pub const KEY_MAX: usize = 1024;
/// The manifest's ending.
pub const MANIFEST_SUFFIX: &str = ".meta.json";

/// A key: `/`-separated segments out of `[A-Za-z0-9._=-]`, none of them empty, `.` or `..`, none hidden.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ObjectKey(String);

impl ObjectKey {
    /// Accepts a well-formed key.
    pub fn new(key: impl Into<String>) -> Result<Self> {
        let key = key.into();
        let segment_good = |s: &str| {
            !s.is_empty() && !s.starts_with('.') && s.bytes().all(|b| b.is_ascii_alphanumeric() || b"._=-".contains(&b))
        };
        if key.len() > KEY_MAX || !key.split('/').all(segment_good) {
            return Err(Error::new(Code::Usage, format!("{key:?} is not a valid object key")));
        }
        Ok(ObjectKey(key))
    }

    /// The key as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The part after the last `/`.
    pub fn file_name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or(&self.0)
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for ObjectKey {
    type Error = Error;
    fn try_from(key: String) -> Result<Self> {
        ObjectKey::new(key)
    }
}

impl From<ObjectKey> for String {
    fn from(key: ObjectKey) -> String {
        key.0
    }
}

/// `environment=ENV/`: everything of one environment is below it.
pub fn environment_prefix(environment: &str) -> String {
    format!("environment={environment}/")
}

/// `environment=…/year=…/month=…/day=…/TARGET-STAMP`, to which an ending is added.
fn backup_stem(environment: &str, id: &BackupId) -> String {
    let day = id.stamp.timestamp().strftime("year=%Y/month=%m/day=%d").to_string();
    format!("{}{day}/{}-{}", environment_prefix(environment), id.target, id.stamp)
}

/// The key of a backup's object: `extension` without its leading dot, for example `dump.enc`.
pub fn backup_object(environment: &str, id: &BackupId, extension: &str) -> Result<ObjectKey> {
    ObjectKey::new(format!("{}.{extension}", backup_stem(environment, id)))
}

/// The key of a backup's manifest.
pub fn backup_manifest(environment: &str, id: &BackupId) -> Result<ObjectKey> {
    ObjectKey::new(format!("{}{MANIFEST_SUFFIX}", backup_stem(environment, id)))
}

/// `environment=…/log/TARGET/`: log batches, and who owns them.
pub fn log_prefix(environment: &str, target: &TargetName) -> String {
    format!("{}log/{target}/", environment_prefix(environment))
}

/// `environment=…/log/TARGET/STREAM/LINEAGE/`: the batches of one history of one log.
pub fn log_lineage_prefix(environment: &str, target: &TargetName, stream: &str, lineage: u32) -> String {
    format!("{}{stream}/{lineage:08}/", log_prefix(environment, target))
}

/// A Neo4j batch's key without endings; `first` = its first transaction, the number of the log file, the byte in it.
pub fn log_batch_stem(
    environment: &str,
    target: &TargetName,
    stream: &str,
    lineage: u32,
    first: (u64, u64, u64),
) -> String {
    let (transaction, file, offset) = first;
    let prefix = log_batch_prefix(environment, target, stream, lineage, transaction);
    format!("{prefix}{file:010}-{offset:012}")
}

/// Prefix of the keys of batches that begin with a transaction.
pub fn log_batch_prefix(
    environment: &str,
    target: &TargetName,
    stream: &str,
    lineage: u32,
    first_transaction: u64,
) -> String {
    format!("{}{first_transaction:020}-", log_lineage_prefix(environment, target, stream, lineage))
}

/// The key without endings of a batch that others were merged into: that of the first of them, and the last transaction.
pub fn merged_batch_stem(stem_of_first: &str, last_transaction: u64) -> String {
    format!("{stem_of_first}-{last_transaction:020}")
}

/// What the key of a batch says of it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct BatchPlace {
    /// Whose log it is.
    pub stream: String,
    /// Which of its histories.
    pub lineage: u32,
    /// The batch's first transaction.
    pub first_transaction: u64,
    /// Its last transaction, if others were merged into it.
    pub merged_to: Option<u64>,
    /// The key's part before the first dot.
    pub stem: String,
}

/// The place of an object of a target's log batches; `None` for whatever else has such a key.
pub fn batch_place(environment: &str, target: &TargetName, key: &ObjectKey) -> Option<BatchPlace> {
    let rest = key.as_str().strip_prefix(&log_prefix(environment, target))?;
    let (stream, rest) = rest.split_once('/')?;
    let (lineage, name) = rest.split_once('/')?;
    let stem = name.split('.').next()?;
    let mut numbers = stem.split('-').map(|digits| digits.parse::<u64>().ok());
    let place = BatchPlace {
        stream: stream.to_owned(),
        lineage: lineage.parse().ok()?,
        first_transaction: numbers.next()??,
        merged_to: None,
        stem: String::new(),
    };
    let first = (place.first_transaction, numbers.next()??, numbers.next()??);
    let merged_to = numbers.next().flatten();
    let stem = log_batch_stem(environment, target, stream, place.lineage, first);
    let stem = merged_to.map_or(stem.clone(), |last| merged_batch_stem(&stem, last));
    key.as_str().strip_prefix(&stem)?.starts_with('.').then_some(BatchPlace { merged_to, stem, ..place })
}

/// Where it is recorded who writes a target's chain.
pub fn owner(environment: &str, target: &TargetName) -> Result<ObjectKey> {
    ObjectKey::new(format!("{}owner.json", log_prefix(environment, target)))
}

/// The repository's own record.
pub fn repository() -> ObjectKey {
    ObjectKey("repository.json".to_owned())
}

/// What the keys of older passphrases begin with.
pub const ESCROW_PREFIX: &str = "keys/";
const ESCROW_SUFFIX: &str = ".enc";

/// An older passphrase, encrypted under the newest.
pub fn escrowed_key(key_id: &KeyId) -> Result<ObjectKey> {
    ObjectKey::new(format!("{ESCROW_PREFIX}{key_id}{ESCROW_SUFFIX}"))
}

/// Whose passphrase is kept under this key; `None` if it is another sort of key.
pub fn escrowed_id(key: &ObjectKey) -> Option<KeyId> {
    KeyId::parse(key.as_str().strip_prefix(ESCROW_PREFIX)?.strip_suffix(ESCROW_SUFFIX)?)
}

/// The ending that the filters add to `extension`: `tar` with zstd and encryption is `tar.zst.enc`.
pub fn filtered_extension(extension: &str, compression: Option<&str>, encrypted: bool) -> String {
    let compression = match compression {
        Some("zstd") => ".zst",
        Some("gzip") => ".gz",
        _ => "",
    };
    format!("{extension}{compression}{}", if encrypted { ".enc" } else { "" })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    // req: A1
    #[test]
    fn keys_can_be_pruned_and_queried_by_path() {
        let id: BackupId = "graph-20261120T023000Z-dump".parse().expect("id");
        assert_eq!(
            backup_object("prod", &id, "dump.enc").expect("key").as_str(),
            "environment=prod/year=2026/month=11/day=20/graph-20261120T023000Z.dump.enc"
        );
        assert_eq!(
            backup_manifest("prod", &id).expect("key").as_str(),
            "environment=prod/year=2026/month=11/day=20/graph-20261120T023000Z.meta.json"
        );
        assert_eq!(filtered_extension("base.tar", Some("zstd"), true), "base.tar.zst.enc");
    }

    #[test]
    fn a_batchs_place_stands_in_its_key() {
        let target = TargetName::new("graph").expect("name");
        let stem = log_batch_stem("prod", &target, "000001a1", 2, (4, 1, 300));
        let key = |text: &str| ObjectKey::new(text).expect("key");
        let place = batch_place("prod", &target, &key(&format!("{stem}.log.zst.enc"))).expect("place");
        assert_eq!((place.stream.as_str(), place.lineage, place.first_transaction), ("000001a1", 2, 4));
        assert_eq!((place.stem.as_str(), place.merged_to), (stem.as_str(), None));
        let merged = merged_batch_stem(&stem, 90);
        let place = batch_place("prod", &target, &key(&format!("{merged}.meta.json"))).expect("place");
        assert_eq!((place.stem.as_str(), place.first_transaction, place.merged_to), (merged.as_str(), 4, Some(90)));
        for other in [
            owner("prod", &target).expect("key"),
            key(&stem),
            key(&format!("{stem}0.meta.json")),
            key(&format!("{stem}-9.meta.json")),
            key(&format!("{merged}-1.meta.json")),
            key("x/y"),
        ] {
            assert_eq!(batch_place("prod", &target, &other), None, "{other}");
        }
        let other = TargetName::new("metrics").expect("name");
        assert_eq!(batch_place("prod", &other, &key(&format!("{stem}.meta.json"))), None);
    }

    #[test]
    fn keys_that_could_escape_are_refused() {
        for bad in ["", "/", "a//b", "../x", "a/..", "a/./b", "a b", "a/\0", ".hidden", "a\nb", "ü", "a/"] {
            assert!(ObjectKey::new(bad).is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn no_accepted_key_has_a_dot_segment(text in "[a./=]{0,12}") {
            if let Ok(key) = ObjectKey::new(text) {
                prop_assert!(key.as_str().split('/').all(|s| !s.is_empty() && !s.starts_with('.')));
            }
        }
    }
}
