//! A tool that lies and an archive that was damaged are found out.

use super::*;

/// PostgreSQL's programs with one of them exchanged for a script.
fn stub(server: &PostgresServer, place: &Path, name: &str, script: &str) -> PathBuf {
    let bin = place.join("bin");
    fs::create_dir_all(&bin).expect("bin");
    for entry in fs::read_dir(&server.bin).expect("programs").flatten() {
        let link = bin.join(entry.file_name());
        let _ = fs::remove_file(&link);
        if entry.file_name() != name {
            std::os::unix::fs::symlink(entry.path(), link).expect("link");
        }
    }
    let path = bin.join(name);
    let real = server.bin.join(name);
    let text = format!("#!/bin/sh\n[ \"$1\" = --version ] && exec {} --version\n{script}\n", real.display());
    fs::write(&path, text).expect("script");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("mode");
    bin
}

#[test]
fn a_tool_that_lies_is_found_out() {
    let (place, server) = cluster(&PostgresOptions::default());
    let path = place.path().join("base.tar");
    // One that may replicate and no more is served by pg_basebackup.
    server.sql("CREATE ROLE streamer LOGIN REPLICATION");
    let streamer = PostgresDriverSettings { user: "streamer".to_owned(), ..settings(&server) };
    back_up(&PostgresDriver::new(streamer.clone(), Arc::new(LocalLauncher::default())), &path).expect("backup");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("mode");
    let length = fs::metadata(&path).expect("archive").len();
    let run = |script: &str| {
        let bin_directory = stub(&server, place.path(), "pg_basebackup", script);
        let settings = PostgresDriverSettings { bin_directory, ..streamer.clone() };
        let driver = PostgresDriver::new(settings, Arc::new(LocalLauncher::default()));
        back_up(&driver, &place.path().join("stub.tar"))
    };
    run(&format!("exec cat {}", path.display())).expect("the whole archive passes");
    for cut in [0, 1, 511, 512, 513, 100_000, length / 2, length - 1025, length - 1024, length - 513, length - 1] {
        let error = run(&format!("exec head -c {cut} {}", path.display()))
            .err()
            .unwrap_or_else(|| panic!("{cut} of {length} bytes passed for a backup"));
        assert_eq!(error.code(), Code::PostgresToolFailed, "{cut}: {error}");
    }
    let error = run(&format!("cat {}; echo disk on fire >&2; exit 1", path.display())).expect_err("status");
    assert!(error.code() == Code::PostgresToolFailed && error.message().contains("disk on fire"), "{error}");
}

#[test]
fn an_archive_that_was_damaged_is_found_out() {
    let (place, server) = cluster(&PostgresOptions::default());
    let (driver, task) = (driver(&server), Task::unobserved());
    let path = place.path().join("base.tar");
    let report = back_up(&driver, &path).expect("backup");
    let archive = fs::read(&path).expect("archive");
    let manifest = manifest(&driver, Statistics::default(), report.position, archive.len() as u64);
    let attempt = |archive: &[u8]| {
        let elsewhere = open_directory();
        restore(&driver, &manifest, archive, elsewhere.path())?.session.check(&task)
    };
    for cut in [0, 512, archive.len() / 3, archive.len() - 1024, archive.len() - 1] {
        let code = attempt(&archive[..cut]).map(|_| ()).map_err(|e| e.code());
        assert_eq!(code, Err(Code::BackupCorrupted), "{cut}");
    }
    let marker = b"sensor 17";
    let at = archive.windows(marker.len()).position(|window| window == marker).expect("a row");
    let mut flipped = archive.clone();
    flipped[at] ^= 1;
    let checks = attempt(&flipped).expect("unpacked");
    assert_eq!((checks[0].name.as_str(), checks[0].passed), ("pg_verifybackup", Some(false)), "{checks:?}");

    let mut link = tar::Header::new_ustar();
    link.set_entry_type(tar::EntryType::Symlink);
    link.set_path("pg_wal").expect("name");
    link.set_link_name("/etc").expect("target");
    link.set_size(0);
    link.set_mode(0o700);
    link.set_cksum();
    let hostile = [link.as_bytes().as_slice(), &archive].concat();
    assert_eq!(attempt(&hostile).map(|_| ()).map_err(|e| e.code()), Err(Code::HostileArchive));
}

#[test]
fn damage_that_pg_verifybackup_is_not_there_to_see_is_seen_by_the_server() {
    let (place, server) = cluster(&PostgresOptions::default());
    let path = place.path().join("base.tar");
    let report = back_up(&driver(&server), &path).expect("backup");
    let archive = fs::read(&path).expect("archive");
    // The tool is taken away; what is left must still notice.
    let bin_directory = stub(&server, place.path(), "pg_verifybackup", "");
    fs::remove_file(bin_directory.join("pg_verifybackup")).expect("remove");
    let settings = PostgresDriverSettings { bin_directory, ..settings(&server) };
    let driver = PostgresDriver::new(settings, Arc::new(LocalLauncher::default()));
    let manifest = manifest(&driver, Statistics::default(), report.position, archive.len() as u64);
    let marker = b"sensor 17";
    let at = archive.windows(marker.len()).position(|window| window == marker).expect("a row");
    let mut flipped = archive.clone();
    flipped[at] ^= 1;
    let elsewhere = open_directory();
    let mut restored = restore(&driver, &manifest, &flipped, elsewhere.path()).expect("restore");
    let checks = restored.session.check(&Task::unobserved()).expect("checks");
    assert_eq!(passed(&checks, "pg_verifybackup").passed, None);
    assert_eq!(passed(&checks, "amcheck").passed, Some(false), "{checks:?}");
}
