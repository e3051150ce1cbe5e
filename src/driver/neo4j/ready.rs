//! Waits until a server that was started answers.

use super::Neo4jDriver;
use super::bolt::{self, Cypher};
use crate::base::clock::wait_until;
use crate::base::task::Task;
use crate::base::{Code, Error, Result};
use crate::driver::Driver;
use std::time::Duration;

/// How often it is asked.
const INTERVAL: Duration = Duration::from_millis(200);
/// How long a TCP connection to Bolt may take when there is no login to try.
const PORT_TIMEOUT: Duration = Duration::from_secs(2);

/// Waits. A server that refuses the login is up: a `system` database that was restored knows the passwords of its own time.
pub(super) fn wait(driver: &Neo4jDriver, timeout: Duration, task: &Task) -> Result<()> {
    let mut outcome = Ok(());
    wait_until(timeout, INTERVAL, || {
        outcome = is_ready(driver, task);
        match &outcome {
            Ok(()) => true,
            // These do not go away by waiting, and a login that is tried too often is locked.
            Err(error) => matches!(error.code(), Code::Cancelled | Code::SecretUnsafe) || bolt::is_refused_login(error),
        }
    });
    match outcome {
        Err(error) if bolt::is_refused_login(&error) => {
            task.warn(format!("the server is up; {}", error.hint()));
            Ok(())
        }
        outcome => {
            outcome.map_err(|error| error.context(format!("waiting up to {} s for the server", timeout.as_secs())))
        }
    }
}

fn is_ready(driver: &Neo4jDriver, task: &Task) -> Result<()> {
    if let Some(bolt) = driver.bolt() {
        return bolt.read(&driver.settings.database, "RETURN 1 AS one", task).map(|_| ());
    }
    let Some((host, port)) = driver.conf()?.bolt_address() else {
        let running = driver.is_running(task)?;
        let error = || Error::new(Code::Neo4jUnreachable, "the server is not running");
        return if running { Ok(()) } else { Err(error()) };
    };
    connect(&host, port)
}

/// Whether something accepts connections there.
pub(super) fn connect(host: &str, port: u16) -> Result<()> {
    let fail =
        |cause: std::io::Error| Error::new(Code::Neo4jUnreachable, format!("connecting to {host}:{port}: {cause}"));
    let addresses = std::net::ToSocketAddrs::to_socket_addrs(&(host, port)).map_err(fail)?;
    let mut last = std::io::Error::other("no address");
    for address in addresses {
        match std::net::TcpStream::connect_timeout(&address, PORT_TIMEOUT) {
            Ok(_) => return Ok(()),
            Err(cause) => last = cause,
        }
    }
    Err(fail(last))
}
