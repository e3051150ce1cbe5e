//! How long `list` and `status` take with a large ledger: `cargo bench --bench ledger -- [BACKUPS]`.
//!
//! The ledger of a private installation is filled in one transaction, then the operations are asked as the agent asks
//! them, and the median of some rounds is printed, beside that of the ledger's own part of `list`.

use neo4j_backup_agent::agent::assemble::{Role, assemble};
use neo4j_backup_agent::artifact::identity::Owner;
use neo4j_backup_agent::artifact::manifest::{BackupDocument, Engine, Manifest, ServerRecord, SignedManifest};
use neo4j_backup_agent::artifact::signing::Key;
use neo4j_backup_agent::artifact::statistics::Statistics;
use neo4j_backup_agent::base::Result;
use neo4j_backup_agent::base::clock::{Stopwatch, SystemClock};
use neo4j_backup_agent::base::ids::{BackupId, BackupKind, Stamp, TargetName};
use neo4j_backup_agent::base::secret::Secret;
use neo4j_backup_agent::base::task::Task;
use neo4j_backup_agent::ledger::Ledger;
use neo4j_backup_agent::operation::request::Request;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Backups in the ledger unless another number is given.
const BACKUPS: u64 = 100_000;
/// Rounds of which the median is taken.
const ROUNDS: usize = 7;
/// Minutes between two backups.
const INTERVAL_S: i64 = 15 * 60;
/// The newest backup: 2026-11-20T02:00:00Z.
const NEWEST_S: i64 = 1_795_140_000;
/// Longest time that `list` and `status` shall take.
const GOAL: Duration = Duration::from_millis(100);

fn main() -> Result<()> {
    let number = std::env::args().find_map(|word| word.parse().ok()).unwrap_or(BACKUPS);
    let directory = tempfile::tempdir().expect("a temporary directory");
    configure(directory.path());
    let ledger = directory.path().join("state/ledger.db");
    fill(&ledger, number)?;
    let context = assemble(&directory.path().join("config.toml"), Role::Run)?;
    let ask = |request: Request| {
        neo4j_backup_agent::operation::execute(&context, &request, None, "bench", &Task::unobserved()).map(drop)
    };
    println!("{number} backups in the ledger; the goal is at most {} ms", GOAL.as_millis());
    timed("the ledger's part of list", || context.ledger.backups(None).map(drop))?;
    timed("list", || ask(Request::List { target: None }))?;
    timed("list TARGET", || ask(Request::List { target: TargetName::new("sim").ok() }))?;
    timed("status", || ask(Request::Status { target: None }))
}

fn timed(what: &str, mut work: impl FnMut() -> Result<()>) -> Result<()> {
    let mut times = Vec::new();
    for _ in 0..ROUNDS {
        let watch = Stopwatch::start();
        work()?;
        times.push(watch.elapsed());
    }
    times.sort();
    let median = times[ROUNDS / 2];
    let verdict = if median <= GOAL { "reached" } else { "MISSED" };
    println!("  {what:<34} {:>8.1} ms  {verdict}", median.as_secs_f64() * 1000.0);
    Ok(())
}

fn configure(root: &Path) {
    let place = root.display();
    let write = |name: &str, text: String| std::fs::write(root.join(name), text).expect("a file");
    std::fs::create_dir(root.join("state")).expect("a directory");
    write("passphrase", "a passphrase that only benchmarks know\n".to_owned());
    write(
        "config.toml",
        format!(
            "environment = \"dev\"\nstate_directory = \"{place}/state\"\n[repository.main]\npath = \"{place}/repository\"\n\
             [encryption]\npassphrase_file = \"{place}/passphrase\"\n\
             [target.sim]\nkind = \"sim\"\ndirectory = \"{place}/database\"\n"
        ),
    );
}

fn fill(path: &Path, number: u64) -> Result<()> {
    let ledger = Ledger::open(path, Arc::new(SystemClock))?;
    let key = Key::derive(Secret::new(b"a passphrase that only benchmarks know".to_vec()), "bench")?;
    let target = TargetName::new("sim")?;
    let all: Vec<_> = (0..number).map(|sequence| manifest(&target, &key, sequence, number)).collect();
    ledger.replace_copies("main", &all)?;
    ledger.replace_copies("offsite", &all)?;
    Ok(())
}

fn manifest(target: &TargetName, key: &Key, sequence: u64, number: u64) -> SignedManifest {
    let second = NEWEST_S - INTERVAL_S * (number - sequence) as i64;
    let stamp = Stamp::new(jiff::Timestamp::from_second(second).unwrap_or_default());
    let counts = [("nodes", 1_000_000 + sequence), ("relationships", 5_000_000 + sequence), ("labels", 40)];
    let manifest = Manifest {
        document: BackupDocument::Backup,
        format: 1,
        environment: "dev".into(),
        engine: Engine::Sim,
        db_name: "sim".into(),
        created_at: stamp.timestamp(),
        finished_at: stamp.timestamp(),
        duration_ms: 90_000,
        downtime_ms: 0,
        created_by: "bench".into(),
        tool_version: "0".into(),
        hostname: "host".into(),
        owner: Owner { host: "host".into(), machine_id: "m".into(), data_identity: "d".into(), epoch: 1 },
        sequence,
        predecessor: None,
        server: ServerRecord::default(),
        position: None,
        statistics: Statistics {
            counts: counts.into_iter().map(|(name, count)| (name.to_owned(), count)).collect::<BTreeMap<_, _>>(),
            ..Statistics::default()
        },
        rows_estimate: 6_000_000,
        sha256: format!("{sequence:064x}"),
        objects: Vec::new(),
        warnings: Vec::new(),
        suspect: Vec::new(),
        note: None,
        id: BackupId { target: target.clone(), stamp, kind: BackupKind::Dump },
    };
    SignedManifest { manifest, signed_by: key.id().clone(), bytes_sha256: format!("{sequence:064x}") }
}
