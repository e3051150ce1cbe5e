//! The client's side: calls, and following a job to its end.

use super::address::BusAddress;
use super::errors::{from_bus, registered};
use super::{BUS_NAME, JOB_INTERFACE, MANAGER_INTERFACE, MANAGER_PATH, job_path, options};
use crate::base::ids::{JobId, TargetName};
use crate::base::task::{Progress, Severity};
use crate::base::{Code, Error, Result};
use crate::operation::answer::Answer;
use crate::operation::fetch::Fetched;
use crate::operation::request::Request;
use futures_util::future::FutureExt;
use futures_util::stream::{Select, StreamExt, select};
use serde::Serialize;
use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::future::Future;
use std::num::NonZeroUsize;
use std::pin::pin;
use std::time::Duration;
use zbus::message::Type as MessageType;
use zbus::proxy::{CacheProperties, MethodFlags};
use zbus::wire::{DynamicDeserialize, DynamicType};
use zbus::{
    Connection, MatchRule, Message, MessageStream, OwnedFd, OwnedObjectPath, OwnedVariant, Proxy, Variant, fdo,
};

/// How long an answer may take; the slowest questions read a repository through.
pub const ANSWER_PATIENCE: Duration = Duration::from_secs(600);
/// Messages that wait in a queue of the connection before it stops reading.
const QUEUE: NonZeroUsize = NonZeroUsize::new(1024).expect("not zero");

/// The agent, as a client sees it.
pub struct AgentProxy {
    connection: Connection,
    owner: String,
    interactive: bool,
}

/// Something that a followed job reports.
#[derive(Debug)]
// The large one comes once, at a job's end.
#[allow(clippy::large_enum_variant)]
pub enum Update {
    /// The numbers moved.
    Progress(Progress),
    /// It said something.
    Event(Severity, String),
    /// It ended, with what its caller would have got.
    Ended(Result<Answer>),
}

impl AgentProxy {
    /// Connects to the agent; the bus starts it if it can. `interactive` lets the agent have a person asked for
    /// permission.
    pub async fn connect(address: &BusAddress, interactive: bool) -> Result<Self> {
        let doing = format!("connecting to {}", address.describe());
        let connection = within(&doing, address.builder().build()).await?;
        let doing = format!("looking for the agent ({BUS_NAME}) on {}", address.describe());
        let owner = within(&doing, find_owner(&connection)).await?;
        Ok(AgentProxy { connection, owner, interactive })
    }

    /// Asks something that is answered at once.
    pub async fn query(&self, request: &Request) -> Result<Answer> {
        let doing = format!("asking the agent for {}", request.verb());
        let text = |target: &Option<crate::base::ids::TargetName>| {
            target.as_ref().map(ToString::to_string).unwrap_or_default()
        };
        let json: String = match request {
            Request::Status { target } => self.call("Status", &(text(target),), &doing).await?,
            Request::List { target } => self.call("List", &(text(target),), &doing).await?,
            Request::Check { target } => self.call("Check", &(text(target),), &doing).await?,
            Request::Show { backup } => self.call("Show", &(backup,), &doing).await?,
            Request::Presign { backup, .. } => {
                self.call("Presign", &(backup, options::write(request)?), &doing).await?
            }
            Request::History { limit } => self.call("History", &(limit,), &doing).await?,
            Request::Jobs => self.call("Jobs", &(), &doing).await?,
            Request::Restores => self.call("Restores", &(), &doing).await?,
            Request::KeyList => self.call("KeyList", &(), &doing).await?,
            Request::Cancel { job } => {
                self.call::<()>("Cancel", &(job.0,), &doing).await?;
                return Ok(Answer::Cancel { job: *job });
            }
            _ => return Err(Error::new(Code::Internal, format!("{} runs as a job", request.verb()))),
        };
        parse_answer(&json)
    }

    /// Has the configuration read again. Tells whether it is in force already.
    pub async fn reload(&self) -> Result<bool> {
        self.call("Reload", &(), "having the agent read its configuration again").await
    }

    /// Hands over a file of a server's log.
    pub async fn push_wal(&self, target: &TargetName, name: &str, content: File) -> Result<()> {
        let doing = format!("handing {name} of {target} over to the agent");
        let options: HashMap<&str, Variant<'_>> = HashMap::new();
        let content = OwnedFd::from(std::os::fd::OwnedFd::from(content));
        self.call("PushWal", &(target.as_str(), name, content, options), &doing).await
    }

