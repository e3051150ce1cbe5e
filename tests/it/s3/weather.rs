//! Bad weather between the agent and a real S3 server: each run ends in a verified backup or in an honest failure, and
//! nothing is acknowledged that cannot be restored. `make campaign` has longer waits, narrower lines and more rounds.

use super::site_at;
use crate::servers::proxy::{Asked, Fault, Proxy};
use crate::servers::s3::S3Server;
use crate::site::{Site, content};
use neo4j_backup_agent::base::clock::{Stopwatch, wait_until};
use std::fs;
use std::process::Output;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// How often a campaign plays each sort of weather.
const CAMPAIGN: &str = "NEO4J_BACKUP_WEATHER";
/// Bytes of the database that do not compress: two parts and a bit.
pub(super) const NOISE: usize = 36 << 20;

/// Longest time until nothing is under way.
const PATIENCE: Duration = Duration::from_secs(60);

/// Numbers that look as if drawn, the same each time.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}

/// How a run may end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    /// In a backup.
    Backup,
    /// In an error with one of these exit codes.
    Failure(&'static [i32]),
}

/// A real server, a proxy before it, and a simulated database that is backed up through both.
pub(super) struct Bench {
    pub(super) server: S3Server,
    pub(super) proxy: Proxy,
    pub(super) site: Site,
    rounds: u64,
}

fn is_campaign() -> bool {
    std::env::var_os(CAMPAIGN).is_some()
}

/// `noise` bytes of the database do not compress. `None` where the server cannot be had.
pub(super) fn bench(noise: usize) -> Option<Bench> {
    let server = S3Server::start()?;
    let proxy = Proxy::before(server.port());
    let site = site_at(&proxy.endpoint());
    let mut bytes = vec![0; noise];
    openssl::rand::rand_bytes(&mut bytes).expect("noise");
    fs::write(site.path("database/data/noise"), bytes).expect("write");
    let rounds = std::env::var(CAMPAIGN).ok().map_or(1, |text| text.parse().expect("a number of rounds"));
    Some(Bench { server, proxy, site, rounds })
}

impl Bench {
    fn run(&self, arguments: &[&str]) -> Output {
        super::run(&self.site, arguments)
    }

    fn backups(&self) -> usize {
        let listed = self.run(&["list", "--json=short"]);
        assert!(listed.status.success(), "{listed:?}");
        let listed: serde_json::Value = serde_json::from_slice(&listed.stdout).expect("JSON");
        listed["backups"].as_array().map_or(0, Vec::len)
    }

    /// In each round a backup in the weather that `decide` makes, then what became of it in fair weather.
    fn play<D>(&self, name: &str, ending: Ending, mut weather: impl FnMut(Dice) -> D)
    where
        D: FnMut(&Asked) -> Fault + Send + 'static,
    {
        let (mut requests, mut faults, mut taken, mut failed) = (0, 0, 0, 0);
        let watch = Stopwatch::start();
        for round in 1..=self.rounds {
            self.proxy.decide(weather(Dice(0x9E37_79B9_7F4A_7C15 ^ (round << 20))));
            let output = self.run(&["backup", "sim"]);
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            let (asked, done) = self.proxy.counts();
            assert!(done > 0, "{name}, round {round}: nothing was done to {asked} requests");
            (requests, faults) = (requests + asked, faults + done);
            self.proxy.decide(|_| Fault::None);
            let code = output.status.code().expect("an exit code");
            let fits = match ending {
                Ending::Backup => code == 0,
                Ending::Failure(codes) => codes.contains(&code),
            };
            assert!(fits, "{name}, round {round}: {code}: {said}");
            if code != 0 {
                println!(
                    "{name}, round {round}: {}",
                    said.lines().find(|line| line.contains("error: ")).unwrap_or(&said)
                );
            }
            (taken, failed) = if code == 0 { (taken + 1, failed) } else { (taken, failed + 1) };
            self.look(&format!("{name}, round {round}, exit {code}"), taken);
        }
        println!(
            "figure: bad weather, {name}: {} rounds, {requests} requests, {faults} of them disturbed, {taken} backups, \
             {failed} honest failures, {:.1} s",
            self.rounds,
            watch.elapsed().as_secs_f64()
        );
        // The next run takes a backup, whatever was before, and nothing of ours is left under way.
        assert!(self.run(&["backup", "sim"]).status.success(), "{name}: afterwards");
        self.end_the_late();
        self.look(&format!("{name}, afterwards"), taken + 1);
    }

    /// Runs of the agent end every upload of ours; the server may take in a part that was on its way after the end, and then
    /// has the upload again until the run after.
    pub(super) fn end_the_late(&self) {
        let ended = || self.server.unfinished() == 0 || !self.run(&["list"]).status.success();
        assert!(wait_until(PATIENCE, Duration::from_millis(100), ended), "uploads are under way");
        assert_eq!(self.server.unfinished(), 0);
    }

