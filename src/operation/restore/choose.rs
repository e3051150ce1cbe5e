//! Which backup, and from which repository: the first one whose manifest and objects hold what they promise.

use crate::artifact::manifest::Manifest;
use crate::artifact::object_key;
use crate::base::ids::BackupId;
use crate::base::task::Task;
use crate::base::{Code, Error, Result};
use crate::operation::context::{Context, Target};
use crate::operation::{records, select};
use crate::repository::catalog::Repository;

/// A backup that may be restored.
pub(super) struct Chosen {
    /// Its manifest; the signature was checked.
    pub(super) manifest: Manifest,
    /// Where it is.
    pub(super) repository: Repository,
}

/// Resolves what the operator named and finds a repository that has all of it.
pub(super) fn choose(context: &Context, target: &Target, wanted: Option<&str>, task: &Task) -> Result<Chosen> {
    let wanted = wanted.unwrap_or("latest");
    let id = select::backup_of(context, target, wanted)?;
    if wanted.starts_with("latest") {
        // Older data than the operator expects must not come as a surprise.
        let known = records::known(context, Some(&target.name))?;
        for newer in known.iter().take_while(|known| known.id != id).filter(|known| !known.usable) {
            task.warn(format!("passing over {}: it is damaged or missing", newer.id));
        }
    }
    let mut first_error: Option<Error> = None;
    for name in &target.repositories {
        match try_repository(context, target, name, &id) {
            Ok(chosen) => return Ok(chosen),
            Err(error) => {
                task.warn(format!("repository {name}: {error}"));
                // "Not there" says less than what is wrong where it is.
                let replace = first_error.as_ref().is_none_or(|first| first.code() == Code::BackupNotFound);
                if replace {
                    first_error = Some(error);
                }
            }
        }
    }
    Err(first_error.unwrap_or_else(|| Error::new(Code::BackupNotFound, format!("{id} is in no repository"))))
}

fn try_repository(context: &Context, target: &Target, name: &str, id: &BackupId) -> Result<Chosen> {
    let repository = context.repository(target, name)?;
    let manifest = match repository.find_manifest(&context.environment, id) {
        Err(error) if error.code() == Code::BackupNotFound => {
            return Err(explain_absence(context, &repository, id, error));
        }
        other => other?.manifest,
    };
    if manifest.engine != target.driver.engine() {
        let text = format!(
            "{id} is a backup of {}, {} is {}",
            manifest.engine.as_str(),
            target.name,
            target.driver.engine().as_str()
        );
        return Err(Error::new(Code::Usage, text));
    }
    for object in &manifest.objects {
        match repository.store().stat(&object.key)? {
            None => return Err(Error::new(Code::ObjectNotFound, format!("{id} lacks its object {}", object.key))),
            Some(info) if info.size != object.stored.size => {
                let text = format!("{} has {} bytes, its manifest says {}", object.key, info.size, object.stored.size);
                return Err(Error::new(Code::BackupCorrupted, text));
            }
            Some(_) => {}
        }
    }
    Ok(Chosen { manifest, repository })
}

/// A backup whose objects are there but whose manifest is not is incomplete, which is not the same as unknown.
fn explain_absence(context: &Context, repository: &Repository, id: &BackupId, error: Error) -> Error {
    let Ok(manifest_key) = object_key::backup_manifest(&context.environment, id) else { return error };
    let stem = manifest_key.as_str().trim_end_matches("meta.json").to_owned();
    let mut found = 0;
    let listed = repository.store().list(&stem, &mut |_| {
        found += 1;
        Ok(())
    });
    if listed.is_ok() && found > 0 {
        let text =
            format!("{id} has {found} objects but no manifest: it was never finished, or the manifest was removed");
        return Error::new(Code::BackupIncomplete, text);
    }
    error
}
