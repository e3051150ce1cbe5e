//! The agent's own object, with the manager's interface: starts jobs, answers questions.

use super::authority::{Action, Authority, Call, Caller};
use super::errors::BusError;
use super::exporter::Exporter;
use super::options::{self, Received};
use super::service::{identify, permit};
use crate::agent::jobs::Registry;
use crate::agent::renewal::Reloaded;
use crate::base::ids::JobId;
use crate::base::{Code, Error, Result};
use crate::operation::fetch::Fetched;
use crate::operation::request::{Destination, Request};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use zbus::message::Header;
use zbus::object_server::SignalEmitter;
use zbus::{Connection, ObjectPath, OwnedFd, OwnedObjectPath, interface};

/// Questions that are answered at once; more wait. Each takes a thread while the ledger or a repository is read.
pub const QUERIES_AT_ONCE: usize = 8;

/// Files of logs that are taken in at once; more wait.
pub const PUSHES_AT_ONCE: usize = 4;

/// Files of logs that are given back at once; more wait.
pub const FETCHES_AT_ONCE: usize = 4;

/// How long a reload waits for what is being answered.
const RELOAD_PATIENCE: Duration = Duration::from_secs(10);

/// The manager on the bus.
pub struct Manager {
    registry: Arc<Registry>,
    exporter: Arc<Exporter>,
    authority: Arc<dyn Authority>,
    queries: Semaphore,
    pushes: Semaphore,
    fetches: Semaphore,
}

impl Manager {
    /// The object that starts `registry`'s jobs.
    pub fn new(registry: Arc<Registry>, exporter: Arc<Exporter>, authority: Arc<dyn Authority>) -> Self {
        Manager {
            registry,
            exporter,
            authority,
            queries: Semaphore::new(QUERIES_AT_ONCE),
            pushes: Semaphore::new(PUSHES_AT_ONCE),
            fetches: Semaphore::new(FETCHES_AT_ONCE),
        }
    }

    async fn permit(&self, action: Action, call: Call<'_>, request: &Result<Request>) -> Result<Caller, BusError> {
        let target = request.as_ref().ok().and_then(Request::target).map(ToString::to_string);
        Ok(permit(&*self.authority, action, target, call).await?)
    }

    async fn start(
        &self,
        action: Action,
        call: Call<'_>,
        request: Result<Request>,
    ) -> Result<OwnedObjectPath, BusError> {
        // First who, then what: an unauthorised caller learns nothing from the errors of the rest.
        let caller = self.permit(action, call, &request).await?;
        let request = request?;
        let (registry, actor) = (self.registry.clone(), caller.actor());
        let started = tokio::task::spawn_blocking(move || registry.start(request, &actor)).await;
        let job = started.map_err(lost)??;
        self.exporter.export(call.connection, job).await.map_err(|cause| {
            BusError::from(Error::new(Code::Internal, format!("the job runs, but could not be announced: {cause}")))
        })
    }

    async fn query(&self, action: Action, call: Call<'_>, request: Result<Request>) -> Result<String, BusError> {
        let caller = self.permit(action, call, &request).await?;
        let request = request?;
        let _turn = self.queries.acquire().await.map_err(|_| Error::new(Code::Busy, "the agent is stopping"))?;
        let (registry, actor) = (self.registry.clone(), caller.actor());
        let answer = tokio::task::spawn_blocking(move || registry.query(&request, &actor)).await.map_err(lost)??;
        serde_json::to_string(&answer)
            .map_err(|cause| Error::new(Code::Internal, format!("writing the answer as JSON: {cause}")).into())
    }
}

fn lost(cause: tokio::task::JoinError) -> Error {
    Error::new(Code::Internal, format!("answering the call: {cause}"))
}

