//! Work done in this process, without agent and bus: `--direct` and `neo4j-backupd run`. Leaving (Ctrl-C, SIGTERM) ends
//! the job, which cleans up after itself first.

use super::connection::{Backend, Reply, Watcher};
use super::interrupt::on;
use crate::agent::jobs::Registry;
use crate::agent::observed::{Following, Job};
use crate::agent::workshop::Workshop;
use crate::base::ids::JobId;
use crate::base::{Code, Error, Result};
use crate::dbus::authority::user_name;
use crate::operation::answer::Answer;
use crate::operation::request::Request;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Runtime;
use tokio::signal::unix::SignalKind;
use tokio::sync::broadcast::error::RecvError;

/// How often the numbers are shown.
const SHOW_INTERVAL: Duration = Duration::from_millis(100);

/// The work, here.
pub struct InProcess {
    runtime: Runtime,
    registry: Arc<Registry>,
    actor: String,
}

impl InProcess {
    /// Work done by `workshop`.
    pub fn new(workshop: Arc<dyn Workshop>) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|cause| Error::new(Code::IoFailed, format!("starting the event loop: {cause}")))?;
        let actor = user_name(nix::unistd::getuid().as_raw());
        Ok(InProcess { runtime, registry: Registry::new(workshop), actor })
    }

    fn watch(&self, job: &Job, watcher: &mut dyn Watcher) -> Result<Reply> {
        watcher.started(job.id);
        self.runtime.block_on(async {
            let mut interrupt = on(SignalKind::interrupt())?;
            let mut terminate = on(SignalKind::terminate())?;
            let Following { past, mut events, mut snapshot } = job.follow();
            for event in past {
                watcher.event(event.severity, &event.text);
            }
            let mut show = tokio::time::interval(SHOW_INTERVAL);
            let mut end = snapshot.clone();
            loop {
                tokio::select! {
                    biased;
                    _ = interrupt.recv() => drop(self.registry.cancel(job.id)),
                    _ = terminate.recv() => drop(self.registry.cancel(job.id)),
                    event = events.recv() => match event {
                        Ok(event) => watcher.event(event.severity, &event.text),
                        Err(RecvError::Lagged(_) | RecvError::Closed) => {}
                    },
                    () = async { drop(end.wait_for(|snapshot| snapshot.state.is_final()).await) } => break,
                    _ = show.tick() => watcher.progress(&snapshot.borrow_and_update().progress),
                }
            }
            while let Ok(event) = events.try_recv() {
                watcher.event(event.severity, &event.text);
            }
            let last = job.snapshot();
            watcher.progress(&last.progress);
            let outcome = last.outcome.ok_or_else(|| Error::new(Code::Internal, "the job ended without an outcome"))?;
            Ok(Reply::Answer(Box::new(outcome.to_result()?)))
        })
    }
}

impl Backend for InProcess {
    fn query(&self, request: &Request) -> Result<Answer> {
        self.registry.query(request, &self.actor)
    }

    fn run(&self, request: &Request, wait: bool, watcher: &mut dyn Watcher) -> Result<Reply> {
        if !wait {
            return Err(Error::new(Code::Usage, "a job in this process cannot be left running")
                .with_hint("leave out `--no-block`, or leave out `--direct`"));
        }
        let job = self.registry.start(request.clone(), &self.actor)?;
        self.watch(&job, watcher)
    }

    fn follow(&self, job: JobId, watcher: &mut dyn Watcher) -> Result<Reply> {
        match self.registry.find(job) {
            Some(job) => self.watch(&job, watcher),
            None => Err(Error::new(Code::JobNotFound, format!("job {job} does not run in this process"))
                .with_hint("jobs of the agent are followed over the bus: leave out `--direct`")),
        }
    }
}
