//! Questions before anything is destroyed: the target's name must be typed, or `--yes` given.

use super::args::Style;
use super::output::say;
use crate::base::{Code, Error, Result};
use std::io::{BufRead, IsTerminal, Write};

/// Makes sure that `what` is meant.
pub fn confirm(what: &str, word: &str, style: &Style) -> Result<()> {
    if style.yes {
        return Ok(());
    }
    let may_ask = !style.no_ask_password && std::io::stdin().is_terminal() && std::io::stderr().is_terminal();
    if !may_ask {
        return Err(Error::new(
            Code::NotConfirmed,
            format!("{what}: this was not confirmed, and there is nobody to ask"),
        )
        .with_hint("give `--yes` if it is meant"));
    }
    say(what);
    let _ = write!(std::io::stderr().lock(), "Type {word} to go on: ");
    let mut typed = String::new();
    let read = std::io::stdin().lock().read_line(&mut typed);
    matches(read.map(|_| typed.as_str()).unwrap_or_default(), what, word)
}

fn matches(typed: &str, what: &str, word: &str) -> Result<()> {
    if typed.trim() == word {
        return Ok(());
    }
    Err(Error::new(Code::NotConfirmed, format!("{what}: the answer was not {word}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_very_name_will_do() {
        assert!(matches("graph\n", "x", "graph").is_ok());
        for other in ["", "\n", "y\n", "yes\n", "graph2\n", "Graph\n"] {
            assert_eq!(matches(other, "x", "graph").map_err(|e| e.code()), Err(Code::NotConfirmed), "{other:?}");
        }
    }

    #[test]
    fn without_a_terminal_nothing_is_assumed() {
        let style = Style { no_ask_password: true, ..Style::default() };
        assert_eq!(confirm("x", "graph", &style).map_err(|e| e.code()), Err(Code::NotConfirmed));
        assert!(confirm("x", "graph", &Style { yes: true, ..style }).is_ok());
    }
}
