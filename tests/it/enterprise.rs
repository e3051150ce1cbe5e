//! `full = "enterprise"` without Neo4j Enterprise, which cannot be had: a stand-in answers `database backup` and
//! `database restore` as the manual says, artifacts are laid out as Community's own `database load` reads them, and
//! everything else (stores, `load`, scratch servers, `database check`) is real.

use crate::servers::neo4j::{Jars, NEWEST_VERSION, Neo4jOptions, Neo4jServer, VERSION};
use crate::site::{Site, walk};
use neo4j_backup_agent::base::clock::wait_until;
use neo4j_backup_agent::base::ids::BackupKind;
use neo4j_backup_agent::base::process::LocalLauncher;
use neo4j_backup_agent::base::task::Task;
use neo4j_backup_agent::base::{Code, Error};
use neo4j_backup_agent::driver::Driver;
use neo4j_backup_agent::driver::neo4j::{Neo4jDriver, Neo4jDriverSettings, log};
use neo4j_backup_agent::operation::answer::{Answer, RestoreReport};
use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

mod differential;

const PATIENCE: Duration = Duration::from_secs(60);
const INTERVAL: Duration = Duration::from_millis(10);
/// The store id of the stub's log, as a header has it.
const STUB_STORE: &str = "01000001a1f8c208e6d0a548bae547ce2a067265636f726407616c69676e65640101";

/// What a full artifact of the stub ends with.
const STUB_END: u64 = 42;

/// What the header of an artifact says; one that does not begin with 1 is differential.
fn description(database: &str, store: &[u8], range: (u64, u64)) -> Vec<u8> {
    let mut bytes = [&[2][..], store, &[16], &[7; 16], &[database.len() as u8], database.as_bytes()].concat();
    for number in [1_795_212_000u64, range.0, range.1] {
        bytes.extend(number.to_be_bytes());
    }
    // Recovered, compressed, full; no further fields.
    bytes.extend([1, if range.0 == 1 { 0b111 } else { 0b011 }, 0, 0, 0, 0]);
    bytes
}

/// An artifact with the store of a dump, in the layout of 5.x (`BZV2`) or of 2026 (`BZV3`).
fn artifact(letters: &str, database: &str, store: &[u8], dump: &[u8], end: u64) -> Vec<u8> {
    assert_eq!(&dump[..4], b"DZV1");
    let content = zstd::decode_all(&dump[4..]).expect("a dump");
    assert_eq!(&content[..4], b"zstd");
    wrapped(letters, &description(database, store, (1, end)), &content)
}

/// A differential artifact that holds `piece` of a log. What else Neo4j puts into one is not known.
fn differential(letters: &str, database: &str, store: &[u8], range: (u64, u64), piece: &[u8]) -> Vec<u8> {
    wrapped(letters, &description(database, store, range), &[&b"zstd"[..], piece].concat())
}

fn wrapped(letters: &str, described: &[u8], content: &[u8]) -> Vec<u8> {
    match letters {
        "BZV2" => {
            let inner = [&content[..4], described, &content[4..]].concat();
            [&b"BZV2"[..], &zstd::encode_all(&inner[..], 1).expect("zstd")[..]].concat()
        }
        _ => [&b"BZV3"[..], described, &zstd::encode_all(content, 1).expect("zstd")[..]].concat(),
    }
}

/// A dump of nothing that means anything.
fn meaningless() -> Vec<u8> {
    let mut state = 1u32;
    let noise: Vec<u8> = (0..5000)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        })
        .collect();
    [&b"DZV1"[..], &zstd::encode_all(&[&b"zstd"[..], &noise].concat()[..], 1).expect("zstd")[..]].concat()
}

/// Writes the stand-in to `path`.
fn stand_in(path: &Path, real: &Path, fixtures: &Path, version: &str) {
    let script = include_str!("enterprise/stand_in.sh");
    let settings =
        format!("REAL='{}'\nFIXTURES='{}'\nVERSION='{version}'\nset -eu\n", real.display(), fixtures.display());
    fs::create_dir_all(fixtures).expect("mkdir");
    fs::write(path, script.replacen("set -eu\n", &settings, 1)).expect("script");
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("chmod");
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn debris(site: &Site) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for place in ["scratch", "staging", "host", "unfinished", "processes"] {
        walk(&site.path("state").join(place), &mut found);
    }
    walk(&site.path("repository/.incomplete"), &mut found);
    found
}

