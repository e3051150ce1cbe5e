//! The host's service manager, on the same bus as the agent: units are enabled, started and stopped by it, and its own
//! policy says who may. `org.freedesktop.systemd1(5)` has the interface.

use super::address::BusAddress;
use super::proxy::ANSWER_PATIENCE;
use crate::base::{Code, Error, Result};
use futures_util::stream::StreamExt;
use serde::Serialize;
use zbus::message::Type as MessageType;
use zbus::proxy::{CacheProperties, MethodFlags};
use zbus::wire::{DynamicDeserialize, DynamicType};
use zbus::{Connection, MatchRule, MessageStream, OwnedObjectPath, Proxy, fdo};

const NAME: &str = "org.freedesktop.systemd1";
const PATH: &str = "/org/freedesktop/systemd1";
const INTERFACE: &str = "org.freedesktop.systemd1.Manager";

/// What enabling or disabling changed: kind, link, where it leads.
type Changes = Vec<(String, String, String)>;

/// systemd, as a client sees it.
pub struct ServiceManager {
    connection: Connection,
    interactive: bool,
}

impl ServiceManager {
    /// Connects. `interactive` lets a person be asked for permission. `NOT_AVAILABLE` where there is no systemd.
    pub async fn connect(address: &BusAddress, interactive: bool) -> Result<Self> {
        let doing = format!("asking systemd on {}", address.describe());
        let connection = address.builder().build().await.map_err(|cause| super::errors::from_bus(&doing, cause))?;
        let manager = ServiceManager { connection, interactive };
        // systemd sends signals only while somebody wants them, and takes a second wish for a mistake.
        manager.call::<()>("Subscribe", &(), &doing).await?;
        Ok(manager)
    }

    /// Has units started by themselves from the next boot on. Tells whether that changed anything.
    pub async fn enable(&self, units: &[&str]) -> Result<bool> {
        let doing = format!("enabling {}", units.join(", "));
        let (_, changes): (bool, Changes) = self.call("EnableUnitFiles", &(units, false, false), &doing).await?;
        Ok(!changes.is_empty())
    }

    /// No longer has units started by themselves. Tells whether that changed anything.
    pub async fn disable(&self, units: &[&str]) -> Result<bool> {
        let doing = format!("disabling {}", units.join(", "));
        let changes: Changes = self.call("DisableUnitFiles", &(units, false), &doing).await?;
        Ok(!changes.is_empty())
    }

    /// Has all units read again, and what generators make of the configuration.
    pub async fn reload(&self) -> Result<()> {
        self.call("Reload", &(), "having systemd read its units again (`systemctl daemon-reload`)").await
    }

    /// Starts a unit and waits until it has started.
    pub async fn start(&self, unit: &str) -> Result<()> {
        self.settle("StartUnit", unit, &format!("starting {unit}")).await
    }

    /// Stops a unit and waits until it has stopped.
    pub async fn stop(&self, unit: &str) -> Result<()> {
        self.settle("StopUnit", unit, &format!("stopping {unit}")).await
    }

    /// Calls a method that leads to a job of systemd's, and waits for its end.
    async fn settle(&self, method: &'static str, unit: &str, doing: &str) -> Result<()> {
        let failed = |cause: zbus::Error| self.understand(doing, cause);
        let ends = MatchRule::builder()
            .msg_type(MessageType::Signal)
            .sender(NAME)
            .interface(INTERFACE)
            .member("JobRemoved")
            .build()
            .map_err(failed)?;
        let mut ends = MessageStream::for_match_rule(ends, &self.connection, None).await.map_err(failed)?;
        let job: OwnedObjectPath = self.call(method, &(unit, "replace"), doing).await?;
        let ended = async {
            while let Some(signal) = ends.next().await {
                let Ok(signal) = signal else { continue };
                let told: Result<(u32, OwnedObjectPath, String, String), _> = signal.body().deserialize();
                if let Ok((_, path, _, result)) = told
                    && path == job
                {
                    return Some(result);
                }
            }
            None
        };
        match tokio::time::timeout(ANSWER_PATIENCE, ended).await {
            Ok(Some(result)) if result == "done" || result == "skipped" => Ok(()),
            Ok(Some(result)) => Err(control_failed(format!("{doing}: the job ended as \"{result}\""), unit)),
            Ok(None) => Err(Error::new(Code::BusUnavailable, format!("{doing}: the bus is gone"))),
            Err(_) => Err(control_failed(format!("{doing}: not done after {} s", ANSWER_PATIENCE.as_secs()), unit)),
        }
    }

    async fn call<R: for<'d> DynamicDeserialize<'d>>(
        &self,
        method: &'static str,
        body: &(impl Serialize + DynamicType),
        doing: &str,
    ) -> Result<R> {
        let answer = async {
            let manager: Proxy<'_> = zbus::proxy::Builder::new(&self.connection)
                .destination(NAME)
                .path(PATH)
                .interface(INTERFACE)
                .cache_properties(CacheProperties::No)
                .build()
                .await?;
            let flags = if self.interactive { MethodFlags::ALLOW_INTERACTIVE_AUTH } else { MethodFlags::empty() };
            manager.call_with_flags(method, flags, body).await?.ok_or(zbus::Error::InvalidReply)
        };
        match tokio::time::timeout(ANSWER_PATIENCE, answer).await {
            Ok(answer) => answer.map_err(|cause| self.understand(doing, cause)),
            Err(_) => {
                let text = format!("{doing}: systemd did not answer for {} s", ANSWER_PATIENCE.as_secs());
                Err(Error::new(Code::BusUnavailable, text))
            }
        }
    }

    fn understand(&self, doing: &str, cause: zbus::Error) -> Error {
        let (name, text) = match &cause {
            zbus::Error::MethodError(name, text, _) => (name.to_string(), text.clone().unwrap_or_default()),
            zbus::Error::FDO(standard) => match &**standard {
                fdo::Error::AccessDenied(text)
                | fdo::Error::AuthFailed(text)
                | fdo::Error::InteractiveAuthorizationRequired(text) => {
                    return Error::new(Code::NotAuthorised, format!("{doing}: {text}")).with_hint(
                        "authenticate when asked to (on a terminal, without --no-ask-password), or run it as root",
                    );
                }
                fdo::Error::ServiceUnknown(_) | fdo::Error::NameHasNoOwner(_) | fdo::Error::SpawnFailed(_) => {
                    return Error::new(Code::NotAvailable, format!("{doing}: there is no systemd on this bus")).with_hint(
                        "where something else starts programs, let it run `neo4j-backupd run backup TARGET` at its times",
                    );
                }
                _ => return super::errors::from_bus(doing, cause),
            },
            _ => return super::errors::from_bus(doing, cause),
        };
        if name.starts_with(NAME)
            || name.starts_with("org.freedesktop.DBus.Error.")
            || name.starts_with("System.Error.")
        {
            return Error::new(Code::ServerControlFailed, format!("{doing}: {text}"))
                .with_hint("`systemctl status` and `systemctl cat` of the unit show what systemd knows of it");
        }
        super::errors::from_bus(doing, cause)
    }
}

fn control_failed(text: String, unit: &str) -> Error {
    Error::new(Code::ServerControlFailed, text)
        .with_hint(format!("look at the unit: `systemctl status {unit}`, `journalctl -u {unit}`"))
}
