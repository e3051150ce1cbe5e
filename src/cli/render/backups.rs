//! `list` and `show`.

use super::super::output::{Output, lines};
use super::{log, moment};
use crate::base::bytes::human;
use crate::operation::answer::{BackupDetail, BackupList, BackupRow, BackupState, PresignReport};
use comfy_table::{Cell, Color};

/// Digits of a checksum that a table on a terminal has room for; a pipe gets all of them.
const CHECKSUM_DIGITS: usize = 12;

pub(super) fn list(list: &BackupList, output: &Output) -> String {
    let header =
        ["ID", "CREATED", "EXPIRES", "STATUS", "SIZE", "STORED", "RATIO", "CHECKSUM", "CONTENT", "DURATION", "WHERE"];
    let mut table = output.table(&header);
    for row in &list.backups {
        table.add_row(cells(row, output));
    }
    if list.backups.is_empty() {
        return "there is no backup; `neo4j-backupctl backup TARGET` takes one".to_owned();
    }
    let mut text = lines(&table);
    if output.legend {
        let count = moment::number_of(list.backups.len() as u64, "backup");
        text.push_str(&format!("\n\n{count}, {}", moment::sizes(list.plain_bytes, list.stored_bytes)));
        for id in &list.expiring_soon {
            let when = list.backups.iter().find(|row| row.id == *id).and_then(|row| row.expires_at);
            let when = when.map_or("within two days".to_owned(), |time| moment::ago(time, output));
            text.push_str(&format!("\nexpires soon: {id} ({when})"));
        }
        for reaches in &list.logs {
            text.push_str(&format!("\nlog of {}: {}", reaches.target, log::chain(&reaches.chain, output)));
            for earlier in list.earlier.iter().filter(|range| range.target == reaches.target).take(log::EARLIER_MAX) {
                text.push_str(&format!("\n  {}", log::earlier(&earlier.range, output)));
            }
        }
    }
    text
}

fn cells(row: &BackupRow, output: &Output) -> Vec<Cell> {
    let expires = row.expires_at.map_or("kept".to_owned(), |time| moment::at(time, output));
    let digits = if output.terminal { CHECKSUM_DIGITS.min(row.sha256.len()) } else { row.sha256.len() };
    let mut status = Cell::new(row.state.as_str());
    if output.colors {
        status = status.fg(match row.state {
            BackupState::Complete | BackupState::Validated => Color::Green,
            BackupState::Corrupted | BackupState::Missing => Color::Red,
        });
    }
    vec![
        Cell::new(&row.id),
        Cell::new(moment::at(row.created_at, output)),
        Cell::new(expires),
        status,
        Cell::new(human(row.plain_bytes)),
        Cell::new(human(row.stored_bytes)),
        Cell::new(moment::ratio(row.plain_bytes, row.stored_bytes)),
        Cell::new(&row.sha256[..digits]),
        Cell::new(moment::counts(&row.counts, 2)),
        Cell::new(moment::duration(row.duration_ms)),
        Cell::new(row.repositories.join(", ")),
    ]
}

pub(super) fn show(detail: &BackupDetail, output: &Output) -> String {
    let (row, manifest) = (&detail.row, &detail.manifest);
    let mut text = String::new();
    let mut line = |name: &str, value: String| text.push_str(&format!("{name:>14}: {value}\n"));
    line("Backup", row.id.to_string());
    let suspect = if row.suspect { ", suspect: taken of damaged files" } else { "" };
    line("Status", format!("{}{suspect}", row.state.as_str()));
    line("Database", format!("{} ({} {})", manifest.db_name, row.engine, manifest.server.version));
    line("Created", moment::at(row.created_at, output));
    line("Expires", row.expires_at.map_or("kept".to_owned(), |time| moment::at(time, output)));
    line("Verified", detail.verified_at.map_or("not since it was made".to_owned(), |time| moment::at(time, output)));
    line("Size", moment::sizes(row.plain_bytes, row.stored_bytes));
    line("Checksum", format!("sha256:{}", row.sha256));
    let exact = if manifest.statistics.exact { "" } else { " (not of the very moment)" };
    line("Content", format!("{}{exact}", moment::counts(&row.counts, 20)));
    if let Some(remark) = &manifest.statistics.remark {
        line("Remark", remark.clone());
    }
    line("Duration", moment::duration(row.duration_ms));
    line("Server stopped", moment::duration(manifest.downtime_ms));
    line("Repositories", row.repositories.join(", "));
    if let Some(position) = &manifest.position {
        let contained = if position.log_contained { "contained" } else { "needs the archive" };
        line("Log", format!("{} {} – {}, {contained}", position.lineage, position.start, position.end));
    }
    line("Made by", format!("{} on {}", manifest.created_by, manifest.hostname));
    line("Chain", chain(detail));
    if let Some(note) = &manifest.note {
        // Written by anybody who may take a backup, read on an administrator's terminal.
        line("Note", note.chars().map(|c| if c.is_control() { ' ' } else { c }).collect());
    }
    for warning in &manifest.warnings {
        line("Warning", warning.clone());
    }
    for object in &manifest.objects {
        let key = object.encryption.as_ref().map_or("not encrypted".to_owned(), |e| format!("key {}", e.key_id));
        line("Object", format!("{} ({}, {}, {key})", object.key, human(object.stored.size), object.filters.join("+")));
    }
    text
}

