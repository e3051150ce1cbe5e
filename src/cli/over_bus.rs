//! Requests to the agent, over the bus. Leaving (Ctrl-C) does not touch the job: it is the agent's.

use super::connection::{Backend, Reply, Watcher};
use crate::base::ids::{JobId, TargetName};
use crate::base::process::terminal::AuthenticationAgent;
use crate::base::{Code, Error, Result};
use crate::dbus::address::BusAddress;
use crate::dbus::proxy::{AgentProxy, FollowedJob, Update};
use crate::operation::answer::Answer;
use crate::operation::fetch::Fetched;
use crate::operation::request::Request;
use std::cell::OnceCell;
use std::fs::File;
use std::io::IsTerminal;
use tokio::runtime::Runtime;

/// The agent, over a bus.
pub struct OverBus {
    runtime: Runtime,
    agent: AgentProxy,
    asks: Option<OnceCell<Option<AuthenticationAgent>>>,
}

impl OverBus {
    /// Connects. `interactive` lets the agent have a person asked for permission.
    pub fn connect(address: &BusAddress, interactive: bool) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|cause| Error::new(Code::IoFailed, format!("starting the client's event loop: {cause}")))?;
        let agent = runtime.block_on(AgentProxy::connect(address, interactive))?;
        Ok(OverBus { runtime, agent, asks: may_ask(address, interactive).then(OnceCell::new) })
    }

    /// From now on a person at this terminal can be asked for a password, if polkit wants one.
    fn let_ask(&self) {
        if let Some(asks) = &self.asks {
            asks.get_or_init(AuthenticationAgent::start);
        }
    }
}

/// Whether polkit's questions can be answered here: on this host, at a terminal, by somebody who is not root anyway.
pub fn may_ask(address: &BusAddress, interactive: bool) -> bool {
    interactive && *address == BusAddress::System && !nix::unistd::geteuid().is_root() && std::io::stdin().is_terminal()
}

impl OverBus {
    /// Has the agent read its configuration again. Tells whether it is in force already.
    pub fn reload(&self) -> Result<bool> {
        self.let_ask();
        self.runtime.block_on(self.agent.reload())
    }

    /// Hands over a file of a server's log.
    pub fn push_wal(&self, target: &TargetName, name: &str, content: File) -> Result<()> {
        self.runtime.block_on(self.agent.push_wal(target, name, content))
    }

    /// Asks for a file of a server's log.
    pub fn fetch_wal(&self, target: &TargetName, name: &str) -> Result<Fetched> {
        self.runtime.block_on(self.agent.fetch_wal(target, name))
    }
}

impl Backend for OverBus {
    fn query(&self, request: &Request) -> Result<Answer> {
        if matches!(request, Request::Cancel { .. } | Request::KeyList) {
            self.let_ask();
        }
        self.runtime.block_on(self.agent.query(request))
    }

    fn run(&self, request: &Request, wait: bool, watcher: &mut dyn Watcher) -> Result<Reply> {
        self.let_ask();
        self.runtime.block_on(async {
            let job = self.agent.start(request).await?;
            watcher.started(job.id);
            if wait { until_the_end(job, watcher).await } else { Ok(Reply::Started(job.id)) }
        })
    }

    fn follow(&self, job: JobId, watcher: &mut dyn Watcher) -> Result<Reply> {
        self.runtime.block_on(async {
            let job = self.agent.follow(job).await?;
            watcher.started(job.id);
            until_the_end(job, watcher).await
        })
    }
}

async fn until_the_end(mut job: FollowedJob, watcher: &mut dyn Watcher) -> Result<Reply> {
    loop {
        tokio::select! {
            biased;
            _ = tokio::signal::ctrl_c() => return Ok(Reply::Detached(job.id)),
            update = job.next() => match update? {
                Update::Progress(progress) => watcher.progress(&progress),
                Update::Event(severity, text) => watcher.event(severity, &text),
                Update::Ended(result) => return Ok(Reply::Answer(Box::new(result?))),
            },
        }
    }
}