/// The serialised store id in a server's checkpoint log.
fn store_id(server: &Neo4jServer, database: &str) -> Vec<u8> {
    let header = fs::read(server.data().join(format!("transactions/{database}/checkpoint.0"))).expect("checkpoint log");
    let id = &header[24..88];
    let engine = 17 + 1 + usize::from(id[17]);
    let end = engine + 1 + usize::from(id[engine]) + 2;
    id[..end].to_vec()
}

/// Makes the target; `admin` is the program that is its neo4j-admin.
fn configure(site: &Site, home: &Path, admin: &str) {
    let home = home.display();
    site.configure(&format!(
        "[target.graph]\nkind = \"neo4j\"\nhome = \"{home}\"\nconf = \"{home}/conf/neo4j.conf\"\nunit = \"none\"\n\
         admin = \"{home}/bin/{admin}\"\nserver_command = \"{home}/bin/neo4j\"\nbolt = \"off\"\nfull = \"enterprise\"\n"
    ));
}

fn restored(site: &Site, id: &str, name: &str) -> RestoreReport {
    match site.restore_into("graph", id, &site.path(name)) {
        Ok(Answer::Restore(report)) => report,
        other => panic!("{other:?}"),
    }
}

/// Full artifacts of what a stopped server holds.
fn full_fixtures(server: &Neo4jServer, letters: &str, fixtures: &Path) {
    let real = server.home().join("bin/neo4j-admin");
    for database in ["neo4j", "system"] {
        let dump = Command::new(&real).args(["database", "dump", "--to-stdout", database]).output().expect("dump");
        let end = closed(server, database).2;
        let bytes = artifact(letters, database, &store_id(server, database), &dump.stdout, end);
        fs::write(fixtures.join(format!("{database}.backup")), bytes).expect("fixture");
        fs::write(fixtures.join(format!("{database}.highest")), end.to_string()).expect("fixture");
    }
}

/// Where the log of a stopped server ends: file, byte, append index.
fn closed(server: &Neo4jServer, database: &str) -> (u64, u64, u64) {
    let logs = server.data().join(format!("transactions/{database}"));
    let end = log::end_of_closed(&logs).expect("readable").expect("closed");
    (end.log_version, end.log_offset, end.append_index.unwrap_or(end.transaction))
}

/// A whole round with the real tools of one release: artifacts of a real store go into the repository and come back.
fn round(version: &'static str, letters: &str) {
    let site = Site::with("");
    let options = Neo4jOptions { version: Some(version), jars: Jars::Linked, ..Neo4jOptions::default() };
    let server = Neo4jServer::start(site.root(), &options);
    server.fill();
    server.stop();
    let (home, fixtures) = (server.home().to_owned(), site.path("fixtures"));
    let real = home.join("bin/neo4j-admin");
    stand_in(&home.join("bin/enterprise-admin"), &real, &fixtures, "");
    full_fixtures(&server, letters, &fixtures);
    server.start_again();
    let service = pretend_enterprise(&home);
    let address = service.local_addr().expect("address");

    configure(&site, &home, "neo4j-admin");
    let refused = site.run(&["backup", "graph"]);
    assert!(text(&refused).contains("neo4j-admin of Community has no `database backup`"), "{}", text(&refused));
    assert_eq!(refused.status.code(), Some(i32::from(Code::Neo4jUnsupported.exit())));

    configure(&site, &home, "enterprise-admin");
    let report = site.backup("graph");
    assert_eq!((report.method.as_str(), report.downtime_ms), ("neo4j-admin database backup", 0));
    let names: Vec<String> = site.objects().iter().map(|path| path.display().to_string()).collect();
    for ending in [".backup.enc", ".system.backup.enc", ".config.tar.zst.enc", ".meta.json"] {
        assert_eq!(
            names.iter().filter(|name| name.ends_with(ending)).count(),
            1 + usize::from(ending == ".backup.enc")
        );
    }
    let said = fs::read_to_string(fixtures.join("said")).expect("said");
    assert!(said.contains(&format!("--from={address} ")) && said.contains("--include-metadata=all neo4j\n"), "{said}");
    assert_eq!(debris(&site), Vec::<PathBuf>::new());
    site.verify().expect("sound");

    // By `database restore`, then by Community's own `database load`.
    let id = report.id.to_string();
    for (admin, name) in [("enterprise-admin", "by-restore"), ("neo4j-admin", "by-load")] {
        configure(&site, &home, admin);
        let report = restored(&site, &id, name);
        let checks = ["connectivity", "schema_consistency", "orphan_detection", "database_check"];
        crate::roundtrip::all_checked(&report.checks, &checks);
        for directory in ["databases/neo4j", "databases/system", "transactions/neo4j", "transactions/system"] {
            assert!(site.path(name).join(directory).is_dir(), "{name}: {directory}");
        }
    }
    let said = fs::read_to_string(fixtures.join("said")).expect("said");
    assert_eq!(said.matches("database restore --from-path=").count(), 2, "{said}");
    assert_eq!(debris(&site), Vec::<PathBuf>::new());
}

