//! How a dump begins and ends: what a program writes that was cut off does neither.

use crate::artifact::manifest::Content;
use crate::base::{Code, Error, Result};

/// Bytes that are looked at.
const LOOKED_AT: usize = 512;

/// The first and the last bytes of a stream.
pub(super) struct Words {
    content: Content,
    first: Vec<u8>,
    last: Vec<u8>,
}

impl Words {
    /// Of a stream with this content.
    pub(super) fn of(content: Content) -> Words {
        Words { content, first: Vec::new(), last: Vec::new() }
    }

    /// The next bytes.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        let missing = LOOKED_AT.saturating_sub(self.first.len()).min(bytes.len());
        self.first.extend_from_slice(&bytes[..missing]);
        self.last.extend_from_slice(&bytes[bytes.len().saturating_sub(LOOKED_AT)..]);
        self.last.drain(..self.last.len().saturating_sub(LOOKED_AT));
    }

    /// Error `POSTGRES_TOOL_FAILED` if this is not what `tool` writes.
    pub(super) fn judge(&self, tool: &str) -> Result<()> {
        let ends = |words: &str| String::from_utf8_lossy(&self.last).contains(words);
        let missing = match self.content {
            Content::PgDump if !self.first.starts_with(b"PGDMP") => Some("does not begin as an archive does"),
            Content::PgScript if !ends("-- PostgreSQL database dump complete") => {
                Some("does not say that it is complete")
            }
            Content::PgGlobals if !ends("-- PostgreSQL database cluster dump complete") => {
                Some("does not say that it is complete")
            }
            _ => None,
        };
        missing.map_or(Ok(()), |what| {
            Err(Error::new(Code::PostgresToolFailed, format!("{tool} ended well, but what it wrote {what}")))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(content: Content, pieces: &[&[u8]]) -> bool {
        let mut words = Words::of(content);
        pieces.iter().for_each(|piece| words.push(piece));
        words.judge("pg_dump").is_ok()
    }

    #[test]
    fn what_was_cut_off_is_noticed() {
        assert!(judged(Content::PgDump, &[b"PG", b"DMP\x01", &[0; 2000]]));
        assert!(!judged(Content::PgDump, &[b"PG"]) && !judged(Content::PgDump, &[]));
        let end = b"\n--\n-- PostgreSQL database dump complete\n--\n\n";
        assert!(judged(Content::PgScript, &[&[b'x'; 3000], &end[..9], &end[9..]]));
        assert!(!judged(Content::PgScript, &[end, &[b'x'; 3000]]));
        assert!(judged(Content::PgGlobals, &[b"-- PostgreSQL database cluster dump complete\n"]));
    }
}
