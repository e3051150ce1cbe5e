//! The command line, parsed; what is wrong with it is told in the form that it asks for.

use super::args::JsonMode;
use super::{exit, wal};
use crate::base::{Code, Error};
use clap::Parser;
use std::ffi::OsString;
use std::process::ExitCode;

/// Parses this process's command line; else tells why not, and gives the exit status.
pub fn arguments<P: Parser>() -> Result<P, ExitCode> {
    P::try_parse().map_err(|error| match wants_json(std::env::args_os().skip(1)) {
        _ if error.use_stderr() && wal::is_fetch(std::env::args_os().skip(1)) => {
            let _ = error.print();
            ExitCode::from(wal::FETCH_FAILED)
        }
        Some(mode) if error.use_stderr() => ExitCode::from(exit::fail(&usage(&error.render().to_string()), Some(mode))),
        _ => error.exit(),
    })
}

/// Whether JSON is asked for in arguments that could not be parsed.
fn wants_json(arguments: impl Iterator<Item = OsString>) -> Option<JsonMode> {
    let words = arguments.map(|word| word.to_string_lossy().into_owned()).take_while(|word| word != "--");
    words.fold(None, |mode, word| match word.strip_prefix('-') {
        Some("-json=off") => None,
        Some("-json=pretty") => Some(JsonMode::Pretty),
        Some(long) if long.starts_with("-json") => Some(JsonMode::Short),
        Some(short) if short.contains('j') && short.chars().all(|flag| "jqv".contains(flag)) => Some(JsonMode::Short),
        _ => mode,
    })
}

/// The first paragraph of what clap says, on one line; the rest is how to call for help.
fn usage(said: &str) -> Error {
    let first = said.split("\n\n").next().unwrap_or_default();
    let line = first.split_whitespace().collect::<Vec<_>>().join(" ");
    Error::new(Code::Usage, line.trim_start_matches("error: "))
        .with_hint("`--help` after the command says what it takes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_found_where_the_rest_is_not_understood() {
        let found = |line: &str| wants_json(line.split(' ').map(OsString::from));
        assert_eq!(found("--json=pretty backup sim --type bogus"), Some(JsonMode::Pretty));
        assert_eq!(found("backup sim --type bogus -vj"), Some(JsonMode::Short));
        assert_eq!(found("--json backup sim"), Some(JsonMode::Short));
        for text in ["backup sim --type bogus", "--json=off backup", "-n 5 history", "restore x --into -- -j"] {
            assert_eq!(found(text), None, "{text}");
        }
    }

    #[test]
    fn what_clap_says_becomes_one_line() {
        let error =
            usage("error: invalid value 'bogus' for '--type <TYPE>'\n  [possible values: full]\n\nFor more, try\n");
        assert_eq!(error.message(), "invalid value 'bogus' for '--type <TYPE>' [possible values: full]");
    }
}
