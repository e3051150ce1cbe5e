//! A private PostgreSQL cluster: made by `initdb` as an unprivileged account, reachable through a socket in its own
//! directory only, ended when the value is dropped.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// How a cluster is made.
#[derive(Clone, Debug)]
pub(crate) struct PostgresOptions {
    /// Whether pages carry checksums.
    pub(crate) checksums: bool,
    /// Lines for `postgresql.conf`.
    pub(crate) settings: Vec<String>,
    /// Part of the socket's name.
    pub(crate) port: u16,
    /// Megabytes of a segment of the log.
    pub(crate) segment: u32,
    /// As `testing/postgres/fetch.sh` has it; `None` = the newest that is installed.
    pub(crate) version: Option<&'static str>,
}

impl Default for PostgresOptions {
    fn default() -> Self {
        PostgresOptions { checksums: true, settings: Vec::new(), port: 5432, segment: 16, version: None }
    }
}

/// A running (or stopped) cluster.
pub(crate) struct PostgresServer {
    /// Holds everything of this cluster, the socket too.
    pub(crate) directory: PathBuf,
    /// The data directory.
    pub(crate) data: PathBuf,
    /// PostgreSQL's programs.
    pub(crate) bin: PathBuf,
    /// Port.
    pub(crate) port: u16,
    account: Option<nix::unistd::User>,
}

impl PostgresServer {
    /// Makes a cluster below `parent` and starts it. `parent` is opened to the account that runs it.
    pub(crate) fn start(parent: &Path, options: &PostgresOptions) -> PostgresServer {
        let account = nix::unistd::geteuid().is_root().then(unprivileged_account);
        let directory = parent.join("postgres");
        fs::create_dir_all(&directory).expect("directory of the cluster");
        if let Some(account) = &account {
            fs::set_permissions(parent, fs::Permissions::from_mode(0o755)).expect("open the parent");
            chown(&directory, Some(account.uid.as_raw()), Some(account.gid.as_raw())).expect("give the directory");
        }
        let bin = options.version.map_or_else(find_bin, |version| fetch(version, parent));
        let server = PostgresServer { data: directory.join("data"), bin, port: options.port, account, directory };
        let mut initdb = server.command("initdb");
        initdb.arg("-D").arg(&server.data).args(["-U", "postgres", "-A", "trust", "--no-sync", "--locale=C.UTF-8"]);
        initdb.arg(format!("--wal-segsize={}", options.segment));
        if options.checksums {
            initdb.arg("--data-checksums");
        }
        succeed(&mut initdb);
        let mut lines = vec![
            "listen_addresses = ''".to_owned(),
            format!("unix_socket_directories = '{}'", server.directory.display()),
            format!("port = {}", server.port),
            "shared_buffers = 32MB".to_owned(),
            // The disk's patience is not what is tested here.
            "fsync = off".to_owned(),
        ];
        lines.extend(options.settings.iter().cloned());
        let path = server.data.join("postgresql.conf");
        let text = fs::read_to_string(&path).expect("configuration") + &lines.join("\n") + "\n";
        fs::write(&path, text).expect("configuration");
        server.run();
        server
    }

    /// Starts a stopped or killed cluster.
    pub(crate) fn run(&self) {
        self.forget_zombie();
        let log = self.directory.join("log");
        succeed(self.command("pg_ctl").arg("-D").arg(&self.data).arg("-l").arg(log).args(["-w", "-s", "start"]));
    }

    /// A server on a restored directory, whose settings are those of the original: it keeps to itself.
    pub(crate) fn open_copy(&self, data: &Path, name: &str) -> PostgresServer {
        self.open(data, name, "-c archive_mode=off", None)
    }

    /// A server on a restored directory with its own settings alone, which finds programs in `path` first.
    pub(crate) fn open_standby(&self, data: &Path, name: &str, path: &Path) -> PostgresServer {
        self.open(data, name, "", Some(path))
    }

    fn open(&self, data: &Path, name: &str, options: &str, path: Option<&Path>) -> PostgresServer {
        let directory = data.with_file_name(format!("{name}-socket"));
        fs::create_dir_all(&directory).expect("directory of the socket");
        self.give(&directory);
        let copy = PostgresServer {
            data: data.to_owned(),
            bin: self.bin.clone(),
            port: self.port,
            account: self.account.clone(),
            directory,
        };
        let options = format!("{options} -c listen_addresses= -c unix_socket_directories={}", copy.directory.display());
        let log = copy.directory.join("log");
        let mut control = copy.command("pg_ctl");
        if let Some(path) = path {
            let others = std::env::var("PATH").expect("PATH");
            control.env("PATH", format!("{}:{others}", path.display()));
        }
        succeed(control.arg("-D").arg(data).arg("-l").arg(log).arg("-o").arg(options).args(["-w", "-s", "start"]));
        copy
    }

    /// Whether a process of it is left.
    pub(crate) fn has_processes(&self) -> bool {
        let at_work = |entry: fs::DirEntry| fs::read_link(entry.path().join("cwd")).is_ok_and(|cwd| cwd == self.data);
        fs::read_dir("/proc").into_iter().flatten().flatten().any(at_work)
    }

