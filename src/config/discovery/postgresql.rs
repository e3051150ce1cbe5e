//! PostgreSQL: clusters of Debian's tools below `/etc/postgresql`, the places of other packages and of container
//! images, or a data directory that is given.

use super::postgresql_conf::{self, ServerSettings};
use crate::config::kind;
use crate::config::settings::{PostgresFull, PostgresSettings, ServiceSettings};
use crate::config::targets::TargetReader;
use crate::config::value::Value;
use std::path::{Path, PathBuf};

/// Debian's configuration of clusters: `VERSION/NAME/postgresql.conf`.
pub const CLUSTERS: &str = "/etc/postgresql";
/// Where the packages of the distributions put the socket.
const SOCKETS: &str = "/var/run/postgresql";
/// Where a server without any configuration puts it.
const SOCKETS_BUILT_IN: &str = "/tmp";
const PORT: i64 = 5432;

/// A cluster as far as it is known.
#[derive(Default)]
struct Cluster {
    /// `15/main`.
    name: Option<String>,
    version: Option<String>,
    data: Option<(PathBuf, String)>,
    configuration: Option<(PathBuf, String)>,
    server: ServerSettings,
    server_file: PathBuf,
}

/// Everything about one PostgreSQL target; `None` if something needed cannot be made out, which was then reported.
pub fn settings(reader: &mut TargetReader<'_, '_>) -> Option<PostgresSettings> {
    let cluster = cluster(reader)?;
    let assumed = match (&cluster.name, &cluster.data) {
        (Some(name), None) => format!("/var/lib/postgresql/{name}"),
        _ => String::new(),
    };
    let data_directory = reader.path("data_directory", cluster.data.clone(), &assumed);
    let bin_directory = bin_directory(reader, &cluster)?;
    let config_directory = match (&cluster.configuration, reader.said("config_directory")) {
        (_, Some(said)) => {
            reader.r.warn_if_missing(&said);
            Some(said.path_buf())
        }
        (Some((path, how)), None) => {
            Some(reader.found("config_directory", Value::Text(path.display().to_string()), how).path_buf())
        }
        (None, None) => None,
    };
    let running = running(reader, &data_directory, &cluster);
    let service = service(reader, &cluster, &data_directory);
    let databases = reader.said("databases").map(|pick| kind::texts(&pick.value));
    let databases = databases.unwrap_or_else(|| {
        reader.assumed("databases", Value::List(Vec::new()));
        Vec::new()
    });
    let full = if reader.text("full") == "dump" { PostgresFull::Dump } else { PostgresFull::Base };
    let continuous = crate::config::duration::parse(&reader.text("continuous"));
    if let (PostgresFull::Dump, Some(_), Some(said)) = (full, continuous, reader.said("continuous")) {
        reader.r.wrong(&said, "needs base backups, from which the log goes on; `full = \"dump\"` takes none");
    }
    let wal_by_slot = reader.text("wal") == "slot";
    if let (PostgresFull::Dump, true, Some(said)) = (full, wal_by_slot, reader.said("wal")) {
        reader.r.wrong(&said, "needs base backups, from which the log goes on; `full = \"dump\"` takes none");
    }
    Some(PostgresSettings {
        host: host(reader, &cluster, &running),
        port: port(reader, &cluster, &running),
        user: reader.text("user"),
        plain_dumps: reader.text("dump_format") == "plain",
        full,
        continuous,
        wal_by_slot,
        data_directory,
        bin_directory,
        databases,
        service,
        cluster: cluster.name,
        config_directory,
    })
}

/// Which cluster is meant: the one that is named, the one of the data directory, or the only one there is.
fn cluster(reader: &mut TargetReader<'_, '_>) -> Option<Cluster> {
    let data = reader.said("data_directory").map(|pick| pick.path_buf());
    if let Some(said) = reader.said("cluster") {
        let name = said.text();
        let conf = Path::new(CLUSTERS).join(&name).join("postgresql.conf");
        if reader.r.host.missing(&conf) {
            reader.warn(format_args!("cluster {name} is not here: {} does not exist", conf.display()));
        }
        return Some(debian_cluster(reader, &name));
    }
    let clusters = debian_clusters(reader);
    if let Some(data) = data {
        let own = clusters.into_iter().find(|cluster| cluster.data.as_ref().is_some_and(|(path, _)| *path == data));
        return Some(own.inspect(|cluster| settle_cluster(reader, cluster, "its data directory")).unwrap_or_else(
            || {
                let how = "data_directory".to_owned();
                plain_cluster(reader, data, how)
            },
        ));
    }
    // A refused value is not missing.
    if ["cluster", "data_directory"].iter().any(|key| reader.r.was_given(&reader.key(key))) {
        return None;
    }
    let names = clusters.iter().filter_map(|cluster| cluster.name.clone()).collect::<Vec<_>>().join(", ");
    let mut clusters = clusters.into_iter();
    match (clusters.next(), clusters.next()) {
        (Some(only), None) => {
            settle_cluster(reader, &only, &format!("the only one below {CLUSTERS}"));
            Some(only)
        }
        (Some(_), Some(_)) => {
            reader.wrong(format_args!("there are several clusters here: {names}; say which: cluster = \"15/main\""));
            None
        }
        (None, _) => other_packages(reader),
    }
}

