//! The agent on a private bus, with a workshop that the tests steer.

use crate::servers::bus::PrivateBus;
use crate::workshop::{ERRORS_FROM, FakeWorkshop, INTERVAL, PATIENCE, backup_report, backup_request, target};
use futures_util::StreamExt;
use neo4j_backup_agent::agent::continuous::{self, Shippers};
use neo4j_backup_agent::agent::jobs::{JOBS_ENDED_KEPT, Registry};
use neo4j_backup_agent::base::clock::wait_until;
use neo4j_backup_agent::base::ids::JobId;
use neo4j_backup_agent::base::task::Severity;
use neo4j_backup_agent::base::{Code, Error, Result};
use neo4j_backup_agent::dbus::address::BusAddress;
use neo4j_backup_agent::dbus::authority::{Authority, Call, Caller, Decision, OwnerOnly, Question};
use neo4j_backup_agent::dbus::proxy::{AgentProxy, FollowedJob, Update};
use neo4j_backup_agent::dbus::service::{Service, serve};
use neo4j_backup_agent::dbus::{BUS_NAME, JOB_INTERFACE, MANAGER_INTERFACE, MANAGER_PATH, job_path};
use neo4j_backup_agent::operation::answer::{Answer, JobState};
use neo4j_backup_agent::operation::request::{BackupRequest, Request};
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;
use std::os::unix::net::UnixDatagram;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use tokio::runtime::Runtime;
use zbus::{Connection, MatchRule, MessageStream, Structure, Variant};

mod polkit;
mod reload;
mod timers;

/// An agent on a bus of its own, in this process.
pub(crate) struct TestAgent {
    pub(crate) bus: PrivateBus,
    pub(crate) workshop: Arc<FakeWorkshop>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) runtime: Runtime,
    service: Option<Service>,
    shippers: Option<Shippers>,
}

impl TestAgent {
    pub(crate) fn start() -> Self {
        Self::with_authority(Arc::new(OwnerOnly::of_this_process()))
    }

    pub(crate) fn with_authority(authority: Arc<dyn Authority>) -> Self {
        let bus = PrivateBus::start();
        let workshop = FakeWorkshop::new();
        let registry = Registry::new(workshop.clone());
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("runtime");
        let address = BusAddress::At(bus.address().to_owned());
        let service = runtime.block_on(Service::start(&address, registry.clone(), authority)).expect("service");
        let shippers = Some(continuous::start(&registry));
        TestAgent { bus, workshop, registry, runtime, service: Some(service), shippers }
    }

    pub(crate) fn address(&self) -> BusAddress {
        BusAddress::At(self.bus.address().to_owned())
    }

    async fn client(&self) -> AgentProxy {
        AgentProxy::connect(&self.address(), false).await.expect("client")
    }

    async fn connection(&self) -> Connection {
        zbus::connection::Builder::address(self.bus.address()).build().await.expect("connection")
    }
}

impl Drop for TestAgent {
    fn drop(&mut self) {
        self.workshop.open_gate();
        if let Some(service) = self.service.take() {
            let _ = self.runtime.block_on(service.stop(PATIENCE));
        }
        if let Some(shippers) = self.shippers.take() {
            self.registry.stop(PATIENCE);
            shippers.join();
        }
    }
}

async fn next(job: &mut FollowedJob) -> Update {
    tokio::time::timeout(PATIENCE, job.next()).await.expect("in time").expect("update")
}

async fn end_of(job: &mut FollowedJob) -> Result<Answer> {
    loop {
        if let Update::Ended(result) = next(job).await {
            return result;
        }
    }
}

