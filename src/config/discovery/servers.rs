//! Which database servers there are on a host: those of packages, those that units start, those that run, and those in
//! directories that somebody names. Files and `/proc` only; no server is asked.

use super::host::{Host, UNIT_DIRECTORIES};
use super::neo4j::{PACKAGE_CONF, PACKAGE_HOME, PACKAGE_UNIT};
use super::postgresql::CLUSTERS;
use super::postgresql_conf;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Numbers of accounts that people log in with, as systemd has them.
const LOGIN_ACCOUNTS: std::ops::RangeInclusive<u32> = 1000..=60_000;

/// Which program a server is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Engine {
    /// Neo4j.
    Neo4j,
    /// PostgreSQL.
    Postgresql,
}

impl Engine {
    /// As people call it.
    pub fn name(self) -> &'static str {
        match self {
            Engine::Neo4j => "Neo4j",
            Engine::Postgresql => "PostgreSQL",
        }
    }
}

/// A server on the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundServer {
    /// What it is.
    pub engine: Engine,
    /// Neo4j's home, or PostgreSQL's data directory.
    pub place: PathBuf,
    /// Debian's name of a PostgreSQL cluster: `15/main`.
    pub cluster: Option<String>,
    /// Neo4j's configuration, where a unit or the running server names another than the usual file.
    pub conf: Option<PathBuf>,
    /// The unit that starts it.
    pub unit: Option<String>,
    /// Where the running server's programs are.
    pub programs: Option<PathBuf>,
    /// Its first process.
    pub process: Option<u32>,
}

/// What there is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Survey {
    /// The servers, Neo4j's first, by their places.
    pub servers: Vec<FoundServer>,
    /// What was seen and left, a line each.
    pub out_of_reach: Vec<String>,
}

/// Looks at packages, units and processes.
pub fn survey(host: &Host<'_>) -> Survey {
    let mut found = Found::default();
    packages(host, &mut found);
    units(host, &mut found);
    processes(host, &mut found);
    Survey { servers: found.servers.into_values().collect(), out_of_reach: found.out_of_reach }
}

/// The server in a directory that somebody names; `None` if it is neither a home of Neo4j nor a data directory of
/// PostgreSQL. What [`survey`] knows of it comes along.
pub fn in_directory(host: &Host<'_>, place: &Path) -> Option<FoundServer> {
    let known = survey(host).servers.into_iter().find(|server| server.place == place);
    known.or_else(|| engine_in(host, place).map(|engine| bare(engine, place.to_owned())))
}

fn engine_in(host: &Host<'_>, place: &Path) -> Option<Engine> {
    if host.is_file(&place.join("PG_VERSION")) && host.is_directory(&place.join("global")) {
        return Some(Engine::Postgresql);
    }
    host.is_file(&place.join("conf/neo4j.conf")).then_some(Engine::Neo4j)
}

fn bare(engine: Engine, place: PathBuf) -> FoundServer {
    FoundServer { engine, place, cluster: None, conf: None, unit: None, programs: None, process: None }
}

#[derive(Default)]
struct Found {
    servers: BTreeMap<(Engine, PathBuf), FoundServer>,
    out_of_reach: Vec<String>,
}

impl Found {
    /// The same server is found in several ways, each of which may know more.
    fn add(&mut self, server: FoundServer) {
        let key = (server.engine, server.place.clone());
        let known = self.servers.entry(key).or_insert_with(|| bare(server.engine, server.place));
        known.cluster = known.cluster.take().or(server.cluster);
        known.conf = known.conf.take().or(server.conf);
        known.unit = known.unit.take().or(server.unit);
        known.programs = known.programs.take().or(server.programs);
        known.process = known.process.take().or(server.process);
    }
}

fn packages(host: &Host<'_>, found: &mut Found) {
    let home = PathBuf::from(PACKAGE_HOME);
    if host.is_directory(&home) && host.is_file(Path::new(PACKAGE_CONF)) {
        let unit = host.unit_file(PACKAGE_UNIT).map(|_| PACKAGE_UNIT.to_owned());
        found.add(FoundServer { unit, ..bare(Engine::Neo4j, home) });
    }
    for version in host.list(Path::new(CLUSTERS)) {
        for name in host.list(&Path::new(CLUSTERS).join(&version)) {
            let cluster = format!("{version}/{name}");
            let conf = Path::new(CLUSTERS).join(&cluster).join("postgresql.conf");
            if crate::config::text_rules::cluster(&cluster).is_err() || !host.is_file(&conf) {
                continue;
            }
            let said = postgresql_conf::postgresql(host, &conf).remove("data_directory").map(PathBuf::from);
            let place = said.unwrap_or_else(|| Path::new("/var/lib/postgresql").join(&cluster));
            let unit = format!("postgresql@{version}-{name}.service");
            let unit = host.unit_file(&unit).map(|_| unit);
            found.add(FoundServer { cluster: Some(cluster), unit, ..bare(Engine::Postgresql, place) });
        }
    }
    let versioned = host.list(Path::new("/var/lib/pgsql")).into_iter();
    let versioned = versioned.map(|name| Path::new("/var/lib/pgsql").join(name).join("data"));
    let places = ["/var/lib/pgsql/data", "/var/lib/postgresql/data"].map(PathBuf::from).into_iter().chain(versioned);
    for place in places.filter(|place| engine_in(host, place) == Some(Engine::Postgresql)) {
        found.add(bare(Engine::Postgresql, place));
    }
}

