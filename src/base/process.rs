//! The only place that starts programs.
//!
//! A [`Tool`] says what to run: an argument vector (never a shell line), an environment that starts empty but for the
//! few variables every program needs, and the user to run as. A [`Launcher`] runs it: [`LocalLauncher`] in this
//! process's own rights, dropping them with `setpriv(1)` when it is root; on a host with a helper unit, another
//! implementation asks that. Each program gets a process group of its own, is followed by a watchdog (cancelled job,
//! no output for too long), and is killed with its whole group when the value is dropped.

pub mod terminal;
mod watchdog;

use self::watchdog::{Watch, last_lines};
use super::clock::wait_until;
use super::task::{Cancel, Task};
use super::{Code, Error, Result};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

/// Most bytes of standard output that [`run`] keeps.
const STDOUT_KEPT: u64 = 4 << 20;
/// How long a program has to end after SIGTERM before SIGKILL.
const TERMINATION_GRACE: Duration = Duration::from_secs(10);
/// How long a program of an earlier process may still need to have started its daemon.
const DAEMON_START_PATIENCE: Duration = Duration::from_secs(120);
const DAEMON_START_INTERVAL: Duration = Duration::from_millis(20);
/// What stands on record of a program that starts a daemon.
const LEAVES_DAEMON: &str = "leaves-daemon";
/// Bytes that a program's output pipe holds; an ordinary user gets no more than this.
const PIPE_BYTES: i32 = 1 << 20;
/// What of our own environment a program sees.
const PASSED_ON: [&str; 5] = ["PATH", "LANG", "TZ", "TMPDIR", "JAVA_HOME"];

/// An account of the operating system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OsUser {
    /// Login name, for messages.
    pub name: String,
    /// User number.
    pub uid: u32,
    /// Primary group number.
    pub gid: u32,
}

impl OsUser {
    /// Looks an account up by number; an account without a name is called by its number.
    pub fn of_uid(uid: u32, gid: u32) -> OsUser {
        let name = nix::unistd::User::from_uid(uid.into()).ok().flatten().map(|user| user.name);
        OsUser { name: name.unwrap_or_else(|| uid.to_string()), uid, gid }
    }

    /// Looks an account up by its login name.
    pub fn of_name(name: &str) -> Result<OsUser> {
        let user = nix::unistd::User::from_name(name)
            .ok()
            .flatten()
            .ok_or_else(|| Error::new(Code::ConfigInvalid, format!("there is no account {name:?} on this host")))?;
        Ok(OsUser { name: user.name, uid: user.uid.as_raw(), gid: user.gid.as_raw() })
    }

    /// The owner of a file or directory.
    pub fn owner_of(path: &Path) -> Result<OsUser> {
        use std::os::unix::fs::MetadataExt;
        let metadata = fs::metadata(path).map_err(|cause| Error::io("examining", path, cause))?;
        Ok(OsUser::of_uid(metadata.uid(), metadata.gid()))
    }

    /// Whether this process already runs as that account.
    pub fn is_current(&self) -> bool {
        nix::unistd::geteuid().as_raw() == self.uid
    }
}

/// A program to run.
#[derive(Clone, Debug)]
pub struct Tool {
    program: PathBuf,
    arguments: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
    directory: Option<PathBuf>,
    user: Option<OsUser>,
    idle_timeout: Duration,
    leaves_daemon: bool,
}

impl Tool {
    /// `program` is a path, or a name that is looked up in `PATH`.
    pub fn new(program: impl Into<PathBuf>) -> Self {
        Tool {
            program: program.into(),
            arguments: Vec::new(),
            environment: Vec::new(),
            directory: None,
            user: None,
            idle_timeout: Duration::from_secs(170),
            leaves_daemon: false,
        }
    }

    /// For a command that leaves a daemon behind (`pg_ctl start`): its standard error is not read, because the daemon
    /// keeps it open long after the command has ended.
    pub fn leaves_daemon(mut self) -> Self {
        self.leaves_daemon = true;
        self
    }

