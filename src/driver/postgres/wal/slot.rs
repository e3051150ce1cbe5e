//! A replication slot in the place of `archive_command`: the server keeps its log until the spool has it, and whatever
//! else archives it, another tool's `archive_command` or nothing, is left as it is.
//!
//! Nothing is streamed: segments are read where the server writes them, in `pg_wal`, once they are complete. What the slot
//! holds is neither removed nor written to again (`InvalidateObsoleteReplicationSlots` and `KeepLogSeg` in
//! `src/backend/replication/slot.c` and `access/transam/xlog.c`), so that what is read is what was written.

use super::name::Segment;
use crate::artifact::log_point::Lsn;
use crate::base::task::Task;
use crate::base::{Code, Error, Result};
use crate::driver::log::HandOver;
use crate::driver::postgres::connection::{asking, quoted};
use postgres::Client;
use std::fs::File;
use std::io::ErrorKind;
use std::path::Path;

/// Begins the name of each slot; the target's name follows.
const PREFIX: &str = "neo4j_backup_log_";
/// No right to it.
const INSUFFICIENT_PRIVILEGE: &str = "42501";
/// All slots are in use.
const LIMIT_EXCEEDED: &str = "53400";
/// The server is not set up for slots.
const NOT_IN_PREREQUISITE_STATE: &str = "55000";

/// The name of a target's slot.
pub(crate) fn name(target: &str) -> String {
    format!("{PREFIX}{target}")
}

/// A slot as the server describes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Standing {
    /// Where the log begins that it holds; `None` = it holds none.
    pub(crate) from: Option<u64>,
    /// How much it holds, in bytes.
    pub(crate) held: u64,
    /// Whether the server has let go of log that it held.
    pub(crate) lost: bool,
}

/// What the server says of a slot; `None` = there is none of that name.
pub(crate) fn standing(client: &mut Client, name: &str) -> Result<Option<Standing>> {
    let statement = "SELECT slot_type = 'physical', restart_lsn::text, coalesce(wal_status, '') = 'lost', \
                       coalesce(pg_wal_lsn_diff(CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() \
                                                ELSE pg_current_wal_lsn() END, restart_lsn), 0)::int8 \
                     FROM pg_replication_slots WHERE slot_name = $1";
    let Some(row) = client.query_opt(statement, &[&name]).map_err(asking("the replication slot"))? else {
        return Ok(None);
    };
    if !row.get::<_, bool>(0) {
        let text = format!("the replication slot {name} is a logical one, which holds no log that could be archived");
        return Err(Error::new(Code::NotAvailable, text).with_hint(drop_statement(name)));
    }
    let from = row.get::<_, Option<String>>(1).and_then(|text| Lsn::parse(&text)).map(|position| position.0);
    let (lost, held): (bool, i64) = (row.get(2), row.get(3));
    Ok(Some(Standing { from, held: held.max(0) as u64, lost: lost || from.is_none() }))
}

/// The statement that removes a slot.
pub(crate) fn drop_statement(name: &str) -> String {
    format!("SELECT pg_drop_replication_slot('{name}');")
}

/// A slot that holds the server's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reserved {
    /// Where the log begins that it holds.
    pub(crate) from: u64,
    /// Whether it is a new one, because the server had let go of what the old one held.
    pub(crate) anew: bool,
}

/// Has the server hold its log in the slot of that name, which is made if there is none. Error `NOT_AVAILABLE` where the
/// role may not, or no slot is free.
pub(crate) fn reserve(client: &mut Client, name: &str, role: &str) -> Result<Reserved> {
    let found = standing(client, name)?;
    if let Some(Standing { from: Some(from), lost: false, .. }) = found {
        return Ok(Reserved { from, anew: false });
    }
    if found.is_some() {
        client.query("SELECT pg_drop_replication_slot($1)", &[&name]).map_err(asking("the end of a lost slot"))?;
    }
    let statement = "SELECT FROM pg_create_physical_replication_slot($1, true)";
    client.query(statement, &[&name]).map_err(|cause| {
        let state = cause.code().map(|code| code.code().to_owned()).unwrap_or_default();
        let error = asking("a replication slot")(cause);
        match state.as_str() {
            INSUFFICIENT_PRIVILEGE => {
                error.recode(Code::NotAvailable).with_hint(format!("ALTER ROLE {} REPLICATION;", quoted(role)))
            }
            LIMIT_EXCEEDED => error.recode(Code::NotAvailable).with_hint(
                "SELECT slot_name, active FROM pg_replication_slots; and raise max_replication_slots, which takes a restart \
                 of the server",
            ),
            NOT_IN_PREREQUISITE_STATE => error.recode(Code::NotAvailable).with_hint(
                "ALTER SYSTEM SET wal_level = 'replica'; ALTER SYSTEM SET max_replication_slots = 10; then restart the server",
            ),
            _ => error,
        }
    })?;
    match standing(client, name)? {
        Some(Standing { from: Some(from), .. }) => Ok(Reserved { from, anew: found.is_some() }),
        _ => Err(Error::new(Code::PostgresUnsupported, format!("the new replication slot {name} holds no log"))),
    }
}