/// Units that start the `neo4j` of a home. PostgreSQL's are those of packages, or its processes'.
fn units(host: &Host<'_>, found: &mut Found) {
    for directory in UNIT_DIRECTORIES {
        for name in host.list(Path::new(directory)).into_iter().filter(|name| name.ends_with(".service")) {
            // The file that counts is the first of its name.
            let Some(path) = host.unit_file(&name).filter(|path| path.starts_with(directory)) else { continue };
            let text = host.read(&path).unwrap_or_default();
            if let Some(home) = home_of_unit(&text).filter(|home| engine_in(host, home) == Some(Engine::Neo4j)) {
                found.add(FoundServer { unit: Some(name), ..bare(Engine::Neo4j, home) });
            }
        }
    }
}

/// `ExecStart=/opt/neo4j/bin/neo4j console` or `Environment=NEO4J_HOME=/opt/neo4j`.
fn home_of_unit(text: &str) -> Option<PathBuf> {
    let mut home = None;
    let mut starts = false;
    for line in text.lines().map(str::trim) {
        if let Some(said) = line.strip_prefix("Environment=").and_then(|line| line.split_once("NEO4J_HOME=")) {
            let value = said.1.split(['"', ' ']).next().unwrap_or_default();
            home = Some(PathBuf::from(value));
        }
        if let Some(command) = line.strip_prefix("ExecStart=") {
            let program = command.trim_start_matches(['-', '@', ':', '+', '!']).split_whitespace().next();
            let program = Path::new(program.unwrap_or_default());
            if program.ends_with("bin/neo4j") {
                starts = true;
                home = home.or_else(|| program.parent().and_then(Path::parent).map(Path::to_owned));
            }
        }
    }
    home.filter(|home| starts && home.is_absolute())
}

fn processes(host: &Host<'_>, found: &mut Found) {
    // A unit with a private /tmp has a mount namespace of its own too; a container has its own processes.
    let own = host.link(Path::new("/proc/self/ns/pid"));
    let mut numbers: Vec<u32> = host.list(Path::new("/proc")).iter().filter_map(|name| name.parse().ok()).collect();
    numbers.sort_unstable();
    for number in numbers {
        let process = Path::new("/proc").join(number.to_string());
        let text = host.read(&process.join("cmdline")).unwrap_or_default();
        let words: Vec<&str> = text.split('\0').collect();
        let Some(server) = neo4j_process(&words).or_else(|| postgres_process(host, &process, &words)) else {
            continue;
        };
        let namespace = host.link(&process.join("ns/pid"));
        if namespace.is_some() && own.is_some() && namespace != own {
            let what = server.engine.name();
            found.out_of_reach.push(format!(
                "a {what} runs in a container of its own (process {number}, {} there): its paths are not this host's",
                server.place.display()
            ));
            continue;
        }
        if let Some(why) = not_to_be_believed(host.owner(&process), host.owner(&server.place)) {
            found.out_of_reach.push(format!(
                "process {number} says that it is a server in {0}: {why}; if it is one, `neo4j-backupctl init {0}` takes it in",
                server.place.display()
            ));
            continue;
        }
        let unit = host.read(&process.join("cgroup")).and_then(|text| unit_of_cgroup(&text));
        found.add(FoundServer { unit, process: Some(number), ..server });
    }
}

/// Anybody can call a process a server, and have root look at what it says. A server's account owns its directory, and is
/// nobody's who logs in.
fn not_to_be_believed(account: Option<u32>, place: Option<u32>) -> Option<&'static str> {
    match (account, place) {
        (Some(0), _) => None,
        (Some(account), _) if LOGIN_ACCOUNTS.contains(&account) => Some("it runs as somebody's own account"),
        (Some(account), Some(place)) if account == place => None,
        _ => Some("that directory is not its account's"),
    }
}