    /// Adds one argument.
    pub fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.arguments.push(argument.as_ref().to_owned());
        self
    }

    /// Adds several arguments.
    pub fn args<A: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = A>) -> Self {
        self.arguments.extend(arguments.into_iter().map(|a| a.as_ref().to_owned()));
        self
    }

    /// Sets a variable of the program's environment. Never a secret: others can read it in `/proc`.
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.environment.push((name.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// Sets the working directory; `/` otherwise.
    pub fn directory(mut self, directory: impl Into<PathBuf>) -> Self {
        self.directory = Some(directory.into());
        self
    }

    /// Runs as this account.
    pub fn user(mut self, user: OsUser) -> Self {
        self.user = Some(user);
        self
    }

    /// Runs as the account that owns the program, where that is not root: whoever may change a file must not have root run
    /// it. For what only asks the program about itself; a name that is looked up in `PATH` is root's own.
    pub fn as_its_owner(self) -> Self {
        let owner = Some(&self.program).filter(|program| program.is_absolute() && self.user.is_none());
        let owner = owner.and_then(|program| OsUser::owner_of(program).ok()).filter(|owner| owner.uid != 0);
        match owner {
            Some(owner) if nix::unistd::geteuid().is_root() => self.user(owner),
            _ => self,
        }
    }

    /// How long the program may stay silent while somebody waits for it. Default 170 s, so that a stopped program is
    /// killed and reported within three minutes.
    pub fn idle_timeout(mut self, timeout: Duration) -> Self {
        self.idle_timeout = timeout;
        self
    }

    /// The program's file name, for messages.
    pub fn name(&self) -> String {
        self.program.file_name().unwrap_or(self.program.as_os_str()).to_string_lossy().into_owned()
    }

    /// The command line as a person would type it, for messages; arguments never hold secrets.
    pub fn command_line(&self) -> String {
        let quoted = |text: &OsStr| {
            let text = text.to_string_lossy();
            let plain =
                !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_./=:,@%+".contains(&b));
            if plain { text.into_owned() } else { format!("'{}'", text.replace('\'', r"'\''")) }
        };
        std::iter::once(self.program.as_os_str())
            .chain(self.arguments.iter().map(OsString::as_os_str))
            .map(quoted)
            .collect::<Vec<_>>()
            .join(" ")
    }

    fn command(&self) -> Result<Command> {
        let mut command = match &self.user {
            Some(user) if !user.is_current() => {
                if !nix::unistd::geteuid().is_root() {
                    return Err(Error::new(
                        Code::NotAuthorised,
                        format!("running {} as {}: this process is not root", self.name(), user.name),
                    ));
                }
                let mut command = Command::new("setpriv");
                command
                    .arg(format!("--reuid={}", user.uid))
                    .arg(format!("--regid={}", user.gid))
                    .arg(if user.name.parse::<u32>().is_ok() { "--clear-groups" } else { "--init-groups" })
                    .args(["--inh-caps=-all", "--"])
                    .arg(&self.program);
                command
            }
            _ => Command::new(&self.program),
        };
        command.args(&self.arguments).env_clear().process_group(0);
        for name in PASSED_ON {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.current_dir(self.directory.as_deref().unwrap_or(Path::new("/")));
        Ok(command)
    }
}

/// Which of the program's streams the caller wants. Standard error is always read, for the message.
#[derive(Clone, Copy, Debug, Default)]
pub struct Streams {
    /// The caller writes its standard input; otherwise it is empty.
    pub input: bool,
    /// The caller reads its standard output; otherwise it is thrown away.
    pub output: bool,
}

/// Something that can run a [`Tool`].
pub trait Launcher: Send + Sync {
    /// Starts it. The job's cancellation ends it.
    fn launch(&self, tool: &Tool, streams: Streams, task: &Task) -> Result<Running>;
}

/// Runs programs as children of this process.
///
/// With a registry directory, each running group is on record there, so that a later process can end what a killed
/// one left behind ([`LocalLauncher::sweep`]).
#[derive(Clone, Debug, Default)]
pub struct LocalLauncher {
    registry: Option<PathBuf>,
}

impl LocalLauncher {
    /// A launcher that keeps its record in `directory`, which exists.
    pub fn with_registry(directory: PathBuf) -> Self {
        LocalLauncher { registry: Some(directory) }
    }

    /// Kills what an earlier process left running and forgets it; returns the names of the killed programs.
    /// Only for whoever holds the state directory's lock: it takes everything on record for a leftover.
    ///
    /// A program that starts a daemon is let finish: killed between the daemon's start and the note of its number, it
    /// would leave a server that nobody can stop any more.
    pub fn sweep(&self) -> Vec<String> {
        let mut killed = Vec::new();
        let Some(directory) = &self.registry else { return killed };
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            let record = fs::read_to_string(entry.path()).unwrap_or_default();
            let mut lines = record.lines();
            let pid = entry.file_name().to_string_lossy().parse::<i32>().ok();
            // The start time tells our old child from a stranger who got its number since.
            if let (Some(pid), Some(start), Some(name)) = (pid, lines.next(), lines.next())
                && is_running(pid, start)
                && !(lines.next() == Some(LEAVES_DAEMON) && ends_by_itself(pid, start))
            {
                let _ = killpg(Pid::from_raw(pid), Signal::SIGKILL);
                killed.push(name.to_owned());
            }
            let _ = fs::remove_file(entry.path());
        }
        killed
    }
}

impl Launcher for LocalLauncher {
    fn launch(&self, tool: &Tool, streams: Streams, task: &Task) -> Result<Running> {
        task.check()?;
        let mut command = tool.command()?;
        command
            .stdin(if streams.input { Stdio::piped() } else { Stdio::null() })
            .stdout(if streams.output { Stdio::piped() } else { Stdio::null() })
            .stderr(if tool.leaves_daemon { Stdio::null() } else { Stdio::piped() });
        let child = command.spawn().map_err(|cause| {
            let code = match cause.kind() {
                std::io::ErrorKind::NotFound => Code::ToolMissing,
                _ => Code::IoFailed,
            };
            Error::new(code, format!("starting {}: {cause}", tool.program.display()))
        })?;
        if let Some(pipe) = &child.stdout {
            // A larger pipe means fewer switches between the two programs. A system that grants none loses only speed.
            let _ = nix::fcntl::fcntl(pipe, nix::fcntl::FcntlArg::F_SETPIPE_SZ(PIPE_BYTES));
        }
        let record = self.registry.as_ref().map(|directory| directory.join(child.id().to_string()));
        if let Some(path) = &record {
            let start = start_time(child.id() as i32).unwrap_or_default();
            let sort = if tool.leaves_daemon { LEAVES_DAEMON } else { "" };
            let _ = fs::write(path, format!("{start}\n{}\n{sort}\n", tool.name()));
        }
        Ok(Running::new(child, tool, task.cancel().clone(), record))
    }
}

/// The kernel's start time of a process (field 22 of `/proc/PID/stat`), unique together with its number.
fn start_time(pid: i32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(19).map(str::to_owned)
}

/// Whether the process that started then still runs; one that only waits to be reaped does not.
fn is_running(pid: i32, start: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let dead = stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with(['Z', 'X']));
    !dead && start_time(pid).as_deref() == Some(start)
}

