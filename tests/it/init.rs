//! From an installed program to the first verified backup: `init` and `setup` on real servers.

use crate::servers::neo4j::{Neo4jOptions, Neo4jServer};
use crate::servers::postgres::{PostgresOptions, PostgresServer};
use crate::site::{BACKUPD, content};
use serde_json::Value;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// A host with nothing configured but where things may be.
struct Host {
    place: tempfile::TempDir,
}

impl Host {
    fn new() -> Host {
        let place = tempfile::tempdir().expect("tempdir");
        fs::set_permissions(place.path(), fs::Permissions::from_mode(0o755)).expect("chmod");
        let host = Host { place };
        fs::create_dir(host.path("etc")).expect("etc");
        let root = host.place.path().display().to_string();
        let text = format!(
            "state_directory = \"{root}/state\"\n[preflight]\nminimum_free_percent = 0\n\
             [encryption]\npassphrase_file = \"{root}/etc/keys/current\"\n"
        );
        fs::write(host.path("etc/config.toml"), text).expect("configuration");
        host
    }

    fn path(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(BACKUPD);
        command.arg("--config").arg(self.path("etc/config.toml")).arg("run").args(arguments);
        command.stdin(Stdio::null()).output().expect("neo4j-backupd starts")
    }

    /// The answer of a command that must end with `status`.
    fn json(&self, status: i32, arguments: &[&str]) -> Value {
        let output = self.run(&[&["--json=short"], arguments].concat());
        let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert_eq!(output.status.code(), Some(status), "{arguments:?}: {said}");
        serde_json::from_slice(&output.stdout).unwrap_or_else(|cause| panic!("{cause}: {said}"))
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

/// A cluster that lets an account be the role of its name and nobody else, as Debian's do.
fn strict_cluster(host: &Host, settings: &[&str]) -> PostgresServer {
    let settings = settings.iter().map(ToString::to_string).collect();
    let server = PostgresServer::start(&host.path("srv"), &PostgresOptions { settings, ..PostgresOptions::default() });
    server.sql("CREATE DATABASE shop");
    server.sql_in("shop", "CREATE TABLE sale (id int PRIMARY KEY); INSERT INTO sale SELECT generate_series(1, 1000)");
    let rules = "# rules of the house\nlocal all postgres peer\nlocal all all peer\nlocal replication all peer\n";
    fs::write(server.data.join("pg_hba.conf"), rules).expect("rules");
    server.sql("SELECT pg_reload_conf()");
    server
}

fn statements(answer: &Value) -> Vec<String> {
    let steps = answer["steps"].as_array().expect("steps").iter();
    steps.map(|step| step["statement"].as_str().expect("a statement").to_owned()).collect()
}

// req: K1
#[test]
fn a_postgresql_that_was_never_heard_of_is_backed_up_after_one_command() {
    let host = Host::new();
    let server = strict_cluster(&host, &["archive_mode = on"]);
    let (data, repository) = (text(&server.data).to_owned(), host.path("backups"));
    let before = (content(&host.path("etc")), content(&server.data.join("pg_hba.conf").with_file_name("global")));

    // A dry run shows everything and does nothing.
    let shown = host.json(0, &["init", &data, "--repository", text(&repository), "--dry-run"]);
    assert_eq!(shown["files"].as_array().map(Vec::len), Some(2), "{shown}");
    let steps = shown["targets"][0]["setup"].to_string();
    for wanted in ["CREATE ROLE", "pg_hba.conf", "pg_ident.conf", "wal push postgresql %p"] {
        assert!(steps.contains(wanted), "{wanted} in {steps}");
    }
    assert_eq!(content(&host.path("etc")), before.0);
    assert!(!host.path("state/ledger.db").exists() && !repository.exists());
    assert_eq!(server.sql("SELECT count(*) FROM pg_roles WHERE rolname = 'neo4j-backup'"), "0");

    // Nobody agreed, so nothing happens.
    let refused = host.run(&["init", &data]);
    assert_eq!(refused.status.code(), Some(4), "{}", String::from_utf8_lossy(&refused.stderr));
    assert_eq!(content(&host.path("etc")), before.0);

    let owner = fs::metadata(server.data.join("pg_hba.conf")).expect("rules");
    let done = host.json(0, &["init", &data, "--repository", text(&repository), "--yes"]);
    let target = &done["targets"][0];
    assert_eq!((&target["target"], &target["verified"]), (&Value::from("postgresql"), &Value::from(true)), "{done}");
    assert!(target["setup"].as_array().expect("steps").iter().all(|step| step["done"] == true), "{target}");
    let after = fs::metadata(server.data.join("pg_hba.conf")).expect("rules");
    assert_eq!((after.uid(), after.mode()), (owner.uid(), owner.mode()));
    let rules = fs::read_to_string(server.data.join("pg_hba.conf")).expect("rules");
    assert!(
        rules.ends_with(
            "# rules of the house\nlocal all postgres peer\nlocal all all peer\nlocal replication all peer\n"
        )
    );
    let key = fs::metadata(host.path("etc/keys/current")).expect("key");
    assert_eq!(key.mode() & 0o777, 0o600);
    assert!(!done.to_string().contains(fs::read_to_string(host.path("etc/keys/current")).expect("key").trim()));

    // Everything that the doctor of a server asks for is there, and it can be restored.
    let check = host.json(0, &["check"]);
    assert!(!check.to_string().contains("role-"), "{check}");
    let copy = host.path("copy");
    let restored = host.json(0, &["restore", "postgresql", "--into", text(&copy)]);
    assert!(copy.join("PG_VERSION").exists(), "{restored}");

    // Again: nothing is left to do, neither here nor at the server.
    let etc = content(&host.path("etc"));
    let again = host.json(0, &["init", &data, "--yes"]);
    assert_eq!(again["targets"].as_array().map(Vec::len), Some(0), "{again}");
    assert_eq!(content(&host.path("etc")), etc);
    let setup = host.json(0, &["setup", "postgresql", "--yes"]);
    assert_eq!(statements(&setup), Vec::<String>::new());
}

#[test]
fn what_a_server_lacks_is_shown_and_left_if_nobody_wants_it_done() {
    let host = Host::new();
    let server = strict_cluster(&host, &["wal_level = minimal", "max_wal_senders = 0"]);
    let done = host.json(3, &["init", text(&server.data), "--yes", "--no-setup"]);
    let target = &done["targets"][0];
    assert_eq!(target["verified"], false, "{done}");
    // The doctor knows what mends it.
    assert_eq!(target["error"]["code"], "POSTGRES_UNREACHABLE", "{done}");
    assert!(target["error"]["hint"].as_str().is_some_and(|hint| hint.contains("pg_hba.conf")), "{done}");
    let rules = fs::read_to_string(server.data.join("pg_hba.conf")).expect("rules");
    assert!(rules.starts_with("# rules of the house"), "{rules}");
    let shown = host.json(0, &["setup", "postgresql", "--dry-run"]);
    let wanted = ["SET wal_level", "SET max_wal_senders", "SET archive_mode", "systemctl restart"];
    let said = statements(&shown).join("\n");
    assert!(wanted.iter().all(|word| said.contains(word)), "{said}");
    assert_eq!(shown, host.json(0, &["setup", "postgresql", "--dry-run"]));
    assert_eq!(host.run(&["setup", "postgresql"]).status.code(), Some(4));

    // With the restart that is a person's to do, the next `init` goes on.
    host.json(0, &["setup", "postgresql", "--yes"]);
    assert_eq!(statements(&host.json(0, &["setup", "postgresql", "--dry-run"])), ["systemctl restart postgresql"]);
    let settings = fs::read_to_string(server.data.join("postgresql.conf")).expect("settings");
    let without =
        settings.lines().filter(|line| !line.starts_with("wal_level") && !line.starts_with("max_wal_senders"));
    fs::write(server.data.join("postgresql.conf"), without.collect::<Vec<_>>().join("\n") + "\n").expect("settings");
    server.stop();
    server.run();
    let done = host.json(0, &["init", text(&server.data), "--yes"]);
    assert_eq!(done["targets"][0]["verified"], true, "{done}");
    assert_eq!(server.sql("SHOW archive_mode"), "on");
}

#[test]
fn another_tools_archiving_is_left_alone() {
    let host = Host::new();
    let command = "archive_command = 'test ! -f /nowhere/%f && cp %p /nowhere/%f'";
    let server = strict_cluster(&host, &["archive_mode = on", command]);
    let done = host.json(0, &["init", text(&server.data), "--yes"]);
    let steps = done["targets"][0]["setup"].to_string();
    assert!(steps.contains("wal = \\\"slot\\\" in [target.postgresql]"), "{steps}");
    assert!(server.sql("SHOW archive_command").contains("/nowhere/"));
    assert_eq!(done["targets"][0]["verified"], true, "{done}");
}

// req: K1
#[test]
fn a_neo4j_is_backed_up_while_it_runs_after_one_command() {
    let host = Host::new();
    fs::create_dir(host.path("graph")).expect("graph");
    let password = Some("only tests know it".to_owned());
    let server = Neo4jServer::start(&host.path("graph"), &Neo4jOptions { password, ..Neo4jOptions::default() });
    // Nobody types it here, but it may lie where it is looked for.
    fs::copy(server.password_file().expect("password"), host.path("etc/neo4j.password")).expect("copy");
    let home = text(server.home()).to_owned();
    let done = host.json(0, &["init", &home, "--yes", "--repository", text(&host.path("backups"))]);
    let target = &done["targets"][0];
    assert_eq!((&target["target"], &target["verified"]), (&Value::from("neo4j"), &Value::from(true)), "{done}");
    assert!(target["backup"].as_str().is_some_and(|id| id.ends_with("-base")), "{done}");
    assert!(!done.to_string().contains("password-missing") && !done.to_string().contains("only tests know"), "{done}");
    let listed = host.json(0, &["list"]);
    assert_eq!(listed["backups"].as_array().map(Vec::len), Some(1), "{listed}");
    // A server that is found by its process is the same one.
    let again = host.json(0, &["init", &home, "--yes"]);
    assert_eq!(again["targets"].as_array().map(Vec::len), Some(0), "{again}");
}

#[test]
fn what_cannot_be_begun_is_said_and_writes_nothing() {
    let host = Host::new();
    let before = content(&host.path("etc"));
    fs::create_dir(host.path("empty")).expect("empty");
    fs::create_dir_all(host.path("home/conf")).expect("home");
    fs::write(host.path("home/conf/neo4j.conf"), "dbms.security.auth_enabled=false\n").expect("conf");
    let (empty, home) = (host.path("empty"), host.path("home"));
    let table: &[(&[&str], i32, &str)] = &[
        (&["init", "/nowhere", "--yes"], 1, "/nowhere"),
        (&["init", text(&empty), "--yes"], 2, "neither a home of Neo4j nor a data directory"),
        (&["init", text(&home), "--yes", "--repository", "backups"], 2, "neither an absolute path nor an s3://"),
        (&["init", text(&home), "--yes", "--repository", "s3://"], 78, "repository"),
        (&["init", text(&home), "--repository", "/backups"], 4, "--yes"),
        (&["setup", "nothing"], 2, "there is no target nothing"),
    ];
    for (arguments, status, said) in table {
        let output = host.run(arguments);
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(*status), "{arguments:?}: {told}");
        assert!(told.contains(said), "{arguments:?}: {told}");
        assert_eq!(content(&host.path("etc")), before, "{arguments:?}");
    }
    // A file that somebody else put there keeps its words.
    fs::create_dir(host.path("etc/config.d")).expect("config.d");
    fs::write(host.path("etc/config.d/repository.toml"), "# mine\n").expect("file");
    let output = host.run(&["init", text(&home), "--yes", "--repository", "/backups"]);
    assert_eq!(output.status.code(), Some(4), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(fs::read_to_string(host.path("etc/config.d/repository.toml")).expect("file"), "# mine\n");
    // Nor is a configuration that is wrong gone on with.
    fs::write(host.path("etc/config.d/repository.toml"), "[nonsense]\n").expect("file");
    assert_eq!(host.run(&["init", text(&home), "--yes"]).status.code(), Some(78));
}
