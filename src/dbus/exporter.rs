//! One object per job: exported before anyone hears of it, kept up to date while it runs, and left for a while after
//! its end, so that whoever asked can read the answer.

use super::authority::Authority;
use super::job_object::JobObject;
use super::manager_object::Manager;
use super::{JOB_INTERFACE, MANAGER_PATH, job_path};
use crate::agent::jobs::{JOBS_ENDED_KEPT, Registry};
use crate::agent::observed::{Event, Following, Job, Outcome, Snapshot};
use crate::base::task::Severity;
use std::borrow::Cow;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::sync::broadcast::error::RecvError;
use tokio::task::JoinSet;
use zbus::names::InterfaceName;
use zbus::object_server::SignalEmitter;
use zbus::{Connection, OwnedObjectPath, Variant, fdo};

/// Shortest time between two `PropertiesChanged` of a job: at most five a second.
pub const CHANGES_INTERVAL: Duration = Duration::from_millis(200);

/// Longest answer, or message of an error, that is sent to everybody who listens, in bytes; a longer one is there to
/// be read.
pub const ANSWER_BROADCAST_MAX: usize = 64 * 1024;

/// Exports jobs on the connection that asked for them.
pub struct Exporter {
    registry: Arc<Registry>,
    authority: Arc<dyn Authority>,
    /// Paths of ended jobs, oldest first.
    ended: Mutex<VecDeque<OwnedObjectPath>>,
    /// One for each job that was not announced as removed yet.
    followers: Mutex<JoinSet<()>>,
}

impl Exporter {
    /// An exporter of `registry`'s jobs.
    pub fn new(registry: Arc<Registry>, authority: Arc<dyn Authority>) -> Arc<Self> {
        let (ended, followers) = (Mutex::new(VecDeque::new()), Mutex::new(JoinSet::new()));
        Arc::new(Exporter { registry, authority, ended, followers })
    }

    /// Exports a job that was just started, announces it, and looks after its object from now on.
    pub async fn export(self: &Arc<Self>, connection: &Connection, job: Arc<Job>) -> zbus::Result<OwnedObjectPath> {
        let path = OwnedObjectPath::try_from(job_path(job.id))?;
        let following = job.follow();
        let object = JobObject { job: job.clone(), registry: self.registry.clone(), authority: self.authority.clone() };
        connection.object_server().at(&path, object).await?;
        let manager = SignalEmitter::new(connection, MANAGER_PATH)?;
        Manager::job_new(&manager, job.id.0, (*path).clone()).await?;
        self.announce_count(connection).await;
        let (exporter, connection, of) = (self.clone(), connection.clone(), path.clone());
        let mut followers = self.followers.lock().await;
        while followers.try_join_next().is_some() {}
        followers.spawn(async move {
            if let Err(cause) = exporter.look_after(&connection, &job, &of, following).await {
                tracing::warn!("job {} could not be announced on the bus: {cause}", job.id);
            }
        });
        Ok(path)
    }

    /// Waits until the end of every job was announced.
    pub async fn settled(&self) {
        let mut followers = self.followers.lock().await;
        while followers.join_next().await.is_some() {}
    }

    async fn look_after(
        &self,
        connection: &Connection,
        job: &Arc<Job>,
        path: &OwnedObjectPath,
        following: Following,
    ) -> zbus::Result<()> {
        let Following { past, mut events, mut snapshot } = following;
        let emitter = SignalEmitter::new(connection, path)?;
        for event in past {
            self.say(&emitter, &event).await?;
        }
        let mut sent = None;
        let mut pause = tokio::time::interval(CHANGES_INTERVAL);
        pause.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut events_open = true;
        let mut end = snapshot.clone();
        let last = loop {
            tokio::select! {
                biased;
                event = events.recv(), if events_open => match event {
                    Ok(event) => self.say(&emitter, &event).await?,
                    Err(RecvError::Lagged(missed)) => {
                        let text = format!("{missed} messages of this job came too fast and were left out");
                        self.say(&emitter, &Event { severity: Severity::Warning, text }).await?;
                    }
                    Err(RecvError::Closed) => events_open = false,
                },
                () = async { drop(end.wait_for(|snapshot| snapshot.state.is_final()).await) } => break job.snapshot(),
                _ = pause.tick() => {
                    let now = snapshot.borrow_and_update().clone();
                    self.changes(job, &emitter, &mut sent, &now).await?;
                }
            }
        };
        while let Ok(event) = events.try_recv() {
            self.say(&emitter, &event).await?;
        }
        self.changes(job, &emitter, &mut sent, &last).await?;
        let manager = SignalEmitter::new(connection, MANAGER_PATH)?;
        Manager::job_removed(&manager, job.id.0, (**path).clone(), last.state.as_str()).await?;
        self.announce_count(connection).await;
        self.retire(connection, path.clone()).await
    }

