//! `org.freedesktop.LogControl1(5)`: `systemctl service-log-level neo4j-backupd debug` says more without a restart.

use super::authority::{Action, Authority, Call};
use super::service::permit;
use crate::telemetry::subscriber;
use std::sync::Arc;
use tracing_subscriber::filter::LevelFilter;
use zbus::message::Header;
use zbus::{Connection, fdo, interface};

/// Where the object is, in every service that has it.
pub const LOG_CONTROL_PATH: &str = "/org/freedesktop/LogControl1";

/// syslog's names, and the level of ours that each stands for.
const LEVELS: [(&str, LevelFilter); 8] = [
    ("debug", LevelFilter::DEBUG),
    ("info", LevelFilter::INFO),
    ("notice", LevelFilter::INFO),
    ("warning", LevelFilter::WARN),
    ("err", LevelFilter::ERROR),
    ("crit", LevelFilter::ERROR),
    ("alert", LevelFilter::ERROR),
    ("emerg", LevelFilter::ERROR),
];

/// The object.
pub struct LogControl {
    authority: Arc<dyn Authority>,
    identifier: &'static str,
}

impl LogControl {
    /// For a program that the journal knows as `identifier`. Whoever may have the configuration read again may change the
    /// level.
    pub fn new(authority: Arc<dyn Authority>, identifier: &'static str) -> Self {
        LogControl { authority, identifier }
    }
}

#[interface(name = "org.freedesktop.LogControl1")]
impl LogControl {
    #[zbus(property(emits_changed_signal = "false"))]
    fn log_level(&self) -> &str {
        let level = subscriber::level().unwrap_or(LevelFilter::INFO);
        LEVELS.iter().find(|(_, ours)| *ours == level).map_or("debug", |(name, _)| name)
    }

    #[zbus(property)]
    async fn set_log_level(
        &self,
        level: String,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] header: Option<Header<'_>>,
    ) -> zbus::Result<()> {
        let refuse = |text: String| zbus::Error::from(fdo::Error::AccessDenied(text));
        let header = header.ok_or_else(|| refuse("nobody asks".to_owned()))?;
        permit(&*self.authority, Action::Reload, None, Call { connection, header: &header })
            .await
            .map_err(|error| refuse(error.to_string()))?;
        let wanted = LEVELS.iter().find(|(name, _)| *name == level).map(|(_, ours)| *ours);
        let wanted = wanted.ok_or_else(|| {
            let names: Vec<&str> = LEVELS.iter().map(|(name, _)| *name).collect();
            fdo::Error::InvalidArgs(format!("{level:?} is none of {}", names.join(", ")))
        })?;
        subscriber::set_level(wanted);
        tracing::warn!("the log level is {level} from now on");
        Ok(())
    }

    #[zbus(property(emits_changed_signal = "false"))]
    fn log_target(&self) -> &str {
        if subscriber::is_journal() { "journal" } else { "console" }
    }

    #[zbus(property)]
    fn set_log_target(&self, target: String) -> zbus::Result<()> {
        if target == self.log_target() || target == "auto" {
            return Ok(());
        }
        let text = format!("lines go to the {}; the unit's StandardError= says where else", self.log_target());
        Err(fdo::Error::NotSupported(text).into())
    }

    #[zbus(property(emits_changed_signal = "const"))]
    fn syslog_identifier(&self) -> &str {
        self.identifier
    }
}
