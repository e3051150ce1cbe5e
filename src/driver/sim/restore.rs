//! Puts a fake database back below a directory, and checks it.

use super::control::Control;
use super::data_tree::DataTree;
use super::log::replay::{self, LogSink};
use crate::artifact::log_batch::{LogBatch, LogMark};
use crate::artifact::manifest::{Content, Manifest, ObjectRecord, Role};
use crate::artifact::statistics::Statistics;
use crate::base::process::OsUser;
use crate::base::task::Task;
use crate::base::untar::{Limits, Unpacker};
use crate::base::{Code, Error, Result, durable_tree};
use crate::driver::log::RecoveryTarget;
use crate::driver::{Census, HealthCheck, RestorePlace, RestoreSession, VolumeSink};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::PathBuf;

/// The file that a generated stream becomes.
const STREAM_NAME: &str = "opaque";
/// Bytes of the smallest tar member: its header.
const SMALLEST_MEMBER: u64 = 512;

/// What a database holds that consists of a generated stream of `size` bytes: as much as its restored copy.
pub(super) fn census_of_stream(size: u64) -> Census {
    let counts = BTreeMap::from([("files".to_owned(), 1), ("bytes".to_owned(), size)]);
    let schema = BTreeSet::from([STREAM_NAME.to_owned()]);
    Census { statistics: Statistics { counts, schema, ..Statistics::default() }, mark: Some(format!("stream-{size}")) }
}

/// A restore in progress.
pub(super) struct SimRestore {
    data: PathBuf,
    owner: Option<OsUser>,
    recorded: Statistics,
    control: Control,
    /// The last transaction of the base; `None` = it has no log.
    base_end: Option<u64>,
    /// Where the log ends after the restore.
    end: Option<LogMark>,
}

impl SimRestore {
    /// Makes the empty `data` directory in the place.
    pub(super) fn begin(manifest: &Manifest, place: &RestorePlace, control: Control) -> Result<SimRestore> {
        let data = place.directory.join("data");
        DirBuilder::new().mode(0o700).create(&data).map_err(|cause| Error::io("making", &data, cause))?;
        let base_end = manifest.position.as_ref().and_then(|position| Some(position.mark.as_ref()?.transaction));
        let recorded = manifest.statistics.clone();
        Ok(SimRestore { data, owner: place.owner.clone(), recorded, control, base_end, end: None })
    }

    fn compare(&self, restored: &DataTree) -> HealthCheck {
        let recorded = &self.recorded;
        if !recorded.exact {
            let why = recorded.remark.clone().unwrap_or_else(|| "the backup's counts are not exact".to_owned());
            return HealthCheck::skipped("counts", why);
        }
        let differences = recorded.differences(&restored.statistics());
        let found = match differences.is_empty() {
            true => format!("{} files as backed up", restored.files().count()),
            false => differences.join("; "),
        };
        HealthCheck::of("counts", differences.is_empty(), found)
    }
}

impl RestoreSession for SimRestore {
    fn sink(&mut self, object: &ObjectRecord, _: &Task) -> Result<Option<Box<dyn VolumeSink>>> {
        match (object.role, object.content) {
            (Role::Config | Role::Log, _) | (_, Content::LogRanges) => Ok(None),
            (Role::Data, Content::Tar) => {
                let members = object.plain.size / SMALLEST_MEMBER;
                let limits = Limits { bytes: object.plain.size, members, times: 1 };
                Ok(Some(Box::new(TarSink(Unpacker::new(&self.data, limits)?))))
            }
            (Role::Data, Content::Opaque) => {
                let path = self.data.join(STREAM_NAME);
                let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
                let file = file.map_err(|cause| Error::io("creating", &path, cause))?;
                Ok(Some(Box::new(FileSink { path, file })))
            }
            (Role::Data, content) => {
                let text = format!("{} is {content:?}: a fake database cannot load it", object.key);
                Err(Error::new(Code::RestoreFailed, text))
            }
        }
    }

    fn log_sink(&mut self, batch: &LogBatch, _: &Task) -> Result<Box<dyn VolumeSink>> {
        Ok(Box::new(LogSink::new(&self.data, batch)))
    }

    fn end_log(&mut self, until: RecoveryTarget, _: &Task) -> Result<LogMark> {
        let none = || Error::new(Code::NotAvailable, "replaying the log over a backup that has none");
        let mark = replay::cut(&self.data, until, self.base_end.ok_or_else(none)?)?;
        self.end = Some(mark.clone());
        Ok(mark)
    }

    fn complete(&mut self, task: &Task) -> Result<()> {
        if self.base_end.is_some() {
            let reached = replay::recover(&self.data)?;
            if let Some(end) = self.end.as_ref().filter(|end| end.transaction != reached) {
                let text = format!("recovery arrived at transaction {reached}, not at {}", end.transaction);
                return Err(Error::new(Code::RestoreFailed, text));
            }
        }
        durable_tree::settle(&self.data, self.owner.as_ref(), task)
    }

    fn check(&mut self, task: &Task) -> Result<Vec<HealthCheck>> {
        let restored = DataTree::scan(&self.data, task)?;
        let connectivity = match self.control.check_failure()? {
            Some(text) => HealthCheck::of("connectivity", false, text),
            None => HealthCheck::of("connectivity", true, "the restored files can be read"),
        };
        let orphans = restored.orphans();
        let found = match orphans.first() {
            None => "no file is hidden".to_owned(),
            Some(first) => format!("{} hidden files, the first is {}", orphans.len(), first.display()),
        };
        let orphan_detection = HealthCheck::of("orphan_detection", orphans.is_empty(), found);
        Ok(vec![connectivity, self.compare(&restored), orphan_detection])
    }
}

/// Unpacks a tar of the tree.
struct TarSink(Unpacker);

impl Write for TarSink {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.0.flush()
    }
}

impl VolumeSink for TarSink {
    fn finish(self: Box<Self>, _: &Task) -> Result<()> {
        self.0.finish().map(|_| ())
    }
}

/// Keeps a generated stream as one file.
struct FileSink {
    path: PathBuf,
    file: File,
}

impl Write for FileSink {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.file.flush()
    }
}

impl VolumeSink for FileSink {
    fn finish(self: Box<Self>, _: &Task) -> Result<()> {
        self.file.sync_all().map_err(|cause| Error::io("flushing", &self.path, cause))
    }
}
