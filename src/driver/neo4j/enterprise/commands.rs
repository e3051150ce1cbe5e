//! The commands of `neo4j-admin` that only Enterprise has: whether they are there, how they are run, what they say.
//!
//! Options are those of the Operations Manual, "Back up an online database" and "Restore a database backup", that 5.x and
//! 2026.x have in common. `--temp-path` is younger (5.24) and not needed: without it the tool works inside the directory
//! of the artifact, which is private here.

use crate::base::process::{Finished, Launcher, Tool, run};
use crate::base::task::Task;
use crate::base::{Code, Error, Result};
use crate::driver::neo4j::dump::Admin;
use crate::driver::neo4j::layout::SYSTEM;
use std::path::Path;
use std::time::Duration;

/// How long a backup or restore may print nothing: the server first makes a checkpoint, and recovery of the artifact is
/// silent.
const SILENCE: Duration = Duration::from_secs(3600);
/// Lines of its last words that go into an error.
const WORDS_KEPT: usize = 8;
/// Characters of each that do.
const WORD_LENGTH: usize = 300;

/// Which of the commands `database backup` and `database restore` a `neo4j-admin` has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::driver::neo4j) struct Offered {
    /// `database backup`: Enterprise.
    pub(in crate::driver::neo4j) backup: bool,
    /// `database restore`: Enterprise.
    pub(in crate::driver::neo4j) restore: bool,
}

impl Offered {
    /// Asks the tool. Costs the start of a JVM.
    pub(in crate::driver::neo4j) fn ask(admin: &Admin, launcher: &dyn Launcher, task: &Task) -> Result<Offered> {
        let what = format!("asking {} for its commands", admin.program.display());
        let finished =
            run(launcher, &admin.database("--help").as_its_owner(), task).map_err(|error| error.context(&what))?;
        Offered::of_help(&finished.expect_success(Code::Neo4jAdminFailed, &what)?.text())
            .map_err(|error| error.context(&what))
    }

    /// Reads the list of commands. A text without such a list is an error: it would look like Community.
    fn of_help(text: &str) -> Result<Offered> {
        let listed = text.lines().skip_while(|line| !line.trim().eq_ignore_ascii_case("commands:")).skip(1);
        // Descriptions are continued on lines that are indented deeper.
        let names: Vec<&str> = listed
            .filter_map(|line| line.strip_prefix("  ").filter(|rest| !rest.starts_with(char::is_whitespace)))
            .filter_map(|rest| rest.split([' ', ',']).next())
            .collect();
        if !names.contains(&"load") {
            let begins: String = text.chars().take(WORD_LENGTH).collect();
            let error = Error::new(Code::Neo4jAdminFailed, format!("it listed no commands, but said {begins:?}"));
            return Err(error.with_hint("set `admin` of the target to the server's own neo4j-admin"));
        }
        Ok(Offered { backup: names.contains(&"backup"), restore: names.contains(&"restore") })
    }
}

/// What `neo4j-admin database backup` is asked for. Never `AUTO`: what it makes must be known before it is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// The store.
    Full,
    /// The log since the newest artifact in the directory.
    Differential,
}

/// `neo4j-admin database backup` of one database into the directory `to`.
pub(super) fn backup(admin: &Admin, asked: Asked, from: &str, to: &Path, database: &str) -> Tool {
    let sort = match asked {
        Asked::Full => "--type=FULL",
        Asked::Differential => "--type=DIFF",
    };
    let tool = admin
        .database("backup")
        .args([sort, "--compress=true", "--keep-failed=false"])
        .arg(format!("--from={from}"))
        .arg(path_option("--to-path", to));
    // The manual: metadata cannot be had of `system`, which holds users and roles itself.
    let tool = if database == SYSTEM { tool } else { tool.arg("--include-metadata=all") };
    tool.arg(database).idle_timeout(SILENCE)
}

/// `neo4j-admin database restore` of one artifact: for a differential one, of the chain beside it that ends with it.
pub(super) fn restore(admin: &Admin, artifact: &Path, database: &str) -> Tool {
    admin
        .database("restore")
        .arg(path_option("--from-path", artifact))
        .args(["--overwrite-destination=true", database])
        .idle_timeout(SILENCE)
}

fn path_option(name: &str, path: &Path) -> std::ffi::OsString {
    let mut option = std::ffi::OsString::from(format!("{name}="));
    option.push(path);
    option
}

/// Runs one of them. Any status but 0 is a failure: the manual has 1 for "failed, or succeeded with problems" alike.
pub(super) fn succeed(launcher: &dyn Launcher, tool: &Tool, what: &str, task: &Task) -> Result<()> {
    let finished = run(launcher, tool, task).map_err(|error| error.context(what))?;
    if finished.success {
        return Ok(());
    }
    let words = last_words(&finished);
    // The JVM's words for ENOSPC; a full disk has an exit code of its own.
    let full = words.contains("No space left on device");
    let code = if full { Code::BackupNoSpace } else { Code::Neo4jAdminFailed };
    Err(Error::new(code, format!("{what}: {}; it said: {words}", finished.status)))
}

