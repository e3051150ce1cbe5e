//! Reads a log file transaction by transaction and believes none whose checksum does not close.
//!
//! What lies between START and COMMIT is opaque: the end of a transaction is the first `kernel version, 5, id, time`
//! whose CRC-32C over everything since the START equals the four bytes behind it. The sum runs along, so that nothing
//! is read twice and memory is bounded whatever a transaction's size. Ids and append indexes must count without a gap,
//! and where a START repeats the checksum of the transaction before it, that must be right.
//!
//! An enveloped log says where its transactions end: see [`enveloped`].

mod enveloped;

pub use self::enveloped::Remainder;
use super::entry::{Beginning, COMMIT_BYTES, Commit, START_BYTES_MAX, SUMMED_BYTES, Start};
use super::envelope::OpenPart;
use super::format::{CHUNK_END, COMMIT, Kernel, refused_entry, unsupported};
use super::header::{Envelopes, HEADER_BYTES};
use super::window::{ReadAt, Window};
use crate::artifact::log_batch::LogMark;
use crate::base::{Code, Error, Result};
use jiff::Timestamp;
use sha2::{Digest, Sha256};
use std::io;

/// One whole transaction in a log file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transaction {
    /// Its id.
    pub id: u64,
    /// Its index among everything appended (5.20 and later).
    pub append_index: Option<u64>,
    /// The kernel that wrote it.
    pub kernel: Kernel,
    /// Byte in the file at which it begins; of one that began in an earlier file, where it goes on.
    pub start: u64,
    /// Byte after it, in the file that it ends in.
    pub end: u64,
    /// Milliseconds since 1970 at which it was committed, by the server's clock.
    pub committed_ms: i64,
    /// CRC-32C of it, as its COMMIT holds it, or (V10) that of its last envelope.
    pub checksum: u32,
    /// The checksum of the one before, as its START (until 2025.04) or its first envelope holds it.
    pub previous_checksum: Option<u32>,
    /// Bytes of it that are in earlier files.
    pub earlier_bytes: u64,
}

impl Transaction {
    /// When it was committed; `None` if that is no time that can be written.
    pub fn committed_at(&self) -> Option<Timestamp> {
        Timestamp::from_millisecond(self.committed_ms).ok()
    }

    /// The point after it in file `file`.
    pub fn mark(&self, file: u64) -> LogMark {
        LogMark {
            file,
            offset: self.end,
            transaction: self.id,
            began: Some(self.start),
            checksum: Some(checksum_text(self.checksum)),
            append_index: self.append_index,
            committed_at: self.committed_at(),
        }
    }
}

/// A checksum as a [`LogMark`] holds it.
pub(super) fn checksum_text(checksum: u32) -> String {
    format!("{checksum:08x}")
}

/// What came before a position, as far as it is known; the next transaction must follow it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Predecessor {
    /// The id of the transaction before.
    pub transaction: Option<u64>,
    /// Its append index.
    pub append_index: Option<u64>,
    /// Its checksum, 8 hex digits.
    pub checksum: Option<String>,
    /// What has begun after it, in the file before, and goes on.
    pub(super) part: Option<OpenPart>,
}

impl From<&LogMark> for Predecessor {
    fn from(mark: &LogMark) -> Self {
        Predecessor {
            transaction: Some(mark.transaction),
            append_index: mark.append_index,
            checksum: mark.checksum.clone(),
            part: None,
        }
    }
}

impl From<&Transaction> for Predecessor {
    fn from(transaction: &Transaction) -> Self {
        Predecessor::from(&transaction.mark(0))
    }
}

impl Predecessor {
    /// The same, and what of the next transaction is in the file before.
    pub fn with_part(self, part: Option<OpenPart>) -> Predecessor {
        Predecessor { part, ..self }
    }

    fn checksum_number(&self) -> Option<u32> {
        self.checksum.as_deref().and_then(|text| u32::from_str_radix(text, 16).ok())
    }

    /// Why `next` does not follow; `None` = it does, as far as is known.
    pub(super) fn objection(&self, next: &Transaction) -> Option<String> {
        let skips = |before: Option<u64>, own: Option<u64>| match (before, own) {
            (Some(before), Some(own)) if before.checked_add(1) != Some(own) => Some((own, before)),
            _ => None,
        };
        if let Some((own, before)) = skips(self.transaction, Some(next.id)) {
            return Some(format!("transaction {own} follows transaction {before}"));
        }
        if let Some((own, before)) = skips(self.append_index, next.append_index) {
            return Some(format!("transaction {} has append index {own}, the one before it {before}", next.id));
        }
        match (&self.checksum, next.previous_checksum.map(checksum_text)) {
            (Some(before), Some(said)) if *before != said => Some(format!(
                "transaction {} says that the checksum of the one before it is {said}, which is {before}",
                next.id
            )),
            _ => None,
        }
    }
}

/// Why there is no further whole transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tail {
    /// Zeros: the file was preallocated.
    Zeros,
    /// The file ends.
    Eof,
    /// A transaction begins that has no end: it is being written, or its writer died.
    Incomplete,
    /// As `Incomplete`, but up to the end of the file's last segment: it may go on in the next file (V10).
    Continues(OpenPart),
}