fn settle_cluster(reader: &mut TargetReader<'_, '_>, cluster: &Cluster, how: &str) {
    if let Some(name) = &cluster.name {
        reader.found("cluster", Value::Text(name.clone()), how);
    }
}

fn debian_clusters(reader: &TargetReader<'_, '_>) -> Vec<Cluster> {
    let host = reader.r.host;
    let of_version = |version: String| {
        let directory = Path::new(CLUSTERS).join(&version);
        host.list(&directory).into_iter().map(move |name| format!("{version}/{name}"))
    };
    let names = host.list(Path::new(CLUSTERS)).into_iter().flat_map(of_version);
    let is_cluster = |name: &String| {
        let conf = Path::new(CLUSTERS).join(name).join("postgresql.conf");
        crate::config::text_rules::cluster(name).is_ok() && host.is_file(&conf)
    };
    names.filter(is_cluster).map(|name| debian_cluster(reader, &name)).collect()
}

fn debian_cluster(reader: &TargetReader<'_, '_>, name: &str) -> Cluster {
    let host = reader.r.host;
    let directory = Path::new(CLUSTERS).join(name);
    let conf = directory.join("postgresql.conf");
    let mut server = postgresql_conf::postgresql(&host, &conf);
    let data = server.get("data_directory").filter(|path| path.starts_with('/'));
    let data = data.map(|path| (PathBuf::from(path), conf.display().to_string()));
    if let Some((path, _)) = &data {
        // ALTER SYSTEM writes here, and the server reads it last.
        server.extend(postgresql_conf::postgresql(&host, &path.join("postgresql.auto.conf")));
    }
    Cluster {
        name: Some(name.to_owned()),
        version: name.split_once('/').map(|(version, _)| version.to_owned()),
        data,
        configuration: Some((directory, format!("cluster {name}"))),
        server,
        server_file: conf,
    }
}

/// A cluster that is only its data directory.
fn plain_cluster(reader: &TargetReader<'_, '_>, data: PathBuf, how: String) -> Cluster {
    let host = reader.r.host;
    let conf = match reader.r.peek(&reader.key("config_directory")) {
        Some(directory) => Path::new(&directory).join("postgresql.conf"),
        None => data.join("postgresql.conf"),
    };
    let mut server = postgresql_conf::postgresql(&host, &conf);
    server.extend(postgresql_conf::postgresql(&host, &data.join("postgresql.auto.conf")));
    let version = host.read(&data.join("PG_VERSION")).map(|text| text.trim().to_owned());
    let version = version.filter(|text| text.bytes().all(|b| b.is_ascii_digit() || b == b'.') && !text.is_empty());
    Cluster { version, data: Some((data, how)), server, server_file: conf, ..Cluster::default() }
}

/// Red Hat's packages, PostgreSQL's own for it, and the container image.
fn other_packages(reader: &mut TargetReader<'_, '_>) -> Option<Cluster> {
    let host = reader.r.host;
    let versioned = host.list(Path::new("/var/lib/pgsql"));
    let versioned = versioned.into_iter().map(|name| Path::new("/var/lib/pgsql").join(name).join("data"));
    let fixed = ["/var/lib/pgsql/data", "/var/lib/postgresql/data"].map(PathBuf::from);
    let found = fixed.into_iter().chain(versioned).filter(|data| host.is_file(&data.join("PG_VERSION")));
    let found: Vec<PathBuf> = found.collect();
    match found.as_slice() {
        [only] => Some(plain_cluster(reader, only.clone(), "the package's directory".to_owned())),
        [] => {
            reader.wrong(format_args!(
                "no cluster was found below {CLUSTERS}, /var/lib/pgsql and /var/lib/postgresql/data; say where it is: \
                 data_directory = \"…\", or cluster = \"15/main\""
            ));
            None
        }
        several => {
            let names = several.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ");
            reader.wrong(format_args!("there are several clusters here: {names}; say which: data_directory = \"…\""));
            None
        }
    }
}

