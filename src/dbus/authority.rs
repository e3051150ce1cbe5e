//! Who may do what. The bus policy lets everyone send; the agent decides here.

use crate::base::{Code, Error, Result};
use std::future::Future;
use std::pin::Pin;
use zbus::Connection;
use zbus::message::Header;

/// What a caller wants to do. Each becomes an action of its own where a policy is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// See how things stand: targets, backups, jobs, restores, findings.
    Query,
    /// See key ids.
    ListKeys,
    /// Make a new passphrase.
    RotateKeys,
    /// Take a backup.
    Backup,
    /// Take over a chain of backups.
    Adopt,
    /// Restore one beside the database.
    Restore,
    /// Put one in the place of the database.
    Promote,
    /// Read stored backups through.
    Verify,
    /// Delete one.
    Delete,
    /// Delete what retention lets go.
    Cleanup,
    /// Rebuild the ledger.
    Rescan,
    /// End a job.
    Cancel,
    /// Have the configuration read again.
    Reload,
}

impl Action {
    /// Every action.
    pub const ALL: &'static [Action] = &[
        Action::Query,
        Action::ListKeys,
        Action::RotateKeys,
        Action::Backup,
        Action::Adopt,
        Action::Restore,
        Action::Promote,
        Action::Verify,
        Action::Delete,
        Action::Cleanup,
        Action::Rescan,
        Action::Cancel,
        Action::Reload,
    ];

    /// What it is called in sentences.
    pub(super) fn doing(self) -> &'static str {
        match self {
            Action::Query => "look at the agent",
            Action::ListKeys => "list keys",
            Action::RotateKeys => "make a new passphrase",
            Action::Backup => "take backups",
            Action::Adopt => "take over backups",
            Action::Restore => "restore",
            Action::Promote => "put a restored copy in the database's place",
            Action::Verify => "verify backups",
            Action::Delete => "delete backups",
            Action::Cleanup => "delete what retention lets go",
            Action::Rescan => "rebuild the ledger",
            Action::Cancel => "cancel jobs",
            Action::Reload => "have the configuration read again",
        }
    }
}

/// What is asked for by one call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// The kind of thing to be done.
    pub action: Action,
    /// The target that it is about, if it is about one.
    pub target: Option<String>,
    /// Whether a person may be asked to authenticate: the caller said that it waits.
    pub interactive: bool,
}

/// A method call: the connection it came over, and its header.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    /// The agent's connection to the bus.
    pub connection: &'a Connection,
    /// The message's header.
    pub header: &'a Header<'a>,
}

/// Who calls, as the bus itself vouches for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The caller's unique name on the bus.
    pub bus_name: String,
    /// The caller's user id.
    pub uid: u32,
}

impl Caller {
    /// The user's name, or its number where it has none; what the ledger records as the actor.
    pub fn actor(&self) -> String {
        user_name(self.uid)
    }
}

/// The name of a user of this host, or its number where it has none.
pub fn user_name(uid: u32) -> String {
    match nix::unistd::User::from_uid(nix::unistd::Uid::from_raw(uid)) {
        Ok(Some(user)) => user.name,
        _ => uid.to_string(),
    }
}

/// A decision that may take a while: a policy service may ask a person.
pub type Decision<'a> = Pin<Box<dyn Future<Output = Result<()>> + Send + 'a>>;

/// Decides who may do what.
pub trait Authority: Send + Sync {
    /// Fails with `NOT_AUTHORISED` unless `caller`, who sent `call`, may do what is asked.
    fn allow<'a>(&'a self, call: Call<'a>, question: &'a Question, caller: &'a Caller) -> Decision<'a>;
}

/// Root and the agent's own user may do everything, everybody may look.
#[derive(Clone, Copy, Debug)]
pub struct OwnerOnly {
    /// The agent's own user id.
    pub own_uid: u32,
}

impl OwnerOnly {
    /// For an agent that runs as this process's user.
    pub fn of_this_process() -> Self {
        OwnerOnly { own_uid: nix::unistd::geteuid().as_raw() }
    }

    /// Whether this user may do everything, whatever a policy says.
    pub fn is_master(&self, uid: u32) -> bool {
        uid == 0 || uid == self.own_uid
    }

    /// The rule.
    pub fn may(&self, action: Action, uid: u32) -> bool {
        action == Action::Query || self.is_master(uid)
    }
}

/// The refusal, without a hint.
pub(super) fn refused(question: &Question, caller: &Caller) -> Error {
    let about = question.target.as_deref().map(|target| format!(" (target {target})")).unwrap_or_default();
    let text = format!("user {} may not {}{about}", caller.actor(), question.action.doing());
    Error::new(Code::NotAuthorised, text)
}

impl Authority for OwnerOnly {
    fn allow<'a>(&'a self, _: Call<'a>, question: &'a Question, caller: &'a Caller) -> Decision<'a> {
        Box::pin(async move {
            match self.may(question.action, caller.uid) {
                true => Ok(()),
                false => Err(refused(question, caller).with_hint("run it as root: `sudo neo4j-backupctl …`")),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_may_look_and_only_root_and_the_agent_may_touch() {
        let authority = OwnerOnly { own_uid: 990 };
        for &action in Action::ALL {
            assert!(authority.may(action, 0) && authority.may(action, 990), "{action:?}");
            for uid in [1, 33, 1000, 991, u32::MAX] {
                assert_eq!(authority.may(action, uid), action == Action::Query, "{action:?} as {uid}");
            }
        }
    }
}