    /// Stops it cleanly.
    pub(crate) fn stop(&self) {
        succeed(self.command("pg_ctl").arg("-D").arg(&self.data).args(["-w", "-s", "-m", "fast", "stop"]));
    }

    /// Kills the postmaster, which leaves `postmaster.pid` behind.
    pub(crate) fn kill9(&self) {
        let pid = self.postmaster().expect("a running server");
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).expect("kill");
    }

    /// Where the first process of the machine does not wait for orphans, a killed postmaster stays on as a zombie, which
    /// its successor takes for alive.
    fn forget_zombie(&self) {
        let stat = self.postmaster().and_then(|pid| fs::read_to_string(format!("/proc/{pid}/stat")).ok());
        if stat.is_some_and(|stat| stat.rsplit_once(')').is_some_and(|(_, rest)| rest.starts_with(" Z"))) {
            fs::remove_file(self.data.join("postmaster.pid")).expect("postmaster.pid");
            fs::remove_file(self.directory.join(format!(".s.PGSQL.{}.lock", self.port))).expect("the socket's lock");
        }
    }

    /// The number in `postmaster.pid`.
    pub(crate) fn postmaster(&self) -> Option<nix::unistd::Pid> {
        let text = fs::read_to_string(self.data.join("postmaster.pid")).ok()?;
        text.lines().next()?.parse().ok().map(nix::unistd::Pid::from_raw)
    }

    /// Runs statements in `postgres` and returns what they print, unaligned.
    pub(crate) fn sql(&self, statements: &str) -> String {
        self.sql_in("postgres", statements)
    }

    /// Runs statements in a database.
    pub(crate) fn sql_in(&self, database: &str, statements: &str) -> String {
        let mut psql = self.command("psql");
        psql.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-U", "postgres", "-d", database])
            .arg("-h")
            .arg(&self.directory)
            .args(["-p", &self.port.to_string(), "-c", statements]);
        String::from_utf8(succeed(&mut psql).stdout).expect("UTF-8").trim().to_owned()
    }

    /// Writes a script to `path` that runs `pg_ctl` on the cluster and waits; returns the path as configurations have it.
    pub(crate) fn control_script(&self, path: &Path, arguments: &str) -> String {
        let mut command = self.command("pg_ctl");
        command.arg("-D").arg(&self.data).arg("-l").arg(self.directory.join("log")).arg("-w");
        let words: Vec<_> = std::iter::once(command.get_program()).chain(command.get_args()).collect();
        let words: Vec<_> = words.iter().map(|word| word.to_string_lossy()).collect();
        fs::write(path, format!("#!/bin/sh\ncd /\nexec {} {arguments}\n", words.join(" "))).expect("script");
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("mode");
        path.display().to_string()
    }

    /// One of PostgreSQL's programs, to be run as the cluster's account. Clients that the cluster's version comes
    /// without are those of the installed one.
    pub(crate) fn command(&self, program: &str) -> Command {
        let own = self.bin.join(program);
        let program = if own.exists() { own } else { find_bin().join(program) };
        let mut command = match &self.account {
            Some(account) => {
                let mut command = Command::new("setpriv");
                command
                    .arg(format!("--reuid={}", account.uid))
                    .arg(format!("--regid={}", account.gid))
                    .args(["--clear-groups", "--"])
                    .arg(program);
                command
            }
            None => Command::new(program),
        };
        command.current_dir("/").env("LC_ALL", "C");
        command
    }

    /// Gives a path to the cluster's account.
    pub(crate) fn give(&self, path: &Path) {
        if let Some(account) = &self.account {
            chown(path, Some(account.uid.as_raw()), Some(account.gid.as_raw())).expect("give");
        }
    }
}

impl Drop for PostgresServer {
    fn drop(&mut self) {
        if self.postmaster().is_some() {
            let _ =
                self.command("pg_ctl").arg("-D").arg(&self.data).args(["-w", "-s", "-m", "immediate", "stop"]).output();
        }
    }
}

/// The newest installation.
fn find_bin() -> PathBuf {
    let mut found: Vec<(u32, PathBuf)> = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin"))))
        .filter(|(_, bin)| bin.join("initdb").is_file())
        .collect();
    found.sort();
    found.pop().expect("PostgreSQL is not installed; these tests need it: apt-get install postgresql-15").1
}

/// The programs of a fetched version, below `parent`: where they are cached, the cluster's account may not look.
fn fetch(version: &str, parent: &Path) -> PathBuf {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("testing/postgres/fetch.sh");
    let fetched = succeed(Command::new(script).arg(version)).stdout;
    let fetched = String::from_utf8(fetched).expect("UTF-8");
    let place = parent.join(format!("postgresql-{version}"));
    succeed(Command::new("cp").args(["-r", "--reflink=auto"]).arg(fetched.trim()).arg(&place));
    place.join("bin")
}

fn unprivileged_account() -> nix::unistd::User {
    ["postgres", "nobody"]
        .iter()
        .find_map(|name| nix::unistd::User::from_name(name).ok().flatten())
        .expect("an unprivileged account")
}

fn succeed(command: &mut Command) -> Output {
    let output = command.output().unwrap_or_else(|cause| panic!("starting {command:?}: {cause}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}: {said}", output.status);
    output
}
