//! What is taken in, what is refused, and what leaves.

use super::*;
use crate::driver::postgres::wal::page::tests::first_page;

const SIZE: u64 = 1 << 20;
const CLUSTER: u64 = 42;

struct Place {
    directory: tempfile::TempDir,
    spool: Spool,
}

fn place(segments: u64, drop_when_full: bool) -> Place {
    let directory = tempfile::tempdir().expect("tempdir");
    // The lock's own line takes some bytes as well.
    let spool = Spool::new(directory.path().join("metrics"), segments * SIZE + SIZE / 2, drop_when_full);
    Place { directory, spool }
}

fn segment(number: u64) -> Segment {
    Segment { timeline: 1, number }
}

impl Place {
    fn file(&self, content: &[u8]) -> File {
        let path = self.directory.path().join("piece");
        fs::write(&path, content).expect("piece");
        File::open(path).expect("piece")
    }

    fn push(&self, number: u64, fill: u8) -> Result<Intake> {
        let mut content = first_page(segment(number), SIZE, CLUSTER);
        content.resize(SIZE as usize, fill);
        self.push_as(&segment(number).name(SIZE), &content)
    }

    fn push_as(&self, name: &str, content: &[u8]) -> Result<Intake> {
        self.spool.of_cluster(CLUSTER).take_in(name, &mut self.file(content))
    }

    fn held(&self) -> Vec<u64> {
        let held = self.spool.of_cluster(CLUSTER).segments().expect("segments");
        held.segments.into_iter().map(|segment| segment.number).collect()
    }
}

fn taken(intake: Result<Intake>) -> Result<Taken, Code> {
    intake.map(|intake| intake.taken).map_err(|error| error.code())
}

#[test]
fn what_comes_again_is_known_and_another_content_is_refused() {
    let place = place(100, false);
    assert_eq!(taken(place.push(1, 7)), Ok(Taken::Stored));
    assert_eq!(taken(place.push(1, 7)), Ok(Taken::Already));
    assert_eq!(taken(place.push(1, 8)), Err(Code::ObjectConflict));
    assert_eq!(place.held(), [1]);
    for number in 2..=10 {
        assert_eq!(taken(place.push(number, 7)), Ok(Taken::Stored));
    }
    // Also once every repository has it and the spool has not.
    place.spool.of_cluster(CLUSTER).release(1, 11 * SIZE).expect("release");
    assert_eq!(place.held(), (3..=10).collect::<Vec<_>>());
    assert_eq!(taken(place.push(1, 7)), Ok(Taken::Already));
    assert_eq!(taken(place.push(1, 8)), Err(Code::ObjectConflict));
    assert_eq!(place.held(), (3..=10).collect::<Vec<_>>());
}

#[test]
fn what_is_not_durable_everywhere_stays() {
    let place = place(100, false);
    (1..=20).for_each(|number| assert_eq!(taken(place.push(number, 7)), Ok(Taken::Stored)));
    place.spool.of_cluster(CLUSTER).release(1, 10 * SIZE + 5).expect("release");
    assert_eq!(place.held(), (2..=20).collect::<Vec<_>>(), "9 are done, and the newest of them are kept");
    place.spool.of_cluster(CLUSTER).release(2, 100 * SIZE).expect("release");
    assert_eq!(place.held(), (10..=20).collect::<Vec<_>>(), "of a timeline that was left, what is archived goes");
}

#[test]
fn a_full_spool_refuses_or_gives_up_as_it_was_told() {
    let blocking = place(2, false);
    (1..=2).for_each(|number| assert_eq!(taken(blocking.push(number, 7)), Ok(Taken::Stored)));
    assert_eq!(taken(blocking.push(3, 7)), Ok(Taken::Refused { newly: true }));
    assert_eq!(taken(blocking.push(3, 7)), Ok(Taken::Refused { newly: false }));
    assert_eq!(taken(blocking.push(2, 7)), Ok(Taken::Already));
    assert_eq!(blocking.held(), [1, 2]);

    let dropping = place(2, true);
    (1..=2).for_each(|number| assert_eq!(taken(dropping.push(number, 7)), Ok(Taken::Stored)));
    assert_eq!(taken(dropping.push(3, 7)), Ok(Taken::Dropped { newly: true }));
    let spool = dropping.spool.of_cluster(CLUSTER);
    assert!(spool.was_dropped(segment(3), SIZE) && !spool.was_dropped(segment(2), SIZE));
}

#[test]
fn only_what_the_name_says_is_taken() {
    let place = place(100, false);
    let name = segment(1).name(SIZE);
    let mut content = first_page(segment(1), SIZE, CLUSTER);
    content.resize(SIZE as usize, 0);
    let code = |name: &str, content: &[u8]| taken(place.push_as(name, content)).err();
    assert_eq!(code(&name, &content[..SIZE as usize - 1]), Some(Code::LogCorrupted), "cut");
    assert_eq!(code(&segment(2).name(SIZE), &content), Some(Code::LogCorrupted), "another's name");
    assert_eq!(code("../escape", b"x"), Some(Code::Usage));
    let mut foreign = first_page(segment(1), SIZE, CLUSTER + 1);
    foreign.resize(SIZE as usize, 0);
    assert_eq!(code(&name, &foreign), Some(Code::OwnerConflict));
    assert_eq!(code("00000002.history", b"1\t0/3000000\tno recovery target\n"), None);
    assert_eq!(code("00000002.history", b"1\t0/4000000\tno recovery target\n"), Some(Code::ObjectConflict));
    assert_eq!(code(&format!("{name}.00000028.backup"), b"START WAL LOCATION: 0/100028"), None);
    assert_eq!(code(&format!("{name}.partial"), &content), None);
    assert!(place.held().is_empty());
}

#[test]
fn what_a_killed_push_left_is_no_segment_and_is_removed() {
    let place = place(100, false);
    assert_eq!(taken(place.push(1, 7)), Ok(Taken::Stored));
    let directory = place.directory.path().join("metrics").join(CLUSTER.to_string());
    let left = directory.join(format!("{}1-0-{}", atomic_file::TEMPORARY_PREFIX, segment(2).name(SIZE)));
    fs::write(&left, b"half").expect("leftover");
    assert_eq!(place.held(), [1]);
    assert_eq!(taken(place.push(2, 7)), Ok(Taken::Stored));
    assert!(!left.exists());
}