    async fn say(&self, emitter: &SignalEmitter<'_>, event: &Event) -> zbus::Result<()> {
        JobObject::event(emitter, severity_name(event.severity), &event.text).await
    }

    /// One signal with everything that changed since the last.
    async fn changes(
        &self,
        job: &Job,
        emitter: &SignalEmitter<'_>,
        sent: &mut Option<Snapshot>,
        now: &Snapshot,
    ) -> zbus::Result<()> {
        let before = sent.as_ref();
        let mut changed: HashMap<&str, Variant<'_>> = HashMap::new();
        if before.is_none_or(|before| before.state != now.state) {
            changed.insert("State", Variant::from(now.state.as_str()));
        }
        if before.is_none_or(|before| before.progress.phase != now.progress.phase) {
            changed.insert("Phase", Variant::from(now.progress.phase.clone()));
        }
        if before.is_none_or(|before| before.progress.done != now.progress.done) {
            changed.insert("BytesDone", Variant::from(now.progress.done));
        }
        if before.is_none_or(|before| before.progress.total != now.progress.total) {
            changed.insert("BytesTotal", Variant::from(now.progress.total));
        }
        if changed.is_empty() {
            return Ok(());
        }
        changed.insert("ElapsedUSec", Variant::from(job.elapsed_us()));
        // How it ended goes along: an agent that is told to end may be gone before anybody can ask.
        let mut invalidated: Vec<&str> = Vec::new();
        let mut ended_with = |name: &'static str, text: String| match text.len() <= ANSWER_BROADCAST_MAX {
            true => drop(changed.insert(name, Variant::from(text))),
            false => invalidated.push(name),
        };
        if let Some(error) = now.outcome.as_ref().and_then(Outcome::error) {
            ended_with("ErrorCode", error.code().name().to_owned());
            ended_with("Message", error.message().to_owned());
            ended_with("Hint", error.hint().to_owned());
        }
        if let Some(Outcome::Answer(answer)) = &now.outcome {
            ended_with("Answer", serde_json::to_string(&**answer).unwrap_or_default());
        }
        let interface = InterfaceName::from_static_str_unchecked(JOB_INTERFACE);
        fdo::Properties::properties_changed(emitter, interface, changed, Cow::Owned(invalidated)).await?;
        *sent = Some(now.clone());
        Ok(())
    }

    async fn announce_count(&self, connection: &Connection) {
        let server = connection.object_server();
        let Ok(manager) = server.interface::<_, Manager>(MANAGER_PATH).await else { return };
        let (object, emitter) = (manager.get().await, manager.signal_emitter());
        for announced in [object.job_count_changed(emitter).await, object.state_changed(emitter).await] {
            if let Err(cause) = announced {
                tracing::warn!("the number of jobs could not be announced on the bus: {cause}");
            }
        }
    }

    async fn retire(&self, connection: &Connection, path: OwnedObjectPath) -> zbus::Result<()> {
        let mut ended = self.ended.lock().await;
        ended.push_back(path);
        while ended.len() > JOBS_ENDED_KEPT {
            if let Some(oldest) = ended.pop_front() {
                connection.object_server().remove::<JobObject, _>(&oldest).await?;
            }
        }
        Ok(())
    }
}

/// The word for a severity on the bus.
pub fn severity_name(severity: Severity) -> &'static str {
    match severity {
        Severity::Info => "info",
        Severity::Warning => "warning",
        Severity::Error => "error",
    }
}
