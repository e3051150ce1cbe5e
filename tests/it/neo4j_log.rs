//! The transaction log of real Neo4j servers, archived while they are written to, killed and started again.

use crate::servers::neo4j::{NEWEST_VERSION, Neo4jOptions, Neo4jServer, VERSION};
use neo4j_backup_agent::artifact::digest::sha256_hex;
use neo4j_backup_agent::artifact::log_batch::LogMark;
use neo4j_backup_agent::base::clock::wait_until;
use neo4j_backup_agent::base::process::LocalLauncher;
use neo4j_backup_agent::base::task::Task;
use neo4j_backup_agent::driver::Driver;
use neo4j_backup_agent::driver::log::{LogReader, Resumption};
use neo4j_backup_agent::driver::neo4j::{Neo4jDriver, log};
use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Bytes of a batch; small, so that there are many.
const BATCH_BYTES: u64 = 60_000;
/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(120);
/// How often the log is looked at.
const LOOK: Duration = Duration::from_millis(20);

/// What was archived: the bytes of each file from where the archive began.
struct Archive {
    begin: LogMark,
    end: LogMark,
    files: BTreeMap<u64, Vec<u8>>,
    transactions: u64,
}

impl Archive {
    fn new(begin: LogMark) -> Archive {
        Archive { end: begin.clone(), begin, files: BTreeMap::new(), transactions: 0 }
    }

    fn resume(&self, driver: &Neo4jDriver) -> Box<dyn LogReader> {
        match driver.log().expect("a log").resume(&self.end, &Task::unobserved()).expect("resume") {
            Resumption::Continues(reader) => reader,
            Resumption::Forked(what) => panic!("forked: {what}"),
            Resumption::Gap(what) => panic!("gap: {what}"),
        }
    }

    /// Takes all that is there.
    fn drain(&mut self, reader: &mut dyn LogReader) {
        while let Some(chunk) = reader.next(BATCH_BYTES, &Task::unobserved()).expect("next") {
            assert_eq!(chunk.start, self.end);
            let (mut bytes, mut stream) = (Vec::new(), chunk.reader);
            stream.read_to_end(&mut bytes).expect("read");
            stream.finish(&Task::unobserved()).expect("finish");
            for segment in chunk.segments {
                let own: Vec<u8> = bytes.drain(..segment.length as usize).collect();
                assert_eq!(sha256_hex(&own), segment.sha256);
                let begin = if segment.file == self.begin.file { self.begin.offset } else { 0 };
                let file = self.files.entry(segment.file).or_default();
                assert_eq!(begin + file.len() as u64, segment.offset);
                file.extend(own);
                self.transactions += segment.transactions;
            }
            self.end = chunk.end;
        }
        assert_eq!(self.transactions, self.end.transaction - self.begin.transaction, "each exactly once");
    }

    /// That the archive holds the server's files byte for byte, and nothing is left of them but zeros.
    fn is_whole(&self, logs: &std::path::Path) {
        for (number, path) in log::numbered(logs, log::TRANSACTIONS).expect("list") {
            if number < self.begin.file {
                continue;
            }
            let begin = if number == self.begin.file { self.begin.offset as usize } else { 0 };
            let (there, archived) = (fs::read(path).expect("read"), self.files.get(&number));
            let archived = archived.map_or(&[][..], Vec::as_slice);
            assert_eq!(&there[begin..begin + archived.len()], archived, "file {number}");
            let rest = &there[(begin + archived.len()).max(log::HEADER_BYTES as usize)..];
            assert!(rest.iter().all(|&byte| byte == 0), "file {number} holds more");
        }
    }
}

fn logs(server: &Neo4jServer) -> PathBuf {
    server.data().join("transactions/neo4j")
}

