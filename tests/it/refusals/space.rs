//! Full disks: seen before the job where that is possible, survived in the middle where it is not. Small filesystems
//! are mounted for it, which only root may do.

use super::{as_if_nothing_happened, control, failed_by_name, listed};
use crate::site::Site;
use neo4j_backup_agent::base::Code;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

/// A filesystem in memory; unmounted when dropped.
struct Small(PathBuf);

impl Small {
    /// Mounts one on a new directory. `None` where that is not possible, which is said.
    fn mount(directory: &Path, options: &str) -> Option<Small> {
        fs::create_dir_all(directory).expect("mount point");
        match mount(Some("tmpfs"), directory, Some("tmpfs"), MsFlags::empty(), Some(options)) {
            Ok(()) => Some(Small(directory.to_owned())),
            Err(cause) => {
                skip(&format!(
                    "full disks (refusals::space): mounting a small filesystem is not possible here: {cause}"
                ));
                None
            }
        }
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}

fn skip(why: &str) {
    eprintln!("SKIPPED: {why}");
    if let Some(list) = std::env::var_os("NEO4J_BACKUP_TEST_SKIPS") {
        let mut file = fs::OpenOptions::new().append(true).create(true).open(list).expect("list of skips");
        writeln!(file, "{why}").expect("list of skips");
    }
}

// req: B5 K7
#[test]
fn a_backup_that_cannot_fit_is_refused_before_it_starts_with_both_numbers() {
    let site = Site::simulated();
    let Some(_small) = Small::mount(&site.path("repository"), "size=2m") else { return };
    control(&site, "size", "50000000");
    let said = failed_by_name(&site, &["backup", "sim"], Code::BackupNoSpace);
    assert!(said.contains("47.7 MiB are required") && said.contains("MiB are available"), "{said}");
    assert_eq!(site.objects(), Vec::<PathBuf>::new());
    as_if_nothing_happened(&site);
}

// req: B5 K7
#[test]
fn a_disk_below_the_threshold_is_refused_although_the_backup_would_fit() {
    let site = Site::simulated();
    let Some(_small) = Small::mount(&site.path("repository"), "size=2m") else { return };
    fs::write(site.path("repository/ballast"), vec![1; 1_800_000]).expect("ballast");
    let directory = site.path("database").display().to_string();
    site.configure(&format!(
        "[target.sim]\nkind = \"sim\"\ndirectory = \"{directory}\"\n[target.sim.preflight]\nminimum_free_percent = 20\n"
    ));
    let said = failed_by_name(&site, &["backup", "sim"], Code::BackupNoSpace);
    assert!(said.contains("20 % are demanded") && said.contains("are required"), "{said}");
    as_if_nothing_happened(&site);
}

// req: B5 A14
#[test]
fn a_disk_that_fills_up_in_the_middle_leaves_nothing_and_the_server_up() {
    let site = Site::simulated();
    let Some(_small) = Small::mount(&site.path("repository"), "size=2m") else { return };
    // What compresses to nothing makes the next estimate small; then comes what does not compress at all.
    let table = site.path("database/data/table-99");
    fs::write(&table, vec![0; 1_200_000]).expect("zeros");
    let first = site.backup("sim");
    let mut noise = vec![0; 4_000_000];
    let mut state = 88_172_645_463_325_252_u64;
    for byte in &mut noise {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        *byte = state as u8;
    }
    fs::write(&table, &noise).expect("noise");
    let objects = site.objects();
    let said = failed_by_name(&site, &["backup", "sim"], Code::BackupNoSpace);
    assert!(said.contains("No space left"), "in the middle, not before: {said}");
    assert_eq!(site.objects(), objects, "objects of the backup that failed were left");
    assert_eq!(listed(&site), [first.id.to_string()]);
    as_if_nothing_happened(&site);
    site.verify().expect("the first is sound");
}

// req: B5 B8
#[test]
fn a_restore_onto_a_full_disk_clears_what_it_wrote() {
    let site = Site::simulated();
    site.backup("sim");
    let small = site.path("small");
    let Some(mounted) = Small::mount(&small, "size=8k") else { return };
    let place = small.display().to_string();
    let words = ["restore", "sim", "--into", &place];
    let said = failed_by_name(&site, &words, Code::BackupNoSpace);
    assert!(said.contains("are required") && said.contains("are available"), "{said}");
    drop(mounted);

    // Room in bytes, but not for twelve files: it fails in the middle.
    let Some(_mounted) = Small::mount(&small, "size=8m,nr_inodes=6") else { return };
    let said = failed_by_name(&site, &words, Code::BackupNoSpace);
    assert!(said.contains("No space left"), "{said}");
    assert_eq!(fs::read_dir(&small).expect("list").count(), 0, "the directory was not cleared");
    as_if_nothing_happened(&site);
}

// req: B5 K7
#[test]
fn a_state_directory_without_room_is_called_that_and_nothing_else() {
    let site = Site::simulated();
    let Some(_small) = Small::mount(&site.path("state"), "size=2m,mode=700") else { return };
    let first = site.backup("sim");
    let ballast = site.path("state/ballast");
    for left in [0, 1, 4, 8] {
        let mut file = fs::File::create(&ballast).expect("ballast");
        while file.write_all(&[1; 4096]).is_ok() {}
        let full = file.metadata().expect("length").len();
        file.set_len(full - left * 4096).expect("room");
        let said = failed_by_name(&site, &["backup", "sim"], Code::BackupNoSpace);
        assert!(!said.contains("rescan"), "{left} pages: {said}");
        // Emptied first: a program that another test starts at this moment has the file open until it is that program.
        file.set_len(0).expect("room");
        fs::remove_file(&ballast).expect("removed");
    }
    assert_eq!(listed(&site), [first.id.to_string()]);
    site.backup("sim");
    site.verify().expect("sound");
}
