//! `verify` of a target's archived log: every batch, and that they follow each other without a hole.

use super::problem;
use crate::artifact::log_batch::{LogBatch, SignedLogBatch};
use crate::artifact::object_key::{self, BatchPlace, MANIFEST_SUFFIX, ObjectKey};
use crate::base::task::Task;
use crate::base::{Code, Error, Result};
use crate::ledger::log::bases::BaseRecord;
use crate::operation::answer::{BackupState, Problem, VerifiedBackup};
use crate::operation::context::{Context, Target};
use crate::operation::{log_object, log_records};
use crate::repository::catalog::Repository;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

/// One history of a log: whose, and its number.
type History = (String, u32);

/// Verifies every history of a target's log in a repository; one line of the report each.
pub(super) fn verify(
    context: &Context,
    target: &Target,
    repository: &Repository,
    quick: bool,
    task: &Task,
) -> Result<Vec<VerifiedBackup>> {
    let stored = repository.batch_objects(&context.environment, &target.name)?;
    let mut histories: BTreeMap<History, BTreeSet<(BatchPlace, ObjectKey)>> = BTreeMap::new();
    let mut others: BTreeMap<History, BTreeSet<(BatchPlace, ObjectKey)>> = BTreeMap::new();
    // What the ledger knows and the repository lacks is a problem too, not an absence.
    let recorded = log_records::recorded_in(context, target, repository.name())?;
    for key in stored.keys().cloned().chain(recorded) {
        let Some(place) = object_key::batch_place(&context.environment, &target.name, &key) else { continue };
        let history = (place.stream.clone(), place.lineage);
        if key.as_str().ends_with(MANIFEST_SUFFIX) {
            histories.entry(history).or_default().insert((place, key));
        } else {
            histories.entry(history.clone()).or_default();
            others.entry(history).or_default().insert((place, key));
        }
    }
    let mut verified = Vec::new();
    for (history, manifests) in &histories {
        let mut pass = Pass {
            context,
            target,
            repository,
            stored: &stored,
            quick,
            opened: Vec::new(),
            wholes: Vec::new(),
            named: BTreeSet::new(),
            unopened: BTreeSet::new(),
            found: VerifiedBackup {
                backup: format!("log of {}, lineage {} of {}", target.name, history.1, history.0),
                repository: repository.name().to_owned(),
                objects: 0,
                bytes: 0,
                problems: Vec::new(),
            },
        };
        // Those that most was merged into first: what counts in them need not be looked at again.
        let mut manifests: Vec<&(BatchPlace, ObjectKey)> = manifests.iter().collect();
        let transactions =
            |place: &BatchPlace| place.merged_to.map_or(0, |last| last - place.first_transaction.min(last));
        manifests.sort_by_key(|(place, _)| Reverse(transactions(place)));
        for (place, key) in manifests {
            task.check()?;
            if !pass.is_part(place) {
                pass.batch(place, key, task)?;
            }
        }
        pass.opened.sort_by_key(|(_, signed)| signed.batch.first_transaction);
        let bases = log_records::usable_bases(context, target, repository.name(), (history.0.as_str(), history.1))?;
        pass.sequence(&bases)?;
        pass.compare_with(&bases);
        pass.strays(others.get(history));
        verified.push(pass.found);
    }
    Ok(verified)
}

/// One history being verified.
struct Pass<'a> {
    context: &'a Context,
    target: &'a Target,
    repository: &'a Repository,
    stored: &'a BTreeMap<ObjectKey, u64>,
    quick: bool,
    /// Batches whose manifests are sound, in the order of the log.
    opened: Vec<(ObjectKey, SignedLogBatch)>,
    /// First and last transactions of sound batches that others were merged into.
    wholes: Vec<(u64, u64)>,
    /// Objects of batches whose manifests are sound.
    named: BTreeSet<ObjectKey>,
    /// Stems of manifests that are there and cannot be opened.
    unopened: BTreeSet<String>,
    found: VerifiedBackup,
}

