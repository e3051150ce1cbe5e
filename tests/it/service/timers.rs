//! `enable` and `disable` ask systemd. What answers here is a stand-in that keeps what it is told; `make host-test` has the
//! real one.

use super::TestAgent;
use crate::servers::bus::PrivateBus;
use crate::site::BACKUPCTL;
use neo4j_backup_agent::base::Code;
use serde_json::Value;
use std::collections::BTreeSet;
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};
use zbus::message::Header;
use zbus::object_server::SignalEmitter;
use zbus::{Connection, OwnedObjectPath, fdo, interface};

#[derive(Default)]
struct State {
    enabled: BTreeSet<String>,
    started: BTreeSet<String>,
    calls: Vec<String>,
    refuses: bool,
    subscribed: BTreeSet<String>,
    /// Units whose start fails.
    broken: BTreeSet<String>,
    jobs: u32,
}

#[derive(Clone, Default)]
struct StandIn(Arc<Mutex<State>>);

type Changes = Vec<(String, String, String)>;

impl StandIn {
    fn asked(&self, call: String) -> fdo::Result<()> {
        let mut state = self.0.lock().expect("lock");
        state.calls.push(call);
        if state.refuses {
            Err(fdo::Error::InteractiveAuthorizationRequired("Interactive authentication required.".into()))
        } else {
            Ok(())
        }
    }

    async fn job(&self, unit: String, start: bool, emitter: SignalEmitter<'_>) -> fdo::Result<OwnedObjectPath> {
        self.asked(format!("{} {unit}", if start { "start" } else { "stop" }))?;
        let (number, result) = {
            let mut state = self.0.lock().expect("lock");
            state.jobs += 1;
            if start {
                state.started.insert(unit.clone())
            } else {
                state.started.remove(&unit)
            };
            (state.jobs, if state.broken.contains(&unit) { "failed" } else { "done" })
        };
        let path = OwnedObjectPath::try_from(format!("/org/freedesktop/systemd1/job/{number}")).expect("path");
        // Another one's job ends too.
        let other = OwnedObjectPath::try_from("/org/freedesktop/systemd1/job/9999").expect("path");
        Self::job_removed(&emitter, 9999, other, "other.service".into(), "failed".into()).await?;
        Self::job_removed(&emitter, number, path.clone(), unit, result.into()).await?;
        Ok(path)
    }
}

#[interface(name = "org.freedesktop.systemd1.Manager")]
impl StandIn {
    async fn subscribe(&self, #[zbus(header)] header: Header<'_>) -> fdo::Result<()> {
        let caller = header.sender().map(ToString::to_string).unwrap_or_default();
        match self.0.lock().expect("lock").subscribed.insert(caller) {
            true => Ok(()),
            false => Err(fdo::Error::Failed("Client is already subscribed.".into())),
        }
    }

    async fn reload(&self) -> fdo::Result<()> {
        self.asked("reload".into())
    }

    async fn enable_unit_files(
        &self,
        units: Vec<String>,
        _runtime: bool,
        _force: bool,
    ) -> fdo::Result<(bool, Changes)> {
        self.asked(format!("enable {}", units.join(" ")))?;
        let mut state = self.0.lock().expect("lock");
        let new = units.into_iter().filter(|unit| state.enabled.insert(unit.clone()));
        Ok((true, new.map(|unit| ("symlink".to_owned(), unit, String::new())).collect()))
    }

    async fn disable_unit_files(&self, units: Vec<String>, _runtime: bool) -> fdo::Result<Changes> {
        self.asked(format!("disable {}", units.join(" ")))?;
        let mut state = self.0.lock().expect("lock");
        let gone = units.into_iter().filter(|unit| state.enabled.remove(unit));
        Ok(gone.map(|unit| ("unlink".to_owned(), unit, String::new())).collect())
    }

    async fn start_unit(
        &self,
        unit: String,
        _mode: String,
        #[zbus(signal_emitter)] emitter: SignalEmitter<'_>,
    ) -> fdo::Result<OwnedObjectPath> {
        self.job(unit, true, emitter).await
    }

    async fn stop_unit(
        &self,
        unit: String,
        _mode: String,
        #[zbus(signal_emitter)] emitter: SignalEmitter<'_>,
    ) -> fdo::Result<OwnedObjectPath> {
        self.job(unit, false, emitter).await
    }

    #[zbus(signal)]
    async fn job_removed(
        emitter: &SignalEmitter<'_>,
        id: u32,
        job: OwnedObjectPath,
        unit: String,
        result: String,
    ) -> zbus::Result<()>;
}

struct Scene {
    agent: TestAgent,
    systemd: StandIn,
    _connection: Connection,
}

impl Scene {
    fn new() -> Scene {
        let (agent, systemd) = (TestAgent::start(), StandIn::default());
        let built = zbus::connection::Builder::address(agent.bus.address())
            .serve_at("/org/freedesktop/systemd1", systemd.clone())
            .name("org.freedesktop.systemd1");
        let connection = agent.runtime.block_on(built.build()).expect("the stand-in's name");
        Scene { agent, systemd, _connection: connection }
    }