fn ends_by_itself(pid: i32, start: &str) -> bool {
    wait_until(DAEMON_START_PATIENCE, DAEMON_START_INTERVAL, || !is_running(pid, start))
}

/// A started program. Dropping it kills its whole group.
pub struct Running {
    child: Child,
    name: String,
    cancel: Cancel,
    watch: Arc<Watch>,
    watchdog: Option<JoinHandle<()>>,
    stderr: Option<JoinHandle<String>>,
    record: Option<PathBuf>,
    status: Option<ExitStatus>,
}

/// How a program ended.
#[derive(Clone, Debug)]
pub struct Finished {
    /// Whether it exited with status 0.
    pub success: bool,
    /// `exit status: 1`, `signal: 9 (SIGKILL)`.
    pub status: String,
    /// What [`run`] read of its standard output, at most 4 MiB; empty otherwise.
    pub stdout: Vec<u8>,
    /// The last lines of its standard error.
    pub stderr: String,
}

impl Running {
    fn new(mut child: Child, tool: &Tool, cancel: Cancel, record: Option<PathBuf>) -> Self {
        let watch = Arc::new(Watch::of(Pid::from_raw(child.id() as i32)));
        let stderr = child.stderr.take().map(|pipe| std::thread::spawn(move || last_lines(pipe)));
        let watchdog = {
            let (watch, cancel, idle_timeout) = (watch.clone(), cancel.clone(), tool.idle_timeout);
            std::thread::spawn(move || watch.guard(&cancel, idle_timeout))
        };
        Running { child, name: tool.name(), cancel, watch, watchdog: Some(watchdog), stderr, record, status: None }
    }

