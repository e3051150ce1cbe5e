//! The signed record of one batch of a database's log: what was committed between two points of it.
//!
//! A batch is one object and, written last, one manifest beside it. Batches follow each other without a gap: the start
//! of each is the end of the one before it, or of the base that the chain begins with.

use super::digest::sha256_hex;
use super::identity::{FORMAT, Owner};
use super::manifest::{Engine, ObjectRecord};
use super::object_key::{self, MANIFEST_SUFFIX, ObjectKey};
use super::signing::{self, Key, KeyId, Keyring};
use crate::base::ids::TargetName;
use crate::base::{Code, Error, Result};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A point in a log between two transactions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogMark {
    /// Number of the log file.
    pub file: u64,
    /// Byte in that file; the log before it is covered.
    pub offset: u64,
    /// The last transaction before the point.
    pub transaction: u64,
    /// Byte at which that transaction begins in its file. Absent where the transaction itself was not seen: at the end
    /// of a cleanly closed store, or at a file's beginning.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub began: Option<u64>,
    /// That transaction's checksum as the log holds it, 8 hex digits: by which a fork of history is noticed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checksum: Option<String>,
    /// Its index among everything appended to the log, where the format counts that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub append_index: Option<u64>,
    /// When it was committed, by the server's clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub committed_at: Option<Timestamp>,
}

impl LogMark {
    /// Whether both are the same point of the same history: what one of them does not know is not held against it.
    pub fn same_point(&self, other: &LogMark) -> bool {
        let agree = match (&self.checksum, &other.checksum) {
            (Some(one), Some(two)) => one == two,
            _ => true,
        };
        (self.file, self.offset, self.transaction) == (other.file, other.offset, other.transaction) && agree
    }

    /// Whether both name the same transaction and mean another one: they are of different histories.
    pub fn contradicts(&self, other: &LogMark) -> bool {
        self.transaction == other.transaction
            && matches!((&self.checksum, &other.checksum), (Some(one), Some(two)) if one != two)
    }
}

/// An unbroken range of bytes of one log file that holds whole transactions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogSegment {
    /// Number of the log file.
    pub file: u64,
    /// Where the range begins; 0 = with the file's header.
    pub offset: u64,
    /// Bytes.
    pub length: u64,
    /// SHA-256 of these bytes.
    pub sha256: String,
    /// Its first transaction; absent if there is none (a header alone).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_transaction: Option<u64>,
    /// Its last transaction.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_transaction: Option<u64>,
    /// How many transactions it holds.
    pub transactions: u64,
    /// The earliest time of commit; commit times do not always rise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_committed_at: Option<Timestamp>,
    /// The latest time of commit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_committed_at: Option<Timestamp>,
    /// The log's format, by the database's own name: `V9`.
    pub log_format: String,
}

/// Tells signed documents of different sorts apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LogBatchDocument {
    /// The only value.
    #[serde(rename = "log-batch")]
    LogBatch,
}

/// Where a chain is known to end: the newest of its histories, and how far that goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Known {
    /// Which of the log's histories.
    pub lineage: u32,
    /// Its last transaction there.
    pub transaction: u64,
}

/// Binds a batch to the one before it in its repository.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogBatchLink {
    /// Its manifest's key.
    pub key: ObjectKey,
    /// SHA-256 of its manifest's bytes.
    pub manifest_sha256: String,
}

/// What a batch was merged of, which it stands for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Merged {
    /// How often its oldest parts were merged, from 1.
    pub level: u32,
    /// The number of the first batch; [`LogBatch::sequence`] is that of the last.
    pub first_sequence: u64,
    /// The last batch as its successor names it.
    pub last: LogBatchLink,
    /// When they were merged.
    pub at: Timestamp,
}

