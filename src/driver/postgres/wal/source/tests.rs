//! Points, and where the log goes on after them.

use super::*;

const SIZE: u64 = 1 << 20;

#[test]
fn a_point_says_where_the_log_goes_on() {
    let inside = mark(3, 5 * SIZE + 17, SIZE, None);
    assert_eq!((inside.file, inside.offset, timeline_of(&inside)), (5, 17, Some(3)));
    assert_eq!(next_segment(&inside, 3, SIZE), Segment { timeline: 3, number: 5 });
    let boundary = mark(3, 5 * SIZE, SIZE, None);
    assert_eq!((boundary.file, boundary.offset, boundary.transaction), (4, SIZE, 5 * SIZE));
    assert_eq!(next_segment(&boundary, 3, SIZE), Segment { timeline: 3, number: 5 });
    let elsewhere = mark(4, 5 * SIZE, SIZE, None);
    assert!(!boundary.same_point(&elsewhere), "a position means something within a timeline only");
}
