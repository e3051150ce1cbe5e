//! The script, run by real shells against real openssl, zstd, gzip and tar.

use super::*;
use crate::artifact::manifest::{Content, Engine, Manifest};
use crate::base::clock::FixedClock;
use crate::base::ids::BackupId;
use crate::repository::catalog::Repository;
use crate::repository::local::LocalStore;
use crate::repository::memory::MemoryStore;
use crate::repository::record::RecordStore;
use crate::repository::sample::{self, PASSPHRASE, keyring};
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

const DUMP: &str = "graph-20261120T020000Z-dump";
const BASE: &str = "metrics-20261120T020000Z-base";

struct Fixture {
    directory: tempfile::TempDir,
}

/// Runs a filter program over `input`.
fn filter(program: &str, arguments: &[&str], input: &[u8]) -> Vec<u8> {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("a filter program");
    let mut stdin = child.stdin.take().expect("stdin");
    let input = input.to_owned();
    let feeder = std::thread::spawn(move || stdin.write_all(&input));
    let output = child.wait_with_output().expect("output");
    feeder.join().expect("join").expect("feeding");
    assert!(output.status.success(), "{program} {arguments:?}");
    output.stdout
}

impl Fixture {
    fn new() -> Self {
        let fixture = Fixture { directory: tempfile::tempdir().expect("tempdir") };
        fixture.write_secret("passphrase", &format!("{PASSPHRASE}\nanother line\n"));
        fixture.add_dump();
        fixture.add_base();
        fixture
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn write_secret(&self, name: &str, content: &str) {
        fs::write(self.path(name), content).expect("write");
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(0o600)).expect("chmod");
    }

    fn repository(&self) -> Repository {
        let store = Arc::new(LocalStore::create(self.path("repository")).expect("create"));
        Repository::open_or_create("main", store, keyring(), &FixedClock::new(sample::time())).expect("repository")
    }

    /// As the product encrypts, but by the `openssl` program.
    fn encrypt(&self, plain: &[u8]) -> Vec<u8> {
        let pass = format!("file:{}", self.path("passphrase").display());
        filter(
            "openssl",
            &["enc", "-aes-256-cbc", "-pbkdf2", "-iter", "100000", "-md", "sha256", "-pass", &pass],
            plain,
        )
    }

    fn store(&self, manifest: &Manifest, contents: &[Vec<u8>]) {
        let repository = self.repository();
        for (object, content) in manifest.objects.iter().zip(contents) {
            repository.put_document(&object.key, content).expect("put");
        }
        repository.commit_manifest(manifest).expect("commit");
    }

    fn add_dump(&self) {
        let id: BackupId = sample::id(DUMP);
        let (neo4j, system) = (b"a dump of neo4j".repeat(10_000), b"a dump of system".to_vec());
        let config = self.tar("config", &[("etc/neo4j.conf", "dbms.x=1\n")]);
        let stored = [self.encrypt(&neo4j), self.encrypt(&system), self.encrypt(&filter("gzip", &["-c"], &config))];
        let secret = ["aes-256-cbc"];
        let objects = vec![
            sample::object(&id, "dump.enc", "neo4j", Content::Neo4jDump, &secret, &stored[0], &neo4j),
            sample::object(&id, "system.dump.enc", "system", Content::Neo4jDump, &secret, &stored[1], &system),
            sample::object(
                &id,
                "config.tar.gz.enc",
                "config",
                Content::Tar,
                &["gzip", "aes-256-cbc"],
                &stored[2],
                &config,
            ),
        ];
        self.store(&sample::manifest(&id, Engine::Neo4j, objects), &stored);
    }

    fn add_base(&self) {
        let id: BackupId = sample::id(BASE);
        let one = self.tar("one", &[("PG_VERSION", "15\n"), ("base/1/1259", &"page".repeat(100_000))]);
        let two = self.tar("two", &[("pg_wal/000000010000000000000001", "wal")]);
        let stored = [self.encrypt(&filter("zstd", &["-q", "-c"], &one)), filter("zstd", &["-q", "-c"], &two)];
        let objects = vec![
            sample::object(&id, "base.tar.zst.enc", "base", Content::Tar, &["zstd", "aes-256-cbc"], &stored[0], &one),
            sample::object(&id, "base.01.tar.zst", "base", Content::Tar, &["zstd"], &stored[1], &two),
        ];
        self.store(&sample::manifest(&id, Engine::Postgresql, objects), &stored);
    }