/// One step of a scan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// A whole transaction that follows the one before it.
    Transaction(Transaction),
    /// The end of one whose beginning is in the file before, which was not read (V10).
    Remainder(Remainder),
    /// There is none; the scan stays where it is.
    End(Tail),
}

/// The digest of what a scan went over, whole transactions only: taken of the very bytes that were verified.
#[derive(Clone, Debug, Default)]
struct RangeDigest {
    /// Without the last whole transaction.
    before: Sha256,
    whole: Sha256,
    tentative: Sha256,
    /// Of everything up to the file's end, where that lies inside a transaction.
    open: String,
}

impl RangeDigest {
    fn pad(&mut self, mut zeros: u64) {
        while zeros > 0 {
            let count = zeros.min(64);
            self.tentative.update(&[0; 64][..count as usize]);
            zeros -= count;
        }
    }

    /// What was gone over is a whole transaction.
    fn take(&mut self) {
        self.before = std::mem::replace(&mut self.whole, self.tentative.clone());
    }

    /// It is not.
    fn roll_back(&mut self) {
        self.tentative = self.whole.clone();
    }
}

/// Scans one log file forward.
pub struct Scanner<R: ReadAt> {
    window: Window<R>,
    name: String,
    position: u64,
    predecessor: Predecessor,
    envelopes: Option<Envelopes>,
    /// Why the header could not be read: what the bytes mean is then not known.
    unread: Option<io::Error>,
    digest: Option<RangeDigest>,
}

impl<R: ReadAt> Scanner<R> {
    /// A scan of `source`, called `name` in messages, from `offset`, which is the file's first byte after the header
    /// or the end of a transaction.
    pub fn new(source: R, name: &str, offset: u64, predecessor: Predecessor) -> Self {
        let mut header = [0; HEADER_BYTES as usize];
        let (read, unread) = match source.read_at(&mut header, 0) {
            Ok(read) => (read, None),
            Err(cause) => (0, Some(cause)),
        };
        let envelopes = Envelopes::of(&header[..read]);
        let position = offset.max(envelopes.map_or(HEADER_BYTES, |envelopes| envelopes.segment));
        let (window, name) = (Window::new(source, position), name.to_owned());
        Scanner { window, name, position, predecessor, envelopes, unread, digest: None }
    }

    /// Also takes the SHA-256 of `before` and of every whole transaction that follows.
    pub(super) fn with_digest(mut self, before: &[u8]) -> Self {
        let whole = Sha256::new_with_prefix(before);
        let (before, tentative) = (whole.clone(), whole.clone());
        self.digest = Some(RangeDigest { before, tentative, whole, open: String::new() });
        self
    }

    /// Where it stands: after the last whole transaction.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// The SHA-256 so far; empty if none was asked for.
    pub(super) fn sha256(&self) -> String {
        self.digest.as_ref().map(|digest| hex::encode(digest.whole.clone().finalize())).unwrap_or_default()
    }

    /// The SHA-256 up to the last transaction, without it.
    pub(super) fn sha256_before_last(&self) -> String {
        self.digest.as_ref().map(|digest| hex::encode(digest.before.clone().finalize())).unwrap_or_default()
    }

    /// The SHA-256 of everything up to the file's end, after [`Tail::Continues`].
    pub(super) fn sha256_open(&self) -> String {
        self.digest.as_ref().map(|digest| digest.open.clone()).unwrap_or_default()
    }

    /// Goes on by one transaction. Errors: `LOG_CORRUPTED` for bytes that cannot be a log, be it one that is just being
    /// written; `NEO4J_UNSUPPORTED` for entries that are not known.
    pub fn step(&mut self) -> Result<Step> {
        if let Some(cause) = self.unread.take() {
            return Err(io_error(&self.name, cause));
        }
        match self.envelopes {
            Some(envelopes) => self.step_enveloped(envelopes),
            None => self.step_plain(),
        }
    }

    fn step_plain(&mut self) -> Result<Step> {
        let bytes = self.window.at_least(self.position, START_BYTES_MAX);
        let bytes = bytes.map_err(|cause| io_error(&self.name, cause))?;
        let start = match bytes.first() {
            None => return Ok(Step::End(Tail::Eof)),
            Some(0) => return Ok(Step::End(Tail::Zeros)),
            Some(_) => match Beginning::parse(bytes) {
                Beginning::Start(start) => start,
                Beginning::Unfinished => return Ok(Step::End(Tail::Incomplete)),
                Beginning::Refused(what) => {
                    return Err(unsupported(format!("{} holds {what} at byte {}", self.name, self.position)));
                }
                Beginning::Foreign(what) => return Err(self.corrupted(&what)),
            },
        };
        let found = self.find_commit(&start);
        let Some((commit, end)) = found? else {
            if let Some(digest) = &mut self.digest {
                digest.roll_back();
            }
            return Ok(Step::End(Tail::Incomplete));
        };
        let transaction = Transaction {
            id: commit.id,
            append_index: start.append_index,
            kernel: start.kernel,
            start: self.position,
            end,
            committed_ms: commit.time_ms,
            checksum: commit.checksum,
            previous_checksum: start.previous_checksum,
            earlier_bytes: 0,
        };
        if let Some(objection) = self.predecessor.objection(&transaction) {
            return Err(self.corrupted(&objection));
        }
        if let Some(digest) = &mut self.digest {
            digest.take();
        }
        self.predecessor = Predecessor::from(&transaction);
        self.position = end;
        Ok(Step::Transaction(transaction))
    }

