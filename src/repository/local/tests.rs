//! What a directory promises beyond the conformance suite.

use super::*;
use crate::repository::conformance::conformance;
use crate::repository::small_object::{put, read};
use crate::repository::store::Commit;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

fn key(text: &str) -> ObjectKey {
    ObjectKey::new(text).expect("key")
}

fn store() -> (tempfile::TempDir, LocalStore) {
    let directory = tempfile::tempdir().expect("tempdir");
    let store = LocalStore::create(directory.path().join("repository")).expect("create");
    (directory, store)
}

fn code<T>(result: Result<T>) -> Code {
    result.err().expect("an error").code()
}

fn unfinished(root: &Path) -> Vec<String> {
    fs::read_dir(root.join(".incomplete"))
        .expect("list")
        .map(|entry| entry.expect("entry").file_name().to_string_lossy().into_owned())
        .collect()
}

// req: A10
#[test]
fn a_directory_keeps_every_promise_of_a_store() {
    let directory = tempfile::tempdir().expect("tempdir");
    let number = std::cell::Cell::new(0);
    conformance(&|| {
        number.set(number.get() + 1);
        Box::new(LocalStore::create(directory.path().join(number.get().to_string())).expect("create"))
    });
}

#[test]
fn a_missing_root_is_told_and_not_made_behind_a_mount_point() {
    let directory = tempfile::tempdir().expect("tempdir");
    let missing = directory.path().join("mnt/repository");
    assert_eq!(code(LocalStore::open(missing.clone())), Code::RepositoryNotFound);
    assert_eq!(code(LocalStore::create(missing.clone())), Code::RepositoryNotFound);
    assert!(!missing.exists());
    fs::write(directory.path().join("file"), b"").expect("write");
    assert_eq!(code(LocalStore::open(directory.path().join("file"))), Code::RepositoryNotFound);
}

#[test]
fn only_the_owner_can_read_what_is_stored() {
    let (directory, store) = store();
    put(&store, &key("a/b/c"), b"x", Commit::IfAbsent).expect("put");
    let root = directory.path().join("repository");
    let mode = |path: &str| fs::metadata(root.join(path)).expect("metadata").permissions().mode() & 0o7777;
    for path in ["", "a", "a/b", ".incomplete"] {
        assert_eq!(mode(path), 0o700, "{path:?}");
    }
    assert_eq!(mode("a/b/c"), 0o600);
    assert!(unfinished(&root).is_empty());
}

#[test]
fn nothing_is_written_once_another_directory_is_at_the_place() {
    let (directory, store) = store();
    let root = directory.path().join("repository");
    let mut writer = store.create(&key("a/b")).expect("create");
    writer.write_all(b"x").expect("write");
    // As after an unmount: the same path, another directory.
    fs::rename(&root, directory.path().join("elsewhere")).expect("rename");
    fs::create_dir(&root).expect("mkdir");
    assert_eq!(code(writer.commit(Commit::IfAbsent)), Code::RepositoryNotFound);
    assert_eq!(code(store.create(&key("a/c"))), Code::RepositoryNotFound);
    assert_eq!(code(store.stat(&key("a/c"))), Code::RepositoryNotFound);
    assert_eq!(code(store.list("", &mut |_| Ok(()))), Code::RepositoryNotFound);
    assert_eq!(code(store.delete(&key("a/c"))), Code::RepositoryNotFound);
    assert_eq!(code(store.space()), Code::RepositoryNotFound);
    assert_eq!(code(store.sweep()), Code::RepositoryNotFound);
    assert_eq!(fs::read_dir(&root).expect("list").count(), 0, "nothing may land below the mount point");
    fs::remove_dir(&root).expect("rmdir");
    assert_eq!(code(store.stat(&key("a/c"))), Code::RepositoryNotFound);
}

#[test]
fn symbolic_links_inside_are_never_followed() {
    let (directory, store) = store();
    let root = directory.path().join("repository");
    let outside = directory.path().join("outside");
    fs::create_dir(&outside).expect("mkdir");
    fs::write(outside.join("secret"), b"secret").expect("write");
    symlink(&outside, root.join("a")).expect("link");
    symlink(outside.join("secret"), root.join("b")).expect("link");
    assert_eq!(code(store.read(&key("a/secret"), None)), Code::RepositoryIo);
    assert_eq!(code(store.read(&key("b"), None)), Code::RepositoryIo);
    assert_eq!(code(store.stat(&key("b"))), Code::RepositoryIo);
    assert_eq!(code(put(&store, &key("a/new"), b"x", Commit::IfAbsent)), Code::RepositoryIo);
    assert_eq!(code(store.delete(&key("a/secret"))), Code::RepositoryIo);
    store.list("", &mut |object| panic!("{} was listed", object.key)).expect("list");
    assert_eq!(fs::read_dir(&outside).expect("list").count(), 1);
    // The name itself may be replaced: the link goes, what it led to stays.
    put(&store, &key("b"), b"x", Commit::Replace).expect("put");
    assert_eq!(fs::read(outside.join("secret")).expect("read"), b"secret");
    assert_eq!(read(&store, &key("b"), 10).expect("read"), b"x");
}

