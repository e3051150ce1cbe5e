//! Repositories in a bucket, on a real S3 server.
//!
//! - `kills`: the agent is killed in the middle of uploads
//! - `weather`: requests fail, connections break, lines are narrow

mod kills;
mod weather;

use crate::servers::s3::{BUCKET, KEY_ID, S3Server, SECRET};
use crate::site::{Site, content, walk};
use neo4j_backup_agent::artifact::digest::PART_SIZE;
use neo4j_backup_agent::artifact::object_key::ObjectKey;
use neo4j_backup_agent::base::Code;
use neo4j_backup_agent::base::clock::wait_until;
use neo4j_backup_agent::operation::answer::PresignReport;
use neo4j_backup_agent::repository::conformance::conformance;
use neo4j_backup_agent::repository::s3::{Checksums, S3Store};
use neo4j_backup_agent::repository::small_object::{put, read};
use neo4j_backup_agent::repository::store::{Commit, Store};
use std::fs;
use std::io::Read;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// Longest time until an upload is under way.
const PATIENCE: Duration = Duration::from_secs(60);

fn key(text: &str) -> ObjectKey {
    ObjectKey::new(text).expect("key")
}

// req: A13 A16 K2
#[test]
fn a_bucket_keeps_every_promise_of_a_store() {
    let Some(server) = S3Server::start() else { return };
    let uploads = tempfile::tempdir().expect("tempdir");
    let number = AtomicU32::new(0);
    conformance(&|| {
        let number = number.fetch_add(1, Ordering::Relaxed);
        Box::new(server.store(&format!("hosts/db{number}"), uploads.path()))
    });
    assert_eq!(server.unfinished(), 0, "no upload is left");
    assert_eq!(fs::read_dir(uploads.path()).expect("records").count(), 0, "nor a record of one");
}

#[test]
fn prefixes_share_a_bucket_and_an_empty_one_is_none() {
    let Some(server) = S3Server::start() else { return };
    let uploads = tempfile::tempdir().expect("tempdir");
    let (one, all) = (server.store("one", uploads.path()), server.store("", uploads.path()));
    put(&one, &key("a/b"), b"content", Commit::IfAbsent).expect("put");
    assert_eq!(read(&all, &key("one/a/b"), 100).expect("read"), b"content");
    assert_eq!(server.store("on", uploads.path()).stat(&key("a/b")).expect("stat"), None);
    let mut shown = Vec::new();
    let mut list = |store: &S3Store| {
        let visit = &mut |object: neo4j_backup_agent::repository::store::ObjectInfo| {
            shown.push(object.key.to_string());
            Ok(())
        };
        store.list("", visit).expect("list");
    };
    list(&server.store("on", uploads.path()));
    list(&one);
    list(&all);
    assert_eq!(shown, ["a/b", "one/a/b"]);
}

#[test]
fn many_objects_are_listed_page_by_page_in_order() {
    let Some(server) = S3Server::start() else { return };
    let uploads = tempfile::tempdir().expect("tempdir");
    let directory = server.objects().join("p/environment=dev");
    fs::create_dir_all(&directory).expect("directory");
    for number in 0..2_345 {
        fs::write(directory.join(format!("object-{number:05}")), b"x").expect("object");
    }
    let mut shown = 0;
    server
        .store("p", uploads.path())
        .list("environment=dev/", &mut |object| {
            assert_eq!(object.key.as_str(), format!("environment=dev/object-{shown:05}"));
            shown += 1;
            Ok(())
        })
        .expect("list");
    assert_eq!(shown, 2_345);
}

// req: A4
#[test]
fn large_objects_with_either_checksum_come_back_whole() {
    let Some(server) = S3Server::start() else { return };
    let uploads = tempfile::tempdir().expect("tempdir");
    for (name, checksums) in [("required", Checksums::WhenRequired), ("supported", Checksums::WhenSupported)] {
        let mut settings = server.settings(name, uploads.path());
        settings.checksums = checksums;
        let store = S3Store::with_keys(settings, KEY_ID, SECRET);
        for size in [PART_SIZE - 1, PART_SIZE, PART_SIZE + 1, 5 * PART_SIZE] {
            let content: Vec<u8> = (0..size).map(|at| (at % 251) as u8).collect();
            let name = key(&format!("a/{size}"));
            let info = put(&store, &name, &content, Commit::IfAbsent).expect("put");
            assert_eq!(info.size, size);
            assert!(read(&store, &name, u64::MAX).expect("read") == content, "{size}");
            let mut tail = Vec::new();
            store.read(&name, Some(size - 9..size)).expect("open").read_to_end(&mut tail).expect("read");
            assert_eq!(tail, content[content.len() - 9..]);
        }
    }
    assert_eq!(server.unfinished(), 0);
}

