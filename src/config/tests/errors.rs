//! Every problem is reported, with file, line and the nearest name.

use super::FakeHost;

const FILE: &str = "/etc/neo4j-backup/config.toml";

/// One mistake in a file, and what is said about it after the file's name.
const MISTAKES: &[(&str, &str)] = &[
    // Unknown names, and what was meant.
    ("enviroment = 'x'", "1: unknown key \"enviroment\"; did you mean \"environment\"?"),
    ("\n[targets.graph]\nkind = 'neo4j'", "2: unknown table [targets]; did you mean \"target\"?"),
    (
        "[target.graph]\nkind = 'neo4j'\nretentoin = 3",
        "3: unknown key \"retentoin\" in [target.graph]; did you mean \"retention\"?",
    ),
    (
        "[target.graph]\nkind = 'neo4j'\n[target.graph.retention]\ndialy = 3",
        "4: unknown key \"dialy\" in [target.graph.retention]; did you mean \"daily\"?",
    ),
    ("[encryption]\niteration = 100000", "2: unknown key \"iteration\" in [encryption]; did you mean \"iterations\"?"),
    ("level = 3", "1: unknown key \"level\"; it belongs in [compression]"),
    ("[compression]\nrpo = '1h'", "2: unknown key \"rpo\" in [compression]; it belongs in [slo]"),
    (
        "[encryption]\nstate_directory = '/x'",
        "2: unknown key \"state_directory\" in [encryption]; it belongs at the top of the file, before the first table",
    ),
    ("colour = 'blue'", "1: unknown key \"colour\""),
    ("\"a\\nb\" = 1", "1: unknown key \"a\\nb\""),
    // Keys of another kind.
    (
        "[target.graph]\nkind = 'neo4j'\ncluster = '15/main'",
        "3: target.graph.cluster: is for kind = \"postgresql\", and this kind is \"neo4j\"",
    ),
    (
        "[repository.main]\nbucket = 'abc'",
        "2: repository.main.bucket: is for type = \"s3\", and this type is \"local\"",
    ),
    // Values.
    ("environment = 7", "1: environment: must be text in quotes, not 7"),
    ("state_directory = 'var/lib'", "1: state_directory: must be an absolute path, not \"var/lib\""),
    ("state_directory = '/a/../b'", "1: state_directory: must be a path without \"..\", not \"/a/../b\""),
    (
        "[target.g]\nkind = 'postgres'",
        "2: target.g.kind: must be one of \"neo4j\", \"postgresql\", not \"postgres\"; did you mean \"postgresql\"?",
    ),
    ("[target.g]\nhome = '/x'", "1: target.g: needs a kind: kind = \"neo4j\" or kind = \"postgresql\""),
    ("[target.Graph]\nkind = 'neo4j'", "1: target name \"Graph\" must have 1 to 32 characters out of a-z, 0-9 and _"),
    ("[repository.'a.b']", "1: repository name \"a.b\" must be a name of 1 to 32 characters out of a-z, 0-9 and _"),
    ("target = 3", "1: target: must be a table, not 3"),
    ("[environment]\nx = 1", "1: environment: must be a value, not a table"),
    ("[[target]]\nkind = 'neo4j'", "1: target: must be a table, not a list"),
    ("[compression]\nlevel = 20", "2: compression.level: must be a whole number from 1 to 19, not 20"),
    (
        "[compression]\nlevel = 3.5",
        "2: compression.level: must be a whole number from 1 to 19, not a number with a fraction",
    ),
    ("[compression]\nalgorithm = 'gzip'\nlevel = 10", "3: compression.level: must be from 1 to 9 for gzip, not 10"),
    (
        "[encryption]\niterations = 99999",
        "2: encryption.iterations: must be at least 100000, not 99999, unless allow_low_iterations = true",
    ),
    (
        "[encryption]\nmethod = 'none'",
        "2: encryption.method: \"none\" needs signing_file: what is not encrypted is signed all the same",
    ),
    (
        "[preflight]\nminimum_free_percent = 100",
        "2: preflight.minimum_free_percent: must be a whole number from 0 to 99, not 100",
    ),
    ("[limits]\nmemory = '1MB'", "2: limits.memory: must be at least 64.0 MiB, not \"1MB\""),
    ("[limits]\nspool = 'big'", "2: limits.spool: must be a size like \"200MB\" or \"10GiB\", not \"big\""),
    ("[retention]\ntrash = 3", "2: retention.trash: must be a duration like \"15min\" or \"14d\", not 3"),
    (
        "[retention]\nminimum_verified = 0",
        "2: retention.minimum_verified: must be a whole number from 1 to 1000, not 0",
    ),
    ("[schedule]\nfull = 'whenever'", "2: schedule.full: \"whenever\" is not a time as systemd's OnCalendar= takes it"),
    (
        "[schedule]\nfull = 02:00:00",
        "2: schedule.full: must be a time like \"02:00 UTC\", or \"off\", not a date or time without quotes",
    ),
    (
        "[target.g]\nkind = 'neo4j'\nbolt = 'localhost'",
        "3: target.g.bolt: must be an address like bolt://127.0.0.1:7687, or off, not \"localhost\"",
    ),
    (
        "[target.g]\nkind = 'neo4j'\nunit = 'neo4j'",
        "3: target.g.unit: must be a unit like neo4j.service, or none, not \"neo4j\"",
    ),
    ("[target.g]\nkind = 'neo4j'\nstop_command = '/bin/x'", "3: target.g.stop_command: needs start_command too"),
    (
        "[target.g]\nkind = 'neo4j'\nstop_command = 'neo4j stop'\nstart_command = '/bin/x'",
        "3: target.g.stop_command: must begin with the absolute path of a program, not \"neo4j\"",
    ),
    (
        "[target.g]\nkind = 'neo4j'\nstop_command = '/bin/x | y'\nstart_command = '/bin/x'",
        "3: target.g.stop_command: has '|' outside quotes, but no shell reads it",
    ),
    (
        "[target.g]\nkind = 'neo4j'\nunit = 'x.service'\nstop_command = '/bin/x'\nstart_command = '/bin/x'",
        "3: target.g.unit: excludes stop_command and start_command",
    ),
    // Repositories.
    (
        "[repository.main]\n[target.g]\nkind = 'neo4j'\nrepositories = ['mian']",
        "4: target.g.repositories: there is no repository \"mian\"; did you mean \"main\"?",
    ),
    ("[target.g]\nkind = 'neo4j'\nrepositories = []", "3: target.g.repositories: must name at least one repository"),
    ("[target.g]\nkind = 'neo4j'\nrepositories = ['main', 'main']", "3: target.g.repositories: names \"main\" twice"),
    ("[repository.a]\n[repository.b]", "2: repository.b: is the same place as repository.a"),
    ("[repository.a]\ntype = 's3'", "1: repository.a: needs a bucket: bucket = \"…\" or url = \"s3://bucket/prefix\""),
    (
        "[repository.a]\nurl = 's3://abc/p'\nbucket = 'abc'",
        "2: repository.a.url: says repository.a.bucket too, which is given separately",
    ),
    (
        "[repository.a]\nurl = 's3://abc?regoin=x'",
        "2: repository.a.url: has an unknown parameter \"regoin\"; did you mean \"region\"?",
    ),
    (
        "[repository.a]\nurl = 's3://abc'\nendpoint = 'http://h'",
        "3: repository.a.endpoint: is not encrypted in transit; if that is meant, say allow_http = true",
    ),
    ("[repository.a]\nurl = 's3://abc'\nkms_key_id = 'k'", "3: repository.a.kms_key_id: needs sse = \"kms\""),
    ("[repository.a]\nurl = 's3://abc/%Y'", "2: repository.a.prefix: \"%Y\" has a % that is not %H"),
    (
        "[repository.a]\ntype = 'local'\nurl = 's3://abc'",
        "3: repository.a.url: is of type \"s3\", but type says \"local\"",
    ),
    // Alerts.
    ("[alerts.mail]\nfrom = 'a@b'", "1: alerts.mail: needs recipients: to = [\"ops@example.net\"]"),
    ("[alerts.mail]\nto = ['ops']", "2: alerts.mail.to: must be a mail address like ops@example.net, not \"ops\""),
    ("[alerts.ping]", "1: alerts.ping: needs url or url_file"),
];