#[test]
fn foreign_files_are_not_shown() {
    let (directory, store) = store();
    let root = directory.path().join("repository");
    put(&store, &key("a"), b"x", Commit::IfAbsent).expect("put");
    for name in [".hidden", "with space", "ümlaut", ".nba-tmp-1"] {
        fs::write(root.join(name), b"x").expect("write");
    }
    fs::create_dir(root.join("lost+found")).expect("mkdir");
    nix::unistd::mkfifo(&root.join("fifo"), nix::sys::stat::Mode::S_IRUSR).expect("fifo");
    let mut names = Vec::new();
    store
        .list("", &mut |object| {
            names.push(object.key.to_string());
            Ok(())
        })
        .expect("list");
    assert_eq!(names, ["a"]);
    assert_eq!(code(store.read(&key("fifo"), None)), Code::ObjectNotFound);
}

#[test]
fn a_deletion_takes_emptied_directories_along_and_no_others() {
    let (directory, store) = store();
    let root = directory.path().join("repository");
    for name in ["a/b/c/one", "a/b/two"] {
        put(&store, &key(name), b"x", Commit::IfAbsent).expect("put");
    }
    assert!(store.delete(&key("a/b/c/one")).expect("delete"));
    assert!(!root.join("a/b/c").exists() && root.join("a/b").exists());
    assert!(store.delete(&key("a/b/two")).expect("delete"));
    assert!(!root.join("a").exists() && root.exists());
}

#[test]
fn a_file_cut_while_it_is_read_is_an_error_and_no_end() {
    let (directory, store) = store();
    put(&store, &key("a"), &[7; 100_000], Commit::IfAbsent).expect("put");
    let mut reader = store.read(&key("a"), None).expect("read");
    let mut some = [0; 10];
    reader.read_exact(&mut some).expect("the beginning");
    fs::OpenOptions::new()
        .write(true)
        .open(directory.path().join("repository/a"))
        .and_then(|file| file.set_len(50))
        .expect("truncate");
    let cause = reader.read_to_end(&mut Vec::new()).expect_err("it was cut");
    assert_eq!(Error::from_io("reading", Path::new("a"), cause).code(), Code::BackupCorrupted);
}

/// Runs the test named `name` of this binary in a process of its own with `directory` in its environment.
fn in_another_process(name: &str, directory: &Path) -> std::process::Output {
    std::process::Command::new(std::env::current_exe().expect("own path"))
        .args(["--exact", "--nocapture", &format!("repository::local::tests::{name}")])
        .env("NBA_TEST_DIRECTORY", directory)
        .output()
        .expect("a process")
}

/// The other half of [`the_work_of_a_killed_writer_is_swept_and_that_of_the_living_is_not`], which starts it in a
/// process of its own. Without that test's variable there is nothing for it to do.
#[test]
fn writer_that_is_killed() {
    let Some(root) = std::env::var_os("NBA_TEST_DIRECTORY") else { return };
    let store = LocalStore::open(PathBuf::from(root)).expect("open");
    let mut writer = store.create(&key("a/killed")).expect("create");
    writer.write_all(b"half").expect("write");
    std::process::abort();
}

#[test]
fn the_work_of_a_killed_writer_is_swept_and_that_of_the_living_is_not() {
    let (directory, store) = store();
    let root = directory.path().join("repository");
    let mut living = store.create(&key("a/living")).expect("create");
    living.write_all(b"whole").expect("write");
    assert!(!in_another_process("writer_that_is_killed", &root).status.success());
    assert_eq!(unfinished(&root).len(), 2);
    let stranger = LocalStore::open(root.clone()).expect("open").on_machine("0123456789ab");
    assert!(stranger.sweep().expect("sweep").is_empty(), "another machine's leftovers are not ours to judge");
    assert_eq!(store.sweep().expect("sweep").len(), 1);
    assert_eq!(store.sweep().expect("sweep").len(), 0);
    living.commit(Commit::IfAbsent).expect("commit");
    assert_eq!(read(&store, &key("a/living"), 10).expect("read"), b"whole");
    assert_eq!(store.stat(&key("a/killed")).expect("stat"), None);
    assert!(unfinished(&root).is_empty());
}

#[test]
fn sweeping_all_the_time_harms_no_writer() {
    let (_directory, store) = store();
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(std::sync::atomic::Ordering::SeqCst) {
                store.sweep().expect("sweep");
            }
        });
        for number in 0..200 {
            put(&store, &key(&format!("a/{number}")), b"x", Commit::IfAbsent).expect("put");
        }
        done.store(true, std::sync::atomic::Ordering::SeqCst);
    });
    let mut count = 0;
    let count_up = &mut |_| {
        count += 1;
        Ok(())
    };
    store.list("a/", count_up).expect("list");
    assert_eq!(count, 200);
}

#[test]
fn space_is_that_of_the_filesystem_below() {
    let (directory, store) = store();
    let space = store.space().expect("space").expect("a limit");
    assert_eq!(space.device, fs::metadata(directory.path()).expect("metadata").dev());
}

#[test]
fn a_file_where_a_directory_should_be_is_told() {
    let (_directory, store) = store();
    put(&store, &key("a"), b"x", Commit::IfAbsent).expect("put");
    let error = put(&store, &key("a/b"), b"x", Commit::IfAbsent).expect_err("a is a file");
    assert_eq!(error.code(), Code::RepositoryIo);
    assert!(error.message().contains("making the directory a"), "{error}");
    assert_eq!(store.stat(&key("a/b")).expect("stat"), None);
    assert_eq!(read(&store, &key("a"), 10).expect("read"), b"x");
}
