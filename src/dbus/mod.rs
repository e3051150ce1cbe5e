//! Layer 5: the agent on D-Bus, and the client's side of it. `packaging/dbus/` holds the interfaces as XML and the bus
//! policy; a test compares the XML with the live objects.
//!
//! - [`address`]: which bus
//! - [`options`]: `a{sv}` options, and the requests that method calls stand for; `restore_options`: some of a restore's
//! - [`errors`]: registered errors as D-Bus errors, and back
//! - [`authority`]: who may do what; [`polkit`]: as the host's policy service says
//! - [`manager_object`], [`job_object`]: the two interfaces
//! - [`exporter`]: one object per job, its signals, and how long it stays
//! - [`service`]: the agent's life on the bus; `inhibitor`: holds up a shutdown; [`log_control`]: how much is logged
//! - [`proxy`]: the client's side; [`systemd`]: the host's service manager, for it

pub mod address;
pub mod authority;
pub mod errors;
pub mod exporter;
mod inhibitor;
pub mod job_object;
pub mod log_control;
pub mod manager_object;
pub mod options;
pub mod polkit;
pub mod proxy;
mod restore_options;
pub mod service;
pub mod systemd;

/// The agent's well-known name.
pub const BUS_NAME: &str = "org.neo4jbackup.Agent1";
/// The manager object's path; jobs lie below it.
pub const MANAGER_PATH: &str = "/org/neo4jbackup/Agent1";
/// The manager's interface.
pub const MANAGER_INTERFACE: &str = "org.neo4jbackup.Agent1.Manager";
/// A job's interface.
pub const JOB_INTERFACE: &str = "org.neo4jbackup.Agent1.Job";

/// The path of a job's object.
pub fn job_path(id: crate::base::ids::JobId) -> String {
    format!("{MANAGER_PATH}/job/{id}")
}
