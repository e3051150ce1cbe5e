//! Who may do what, as polkit says: the host's policy, its rules, and a person where it wants one asked.
//!
//! Each kind of call is an action of its own below `org.neo4jbackup.Agent1.` (`packaging/polkit/`). Polkit is told who
//! calls by the name on the bus, which cannot be passed on to another process as a process id can. Root and the agent's own
//! user are not asked about: polkit lets root do everything, and backups must go on when it is broken.

use super::authority::{Action, Authority, Call, Caller, Decision, OwnerOnly, Question, refused};
use super::service::BUS_PATIENCE;
use crate::base::{Code, Error};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use zbus_polkit::policykit1::{AuthorityProxy, CheckAuthorizationFlags, Subject};

/// How long a person may take to authenticate.
pub const PERSON_PATIENCE: Duration = Duration::from_secs(180);

/// What the identifiers of all actions begin with.
pub const ACTION_PREFIX: &str = "org.neo4jbackup.Agent1.";

/// Counts the questions, so that each can be taken back by its number.
static CHECKS: AtomicU64 = AtomicU64::new(1);

/// The name of an action in polkit's policy and rules, without the prefix. What serves one purpose has one name.
pub fn action_name(action: Action) -> &'static str {
    match action {
        Action::Query => "status",
        Action::ListKeys | Action::RotateKeys => "keys",
        Action::Backup => "backup",
        Action::Adopt => "adopt",
        Action::Restore => "restore",
        Action::Promote => "promote",
        Action::Verify => "verify",
        Action::Delete | Action::Cleanup => "delete",
        Action::Rescan => "rescan",
        Action::Cancel => "cancel",
        Action::Reload => "reload",
    }
}

/// Asks polkit; where there is none, the rule for hosts without it holds.
#[derive(Clone, Copy, Debug)]
pub struct Polkit {
    /// For root, the agent itself, and hosts without polkit.
    pub otherwise: OwnerOnly,
}

impl Authority for Polkit {
    fn allow<'a>(&'a self, call: Call<'a>, question: &'a Question, caller: &'a Caller) -> Decision<'a> {
        Box::pin(async move {
            if self.otherwise.is_master(caller.uid) {
                return Ok(());
            }
            let action = format!("{ACTION_PREFIX}{}", action_name(question.action));
            let failed = |why: String| {
                let text = format!("{}: asking polkit about {action}: {why}", refused(question, caller).message());
                Error::new(Code::NotAuthorised, text).with_hint(
                    "`systemctl status polkit` shows how it is; root is not asked about: `sudo neo4j-backupctl …`",
                )
            };
            let patience = if question.interactive { PERSON_PATIENCE } else { BUS_PATIENCE };
            let id = format!("check-{}", CHECKS.fetch_add(1, Ordering::Relaxed));
            match tokio::time::timeout(patience, ask(call, question, &action, &id)).await {
                Ok(Ok(true)) => Ok(()),
                Ok(Ok(false)) => Err(refused(question, caller).with_hint(format!(
                    "authenticate when asked to (on a terminal, without --no-ask-password), run it as root, or allow \
                     the action {action} by a rule of polkit: `man 8 polkit`"
                ))),
                Ok(Err(cause)) if is_absent(&cause) => self.otherwise.allow(call, question, caller).await,
                Ok(Err(cause)) => Err(failed(cause.to_string())),
                Err(_) => {
                    // Nobody must be asked any more, whose answer would count for nothing.
                    let _ = tokio::time::timeout(BUS_PATIENCE, forget(call, &id)).await;
                    Err(failed(format!("no answer for {} s", patience.as_secs())))
                }
            }
        })
    }
}

async fn ask(call: Call<'_>, question: &Question, action: &str, id: &str) -> zbus::Result<bool> {
    let subject = Subject::new_for_message_header(call.header)
        .map_err(|cause| zbus::Error::Failure(format!("naming the caller: {cause}")))?;
    let mut details = HashMap::new();
    if let Some(target) = &question.target {
        details.insert("target", target.as_str());
    }
    let flags = match question.interactive {
        true => CheckAuthorizationFlags::ALLOW_USER_INTERACTION,
        false => CheckAuthorizationFlags::empty(),
    };
    let polkit = AuthorityProxy::new(call.connection).await?;
    Ok(polkit.check_authorization(&subject, action, &details, flags, id).await?.is_authorized)
}

async fn forget(call: Call<'_>, id: &str) -> zbus::Result<()> {
    AuthorityProxy::new(call.connection).await?.cancel_check_authorization(id).await
}

/// Nobody on the bus has polkit's name, and nothing can be started that would take it.
fn is_absent(cause: &zbus::Error) -> bool {
    let name = match cause {
        zbus::Error::MethodError(name, _, _) => name.as_str(),
        zbus::Error::FDO(cause) => {
            return matches!(**cause, zbus::fdo::Error::ServiceUnknown(_) | zbus::fdo::Error::NameHasNoOwner(_));
        }
        _ => return false,
    };
    matches!(name, "org.freedesktop.DBus.Error.ServiceUnknown" | "org.freedesktop.DBus.Error.NameHasNoOwner")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn the_policy_and_the_rules_know_exactly_the_actions_that_are_asked_about() {
        let policy = include_str!("../../packaging/polkit/org.neo4jbackup.Agent1.policy");
        let declared: BTreeSet<_> = policy
            .lines()
            .filter_map(|line| {
                line.trim().strip_prefix("<action id=\"")?.strip_suffix("\">")?.strip_prefix(ACTION_PREFIX)
            })
            .collect();
        let asked: BTreeSet<_> = Action::ALL.iter().map(|&action| action_name(action)).collect();
        assert_eq!(declared, asked);
        let rules = include_str!("../../packaging/polkit/neo4j-backup-agent.rules");
        let listed = rules.split_once("daily = [").and_then(|(_, rest)| rest.split_once(']')).expect("the list").0;
        for name in listed.split(',').map(|name| name.trim().trim_matches('"')) {
            assert!(asked.contains(name), "{name} is no action");
        }
    }
}
