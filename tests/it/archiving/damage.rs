//! Damage to what is archived is found by `verify`, and refused by a restore that needs it, by the object's name.

use super::Scene;
use neo4j_backup_agent::base::Code;
use std::fs;
use std::path::PathBuf;

pub(super) fn batches(scene: &Scene) -> Vec<PathBuf> {
    let log = |path: &PathBuf| path.components().any(|part| part.as_os_str() == "log");
    scene.site.objects().into_iter().filter(log).collect()
}

// req: X5
#[test]
fn a_batch_that_was_flipped_cut_or_removed_is_found_and_never_replayed() {
    let scene = Scene::set_up("");
    scene.server.sql("CREATE TABLE t (n int)");
    scene.site.backup("metrics");
    for n in 0..3 {
        scene.server.sql(&format!("INSERT INTO t VALUES ({n})"));
        scene.archive();
    }
    let found = batches(&scene);
    assert_eq!(found.len(), 6, "{found:?}");
    for (index, path) in found[..4].iter().enumerate() {
        let whole = fs::read(path).expect("read");
        let mut flipped = whole.clone();
        flipped[whole.len() / 2] ^= 1;
        let damages: [Option<&[u8]>; 3] = [Some(&flipped), Some(&whole[..whole.len() - 1]), None];
        for (kind, damage) in damages.into_iter().enumerate() {
            match damage {
                Some(bytes) => fs::write(path, bytes).expect("damage"),
                None => fs::remove_file(path).expect("damage"),
            }
            let name = path.file_name().and_then(|name| name.to_str()).expect("name");
            let stem = name.split('.').next().expect("stem");
            let verified = scene.site.verify();
            assert!(verified.is_err(), "{name}, {kind}: not found by verify");
            let aside = scene.site.path(&format!("aside-{index}-{kind}"));
            let error = scene.try_restore(&aside, None).expect_err("refused");
            assert!(error.to_string().contains(stem), "{name}, {kind}: {error}");
            assert!(
                [Code::LogGap, Code::SignatureInvalid, Code::BackupCorrupted].contains(&error.code()),
                "{name}, {kind}: {error}"
            );
            assert!(!aside.exists(), "nothing is left of a restore that was refused");
            fs::write(path, &whole).expect("mend");
        }
    }
    scene.site.verify().expect("mended");
    let (_, copy) = scene.restore("whole", None);
    assert_eq!(copy.sql("SELECT count(*) FROM t"), "3");
}
