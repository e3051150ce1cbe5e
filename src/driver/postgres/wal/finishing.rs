//! A run of the archive begins by having the server finish its segment: then `archive_command` hands it over, or what the
//! replication slot holds is fetched.

use super::name::Segment;
use super::server::{self, Finished};
use super::slot::{self, Reserved};
use super::source::PostgresLog;
use crate::base::clock::wait_until;
use crate::base::task::Task;
use crate::base::{Code, Error, Result};
use crate::driver::log::HandOver;
use crate::driver::postgres::connection::{Address, CATALOG_TIMEOUT, TALK_TIMEOUT, within};
use postgres::Client;
use std::fs::File;
use std::time::Duration;

/// How long the server may take to hand over the segment that it has just finished.
const ARCHIVING_TIMEOUT: Duration = Duration::from_secs(60);
/// How often the spool is looked at meanwhile.
const ARCHIVING_INTERVAL: Duration = Duration::from_millis(50);

/// Most segments that are taken over from before archiving began.
const KEPT_SEGMENTS_MAX: usize = 64;

impl PostgresLog {
    /// Has the server hold its log from here on, where a slot does that.
    pub(crate) fn reserve(&self, task: &Task) -> Result<()> {
        if !self.by_slot {
            return Ok(());
        }
        let (address, target) = (self.address.clone(), self.target.clone());
        let reserve = move || reserve(&mut address.connect_any(CATALOG_TIMEOUT)?, &address, &target);
        self.tell_of_loss(within(TALK_TIMEOUT, "reserving the log", task, reserve)?, task);
        Ok(())
    }

    fn tell_of_loss(&self, reserved: Reserved, task: &Task) {
        if reserved.anew {
            let name = slot::name(&self.target);
            task.warn(format!(
                "the server let go of log that the replication slot {name} held for {}: max_slot_wal_keep_size was too little \
                 for the time that nothing was archived; the slot was made anew",
                self.target
            ));
        }
    }

    /// Has the server finish its segment, and takes over what the slot holds.
    pub(super) fn finish_by_slot(&self, hand_over: HandOver<'_>, task: &Task) -> Result<Finished> {
        let (address, target, data) = (self.address.clone(), self.target.clone(), self.data_directory.clone());
        let talk = move || {
            let mut client = address.connect_any(CATALOG_TIMEOUT)?;
            let reserved = reserve(&mut client, &address, &target)?;
            Ok((reserved, server::finish_segment(&mut client, &address, (&target, false), &data)?))
        };
        let (reserved, finished) = within(TALK_TIMEOUT, "ending the segment", task, talk)?;
        self.tell_of_loss(reserved, task);
        let (spool, size) = (self.spooled()?, finished.segment_size);
        let has_had = |name: &str| spool.has_had(name);
        let pg_wal = self.data_directory.join("pg_wal");
        let collected = slot::collect(&pg_wal, (reserved.from, finished.last, size), &has_had, hand_over, task);
        let (address, name) = (self.address.clone(), slot::name(&self.target));
        let advance = move || slot::advance(&mut address.connect_any(CATALOG_TIMEOUT)?, &name, collected.until);
        within(TALK_TIMEOUT, "moving the replication slot", task, advance)?;
        collected.stopped.map_or(Ok(()), Err)?;
        match spool.has_had(&finished.last.name(size)) || finished.last.start(size) + size <= reserved.from {
            true => Ok(finished),
            false => {
                let text = format!("{} has no {}", pg_wal.display(), finished.last.name(size));
                Err(Error::new(Code::PostgresToolFailed, text)
                    .with_hint("the target's data_directory is the server's: SHOW data_directory;"))
            }
        }
    }

