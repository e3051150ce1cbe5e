//! What is found on hosts where the configuration leaves it out.

use super::{FakeHost, name, path};
use crate::config::settings::*;
use crate::config::{check_secrets, value::Origin};
use std::time::Duration;

const BOTH: &str = "[target.graph]\nkind = 'neo4j'\n[target.metrics]\nkind = 'postgresql'\n";

fn neo4j(settings: &Settings, target: &str) -> Neo4jSettings {
    match &settings.targets[&name(target)].database {
        DatabaseSettings::Neo4j(neo4j) => neo4j.clone(),
        other => panic!("{other:?}"),
    }
}

fn postgres(settings: &Settings, target: &str) -> PostgresSettings {
    match &settings.targets[&name(target)].database {
        DatabaseSettings::Postgresql(postgres) => postgres.clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_short_form_is_completed_on_a_debian_host() {
    let host = FakeHost::with(BOTH);
    host.install_neo4j().install_cluster("15", "main", 5433);
    let settings = host.settings();
    let repositories = &settings.repositories;
    assert_eq!(repositories.len(), 1);
    let expected = RepositorySettings::Local { path: path("/var/lib/neo4j-backup/repository") };
    assert_eq!(repositories["main"], expected);
    assert_eq!(
        neo4j(&settings, "graph"),
        Neo4jSettings {
            home: path("/var/lib/neo4j"),
            conf: path("/etc/neo4j/neo4j.conf"),
            admin: path("/usr/bin/neo4j-admin"),
            server_command: Some(path("/usr/bin/neo4j")),
            service: ServiceSettings::Unit("neo4j.service".into()),
            bolt: Some("bolt://127.0.0.1:7688".into()),
            user: None,
            password_file: None,
            database: "movies".into(),
            backup_servers: Vec::new(),
            full: Neo4jFull::Online,
            continuous: None,
        }
    );
    assert_eq!(
        postgres(&settings, "metrics"),
        PostgresSettings {
            data_directory: path("/var/lib/postgresql/15/main"),
            bin_directory: path("/usr/lib/postgresql/15/bin"),
            host: "/var/run/postgresql".into(),
            port: 5433,
            user: "neo4j-backup".into(),
            databases: Vec::new(),
            service: ServiceSettings::Unit("postgresql@15-main.service".into()),
            full: PostgresFull::Base,
            plain_dumps: false,
            continuous: None,
            wal_by_slot: false,
            cluster: Some("15/main".into()),
            config_directory: Some(path("/etc/postgresql/15/main")),
        }
    );
    let graph = &settings.targets[&name("graph")];
    assert_eq!(graph.repositories, ["main"]);
    assert_eq!(graph.encryption.passphrase, SecretSource::File(path("/etc/neo4j-backup/keys/current")));
    assert_eq!(graph.compression, CompressionSettings { algorithm: CompressionAlgorithm::Zstd, level: 3 });
    assert_eq!(graph.limits.set_aside_keep, Duration::from_secs(7 * 86_400));
    assert_eq!(graph.preflight.minimum_free_percent, 20);
}

#[test]
fn nothing_installed_is_no_error_for_neo4j_and_says_what_was_looked_for() {
    let loaded = FakeHost::with("[target.graph]\nkind = 'neo4j'\n").load();
    assert_eq!(
        loaded.warnings,
        [
            "target.graph.home: /var/lib/neo4j does not exist (default)",
            "target.graph.conf: /etc/neo4j/neo4j.conf does not exist (default)",
            "target.graph.admin: /usr/bin/neo4j-admin does not exist (default)",
            "target.graph: counts stay unchecked: /etc/neo4j/neo4j.conf cannot be read and bolt is not set",
        ]
    );
    assert_eq!(neo4j(&loaded.settings, "graph").service, ServiceSettings::Unmanaged);
}

#[test]
fn a_tarball_is_completed_from_its_home_and_leaves_the_package_alone() {
    let host = FakeHost::with("[target.graph]\nkind = 'neo4j'\nhome = '/opt/neo4j'\n");
    host.install_neo4j()
        .file("/opt/neo4j/conf/neo4j.conf", "server.bolt.listen_address=127.0.0.1:9999\n")
        .file("/opt/neo4j/bin/neo4j-admin", "")
        .file("/opt/neo4j/bin/neo4j", "");
    let found = neo4j(&host.settings(), "graph");
    assert_eq!(found.conf, path("/opt/neo4j/conf/neo4j.conf"));
    assert_eq!(found.admin, path("/opt/neo4j/bin/neo4j-admin"));
    assert_eq!(found.server_command, Some(path("/opt/neo4j/bin/neo4j")));
    assert_eq!(found.bolt.as_deref(), Some("bolt://127.0.0.1:9999"));
    assert_eq!(found.database, "neo4j");
    // The package's unit would stop another server.
    assert_eq!(found.service, ServiceSettings::Unmanaged);
    host.file("/etc/systemd/system/neo4j.service", "[Service]\nExecStart=/opt/neo4j/bin/neo4j console\n");
    assert_eq!(neo4j(&host.settings(), "graph").service, ServiceSettings::Unit("neo4j.service".into()));
}

#[test]
fn several_clusters_must_be_told_apart() {
    let host = FakeHost::with("[target.metrics]\nkind = 'postgresql'\n");
    host.install_cluster("15", "main", 5432).install_cluster("16", "main", 5433);
    assert_eq!(
        host.problems(),
        ["/etc/neo4j-backup/config.toml:1: target.metrics: there are several clusters here: 15/main, 16/main; \
          say which: cluster = \"15/main\""]
    );
    host.file("/etc/neo4j-backup/config.toml", "[target.metrics]\nkind = 'postgresql'\ncluster = '16/main'\n");
    assert_eq!(postgres(&host.settings(), "metrics").port, 5433);
    let by_data = "[target.metrics]\nkind = 'postgresql'\ndata_directory = '/var/lib/postgresql/16/main'\n";
    host.file("/etc/neo4j-backup/config.toml", by_data);
    assert_eq!(postgres(&host.settings(), "metrics").cluster.as_deref(), Some("16/main"));
}

#[test]
fn no_cluster_at_all_says_what_to_set() {
    assert_eq!(
        FakeHost::with("\n[target.metrics]\nkind = 'postgresql'\n").problems(),
        ["/etc/neo4j-backup/config.toml:2: target.metrics: no cluster was found below /etc/postgresql, \
          /var/lib/pgsql and /var/lib/postgresql/data; say where it is: data_directory = \"…\", or cluster = \"15/main\""]
    );
    let host = FakeHost::with("[target.metrics]\nkind = 'postgresql'\ndata_directory = '/srv/pg'\n");
    assert_eq!(
        host.problems(),
        ["/etc/neo4j-backup/config.toml:1: target.metrics: no server programs, and the data directory tells no \
          version; say where they are: bin_directory = \"…\""]
    );
}

#[test]
fn a_named_cluster_that_is_not_here_is_a_warning() {
    let loaded = FakeHost::with("[target.metrics]\nkind = 'postgresql'\ncluster = '15/main'\n").load();
    assert_eq!(
        loaded.warnings,
        [
            "target.metrics: cluster 15/main is not here: /etc/postgresql/15/main/postgresql.conf does not exist",
            "target.metrics.data_directory: /var/lib/postgresql/15/main does not exist (default)",
            "target.metrics.bin_directory: /usr/lib/postgresql/15/bin does not exist (default)",
        ]
    );
    assert_eq!(postgres(&loaded.settings, "metrics").port, 5432);
}

#[test]
fn a_bare_data_directory_is_asked_and_its_running_server_first() {
    let host = FakeHost::with("[target.metrics]\nkind = 'postgresql'\ndata_directory = '/srv/pg'\n");
    host.file("/srv/pg/PG_VERSION", "15\n")
        .file("/srv/pg/postgresql.conf", "port = 1111\nunix_socket_directories = '/srv/sockets, /tmp'\n")
        .file("/usr/lib/postgresql/15/bin/postgres", "");
    let found = postgres(&host.settings(), "metrics");
    assert_eq!((found.port, found.host.as_str()), (1111, "/srv/sockets"));
    assert_eq!((found.cluster, found.config_directory), (None, None));
    assert_eq!(found.service, ServiceSettings::Unmanaged);
    host.file("/srv/pg/postgresql.auto.conf", "port = '2222'\n");
    assert_eq!(postgres(&host.settings(), "metrics").port, 2222);
    host.file("/srv/pg/postmaster.pid", "4711\n/srv/pg\n1763600000\n3333\n/run/pg\n\n  1 2\nready\n");
    let found = postgres(&host.settings(), "metrics");
    assert_eq!((found.port, found.host.as_str()), (3333, "/run/pg"));
}

#[test]
fn other_packages_and_images_are_found() {
    let host = FakeHost::with("[target.metrics]\nkind = 'postgresql'\n");
    host.file("/var/lib/pgsql/16/data/PG_VERSION", "16\n")
        .file("/usr/pgsql-16/bin/postgres", "")
        .file("/usr/lib/systemd/system/postgresql-16.service", "");
    let found = postgres(&host.settings(), "metrics");
    assert_eq!(found.bin_directory, path("/usr/pgsql-16/bin"));
    assert_eq!(found.service, ServiceSettings::Unit("postgresql-16.service".into()));
    assert_eq!(found.host, "/tmp");
}

#[test]
fn what_is_said_is_never_replaced_by_what_is_found() {
    let host = FakeHost::with(
        "[target.graph]\nkind = 'neo4j'\nbolt = 'off'\nunit = 'none'\ndatabase = 'other'\nadmin = '/opt/admin'\n\
         password_file = '/p'\ncontinuous = '5s'\nfull = 'dump'\n",
    );
    host.install_neo4j();
    let found = neo4j(&host.settings(), "graph");
    assert_eq!((found.bolt, found.service), (None, ServiceSettings::Unmanaged));
    assert_eq!((found.database.as_str(), found.admin), ("other", path("/opt/admin")));
    assert_eq!((found.user.as_deref(), found.password_file), (Some("neo4j"), Some(path("/p"))));
    assert_eq!((found.continuous, found.full), (Some(Duration::from_secs(5)), Neo4jFull::Dump));
}

#[test]
fn commands_are_split_without_a_shell() {
    let host = FakeHost::with(
        "[target.graph]\nkind = 'neo4j'\nstop_command = \"/bin/ctl stop 'a b'\"\nstart_command = ['/bin/ctl', '$x']\n",
    );
    let stop = vec!["/bin/ctl".into(), "stop".into(), "a b".into()];
    let start = vec!["/bin/ctl".into(), "$x".into()];
    assert_eq!(neo4j(&host.settings(), "graph").service, ServiceSettings::Commands { stop, start });
}

#[test]
fn shared_tables_are_overridden_key_by_key_below_a_target() {
    let host = FakeHost::with(
        "[retention]\ndaily = 10\nweekly = 2\n[compression]\nlevel = 7\n[target.a]\nkind = 'sim'\ndirectory = '/a'\n\
         [target.a.retention]\ndaily = 30\n[target.b]\nkind = 'sim'\ndirectory = '/b'\n\
         [target.b.compression]\nalgorithm = 'gzip'\n[target.b.alerts.ping]\nurl = 'https://h/x'\n",
    );
    let settings = host.settings();
    let (a, b) = (&settings.targets[&name("a")], &settings.targets[&name("b")]);
    assert_eq!((a.retention.daily, a.retention.weekly, a.retention.monthly), (30, 2, 3));
    assert_eq!((b.retention.daily, b.retention.weekly), (10, 2));
    assert_eq!(b.compression, CompressionSettings { algorithm: CompressionAlgorithm::Gzip, level: 7 });
    assert_eq!((a.alerts.ping.clone(), b.alerts.ping.clone()), (None, Some(UrlSource::Plain("https://h/x".into()))));
    assert_eq!(a.database, DatabaseSettings::Sim(SimSettings { directory: path("/a"), continuous: None }));
}

#[test]
fn repositories_are_read_from_keys_and_urls() {
    let host = FakeHost::with(
        "[repository.a]\npath = '/backup'\n[repository.b]\nurl = 'file:///other'\n\
         [repository.c]\nurl = 's3://db-backups/x/%H/?region=eu-central-1&path_style=true&endpoint=https://s3.example.net'\n\
         [repository.d]\ntype = 's3'\nbucket = 'db-backups'\nendpoint = 'http://127.0.0.1:9000'\nallow_http = true\n\
         sse = 'kms'\nkms_key_id = 'k'\n",
    );
    let settings = host.settings();
    assert_eq!(settings.repositories["a"], RepositorySettings::Local { path: path("/backup") });
    assert_eq!(settings.repositories["b"], RepositorySettings::Local { path: path("/other") });
    let c = S3Settings {
        bucket: "db-backups".into(),
        prefix: "x/db1".into(),
        region: Some("eu-central-1".into()),
        endpoint: Some("https://s3.example.net".into()),
        path_style: true,
        allow_http: false,
        sse: ServerSideEncryption::None,
        kms_key_id: None,
        checksums: RequestChecksums::WhenRequired,
    };
    assert_eq!(settings.repositories["c"], RepositorySettings::S3(c));
    let RepositorySettings::S3(d) = &settings.repositories["d"] else { panic!("d is a bucket") };
    assert_eq!((d.prefix.as_str(), d.sse, d.allow_http), ("db1", ServerSideEncryption::Kms, true));
}

#[test]
fn credentials_of_systemd_are_taken_when_no_file_is_named() {
    let host = FakeHost::with("[target.a]\nkind = 'sim'\ndirectory = '/a'\n");
    host.file("/run/credentials/agent/passphrase", "x").file("/run/credentials/agent/signing", "x");
    let host = host.variable("CREDENTIALS_DIRECTORY", "/run/credentials/agent");
    let loaded = host.load();
    let encryption = &loaded.settings.targets[&name("a")].encryption;
    assert_eq!(encryption.passphrase, SecretSource::Credential(path("/run/credentials/agent/passphrase")));
    assert_eq!(encryption.signing_file, Some(SecretSource::Credential(path("/run/credentials/agent/signing"))));
    let origin = loaded.origin("encryption.passphrase_file").map(ToString::to_string);
    assert_eq!(origin.as_deref(), Some("discovered: systemd credential passphrase"));
    host.file("/etc/neo4j-backup/config.d/k.toml", "[encryption]\npassphrase_file = '/k'\n");
    assert_eq!(host.settings().encryption.passphrase, SecretSource::File(path("/k")));
    let origin = host.load().origin("encryption.passphrase_file").cloned();
    assert!(matches!(origin, Some(Origin::File { line: 2, .. })), "{origin:?}");
}

#[test]
fn secret_files_are_tried_and_each_fault_is_named_once() {
    use std::os::unix::fs::PermissionsExt;
    let keys = tempfile::tempdir().expect("tempdir");
    let write = |name: &str, text: &str, mode: u32| {
        let path = keys.path().join(name);
        std::fs::write(&path, text).expect("write");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("chmod");
        path.display().to_string()
    };
    let good = write("good", "correct horse battery staple\n", 0o600);
    let open = write("open", "correct horse battery staple\n", 0o644);
    let short = write("short", "short\n", 0o600);
    let config = |current: &str, older: &str| {
        format!(
            "[encryption]\npassphrase_file = '{current}'\nolder_passphrase_files = ['{older}']\n\
             [target.a]\nkind = 'neo4j'\npassword_file = '{short}'\n[target.b]\nkind = 'sim'\ndirectory = '/b'\n"
        )
    };
    assert_eq!(check_secrets(&FakeHost::with(&config(&good, &good)).settings()), Vec::<String>::new());
    let problems = check_secrets(&FakeHost::with(&config(&open, &short)).settings());
    assert_eq!(problems.len(), 2, "{problems:?}");
    assert!(problems[0].starts_with("encryption.") && problems[1].starts_with("encryption."), "{problems:?}");
    assert!(problems.iter().any(|text| text.contains("0644")), "{problems:?}");
    assert!(problems.iter().any(|text| text.contains("fewer than 20")), "{problems:?}");
    assert!(problems.iter().all(|text| !text.contains("horse")), "{problems:?}");
}

#[test]
fn a_file_that_everybody_may_write_is_worth_a_warning() {
    use std::os::unix::fs::PermissionsExt;
    let host = FakeHost::with("[target.a]\nkind = 'sim'\ndirectory = '/a'\n");
    let file = host.at("/etc/neo4j-backup/config.toml");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o666)).expect("chmod");
    let loaded = host.load();
    assert_eq!(
        host.plain(&loaded.warnings.join("\n")),
        "/etc/neo4j-backup/config.toml can be changed by everybody: chmod o-w"
    );
    assert_eq!(loaded.files, [file]);
}
