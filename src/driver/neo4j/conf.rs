//! `neo4j.conf`, as far as a backup must know it: where the data lies and where the server listens.
//!
//! The settings are those of Neo4j's Operations Manual. Relative directories are relative to the home, those of the
//! transaction logs to the data.

use crate::base::neo4j_conf::Neo4jConf;
use crate::base::{Code, Error, Result};
use std::path::{Path, PathBuf};

/// Largest configuration file that is read, in bytes.
const CONF_MAX: u64 = 1 << 20;
/// Bolt's registered port, which Neo4j listens on unless told otherwise.
const BOLT_PORT: u16 = 7687;
/// Where Enterprise's backup service listens unless told otherwise.
const BACKUP_ADDRESS: &str = "127.0.0.1:6362";
/// The backup service's port.
const BACKUP_PORT: u16 = 6362;

/// The settings of one server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Conf {
    home: PathBuf,
    settings: Neo4jConf,
}

impl Conf {
    /// Reads `path`. Error `NEO4J_UNSUPPORTED` when it cannot be read or asks for something only the server can do.
    pub(super) fn read(path: &Path, home: &Path) -> Result<Conf> {
        let refuse = |why: String| {
            Error::new(Code::Neo4jUnsupported, format!("reading {}: {why}", path.display()))
                .with_hint("set `conf` of the target to the server's neo4j.conf and let the agent read it")
        };
        let size = std::fs::metadata(path).map_err(|cause| refuse(cause.to_string()))?.len();
        if size > CONF_MAX {
            return Err(refuse(format!("it has {size} bytes, more than {CONF_MAX}")));
        }
        let text = std::fs::read_to_string(path).map_err(|cause| refuse(cause.to_string()))?;
        Ok(Conf::parse(&text, home))
    }

    fn parse(text: &str, home: &Path) -> Conf {
        Conf { home: home.to_owned(), settings: Neo4jConf::parse(text) }
    }

    fn setting(&self, name: &str) -> Option<&str> {
        self.settings.get(name)
    }

    fn directory(&self, name: &str, base: &Path, default: &str) -> Result<PathBuf> {
        let value = self.setting(name).unwrap_or(default);
        if value.starts_with("$(") {
            return Err(Error::new(
                Code::Neo4jUnsupported,
                format!("{name} is a command ({value}), which only the server expands"),
            )
            .with_hint(format!("write the directory itself into `{name}`")));
        }
        Ok(base.join(value))
    }

    /// `server.directories.data`, absolute.
    pub(super) fn data(&self) -> Result<PathBuf> {
        self.directory("server.directories.data", &self.home, "data")
    }

    /// `server.directories.transaction.logs.root`, absolute.
    pub(super) fn transaction_logs(&self) -> Result<PathBuf> {
        self.directory("server.directories.transaction.logs.root", &self.data()?, "transactions")
    }

    /// `server.directories.plugins`, absolute.
    pub(super) fn plugins(&self) -> Result<PathBuf> {
        self.directory("server.directories.plugins", &self.home, "plugins")
    }

    /// `initial.dbms.default_database`.
    pub(super) fn default_database(&self) -> &str {
        self.setting("initial.dbms.default_database").unwrap_or("neo4j")
    }

    /// The largest heap of the server, as its setting says it; `None` = left to Java.
    pub(super) fn heap(&self) -> Option<&str> {
        self.setting("server.memory.heap.max_size")
    }

    /// Whether the server asks for a password.
    pub(super) fn asks_for_password(&self) -> bool {
        self.setting("dbms.security.auth_enabled").is_none_or(|value| !value.eq_ignore_ascii_case("false"))
    }

    /// Where a client on this host reaches Bolt: host and port. `None` when Bolt is switched off.
    pub(super) fn bolt_address(&self) -> Option<(String, u16)> {
        if self.is_off("server.bolt.enabled") {
            return None;
        }
        Some(self.address_of(self.setting("server.bolt.listen_address").unwrap_or(""), BOLT_PORT))
    }

    /// Where a client on this host reaches Enterprise's backup service. `None` when it is switched off.
    pub(super) fn backup_address(&self) -> Option<(String, u16)> {
        if self.is_off("server.backup.enabled") {
            return None;
        }
        let listen = self.setting("server.backup.listen_address").unwrap_or(BACKUP_ADDRESS);
        Some(self.address_of(listen, BACKUP_PORT))
    }

    /// Whether the backup service, which asks nobody for a password, can be reached from other hosts.
    pub(super) fn backup_is_exposed(&self) -> bool {
        let listen = self.setting("server.backup.listen_address").unwrap_or(BACKUP_ADDRESS);
        let host = listen.rsplit_once(':').map_or(listen, |(host, _)| host);
        let host = if host.is_empty() { self.setting("server.default_listen_address").unwrap_or("") } else { host };
        !matches!(host, "" | "localhost" | "::1" | "[::1]") && !host.starts_with("127.")
    }

