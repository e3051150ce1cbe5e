//! What is refused, and what is undone: with its own error code and hint, nothing lost, nothing left behind. On a
//! simulated database, whose control files make it slow, large or broken.
//!
//! - `restore`: keys, damage, places that must not be written to, copies that are not healthy
//! - `space`: full disks
//! - `backup`: cancelled, crowded, partial, rehearsed, forgotten and found again

mod backup;
mod restore;
mod space;

use crate::site::{Site, walk};
use neo4j_backup_agent::base::Code;
use std::fs;
use std::path::PathBuf;
use std::process::Output;

/// Sets a control file of the simulated database.
fn control(site: &Site, name: &str, text: &str) {
    let directory = site.path("database/control");
    fs::create_dir_all(&directory).expect("control");
    fs::write(directory.join(name), text).expect("control file");
}

/// Takes a control file away.
fn release(site: &Site, name: &str) {
    fs::remove_file(site.path("database/control").join(name)).expect("control file");
}

/// The run failed with this code: exit status, name and hint as documented. Returns the message.
fn failed(output: &Output, code: Code) -> String {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(i32::from(code.exit())), "{code}: {said}");
    assert!(said.contains("hint: "), "{said}");
    said
}

/// The same through `--json`, where the code stands by name.
fn failed_by_name(site: &Site, arguments: &[&str], code: Code) -> String {
    let output = site.run(&[&["-j"], arguments].concat());
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(i32::from(code.exit())), "{said}{}", String::from_utf8_lossy(&output.stderr));
    let value: serde_json::Value = serde_json::from_str(&said).expect("JSON");
    assert_eq!(value["error"]["code"], code.name(), "{said}");
    assert!(!value["error"]["hint"].as_str().unwrap_or_default().is_empty(), "{said}");
    value["error"]["message"].as_str().expect("message").to_owned()
}

fn server_is_up(site: &Site) -> bool {
    site.path("database/running").exists()
}

/// Files of ours that a finished job never leaves.
fn debris(site: &Site) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for place in ["scratch", "staging", "host", "unfinished", "processes"] {
        walk(&site.path("state").join(place), &mut found);
    }
    walk(&site.path("repository/.incomplete"), &mut found);
    let entries = fs::read_dir(site.path("database")).expect("database").flatten().map(|entry| entry.path());
    found.extend(entries.filter(|path| path.to_string_lossy().contains("neo4j-backup")));
    found
}

/// The server runs, and no file of an unfinished job is left.
fn as_if_nothing_happened(site: &Site) {
    assert!(server_is_up(site), "the server was left stopped");
    assert_eq!(debris(site), Vec::<PathBuf>::new());
}

/// Ids in `list`, newest first.
fn listed(site: &Site) -> Vec<String> {
    let output = site.run(&["-j", "list"]);
    let value: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let rows = value["backups"].as_array().expect("backups");
    rows.iter().map(|row| row["id"].as_str().expect("id").to_owned()).collect()
}
