//! Options of method calls, `a{sv}`: read strictly (an unknown or mistyped one is refused by name), and written by the
//! client from the same requests, so that both sides stand in one file.

use super::restore_options;
use crate::artifact::log_point::Lsn;
use crate::base::ids::{BackupKind, TargetName};
use crate::base::{Code, Error, Result};
use crate::driver::log::{PointName, RecoveryTarget};
use crate::operation::request::{ArchiveRequest, BackupRequest, Destination, Request, RestoreRequest, VerifyRequest};
use std::collections::HashMap;
use std::path::PathBuf;
use zbus::{OwnedVariant, Variant};

/// Options as they arrive.
pub type Received = HashMap<String, OwnedVariant>;
/// Options as they are sent.
pub type Sent = HashMap<&'static str, Variant<'static>>;

/// Longest text that is accepted, in bytes: no path, id or note is longer.
pub const TEXT_MAX: usize = 4096;
/// Most texts in a list.
pub const TEXTS_MAX: usize = 1000;

/// How long addresses are good unless something else is asked for.
const ADDRESS_SECONDS: u64 = 3600;

/// Takes options one by one; what is left over at the end is unknown.
pub(super) struct Reader {
    options: Received,
    known: Vec<&'static str>,
}

impl Reader {
    fn new(options: Received) -> Self {
        Reader { options, known: Vec::new() }
    }

    pub(super) fn flag(&mut self, name: &'static str) -> Result<bool> {
        self.known.push(name);
        match self.options.remove(name).as_deref() {
            None => Ok(false),
            Some(Variant::Bool(value)) => Ok(*value),
            Some(other) => Err(mistyped(name, "a boolean (b)", other)),
        }
    }

    pub(super) fn text(&mut self, name: &'static str) -> Result<Option<String>> {
        self.known.push(name);
        match self.options.remove(name).as_deref() {
            None => Ok(None),
            Some(Variant::Str(value)) => checked(name, value.as_str()).map(|text| Some(text.to_owned())),
            Some(other) => Err(mistyped(name, "a string (s)", other)),
        }
    }

    fn number(&mut self, name: &'static str) -> Result<Option<u64>> {
        self.known.push(name);
        match self.options.remove(name).as_deref() {
            None => Ok(None),
            Some(Variant::U64(value)) => Ok(Some(*value)),
            Some(other) => Err(mistyped(name, "a number (t)", other)),
        }
    }

    pub(super) fn texts(&mut self, name: &'static str) -> Result<Vec<String>> {
        self.known.push(name);
        let strings = |element: &Variant<'_>| match element {
            Variant::Str(value) => checked(name, value.as_str()).map(str::to_owned),
            other => Err(mistyped(name, "an array of strings (as)", other)),
        };
        match self.options.remove(name).as_deref() {
            None => Ok(Vec::new()),
            Some(Variant::Array(values)) if values.len() > TEXTS_MAX => {
                Err(Error::new(Code::Usage, format!("{name} has {} elements, more than {TEXTS_MAX}", values.len())))
            }
            Some(Variant::Array(values)) => values.inner().iter().map(strings).collect(),
            Some(other) => Err(mistyped(name, "an array of strings (as)", other)),
        }
    }

    fn finish(self) -> Result<()> {
        let mut unknown: Vec<_> = self.options.into_keys().collect();
        unknown.sort();
        let Some(first) = unknown.first() else { return Ok(()) };
        let known = if self.known.is_empty() { "none".to_owned() } else { self.known.join(", ") };
        Err(Error::new(Code::Usage, format!("option {:?} is unknown", shortened(first)))
            .with_hint(format!("options of this call: {known}")))
    }
}

fn mistyped(name: &str, wanted: &str, got: &Variant<'_>) -> Error {
    Error::new(Code::Usage, format!("option {name:?} must be {wanted}, not of type {}", got.value_signature()))
}

fn shortened(text: &str) -> String {
    text.chars().take(64).collect()
}

fn checked<'a>(name: &str, text: &'a str) -> Result<&'a str> {
    if text.len() > TEXT_MAX {
        return Err(Error::new(Code::Usage, format!("{name} has {} bytes, more than {TEXT_MAX}", text.len())));
    }
    Ok(text)
}