/// A batch's record. Fields are only ever added; `docs/FORMAT.md` explains each.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LogBatch {
    /// Always `log-batch`.
    pub document: LogBatchDocument,
    /// Format version.
    pub format: u32,
    /// The environment, part of the key.
    pub environment: String,
    /// The database.
    pub target: TargetName,
    /// The database program.
    pub engine: Engine,
    /// The database's name on its server.
    pub db_name: String,
    /// Whose log it is: Neo4j's store id, PostgreSQL's system identifier.
    pub stream: String,
    /// Which of the log's histories, from 1: one that was forked by a restore goes on under the next number.
    pub lineage: u32,
    /// 1 for the first batch of this lineage in this repository, then counting.
    pub sequence: u64,
    /// The batch before it.
    pub predecessor: Option<LogBatchLink>,
    /// The point it begins at: the end of the batch before it, or of a base.
    pub start: LogMark,
    /// The point it ends at.
    pub end: LogMark,
    /// Its first transaction.
    pub first_transaction: u64,
    /// Its last transaction.
    pub last_transaction: u64,
    /// How many transactions it holds.
    pub transactions: u64,
    /// The earliest time of commit.
    pub first_committed_at: Timestamp,
    /// The latest time of commit.
    pub last_committed_at: Timestamp,
    /// What the object's plaintext consists of, one after the other.
    pub segments: Vec<LogSegment>,
    /// The object.
    pub object: ObjectRecord,
    /// When it was taken from the source.
    pub created_at: Timestamp,
    /// Program and version.
    pub created_by: String,
    /// The host.
    pub hostname: String,
    /// Who writes this chain.
    pub owner: Owner,
    /// The server's version.
    pub server_version: String,
    /// What it was merged of; absent if it was read from the source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub merged: Option<Merged>,
    /// How its history left the one before it, in the server's own words: PostgreSQL's history file of a timeline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<String>,
    /// Where the chains of the target's other repositories ended, as far as was known when this was written, by their configured
    /// names. Two chains of which neither knows the other's end may have been written from databases that differ.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub beside: BTreeMap<String, Known>,
}

impl LogBatch {
    /// How often its parts were merged; 0 = it was read from the source.
    pub fn level(&self) -> u32 {
        self.merged.as_ref().map_or(0, |merged| merged.level)
    }

    /// The number of its first part.
    pub fn first_sequence(&self) -> u64 {
        self.merged.as_ref().map_or(self.sequence, |merged| merged.first_sequence)
    }

    /// Whether `other` was merged into this one, so that nothing needs it any more.
    pub fn stands_for(&self, other: &LogBatch) -> bool {
        self.level() > other.level()
            && (&self.stream, self.lineage) == (&other.stream, other.lineage)
            && self.start.transaction <= other.start.transaction
            && other.end.transaction <= self.end.transaction
            && (self.first_sequence()..=self.sequence).contains(&other.first_sequence())
    }

    /// The key this record is stored under: the object's, with the manifest's ending.
    pub fn key(&self) -> Result<ObjectKey> {
        let (file, offset) = self.segments.first().map_or((self.start.file, self.start.offset), |s| (s.file, s.offset));
        let stem = object_key::log_batch_stem(
            &self.environment,
            &self.target,
            &self.stream,
            self.lineage,
            (self.first_transaction, file, offset),
        );
        let stem = match self.merged {
            Some(_) => object_key::merged_batch_stem(&stem, self.last_transaction),
            None => stem,
        };
        ObjectKey::new(format!("{stem}{MANIFEST_SUFFIX}"))
    }

    /// Whether both hold the same of the log: the same ranges with the same bytes between the same points.
    pub fn same_content(&self, other: &LogBatch) -> bool {
        let range = |s: &LogSegment| (s.file, s.offset, s.length, s.sha256.clone());
        self.start.same_point(&other.start)
            && self.end.same_point(&other.end)
            && self.segments.iter().map(range).eq(other.segments.iter().map(range))
    }

    /// Renders and signs it.
    pub fn seal(&self, key: &Key) -> Result<Vec<u8>> {
        signing::seal(self, key)
    }