/// Gives a home what an Enterprise server has and this one lacks: its jars, its service. No server reads either from here on.
fn pretend_enterprise(home: &Path) -> TcpListener {
    fs::write(home.join("lib/neo4j-enterprise-stand-in.jar"), [&b"PK\x05\x06"[..], &[0; 18]].concat()).expect("jar");
    let service = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = service.local_addr().expect("address");
    let mut conf = fs::OpenOptions::new().append(true).open(home.join("conf/neo4j.conf")).expect("conf");
    writeln!(conf, "server.backup.listen_address={address}").expect("conf");
    service
}

/// Versions, and the format that their artifacts have.
const OLDEST: (&str, &str) = (VERSION, "BZV2");
const NEWEST: (&str, &str) = (NEWEST_VERSION, "BZV3");

/// Each takes minutes: a campaign plays both versions, the tests one of them each.
fn played(one: (&'static str, &'static str)) -> Vec<(&'static str, &'static str)> {
    if std::env::var_os("NEO4J_BACKUP_ROUNDS").is_some() { vec![OLDEST, NEWEST] } else { vec![one] }
}

// req: E5
#[test]
fn artifacts_of_a_real_store_go_into_the_repository_and_come_back() {
    for (version, format) in played(OLDEST) {
        round(version, format);
    }
}

/// A home whose tools are scripts and whose server is a process that only looks like one.
struct Stub {
    site: Site,
    server: Child,
    service: TcpListener,
}

impl Stub {
    fn new() -> Stub {
        let site = Site::with("");
        let settings = crate::neo4j::stub_home(site.root(), "exit 9");
        let home = settings.home;
        fs::create_dir_all(home.join("data/transactions/system")).expect("mkdir");
        fs::write(home.join("lib/neo4j-enterprise-stand-in.jar"), b"").expect("jar");
        let service = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = service.local_addr().expect("address");
        fs::write(home.join("conf/neo4j.conf"), format!("server.backup.listen_address={address}\n")).expect("conf");
        let server = Command::new("/bin/sh")
            .args(["-c", "read line", "com.neo4j.server.StandIn"])
            .arg(format!("--home-dir={}", home.display()))
            .stdin(Stdio::piped())
            .spawn()
            .expect("sh");
        let stub = Stub { site, server, service };
        stub.admin("5.26.0");
        let store = hex::decode(STUB_STORE).expect("hex");
        for database in ["neo4j", "system"] {
            let bytes = artifact("BZV2", database, &store, &meaningless(), STUB_END);
            fs::write(stub.fixture(&format!("{database}.backup")), bytes).expect("fixture");
            fs::write(stub.fixture(&format!("{database}.highest")), STUB_END.to_string()).expect("fixture");
        }
        stub.offer("neo4j", (0, 0));
        configure(&stub.site, &stub.home(), "neo4j-admin");
        stub
    }

