//! `presign`: addresses from which the objects of one backup can be fetched for a while, by somebody without credentials.
//! What they give is encrypted as it is stored; whoever has one can read it, so they are given to whoever may restore.

use crate::artifact::object_key;
use crate::base::ids::BackupId;
use crate::base::task::Task;
use crate::base::{Code, Error, Result};
use crate::operation::answer::{Address, PresignReport};
use crate::operation::context::{Context, Target};
use crate::operation::select;
use std::time::Duration;

/// Longest life of an address: no store signs for more.
const LIFETIME_MAX: Duration = Duration::from_secs(7 * 86_400);

/// Addresses of everything that belongs to a backup, from the first repository that has it and gives out any.
pub fn run(context: &Context, backup: &str, lifetime: Duration, task: &Task) -> Result<PresignReport> {
    if lifetime.is_zero() || lifetime > LIFETIME_MAX {
        return Err(Error::new(Code::Usage, format!("an address cannot be good for {} s", lifetime.as_secs()))
            .with_hint("at least a second and at most seven days: `--expires 12h`"));
    }
    let id = select::backup(context, backup)?;
    let target = context.target(&id.target)?;
    let mut without = Vec::new();
    let mut first_error = None;
    for name in &target.repositories {
        task.check()?;
        match in_repository(context, target, name, &id, lifetime) {
            Ok(Some(objects)) => {
                let expires_at = context.clock.now().saturating_add(lifetime).unwrap_or(jiff::Timestamp::MAX);
                return Ok(PresignReport { backup: id, repository: name.clone(), expires_at, objects });
            }
            Ok(None) => without.push(name.as_str()),
            Err(error) => {
                task.warn(format!("repository {name}: {error}"));
                first_error.get_or_insert(error);
            }
        }
    }
    Err(first_error.unwrap_or_else(|| {
        Error::new(Code::NotAvailable, format!("{id} is in {}, which gives out no addresses", without.join(", ")))
            .with_hint("only a bucket does (type = \"s3\"); a directory's objects are copied as files")
    }))
}

/// The manifest and what it names; `None` where the repository has no addresses. An address of what is not there helps nobody.
fn in_repository(
    context: &Context,
    target: &Target,
    name: &str,
    id: &BackupId,
    lifetime: Duration,
) -> Result<Option<Vec<Address>>> {
    let repository = context.repository(target, name)?;
    let signed = repository.find_manifest(&context.environment, id)?;
    let manifest = object_key::backup_manifest(&context.environment, id)?;
    let named = signed.manifest.objects.into_iter().map(|object| object.key);
    let mut addresses = Vec::new();
    for key in std::iter::once(manifest).chain(named) {
        let Some(url) = repository.store().presign(&key, lifetime)? else { return Ok(None) };
        let Some(info) = repository.store().stat(&key)? else {
            return Err(Error::new(Code::BackupCorrupted, format!("{key} of {id} is missing in repository {name}"))
                .with_hint(format!("`neo4j-backupctl verify {id}` says what else is wrong")));
        };
        addresses.push(Address { key, size: info.size, url });
    }
    Ok(Some(addresses))
}
