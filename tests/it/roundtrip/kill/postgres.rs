//! Kills of a backup and of a restore in place of a real PostgreSQL.

use super::super::areas;
use super::super::postgres::Scene;
use super::{Walk, delete_all, recovered};
use std::fs;

/// Kills of each walk.
const KILLS: usize = 20;

// req: A14
#[test]
fn a_backup_of_a_real_cluster_killed_at_20_points_counts_or_leaves_nothing() {
    let scene = Scene::set_up(&[]);
    let content = scene.content();
    let (mut counted, mut nothing) = (0, 0);
    Walk::of(&scene.site, &["backup", "metrics"], KILLS).walk(|when| {
        recovered(&scene.site, &scene.server.directory, when);
        assert_eq!(scene.content(), content, "{when}");
        if delete_all(&scene.site) { counted += 1 } else { nothing += 1 }
    });
    println!("figure: backup metrics: {counted} times a sound backup, {nothing} times none");
    // And it still works.
    scene.site.backup("metrics");
    scene.site.verify().expect("sound");
}

// req: A14
#[test]
fn a_restore_in_place_of_a_real_cluster_killed_at_20_points_leaves_old_or_new_data() {
    let scene = Scene::set_up(&[]);
    let old = scene.content();
    scene.site.backup("metrics");
    let write = || scene.server.sql_in("metrics", "INSERT INTO sensor VALUES (99, 'after the backup')");
    write();
    let newer = scene.content();
    let (mut olds, mut newers) = (0, 0);
    Walk::of(&scene.site, &["restore", "metrics", "--in-place", "--yes"], KILLS).walk(|when| {
        recovered(&scene.site, &scene.server.directory, when);
        let now = scene.content();
        assert!(now == old || now == newer, "{when}: neither the old nor the new data: {now}");
        if now == old {
            olds += 1;
            // Make the two differ again, for the next kill.
            write();
        } else {
            newers += 1;
        }
        // What was set aside is the operator's; here it would only fill the disk.
        for area in areas(&scene.server.directory) {
            fs::remove_dir_all(area).expect("remove");
        }
    });
    println!("figure: restore metrics: {olds} times the restored data, {newers} times the data before");
    // Until the new data is accepted a kill takes the exchange back, so few kills leave the restored data.
    assert!(newers > 0 && olds > 0, "the kills lie on both sides of the exchange");
}
