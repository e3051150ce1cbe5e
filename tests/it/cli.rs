//! The programs as people and scripts run them.

use crate::service::TestAgent;
use crate::site::Site;
use crate::workshop::{INTERVAL, PATIENCE, backup_report, backup_request, target, verify_report};
use neo4j_backup_agent::agent::jobs::Registry;
use neo4j_backup_agent::artifact::signing::Key;
use neo4j_backup_agent::base::Code;
use neo4j_backup_agent::base::clock::wait_until;
use neo4j_backup_agent::base::ids::JobId;
use neo4j_backup_agent::base::secret::Secret;
use neo4j_backup_agent::base::task::{Progress, Severity};
use neo4j_backup_agent::cli::args::{Client, Daemon};
use neo4j_backup_agent::cli::connection::{Backend, Reply, Watcher};
use neo4j_backup_agent::cli::in_process::InProcess;
use neo4j_backup_agent::operation::answer::{Answer, JobState};
use neo4j_backup_agent::operation::request::{Request, VerifyRequest};
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

const CLIENT: &str = env!("CARGO_BIN_EXE_neo4j-backupctl");
const DAEMON: &str = env!("CARGO_BIN_EXE_neo4j-backupd");

fn client(agent: &TestAgent, words: &[&str]) -> Output {
    Command::new(CLIENT).args(["--bus", agent.bus.address()]).args(words).output().expect("client")
}

fn alone(words: &[&str]) -> Output {
    Command::new(CLIENT).args(words).stdin(Stdio::null()).output().expect("client")
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("text")
}

fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("text")
}

fn status(output: &Output) -> i32 {
    output.status.code().expect("it ended by itself")
}

// req: K1, B4
#[test]
fn a_backup_through_the_agent_shows_progress_and_says_what_it_made() {
    let agent = TestAgent::start();
    agent.workshop.open_gate();
    let done = client(&agent, &["backup", "graph"]);
    assert_eq!(status(&done), 0, "{}", err(&done));
    for part in [
        "graph-20261120T020000Z-dump is complete in main",
        "5.26.0",
        "neo4j-admin database dump",
        "5.9 KiB → 1000 B (6.0:1)",
        &"ab".repeat(32),
        "12 nodes, 7 relationships",
        "1.2 s",
    ] {
        assert!(out(&done).contains(part), "{part} in {}", out(&done));
    }
    assert!(err(&done).contains("warning: the server was stopped for this"), "{}", err(&done));
    assert!(!err(&done).contains('\u{1b}'), "no bar in a pipe: {}", err(&done));
    let json = client(&agent, &["-j", "-q", "backup", "graph"]);
    let answer: Answer = serde_json::from_slice(&json.stdout).expect("JSON");
    assert_eq!(answer, Answer::Backup(backup_report(&target("graph"), false)));
    assert_eq!(out(&json).lines().count(), 1, "short in a pipe");
    assert!(out(&client(&agent, &["--json=pretty", "backup", "graph"])).lines().count() > 10);
}

#[test]
fn questions_are_answered_as_text_and_as_json() {
    let agent = TestAgent::start();
    let nothing = client(&agent, &[]);
    assert!(out(&nothing).starts_with("graph: restorable to "), "{}", out(&nothing));
    assert_eq!(out(&client(&agent, &["status", "metrics", "--no-legend"])).lines().count(), 1);
    let words: [&[&str]; 8] = [
        &["status"],
        &["list"],
        &["list", "graph"],
        &["history"],
        &["jobs"],
        &["restores"],
        &["check"],
        &["key", "list"],
    ];
    for words in words {
        let text = client(&agent, words);
        assert_eq!((status(&text), err(&text)), (0, String::new()), "{words:?}");
        assert!(!out(&text).trim().is_empty(), "{words:?}");
        let json = client(&agent, &[words, &["--json=short"]].concat());
        serde_json::from_str::<Answer>(&out(&json)).unwrap_or_else(|e| panic!("{words:?}: {e}: {}", out(&json)));
    }
    let nagios = client(&agent, &["check", "--nagios"]);
    assert_eq!((status(&nagios), out(&nagios).as_str()), (0, "NEO4J-BACKUP OK - nothing is wrong\n"));
}