    /// Every backup that counts is whole and comes back.
    fn look(&self, when: &str, taken: usize) {
        assert_eq!(self.backups(), taken, "{when}");
        let verified = self.run(&["verify", "--all"]);
        assert!(verified.status.success() || taken == 0, "{when}: {verified:?}");
        if taken > 0 {
            let out = self.site.path("out");
            let restored = self.run(&["restore", "sim", "latest", "--into", &out.display().to_string()]);
            assert!(restored.status.success(), "{when}: {restored:?}");
            assert!(content(&out.join("data")) == content(&self.site.path("database/data")), "{when}");
            fs::remove_dir_all(&out).expect("remove");
        }
    }
}

// req: A4 X4
#[test]
fn three_of_ten_requests_fail() {
    let Some(bench) = bench(NOISE) else { return };
    bench.play("three of ten requests fail", Ending::Backup, |mut dice| {
        move |_: &Asked| match dice.below(10) {
            0 => Fault::Answer(500, "InternalError"),
            1 => Fault::Answer(503, "ServiceUnavailable"),
            2 => Fault::Answer(503, "SlowDown"),
            _ => Fault::None,
        }
    });
}

#[test]
fn the_connection_breaks_in_every_part() {
    let Some(bench) = bench(NOISE) else { return };
    bench.play("the connection breaks in every part", Ending::Backup, |mut dice| {
        let mut broken = std::collections::BTreeSet::new();
        move |asked: &Asked| match asked.is_part() && broken.insert(asked.path.clone()) {
            true => Fault::RequestCut(dice.below(8 << 20)),
            false => Fault::None,
        }
    });
}

#[test]
fn bodies_are_cut_short_on_the_way_back() {
    let Some(bench) = bench(NOISE) else { return };
    bench.play("bodies are cut short", Ending::Backup, |mut dice| {
        let mut cut = std::collections::BTreeSet::new();
        move |asked: &Asked| match asked.method == "GET" && cut.insert(asked.path.clone()) {
            true => Fault::AnswerCut(dice.below(4 << 10)),
            false => Fault::None,
        }
    });
}

#[test]
fn the_store_names_a_wrong_checksum() {
    let Some(bench) = bench(NOISE) else { return };
    bench.play("a wrong checksum", Ending::Failure(&[1, 13, 75]), |_| {
        move |asked: &Asked| if asked.is_part() { Fault::WrongChecksum } else { Fault::None }
    });
}

#[test]
fn what_comes_back_is_not_what_was_sent() {
    let Some(bench) = bench(NOISE) else { return };
    bench.play("a flipped bit on the way back", Ending::Failure(&[1, 13, 75]), |_| {
        move |asked: &Asked| match asked.method == "GET" && asked.path.contains(".tar.") {
            true => Fault::Flipped,
            false => Fault::None,
        }
    });
}

#[test]
fn the_store_is_away_for_a_while() {
    let Some(bench) = bench(NOISE) else { return };
    let away = Duration::from_secs(if is_campaign() { 60 } else { 3 });
    bench.play("an outage", Ending::Backup, |_| {
        let mut since = None;
        move |asked: &Asked| {
            if since.is_none() && asked.is_part() {
                since = Some(Stopwatch::start());
            }
            match since {
                Some(watch) if watch.elapsed() < away => Fault::Refused,
                _ => Fault::None,
            }
        }
    });
}

#[test]
fn the_line_is_long_and_narrow() {
    let (noise, wait, rate) = match is_campaign() {
        true => (4 << 20, Duration::from_secs(2), 100_000),
        false => (2 << 20, Duration::from_millis(100), 2_000_000),
    };
    let Some(bench) = bench(noise) else { return };
    bench.play("a long and narrow line", Ending::Backup, |_| move |_: &Asked| Fault::Slow(wait, rate));
}

// req: A6
#[test]
fn check_names_each_right_that_lacks() {
    let Some(bench) = bench(0) else { return };
    let findings = |denied: fn(&Asked) -> bool| {
        bench.proxy.decide(move |asked| if denied(asked) { Fault::Answer(403, "AccessDenied") } else { Fault::None });
        let output = bench.run(&["check"]);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let lines = said.lines().filter(|line| line.contains("[repository-rights]")).count();
        (lines, said)
    };
    assert!(bench.run(&["backup", "sim"]).status.success());
    let (lines, said) = findings(|_| false);
    assert_eq!(lines, 0, "{said}");
    assert_eq!(bench.server.unfinished(), 0);
    let (lines, said) = findings(|asked| asked.method == "POST" || asked.method == "DELETE");
    assert!(lines == 1 && said.contains("s3:AbortMultipartUpload"), "{said}");
    let (lines, said) = findings(|asked| asked.method == "POST" || asked.path.contains("list-type=2"));
    assert!(lines == 2 && said.contains("s3:PutObject") && said.contains("s3:ListBucket "), "{said}");
}

#[test]
fn the_credentials_expire_half_way() {
    let Some(bench) = bench(NOISE) else { return };
    let seen = Arc::new(AtomicBool::new(false));
    let expired = seen.clone();
    bench.play("credentials that expire", Ending::Failure(&[15]), move |mut dice| {
        let (at, seen) = (8 + dice.below(8), seen.clone());
        move |asked: &Asked| match asked.number >= at {
            true => {
                seen.store(true, Ordering::SeqCst);
                Fault::Answer(403, "ExpiredToken")
            }
            false => Fault::None,
        }
    });
    assert!(expired.load(Ordering::SeqCst));
}
