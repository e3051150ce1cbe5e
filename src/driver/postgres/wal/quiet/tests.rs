//! Segments as a server leaves them, with what an older segment left behind the end.

use super::is_quiet;
use crate::driver::postgres::wal::name::Segment;
use crate::driver::postgres::wal::scan::tests::{CLUSTER_TIMELINE, FIRST, Log, SIZE, Written};
use Written::{Commit, Data, Housekeeping};

fn quiet(written: &[Written]) -> bool {
    let scene = tempfile::tempdir().expect("tempdir");
    let log = Log::write(written);
    let end = FIRST * SIZE + log.bytes.len() as u64;
    let current = Segment { timeline: CLUSTER_TIMELINE, number: FIRST };
    let mut content = log.bytes;
    content.resize(SIZE as usize, 0x5a);
    let directory = scene.path().join("pg_wal");
    std::fs::create_dir(&directory).expect("directory");
    std::fs::write(directory.join(current.name(SIZE)), &content).expect("write");
    // What is inserted and not written yet cannot be judged.
    assert!(!is_quiet(scene.path(), current, SIZE, end + 4096));
    assert!(!is_quiet(&scene.path().join("elsewhere"), current, SIZE, end));
    is_quiet(scene.path(), current, SIZE, end)
}

#[test]
fn housekeeping_alone_is_quiet_and_everything_else_is_not() {
    assert!(quiet(&[Housekeeping]));
    assert!(quiet(&vec![Housekeeping; 400]), "over several pages");
    for busy in [Data(20), Data(9000), Commit(1_790_000_000), Written::Point("here".to_owned())] {
        for written in [vec![busy.clone()], vec![Housekeeping, busy.clone()], vec![busy, Housekeeping]] {
            assert!(!quiet(&written), "{written:?}");
        }
    }
    assert!(!quiet(&vec![Housekeeping; 4000]), "more than is looked at");
}