    fn tar(&self, name: &str, files: &[(&str, &str)]) -> Vec<u8> {
        let tree = self.path(name);
        for (path, content) in files {
            fs::create_dir_all(tree.join(path).parent().expect("parent")).expect("mkdir");
            fs::write(tree.join(path), content).expect("write");
        }
        let output = Command::new("tar").arg("-C").arg(&tree).args(["-cf", "-", "."]).output().expect("tar");
        assert!(output.status.success());
        output.stdout
    }

    fn restore(&self, id: &str, passphrase: &str, destination: &str) -> Output {
        self.command(id, passphrase, destination).output().expect("sh")
    }

    fn command(&self, id: &str, passphrase: &str, destination: &str) -> Command {
        let mut command = Command::new("/bin/sh");
        command
            .arg(self.path("repository/restore.sh"))
            .arg(id)
            .arg(self.path(passphrase))
            .arg(destination)
            .current_dir(self.directory.path())
            .env_remove("NBA_DERIVE")
            .env_remove("NBA_ENVIRONMENT");
        command
    }

    fn object(&self, suffix: &str) -> PathBuf {
        self.path("repository/environment=prod/year=2026/month=11/day=20").join(suffix)
    }

    fn assert_refused(&self, output: &Output, status: i32, word: &str) {
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(status), "{said}");
        assert!(said.contains(word), "{said}");
        for left in ["out", "out.partial", "out.config"] {
            assert!(!self.path(left).exists(), "{left} was left behind");
        }
    }
}

fn flip(path: &Path, position: usize) {
    let mut bytes = fs::read(path).expect("read");
    let at = position.min(bytes.len() - 1);
    bytes[at] ^= 1;
    fs::write(path, bytes).expect("write");
}

// req: X4, X9
#[test]
fn a_dump_comes_back_with_standard_tools_alone() {
    let fixture = Fixture::new();
    let output = fixture.restore(DUMP, "passphrase", "out");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(fs::read(fixture.path("out/neo4j.dump")).expect("read"), b"a dump of neo4j".repeat(10_000));
    assert_eq!(fs::read(fixture.path("out/system.dump")).expect("read"), b"a dump of system");
    assert_eq!(fs::read(fixture.path("out.config/etc/neo4j.conf")).expect("read"), b"dbms.x=1\n");
    assert_eq!(fs::read_dir(fixture.path("out")).expect("list").count(), 2);
    assert!(!fixture.path("out.partial").exists());
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("neo4j-admin database load --from-path="), "{said}");
}