    /// Looks for the COMMIT that closes the transaction at the position; `None` = there is none in the file.
    fn find_commit(&mut self, start: &Start) -> Result<Option<(Commit, u64)>> {
        let mut sum = Sum { crc: 0, at: self.position };
        let mut from = self.position + start.length as u64;
        loop {
            let bytes = self.window.from(from);
            let Some(at) = next_end(bytes, start.kernel) else {
                // The last byte may be the first of a pair.
                from += bytes.len().saturating_sub(1) as u64;
                if !self.read_on(&mut sum, from)? {
                    return Ok(None);
                }
                continue;
            };
            from += at as u64;
            while self.window.from(from).len() < COMMIT_BYTES {
                if !self.read_on(&mut sum, from)? {
                    return Ok(None);
                }
            }
            let Some(commit) = Commit::parse(self.window.from(from)) else {
                from += 1;
                continue;
            };
            self.sum_up(&mut sum, from);
            let entry = &self.window.from(from)[..COMMIT_BYTES];
            if crc32c::crc32c_append(sum.crc, &entry[..SUMMED_BYTES]) == commit.checksum {
                let kind = entry[1];
                if kind == CHUNK_END {
                    let what = refused_entry(kind).unwrap_or_default();
                    return Err(unsupported(format!("{} holds {what} at byte {}", self.name, self.position)));
                }
                self.sum_up(&mut sum, from + COMMIT_BYTES as u64);
                return Ok(Some((commit, from + COMMIT_BYTES as u64)));
            }
            from += 1;
        }
    }

    /// Sums everything up to `to`, then reads on from there.
    fn read_on(&mut self, sum: &mut Sum, to: u64) -> Result<bool> {
        self.sum_up(sum, to);
        self.window.slide(to).map_err(|cause| io_error(&self.name, cause))
    }

    fn sum_up(&mut self, sum: &mut Sum, to: u64) {
        let count = usize::try_from(to.saturating_sub(sum.at)).unwrap_or_default();
        let bytes = &self.window.from(sum.at)[..count];
        sum.crc = crc32c::crc32c_append(sum.crc, bytes);
        sum.at += count as u64;
        if let Some(digest) = &mut self.digest {
            digest.tentative.update(bytes);
        }
    }

    fn corrupted(&self, what: &str) -> Error {
        Error::new(Code::LogCorrupted, format!("{} is damaged at byte {}: {what}", self.name, self.position))
    }
}

/// Where a COMMIT or the end of a chunk may begin in `bytes`.
fn next_end(bytes: &[u8], kernel: Kernel) -> Option<usize> {
    let types = bytes.get(1..)?;
    memchr::memchr2_iter(COMMIT, CHUNK_END, types).find(|&at| bytes[at] == kernel.0)
}

/// The checksum of a transaction up to a byte of the file.
struct Sum {
    crc: u32,
    at: u64,
}

fn io_error(name: &str, cause: io::Error) -> Error {
    Error::io("reading", std::path::Path::new(name), cause)
}

/// Where the whole transactions of a file end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataEnd {
    /// The byte after the last whole transaction; where the scan began if there is none.
    pub offset: u64,
    /// What lies there.
    pub tail: Tail,
    /// The first transaction from where the scan began.
    pub first: Option<Transaction>,
    /// The last one.
    pub last: Option<Transaction>,
    /// How many.
    pub transactions: u64,
    /// The latest time of commit, in milliseconds since 1970; commit times do not always rise.
    pub latest_ms: Option<i64>,
}

/// Verifies everything in `source` from `offset` on and says where it ends. `check` is called now and then and may
/// end the scan.
pub fn data_end<R: ReadAt>(
    source: R,
    name: &str,
    offset: u64,
    predecessor: Predecessor,
    check: &dyn Fn() -> Result<()>,
) -> Result<DataEnd> {
    let mut scanner = Scanner::new(source, name, offset, predecessor);
    let mut end = DataEnd {
        offset: scanner.position(),
        tail: Tail::Eof,
        first: None,
        last: None,
        transactions: 0,
        latest_ms: None,
    };
    loop {
        check()?;
        match scanner.step()? {
            Step::Transaction(transaction) => {
                end.offset = transaction.end;
                end.transactions += 1;
                end.latest_ms = end.latest_ms.max(Some(transaction.committed_ms));
                end.first.get_or_insert_with(|| transaction.clone());
                end.last = Some(transaction);
            }
            Step::Remainder(rest) => end.offset = rest.end,
            Step::End(tail) => return Ok(DataEnd { tail, ..end }),
        }
    }
}

#[cfg(test)]
mod tests;
