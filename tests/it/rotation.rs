//! `key rotate`: a new passphrase, and nothing that was made before is lost by it, whatever is killed when.

use crate::site::{Site, backup_request, content, restore_request};
use neo4j_backup_agent::artifact::signing::Key;
use neo4j_backup_agent::base::ids::TargetName;
use neo4j_backup_agent::base::secret::read_passphrase;
use neo4j_backup_agent::base::task::Task;
use neo4j_backup_agent::base::{Code, Result};
use neo4j_backup_agent::driver::sim::log;
use neo4j_backup_agent::operation::answer::{Answer, KeyRecord, RotateReport};
use neo4j_backup_agent::operation::context::Context;
use neo4j_backup_agent::operation::execute;
use neo4j_backup_agent::operation::request::{ArchiveRequest, Destination, Request};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

fn ask(context: &Context, request: &Request) -> Result<Answer> {
    execute(context, request, None, "test", &Task::unobserved())
}

fn rotate(site: &Site) -> Result<RotateReport> {
    match site.ask(&Request::KeyRotate { dry_run: false })? {
        Answer::Rotate(report) => Ok(report),
        other => panic!("{other:?}"),
    }
}

fn key_of(path: &Path) -> String {
    Key::derive(read_passphrase(path).expect("passphrase"), "test").expect("key").id().to_string()
}

fn keys(site: &Site) -> Vec<KeyRecord> {
    match site.ask(&Request::KeyList).expect("list") {
        Answer::KeyList { keys } => keys,
        other => panic!("{other:?}"),
    }
}

fn names(site: &Site) -> Vec<String> {
    let of = |entry: fs::DirEntry| entry.file_name().to_string_lossy().into_owned();
    let mut names: Vec<String> = fs::read_dir(site.root()).expect("list").flatten().map(of).collect();
    names.retain(|name| name.starts_with("passphrase"));
    names.sort();
    names
}

/// Every backup restores and holds what the database held.
fn everything_restores(site: &Site, backups: &[String], aside: &str) {
    for backup in backups {
        let directory = site.path(&format!("{aside}-{backup}"));
        site.restore_into("sim", backup, &directory).unwrap_or_else(|code| panic!("{backup}: {code:?}"));
        assert!(content(&directory.join("data")) == content(&site.path("database/data")), "{backup}");
    }
    site.verify().expect("all is sound");
}

// req: D8
#[test]
fn after_a_rotation_old_and_new_backups_open_and_this_host_needs_only_the_new_passphrase() {
    let site = Site::simulated();
    let old = site.backup("sim").id.to_string();
    let before = key_of(&site.path("passphrase"));
    let report = rotate(&site).expect("rotate");
    let [rotated] = &report.keys[..] else { panic!("{report:?}") };
    let after = key_of(&site.path("passphrase"));
    assert_eq!((&rotated.from, rotated.to.as_ref()), (&before, Some(&after)));
    assert_ne!(before, after);
    assert_eq!(rotated.repositories, ["main"]);
    assert_eq!(key_of(&rotated.kept_as), before, "the old one is kept on this host");
    for file in [&site.path("passphrase"), &rotated.kept_as] {
        assert_eq!(fs::metadata(file).expect("stat").mode() & 0o777, 0o600, "{}", file.display());
    }
    assert_eq!(names(&site), ["passphrase".to_owned(), format!("passphrase.{before}")], "nothing is left over");
    fs::remove_file(&rotated.kept_as).expect("remove");
    let new = site.backup("sim").id.to_string();
    everything_restores(&site, &[old, new], "restored");
    let listed = keys(&site);
    let of = |id: &str| listed.iter().find(|key| key.id == id).cloned().expect("listed");
    assert!(of(&after).current && !of(&before).current && of(&before).at_hand, "{listed:?}");
    assert_eq!((of(&before).backups, of(&after).backups), (1, 1));
    // The ledger is lost as well: the bucket and the newest passphrase are enough.
    fs::remove_dir_all(site.path("state")).expect("lose the state");
    site.ask(&Request::Rescan).expect("rescan");
    site.verify().expect("all is sound");
}

