//! `kill -9` of the agent in the middle of its uploads, at requests spread over a backup: the next run ends what was left
//! under way, and every backup that was acknowledged comes back.

use super::weather::{Bench, NOISE, bench};
use super::{command, succeed};
use crate::servers::proxy::Fault;
use crate::site::content;
use neo4j_backup_agent::base::clock::wait_until;
use std::process::Stdio;
use std::time::Duration;

/// How many kills a campaign makes.
const CAMPAIGN: &str = "NEO4J_BACKUP_UPLOAD_KILLS";
/// Kills without a campaign.
const KILLS: u64 = 5;
/// Longest time until a request is made, or the agent ends.
const PATIENCE: Duration = Duration::from_secs(60);

// req: A14 X4
#[test]
fn uploads_that_are_killed_anywhere_are_ended_by_the_next_run() {
    let Some(bench) = bench(NOISE) else { return };
    let Bench { server, proxy, site, .. } = &bench;
    let succeed = |arguments: &[&str]| succeed(site, arguments);
    succeed(&["backup", "sim"]);
    proxy.decide(|_| Fault::None);
    succeed(&["backup", "sim"]);
    let whole = proxy.counts().0;
    let kills = std::env::var(CAMPAIGN).ok().map_or(KILLS, |text| text.parse().expect("a number of kills"));
    let (mut acknowledged, mut left, mut late) = (2, 0, 0);
    for number in 1..=kills {
        proxy.decide(|_| Fault::None);
        let mut agent = command(site)
            .args(["backup", "sim"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("neo4j-backupd starts");
        let at = 1 + whole * number / (kills + 1);
        let reached = || proxy.counts().0 >= at;
        assert!(wait_until(PATIENCE, Duration::from_micros(200), reached), "request {at} of {whole} is never made");
        agent.kill().expect("kill");
        let ended = agent.wait().expect("wait");
        // One that had said so before the kill counts.
        (acknowledged, late) = if ended.success() { (acknowledged + 1, late + 1) } else { (acknowledged, late) };
        left += u64::from(server.unfinished() > 0);
        // Any run of the agent; here one that writes nothing.
        let listed: serde_json::Value = serde_json::from_str(&succeed(&["list", "--json=short"])).expect("JSON");
        bench.end_the_late();
        let counted = listed["backups"].as_array().map_or(0, Vec::len);
        // The manifest may have been there already when the agent was killed.
        assert!(counted == acknowledged || counted == acknowledged + 1, "kill {number}: {counted}, {acknowledged}");
        acknowledged = counted;
    }
    println!(
        "figure: kills in mid-upload: {kills} of {whole} requests of a backup, {left} left an upload under way, {late} came too \
         late, {acknowledged} backups count"
    );
    assert!(left > 0, "no kill was in the middle of an upload");
    succeed(&["verify", "--all"]);
    let out = site.path("out");
    succeed(&["restore", "sim", "latest", "--into", &out.display().to_string()]);
    assert!(content(&out.join("data")) == content(&site.path("database/data")));
}