    /// Asks for a file of a server's log; else why there is none.
    pub async fn fetch_wal(&self, target: &TargetName, name: &str) -> Result<Fetched> {
        let doing = format!("asking the agent for {name} of {target}");
        let options: HashMap<&str, Variant<'_>> = HashMap::new();
        let (files, reason): (Vec<OwnedFd>, String) =
            self.call("FetchWal", &(target.as_str(), name, options), &doing).await?;
        Ok(match files.into_iter().next() {
            Some(file) => Fetched::File(File::from(std::os::fd::OwnedFd::from(file))),
            None => Fetched::Beyond(reason),
        })
    }

    /// Starts a job and follows it from its first word.
    pub async fn start(&self, request: &Request) -> Result<FollowedJob> {
        let doing = format!("asking the agent for {}", request.verb());
        let mut followed = self.subscribe().await?;
        let options = options::write(request)?;
        let path: OwnedObjectPath = match request {
            Request::Backup(r) => followed.reading(self.call("Backup", &(r.target.as_str(), options), &doing)).await?,
            Request::Archive(r) => {
                followed.reading(self.call("Archive", &(r.target.as_str(), options), &doing)).await?
            }
            Request::Adopt { target, .. } => {
                followed.reading(self.call("Adopt", &(target.as_str(), options), &doing)).await?
            }
            Request::Restore(r) => {
                let backup = r.backup.as_deref().unwrap_or("");
                followed.reading(self.call("Restore", &(r.target.as_str(), backup, options), &doing)).await?
            }
            Request::Verify(r) => {
                let backup = r.backup.as_deref().unwrap_or("");
                followed.reading(self.call("Verify", &(backup, options), &doing)).await?
            }
            Request::Delete { backup, .. } => followed.reading(self.call("Delete", &(backup, options), &doing)).await?,
            Request::Cleanup { .. } => followed.reading(self.call("Cleanup", &(options,), &doing)).await?,
            Request::KeyRotate { .. } => followed.reading(self.call("KeyRotate", &(options,), &doing)).await?,
            Request::Rescan => followed.reading(self.call("Rescan", &(options,), &doing)).await?,
            _ => return Err(Error::new(Code::Internal, format!("{} is no job", request.verb()))),
        };
        let number = path.rsplit('/').next().and_then(|number| number.parse().ok());
        let number = number.ok_or_else(|| Error::new(Code::BusUnavailable, format!("{doing}: it answered {path}")))?;
        followed.follow(JobId(number));
        Ok(followed)
    }

    /// Follows a job that runs, or that ended a short while ago.
    pub async fn follow(&self, job: JobId) -> Result<FollowedJob> {
        let mut followed = self.subscribe().await?;
        followed.follow(job);
        let properties = followed.reading(job_properties(&self.connection, &self.owner, &job_path(job))).await?;
        let properties = properties.ok_or_else(|| {
            Error::new(Code::JobNotFound, format!("job {job} is neither running nor among the last that ended"))
        })?;
        if text_of(&properties, "State").is_some_and(|state| is_final(&state)) {
            followed.outcome = Some(outcome(&properties));
        }
        followed.take_numbers(&properties);
        Ok(followed)
    }

    async fn call<R: for<'d> DynamicDeserialize<'d>>(
        &self,
        method: &'static str,
        body: &(impl Serialize + DynamicType),
        doing: &str,
    ) -> Result<R> {
        within(doing, async {
            let manager = proxy(&self.connection, &self.owner, MANAGER_PATH, MANAGER_INTERFACE).await?;
            let flags = if self.interactive { MethodFlags::ALLOW_INTERACTIVE_AUTH } else { MethodFlags::empty() };
            manager.call_with_flags(method, flags, body).await?.ok_or(zbus::Error::InvalidReply)
        })
        .await
    }

    async fn subscribe(&self) -> Result<FollowedJob> {
        let doing = "following the agent's signals";
        let signals = within(doing, async {
            let jobs = MatchRule::builder()
                .msg_type(MessageType::Signal)
                .sender(self.owner.as_str())
                .path_namespace(MANAGER_PATH)
                .build()?;
            let owner = MatchRule::builder()
                .msg_type(MessageType::Signal)
                .sender("org.freedesktop.DBus")
                .interface("org.freedesktop.DBus")
                .member("NameOwnerChanged")
                .add_arg(BUS_NAME)
                .build()?;
            let jobs = MessageStream::for_match_rule(jobs, &self.connection, Some(QUEUE)).await?;
            let owner = MessageStream::for_match_rule(owner, &self.connection, Some(QUEUE)).await?;
            Ok(select(jobs, owner))
        });
        Ok(FollowedJob {
            id: JobId(0),
            path: String::new(),
            connection: self.connection.clone(),
            owner: self.owner.clone(),
            signals: signals.await?,
            early: VecDeque::new(),
            progress: Progress::default(),
            owner_left: false,
            last_words: None,
            outcome: None,
        })
    }
}

