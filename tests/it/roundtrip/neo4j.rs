//! A real Neo4j server: dumped while it is stopped, restored into a directory and in place, and up again whatever
//! happened.

use super::{all_passed, areas, debris, found_without_the_ledger, in_place, into, restores};
use crate::servers::neo4j::{Neo4jOptions, Neo4jServer};
use crate::site::Site;
use neo4j_backup_agent::base::clock::wait_until;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

/// Longest time a server of a busy machine takes.
const PATIENCE: Duration = Duration::from_secs(180);
const INTERVAL: Duration = Duration::from_millis(5);
const NODES: &str = "MATCH (n) RETURN count(n)";

/// Makes `graph` the target for a server.
pub(super) fn configure(site: &Site, server: &Neo4jServer) {
    let home = server.home().display();
    site.configure(&format!(
        "[target.graph]\nkind = \"neo4j\"\nhome = \"{home}\"\nconf = \"{home}/conf/neo4j.conf\"\n\
         admin = \"{home}/bin/neo4j-admin\"\nbolt = \"{}\"\nfull = \"dump\"\n\
         stop_command = {:?}\nstart_command = {:?}\n",
        server.bolt(),
        server.stop_command(),
        server.start_command(),
    ));
}

/// Waits until a server answers; `false` if it does not.
pub(super) fn is_up(server: &Neo4jServer) -> bool {
    wait_until(PATIENCE, Duration::from_millis(50), || server.try_cypher("RETURN 1").is_ok())
}

// req: A14 B4 B8 B15 D3 D5 D8
#[test]
fn a_graph_is_backed_up_restored_aside_and_in_place_and_the_server_is_up_whatever_happens() {
    let site = Site::with("");
    let server = Neo4jServer::start(site.root(), &Neo4jOptions::default());
    server.fill();
    configure(&site, &server);

    let backup = site.backup("graph");
    assert!(server.try_cypher("RETURN 1").is_ok(), "the server answers when the backup has ended");
    assert!(backup.downtime_ms > 0, "the time it was away is on record");
    assert!(backup.counts_exact, "{backup:?}");
    let count = |name: &str| backup.counts.iter().find(|(counted, _)| counted == name).map(|(_, count)| *count);
    assert_eq!((count("nodes"), count("relationships")), (Some(1000), Some(1988)), "{:?}", backup.counts);

    let aside = into(&site, "graph", &site.path("aside"));
    all_passed(&aside.checks, &["connectivity", "schema_consistency", "orphan_detection", "counts"]);

    server.cypher("MATCH (p:Person) DETACH DELETE p");
    assert_eq!(server.number(NODES), 10);
    let report = in_place(&site, "graph");
    all_passed(&report.checks, &["connectivity", "counts", "in_service"]);
    assert_eq!(server.number(NODES), 1000);
    assert_eq!(server.number("MATCH ()-[r:KNOWS]->() RETURN count(r)"), 989);
    assert!(!report.set_aside.is_empty() && report.set_aside.iter().all(|path| path.is_dir()), "{report:?}");
    let last = restores(&site).into_iter().find(|record| record.in_place).expect("on record");
    assert_eq!((&last.set_aside, last.healthy), (&report.set_aside, Some(true)));
    assert_eq!(areas(&server.data()).len(), 1);
    found_without_the_ledger(&site, &report);

    killed_while_the_server_is_stopped(&site, &server);
}

/// The agent is killed while the server is away for the dump: the next run brings it back.
fn killed_while_the_server_is_stopped(site: &Site, server: &Neo4jServer) {
    let mut backup = site.command();
    backup.args(["backup", "graph"]).stdout(Stdio::null()).stderr(Stdio::null());
    let mut agent = backup.spawn().expect("the agent starts");
    let stopped = wait_until(PATIENCE, INTERVAL, || server.pid().is_none());
    assert!(stopped, "the backup never stopped the server");
    agent.kill().expect("kill -9");
    let status = agent.wait().expect("ended");
    assert_eq!(status.code(), None, "it was killed, not done: {status:?}");
    assert!(server.pid().is_none(), "it was killed while the server was stopped");

    let next = site.run(&["list"]);
    assert!(next.status.success(), "{}", String::from_utf8_lossy(&next.stderr));
    assert!(is_up(server), "the server was left stopped: {}", server.log());
    assert_eq!(server.number(NODES), 1000);
    assert_eq!(debris(site, &server.data()), Vec::<PathBuf>::new());
    site.verify().expect("what was there is sound");
}
