//! A batch for tests: transaction N is committed at second N of 1970 and takes ten bytes of the log.

use super::{LogBatch, LogBatchDocument, LogMark, LogSegment};
use crate::artifact::digest::{StoredDigest, sha256_hex};
use crate::artifact::identity::{FORMAT, Owner};
use crate::artifact::manifest::{Content, Engine, ObjectRecord, PlainDigest, Role};
use crate::artifact::object_key::{self, ObjectKey};
use crate::base::ids::TargetName;
use jiff::Timestamp;

/// Whose log it is.
pub(crate) fn target() -> TargetName {
    TargetName::new("graph").expect("name")
}

fn at(second: u64) -> Timestamp {
    Timestamp::from_second(second as i64).expect("time")
}

/// Where a transaction ends.
pub(crate) fn mark(transaction: u64) -> LogMark {
    LogMark {
        file: 0,
        offset: transaction * 10,
        transaction,
        began: None,
        checksum: None,
        append_index: None,
        committed_at: Some(at(transaction)),
    }
}

/// A batch of the transactions after `from` up to `to`.
pub(crate) fn batch(lineage: u32, sequence: u64, from: u64, to: u64) -> LogBatch {
    let stem = object_key::log_batch_stem("prod", &target(), "0a", lineage, (from + 1, 0, from * 10));
    LogBatch {
        document: LogBatchDocument::LogBatch,
        format: FORMAT,
        environment: "prod".to_owned(),
        target: target(),
        engine: Engine::Sim,
        db_name: "x".to_owned(),
        stream: "0a".to_owned(),
        lineage,
        sequence,
        predecessor: None,
        start: mark(from),
        end: mark(to),
        first_transaction: from + 1,
        last_transaction: to,
        transactions: to - from,
        first_committed_at: at(from + 1),
        last_committed_at: at(to),
        segments: vec![LogSegment {
            file: 0,
            offset: from * 10,
            length: (to - from) * 10,
            sha256: sha256_hex(b""),
            first_transaction: Some(from + 1),
            last_transaction: Some(to),
            transactions: to - from,
            first_committed_at: None,
            last_committed_at: None,
            log_format: "V9".to_owned(),
        }],
        object: ObjectRecord {
            key: ObjectKey::new(format!("{stem}.log.enc")).expect("key"),
            role: Role::Log,
            name: "log".to_owned(),
            lane: 0,
            content: Content::LogRanges,
            stored: StoredDigest::of(b"stored"),
            plain: PlainDigest { size: (to - from) * 10, crc32c: "00000000".to_owned(), sha256: None },
            filters: vec![],
            encryption: None,
        },
        created_at: at(to),
        created_by: "test".to_owned(),
        hostname: "host".to_owned(),
        owner: Owner { host: "host".into(), machine_id: "m".into(), data_identity: "0a".into(), epoch: 1 },
        server_version: "1".to_owned(),
        merged: None,
        origin: None,
        beside: Default::default(),
    }
}
