//! Reads back what was just written.

use super::objects::{Branch, LANES_AT_ONCE, require_survivor};
use crate::artifact::digest::PART_SIZE;
use crate::artifact::manifest::ObjectRecord;
use crate::base::side_by_side;
use crate::base::task::Task;
use crate::base::{Code, Error, Result};
use crate::pipeline;
use std::ops::Range;

/// Parts that are read as one stretch, 64 MiB: a large object keeps all cores busy, and a bucket gets few requests.
const STRETCH_PARTS: usize = 4;

/// Reads every object back from every living branch, some stretches side by side, and compares the stored bytes, part by
/// part, with what was proven to open while it was sealed. Only what passes here counts.
pub(crate) fn read_back(records: &[ObjectRecord], branches: &[Branch], task: &Task) -> Result<()> {
    for branch in branches.iter().filter(|branch| branch.is_alive()) {
        let stretches: Vec<_> = records.iter().flat_map(stretches).collect();
        side_by_side::each(stretches, LANES_AT_ONCE, |(record, parts)| {
            task.check()?;
            if !branch.is_alive() {
                return Ok(());
            }
            if let Err(error) = read_stretch(record, parts, branch, task) {
                task.check()?;
                task.warn(format!("reading back {}: {error}", record.key));
                branch.fail(error.context("reading back what was just written"));
            }
            Ok(())
        })?;
    }
    require_survivor(branches)
}

/// An object's parts, in stretches that are read at a time.
fn stretches(record: &ObjectRecord) -> Vec<(&ObjectRecord, Range<usize>)> {
    let parts = record.stored.parts.len();
    let stretch = |begin| (record, begin..parts.min(begin + STRETCH_PARTS));
    // An empty object has to be there too.
    (0..parts.max(1)).step_by(STRETCH_PARTS).map(stretch).collect()
}

fn read_stretch(record: &ObjectRecord, parts: Range<usize>, branch: &Branch, task: &Task) -> Result<()> {
    let store = branch.repository.store();
    let range = match parts.len() == record.stored.parts.len() {
        // Read to its end, wherever that is.
        true => None,
        false => {
            let place = |part: usize| (part as u64 * PART_SIZE).min(record.stored.size);
            Some(place(parts.start)..place(parts.end))
        }
    };
    if range.is_some() && parts.start == 0 {
        let found = store.stat(&record.key)?.map(|info| info.size);
        if found != Some(record.stored.size) {
            let found = found.map_or("none".to_owned(), |size| size.to_string());
            let said = format!("object {}: {found} of {} bytes are there", record.key, record.stored.size);
            return Err(Error::new(Code::BackupCorrupted, said));
        }
    }
    pipeline::verify_stored(record, parts, &mut store.read(&record.key, range)?, task)?;
    Ok(())
}