/// A target's name, or nothing for the empty string.
pub fn optional_target(text: &str) -> Result<Option<TargetName>> {
    if text.is_empty() { Ok(None) } else { TargetName::new(checked("target", text)?).map(Some) }
}

/// A backup's name, which must be there.
pub fn backup_name(text: &str) -> Result<String> {
    match checked("backup", text)? {
        "" => Err(Error::new(Code::Usage, "no backup was named")
            .with_hint("an id, a unique prefix of one, or `latest`; `neo4j-backupctl list` shows them")),
        text => Ok(text.to_owned()),
    }
}

fn optional_backup(text: &str) -> Result<Option<String>> {
    if text.is_empty() { Ok(None) } else { backup_name(text).map(Some) }
}

/// `Backup(s target, a{sv} {type: s, note: s, dry_run: b})`.
pub fn read_backup(target: &str, options: Received) -> Result<Request> {
    let mut reader = Reader::new(options);
    let kind = reader.text("type")?;
    let request = BackupRequest {
        target: TargetName::new(checked("target", target)?)?,
        kind: kind.as_deref().map(read_kind).transpose()?,
        note: reader.text("note")?,
        dry_run: reader.flag("dry_run")?,
    };
    reader.finish()?;
    Ok(Request::Backup(request))
}

fn read_kind(text: &str) -> Result<BackupKind> {
    BackupKind::ALL.iter().copied().find(|kind| kind.as_str() == text).ok_or_else(|| {
        let kinds: Vec<_> = BackupKind::ALL.iter().map(|kind| kind.as_str()).collect();
        Error::new(Code::Usage, format!("{:?} is not a type of backup", shortened(text)))
            .with_hint(format!("types of backup: {}", kinds.join(", ")))
    })
}

/// `Restore(s target, s backup, a{sv} {into: s, in_place: b, to_time: s, to_tx: s, before_tx: s, to_lsn: s, to_name: s, to_immediate: b, no_recover: b, without_system: b, tablespace_map: as,
/// tablespace_map_all: s, standby: b, primary_conninfo: s, timeline: s, delta: b, dry_run: b})`.
pub fn read_restore(target: &str, backup: &str, options: Received) -> Result<Request> {
    let mut reader = Reader::new(options);
    let into = reader.text("into")?;
    let in_place = reader.flag("in_place")?;
    let destination = match (into, in_place) {
        (Some(directory), false) => {
            let directory = PathBuf::from(directory);
            if !directory.is_absolute() {
                return Err(Error::new(Code::Usage, format!("{} is not an absolute path", directory.display())));
            }
            Destination::Into(directory)
        }
        (None, true) => Destination::InPlace,
        _ => {
            return Err(Error::new(Code::Usage, "a restore needs exactly one destination")
                .with_hint("give the option `into` with a directory, or `in_place`"));
        }
    };
    let request = RestoreRequest {
        target: TargetName::new(checked("target", target)?)?,
        backup: optional_backup(backup)?,
        destination,
        until: read_until(&mut reader)?,
        no_recover: reader.flag("no_recover")?,
        without_system: reader.flag("without_system")?,
        options: restore_options::read(&mut reader)?,
        dry_run: reader.flag("dry_run")?,
    };
    reader.finish()?;
    Ok(Request::Restore(request))
}

/// One of `to_immediate`, and `to_time` (RFC 3339), `to_tx`, `before_tx`, `to_lsn`, `to_name`: text, so that no client must care for the width of a number.
fn read_until(reader: &mut Reader) -> Result<Option<RecoveryTarget>> {
    let bad = |name: &str, text: &str| Error::new(Code::Usage, format!("{name}: {:?} is not one", shortened(text)));
    let mut found = Vec::new();
    if let Some(text) = reader.text("to_time")? {
        found.push(RecoveryTarget::Time(text.parse().map_err(|_| bad("to_time", &text))?));
    }
    if let Some(text) = reader.text("to_tx")? {
        found.push(RecoveryTarget::Transaction(text.parse().map_err(|_| bad("to_tx", &text))?));
    }
    if let Some(text) = reader.text("before_tx")? {
        found.push(RecoveryTarget::BeforeTransaction(text.parse().map_err(|_| bad("before_tx", &text))?));
    }
    if let Some(text) = reader.text("to_lsn")? {
        found.push(RecoveryTarget::Lsn(Lsn::parse(&text).ok_or_else(|| bad("to_lsn", &text))?.0));
    }
    if let Some(text) = reader.text("to_name")? {
        found.push(RecoveryTarget::Point(PointName::new(&text)?));
    }
    if reader.flag("to_immediate")? {
        found.push(RecoveryTarget::Immediate);
    }
    match found[..] {
        [] => Ok(None),
        [one] => Ok(Some(one)),
        _ => Err(Error::new(
            Code::Usage,
            "a restore has one target: to_time, to_tx, before_tx, to_lsn, to_name or to_immediate",
        )),
    }
}

