//! A real Neo4j Community server, fetched once by `testing/neo4j/fetch.sh` and laid out as an official installation.
//!
//! There is no skipping: where Java or the jars cannot be had, the test fails and says so.

use neo4j_backup_agent::base::clock::wait_until;
use neo4j_backup_agent::base::ids::BackupKind;
use neo4j_backup_agent::driver::neo4j::Neo4jDriverSettings;
use neo4rs::{ConfigBuilder, Graph};
use serde_json::{Map, Value};
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// The version that is tested unless another one is named.
pub(crate) const VERSION: &str = "5.26.0";
/// The newest version that is tested; it needs Java 21 or later.
pub(crate) const NEWEST_VERSION: &str = "2026.08.1";

/// How a server is set up.
#[derive(Clone, Debug, Default)]
pub(crate) struct Neo4jOptions {
    /// Which release; absent = `VERSION`.
    pub(crate) version: Option<&'static str>,
    /// The password of user `neo4j`; absent = authentication off.
    pub(crate) password: Option<String>,
    /// More lines of `neo4j.conf`.
    pub(crate) settings: Vec<String>,
    /// Where the jars are.
    pub(crate) jars: Jars,
}

/// Where the jars of a home are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Jars {
    /// In the cache, which the home links to.
    #[default]
    Cached,
    /// A link for each, in a directory of the home's own: others can be laid beside them.
    Linked,
    /// In the home (as hard links where that goes): other accounts may not be able to enter the cache.
    Own,
}

/// A server in a home of its own. Dropping it kills whatever server runs in that home.
pub(crate) struct Neo4jServer {
    home: PathBuf,
    port: u16,
    password: Option<String>,
    password_file: Option<PathBuf>,
}

impl Neo4jServer {
    /// Lays out a home at `DIRECTORY/neo4j` without starting anything.
    pub(crate) fn lay_out(directory: &Path, options: &Neo4jOptions) -> Neo4jServer {
        let home = directory.join("neo4j");
        let jars = jars(options.version.unwrap_or(VERSION));
        script("make-home.sh", &[&jars, &home]);
        if options.jars != Jars::Cached {
            fs::remove_file(home.join("lib")).expect("unlinking lib");
            let copy = |how: &str| {
                let output = Command::new("cp").args([how, "-T"]).args([jars.join("lib"), home.join("lib")]).output();
                output.expect("cp").status.success()
            };
            let copied = if options.jars == Jars::Linked { copy("-as") } else { copy("-al") || copy("-a") };
            assert!(copied, "{}", jars.display());
        }
        let port = free_port();
        let conf = home.join("conf/neo4j.conf");
        let mut text = fs::read_to_string(&conf).expect("neo4j.conf");
        text += &format!("server.bolt.listen_address=127.0.0.1:{port}\nserver.http.enabled=false\n");
        if options.password.is_none() {
            text += "dbms.security.auth_enabled=false\n";
        }
        for line in &options.settings {
            // A server refuses a configuration that says something twice.
            let name = line.split('=').next().unwrap_or(line);
            text =
                text.lines().filter(|own| own.split('=').next() != Some(name)).map(|own| format!("{own}\n")).collect();
            text += line;
            text += "\n";
        }
        fs::write(&conf, text).expect("neo4j.conf");
        let password_file = options.password.as_ref().map(|password| {
            use std::os::unix::fs::PermissionsExt;
            succeed(Command::new(home.join("bin/neo4j-admin")).args(["dbms", "set-initial-password", password]));
            let path = directory.join("neo4j.password");
            fs::write(&path, format!("{password}\n")).expect("password file");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("chmod");
            path
        });
        Neo4jServer { home, port, password: options.password.clone(), password_file }
    }

    /// Lays out a home and starts the server; returns when it answers.
    pub(crate) fn start(directory: &Path, options: &Neo4jOptions) -> Neo4jServer {
        let server = Neo4jServer::lay_out(directory, options);
        server.start_again();
        server
    }

    /// Starts it (again); returns when it answers.
    pub(crate) fn start_again(&self) {
        let [program, arguments @ ..] = &self.start_command()[..] else { unreachable!() };
        succeed(Command::new(program).args(arguments));
        let ready =
            wait_until(Duration::from_secs(120), Duration::from_millis(50), || self.try_cypher("RETURN 1").is_ok());
        assert!(ready, "the server does not answer; its log:\n{}", self.log());
    }

    /// Stops it cleanly; returns when its process has ended.
    pub(crate) fn stop(&self) {
        let [program, arguments @ ..] = &self.stop_command()[..] else { unreachable!() };
        succeed(Command::new(program).args(arguments));
    }

    /// Kills its process, as a power cut would; returns when the kernel has closed its files.
    pub(crate) fn kill(&self) {
        if let Some(pid) = self.pid() {
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
            let gone = wait_until(Duration::from_secs(30), Duration::from_millis(5), || is_dead(pid));
            assert!(gone, "process {pid} does not die");
        }
    }

    /// The command that starts it, for a target's `start_command`.
    pub(crate) fn start_command(&self) -> Vec<String> {
        vec![self.program("neo4j"), "start".to_owned()]
    }

    /// The command that stops it, for a target's `stop_command`.
    pub(crate) fn stop_command(&self) -> Vec<String> {
        vec![self.program("neo4j"), "stop".to_owned()]
    }

    fn program(&self, name: &str) -> String {
        self.home.join("bin").join(name).display().to_string()
    }

    /// `NEO4J_HOME`.
    pub(crate) fn home(&self) -> &Path {
        &self.home
    }

    /// Its data directory, with `databases/` and `transactions/`.
    pub(crate) fn data(&self) -> PathBuf {
        self.home.join("data")
    }

