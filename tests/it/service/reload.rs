//! The configuration is read again while the agent runs, and how much is logged can be changed.

use super::TestAgent;
use crate::workshop::{INTERVAL, PATIENCE, backup_request};
use neo4j_backup_agent::agent::renewal::Reloaded;
use neo4j_backup_agent::base::Code;
use neo4j_backup_agent::base::clock::wait_until;
use std::sync::atomic::Ordering;
use std::time::Duration;
use zbus::fdo;

fn read(agent: &TestAgent) -> u64 {
    agent.workshop.renewed.load(Ordering::SeqCst)
}

#[test]
fn another_configuration_is_in_force_when_nothing_runs_and_a_wrong_one_never() {
    let agent = TestAgent::start();
    assert_eq!(agent.registry.reload(PATIENCE).expect("reload"), Reloaded::InForce);
    assert_eq!(read(&agent), 2, "once to see whether it is good, once for the exchange");
    agent.workshop.wrong.store(true, Ordering::SeqCst);
    let refused = agent.registry.reload(PATIENCE).expect_err("it is wrong");
    assert_eq!((refused.code(), refused.message()), (Code::ConfigInvalid, "config.toml:3: nonsense"));
    let running = agent.registry.start(backup_request("quick"), "test").expect("the present one still works");
    assert!(agent.registry.wait_for(&running).is_none());
}

#[test]
fn jobs_that_run_end_with_the_configuration_they_began_with() {
    let agent = TestAgent::start();
    let job = agent.registry.start(backup_request("graph"), "test").expect("start");
    assert_eq!(agent.registry.reload(Duration::from_millis(300)).expect("reload"), Reloaded::Awaited);
    assert_eq!(read(&agent), 1, "looked at, not exchanged");
    let beside = agent.registry.start(backup_request("quick"), "test").expect("work goes on meanwhile");
    assert!(agent.registry.wait_for(&beside).is_none());
    assert_eq!(read(&agent), 1);
    agent.workshop.open_gate();
    assert!(agent.registry.wait_for(&job).is_none());
    assert!(wait_until(PATIENCE, INTERVAL, || read(&agent) == 2), "exchanged once the last one has ended");
}

#[test]
fn over_the_bus_a_wrong_one_is_an_error() {
    let agent = TestAgent::start();
    agent.runtime.block_on(async {
        assert!(agent.client().await.reload().await.expect("reload"), "in force");
        agent.workshop.wrong.store(true, Ordering::SeqCst);
        let refused = agent.client().await.reload().await.expect_err("it is wrong");
        assert_eq!(refused.code(), Code::ConfigInvalid);
    });
}

// req: B13
#[test]
fn the_level_of_the_log_is_a_property_as_systemd_has_it() {
    let agent = TestAgent::start();
    agent.runtime.block_on(async {
        let connection = agent.connection().await;
        let owner = neo4j_backup_agent::dbus::BUS_NAME;
        let control: zbus::Proxy<'_> = zbus::proxy::Builder::new(&connection)
            .destination(owner)
            .path("/org/freedesktop/LogControl1")
            .interface("org.freedesktop.LogControl1")
            .cache_properties(zbus::proxy::CacheProperties::No)
            .build()
            .await
            .expect("proxy");
        let identifier: String = control.get_property("SyslogIdentifier").await.expect("identifier");
        assert_eq!(identifier, "neo4j-backupd");
        let target: String = control.get_property("LogTarget").await.expect("target");
        assert_eq!(target, "console");
        assert!(matches!(control.set_property("LogLevel", "loud").await, Err(fdo::Error::InvalidArgs(_))));
        control.set_property("LogLevel", "warning").await.expect("set");
        assert!(control.set_property("LogTarget", "kmsg").await.is_err());
        control.set_property("LogTarget", "console").await.expect("it is");
    });
}
