//! A full backup that says where the log goes on after it.

use super::wal::name::is_segment_size;
use super::wal::source::mark;
use crate::artifact::log_point::Lsn;
use crate::base::Result;
use crate::base::clock::{Clock, SystemClock};
use crate::base::task::Task;
use crate::driver::{FullBackup, FullReport, Volume};

/// Adds the point to what another full backup reports.
pub(crate) struct MarkedBase {
    inner: Box<dyn FullBackup>,
    segment_size: u64,
}

impl MarkedBase {
    /// Marks `inner`, of a cluster whose segments have `segment_size` bytes.
    pub(crate) fn new(inner: Box<dyn FullBackup>, segment_size: u64) -> MarkedBase {
        MarkedBase { inner, segment_size }
    }
}

impl FullBackup for MarkedBase {
    fn take_volumes(&mut self) -> Vec<Volume> {
        self.inner.take_volumes()
    }

    fn finish(self: Box<Self>, task: &Task) -> Result<FullReport> {
        let mut report = self.inner.finish(task)?;
        if let Some(position) = &mut report.position
            && let (Ok(timeline), Some(end)) = (position.lineage.parse(), Lsn::parse(&position.end))
            && is_segment_size(self.segment_size)
        {
            // Whatever is in the base was committed before it ended.
            position.mark = Some(mark(timeline, end.0, self.segment_size, Some(SystemClock.now())));
        }
        Ok(report)
    }
}