/// A simulated database whose backups go into the bucket.
fn site(server: &S3Server) -> Site {
    site_at(&server.endpoint())
}

fn site_at(endpoint: &str) -> Site {
    let site = Site::simulated();
    let text = fs::read_to_string(site.config()).expect("configuration");
    let local = format!("type = \"local\"\npath = \"{}/repository\"\n", site.root().display());
    let bucket = format!(
        "type = \"s3\"\nbucket = \"{BUCKET}\"\nprefix = \"hosts/db1\"\nendpoint = \"{}\"\npath_style = true\n\
         allow_http = true\n",
        endpoint
    );
    assert!(text.contains(&local));
    fs::write(site.config(), text.replace(&local, &bucket)).expect("configuration");
    site
}

/// The agent's program with the store's credentials in its environment, and no others.
fn command(site: &Site) -> Command {
    let mut command = site.command();
    command
        .env("AWS_ACCESS_KEY_ID", KEY_ID)
        .env("AWS_SECRET_ACCESS_KEY", SECRET)
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .env("AWS_CONFIG_FILE", "/dev/null")
        .env("AWS_SHARED_CREDENTIALS_FILE", "/dev/null");
    command
}

fn run(site: &Site, arguments: &[&str]) -> Output {
    command(site).args(arguments).output().expect("neo4j-backupd starts")
}

fn succeed(site: &Site, arguments: &[&str]) -> String {
    let output = run(site, arguments);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {said}");
    for text in [&said, &String::from_utf8_lossy(&output.stdout)] {
        assert!(!text.contains(SECRET), "{arguments:?} gave the secret away");
    }
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Every object of backups in the bucket.
fn objects(server: &S3Server) -> Vec<PathBuf> {
    let mut found = Vec::new();
    walk(&server.objects().join("hosts/db1/environment=dev"), &mut found);
    found.retain(|path| !path.ends_with("owner.json"));
    found.sort();
    found
}

// req: A1 A3 A4 A13 K2
#[test]
fn backups_go_into_a_bucket_and_come_back() {
    let Some(server) = S3Server::start() else { return };
    let site = site(&server);
    succeed(&site, &["backup", "sim"]);
    succeed(&site, &["backup", "sim"]);
    let stored = objects(&server);
    assert_eq!(stored.len(), 6, "data, configuration, manifest, twice: {stored:?}");
    assert!(stored[0].to_string_lossy().contains("hosts/db1/environment=dev/year="), "{stored:?}");
    for name in ["repository.json", "RECOVER.txt", "restore.sh"] {
        assert!(server.objects().join("hosts/db1").join(name).exists(), "{name}");
    }
    succeed(&site, &["verify", "--all"]);
    succeed(&site, &["check"]);

    for name in ["ledger.db", "ledger.db-wal", "ledger.db-shm"] {
        let _ = fs::remove_file(site.path("state").join(name));
    }
    succeed(&site, &["rescan"]);
    assert_eq!(succeed(&site, &["list"]).matches("sim-").count(), 2);
    let out = site.path("out");
    succeed(&site, &["restore", "sim", "--into", &out.display().to_string()]);
    assert!(content(&out.join("data")) == content(&site.path("database/data")));

    succeed(&site, &["delete", "latest~1", "--yes"]);
    assert_eq!(objects(&server).len(), 3);
    succeed(&site, &["cleanup", "--yes"]);
    let data = objects(&server).into_iter().find(|path| !path.to_string_lossy().ends_with("meta.json")).expect("data");
    let mut bytes = fs::read(&data).expect("read");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&data, bytes).expect("write");
    let damaged = run(&site, &["verify", "--all"]);
    assert_eq!(damaged.status.code(), Some(13), "{}", String::from_utf8_lossy(&damaged.stderr));
}

#[test]
fn trouble_with_the_store_has_its_own_exit_codes() {
    let Some(mut server) = S3Server::start() else { return };
    let site = site(&server);
    succeed(&site, &["backup", "sim"]);
    let status = |command: &mut Command| {
        let output = command.args(["backup", "sim"]).output().expect("neo4j-backupd starts");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!said.contains(SECRET), "{said}");
        (output.status.code().unwrap_or_default(), said)
    };
    let (code, said) = status(command(&site).env("AWS_SECRET_ACCESS_KEY", "wrong"));
    assert_eq!(code, 15, "{said}");
    assert!(said.contains(Code::StorageCredentials.name()), "{said}");
    let (code, said) = status(command(&site).env_remove("AWS_ACCESS_KEY_ID").env_remove("AWS_SECRET_ACCESS_KEY"));
    assert_eq!(code, 15, "{said}");
    fs::rename(server.objects(), server.objects().with_file_name("other")).expect("rename");
    let (code, said) = status(&mut command(&site));
    assert_eq!(code, 10, "{said}");
    assert!(said.contains("the bucket must exist"), "{said}");
    server.stop();
    let (code, said) = status(&mut command(&site));
    assert_eq!(code, 75, "{said}");
    assert!(succeed(&site, &["list"]).contains("sim-"), "the ledger answers without the store");
}