impl Pass<'_> {
    /// Whether a sound batch holds what this one was: then nothing needs it, and it waits to be deleted.
    fn is_part(&self, place: &BatchPlace) -> bool {
        let (first, last) = (place.first_transaction, place.merged_to.unwrap_or(place.first_transaction));
        let itself = (first, place.merged_to.unwrap_or(0));
        self.wholes.iter().any(|whole| whole.0 <= first && last <= whole.1 && *whole != itself)
    }

    fn wrong(&mut self, key: &ObjectKey, code: Code, text: String) {
        self.found.problems.push(Problem { object: key.to_string(), code: code.name().to_owned(), text });
    }

    fn batch(&mut self, place: &BatchPlace, key: &ObjectKey, task: &Task) -> Result<()> {
        self.found.objects += 1;
        let signed = match self.open_manifest(key) {
            Ok(signed) => signed,
            Err(error) => {
                task.check()?;
                self.found.problems.push(problem(key, &error));
                if self.stored.contains_key(key) {
                    self.unopened.insert(place.stem.clone());
                }
                let state = match error.code() {
                    // A wrong key says nothing about the batch.
                    Code::WrongKey | Code::SecretUnsafe | Code::PassphraseInvalid => return Ok(()),
                    Code::BackupIncomplete => BackupState::Missing,
                    _ => BackupState::Corrupted,
                };
                return log_records::mark(self.context, self.repository.name(), key.as_str(), state);
            }
        };
        let batch = &signed.batch;
        self.found.objects += 1;
        self.found.bytes += batch.object.stored.size;
        let result = self.object(batch, task);
        let sound = result.is_ok();
        if let Err(error) = result {
            task.check()?;
            self.found.problems.push(problem(&batch.object.key, &error));
        }
        if !sound || !self.quick {
            let state = if sound { BackupState::Validated } else { BackupState::Corrupted };
            log_records::mark(self.context, self.repository.name(), key.as_str(), state)?;
        }
        self.named.insert(signed.batch.object.key.clone());
        match place.merged_to {
            Some(last) if sound => self.wholes.push((place.first_transaction, last)),
            // Its parts may be there still, and whole.
            Some(_) => return Ok(()),
            None => {}
        }
        self.opened.push((key.clone(), signed));
        Ok(())
    }

    /// Opens a manifest and compares it with the one that was committed, where the ledger knows it.
    fn open_manifest(&self, key: &ObjectKey) -> Result<SignedLogBatch> {
        if !self.stored.contains_key(key) {
            let text = format!("{key} is on record but missing from the repository");
            return Err(Error::new(Code::BackupIncomplete, text));
        }
        let signed = self.repository.batch(key)?;
        let recorded = self.context.ledger.batch_sha256(self.repository.name(), key.as_str())?;
        if recorded.is_some_and(|recorded| recorded != signed.bytes_sha256) {
            let text = format!("{key} is signed, but it is not the manifest that this host committed or last read");
            return Err(Error::new(Code::SignatureInvalid, text));
        }
        Ok(signed)
    }

    fn object(&self, batch: &LogBatch, task: &Task) -> Result<()> {
        let object = &batch.object;
        match self.stored.get(&object.key) {
            None => Err(Error::new(Code::ObjectNotFound, format!("{} is missing", object.key))),
            Some(size) if *size != object.stored.size => {
                let text = format!("{} has {size} bytes, its manifest says {}", object.key, object.stored.size);
                Err(Error::new(Code::BackupCorrupted, text))
            }
            Some(_) if self.quick => Ok(()),
            Some(_) => {
                task.phase(&format!("verifying {}", object.key.file_name()), object.plain.size);
                log_object::open(self.repository, self.target, object, &batch.segments, &mut std::io::sink(), task)
            }
        }
    }

    /// Batches follow each other by number, by point and by the hash of the one before.
    fn sequence(&mut self, bases: &[BaseRecord]) -> Result<()> {
        let mut wrong: Vec<(ObjectKey, Code, String)> = Vec::new();
        let first_needed = bases.iter().map(|base| base.mark.transaction).min();
        let mut before: Option<&(ObjectKey, SignedLogBatch)> = None;
        for current in &self.opened {
            let (key, batch) = (&current.0, &current.1.batch);
            match (&batch.predecessor, before) {
                (Some(link), Some((key_before, signed))) if link.key == signed.link()?.key => {
                    if link.manifest_sha256 != signed.link()?.manifest_sha256 {
                        let text = format!("it is not the manifest that its successor {key} names");
                        wrong.push((key_before.clone(), Code::SignatureInvalid, text));
                    } else if !batch.start.same_point(&signed.batch.end)
                        || batch.first_sequence() != signed.batch.sequence + 1
                    {
                        let text = "it does not begin where the batch before it ends".to_owned();
                        wrong.push((key.clone(), Code::LogGap, text));
                    }
                }
                // The first one's predecessor may have been let go, as long as no base needs it.
                (Some(_), None) if first_needed.is_none_or(|needed| needed >= batch.start.transaction) => {}
                (Some(link), _) if !self.stored.contains_key(&link.key) => {
                    let text = format!("it is missing: the log has a hole before {key}");
                    wrong.push((link.key.clone(), Code::LogGap, text));
                }
                // It is there and cannot be opened, which was said.
                (Some(_), _) => {}
                // Begun anew at a base, because the log before it was lost; its number counts what came before.
                (None, Some((_, signed))) if batch.sequence > signed.batch.sequence => {}
                (None, None) => {}
                (None, Some(_)) => {
                    let text = "it names no batch before it, though there is one".to_owned();
                    wrong.push((key.clone(), Code::LogGap, text));
                }
            }
            before = Some(current);
        }
        for (key, code, text) in wrong {
            let known = self.found.problems.iter().any(|problem| problem.object == key.as_str());
            if !known {
                self.wrong(&key, code, text);
            }
        }
        Ok(())
    }

    /// A batch that begins or ends with a base's last transaction must mean the same one: else two histories were woven into
    /// one. Where a batch holds it within, a restore from the base compares the bytes.
    fn compare_with(&mut self, bases: &[BaseRecord]) {
        let mut wrong: Vec<(ObjectKey, String)> = Vec::new();
        for (key, signed) in &self.opened {
            for mark in [&signed.batch.start, &signed.batch.end] {
                if let Some(base) = bases.iter().find(|base| base.mark.contradicts(mark)) {
                    let (number, id) = (mark.transaction, &base.backup);
                    let text = format!("its transaction {number} is not that of {id}: they are of different histories");
                    wrong.push((key.clone(), text));
                }
            }
        }
        for (key, text) in wrong {
            self.wrong(&key, Code::LogForked, text);
        }
    }

    /// Objects that no manifest names: left by something that went wrong, or all that is left of a batch.
    fn strays(&mut self, others: Option<&BTreeSet<(BatchPlace, ObjectKey)>>) {
        for (place, key) in others.into_iter().flatten() {
            if self.named.contains(key) || self.unopened.contains(&place.stem) || self.is_part(place) {
                continue;
            }
            self.found.objects += 1;
            self.wrong(key, Code::BackupIncomplete, "no manifest of a batch names it".to_owned());
        }
    }
}
