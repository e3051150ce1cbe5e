//! Layer 4: jobs. A request that works is given a number, a lane and a thread of its own; whoever asks can follow it,
//! and anybody who may can end it.
//!
//! - [`assemble`]: turns settings into the concrete parts
//! - [`job`]: a job's life, as a pure state machine
//! - [`jobs`]: the registry of running jobs
//! - [`observed`]: one job as its followers see it: newest numbers, last events
//! - [`lanes`]: which work excludes which
//! - [`continuous`]: ships logs between the timers
//! - [`renewal`]: another configuration for an agent that runs
//! - [`stall`]: jobs that show no progress
//! - [`drop_ins`]: what systemd's generator writes: when the timers run
//! - [`workshop`]: what the registry needs from the layer below, so that it is tested without databases

pub mod assemble;
mod context_workshop;
pub mod continuous;
pub mod drop_ins;
pub mod job;
pub mod jobs;
pub mod lanes;
pub mod observed;
pub mod renewal;
pub mod stall;
pub mod workshop;
