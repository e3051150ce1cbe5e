//! The agent's life on the bus: appear, serve, and leave in good order.

use super::address::BusAddress;
use super::authority::{Action, Authority, Call, Caller, Question};
use super::exporter::Exporter;
use super::inhibitor::Inhibitor;
use super::log_control::{LOG_CONTROL_PATH, LogControl};
use super::manager_object::Manager;
use super::{BUS_NAME, MANAGER_PATH};
use crate::agent::jobs::Registry;
use crate::agent::observed::Job;
use crate::agent::stall::{STALLED_AFTER, Stalls};
use crate::base::clock::Stopwatch;
use crate::base::{Code, Error, Result, bytes};
use crate::operation::request::Request;
use crate::telemetry::record::{Occasion, Record};
use sd_notify::NotifyState;
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};
use zbus::message::{Flags, Header};
use zbus::names::BusName;
use zbus::{Connection, fdo};

/// How long jobs may take to clean up after the agent was told to end. The unit's `TimeoutStopSec` is longer.
pub const STOP_PATIENCE: Duration = Duration::from_secs(80);
/// How long the bus may take to answer who a caller is.
pub(super) const BUS_PATIENCE: Duration = Duration::from_secs(10);
/// How often the service manager is told how far the jobs are.
const STATUS_INTERVAL: Duration = Duration::from_secs(1);
/// How often the service manager's watchdog is fed; the unit's `WatchdogSec` is much longer.
const FEED_INTERVAL: Duration = Duration::from_secs(20);

/// An agent on the bus.
pub struct Service {
    connection: Connection,
    registry: Arc<Registry>,
    exporter: Arc<Exporter>,
}

impl Service {
    /// Connects, exports the manager, and claims the agent's name.
    pub async fn start(address: &BusAddress, registry: Arc<Registry>, authority: Arc<dyn Authority>) -> Result<Self> {
        let failed = |cause: zbus::Error| match cause {
            zbus::Error::NameTaken => Error::new(Code::Busy, format!("another agent has the name {BUS_NAME}"))
                .with_hint("`busctl status org.neo4jbackup.Agent1` shows which process it is"),
            other => super::errors::from_bus(&format!("serving on {}", address.describe()), other).with_hint(format!(
                "check that the bus runs and that its policy lets this user own {BUS_NAME} (dbus/{BUS_NAME}.conf)"
            )),
        };
        let exporter = Exporter::new(registry.clone(), authority.clone());
        let manager = Manager::new(registry.clone(), exporter.clone(), authority.clone());
        let log_control = LogControl::new(authority, "neo4j-backupd");
        // Exported by the builder, which waits until calls are listened for; done later, the first ones can be lost.
        let builder = address.builder().serve_at(MANAGER_PATH, manager).serve_at(LOG_CONTROL_PATH, log_control);
        let connection = builder.build().await.map_err(failed)?;
        let flags = fdo::RequestNameFlags::DO_NOT_QUEUE;
        connection.request_name_with_flags(BUS_NAME, flags).await.map_err(failed)?;
        Ok(Service { connection, registry, exporter })
    }

    /// The connection it serves on.
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Leaves: no new jobs, running ones are ended and waited for. Fails if some did not end in time.
    pub async fn stop(self, patience: Duration) -> Result<()> {
        let registry = self.registry.clone();
        let ended = tokio::task::spawn_blocking(move || registry.stop(patience)).await;
        // Whoever waits for a job must still hear how it ended.
        let _ = tokio::time::timeout(BUS_PATIENCE, self.exporter.settled()).await;
        let _ = tokio::time::timeout(BUS_PATIENCE, self.connection.close()).await;
        match ended {
            Ok(true) => Ok(()),
            _ => Err(Error::new(Code::Interrupted, format!("jobs did not end within {} s", patience.as_secs()))),
        }
    }
}

/// Serves until SIGTERM or SIGINT, or until the bus is gone.
pub fn serve(registry: Arc<Registry>, address: &BusAddress, authority: Arc<dyn Authority>) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|cause| Error::new(Code::IoFailed, format!("starting the agent's threads: {cause}")))?;
    runtime.block_on(async {
        let watch =
            |kind| signal(kind).map_err(|cause| Error::new(Code::IoFailed, format!("watching signals: {cause}")));
        let (mut terminate, mut interrupt) = (watch(SignalKind::terminate())?, watch(SignalKind::interrupt())?);
        let hangup = watch(SignalKind::hangup())?;
        let service = Service::start(address, registry.clone(), authority).await?;
        let ready = format!("serving on {} as {BUS_NAME}", address.describe());
        Record::new(Occasion::AgentReady, &ready).emit();
        notify(&[NotifyState::Ready, NotifyState::Status("ready")]);
        let connection = service.connection().clone();
        let lost = tokio::select! {
            _ = terminate.recv() => false,
            _ = interrupt.recv() => false,
            () = connection.closed() => true,
            () = look_after(&connection, &registry) => false,
            () = reload_at(hangup, &registry) => false,
        };
        drop(connection);
        notify(&[NotifyState::Stopping, NotifyState::Status("waiting for jobs to clean up")]);
        Record::new(Occasion::AgentStopping, if lost { "the bus is gone" } else { "told to end" }).emit();
        service.stop(STOP_PATIENCE).await?;
        if lost {
            return Err(Error::new(Code::BusUnavailable, format!("{} closed the connection", address.describe())));
        }
        Ok(())
    })
}