// req: X4, X9
#[test]
fn a_base_of_several_lanes_comes_back_into_an_empty_directory() {
    let fixture = Fixture::new();
    for shell in ["/bin/sh", "/bin/bash"].into_iter().filter(|shell| Path::new(shell).exists()) {
        fs::create_dir(fixture.path("out")).expect("mkdir");
        let script = fixture.path("repository/restore.sh");
        let output = Command::new(shell)
            .arg(script)
            .args([BASE, "passphrase", "out/"])
            .current_dir(fixture.directory.path())
            .output()
            .expect("a shell");
        assert!(output.status.success(), "{shell}: {}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(fs::read_to_string(fixture.path("out/PG_VERSION")).expect("read"), "15\n");
        assert_eq!(fs::read_to_string(fixture.path("out/base/1/1259")).expect("read").len(), 400_000);
        assert_eq!(fs::read_to_string(fixture.path("out/pg_wal/000000010000000000000001")).expect("read"), "wal");
        assert!(String::from_utf8_lossy(&output.stdout).contains("pg_ctl -D"));
        fs::remove_dir_all(fixture.path("out")).expect("remove");
    }
}

// req: X5
#[test]
fn whatever_was_changed_is_refused_before_anything_is_decrypted() {
    let fixture = Fixture::new();
    for (name, position) in [
        ("graph-20261120T020000Z.meta.json", 3),
        ("graph-20261120T020000Z.meta.json", 700),
        ("graph-20261120T020000Z.meta.json", usize::MAX),
        ("graph-20261120T020000Z.dump.enc", 0),
        ("graph-20261120T020000Z.dump.enc", 100_000),
        ("graph-20261120T020000Z.config.tar.gz.enc", usize::MAX),
    ] {
        flip(&fixture.object(name), position);
        let output = fixture.restore(DUMP, "passphrase", "out");
        let word = if name.ends_with("json") { "signature" } else { "damaged" };
        fixture.assert_refused(&output, 13, word);
        flip(&fixture.object(name), position);
    }
    let (object, aside) = (fixture.object("graph-20261120T020000Z.system.dump.enc"), fixture.path("aside"));
    fs::rename(&object, &aside).expect("rename");
    fixture.assert_refused(&fixture.restore(DUMP, "passphrase", "out"), 13, "missing");
    fs::copy(fixture.object("graph-20261120T020000Z.dump.enc"), &object).expect("copy");
    fixture.assert_refused(&fixture.restore(DUMP, "passphrase", "out"), 13, "another size");
    fs::rename(&aside, &object).expect("rename");
    // Another backup's manifest, soundly signed, under this one's name.
    let foreign = fixture.object("graph-20261120T020001Z.meta.json");
    fs::copy(fixture.object("graph-20261120T020000Z.meta.json"), &foreign).expect("copy");
    fixture.assert_refused(&fixture.restore("graph-20261120T020001Z-dump", "passphrase", "out"), 4, DUMP);
    assert!(fixture.restore(DUMP, "passphrase", "out").status.success(), "undamaged, it opens");
}

// req: X5
#[test]
fn a_wrong_passphrase_writes_nothing() {
    let fixture = Fixture::new();
    fixture.write_secret("wrong", "another passphrase, long enough\n");
    fixture.assert_refused(&fixture.restore(DUMP, "wrong", "out"), 12, keyring().current().id().as_str());
    fixture.write_secret("short", "short\n");
    fixture.assert_refused(&fixture.restore(DUMP, "short", "out"), 12, "20 to 1023");
    fixture.assert_refused(&fixture.restore(DUMP, "nowhere", "out"), 2, "cannot be read");
}

// req: D8
#[test]
fn the_newest_passphrase_restores_what_an_older_one_made() {
    let fixture = Fixture::new();
    let newer = "another passphrase, long enough";
    fixture.repository().prepare_rotation(&sample::key_of(newer)).expect("rotation");
    fixture.write_secret("newer", &format!("{newer}\n"));
    fixture.write_secret("stranger", "a third passphrase, just as long\n");
    let output = fixture.restore(DUMP, "newer", "out");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(fs::read(fixture.path("out/neo4j.dump")).expect("read") == b"a dump of neo4j".repeat(10_000));
    fs::remove_dir_all(fixture.path("out")).expect("remove");
    fs::remove_dir_all(fixture.path("out.config")).expect("remove");
    let own = sample::key_of("a third passphrase, just as long").id().clone();
    fixture.assert_refused(&fixture.restore(DUMP, "stranger", "out"), 12, own.as_str());
    // Kept under another name, it is not what the manifest asks for.
    let kept = fixture.path(&format!("repository/keys/{}.enc", keyring().current().id()));
    let mut bytes = fs::read(&kept).expect("read");
    bytes[20] ^= 1;
    fs::write(&kept, bytes).expect("write");
    fixture.assert_refused(&fixture.restore(DUMP, "newer", "out"), 12, keyring().current().id().as_str());
}

#[test]
fn what_is_there_is_never_overwritten() {
    let fixture = Fixture::new();
    for taken in ["out", "out.partial", "out.config"] {
        fs::create_dir(fixture.path(taken)).expect("mkdir");
        fs::write(fixture.path(taken).join("mine"), b"mine").expect("write");
        assert_eq!(fixture.restore(DUMP, "passphrase", "out").status.code(), Some(4), "{taken}");
        assert_eq!(fs::read(fixture.path(taken).join("mine")).expect("read"), b"mine");
        fs::remove_dir_all(fixture.path(taken)).expect("rmdir");
    }
    for id in ["graph", "graph-x-dump", "../x-20261120T020000Z-dump", "graph-20261120T020000Z*-dump", ""] {
        fixture.assert_refused(&fixture.restore(id, "passphrase", "out"), 2, "not a backup's id");
    }
    fixture.assert_refused(&fixture.restore("graph-20261120T030000Z-dump", "passphrase", "out"), 4, "no manifest");
    fixture.assert_refused(&fixture.restore("graph-20261120T020000Z-base", "passphrase", "out"), 4, DUMP);
}

/// A directory with a stand-in for each program the script may use, which notes its arguments and then runs it.
fn watched_programs(fixture: &Fixture) -> PathBuf {
    let directory = fixture.path("bin");
    fs::create_dir(&directory).expect("mkdir");
    for program in [
        "openssl", "zstd", "gzip", "tar", "awk", "od", "head", "tail", "tr", "cut", "wc", "cat", "ls", "mkdir", "mv",
        "rm", "rmdir", "dirname", "sync", "perl",
    ] {
        let real = ["/usr/bin", "/bin"]
            .iter()
            .map(|place| Path::new(place).join(program))
            .find(|path| path.exists())
            .unwrap_or_else(|| panic!("{program} is not installed"));
        let script = format!(
            "#!/bin/sh\necho {program} \"$@\" >>'{}'\nexec '{}' \"$@\"\n",
            fixture.path("argv").display(),
            real.display()
        );
        fs::write(directory.join(program), script).expect("write");
        fs::set_permissions(directory.join(program), fs::Permissions::from_mode(0o755)).expect("chmod");
    }
    directory
}

#[test]
fn only_the_named_programs_are_needed_and_none_sees_a_secret_among_its_arguments() {
    let fixture = Fixture::new();
    let programs = watched_programs(&fixture);
    let output = fixture
        .command(DUMP, "passphrase", "out")
        .env("PATH", &programs)
        .env("NBA_DERIVE", "perl")
        .output()
        .expect("sh");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let seen = fs::read_to_string(fixture.path("argv")).expect("read");
    assert!(seen.contains("openssl enc -d") && seen.contains("openssl dgst"), "{seen}");
    let mut signing = [0u8; 32];
    pbkdf2(PASSPHRASE.as_bytes(), 100_000, &mut signing);
    let secrets = [PASSPHRASE.to_owned(), hex::encode(PASSPHRASE), hex::encode(signing), hex::encode_upper(signing)];
    for secret in secrets {
        assert!(!seen.contains(&secret), "{secret} was an argument");
    }
}

fn pbkdf2(passphrase: &[u8], rounds: usize, key: &mut [u8]) {
    openssl::pkcs5::pbkdf2_hmac(
        passphrase,
        crate::artifact::signing::SIGNING_SALT,
        rounds,
        openssl::hash::MessageDigest::sha256(),
        key,
    )
    .expect("pbkdf2");
}

#[test]
fn every_way_to_derive_the_key_gives_the_same() {
    let fixture = Fixture::new();
    let functions = RESTORE_SCRIPT.strip_suffix("main \"$@\"\n").expect("the script ends in its call of main");
    // 28, 64, 65 and 1023 bytes: HMAC treats keys beyond a block differently.
    for passphrase in [PASSPHRASE.to_owned(), "x".repeat(64), "ü%\\ $(id)".repeat(6) + "1", "y".repeat(1023)] {
        fixture.write_secret("key", &format!("{passphrase}\n"));
        let rounds = 150;
        let mut expected = [0u8; 32];
        pbkdf2(passphrase.as_bytes(), rounds, &mut expected);
        for way in ["python3", "perl", "shell"] {
            for shell in ["/bin/sh", "/bin/bash"] {
                // perl and a POSIX shell are on every host of ours; the other two may be missing.
                let missing =
                    |program: &str| !Command::new(program).arg("--version").output().is_ok_and(|o| o.status.success());
                if (way == "python3" && missing(way)) || (shell == "/bin/bash" && missing(shell)) {
                    continue;
                }
                let script = format!(
                    "{functions}\npassphrase_file={}\nROUNDS={rounds}\nread_passphrase\nderive \"$passphrase_file\"\nprintf %s \"$signing_key\"",
                    fixture.path("key").display()
                );
                let output = Command::new(shell).args(["-c", &script]).env("NBA_DERIVE", way).output().expect("sh");
                let said = String::from_utf8_lossy(&output.stdout);
                assert_eq!(
                    said,
                    hex::encode(expected),
                    "{way} in {shell}: {}",
                    String::from_utf8_lossy(&output.stderr)
                );
            }
        }
    }
}

#[test]
fn the_script_names_the_salt_and_rounds_of_the_format() {
    use crate::artifact::signing::{SIGNING_ITERATIONS, SIGNING_SALT};
    assert!(RESTORE_SCRIPT.contains(&format!("SALT_HEX={}", hex::encode(SIGNING_SALT))));
    assert!(RESTORE_SCRIPT.contains(&format!("ROUNDS={SIGNING_ITERATIONS}\n")));
    assert!(RECOVER_TEXT.contains("neo4j-backup/v1/sign") && RECOVER_TEXT.contains("restore.sh"));
}

#[test]
fn the_texts_are_kept_up_to_date_and_not_rewritten_without_need() {
    let memory = MemoryStore::default();
    let store = RecordStore::new(Arc::new(memory.clone()));
    refresh(&store).expect("first");
    let key = ObjectKey::new("restore.sh").expect("key");
    assert_eq!(memory.contents()[&key], RESTORE_SCRIPT.as_bytes());
    store.forget();
    refresh(&store).expect("again");
    assert_eq!(store.calls(), ["read RECOVER.txt", "read restore.sh"]);
    memory.damage(&key, |bytes| bytes.truncate(10)).expect("damage");
    refresh(&store).expect("mended");
    assert_eq!(memory.contents()[&key], RESTORE_SCRIPT.as_bytes());
}