/// The server itself, not the launcher before it: it is given its home.
fn neo4j_process(words: &[&str]) -> Option<FoundServer> {
    let starts = |word: &str| word.starts_with("org.neo4j.server.") || word.starts_with("com.neo4j.server.");
    let at = words.iter().position(|word| starts(word))?;
    let value = |name: &str| words[at..].iter().find_map(|word| word.strip_prefix(name)).map(PathBuf::from);
    let home = value("--home-dir=").filter(|home| home.is_absolute())?;
    let usual = [home.join("conf"), PathBuf::from("/etc/neo4j")];
    let conf = value("--config-dir=").filter(|directory| directory.is_absolute() && !usual.contains(directory));
    let conf = conf.map(|directory| directory.join("neo4j.conf"));
    Some(FoundServer { conf, ..bare(Engine::Neo4j, home) })
}

/// The postmaster: its working directory is the data directory, whose `postmaster.pid` names it.
fn postgres_process(host: &Host<'_>, process: &Path, words: &[&str]) -> Option<FoundServer> {
    let program = Path::new(words.first()?).file_name()?;
    if program != "postgres" && program != "postmaster" {
        return None;
    }
    let place = host.link(&process.join("cwd"))?;
    // A container's files are not to be seen here; its own process number is another one.
    let outside = host.link(&process.join("ns/pid")) != host.link(Path::new("/proc/self/ns/pid"));
    let first = host.read(&place.join("postmaster.pid")).and_then(|text| text.lines().next().map(str::to_owned));
    let named = first.is_some_and(|line| process.file_name().is_some_and(|name| *name == *line.trim()));
    if !outside && !named {
        return None;
    }
    let programs = host.link(&process.join("exe")).and_then(|path| path.parent().map(Path::to_owned));
    Some(FoundServer { programs, ..bare(Engine::Postgresql, place) })
}