/// A job that is followed.
pub struct FollowedJob {
    /// Its number.
    pub id: JobId,
    path: String,
    connection: Connection,
    owner: String,
    signals: Select<MessageStream, MessageStream>,
    /// Signals that came while an answer was awaited.
    early: VecDeque<Message>,
    progress: Progress,
    /// The agent is no longer on the bus.
    owner_left: bool,
    /// How it ended, from its last signal; said once the agent has announced the end.
    last_words: Option<Result<Answer>>,
    /// How it had ended before anybody followed it.
    outcome: Option<Result<Answer>>,
}

impl FollowedJob {
    fn follow(&mut self, job: JobId) {
        (self.id, self.path) = (job, job_path(job));
    }

    /// Awaits a reply and keeps reading signals meanwhile: a full queue of signals would hold up the reply behind it.
    async fn reading<T>(&mut self, reply: impl Future<Output = Result<T>>) -> Result<T> {
        let mut reply = pin!(reply);
        loop {
            tokio::select! {
                biased;
                reply = &mut reply => return reply,
                signal = self.signals.next() => match signal {
                    Some(Ok(signal)) => self.early.push_back(signal),
                    Some(Err(_)) => {}
                    None => return Err(self.gone()),
                },
            }
        }
    }

    /// The next thing the job reports. After [`Update::Ended`] there is nothing more.
    pub async fn next(&mut self) -> Result<Update> {
        loop {
            if let Some(outcome) = self.outcome.take() {
                return Ok(Update::Ended(outcome));
            }
            let signal = match self.early.pop_front() {
                Some(signal) => signal,
                // What it said before it left is queued already.
                None if self.owner_left => match self.signals.next().now_or_never() {
                    Some(Some(Ok(signal))) => signal,
                    _ => return Err(self.gone()),
                },
                None => match self.signals.next().await {
                    Some(Ok(signal)) => signal,
                    Some(Err(_)) => continue,
                    None => return Err(self.gone()),
                },
            };
            if let Some(update) = self.understand(&signal).await? {
                return Ok(update);
            }
        }
    }

    async fn understand(&mut self, signal: &Message) -> Result<Option<Update>> {
        let header = signal.header();
        let member = header.member().map(|member| member.as_str()).unwrap_or_default();
        let body = signal.body();
        if member == "NameOwnerChanged" && header.sender().is_some_and(|sender| *sender == "org.freedesktop.DBus") {
            let changed: Result<(String, String, String), _> = body.deserialize();
            self.owner_left |= changed.is_ok_and(|(_, old, _)| old == self.owner);
            return Ok(None);
        }
        // A bus delivers what anybody addresses to us; only the agent itself is believed.
        if header.sender().is_none_or(|sender| *sender != self.owner.as_str()) {
            return Ok(None);
        }
        let about_this_job = header.path().is_some_and(|path| path.as_str() == self.path);
        match member {
            "Event" if about_this_job => {
                let said: Result<(String, String), _> = body.deserialize();
                Ok(said.ok().map(|(severity, text)| Update::Event(severity_from(&severity), text)))
            }
            "PropertiesChanged" if about_this_job => {
                let changed: Result<(String, HashMap<String, OwnedVariant>, Vec<String>), _> = body.deserialize();
                let Ok((_, changed, invalidated)) = changed else { return Ok(None) };
                self.take_numbers(&changed);
                // What was too long to be sent along is read from the job's object when its end is announced.
                let ended = changed.contains_key("ErrorCode") || changed.contains_key("Answer");
                if ended && invalidated.is_empty() {
                    self.last_words = Some(outcome(&changed));
                }
                Ok(Some(Update::Progress(self.progress.clone())))
            }
            "JobRemoved" => match body.deserialize::<(u64, OwnedObjectPath, String)>() {
                Ok((id, _, _)) if id == self.id.0 => self.ended().await.map(Some),
                _ => Ok(None),
            },
            _ => Ok(None),
        }
    }

    async fn ended(&mut self) -> Result<Update> {
        if let Some(outcome) = self.last_words.take() {
            return Ok(Update::Ended(outcome));
        }
        let (connection, owner, path) = (self.connection.clone(), self.owner.clone(), self.path.clone());
        let properties = self.reading(async move { job_properties(&connection, &owner, &path).await }).await?;
        Ok(Update::Ended(properties.map_or_else(|| Err(self.gone()), |properties| outcome(&properties))))
    }

