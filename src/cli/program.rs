//! A command from beginning to end: where it goes, what is asked first, what is shown, which status it ends with.

use super::args::{Client, Command, Connect, Daemon, Key, Role, Style};
use super::connection::{Backend, Reply};
use super::in_process::InProcess;
use super::later::{self, Among};
use super::output::{Output, say};
use super::over_bus::OverBus;
use super::progress::Display;
use super::questions::Person;
use super::wal::{self, Way};
use super::{confirm, exit, init, local, parse, render, setup, timers, translate};
use crate::agent::workshop::Workshop;
use crate::base::clock::{Clock, SystemClock};
use crate::base::ids::{JobId, TargetName};
use crate::base::{Code, Error, Result};
use crate::dbus::address::BusAddress;
use crate::driver::Driver;
use crate::operation::answer::Answer;
use crate::operation::request::{Destination, Request};
use crate::telemetry::subscriber;
use clap::CommandFactory;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use tracing::Level;

/// Makes the workshop of a process that works by itself, from a configuration file.
pub type Assemble = dyn Fn(&Path) -> Result<Arc<dyn Workshop>>;

/// Makes the driver of one target alone, for what needs nothing else.
pub type DriverOf = dyn Fn(&Path, &TargetName) -> Result<Arc<dyn Driver>>;

/// Writes what systemd's generator has to, from a configuration file into a directory.
pub type Generate = dyn Fn(&Path, &Path) -> Result<()>;

/// What a process that works by itself is made of.
pub struct Parts<'a> {
    /// Everything.
    pub workshop: &'a Assemble,
    /// One driver.
    pub driver: &'a DriverOf,
    /// systemd's generator.
    pub generate: &'a Generate,
}

/// `neo4j-backupctl`.
pub fn client(parts: &Parts<'_>) -> ExitCode {
    let Client { connect, style, config, command } = match parse::arguments() {
        Ok(client) => client,
        Err(status) => return status,
    };
    subscriber::start("neo4j-backupctl", level(&style, Level::WARN));
    let command = command.unwrap_or(Command::Status { target: None });
    if let Command::Wal(command) = &command {
        let way = if connect.direct { Ok(Way::Direct) } else { address(&connect).map(Way::Bus) };
        return ExitCode::from(wal::run(command, way, parts, &config));
    }
    if let Command::Enable { target } | Command::Disable { target } = &command {
        let switch = if matches!(command, Command::Enable { .. }) { timers::enable } else { timers::disable };
        let output = Output::new(&style, SystemClock.now());
        let done = by_systemd(&connect).and_then(|address| switch(target, &address, &style, &output));
        return ExitCode::from(done.unwrap_or_else(|error| exit::fail(&error, output.json)));
    }
    if let Command::Init(_) | Command::Setup { .. } = &command {
        let output = Output::new(&style, SystemClock.now());
        let way = if connect.direct { Ok(None) } else { on_this_host(&connect).map(Some) };
        let done = way.and_then(|bus| begin(&command, bus, &style, &config, parts, &output));
        return ExitCode::from(done.unwrap_or_else(|error| exit::fail(&error, output.json)));
    }
    let open = || -> Result<Box<dyn Backend>> {
        if connect.direct {
            return Ok(Box::new(InProcess::new((parts.workshop)(&config)?)?));
        }
        let address = address(&connect)?;
        Ok(Box::new(OverBus::connect(&address, !style.no_ask_password)?))
    };
    ExitCode::from(run(&command, &style, &config, &open))
}

