//! [`HostOps`] in this process: for containers, tests, root's own `run`, and inside the root-owned helper.

use super::mounts::Mounts;
use super::service::{Control, Phase};
use super::swap;
use super::swap_run::{Disk, RealDisk, Swaps};
use super::{HostOps, Recovery, Service, SwapPlan, Timer, tree};
use crate::base::ids::TargetName;
use crate::base::process::{Launcher, OsUser};
use crate::base::task::Task;
use crate::base::{Code, Error, Result};
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Changes the host in this process's own rights.
pub struct LocalHost {
    records: PathBuf,
    launcher: Arc<dyn Launcher>,
    disk: Box<dyn Disk>,
}

impl LocalHost {
    /// Records and journals go to `STATE_DIRECTORY/host`, which is made when it is needed.
    pub fn new(state_directory: PathBuf, launcher: Arc<dyn Launcher>) -> LocalHost {
        LocalHost { records: state_directory.join("host"), launcher, disk: Box::new(RealDisk) }
    }

    fn ready(&self) -> Result<()> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.records)
            .map_err(|cause| Error::io("making", &self.records, cause))?;
        crate::base::atomic_file::sync_parent(&self.records)
    }

    fn control(&self) -> Control<'_> {
        Control { records: &self.records, launcher: self.launcher.as_ref() }
    }

    fn swaps(&self) -> Swaps<'_> {
        Swaps { journals: &self.records, disk: self.disk.as_ref() }
    }

    fn roll_back(
        &self,
        journal: &swap::Journal,
        service_of: &dyn Fn(&TargetName) -> Option<Service>,
        task: &Task,
    ) -> Result<()> {
        // A server may have been started on the new data before the crash, or by the boot since, and need not have
        // opened any of it yet. Renaming directories below it would mix two databases.
        let service = service_of(&journal.target).unwrap_or(Service::Unmanaged);
        let halted = self.control().halt(&journal.target, &service, task);
        if let (Err(error), Some(user)) = (halted, journal.live.iter().find_map(|live| user_of(live))) {
            return Err(error.context(format!("swap {} must be undone, but {user} uses its data", journal.id)));
        }
        self.swaps().take_back(journal)
    }
}

impl HostOps for LocalHost {
    fn stop(&self, target: &TargetName, service: &Service, task: &Task) -> Result<()> {
        self.ready()?;
        self.control().stop(target, service, task)
    }

    fn start(&self, target: &TargetName, service: &Service, task: &Task) -> Result<()> {
        self.ready()?;
        self.control().start(target, service, task)
    }

    fn swap(&self, plan: &SwapPlan, task: &Task) -> Result<()> {
        task.check()?;
        self.ready()?;
        let journal = swap::plan(plan, &Mounts::read()?)?;
        plan.exchanges.iter().try_for_each(|exchange| check_unused(&exchange.live, Code::RestoreServerRunning))?;
        self.swaps().carry_out(&journal)
    }

    fn undo_swap(&self, plan: &SwapPlan, _task: &Task) -> Result<()> {
        self.ready()?;
        let swaps = self.swaps();
        let journal = swaps.read(&plan.id)?;
        plan.exchanges.iter().try_for_each(|exchange| check_unused(&exchange.live, Code::SwapFailed))?;
        swaps.take_back(&journal)
    }

    fn swap_done(&self, plan: &SwapPlan) -> Result<()> {
        // The swap's journal is there, and so is its directory: whatever fails from here on has to say what is in service.
        self.swaps().settle(&plan.id)
    }

    fn give(&self, tree: &Path, owner: &OsUser) -> Result<()> {
        tree::give(tree, owner)
    }

    fn remove_tree(&self, tree: &Path) -> Result<()> {
        tree::remove(tree)
    }

    fn timers(&self, units: &[String], task: &Task) -> Result<Option<Vec<Timer>>> {
        super::timers::look(self.launcher.as_ref(), units, task)
    }

