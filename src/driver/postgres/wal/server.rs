//! The server's side of archiving: whether it hands its log over, and having it finish the segment it writes.

use super::name::Segment;
use super::quiet::is_quiet;
use crate::artifact::log_point::Lsn;
use crate::base::{Code, Error, Result};
use crate::driver::postgres::connection::{Address, CATALOG_TIMEOUT, asking, quoted};
use crate::driver::postgres::inspection::setting;
use jiff::Timestamp;
use postgres::Client;
use std::path::Path;

/// A segment that nothing was written to holds its first page's header, and no more.
const UNTOUCHED: u64 = 40;

/// What a server that hands its log over must be set to, as statements.
pub(crate) fn remedy(target: &str) -> String {
    format!(
        "ALTER SYSTEM SET archive_mode = 'on'; ALTER SYSTEM SET archive_command = 'neo4j-backupctl wal push {target} %p'; \
         then restart the server (archive_mode needs that once; SELECT pg_reload_conf(); is enough for archive_command)"
    )
}

/// What keeps the server from handing its log over to this target; `None` = nothing.
pub(crate) fn obstacle(client: &mut Client, target: &str) -> Result<Option<String>> {
    let mut value = |name: &str| Ok::<_, Error>(setting(client, name)?.unwrap_or_default());
    let level = value("wal_level")?;
    if level == "minimal" {
        return Ok(Some("wal_level is minimal, with which nothing can be replayed".to_owned()));
    }
    let mode = value("archive_mode")?;
    if mode != "on" && mode != "always" {
        return Ok(Some(format!("archive_mode is {mode}: the server archives nothing")));
    }
    let library = value("archive_library")?;
    if !library.is_empty() {
        return Ok(Some(format!("archive_library is {library}: the server does not run archive_command")));
    }
    let command = value("archive_command")?;
    if hands_over(&command, target) {
        return Ok(None);
    }
    Ok(Some(format!("archive_command is `{command}`, which hands nothing over to {target}")))
}

/// Whether an `archive_command` hands the log over to a target.
pub(crate) fn hands_over(command: &str, target: &str) -> bool {
    let words: Vec<&str> = command.split_whitespace().map(|word| word.trim_matches(['"', '\''])).collect();
    words.windows(3).any(|three| three[..2] == ["wal", "push"] && three[2] == target)
}

/// The statement that lets a role end segments.
pub(crate) fn grant(role: &str) -> String {
    format!("GRANT EXECUTE ON FUNCTION pg_catalog.pg_switch_wal() TO {};", quoted(role))
}

/// Whether the role of a connection may have the server end a segment.
pub(crate) fn may_end_segments(client: &mut Client) -> Result<bool> {
    let statement = "SELECT has_function_privilege('pg_catalog.pg_switch_wal()', 'EXECUTE')";
    Ok(client.query_one(statement, &[]).map_err(asking("the right to end segments"))?.get(0))
}

/// Where the log was ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Finished {
    /// The last segment that holds anything.
    pub(crate) last: Segment,
    /// Everything that was committed before this is in that segment or before.
    pub(crate) until: Timestamp,
    /// Bytes of a segment.
    pub(crate) segment_size: u64,
}

/// `NOT_AVAILABLE` for a standby, which writes no log of its own.
pub(crate) fn refuse_standby(client: &mut Client, target: &str) -> Result<()> {
    let replica: bool =
        client.query_one("SELECT pg_is_in_recovery()", &[]).map_err(asking("the server's role"))?.get(0);
    if !replica {
        return Ok(());
    }
    let text = format!("the server of {target} is a standby, whose log is its primary's");
    Err(Error::new(Code::NotAvailable, text).with_hint("archive on the primary"))
}

/// Commits a heartbeat and has the server finish the segment that it is in. `handed_over` = by `archive_command`, which has to
/// be set for that.
pub(crate) fn finish_segment(
    client: &mut Client,
    address: &Address,
    (target, handed_over): (&str, bool),
    data_directory: &Path,
) -> Result<Finished> {
    if let Some(why) = if handed_over { obstacle(client, target)? } else { None } {
        return Err(Error::new(Code::NotAvailable, format!("the log of {target} cannot be archived: {why}"))
            .with_hint(remedy(target)));
    }
    let size = setting(client, "wal_segment_size")?.and_then(|text| text.parse::<u64>().ok());
    let size = size
        .ok_or_else(|| Error::new(Code::PostgresUnsupported, "the server does not say how large its segments are"))?;
    let statement = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::int8, pg_current_wal_insert_lsn()::text, \
                     pg_walfile_name(pg_current_wal_insert_lsn())";
    let row = client.query_one(statement, &[]).map_err(asking("the end of the log"))?;
    let until = Timestamp::from_microsecond(row.get(0))
        .map_err(|cause| Error::new(Code::PostgresUnsupported, format!("the server's clock: {cause}")))?;
    let (here, timeline) = (position(&row.get::<_, String>(1))?, timeline(&row.get::<_, String>(2))?);
    let current = Segment::holding(timeline, here, size);
    let untouched = || here - current.start(size) <= UNTOUCHED || is_quiet(data_directory, current, size, here);
    if current.number > 0 && untouched() {
        // Nobody wrote anything since the last segment was ended.
        return Ok(Finished { last: Segment { number: current.number - 1, ..current }, until, segment_size: size });
    }
    let heartbeat = "SET default_transaction_read_only = off; SET synchronous_commit = local; \
                     SELECT pg_logical_emit_message(true, 'neo4j-backup', '')";
    client.batch_execute(heartbeat).map_err(asking("a heartbeat"))?;
    let row = client.query_one("SELECT pg_switch_wal()::text", &[]).map_err(|cause| {
        let refused = cause.code().is_some_and(|code| code.code() == "42501");
        let error = asking("the end of a segment")(cause);
        if refused { error.recode(Code::NotAvailable).with_hint(grant(&address.user)) } else { error }
    })?;
    let end = position(&row.get::<_, String>(0))?;
    Ok(Finished { last: Segment::holding(timeline, end.saturating_sub(1), size), until, segment_size: size })
}

/// Where the log ends now.
pub(crate) fn end(address: &Address) -> Result<u64> {
    let mut client = address.connect_any(CATALOG_TIMEOUT)?;
    let statement = "SELECT pg_current_wal_insert_lsn()::text";
    position(&client.query_one(statement, &[]).map_err(asking("the end of the log"))?.get::<_, String>(0))
}

/// What the server says of its archiving, for whoever waited in vain.
pub(crate) fn archiver_says(address: &Address) -> Result<String> {
    let mut client = address.connect_any(CATALOG_TIMEOUT)?;
    let statement = "SELECT coalesce(last_archived_wal, 'nothing'), failed_count, coalesce(last_failed_wal, '') \
                     FROM pg_stat_archiver";
    let row = client.query_one(statement, &[]).map_err(asking("the archiver"))?;
    let (last, failures, failed): (String, i64, String) = (row.get(0), row.get(1), row.get(2));
    Ok(match failures {
        0 => format!("it archived {last} last"),
        _ => format!("it archived {last} last and failed {failures} times, last with {failed}"),
    })
}

fn position(text: &str) -> Result<u64> {
    let parsed = Lsn::parse(text).map(|position| position.0);
    parsed.ok_or_else(|| Error::new(Code::PostgresUnsupported, format!("the server named the position {text:?}")))
}

fn timeline(name: &str) -> Result<u32> {
    let digits = name.get(..8).and_then(|digits| u32::from_str_radix(digits, 16).ok());
    digits.ok_or_else(|| Error::new(Code::PostgresUnsupported, format!("the server named the segment {name:?}")))
}