#[interface(name = "org.neo4jbackup.Agent1.Manager", introspection_docs = false)]
impl Manager {
    /// Takes a backup. Options: `type` (s), `note` (s), `dry_run` (b).
    #[zbus(out_args("job"))]
    async fn backup(
        &self,
        target: &str,
        options: Received,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<OwnedObjectPath, BusError> {
        self.start(Action::Backup, Call { connection, header: &header }, options::read_backup(target, options)).await
    }

    /// Archives what was committed since. Options: `dry_run` (b).
    #[zbus(out_args("job"))]
    async fn archive(
        &self,
        target: &str,
        options: Received,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<OwnedObjectPath, BusError> {
        self.start(Action::Backup, Call { connection, header: &header }, options::read_archive(target, options)).await
    }

    /// Makes this host the writer of a target's backups. Option: `new_repository` (b).
    #[zbus(out_args("job"))]
    async fn adopt(
        &self,
        target: &str,
        options: Received,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<OwnedObjectPath, BusError> {
        self.start(Action::Adopt, Call { connection, header: &header }, options::read_adopt(target, options)).await
    }

    /// Restores `backup`, or all that is archived where it is empty. Options: `into` (s) or `in_place` (b), one of
    /// `to_time`, `to_tx`, `before_tx`, `to_lsn` and `to_name` (s) or `to_immediate` (b), `no_recover` (b), `without_system` (b), `dry_run` (b);
    /// of PostgreSQL `tablespace_map` (as, each `OLD=NEW`) and `tablespace_map_all` (s), `standby` (b),
    /// `primary_conninfo` (s), `timeline` (s, a number or `latest`), `delta` (b).
    #[zbus(out_args("job"))]
    async fn restore(
        &self,
        target: &str,
        backup: &str,
        options: Received,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<OwnedObjectPath, BusError> {
        let request = options::read_restore(target, backup, options);
        let action = match &request {
            Ok(Request::Restore(r)) if r.destination == Destination::InPlace && !r.dry_run => Action::Promote,
            _ => Action::Restore,
        };
        self.start(action, Call { connection, header: &header }, request).await
    }

    /// Verifies `backup`, or all of them where it is empty. Options: `quick` (b).
    #[zbus(out_args("job"))]
    async fn verify(
        &self,
        backup: &str,
        options: Received,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<OwnedObjectPath, BusError> {
        self.start(Action::Verify, Call { connection, header: &header }, options::read_verify(backup, options)).await
    }

    /// Deletes a backup. Options: `dry_run` (b).
    #[zbus(out_args("job"))]
    async fn delete(
        &self,
        backup: &str,
        options: Received,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<OwnedObjectPath, BusError> {
        self.start(Action::Delete, Call { connection, header: &header }, options::read_delete(backup, options)).await
    }

    /// Deletes what retention lets go. Options: `dry_run` (b).
    #[zbus(out_args("job"))]
    async fn cleanup(
        &self,
        options: Received,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<OwnedObjectPath, BusError> {
        self.start(Action::Cleanup, Call { connection, header: &header }, options::read_cleanup(options)).await
    }

    /// Rebuilds the ledger from the repositories. No options.
    #[zbus(out_args("job"))]
    async fn rescan(
        &self,
        options: Received,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<OwnedObjectPath, BusError> {
        self.start(Action::Rescan, Call { connection, header: &header }, options::read_rescan(options)).await
    }

    /// Makes a new passphrase for new backups. Options: `dry_run` (b).
    #[zbus(out_args("job"))]
    async fn key_rotate(
        &self,
        options: Received,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<OwnedObjectPath, BusError> {
        self.start(Action::RotateKeys, Call { connection, header: &header }, options::read_key_rotate(options)).await
    }

    /// Takes in a file of a server's log that its owner hands over: `content` holds it, `name` is the server's name for it.
    /// It is durable when the answer comes. No options.
    async fn push_wal(
        &self,
        target: &str,
        name: &str,
        content: OwnedFd,
        options: Received,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<(), BusError> {
        // Who may is decided below, by who owns the data: a policy that asks a person would stop the archiving.
        let caller = identify(connection, &header).await?;
        let (target, name) = options::read_push_wal(target, name, options)?;
        let _turn = self.pushes.acquire().await.map_err(|_| Error::new(Code::Busy, "the agent is stopping"))?;
        let registry = self.registry.clone();
        let mut content = std::fs::File::from(std::os::fd::OwnedFd::from(content));
        let taken = move || registry.take_log(&target, caller.uid, &name, &mut content);
        Ok(tokio::task::spawn_blocking(taken).await.map_err(lost)??)
    }

    /// Gives a server that recovers the file of its log that it calls `name`: one descriptor in `files`, or none if every
    /// repository's chain ends before it, which `reason` says. Everything else is an error. No options.
    #[zbus(out_args("files", "reason"))]
    async fn fetch_wal(
        &self,
        target: &str,
        name: &str,
        options: Received,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<(Vec<OwnedFd>, String), BusError> {
        let caller = identify(connection, &header).await?;
        let (target, name) = options::read_fetch_wal(target, name, options)?;
        let _turn = self.fetches.acquire().await.map_err(|_| Error::new(Code::Busy, "the agent is stopping"))?;
        let (registry, ahead) = (self.registry.clone(), self.registry.clone());
        let (of, asked) = (target.clone(), name.clone());
        let fetched = tokio::task::spawn_blocking(move || registry.fetch_log(&of, caller.uid, &asked)).await;
        match fetched.map_err(lost)?? {
            Fetched::File(file) => {
                // What follows is unpacked while the server replays this.
                tokio::task::spawn_blocking(move || ahead.read_log_ahead(&target, &name));
                Ok((vec![OwnedFd::from(std::os::fd::OwnedFd::from(file))], String::new()))
            }
            Fetched::Beyond(reason) => Ok((Vec::new(), reason)),
        }
    }

    /// Asks a job to end.
    async fn cancel(
        &self,
        job: u64,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<(), BusError> {
        let request = Request::Cancel { job: JobId(job) };
        self.query(Action::Cancel, Call { connection, header: &header }, Ok(request)).await.map(drop)
    }

    /// Reads the configuration again; one that is wrong is an error, and the present one stays in force. `in_force` is
    /// false while jobs run: it will be once they have ended.
    #[zbus(out_args("in_force"))]
    async fn reload(
        &self,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<bool, BusError> {
        permit(&*self.authority, Action::Reload, None, Call { connection, header: &header }).await?;
        let registry = self.registry.clone();
        let reloaded = tokio::task::spawn_blocking(move || registry.reload(RELOAD_PATIENCE)).await.map_err(lost)??;
        Ok(reloaded == Reloaded::InForce)
    }

    /// How the targets stand, as JSON; only `target` unless that is empty.
    #[zbus(out_args("answer"))]
    async fn status(
        &self,
        target: &str,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<String, BusError> {
        let request = options::optional_target(target).map(|target| Request::Status { target });
        self.query(Action::Query, Call { connection, header: &header }, request).await
    }

    /// The backups, as JSON; only those of `target` unless that is empty.
    #[zbus(out_args("answer"))]
    async fn list(
        &self,
        target: &str,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<String, BusError> {
        let request = options::optional_target(target).map(|target| Request::List { target });
        self.query(Action::Query, Call { connection, header: &header }, request).await
    }

    /// Everything about one backup, as JSON.
    #[zbus(out_args("answer"))]
    async fn show(
        &self,
        backup: &str,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<String, BusError> {
        let request = options::backup_name(backup).map(|backup| Request::Show { backup });
        self.query(Action::Query, Call { connection, header: &header }, request).await
    }

    /// Addresses from which the objects of a backup can be fetched without credentials, as JSON. Options: `seconds` (t), how long
    /// they are good, 3600 unless told.
    #[zbus(out_args("answer"))]
    async fn presign(
        &self,
        backup: &str,
        options: Received,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<String, BusError> {
        self.query(Action::Restore, Call { connection, header: &header }, options::read_presign(backup, options)).await
    }

    /// Ended jobs and events, as JSON, newest first, at most `limit` of each.
    #[zbus(out_args("answer"))]
    async fn history(
        &self,
        limit: u32,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<String, BusError> {
        self.query(Action::Query, Call { connection, header: &header }, Ok(Request::History { limit })).await
    }

    /// Jobs that run, as JSON.
    #[zbus(out_args("answer"))]
    async fn jobs(
        &self,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<String, BusError> {
        self.query(Action::Query, Call { connection, header: &header }, Ok(Request::Jobs)).await
    }

    /// Restores that were made, as JSON.
    #[zbus(out_args("answer"))]
    async fn restores(
        &self,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<String, BusError> {
        self.query(Action::Query, Call { connection, header: &header }, Ok(Request::Restores)).await
    }

    /// The doctor's findings, as JSON; only about `target` unless that is empty.
    #[zbus(out_args("answer"))]
    async fn check(
        &self,
        target: &str,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<String, BusError> {
        let request = options::optional_target(target).map(|target| Request::Check { target });
        self.query(Action::Query, Call { connection, header: &header }, request).await
    }

    /// Key ids at hand, as JSON.
    #[zbus(out_args("answer"))]
    async fn key_list(
        &self,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<String, BusError> {
        self.query(Action::ListKeys, Call { connection, header: &header }, Ok(Request::KeyList)).await
    }

    /// The agent's version.
    #[zbus(property(emits_changed_signal = "const"))]
    fn version(&self) -> &str {
        env!("CARGO_PKG_VERSION")
    }

    /// `ready`, or `working` while jobs run.
    #[zbus(property)]
    fn state(&self) -> &str {
        if self.registry.running().is_empty() { "ready" } else { "working" }
    }

    /// Jobs that run.
    #[zbus(property)]
    fn job_count(&self) -> u32 {
        self.registry.running().len() as u32
    }

    /// A job was taken on; its object is there.
    #[zbus(signal)]
    pub(super) async fn job_new(emitter: &SignalEmitter<'_>, id: u64, path: ObjectPath<'_>) -> zbus::Result<()>;

    /// A job ended: `succeeded`, `failed`, `cancelled`. Its object stays for a while and holds the answer.
    #[zbus(signal)]
    pub(super) async fn job_removed(
        emitter: &SignalEmitter<'_>,
        id: u64,
        path: ObjectPath<'_>,
        result: &str,
    ) -> zbus::Result<()>;
}
