//! Layer 2: whatever changes the host. On a host with a helper unit the root-owned helper does it; in containers, tests
//! and root's own `run` it is done in-process ([`local`]). Either way through [`HostOps`].
//!
//! - [`local`]: [`HostOps`] in this process
//! - `service`: stopping and starting servers, with a durable record that they must be started again
//! - `swap`: what a swap moves, as a pure plan and state machine; `swap_run` carries it out and undoes it
//! - `mounts`: which mount a path lies on
//! - `timers`: what the service manager says of timers
//! - `tree`: owners of trees, removal of trees

pub mod local;
mod mounts;
mod service;
mod swap;
mod swap_run;
mod timers;
mod tree;

pub use local::LocalHost;
pub use mounts::{is_mount_point, share_mount};
pub use timers::Timer;

use crate::base::Result;
use crate::base::ids::TargetName;
use crate::base::process::OsUser;
use crate::base::task::Task;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// How a server in service is stopped and started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Service {
    /// A systemd unit.
    Unit(String),
    /// Commands, as argument vectors; they return when the server has stopped, or has been started.
    Commands {
        /// Stops it.
        stop: Vec<String>,
        /// Starts it.
        start: Vec<String>,
    },
    /// Nobody said how; whatever needs a stopped server is refused.
    Unmanaged,
}

/// One exchange of a directory in service for its successor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exchange {
    /// In service; need not exist.
    pub live: PathBuf,
    /// Its successor, on the same filesystem.
    pub staged: PathBuf,
    /// Where the present data goes, on the same filesystem; does not exist yet.
    pub set_aside: PathBuf,
}

/// A swap: all exchanges or none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SwapPlan {
    /// Names the swap and its journal: the restore's id.
    pub id: String,
    /// The target whose data is exchanged.
    pub target: TargetName,
    /// The exchanges, in order.
    pub exchanges: Vec<Exchange>,
}

/// What [`HostOps::recover`] found and did; one line each for the log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// Targets whose server had been stopped and was started again.
    pub restarted: Vec<TargetName>,
    /// Swaps that were undone: the old data is in service.
    pub rolled_back: Vec<String>,
}

/// Whatever changes the host, and what its service manager says.
pub trait HostOps: Send + Sync {
    /// Stops a server. That it must be started again is on durable record before it is stopped.
    /// `SERVER_CONTROL_FAILED` if it could not be stopped; it was then asked to start again.
    fn stop(&self, target: &TargetName, service: &Service, task: &Task) -> Result<()>;

    /// Starts a server and takes the record away. Starting one that runs is fine.
    fn start(&self, target: &TargetName, service: &Service, task: &Task) -> Result<()>;

    /// Carries a swap out: journal first (fsync), then each rename with its directories made durable. All or nothing,
    /// also over a crash: until [`HostOps::swap_done`] is called, [`HostOps::recover`] undoes it.
    /// A mount point keeps its place: its children are moved instead.
    fn swap(&self, plan: &SwapPlan, task: &Task) -> Result<()>;

    /// Undoes a swap that was carried out: the set-aside data is in service again, the rejected data stays at `staged`.
    fn undo_swap(&self, plan: &SwapPlan, task: &Task) -> Result<()>;

    /// The new data was found good: takes the journal away. The set-aside data stays.
    fn swap_done(&self, plan: &SwapPlan) -> Result<()>;

    /// Gives a tree to an account; symbolic links are not followed.
    fn give(&self, tree: &Path, owner: &OsUser) -> Result<()>;

    /// Removes a tree that this agent made (staging); symbolic links are not followed.
    fn remove_tree(&self, tree: &Path) -> Result<()>;

    /// How timers stand, in the order of `units`; `None` where no service manager has timers.
    fn timers(&self, units: &[String], task: &Task) -> Result<Option<Vec<Timer>>>;

    /// After a crash: undoes or finishes swaps by their journals, then starts servers on record as stopped.
    /// `service_of` says how a target is controlled today.
    fn recover(&self, service_of: &dyn Fn(&TargetName) -> Option<Service>, task: &Task) -> Result<Recovery>;
}