    /// Has the server finish its segment, and waits until `archive_command` has handed it over.
    pub(super) fn finish_by_command(&self, hand_over: HandOver<'_>, task: &Task) -> Result<Finished> {
        let (address, target, data) = (self.address.clone(), self.target.clone(), self.data_directory.clone());
        let talk = move || {
            let mut client = address.connect_any(CATALOG_TIMEOUT)?;
            server::refuse_standby(&mut client, &target)?;
            server::finish_segment(&mut client, &address, (&target, true), &data)
        };
        let finished = within(TALK_TIMEOUT, "ending the segment", task, talk)?;
        self.take_what_is_not_handed_over(finished, hand_over, task)?;
        self.await_segment(finished, task)?;
        Ok(finished)
    }

    /// Takes over what the server finished before it handed anything over: while `archive_mode` was off, or to another tool.
    /// It keeps such segments for a while, and never hands them over by itself; a base that was taken meanwhile
    /// would be followed by a gap.
    fn take_what_is_not_handed_over(&self, finished: Finished, hand_over: HandOver<'_>, task: &Task) -> Result<()> {
        let Finished { mut last, segment_size, .. } = finished;
        let (spool, pg_wal) = (self.spooled()?, self.data_directory.join("pg_wal"));
        for _ in 0..KEPT_SEGMENTS_MAX {
            let name = last.name(segment_size);
            if spool.has_had(&name) {
                break;
            }
            // The server is about to.
            if !pg_wal.join("archive_status").join(format!("{name}.ready")).exists() {
                let Ok(mut file) = File::open(pg_wal.join(&name)) else { break };
                match hand_over(&name, &mut file) {
                    Ok(()) => task
                        .info(format!("{name} was taken from {}: the server had not handed it over", pg_wal.display())),
                    // What the server does hand over needs the room.
                    Err(error) if error.code() == Code::SpoolFull => break,
                    Err(error) => return Err(error),
                }
            }
            if last.number == 0 {
                break;
            }
            last.number -= 1;
        }
        Ok(())
    }

    /// Whether the server has a finished segment no more and never handed it over: it was finished before anything was
    /// archived, and used again.
    pub(super) fn is_lost(&self, segment: Segment, size: u64) -> Result<bool> {
        let name = segment.name(size);
        // In this order: what is handed over may be used again at once.
        let kept = self.data_directory.join("pg_wal").join(&name).exists();
        Ok(!kept && !self.spooled()?.has_had(&name))
    }

    /// Waits until a segment that the server has finished is here.
    fn await_segment(&self, finished: Finished, task: &Task) -> Result<()> {
        let last = finished.last;
        if self.is_lost(last, finished.segment_size)? {
            // Whoever reads on from there tells of the gap.
            return Ok(());
        }
        let spool = self.spooled()?;
        let size = spool.segments()?.size;
        // Before the first segment came nobody knows how they are named; the usual size is a guess that is corrected.
        let name = || Ok::<_, Error>(last.name(spool.segments()?.size.or(size).unwrap_or(16 << 20)));
        let mut here = Ok(false);
        wait_until(ARCHIVING_TIMEOUT, ARCHIVING_INTERVAL, || {
            here = name().map(|name| spool.has_had(&name));
            task.cancel().is_cancelled() || spool.is_full() || !matches!(here, Ok(false))
        });
        task.check()?;
        if here? {
            return Ok(());
        }
        if spool.is_full() {
            let text = format!("the server of {} keeps {}: there is no room for it in the spool", self.target, name()?);
            return Err(Error::new(Code::SpoolFull, text));
        }
        let address = self.address.clone();
        let says = within(TALK_TIMEOUT, "asking for the archiver", task, move || server::archiver_says(&address));
        let text = format!(
            "the server of {} did not hand over {} within {} s: {}",
            self.target,
            name()?,
            ARCHIVING_TIMEOUT.as_secs(),
            says.unwrap_or_else(|error| error.message().to_owned())
        );
        Err(Error::new(Code::PostgresToolFailed, text)
            .with_hint("the server's own log says why its archive_command failed; it tries again by itself"))
    }
}

/// The slot of a target on a server that is no standby: there it would hold log that nobody ever takes.
fn reserve(client: &mut Client, address: &Address, target: &str) -> Result<Reserved> {
    server::refuse_standby(client, target)?;
    slot::reserve(client, &slot::name(target), &address.user)
}
