//! What can be asked of a restore beyond where it goes and how far the log is replayed. Each is for some databases only:
//! a driver refuses what it does not have ([`super::Driver::check_options`]).

use crate::artifact::manifest::Engine;
use crate::base::{Code, Error, Result};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::PathBuf;

/// Options of a restore.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoreOptions {
    /// Where tablespaces go.
    #[serde(default)]
    pub tablespaces: Relocations,
    /// It becomes a standby, which follows its primary when it is started.
    #[serde(default)]
    pub standby: Option<Standby>,
    /// Which history of the log is followed; `None` = the newest one that has the target.
    #[serde(default)]
    pub timeline: Option<Timeline>,
    /// The directory holds an older copy, of which only what differs is changed.
    #[serde(default)]
    pub delta: bool,
}

impl RestoreOptions {
    /// `USAGE` for the first option that only PostgreSQL has, with what can be said instead; `None` = none was given.
    pub fn only_postgres(&self, engine: Engine) -> Option<Error> {
        let (option, why, instead) = if !self.tablespaces.is_empty() {
            let given = if self.tablespaces.pairs.is_empty() { "--tablespace-map-all" } else { "--tablespace-map" };
            (given, "has no tablespaces that could be put elsewhere", "`--into DIR` says where all of it goes")
        } else if self.standby.is_some() {
            let instead = "restore again for a newer state, or into DIR and start it there yourself";
            ("--standby", "has no standbys that follow a server", instead)
        } else if self.timeline.is_some() {
            let instead = "name the state with `--to-time` or `--to-tx`, or a backup, whose history is followed then";
            ("--timeline", "numbers no timelines", instead)
        } else if self.delta {
            ("--delta", "is not restored over an older copy", "give an empty or new directory")
        } else {
            return None;
        };
        Some(
            Error::new(Code::Usage, format!("{} {why}: `{option}` is PostgreSQL's", engine.as_str()))
                .with_hint(instead),
        )
    }
}

/// What a standby is told.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standby {
    /// How it connects to its primary (`primary_conninfo`); `None` = it follows the archive alone.
    #[serde(default)]
    pub primary: Option<String>,
}

impl Standby {
    /// Error `USAGE` for a connection that holds a secret, or what no setting can hold.
    pub fn check(&self) -> Result<()> {
        let Some(primary) = &self.primary else { return Ok(()) };
        let lower = primary.to_ascii_lowercase();
        let word =
            lower.match_indices("password").any(|(at, word)| lower[at + word.len()..].trim_start().starts_with('='));
        let rest = ["postgres://", "postgresql://"].iter().find_map(|scheme| lower.trim_start().strip_prefix(scheme));
        let account = rest.and_then(|rest| rest.split('/').next()?.rsplit_once('@'));
        let secret = word || account.is_some_and(|(account, _)| account.contains(':'));
        if secret {
            return Err(Error::new(
                Code::Usage,
                "`--primary-conninfo` holds a password, which would be on record and in view",
            )
            .with_hint("keep it in a file of the server's account: `passfile=/var/lib/postgresql/.pgpass`"));
        }
        match primary.chars().find(|character| character.is_control()) {
            Some(strange) => Err(Error::new(Code::Usage, format!("`--primary-conninfo` has a {strange:?} in it"))),
            None => Ok(()),
        }
    }
}

/// A history of the log, as PostgreSQL numbers them. As text, its number or `latest`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Timeline {
    /// The one of this number.
    Number(u32),
    /// The newest that is archived, and no older one.
    Latest,
}

impl Timeline {
    /// Reads a number from 1 on, or `latest`. Error: `USAGE`.
    pub fn parse(text: &str) -> Result<Timeline> {
        match (text, text.parse::<u32>()) {
            ("latest", _) => Ok(Timeline::Latest),
            (_, Ok(number)) if number > 0 => Ok(Timeline::Number(number)),
            _ => Err(Error::new(Code::Usage, format!("{text:?} is no timeline: a number from 1 on, or `latest`"))),
        }
    }
}

impl fmt::Display for Timeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Timeline::Number(number) => write!(f, "{number}"),
            Timeline::Latest => f.write_str("latest"),
        }
    }
}