// req: K8
#[test]
fn a_job_reports_its_progress_and_its_answer_over_the_bus() {
    let agent = TestAgent::start();
    agent.runtime.block_on(async {
        let client = agent.client().await;
        let mut job = client.start(&backup_request("graph")).await.expect("start");
        let (mut numbers, mut said) = (None, None);
        while numbers.is_none() || said.is_none() {
            match next(&mut job).await {
                Update::Progress(progress) if progress.done == 400 => numbers = Some(progress),
                Update::Event(severity, text) => said = Some((severity, text)),
                Update::Progress(_) => {}
                Update::Ended(result) => panic!("ended: {result:?}"),
            }
        }
        let numbers = numbers.expect("numbers");
        assert_eq!((numbers.phase.as_str(), numbers.total), ("dumping", 1000));
        assert_eq!(said, Some((Severity::Warning, "the server was stopped for this".to_owned())));
        agent.workshop.open_gate();
        let answer = end_of(&mut job).await.expect("success");
        assert_eq!(answer, Answer::Backup(backup_report(&target("graph"), false)));
        // Somebody who comes later finds the same answer.
        let mut late = client.follow(job.id).await.expect("still there");
        assert_eq!(end_of(&mut late).await.expect("success"), answer);
    });
}

#[test]
fn a_job_is_cancelled_over_the_bus_by_number_and_by_its_object() {
    let agent = TestAgent::start();
    agent.runtime.block_on(async {
        let client = agent.client().await;
        let mut job = client.start(&backup_request("graph")).await.expect("start");
        let answer = client.query(&Request::Cancel { job: job.id }).await.expect("cancel");
        assert_eq!(answer, Answer::Cancel { job: job.id });
        assert_eq!(end_of(&mut job).await.map_err(|e| e.code()), Err(Code::Cancelled));
        let mut job = client.start(&backup_request("graph")).await.expect("the lane is free");
        let path = job_path(job.id);
        let connection = agent.connection().await;
        let called = connection.call_method(Some(BUS_NAME), path.as_str(), Some(JOB_INTERFACE), "Cancel", &()).await;
        called.expect("cancel");
        assert_eq!(end_of(&mut job).await.map_err(|e| e.code()), Err(Code::Cancelled));
        let gone = client.query(&Request::Cancel { job: JobId(4711) }).await.expect_err("no such job");
        assert_eq!(gone.code(), Code::JobNotFound);
        assert_eq!(client.follow(JobId(4711)).await.map(|_| ()).map_err(|e| e.code()), Err(Code::JobNotFound));
    });
}

#[test]
fn every_error_keeps_its_name_its_words_and_its_exit_status() {
    let agent = TestAgent::start();
    agent.runtime.block_on(async {
        let client = agent.client().await;
        for &code in Code::ALL {
            let limit = ERRORS_FROM + u32::from(code.number());
            let error = client.query(&Request::History { limit }).await.expect_err("an error");
            assert_eq!((error.code(), error.code().exit()), (code, code.exit()));
            assert_eq!((error.message(), error.hint()), ("reading the history", "a hint: of two\nlines"));
            let note = Some(code.name().to_owned());
            let request = BackupRequest { target: target("broken"), kind: None, note, dry_run: false };
            let mut job = client.start(&Request::Backup(request)).await.expect("start");
            let error = end_of(&mut job).await.expect_err("an error");
            assert_eq!((error.code(), error.message(), error.hint()), (code, "the work broke", "mend it"));
        }
        let mut first = client.start(&backup_request("graph")).await.expect("start");
        let busy = client.start(&backup_request("graph")).await.map(|_| ()).expect_err("busy");
        assert_eq!(busy.code(), Code::Busy);
        assert!(busy.message().contains(&format!("job {}", first.id)), "{busy}");
        agent.workshop.open_gate();
        end_of(&mut first).await.expect("success");
    });
}