    /// The program's process number, which is its group's too.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Takes its standard output, if it was asked for.
    pub fn take_output(&mut self) -> Option<ToolOutput> {
        self.child.stdout.take().map(|pipe| ToolOutput { pipe, watch: self.watch.clone() })
    }

    /// Takes its standard input, if it was asked for. Dropping that is the end of file.
    pub fn take_input(&mut self) -> Option<ChildStdin> {
        self.child.stdin.take()
    }

    /// Whether it is still there.
    pub fn is_alive(&mut self) -> bool {
        self.status.is_none() && {
            self.status = self.child.try_wait().unwrap_or(None);
            if self.status.is_some() {
                self.mark_ended();
            }
            self.status.is_none()
        }
    }

    /// Asks it to end (SIGTERM to the group), then insists; returns how it ended.
    pub fn terminate(mut self, grace: Option<Duration>) -> Result<Finished> {
        if self.is_alive() {
            let _ = killpg(self.watch.pid, Signal::SIGTERM);
            wait_until(grace.unwrap_or(TERMINATION_GRACE), Duration::from_millis(20), || !self.is_alive());
        }
        self.watch.kill();
        self.finish()
    }

    /// Sends the program alone (not its group) a signal.
    pub fn signal(&self, signal: Signal) {
        let _ = nix::sys::signal::kill(self.watch.pid, signal);
    }

    /// Waits for its end. A cancelled job and a silent program are errors; a bad exit status is the caller's to judge.
    pub fn wait(self) -> Result<Finished> {
        self.finish()
    }

    fn finish(mut self) -> Result<Finished> {
        self.watch.wait_begins();
        // Standard error ends when the last process of the group has closed it, so read it first.
        let stderr = self.stderr.take().and_then(|reader| reader.join().ok()).unwrap_or_default();
        let status = match self.status {
            Some(status) => status,
            None => self
                .child
                .wait()
                .map_err(|cause| Error::new(Code::IoFailed, format!("waiting for {}: {cause}", self.name)))?,
        };
        self.status = Some(status);
        self.mark_ended();
        if self.watch.timed_out.load(Ordering::SeqCst) {
            let text =
                format!("{} was silent for too long and was killed; its last words: {}", self.name, said(&stderr));
            return Err(Error::new(Code::ToolTimeout, text));
        }
        if self.cancel.is_cancelled() && !status.success() {
            return Err(Error::new(Code::Cancelled, format!("{} was ended: the job was cancelled", self.name)));
        }
        Ok(Finished { success: status.success(), status: status.to_string(), stdout: Vec::new(), stderr })
    }

    fn mark_ended(&self) {
        *self.watch.ended.lock().unwrap_or_else(|p| p.into_inner()) = true;
        self.watch.wake.notify_all();
        if let Some(path) = &self.record {
            let _ = fs::remove_file(path);
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.status.is_none() {
            self.watch.kill();
            self.status = self.child.wait().ok();
            self.mark_ended();
        }
        if let Some(watchdog) = self.watchdog.take() {
            let _ = watchdog.join();
        }
    }
}

/// A program's standard output; its watchdog counts only the time somebody waits here.
pub struct ToolOutput {
    pipe: ChildStdout,
    watch: Arc<Watch>,
}

impl Read for ToolOutput {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.watch.wait_begins();
        let result = self.pipe.read(buffer);
        self.watch.wait_ends();
        result
    }
}

impl Finished {
    /// Turns a bad exit status into an error with the program's last words.
    pub fn expect_success(self, code: Code, what: &str) -> Result<Finished> {
        if self.success {
            return Ok(self);
        }
        Err(Error::new(code, format!("{what}: {}; it said: {}", self.status, said(&self.stderr))))
    }

    /// The kept standard output as text, trimmed.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).trim().to_owned()
    }
}

