//! Chains of which no restore reaches the end any more: something was found damaged or missing since. What is archived behind
//! that is of no use until a base closes it, so that one is taken as soon as the next run comes.

use super::Run;
use super::comparison::Lost;
use crate::base::Result;
use crate::base::task::Task;
use crate::operation::log_reach;

impl Run<'_> {
    /// The repositories among those archived to whose archive breaks off before its end; each is told of.
    pub(super) fn broken(&mut self, task: &Task) -> Result<Vec<String>> {
        let archived = |name: &str| self.report.repositories.iter().any(|done| done.repository == name);
        let mut broken = Vec::new();
        for standing in log_reach::standings(self.context, &self.target.name)? {
            if standing.is_whole() || !archived(&standing.end.chain.repository) {
                continue;
            }
            let reached = standing.newest().map(|reach| reach.range.to_transaction);
            let what = match reached {
                Some(last) => format!("what is archived after transaction {last} cannot be restored"),
                None => "what is archived cannot be restored".to_owned(),
            };
            let why = "a full backup or a batch before it was found damaged or missing, and a new full backup is taken"
                .to_owned();
            broken.push((standing.end.chain.repository, Lost { what, why }));
        }
        for (name, lost) in &broken {
            self.lost(name, lost, false, task)?;
        }
        Ok(broken.into_iter().map(|(name, _)| name).collect())
    }
}
