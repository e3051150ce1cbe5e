//! The registry of jobs: lanes, cancellation, endings. No bus, no databases.

use crate::workshop::{FakeWorkshop, INTERVAL, PATIENCE, backup_request, target};
use neo4j_backup_agent::agent::jobs::{JOBS_ENDED_KEPT, JOBS_RUNNING_MAX, Registry};
use neo4j_backup_agent::agent::observed::{Job, Outcome};
use neo4j_backup_agent::base::Code;
use neo4j_backup_agent::base::clock::wait_until;
use neo4j_backup_agent::base::ids::JobId;
use neo4j_backup_agent::driver::restore_options::RestoreOptions;
use neo4j_backup_agent::operation::answer::{Answer, JobState};
use neo4j_backup_agent::operation::request::{BackupRequest, Destination, Request, RestoreRequest};
use std::sync::Arc;
use std::time::Duration;

fn ended(job: &Job) -> JobState {
    assert!(wait_until(PATIENCE, INTERVAL, || job.snapshot().state.is_final()), "job {} never ended", job.id);
    job.snapshot().state
}

/// Waits until the job is at work; one that has not begun is cancelled on the spot.
fn at_work(job: &Job) {
    assert!(wait_until(PATIENCE, INTERVAL, || job.snapshot().progress.done == 400), "job {} never began", job.id);
}

fn restore(destination: Destination) -> Request {
    Request::Restore(RestoreRequest {
        target: target("graph"),
        backup: None,
        destination,
        until: None,
        no_recover: false,
        without_system: false,
        options: RestoreOptions::default(),
        dry_run: false,
    })
}

#[test]
fn of_fifty_starts_at_once_one_runs_and_the_others_are_told_which() {
    let workshop = FakeWorkshop::new();
    let registry = Registry::new(workshop.clone());
    let starts: Vec<_> = (0..50)
        .map(|_| {
            let registry = registry.clone();
            std::thread::spawn(move || registry.start(backup_request("graph"), "tester"))
        })
        .collect();
    let results: Vec<_> = starts.into_iter().map(|start| start.join().expect("thread")).collect();
    let running: Vec<_> = results.iter().filter_map(|result| result.as_ref().ok()).collect();
    assert_eq!(running.len(), 1);
    for refused in results.iter().filter_map(|result| result.as_ref().err()) {
        assert_eq!((refused.code(), refused.code().exit()), (Code::Busy, 11));
        assert!(refused.message().contains(&format!("job {} (backup)", running[0].id)), "{refused}");
        assert!(refused.hint().contains(&format!("follow {}", running[0].id)), "{refused:?}");
    }
    workshop.open_gate();
    assert_eq!(ended(running[0]), JobState::Succeeded);
    assert!(registry.start(backup_request("graph"), "tester").is_ok(), "the lane is free again");
}

#[test]
fn lanes_of_targets_are_apart_and_a_restore_in_place_has_its_target_to_itself() {
    let workshop = FakeWorkshop::new();
    let registry = Registry::new(workshop.clone());
    let backup = registry.start(backup_request("graph"), "tester").expect("backup");
    registry.start(backup_request("metrics"), "tester").expect("another target");
    let in_place = registry.start(restore(Destination::InPlace), "tester").map(|_| ()).expect_err("excluded");
    assert_eq!(in_place.code(), Code::Busy);
    registry.start(restore(Destination::Into("/tmp/elsewhere".into())), "tester").expect("beside it is fine");
    registry.cancel(backup.id).expect("cancel");
    assert_eq!(ended(&backup), JobState::Cancelled);
    workshop.open_gate();
    assert!(registry.stop(PATIENCE));
}

#[test]
fn cancelling_ends_a_job_that_looks_and_not_one_that_was_done() {
    let workshop = FakeWorkshop::new();
    let registry = Registry::new(workshop.clone());
    let heeding = registry.start(backup_request("graph"), "tester").expect("start");
    let stubborn = registry.start(backup_request("stubborn"), "tester").expect("start");
    at_work(&heeding);
    at_work(&stubborn);
    registry.cancel(heeding.id).expect("cancel");
    registry.cancel(stubborn.id).expect("cancel");
    registry.cancel(stubborn.id).expect("asking twice is asking once");
    assert_eq!(ended(&heeding), JobState::Cancelled);
    let snapshot = heeding.snapshot();
    assert!(matches!(snapshot.outcome, Some(Outcome::Error { code: Code::Cancelled, .. })), "{snapshot:?}");
    assert!(wait_until(PATIENCE, INTERVAL, || stubborn.snapshot().state == JobState::Cancelling));
    workshop.open_gate();
    assert_eq!(ended(&stubborn), JobState::Succeeded, "it counts, whatever was asked");
    assert_eq!(registry.cancel(heeding.id).map_err(|e| e.code()), Err(Code::JobNotFound));
    assert_eq!(registry.cancel(JobId(9999)).map_err(|e| e.code()), Err(Code::JobNotFound));
}

#[test]
fn a_job_cancelled_before_it_began_ends_with_an_outcome_and_never_works() {
    let workshop = FakeWorkshop::new();
    let registry = Registry::new(workshop.clone());
    let mut before_it_began = 0;
    for _ in 0..200 {
        let job = registry.start(backup_request("graph"), "tester").expect("start");
        let following = job.follow();
        registry.cancel(job.id).expect("cancel");
        let mut snapshot = following.snapshot;
        assert!(wait_until(PATIENCE, INTERVAL, || {
            let now = snapshot.borrow_and_update();
            assert_eq!(now.state.is_final(), now.outcome.is_some(), "{now:?}");
            now.state.is_final()
        }));
        assert_eq!(job.snapshot().state, JobState::Cancelled);
        before_it_began += u32::from(job.snapshot().progress.done == 0);
    }
    let worked = workshop.executed.load(std::sync::atomic::Ordering::SeqCst);
    assert!(worked + u64::from(before_it_began) >= 200, "{worked} worked, {before_it_began} did not");
}