/// `0::/system.slice/neo4j.service` → `neo4j.service`; a login session and a container's manager have no unit of use.
fn unit_of_cgroup(text: &str) -> Option<String> {
    let path = text.lines().find_map(|line| line.strip_prefix("0::"))?;
    let unit = path.split('/').find(|part| part.ends_with(".service"))?;
    let other = unit.starts_with("user@") || unit.starts_with("docker") || unit.starts_with("containerd");
    (path.starts_with("/system.slice/") && !other).then(|| unit.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    struct Fake(tempfile::TempDir);

    impl Fake {
        fn new() -> Fake {
            let fake = Fake(tempfile::tempdir().expect("tempdir"));
            fake.link("/proc/self/ns/pid", "pid:[1]");
            fake
        }

        fn file(&self, path: &str, text: &str) -> &Fake {
            let path = self.0.path().join(&path[1..]);
            fs::create_dir_all(path.parent().expect("parent")).expect("mkdir");
            fs::write(path, text).expect("write");
            self
        }

        fn link(&self, path: &str, to: &str) -> &Fake {
            let path = self.0.path().join(&path[1..]);
            fs::create_dir_all(path.parent().expect("parent")).expect("mkdir");
            symlink(to, path).expect("link");
            self
        }

        fn survey(&self) -> Survey {
            survey(&Host::below(self.0.path()))
        }
    }

    fn places(survey: &Survey) -> Vec<&str> {
        survey.servers.iter().map(|server| server.place.to_str().expect("UTF-8")).collect()
    }

    #[test]
    fn an_empty_host_has_no_server() {
        assert_eq!(Fake::new().survey(), Survey::default());
    }

    #[test]
    fn packages_are_found_with_their_units() {
        let fake = Fake::new();
        fake.file("/var/lib/neo4j/x", "").file("/etc/neo4j/neo4j.conf", "");
        fake.file("/lib/systemd/system/neo4j.service", "[Service]\nExecStart=/usr/bin/neo4j console\n");
        fake.file("/etc/postgresql/15/main/postgresql.conf", "data_directory = '/srv/pg'\n");
        fake.file("/lib/systemd/system/postgresql@.service", "");
        let found = fake.survey();
        assert_eq!(places(&found), ["/var/lib/neo4j", "/srv/pg"]);
        let units: Vec<_> = found.servers.iter().map(|server| server.unit.as_deref()).collect();
        assert_eq!(units, [Some("neo4j.service"), Some("postgresql@15-main.service")]);
        assert_eq!(found.servers[1].cluster.as_deref(), Some("15/main"));
    }

    #[test]
    fn units_and_processes_tell_of_the_same_server_once() {
        let fake = Fake::new();
        fake.file("/opt/graph/conf/neo4j.conf", "");
        fake.file("/etc/systemd/system/g.service", "[Service]\nExecStart=/opt/graph/bin/neo4j console\n");
        let words = "java\0-cp\0x\0org.neo4j.server.Neo4jCommunity\0--home-dir=/opt/graph\0--config-dir=/srv/conf\0";
        fake.file("/proc/7/cmdline", words).file("/proc/7/cgroup", "0::/system.slice/g.service\n");
        fake.link("/proc/7/ns/pid", "pid:[1]");
        // Its launcher, and a shell that merely names it.
        fake.file("/proc/6/cmdline", "java\0org.neo4j.server.startup.Neo4jCommand\0console\0");
        fake.file("/proc/5/cmdline", "vi\0/opt/graph/conf/neo4j.conf\0");
        let found = fake.survey();
        assert_eq!(places(&found), ["/opt/graph"]);
        let server = &found.servers[0];
        assert_eq!((server.unit.as_deref(), server.process), (Some("g.service"), Some(7)));
        assert_eq!(server.conf.as_deref(), Some(Path::new("/srv/conf/neo4j.conf")));
    }

    #[test]
    fn a_postmaster_is_known_by_its_data_directory() {
        let fake = Fake::new();
        fake.file("/srv/data/postmaster.pid", "9\n/srv/data\n");
        for (number, command) in [("9", "/usr/pgsql-15/bin/postgres\0-D\0/srv/data\0"), ("10", "postgres: walwriter\0")]
        {
            fake.file(&format!("/proc/{number}/cmdline"), command);
            fake.link(&format!("/proc/{number}/ns/pid"), "pid:[1]").link(&format!("/proc/{number}/cwd"), "/srv/data");
            fake.link(&format!("/proc/{number}/exe"), "/usr/pgsql-15/bin/postgres");
        }
        let found = fake.survey();
        assert_eq!(places(&found), ["/srv/data"]);
        assert_eq!(found.servers[0].programs.as_deref(), Some(Path::new("/usr/pgsql-15/bin")));
        assert_eq!(found.servers[0].unit, None);
    }

    #[test]
    fn a_process_is_believed_only_where_its_directory_is_its_accounts() {
        let left = |account, place| not_to_be_believed(account, place).is_some();
        assert!(!left(Some(0), Some(7)) && !left(Some(110), Some(110)));
        assert!(left(Some(1000), Some(1000)), "somebody's own");
        assert!(left(Some(33), Some(110)), "another service");
        assert!(left(Some(33), None) && left(None, Some(33)));
    }

    #[test]
    fn what_runs_in_a_container_is_told_and_left() {
        let fake = Fake::new();
        fake.file("/proc/7/cmdline", "java\0org.neo4j.server.Neo4jCommunity\0--home-dir=/var/lib/neo4j\0");
        fake.link("/proc/7/ns/pid", "pid:[2]");
        fake.file("/proc/8/cmdline", "postgres\0").link("/proc/8/ns/pid", "pid:[2]");
        fake.link("/proc/8/cwd", "/var/lib/postgresql/data");
        let found = fake.survey();
        assert_eq!((found.servers.len(), found.out_of_reach.len()), (0, 2), "{found:?}");
    }

    #[test]
    fn a_named_directory_must_hold_a_server() {
        let fake = Fake::new();
        fake.file("/opt/graph/conf/neo4j.conf", "").file("/srv/data/PG_VERSION", "15\n").file("/srv/data/global/x", "");
        fake.file("/srv/PG_VERSION", "15\n");
        let host = Host::below(fake.0.path());
        let engine = |place: &str| in_directory(&host, Path::new(place)).map(|server| server.engine);
        assert_eq!(engine("/opt/graph"), Some(Engine::Neo4j));
        assert_eq!(engine("/srv/data"), Some(Engine::Postgresql));
        assert_eq!((engine("/srv"), engine("/nowhere")), (None, None));
    }

    #[test]
    fn only_units_of_the_system_are_named() {
        let table = [
            ("0::/system.slice/neo4j.service\n", Some("neo4j.service")),
            ("0::/system.slice/system-postgresql.slice/postgresql@15-main.service", Some("postgresql@15-main.service")),
            ("0::/user.slice/user-0.slice/user@0.service/app.slice/x.service", None),
            ("0::/user.slice/user-0.slice/session-1.scope", None),
            ("0::/system.slice/docker-0123.scope", None),
            ("", None),
        ];
        for (text, unit) in table {
            assert_eq!(unit_of_cgroup(text).as_deref(), unit, "{text}");
        }
    }
}
