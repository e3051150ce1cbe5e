//! Validated names. A value of these types is safe to use as a path component, an object key and a table cell.

use super::{Code, Error, Result};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Longest target name, in bytes.
pub const TARGET_NAME_MAX: usize = 32;

/// A database to back up: `[a-z0-9_]{1,32}`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TargetName(String);

impl TargetName {
    /// Accepts `[a-z0-9_]{1,32}` and nothing else.
    pub fn new(name: &str) -> Result<Self> {
        let good = (1..=TARGET_NAME_MAX).contains(&name.len())
            && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
        if !good {
            return Err(Error::new(Code::Usage, format!("target name {name:?} is not valid"))
                .with_hint("a target's name has 1 to 32 characters out of a-z, 0-9 and _"));
        }
        Ok(TargetName(name.to_owned()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TargetName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for TargetName {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        TargetName::new(text)
    }
}

impl TryFrom<String> for TargetName {
    type Error = Error;
    fn try_from(text: String) -> Result<Self> {
        TargetName::new(&text)
    }
}

impl From<TargetName> for String {
    fn from(name: TargetName) -> String {
        name.0
    }
}

/// A second in UTC as it stands in keys and ids: `YYYYMMDDTHHMMSSZ`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Stamp(i64);

impl Stamp {
    /// The second that holds `time`.
    pub fn new(time: Timestamp) -> Self {
        Stamp(time.as_second())
    }

    /// The start of the second.
    pub fn timestamp(self) -> Timestamp {
        Timestamp::from_second(self.0).unwrap_or(Timestamp::UNIX_EPOCH)
    }

    /// The following second; two backups of a target never share one.
    pub fn next(self) -> Self {
        Stamp(self.0 + 1)
    }
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.timestamp().strftime("%Y%m%dT%H%M%SZ"))
    }
}

impl fmt::Debug for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Stamp {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        let bad = || Error::new(Code::Usage, format!("{text:?} is not a time of the form YYYYMMDDTHHMMSSZ"));
        civil(text)
            .and_then(|time| time.to_zoned(jiff::tz::TimeZone::UTC).ok())
            .map(|zoned| Stamp::new(zoned.timestamp()))
            .ok_or_else(bad)
    }
}

/// Reads the one spelling that a second has. By hand: a ledger has a hundred thousand of them to read for one answer.
fn civil(text: &str) -> Option<jiff::civil::DateTime> {
    if text.len() != 16 || &text.as_bytes()[8..9] != b"T" || !text.ends_with('Z') {
        return None;
    }
    let number = |from: usize, to: usize| {
        let digits = text.get(from..to).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))?;
        digits.parse::<i16>().ok()
    };
    let pair = |from: usize| number(from, from + 2).map(|value| value as i8);
    jiff::civil::DateTime::new(number(0, 4)?, pair(4)?, pair(6)?, pair(9)?, pair(11)?, pair(13)?, 0).ok()
}

impl TryFrom<String> for Stamp {
    type Error = Error;
    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<Stamp> for String {
    fn from(stamp: Stamp) -> String {
        stamp.to_string()
    }
}

/// What a backup holds, as it stands in its id: a whole database or the changes since.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BackupKind {
    /// A physical base (PostgreSQL base backup, Neo4j online base).
    Base,
    /// An official offline or synthetic dump (`neo4j-admin database dump`, `pg_dump`).
    Dump,
    /// A logical export over Bolt.
    Export,
    /// An archive made by `neo4j-admin database backup` of Neo4j Enterprise.
    Enterprise,
}

impl BackupKind {
    /// Every kind.
    pub const ALL: &'static [BackupKind] =
        &[BackupKind::Base, BackupKind::Dump, BackupKind::Export, BackupKind::Enterprise];

    /// The kind's name in ids, manifests and on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            BackupKind::Base => "base",
            BackupKind::Dump => "dump",
            BackupKind::Export => "export",
            BackupKind::Enterprise => "enterprise",
        }
    }
}

impl fmt::Display for BackupKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A backup's id: `TARGET-YYYYMMDDTHHMMSSZ-KIND`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct BackupId {
    /// The database.
    pub target: TargetName,
    /// When the backup was begun.
    pub stamp: Stamp,
    /// What it holds.
    pub kind: BackupKind,
}

impl fmt::Display for BackupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}", self.target, self.stamp, self.kind)
    }
}

impl FromStr for BackupId {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        let bad = || {
            Error::new(Code::Usage, format!("{text:?} is not a backup id"))
                .with_hint("an id looks like graph-20261120T020000Z-dump; `neo4j-backupctl list` shows them")
        };
        let mut parts = text.split('-');
        let (Some(target), Some(stamp), Some(kind), None) = (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(bad());
        };
        let kind = BackupKind::ALL.iter().copied().find(|k| k.as_str() == kind).ok_or_else(bad)?;
        Ok(BackupId {
            target: TargetName::new(target).map_err(|_| bad())?,
            stamp: stamp.parse().map_err(|_| bad())?,
            kind,
        })
    }
}

impl TryFrom<String> for BackupId {
    type Error = Error;
    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<BackupId> for String {
    fn from(id: BackupId) -> String {
        id.to_string()
    }
}

/// A job's number: given by the ledger, never used twice on a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct JobId(pub u64);

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl FromStr for JobId {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        text.parse().map(JobId).map_err(|_| Error::new(Code::Usage, format!("{text:?} is not a job number")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_backup_id_reads_back() {
        let id: BackupId = "graph-20261120T020000Z-dump".parse().expect("id");
        assert_eq!(id.to_string(), "graph-20261120T020000Z-dump");
    }

    #[test]
    fn what_is_no_time_is_no_stamp() {
        for bad in ["20261320T020000Z", "20260230T020000Z", "20261120T250000Z", "20261120T020060Z", "20261120T02000+Z"]
        {
            assert!(bad.parse::<Stamp>().is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn every_stamp_reads_back(second in 0i64..253_402_300_799) {
            let stamp = Stamp(second);
            prop_assert_eq!(stamp.to_string().parse::<Stamp>().expect("stamp"), stamp);
        }

        #[test]
        fn a_second_has_one_spelling(text in "[0-9]{7,9}[T ][0-9+]{5,7}[Zz]|\\PC{16}") {
            if let Ok(stamp) = text.parse::<Stamp>() {
                prop_assert_eq!(stamp.to_string(), text);
            }
        }

        #[test]
        fn hostile_names_are_refused(name in ".*") {
            if let Ok(target) = TargetName::new(&name) {
                prop_assert!(target.as_str().bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_'));
            }
            let _ = name.parse::<BackupId>();
        }
    }
}