    fn home(&self) -> PathBuf {
        self.site.path("stub")
    }

    fn fixture(&self, name: &str) -> PathBuf {
        self.site.path("fixtures").join(name)
    }

    fn admin(&self, version: &str) {
        stand_in(&self.home().join("bin/neo4j-admin"), Path::new("/bin/false"), &self.site.path("fixtures"), version);
    }

    /// Shell that the stand-in runs where it would write the artifact.
    fn behave(&self, script: &str) {
        fs::write(self.fixture("behave"), script).expect("behave");
    }

    fn backup(&self) -> Result<(), Error> {
        let request = crate::site::backup_request("graph");
        let answer = self.site.ask(&neo4j_backup_agent::operation::request::Request::Backup(request));
        assert_eq!(debris(&self.site), Vec::<PathBuf>::new(), "{answer:?}");
        answer.map(drop)
    }

    /// Lays out the differential artifact of a range for the stand-in to hand out.
    fn offer(&self, database: &str, range: (u64, u64)) {
        let store = hex::decode(STUB_STORE).expect("hex");
        let piece = meaningless().split_off(100);
        let bytes = differential("BZV2", database, &store, range, &piece);
        fs::write(self.fixture(&format!("{database}.{}-{}.diff", range.0, range.1)), bytes).expect("fixture");
    }

    fn fails(&self, code: Code, words: &str) {
        let error = self.backup().expect_err(words);
        assert_eq!(error.code(), code, "{error:?}");
        assert!(error.message().contains(words), "{words}: {error:?}");
        assert_eq!(self.site.objects(), Vec::<PathBuf>::new());
    }
}

