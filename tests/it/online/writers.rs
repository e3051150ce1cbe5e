//! Writers that keep a Neo4j server busy and remember what it acknowledged.
//!
//! Each writer has a counter node (`Head`) and counts it up by one a transaction; the same transaction creates, changes
//! and deletes other nodes, relationships and properties that every kind of index covers. So a database holds a prefix of
//! each writer's history, and the sum of the counters moves by one with each transaction id.

use crate::servers::neo4j::Neo4jServer;
use jiff::Timestamp;
use neo4j_backup_agent::base::clock::{Clock, SystemClock, wait_until};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

/// Longest wait before a test fails.
pub(super) const PATIENCE: Duration = Duration::from_secs(180);
/// How often a wait looks again.
pub(super) const INTERVAL: Duration = Duration::from_millis(10);
/// People that writers change.
const PEOPLE: u64 = 2000;

/// A transaction that the server acknowledged.
#[derive(Clone, Debug)]
pub(super) struct Acknowledged {
    /// Whose.
    pub(super) writer: u64,
    /// Its counter after it.
    pub(super) sequence: u64,
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

/// Makes the schema, the people, and every name that writers use: none of them is made by a transaction later.
pub(super) fn prepare(server: &Neo4jServer) {
    for statement in [
        "CREATE RANGE INDEX person_id FOR (p:Person) ON (p.id)",
        "CREATE TEXT INDEX event_pay FOR (e:Ev) ON (e.pay)",
        "CREATE FULLTEXT INDEX bios FOR (p:Person) ON EACH [p.bio]",
        "CREATE POINT INDEX event_place FOR (e:Ev) ON (e.place)",
        "CREATE VECTOR INDEX event_vector FOR (e:Ev) ON (e.vector) \
         OPTIONS {indexConfig: {`vector.dimensions`: 3, `vector.similarity_function`: 'cosine'}}",
        "CREATE RANGE INDEX event_tag FOR (e:Ev) ON (e.tag)",
        "CREATE CONSTRAINT head_key FOR (h:Head) REQUIRE h.key IS UNIQUE",
    ] {
        server.cypher(statement);
    }
    server.cypher(&format!("UNWIND range(0, {}) AS i CREATE (:Person {{id: i, bio: 'born', touched: 0}})", PEOPLE - 1));
    server.cypher(&statement(u64::MAX, 0, 1));
    server.cypher("MATCH (h:Head) DETACH DELETE h");
    server.cypher("MATCH (e:Ev) DETACH DELETE e");
    server.cypher("CALL db.awaitIndexes(120)");
}

/// One transaction of a writer.
fn statement(writer: u64, sequence: u64, random: u64) -> String {
    let person = random % PEOPLE;
    let bio = "lorem ipsum ".repeat(1 + (random / 7 % 40) as usize);
    let forgotten = if random.is_multiple_of(3) { sequence.saturating_sub(1 + random % 50) } else { u64::MAX >> 1 };
    let (x, y) = (random % 1000, random / 1000 % 1000);
    format!(
        "MERGE (h:Head {{key: 'w{writer}'}}) SET h.sequence = {sequence} \
         CREATE (h)-[:HAS {{at: {sequence}}}]->(:Ev {{key: 'w{writer}', sequence: {sequence}, pay: '{bio}', \
         tag: 'w{writer}-{sequence}', place: point({{x: {x}.0, y: {y}.0}}), vector: [{x}.0, {y}.0, 1.0]}}) \
         WITH h MATCH (p:Person {{id: {person}}}) SET p.bio = '{bio}', p.touched = {sequence}, \
         p.odd = CASE WHEN {sequence} % 2 = 1 THEN true ELSE null END \
         WITH h OPTIONAL MATCH (x:Ev {{tag: 'w{writer}-{forgotten}'}}) DETACH DELETE x"
    )
}

impl Writers {
    /// Sets `count` writers to work, each from where its counter stands.
    pub(super) fn start(server: &Arc<Neo4jServer>, count: u64) -> Writers {
        let (stop, acknowledged) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
        let one = |writer: u64| {
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
    pub(super) fn await_more(&self, more: usize) {
        let count = || self.acknowledged.lock().expect("lock").len();
        let goal = count() + more;
        assert!(wait_until(PATIENCE, INTERVAL, || count() >= goal), "the writers are stuck at {} of {goal}", count());
    }

    /// Lets them finish what they have begun.
    pub(super) fn stop(mut self) -> Vec<Acknowledged> {
        self.end();
        self.acknowledged()
    }

    fn end(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        for thread in self.threads.drain(..) {
            thread.join().expect("a writer panicked");
        }
    }
}

impl Drop for Writers {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
    }
}

fn write(server: &Neo4jServer, writer: u64, stop: &AtomicBool, acknowledged: &Mutex<Vec<Acknowledged>>) {
    let mut random = 0x9e37_79b9_7f4a_7c15u64.wrapping_mul(writer + 1);
    let mut session: Option<crate::servers::neo4j::Session> = None;
    let mut next = 0;
    while !stop.load(Ordering::SeqCst) {
        let Some(open) = &session else {
            // Also after a kill of the server: what was committed without an answer counts, but was not acknowledged.
            let Ok(opened) = server.session() else {
                wait_until(INTERVAL, INTERVAL, || false);
                continue;
            };
            let Ok(rows) = opened.run(&format!("MATCH (h:Head {{key: 'w{writer}'}}) RETURN h.sequence AS s")) else {
                wait_until(INTERVAL, INTERVAL, || false);
                continue;
            };
            next = rows.first().and_then(|row| row.get("s")?.as_u64()).map_or(1, |sequence| sequence + 1);
            session = Some(opened);
            continue;
        };
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let sent = SystemClock.now();
        match open.run(&statement(writer, next, random >> 33)) {
            Ok(_) => {
                let record = Acknowledged { writer, sequence: next, sent, done: SystemClock.now() };
                acknowledged.lock().expect("lock").push(record);
                next += 1;
            }
            Err(_) => session = None,
        }
    }
}

/// The counters that a database holds, by writer.
pub(super) fn counters(server: &Neo4jServer) -> BTreeMap<u64, u64> {
    let rows = server.cypher("MATCH (h:Head) RETURN h.key AS key, h.sequence AS sequence");
    let one = |row: &serde_json::Map<String, serde_json::Value>| {
        let writer = row["key"].as_str()?.strip_prefix('w')?.parse().ok()?;
        Some((writer, row["sequence"].as_u64()?))
    };
    rows.iter().map(|row| one(row).expect("a head")).collect()
}

/// What must hold of every state that a writer's transactions can lead to; returns the sum of the counters.
pub(super) fn check_invariants(server: &Neo4jServer) -> u64 {
    check_invariants_beside(server, 0)
}

/// The same where so many indexes beside those of the writers cannot be used.
pub(super) fn check_invariants_beside(server: &Neo4jServer, unusable: u64) -> u64 {
    let zero = |query: &str| assert_eq!(server.number(query), 0, "{query}");
    zero("MATCH (h:Head)-[:HAS]->(e:Ev) WHERE e.key <> h.key OR e.sequence > h.sequence RETURN count(*)");
    zero("MATCH (h:Head) WHERE NOT EXISTS { MATCH (h)-[:HAS]->(:Ev {sequence: h.sequence}) } RETURN count(h)");
    zero("MATCH (e:Ev) WHERE NOT EXISTS { (:Head)-[:HAS]->(e) } RETURN count(e)");
    assert_eq!(server.number("SHOW INDEXES YIELD state WHERE state <> 'ONLINE' RETURN count(*)"), unusable);
    // Each index answers as the store does.
    let events = server.number("MATCH (e:Ev) RETURN count(e)");
    assert_eq!(server.number("MATCH (e:Ev) USING INDEX e:Ev(tag) WHERE e.tag STARTS WITH 'w' RETURN count(e)"), events);
    assert_eq!(
        server.number("MATCH (e:Ev) USING TEXT INDEX e:Ev(pay) WHERE e.pay CONTAINS 'lorem' RETURN count(e)"),
        events
    );
    let everywhere = "point({x: -1, y: -1}), point({x: 2000, y: 2000})";
    let inside = format!(
        "MATCH (e:Ev) USING POINT INDEX e:Ev(place) WHERE point.withinBBox(e.place, {everywhere}) RETURN count(e)"
    );
    assert_eq!(server.number(&inside), events);
    assert_eq!(server.number("MATCH (p:Person) USING INDEX p:Person(id) WHERE p.id >= 0 RETURN count(p)"), PEOPLE);
    let found = "CALL db.index.fulltext.queryNodes('bios', 'lorem OR born') YIELD node RETURN count(node)";
    assert_eq!(server.number(found), PEOPLE);
    if events > 0 {
        assert!(
            server.number(
                "CALL db.index.vector.queryNodes('event_vector', 1, [1.0, 1.0, 1.0]) YIELD node RETURN count(node)"
            ) > 0
        );
    }
    counters(server).values().sum()
}