#[test]
fn jobs_are_announced_in_order_and_changes_are_thinned() {
    let agent = TestAgent::start();
    agent.runtime.block_on(async {
        let connection = agent.connection().await;
        let rule = MatchRule::builder()
            .msg_type(zbus::message::Type::Signal)
            .path_namespace(MANAGER_PATH)
            .build()
            .expect("rule");
        let mut signals = MessageStream::for_match_rule(rule, &connection, None).await.expect("stream");
        let client = agent.client().await;
        let mut chatty = client.start(&backup_request("chatty")).await.expect("start");
        let id = chatty.id;
        end_of(&mut chatty).await.expect("success");
        let (mut order, mut changes, mut events) = (Vec::new(), 0, 0);
        while order.len() < 2 {
            let signal =
                tokio::time::timeout(PATIENCE, signals.next()).await.expect("in time").expect("open").expect("ok");
            let header = signal.header();
            let path = header.path().expect("path").to_string();
            match header.member().expect("member").as_str() {
                "JobNew" => {
                    let (job, object): (u64, zbus::OwnedObjectPath) = signal.body().deserialize().expect("body");
                    assert_eq!((job, object.as_str()), (id.0, job_path(id).as_str()));
                    order.push("new");
                }
                "JobRemoved" => {
                    let (job, _, result): (u64, zbus::OwnedObjectPath, String) =
                        signal.body().deserialize().expect("body");
                    assert_eq!((job, result.as_str()), (id.0, "succeeded"));
                    order.push("removed");
                }
                member if path == job_path(id) => {
                    assert_eq!(order, ["new"], "{member} of the job outside its life");
                    changes += u32::from(member == "PropertiesChanged");
                    events += u32::from(member == "Event");
                }
                _ => {}
            }
        }
        assert_eq!(order, ["new", "removed"]);
        // 5 000 reports: the first, one each 200 ms, and the last.
        let elapsed_ms = agent.registry.find(id).expect("kept").elapsed_us() / 1000;
        assert!(changes >= 1 && u64::from(changes) <= 2 + elapsed_ms / 200 + 1, "{changes} in {elapsed_ms} ms");
        assert!(events >= 1, "events are not thinned away");
    });
}

#[test]
fn ended_jobs_stay_readable_and_their_number_is_bounded() {
    let agent = TestAgent::start();
    agent.runtime.block_on(async {
        let client = agent.client().await;
        let mut last = JobId(0);
        for _ in 0..JOBS_ENDED_KEPT + 4 {
            let mut job = client.start(&backup_request("quick")).await.expect("start");
            end_of(&mut job).await.expect("success");
            last = job.id;
        }
        let connection = agent.connection().await;
        let kept = || async {
            let path = format!("{MANAGER_PATH}/job");
            let interface = Some("org.freedesktop.DBus.Introspectable");
            let reply = connection.call_method(Some(BUS_NAME), path.as_str(), interface, "Introspect", &()).await;
            let xml: String = reply.expect("reply").body().deserialize().expect("xml");
            xml.matches("<node name=").count()
        };
        let patience = tokio::time::Instant::now() + PATIENCE;
        while kept().await > JOBS_ENDED_KEPT {
            assert!(tokio::time::Instant::now() < patience, "{} objects", kept().await);
        }
        assert_eq!(client.follow(JobId(1)).await.map(|_| ()).map_err(|e| e.code()), Err(Code::JobNotFound));
        assert!(client.follow(last).await.is_ok());
    });
}

/// Lets nobody do anything.
struct Nobody;

impl Authority for Nobody {
    fn allow<'a>(&'a self, _: Call<'a>, question: &'a Question, caller: &'a Caller) -> Decision<'a> {
        let text = format!("{:?} is not for user {}", question.action, caller.uid);
        Box::pin(async move { Err(Error::new(Code::NotAuthorised, text)) })
    }
}

#[test]
fn nothing_is_done_and_nothing_is_told_without_permission() {
    let agent = TestAgent::with_authority(Arc::new(Nobody));
    agent.runtime.block_on(async {
        let client = agent.client().await;
        let started = client.start(&backup_request("graph")).await.map(|_| ());
        let own_uid = nix::unistd::geteuid().as_raw();
        let refused = started.expect_err("refused");
        assert_eq!((refused.code(), refused.code().exit()), (Code::NotAuthorised, 77));
        assert!(refused.message().contains(&format!("Backup is not for user {own_uid}")), "{refused}");
        for request in [Request::Status { target: None }, Request::KeyList, Request::Cancel { job: JobId(1) }] {
            assert_eq!(client.query(&request).await.map_err(|e| e.code()), Err(Code::NotAuthorised));
        }
        assert_eq!(agent.workshop.executed.load(std::sync::atomic::Ordering::SeqCst), 0);
    });
}

