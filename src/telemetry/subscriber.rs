//! Where log lines go: to the journal when systemd connected standard error to it, else to standard error itself.

use super::journal::{JOURNAL_SOCKET, JournalRecords};
use super::record::RECORD_TARGET;
use std::path::Path;
use tracing::{Level, Metadata};
use tracing_subscriber::filter::{LevelFilter, filter_fn};
use tracing_subscriber::fmt::format;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

/// Starts logging, once per process; a second call changes nothing. `identifier` is the program's name in the journal.
pub fn start(identifier: &str, level: Level) {
    let level = LevelFilter::from_level(level);
    if connected_to_journal() {
        let records = JournalRecords::connect(Path::new(JOURNAL_SOCKET), identifier);
        let lines = tracing_journald::Layer::new();
        if let (Ok(records), Ok(lines)) = (records, lines) {
            let lines = lines
                .with_syslog_identifier(identifier.to_owned())
                .with_filter(filter_fn(|metadata| metadata.target() != RECORD_TARGET));
            let _ = tracing_subscriber::registry()
                .with(level)
                .with(filter_fn(is_ours_or_bad))
                .with(records)
                .with(lines)
                .try_init();
            return;
        }
    }
    let fields = format::debug_fn(|writer, field, value| match field.name() {
        "message" => write!(writer, "{value:?} "),
        // It tells a program what the message already told the reader.
        "MESSAGE_ID" => Ok(()),
        name => write!(writer, "{name}={value:?} "),
    });
    let plain = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .with_target(false)
        .fmt_fields(fields)
        .compact();
    let _ = tracing_subscriber::registry().with(level).with(filter_fn(is_ours_or_bad)).with(plain).try_init();
}

/// Libraries are heard when something is wrong. Below that they say what nobody asked for, whole requests included.
fn is_ours_or_bad(metadata: &Metadata<'_>) -> bool {
    *metadata.level() <= Level::WARN
        || metadata.target() == RECORD_TARGET
        || metadata.target().starts_with(env!("CARGO_CRATE_NAME"))
}

/// Whether standard error is the journal's stream: `JOURNAL_STREAM` holds device and inode of the socket that systemd
/// made, and is inherited by programs whose standard error was sent elsewhere since (systemd.exec(5)).
fn connected_to_journal() -> bool {
    let Ok(stream) = std::env::var("JOURNAL_STREAM") else { return false };
    let Ok(stat) = nix::sys::stat::fstat(std::io::stderr()) else { return false };
    stream == format!("{}:{}", stat.st_dev, stat.st_ino)
}