    fn enabled(&self) -> Vec<String> {
        self.systemd.0.lock().expect("lock").enabled.iter().cloned().collect()
    }
}

fn ctl(bus: &PrivateBus, arguments: &[&str]) -> Output {
    Command::new(BACKUPCTL).args(["--bus", bus.address()]).args(arguments).output().expect("the client")
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout)
}

// req: K4
#[test]
fn a_database_is_backed_up_by_itself_until_it_is_disabled() {
    let scene = Scene::new();
    let bus = &scene.agent.bus;
    let done = ctl(bus, &["--json=short", "enable", "graph"]);
    assert_eq!(done.status.code(), Some(0), "{}", said(&done));
    let answer: Value = serde_json::from_slice(&done.stdout).expect("JSON");
    let timers = [
        "neo4j-backup-full@graph.timer",
        "neo4j-backup-incremental@graph.timer",
        "neo4j-backup-cleanup.timer",
        "neo4j-backup-verify.timer",
    ];
    assert_eq!(answer["enabled"], serde_json::json!(timers));
    assert_eq!(answer["left_out"], serde_json::json!([]));
    let mut expected: Vec<&str> = timers.into_iter().chain(["neo4j-backupd.service"]).collect();
    expected.sort_unstable();
    assert_eq!(scene.enabled(), expected);
    {
        let state = scene.systemd.0.lock().expect("lock");
        assert_eq!(state.started.iter().collect::<Vec<_>>(), expected);
        let read_again = state.calls.iter().rposition(|call| call == "reload").expect("systemd's units are read again");
        let started = state.calls.iter().position(|call| call == "start neo4j-backup-full@graph.timer").expect("start");
        assert!(read_again < started, "before the timers start: {:?}", state.calls);
    }
    // Twice is as good as once.
    assert_eq!(ctl(bus, &["enable", "graph"]).status.code(), Some(0));
    let done = ctl(bus, &["disable", "graph"]);
    assert_eq!(done.status.code(), Some(0), "{}", said(&done));
    assert_eq!(scene.enabled(), ["neo4j-backup-cleanup.timer", "neo4j-backup-verify.timer", "neo4j-backupd.service"]);
    let state = scene.systemd.0.lock().expect("lock");
    assert!(!state.started.iter().any(|unit| unit.contains('@')), "{:?}", state.started);
}

#[test]
fn increments_that_could_only_fail_are_left_out_and_it_is_said_why() {
    let scene = Scene::new();
    let done = ctl(&scene.agent.bus, &["enable", "metrics"]);
    assert_eq!(done.status.code(), Some(0), "{}", said(&done));
    assert!(
        said(&done).contains("neo4j-backup-incremental@metrics.timer is left out: archive_mode is off"),
        "{}",
        said(&done)
    );
    assert!(scene.enabled().contains(&"neo4j-backup-full@metrics.timer".to_owned()));
    assert!(!scene.enabled().contains(&"neo4j-backup-incremental@metrics.timer".to_owned()));
}

#[test]
fn what_is_wrong_is_told_with_its_own_status() {
    let scene = Scene::new();
    let bus = &scene.agent.bus;
    let unknown = Some(i32::from(Code::TargetUnknown.exit()));
    assert_eq!(ctl(bus, &["enable", "nowhere"]).status.code(), unknown);
    assert_eq!(ctl(bus, &["disable", "nowhere"]).status.code(), unknown, "a slip of the pen");
    assert_eq!(ctl(bus, &["disable", "graph"]).status.code(), Some(0), "it was not enabled");
    assert!(!scene.enabled().iter().any(|unit| unit.contains('@')));
    scene.systemd.0.lock().expect("lock").broken.insert("neo4j-backup-full@graph.timer".to_owned());
    let failed = ctl(bus, &["enable", "graph"]);
    assert_eq!(failed.status.code(), Some(i32::from(Code::ServerControlFailed.exit())), "{}", said(&failed));
    assert!(said(&failed).contains("systemd-analyze calendar \"hourly\""), "{}", said(&failed));
    scene.systemd.0.lock().expect("lock").refuses = true;
    let refused = ctl(bus, &["--no-ask-password", "enable", "graph"]);
    assert_eq!(refused.status.code(), Some(i32::from(Code::NotAuthorised.exit())), "{}", said(&refused));
}

#[test]
fn without_systemd_it_says_so() {
    let agent = TestAgent::start();
    for command in ["enable", "disable"] {
        let done = ctl(&agent.bus, &[command, "graph"]);
        assert_eq!(done.status.code(), Some(i32::from(Code::NotAvailable.exit())), "{}", said(&done));
        assert!(said(&done).contains("no systemd"), "{}", said(&done));
    }
    let direct = Command::new(BACKUPCTL).args(["--direct", "enable", "graph"]).output().expect("the client");
    assert_eq!(direct.status.code(), Some(i32::from(Code::Usage.exit())), "{}", said(&direct));
}