// req: D8
#[test]
fn an_agent_that_runs_goes_on_with_the_new_passphrase() {
    let site = Site::logged();
    let context = site.context();
    ask(&context, &Request::Backup(backup_request("sim"))).expect("backup");
    ask(&context, &Request::KeyRotate { dry_run: false }).expect("rotate");
    for number in 1..=5u8 {
        let at = jiff::Timestamp::from_second(1_790_000_000 + i64::from(number)).expect("time");
        log::commit(&site.path("database"), number, "a value", at).expect("commit");
    }
    let archive = Request::Archive(ArchiveRequest { target: TargetName::new("sim").expect("name"), dry_run: false });
    let Answer::Archive(archived) = ask(&context, &archive).expect("archive") else { panic!("an archive") };
    assert!(archived.gaps.is_empty() && archived.bases.is_empty(), "the chain goes on: {archived:?}");
    let Answer::Backup(second) = ask(&context, &Request::Backup(backup_request("sim"))).expect("backup") else {
        panic!("a backup")
    };
    let manifest = site.objects().into_iter().find(|path| {
        let id = second.id.to_string();
        path.ends_with(format!("{}.meta.json", id.rsplit_once('-').expect("a kind").0))
    });
    let text = fs::read_to_string(manifest.expect("a manifest")).expect("read");
    assert!(text.contains(&format!("\"key_id\": \"{}\"", key_of(&site.path("passphrase")))), "{text}");
    drop(context);
    let directory = site.path("restored");
    let request = restore_request("sim", Destination::Into(directory));
    site.ask(&Request::Restore(request)).expect("restore to the end");
}

// req: D8
#[test]
fn three_rotations_leave_three_older_passphrases_under_the_newest() {
    let site = Site::simulated();
    let mut backups = Vec::new();
    let mut older = Vec::new();
    for _ in 0..3 {
        backups.push(site.backup("sim").id.to_string());
        older.push(rotate(&site).expect("rotate").keys.remove(0).kept_as);
    }
    let newest = format!("file:{}", site.path("passphrase").display());
    for kept in &older {
        let id = key_of(kept);
        let opened = std::process::Command::new("openssl")
            .args(["enc", "-d", "-aes-256-cbc", "-pbkdf2", "-iter", "100000", "-md", "sha256", "-pass", &newest, "-in"])
            .arg(site.path(&format!("repository/keys/{id}.enc")))
            .output()
            .expect("openssl");
        assert_eq!(opened.stdout, fs::read(kept).expect("read"), "key {id}");
    }
    older.iter().for_each(|kept| fs::remove_file(kept).expect("remove"));
    everything_restores(&site, &backups, "restored");
}

// req: D8
#[test]
fn a_rotation_cut_short_is_taken_up_and_locks_nobody_out() {
    let site = Site::simulated();
    let old = site.backup("sim").id.to_string();
    let before = key_of(&site.path("passphrase"));
    // As a kill leaves it between two steps: the new passphrase written, and the first repository told.
    let next = site.path("passphrase.next");
    fs::write(&next, "the new passphrase of a rotation cut short\n").expect("write");
    fs::set_permissions(&next, fs::Permissions::from_mode(0o600)).expect("chmod");
    let planned = key_of(&next);
    everything_restores(&site, std::slice::from_ref(&old), "before");
    assert_eq!(key_of(&site.path("passphrase")), before);
    let report = rotate(&site).expect("rotate");
    assert_eq!(report.keys[0].to.as_ref(), Some(&planned), "the same new passphrase");
    assert!(!next.exists());
    everything_restores(&site, &[old], "after");
}

// req: D8
#[test]
fn nothing_changes_when_a_repository_cannot_be_reached() {
    let site = Site::simulated();
    site.backup("sim");
    let before = (fs::read(site.path("passphrase")).expect("read"), content(&site.path("repository")));
    let dry = match site.ask(&Request::KeyRotate { dry_run: true }).expect("dry run") {
        Answer::Rotate(report) => report,
        other => panic!("{other:?}"),
    };
    assert_eq!((dry.keys.len(), &dry.keys[0].to), (1, &None));
    let after = || (fs::read(site.path("passphrase")).expect("read"), content(&site.path("repository")));
    assert!(after() == before, "a dry run");
    let aside = site.path("aside");
    fs::rename(site.path("repository/repository.json"), &aside).expect("rename");
    fs::create_dir(site.path("repository/repository.json")).expect("mkdir");
    rotate(&site).expect_err("it cannot be opened");
    fs::remove_dir(site.path("repository/repository.json")).expect("rmdir");
    fs::rename(&aside, site.path("repository/repository.json")).expect("rename");
    assert!(after() == before, "refused");
    assert_eq!(names(&site), ["passphrase"]);
    // Whatever is in the old one's place is not overwritten either.
    let taken: PathBuf = site.path(&format!("passphrase.{}", key_of(&site.path("passphrase"))));
    fs::write(&taken, "something else that somebody keeps here\n").expect("write");
    fs::set_permissions(&taken, fs::Permissions::from_mode(0o600)).expect("chmod");
    assert_eq!(rotate(&site).map_err(|error| error.code()).err(), Some(Code::ObjectConflict));
    assert_eq!(fs::read(site.path("passphrase")).expect("read"), before.0);
    site.verify().expect("all is sound");
}

