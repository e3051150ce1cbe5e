//! Whether an artifact of Enterprise can be had at all: asked before anything starts, and by the doctor.

use super::{EnterpriseBackup, EnterprisePlan};
use crate::base::task::Task;
use crate::base::{Code, Error, Result};
use crate::driver::neo4j::Neo4jDriver;
use crate::driver::neo4j::ready::connect;
use crate::driver::{Driver, FullBackup};
use std::path::Path;

/// Host and port of `host:port`.
fn parts(address: &str) -> Option<(String, u16)> {
    let (host, port) = address.rsplit_once(':')?;
    Some((host.trim_matches(['[', ']']).to_owned(), port.parse().ok()?))
}

impl Neo4jDriver {
    /// Whether an artifact of Enterprise can be had: the tool, the service, the versions. Returns the service's address and
    /// weaknesses for the manifest.
    pub(in crate::driver::neo4j) fn check_enterprise(&self, task: &Task) -> Result<(String, Vec<String>)> {
        let unsupported = |text: String| Error::new(Code::Neo4jUnsupported, text);
        if !self.offered(task)?.backup {
            let text = format!("neo4j-admin of Community has no `database backup` ({})", self.settings.admin.display());
            return Err(unsupported(text).with_hint(
                "set `full = \"online\"`, which needs no Enterprise, or `admin` to the neo4j-admin of an Enterprise installation",
            ));
        }
        let server = self.server_version(task);
        if server.edition == "community" {
            let text = "the server is of Neo4j Community, which has no backup service".to_owned();
            return Err(unsupported(text).with_hint("set `full = \"online\"`, which needs no Enterprise"));
        }
        let listens = match self.settings.backup_servers.is_empty() {
            true => self.conf()?.backup_address().map(|address| vec![address]),
            false => Some(self.settings.backup_servers.iter().filter_map(|text| parts(text)).collect()),
        };
        let Some(services) = listens else {
            let text = "the server has no backup service: server.backup.enabled is false".to_owned();
            return Err(unsupported(text).with_hint(format!(
                "set `server.backup.enabled=true` in {}, and restart the server",
                self.settings.conf.display()
            )));
        };
        if !self.is_running(task)? {
            let text = "the server is not running, and an Enterprise backup is taken from a running one";
            return Err(Error::new(Code::Neo4jUnreachable, text).with_hint("start the server, or give `--type dump`"));
        }
        let (from, mut warnings) = self.those_that_answer(&services)?;
        warnings.extend(self.check_versions(&self.admin_version(task)?, &server.version)?);
        Ok((from, warnings))
    }

    /// The services that answer, as `--from` takes them. The tool would try the others too, and then fail although it
    /// has made its artifact.
    fn those_that_answer(&self, services: &[(String, u16)]) -> Result<(String, Vec<String>)> {
        let (mut from, mut silent) = (Vec::new(), Vec::new());
        for (host, port) in services {
            match connect(host, *port) {
                Ok(()) if host.contains(':') => from.push(format!("[{host}]:{port}")),
                Ok(()) => from.push(format!("{host}:{port}")),
                Err(error) => silent.push(error),
            }
        }
        if from.is_empty() {
            let none = || Error::new(Code::Neo4jUnreachable, "no address of a backup service is configured");
            let error = silent.into_iter().next().unwrap_or_else(none);
            return Err(error.context("looking for the backup service").with_hint(format!(
                "check `server.backup.listen_address` in {}, and that the server was restarted since",
                self.settings.conf.display()
            )));
        }
        let passed_over = |error: Error| format!("a backup service was passed over: {}", error.message());
        Ok((from.join(","), silent.into_iter().map(passed_over).collect()))
    }

    /// Makes the artifacts of all databases below `workspace`.
    pub(in crate::driver::neo4j) fn begin_enterprise(
        &self,
        workspace: &Path,
        task: &Task,
    ) -> Result<Box<dyn FullBackup>> {
        let (from, warnings) = self.check_enterprise(task)?;
        let layout = self.layout()?;
        let owner = layout.owner(&self.settings.database)?;
        let databases = self.databases().into_iter().map(|name| Ok((name.to_owned(), layout.bytes(name)?)));
        let plan = EnterprisePlan {
            from,
            databases: databases.collect::<Result<_>>()?,
            identity: self.store_id(&layout)?.identity(),
            warnings,
            kept: self.kept()?,
        };
        Ok(Box::new(EnterpriseBackup::begin(&self.admin(Some(owner)), plan, workspace, task)?))
    }
}