    /// Checks the signature, then the format version, then that the record belongs under `stored_as` and makes sense.
    pub fn open(bytes: &[u8], keyring: &Keyring, stored_as: &ObjectKey) -> Result<SignedLogBatch> {
        let what = format!("manifest {stored_as}");
        let (batch, signed_by): (LogBatch, KeyId) = signing::open(bytes, keyring, &what)?;
        if batch.format > FORMAT {
            let text = format!("{what} has format {}, this release reads up to {FORMAT}", batch.format);
            return Err(Error::new(Code::FormatUnsupported, text));
        }
        if &batch.key()? != stored_as {
            let text = format!("{what} is that of another batch: it was renamed or put in another's place");
            return Err(Error::new(Code::SignatureInvalid, text));
        }
        if let Err(why) = batch.make_sense(stored_as) {
            return Err(Error::new(Code::SignatureInvalid, format!("{what} makes no sense: {why}")));
        }
        Ok(SignedLogBatch { batch, signed_by, bytes_sha256: sha256_hex(bytes) })
    }

    fn make_sense(&self, stored_as: &ObjectKey) -> Result<(), &'static str> {
        let stem = stored_as.as_str().trim_end_matches(MANIFEST_SUFFIX);
        if !self.object.key.as_str().strip_prefix(stem).is_some_and(|rest| rest.starts_with('.'))
            || !self.object.stored.is_consistent()
        {
            return Err("its record of its object");
        }
        let length = self.segments.iter().try_fold(0u64, |sum, segment| sum.checked_add(segment.length));
        if length != Some(self.object.plain.size) {
            return Err("the lengths of its segments");
        }
        let ordered = self.segments.windows(2).all(|pair| pair[0].file < pair[1].file);
        let last = self.segments.last().ok_or("it has no segment")?;
        if !ordered || (self.end.file, Some(self.end.offset)) != (last.file, last.offset.checked_add(last.length)) {
            return Err("the order of its segments");
        }
        let transactions: u64 = self.segments.iter().map(|segment| segment.transactions).sum();
        if transactions != self.transactions || self.end.transaction != self.last_transaction {
            return Err("its count of transactions");
        }
        if let Some(merged) = &self.merged
            && (merged.level == 0 || merged.first_sequence >= self.sequence)
        {
            return Err("what it was merged of");
        }
        Ok(())
    }
}

/// The batches that count, and those that were merged into one of them, with when that was.
pub fn part_merged(batches: &[SignedLogBatch]) -> (Vec<&SignedLogBatch>, Vec<(&SignedLogBatch, Timestamp)>) {
    let wholes: Vec<(&LogBatch, &Merged)> =
        batches.iter().filter_map(|signed| Some((&signed.batch, signed.batch.merged.as_ref()?))).collect();
    let (mut count, mut parts) = (Vec::new(), Vec::new());
    for signed in batches {
        match wholes.iter().find(|(whole, _)| whole.stands_for(&signed.batch)) {
            Some((_, merged)) => parts.push((signed, merged.at)),
            None => count.push(signed),
        }
    }
    (count, parts)
}

/// A batch's record whose signature was checked.
#[derive(Clone, Debug, PartialEq)]
pub struct SignedLogBatch {
    /// Its content.
    pub batch: LogBatch,
    /// The key that signed it.
    pub signed_by: KeyId,
    /// SHA-256 of its exact bytes, by which its successor names it.
    pub bytes_sha256: String,
}

impl SignedLogBatch {
    /// As whatever follows it names it: the last of its parts, if it was merged.
    pub fn link(&self) -> Result<LogBatchLink> {
        match &self.batch.merged {
            Some(merged) => Ok(merged.last.clone()),
            None => Ok(LogBatchLink { key: self.batch.key()?, manifest_sha256: self.bytes_sha256.clone() }),
        }
    }
}

