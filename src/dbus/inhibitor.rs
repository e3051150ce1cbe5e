//! Holds up a shutdown while a job writes, through logind: `systemd-inhibit --list` shows why. Where there is no logind,
//! nothing is held up; a job that a shutdown interrupts is settled at the next start either way.

use super::service::BUS_PATIENCE;
use crate::agent::observed::Job;
use crate::base::ids::JobId;
use crate::operation::request::Request;
use std::sync::Arc;
use zbus::{Connection, OwnedFd};

/// The lock, while there is one.
#[derive(Default)]
pub(super) struct Inhibitor {
    held: Option<OwnedFd>,
    /// The job that it was asked for: one refusal is enough.
    asked: Option<JobId>,
}

impl Inhibitor {
    /// Takes the lock when jobs that write begin to run, lets it go when none does any more.
    pub(super) async fn follow(&mut self, connection: &Connection, running: &[Arc<Job>]) {
        let Some(first) = running.iter().find(|job| writes(&job.request)) else {
            *self = Inhibitor::default();
            return;
        };
        if self.asked.replace(first.id) == Some(first.id) {
            return;
        }
        let target = first.request.target().map(|target| format!(" of {target}")).unwrap_or_default();
        let why = format!("job {}: {}{target}", first.id, first.request.verb());
        match tokio::time::timeout(BUS_PATIENCE, inhibit(connection, &why)).await {
            // The one before it is let go only now.
            Ok(Ok(lock)) => self.held = Some(lock),
            Ok(Err(cause)) => tracing::debug!("a shutdown is not held up: {cause}"),
            Err(_) => tracing::warn!("a shutdown is not held up: logind did not answer"),
        }
    }
}

/// Whether an interruption would leave work to be done again. To read stored backups through is worth no waiting.
fn writes(request: &Request) -> bool {
    !matches!(request, Request::Verify(_))
}

async fn inhibit(connection: &Connection, why: &str) -> zbus::Result<OwnedFd> {
    let answer = connection
        .call_method(
            Some("org.freedesktop.login1"),
            "/org/freedesktop/login1",
            Some("org.freedesktop.login1.Manager"),
            "Inhibit",
            &("shutdown", "neo4j-backupd", why, "block"),
        )
        .await?;
    answer.body().deserialize()
}
