//! SQL connections, each bounded in time.
//!
//! The client is synchronous and must not be used on a thread that runs asynchronous tasks. A server that was stopped
//! in its tracks accepts a connection and then says nothing, and no setting of the client bounds that; so whole
//! conversations run on a thread of their own ([`within`]) that is given up when its time is over.

use crate::base::clock::Stopwatch;
use crate::base::secret;
use crate::base::task::Task;
use crate::base::{Code, Error, Result};
use postgres::{Client, Config, NoTls};
use std::path::PathBuf;
use std::sync::mpsc;
use std::time::Duration;

/// How long making a connection may take.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a question to the catalogs may take.
pub(crate) const CATALOG_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a conversation of several questions may take.
pub(crate) const TALK_TIMEOUT: Duration = Duration::from_secs(120);
/// How often a cancelled job is noticed while a conversation runs.
const CANCEL_INTERVAL: Duration = Duration::from_millis(100);
/// Databases that are tried, in order, when any will do.
const MAINTENANCE_DATABASES: [&str; 2] = ["postgres", "template1"];

/// Where a server listens, and as whom to speak to it.
#[derive(Clone, Debug)]
pub(crate) struct Address {
    /// A directory of unix sockets, or a host name.
    pub host: String,
    /// Port; part of the socket's name too.
    pub port: u16,
    /// Role.
    pub user: String,
    /// A file whose first line is the role's password.
    pub password_file: Option<PathBuf>,
    /// Databases worth trying first when any will do.
    pub preferred: Vec<String>,
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{} as {}", self.host, self.port, self.user)
    }
}

impl Address {
    /// Connects to `database`; every statement then ends after `statement_timeout`. The session is read-only, resolves
    /// names from the system catalogs alone, and fails rather than let row security hide rows.
    pub(crate) fn connect(&self, database: &str, statement_timeout: Duration) -> Result<Client> {
        self.try_connect(database, statement_timeout)?.map_err(|cause| {
            Error::new(
                Code::PostgresUnreachable,
                format!("connecting to {self}, database {database}: {}", explain(&cause)),
            )
        })
    }

    /// Databases that are tried, in order, when any will do.
    pub(crate) fn candidates(&self) -> impl Iterator<Item = &str> {
        self.preferred.iter().map(String::as_str).chain(MAINTENANCE_DATABASES)
    }

    /// Connects to whichever database can be had.
    pub(crate) fn connect_any(&self, statement_timeout: Duration) -> Result<Client> {
        let mut last = None;
        for database in self.candidates() {
            match self.try_connect(database, statement_timeout)? {
                Ok(client) => return Ok(client),
                Err(cause) => {
                    let missing = cause.code().is_some_and(|code| code.code() == "3D000" || code.code() == "42501");
                    last = Some(cause);
                    // Only a database that is missing or closed to us is a reason to try another one.
                    if !missing {
                        break;
                    }
                }
            }
        }
        let why = last.as_ref().map(explain).unwrap_or_default();
        Err(Error::new(Code::PostgresUnreachable, format!("connecting to {self}: {why}")))
    }

    /// The outer error is about our own side: a password file that cannot be used.
    pub(crate) fn try_connect(
        &self,
        database: &str,
        statement_timeout: Duration,
    ) -> Result<std::result::Result<Client, postgres::Error>> {
        let mut config = Config::new();
        config
            .host(&self.host)
            .port(self.port)
            .user(&self.user)
            .dbname(database)
            .application_name("neo4j-backup")
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_user_timeout(CONNECT_TIMEOUT)
            .options(&format!(
                "-c default_transaction_read_only=on -c search_path=pg_catalog -c row_security=off -c jit=off \
                 -c lock_timeout={lock} -c statement_timeout={statement}",
                lock = CATALOG_TIMEOUT.as_millis().min(statement_timeout.as_millis()),
                statement = statement_timeout.as_millis(),
            ));
        if let Some(path) = &self.password_file {
            config.password(secret::read_first_line(path)?.expose());
        }
        Ok(config.connect(NoTls))
    }
}

/// Runs `talk` on a thread of its own and waits at most `limit` for it, or until the job is cancelled. A thread that is
/// given up ends by itself when the kernel or the server ends its connection.
pub(crate) fn within<T: Send + 'static>(
    limit: Duration,
    what: &str,
    task: &Task,
    talk: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let (sender, receiver) = mpsc::sync_channel(1);
    std::thread::Builder::new()
        .name("postgres-talk".to_owned())
        .spawn(move || {
            let _ = sender.send(talk());
        })
        .map_err(|cause| Error::new(Code::IoFailed, format!("starting a thread for {what}: {cause}")))?;
    let watch = Stopwatch::start();
    loop {
        match receiver.recv_timeout(CANCEL_INTERVAL) {
            Ok(result) => return result,
            Err(mpsc::RecvTimeoutError::Disconnected) => {
                return Err(Error::new(Code::Internal, format!("{what}: the thread that did it panicked")));
            }
            Err(mpsc::RecvTimeoutError::Timeout) => {
                task.check()?;
                if watch.elapsed() > limit {
                    let text = format!("{what}: no answer within {} s", limit.as_secs());
                    return Err(Error::new(Code::PostgresUnreachable, text));
                }
            }
        }
    }
}

/// What the server said, or why it could not be asked, in one line.
pub(crate) fn explain(cause: &postgres::Error) -> String {
    if let Some(said) = cause.as_db_error() {
        let detail = said.detail().map(|detail| format!(" ({detail})")).unwrap_or_default();
        return format!("{} {}{detail}", said.severity(), said.message());
    }
    let mut text = cause.to_string();
    let mut source = std::error::Error::source(cause);
    while let Some(inner) = source {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        source = inner.source();
    }
    text
}

/// Turns a failed statement into an error that says what was asked.
pub(crate) fn asking(what: &str) -> impl Fn(postgres::Error) -> Error + '_ {
    move |cause| Error::new(Code::PostgresUnreachable, format!("asking for {what}: {}", explain(&cause)))
}

/// A name as part of an SQL statement.
pub(crate) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    #[test]
    fn a_server_that_says_nothing_is_given_up() {
        let place = tempfile::tempdir().expect("tempdir");
        let _silent = UnixListener::bind(place.path().join(".s.PGSQL.5432")).expect("bind");
        let address = Address {
            host: place.path().display().to_string(),
            port: 5432,
            user: "x".to_owned(),
            password_file: None,
            preferred: Vec::new(),
        };
        let result = within(Duration::from_millis(200), "saying hello", &Task::unobserved(), move || {
            address.connect_any(CATALOG_TIMEOUT).map(|_| ())
        });
        assert_eq!(result.map_err(|e| e.code()), Err(Code::PostgresUnreachable));
    }

    #[test]
    fn names_stay_names() {
        assert_eq!(quoted(r#"a"; drop table b; --"#), r#""a""; drop table b; --""#);
    }
}
