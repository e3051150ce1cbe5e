//! The environment as a source: the exact form, and the common names.

use super::{FakeHost, name, path};
use crate::config::settings::*;

#[test]
fn every_key_can_come_from_the_environment_alone() {
    let host = FakeHost::with("");
    std::fs::remove_file(host.at("/etc/neo4j-backup/config.toml")).expect("remove");
    let host = host
        .variable("NEO4J_BACKUP__TARGET__GRAPH__KIND", "neo4j")
        .variable("NEO4J_BACKUP__TARGET__GRAPH__BOLT", "bolt://db:7687")
        .variable("NEO4J_BACKUP__TARGET__GRAPH__FULL", "dump")
        .variable("NEO4J_BACKUP__TARGET__GRAPH__RETENTION__DAILY", "30")
        .variable("NEO4J_BACKUP__TARGET__GRAPH__STOP_COMMAND", "/bin/ctl stop")
        .variable("NEO4J_BACKUP__TARGET__GRAPH__START_COMMAND", "[\"/bin/ctl\", \"start\"]")
        .variable("NEO4J_BACKUP__REPOSITORY__MAIN__PATH", "/backup");
    let loaded = host.load();
    assert_eq!(host.plain(&loaded.warnings[0]), "/etc/neo4j-backup/config.toml does not exist");
    let graph = &loaded.settings.targets[&name("graph")];
    assert_eq!(graph.retention.daily, 30);
    let DatabaseSettings::Neo4j(neo4j) = &graph.database else { panic!("neo4j") };
    assert_eq!((neo4j.bolt.as_deref(), neo4j.full), (Some("bolt://db:7687"), Neo4jFull::Dump));
    assert!(matches!(neo4j.service, ServiceSettings::Commands { .. }));
    assert_eq!(loaded.settings.repositories["main"], RepositorySettings::Local { path: path("/backup") });
    let origin = loaded.origin("target.graph.bolt").map(ToString::to_string);
    assert_eq!(origin.as_deref(), Some("environment NEO4J_BACKUP__TARGET__GRAPH__BOLT"));
}

// req: B2
// req: C4
#[test]
fn common_names_are_understood_and_weaker_than_the_exact_form() {
    let config = "[repository.main]\npath = '/file'\n[retention]\ndays = 7\n[target.a]\nkind = 'sim'\ndirectory = '/a'\n\
                  [target.b]\nkind = 'sim'\ndirectory = '/b'\n[target.b.retention]\ndays = 90\n";
    let host = FakeHost::with(config)
        .variable("BACKUP_STORAGE_PATH", "/storage")
        .variable("BACKUP_SCHEDULE", "30 2 * * *")
        .variable("BACKUP_RETENTION_DAYS", "14")
        .variable("BACKUP_COMPRESSION", "gzip")
        .variable("BACKUP_ALERT_EMAIL", "ops@example.net, dba@example.net")
        .variable("BACKUP_ON_START", "yes")
        .variable("BACKUP_PASSPHRASE_FILE", "/run/secrets/passphrase");
    let settings = host.settings();
    assert_eq!(settings.repositories["main"], RepositorySettings::Local { path: path("/storage") });
    let (a, b) = (&settings.targets[&name("a")], &settings.targets[&name("b")]);
    assert_eq!(a.schedule.full.as_deref(), Some("*-*-* 02:30:00"));
    assert!(a.schedule.at_start);
    assert_eq!((a.retention.days, b.retention.days), (Some(14), Some(90)));
    assert_eq!(a.compression, CompressionSettings { algorithm: CompressionAlgorithm::Gzip, level: 6 });
    assert_eq!(a.alerts.mail.as_ref().expect("mail").to, ["ops@example.net", "dba@example.net"]);
    assert_eq!(a.encryption.passphrase, SecretSource::File(path("/run/secrets/passphrase")));

    let host =
        host.variable("NEO4J_BACKUP__RETENTION__DAYS", "21").variable("NEO4J_BACKUP__COMPRESSION__ALGORITHM", "none");
    let a = &host.settings().targets[&name("a")];
    assert_eq!(a.retention.days, Some(21));
    assert_eq!(a.compression, CompressionSettings { algorithm: CompressionAlgorithm::None, level: 0 });
}

// req: B2
#[test]
fn compression_is_switched_as_images_do() {
    for (word, algorithm) in [
        ("gzip", CompressionAlgorithm::Gzip),
        ("none", CompressionAlgorithm::None),
        ("true", CompressionAlgorithm::Gzip),
        ("false", CompressionAlgorithm::None),
        ("ZSTD", CompressionAlgorithm::Zstd),
    ] {
        let host = FakeHost::with("[target.a]\nkind = 'sim'\ndirectory = '/a'\n").variable("BACKUP_COMPRESSION", word);
        assert_eq!(host.settings().targets[&name("a")].compression.algorithm, algorithm, "{word}");
    }
    let host = FakeHost::with("").variable("BACKUP_COMPRESSION", "lzma");
    assert_eq!(
        host.problems(),
        [
            "environment BACKUP_COMPRESSION: compression.algorithm: must be one of \"zstd\", \"gzip\", \"none\", not \"lzma\""
        ]
    );
}

// req: E5
#[test]
fn the_mode_applies_to_every_neo4j_target() {
    let config = "[target.a]\nkind = 'neo4j'\nfull = 'dump'\n[target.b]\nkind = 'neo4j'\n\
                  [target.p]\nkind = 'postgresql'\ncluster = '15/main'\n";
    let mode = |value: &str| FakeHost::with(config).variable("NEO4J_BACKUP_MODE", value);
    let full = |settings: &Settings, target: &str| match &settings.targets[&name(target)].database {
        DatabaseSettings::Neo4j(neo4j) => neo4j.full,
        other => panic!("{other:?}"),
    };
    let settings = mode("incremental").settings();
    let types = ["a", "b", "p"].map(|target| settings.targets[&name(target)].default_type);
    assert_eq!(types, [RunType::Incremental, RunType::Incremental, RunType::Full]);
    assert_eq!(full(&settings, "a"), Neo4jFull::Dump);

    let host = mode("enterprise").variable("NEO4J_BACKUP__TARGET__B__FULL", "export");
    let settings = host.settings();
    assert_eq!((full(&settings, "a"), full(&settings, "b")), (Neo4jFull::Enterprise, Neo4jFull::Export));
    assert_eq!(
        mode("differential").problems()[1],
        "environment NEO4J_BACKUP_MODE: target.a.default_type: must be one of \"full\", \"incremental\", not \"differential\""
    );
}
