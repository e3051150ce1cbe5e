//! Cypher over Bolt, one read transaction at a time.
//!
//! [`Cypher`] is all the driver knows of a connection, so that censuses and checks are tested without a server. The
//! client library is asynchronous; its runtime lives on a thread of its own, because callers may be inside another one.

use crate::base::task::{Cancel, Task};
use crate::base::{Code, Error, Result, secret};
use neo4rs::{ConfigBuilder, Graph};
use serde_json::{Map, Value};
use std::path::PathBuf;
use std::time::Duration;

/// How long the server may take to accept a connection and a login.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long one answer may take.
const QUERY_TIMEOUT: Duration = Duration::from_secs(600);
/// How often a waiting query looks whether its job was cancelled.
const CANCEL_INTERVAL: Duration = Duration::from_millis(100);
/// Most rows that one query may yield; nothing asked here comes near.
const ROWS_MAX: usize = 100_000;

/// A row by column name.
pub(super) type Row = Map<String, Value>;

/// The result of one read transaction.
#[derive(Clone, Debug, Default)]
pub(super) struct Answer {
    /// Its rows.
    pub(super) rows: Vec<Row>,
    /// The bookmark that the server gave at its end; it holds the last transaction the reader saw.
    pub(super) bookmark: Option<String>,
}

/// Something that answers Cypher queries.
pub(super) trait Cypher {
    /// Runs one query in a read transaction. Error `NEO4J_UNREACHABLE`, or the server's own words.
    fn read(&self, database: &str, query: &str, task: &Task) -> Result<Answer>;
}

/// How to reach a server.
#[derive(Clone, Debug)]
pub(super) struct Bolt {
    /// `bolt://127.0.0.1:7687`
    pub(super) uri: String,
    /// `neo4j` where nobody said otherwise.
    pub(super) user: String,
    /// Absent = the server has authentication off.
    pub(super) password_file: Option<PathBuf>,
}

impl Cypher for Bolt {
    fn read(&self, database: &str, query: &str, task: &Task) -> Result<Answer> {
        task.check()?;
        let graph = self.graph(database)?;
        let cancel = task.cancel().clone();
        // A thread without any runtime: blocking on one inside another panics.
        let answer =
            std::thread::scope(|scope| scope.spawn(move || block_on(self.converse(graph, query), &cancel)).join());
        answer.unwrap_or_else(|_| Err(Error::new(Code::Internal, "the Bolt client panicked")))
    }
}

impl Bolt {
    fn graph(&self, database: &str) -> Result<Graph> {
        let password = self.password_file.as_deref().map(secret::read_first_line).transpose()?;
        let password = password.as_ref().map(|secret| secret.expose_text()).transpose()?.unwrap_or_default();
        ConfigBuilder::default()
            .uri(self.uri.as_str())
            .user(self.user.as_str())
            .password(password)
            .db(database)
            .max_connections(1)
            .connection_timeout(QUERY_TIMEOUT)
            .build()
            .and_then(Graph::connect)
            .map_err(|cause| self.error("connecting to", &cause))
    }

    async fn converse(&self, graph: Graph, query: &str) -> Result<Answer> {
        let mut transaction = match tokio::time::timeout(CONNECT_TIMEOUT, graph.start_txn()).await {
            Ok(begun) => begun.map_err(|cause| self.error("connecting to", &cause))?,
            Err(_) => {
                let text = format!("connecting to {}: no answer within {} s", self.uri, CONNECT_TIMEOUT.as_secs());
                return Err(Error::new(Code::Neo4jUnreachable, text));
            }
        };
        let fail = |cause: &neo4rs::Error| self.error(&format!("running `{query}` on"), cause);
        let mut stream = transaction.execute(query).await.map_err(|cause| fail(&cause))?;
        let mut rows = Vec::new();
        while let Some(row) = stream.next(transaction.handle()).await.map_err(|cause| fail(&cause))? {
            if rows.len() == ROWS_MAX {
                return Err(Error::new(Code::Internal, format!("`{query}` yields more than {ROWS_MAX} rows")));
            }
            let row = row.to::<Row>().map_err(|cause| {
                Error::new(Code::Neo4jUnsupported, format!("reading the answer to `{query}`: {cause}"))
            })?;
            rows.push(row);
        }
        let bookmark = transaction.commit().await.map_err(|cause| fail(&cause))?;
        Ok(Answer { rows, bookmark })
    }