#[test]
fn an_unknown_option_is_refused_by_name() {
    let agent = TestAgent::start();
    agent.runtime.block_on(async {
        let connection = agent.connection().await;
        let options = std::collections::HashMap::from([("dryrun", Variant::from(true))]);
        let called = connection
            .call_method(Some(BUS_NAME), MANAGER_PATH, Some(MANAGER_INTERFACE), "Backup", &("quick", options))
            .await;
        let Err(zbus::Error::MethodError(name, Some(text), _)) = called else { panic!("{called:?}") };
        assert_eq!(name.as_str(), "org.neo4jbackup.Error.Usage");
        assert!(text.contains("\"dryrun\"") && text.contains("\nhint: ") && text.contains("dry_run"), "{text}");
        assert!(agent.registry.ended().is_empty() && agent.registry.running().is_empty());
    });
}

fn value() -> impl Strategy<Value = Variant<'static>> {
    use proptest::prelude::*;
    let leaf = prop_oneof![
        any::<bool>().prop_map(Variant::from),
        any::<u8>().prop_map(Variant::from),
        any::<i32>().prop_map(Variant::from),
        any::<u64>().prop_map(Variant::from),
        any::<f64>().prop_map(Variant::from),
        "[^\0]{0,40}".prop_map(Variant::from),
        Just(Variant::from("graph")),
        Just(Variant::from("x".repeat(100_000))),
        Just(Variant::from("../../etc/passwd; rm -rf / --no-preserve-root $(id)")),
        proptest::collection::vec(any::<u32>(), 0..20).prop_map(Variant::from),
        proptest::collection::hash_map("[a-z_]{0,12}", any::<bool>(), 0..4).prop_map(|map| Variant::from(
            map.into_iter().map(|(k, v)| (k, Variant::from(v))).collect::<std::collections::HashMap<_, _>>()
        )),
    ];
    leaf.prop_recursive(3, 8, 2, |inner| inner.prop_map(|inner| Variant::Variant(Box::new(inner))))
}

#[test]
fn ten_thousand_messages_of_wrong_types_crash_nothing() {
    const METHODS: &[&str] = &[
        "Backup",
        "Restore",
        "Verify",
        "Delete",
        "Cleanup",
        "Rescan",
        "Cancel",
        "Status",
        "List",
        "Show",
        "Presign",
        "History",
        "Jobs",
        "Restores",
        "Check",
        "KeyList",
        "KeyRotate",
        "Adopt",
        "Archive",
        "PushWal",
        "FetchWal",
        "Nonsense",
        "Get",
    ];
    let agent = TestAgent::start();
    agent.workshop.open_gate();
    let bodies = proptest::collection::vec(value(), 0..4);
    let mut runner = TestRunner::deterministic();
    agent.runtime.block_on(async {
        let connection = agent.connection().await;
        let (mut answered, mut refused) = (0, 0);
        for number in 0..10_000 {
            let body = bodies.new_tree(&mut runner).expect("body").current();
            let method = METHODS[number % METHODS.len()];
            let interface = (number % 7 > 0).then_some(MANAGER_INTERFACE);
            let call = async {
                if body.is_empty() {
                    return connection.call_method(Some(BUS_NAME), MANAGER_PATH, interface, method, &()).await;
                }
                let mut fields = zbus::wire::StructureBuilder::new();
                for field in body {
                    fields = fields.append_field(field);
                }
                let body: Structure<'_> = fields.build().expect("structure");
                connection.call_method(Some(BUS_NAME), MANAGER_PATH, interface, method, &body).await
            };
            match tokio::time::timeout(PATIENCE, call).await.expect("an answer, whatever it is") {
                Ok(_) => answered += 1,
                Err(zbus::Error::MethodError(..) | zbus::Error::FDO(_)) => refused += 1,
                Err(other) => panic!("message {number}: {other}"),
            }
        }
        assert!(refused > 5_000 && answered > 50, "{refused} refused, {answered} answered");
        let client = agent.client().await;
        client.query(&Request::Status { target: None }).await.expect("it still answers");
    });
    assert!(agent.registry.stop(PATIENCE));
}

