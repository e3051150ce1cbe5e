//! `continuous`: the log is shipped between the timers, without a trace of every round, but with one of every change.

use crate::site::{Site, backup_request, restore_request};
use crate::workshop::{INTERVAL, PATIENCE};
use jiff::Timestamp;
use neo4j_backup_agent::agent::assemble::{Role, workshop};
use neo4j_backup_agent::agent::continuous::{self, ACTOR, Shippers};
use neo4j_backup_agent::agent::jobs::Registry;
use neo4j_backup_agent::base::clock::{Stopwatch, wait_until};
use neo4j_backup_agent::base::ids::TargetName;
use neo4j_backup_agent::base::{Code, Error};
use neo4j_backup_agent::driver::sim::log;
use neo4j_backup_agent::operation::answer::{Answer, JobRecord, JobState, TargetStatus};
use neo4j_backup_agent::operation::request::{ArchiveRequest, Destination, Request};
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Longer than any round takes, and short enough that nobody waits.
const STOP: Duration = Duration::from_secs(20);

/// An agent that ships the log of a site's target every second.
pub(crate) struct Shipping {
    registry: Arc<Registry>,
    shippers: Option<Shippers>,
}

impl Shipping {
    pub(crate) fn start(site: &Site) -> Shipping {
        let mut agent = workshop(&site.config(), Role::Serve);
        // The thread of a job of the agent before may hold its state a moment longer than that one was there.
        let busy = |error: &Error| error.code() == Code::Busy;
        wait_until(PATIENCE, INTERVAL, || {
            if agent.as_ref().is_err_and(busy) {
                agent = workshop(&site.config(), Role::Serve);
            }
            !agent.as_ref().is_err_and(busy)
        });
        let registry = Registry::new(agent.expect("the agent"));
        let shippers = Some(continuous::start(&registry));
        Shipping { registry, shippers }
    }

    fn ask(&self, request: &Request) -> Answer {
        self.registry.query(request, "test").expect("an answer")
    }

    fn status(&self) -> TargetStatus {
        match self.ask(&Request::Status { target: None }) {
            Answer::Status { mut targets } => targets.remove(0),
            other => panic!("{other:?}"),
        }
    }

    /// The last archived transaction.
    pub(crate) fn archived(&self) -> u64 {
        self.status().log.map_or(0, |log| log.to_transaction)
    }

