//! Commands and options: the one source of the parser, the help, the completions and the man pages.

use super::later::LaterRestore;
use super::postgres_restore::PostgresRestore;
use super::values::{job_number, later_transaction, point, position, span, target_name, transaction};
use crate::base::ids::{JobId, TargetName};
use clap::builder::NonEmptyStringValueParser;
use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

/// Where the configuration is unless another place is given.
pub const CONFIG_DEFAULT: &str = "/etc/neo4j-backup/config.toml";

const EXIT_STATUSES: &str = "\
Exit status:
  0 done · 1 failed · 2 usage · 3 partly done · 4 refused, nothing changed
  10 no repository · 11 busy · 12 wrong key · 13 verification failed · 14 no space
  15 storage credentials · 75 temporary, try later · 77 not authorised
  78 configuration · 130 interrupted";
/// Options that every command has stand apart from its own.
const GLOBAL: &str = "Global options";

/// Back up and restore Neo4j and PostgreSQL databases of this host.
#[derive(Debug, Parser)]
#[command(name = "neo4j-backupctl", version, after_help = EXIT_STATUSES, max_term_width = 110)]
pub struct Client {
    /// Where the request goes.
    #[command(flatten)]
    pub connect: Connect,
    /// How the answer looks.
    #[command(flatten)]
    pub style: Style,
    /// The configuration file, for what works without the agent
    #[arg(long, global = true, value_name = "FILE", default_value = CONFIG_DEFAULT, help_heading = GLOBAL)]
    pub config: PathBuf,
    /// What to do; nothing = `status`.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// Where a request goes.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = GLOBAL)]
pub struct Connect {
    /// Work on another host, over ssh
    #[arg(short = 'H', long, global = true, value_name = "[USER@]HOST", conflicts_with_all = ["direct", "bus"])]
    pub host: Option<String>,
    /// Work in this process, without agent and bus
    #[arg(long, global = true, conflicts_with = "bus")]
    pub direct: bool,
    /// Speak on this bus instead of the system bus
    #[arg(long, global = true, value_name = "ADDRESS")]
    pub bus: Option<String>,
}

/// How answers look, and whether questions may be asked.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = GLOBAL)]
pub struct Style {
    /// Answer in JSON
    #[arg(long, global = true, value_name = "MODE", require_equals = true, value_enum)]
    pub json: Option<JsonMode>,
    /// Answer in JSON: pretty on a terminal, short in a pipe
    #[arg(short = 'j', global = true, conflicts_with = "json")]
    pub j: bool,
    /// Never show what is longer than the terminal in a pager ($PAGER, else less)
    #[arg(long, global = true)]
    pub no_pager: bool,
    /// Leave out headings and totals
    #[arg(long, global = true)]
    pub no_legend: bool,
    /// Ask nobody for passwords, permissions or confirmations
    #[arg(long, global = true)]
    pub no_ask_password: bool,
    /// Only answers and errors, no progress
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub quiet: bool,
    /// Say more; twice for still more
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub verbose: u8,
    /// Do not ask before something is destroyed
    #[arg(long, global = true)]
    pub yes: bool,
}

/// How JSON is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum JsonMode {
    /// Indented
    Pretty,
    /// One line
    Short,
    /// Text, not JSON
    Off,
}