#[test]
fn errors_have_the_same_status_over_the_bus_as_without_it() {
    let agent = TestAgent::start();
    for code in [Code::BackupNoSpace, Code::WrongKey, Code::Neo4jUnreachable, Code::Busy, Code::RepositoryNotFound] {
        let failed = client(&agent, &["backup", "broken", "--note", code.name()]);
        assert_eq!(status(&failed), i32::from(code.exit()), "{code}");
        let said = format!("error: {code}: the work broke\nhint: mend it\n");
        assert!(err(&failed).contains(&said), "{}", err(&failed));
        assert_eq!(out(&failed), "");
        let json = client(&agent, &["--json=short", "backup", "broken", "--note", code.name()]);
        let value: Value = serde_json::from_str(&out(&json)).expect("JSON");
        assert_eq!(value["error"]["code"], code.name());
        assert_eq!(
            (&value["error"]["message"], &value["error"]["hint"]),
            (&"the work broke".into(), &"mend it".into())
        );
        assert_eq!(status(&json), i32::from(code.exit()));
    }
    let missing = client(&agent, &["show", "graph-20200101T000000Z-dump"]);
    assert_eq!(status(&missing), 4);
}

// req: B15
#[test]
fn damage_is_reported_object_by_object_and_fails_over_the_bus() {
    let agent = TestAgent::start();
    for backup in ["damaged", "ruined"] {
        let request = VerifyRequest { backup: Some(backup.to_owned()), quick: false };
        let expected = verify_report(&request);
        let json = client(&agent, &["--json=short", "verify", backup]);
        assert_eq!((status(&json), err(&json)), (13, String::new()));
        let answer: Answer = serde_json::from_str(&out(&json)).expect("JSON");
        assert_eq!(answer, Answer::Verify(expected.clone()));
        let text = client(&agent, &["verify", backup]);
        assert_eq!(status(&text), 13, "{}", err(&text));
        for problem in &expected.backups[0].problems {
            assert!(out(&text).contains(&problem.object), "{}", problem.object);
        }
        assert!(err(&text).starts_with("error: BACKUP_CORRUPTED: "), "{}", err(&text));
        assert!(err(&text).contains("hint: do not restore from this backup"), "{}", err(&text));
        // Who comes later learns the same.
        let job = agent.registry.ended().last().expect("a job").id.to_string();
        let late = client(&agent, &["--json=short", "follow", &job]);
        assert_eq!((status(&late), serde_json::from_str::<Answer>(&out(&late)).expect("JSON")), (13, answer));
    }
    let on_record = agent.workshop.ended.lock().expect("ended");
    assert_eq!(on_record.len(), 4);
    for (record, ..) in on_record.iter() {
        assert_eq!((record.state, record.error_code.as_deref()), (JobState::Failed, Some("BACKUP_CORRUPTED")));
    }
    drop(on_record);
    assert_eq!(status(&client(&agent, &["verify", "--all"])), 0);
}

// req: B15
#[test]
fn damage_is_reported_object_by_object_and_fails_without_a_bus() {
    let site = Site::simulated();
    site.backup("sim");
    let config = site.config().display().to_string();
    let direct = |words: &[&str]| alone(&[&["--direct", "--config", &config], words].concat());
    assert_eq!(status(&direct(&["verify", "--all"])), 0);
    let damaged: Vec<_> =
        site.objects().into_iter().filter(|path| !path.to_string_lossy().ends_with(".meta.json")).collect();
    assert_eq!(damaged.len(), 2, "{damaged:?}");
    for path in &damaged {
        let mut bytes = std::fs::read(path).expect("read");
        bytes[40] ^= 1;
        std::fs::write(path, bytes).expect("damage");
    }
    for run in [direct(&["--json=short", "verify", "--all"]), site.run(&["--json=short", "verify", "--all"])] {
        assert_eq!(status(&run), 13, "{}", err(&run));
        let Ok(Answer::Verify(report)) = serde_json::from_str(&out(&run)) else { panic!("{}", out(&run)) };
        let named: Vec<_> = report.backups[0].problems.iter().map(|problem| problem.object.as_str()).collect();
        assert_eq!(named.len(), 2, "{named:?}");
        assert!(named.iter().all(|name| damaged.iter().any(|path| path.ends_with(name))), "{named:?}");
    }
    let text = direct(&["verify", "--all"]);
    assert_eq!(status(&text), 13);
    for path in &damaged {
        assert!(out(&text).contains(path.file_name().and_then(|name| name.to_str()).expect("name")), "{}", out(&text));
    }
    let history = out(&direct(&["history", "--json=short"]));
    assert!(history.contains("verify-failed") && history.contains("\"state\":\"failed\""), "{history}");
}

