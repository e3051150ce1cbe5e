//! What a base backup cannot be made of is refused before it starts, and the doctor names the remedy.

use super::*;
use neo4j_backup_agent::base::clock::wait_until;
use neo4j_backup_agent::driver::Finding;

fn codes(driver: &PostgresDriver) -> Vec<String> {
    driver.doctor(&Task::unobserved()).into_iter().map(|finding| finding.code).collect()
}

fn doctor(driver: &PostgresDriver, code: &str) -> Option<Finding> {
    driver.doctor(&Task::unobserved()).into_iter().find(|finding| finding.code == code)
}

fn refusal(driver: &PostgresDriver, kind: BackupKind) -> neo4j_backup_agent::base::Error {
    let workspace = tempfile::tempdir().expect("workspace");
    driver.begin_full(kind, workspace.path(), &Task::unobserved()).map(|_| ()).expect_err("refused")
}

#[test]
fn other_kinds_and_tablespaces_are_refused() {
    let options = PostgresOptions { checksums: false, port: 5499, ..PostgresOptions::default() };
    let (_place, server) = cluster(&options);
    let driver = driver(&server);
    for kind in [BackupKind::Export, BackupKind::Enterprise] {
        let error = refusal(&driver, kind);
        assert!(error.code() == Code::NotAvailable && error.hint().contains("full = \"base\""), "{error:?}");
    }
    // The fixture itself switches fsync off.
    assert_eq!(codes(&driver), ["no-data-checksums", "log-not-archived", "fsync-off"]);
    let fast = server.directory.join("fast");
    fs::create_dir(&fast).expect("tablespace");
    server.give(&fast);
    server.sql(&format!("CREATE TABLESPACE fast LOCATION '{}'", fast.display()));
    assert!(codes(&driver).contains(&"tablespaces".to_owned()));
    // pg_basebackup, which a role without the functions has to use, takes none of them.
    server.sql("CREATE ROLE streamer LOGIN REPLICATION");
    let streamer = PostgresDriverSettings { user: "streamer".to_owned(), ..settings(&server) };
    let driver = PostgresDriver::new(streamer, Arc::new(LocalLauncher::default()));
    let error = refusal(&driver, BackupKind::Base);
    assert!(error.code() == Code::PostgresUnsupported && error.message().contains("fast in /"), "{error:?}");
    assert!(codes(&driver).contains(&"tablespaces".to_owned()));
}

#[test]
fn each_missing_right_names_the_statement_that_grants_it() {
    let (place, server) = cluster(&PostgresOptions::default());
    let settings = PostgresDriverSettings { user: "neo4j-backup".to_owned(), ..settings(&server) };
    let driver = PostgresDriver::new(settings, Arc::new(LocalLauncher::default()));
    let missing = doctor(&driver, "role-missing").expect("role missing");
    server.sql(&missing.fix.replace("REPLICATION", "NOREPLICATION"));
    let error = refusal(&driver, BackupKind::Base);
    assert!(error.code() == Code::PostgresUnsupported && error.hint().starts_with("ALTER ROLE"), "{error:?}");
    let remark = driver.census(&Task::unobserved()).expect("census").statistics.remark.expect("remark");
    assert!(remark.contains("metrics.public.samples (the role may not read it)"), "{remark}");
    for code in ["role-without-replication", "role-without-pg-read-all-data", "role-without-pg-read-all-settings"] {
        let finding = doctor(&driver, code).unwrap_or_else(|| panic!("{code}"));
        server.sql(&finding.fix);
        assert_eq!(doctor(&driver, code), None, "stays after {}", finding.fix);
    }
    let archive = place.path().join("base.tar");
    back_up(&driver, &archive).expect("with its rights the role makes a backup");
    let census = driver.census(&Task::unobserved()).expect("census");
    assert_eq!((census.statistics.counts["metrics.public.samples"], census.statistics.remark), (30_000, None));

    // Without the line for replication the server refuses; the remedy is in the hint and in the finding.
    fs::write(server.data.join("pg_hba.conf"), "local all all trust\n").expect("pg_hba.conf");
    server.sql("SELECT pg_reload_conf()");
    let noticed = || doctor(&driver, "replication-not-admitted").is_some();
    assert!(wait_until(PATIENCE, Duration::from_millis(50), noticed));
    let error = back_up(&driver, &archive).expect_err("refused");
    let hint = error.hint();
    assert!(error.code() == Code::PostgresToolFailed && hint.contains("local replication neo4j-backup"), "{error:?}");

    // Who may begin and end a backup needs none of that.
    let finding = doctor(&driver, "role-without-backup-functions").expect("noticed");
    server.sql(&finding.fix);
    assert_eq!(doctor(&driver, "role-without-backup-functions"), None);
    back_up(&driver, &archive).expect("read from the data directory");
}

