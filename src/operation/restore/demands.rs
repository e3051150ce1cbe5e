//! What was asked for, held against itself and against what the database has, before anything else is done.

use crate::base::{Code, Error, Result};
use crate::operation::context::Target;
use crate::operation::request::{Destination, RestoreRequest};

/// Error `USAGE` for what the database does not have, and for options that contradict each other.
pub(super) fn check(target: &Target, request: &RestoreRequest) -> Result<()> {
    request.until.map_or(Ok(()), |until| target.driver.check_target(until))?;
    let options = &request.options;
    target.driver.check_options(options)?;
    let in_place = request.destination == Destination::InPlace;
    if in_place && !options.tablespaces.is_empty() {
        let text = "`--in-place` leaves tablespaces inside the data directory: what is taken out of service could not be \
                    kept with them elsewhere";
        return refuse(text, "restore with `--into DIR` beside the data in service, and exchange the two yourself");
    }
    if options.delta && in_place {
        let text = "`--delta` changes an older copy where it is, which the data in service never is";
        return refuse(text, "leave out `--delta`: `--in-place` sets the current data aside and keeps it");
    }
    if options.delta && !options.tablespaces.is_empty() {
        let text = "`--delta` changes what is in one directory: tablespaces that lie elsewhere are not compared";
        return refuse(text, "leave out `--delta` and name an empty directory, or leave out `--tablespace-map`");
    }
    if options.timeline.is_some() && request.backup.is_some() {
        let text = "a backup belongs to one timeline: to name one beside it says nothing, or something else";
        return refuse(text, "leave out the backup, or `--timeline`");
    }
    if options.standby.is_some() {
        return check_standby(request, in_place);
    }
    Ok(())
}

fn check_standby(request: &RestoreRequest, in_place: bool) -> Result<()> {
    if in_place {
        let text = "`--in-place` starts a server that goes into service on the result, which a standby does not";
        return refuse(text, "restore it with `--into DIR`, on the host that it is to run on");
    }
    if request.until.is_some() || request.options.timeline.is_some() {
        let text = "a standby follows its primary: it ends nowhere, and on no timeline but the newest";
        return refuse(text, "leave out `--standby`, or the target");
    }
    Ok(())
}

fn refuse(text: &str, hint: &str) -> Result<()> {
    Err(Error::new(Code::Usage, text).with_hint(hint))
}