/// The `<interface>` element of a live object, without the standard interfaces around it.
async fn live_interface(connection: &Connection, path: &str, interface: &str) -> String {
    let standard = Some("org.freedesktop.DBus.Introspectable");
    let reply = connection.call_method(Some(BUS_NAME), path, standard, "Introspect", &()).await.expect("introspection");
    let xml: String = reply.body().deserialize().expect("xml");
    let start = xml.find(&format!("<interface name=\"{interface}\">")).expect("the interface");
    let end = xml[start..].find("</interface>").expect("its end") + start + "</interface>".len();
    format!("<node>\n  {}\n</node>\n", xml[start..end].trim())
}

#[test]
fn the_interfaces_are_those_that_the_package_describes() {
    let agent = TestAgent::start();
    agent.runtime.block_on(async {
        let connection = agent.connection().await;
        let mut job = agent.client().await.start(&backup_request("quick")).await.expect("start");
        end_of(&mut job).await.expect("success");
        for (interface, path) in [(MANAGER_INTERFACE, MANAGER_PATH.to_owned()), (JOB_INTERFACE, job_path(job.id))] {
            let live = live_interface(&connection, &path, interface).await;
            let file = format!("{}/packaging/dbus/{interface}.xml", env!("CARGO_MANIFEST_DIR"));
            if std::env::var_os("UPDATE_DOCS").is_some() {
                std::fs::write(&file, &live).expect("write");
            }
            let packaged = std::fs::read_to_string(&file).expect("packaged description");
            assert_eq!(packaged, live, "{file} is out of date: run the test with UPDATE_DOCS=1");
        }
    });
}

#[test]
fn the_manager_says_how_busy_it_is() {
    let agent = TestAgent::start();
    agent.runtime.block_on(async {
        let connection = agent.connection().await;
        let property = |name: &'static str| {
            let connection = &connection;
            async move {
                let interface = Some("org.freedesktop.DBus.Properties");
                let reply = connection
                    .call_method(Some(BUS_NAME), MANAGER_PATH, interface, "Get", &(MANAGER_INTERFACE, name))
                    .await
                    .expect("reply");
                reply.body().deserialize::<zbus::OwnedVariant>().expect("value")
            }
        };
        assert_eq!(*property("Version").await, Variant::from(env!("CARGO_PKG_VERSION")));
        assert_eq!(*property("State").await, Variant::from("ready"));
        let mut job = agent.client().await.start(&backup_request("graph")).await.expect("start");
        assert_eq!(*property("State").await, Variant::from("working"));
        assert_eq!(*property("JobCount").await, Variant::from(1u32));
        agent.workshop.open_gate();
        end_of(&mut job).await.expect("success");
        assert_eq!(*property("State").await, Variant::from("ready"));
    });
}

#[test]
fn a_second_agent_on_the_bus_is_refused() {
    let agent = TestAgent::start();
    let second = Registry::new(FakeWorkshop::new());
    let authority = Arc::new(OwnerOnly::of_this_process());
    let started = agent.runtime.block_on(Service::start(&agent.address(), second, authority));
    assert_eq!(started.map(|_| ()).map_err(|e| e.code()), Err(Code::Busy));
}

#[test]
fn without_a_bus_or_an_agent_the_client_says_how_to_see_why() {
    let mut bus = PrivateBus::start();
    let address = BusAddress::At(bus.address().to_owned());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
    let no_agent = runtime.block_on(AgentProxy::connect(&address, false)).map(|_| ()).expect_err("no agent");
    bus.stop();
    let no_bus = runtime.block_on(AgentProxy::connect(&address, false)).map(|_| ()).expect_err("no bus");
    for error in [no_agent, no_bus] {
        assert_eq!((error.code(), error.code().exit()), (Code::BusUnavailable, 1));
        assert!(error.hint().contains("systemctl status neo4j-backupd"), "{error:?}");
    }
}

const CHILD: &str = "NEO4J_BACKUP_TEST_SERVE_ON";

