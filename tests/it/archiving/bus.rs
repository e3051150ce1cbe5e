//! Over the bus: the database's account hands over a descriptor, and nobody else may.

use super::Scene;
use super::writers::{INTERVAL, PATIENCE};
use crate::servers::bus::PrivateBus;
use crate::site::{BACKUPCTL, BACKUPD};
use neo4j_backup_agent::base::Code;
use neo4j_backup_agent::base::clock::wait_until;
use std::fs;
use std::process::{Child, Command, Stdio};

/// The agent, ended when dropped.
pub(super) struct Agent(Child);

impl Agent {
    /// Starts it on a bus.
    pub(super) fn start(scene: &Scene, address: &str) -> Agent {
        let agent = Command::new(BACKUPD)
            .arg("--config")
            .arg(scene.site.config())
            .args(["serve", "--bus", address])
            .stderr(Stdio::null())
            .spawn();
        Agent(agent.expect("the agent starts"))
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

// req: D2 E2
#[test]
fn the_owner_of_the_data_hands_its_log_over_the_bus_and_nobody_else_may() {
    let scene = Scene::set_up("");
    let bus = PrivateBus::start();
    let address = bus.address().to_owned();
    // From here on only the agent writes there.
    fs::remove_dir_all(scene.site.path("state/spool/metrics")).expect("remove");
    let _agent = Agent::start(&scene, &address);
    let push = format!("{BACKUPCTL} --bus {address} wal push metrics %p");
    scene.server.sql(&format!("ALTER SYSTEM SET archive_command = '{push}'"));
    let name = scene.server.sql(
        "SELECT pg_reload_conf(); CREATE TABLE t (x text); INSERT INTO t VALUES (repeat('x', 1000));
         SELECT pg_walfile_name(pg_switch_wal())",
    );
    let name = name.lines().last().expect("a name").to_owned();
    assert!(wait_until(PATIENCE, INTERVAL, || scene.spooled().contains(&name)), "{name} in {:?}", scene.spooled());
    let own = scene.server.data.join("pg_wal").join(&name);
    let spooled = scene.site.path("state/spool/metrics");
    let mut files = Vec::new();
    crate::site::walk(&spooled, &mut files);
    let spooled = files.iter().find(|path| path.ends_with(&name)).expect("spooled");
    assert_eq!(fs::read(spooled).expect("spooled"), fs::read(&own).expect("own"));

    if nix::unistd::geteuid().is_root() {
        let copy = scene.site.path(&name);
        fs::copy(&own, &copy).expect("copy");
        fs::set_permissions(&copy, std::os::unix::fs::PermissionsExt::from_mode(0o644)).expect("mode");
        let stranger = Command::new("setpriv")
            .args(["--reuid=daemon", "--regid=daemon", "--clear-groups", "--", BACKUPCTL, "--bus", &address])
            .args(["wal", "push", "metrics", &copy.display().to_string()])
            .output()
            .expect("setpriv");
        assert_eq!(stranger.status.code(), Some(i32::from(Code::NotAuthorised.exit())), "{stranger:?}");
    }
}