    fn error(&self, doing: &str, cause: &neo4rs::Error) -> Error {
        let error = Error::new(Code::Neo4jUnreachable, format!("{doing} {}: {cause}", self.uri));
        match cause {
            neo4rs::Error::AuthenticationError(_) => error.with_hint(format!(
                "the server refuses the login {:?}: correct `user` and `password_file` of the target",
                self.user
            )),
            _ => error,
        }
    }
}

/// Whether an error of [`Cypher::read`] is a refused login.
pub(super) fn is_refused_login(error: &Error) -> bool {
    error.hint().starts_with("the server refuses the login")
}

fn block_on<T>(work: impl Future<Output = Result<T>>, cancel: &Cancel) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|cause| Error::new(Code::IoFailed, format!("starting the Bolt client: {cause}")))?;
    runtime.block_on(async {
        tokio::pin!(work);
        loop {
            tokio::select! {
                done = &mut work => return done,
                () = tokio::time::sleep(CANCEL_INTERVAL) => {
                    if cancel.is_cancelled() {
                        return Err(Error::new(Code::Cancelled, "the job was cancelled"));
                    }
                }
            }
        }
    })
}

/// The transaction id in a bookmark. Neo4j 5 writes `FB:` and, in base64, a PackStream list: the database's UUID as 16
/// bytes, the transaction id, and what other graphs were involved. `None` for any other form.
pub(super) fn transaction_of(bookmark: &str) -> Option<u64> {
    let mut text = bookmark.strip_prefix("FB:")?.trim_end_matches('=').to_owned();
    text.extend(std::iter::repeat_n('=', (4 - text.len() % 4) % 4));
    let bytes = openssl::base64::decode_block(&text).ok()?;
    let rest = bytes.strip_prefix(&[0x91, 0xcc, 16])?.get(16..)?;
    let (&marker, rest) = rest.split_first()?;
    let number = |length: usize| {
        let field = rest.get(..length)?;
        Some(field.iter().fold(0u64, |value, &byte| value << 8 | u64::from(byte)))
    };
    match marker {
        0..=0x7f => Some(u64::from(marker)),
        0xc8 => number(1),
        0xc9 => number(2),
        0xca => number(4),
        0xcb => number(8),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_real_bookmark_holds_the_transaction() {
        assert_eq!(transaction_of("FB:kcwQAkQZdUecSMeelBhuHkQ3hAeQ"), Some(7));
        assert_eq!(transaction_of("FB:kcwQAkQZdUecSMeelBhuHkQ3hBCQ"), Some(16));
        assert_eq!(transaction_of("neo4j:bookmark:v1:tx7"), None);
    }

    proptest! {
        #[test]
        fn any_text_is_survived(text in "(FB:)?.{0,60}") {
            let _ = transaction_of(&text);
        }
    }

    #[test]
    fn nobody_at_the_port_is_said_and_cancelling_ends_the_wait() {
        let bolt =
            |port: u16| Bolt { uri: format!("bolt://127.0.0.1:{port}"), user: "neo4j".to_owned(), password_file: None };
        let free = std::net::TcpListener::bind("127.0.0.1:0").expect("bind").local_addr().expect("address").port();
        let error = bolt(free).read("neo4j", "RETURN 1", &Task::unobserved()).expect_err("error");
        assert_eq!(error.code(), Code::Neo4jUnreachable);

        // A listener that never answers.
        let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
        let task = Task::unobserved();
        let waiting = {
            let (task, bolt) = (task.clone(), bolt(silent.local_addr().expect("address").port()));
            std::thread::spawn(move || bolt.read("neo4j", "RETURN 1", &task).map(|_| ()).map_err(|e| e.code()))
        };
        let _connection = silent.accept().expect("accept");
        task.cancel().cancel();
        assert_eq!(waiting.join().expect("join"), Err(Code::Cancelled));
    }
}