/// Where tablespaces go that are not to be inside the restored directory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Relocations {
    /// One by one; each is stronger than `all`.
    #[serde(default)]
    pub pairs: Vec<Relocation>,
    /// All others go into directories of their names below this one.
    #[serde(default)]
    pub all: Option<PathBuf>,
}

impl Relocations {
    /// Whether nothing is asked for.
    pub fn is_empty(&self) -> bool {
        self.pairs.is_empty() && self.all.is_none()
    }
}

/// A tablespace, and where it goes. As text, `OLD=NEW`; `\=` and `\\` stand for `=` and `\`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Relocation {
    /// Its name, its number, or where it was.
    pub old: String,
    /// Where it goes.
    pub new: PathBuf,
}

impl Relocation {
    /// Reads `OLD=NEW`. Error: `USAGE`.
    pub fn parse(text: &str) -> Result<Relocation> {
        let mut parts = vec![String::new()];
        let mut characters = text.chars().peekable();
        while let Some(character) = characters.next() {
            match (character, characters.peek()) {
                ('\\', Some('=' | '\\')) => {
                    parts.last_mut().into_iter().for_each(|part| part.extend(characters.next()))
                }
                ('=', _) => parts.push(String::new()),
                _ => parts.last_mut().into_iter().for_each(|part| part.push(character)),
            }
        }
        match &parts[..] {
            [old, new] if !old.is_empty() && !new.is_empty() => {
                Ok(Relocation { old: old.clone(), new: PathBuf::from(new) })
            }
            _ => Err(Error::new(Code::Usage, format!("{text:?} is not OLD=NEW")).with_hint(
                "OLD is a tablespace's name or the directory that it was in, NEW where it goes; `\\=` is a `=` in them",
            )),
        }
    }
}

impl fmt::Display for Relocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let escaped = |text: &str| text.replace('\\', "\\\\").replace('=', "\\=");
        write!(f, "{}={}", escaped(&self.old), escaped(&self.new.to_string_lossy()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_relocation_has_two_sides() {
        let read = |text: &str| Relocation::parse(text).map(|r| (r.old, r.new)).map_err(|error| error.code());
        let is = |old: &str, new: &str| Ok((old.to_owned(), PathBuf::from(new)));
        assert_eq!(read("fast=/srv/new"), is("fast", "/srv/new"));
        assert_eq!(read("/srv/a\\=b=/srv/new"), is("/srv/a=b", "/srv/new"));
        assert_eq!(read("odd\\\\=/srv/x\\y"), is("odd\\", "/srv/x\\y"));
        for text in ["", "=", "fast", "fast=", "=/srv", "a=b=c", "a\\=/srv"] {
            assert_eq!(read(text), Err(Code::Usage), "{text}");
        }
    }

    #[test]
    fn a_timeline_is_a_number_or_the_latest() {
        let read =
            |text: &str| Timeline::parse(text).map(|timeline| timeline.to_string()).map_err(|error| error.code());
        assert_eq!((read("latest"), read("7")), (Ok("latest".into()), Ok("7".into())));
        for text in ["", "0", "-1", "Latest", "current", "4294967296"] {
            assert_eq!(read(text), Err(Code::Usage), "{text}");
        }
    }

    #[test]
    fn a_connection_with_a_secret_is_refused() {
        let check = |primary: &str| Standby { primary: Some(primary.to_owned()) }.check().map_err(|error| error.code());
        for fine in
            ["host=a user=b passfile=/p", "postgresql://b@a:5433,c:5434/?sslmode=require", "host='password'", ""]
        {
            assert_eq!(check(fine), Ok(()), "{fine}");
        }
        for bad in ["host=a password=x", "PassWord = 'x'", "sslpassword=x", "postgres://b:x@a/", "host=a\nuser=b"] {
            assert_eq!(check(bad), Err(Code::Usage), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn a_relocation_reads_back(old in "[^\0]{1,20}", new in "/[^\0]{0,20}") {
            let relocation = Relocation { old, new: PathBuf::from(new) };
            prop_assert_eq!(Relocation::parse(&relocation.to_string()).expect("reads back"), relocation);
        }

        #[test]
        fn any_text_is_read_or_refused(text in ".{0,40}") {
            let _ = Relocation::parse(&text);
        }
    }
}
