//! The interface of one job: what it is, how far it is, how it ended.

use super::authority::{Action, Authority, Call};
use super::errors::BusError;
use super::service::permit;
use crate::agent::jobs::Registry;
use crate::agent::observed::{Job, Outcome};
use crate::base::Error;
use std::sync::Arc;
use zbus::message::Header;
use zbus::object_server::SignalEmitter;
use zbus::{Connection, interface};

/// A job on the bus.
pub struct JobObject {
    pub(super) job: Arc<Job>,
    pub(super) registry: Arc<Registry>,
    pub(super) authority: Arc<dyn Authority>,
}

impl JobObject {
    fn error(&self) -> Option<Error> {
        self.job.snapshot().outcome.as_ref().and_then(Outcome::error)
    }
}

#[interface(name = "org.neo4jbackup.Agent1.Job", introspection_docs = false)]
impl JobObject {
    /// Asks the job to end.
    async fn cancel(
        &self,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<(), BusError> {
        let target = self.job.request.target().map(ToString::to_string);
        let call = Call { connection, header: &header };
        permit(&*self.authority, Action::Cancel, target, call).await?;
        Ok(self.registry.cancel(self.job.id)?)
    }

    /// Its number.
    #[zbus(property(emits_changed_signal = "const"))]
    fn id(&self) -> u64 {
        self.job.id.0
    }

    /// What it does: `backup`, `restore`.
    #[zbus(property(emits_changed_signal = "const"))]
    fn verb(&self) -> String {
        self.job.request.verb().to_owned()
    }

    /// Its target, or empty.
    #[zbus(property(emits_changed_signal = "const"))]
    fn target(&self) -> String {
        self.job.request.target().map(ToString::to_string).unwrap_or_default()
    }

    /// `queued`, `running`, `cancelling`, `succeeded`, `failed`, `cancelled`, `interrupted`.
    #[zbus(property)]
    fn state(&self) -> String {
        self.job.snapshot().state.as_str().to_owned()
    }

    /// What is being done now.
    #[zbus(property)]
    fn phase(&self) -> String {
        self.job.snapshot().progress.phase
    }

    /// Plaintext bytes of this phase that went through.
    #[zbus(property)]
    fn bytes_done(&self) -> u64 {
        self.job.snapshot().progress.done
    }

    /// Plaintext bytes expected in this phase; 0 = not known.
    #[zbus(property)]
    fn bytes_total(&self) -> u64 {
        self.job.snapshot().progress.total
    }

    /// Microseconds since it was taken on; how long it took, once it has ended.
    #[zbus(property, name = "ElapsedUSec")]
    fn elapsed_usec(&self) -> u64 {
        self.job.elapsed_us()
    }

    /// The registered name of the error it ended with, or empty.
    #[zbus(property)]
    fn error_code(&self) -> String {
        self.error().map(|error| error.code().name().to_owned()).unwrap_or_default()
    }

    /// The message it ended with, or empty.
    #[zbus(property)]
    fn message(&self) -> String {
        self.error().map(|error| error.message().to_owned()).unwrap_or_default()
    }

    /// What to do about the error, or empty.
    #[zbus(property)]
    fn hint(&self) -> String {
        self.error().map(|error| error.hint().to_owned()).unwrap_or_default()
    }

    /// The answer as JSON once it has ended with one, or empty. A verification that found damage ends with an answer
    /// and with an error.
    #[zbus(property)]
    fn answer(&self) -> String {
        match self.job.snapshot().outcome {
            Some(Outcome::Answer(answer)) => serde_json::to_string(&*answer).unwrap_or_default(),
            _ => String::new(),
        }
    }

    /// It said something. Severity is `info`, `warning` or `error`.
    #[zbus(signal)]
    pub(super) async fn event(emitter: &SignalEmitter<'_>, severity: &str, text: &str) -> zbus::Result<()>;
}
