//! `backup --type incremental` and `adopt`; and how far a log reaches, for `restore` and `status`.

use super::super::output::Output;
use super::moment;
use crate::artifact::log_point::Lsn;
use crate::base::bytes::human;
use crate::driver::log::RecoveryTarget;
use crate::operation::answer::{AdoptReport, ArchiveReport, ArchivedIn, ChainStatus, LogRange, Reached};
use std::fmt::Write as _;

/// Most lines that `status` gives to what can be restored besides the newest range.
pub(super) const EARLIER_MAX: usize = 8;

pub(super) fn archive(report: &ArchiveReport, output: &Output) -> String {
    let mut text = String::new();
    if report.dry_run {
        let _ = writeln!(text, "dry run, nothing was written: the log of {} would be archived", report.target);
        for step in &report.steps {
            let _ = writeln!(text, "  {step}");
        }
    }
    for base in &report.bases {
        let _ = writeln!(text, "{base} was taken, because the log needed a base");
    }
    for done in &report.repositories {
        let _ = writeln!(text, "{}", archived(&report.target.to_string(), done, output));
    }
    for warning in report.gaps.iter().chain(&report.warnings) {
        let _ = writeln!(text, "  warning: {warning}");
    }
    if output.legend && !report.dry_run {
        let _ = writeln!(text, "done in {}", moment::duration(report.duration_ms));
    }
    text
}

fn archived(target: &str, done: &ArchivedIn, output: &Output) -> String {
    let at = done.to_time.map_or(String::new(), |time| format!(" of {}", moment::at(time, output)));
    let repository = &done.repository;
    let end = match &done.to_position {
        Some(position) => format!("position {position}"),
        None => format!("transaction {}", done.to_transaction),
    };
    if done.transactions == 0 {
        return format!("{target} in {repository}: nothing was committed since {end}{at}");
    }
    format!(
        "{target} in {repository}: {} in {}, {}; the archive ends with {end}{at}",
        moment::number_of(done.transactions, "transaction"),
        batches(done.batches),
        moment::sizes(done.plain_bytes, done.stored_bytes),
    )
}

pub(super) fn adopt(report: &AdoptReport) -> String {
    let mut text = String::new();
    for adopted in &report.repositories {
        let before = adopted.before.as_deref().map_or(String::new(), |before| format!("; before: {before}"));
        let (repository, epoch) = (&adopted.repository, adopted.epoch);
        let _ =
            writeln!(text, "this host writes the backups of {} in {repository}, epoch {epoch}{before}", report.target);
    }
    text
}

/// `1 batch`, `2 batches`.
pub(super) fn batches(count: u64) -> String {
    format!("{} batch{}", moment::grouped(count), if count == 1 { "" } else { "es" })
}

/// How far a log reaches: `every moment from … to … (2 000 transactions in 13 batches, 1.0 MiB), lineage 1, 4 s behind`.
pub(super) fn chain(chain: &ChainStatus, output: &Output) -> String {
    let to = chain.to.map_or(String::new(), |time| format!(", the last of {}", moment::at(time, output)));
    let (from, until) = (moment::rounded_up(chain.from), chain.covered_until);
    // Less than a second is none that could be asked for.
    let moments = match from <= until {
        true => format!("every moment from {} to {}", moment::at(from, output), moment::at(until, output)),
        false => format!("the end of the full backup, {}", moment::at(from, output)),
    };
    format!(
        "{moments} ({} in {}, {}{to}), lineage {}, {} behind",
        moment::number_of(chain.transactions, "transaction"),
        batches(chain.batches),
        human(chain.stored_bytes),
        chain.lineage,
        moment::span(chain.lag_seconds.max(0).unsigned_abs())
    )
}

/// What else can be restored: `before: every moment from … to …, transactions 4 to 10, lineage 1, in main`.
pub(super) fn earlier(range: &LogRange, output: &Output) -> String {
    let from = moment::rounded_up(range.from);
    let moments = match range.to.filter(|to| *to >= from) {
        Some(to) => format!("every moment from {} to {}, ", moment::at(from, output), moment::at(to, output)),
        None => String::new(),
    };
    let transactions = match range.from_transaction == range.to_transaction {
        true => format!("transaction {}", range.to_transaction),
        false => format!("transactions {} to {}", range.from_transaction, range.to_transaction),
    };
    let left = if range.left { ", history that was left" } else { "" };
    format!("before: {moments}{transactions}, lineage {}{left}, in {}", range.lineage, range.repository)
}

/// What is wrong with it.
pub(super) fn warnings(chain: &ChainStatus) -> Vec<String> {
    let lost = |transaction: &u64| {
        format!("a piece of the log before transaction {transaction} is lost: moments in it cannot be restored")
    };
    let mut warnings: Vec<String> = chain.gaps.iter().map(lost).collect();
    if let Some(archived) = chain.unreachable {
        warnings.push(format!(
            "the log breaks off after transaction {}, though it was archived up to {archived}; a new backup makes the present \
             restorable",
            chain.to_transaction
        ));
    }
    if chain.unsound > 0 {
        let (count, repository) = (batches(chain.unsound), &chain.repository);
        warnings.push(format!("{count} of the log in {repository} damaged or missing; `verify --all` names them"));
    }
    warnings
}

/// What was asked for, as a restore's report says it.
pub(super) fn until(until: RecoveryTarget, output: &Output) -> String {
    match until {
        RecoveryTarget::End => "the end of the archived log".to_owned(),
        RecoveryTarget::Time(time) => moment::at(time, output),
        RecoveryTarget::Transaction(number) => format!("transaction {number}"),
        RecoveryTarget::BeforeTransaction(number) => format!("before transaction {number}"),
        RecoveryTarget::Lsn(position) => format!("position {}", Lsn(position)),
        RecoveryTarget::Point(name) => format!("restore point {name}"),
        RecoveryTarget::Immediate => "the base's consistent point".to_owned(),
    }
}

/// Where a restore arrived.
pub(super) fn reached(reached: &Reached, output: &Output) -> String {
    let number = match (&reached.position, reached.transaction) {
        (Some(position), _) => format!("position {position}"),
        (None, Some(number)) => format!("transaction {number}"),
        (None, None) => "not known beforehand".to_owned(),
    };
    let at = reached.time.map_or(String::new(), |time| format!(" of {}", moment::at(time, output)));
    format!("{number}{at}, lineage {}", reached.lineage)
}