/// Lets the server go of the log before `position`. A slot that is further already, or is gone, is left to the next look.
pub(crate) fn advance(client: &mut Client, name: &str, position: u64) -> Result<()> {
    let Some(Standing { from: Some(from), lost: false, .. }) = standing(client, name)? else { return Ok(()) };
    if from >= position {
        return Ok(());
    }
    let statement = "SELECT FROM pg_replication_slot_advance($1, $2::text::pg_lsn)";
    client.query(statement, &[&name, &Lsn(position).to_string()]).map_err(asking("moving the replication slot"))?;
    Ok(())
}

/// What was taken of the log that a slot holds.
pub(super) struct Collected {
    /// Everything before this position is in the spool, or is no longer there.
    pub(super) until: u64,
    /// Why there was an end before all was taken.
    pub(super) stopped: Option<Error>,
}

/// Hands over the segments of `last`'s timeline from position `from` to `last`, and that timeline's history. One that is not
/// there is passed over: whoever reads the log sees that it is missing.
pub(super) fn collect(
    pg_wal: &Path,
    (from, last, size): (u64, Segment, u64),
    has_had: &dyn Fn(&str) -> bool,
    hand_over: HandOver<'_>,
    task: &Task,
) -> Collected {
    let mut segment = Segment::holding(last.timeline, from, size);
    let mut take = |name: String| {
        task.check()?;
        if has_had(&name) {
            return Ok(());
        }
        let path = pg_wal.join(&name);
        match File::open(&path) {
            Ok(mut file) => hand_over(&name, &mut file),
            Err(cause) if cause.kind() == ErrorKind::NotFound => Ok(()),
            Err(cause) => Err(Error::io("opening", &path, cause)),
        }
    };
    let mut stopped = take(format!("{:08X}.history", last.timeline)).err();
    while stopped.is_none() && segment.number <= last.number {
        match take(segment.name(size)) {
            Ok(()) => segment = segment.next(),
            Err(cause) => stopped = Some(cause),
        }
    }
    Collected { until: segment.start(size), stopped }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;
    use std::fs;

    const SIZE: u64 = 1 << 20;

    /// What is handed over of segments 3 to 6 of which one is missing, with room for `room` files.
    fn collected(room: usize, had: &str) -> (Vec<String>, u64, bool) {
        let directory = tempfile::tempdir().expect("directory");
        let last = Segment { timeline: 2, number: 6 };
        for number in [3, 4, 6, 7] {
            fs::write(directory.path().join(Segment { number, ..last }.name(SIZE)), b"log").expect("segment");
        }
        fs::write(directory.path().join("00000002.history"), b"1\t0/300000\tno reason\n").expect("history");
        let taken = RefCell::new(Vec::new());
        let mut hand_over = |name: &str, _: &mut File| {
            if taken.borrow().len() >= room {
                return Err(Error::new(Code::SpoolFull, "no room"));
            }
            taken.borrow_mut().push(name.to_owned());
            Ok(())
        };
        let has_had = |name: &str| name == had;
        let from = 3 * SIZE + 40;
        let done = collect(directory.path(), (from, last, SIZE), &has_had, &mut hand_over, &Task::unobserved());
        let stopped = done.stopped.is_some();
        (taken.into_inner(), done.until / SIZE, stopped)
    }

    #[test]
    fn complete_segments_of_the_timeline_and_its_history_are_handed_over_in_order() {
        let name = |number| Segment { timeline: 2, number }.name(SIZE);
        let all = vec!["00000002.history".to_owned(), name(3), name(4), name(6)];
        assert_eq!(collected(9, ""), (all.clone(), 7, false));
        assert_eq!(collected(9, &name(4)), (vec![all[0].clone(), name(3), name(6)], 7, false));
    }

    #[test]
    fn what_finds_no_room_stays_with_the_server() {
        let name = |number| Segment { timeline: 2, number }.name(SIZE);
        assert_eq!(collected(2, ""), (vec!["00000002.history".to_owned(), name(3)], 4, true));
        assert_eq!(collected(0, ""), (vec![], 3, true));
    }
}
