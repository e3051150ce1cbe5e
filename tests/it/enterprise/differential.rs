//! `--type incremental` of an enterprise target: chains of differential artifacts, made, stored, verified and restored.

use super::*;
use crate::site::restore_request;
use neo4j_backup_agent::base::ids::TargetName;
use neo4j_backup_agent::driver::log::RecoveryTarget;
use neo4j_backup_agent::operation::answer::{ArchiveReport, BackupReport};
use neo4j_backup_agent::operation::request::{ArchiveRequest, Destination, Request, RestoreRequest};

fn incremental_of(site: &Site, target: &str) -> Result<ArchiveReport, Error> {
    let target = TargetName::new(target).expect("name");
    match site.ask(&Request::Archive(ArchiveRequest { target, dry_run: false }))? {
        Answer::Archive(report) => Ok(report),
        other => panic!("{other:?}"),
    }
}

fn incremental(site: &Site) -> Result<ArchiveReport, Error> {
    incremental_of(site, "graph")
}

/// First and last of what a run archived, without taking a base or finding a gap.
fn archived(site: &Site) -> (u64, u64) {
    let report = incremental(site).expect("archived");
    assert!(report.bases.is_empty() && report.gaps.is_empty(), "{report:?}");
    (report.repositories[0].from_transaction, report.repositories[0].to_transaction)
}

/// What stands in the repository of differential artifacts.
fn batches(site: &Site) -> Vec<PathBuf> {
    let is_object = |path: &PathBuf| path.display().to_string().ends_with(".log.zst.enc");
    site.objects().into_iter().filter(is_object).collect()
}

/// The artifacts that are kept for the next one to follow.
fn kept(site: &Site, target: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    walk(&site.path("state/artifacts").join(target).join("chain"), &mut found);
    found.sort();
    found
}

fn restored_to(site: &Site, name: &str, until: Option<RecoveryTarget>) -> Result<RestoreReport, Error> {
    let request = RestoreRequest { until, ..restore_request("graph", Destination::Into(site.path(name))) };
    match site.ask(&Request::Restore(request))? {
        Answer::Restore(report) => Ok(report),
        other => panic!("{other:?}"),
    }
}

fn recovered_end(report: &RestoreReport) -> String {
    let check = report.checks.iter().find(|check| check.name == "recovered_end").expect("checked");
    assert_eq!(check.passed, Some(true), "{check:?}");
    check.found.clone()
}

/// What the server commits, and the differential artifact of it. Returns where it ends.
fn commit(server: &Neo4jServer, letters: &str, fixtures: &Path, query: &str) -> u64 {
    let (file, from, before) = closed(server, "neo4j");
    server.start_again();
    server.cypher(query);
    server.stop();
    let (same, to, end) = closed(server, "neo4j");
    assert!(same == file && end > before, "{end}");
    let whole =
        fs::read(server.data().join(format!("transactions/neo4j/neostore.transaction.db.{file}"))).expect("log");
    let piece = &whole[from as usize..to as usize];
    let range = (before + 1, end);
    let stem = fixtures.join(format!("neo4j.{}-{}", range.0, range.1)).display().to_string();
    let artifact = differential(letters, "neo4j", &store_id(server, "neo4j"), range, piece);
    fs::write(format!("{stem}.diff"), artifact).expect("fixture");
    fs::write(format!("{stem}.log"), piece).expect("fixture");
    fs::write(format!("{stem}.at"), format!("{file} {from}\n")).expect("fixture");
    end
}