#[cfg(test)]
pub(crate) mod sample;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::artifact::digest::StoredDigest;
    use crate::artifact::manifest::{Content, PlainDigest, Role};
    use crate::base::secret::Secret;

    fn keyring() -> Keyring {
        Keyring::new(Key::derive(Secret::new(b"correct horse battery staple".to_vec()), "test").expect("key"), vec![])
    }

    fn mark(file: u64, offset: u64, transaction: u64) -> LogMark {
        LogMark { file, offset, transaction, began: None, checksum: None, append_index: None, committed_at: None }
    }

    fn segment(file: u64, offset: u64, length: u64, transactions: std::ops::RangeInclusive<u64>) -> LogSegment {
        LogSegment {
            file,
            offset,
            length,
            sha256: sha256_hex(b""),
            first_transaction: Some(*transactions.start()),
            last_transaction: Some(*transactions.end()),
            transactions: transactions.count() as u64,
            first_committed_at: None,
            last_committed_at: None,
            log_format: "V9".to_owned(),
        }
    }

    fn batch() -> LogBatch {
        let target = TargetName::new("graph").expect("target");
        let stem = object_key::log_batch_stem("prod", &target, "000001a1", 1, (4, 0, 300));
        let time = Timestamp::UNIX_EPOCH;
        LogBatch {
            document: LogBatchDocument::LogBatch,
            format: FORMAT,
            environment: "prod".to_owned(),
            target,
            engine: Engine::Neo4j,
            db_name: "neo4j".to_owned(),
            stream: "000001a1".to_owned(),
            lineage: 1,
            sequence: 1,
            predecessor: None,
            start: mark(0, 300, 3),
            end: mark(1, 228, 9),
            first_transaction: 4,
            last_transaction: 9,
            transactions: 6,
            first_committed_at: time,
            last_committed_at: time,
            segments: vec![segment(0, 300, 50, 4..=7), segment(1, 0, 228, 8..=9)],
            object: ObjectRecord {
                key: ObjectKey::new(format!("{stem}.log.zst.enc")).expect("key"),
                role: Role::Log,
                name: "log".to_owned(),
                lane: 0,
                content: Content::LogRanges,
                stored: StoredDigest::of(b"stored"),
                plain: PlainDigest { size: 278, crc32c: "00000000".to_owned(), sha256: None },
                filters: vec![],
                encryption: None,
            },
            created_at: time,
            created_by: "test".to_owned(),
            hostname: "host".to_owned(),
            owner: Owner {
                host: "host".to_owned(),
                machine_id: "m".to_owned(),
                data_identity: "000001a1".to_owned(),
                epoch: 1,
            },
            server_version: "5.26.0".to_owned(),
            merged: None,
            origin: None,
            beside: BTreeMap::new(),
        }
    }

    fn reopen(batch: &LogBatch, key: &ObjectKey) -> Result<SignedLogBatch> {
        let keyring = keyring();
        LogBatch::open(&batch.seal(&keyring.current()).expect("seal"), &keyring, key)
    }

    #[test]
    fn a_batch_lies_where_its_first_transaction_says() {
        let key = batch().key().expect("key");
        assert_eq!(
            key.as_str(),
            "environment=prod/log/graph/000001a1/00000001/00000000000000000004-0000000000-000000000300.meta.json"
        );
        assert_eq!(reopen(&batch(), &key).expect("open").batch, batch());
    }

    // req: X5
    #[test]
    fn a_batch_in_anothers_place_or_without_sense_is_refused() {
        let key = batch().key().expect("key");
        let refused = |change: &dyn Fn(&mut LogBatch)| {
            let mut changed = batch();
            change(&mut changed);
            reopen(&changed, &key).expect_err("must be refused").code()
        };
        assert_eq!(refused(&|b| b.lineage = 2), Code::SignatureInvalid);
        assert_eq!(
            refused(&|b| b.object.key = ObjectKey::new("environment=prod/log/other.enc").expect("key")),
            Code::SignatureInvalid
        );
        assert_eq!(refused(&|b| b.segments[1].length += 1), Code::SignatureInvalid);
        assert_eq!(refused(&|b| b.segments[1].length = u64::MAX), Code::SignatureInvalid);
        assert_eq!(refused(&|b| b.segments.swap(0, 1)), Code::SignatureInvalid);
        assert_eq!(refused(&|b| b.end.offset += 1), Code::SignatureInvalid);
        assert_eq!(refused(&|b| b.end.transaction += 1), Code::SignatureInvalid);
        assert_eq!(refused(&|b| b.transactions += 1), Code::SignatureInvalid);
        assert_eq!(refused(&|b| b.format += 1), Code::FormatUnsupported);
    }
}