    fn recover(&self, service_of: &dyn Fn(&TargetName) -> Option<Service>, task: &Task) -> Result<Recovery> {
        self.ready()?;
        let mut recovery = Recovery::default();
        let mut failures = Vec::new();
        for journal in self.swaps().journals()? {
            if journal.settled {
                self.swaps().forget(&journal);
                continue;
            }
            match self.roll_back(&journal, service_of, task) {
                Ok(()) => recovery.rolled_back.push(journal.id),
                Err(error) => failures.push((Some(journal.target), error)),
            }
        }
        for (target, recorded) in self.control().on_record()? {
            // On half-exchanged data a server must stay down.
            if failures.iter().any(|(failed, _)| failed.as_ref() == Some(&target)) {
                continue;
            }
            // What cannot be read may have been cut off in the middle of anything.
            let phase = recorded.as_ref().map_or(Phase::Stopping, |record| record.phase);
            let service = service_of(&target).or(recorded.map(|record| record.service)).unwrap_or(Service::Unmanaged);
            match self.control().start_again(&target, &service, phase, task) {
                Ok(()) => recovery.restarted.push(target),
                Err(error) => failures.push((None, error)),
            }
        }
        if failures.is_empty() {
            return Ok(recovery);
        }
        // Everything that could be mended is; the first failure's code tells what kind of help is needed.
        let code = failures.first().map_or(Code::Internal, |(_, error)| error.code());
        let hint = failures.first().map(|(_, error)| error.hint().to_owned()).unwrap_or_default();
        let texts: Vec<_> = failures.iter().map(|(_, error)| error.message().to_owned()).collect();
        Err(Error::new(code, format!("after a crash: {}", texts.join("; "))).with_hint(hint))
    }
}

/// A process that has a file below `tree` open, of those that we may look at: `1234 (java)`.
fn user_of(tree: &Path) -> Option<String> {
    let tree = tree.canonicalize().ok()?;
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten().map(|entry| entry.path());
    for process in processes {
        let files = std::fs::read_dir(process.join("fd")).into_iter().flatten().flatten();
        let mut open = files.filter_map(|file| std::fs::read_link(file.path()).ok());
        if open.any(|path| path.starts_with(&tree)) {
            let name = std::fs::read_to_string(process.join("comm")).unwrap_or_default();
            return Some(format!("{} ({})", process.file_name()?.to_string_lossy(), name.trim()));
        }
    }
    None
}