#[test]
fn what_systemd_provides_is_not_rotated_but_explained() {
    let site = Site::simulated();
    let text = fs::read_to_string(site.config()).expect("read").replace("passphrase_file", "# passphrase_file");
    fs::write(site.config(), text).expect("write");
    // Replacing it is not this agent's to do.
    let credentials = site.path("credentials");
    fs::create_dir(&credentials).expect("mkdir");
    fs::rename(site.path("passphrase"), credentials.join("passphrase")).expect("rename");
    let output = site
        .command()
        .args(["--yes", "key", "rotate"])
        .env("CREDENTIALS_DIRECTORY", &credentials)
        .output()
        .expect("neo4j-backupd");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("systemd credential"), "{said}");
    assert!(said.contains("older_passphrase_files"), "{said}");
}

/// The repository as a kill in the last step of a rotation leaves it: the oldest passphrase still under the middle one.
fn cut_short(site: &Site) -> (String, PathBuf) {
    let backup = site.backup("sim").id.to_string();
    let first = rotate(site).expect("rotate").keys.remove(0).from;
    let kept = site.path(&format!("repository/keys/{first}.enc"));
    let under_the_second = fs::read(&kept).expect("read");
    rotate(site).expect("rotate");
    fs::write(&kept, under_the_second).expect("write");
    (backup, kept)
}

fn opens_with_the_newest(site: &Site, kept: &Path) -> bool {
    let newest = format!("file:{}", site.path("passphrase").display());
    let opened = std::process::Command::new("openssl")
        .args(["enc", "-d", "-aes-256-cbc", "-pbkdf2", "-iter", "100000", "-md", "sha256", "-pass", &newest, "-in"])
        .arg(kept)
        .output()
        .expect("openssl");
    opened.stdout.starts_with(b"a passphrase that only tests know")
}

// req: D8
#[test]
fn what_a_rotation_did_not_reach_opens_in_two_steps_and_the_next_backup_makes_it_one() {
    let site = Site::simulated();
    let (backup, kept) = cut_short(&site);
    assert!(!opens_with_the_newest(&site, &kept));
    let restored = std::process::Command::new("sh")
        .arg(site.path("repository/restore.sh"))
        .args([&backup, &site.path("passphrase").display().to_string()])
        .arg(site.path("by-hand"))
        .output()
        .expect("restore.sh");
    assert!(restored.status.success(), "{}", String::from_utf8_lossy(&restored.stderr));
    // An agent that has looked into the repository before, as every command does.
    let context = site.context();
    ask(&context, &Request::KeyList).expect("list");
    ask(&context, &Request::Backup(backup_request("sim"))).expect("backup");
    assert!(opens_with_the_newest(&site, &kept), "mended");
}

// req: D8
#[test]
fn of_two_passphrases_none_changes_if_one_cannot() {
    let site = Site::simulated();
    let text = fs::read_to_string(site.config()).expect("read");
    let root = site.root().display().to_string();
    let other = format!(
        "[repository.other]\npath = \"{root}/other\"\n[target.two]\nkind = \"sim\"\ndirectory = \"{root}/database\"\n\
         repositories = [\"other\"]\n[target.two.encryption]\npassphrase_file = \"{root}/second\"\n"
    );
    let text = text.replace("\ndirectory =", "\nrepositories = [\"main\"]\ndirectory =");
    fs::write(site.config(), text + &other).expect("write");
    let secret = |name: &str, content: &str| {
        fs::write(site.path(name), content).expect("write");
        fs::set_permissions(site.path(name), fs::Permissions::from_mode(0o600)).expect("chmod");
    };
    secret("second", "a second passphrase that only tests know\n");
    site.backup("sim");
    site.backup("two");
    let before = key_of(&site.path("passphrase"));
    for rubbish in ["bad\n", ""] {
        secret("second.next", rubbish);
        for dry_run in [true, false] {
            site.ask(&Request::KeyRotate { dry_run }).expect_err("rubbish is no passphrase");
        }
        assert_eq!((key_of(&site.path("passphrase")), names(&site).len()), (before.clone(), 1), "nothing changed");
    }
    secret("second.next", "what everybody can read is no secret\n");
    fs::set_permissions(site.path("second.next"), fs::Permissions::from_mode(0o644)).expect("chmod");
    assert_eq!(rotate(&site).map_err(|error| error.code()).err(), Some(Code::SecretUnsafe));
    fs::remove_file(site.path("second.next")).expect("remove");
    assert_eq!(rotate(&site).expect("rotate").keys.len(), 2);
    site.verify().expect("all is sound");
}
