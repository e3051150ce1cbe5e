//! Programs that a person at the terminal meets, which have the terminal for their own: the pager, and polkit's agent,
//! which asks for a password.

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use std::ffi::OsString;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// How a text is paged where nobody says otherwise: it is left at once if it fits, keeps colours, and cuts no line.
const LESS_OPTIONS: &str = "FRX";
/// How long polkit's agent may take to say that it listens.
const AGENT_PATIENCE: Duration = Duration::from_secs(5);

/// What pages a text: a shell line, or nothing.
///
/// `get` is the environment. Somebody who came by sudo or as another user must not get a shell of these rights out of a
/// pager that somebody else chose: then it is `less` without its commands.
fn pager(get: impl Fn(&str) -> Option<String>, elevated: bool) -> Option<String> {
    let chosen = ["NEO4J_BACKUP_PAGER", "SYSTEMD_PAGER", "PAGER"].into_iter().find_map(get);
    match chosen.as_deref().map(str::trim) {
        Some("" | "cat") => None,
        Some(command) if !elevated => Some(command.to_owned()),
        _ => Some("less".to_owned()),
    }
}

/// Shows a text in the pager and waits until it is left. Tells whether there was one; its failure is nobody's error.
pub fn page(text: &str) -> bool {
    let elevated = std::env::var_os("SUDO_UID").is_some() || nix::unistd::getuid() != nix::unistd::geteuid();
    let get = |name: &str| std::env::var_os(name).map(|value| value.to_string_lossy().into_owned());
    let Some(command) = pager(get, elevated) else { return false };
    let mut pager = Command::new("sh");
    pager.args(["-c", &command]).env("LESSSECURE", "1").stdin(Stdio::piped());
    if std::env::var_os("LESS").is_none() {
        pager.env("LESS", LESS_OPTIONS);
    }
    let Ok(mut child) = pager.spawn() else { return false };
    // Whoever leaves the pager early has read enough.
    let written = child.stdin.take().map(|mut input| input.write_all(text.as_bytes()));
    let ended = child.wait();
    let missing = ended.is_ok_and(|status| status.code() == Some(127));
    written.is_some() && !missing
}

/// polkit's agent for this terminal; ended when dropped.
pub struct AuthenticationAgent {
    child: Child,
}

impl AuthenticationAgent {
    /// Starts it and waits until it listens. `None` where it is not installed, or a desktop's agent is there already.
    pub fn start() -> Option<AuthenticationAgent> {
        let (listening, tells) = nix::unistd::pipe().ok()?;
        fcntl(&listening, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).ok()?;
        let mut agent = Command::new("pkttyagent");
        agent.args([OsString::from("--notify-fd"), tells.as_raw_fd().to_string().into(), "--fallback".into()]);
        agent.stdin(Stdio::null());
        let child = agent.spawn().ok()?;
        drop(tells);
        wait_for_end(&listening);
        Some(AuthenticationAgent { child })
    }
}

/// Until the other end is closed.
fn wait_for_end(pipe: &OwnedFd) {
    let mut fds = [nix::poll::PollFd::new(pipe.as_fd(), nix::poll::PollFlags::POLLIN)];
    let patience = nix::poll::PollTimeout::try_from(AGENT_PATIENCE).unwrap_or(nix::poll::PollTimeout::ZERO);
    let _ = nix::poll::poll(&mut fds, patience);
}

impl Drop for AuthenticationAgent {
    fn drop(&mut self) {
        // It gives the terminal back as it was.
        let _ = nix::sys::signal::kill(
            nix::unistd::Pid::from_raw(self.child.id() as i32),
            nix::sys::signal::Signal::SIGTERM,
        );
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_chooses_the_pager_but_not_for_somebody_elses_rights() {
        let of = |list: &'static [(&str, &str)], elevated| {
            let get = |name: &str| list.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
            pager(get, elevated)
        };
        assert_eq!(of(&[], false).as_deref(), Some("less"));
        assert_eq!(of(&[("PAGER", "most")], false).as_deref(), Some("most"));
        assert_eq!(of(&[("PAGER", "most"), ("SYSTEMD_PAGER", "more -d")], false).as_deref(), Some("more -d"));
        assert_eq!(of(&[("PAGER", "sh -c id")], true).as_deref(), Some("less"));
        for none in ["", "cat"] {
            assert_eq!(pager(|name| (name == "PAGER").then(|| none.to_owned()), false), None, "{none:?}");
        }
    }
}