// req: D10
#[test]
fn every_end_is_put_on_record_with_its_error_and_who_asked() {
    let workshop = FakeWorkshop::new();
    let registry = Registry::new(workshop.clone());
    let broken = Request::Backup(BackupRequest {
        target: target("broken"),
        kind: None,
        note: Some("BACKUP_NO_SPACE".to_owned()),
        dry_run: false,
    });
    let job = registry.start(broken, "alice").expect("start");
    assert_eq!(ended(&job), JobState::Failed);
    let job = registry.start(backup_request("panicking"), "bob").expect("start");
    assert_eq!(ended(&job), JobState::Failed);
    let job = registry.start(backup_request("quick"), "carol").expect("start");
    assert_eq!(ended(&job), JobState::Succeeded);
    let on_record = workshop.ended.lock().expect("ended");
    let brief: Vec<_> = on_record
        .iter()
        .map(|(record, bytes, actor)| (record.state, record.error_code.as_deref(), *bytes, actor.as_str()))
        .collect();
    assert_eq!(
        brief,
        [
            (JobState::Failed, Some("BACKUP_NO_SPACE"), 400, "alice"),
            (JobState::Failed, Some("INTERNAL"), 400, "bob"),
            // Two phases: 400 and 1000 bytes.
            (JobState::Succeeded, None, 1400, "carol"),
        ]
    );
    assert!(on_record[1].0.message.as_deref().is_some_and(|text| text.contains("something no one thought of")));
    assert!(on_record.iter().all(|(record, ..)| record.ended_at.is_some_and(|end| end >= record.started_at)));
}

#[test]
fn an_agent_that_stops_takes_no_more_and_waits_for_what_runs() {
    let workshop = FakeWorkshop::new();
    let registry = Registry::new(workshop.clone());
    let job = registry.start(backup_request("stubborn"), "tester").expect("start");
    at_work(&job);
    assert!(!registry.stop(Duration::from_millis(20)), "it still runs");
    let refused = registry.start(backup_request("quick"), "tester").map(|_| ()).expect_err("stopping");
    assert_eq!(refused.code(), Code::Busy);
    workshop.open_gate();
    assert!(registry.stop(PATIENCE));
    assert_eq!(job.snapshot().state, JobState::Succeeded);
}

#[test]
fn the_numbers_of_jobs_are_bounded() {
    let workshop = FakeWorkshop::new();
    let registry = Registry::new(workshop.clone());
    for number in 0..JOBS_ENDED_KEPT + 5 {
        let job = registry.start(backup_request("quick"), "tester").unwrap_or_else(|e| panic!("{number}: {e}"));
        ended(&job);
    }
    assert_eq!(registry.ended().len(), JOBS_ENDED_KEPT);
    assert!(registry.find(JobId(1)).is_none(), "the oldest went");
    // Dry runs occupy no lane, so only the registry's own bound can stop them.
    let mut request = backup_request("stubborn");
    if let Request::Backup(backup) = &mut request {
        backup.dry_run = true;
    }
    for number in 0..JOBS_RUNNING_MAX {
        registry.start(request.clone(), "tester").unwrap_or_else(|e| panic!("{number}: {e}"));
    }
    assert_eq!(registry.start(request, "tester").map(|_| ()).map_err(|e| e.code()), Err(Code::Busy));
    workshop.open_gate();
    assert!(registry.stop(PATIENCE));
}

#[test]
fn jobs_lists_what_runs_with_its_progress() {
    let workshop = FakeWorkshop::new();
    let registry = Registry::new(workshop.clone());
    let job = registry.start(backup_request("graph"), "tester").expect("start");
    at_work(&job);
    let Ok(Answer::Jobs { jobs }) = registry.query(&Request::Jobs, "tester") else { panic!("no list") };
    let progress = jobs[0].progress.as_ref().expect("progress");
    assert_eq!(
        (jobs.len(), jobs[0].id, jobs[0].verb.as_str(), jobs[0].state),
        (1, job.id, "backup", JobState::Running)
    );
    assert_eq!((progress.phase.as_str(), progress.done, progress.total), ("dumping", 400, 1000));
    workshop.open_gate();
    ended(&job);
    let Ok(Answer::Jobs { jobs }) = registry.query(&Request::Jobs, "tester") else { panic!("no list") };
    assert!(jobs.is_empty());
}

#[test]
fn a_late_follower_hears_the_past_and_sees_the_end() {
    let workshop = FakeWorkshop::new();
    let registry = Registry::new(workshop.clone());
    let job = registry.start(backup_request("graph"), "tester").expect("start");
    assert!(wait_until(PATIENCE, INTERVAL, || !job.follow().past.is_empty()));
    let following = job.follow();
    assert_eq!(following.past[0].text, "the server was stopped for this");
    workshop.open_gate();
    ended(&job);
    let last: Arc<Job> = registry.find(job.id).expect("kept");
    assert_eq!(following.snapshot.borrow().state, JobState::Succeeded);
    assert!(last.elapsed_us() > 0);
}
