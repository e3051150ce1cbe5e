//! Makes a fake database.

use super::generated_bytes::GeneratedBytes;
use crate::base::{Error, Result};
use std::fs::{self, File};
use std::path::Path;

/// Makes a running fake database in `directory`, which is made if need be: `files` tables (`data/table-00`, …) of
/// `bytes` in all, the same in every run and compressible to about half. The identity depends on the directory's path
/// only, so two databases side by side differ.
pub fn populate(directory: &Path, files: usize, bytes: usize) -> Result<()> {
    let data = directory.join("data");
    fs::create_dir_all(&data).map_err(|cause| Error::io("making", &data, cause))?;
    for number in 0..files {
        // What does not divide evenly goes to the first tables, a byte each.
        let size = bytes / files + usize::from(number < bytes % files);
        let path = data.join(format!("table-{number:02}"));
        let mut file = File::create(&path).map_err(|cause| Error::io("creating", &path, cause))?;
        std::io::copy(&mut GeneratedBytes::new(number as u64 + 1, size as u64), &mut file)
            .map_err(|cause| Error::io("writing", &path, cause))?;
    }
    let identity = format!("sim-{:08x}\n", crc32c::crc32c(directory.as_os_str().as_encoded_bytes()));
    write(&directory.join("identity"), &identity)?;
    write(&directory.join("sim.conf"), "# settings of the fake database\nlisten = none\n")?;
    write(&directory.join("running"), "")
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).map_err(|cause| Error::io("writing", path, cause))
}
