//! Names a process so that it is never taken for another: the number alone comes round again, also after a reboot.

use std::fs;

/// A process of this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessMark {
    /// Its number.
    pub pid: u32,
    /// When it was started, in clock ticks since the boot (`/proc/PID/stat`, field 22); 0 = not known.
    pub start: u64,
    /// The boot (`/proc/sys/kernel/random/boot_id`); empty = not known.
    pub boot_id: String,
}

impl ProcessMark {
    /// This process.
    pub fn current() -> ProcessMark {
        let pid = std::process::id();
        ProcessMark { pid, start: start_of(pid).unwrap_or(0), boot_id: boot_id() }
    }

    /// Whether this very process still lives.
    pub fn is_alive(&self) -> bool {
        self.boot_id == boot_id() && start_of(self.pid) == Some(self.start)
    }
}

fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

/// A process that has ended but was not waited for (`Z`) counts as gone.
fn start_of(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The program's name stands in brackets and may hold anything, brackets too.
    let mut fields = status.rsplit_once(')')?.1.split_ascii_whitespace();
    if matches!(fields.next(), Some("Z" | "X") | None) {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_told_from_its_predecessors() {
        let own = ProcessMark::current();
        assert!(own.is_alive() && own.start > 0 && !own.boot_id.is_empty());
        assert!(!ProcessMark { start: own.start + 1, ..own.clone() }.is_alive());
        assert!(!ProcessMark { boot_id: "another boot".to_owned(), ..own.clone() }.is_alive());
        let mut child = std::process::Command::new("/bin/sh").args(["-c", "exit 0"]).spawn().expect("spawn");
        let pid = child.id();
        child.wait().expect("wait");
        assert!(!ProcessMark { pid, ..own }.is_alive());
    }
}