impl Drop for Stub {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

// req: B11 E5
#[test]
fn a_tool_that_fails_or_lies_never_makes_a_backup() {
    let stub = Stub::new();
    let lies = "neo4j-admin claims success, but ";
    let cases = [
        ("echo 'Backup failed: no such database' ; exit 1", "exit status: 1; it said: Backup failed: no such database"),
        ("echo out of luck >&2; exit 1", "it said: out of luck"),
        ("exit 0", "it left no artifact"),
        (": >\"$artifact\"; exit 0", "it is empty"),
        ("head -c 20 \"$FIXTURES/neo4j.backup\" >\"$artifact\"; exit 0", lies),
        ("head -c 3000 \"$FIXTURES/$database.backup\" >\"$artifact\"; exit 0", "it broke off"),
        ("cp \"$FIXTURES/system.backup\" \"$artifact\"; exit 0", "it is of database \"system\""),
        ("ln -s \"$FIXTURES/neo4j.backup\" \"$artifact\"; exit 0", "opening"),
        (
            "cp \"$FIXTURES/neo4j.backup\" \"$artifact\"; cp \"$artifact\" \"$to/2.backup\"; exit 0",
            "it left 2 artifacts",
        ),
        ("[ $database = neo4j ] || exit 1", "backing up database system"),
    ];
    for (script, words) in cases {
        stub.behave(script);
        let error = stub.backup().expect_err(script);
        assert!(error.message().contains(words), "{script}: {error:?}");
        assert!(matches!(error.code(), Code::Neo4jAdminFailed | Code::IoFailed), "{script}: {error:?}");
        assert_eq!(stub.site.objects(), Vec::<PathBuf>::new(), "{script}");
    }
    stub.behave("echo 'java.io.IOException: No space left on device' >&2; exit 1");
    stub.fails(Code::BackupNoSpace, "No space left");
    stub.behave("");
    let other = hex::decode(STUB_STORE.replace("a548", "a549")).expect("hex");
    let sound = fs::read(stub.fixture("neo4j.backup")).expect("read");
    fs::write(stub.fixture("neo4j.backup"), artifact("BZV2", "neo4j", &other, &meaningless(), STUB_END))
        .expect("write");
    stub.fails(Code::Neo4jAdminFailed, "it is of another store");
    fs::write(stub.fixture("neo4j.backup"), sound).expect("write");
    stub.backup().expect("a sound one at last");
}

// req: E5
#[test]
fn what_cannot_work_is_said_before_anything_starts() {
    let mut stub = Stub::new();
    let output = stub.site.run(&["backup", "graph", "--type", "dump"]);
    assert!(text(&output).contains("no log is archived that a dump of the running server"), "{}", text(&output));
    assert_eq!(output.status.code(), Some(i32::from(Code::NotAvailable.exit())));
    stub.admin("5.25.1");
    stub.fails(Code::Neo4jAdminFailed, "is of version 5.25.1, the server of 5.26.0");
    stub.admin("5.26.0");
    let conf = stub.home().join("conf/neo4j.conf");
    let text = fs::read_to_string(&conf).expect("conf");
    fs::write(&conf, format!("{text}server.backup.enabled=false\n")).expect("conf");
    stub.fails(Code::Neo4jUnsupported, "server.backup.enabled is false");
    fs::write(&conf, &text).expect("conf");
    fs::remove_file(stub.home().join("lib/neo4j-enterprise-stand-in.jar")).expect("jar");
    stub.fails(Code::Neo4jUnsupported, "the server is of Neo4j Community");
    fs::write(stub.home().join("lib/neo4j-enterprise-stand-in.jar"), b"").expect("jar");
    // Nobody listens at the port any more.
    let gone = std::mem::replace(&mut stub.service, TcpListener::bind("127.0.0.1:0").expect("a port"));
    drop(gone);
    stub.fails(Code::Neo4jUnreachable, "looking for the backup service");
    let _ = stub.server.kill();
    let _ = stub.server.wait();
    stub.fails(Code::Neo4jUnreachable, "the server is not running");
    assert!(
        !stub.fixture("said").exists() || !fs::read_to_string(stub.fixture("said")).expect("said").contains("backup")
    );
}

// req: A14 E5
#[test]
fn a_kill_in_the_middle_leaves_nothing() {
    let stub = Stub::new();
    stub.behave("head -c 900 \"$FIXTURES/neo4j.backup\" >\"$artifact\"; echo $$ >\"$FIXTURES/pid\"; exec sleep 600");
    let mut agent = stub.site.command();
    agent.args(["backup", "graph"]).stdout(Stdio::null()).stderr(Stdio::null());
    let mut agent = agent.spawn().expect("the agent starts");
    let pid = || fs::read_to_string(stub.fixture("pid")).ok()?.trim().parse::<u32>().ok();
    assert!(wait_until(PATIENCE, INTERVAL, || pid().is_some()), "the tool never ran");
    agent.kill().expect("kill -9");
    agent.wait().expect("ended");
    let next = stub.site.run(&["list"]);
    assert!(next.status.success(), "{}", text(&next));
    let gone = || !Path::new(&format!("/proc/{}/exe", pid().expect("pid"))).exists();
    assert!(wait_until(PATIENCE, INTERVAL, gone), "the tool goes on");
    assert_eq!(debris(&stub.site), Vec::<PathBuf>::new());
    assert_eq!(stub.site.objects(), Vec::<PathBuf>::new());
}

// req: E5
#[test]
fn real_community_tools_of_both_releases_are_told_from_enterprise() {
    for version in [VERSION, NEWEST_VERSION] {
        let scene = tempfile::tempdir().expect("tempdir");
        let server =
            Neo4jServer::lay_out(scene.path(), &Neo4jOptions { version: Some(version), ..Neo4jOptions::default() });
        let settings = Neo4jDriverSettings { full: BackupKind::Enterprise, ..server.driver_settings() };
        let driver = Neo4jDriver::new(settings, Arc::new(LocalLauncher::default()));
        let task = Task::unobserved();
        let error = driver.check_tools(BackupKind::Enterprise, &task).expect_err("Community");
        assert_eq!(error.code(), Code::Neo4jUnsupported, "{error:?}");
        assert!(error.message().starts_with("neo4j-admin of Community has no `database backup`"), "{error:?}");
        assert!(error.hint().contains("full = \"online\""), "{error:?}");
        let findings = driver.doctor(&task);
        let found = findings.iter().find(|finding| finding.code == "enterprise-backup-impossible").expect("a finding");
        assert_eq!(found.text, error.message());
    }
}