/// Writes with three clients until `archived` says that it is enough or the server dies; returns how many were
/// acknowledged.
fn write_while(server: &Neo4jServer, mut look: impl FnMut() -> bool) -> usize {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..3)
            .map(|writer| {
                let done = &done;
                scope.spawn(move || {
                    let mut count = 0;
                    while !done.load(Ordering::SeqCst) {
                        let size = 1 + count * 1733 % 3000;
                        let query = format!(
                            "UNWIND range(1, 3) AS i CREATE (n:Note {{writer: {writer}, n: {count}, text: left(reduce(t = 'x', \
                             k IN range(1, 14) | t + t), {size})}}) WITH n MATCH (m:Note {{writer: {writer}, n: {count} - 1}}) \
                             SET m.next = true WITH n, m WHERE m.n % 7 = 0 DETACH DELETE m"
                        );
                        match server.try_cypher(&query) {
                            Ok(_) => count += 1,
                            Err(_) => done.store(true, Ordering::SeqCst),
                        }
                    }
                    count
                })
            })
            .collect();
        let enough = wait_until(PATIENCE, LOOK, || done.load(Ordering::SeqCst) || look());
        done.store(true, Ordering::SeqCst);
        let count = writers.into_iter().map(|writer| writer.join().expect("writer")).sum();
        assert!(enough, "not enough was written in time");
        count
    })
}

fn is_archived_through_crashes(version: &'static str, more: Option<&str>) {
    let directory = tempfile::tempdir().expect("tempdir");
    let settings = ["db.tx_log.rotation.size=128k", "db.checkpoint.interval.time=1s"];
    let settings = settings.into_iter().chain(more).map(str::to_owned).collect();
    let options = Neo4jOptions { version: Some(version), settings, ..Neo4jOptions::default() };
    let server = Neo4jServer::start(directory.path(), &options);
    let driver = Neo4jDriver::new(server.driver_settings(), Arc::new(LocalLauncher::default()));
    server.cypher("CREATE INDEX note FOR (n:Note) ON (n.writer, n.n)");
    server.stop();
    // The archive begins where a dump would end.
    let begin = log::last_checkpoint(&logs(&server)).expect("read").expect("a checkpoint").mark();
    let mut archive = Archive::new(begin);
    let mut reader = archive.resume(&driver);
    archive.drain(reader.as_mut());
    assert_eq!(archive.transactions, 0);
    for round in 1..=2 {
        server.start_again();
        // A reader that goes on through several rotations.
        let mut reader = archive.resume(&driver);
        let from = archive.end.clone();
        let acknowledged = write_while(&server, || {
            archive.drain(reader.as_mut());
            archive.end.file >= from.file + 3
        });
        assert!(acknowledged > 5, "{acknowledged}");
        // Killed in the middle of writing; what is whole is archived from the dead server's files.
        let until = archive.end.transaction + 30;
        write_while(&server, || {
            archive.drain(reader.as_mut());
            let enough = archive.end.transaction >= until;
            if enough {
                server.kill();
            }
            enough
        });
        archive.drain(reader.as_mut());
        archive.drain(archive.resume(&driver).as_mut());
        eprintln!("{version}, round {round}: archived up to {:?}", archive.end);
    }
    server.start_again();
    server.cypher("CREATE (:Last)");
    let mut reader = archive.resume(&driver);
    archive.drain(reader.as_mut());
    server.stop();
    archive.drain(reader.as_mut());
    archive.is_whole(&logs(&server));
    // The server's own account of its end.
    let end = log::last_transaction_of_closed(&logs(&server)).expect("read");
    assert_eq!(end, Some(archive.end.transaction));
    let listed: Vec<u64> =
        log::transactions(&logs(&server)).expect("walk").map(|t| t.expect("transaction").id).collect();
    assert!(listed.windows(2).all(|pair| pair[0] + 1 == pair[1]));
    assert_eq!(listed.last(), Some(&archive.end.transaction));
}

// req: X2
#[test]
fn a_log_is_archived_through_rotations_kills_and_restarts() {
    is_archived_through_crashes(VERSION, None);
}

// req: X2
#[test]
fn the_newest_versions_log_is_archived_through_rotations_kills_and_restarts() {
    is_archived_through_crashes(NEWEST_VERSION, None);
}

// req: X2
#[test]
fn an_enveloped_log_is_archived_through_rotations_kills_and_restarts() {
    let enveloped = "internal.dbms.allow_new_log_format_on_upgrade_or_create=true";
    is_archived_through_crashes(NEWEST_VERSION, Some(enveloped));
}
