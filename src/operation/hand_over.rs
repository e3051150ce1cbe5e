//! `wal push`: takes in what a server hands over of its log, and says so before there is no room left for it.
//!
//! No lane, no lock of the state directory and no ledger are needed for that: archiving must go on whatever else the
//! agent does, and whether it runs at all.

use crate::base::ids::TargetName;
use crate::base::task::Severity;
use crate::base::{Code, Error, Result, bytes};
use crate::driver::log::{LogInbox, Taken};
use crate::operation::context::{Context, Target};
use crate::operation::records::Happening;
use crate::operation::{log_records, records};
use crate::telemetry::record::{Occasion, Record};
use std::fs::File;

/// From this part of the room on, in percent, it is said that it fills.
const ALERT_PERCENT: u64 = 50;

/// Something that must not go unnoticed.
pub struct Notice {
    /// What happened.
    pub occasion: Occasion,
    /// In words.
    pub text: String,
}

impl Notice {
    /// Writes it to the journal.
    pub fn emit(&self, target: &TargetName) {
        Record { target: Some(target.as_str()), ..Record::new(self.occasion, &self.text) }.emit();
    }
}

/// [`take_in`] for a user of this host, with its notices in the ledger too. Error `NOT_AUTHORISED` unless `caller` owns
/// the server's data, or is root or the agent itself.
pub fn run(context: &Context, target: &TargetName, caller: u32, name: &str, piece: &mut File) -> Result<()> {
    let inbox = authorise(context.target(target)?, caller, "archive_command")?;
    take_in(target, inbox, name, piece, &mut |notice| tell(context, target, notice))
}

/// [`take_in`] for what the agent fetches from the server itself, with its notices in the ledger too.
pub(crate) fn fetched(context: &Context, target: &Target, name: &str, piece: &mut File) -> Result<()> {
    let inbox = target.driver.log_inbox().ok_or_else(|| not_handed_over(&target.name))?;
    take_in(&target.name, inbox, name, piece, &mut |notice| tell(context, &target.name, notice))
}

fn tell(context: &Context, target: &TargetName, notice: &Notice) {
    notice.emit(target);
    let (event, _) = log_records::event_of(notice.occasion);
    let severity = if notice.occasion == Occasion::LogSpoolFull { Severity::Error } else { Severity::Warning };
    let actor = "neo4j-backupd";
    let happening = Happening { severity, name: event, target: Some(target), job: None, actor, text: &notice.text };
    // The journal has it; a ledger that cannot take it must not stop the archiving.
    let _ = records::event(context, happening);
}

/// Whether `caller` is who a server's `command` runs as: the owner of its data, or root or the agent itself.
pub(crate) fn authorise<'a>(target: &'a Target, caller: u32, command: &str) -> Result<&'a dyn LogInbox> {
    let inbox = target.driver.log_inbox().ok_or_else(|| not_handed_over(&target.name))?;
    let own = nix::unistd::geteuid().as_raw();
    if caller != 0 && caller != own && caller != inbox.owner()? {
        let text = format!("user {caller} does not own the data of {} and has no part in its log", target.name);
        return Err(Error::new(Code::NotAuthorised, text).with_hint(format!(
            "{command} runs as the user who owns the data directory: check the target's name in it"
        )));
    }
    Ok(inbox)
}

/// The error for a database whose log is read from its files.
pub fn not_handed_over(target: &TargetName) -> Error {
    Error::new(Code::NotAvailable, format!("the log of {target} is read from its files and need not be pushed"))
}

/// Takes in `piece` under the server's `name` for it. When this is `Ok`, it is durable, or was given up as the
/// configuration says, which `tell` hears of. Errors: `SPOOL_FULL`, and those of [`LogInbox::take_in`].
pub fn take_in(
    target: &TargetName,
    inbox: &dyn LogInbox,
    name: &str,
    piece: &mut File,
    tell: &mut dyn FnMut(&Notice),
) -> Result<()> {
    let intake = inbox.take_in(name, piece)?;
    let room = format!("{} of {}", bytes::human(intake.after), bytes::human(intake.limit));
    let mut say = |occasion, text: String| tell(&Notice { occasion, text });
    let alert = |filled: u64| u128::from(filled) * 100 >= u128::from(intake.limit) * u128::from(ALERT_PERCENT);
    match intake.taken {
        Taken::Stored if alert(intake.after) && !alert(intake.before) => say(
            Occasion::LogSpoolFilling,
            format!("the log of {target} that waits for a repository fills its room: {room}"),
        ),
        Taken::Stored | Taken::Already => {}
        Taken::Refused { newly } => {
            let text = format!("{name} of {target} finds no room in the spool ({room}), so the server keeps it");
            if newly {
                say(Occasion::LogSpoolFull, text.clone());
            }
            return Err(Error::new(Code::SpoolFull, text));
        }
        Taken::Dropped { newly } => {
            if newly {
                let text = format!("{name} of {target} found no room in the spool ({room}) and was given up");
                say(Occasion::LogSpoolFull, format!("{text}: a base must be taken, and the time until then is lost"));
            }
        }
    }
    Ok(())
}