#[test]
fn each_mistake_is_named_with_its_line() {
    for (config, expected) in MISTAKES {
        let problems = FakeHost::with(config).problems();
        assert_eq!(problems, [format!("{FILE}:{expected}")], "for {config:?}");
    }
}

#[test]
fn all_problems_are_reported_together_in_order() {
    let host = FakeHost::with("enviroment = 'x'\n[target.g]\nkind = 'neo4j'\nbolt = 3\n[limits]\nspool = 'x'\n");
    host.file("/etc/neo4j-backup/config.d/10-more.toml", "[slo]\nrpo = 'soon'\n");
    let host = host.variable("NEO4J_BACKUP__SLO__RTOO", "1h");
    assert_eq!(
        host.problems(),
        [
            "5 problems in the configuration:",
            "/etc/neo4j-backup/config.d/10-more.toml:2: slo.rpo: must be a duration like \"15min\" or \"14d\", not \"soon\"",
            "/etc/neo4j-backup/config.toml:1: unknown key \"enviroment\"; did you mean \"environment\"?",
            "/etc/neo4j-backup/config.toml:4: target.g.bolt: must be text in quotes, not 3",
            "/etc/neo4j-backup/config.toml:6: limits.spool: must be a size like \"200MB\" or \"10GiB\", not \"x\"",
            "environment NEO4J_BACKUP__SLO__RTOO: unknown key \"rtoo\" in [slo]; did you mean \"rto\"?",
        ]
    );
}

