//! What is on record of a target's repositories that an archive or a base does not go into: one that is away may hold
//! histories whose numbers must not be given again, or the very one that is in service.

use super::lineage::Others;
use crate::base::Result;
use crate::base::task::Task;
use crate::driver::Source;
use crate::driver::log::{LogSource, Resumption};
use crate::ledger::log::ChainName;
use crate::operation::backup::objects::Branch;
use crate::operation::context::{Context, Target};
use crate::operation::log_records::{self, RecordedEnd};

/// Compares the source with where the chains of all repositories but `branches` end, as far as that is on record.
pub(super) fn on_record(
    context: &Context,
    target: &Target,
    log: &dyn LogSource,
    source: &Source,
    branches: &[Branch],
    task: &Task,
) -> Result<Others> {
    let mut others = Others::default();
    let now = number_of_now(context);
    // One that is here and failed is compared by the record as well.
    let looked_at = |name: &str| branches.iter().any(|branch| branch.is_alive() && branch.repository.name() == name);
    for name in target.repositories.iter().filter(|name| !looked_at(name)) {
        task.check()?;
        let Some(RecordedEnd { lineage, mark, since }) =
            log_records::end_in(context, target, name, &source.data_identity)?
        else {
            others.unsure_at = Some(now);
            continue;
        };
        others.highest = others.highest.max(lineage);
        let history = ChainName { repository: name.clone(), stream: source.data_identity.clone(), lineage };
        match log.resume(&mark, task) {
            // A restore in place begins another history, also where it led to the end of one.
            Ok(Resumption::Continues(reader))
                if !reader.is_left() && !log_records::restored_since(context, &target.name, &history, since)? =>
            {
                others.followed = others.followed.max(lineage);
                continue;
            }
            Ok(Resumption::Continues(_) | Resumption::Forked(_)) => others.left = others.left.max(lineage),
            // What cannot be compared counts with its number alone.
            Ok(Resumption::Gap(_)) | Err(_) => {}
        }
        // The record may have been set back.
        others.unsure_at = Some(now);
    }
    Ok(others)
}

/// The number that a history gets which begins now, where not all numbers are known.
pub(super) fn number_of_now(context: &Context) -> u32 {
    u32::try_from(context.clock.now().as_second()).unwrap_or(0)
}
