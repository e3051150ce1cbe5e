//! Kills of a dump and of a restore in place of a real Neo4j. Each kill may cost a start of the server.

use super::super::areas;
use super::super::neo4j::{configure, is_up};
use super::{Walk, delete_all, recovered};
use crate::servers::neo4j::{Neo4jOptions, Neo4jServer};
use crate::site::Site;
use std::fs;

/// Kills of each walk.
const KILLS: usize = 8;

struct Scene {
    site: Site,
    server: Neo4jServer,
}

impl Scene {
    fn set_up() -> Scene {
        let site = Site::with("");
        let server = Neo4jServer::start(site.root(), &Neo4jOptions::default());
        server.fill();
        configure(&site, &server);
        Scene { site, server }
    }

    /// Counts and sums over everything, once the server answers.
    fn content(&self, when: &str) -> Vec<u64> {
        assert!(is_up(&self.server), "{when}: the server was left stopped: {}", self.server.log());
        let ask = |query: &str| self.server.number(query);
        vec![
            ask("MATCH (n) RETURN count(n)"),
            ask("MATCH ()-[r]->() RETURN count(r)"),
            ask("MATCH (p:Person) RETURN sum(p.id * size(p.text))"),
            ask("MATCH (l:Later) RETURN count(l)"),
        ]
    }
}

// req: A14
#[test]
fn a_dump_of_a_real_graph_killed_at_8_points_counts_or_leaves_nothing() {
    let scene = Scene::set_up();
    let content = scene.content("before");
    let (mut counted, mut nothing) = (0, 0);
    Walk::of(&scene.site, &["backup", "graph"], KILLS).walk(|when| {
        recovered(&scene.site, &scene.server.data(), when);
        assert_eq!(scene.content(when), content, "{when}");
        if delete_all(&scene.site) { counted += 1 } else { nothing += 1 }
    });
    println!("figure: backup graph: {counted} times a sound backup, {nothing} times none");
    // And it still works.
    scene.site.backup("graph");
    scene.site.verify().expect("sound");
}

// req: A14
#[test]
fn a_restore_in_place_of_a_real_graph_killed_at_8_points_leaves_old_or_new_data() {
    let scene = Scene::set_up();
    let old = scene.content("before");
    scene.site.backup("graph");
    let write = || drop(scene.server.cypher("CREATE (:Later)"));
    write();
    let newer = scene.content("before");
    assert_ne!(old, newer);
    let (mut olds, mut newers) = (0, 0);
    Walk::of(&scene.site, &["restore", "graph", "--in-place", "--yes"], KILLS).walk(|when| {
        recovered(&scene.site, &scene.server.data(), when);
        let now = scene.content(when);
        assert!(now == old || now == newer, "{when}: neither the old nor the new data: {now:?}");
        if now == old {
            olds += 1;
            // Make the two differ again, for the next kill.
            write();
        } else {
            newers += 1;
        }
        // What was set aside is the operator's; here it would only fill the disk.
        for area in areas(&scene.server.data()) {
            fs::remove_dir_all(area).expect("remove");
        }
    });
    println!("figure: restore graph: {olds} times the restored data, {newers} times the data before");
    // Until the new data is accepted a kill takes the exchange back, so few kills leave the restored data.
    assert!(newers > 0 && olds > 0, "the kills lie on both sides of the exchange");
}