/// Refuses to rename directories below a program that uses them.
fn check_unused(live: &Path, code: Code) -> Result<()> {
    match user_of(live) {
        Some(user) => Err(Error::new(code, format!("process {user} has files of {} open", live.display()))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Exchange;
    use super::*;
    use crate::base::clock::wait_until;
    use crate::base::process::{LocalLauncher, Running, Streams, Tool};
    use nix::mount::{MntFlags, MsFlags, mount, umount2};
    use std::fs;
    use std::io;
    use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    /// What goes wrong at the N-th change.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum Fault {
        /// It fails, once.
        Error,
        /// It and everything after it fails.
        Forever,
        /// It is made, but reported as failed: what an fsync error looks like.
        ErrorAfter,
        /// The process ends before it.
        CrashBefore,
        /// The process ends after it.
        CrashAfter,
    }

    struct FaultyDisk {
        fault: Fault,
        at: usize,
        changes: Arc<AtomicUsize>,
    }

    impl FaultyDisk {
        fn change<T>(&self, change: impl FnOnce() -> T, fail: impl FnOnce() -> T) -> T {
            let number = self.changes.fetch_add(1, Ordering::SeqCst) + 1;
            let hit = number == self.at;
            match self.fault {
                Fault::Error if hit => fail(),
                Fault::Forever if number >= self.at => fail(),
                Fault::ErrorAfter if hit => {
                    change();
                    fail()
                }
                Fault::CrashBefore if hit => resume_unwind(Box::new("crash")),
                Fault::CrashAfter if hit => {
                    change();
                    resume_unwind(Box::new("crash"))
                }
                _ => change(),
            }
        }
    }

    fn eio<T>() -> io::Result<T> {
        Err(io::Error::from_raw_os_error(libc::EIO))
    }

    impl Disk for FaultyDisk {
        fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
            self.change(|| RealDisk.rename(from, to), eio)
        }
        fn sync_directory(&self, directory: &Path) -> io::Result<()> {
            self.change(|| RealDisk.sync_directory(directory), eio)
        }
        fn make_directory(&self, directory: &Path) -> io::Result<()> {
            self.change(|| RealDisk.make_directory(directory), eio)
        }
        fn remove_directory(&self, directory: &Path) -> io::Result<()> {
            self.change(|| RealDisk.remove_directory(directory), eio)
        }
        fn write(&self, path: &Path, content: &[u8]) -> Result<()> {
            self.change(|| RealDisk.write(path, content), || Err(Error::new(Code::IoFailed, "writing: EIO")))
        }
        fn remove(&self, path: &Path) -> Result<()> {
            self.change(|| RealDisk.remove(path), || Err(Error::new(Code::IoFailed, "removing: EIO")))
        }
    }

    fn target() -> TargetName {
        TargetName::new("graph").expect("target")
    }

    fn host(state: &Path) -> LocalHost {
        LocalHost::new(state.to_owned(), Arc::new(LocalLauncher::default()))
    }

    /// Two directories in service, one that is not there yet, and a successor for each.
    struct Scene {
        root: tempfile::TempDir,
        plan: SwapPlan,
    }

    fn put(directory: &Path, word: &str) {
        fs::create_dir_all(directory.join("sub")).expect("mkdir");
        fs::write(directory.join("store"), word).expect("write");
        fs::write(directory.join("sub/index"), word).expect("write");
    }

    fn word(directory: &Path) -> Option<String> {
        let store = fs::read_to_string(directory.join("store")).ok()?;
        (fs::read_to_string(directory.join("sub/index")).ok()? == store).then_some(store)
    }

    impl Scene {
        fn new() -> Scene {
            let root = tempfile::tempdir().expect("tempdir");
            let path = |name: &str| root.path().join(name);
            let exchange = |name: &str| Exchange {
                live: path("live").join(name),
                staged: path("staged").join(name),
                set_aside: path("aside/deeper").join(name),
            };
            fs::create_dir_all(path("live")).expect("mkdir");
            let names = ["neo4j", "system", "new"];
            names.iter().for_each(|name| put(&path("staged").join(name), "new"));
            names[..2].iter().for_each(|name| put(&path("live").join(name), "old"));
            let plan = SwapPlan { id: "r-1".to_owned(), target: target(), exchanges: names.map(exchange).to_vec() };
            Scene { root, plan }
        }

        fn state(&self) -> PathBuf {
            self.root.path().join("state")
        }

        fn faulty(&self, fault: Fault, at: usize) -> (LocalHost, Arc<AtomicUsize>) {
            let changes = Arc::new(AtomicUsize::new(0));
            let disk = FaultyDisk { fault, at, changes: changes.clone() };
            (LocalHost { disk: Box::new(disk), ..host(&self.state()) }, changes)
        }

        fn words(&self, of: fn(&Exchange) -> &PathBuf) -> Vec<Option<String>> {
            self.plan.exchanges.iter().map(|exchange| word(of(exchange))).collect()
        }

        fn is_old(&self) -> bool {
            let (old, new) = (Some("old".to_owned()), Some("new".to_owned()));
            self.words(|e| &e.live) == [old.clone(), old, None]
                && self.words(|e| &e.staged) == [new.clone(), new.clone(), new]
                && !self.root.path().join("aside").exists()
        }

        fn is_new(&self) -> bool {
            let (old, new) = (Some("old".to_owned()), Some("new".to_owned()));
            self.words(|e| &e.live) == [new.clone(), new.clone(), new]
                && self.words(|e| &e.set_aside) == [old.clone(), old, None]
                && self.words(|e| &e.staged) == [None, None, None]
        }

        fn journals(&self) -> usize {
            fs::read_dir(self.state().join("host")).map(Iterator::count).unwrap_or_default()
        }
    }

    fn nobody(_: &TargetName) -> Option<Service> {
        None
    }

    /// A restore that failed removes what it made, whatever became of the exchange: the old data comes back all the same.
    #[test]
    fn what_a_failed_restore_removed_does_not_keep_the_old_data_from_coming_back() {
        for fault in [Fault::Error, Fault::ErrorAfter, Fault::Forever] {
            for at in 1..60 {
                let scene = Scene::new();
                let (faulty, changes) = scene.faulty(fault, at);
                let task = Task::unobserved();
                let swapped = faulty.swap(&scene.plan, &task);
                if swapped.is_ok() && changes.load(Ordering::SeqCst) < at {
                    break;
                }
                if swapped.is_err() {
                    let _ = fs::remove_dir_all(scene.root.path().join("staged"));
                }
                host(&scene.state()).recover(&nobody, &task).unwrap_or_else(|error| panic!("{fault:?} {at}: {error}"));
                let old = Some("old".to_owned());
                if swapped.is_err() {
                    assert_eq!(scene.words(|e| &e.live), [old.clone(), old, None], "{fault:?} {at}");
                }
                assert_eq!(scene.journals(), 0, "{fault:?} {at}");
            }
        }
    }

    /// A journal that cannot be removed says that nothing is to be undone; where it cannot even be written, whoever settles is
    /// told, and the next start undoes.
    #[test]
    fn a_settled_swap_stays_settled() {
        let task = Task::unobserved();
        let scene = Scene::new();
        host(&scene.state()).swap(&scene.plan, &task).expect("swap");
        let _ = fs::remove_dir_all(scene.root.path().join("staged"));
        let (once, _) = scene.faulty(Fault::Error, 1);
        once.swap_done(&scene.plan).expect("settled");
        host(&scene.state()).recover(&nobody, &task).expect("nothing to undo");
        assert!(scene.is_new() && scene.journals() == 0);

        let scene = Scene::new();
        host(&scene.state()).swap(&scene.plan, &task).expect("swap");
        let _ = fs::remove_dir_all(scene.root.path().join("staged"));
        let (ever, _) = scene.faulty(Fault::Forever, 1);
        let error = ever.swap_done(&scene.plan).expect_err("not settled");
        assert!(error.message().contains("is in service") && error.hint().contains("rm "), "{error}");
        host(&scene.state()).recover(&nobody, &task).expect("undone");
        assert!(scene.is_old(), "{:?}", scene.words(|e| &e.live));
    }

    #[test]
    fn a_swap_is_carried_out_undone_and_settled() {
        let scene = Scene::new();
        let (host, task) = (host(&scene.state()), Task::unobserved());
        host.swap(&scene.plan, &task).expect("swap");
        assert!(scene.is_new() && scene.journals() == 1);
        host.undo_swap(&scene.plan, &task).expect("undo");
        assert!(scene.is_old() && scene.journals() == 0);
        host.swap(&scene.plan, &task).expect("swap again");
        host.swap_done(&scene.plan).expect("done");
        assert_eq!(host.recover(&nobody, &task).expect("recover"), Recovery::default());
        assert!(scene.is_new() && scene.journals() == 0);
        assert_eq!(host.undo_swap(&scene.plan, &task).map_err(|e| e.code()), Err(Code::SwapFailed));
    }

    /// Every change of a swap fails or ends the process once; afterwards the old data is in service, or after a swap
    /// that succeeded, the new.
    #[test]
    fn whatever_fails_old_or_new_data_is_whole() {
        for fault in [Fault::Error, Fault::Forever, Fault::ErrorAfter, Fault::CrashBefore, Fault::CrashAfter] {
            for at in 1.. {
                let scene = Scene::new();
                let (faulty, changes) = scene.faulty(fault, at);
                let outcome = catch_unwind(AssertUnwindSafe(|| faulty.swap(&scene.plan, &Task::unobserved())));
                let reached = changes.load(Ordering::SeqCst) >= at;
                match outcome {
                    Ok(Ok(())) => assert!(scene.is_new() && !reached, "{fault:?} {at}"),
                    Ok(Err(error)) if scene.journals() == 0 => assert!(scene.is_old(), "{fault:?} {at}: {error:?}"),
                    Ok(Err(_)) | Err(_) => {}
                }
                // The next process comes; a swap that nobody declared good is undone.
                let recovered = host(&scene.state()).recover(&nobody, &Task::unobserved()).expect("recover");
                assert!(scene.is_old() && scene.journals() == 0, "{fault:?} {at}: {recovered:?}");
                if !reached {
                    assert!(at > 15, "a swap makes more changes than {at}");
                    break;
                }
            }
        }
    }

    /// The recovery itself is interrupted at every change, and then tried again.
    #[test]
    fn an_interrupted_recovery_is_repeated() {
        for fault in [Fault::CrashBefore, Fault::CrashAfter, Fault::Forever] {
            for at in 1.. {
                let scene = Scene::new();
                host(&scene.state()).swap(&scene.plan, &Task::unobserved()).expect("swap");
                let (faulty, changes) = scene.faulty(fault, at);
                let _ = catch_unwind(AssertUnwindSafe(|| faulty.recover(&nobody, &Task::unobserved())));
                host(&scene.state()).recover(&nobody, &Task::unobserved()).expect("recover");
                assert!(scene.is_old() && scene.journals() == 0, "{fault:?} {at}");
                if changes.load(Ordering::SeqCst) < at {
                    break;
                }
            }
        }
    }

    #[test]
    fn what_appeared_in_the_place_of_the_old_data_is_kept_beside_it() {
        let scene = Scene::new();
        // Journal, two directories with their parents flushed, then the first rename.
        let (faulty, _) = scene.faulty(Fault::CrashAfter, 6);
        assert!(catch_unwind(AssertUnwindSafe(|| faulty.swap(&scene.plan, &Task::unobserved()))).is_err());
        let live = &scene.plan.exchanges[0].live;
        assert!(!live.exists(), "the first rename was made");
        put(live, "a server that started on nothing");
        let recovery = host(&scene.state()).recover(&nobody, &Task::unobserved()).expect("recover");
        assert_eq!(recovery.rolled_back, ["r-1"]);
        assert!(scene.is_old());
        let found = live.with_file_name("neo4j.found-by-r-1");
        assert_eq!(word(&found).as_deref(), Some("a server that started on nothing"));
    }

    #[test]
    fn plans_that_cannot_work_are_refused_before_anything_moves() {
        type Spoil = fn(&mut Scene);
        let spoils: [(&str, Spoil); 6] = [
            ("set aside exists", |scene| fs::create_dir_all(&scene.plan.exchanges[1].set_aside).expect("mkdir")),
            ("nothing staged", |scene| fs::remove_dir_all(&scene.plan.exchanges[2].staged).expect("remove")),
            ("relative", |scene| scene.plan.exchanges[1].live = "live/system".into()),
            ("upwards", |scene| scene.plan.exchanges[1].live = scene.root.path().join("live/../../etc")),
            ("no parent", |scene| scene.plan.exchanges[2].live = scene.root.path().join("absent/new")),
            ("a name that is a path", |scene| scene.plan.id = "../../etc/x".to_owned()),
        ];
        for (name, spoil) in spoils {
            let mut scene = Scene::new();
            spoil(&mut scene);
            let refused = host(&scene.state()).swap(&scene.plan, &Task::unobserved());
            assert!(refused.is_err(), "{name}");
            assert_eq!(word(&scene.root.path().join("live/neo4j")).as_deref(), Some("old"), "{name}");
            assert_eq!(scene.journals(), 0, "{name}");
        }
    }

    /// A filesystem of its own, gone with the value.
    struct Mounted(PathBuf);

    impl Mounted {
        /// `None`, said aloud, where this account may not mount.
        fn tmpfs(at: &Path) -> Option<Mounted> {
            fs::create_dir_all(at).expect("mkdir");
            match mount(Some("tmpfs"), at, Some("tmpfs"), MsFlags::empty(), Some("size=1m")) {
                Ok(()) => Some(Mounted(at.to_owned())),
                Err(cause) => {
                    eprintln!("SKIPPED: mounting a tmpfs is not possible here: {cause}");
                    None
                }
            }
        }
    }

    impl Drop for Mounted {
        fn drop(&mut self) {
            let _ = umount2(&self.0, MntFlags::MNT_DETACH);
        }
    }

    #[test]
    fn a_mount_point_stays_and_its_children_go() {
        let root = tempfile::tempdir().expect("tempdir");
        let (state, live) = (root.path().join("state"), root.path().join("data"));
        let Some(_mounted) = Mounted::tmpfs(&live) else { return };
        put(&live, "old");
        fs::create_dir(live.join("lost+found")).expect("mkdir");
        let (staged, set_aside) = (live.join(".restore/staged"), live.join(".restore/aside"));
        put(&staged, "new");
        fs::write(staged.join("more"), b"").expect("write");
        let exchange = Exchange { live: live.clone(), staged: staged.clone(), set_aside: set_aside.clone() };
        let plan = SwapPlan { id: "m".to_owned(), target: target(), exchanges: vec![exchange] };
        let (host, task) = (host(&state), Task::unobserved());
        assert!(
            fs::rename(&live, root.path().join("elsewhere")).is_err(),
            "the kernel refuses to rename a mount point"
        );

        host.swap(&plan, &task).expect("swap");
        assert_eq!((word(&live).as_deref(), word(&set_aside).as_deref()), (Some("new"), Some("old")));
        assert!(live.join("more").exists() && live.join("lost+found").exists());
        host.undo_swap(&plan, &task).expect("undo");
        assert_eq!((word(&live).as_deref(), word(&staged).as_deref()), (Some("old"), Some("new")));
        assert!(!live.join("more").exists() && !set_aside.exists() && live.join("lost+found").exists());
    }

    #[test]
    fn another_filesystem_is_refused_before_anything_moves() {
        let scene = Scene::new();
        let staged = scene.plan.exchanges[2].staged.clone();
        let Some(mounted) = Mounted::tmpfs(&staged) else { return };
        put(&staged, "new");
        let error = host(&scene.state()).swap(&scene.plan, &Task::unobserved()).expect_err("refused");
        assert_eq!(error.code(), Code::SwapFailed);
        assert!(error.message().contains("another filesystem"), "{error:?}");
        drop(mounted);
        // A bind mount has its origin's device number, and yet nothing can be renamed across its border.
        let origin = scene.root.path().join("origin");
        put(&origin, "new");
        mount(Some(&origin), &staged, None::<&str>, MsFlags::MS_BIND, None::<&str>).expect("bind");
        let _bound = Mounted(staged.clone());
        let error = host(&scene.state()).swap(&scene.plan, &Task::unobserved()).expect_err("refused");
        assert!(error.message().contains("another filesystem"), "{error:?}");
        assert_eq!(scene.words(|e| &e.live), [Some("old".to_owned()), Some("old".to_owned()), None]);
        assert_eq!(scene.journals(), 0);
    }

    fn shell(script: String) -> Vec<String> {
        vec!["/bin/sh".to_owned(), "-c".to_owned(), script]
    }

    #[test]
    fn a_stop_is_on_record_before_it_happens_and_until_the_start() {
        let root = tempfile::tempdir().expect("tempdir");
        let (host, task) = (host(root.path()), Task::unobserved());
        let record = root.path().join("host/stopped-graph.json");
        let log = root.path().join("log");
        let say = |word: &str| format!("[ -e '{}' ] && echo {word} >>'{}'", record.display(), log.display());
        let service = Service::Commands { stop: shell(say("stop")), start: shell(say("start")) };
        host.stop(&target(), &service, &task).expect("stop");
        assert!(record.exists());
        // A crash; the next process finds the record.
        let recovery = self::host(root.path()).recover(&|_| Some(service.clone()), &task).expect("recover");
        assert_eq!(recovery.restarted, [target()]);
        assert!(!record.exists());
        assert_eq!(fs::read_to_string(&log).expect("log"), "stop\nstart\n");
    }

    // req: A14
    #[test]
    fn a_stop_that_was_interrupted_is_carried_through_before_the_start() {
        let root = tempfile::tempdir().expect("tempdir");
        let (host, task) = (host(root.path()), Task::unobserved());
        let record = root.path().join("host/stopped-graph.json");
        let (log, kept) = (root.path().join("log"), root.path().join("kept"));
        let say = |word: &str| format!("echo {word} >>'{}'", log.display());
        let stop = format!("{}; cp '{}' '{}'", say("stop"), record.display(), kept.display());
        let service = Service::Commands { stop: shell(stop), start: shell(say("start")) };
        host.stop(&target(), &service, &task).expect("stop");
        // As it was while the stop command ran, or cut off, or of an unknown form.
        let middle = fs::read(&kept).expect("record");
        for found in [&middle[..], &middle[..9], b"{}"] {
            fs::write(&record, found).expect("record");
            fs::write(&log, b"").expect("log");
            let recovery = host.recover(&|_| Some(service.clone()), &task).expect("recover");
            assert_eq!(recovery.restarted, [target()]);
            assert_eq!(fs::read_to_string(&log).expect("log"), "stop\nstart\n");
            assert!(!record.exists());
        }
    }

    /// After a crash a server may be starting on the new data, with none of it open yet.
    #[test]
    fn a_swap_is_taken_back_with_the_server_stopped_even_if_nothing_uses_the_data() {
        for stopped in [0, 1] {
            let scene = Scene::new();
            let log = scene.root.path().join("log");
            let word = scene.plan.exchanges[0].live.join("store");
            let say = |word_: &str| format!("echo {word_} $(cat '{}') >>'{}'", word.display(), log.display());
            // A stop command may fail where nothing runs.
            let stop = format!("{}; exit {stopped}", say("stop"));
            let service = Service::Commands { stop: shell(stop), start: shell(say("start")) };
            let (host, task) = (host(&scene.state()), Task::unobserved());
            host.swap(&scene.plan, &task).expect("swap");
            let recovery = host.recover(&|_| Some(service.clone()), &task).expect("recover");
            assert_eq!((recovery.rolled_back.len(), recovery.restarted.as_slice()), (1, &[target()][..]));
            assert!(scene.is_old());
            let said = fs::read_to_string(&log).expect("log");
            assert!(said.starts_with("stop new\n") && said.ends_with("start old\n"), "{said}");
        }
    }

    #[test]
    fn a_server_that_does_not_stop_is_asked_to_start_again() {
        let root = tempfile::tempdir().expect("tempdir");
        let (host, task) = (host(root.path()), Task::unobserved());
        let started = root.path().join("started");
        let service = Service::Commands {
            stop: shell("echo no way >&2; exit 5".to_owned()),
            start: shell(format!("touch '{}'", started.display())),
        };
        let error = host.stop(&target(), &service, &task).expect_err("error");
        assert_eq!(error.code(), Code::ServerControlFailed);
        assert!(error.message().contains("no way"), "{error:?}");
        assert!(started.exists() && !root.path().join("host/stopped-graph.json").exists());
        let error = host.stop(&target(), &Service::Unmanaged, &task).expect_err("error");
        assert!(error.hint().contains("stop_command"));
        // A start that fails stays on record.
        let broken = Service::Commands { stop: shell("true".to_owned()), start: shell("exit 1".to_owned()) };
        host.stop(&target(), &broken, &task).expect("stop");
        assert_eq!(host.start(&target(), &broken, &task).map_err(|e| e.code()), Err(Code::ServerControlFailed));
        assert_eq!(host.recover(&nobody, &task).map_err(|e| e.code()).err(), Some(Code::ServerControlFailed));
        assert!(root.path().join("host/stopped-graph.json").exists());
    }

    /// Notes what it was asked to run, and runs nothing of it.
    #[derive(Default)]
    struct Notes(std::sync::Mutex<Vec<String>>);

    impl Launcher for Notes {
        fn launch(&self, tool: &Tool, streams: Streams, task: &Task) -> Result<Running> {
            self.0.lock().expect("lock").push(tool.command_line());
            LocalLauncher::default().launch(&Tool::new("/bin/true"), streams, task)
        }
    }

    #[test]
    fn a_unit_is_controlled_by_systemctl_and_its_name_is_no_option() {
        let root = tempfile::tempdir().expect("tempdir");
        let notes = Arc::new(Notes::default());
        let (host, task) = (LocalHost::new(root.path().to_owned(), notes.clone()), Task::unobserved());
        let service = Service::Unit("--force".to_owned());
        host.stop(&target(), &service, &task).expect("stop");
        host.start(&target(), &service, &task).expect("start");
        let said = notes.0.lock().expect("lock").clone();
        assert_eq!(
            said,
            ["systemctl stop --no-ask-password -- --force", "systemctl start --no-ask-password -- --force"]
        );
    }

    #[test]
    fn a_cancelled_job_still_starts_the_server() {
        let root = tempfile::tempdir().expect("tempdir");
        let (host, task) = (host(root.path()), Task::unobserved());
        let service = Service::Commands { stop: shell("true".to_owned()), start: shell("true".to_owned()) };
        host.stop(&target(), &service, &task).expect("stop");
        task.cancel().cancel();
        host.start(&target(), &service, &task).expect("start");
        assert_eq!(host.stop(&target(), &service, &task).map_err(|e| e.code()), Err(Code::Cancelled));
    }

    /// After a crash the server may run on the new data already: it must be stopped before that is taken away.
    #[test]
    fn a_server_on_half_exchanged_data_is_stopped_first() {
        let scene = Scene::new();
        let root = scene.root.path().display();
        let live = scene.plan.exchanges[0].live.join("store");
        let run = format!(
            "setsid sh -c 'exec 3<\"{}\"; echo $$ >{root}/pid; exec sleep 300' >/dev/null 2>&1 & \
             while ! [ -s {root}/pid ]; do :; done",
            live.display()
        );
        let service =
            Service::Commands { stop: shell(format!("kill $(cat {root}/pid) && rm {root}/pid")), start: shell(run) };
        let (host, task) = (host(&scene.state()), Task::unobserved());
        host.swap(&scene.plan, &task).expect("swap");
        host.start(&target(), &service, &task).expect("start");
        // The shell opens the file and becomes `sleep` afterwards.
        let in_use = || user_of(&scene.plan.exchanges[0].live).is_some_and(|user| user.contains("sleep"));
        assert!(wait_until(Duration::from_secs(10), Duration::from_millis(5), in_use));
        let error = host.undo_swap(&scene.plan, &task).expect_err("refused");
        assert!(error.message().contains("sleep"), "{error:?}");
        // Nobody says how it is controlled: better to leave all as it is.
        assert!(host.recover(&nobody, &task).is_err() && scene.is_new());
        let recovery = host.recover(&|_| Some(service.clone()), &task).expect("recover");
        assert_eq!(
            (recovery.rolled_back.as_slice(), recovery.restarted.as_slice()),
            (&["r-1".to_owned()][..], &[target()][..])
        );
        assert!(scene.is_old());
        assert!(wait_until(Duration::from_secs(10), Duration::from_millis(5), in_use), "it runs on the old data");
        host.stop(&target(), &service, &task).expect("stop");
    }
}