/// A chain with the real tools of one release: pieces of a real log go into the repository as differential artifacts, and
/// come back by the recovery of a real server.
fn chain(version: &'static str, letters: &str) {
    let site = Site::with("");
    let options = Neo4jOptions { version: Some(version), jars: Jars::Linked, ..Neo4jOptions::default() };
    let server = Neo4jServer::start(site.root(), &options);
    server.fill();
    server.stop();
    let (home, fixtures) = (server.home().to_owned(), site.path("fixtures"));
    stand_in(&home.join("bin/enterprise-admin"), &home.join("bin/neo4j-admin"), &fixtures, "");
    full_fixtures(&server, letters, &fixtures);
    let begin = closed(&server, "neo4j").2;
    let first = commit(&server, letters, &fixtures, "UNWIND range(1, 50) AS i CREATE (:Later {i: i})");
    let second = commit(&server, letters, &fixtures, "MATCH (l:Later) WHERE l.i > 40 DETACH DELETE l");
    server.start_again();
    let _service = pretend_enterprise(&home);
    configure(&site, &home, "enterprise-admin");

    let full = site.backup("graph");
    assert_eq!(archived(&site), (begin, first));
    assert_eq!(archived(&site), (first, second));
    assert_eq!((batches(&site).len(), kept(&site, "graph").len(), debris(&site)), (2, 3, Vec::new()));
    site.verify().expect("sound");

    let all = restored_to(&site, "all", None).expect("restored");
    assert!(recovered_end(&all).contains(&format!("the backup's is {second}")));
    let prefix = restored_to(&site, "prefix", Some(RecoveryTarget::Transaction(first))).expect("restored");
    assert!(recovered_end(&prefix).contains(&format!("is {first}, the backup's is {first}")), "{prefix:?}");
    let alone = restored(&site, &full.id.to_string(), "alone");
    assert!(recovered_end(&alone).contains(&format!("is {begin}, the backup's is {begin}")), "{alone:?}");
    let said = fs::read_to_string(fixtures.join("said")).expect("said");
    assert_eq!(said.matches("database backup --type=DIFF").count(), 2, "{said}");

    // The last one is damaged: it is named before anything is started, and what lies before comes back all the same.
    let last = batches(&site).pop().expect("a batch");
    let mut bytes = fs::read(&last).expect("read");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&last, bytes).expect("write");
    let name = last.file_name().expect("name").to_string_lossy().into_owned();
    let found = site.verify().expect_err("damaged");
    assert!(found.to_string().contains(&name), "{found:?}");
    let error = restored_to(&site, "damaged", None).expect_err("damaged");
    assert_eq!(error.code(), Code::LogGap, "{error:?}");
    assert!(error.message().contains(&name) && error.hint().contains(&format!("--to-tx {first}")), "{error:?}");
    recovered_end(&restored_to(&site, "before", Some(RecoveryTarget::Transaction(first))).expect("restored"));
    assert_eq!(debris(&site), Vec::<PathBuf>::new());

    // Community's `load` takes the full artifact and nothing else.
    configure(&site, &home, "neo4j-admin");
    let target = Some(RecoveryTarget::Transaction(first));
    let error = restored_to(&site, "community", target).expect_err("Community");
    assert!(error.code() == Code::NotAvailable && error.message().contains("needs `neo4j-admin database restore`"));
}

// req: E5 A14
#[test]
fn a_chain_of_a_real_store_comes_back_to_each_of_its_artifacts() {
    for (version, format) in played(NEWEST) {
        chain(version, format);
    }
}

fn full(stub: &Stub) -> BackupReport {
    stub.site.backup("graph")
}

/// The next full artifact ends there.
fn offer_full(stub: &Stub, end: u64) {
    let store = hex::decode(STUB_STORE).expect("hex");
    let bytes = artifact("BZV2", "neo4j", &store, &meaningless(), end);
    fs::write(stub.fixture("neo4j.backup"), bytes).expect("fixture");
    fs::write(stub.fixture("neo4j.highest"), end.to_string()).expect("fixture");
}