    fn is_off(&self, name: &str) -> bool {
        self.setting(name).is_some_and(|value| value.eq_ignore_ascii_case("false"))
    }

    fn address_of(&self, listen: &str, default_port: u16) -> (String, u16) {
        let (host, port) = match listen.rsplit_once(':') {
            Some((host, port)) => (host, port.parse().unwrap_or(default_port)),
            None => (listen, default_port),
        };
        let host = match host {
            "" => self.setting("server.default_listen_address").unwrap_or("localhost"),
            host => host,
        };
        // An address that means "every interface" is not one to connect to.
        let host = if matches!(host, "0.0.0.0" | "::" | "[::]") { "127.0.0.1" } else { host };
        (host.trim_matches(['[', ']']).to_owned(), port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conf(text: &str) -> Conf {
        Conf::parse(text, Path::new("/var/lib/neo4j"))
    }

    #[test]
    fn former_names_hold_where_the_present_ones_are_not_set() {
        let both = conf("dbms.directories.data=/old\nserver.directories.data=/new\n");
        assert_eq!(both.data().expect("data"), Path::new("/new"));
        let old = conf("dbms.directories.transaction.logs.root=/fast/tx\ndbms.default_database=shop\n");
        assert_eq!(old.transaction_logs().expect("logs"), Path::new("/fast/tx"));
        assert_eq!(old.default_database(), "shop");
        let bolt = conf("dbms.connector.bolt.listen_address=:7777\ndbms.default_listen_address=10.0.0.1\n");
        assert_eq!(bolt.bolt_address(), Some(("10.0.0.1".to_owned(), 7777)));
        assert_eq!(conf("dbms.connector.bolt.enabled=false").bolt_address(), None);
        assert_eq!(conf("dbms.directories.data=\n").data().expect("data"), Path::new("/var/lib/neo4j/data"));
    }

    #[test]
    fn defaults_are_those_of_neo4j() {
        let conf = conf("# server.directories.data=/elsewhere\n\n");
        assert_eq!(conf.data().expect("data"), Path::new("/var/lib/neo4j/data"));
        assert_eq!(conf.transaction_logs().expect("logs"), Path::new("/var/lib/neo4j/data/transactions"));
        assert_eq!(conf.default_database(), "neo4j");
        assert_eq!(conf.bolt_address(), Some(("localhost".to_owned(), 7687)));
        assert!(conf.asks_for_password());
    }

    #[test]
    fn directories_are_resolved_as_neo4j_resolves_them() {
        let conf = conf("server.directories.data = store\nserver.directories.transaction.logs.root=logs\n");
        assert_eq!(conf.transaction_logs().expect("logs"), Path::new("/var/lib/neo4j/store/logs"));
        let conf = self::conf("server.directories.transaction.logs.root=/fast/tx\n");
        assert_eq!(conf.transaction_logs().expect("logs"), Path::new("/fast/tx"));
        let conf = self::conf("server.directories.data=$(echo /x)\n");
        assert_eq!(conf.data().map_err(|e| e.code()), Err(Code::Neo4jUnsupported));
    }

    #[test]
    fn the_bolt_address_is_one_to_connect_to() {
        let address = |text: &str| conf(text).bolt_address();
        assert_eq!(address("server.bolt.listen_address=:9999"), Some(("localhost".to_owned(), 9999)));
        assert_eq!(address("server.default_listen_address=0.0.0.0"), Some(("127.0.0.1".to_owned(), 7687)));
        assert_eq!(address("server.bolt.listen_address=[::1]:17"), Some(("::1".to_owned(), 17)));
        assert_eq!(address("server.bolt.enabled=FALSE"), None);
    }

    #[test]
    fn the_backup_service_is_found_where_the_server_puts_it() {
        let found = |text: &str| (conf(text).backup_address(), conf(text).backup_is_exposed());
        let at = |host: &str, port: u16| Some((host.to_owned(), port));
        assert_eq!(found(""), (at("127.0.0.1", 6362), false));
        assert_eq!(found("server.backup.listen_address=0.0.0.0:6400"), (at("127.0.0.1", 6400), true));
        assert_eq!(found("server.backup.listen_address=:6400"), (at("localhost", 6400), false));
        let everywhere = "server.default_listen_address=0.0.0.0\nserver.backup.listen_address=:6362";
        assert_eq!(found(everywhere), (at("127.0.0.1", 6362), true));
        assert_eq!(found("server.backup.listen_address=10.0.0.9"), (at("10.0.0.9", 6362), true));
        assert_eq!(found("server.backup.listen_address=[::1]:7"), (at("::1", 7), false));
        assert_eq!(found("server.backup.enabled=False").0, None);
    }
}