/// An address a line, so that a pipe can take them; what they are on standard error's side of a terminal only.
pub(super) fn presign(report: &PresignReport, output: &Output) -> String {
    let mut text = String::new();
    for object in &report.objects {
        if output.terminal {
            text.push_str(&format!("{} ({})\n  ", object.key, human(object.size)));
        }
        text.push_str(&format!("{}\n", object.url));
    }
    if output.terminal && output.legend {
        let until = moment::at(report.expires_at, output);
        text.push_str(&format!(
            "good until {until}, for whoever has them; what they give is encrypted as it is stored\n"
        ));
    }
    text
}

fn chain(detail: &BackupDetail) -> String {
    let manifest = &detail.manifest;
    let epoch = manifest.owner.epoch;
    match &manifest.predecessor {
        Some(before) => format!("number {}, after {}, epoch {epoch}", manifest.sequence, before.id),
        None => format!("number {}, the first, epoch {epoch}", manifest.sequence),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::output;
    use super::*;
    use crate::base::ids::BackupId;

    fn sample() -> BackupList {
        let id: BackupId = "graph-20261120T020000Z-dump".parse().expect("id");
        BackupList {
            backups: vec![BackupRow {
                id: id.clone(),
                engine: "neo4j".to_owned(),
                created_at: "2026-11-20T02:00:00Z".parse().expect("time"),
                expires_at: Some("2026-11-21T02:00:00Z".parse().expect("time")),
                state: BackupState::Validated,
                plain_bytes: 60 << 20,
                stored_bytes: 10 << 20,
                sha256: "ab".repeat(32),
                counts: vec![("nodes".to_owned(), 12_000), ("relationships".to_owned(), 7)],
                duration_ms: 12_300,
                suspect: false,
                repositories: vec!["main".to_owned()],
            }],
            plain_bytes: 60 << 20,
            stored_bytes: 10 << 20,
            expiring_soon: vec![id],
            logs: Vec::new(),
            earlier: Vec::new(),
        }
    }

    // req: B3
    #[test]
    fn a_listed_backup_says_everything_on_one_line_in_a_pipe() {
        let text = list(&sample(), &output());
        let row = text.lines().nth(1).expect("row");
        for part in [
            "graph-20261120T020000Z-dump",
            "2026-11-20T02:00:00Z",
            "2026-11-21T02:00:00Z",
            "VALIDATED",
            "60.0 MiB",
            "10.0 MiB",
            "6.0:1",
            &"ab".repeat(32),
            "12\u{202f}000 nodes, 7 relationships",
            "12.3 s",
            "main",
        ] {
            assert!(row.contains(part), "{part} in {row}");
        }
        assert!(text.contains("1 backup, 60.0 MiB → 10.0 MiB (6.0:1)"), "{text}");
        assert!(text.contains("expires soon: graph-20261120T020000Z-dump (in "), "{text}");
    }

    #[test]
    fn without_legend_there_are_only_rows() {
        let mut output = output();
        output.legend = false;
        assert_eq!(list(&sample(), &output).lines().count(), 1);
    }

    #[test]
    fn a_pipe_gets_no_escape_sequences() {
        assert!(!list(&sample(), &output()).contains('\u{1b}'));
    }
}