/// What it said last, on either stream: which one it complains on differs between its parts.
fn last_words(finished: &Finished) -> String {
    let text = finished.text();
    let tail = |text: &str| -> Vec<String> {
        let mut lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        lines.drain(..lines.len().saturating_sub(WORDS_KEPT));
        lines.into_iter().map(|line| line.chars().filter(|c| !c.is_control()).take(WORD_LENGTH).collect()).collect()
    };
    let words = [tail(&text), tail(&finished.stderr)].concat();
    if words.is_empty() { "nothing".to_owned() } else { words.join(" | ") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::process::LocalLauncher;
    use proptest::prelude::*;
    use std::sync::Arc;

    /// What real Community tools print: the words `Enterprise backup` stand in a description.
    const COMMUNITY: &str = "Usage: neo4j-admin database [COMMAND]\nDatabase-specific administration tasks.\nCommands:\n  \
        help, -h, --help  Display help information about the specified command.\n  \
        check             Check the consistency of a database.\n  \
        load              Load a database from an archive created with the dump command or from full Neo4j Enterprise\n                      \
        backup.\n  upload            Push a local database\n";

    fn admin() -> Admin {
        Admin {
            program: "/usr/bin/neo4j-admin".into(),
            home: "/var/lib/neo4j".into(),
            conf: "/etc/neo4j/neo4j.conf".into(),
            user: None,
            launcher: Arc::new(LocalLauncher::default()),
        }
    }

    #[test]
    fn command_lines_are_those_of_the_manual() {
        let to = Path::new("/var/lib/neo4j-backup/scratch/x/neo4j");
        insta::assert_snapshot!(
            [
                backup(&admin(), Asked::Full, "127.0.0.1:6362", to, "neo4j").command_line(),
                backup(&admin(), Asked::Full, "[::1]:6362", to, "system").command_line(),
                backup(&admin(), Asked::Differential, "127.0.0.1:6362", Path::new("/kept/graph/chain"), "neo4j").command_line(),
                restore(&admin(), Path::new("/scratch/neo4j-2026-11-20T02-00-00.backup"), "neo4j").command_line(),
            ]
            .join("\n"),
            @r"
        /usr/bin/neo4j-admin database backup --type=FULL --compress=true --keep-failed=false --from=127.0.0.1:6362 --to-path=/var/lib/neo4j-backup/scratch/x/neo4j --include-metadata=all neo4j
        /usr/bin/neo4j-admin database backup --type=FULL --compress=true --keep-failed=false '--from=[::1]:6362' --to-path=/var/lib/neo4j-backup/scratch/x/neo4j system
        /usr/bin/neo4j-admin database backup --type=DIFF --compress=true --keep-failed=false --from=127.0.0.1:6362 --to-path=/kept/graph/chain --include-metadata=all neo4j
        /usr/bin/neo4j-admin database restore --from-path=/scratch/neo4j-2026-11-20T02-00-00.backup --overwrite-destination=true neo4j
        "
        );
    }

    #[test]
    fn community_and_enterprise_are_told_apart_by_their_commands() {
        assert_eq!(Offered::of_help(COMMUNITY).expect("help"), Offered::default());
        let enterprise = format!(
            "{COMMUNITY}  backup            Perform an online backup from a running Neo4j enterprise server.\n  \
             restore           Restore a backed up database.\n"
        );
        assert_eq!(Offered::of_help(&enterprise).expect("help"), Offered { backup: true, restore: true });
        for text in ["", "backup", "Commands:\n", "no such thing\n  load\n  backup\n"] {
            let error = Offered::of_help(text).expect_err("no list");
            assert!(error.message().contains("listed no commands"), "{error:?}");
        }
    }

    #[test]
    fn last_words_are_those_of_both_streams_and_bounded() {
        let finished = Finished {
            success: false,
            status: "exit status: 1".to_owned(),
            stdout: ["line\n".repeat(100).as_bytes(), b"Backup failed\x1b[0m\n"].concat(),
            stderr: format!("{}\n", "x".repeat(10_000)),
        };
        let words = last_words(&finished);
        assert!(words.contains("Backup failed[0m | xxx") && words.len() < 1000, "{words}");
        assert_eq!(last_words(&Finished { stdout: Vec::new(), stderr: " \n".to_owned(), ..finished }), "nothing");
    }

    proptest! {
        #[test]
        fn any_help_is_survived(text in "(?s).{0,300}") {
            let _ = Offered::of_help(&text);
            let _ = Offered::of_help(&format!("Commands:\n{text}"));
        }
    }
}