/// `neo4j-backupd`. `serve` gets the configuration and the bus.
pub fn daemon(parts: &Parts<'_>, serve: &dyn Fn(&Path, &BusAddress) -> Result<()>) -> ExitCode {
    let Daemon { config, role } = match parse::arguments() {
        Ok(daemon) => daemon,
        Err(status) => return status,
    };
    // What must be private is made so by its own mode; what a database's account must pass through is made passable, and
    // would not be under a caller's stricter mask.
    nix::sys::stat::umask(nix::sys::stat::Mode::S_IWGRP | nix::sys::stat::Mode::S_IWOTH);
    ExitCode::from(match role {
        Role::Serve { bus } => {
            subscriber::start("neo4j-backupd", Level::INFO);
            // Keys stay in memory as long as the agent runs: no core of it is written, and no debugger of another account
            // attaches to it.
            let _ = nix::sys::prctl::set_dumpable(false);
            let address = bus.map_or(BusAddress::System, BusAddress::At);
            serve(&config, &address).map_or_else(|error| exit::fail(&error, None), |()| exit::DONE)
        }
        Role::Run { style, command } => {
            subscriber::start("neo4j-backupd", level(&style, Level::INFO));
            if let Command::Wal(command) = &*command {
                return ExitCode::from(wal::run(command, Ok(Way::Direct), parts, &config));
            }
            if let Command::Init(_) | Command::Setup { .. } = &*command {
                let output = Output::new(&style, SystemClock.now());
                let done = begin(&command, None, &style, &config, parts, &output);
                return ExitCode::from(done.unwrap_or_else(|error| exit::fail(&error, output.json)));
            }
            let open = || -> Result<Box<dyn Backend>> { Ok(Box::new(InProcess::new((parts.workshop)(&config)?)?)) };
            run(&command, &style, &config, &open)
        }
        Role::Generator { directory, others: _ } => {
            subscriber::start("neo4j-backup-generator", Level::WARN);
            (parts.generate)(&config, &directory).map_or_else(|error| exit::fail(&error, None), |()| exit::DONE)
        }
        Role::Other(words) => exit::fail(&later::unknown_word(&words, Among::Roles, &names(&Daemon::command())), None),
    })
}

fn level(style: &Style, normal: Level) -> Level {
    match (style.quiet, style.verbose) {
        (true, _) => Level::ERROR,
        (false, 0) => normal,
        (false, 1) => Level::INFO,
        (false, _) => Level::DEBUG,
    }
}

fn address(connect: &Connect) -> Result<BusAddress> {
    BusAddress::chosen(connect.host.as_deref(), connect.bus.as_deref())
}

/// Timers are the service manager's, who is on the bus.
fn by_systemd(connect: &Connect) -> Result<BusAddress> {
    if connect.direct {
        return Err(Error::new(Code::Usage, "timers call the agent, and systemd has them: both are on the bus")
            .with_hint("leave out `--direct`"));
    }
    address(connect)
}

/// What looks for servers, and speaks to them as their administrator, does so where it runs.
fn on_this_host(connect: &Connect) -> Result<BusAddress> {
    match &connect.host {
        Some(host) => Err(Error::new(Code::Usage, "servers are found and set up on their own host")
            .with_hint(format!("`ssh -t {host} neo4j-backupctl …` asks there"))),
        None => address(connect),
    }
}

/// `init` and `setup`.
fn begin(
    command: &Command,
    bus: Option<BusAddress>,
    style: &Style,
    config: &Path,
    parts: &Parts<'_>,
    output: &Output,
) -> Result<u8> {
    let person = Person::of(style);
    match command {
        Command::Setup { target, dry_run } => {
            let will = if *dry_run { setup::Will::Show } else { setup::Will::Ask };
            setup::run(target.as_str(), &*(parts.driver)(config, target)?, will, person, output)
        }
        Command::Init(args) => init::run(args, &init::Surroundings { bus, style, config, parts, output, person }),
        other => Err(Error::new(Code::Internal, format!("{other:?} begins nothing"))),
    }
}

fn names(command: &clap::Command) -> Vec<String> {
    command.get_subcommands().map(|command| command.get_name().to_owned()).collect()
}

/// Where a command's requests go; opened only by those that need it.
type Open<'a> = dyn Fn() -> Result<Box<dyn Backend>> + 'a;

/// Carries out a command and gives its exit status.
pub fn run(command: &Command, style: &Style, config: &Path, open: &Open<'_>) -> u8 {
    let output = Output::new(style, SystemClock.now());
    let done = match command {
        Command::Other(words) => Err(later::unknown_word(words, Among::Commands, &names(&Client::command()))),
        Command::Key(Key::Other(words)) => {
            Err(later::unknown_word(words, Among::KeyCommands, &["new".to_owned(), "list".to_owned()]))
        }
        other => match translate::request(other) {
            Ok(Some(request)) => ask(other, &request, style, &output, open),
            Ok(None) => match other {
                Command::Follow { job } => follow(*job, style, &output, open),
                Command::Init(_) | Command::Setup { .. } => {
                    Err(Error::new(Code::Internal, "what begins has no request"))
                }
                Command::Enable { .. } | Command::Disable { .. } => {
                    Err(Error::new(Code::Usage, "timers are enabled by `neo4j-backupctl enable`, over the bus"))
                }
                other => local::run(other, style, config, &output),
            },
            Err(error) => Err(error),
        },
    };
    done.unwrap_or_else(|error| exit::fail(&error, output.json))
}