    /// `bolt://127.0.0.1:PORT`
    pub(crate) fn bolt(&self) -> String {
        format!("bolt://127.0.0.1:{}", self.port)
    }

    /// The file that holds its password, if it asks for one.
    pub(crate) fn password_file(&self) -> Option<&Path> {
        self.password_file.as_deref()
    }

    /// Settings of a driver for this server.
    pub(crate) fn driver_settings(&self) -> Neo4jDriverSettings {
        Neo4jDriverSettings {
            home: self.home.clone(),
            conf: self.home.join("conf/neo4j.conf"),
            admin: self.home.join("bin/neo4j-admin"),
            server_command: self.home.join("bin/neo4j"),
            bolt: Some(self.bolt()),
            user: Some("neo4j".to_owned()),
            password_file: self.password_file.clone(),
            database: "neo4j".to_owned(),
            full: BackupKind::Dump,
            backup_servers: Vec::new(),
            artifacts: self.home.join("artifacts"),
        }
    }

    /// Runs one query in a transaction of its own and returns its rows.
    pub(crate) fn cypher(&self, query: &str) -> Vec<Map<String, Value>> {
        self.try_cypher(query).unwrap_or_else(|error| panic!("{query}: {error}"))
    }

    /// The single number that a query returns.
    pub(crate) fn number(&self, query: &str) -> u64 {
        let rows = self.cypher(query);
        rows.first().and_then(|row| row.values().next()).and_then(Value::as_u64).expect("a number")
    }

    /// Runs one query and tells what went wrong.
    pub(crate) fn try_cypher(&self, query: &str) -> Result<Vec<Map<String, Value>>, neo4rs::Error> {
        self.session()?.run(query)
    }

    /// A connection of its own for many queries.
    pub(crate) fn session(&self) -> Result<Session, neo4rs::Error> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
        let config = ConfigBuilder::default()
            .uri(self.bolt())
            .user("neo4j")
            .password(self.password.as_deref().unwrap_or_default())
            .db("neo4j")
            .max_connections(1)
            .build()?;
        let graph = runtime.block_on(async { Graph::connect(config) })?;
        Ok(Session { runtime, graph })
    }

    /// Fills it with people, cities and who knows whom: 1 000 nodes, 1 988 relationships, an index, a constraint and a
    /// full-text index.
    pub(crate) fn fill(&self) {
        self.cypher("CREATE INDEX person_id FOR (p:Person) ON (p.id)");
        self.cypher("CREATE CONSTRAINT FOR (c:City) REQUIRE c.name IS UNIQUE");
        self.cypher("CREATE FULLTEXT INDEX names FOR (n:Person|City) ON EACH [n.name]");
        self.cypher("UNWIND range(0, 9) AS i CREATE (:City {name: 'City ' + i})");
        self.cypher("UNWIND range(0, 989) AS i CREATE (:Person {id: i, name: 'Person ' + i, text: 'x' + (i * 7919)})");
        self.cypher("MATCH (p:Person), (c:City {name: 'City ' + (p.id % 10)}) CREATE (p)-[:LIVES_IN {since: 2000 + p.id % 20}]->(c)");
        self.cypher("MATCH (p:Person) WHERE p.id > 0 MATCH (q:Person {id: p.id - 1}) CREATE (p)-[:KNOWS]->(q)");
        self.cypher("MATCH (a:City {name: 'City 0'}) UNWIND range(1, 9) AS i MATCH (b:City {name: 'City ' + i}) CREATE (a)-[:NEAR]->(b)");
        self.cypher("CALL db.awaitIndexes(60)");
    }

    /// Its log, for messages.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.home.join("logs/neo4j.log")).unwrap_or_default()
    }

    /// The process that runs in this home.
    pub(crate) fn pid(&self) -> Option<i32> {
        let pid = fs::read_to_string(self.home.join("run/neo4j.pid")).ok()?.trim().parse().ok()?;
        let command = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let home = format!("--home-dir={}", self.home.display());
        String::from_utf8_lossy(&command).split('\0').any(|argument| argument == home).then_some(pid)
    }
}

impl Drop for Neo4jServer {
    fn drop(&mut self) {
        if let Some(pid) = self.pid() {
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
        }
    }
}

/// One connection to a server.
pub(crate) struct Session {
    runtime: tokio::runtime::Runtime,
    graph: Graph,
}

impl Session {
    /// Runs one query in a transaction of its own and returns its rows.
    pub(crate) fn run(&self, query: &str) -> Result<Vec<Map<String, Value>>, neo4rs::Error> {
        self.runtime.block_on(async {
            let mut transaction = self.graph.start_txn().await?;
            let mut stream = transaction.execute(query).await?;
            let mut rows = Vec::new();
            while let Some(row) = stream.next(transaction.handle()).await? {
                rows.push(row.to::<Map<String, Value>>()?);
            }
            transaction.commit().await?;
            Ok(rows)
        })
    }
}

/// Gone, or a zombie without threads: a process closes its files only with its last thread.
fn is_dead(pid: i32) -> bool {
    let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { return true };
    let threads = fs::read_dir(format!("/proc/{pid}/task")).map(Iterator::count).unwrap_or_default();
    threads <= 1 && stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with(['Z', 'X']))
}

/// The cached jars of a release; fetched by the first who asks.
fn jars(version: &str) -> PathBuf {
    PathBuf::from(script("fetch.sh", &[Path::new(version)]))
}

fn script(name: &str, arguments: &[&Path]) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("testing/neo4j").join(name);
    succeed(Command::new(path).args(arguments))
}

fn succeed(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}: {}\n{out}\n{err}", output.status);
    out.trim().to_owned()
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port").port()
}
