//! A private message bus.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

/// As strict as the system bus: nobody owns a name or sends a call unless the packaged policy allows it. The user who
/// runs the tests stands in for the agent's.
const CONFIGURATION: &str = r#"<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
  "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <listen>unix:path=@LISTEN@</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow user="*"/>
    <deny own="*"/>
    <deny send_type="method_call"/>
    <allow send_type="signal"/>
    <allow send_requested_reply="true" send_type="method_return"/>
    <allow send_requested_reply="true" send_type="error"/>
    <allow receive_type="method_call"/>
    <allow receive_type="method_return"/>
    <allow receive_type="error"/>
    <allow receive_type="signal"/>
    <allow send_destination="org.freedesktop.DBus" send_interface="org.freedesktop.DBus"/>
  </policy>
  <policy context="default"><allow send_destination="org.freedesktop.PolicyKit1"/>
    <allow send_destination="org.freedesktop.systemd1"/></policy>
  <policy user="@TESTER@"><allow own="org.neo4jbackup.Agent1"/><allow own="org.freedesktop.PolicyKit1"/>
    <allow own="org.freedesktop.systemd1"/></policy>
  <include>@PACKAGED@</include>
</busconfig>
"#;

/// A `dbus-daemon` of its own, killed when the value is dropped.
pub(crate) struct PrivateBus {
    daemon: Child,
    address: String,
    _directory: tempfile::TempDir,
}

impl PrivateBus {
    pub(crate) fn start() -> Self {
        let directory = tempfile::tempdir().expect("tempdir");
        let configuration = directory.path().join("bus.conf");
        let listen = directory.path().join("socket");
        // The directory is private; the bus must be reachable by the other users of a test.
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(directory.path(), open).expect("chmod");
        let text = CONFIGURATION
            .replace("@LISTEN@", &listen.display().to_string())
            .replace("@PACKAGED@", concat!(env!("CARGO_MANIFEST_DIR"), "/packaging/dbus/org.neo4jbackup.Agent1.conf"))
            .replace("@TESTER@", &nix::unistd::geteuid().to_string());
        std::fs::write(&configuration, text).expect("configuration");
        let mut daemon = Command::new("dbus-daemon")
            .arg(format!("--config-file={}", configuration.display()))
            .args(["--nofork", "--nopidfile", "--print-address"])
            .stdout(Stdio::piped())
            // It complains that it may not raise its limits, which it need not.
            .stderr(Stdio::null())
            .spawn()
            .expect("dbus-daemon: is the package `dbus-daemon` installed?");
        let mut address = String::new();
        BufReader::new(daemon.stdout.take().expect("stdout")).read_line(&mut address).expect("address");
        PrivateBus { daemon, address: address.trim().to_owned(), _directory: directory }
    }

    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Ends the daemon, as if the bus had crashed.
    pub(crate) fn stop(&mut self) {
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}

impl Drop for PrivateBus {
    fn drop(&mut self) {
        self.stop();
    }
}
