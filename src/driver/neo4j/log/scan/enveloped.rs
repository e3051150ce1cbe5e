//! The scan of an enveloped log: an envelope at a time, each verified before anything in it is believed.

use super::{Predecessor, Scanner, Step, Tail, Transaction, checksum_text, io_error};
use crate::base::Result;
use crate::driver::neo4j::log::envelope::{Commit, ENVELOPE_BYTES, Ending, Envelope, OpenPart, Opening, PADDING_MAX};
use crate::driver::neo4j::log::format::{Kernel, refused_entry, unsupported};
use crate::driver::neo4j::log::header::Envelopes;
use crate::driver::neo4j::log::window::ReadAt;
use sha2::Digest;

/// The rest of an entry that began in an earlier file, which was not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Remainder {
    /// Its append index.
    pub append_index: u64,
    /// The checksum of its last envelope, which is that of the transaction.
    pub checksum: u32,
    /// The byte after it.
    pub end: u64,
}

/// An entry whose envelopes are being read.
struct Entry {
    append_index: u64,
    kernel: Kernel,
    previous_checksum: u32,
    ending: Ending,
    /// Where it begins in this file.
    start: u64,
    /// Bytes of its envelopes, in earlier files and in all.
    earlier_bytes: u64,
    bytes: u64,
    /// Whether its beginning was seen.
    whole: bool,
    /// Whether some of it is in this file.
    here: bool,
}

impl Entry {
    fn carried(part: OpenPart, start: u64) -> Entry {
        Entry {
            append_index: part.append_index,
            kernel: Kernel(0),
            previous_checksum: part.previous_checksum,
            ending: part.ending,
            start,
            earlier_bytes: part.bytes,
            bytes: part.bytes,
            whole: true,
            here: false,
        }
    }

    fn begun(envelope: &Envelope, start: u64) -> Entry {
        Entry {
            append_index: envelope.append_index,
            kernel: envelope.kernel,
            previous_checksum: envelope.previous_checksum,
            ending: Ending::default(),
            start,
            earlier_bytes: 0,
            bytes: 0,
            whole: envelope.part.begins(),
            here: true,
        }
    }

    fn open(&self, checksum: u32, file_end: u64) -> OpenPart {
        OpenPart {
            append_index: self.append_index,
            checksum,
            previous_checksum: self.previous_checksum,
            ending: self.ending,
            bytes: self.bytes,
            file_end,
        }
    }
}

/// What lies at a place, behind padding.
enum Found {
    /// An envelope that closes, and where it begins.
    Envelope(u64, Envelope),
    /// None, and where one might begin.
    End(Tail, u64),
}

impl<R: ReadAt> Scanner<R> {
    pub(super) fn step_enveloped(&mut self, envelopes: Envelopes) -> Result<Step> {
        let first = self.position == envelopes.segment;
        let part = self.predecessor.part.filter(|_| first);
        if part.is_some_and(|part| part.checksum != envelopes.previous_checksum) {
            return Err(self.corrupted("it does not follow the file before it, which ends inside a transaction"));
        }
        let mut entry = part.map(|part| Entry::carried(part, self.position));
        let mut before = if first { Some(envelopes.previous_checksum) } else { self.predecessor.checksum_number() };
        let mut at = self.position;
        loop {
            let (begin, envelope) = match self.envelope_at(at, envelopes.segment)? {
                Found::Envelope(begin, envelope) => (begin, envelope),
                Found::End(tail, end) => return Ok(Step::End(self.end(tail, end, at, before, entry, envelopes))),
            };
            self.judge(&envelope, begin, before, entry.as_ref(), first && at == envelopes.segment)?;
            let entry_now = entry.get_or_insert_with(|| Entry::begun(&envelope, begin));
            (entry_now.kernel, entry_now.here) = (envelope.kernel, true);
            entry_now.bytes += envelope.length as u64;
            let bytes = &self.window.from(begin)[..envelope.length];
            entry_now.ending.extend(&bytes[ENVELOPE_BYTES..]);
            if let Some(digest) = &mut self.digest {
                digest.pad(begin - at);
                digest.tentative.update(bytes);
            }
            (at, before) = (begin + envelope.length as u64, Some(envelope.checksum));
            if envelope.part.ends()
                && let Some(entry) = entry.take()
            {
                return self.complete(&entry, envelope.checksum, at);
            }
        }
    }

    /// Whether a sound envelope may follow what came before it.
    fn judge(
        &self,
        envelope: &Envelope,
        begin: u64,
        before: Option<u32>,
        entry: Option<&Entry>,
        first: bool,
    ) -> Result<()> {
        if let Some(what) = envelope.refusal(&self.window.from(begin)[ENVELOPE_BYTES..envelope.length]) {
            return Err(unsupported(format!("{} holds {what} at byte {begin}", self.name)));
        }
        if let Some(before) = before.filter(|&before| before != envelope.previous_checksum) {
            return Err(self.corrupted(&format!(
                "the envelope at byte {begin} says that the checksum of the one before it is {}, which is {}",
                checksum_text(envelope.previous_checksum),
                checksum_text(before)
            )));
        }
        let goes_on = !envelope.part.begins();
        match entry {
            Some(entry) if !goes_on || entry.append_index != envelope.append_index => {
                Err(self.corrupted(&format!("at byte {begin} another entry begins before the one before it has ended")))
            }
            None if goes_on && !first => {
                Err(self.corrupted(&format!("at byte {begin} an entry goes on that has not begun")))
            }
            _ => Ok(()),
        }
    }