/// Reads the configuration again whenever the signal comes, as daemons do.
async fn reload_at(mut signal: Signal, registry: &Arc<Registry>) {
    while signal.recv().await.is_some() {
        let registry = registry.clone();
        let reloaded = tokio::task::spawn_blocking(move || registry.reload(Duration::ZERO)).await;
        if let Ok(Err(error)) = reloaded {
            tracing::error!("the present configuration stays in force: {error}");
        }
    }
    std::future::pending().await
}

/// Tells the service manager how far the jobs are and that the agent lives, holds up a shutdown while jobs write, and tells
/// of jobs that show no progress.
async fn look_after(connection: &Connection, registry: &Arc<Registry>) {
    let mut tick = tokio::time::interval(STATUS_INTERVAL);
    let mut told = String::from("ready");
    let (mut inhibitor, mut stalls) = (Inhibitor::default(), Stalls::default());
    let watched = sd_notify::watchdog_enabled().is_some();
    let mut fed = Stopwatch::start();
    loop {
        tick.tick().await;
        if watched && fed.elapsed() >= FEED_INTERVAL && lives(registry).await {
            notify(&[NotifyState::Watchdog]);
            fed = Stopwatch::start();
        }
        let running = registry.running();
        inhibitor.follow(connection, &running).await;
        stalls.newly(&running, STALLED_AFTER).iter().for_each(|job| tell_of_stall(job));
        let status = match running.as_slice() {
            [] => "ready".to_owned(),
            [job] => describe(job),
            [first, rest @ ..] => format!("{}; and {} more", describe(first), rest.len()),
        };
        if status != told {
            notify(&[NotifyState::Status(&status)]);
            told = status;
        }
    }
}

/// Whether a question is still answered: that takes a thread, the table of jobs and the ledger. One that is not keeps the
/// service manager's watchdog without its sign of life, which ends the agent and starts it again.
async fn lives(registry: &Arc<Registry>) -> bool {
    let registry = registry.clone();
    let asked = tokio::task::spawn_blocking(move || {
        registry.running();
        registry.query(&Request::History { limit: 1 }, "watchdog")
    });
    match asked.await {
        // A ledger that cannot be read is told by every job; a restart would not mend it.
        Ok(_) => true,
        Err(cause) => {
            tracing::error!("the agent could not answer itself: {cause}");
            false
        }
    }
}

fn tell_of_stall(job: &Job) {
    let text = format!("{}: no progress for {} min", describe(job), STALLED_AFTER.as_secs() / 60);
    let target = job.request.target().map(|target| target.as_str());
    Record { target, job: Some(job.id.0), ..Record::new(Occasion::JobStalled, &text) }.emit();
}

fn describe(job: &Job) -> String {
    let progress = job.snapshot().progress;
    let subject = job.request.target().map(|target| format!(" of {target}")).unwrap_or_default();
    let amount = match (progress.done, progress.total) {
        (0, _) => String::new(),
        (done, 0) => format!(", {}", bytes::human(done)),
        (done, total) => format!(", {} of {}", bytes::human(done), bytes::human(total.max(done))),
    };
    let phase = if progress.phase.is_empty() { String::new() } else { format!(": {}", progress.phase) };
    format!("job {}: {}{subject}{phase}{amount}", job.id, job.request.verb())
}

fn notify(states: &[NotifyState<'_>]) {
    if let Err(cause) = sd_notify::notify(states) {
        tracing::warn!("the service manager could not be told: {cause}");
    }
}

/// Who sent a message, as the bus vouches for.
pub(super) async fn identify(connection: &Connection, header: &Header<'_>) -> Result<Caller> {
    let refuse = |why: String| Error::new(Code::NotAuthorised, format!("asking the bus who calls: {why}"));
    let sender = header.sender().ok_or_else(|| refuse("the message has no sender".to_owned()))?;
    let bus = fdo::DBusProxy::new(connection).await.map_err(|cause| refuse(cause.to_string()))?;
    let asked = bus.get_connection_unix_user(BusName::from(sender.to_owned()));
    let uid = tokio::time::timeout(BUS_PATIENCE, asked)
        .await
        .map_err(|_| refuse("no answer".to_owned()))?
        .map_err(|cause| refuse(cause.to_string()))?;
    Ok(Caller { bus_name: sender.to_string(), uid })
}

/// Who sent a message, if he may do what it asks for.
pub(super) async fn permit(
    authority: &dyn Authority,
    action: Action,
    target: Option<String>,
    call: Call<'_>,
) -> Result<Caller> {
    let interactive = call.header.primary().flags().contains(Flags::ALLOW_INTERACTIVE_AUTH);
    let (question, caller) = (Question { action, target, interactive }, identify(call.connection, call.header).await?);
    authority.allow(call, &question, &caller).await?;
    Ok(caller)
}
