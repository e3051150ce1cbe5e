//! Ctrl-C and SIGTERM for work in this process: it is asked to end, and cleans up after itself.

use crate::base::task::Cancel;
use crate::base::{Code, Error, Result};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Watches for a signal. Must be called within an event loop.
pub fn on(kind: SignalKind) -> Result<Signal> {
    signal(kind).map_err(failed)
}

/// Throws `cancel` at the first SIGINT or SIGTERM, from a thread that lives as long as the process.
pub fn cancels(cancel: &Cancel) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
    let (mut interrupt, mut terminate) = {
        let _within = runtime.enter();
        (on(SignalKind::interrupt())?, on(SignalKind::terminate())?)
    };
    let cancel = cancel.clone();
    let watch = move || {
        runtime.block_on(async {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        });
        cancel.cancel();
    };
    std::thread::Builder::new().name("signals".to_owned()).spawn(watch).map(drop).map_err(failed)
}

fn failed(cause: std::io::Error) -> Error {
    Error::new(Code::IoFailed, format!("watching for signals: {cause}"))
}