    /// The first envelope from `at` on.
    fn envelope_at(&mut self, mut at: u64, segment: u64) -> Result<Found> {
        loop {
            let room = segment - at % segment;
            let probe = room.min(PADDING_MAX + 1).max(ENVELOPE_BYTES as u64).min(room) as usize;
            let bytes = self.window.at_least(at, probe).map_err(|cause| io_error(&self.name, cause))?;
            let bytes = &bytes[..bytes.len().min(probe)];
            let (cut, blank) = (bytes.len() < probe, bytes.iter().all(|&byte| byte == 0));
            if bytes.is_empty() {
                return Ok(Found::End(Tail::Eof, at));
            }
            if room <= ENVELOPE_BYTES as u64 && !blank {
                return Err(self.corrupted(&format!("at byte {at} there is no room for an envelope, but no padding")));
            }
            if blank && room <= PADDING_MAX && !cut {
                at += room;
                continue;
            }
            let envelope = match Opening::parse(bytes, room) {
                Opening::Envelope(envelope) => envelope,
                Opening::Nothing if blank => {
                    // A segment is written from its beginning on: what lies behind a hole is not for now.
                    let goes_on = self.window.is_written(at + room).map_err(|cause| io_error(&self.name, cause))?;
                    return Ok(Found::End(if goes_on { Tail::Incomplete } else { Tail::Zeros }, at));
                }
                Opening::Nothing | Opening::Unfinished => return Ok(Found::End(Tail::Incomplete, at)),
                Opening::Refused(what) => {
                    return Err(unsupported(format!("{} holds {what} at byte {at}", self.name)));
                }
                Opening::Foreign(what) => return Err(self.corrupted(&format!("{what} at byte {at}"))),
            };
            let bytes = self.window.at_least(at, envelope.length).map_err(|cause| io_error(&self.name, cause))?;
            let whole = bytes.get(..envelope.length).is_some_and(|bytes| envelope.closes(bytes));
            return Ok(if whole { Found::Envelope(at, envelope) } else { Found::End(Tail::Incomplete, at) });
        }
    }

    /// What the end of the envelopes is, at byte `end` behind the last one's at byte `at`.
    fn end(
        &mut self,
        tail: Tail,
        end: u64,
        at: u64,
        checksum: Option<u32>,
        entry: Option<Entry>,
        envelopes: Envelopes,
    ) -> Tail {
        let Some(entry) = entry else { return tail };
        let goes_on = entry.here && entry.whole && end.is_multiple_of(envelopes.segment) && tail != Tail::Incomplete;
        let tail = match checksum {
            Some(checksum) if goes_on => Tail::Continues(entry.open(checksum, end)),
            _ => Tail::Incomplete,
        };
        if let Some(digest) = &mut self.digest {
            if goes_on {
                digest.pad(end - at);
                digest.open = hex::encode(digest.tentative.clone().finalize());
            }
            digest.roll_back();
        }
        tail
    }

    /// An entry has ended.
    fn complete(&mut self, entry: &Entry, checksum: u32, end: u64) -> Result<Step> {
        let mut after = Predecessor {
            transaction: None,
            append_index: Some(entry.append_index),
            checksum: Some(checksum_text(checksum)),
            part: None,
        };
        let step = match entry.ending.commit() {
            _ if !entry.whole => Step::Remainder(Remainder { append_index: entry.append_index, checksum, end }),
            Commit::Whole(id, committed_ms) => {
                let transaction = Transaction {
                    id,
                    append_index: Some(entry.append_index),
                    kernel: entry.kernel,
                    start: entry.start,
                    end,
                    committed_ms,
                    checksum,
                    previous_checksum: Some(entry.previous_checksum),
                    earlier_bytes: entry.earlier_bytes,
                };
                if let Some(objection) = self.predecessor.objection(&transaction) {
                    return Err(self.corrupted(&objection));
                }
                after.transaction = Some(id);
                Step::Transaction(transaction)
            }
            Commit::Other(other) if refused_entry(other).is_some() => {
                let what = refused_entry(other).unwrap_or_default();
                return Err(unsupported(format!("{} holds {what} at byte {}", self.name, entry.start)));
            }
            Commit::Other(_) | Commit::Unseen => {
                return Err(self.corrupted(&format!("the entry at byte {} has no COMMIT", entry.start)));
            }
        };
        if let Some(digest) = &mut self.digest {
            digest.take();
        }
        (self.predecessor, self.position) = (after, end);
        Ok(step)
    }
}

#[cfg(test)]
mod tests;