/// Peer authentication, as Debian sets clusters up, and an agent whose account is not called as its role.
#[test]
fn a_role_of_another_name_is_admitted_by_the_lines_that_the_finding_says() {
    let (_place, server) = cluster(&PostgresOptions::default());
    let settings = PostgresDriverSettings { user: "keeper".to_owned(), ..settings(&server) };
    let driver = PostgresDriver::new(settings, Arc::new(LocalLauncher::default()));
    server.sql("CREATE ROLE keeper LOGIN SUPERUSER");
    let (hba, ident) = (server.data.join("pg_hba.conf"), server.data.join("pg_ident.conf"));
    let admitted = "local all postgres trust\nlocal all all peer\nlocal replication all peer\n";
    fs::write(&hba, admitted).expect("pg_hba.conf");
    server.sql("SELECT pg_reload_conf()");
    let noticed = || doctor(&driver, "role-not-admitted").is_some();
    assert!(wait_until(PATIENCE, Duration::from_millis(50), noticed));
    let fix = doctor(&driver, "role-not-admitted").expect("noticed").fix;
    let quoted: Vec<&str> = fix.split('`').skip(1).step_by(2).collect();
    let (maps, lines): (Vec<_>, Vec<_>) = quoted.iter().partition(|line| line.starts_with("backup "));
    let maps: Vec<&str> = maps.into_iter().copied().collect();
    assert!(!maps.is_empty() && lines[0].starts_with("local "), "{fix}");
    fs::write(&ident, format!("{}\n", maps.join("\n"))).expect("pg_ident.conf");
    fs::write(&hba, format!("{}\n{admitted}", lines[0])).expect("pg_hba.conf");
    server.sql("SELECT pg_reload_conf()");
    let mended = || {
        let codes = ["role-not-admitted", "replication-not-admitted", "postgres-unreachable"];
        codes.iter().all(|code| doctor(&driver, code).is_none())
    };
    assert!(wait_until(PATIENCE, Duration::from_millis(50), mended), "{fix}");
}

#[test]
fn a_role_with_a_password_makes_a_backup() {
    let (place, server) = cluster(&PostgresOptions::default());
    // Colons and backslashes have a meaning in the file that the tool reads.
    server.sql(r"CREATE ROLE backup LOGIN SUPERUSER PASSWORD 'pass:wo\rd of some length'");
    let lines = "local all postgres trust\nlocal all backup scram-sha-256\nlocal replication backup scram-sha-256\n";
    fs::write(server.data.join("pg_hba.conf"), lines).expect("pg_hba.conf");
    server.sql("SELECT pg_reload_conf()");
    let file = place.path().join("password");
    let build = |password: &str| {
        let _ = fs::remove_file(&file);
        neo4j_backup_agent::base::atomic_file::write(&file, password.as_bytes(), 0o600).expect("password");
        let user = "backup".to_owned();
        let settings = PostgresDriverSettings { user, password_file: Some(file.clone()), ..settings(&server) };
        PostgresDriver::new(settings, Arc::new(LocalLauncher::default()))
    };
    let archive = place.path().join("base.tar");
    let right = build("pass:wo\\rd of some length\n");
    let made = || back_up(&right, &archive).is_ok();
    assert!(wait_until(PATIENCE, Duration::from_millis(50), made), "{:?}", back_up(&right, &archive));
    let error = build("another password\n").inspect(&Task::unobserved()).expect_err("refused");
    assert!(error.code() == Code::PostgresUnreachable && error.message().contains("password"), "{error:?}");
    assert!(!format!("{error:?}").contains("another password"));
}