    pub(crate) fn jobs(&self) -> Vec<JobRecord> {
        match self.ask(&Request::History { limit: 100 }) {
            Answer::History { jobs, .. } => jobs,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn run(&self, request: Request) {
        let job = self.registry.start(request, "test").expect("it starts");
        if let Some(error) = self.registry.wait_for(&job) {
            panic!("{error}");
        }
    }
}

impl Drop for Shipping {
    fn drop(&mut self) {
        assert!(self.registry.stop(STOP) || std::thread::panicking(), "the agent does not end");
        self.shippers.take().expect("it was started").join();
    }
}

fn site() -> Site {
    let site = Site::logged();
    let text = fs::read_to_string(site.config()).expect("read");
    fs::write(site.config(), format!("{text}continuous = \"1s\"\n")).expect("write");
    site
}

fn commit(site: &Site, count: u64) -> u64 {
    let database = site.path("database");
    for _ in 0..count {
        let number = log::last_transaction(&database).expect("last") + 1;
        let at = Timestamp::from_second(1_790_000_000 + number as i64).expect("time");
        log::commit(&database, (number % 7) as u8, &format!("value {number}"), at).expect("commit");
    }
    log::last_transaction(&database).expect("last")
}

pub(crate) fn archive_of(target: &str) -> Request {
    Request::Archive(ArchiveRequest { target: TargetName::new(target).expect("name"), dry_run: false })
}

fn archive() -> Request {
    archive_of("sim")
}

/// Returns once the writer is at work.
fn commit_seen(site: &Site) {
    let last = || log::last_transaction(&site.path("database")).expect("last");
    let first = last();
    becomes("the writer commits", || last() > first + 3);
}

pub(crate) fn becomes(what: &str, condition: impl Fn() -> bool) {
    assert!(wait_until(PATIENCE, INTERVAL * 20, condition), "it never came that {what}");
}

// req: D6 X1
#[test]
fn what_is_committed_is_archived_within_seconds_and_leaves_no_job_behind() {
    let site = site();
    let agent = Shipping::start(&site);
    // The log needs a base: that is a job, once.
    becomes("a base was taken", || agent.jobs().iter().any(|job| job.state == JobState::Succeeded));
    let jobs = agent.jobs();
    assert_eq!(jobs.len(), 1, "{jobs:?}");
    assert_eq!(jobs[0].verb, "archive");
    for _ in 0..3 {
        let last = commit(&site, 5);
        becomes("the newest transaction is archived", || agent.archived() >= last);
    }
    assert_eq!(agent.jobs().len(), 1, "rounds leave no job: {:?}", agent.jobs());
    // A job finds the log, however often it is being shipped.
    for _ in 0..5 {
        commit(&site, 1);
        agent.run(archive());
    }
    let last = commit(&site, 2);
    becomes("the newest transaction is archived", || agent.archived() >= last);
    agent.run(Request::Backup(backup_request("sim")));
    agent.run(Request::Restore(restore_request("sim", Destination::Into(site.path("restored")))));
    let restored = log::state(&site.path("restored/data")).expect("state");
    assert!(restored == log::state(&site.path("database/data")).expect("state"));
}

// req: D6 D9
#[test]
fn a_failure_goes_on_record_once_and_its_end_too() {
    let site = site();
    let agent = Shipping::start(&site);
    becomes("a base was taken", || agent.jobs().iter().any(|job| job.state == JobState::Succeeded));
    let repository = site.path("repository");
    let aside = site.path("aside");
    fs::rename(&repository, &aside).expect("rename");
    fs::write(&repository, "not a directory").expect("write");
    commit(&site, 3);
    becomes("the failure is on record", || agent.status().last_failure.is_some());
    fs::remove_file(&repository).expect("remove");
    fs::rename(&aside, &repository).expect("rename");
    let last = commit(&site, 1);
    becomes("the log is archived", || agent.archived() >= last);
    becomes("the failure is over", || agent.status().last_failure.is_none());
    let failed: Vec<JobRecord> = agent.jobs().into_iter().filter(|job| job.state == JobState::Failed).collect();
    assert_eq!(failed.len(), 1, "{failed:?}");
    let Answer::History { events, .. } = agent.ask(&Request::History { limit: 100 }) else { panic!() };
    assert!(events.iter().any(|event| event.actor == ACTOR), "{events:?}");
}

// req: D6
#[test]
fn archiving_ends_although_the_database_is_written_to_all_the_while() {
    let site = site();
    site.ask(&archive()).expect("a base");
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let watch = Stopwatch::start();
            while !stop.load(Ordering::SeqCst) && watch.elapsed() < PATIENCE {
                commit(&site, 1);
            }
            watch.elapsed() < PATIENCE
        });
        commit_seen(&site);
        let Answer::Archive(report) = site.ask(&archive()).expect("archived") else { panic!("an archive") };
        stop.store(true, Ordering::SeqCst);
        assert!(writer.join().expect("join"), "it ended only when the writer did");
        assert!(report.repositories[0].covered_until.is_some(), "{report:?}");
    });
}

#[test]
fn an_agent_that_ends_ends_the_shipping_and_the_next_one_goes_on() {
    let site = site();
    for _ in 0..3 {
        let agent = Shipping::start(&site);
        let last = commit(&site, 4);
        becomes("the newest transaction is archived", || agent.archived() >= last);
    }
    site.verify().expect("all is sound");
}
