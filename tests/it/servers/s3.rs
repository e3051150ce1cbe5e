//! A real S3 server (versitygw), built once by `testing/s3/fetch.sh`; it serves a directory of its own, in which an
//! object's bytes can be looked at and damaged. It ends with the value.
//!
//! What the server knows of an object is in extended attributes, which not every `/tmp` has: its directory lies beside what
//! cargo builds. Its other way, a tree of metadata beside the objects, does not survive a refused request: what such a
//! request would have written is then taken for an object.

use neo4j_backup_agent::base::clock::wait_until;
use neo4j_backup_agent::repository::s3::{Checksums, Encryption, S3Store, S3StoreSettings};
use std::fs;
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

/// What the server knows its only user by.
pub(crate) const KEY_ID: &str = "tests";
/// The user's secret.
pub(crate) const SECRET: &str = "a secret that only tests know";
/// The bucket that is there.
pub(crate) const BUCKET: &str = "backups";
/// Longest time until the server answers.
const START: Duration = Duration::from_secs(30);

/// See the module.
pub(crate) struct S3Server {
    directory: tempfile::TempDir,
    port: u16,
    process: Option<Child>,
}

/// The program; without it the reason is put on the list of what was skipped, once.
fn program() -> Option<&'static Path> {
    static PROGRAM: OnceLock<Option<PathBuf>> = OnceLock::new();
    let found = PROGRAM.get_or_init(|| {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("testing/s3/fetch.sh");
        let output = Command::new(script).output().expect("testing/s3/fetch.sh starts");
        let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        if output.status.success() {
            return Some(PathBuf::from(said));
        }
        let why = String::from_utf8_lossy(&output.stderr).trim().lines().last().unwrap_or_default().to_owned();
        println!("SKIPPED: tests of S3 repositories against a real server: {why}");
        if let Some(list) = std::env::var_os("NEO4J_BACKUP_TEST_SKIPS") {
            let mut list = fs::OpenOptions::new().append(true).create(true).open(list).expect("list of skips");
            writeln!(list, "S3 repositories against a real server: {why}").expect("list of skips");
        }
        None
    });
    found.as_deref()
}

impl S3Server {
    /// A server with one empty bucket; `None` where the program cannot be had.
    pub(crate) fn start() -> Option<S3Server> {
        let program = program()?;
        let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("temporary directory");
        fs::create_dir_all(directory.path().join("objects").join(BUCKET)).expect("directory");
        let port = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a free port").port();
        let mut server = S3Server { directory, port, process: None };
        server.run(program);
        Some(server)
    }

    fn run(&mut self, program: &Path) {
        let log = fs::File::create(self.directory.path().join("log")).expect("log");
        let process = Command::new(program)
            .args(["--port", &format!("127.0.0.1:{}", self.port), "--quiet", "--keep-alive", "posix"])
            .arg(self.directory.path().join("objects"))
            .env("ROOT_ACCESS_KEY", KEY_ID)
            .env("ROOT_SECRET_KEY", SECRET)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("log"))
            .stderr(log)
            .spawn()
            .expect("versitygw starts");
        self.process = Some(process);
        let answers = || TcpStream::connect(("127.0.0.1", self.port)).is_ok();
        assert!(wait_until(START, Duration::from_millis(5), answers), "versitygw does not answer");
    }

    /// Kills the server; connections to it are refused from now on.
    pub(crate) fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    /// Where it answers.
    pub(crate) fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The port of 127.0.0.1 that it listens on.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// The bucket's directory.
    pub(crate) fn objects(&self) -> PathBuf {
        self.directory.path().join("objects").join(BUCKET)
    }

    /// A store below `prefix` of the bucket, whose uploads are on record in `uploads`.
    pub(crate) fn store(&self, prefix: &str, uploads: &Path) -> S3Store {
        S3Store::with_keys(self.settings(prefix, uploads), KEY_ID, SECRET)
    }

    /// [`S3Server::store`]'s settings.
    pub(crate) fn settings(&self, prefix: &str, uploads: &Path) -> S3StoreSettings {
        S3StoreSettings {
            bucket: BUCKET.to_owned(),
            prefix: prefix.to_owned(),
            region: None,
            endpoint: Some(self.endpoint()),
            path_style: true,
            allow_http: true,
            encryption: Encryption::None,
            checksums: Checksums::WhenRequired,
            uploads: uploads.to_owned(),
            hostname: "db1".to_owned(),
        }
    }

    /// Multipart uploads that are under way: the server keeps each in a directory of its own.
    pub(crate) fn unfinished(&self) -> usize {
        let below = |path: &Path| fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path());
        let objects = below(&self.objects().join(".sgwtmp/multipart"));
        objects.flat_map(|object| below(&object).collect::<Vec<_>>()).filter(|path| path.is_dir()).count()
    }
}

impl Drop for S3Server {
    fn drop(&mut self) {
        self.stop();
    }
}