fn bin_directory(reader: &mut TargetReader<'_, '_>, cluster: &Cluster) -> Option<PathBuf> {
    if let Some(said) = reader.said("bin_directory") {
        reader.r.warn_if_missing(&said);
        return Some(said.path_buf());
    }
    if reader.r.was_given(&reader.key("bin_directory")) {
        return None;
    }
    let host = reader.r.host;
    let has_server = |directory: &PathBuf| host.is_file(&directory.join("postgres"));
    let debian = |version: &str| Path::new("/usr/lib/postgresql").join(version).join("bin");
    let known = cluster.version.as_deref().map(|version| {
        let red_hat = PathBuf::from(format!("/usr/pgsql-{version}/bin"));
        vec![debian(version), red_hat, "/usr/bin".into(), "/usr/local/bin".into()]
    });
    let installed = || host.list(Path::new("/usr/lib/postgresql")).iter().map(|version| debian(version)).collect();
    let found: Vec<PathBuf> = known.clone().unwrap_or_else(installed).into_iter().filter(has_server).collect();
    match (found.as_slice(), &cluster.version, &cluster.name) {
        // With a version, the first place wins; without one, only a single installation can be meant.
        ([first, ..], Some(version), _) => {
            let how = format!("version {version} of the cluster");
            Some(reader.found("bin_directory", Value::Text(first.display().to_string()), how).path_buf())
        }
        ([only], None, _) => {
            let how = "the only version installed".to_owned();
            Some(reader.found("bin_directory", Value::Text(only.display().to_string()), how).path_buf())
        }
        ([], Some(version), Some(_)) => {
            Some(reader.path("bin_directory", None, &debian(version).display().to_string()))
        }
        _ => {
            let version = cluster.version.as_deref().map(|version| format!(" of version {version}"));
            let version = version.unwrap_or_else(|| ", and the data directory tells no version".to_owned());
            reader.wrong(format_args!("no server programs{version}; say where they are: bin_directory = \"…\""));
            None
        }
    }
}

/// What `postmaster.pid` says of a running server: the port, and the socket's directory.
#[derive(Default)]
struct Running {
    port: Option<i64>,
    sockets: Option<String>,
    file: PathBuf,
}

/// For a Debian cluster its configuration is enough; a bare data directory may be served with options of the command
/// line that only the running server tells. The lines: pid, data directory, start, port, socket directory, address.
fn running(reader: &TargetReader<'_, '_>, data: &Path, cluster: &Cluster) -> Running {
    let file = data.join("postmaster.pid");
    if cluster.name.is_some() {
        return Running::default();
    }
    let text = reader.r.host.read(&file).unwrap_or_default();
    let line = |index: usize| text.lines().nth(index).map(str::trim).filter(|line| !line.is_empty());
    Running {
        port: line(3).and_then(|port| port.parse().ok()).filter(|port| (1..=65_535).contains(port)),
        sockets: line(4).filter(|path| path.starts_with('/')).map(str::to_owned),
        file,
    }
}

fn host(reader: &mut TargetReader<'_, '_>, cluster: &Cluster, running: &Running) -> String {
    if let Some(said) = reader.said("host") {
        return said.text();
    }
    let file = cluster.server_file.display();
    let configured = cluster.server.get("unix_socket_directories").map(|list| {
        list.split(',').map(|item| item.trim().trim_matches('"').to_owned()).find(|item| item.starts_with('/'))
    });
    match (&running.sockets, configured) {
        (Some(directory), _) => {
            reader.found("host", Value::Text(directory.clone()), running.file.display().to_string()).text()
        }
        (None, Some(Some(directory))) => reader.found("host", Value::Text(directory), file.to_string()).text(),
        // Sockets are switched off.
        (None, Some(None)) => reader.found("host", Value::Text("localhost".to_owned()), file.to_string()).text(),
        (None, None) => {
            let packaged = cluster.name.is_some() || !reader.r.host.missing(Path::new(SOCKETS));
            let directory = if packaged { SOCKETS } else { SOCKETS_BUILT_IN };
            reader.assumed("host", Value::Text(directory.to_owned())).text()
        }
    }
}

fn port(reader: &mut TargetReader<'_, '_>, cluster: &Cluster, running: &Running) -> u16 {
    let configured =
        || cluster.server.get("port").and_then(|port| port.parse().ok()).filter(|p| (1..=65_535).contains(p));
    let pick = match (reader.said("port"), running.port, configured()) {
        (Some(said), _, _) => said,
        (None, Some(port), _) => reader.found("port", Value::Integer(port), running.file.display().to_string()),
        (None, None, Some(port)) => {
            reader.found("port", Value::Integer(port), cluster.server_file.display().to_string())
        }
        (None, None, None) => reader.assumed("port", Value::Integer(PORT)),
    };
    pick.integer()
}

/// The unit of the package. A bare data directory belongs to a unit only where the package put that directory.
fn service(reader: &mut TargetReader<'_, '_>, cluster: &Cluster, data: &Path) -> ServiceSettings {
    let version = cluster.version.as_deref().unwrap_or_default();
    let candidates = match &cluster.name {
        Some(name) => vec![format!("postgresql@{}.service", name.replace('/', "-"))],
        None if data == Path::new("/var/lib/pgsql/data") => vec!["postgresql.service".to_owned()],
        None if data == Path::new("/var/lib/pgsql").join(version).join("data") => {
            vec![format!("postgresql-{version}.service")]
        }
        None => Vec::new(),
    };
    let with_file = |unit: String| reader.r.host.unit_file(&unit).map(|file| (unit, file));
    let found = candidates.into_iter().find_map(with_file);
    reader.service(found.map(|(unit, file)| (unit, format!("unit file {}", file.display()))))
}
