//! Where log lines go: to the journal when systemd connected standard error to it, else to standard error itself.

use super::journal::{JOURNAL_SOCKET, JournalRecords};
use super::record::RECORD_TARGET;
use std::path::Path;
use std::sync::OnceLock;
use tracing::{Level, Metadata};
use tracing_subscriber::filter::{LevelFilter, filter_fn};
use tracing_subscriber::fmt::format;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::registry::Registry;
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt;

/// The level in force, and the way to another one.
static LEVEL: OnceLock<reload::Handle<LevelFilter, Registry>> = OnceLock::new();

/// The level in force; `None` before [`start`].
pub fn level() -> Option<LevelFilter> {
    LEVEL.get()?.clone_current()
}

/// Another level, from now on. Tells whether there is one to change.
pub fn set_level(level: LevelFilter) -> bool {
    LEVEL.get().is_some_and(|handle| handle.reload(level).is_ok())
}

/// Whether log lines go to the journal, not to standard error.
pub fn is_journal() -> bool {
    connected_to_journal()
}

/// Starts logging, once per process; a second call changes nothing. `identifier` is the program's name in the journal.
pub fn start(identifier: &str, level: Level) {
    let (level, handle) = reload::Layer::new(LevelFilter::from_level(level));
    let _ = LEVEL.set(handle);
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
