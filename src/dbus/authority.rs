//! Who may do what. The bus policy lets everyone send; the agent decides here.

use crate::base::{Code, Error, Result};
use std::future::Future;
use std::pin::Pin;

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
    /// Restore one.
    Restore,
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
        Action::Verify,
        Action::Delete,
        Action::Cleanup,
        Action::Rescan,
        Action::Cancel,
    ];

    fn doing(self) -> &'static str {
        match self {
            Action::Query => "look at the agent",
            Action::ListKeys => "list keys",
            Action::RotateKeys => "make a new passphrase",
            Action::Backup => "take backups",
            Action::Adopt => "take over backups",
            Action::Restore => "restore",
            Action::Verify => "verify backups",
            Action::Delete => "delete backups",
            Action::Cleanup => "delete what retention lets go",
            Action::Rescan => "rebuild the ledger",
            Action::Cancel => "cancel jobs",
        }
    }
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
    /// Fails with `NOT_AUTHORISED` unless `caller` may do `action`.
    fn allow<'a>(&'a self, action: Action, caller: &'a Caller) -> Decision<'a>;
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

    /// The rule.
    pub fn may(&self, action: Action, uid: u32) -> bool {
        action == Action::Query || uid == 0 || uid == self.own_uid
    }
}

impl Authority for OwnerOnly {
    fn allow<'a>(&'a self, action: Action, caller: &'a Caller) -> Decision<'a> {
        let allowed = self.may(action, caller.uid);
        Box::pin(async move {
            if allowed {
                return Ok(());
            }
            let who = caller.actor();
            Err(Error::new(Code::NotAuthorised, format!("user {who} may not {}", action.doing()))
                .with_hint("run it as root: `sudo neo4j-backupctl …`"))
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
