//! The `backup_manifest` that PostgreSQL's own tools know, `pg_verifybackup` first of all.
//!
//! Format: "Backup Manifest Format" in PostgreSQL's manual. Version 2, since PostgreSQL 17, names the cluster too.

use super::wal::Lsn;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fmt::Write;

/// The first major version whose tools know version 2.
const VERSION_2_SINCE: u32 = 17;

/// A file as it was added to the backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ManifestFile {
    /// Bytes.
    pub(super) size: u64,
    /// When it was written last.
    pub(super) modified: jiff::Timestamp,
    /// CRC-32C.
    pub(super) crc32c: u32,
}

/// What the manifest says besides the files.
#[derive(Clone, Copy, Debug)]
pub(super) struct ManifestFrame {
    /// The server's major version.
    pub(super) major: u32,
    /// The cluster.
    pub(super) system_identifier: u64,
    /// The timeline that the backup is of.
    pub(super) timeline: u32,
    /// Where recovery starts.
    pub(super) start: Lsn,
    /// Where the backup is consistent.
    pub(super) end: Lsn,
}

/// Renders the manifest of `files`, by their paths in the data directory.
pub(super) fn render(files: &BTreeMap<String, ManifestFile>, frame: &ManifestFrame) -> String {
    let mut text = match frame.major >= VERSION_2_SINCE {
        true => format!(
            "{{ \"PostgreSQL-Backup-Manifest-Version\": 2,\n\"System-Identifier\": {},\n\"Files\": [",
            frame.system_identifier
        ),
        false => "{ \"PostgreSQL-Backup-Manifest-Version\": 1,\n\"Files\": [".to_owned(),
    };
    for (number, (path, file)) in files.iter().enumerate() {
        let separator = if number == 0 { "\n" } else { ",\n" };
        let path = serde_json::Value::from(path.as_str());
        // The sum's bytes stand as they lie in the memory of the machines PostgreSQL runs on.
        let checksum = hex::encode(file.crc32c.to_le_bytes());
        let modified = file.modified.strftime("%Y-%m-%d %H:%M:%S GMT");
        // Writing into a string cannot fail.
        let _ = write!(
            text,
            "{separator}{{ \"Path\": {path}, \"Size\": {}, \"Last-Modified\": \"{modified}\", \
             \"Checksum-Algorithm\": \"CRC32C\", \"Checksum\": \"{checksum}\" }}",
            file.size
        );
    }
    let _ = write!(
        text,
        "\n],\n\"WAL-Ranges\": [\n{{ \"Timeline\": {}, \"Start-LSN\": \"{}\", \"End-LSN\": \"{}\" }}\n],\n",
        frame.timeline, frame.start, frame.end
    );
    // It covers everything up to here, the line's end included.
    let digest = hex::encode(Sha256::digest(text.as_bytes()));
    let _ = writeln!(text, "\"Manifest-Checksum\": \"{digest}\"}}");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_what_the_manual_describes() {
        let file =
            |size, crc32c| ManifestFile { size, modified: "2026-11-21T19:20:01Z".parse().expect("time"), crc32c };
        let files = BTreeMap::from([
            ("PG_VERSION".to_owned(), file(3, 0x6463_e6d1)),
            ("base/1/odd \"name\"\n".to_owned(), file(0, 0)),
        ]);
        let (start, end) = (Lsn(0x2_0000_0028), Lsn(0x2_0000_0100));
        let mut frame =
            ManifestFrame { major: 15, system_identifier: 7_430_000_000_000_000_001, timeline: 3, start, end };
        let text = render(&files, &frame);
        let expected = "{ \"PostgreSQL-Backup-Manifest-Version\": 1,\n\"Files\": [\n\
            { \"Path\": \"PG_VERSION\", \"Size\": 3, \"Last-Modified\": \"2026-11-21 19:20:01 GMT\", \
            \"Checksum-Algorithm\": \"CRC32C\", \"Checksum\": \"d1e66364\" },\n\
            { \"Path\": \"base/1/odd \\\"name\\\"\\n\", \"Size\": 0, \"Last-Modified\": \"2026-11-21 19:20:01 GMT\", \
            \"Checksum-Algorithm\": \"CRC32C\", \"Checksum\": \"00000000\" }\n],\n\"WAL-Ranges\": [\n\
            { \"Timeline\": 3, \"Start-LSN\": \"2/28\", \"End-LSN\": \"2/100\" }\n],\n";
        let digest = hex::encode(Sha256::digest(expected.as_bytes()));
        assert_eq!(text, format!("{expected}\"Manifest-Checksum\": \"{digest}\"}}\n"));
        serde_json::from_str::<serde_json::Value>(&text).expect("JSON");
        frame.major = 17;
        assert!(render(&BTreeMap::new(), &frame).contains("\"System-Identifier\": 7430000000000000001,\n"));
    }
}