/// `Archive(s target, a{sv} {dry_run: b})`.
pub fn read_archive(target: &str, options: Received) -> Result<Request> {
    let mut reader = Reader::new(options);
    let target = TargetName::new(checked("target", target)?)?;
    let request = ArchiveRequest { target, dry_run: reader.flag("dry_run")? };
    reader.finish()?;
    Ok(Request::Archive(request))
}

/// `PushWal(s target, s name, h content, a{sv} {})`; the name is the driver's to judge.
pub fn read_push_wal(target: &str, name: &str, options: Received) -> Result<(TargetName, String)> {
    let target = TargetName::new(checked("target", target)?)?;
    let name = checked("name", name)?.to_owned();
    Reader::new(options).finish()?;
    Ok((target, name))
}

/// `FetchWal(s target, s name, a{sv} {})`.
pub fn read_fetch_wal(target: &str, name: &str, options: Received) -> Result<(TargetName, String)> {
    read_push_wal(target, name, options)
}

/// `Adopt(s target, a{sv} {new_repository: b})`.
pub fn read_adopt(target: &str, options: Received) -> Result<Request> {
    let mut reader = Reader::new(options);
    let target = TargetName::new(checked("target", target)?)?;
    let request = Request::Adopt { target, new_repository: reader.flag("new_repository")? };
    reader.finish()?;
    Ok(request)
}

/// `Verify(s backup_or_empty, a{sv} {quick: b})`.
pub fn read_verify(backup: &str, options: Received) -> Result<Request> {
    let mut reader = Reader::new(options);
    let request = VerifyRequest { backup: optional_backup(backup)?, quick: reader.flag("quick")? };
    reader.finish()?;
    Ok(Request::Verify(request))
}

/// `Delete(s backup, a{sv} {dry_run: b})`.
pub fn read_delete(backup: &str, options: Received) -> Result<Request> {
    let mut reader = Reader::new(options);
    let request = Request::Delete { backup: backup_name(backup)?, dry_run: reader.flag("dry_run")? };
    reader.finish()?;
    Ok(request)
}

/// `Presign(s backup, a{sv} {seconds: t})`.
pub fn read_presign(backup: &str, options: Received) -> Result<Request> {
    let mut reader = Reader::new(options);
    let seconds = reader.number("seconds")?.unwrap_or(ADDRESS_SECONDS);
    let request = Request::Presign { backup: backup_name(backup)?, seconds };
    reader.finish()?;
    Ok(request)
}

/// `Cleanup(a{sv} {dry_run: b})`.
pub fn read_cleanup(options: Received) -> Result<Request> {
    let mut reader = Reader::new(options);
    let request = Request::Cleanup { dry_run: reader.flag("dry_run")? };
    reader.finish()?;
    Ok(request)
}

/// `KeyRotate(a{sv} {dry_run: b})`.
pub fn read_key_rotate(options: Received) -> Result<Request> {
    let mut reader = Reader::new(options);
    let request = Request::KeyRotate { dry_run: reader.flag("dry_run")? };
    reader.finish()?;
    Ok(request)
}

/// `Rescan(a{sv} {})`.
pub fn read_rescan(options: Received) -> Result<Request> {
    Reader::new(options).finish()?;
    Ok(Request::Rescan)
}

