//! The session between whose first and last statement a base backup is read. The server ends the backup by itself
//! when the session ends.

use super::wal::Lsn;
use crate::base::task::Task;
use crate::base::{Code, Error, Result};
use crate::driver::postgres::connection::{Address, CATALOG_TIMEOUT, TALK_TIMEOUT, asking, explain, within};
use crate::driver::postgres::inspection::{setting, version_num};
use crate::driver::postgres::postmaster;
use postgres::Client;
use std::path::Path;
use std::time::Duration;

/// How long the checkpoint at the start may take on a busy server.
const START_TIMEOUT: Duration = Duration::from_secs(900);
/// What the backup is called in `backup_label` and in the server's log.
const LABEL: &str = "neo4j-backup";
/// The first version in which the functions lost the "exclusive" way and got shorter names.
const RENAMED_SINCE: i32 = 150_000;
/// The first version that can end idle sessions.
const IDLE_TIMEOUT_SINCE: i32 = 140_000;

/// Facts of the server that the reading depends on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Facts {
    /// As in `server_version_num`.
    pub(super) version_num: i32,
    /// Bytes in a page.
    pub(super) block_size: usize,
    /// Pages in a file of a relation.
    pub(super) segment_blocks: u32,
    /// Bytes in a segment of the log.
    pub(super) wal_segment_size: u64,
    /// Whether pages carry checksums.
    pub(super) checksums: bool,
}

impl Facts {
    fn ask(client: &mut Client) -> Result<Facts> {
        let version_num = version_num(client)?;
        let mut number = |name: &str| -> Result<u64> {
            let said = setting(client, name)?.unwrap_or_default();
            said.parse()
                .map_err(|_| Error::new(Code::PostgresUnsupported, format!("the server says {name} is {said:?}")))
        };
        let block_size = number("block_size")? as usize;
        let segment_blocks = u32::try_from(number("segment_size")?).unwrap_or_default();
        let wal_segment_size = number("wal_segment_size")?;
        let checksums = setting(client, "data_checksums")?.as_deref() == Some("on");
        if super::page::supported_size(block_size).is_none() || segment_blocks == 0 {
            let text = format!("the server has pages of {block_size} bytes and {segment_blocks} of them in a file");
            return Err(Error::new(Code::PostgresUnsupported, text));
        }
        Ok(Facts { version_num, block_size, segment_blocks, wal_segment_size, checksums })
    }

    /// The major version.
    pub(super) fn major(&self) -> u32 {
        (self.version_num / 10_000).max(0) as u32
    }
}

/// A server that would let itself be read.
pub(super) struct Prepared {
    client: Client,
    /// What it says of itself.
    pub(super) facts: Facts,
    /// Its tablespaces before anything is read.
    tablespaces: Vec<i64>,
}

/// Whether the data directory can be read beside the running server.
pub(super) enum Answer {
    /// It can.
    Ready(Box<Prepared>),
    /// It cannot, and why.
    Unfit(String),
}

/// Asks the server, and looks whether it is the one that uses `data_directory` on this host.
pub(super) fn prepare(address: &Address, data_directory: &Path) -> Result<Answer> {
    let unfit = |why: String| Ok(Answer::Unfit(why));
    let mut refused = None;
    for database in address.candidates() {
        let Ok(mut client) = address.try_connect(database, START_TIMEOUT)? else { continue };
        let facts = Facts::ask(&mut client)?;
        if !may_back_up(&mut client, facts.version_num)? {
            refused = Some(database.to_owned());
            continue;
        }
        let pid: i32 =
            client.query_one("SELECT pg_backend_pid()", &[]).map_err(asking("the session's process"))?.get(0);
        if !postmaster::is_process_in(pid, data_directory) {
            return unfit(format!(
                "the server at {address} does not work in {} of this host",
                data_directory.display()
            ));
        }
        // A session that is idle for as long as files are read must not be ended for it.
        if facts.version_num >= IDLE_TIMEOUT_SINCE {
            client.batch_execute("SET idle_session_timeout = 0").map_err(asking("a session without an end"))?;
        }
        let tablespaces = tablespaces(&mut client)?;
        return Ok(Answer::Ready(Box::new(Prepared { client, facts, tablespaces })));
    }
    unfit(match refused {
        Some(database) => {
            format!("the role {} may not call pg_backup_start in the database {database}", address.user)
        }
        None => return address.connect_any(CATALOG_TIMEOUT).map(|_| Answer::Unfit("no database can be had".into())),
    })
}

