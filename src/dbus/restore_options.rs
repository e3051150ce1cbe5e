//! The options of `Restore` that only some databases have.

use super::options::{Reader, Sent};
use crate::base::{Code, Error, Result};
use crate::driver::restore_options::{Relocation, Relocations, RestoreOptions, Standby, Timeline};
use std::path::{Path, PathBuf};
use zbus::Variant;

/// `tablespace_map` (as) of `OLD=NEW`, `tablespace_map_all` (s), `standby` (b), `primary_conninfo` (s), `timeline` (s),
/// `delta` (b).
pub(super) fn read(reader: &mut Reader) -> Result<RestoreOptions> {
    let pairs =
        reader.texts("tablespace_map")?.iter().map(|text| Relocation::parse(text)).collect::<Result<Vec<_>>>()?;
    let all = reader.text("tablespace_map_all")?.map(PathBuf::from);
    if let Some(path) = pairs.iter().map(|pair| &pair.new).chain(&all).find(|path| !path.is_absolute()) {
        return Err(Error::new(Code::Usage, format!("{} is not an absolute path", path.display())));
    }
    let standby = match (reader.flag("standby")?, reader.text("primary_conninfo")?) {
        (true, primary) => Some(Standby { primary }),
        (false, None) => None,
        (false, Some(_)) => {
            return Err(Error::new(Code::Usage, "the option `primary_conninfo` is for a standby")
                .with_hint("give `standby`, too"));
        }
    };
    let timeline = reader.text("timeline")?.map(|text| Timeline::parse(&text)).transpose()?;
    let delta = reader.flag("delta")?;
    Ok(RestoreOptions { tablespaces: Relocations { pairs, all }, standby, timeline, delta })
}

/// The reverse of [`read`].
pub(super) fn write(options: &RestoreOptions, sent: &mut Sent) -> Result<()> {
    let Relocations { pairs, all } = &options.tablespaces;
    if !pairs.is_empty() {
        pairs.iter().try_for_each(|pair| text_of(&pair.new).map(|_| ()))?;
        let texts: Vec<String> = pairs.iter().map(ToString::to_string).collect();
        sent.insert("tablespace_map", Variant::from(texts));
    }
    if let Some(all) = all {
        sent.insert("tablespace_map_all", Variant::from(text_of(all)?));
    }
    if let Some(Standby { primary }) = &options.standby {
        sent.insert("standby", Variant::from(true));
        if let Some(primary) = primary {
            sent.insert("primary_conninfo", Variant::from(primary.clone()));
        }
    }
    if options.delta {
        sent.insert("delta", Variant::from(true));
    }
    if let Some(timeline) = options.timeline {
        sent.insert("timeline", Variant::from(timeline.to_string()));
    }
    Ok(())
}

/// A path as the bus can carry it.
pub(super) fn text_of(path: &Path) -> Result<String> {
    path.to_str().map(str::to_owned).ok_or_else(|| {
        Error::new(Code::Usage, format!("{} is not UTF-8 and cannot travel over D-Bus", path.display()))
            .with_hint("use another directory, or `--direct`")
    })
}
