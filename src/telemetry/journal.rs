//! journald's native protocol (systemd's `docs/JOURNAL_NATIVE_PROTOCOL.md`): one datagram per record, `NAME=value\n`
//! for values without a line break, `NAME\n`, a little-endian 64-bit length, the value and `\n` for the others.
//!
//! Records are written here and not by `tracing-journald`, because that one puts the Rust module's path into a field
//! `TARGET`, which to our readers is the database. Free-form lines go through it, in `subscriber`.

use super::record::RECORD_TARGET;
use std::fmt::Write as _;
use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer};

/// Where journald listens.
pub const JOURNAL_SOCKET: &str = "/run/systemd/journal/socket";
/// Longest value that is written, in bytes: the whole record must fit a datagram.
pub const VALUE_MAX: usize = 8 * 1024;

/// A `tracing` layer that writes records, and only those, to a journal socket.
#[derive(Debug)]
pub struct JournalRecords {
    socket: UnixDatagram,
    identifier: String,
}

impl JournalRecords {
    /// Connects to the journal listening at `socket`; `identifier` becomes `SYSLOG_IDENTIFIER`.
    pub fn connect(socket: &Path, identifier: &str) -> io::Result<Self> {
        let connected = UnixDatagram::unbound()?;
        connected.connect(socket)?;
        // A journal that does not read must not stop a backup.
        connected.set_nonblocking(true)?;
        Ok(JournalRecords { socket: connected, identifier: identifier.to_owned() })
    }
}

impl<S: Subscriber> Layer<S> for JournalRecords {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        if event.metadata().target() != RECORD_TARGET {
            return;
        }
        let priority = match *event.metadata().level() {
            Level::ERROR => "3",
            Level::WARN => "4",
            Level::INFO => "6",
            _ => "7",
        };
        let mut datagram = Datagram(Vec::with_capacity(512));
        datagram.put("PRIORITY", priority);
        datagram.put("SYSLOG_IDENTIFIER", &self.identifier);
        event.record(&mut datagram);
        // There is nobody left to tell.
        let _ = self.socket.send(&datagram.0);
    }
}

struct Datagram(Vec<u8>);

impl Datagram {
    fn put(&mut self, name: &str, value: &str) {
        let mut end = value.len().min(VALUE_MAX);
        while !value.is_char_boundary(end) {
            end -= 1;
        }
        let value = &value.as_bytes()[..end];
        self.0.extend_from_slice(name.as_bytes());
        if value.contains(&b'\n') {
            self.0.push(b'\n');
            self.0.extend_from_slice(&(value.len() as u64).to_le_bytes());
        } else {
            self.0.push(b'=');
        }
        self.0.extend_from_slice(value);
        self.0.push(b'\n');
    }
}

impl Visit for Datagram {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(journal_name(field), value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(journal_name(field), &value.to_string());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        let mut text = String::new();
        let _ = write!(text, "{value:?}");
        self.put(journal_name(field), &text);
    }
}

fn journal_name(field: &Field) -> &str {
    match field.name() {
        "message" => "MESSAGE",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::super::record::{Occasion, Record};
    use super::*;
    use std::collections::BTreeMap;
    use std::time::Duration;
    use tracing_subscriber::layer::SubscriberExt;

    fn parse(mut datagram: &[u8]) -> BTreeMap<String, String> {
        let mut fields = BTreeMap::new();
        while !datagram.is_empty() {
            let end = datagram.iter().position(|&b| b == b'\n').expect("line");
            let (line, rest) = (&datagram[..end], &datagram[end + 1..]);
            let (name, value) = match line.iter().position(|&b| b == b'=') {
                Some(at) => {
                    datagram = rest;
                    (&line[..at], &line[at + 1..])
                }
                None => {
                    let length = u64::from_le_bytes(rest[..8].try_into().expect("length")) as usize;
                    datagram = &rest[8 + length + 1..];
                    (line, &rest[8..8 + length])
                }
            };
            let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("text");
            fields.insert(text(name), text(value));
        }
        fields
    }

    // req: B13
    #[test]
    fn a_record_arrives_with_its_fields_and_nothing_else_does() {
        let directory = tempfile::tempdir().expect("tempdir");
        let path = directory.path().join("journal");
        let journal = UnixDatagram::bind(&path).expect("bind");
        journal.set_read_timeout(Some(Duration::from_secs(10))).expect("timeout");
        let layer = JournalRecords::connect(&path, "neo4j-backupd").expect("connect");
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            tracing::info!("a free-form line");
            let record = Record {
                target: Some("graph"),
                backup: Some("graph-20261120T020000Z-dump"),
                job: Some(7),
                error_code: Some("BACKUP_NO_SPACE"),
                bytes: Some(12),
                duration_us: Some(3_000_000),
                ..Record::new(Occasion::JobFailed, "two\nlines = one value")
            };
            record.emit();
        });
        let mut buffer = [0u8; 65536];
        let length = journal.recv(&mut buffer).expect("datagram");
        let fields = parse(&buffer[..length]);
        let expected = [
            ("BACKUP_ID", "graph-20261120T020000Z-dump"),
            ("BYTES", "12"),
            ("DURATION_US", "3000000"),
            ("ERROR_CODE", "BACKUP_NO_SPACE"),
            ("JOB", "7"),
            ("MESSAGE", "two\nlines = one value"),
            ("MESSAGE_ID", Occasion::JobFailed.message_id()),
            ("PRIORITY", "3"),
            ("SYSLOG_IDENTIFIER", "neo4j-backupd"),
            ("TARGET", "graph"),
        ];
        let expected: BTreeMap<_, _> = expected.into_iter().map(|(n, v)| (n.to_owned(), v.to_owned())).collect();
        assert_eq!(fields, expected, "no ACTOR, since there was none, and not the free-form line");
    }

    #[test]
    fn a_value_is_cut_between_characters() {
        let mut datagram = Datagram(Vec::new());
        datagram.put("MESSAGE", &"ä".repeat(VALUE_MAX));
        assert!(datagram.0.len() <= VALUE_MAX + 16);
        assert!(std::str::from_utf8(&datagram.0).is_ok());
    }
}