// req: E5
#[test]
fn without_a_full_backup_an_incremental_takes_one_and_says_so() {
    let stub = Stub::new();
    let report = incremental(&stub.site).expect("a full one");
    assert_eq!((report.bases.len(), report.gaps.len()), (1, 0), "{report:?}");
    assert!(report.bases[0].to_string().ends_with("-enterprise"));
    // Nothing was committed: an empty artifact is no piece of a chain, and none is kept.
    assert_eq!((archived(&stub.site), batches(&stub.site).len()), ((42, 42), 0));
    assert_eq!(kept(&stub.site, "graph").len(), 1);
    stub.offer("neo4j", (43, 50));
    let output = stub.site.run(&["backup", "graph", "--type", "incremental"]);
    assert!(output.status.success(), "{}", text(&output));
    assert_eq!((batches(&stub.site).len(), kept(&stub.site, "graph").len()), (1, 2));
    let said = fs::read_to_string(stub.fixture("said")).expect("said");
    let chain = stub.site.path("state/artifacts/graph/chain");
    assert!(said.contains(&format!("--to-path={} --include-metadata=all neo4j\n", chain.display())), "{said}");
    assert_eq!((said.matches("--type=FULL").count(), said.matches("--type=DIFF").count()), (2, 2), "{said}");
    stub.site.verify().expect("sound");
}

// req: B11 E5
#[test]
fn a_tool_that_lies_about_a_differential_artifact_never_makes_one() {
    let stub = Stub::new();
    full(&stub);
    stub.offer("neo4j", (43, 50));
    let (objects, chain) = (stub.site.objects(), kept(&stub.site, "graph"));
    let store = hex::decode(STUB_STORE).expect("hex");
    let other = hex::decode(STUB_STORE.replace("a548", "a549")).expect("hex");
    for (name, bytes) in [
        ("hole", differential("BZV2", "neo4j", &store, (44, 50), &[1; 900])),
        ("overlap", differential("BZV2", "neo4j", &store, (40, 50), &[1; 900])),
        ("backwards", differential("BZV2", "neo4j", &store, (43, 41), &[1; 900])),
        ("movies", differential("BZV2", "movies", &store, (43, 50), &[1; 900])),
        ("stranger", differential("BZV2", "neo4j", &other, (43, 50), &[1; 900])),
    ] {
        fs::write(stub.fixture(name), bytes).expect("fixture");
    }
    let cases = [
        (
            "echo 'Backup failed: the log was pruned'; exit 1",
            "exit status: 1; it said: Backup failed: the log was pruned",
        ),
        ("exit 0", "it left no artifact"),
        (": >\"$artifact\"; exit 0", "it is empty"),
        ("head -c 50 \"$handed\" >\"$artifact\"; exit 0", "no differential backup of database neo4j"),
        ("head -c $(($(stat -c %s \"$handed\") - 1)) \"$handed\" >\"$artifact\"; exit 0", "broke off"),
        ("cp \"$FIXTURES/hole\" \"$artifact\"; exit 0", "it holds 44 to 50, and should begin with 43"),
        ("cp \"$FIXTURES/overlap\" \"$artifact\"; exit 0", "it holds 40 to 50, and should begin with 43"),
        ("cp \"$FIXTURES/backwards\" \"$artifact\"; exit 0", "it holds 43 to 41, and should begin with 43"),
        ("cp \"$FIXTURES/movies\" \"$artifact\"; exit 0", "it is of database \"movies\""),
        ("cp \"$FIXTURES/stranger\" \"$artifact\"; exit 0", "it is of another store"),
        ("ln -s \"$handed\" \"$artifact\"; exit 0", "opening"),
        ("cp \"$handed\" \"$artifact\"; cp \"$handed\" \"$to/2.backup\"; exit 0", "it left 2 artifacts"),
    ];
    for (script, words) in cases {
        stub.behave(script);
        let error = incremental(&stub.site).expect_err(script);
        assert!(error.message().contains(words), "{script}: {error:?}");
        assert!(matches!(error.code(), Code::Neo4jAdminFailed | Code::IoFailed), "{script}: {error:?}");
        assert_eq!((stub.site.objects(), kept(&stub.site, "graph")), (objects.clone(), chain.clone()), "{script}");
        assert_eq!(debris(&stub.site), Vec::<PathBuf>::new(), "{script}");
    }
    stub.behave("");
    assert_eq!(archived(&stub.site), (42, 50));
}