#[test]
fn a_mistake_in_a_shared_table_is_reported_once() {
    let config =
        "[compression]\nalgorithm = 'gzip'\nlevel = 12\n[target.a]\nkind = 'neo4j'\n[target.b]\nkind = 'neo4j'\n";
    assert_eq!(FakeHost::with(config).problems().len(), 1);
}

#[test]
fn syntax_errors_come_alone_and_from_every_file() {
    let host = FakeHost::with("[target\nx = 1\nunknown = 3\n");
    host.file("/etc/neo4j-backup/config.d/a.toml", "\n\nx = = 1\n");
    let problems = host.problems();
    assert!(problems.iter().any(|line| line.starts_with("/etc/neo4j-backup/config.toml:1: ")), "{problems:?}");
    assert!(problems.iter().any(|line| line.starts_with("/etc/neo4j-backup/config.d/a.toml:3: ")), "{problems:?}");
    assert!(!problems.iter().any(|line| line.contains("unknown key")), "{problems:?}");
}

#[test]
fn files_that_cannot_be_read_are_named() {
    let host = FakeHost::with("");
    std::fs::write(host.at("/etc/neo4j-backup/config.toml"), b"a = \"\xff\"").expect("write");
    assert!(
        host.problems()[0].starts_with("reading /etc/neo4j-backup/config.toml: not UTF-8"),
        "{:?}",
        host.problems()
    );

    let host = FakeHost::with("");
    std::fs::create_dir_all(host.at("/etc/neo4j-backup/config.d/x.toml")).expect("mkdir");
    assert_eq!(host.problems(), ["reading /etc/neo4j-backup/config.d/x.toml: not a regular file"]);

    let host = FakeHost::with("");
    std::fs::write(host.at("/etc/neo4j-backup/config.toml"), vec![b'#'; (1 << 20) + 1]).expect("write");
    assert_eq!(host.problems(), ["reading /etc/neo4j-backup/config.toml: more than 1048576 bytes"]);

    let host = FakeHost::with("");
    std::fs::remove_file(host.at("/etc/neo4j-backup/config.toml")).expect("remove");
    assert_eq!(host.problems(), ["/etc/neo4j-backup/config.toml does not exist, and nothing else names a target"]);
}