/// Runs a program to its end and keeps what it printed. Judging its status is the caller's.
pub fn run(launcher: &dyn Launcher, tool: &Tool, task: &Task) -> Result<Finished> {
    let mut running = launcher.launch(tool, Streams { input: false, output: true }, task)?;
    let mut stdout = Vec::new();
    if let Some(mut output) = running.take_output() {
        let fail = |cause| Error::io("reading the output of", &tool.program, cause);
        output.by_ref().take(STDOUT_KEPT).read_to_end(&mut stdout).map_err(fail)?;
        std::io::copy(&mut output, &mut std::io::sink()).map_err(fail)?;
    }
    let finished = running.wait()?;
    Ok(Finished { stdout, ..finished })
}

fn said(stderr: &str) -> String {
    match stderr.trim() {
        "" => "nothing".to_owned(),
        text => text.lines().rev().take(8).collect::<Vec<_>>().into_iter().rev().collect::<Vec<_>>().join(" | "),
    }
}

#[cfg(test)]
mod tests {
    use super::super::clock::Stopwatch;
    use super::*;

    fn shell(script: &str) -> Tool {
        Tool::new("/bin/sh").arg("-c").arg(script)
    }

    #[test]
    fn output_status_and_last_words_come_back() {
        let task = Task::unobserved();
        let done = run(&LocalLauncher::default(), &shell("echo out; echo err >&2; exit 3"), &task).expect("run");
        assert_eq!((done.success, done.text().as_str(), done.stderr.as_str()), (false, "out", "err"));
        let error = done.expect_success(Code::Neo4jAdminFailed, "dumping").expect_err("an error");
        assert!(error.message().contains("err") && error.code() == Code::Neo4jAdminFailed);
    }

    #[test]
    fn a_silent_program_is_killed() {
        let tool = shell("sleep 60").idle_timeout(Duration::from_millis(100));
        let watch = Stopwatch::start();
        let error = run(&LocalLauncher::default(), &tool, &Task::unobserved()).expect_err("an error");
        assert_eq!(error.code(), Code::ToolTimeout);
        assert!(watch.elapsed() < Duration::from_secs(30));
    }

    #[test]
    fn a_cancelled_job_ends_the_whole_group() {
        let task = Task::unobserved();
        let running = LocalLauncher::default()
            .launch(&shell("sleep 60 & sleep 60; wait"), Streams::default(), &task)
            .expect("launch");
        task.cancel().cancel();
        assert_eq!(running.wait().map(|_| ()).map_err(|e| e.code()), Err(Code::Cancelled));
    }

    #[test]
    fn a_missing_program_is_named() {
        let error =
            run(&LocalLauncher::default(), &Tool::new("/no/such/tool"), &Task::unobserved()).expect_err("an error");
        assert_eq!(error.code(), Code::ToolMissing);
    }

    #[test]
    fn leftovers_are_found_and_ended() {
        let directory = tempfile::tempdir().expect("tempdir");
        let launcher = LocalLauncher::with_registry(directory.path().to_owned());
        let mut running = launcher.launch(&shell("sleep 60"), Streams::default(), &Task::unobserved()).expect("launch");
        assert_eq!(launcher.sweep(), vec!["sh".to_owned()]);
        assert!(wait_until(Duration::from_secs(10), Duration::from_millis(5), || !running.is_alive()));
    }

    // req: A14
    #[test]
    fn a_leftover_that_starts_a_daemon_is_let_finish() {
        let directory = tempfile::tempdir().expect("tempdir");
        let (go, note) = (directory.path().join("go"), directory.path().join("note"));
        let registry = directory.path().join("registry");
        fs::create_dir(&registry).expect("registry");
        let launcher = LocalLauncher::with_registry(registry);
        let script = format!("until [ -e '{}' ]; do sleep 0.01; done; echo noted >'{}'", go.display(), note.display());
        let tool = shell(&script).leaves_daemon();
        let started = launcher.launch(&tool, Streams::default(), &Task::unobserved()).expect("launch");
        let sweeping = std::thread::spawn(move || launcher.sweep());
        fs::write(&go, b"").expect("go");
        assert_eq!(sweeping.join().expect("sweep"), Vec::<String>::new());
        assert_eq!(fs::read_to_string(&note).expect("it came to its end"), "noted\n");
        drop(started);
    }

    #[test]
    fn the_command_line_is_quoted() {
        assert_eq!(shell("a b'c").command_line(), r"/bin/sh -c 'a b'\''c'");
    }
}
