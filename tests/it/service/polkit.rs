//! The agent asks polkit. What answers here is a stand-in that notes what it was asked; `make host-test` asks the real one.

use super::TestAgent;
use crate::servers::bus::PrivateBus;
use crate::site::BACKUPCTL;
use neo4j_backup_agent::base::Code;
use neo4j_backup_agent::dbus::authority::OwnerOnly;
use neo4j_backup_agent::dbus::polkit::Polkit;
use std::collections::HashMap;
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};
use zbus::{Connection, OwnedVariant, fdo, interface};

/// What the stand-in was asked: kind of the subject, its name, action, details, flags.
type Asked = (String, String, String, HashMap<String, String>, u32);

#[derive(Clone, Copy)]
enum Answer {
    Yes,
    No,
    Error,
    Never,
}

struct StandIn {
    answer: Answer,
    asked: Arc<Mutex<Vec<Asked>>>,
}

#[interface(name = "org.freedesktop.PolicyKit1.Authority")]
impl StandIn {
    async fn check_authorization(
        &self,
        subject: (String, HashMap<String, OwnedVariant>),
        action: String,
        details: HashMap<String, String>,
        flags: u32,
        _cancellation: String,
    ) -> fdo::Result<(bool, bool, HashMap<String, String>)> {
        let name = subject.1.get("name").map(|name| format!("{name:?}")).unwrap_or_default();
        self.asked.lock().expect("lock").push((subject.0, name, action, details, flags));
        match self.answer {
            Answer::Yes => Ok((true, false, HashMap::new())),
            Answer::No => Ok((false, true, HashMap::new())),
            Answer::Error => Err(fdo::Error::Failed("Action is not registered".to_owned())),
            Answer::Never => std::future::pending().await,
        }
    }

    async fn cancel_check_authorization(&self, _cancellation: String) {}
}

/// An agent that asks, on a bus with or without a stand-in for polkit.
struct Scene {
    agent: TestAgent,
    asked: Arc<Mutex<Vec<Asked>>>,
    _polkit: Option<Connection>,
}

impl Scene {
    fn with(answer: Option<Answer>) -> Scene {
        // Whoever runs the tests is not the agent's user, unless that is root; then the caller is another one.
        let agent = TestAgent::with_authority(Arc::new(Polkit { otherwise: OwnerOnly { own_uid: u32::MAX } }));
        agent.workshop.open_gate();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let polkit = answer.map(|answer| {
            let stand_in = StandIn { answer, asked: asked.clone() };
            let built = zbus::connection::Builder::address(agent.bus.address())
                .serve_at("/org/freedesktop/PolicyKit1/Authority", stand_in)
                .name("org.freedesktop.PolicyKit1");
            agent.runtime.block_on(built.build()).expect("the stand-in's name")
        });
        Scene { agent, asked, _polkit: polkit }
    }

    fn stranger(&self, arguments: &[&str]) -> Output {
        stranger(&self.agent.bus, arguments)
    }

    fn executed(&self) -> u64 {
        self.agent.workshop.executed.load(std::sync::atomic::Ordering::SeqCst)
    }
}

/// The client as somebody who is neither root nor the agent.
fn stranger(bus: &PrivateBus, arguments: &[&str]) -> Output {
    let mut command = match nix::unistd::geteuid().is_root() {
        false => Command::new(BACKUPCTL),
        true => {
            let mut command = Command::new("setpriv");
            command.args(["--reuid=daemon", "--regid=daemon", "--clear-groups", "--", BACKUPCTL]);
            command
        }
    };
    command.args(["--bus", bus.address()]).args(arguments).output().expect("the client")
}

fn status(output: &Output) -> Option<i32> {
    output.status.code()
}

fn refused() -> Option<i32> {
    Some(i32::from(Code::NotAuthorised.exit()))
}

#[test]
fn whom_polkit_lets_do_it_may_and_it_is_asked_about_the_caller_the_action_and_the_target() {
    let scene = Scene::with(Some(Answer::Yes));
    let done = scene.stranger(&["backup", "quick"]);
    assert_eq!(status(&done), Some(0), "{done:?}");
    let kept = scene.stranger(&["--no-ask-password", "--yes", "restore", "quick", "--in-place"]);
    let (first, second) = {
        let asked = scene.asked.lock().expect("lock");
        assert_eq!(asked.len(), 2, "{asked:?} {kept:?}");
        (asked[0].clone(), asked[1].clone())
    };
    assert_eq!((first.0.as_str(), first.2.as_str(), first.4), ("system-bus-name", "org.neo4jbackup.Agent1.backup", 1));
    assert!(first.1.contains(":1."), "a name of the bus: {}", first.1);
    assert_eq!(first.3, HashMap::from([("target".to_owned(), "quick".to_owned())]));
    assert_eq!((second.2.as_str(), second.4), ("org.neo4jbackup.Agent1.promote", 0), "production, and nobody is asked");
}

#[test]
fn what_polkit_refuses_is_refused_with_the_action_named() {
    let scene = Scene::with(Some(Answer::No));
    for arguments in
        [&["backup", "quick"][..], &["status"], &["cancel", "1"], &["key", "list"], &["cleanup", "--dry-run"]]
    {
        let output = scene.stranger(arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(status(&output), refused(), "{arguments:?}: {said}");
        assert!(said.contains("org.neo4jbackup.Agent1."), "{said}");
    }
    assert_eq!(scene.executed(), 0);
}

#[test]
fn a_polkit_that_fails_lets_nobody_do_anything() {
    let scene = Scene::with(Some(Answer::Error));
    for arguments in [&["backup", "quick"][..], &["status"]] {
        let output = scene.stranger(arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(status(&output), refused(), "{said}");
        assert!(said.contains("Action is not registered") && said.contains("systemctl status polkit"), "{said}");
    }
    assert_eq!(scene.executed(), 0);
}

#[test]
fn a_polkit_that_does_not_answer_holds_up_nobody_else_and_refuses_in_the_end() {
    let scene = Scene::with(Some(Answer::Never));
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| scene.stranger(&["--no-ask-password", "backup", "quick"]));
        // Whoever may is served meanwhile: for root, nobody is asked.
        if nix::unistd::geteuid().is_root() {
            let root = Command::new(BACKUPCTL).args(["--bus", scene.agent.bus.address(), "status"]).output();
            assert_eq!(status(&root.expect("the client")), Some(0));
        }
        let output = waiting.join().expect("the client");
        assert_eq!(status(&output), refused(), "{output:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("no answer for"), "{output:?}");
    });
    // Root's question, and nothing of the other's.
    assert_eq!(scene.executed(), u64::from(nix::unistd::geteuid().is_root()));
}

#[test]
fn without_polkit_everybody_may_look_and_only_root_may_touch() {
    let scene = Scene::with(None);
    assert_eq!(status(&scene.stranger(&["status"])), Some(0));
    assert_eq!(status(&scene.stranger(&["backup", "quick"])), refused());
    assert_eq!(scene.executed(), 1, "the look alone");
}
