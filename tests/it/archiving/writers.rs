//! Writers that keep a cluster busy and remember what it acknowledged: each counts up by one row a transaction, so that a
//! database holds a prefix of each writer's history.

use crate::servers::postgres::PostgresServer;
use jiff::Timestamp;
use neo4j_backup_agent::base::clock::{Clock, SystemClock, wait_until};
use postgres::{Client, NoTls};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

/// Longest wait before a test fails.
pub(super) const PATIENCE: Duration = Duration::from_secs(120);
/// How often a wait looks again.
pub(super) const INTERVAL: Duration = Duration::from_millis(10);
/// Transactions a second and writer, at most: longer histories show nothing more.
const PAUSE: Duration = Duration::from_millis(2);

/// A transaction that the server acknowledged.
#[derive(Clone, Debug)]
pub(super) struct Acknowledged {
    pub(super) writer: i32,
    pub(super) sequence: i64,
    /// Before it was sent.
    pub(super) sent: Timestamp,
    /// After it was acknowledged.
    pub(super) done: Timestamp,
}

/// Writers at work.
pub(super) struct Writers {
    stop: Arc<AtomicBool>,
    acknowledged: Arc<Mutex<Vec<Acknowledged>>>,
    threads: Vec<JoinHandle<()>>,
}

/// Makes the table that writers fill.
pub(super) fn prepare(server: &PostgresServer) {
    server.sql("CREATE TABLE written (writer int, sequence bigint, filler text, PRIMARY KEY (writer, sequence))");
}

fn connect(server: &PostgresServer) -> Option<Client> {
    let mut config = postgres::Config::new();
    config.host_path(&server.directory).port(server.port).user("postgres").dbname("postgres");
    config.connect(NoTls).ok()
}

impl Writers {
    /// Sets `count` writers to work.
    pub(super) fn start(server: &Arc<PostgresServer>, count: i32) -> Writers {
        let (stop, acknowledged) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
        let one = |writer: i32| {
            let (server, stop, acknowledged) = (server.clone(), stop.clone(), acknowledged.clone());
            std::thread::spawn(move || write(&server, writer, &stop, &acknowledged))
        };
        let threads = (0..count).map(one).collect();
        Writers { stop, acknowledged, threads }
    }

    /// What was acknowledged so far.
    pub(super) fn acknowledged(&self) -> Vec<Acknowledged> {
        self.acknowledged.lock().expect("lock").clone()
    }

    /// Waits until `more` transactions were acknowledged from now on.
    pub(super) fn await_more(&self, more: u64) {
        let count = || self.acknowledged.lock().expect("lock").len() as u64;
        let goal = count() + more;
        assert!(wait_until(PATIENCE, INTERVAL, || count() >= goal), "the writers are stuck at {} of {goal}", count());
    }

    /// Lets them finish what they have begun.
    pub(super) fn stop(mut self) -> Vec<Acknowledged> {
        self.stop.store(true, Ordering::SeqCst);
        for thread in self.threads.drain(..) {
            thread.join().expect("a writer panicked");
        }
        self.acknowledged()
    }
}

impl Drop for Writers {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
    }
}

fn write(server: &PostgresServer, writer: i32, stop: &AtomicBool, acknowledged: &Mutex<Vec<Acknowledged>>) {
    let mut session: Option<Client> = None;
    let mut next = 0i64;
    while !stop.load(Ordering::SeqCst) {
        wait_until(PAUSE, PAUSE, || false);
        let Some(open) = &mut session else {
            // Also after a kill of the server: what was committed without an answer counts, but was not acknowledged.
            let known = connect(server).and_then(|mut client| {
                let statement = "SELECT coalesce(max(sequence), 0) FROM written WHERE writer = $1";
                let last: i64 = client.query_one(statement, &[&writer]).ok()?.get(0);
                Some((client, last))
            });
            if let Some((client, last)) = known {
                (session, next) = (Some(client), last + 1);
            }
            continue;
        };
        let sent = SystemClock.now();
        let filler = "lorem ipsum ".repeat(1 + (next as usize * 7) % 60);
        match open.execute("INSERT INTO written VALUES ($1, $2, $3)", &[&writer, &next, &filler]) {
            Ok(_) => {
                let record = Acknowledged { writer, sequence: next, sent, done: SystemClock.now() };
                acknowledged.lock().expect("lock").push(record);
                next += 1;
            }
            Err(_) => session = None,
        }
    }
}

/// The last sequence of each writer; each must have all before it.
pub(super) fn counters(server: &PostgresServer) -> BTreeMap<i32, i64> {
    let text = server.sql("SELECT writer, max(sequence), count(*) FROM written GROUP BY writer ORDER BY writer");
    let row = |line: &str| {
        let mut parts = line.split('|').map(|part| part.parse::<i64>().expect("a number"));
        let mut next = || parts.next().expect("a column");
        let (writer, last, count) = (next(), next(), next());
        assert_eq!(last, count, "writer {writer} has a hole");
        (writer as i32, last)
    };
    text.lines().map(row).collect()
}

/// Every one of these transactions is there.
pub(super) fn holds_all(server: &PostgresServer, expected: &[Acknowledged]) {
    let held = counters(server);
    for record in expected {
        assert!(
            held.get(&record.writer).is_some_and(|&there| there >= record.sequence),
            "{record:?} is lost: {held:?}"
        );
    }
}

/// None of these is there.
pub(super) fn holds_none(server: &PostgresServer, later: &[Acknowledged]) {
    let held = counters(server);
    for record in later {
        assert!(
            held.get(&record.writer).is_none_or(|&there| there < record.sequence),
            "{record:?} came later: {held:?}"
        );
    }
}