// req: B13
#[test]
fn the_log_says_how_many_bytes_a_job_moved() {
    let site = Site::simulated();
    let bytes_in = |run: &Output| -> u64 {
        let log = err(run);
        let line = log.lines().find(|line| line.contains(" succeeded ")).expect("the record of the end").to_owned();
        let number = line.split_once("BYTES=").expect("BYTES").1.split(' ').next().expect("a number");
        number.trim_start_matches("Some(").trim_end_matches(')').parse().unwrap_or_else(|_| panic!("{line}"))
    };
    let run = site.run(&["--json=short", "backup", "sim"]);
    let Ok(Answer::Backup(report)) = serde_json::from_str(&out(&run)) else { panic!("{}", err(&run)) };
    let moved = report.plain_bytes + report.stored_bytes;
    assert!(bytes_in(&run) >= moved, "written once and read back once: {}", err(&run));
    let run = site.run(&["verify", "--all"]);
    assert!(bytes_in(&run) >= report.plain_bytes, "{}", err(&run));
}

#[test]
fn a_job_can_be_left_running_followed_and_cancelled() {
    let agent = TestAgent::start();
    let started = client(&agent, &["backup", "graph", "--no-block"]);
    assert_eq!((status(&started), out(&started).as_str()), (0, "1\n"), "{}", err(&started));
    assert!(out(&client(&agent, &["jobs"])).contains("running"));
    let busy = client(&agent, &["backup", "graph"]);
    assert_eq!(status(&busy), 11);
    assert!(err(&busy).contains("job 1 (backup)"), "{}", err(&busy));
    let follower = Command::new(CLIENT)
        .args(["--bus", agent.bus.address(), "follow", "1"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("client");
    let cancelled = client(&agent, &["cancel", "1"]);
    assert_eq!(status(&cancelled), 0, "{}", err(&cancelled));
    let followed = follower.wait_with_output().expect("client");
    assert_eq!(status(&followed), 130, "{}", err(&followed));
    assert!(err(&followed).contains("error: CANCELLED: the job was cancelled"), "{}", err(&followed));
    assert_eq!(status(&client(&agent, &["follow", "1"])), 130, "who comes later learns the same");
    assert_eq!(status(&client(&agent, &["cancel", "1"])), 4);
    assert_eq!(status(&client(&agent, &["follow", "77"])), 4);
}

#[test]
fn leaving_does_not_end_the_job() {
    let agent = TestAgent::start();
    let mut waiting = Command::new(CLIENT)
        .args(["--bus", agent.bus.address(), "-v", "backup", "graph"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("client");
    let mut said = BufReader::new(waiting.stderr.take().expect("stderr"));
    let mut line = String::new();
    // Its first numbers mean that it waits for more.
    while !line.contains("dumping") {
        line.clear();
        assert!(said.read_line(&mut line).expect("line") > 0, "it ended");
    }
    let pid = nix::unistd::Pid::from_raw(i32::try_from(waiting.id()).expect("pid"));
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).expect("interrupt");
    assert_eq!(waiting.wait().expect("client").code(), Some(130));
    line.clear();
    std::io::Read::read_to_string(&mut said, &mut line).expect("rest");
    assert!(line.contains("job 1 goes on") && line.contains("neo4j-backupctl cancel 1"), "{line}");
    assert_eq!(agent.registry.running().len(), 1);
}

#[test]
fn without_an_agent_the_client_says_how_to_see_why() {
    let directory = tempfile::tempdir().expect("tempdir");
    let address = format!("unix:path={}", directory.path().join("no-bus").display());
    let failed = alone(&["--bus", &address, "status"]);
    assert_eq!(status(&failed), 1);
    assert!(err(&failed).contains("error: BUS_UNAVAILABLE: connecting to the bus at"), "{}", err(&failed));
    assert!(err(&failed).contains("hint: `systemctl status neo4j-backupd`"), "{}", err(&failed));
    let nagios = alone(&["--bus", &address, "check", "--nagios"]);
    assert_eq!((status(&nagios), out(&nagios).lines().count()), (3, 1));
    assert!(out(&nagios).starts_with("NEO4J-BACKUP UNKNOWN - BUS_UNAVAILABLE"), "{}", out(&nagios));
}

#[test]
fn nothing_is_destroyed_without_a_yes() {
    let agent = TestAgent::start();
    agent.workshop.open_gate();
    let refused = client(&agent, &["restore", "graph", "--in-place"]);
    assert_eq!(status(&refused), 4, "{}", err(&refused));
    assert!(err(&refused).contains("hint: give `--yes`"), "{}", err(&refused));
    assert!(agent.registry.ended().is_empty(), "nothing was asked of the agent");
    assert_eq!(status(&client(&agent, &["restore", "graph", "--in-place", "--dry-run"])), 0);
    assert_eq!(status(&client(&agent, &["restore", "graph", "--in-place", "--yes"])), 0);
    // The backup is looked up before anybody is asked about it.
    let unknown = client(&agent, &["delete", "graph-20200101T000000Z-dump"]);
    assert!(status(&unknown) == 4 && err(&unknown).contains("there is no backup"), "{}", err(&unknown));
    assert_eq!(status(&client(&agent, &["delete", "graph-20261120T020000Z-dump", "--yes"])), 0);
    assert_eq!(status(&client(&agent, &["delete", "graph-20261120T020000Z-dump", "--dry-run"])), 0);
}

#[test]
fn a_relative_directory_is_the_callers_not_the_agents() {
    let agent = TestAgent::start();
    agent.workshop.open_gate();
    let directory = tempfile::tempdir().expect("tempdir");
    let done = Command::new(CLIENT)
        .args(["--bus", agent.bus.address(), "restore", "graph", "--into", "fresh"])
        .current_dir(directory.path())
        .output()
        .expect("client");
    let real = directory.path().canonicalize().expect("path").join("fresh");
    assert!(out(&done).contains(&format!("is restored in {}", real.display())), "{}{}", out(&done), err(&done));
}

#[test]
fn a_command_line_that_is_not_understood_is_told_as_it_asks_and_without_a_wrong_lead() {
    let bogus = alone(&["-j", "backup", "graph", "--type", "bogus"]);
    assert_eq!((status(&bogus), err(&bogus).as_str()), (2, ""));
    let told: Value = serde_json::from_str(&out(&bogus)).expect("JSON");
    assert_eq!(told["error"]["code"], "USAGE");
    assert!(told["error"]["message"].as_str().is_some_and(|text| text.contains("bogus")), "{told}");
    for option in ["--to-tx", "--before-tx"] {
        let negative = alone(&["restore", "graph", option, "-1", "--into", "/x"]);
        let said = err(&negative);
        assert_eq!((status(&negative), out(&negative).as_str()), (2, ""));
        assert!(said.contains("named by its number") && !said.contains("-- -1"), "{said}");
    }
}

#[test]
fn what_comes_later_is_refused_as_such_and_a_slip_is_told_apart() {
    let later: [&[&str]; 7] = [
        &["drill", "graph"],
        &["replicate"],
        &["recover", "--from", "s3://x"],
        &["key", "kit"],
        &["pause", "graph"],
        &["restore", "--group", "all", "--to-time", "now"],
        &["restore", "graph", "--serve"],
    ];
    for words in later {
        let refused = alone(words);
        assert_eq!(status(&refused), 4, "{words:?}: {}", err(&refused));
        assert!(err(&refused).contains("is not part of this version"), "{words:?}: {}", err(&refused));
    }
    let slip = alone(&["statsu"]);
    assert_eq!(status(&slip), 2);
    assert!(err(&slip).contains("did you mean `status`?"), "{}", err(&slip));
    for usage in [
        &["backup"][..],
        &["history", "-n", "0"],
        &["restore", "graph"],
        &["backup", "../etc"],
        &["follow", "x"],
        &["backup", "graph", "--type", "incremental", "--note", "x"],
        &["restore", "graph", "--to-time", "soon", "--into", "/x"],
        &["restore", "graph", "--to-tx", "7", "--before-tx", "9", "--into", "/x"],
        &["restore", "metrics", "--to-name", "", "--into", "/x"],
        &["restore", "metrics", "--to-name", "release", "--to-lsn", "0/1", "--into", "/x"],
        &["--nonsense"],
    ] {
        assert_eq!(status(&alone(usage)), 2, "{usage:?}");
    }
    let helper = Command::new(DAEMON).arg("helper").output().expect("daemon");
    assert_eq!(status(&helper), 4, "{}", err(&helper));
}

fn key_id(passphrase: &[u8]) -> String {
    Key::derive(Secret::new(passphrase.to_vec()), "test").expect("key").id().to_string()
}

// req: D8
#[test]
fn a_new_key_is_private_and_never_replaces_one() {
    let printed = alone(&["key", "new"]);
    assert_eq!((out(&printed).trim().len(), out(&printed).lines().count()), (64, 1));
    assert_ne!(out(&printed), out(&alone(&["key", "new"])));
    let directory = tempfile::tempdir().expect("tempdir");
    let path = directory.path().join("current");
    let name = path.to_str().expect("text");
    let made = alone(&["key", "new", "--output", name]);
    assert_eq!((status(&made), out(&made)), (0, String::new()));
    assert_eq!(path.metadata().expect("file").permissions().mode() & 0o7777, 0o600);
    let key = std::fs::read(&path).expect("key");
    assert_eq!((key.len(), key.last()), (65, Some(&b'\n')));
    let other = directory.path().join("next");
    let structured = alone(&["--json=short", "key", "new", "--output", other.to_str().expect("text")]);
    let value: Value = serde_json::from_str(&out(&structured)).expect("JSON");
    assert_eq!(value["path"], other.to_str().expect("text"));
    assert_eq!(value["key_id"], key_id(std::fs::read(&other).expect("key").trim_ascii()));
    assert!(value.get("passphrase").is_none(), "a passphrase in a file is nowhere else");
    let printed: Value = serde_json::from_str(&out(&alone(&["--json=short", "key", "new"]))).expect("JSON");
    assert_eq!(printed["key_id"], key_id(printed["passphrase"].as_str().expect("text").as_bytes()));
    let again = alone(&["key", "new", "--output", name]);
    assert_eq!(status(&again), 4, "{}", err(&again));
    assert_eq!(std::fs::read(&path).expect("key"), key);
}

// req: D3
#[test]
fn a_file_is_encrypted_and_decrypted_and_openssl_agrees() {
    let directory = tempfile::tempdir().expect("tempdir");
    let path = |name: &str| directory.path().join(name).to_str().expect("text").to_owned();
    let content = b"the quick brown fox\n".repeat(10_000);
    std::fs::write(path("data"), &content).expect("write");
    assert_eq!(status(&alone(&["key", "new", "--output", &path("key")])), 0);
    let key_file = path("key");
    let with_key = |words: &[&str]| {
        let own = ["--passphrase-file", &key_file, "--iterations", "100000"];
        alone(&[words, &own].concat())
    };
    let encrypted = with_key(&["encrypt", &path("data"), "--json=short"]);
    assert_eq!(status(&encrypted), 0, "{}", err(&encrypted));
    let report: Value = serde_json::from_str(&out(&encrypted)).expect("JSON");
    assert_eq!(report["output"], path("data.enc"));
    let piped = with_key(&["encrypt", &path("data"), "--output", "-", "--json=short"]);
    assert!(piped.stdout.starts_with(b"Salted__"), "standard output holds the file");
    let told = err(&piped).lines().last().map(serde_json::from_str::<Value>).expect("a line").expect("JSON");
    assert_eq!(told["input_bytes"], content.len());
    let openssl = Command::new("openssl")
        .args(["enc", "-d", "-aes-256-cbc", "-pbkdf2", "-iter", "100000", "-md", "sha256"])
        .args(["-pass", &format!("file:{key_file}"), "-in", &path("data.enc")])
        .output()
        .expect("openssl");
    assert_eq!(openssl.stdout, content);
    let existing = with_key(&["decrypt", &path("data.enc")]);
    assert_eq!(status(&existing), 4, "the plaintext is there: {}", err(&existing));
    let decrypted = with_key(&["decrypt", &path("data.enc"), "-o", &path("again")]);
    assert_eq!(status(&decrypted), 0, "{}", err(&decrypted));
    assert_eq!(std::fs::read(path("again")).expect("again"), content);
    std::fs::write(path("other-key"), "a completely different passphrase\n").expect("write");
    std::fs::set_permissions(path("other-key"), PermissionsExt::from_mode(0o600)).expect("chmod");
    let wrong = alone(&[
        "decrypt",
        &path("data.enc"),
        "-o",
        &path("never"),
        "--passphrase-file",
        &path("other-key"),
        "--iterations",
        "100000",
    ]);
    assert!(status(&wrong) != 0 && !Path::new(&path("never")).exists(), "{}", err(&wrong));
}

#[test]
fn completions_and_versions_are_printed() {
    for shell in ["bash", "zsh", "fish"] {
        let script = out(&alone(&["completions", shell]));
        assert!(script.contains("restore") && !script.contains("transactions"), "{shell}");
    }
    let version = format!("neo4j-backupctl {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(out(&alone(&["--version"])), version);
}

#[test]
fn the_configuration_is_templated_shown_and_checked() {
    let directory = tempfile::tempdir().expect("tempdir");
    let file = directory.path().join("config.toml");
    let name = file.to_str().expect("text");
    let template = alone(&["config", "template"]);
    assert!(status(&template) == 0 && out(&template).contains("[target."), "{}", out(&template));
    let structured: Value = serde_json::from_str(&out(&alone(&["config", "template", "-j"]))).expect("JSON");
    assert_eq!(structured["template"].as_str().map(str::trim_end), Some(out(&template).trim_end()));
    std::fs::write(&file, "[target.graph]\nkin = \"neo4j\"\n").expect("write");
    let wrong = alone(&["--config", name, "config", "check"]);
    assert_eq!(status(&wrong), 78, "{}", err(&wrong));
    assert!(err(&wrong).contains("config.toml:2") && err(&wrong).contains("kind"), "{}", err(&wrong));
    let none = alone(&["--config", "/nonexistent/config.toml", "config", "show"]);
    assert_eq!(status(&none), 78, "{}", err(&none));
}

/// Everybody may look; only root and the agent's user may touch. The bus itself tells who calls.
#[test]
fn another_user_may_look_and_not_touch() {
    const NOBODY: u32 = 65_534;
    if !nix::unistd::geteuid().is_root() {
        // Only root can become somebody else; the decision itself is tested beside the code.
        return;
    }
    let agent = TestAgent::start();
    agent.workshop.open_gate();
    let directory = tempfile::tempdir().expect("tempdir");
    std::fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o755)).expect("chmod");
    let program = directory.path().join("neo4j-backupctl");
    // By a program of its own: a descriptor open for writing here would be inherited by another test's child for a
    // moment, and a program that is open for writing cannot be run.
    assert!(Command::new("cp").args([CLIENT.as_ref(), program.as_os_str()]).status().expect("cp").success());
    let as_nobody = |words: &[&str]| {
        let mut command = Command::new(&program);
        command.args(["--bus", agent.bus.address()]).args(words).uid(NOBODY).gid(NOBODY).current_dir("/");
        command.output().expect("client")
    };
    for allowed in [&["status"][..], &["list"], &["history"], &["jobs"], &["restores"], &["check"]] {
        assert_eq!(status(&as_nobody(allowed)), 0, "{allowed:?}: {}", err(&as_nobody(allowed)));
    }
    let refused: [&[&str]; 8] = [
        &["backup", "graph"],
        &["restore", "graph", "--into", "/x"],
        &["verify", "--all"],
        &["delete", "graph-20261120T020000Z-dump", "--yes"],
        &["cleanup"],
        &["rescan"],
        &["cancel", "1"],
        &["key", "list"],
    ];
    for words in refused {
        let refused = as_nobody(words);
        assert_eq!(status(&refused), 77, "{words:?}: {}", err(&refused));
    }
    assert!(agent.registry.ended().is_empty() && agent.registry.running().is_empty());
}

#[derive(Default)]
struct Recorder {
    job: Option<JobId>,
    phases: Vec<String>,
    said: Vec<(Severity, String)>,
}

impl Watcher for Recorder {
    fn started(&mut self, job: JobId) {
        self.job = Some(job);
    }

    fn progress(&mut self, progress: &Progress) {
        self.phases.push(progress.phase.clone());
    }

    fn event(&mut self, severity: Severity, text: &str) {
        self.said.push((severity, text.to_owned()));
    }
}

#[test]
fn the_same_requests_work_in_this_process() {
    let workshop = crate::workshop::FakeWorkshop::new();
    workshop.open_gate();
    let backend = InProcess::new(workshop.clone()).expect("backend");
    let mut recorder = Recorder::default();
    let reply = backend.run(&backup_request("graph"), true, &mut recorder).expect("success");
    let Reply::Answer(answer) = reply else { panic!("{reply:?}") };
    assert_eq!(*answer, Answer::Backup(backup_report(&target("graph"), false)));
    assert_eq!((recorder.job, recorder.phases.last().map(String::as_str)), (Some(JobId(1)), Some("reading back")));
    assert_eq!(recorder.said, [(Severity::Warning, "the server was stopped for this".to_owned())]);
    assert_eq!(workshop.ended.lock().expect("ended")[0].0.state, JobState::Succeeded);
    let left = backend.run(&backup_request("graph"), false, &mut recorder).expect_err("nobody would run it");
    assert_eq!(left.code(), Code::Usage);
    let Ok(Answer::Jobs { jobs }) = backend.query(&Request::Jobs) else { panic!("no list") };
    assert!(jobs.is_empty());
    // The registry behind it is the one that the agent has.
    let registry = Registry::new(workshop);
    let job = registry.start(backup_request("quick"), "tester").expect("start");
    assert!(wait_until(PATIENCE, INTERVAL, || job.snapshot().state.is_final()));
}

fn helps(command: &mut clap::Command, path: &str, into: &mut Vec<(String, String)>) {
    command.build();
    into.push((path.replace(' ', "_"), command.clone().render_long_help().to_string()));
    if path == "neo4j-backupd run" {
        // The client's own commands again.
        return;
    }
    for name in command.get_subcommands().map(|sub| sub.get_name().to_owned()).collect::<Vec<_>>() {
        if name != "help" {
            let sub = command.find_subcommand_mut(&name).expect("subcommand");
            helps(&mut sub.clone(), &format!("{path} {name}"), into);
        }
    }
}

#[test]
fn the_help_of_every_command_is_as_committed() {
    let mut all = Vec::new();
    for (mut command, name) in [
        (<Client as clap::CommandFactory>::command(), "neo4j-backupctl"),
        (<Daemon as clap::CommandFactory>::command(), "neo4j-backupd"),
    ] {
        // The width of whoever runs the test must not matter.
        command = command.term_width(100);
        helps(&mut command, name, &mut all);
    }
    assert!(all.len() > 25, "{}", all.len());
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path("../snapshots");
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| {
        for (name, help) in all {
            assert!(!help.contains("to come"), "{name} shows what is not there");
            insta::assert_snapshot!(format!("help_{name}"), help);
        }
    });
}