/// A command.
#[derive(Debug, Subcommand)]
#[command(disable_help_subcommand = false)]
pub enum Command {
    /// How each database stands: restorable to when, how fast, last proven when
    Status {
        /// Only this one
        #[arg(value_parser = target_name)]
        target: Option<TargetName>,
    },
    /// Begin: find the servers of this host, write a configuration, make a passphrase, take the first backups
    Init(Init),
    /// Show what a server lacks before it can be backed up, and do it
    Setup {
        /// The database
        #[arg(value_parser = target_name)]
        target: TargetName,
        /// Only show it
        #[arg(long)]
        dry_run: bool,
    },
    /// Take a backup now
    Backup(Backup),
    /// Have a database backed up by itself, at the times that the configuration has, from now on and after each boot
    Enable {
        /// The database
        #[arg(value_parser = target_name)]
        target: TargetName,
    },
    /// No longer have a database backed up by itself; what is stored stays
    Disable {
        /// The database
        #[arg(value_parser = target_name)]
        target: TargetName,
    },
    /// List the backups
    List {
        /// Only those of this database
        #[arg(value_parser = target_name)]
        target: Option<TargetName>,
    },
    /// Show everything about one backup
    Show {
        /// Id, unique prefix of one, or `latest`
        #[arg(value_parser = NonEmptyStringValueParser::new())]
        backup: String,
    },
    /// Give out addresses from which one backup can be fetched from its bucket without credentials, for a while
    Presign {
        /// Id, unique prefix of one, or `latest`
        #[arg(value_parser = NonEmptyStringValueParser::new())]
        backup: String,
        /// How long they are good: at most 7d
        #[arg(long, value_name = "TIME", default_value = "1h", value_parser = span)]
        expires: Duration,
    },
    /// Show what happened: ended jobs and events
    History {
        /// At most this many of each
        #[arg(short = 'n', long, value_name = "N", default_value_t = 25, value_parser = clap::value_parser!(u32).range(1..))]
        limit: u32,
    },
    /// List the jobs that run
    Jobs,
    /// Follow a job to its end and show its answer
    Follow {
        /// The job's number
        #[arg(value_parser = job_number)]
        job: JobId,
    },
    /// Ask a job to end
    Cancel {
        /// The job's number
        #[arg(value_parser = job_number)]
        job: JobId,
    },
    /// Bring a backup back, beside the current data or in its place
    Restore(Box<Restore>),
    /// List restores that were made, and what they set aside
    Restores,
    /// Check that stored backups are whole: every byte is read, decrypted and decompressed
    Verify(Verify),
    /// Look for what is wrong with databases, repositories and the agent, and say what mends it
    Check {
        /// Only this database
        #[arg(value_parser = target_name)]
        target: Option<TargetName>,
        /// One line and exit status 0 to 3, as monitoring plugins have it
        #[arg(long)]
        nagios: bool,
    },
    /// Delete one backup
    Delete {
        /// Id or unique prefix of one
        #[arg(value_parser = NonEmptyStringValueParser::new())]
        backup: String,
        /// Only say what would be deleted
        #[arg(long)]
        dry_run: bool,
    },
    /// Delete what retention lets go
    Cleanup {
        /// Only say what would be deleted
        #[arg(long)]
        dry_run: bool,
    },
    /// Make this host the writer of a database's backups, whoever was before; the next one may begin a new lineage
    Adopt {
        /// The database
        #[arg(value_parser = target_name)]
        target: TargetName,
        /// Also where a repository is another one than before, or gone: take the one that is there, or make a new one
        #[arg(long)]
        new_repository: bool,
    },
    /// Rebuild the ledger from the repositories
    Rescan,
    /// Make and list keys
    #[command(subcommand)]
    Key(Key),
    /// Take in and give back PostgreSQL's log: archive_command and restore_command run this
    #[command(subcommand)]
    Wal(Wal),
    /// Encrypt a file exactly as `openssl enc -aes-256-cbc -pbkdf2` does
    Encrypt(Crypt),
    /// Decrypt a file that `encrypt` or `openssl enc` made
    Decrypt(Crypt),
    /// Show, check and begin a configuration
    #[command(subcommand)]
    Config(Config),
    /// Print completions for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// A word that is no command of this version.
    #[command(external_subcommand)]
    Other(Vec<OsString>),
}