// req: B11 E5
#[test]
fn a_full_artifact_where_a_differential_one_was_asked_for_is_thrown_away_and_told() {
    let stub = Stub::new();
    full(&stub);
    stub.behave("[ $type = FULL ] || handed=$FIXTURES/$database.backup");
    offer_full(&stub, 60);
    let kept_before = fs::read(&kept(&stub.site, "graph")[0]).expect("read");
    // The stand-in knows the first one no more.
    fs::write(stub.fixture("neo4j.1-42.diff"), kept_before).expect("fixture");
    let report = incremental(&stub.site).expect("a full one instead");
    assert_eq!((report.bases.len(), report.gaps.len()), (1, 1), "{report:?}");
    let told = &report.gaps[0];
    assert!(told.contains("the chain of differential backups of graph ends"), "{told}");
    assert!(told.contains("made the full artifact neo4j-") && told.contains("thrown away"), "{told}");
    assert_eq!((batches(&stub.site).len(), kept(&stub.site, "graph").len()), (0, 1));
    stub.behave("");
    stub.offer("neo4j", (61, 70));
    assert_eq!(archived(&stub.site), (60, 70));
}

// req: E5
#[test]
fn a_kept_artifact_that_is_missing_or_damaged_is_announced_and_a_full_one_taken() {
    for (damage, words) in [
        (&(|path: &Path| fs::remove_file(path).expect("remove")) as &dyn Fn(&Path), "it is missing"),
        (&|path: &Path| fs::write(path, b"BZV2").expect("write"), "cannot be continued"),
        (
            &|path: &Path| fs::remove_dir_all(path.ancestors().nth(2).expect("place")).expect("remove"),
            "no artifact that a differential one",
        ),
    ] {
        let stub = Stub::new();
        full(&stub);
        stub.offer("neo4j", (43, 50));
        damage(&kept(&stub.site, "graph")[0]);
        let report = incremental(&stub.site).expect("a full one instead");
        assert_eq!((report.bases.len(), report.gaps.len()), (1, 1), "{report:?}");
        assert!(report.gaps[0].contains(words), "{words}: {report:?}");
        assert_eq!(archived(&stub.site), (42, 50));
    }
}

// req: E5
#[test]
fn every_full_backup_begins_a_chain_and_no_gap_is_told_of() {
    let stub = Stub::new();
    full(&stub);
    stub.offer("neo4j", (43, 50));
    assert_eq!(archived(&stub.site), (42, 50));
    offer_full(&stub, 60);
    full(&stub);
    assert_eq!(kept(&stub.site, "graph").len(), 1);
    stub.offer("neo4j", (61, 70));
    assert_eq!(archived(&stub.site), (60, 70));
    stub.site.verify().expect("sound");
    let status = stub.site.run(&["status", "graph"]);
    assert!(!text(&status).contains("lost"), "{}", text(&status));
    // Neither chain leads into the other.
    let error = restored_to(&stub.site, "between", Some(RecoveryTarget::Transaction(55))).expect_err("between");
    assert!(matches!(error.code(), Code::LogGap | Code::RestoreTargetUnreachable), "{error:?}");
    let error = restored_to(&stub.site, "within", Some(RecoveryTarget::Transaction(65))).expect_err("within");
    assert!(error.code() == Code::NotAvailable && error.message().contains("ends with transaction 70"), "{error:?}");
    let time = Some(RecoveryTarget::Time(jiff::Timestamp::now()));
    let error = restored_to(&stub.site, "time", time).expect_err("time");
    assert!(error.message().contains("do not tell when"), "{error:?}");
}