/// The database in which the role would have to be granted the functions that begin and end a backup; `None` = it may
/// call them from some database.
pub(in crate::driver::postgres) fn refused_in(address: &Address) -> Result<Option<String>> {
    let mut refused = None;
    for database in address.candidates() {
        let Ok(mut client) = address.try_connect(database, CATALOG_TIMEOUT)? else { continue };
        let version_num = version_num(&mut client)?;
        if may_back_up(&mut client, version_num)? {
            return Ok(None);
        }
        refused.get_or_insert(database.to_owned());
    }
    Ok(refused)
}

/// Whether the role may begin and end a backup from this database.
fn may_back_up(client: &mut Client, version_num: i32) -> Result<bool> {
    let (start, stop) = signatures(version_num);
    let statement = "SELECT has_function_privilege($1::text::regprocedure, 'EXECUTE') \
                        AND has_function_privilege($2::text::regprocedure, 'EXECUTE')";
    client.query_one(statement, &[&start, &stop]).map(|row| row.get(0)).map_err(asking("the right to back up"))
}

/// The numbers of the tablespaces.
fn tablespaces(client: &mut Client) -> Result<Vec<i64>> {
    let rows = client.query("SELECT oid::int8 FROM pg_tablespace", &[]).map_err(asking("the tablespaces"))?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// The functions that begin and end a backup, as GRANT names them.
pub(in crate::driver::postgres) fn signatures(version_num: i32) -> (&'static str, &'static str) {
    match version_num >= RENAMED_SINCE {
        true => ("pg_backup_start(text, boolean)", "pg_backup_stop(boolean)"),
        false => ("pg_start_backup(text, boolean, boolean)", "pg_stop_backup(boolean, boolean)"),
    }
}

impl Prepared {
    /// Begins the backup: a checkpoint is taken at once.
    pub(super) fn start(mut self, task: &Task) -> Result<Session> {
        let (facts, tablespaces) = (self.facts, self.tablespaces);
        let client = within(START_TIMEOUT, "the checkpoint before the backup", task, move || {
            let slot = hold_log(&mut self.client);
            let statement = match facts.version_num >= RENAMED_SINCE {
                true => "SELECT pg_backup_start($1, true)::text",
                false => "SELECT pg_start_backup($1, true, false)::text",
            };
            let started = self.client.query_one(statement, &[&LABEL]);
            let start: Lsn = started.map_err(failed("beginning the backup"))?.get::<_, String>(0).parse()?;
            let statement = "SELECT timeline_id FROM pg_control_checkpoint()";
            let timeline: i32 = self.client.query_one(statement, &[]).map_err(asking("the timeline"))?.get(0);
            Ok((self.client, slot, start, timeline))
        });
        let (client, slot, start, timeline) = client?;
        if slot.is_none() {
            task.info("no replication slot holds the log meanwhile: the role may not replicate, or max_replication_slots are in use");
        }
        Ok(Session { client, slot, facts, tablespaces, start, timeline: timeline.max(0) as u32 })
    }
}

/// Has the server keep the log from here on, for as long as the session lasts. `None` = it refuses; then all depends on how
/// soon the log is copied.
fn hold_log(client: &mut Client) -> Option<String> {
    let pid: i32 = client.query_one("SELECT pg_backend_pid()", &[]).ok()?.get(0);
    let slot = format!("neo4j_backup_{pid}");
    let statement = "SELECT slot_name::text FROM pg_create_physical_replication_slot($1, true, true)";
    client.query_one(statement, &[&slot]).ok().map(|_| slot)
}

/// A backup that was begun.
pub(super) struct Session {
    client: Client,
    /// The replication slot that holds the log.
    slot: Option<String>,
    /// What the server says of itself.
    pub(super) facts: Facts,
    /// Its tablespaces before the backup was begun.
    tablespaces: Vec<i64>,
    /// Where recovery will start.
    pub(super) start: Lsn,
    /// The timeline of the start.
    pub(super) timeline: u32,
}

/// What the end of a backup says.
#[derive(Clone, Debug)]
pub(super) struct Stopped {
    /// Where the backup is consistent.
    pub(super) end: Lsn,
    /// The content of `backup_label`.
    pub(super) label: String,
    /// The content of `tablespace_map`; empty = there are no tablespaces.
    pub(super) tablespace_map: String,
}

impl Session {
    /// Up to where the log is on disk; on a standby, up to where it was replayed.
    pub(super) fn written(self, task: &Task) -> Result<(Session, Lsn)> {
        let statement = "SELECT (CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() \
                                 ELSE pg_current_wal_flush_lsn() END)::text";
        self.talk("the end of the log", task, move |client| {
            client.query_one(statement, &[]).map_err(asking("the end of the log"))?.get::<_, String>(0).parse()
        })
    }

    /// Lets go of the log before `copied`, so that a long backup does not fill the server's disk with it.
    pub(super) fn release(self, copied: Lsn, task: &Task) -> Result<Session> {
        let Some(slot) = self.slot.clone() else { return Ok(self) };
        let (session, ()) = self.talk("moving the replication slot", task, move |client| {
            let statement = "SELECT FROM pg_replication_slot_advance($1, $2::text::pg_lsn)";
            // Should the slot be lost, the next segment that is missing tells.
            let _ = client.query(statement, &[&slot, &copied.to_string()]);
            Ok(())
        })?;
        Ok(session)
    }

    /// Ends the backup. The log it needs is ours to copy, so nothing is waited for.
    pub(super) fn stop(self, task: &Task) -> Result<(Session, Stopped)> {
        let statement = match self.facts.version_num >= RENAMED_SINCE {
            true => "SELECT lsn::text, labelfile, coalesce(spcmapfile, '') FROM pg_backup_stop(false)",
            false => "SELECT lsn::text, labelfile, coalesce(spcmapfile, '') FROM pg_stop_backup(false, false)",
        };
        let (session, stopped) = self.talk("the end of the backup", task, move |client| {
            let row = client.query_one(statement, &[]).map_err(failed("ending the backup"))?;
            let end = row.get::<_, String>(0).parse()?;
            Ok((Stopped { end, label: row.get(1), tablespace_map: row.get(2) }, tablespaces(client)?))
        })?;
        let (stopped, after) = stopped;
        if after.iter().any(|number| !session.tablespaces.contains(number)) {
            // A server that replays that links to its place: to write there, on the host of the original.
            let text =
                "a tablespace was made while the files were read, into which a restored server would write where it is";
            return Err(Error::new(Code::PostgresToolFailed, text).with_hint("take the backup again"));
        }
        let start = format!("START WAL LOCATION: {} (file ", session.start);
        let timeline = format!("START TIMELINE: {}\n", session.timeline);
        if !stopped.label.starts_with(&start) || !stopped.label.contains(&timeline) {
            let text = format!("the server's backup_label is not of this backup: {:?}", stopped.label);
            return Err(Error::new(Code::PostgresUnsupported, text));
        }
        Ok((session, stopped))
    }

    /// A question that is given up when it takes too long; the session goes with it then.
    fn talk<T: Send + 'static>(
        self,
        what: &str,
        task: &Task,
        question: impl FnOnce(&mut Client) -> Result<T> + Send + 'static,
    ) -> Result<(Session, T)> {
        let Session { mut client, slot, facts, tablespaces, start, timeline } = self;
        let (client, answer) = within(TALK_TIMEOUT, what, task, move || {
            let answer = question(&mut client)?;
            Ok((client, answer))
        })?;
        Ok((Session { client, slot, facts, tablespaces, start, timeline }, answer))
    }
}

fn failed(doing: &str) -> impl Fn(postgres::Error) -> Error + '_ {
    move |cause| {
        // The server refused: it is there, and trying again helps only when its state has changed.
        let code = if cause.as_db_error().is_some() { Code::PostgresToolFailed } else { Code::PostgresUnreachable };
        Error::new(code, format!("{doing}: {}", explain(&cause)))
    }
}
