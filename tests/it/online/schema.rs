//! A schema that changes while a base is copied: what the base holds cannot be known from outside, so nothing of it is
//! demanded of a restore.

use super::{configure, restored};
use crate::roundtrip::all_checked;
use crate::servers::neo4j::{Neo4jOptions, Neo4jServer};
use crate::site::{BACKUPD, Site, restore_request};
use crate::workshop::{INTERVAL, PATIENCE};
use neo4j_backup_agent::base::clock::wait_until;
use neo4j_backup_agent::operation::request::Destination;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// A backup that stands still in the middle of a file.
struct Halted {
    strace: Child,
    agent: Pid,
}

impl Halted {
    /// Begins a backup, and returns when it has read from a file and stands still.
    fn at(site: &Site, file: &Path) -> Halted {
        let trace = site.path("trace");
        let strace = Command::new("strace")
            .args(["-f", "-qq", "-o"])
            .arg(&trace)
            .arg("-P")
            .arg(file)
            .args(["-e", "trace=read,pread64,readv,preadv", "-e", "signal=STOP"])
            .args(["-e", "inject=read,pread64,readv,preadv:signal=STOP:when=1", BACKUPD, "--config"])
            .arg(site.config())
            .args(["run", "backup", "graph"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("strace starts; install it with scripts/install-prerequisites.sh");
        let stopped = || {
            let text = fs::read_to_string(&trace).unwrap_or_default();
            let line = text.lines().find(|line| line.ends_with("--- stopped by SIGSTOP ---"))?.to_owned();
            line.split_whitespace().next()?.parse::<i32>().ok()
        };
        assert!(wait_until(PATIENCE, INTERVAL, || stopped().is_some()), "the copy never came to {}", file.display());
        Halted { strace, agent: Pid::from_raw(stopped().expect("a thread")) }
    }

    /// Lets it go on; it must succeed.
    fn go_on(mut self) {
        kill(self.agent, Signal::SIGCONT).expect("the agent is there");
        assert!(self.strace.wait().expect("strace").success(), "the backup failed");
    }
}

impl Drop for Halted {
    fn drop(&mut self) {
        // Where a test failed meanwhile, it would stand still for ever.
        if matches!(self.strace.try_wait(), Ok(None)) {
            let _ = kill(self.agent, Signal::SIGKILL);
            let _ = self.strace.wait();
        }
    }
}

// req: X1 B8
#[test]
fn a_base_whose_schema_changed_while_it_was_copied_is_restored() {
    let site = Site::with("");
    let server = Neo4jServer::start(site.root(), &Neo4jOptions::default());
    server.fill();
    configure(&site, &server);
    let backup = Halted::at(&site, &server.data().join("databases/neo4j/neostore.schemastore.db"));
    server.cypher("DROP INDEX person_id");
    server.cypher("CREATE INDEX person_text FOR (p:Person) ON (p.text)");
    backup.go_on();
    let report = restored(&site, restore_request("graph", Destination::Into(site.path("aside"))));
    all_checked(&report.checks, &["connectivity", "schema_consistency", "orphan_detection", "database_check"]);
}