// req: E5
#[test]
fn a_second_repository_catches_up_from_what_is_kept() {
    let stub = Stub::new();
    let config = fs::read_to_string(stub.site.config()).expect("config");
    let second = stub.site.path("second");
    fs::write(
        stub.site.config(),
        config.replace(
            "[target.graph]",
            &format!("[repository.second]\npath = \"{}\"\n[target.graph]", second.display()),
        ),
    )
    .expect("config");
    full(&stub);
    stub.offer("neo4j", (43, 50));
    fs::rename(&second, stub.site.path("away")).expect("away");
    fs::write(&second, b"").expect("in the way");
    let error = incremental(&stub.site).expect_err("half");
    assert_eq!(error.code(), Code::BackupPartial, "{error:?}");
    fs::remove_file(&second).expect("remove");
    fs::rename(stub.site.path("away"), &second).expect("back");
    stub.offer("neo4j", (51, 55));
    let report = incremental(&stub.site).expect("both");
    assert!(report.bases.is_empty() && report.gaps.is_empty(), "{report:?}");
    let ends: Vec<_> = report.repositories.iter().map(|one| (one.from_transaction, one.to_transaction)).collect();
    assert!(ends.contains(&(42, 55)) && ends.contains(&(50, 55)), "{ends:?}");
    let said = fs::read_to_string(stub.fixture("said")).expect("said");
    // One for each piece, and one that found nothing more for the repository that had caught up.
    assert_eq!((said.matches("--type=DIFF").count(), kept(&stub.site, "graph").len()), (3, 3), "{said}");
    stub.site.verify().expect("sound");
}

// req: E5
#[test]
fn two_targets_of_one_server_never_touch_each_others_chains() {
    let stub = Stub::new();
    let home = stub.home();
    for tree in ["databases", "transactions"] {
        fs::create_dir_all(home.join(format!("data/{tree}/movies"))).expect("mkdir");
    }
    let store = STUB_STORE.replace("a548", "a549");
    let header = fs::read(home.join("data/transactions/neo4j/checkpoint.0")).expect("read");
    let header = hex::decode(hex::encode(header).replace(STUB_STORE, &store)).expect("hex");
    fs::write(home.join("data/transactions/movies/checkpoint.0"), header).expect("write");
    let store = hex::decode(store).expect("hex");
    let movies = artifact("BZV2", "movies", &store, &meaningless(), 7);
    fs::write(stub.fixture("movies.backup"), movies).expect("fixture");
    fs::write(stub.fixture("movies.highest"), "7").expect("fixture");
    let later = differential("BZV2", "movies", &store, (8, 9), &[8; 500]);
    fs::write(stub.fixture("movies.8-9.diff"), later).expect("fixture");
    stub.offer("neo4j", (43, 50));
    let config = fs::read_to_string(stub.site.config()).expect("config");
    let graph = &config[config.find("[target.graph]").expect("target")..];
    let films = graph.replace("[target.graph]", "[target.films]\ndatabase = \"movies\"");
    fs::write(stub.site.config(), format!("{config}\n{films}")).expect("config");
    full(&stub);
    stub.site.backup("films");
    for (target, end) in [("graph", 50), ("films", 9)] {
        let report = incremental_of(&stub.site, target).expect("archived");
        assert_eq!((report.repositories[0].to_transaction, report.bases.len()), (end, 0), "{report:?}");
        let names = kept(&stub.site, target);
        let of = if target == "graph" { "neo4j-" } else { "movies-" };
        assert!(
            names.len() == 2
                && names.iter().all(|name| name.file_name().expect("name").to_string_lossy().starts_with(of))
        );
    }
    stub.site.verify().expect("sound");
}