// req: A14
#[test]
fn an_upload_that_was_killed_is_ended_by_the_next_run_and_no_other() {
    let Some(server) = S3Server::start() else { return };
    let site = site(&server);
    let mut noise = vec![0; 64 << 20];
    openssl::rand::rand_bytes(&mut noise).expect("noise");
    fs::write(site.path("database/data/noise"), noise).expect("write");
    // Somebody else's upload into the same bucket.
    let elsewhere = tempfile::tempdir().expect("tempdir");
    let mut foreign = server.store("hosts/db2", elsewhere.path()).create(&key("large")).expect("create");
    std::io::Write::write_all(&mut foreign, &vec![7; 20 << 20]).expect("write");
    assert_eq!(server.unfinished(), 1);

    let mut agent = command(&site).args(["backup", "sim"]).spawn().expect("neo4j-backupd starts");
    let under_way = wait_until(PATIENCE, Duration::from_millis(1), || server.unfinished() == 2);
    agent.kill().expect("kill");
    let killed = agent.wait().expect("wait");
    assert!(under_way && !killed.success(), "{killed}");
    assert_eq!(server.unfinished(), 2, "it was killed in the middle");

    // A part that was on its way may make it again, until the next run.
    let ended = || {
        succeed(&site, &["list"]);
        server.unfinished() == 1
    };
    assert!(wait_until(PATIENCE, Duration::from_millis(100), ended), "the killed one is gone");
    assert_eq!(
        fs::read_dir(site.path("state/uploads")).expect("records").count(),
        1,
        "and is looked for again for a while"
    );
    assert_eq!(objects(&server), Vec::<PathBuf>::new());
    foreign.commit(Commit::IfAbsent).expect("the other one was left alone");
    succeed(&site, &["backup", "sim"]);
    succeed(&site, &["verify", "--all"]);
    assert_eq!(server.unfinished(), 0);
}

/// Fetches an address as any program would that has nothing but the address: the status, and what comes.
fn fetch(address: &str) -> (u16, Vec<u8>) {
    let (host, path) = address.strip_prefix("http://").expect("plain http").split_once('/').expect("a path");
    let mut stream = std::net::TcpStream::connect(host).expect("connect");
    let request = format!("GET /{path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    std::io::Write::write_all(&mut stream, request.as_bytes()).expect("ask");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("answer");
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").expect("a head");
    let head = String::from_utf8_lossy(&answer[..end]).into_owned();
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    (status, answer[end + 4..].to_vec())
}

// req: A8
#[test]
fn an_address_gives_one_object_for_a_while_and_nothing_else() {
    let Some(server) = S3Server::start() else { return };
    let site = site(&server);
    succeed(&site, &["backup", "sim"]);
    let report =
        |arguments: &[&str]| -> PresignReport { serde_json::from_str(&succeed(&site, arguments)).expect("a report") };
    let given = report(&["presign", "latest", "--json=short"]);
    assert!(given.objects.len() >= 2 && given.objects[0].key.as_str().ends_with(".meta.json"), "{given:?}");
    for object in &given.objects {
        let stored = fs::read(server.objects().join("hosts/db1").join(object.key.as_str())).expect("the object");
        assert_eq!((object.size, fetch(&object.url)), (stored.len() as u64, (200, stored)), "{}", object.key);
    }
    // It is good for that object alone.
    let (first, second) = (&given.objects[0], &given.objects[1]);
    let other = first.url.replace(first.key.file_name(), second.key.file_name());
    assert_eq!(fetch(&other).0, 403, "{other}");
    let brief = report(&["presign", "latest", "--expires", "1s", "--json=short"]);
    assert!(wait_until(PATIENCE, Duration::from_millis(100), || fetch(&brief.objects[0].url).0 == 403));

    for (span, words) in [("0", "cannot be good for 0 s"), ("8d", "at most seven days"), ("soon", "looks like")] {
        let refused = command(&site).args(["presign", "latest", "--expires", span]).output().expect("neo4j-backupd");
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(refused.status.code() == Some(2) && said.contains(words), "{span}: {said}");
    }
    let directory = Site::simulated();
    directory.backup("sim");
    let refused = directory.run(&["presign", "latest"]);
    assert_eq!(refused.status.code(), Some(4), "{refused:?}");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("gives out no addresses"), "{refused:?}");
}