/// See [`Command::Backup`].
#[derive(Args, Debug)]
pub struct Backup {
    /// The database
    #[arg(value_parser = target_name)]
    pub target: TargetName,
    /// What kind; `full` is what the configuration says
    #[arg(long = "type", value_name = "TYPE", value_enum, default_value_t = BackupType::Full)]
    pub kind: BackupType,
    /// Words to keep with the backup
    #[arg(long, value_name = "TEXT")]
    pub note: Option<String>,
    /// Go through everything that does not write
    #[arg(long)]
    pub dry_run: bool,
    /// Do not wait: print the job's number
    #[arg(long)]
    pub no_block: bool,
}

/// The kinds of backup as they are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum BackupType {
    /// What the configuration says
    Full,
    /// The official tool's dump
    Dump,
    /// A logical export
    Export,
    /// What was committed since the last one
    Incremental,
}

/// See [`Command::Restore`].
#[derive(Args, Debug)]
pub struct Restore {
    /// The database
    #[arg(required_unless_present = "group", value_parser = target_name)]
    pub target: Option<TargetName>,
    /// Id, unique prefix of one, or `latest`; without it and without a target everything that is archived
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    pub backup: Option<String>,
    /// Restore into this new or empty directory
    #[arg(long, value_name = "DIR", conflicts_with = "in_place")]
    pub into: Option<PathBuf>,
    /// Replace the data in service; the current data is set aside
    #[arg(long)]
    pub in_place: bool,
    /// Restore the state of this time: RFC 3339, `2026-11-20 02:39:00`, `yesterday 14:00`, `-21min`
    #[arg(long, value_name = "TIME", allow_hyphen_values = true, conflicts_with_all = ["to_tx", "before_tx"])]
    pub to_time: Option<String>,
    /// End with this transaction
    #[arg(long, value_name = "N", allow_hyphen_values = true, value_parser = transaction, conflicts_with = "before_tx")]
    pub to_tx: Option<u64>,
    /// Stop before this transaction
    #[arg(long, value_name = "N", allow_hyphen_values = true, value_parser = later_transaction)]
    pub before_tx: Option<u64>,
    /// End at this position of PostgreSQL's log: `0/3000060`
    #[arg(long, value_name = "LSN", value_parser = position, conflicts_with_all = ["to_time", "to_tx", "before_tx"])]
    pub to_lsn: Option<u64>,
    /// End with this restore point of PostgreSQL (`pg_create_restore_point`), the newest of the name
    #[arg(long, value_name = "NAME", value_parser = point, conflicts_with_all = ["to_time", "to_tx", "before_tx", "to_lsn"])]
    pub to_name: Option<String>,
    /// Leave recovery and checks to the first start
    #[arg(long)]
    pub no_recover: bool,
    /// Leave out Neo4j's `system` database (users, roles, database list)
    #[arg(long)]
    pub without_system: bool,
    /// Only say what would be done
    #[arg(long)]
    pub dry_run: bool,
    /// PostgreSQL's options.
    #[command(flatten)]
    pub postgres: PostgresRestore,
    /// Options to come.
    #[command(flatten)]
    pub later: LaterRestore,
}

/// See [`Command::Verify`].
#[derive(Args, Debug)]
pub struct Verify {
    /// Id, unique prefix of one, or `latest`
    #[arg(value_parser = NonEmptyStringValueParser::new(), required_unless_present = "all", conflicts_with = "all")]
    pub backup: Option<String>,
    /// Every backup
    #[arg(long)]
    pub all: bool,
    /// Compare sizes and signatures only
    #[arg(long)]
    pub quick: bool,
}