// req: A14 E5
#[test]
fn a_kill_while_a_differential_artifact_is_made_leaves_the_chain_as_it_was() {
    let stub = Stub::new();
    full(&stub);
    stub.offer("neo4j", (43, 50));
    stub.behave("head -c 900 \"$handed\" >\"$artifact\"; echo $$ >\"$FIXTURES/pid\"; exec sleep 600");
    let mut agent = stub.site.command();
    agent.args(["backup", "graph", "--type", "incremental"]).stdout(Stdio::null()).stderr(Stdio::null());
    let mut agent = agent.spawn().expect("the agent starts");
    let pid = || fs::read_to_string(stub.fixture("pid")).ok()?.trim().parse::<u32>().ok();
    assert!(wait_until(PATIENCE, INTERVAL, || pid().is_some()), "the tool never ran");
    agent.kill().expect("kill -9");
    agent.wait().expect("ended");
    assert!(batches(&stub.site).is_empty());
    stub.behave("");
    assert_eq!(archived(&stub.site), (42, 50));
    assert_eq!((kept(&stub.site, "graph").len(), debris(&stub.site)), (2, Vec::new()));
    let gone = || !Path::new(&format!("/proc/{}/exe", pid().expect("pid"))).exists();
    assert!(wait_until(PATIENCE, INTERVAL, gone), "the tool goes on");
}

// req: E5
#[test]
fn several_backup_services_are_tried_in_order_and_silent_ones_passed_over() {
    let stub = Stub::new();
    let second = TcpListener::bind("127.0.0.1:0").expect("a port");
    let gone = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = |listener: &TcpListener| listener.local_addr().expect("address").to_string();
    let (one, two, silent) = (address(&stub.service), address(&second), address(&gone));
    drop(gone);
    let config = fs::read_to_string(stub.site.config()).expect("config");
    let servers = format!("backup_servers = [\"{silent}\", \"{two}\", \"{one}\"]\nfull = ");
    fs::write(stub.site.config(), config.replace("full = ", &servers)).expect("config");
    let report = full(&stub);
    assert!(report.warnings.iter().any(|warning| warning.contains(&silent)), "{report:?}");
    let said = fs::read_to_string(stub.fixture("said")).expect("said");
    assert_eq!(said.matches(&format!("--from={two},{one} ")).count(), 2, "{said}");
}

// req: E5
#[test]
fn cleanup_never_takes_the_full_backup_of_a_chain_that_is_kept_and_takes_chains_whole() {
    let stub = Stub::new();
    let mut fulls = Vec::new();
    for (end, range) in [(42, Some((43, 50))), (60, Some((61, 70))), (80, None)] {
        offer_full(&stub, end);
        fulls.push(full(&stub).id);
        if let Some(range) = range {
            stub.offer("neo4j", range);
            assert_eq!(archived(&stub.site), (end, range.1));
        }
    }
    stub.site.verify().expect("sound");
    let config = fs::read_to_string(stub.site.config()).expect("config");
    let cleaned = |window: &str| {
        let retention = format!("[retention]\npoint_in_time = \"{window}\"\nminimum_verified = 1\n[target.graph]");
        fs::write(stub.site.config(), config.replace("[target.graph]", &retention)).expect("config");
        match stub.site.ask(&Request::Cleanup { dry_run: false }) {
            Ok(Answer::Cleanup(report)) => report.deleted,
            other => panic!("{other:?}"),
        }
    };
    // All of one day: the calendar alone would keep the last.
    assert_eq!((cleaned("14d"), batches(&stub.site).len()), (Vec::new(), 2));
    // A chain whose full backup is deleted by hand goes with it, also where an older full backup stays.
    let delete = Request::Delete { backup: fulls[1].to_string(), dry_run: false };
    stub.site.ask(&delete).expect("deleted");
    assert_eq!(batches(&stub.site).len(), 1);
    stub.site.verify().expect("what was let go is not missed");
    // Backups of one second bear the names of the next ones: none of them lies ahead any more.
    let newest = fulls[2].stamp.timestamp();
    assert!(wait_until(PATIENCE, INTERVAL, || jiff::Timestamp::now() > newest));
    assert_eq!((cleaned("0s"), batches(&stub.site).len()), (fulls[..1].to_vec(), 0));
    stub.site.verify().expect("what was let go is not missed");
}