/// The options that stand for a request; its other parts travel as arguments of their own.
pub fn write(request: &Request) -> Result<Sent> {
    let mut options = Sent::new();
    let mut flag = |name, value: bool| {
        if value {
            options.insert(name, Variant::from(true));
        }
    };
    match request {
        Request::Backup(backup) => {
            flag("dry_run", backup.dry_run);
            if let Some(kind) = backup.kind {
                options.insert("type", Variant::from(kind.as_str()));
            }
            if let Some(note) = &backup.note {
                options.insert("note", Variant::from(note.clone()));
            }
        }
        Request::Adopt { new_repository, .. } => flag("new_repository", *new_repository),
        Request::Presign { seconds, .. } => {
            options.insert("seconds", Variant::from(*seconds));
        }
        Request::Restore(restore) => {
            flag("dry_run", restore.dry_run);
            flag("no_recover", restore.no_recover);
            flag("without_system", restore.without_system);
            flag("to_immediate", restore.until == Some(RecoveryTarget::Immediate));
            let until = match restore.until {
                None | Some(RecoveryTarget::End | RecoveryTarget::Immediate) => None,
                Some(RecoveryTarget::Time(time)) => Some(("to_time", time.to_string())),
                Some(RecoveryTarget::Transaction(number)) => Some(("to_tx", number.to_string())),
                Some(RecoveryTarget::BeforeTransaction(number)) => Some(("before_tx", number.to_string())),
                Some(RecoveryTarget::Lsn(position)) => Some(("to_lsn", Lsn(position).to_string())),
                Some(RecoveryTarget::Point(name)) => Some(("to_name", name.to_string())),
            };
            if let Some((name, text)) = until {
                options.insert(name, Variant::from(text));
            }
            let mut flag = |name, value: bool| {
                if value {
                    options.insert(name, Variant::from(true));
                }
            };
            match &restore.destination {
                Destination::InPlace => flag("in_place", true),
                Destination::Into(directory) => {
                    options.insert("into", Variant::from(restore_options::text_of(directory)?));
                }
            }
            restore_options::write(&restore.options, &mut options)?;
        }
        Request::Archive(archive) => flag("dry_run", archive.dry_run),
        Request::Verify(verify) => flag("quick", verify.quick),
        Request::Delete { dry_run, .. } | Request::Cleanup { dry_run } | Request::KeyRotate { dry_run } => {
            flag("dry_run", *dry_run);
        }
        _ => {}
    }
    Ok(options)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::restore_options::{Relocation, Relocations, RestoreOptions, Standby, Timeline};
    use proptest::prelude::*;

    fn over_the_bus(request: &Request) -> Result<Request> {
        let options: Received =
            write(request)?.into_iter().map(|(k, v)| (k.to_owned(), v.try_into_owned().expect("owned"))).collect();
        match request {
            Request::Backup(r) => read_backup(r.target.as_str(), options),
            Request::Restore(r) => read_restore(r.target.as_str(), r.backup.as_deref().unwrap_or(""), options),
            Request::Archive(r) => read_archive(r.target.as_str(), options),
            Request::Adopt { target, .. } => read_adopt(target.as_str(), options),
            Request::Verify(r) => read_verify(r.backup.as_deref().unwrap_or(""), options),
            Request::Delete { backup, .. } => read_delete(backup, options),
            Request::Presign { backup, .. } => read_presign(backup, options),
            Request::Cleanup { .. } => read_cleanup(options),
            Request::KeyRotate { .. } => read_key_rotate(options),
            _ => read_rescan(options),
        }
    }

    fn restore_options() -> impl Strategy<Value = RestoreOptions> {
        let directory = || "/[^\0]{0,40}".prop_map(PathBuf::from);
        let pair = ("[^\0]{1,20}", directory()).prop_map(|(old, new)| Relocation { old, new });
        let relocations = (proptest::collection::vec(pair, 0..3), proptest::option::of(directory()))
            .prop_map(|(pairs, all)| Relocations { pairs, all });
        let standby = proptest::option::of("[^\0]{0,40}").prop_map(|primary| Standby { primary });
        let number = (1u32..).prop_map(Timeline::Number);
        let timeline = proptest::option::of(prop_oneof![number, Just(Timeline::Latest)]);
        (relocations, proptest::option::of(standby), timeline, any::<bool>()).prop_map(
            |(tablespaces, standby, timeline, delta)| RestoreOptions { tablespaces, standby, timeline, delta },
        )
    }

    fn requests() -> impl Strategy<Value = Request> {
        let target = "[a-z0-9_]{1,32}".prop_map(|name| TargetName::new(&name).expect("name"));
        let backup = proptest::option::of("[a-z0-9~-]{1,60}");
        let kind = proptest::option::of(proptest::sample::select(BackupKind::ALL.to_vec()));
        let destination = prop_oneof![
            Just(Destination::InPlace),
            "/[^\0]{0,60}".prop_map(|path| Destination::Into(PathBuf::from(path)))
        ];
        let until = proptest::option::of(prop_oneof![
            (0i64..4_000_000_000_000_000)
                .prop_map(|micros| { RecoveryTarget::Time(jiff::Timestamp::from_microsecond(micros).expect("time")) }),
            any::<u64>().prop_map(RecoveryTarget::Transaction),
            any::<u64>().prop_map(RecoveryTarget::BeforeTransaction),
            any::<u64>().prop_map(RecoveryTarget::Lsn),
            Just(RecoveryTarget::Immediate),
        ]);
        prop_oneof![
            (target.clone(), kind, proptest::option::of("[^\0]{0,80}"), any::<bool>()).prop_map(
                |(target, kind, note, dry_run)| Request::Backup(BackupRequest { target, kind, note, dry_run })
            ),
            (target.clone(), backup.clone(), destination, until, any::<[bool; 3]>(), restore_options()).prop_map(
                |(target, backup, destination, until, [no_recover, without_system, dry_run], options)| Request::Restore(
                    RestoreRequest { target, backup, destination, until, no_recover, without_system, options, dry_run }
                )
            ),
            (target.clone(), any::<bool>())
                .prop_map(|(target, dry_run)| Request::Archive(ArchiveRequest { target, dry_run })),
            (target, any::<bool>()).prop_map(|(target, new_repository)| Request::Adopt { target, new_repository }),
            (backup, any::<bool>()).prop_map(|(backup, quick)| Request::Verify(VerifyRequest { backup, quick })),
            ("[a-z0-9~-]{1,60}", any::<bool>()).prop_map(|(backup, dry_run)| Request::Delete { backup, dry_run }),
            ("[a-z0-9~-]{1,60}", any::<u64>()).prop_map(|(backup, seconds)| Request::Presign { backup, seconds }),
            any::<bool>().prop_map(|dry_run| Request::Cleanup { dry_run }),
            any::<bool>().prop_map(|dry_run| Request::KeyRotate { dry_run }),
            Just(Request::Rescan),
        ]
    }

    proptest! {
        #[test]
        fn a_request_arrives_as_it_was_sent(request in requests()) {
            prop_assert_eq!(over_the_bus(&request).expect("read"), request);
        }
    }

    #[test]
    fn unknown_and_mistyped_options_are_refused_by_name() {
        let option = |name: &str, value: Variant<'static>| {
            Received::from([(name.to_owned(), value.try_into_owned().expect("owned"))])
        };
        let unknown = read_backup("graph", option("dryrun", Variant::from(true))).expect_err("unknown");
        assert_eq!(unknown.code(), Code::Usage);
        assert!(unknown.message().contains("\"dryrun\"") && unknown.hint().contains("dry_run"), "{unknown:?}");
        let mistyped = read_backup("graph", option("dry_run", Variant::from("yes"))).expect_err("mistyped");
        assert!(mistyped.message().contains("\"dry_run\"") && mistyped.message().contains('s'), "{mistyped:?}");
        assert!(read_rescan(option("force", Variant::from(true))).is_err());
    }

    #[test]
    fn a_restore_has_one_destination_and_an_absolute_one() {
        let both = Received::from([
            ("into".to_owned(), Variant::from("/x").try_into_owned().expect("owned")),
            ("in_place".to_owned(), Variant::from(true).try_into_owned().expect("owned")),
        ]);
        let relative = Received::from([("into".to_owned(), Variant::from("x/y").try_into_owned().expect("owned"))]);
        for options in [Received::new(), both, relative] {
            assert_eq!(read_restore("graph", "", options).map_err(|e| e.code()), Err(Code::Usage));
        }
        assert!(read_backup("../etc", Received::new()).is_err());
        assert!(read_delete("", Received::new()).is_err());
        assert!(read_delete(&"x".repeat(TEXT_MAX + 1), Received::new()).is_err());
    }
}