fn ask(command: &Command, request: &Request, style: &Style, output: &Output, open: &Open<'_>) -> Result<u8> {
    if let Command::Check { nagios: true, .. } = command {
        return Ok(nagios(request, open));
    }
    let backend = match (open(), request) {
        (Ok(backend), _) => backend,
        (Err(error), _) => return Err(error),
    };
    if !request.is_job() {
        return show(&backend.query(request)?, output);
    }
    ask_whether_meant(request, style, &*backend)?;
    let wait = !matches!(command, Command::Backup(args) if args.no_block);
    let mut display = Display::new(style.quiet, style.verbose > 0);
    let reply = backend.run(request, wait, &mut display);
    display.finish();
    conclude(reply?, output)
}

fn follow(job: JobId, style: &Style, output: &Output, open: &Open<'_>) -> Result<u8> {
    let backend = open()?;
    let mut display = Display::new(style.quiet, style.verbose > 0);
    let reply = backend.follow(job, &mut display);
    display.finish();
    conclude(reply?, output)
}

fn conclude(reply: Reply, output: &Output) -> Result<u8> {
    match reply {
        Reply::Answer(answer) => show(&answer, output),
        Reply::Started(job) => {
            output.print(&serde_json::json!({ "job": job }), || job.to_string())?;
            Ok(exit::DONE)
        }
        Reply::Detached(job) => {
            say(&format!(
                "job {job} goes on: `neo4j-backupctl follow {job}` waits for it, `neo4j-backupctl cancel {job}` ends it"
            ));
            Ok(exit::INTERRUPTED)
        }
    }
}

fn show(answer: &Answer, output: &Output) -> Result<u8> {
    output.print(answer, || render::answer(answer, output))?;
    exit::tell_verdict(answer, output.json);
    Ok(exit::of_answer(answer))
}

/// A monitoring plugin has one line and four statuses, whatever happens.
fn nagios(request: &Request, open: &Open<'_>) -> u8 {
    const UNKNOWN: u8 = 3;
    let (line, status) = match open().and_then(|backend| backend.query(request)) {
        Ok(Answer::Check { findings }) => (render::nagios(&findings), exit::of_findings(&findings)),
        Ok(_) => ("NEO4J-BACKUP UNKNOWN - the agent answered something else".to_owned(), UNKNOWN),
        Err(error) => (format!("NEO4J-BACKUP UNKNOWN - {error}").replace(['|', '\n'], " "), UNKNOWN),
    };
    match super::output::print(&line) {
        Ok(()) => status,
        Err(_) => UNKNOWN,
    }
}

fn ask_whether_meant(request: &Request, style: &Style, backend: &dyn Backend) -> Result<()> {
    match request {
        Request::Restore(restore) if restore.destination == Destination::InPlace && !restore.dry_run => {
            let what = format!("this stops {0} and replaces its data; the current data is set aside", restore.target);
            confirm::confirm(&what, restore.target.as_str(), style)
        }
        Request::Restore(restore) if restore.options.delta && !restore.dry_run => {
            let Destination::Into(directory) = &restore.destination else { return Ok(()) };
            let what = format!("this changes the older copy in {} where it is; it is not kept", directory.display());
            confirm::confirm(&what, restore.target.as_str(), style)
        }
        Request::Adopt { target, .. } => {
            let what = format!(
                "this makes the host the only writer of the backups of {target}; another one that writes them is refused \
                 from now on, and a history that is not the archived one becomes a new lineage"
            );
            confirm::confirm(&what, target.as_str(), style)
        }
        Request::KeyRotate { dry_run: false } => {
            let what = "this makes a new passphrase: whoever keeps a copy of the present one elsewhere (a safe, a password \
                        manager) must put the new one beside it";
            confirm::confirm(what, "rotate", style)
        }
        Request::Delete { backup, dry_run: false } if !style.yes => {
            // Which one a prefix or `latest` means must be known before anybody agrees.
            let Answer::Show(detail) = backend.query(&Request::Show { backup: backup.clone() })? else {
                return Err(Error::new(Code::Internal, "the backup to delete could not be shown"));
            };
            let id = &detail.row.id;
            confirm::confirm(
                &format!("this deletes {id} from {}", detail.row.repositories.join(", ")),
                id.target.as_str(),
                style,
            )
        }
        _ => Ok(()),
    }
}
