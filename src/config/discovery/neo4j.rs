//! Neo4j: the package's paths, or a tarball given its `home`; the rest from `neo4j.conf`.

use crate::base::neo4j_conf::Neo4jConf;
use crate::config::kind;
use crate::config::settings::{Neo4jFull, Neo4jSettings};
use crate::config::targets::TargetReader;
use crate::config::value::Value;
use std::path::{Path, PathBuf};

/// Where the packages for Debian and Red Hat keep the data, and the container image everything.
pub const PACKAGE_HOME: &str = "/var/lib/neo4j";
/// The packages' configuration.
pub const PACKAGE_CONF: &str = "/etc/neo4j/neo4j.conf";
/// The packages' unit.
pub const PACKAGE_UNIT: &str = "neo4j.service";
/// The port of Bolt when nothing names another.
const BOLT_PORT: u16 = 7687;

/// Everything about one Neo4j target.
pub fn settings(reader: &mut TargetReader<'_, '_>) -> Neo4jSettings {
    let home = reader.path("home", package_home(reader), PACKAGE_HOME);
    let from_package = home == Path::new(PACKAGE_HOME);
    let conf = file(reader, "conf", &home, "conf/neo4j.conf", PACKAGE_CONF, from_package);
    let admin = file(reader, "admin", &home, "bin/neo4j-admin", "/usr/bin/neo4j-admin", from_package);
    let server_command = server_command(reader, &home, from_package);
    let text = reader.r.host.read(&conf);
    let server = text.as_deref().map(Neo4jConf::parse).unwrap_or_default();
    let bolt = bolt(reader, &server, &conf);
    let (user, password_file) = login(reader, &server, bolt.is_some());
    let full = full(reader);
    let backup_servers = reader.said("backup_servers").map(|pick| kind::texts(&pick.value));
    let backup_servers = backup_servers.unwrap_or_else(|| {
        reader.assumed("backup_servers", Value::List(Vec::new()));
        Vec::new()
    });
    let continuous = crate::config::duration::parse(&reader.text("continuous"));
    if let (Neo4jFull::Enterprise, Some(_), Some(said)) = (full, continuous, reader.said("continuous")) {
        reader.r.wrong(&said, "excludes full = \"enterprise\", whose differential backups are taken by the timers");
    }
    Neo4jSettings {
        service: service(reader, &home, from_package),
        database: database(reader, &server, &conf),
        backup_servers,
        full,
        continuous,
        home,
        conf,
        admin,
        server_command,
        bolt,
        user,
        password_file,
    }
}

fn full(reader: &mut TargetReader<'_, '_>) -> Neo4jFull {
    match reader.text("full").as_str() {
        "dump" => Neo4jFull::Dump,
        "export" => Neo4jFull::Export,
        "enterprise" => Neo4jFull::Enterprise,
        _ => Neo4jFull::Online,
    }
}

fn package_home(reader: &TargetReader<'_, '_>) -> Option<(PathBuf, String)> {
    let home = PathBuf::from(PACKAGE_HOME);
    reader.r.host.is_directory(&home).then(|| (home, "the package's directory".to_owned()))
}

/// A file that a tarball keeps below its home and the packages elsewhere. The package's place comes first only for the
/// package's home: beside a tarball it belongs to another server.
fn file(
    reader: &mut TargetReader<'_, '_>,
    key: &str,
    home: &Path,
    below_home: &str,
    packaged: &str,
    from_package: bool,
) -> PathBuf {
    let own = (home.join(below_home), "below home");
    let package = (PathBuf::from(packaged), "the package's file");
    let candidates = if from_package { vec![package, own] } else { vec![own] };
    let found = candidates.iter().find(|(path, _)| reader.r.host.is_file(path));
    let found = found.map(|(path, how)| (path.clone(), (*how).to_owned()));
    let assumed = candidates.first().map(|(path, _)| path.display().to_string()).unwrap_or_default();
    reader.path(key, found, &assumed)
}

fn server_command(reader: &mut TargetReader<'_, '_>, home: &Path, from_package: bool) -> Option<PathBuf> {
    if let Some(said) = reader.said("server_command") {
        reader.r.warn_if_missing(&said);
        return Some(said.path_buf());
    }
    let package = from_package.then(|| PathBuf::from("/usr/bin/neo4j"));
    let mut candidates = package.into_iter().chain([home.join("bin/neo4j")]);
    let found = candidates.find(|path| reader.r.host.is_file(path))?;
    Some(reader.found("server_command", Value::Text(found.display().to_string()), "installed").path_buf())
}

/// The package's unit; for a tarball only if the unit's file names its directory, since it would stop another server.
fn service(
    reader: &mut TargetReader<'_, '_>,
    home: &Path,
    from_package: bool,
) -> crate::config::settings::ServiceSettings {
    let found = reader.r.host.unit_file(PACKAGE_UNIT).filter(|file| {
        let named = |text: String| text.contains(&home.display().to_string());
        from_package || reader.r.host.read(file).is_some_and(named)
    });
    reader.service(found.map(|file| (PACKAGE_UNIT.to_owned(), format!("unit file {}", file.display()))))
}