/// See [`Command::Key`].
#[derive(Debug, Subcommand)]
pub enum Key {
    /// Print a fresh passphrase, or write it to a file that only its owner can read
    New {
        /// Write it here; a file that is there is never replaced
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// List the key ids at hand and where they are used
    List,
    /// Make a new passphrase for new backups; the repositories keep the old one, encrypted under the new one
    Rotate {
        /// Only say what would be done
        #[arg(long)]
        dry_run: bool,
    },
    /// A word that is no command of this version.
    #[command(external_subcommand)]
    Other(Vec<OsString>),
}

/// See [`Command::Init`].
#[derive(Args, Debug)]
pub struct Init {
    /// Only the servers in these directories: homes of Neo4j, data directories of PostgreSQL
    #[arg(value_name = "DIRECTORY")]
    pub servers: Vec<PathBuf>,
    /// Where backups are kept: a directory, or s3://BUCKET/PREFIX?region=REGION
    #[arg(long, value_name = "PLACE", value_parser = NonEmptyStringValueParser::new())]
    pub repository: Option<String>,
    /// Leave the servers as they are; what they lack is shown
    #[arg(long)]
    pub no_setup: bool,
    /// Only show what would be done
    #[arg(long)]
    pub dry_run: bool,
}

/// See [`Command::Wal`].
#[derive(Debug, Subcommand)]
pub enum Wal {
    /// Take in a file of the log; it is durable when this ends with status 0: `archive_command = '… wal push TARGET %p'`
    Push {
        /// The database
        #[arg(value_parser = target_name)]
        target: TargetName,
        /// The file, as `%p` names it
        path: PathBuf,
    },
    /// Give back a file of the log to a server that recovers: `restore_command = '… wal fetch TARGET %f "%p"'`
    Fetch {
        /// The database
        #[arg(value_parser = target_name)]
        target: TargetName,
        /// The file's name, as `%f` gives it
        name: String,
        /// Where it goes, as `%p` names it
        path: PathBuf,
    },
    /// A word that is no command of this version.
    #[command(external_subcommand)]
    Other(Vec<OsString>),
}

/// See [`Command::Encrypt`] and [`Command::Decrypt`].
#[derive(Args, Debug)]
pub struct Crypt {
    /// The file, or `-` for standard input
    pub file: PathBuf,
    /// Write here, `-` for standard output; without it FILE.enc, or FILE without .enc
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// The first line of this file is the passphrase; without it, the configuration's
    #[arg(long, value_name = "FILE")]
    pub passphrase_file: Option<PathBuf>,
    /// PBKDF2 iterations; without it, the configuration's
    #[arg(long, value_name = "N")]
    pub iterations: Option<u32>,
}

/// See [`Command::Config`].
#[derive(Debug, Subcommand)]
pub enum Config {
    /// Show the settings in force
    Show {
        /// Say for each where it comes from
        #[arg(long)]
        origin: bool,
    },
    /// Check the configuration and its secrets
    Check,
    /// Print a commented configuration to begin with
    Template,
}

/// The agent itself.
#[derive(Debug, Parser)]
#[command(name = "neo4j-backupd", version, after_help = EXIT_STATUSES, max_term_width = 110)]
pub struct Daemon {
    /// The configuration file
    #[arg(long, global = true, value_name = "FILE", default_value = CONFIG_DEFAULT, help_heading = GLOBAL)]
    pub config: PathBuf,
    /// What to be.
    #[command(subcommand)]
    pub role: Role,
}

/// What `neo4j-backupd` is started as.
#[derive(Debug, Subcommand)]
pub enum Role {
    /// Serve on D-Bus until told to end
    Serve {
        /// Serve on this bus instead of the system bus
        #[arg(long, value_name = "ADDRESS")]
        bus: Option<String>,
    },
    /// Do one thing in the foreground and end: for containers and scripts
    Run {
        /// How the answer looks.
        #[command(flatten)]
        style: Style,
        /// What to do.
        #[command(subcommand)]
        command: Box<Command>,
    },
    /// Write when the timers run, as systemd has generators do it; systemd calls this
    #[command(hide = true)]
    Generator {
        /// Where the drop-ins go
        directory: PathBuf,
        /// More such directories, for units that come before or after all others; not used
        #[arg(hide = true, num_args = 0..=2)]
        others: Vec<PathBuf>,
    },
    /// A word that is no role of this version.
    #[command(external_subcommand)]
    Other(Vec<OsString>),
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definitions_are_consistent() {
        Client::command().debug_assert();
        Daemon::command().debug_assert();
    }
}