    fn take_numbers(&mut self, properties: &HashMap<String, OwnedVariant>) {
        if let Some(phase) = text_of(properties, "Phase") {
            self.progress.phase = phase;
        }
        if let Some(done) = number_of(properties, "BytesDone") {
            self.progress.done = done;
        }
        if let Some(total) = number_of(properties, "BytesTotal") {
            self.progress.total = total;
        }
        if let Some(elapsed) = number_of(properties, "ElapsedUSec") {
            self.progress.elapsed_ms = elapsed / 1000;
        }
    }

    fn gone(&self) -> Error {
        Error::new(Code::BusUnavailable, format!("the agent ended while job {} ran", self.id)).with_hint(
            "after its next start `neo4j-backupctl history` says what became of the job; \
             `journalctl -u neo4j-backupd` says why the agent ended",
        )
    }
}

async fn find_owner(connection: &Connection) -> zbus::Result<String> {
    let bus = fdo::DBusProxy::new(connection).await?;
    let name = || zbus::names::WellKnownName::from_static_str_unchecked(BUS_NAME);
    match bus.get_name_owner(name().into()).await {
        Ok(owner) => return Ok(owner.to_string()),
        Err(fdo::Error::NameHasNoOwner(_)) => {}
        Err(other) => return Err(other.into()),
    }
    bus.start_service_by_name(name(), 0).await?;
    Ok(bus.get_name_owner(name().into()).await?.to_string())
}

async fn proxy<'a>(
    connection: &Connection,
    owner: &'a str,
    path: &'a str,
    interface: &'static str,
) -> zbus::Result<Proxy<'a>> {
    zbus::proxy::Builder::new(connection)
        .destination(owner)
        .path(path)
        .interface(interface)
        .cache_properties(CacheProperties::No)
        .build()
        .await
}

/// A job's properties; `None` if there is no such object.
async fn job_properties(
    connection: &Connection,
    owner: &str,
    path: &str,
) -> Result<Option<HashMap<String, OwnedVariant>>> {
    within("reading the job's properties", async {
        let properties = proxy(connection, owner, path, "org.freedesktop.DBus.Properties").await?;
        match properties.call("GetAll", &(JOB_INTERFACE,)).await {
            Ok(all) => Ok(Some(all)),
            Err(zbus::Error::FDO(cause))
                if matches!(*cause, fdo::Error::UnknownObject(_) | fdo::Error::UnknownInterface(_)) =>
            {
                Ok(None)
            }
            Err(other) => Err(other),
        }
    })
    .await
}

async fn within<T>(doing: &str, work: impl Future<Output = zbus::Result<T>>) -> Result<T> {
    match tokio::time::timeout(ANSWER_PATIENCE, work).await {
        Ok(result) => result.map_err(|cause| from_bus(doing, cause)),
        Err(_) => {
            Err(Error::new(Code::BusUnavailable, format!("{doing}: no answer for {} s", ANSWER_PATIENCE.as_secs())))
        }
    }
}

fn outcome(properties: &HashMap<String, OwnedVariant>) -> Result<Answer> {
    let text = |name| text_of(properties, name).unwrap_or_default();
    let (code, message, hint) = (text("ErrorCode"), text("Message"), text("Hint"));
    let answer = text("Answer");
    // An answer that is bad news comes with its error; the answer says more, and the error follows from it.
    if code.is_empty() || !answer.is_empty() {
        return parse_answer(&answer);
    }
    let code = Code::from_name(&code).unwrap_or(Code::Internal);
    Err(registered(&code.dbus_name(), &message).unwrap_or_else(|| Error::new(code, message)).with_hint(hint))
}

fn parse_answer(json: &str) -> Result<Answer> {
    serde_json::from_str(json).map_err(|cause| {
        Error::new(Code::BusUnavailable, format!("the agent's answer cannot be read: {cause}")).with_hint(
            "agent and client are probably of different versions; after an upgrade: `systemctl restart neo4j-backupd`",
        )
    })
}

fn text_of(properties: &HashMap<String, OwnedVariant>, name: &str) -> Option<String> {
    match properties.get(name).map(|value| &**value) {
        Some(Variant::Str(text)) => Some(text.to_string()),
        _ => None,
    }
}

fn number_of(properties: &HashMap<String, OwnedVariant>, name: &str) -> Option<u64> {
    match properties.get(name).map(|value| &**value) {
        Some(Variant::U64(number)) => Some(*number),
        _ => None,
    }
}

fn is_final(state: &str) -> bool {
    !matches!(state, "queued" | "running" | "cancelling")
}

fn severity_from(name: &str) -> Severity {
    match name {
        "error" => Severity::Error,
        "warning" => Severity::Warning,
        _ => Severity::Info,
    }
}