/// Not a test of its own: the body of the child process that [`ServingChild`] starts from this very program.
#[test]
fn serving_child() {
    let Ok(address) = std::env::var(CHILD) else { return };
    let registry = Registry::new(FakeWorkshop::new());
    serve(registry, &BusAddress::At(address), Arc::new(OwnerOnly::of_this_process())).expect("serving");
}

/// An agent in a process of its own, with a service manager's socket that listens to what it says.
struct ServingChild {
    process: Child,
    notifications: UnixDatagram,
    _directory: tempfile::TempDir,
}

impl ServingChild {
    fn start(bus: &PrivateBus) -> Self {
        let directory = tempfile::tempdir().expect("tempdir");
        let socket = directory.path().join("notify");
        let notifications = UnixDatagram::bind(&socket).expect("bind");
        notifications.set_read_timeout(Some(PATIENCE)).expect("timeout");
        let process = Command::new(std::env::current_exe().expect("this program"))
            .args(["service::serving_child", "--exact", "--nocapture"])
            .env(CHILD, bus.address())
            .env("NOTIFY_SOCKET", &socket)
            .stdout(Stdio::null())
            .spawn()
            .expect("child");
        let child = ServingChild { process, notifications, _directory: directory };
        child.hear("READY=1");
        child
    }

    fn hear(&self, expected: &str) {
        let mut buffer = [0; 4096];
        loop {
            let length = self.notifications.recv(&mut buffer).unwrap_or_else(|e| panic!("waiting for {expected}: {e}"));
            if String::from_utf8_lossy(&buffer[..length]).contains(expected) {
                return;
            }
        }
    }

    fn signal(&self, signal: nix::sys::signal::Signal) {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.process.id()).expect("pid"));
        nix::sys::signal::kill(pid, signal).expect("kill");
    }
}

impl Drop for ServingChild {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn told_to_end_the_agent_ends_its_jobs_tells_who_waits_and_leaves() {
    let bus = PrivateBus::start();
    let mut child = ServingChild::start(&bus);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
    runtime.block_on(async {
        let client = AgentProxy::connect(&BusAddress::At(bus.address().to_owned()), false).await.expect("client");
        let mut job = client.start(&backup_request("graph")).await.expect("start");
        child.hear("STATUS=job 1: backup of graph: dumping, 400 B of 1000 B");
        child.signal(nix::sys::signal::Signal::SIGTERM);
        assert_eq!(end_of(&mut job).await.map_err(|e| e.code()), Err(Code::Cancelled));
        child.hear("STOPPING=1");
    });
    let status = || child.process.try_wait().expect("wait");
    let mut status = status;
    assert!(wait_until(PATIENCE, INTERVAL, || status().is_some()));
    assert!(child.process.wait().expect("wait").success());
}

#[test]
fn a_client_hears_that_the_agent_was_killed() {
    let bus = PrivateBus::start();
    let child = ServingChild::start(&bus);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
    runtime.block_on(async {
        let client = AgentProxy::connect(&BusAddress::At(bus.address().to_owned()), false).await.expect("client");
        let mut job = client.start(&backup_request("graph")).await.expect("start");
        child.signal(nix::sys::signal::Signal::SIGKILL);
        let error = loop {
            match tokio::time::timeout(PATIENCE, job.next()).await.expect("in time") {
                Ok(Update::Ended(result)) => panic!("{result:?}"),
                Ok(_) => {}
                Err(error) => break error,
            }
        };
        assert_eq!(error.code(), Code::BusUnavailable);
        assert!(error.message().contains("job 1") && error.hint().contains("neo4j-backupctl history"), "{error:?}");
    });
}

#[test]
fn jobs_of_the_registry_and_of_the_bus_are_the_same() {
    let agent = TestAgent::start();
    agent.runtime.block_on(async {
        let client = agent.client().await;
        let job = client.start(&backup_request("graph")).await.expect("start");
        let Ok(Answer::Jobs { jobs }) = client.query(&Request::Jobs).await else { panic!("no list") };
        assert_eq!((jobs.len(), jobs[0].id), (1, job.id));
        assert!(matches!(jobs[0].state, JobState::Queued | JobState::Running));
    });
}
