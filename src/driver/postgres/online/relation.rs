//! The names of files that hold relations: which relation, which of its forks, which segment.
//!
//! `12345`, `12345.2`, `12345_vm`, `12345_fsm.1`, and `t3_12345` for a session's temporary ones. Source: "Database File
//! Layout" in PostgreSQL's manual, `GetRelationPath` and `parse_filename_for_nontemp_relation`.

/// A fork of a relation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fork {
    /// The relation itself.
    Main,
    /// Its free space map.
    FreeSpace,
    /// Its visibility map.
    Visibility,
    /// What an unlogged relation is made from after a crash.
    Init,
}

/// A file of a relation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RelationFile<'a> {
    /// Its number, as it stands in the name.
    pub(super) number: &'a str,
    /// Which fork.
    pub(super) fork: Fork,
    /// Which segment of the fork, from 0.
    pub(super) segment: u32,
}

impl<'a> RelationFile<'a> {
    /// What a file's name says; `None` for the name of any other file.
    pub(super) fn parse(name: &'a str) -> Option<Self> {
        let (rest, segment) = match name.split_once('.') {
            Some((rest, segment)) => (rest, plain_number(segment).filter(|segment| *segment > 0)?),
            None => (name, 0),
        };
        let (number, fork) = match rest.split_once('_') {
            None => (rest, Fork::Main),
            Some((number, "fsm")) => (number, Fork::FreeSpace),
            Some((number, "vm")) => (number, Fork::Visibility),
            Some((number, "init")) => (number, Fork::Init),
            Some(_) => return None,
        };
        plain_number(number).filter(|number| *number > 0)?;
        Some(RelationFile { number, fork, segment })
    }
}

/// Whether a file is a temporary relation's: it ends with its session.
pub(super) fn is_temporary(name: &str) -> bool {
    let session_and_rest = name.strip_prefix('t').and_then(|rest| rest.split_once('_'));
    session_and_rest.is_some_and(|(session, rest)| {
        plain_number(session).is_some() && RelationFile::parse(rest).is_some_and(|file| file.fork != Fork::Init)
    })
}

/// Digits without sign and leading zeros.
fn plain_number(text: &str) -> Option<u32> {
    let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    (plain && (text == "0" || !text.starts_with('0'))).then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_what_a_file_is() {
        let parse = RelationFile::parse;
        let file = |number, fork, segment| Some(RelationFile { number, fork, segment });
        assert_eq!(parse("16384"), file("16384", Fork::Main, 0));
        assert_eq!(parse("16384.12"), file("16384", Fork::Main, 12));
        assert_eq!(parse("16384_vm"), file("16384", Fork::Visibility, 0));
        assert_eq!(parse("16384_fsm.1"), file("16384", Fork::FreeSpace, 1));
        assert_eq!(parse("16384_init"), file("16384", Fork::Init, 0));
        for other in [
            "",
            "0",
            "016384",
            "16384.",
            "16384.0",
            "16384.01",
            "16384_",
            "16384_vmx",
            "pg_filenode.map",
            "PG_VERSION",
            "pg_internal.init",
            "t3_16384",
            "-1",
            "+1",
            "16384.1.2",
            "99999999999",
            "pg_control",
        ] {
            assert_eq!(parse(other), None, "{other}");
        }
        for (name, temporary) in [
            ("t3_16384", true),
            ("t12_16384_fsm.1", true),
            ("t3_16384_init", false),
            ("t_16384", false),
            ("tx_1", false),
            ("16384", false),
            ("t3_", false),
            ("t3", false),
        ] {
            assert_eq!(is_temporary(name), temporary, "{name}");
        }
    }
}
