//! `kill -9` of the agent at points spread over a backup and over a restore in place, on real servers.
//!
//! A first run under strace counts the agent's calls; the kills then fall on points spread evenly over what changes
//! something durable or starts something, and over the writes of the data.
//!
//! - `postgres`: 20 points of each
//! - `neo4j`: 8 points of each, since each kill costs a start of the server; `make campaign` makes more of both

mod neo4j;
mod postgres;

use super::debris;
use crate::site::Site;
use neo4j_backup_agent::base::clock::Stopwatch;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

/// The calls that change what is durable, or what runs.
const STEPS: &[&str] = &["fsync", "fdatasync", "rename", "renameat2", "unlink", "unlinkat", "mkdir", "clone3", "clone"];
/// The calls that move data.
const WRITES: &[&str] = &["write", "pwrite64", "writev"];
/// How many kills a campaign makes of each walk.
const CAMPAIGN: &str = "NEO4J_BACKUP_KILLS";

/// A call of the agent: its name, and which one of its thread it is. That is how strace counts.
type Point = (String, u32);

/// A run that is killed again and again.
struct Walk<'a> {
    site: &'a Site,
    arguments: &'a [&'a str],
    /// Kills to make; fewer are a failure.
    kills: usize,
}

impl<'a> Walk<'a> {
    /// `kills` are made, or as many as the campaign asks for.
    fn of(site: &'a Site, arguments: &'a [&'a str], kills: usize) -> Walk<'a> {
        let asked = std::env::var(CAMPAIGN).ok().map(|text| text.parse().expect("a number of kills"));
        Walk { site, arguments, kills: asked.unwrap_or(kills) }
    }

    /// Runs `neo4j-backupd run …` under strace, which lets go of every program that the agent starts.
    fn traced(&self, options: &[String]) -> ExitStatus {
        let said = fs::File::create(self.site.path("said")).expect("file");
        let mut command = Command::new("strace");
        command.args(["-f", "-b", "execve", "-qqq"]).args(options);
        command.arg(crate::site::BACKUPD).arg("--config").arg(self.site.config()).arg("run").args(self.arguments);
        // Files, not pipes: a server started by the agent would hold a pipe open.
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(said);
        command.status().expect("strace starts; install it with scripts/install-prerequisites.sh")
    }

    fn said(&self) -> String {
        fs::read_to_string(self.site.path("said")).unwrap_or_default()
    }

    /// Every point of a whole run, in the order of time.
    fn points(&self) -> Vec<Point> {
        let log = self.site.path("calls");
        let calls = STEPS.iter().chain(WRITES).copied().collect::<Vec<_>>().join(",");
        let options = [
            "-o".to_owned(),
            log.display().to_string(),
            "-e".to_owned(),
            format!("trace={calls}"),
            "-esignal=none".to_owned(),
        ];
        assert!(self.traced(&options).success(), "{}", self.said());
        let mut numbers: BTreeMap<(String, String), u32> = BTreeMap::new();
        let (mut seen, mut found) = (BTreeSet::new(), Vec::new());
        for line in fs::read_to_string(&log).expect("calls").lines() {
            let Some((thread, call)) = line.split_once(char::is_whitespace) else { continue };
            let Some((name, _)) = call.trim_start().split_once('(') else { continue };
            if !STEPS.iter().chain(WRITES).any(|known| *known == name) {
                continue;
            }
            let number = numbers.entry((thread.to_owned(), name.to_owned())).or_default();
            *number += 1;
            if seen.insert((name.to_owned(), *number)) {
                found.push((name.to_owned(), *number));
            }
        }
        found
    }

    /// Kills a run at points spread over it; `check` looks at what is left after each.
    fn walk(&self, mut check: impl FnMut(&str)) {
        let watch = Stopwatch::start();
        let all = self.points();
        check("not killed");
        let (steps, writes): (Vec<_>, Vec<_>) = all.iter().partition(|(name, _)| STEPS.contains(&name.as_str()));
        // Threads share their work differently each time, so that some points are not reached: more than needed.
        let chosen = in_turns(&spread(&steps, self.kills + self.kills / 4), &spread(&writes, self.kills / 2));
        println!("{} steps, {} writes, chosen: {chosen:?}", steps.len(), writes.len());
        let mut kills = 0;
        for (name, number) in &chosen {
            let inject = format!("inject={name}:signal=KILL:when={number}");
            let options = ["-o", "/dev/null", "-e", &format!("trace={name}"), "-e", &inject].map(str::to_owned);
            let status = self.traced(&options);
            let when = format!("{:?} killed at {name} number {number}", self.arguments);
            if !status.success() {
                assert_eq!(status.code(), None, "{when}: {}", self.said());
                kills += 1;
            }
            check(&when);
            if kills == self.kills {
                break;
            }
        }
        assert!(kills >= self.kills, "{kills} kills of {}", self.kills);
        println!("figure: {}: {kills} kills in {} s", self.arguments.join(" "), watch.elapsed().as_secs());
    }
}

/// `count` of them, evenly spread.
fn spread(points: &[&Point], count: usize) -> Vec<Point> {
    let count = count.min(points.len());
    (0..count).map(|index| points[index * points.len() / count].clone()).collect()
}

/// Both, in an order of which every beginning is spread over the whole: every third of each first, then the others.
fn in_turns(steps: &[Point], writes: &[Point]) -> Vec<Point> {
    let thirds = |points: &[Point], first: usize| points.iter().skip(first).step_by(3).cloned().collect::<Vec<_>>();
    (0..3).flat_map(|first| [thirds(steps, first), thirds(writes, first)].concat()).collect()
}

/// The next run recovers by itself; nothing of the killed one is left, and what is left is sound. `beside` is where
/// restores in place are prepared.
fn recovered(site: &Site, beside: &Path, when: &str) {
    let next = site.run(&["list"]);
    assert!(next.status.success(), "{when}: {}", String::from_utf8_lossy(&next.stderr));
    assert_eq!(debris(site, beside), Vec::<PathBuf>::new(), "{when}");
    let checked = site.verify();
    assert!(checked.is_ok(), "{when}: {checked:?}");
}

/// Deletes what counts, so that each run starts from the same; tells whether there was something.
fn delete_all(site: &Site) -> bool {
    let mut any = false;
    while site.run(&["delete", "--yes", "latest"]).status.success() {
        any = true;
    }
    any
}