fn database(reader: &mut TargetReader<'_, '_>, server: &Neo4jConf, conf: &Path) -> String {
    const SETTING: &str = "initial.dbms.default_database";
    if let Some(said) = reader.said("database") {
        return said.text();
    }
    match server.get(SETTING).filter(|name| crate::config::text_rules::neo4j_database(name).is_ok()) {
        Some(name) => {
            let how = format!("{SETTING} in {}", conf.display());
            reader.found("database", Value::Text(name.to_owned()), how).text()
        }
        None => reader.assumed("database", Value::Text("neo4j".to_owned())).text(),
    }
}

/// Where the server answers. Without `neo4j.conf` nothing is guessed: counts then stay unchecked, and it is said.
fn bolt(reader: &mut TargetReader<'_, '_>, server: &Neo4jConf, conf: &Path) -> Option<String> {
    if let Some(said) = reader.said("bolt") {
        return Some(said.text()).filter(|address| address != "off");
    }
    let how = format!("server.bolt.* in {}", conf.display());
    if server.is_empty() && reader.r.host.read(conf).is_none() {
        reader.warn(format_args!("counts stay unchecked: {} cannot be read and bolt is not set", conf.display()));
        reader.assumed("bolt", Value::Text("off".to_owned()));
        return None;
    }
    match bolt_address(server) {
        Some(address) => Some(reader.found("bolt", Value::Text(address), how).text()),
        None => {
            reader.warn("counts stay unchecked: the server has Bolt off or at an address that was not understood");
            reader.found("bolt", Value::Text("off".to_owned()), how);
            None
        }
    }
}

fn bolt_address(server: &Neo4jConf) -> Option<String> {
    if server.get("server.bolt.enabled").is_some_and(|enabled| enabled.eq_ignore_ascii_case("false")) {
        return None;
    }
    let listen = server.get("server.bolt.listen_address").unwrap_or_default();
    let (host, port) = listen.rsplit_once(':').unwrap_or((listen, ""));
    let host = if host.is_empty() { server.get("server.default_listen_address").unwrap_or_default() } else { host };
    let host = match host {
        "" | "0.0.0.0" | "localhost" => "127.0.0.1",
        "[::]" | "::" => "[::1]",
        other => other,
    };
    let port: u16 = if port.is_empty() { BOLT_PORT } else { port.parse().ok()? };
    let secure = server.get("server.bolt.tls_level").is_some_and(|level| level.eq_ignore_ascii_case("REQUIRED"));
    let address = format!("{}://{host}:{port}", if secure { "bolt+ssc" } else { "bolt" });
    crate::config::text_rules::bolt(&address).ok().map(|()| address)
}

fn login(reader: &mut TargetReader<'_, '_>, server: &Neo4jConf, has_bolt: bool) -> (Option<String>, Option<PathBuf>) {
    let password_file = reader.said("password_file").map(|pick| pick.path_buf());
    let user = reader.said("user");
    if password_file.is_none() {
        let off = server.get("dbms.security.auth_enabled").is_some_and(|value| value.eq_ignore_ascii_case("false"));
        if let Some(user) = user {
            reader.warn(format_args!("user {:?} is not used: there is no password_file", user.text()));
        } else if has_bolt && !off {
            reader.warn("the server asks for a login, but password_file is not set: counts will stay unchecked");
        }
        return (None, None);
    }
    let user = user.unwrap_or_else(|| reader.assumed("user", Value::Text("neo4j".to_owned())));
    (Some(user.text()), password_file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_of_bolt_follows_the_servers_own_rules() {
        let table = [
            ("", Some("bolt://127.0.0.1:7687")),
            ("server.bolt.listen_address=:7688", Some("bolt://127.0.0.1:7688")),
            ("server.bolt.listen_address=0.0.0.0:7688", Some("bolt://127.0.0.1:7688")),
            ("server.bolt.listen_address=[::]:7688", Some("bolt://[::1]:7688")),
            ("server.bolt.listen_address=10.0.0.1:1", Some("bolt://10.0.0.1:1")),
            ("server.default_listen_address=10.0.0.1", Some("bolt://10.0.0.1:7687")),
            ("server.bolt.tls_level=REQUIRED", Some("bolt+ssc://127.0.0.1:7687")),
            ("server.bolt.enabled=false", None),
            // Former names, and the other forms that Java's properties have.
            ("dbms.connector.bolt.listen_address = :7688", Some("bolt://127.0.0.1:7688")),
            ("server.bolt.listen_address : 10.0.0.1\\\n  :1", Some("bolt://10.0.0.1:1")),
            ("dbms.connector.bolt.enabled false", None),
            ("server.bolt.listen_address=:port", None),
        ];
        for (conf, address) in table {
            assert_eq!(bolt_address(&Neo4jConf::parse(conf)).as_deref(), address, "{conf}");
        }
    }
}
