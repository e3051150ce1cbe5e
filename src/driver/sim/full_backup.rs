//! A full backup of the fake database: one volume, made while it is read.

use super::control::Control;
use super::data_tree::DataTree;
use super::generated_bytes::GeneratedBytes;
use super::log::{self, Pinned};
use super::steered_reader::SteeredReader;
use super::tar_reader::TarReader;
use crate::artifact::log_batch::LogMark;
use crate::artifact::manifest::{Content, LogPosition, Role};
use crate::base::Result;
use crate::base::ids::BackupKind;
use crate::base::task::Task;
use crate::driver::{FullBackup, FullReport, Volume, VolumeReader, VolumeSpec};
use std::io::Read;
use std::path::{Path, PathBuf};

/// Seed of the stream that `control/size` asks for.
const STREAM_SEED: u64 = 0;

/// A full backup that was begun.
pub(super) struct SimBackup {
    volume: Option<Volume>,
    /// Where the log stood at the beginning, and what was copied of it.
    log: Option<(LogMark, Pinned)>,
}

impl SimBackup {
    /// Decides what will be read: the tree in `data`, or a generated stream.
    pub(super) fn plan(kind: BackupKind, data: &Path, control: &Control, task: &Task) -> Result<SimBackup> {
        let size = control.size()?;
        let extension = match (size, kind) {
            (Some(_), _) => "opaque".to_owned(),
            (None, kind) => format!("{}.tar", kind.as_str()),
        };
        let estimated_bytes = match size {
            Some(size) => size,
            None => DataTree::scan(data, task)?.bytes(),
        };
        let spec = VolumeSpec {
            name: "data".to_owned(),
            role: Role::Data,
            content: if size.is_some() { Content::Opaque } else { Content::Tar },
            extension,
            lane: 0,
            striped: false,
            compressed: false,
            hash_plain: kind == BackupKind::Dump,
            estimated_bytes,
        };
        let log = match size.is_none() && log::is_there(data) {
            true => Some((log::end(data)?, Pinned::default())),
            false => None,
        };
        let (data, control, logged) = (data.to_owned(), control.clone(), log.clone());
        let open = Box::new(move |task: &Task| open(data, size, logged, &control, task));
        Ok(SimBackup { volume: Some(Volume { spec, open }), log })
    }
}

fn open(
    data: PathBuf,
    size: Option<u64>,
    log: Option<(LogMark, Pinned)>,
    control: &Control,
    task: &Task,
) -> Result<Box<dyn VolumeReader>> {
    if let Some(size) = size {
        return Ok(Box::new(SteeredReader::new(GeneratedBytes::new(STREAM_SEED, size), control, task)?));
    }
    let tree = DataTree::scan(&data, task)?;
    let reader = match log {
        Some((start, pinned)) => {
            let late = Box::new(move || pinned.list(&data, &start));
            TarReader::new(log::without_log_files(tree), Some(late))
        }
        None => TarReader::new(tree, None),
    };
    Ok(Box::new(SteeredReader::new(reader, control, task)?))
}

impl<R: Read + Send> VolumeReader for SteeredReader<R> {
    fn finish(self: Box<Self>, task: &Task) -> Result<()> {
        // There is no tool behind the stream that could have failed.
        task.check()
    }
}

impl FullBackup for SimBackup {
    fn take_volumes(&mut self) -> Vec<Volume> {
        self.volume.take().into_iter().collect()
    }

    fn finish(self: Box<Self>, _: &Task) -> Result<FullReport> {
        let Some((start, pinned)) = self.log else { return Ok(FullReport::default()) };
        let position = pinned.end().map(|(mark, latest_commit)| LogPosition {
            latest_commit,
            ..LogPosition::ending_at(start.transaction, mark)
        });
        Ok(FullReport { position, ..FullReport::default() })
    }
}
