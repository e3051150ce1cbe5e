//! Questions before anything is destroyed: the target's name must be typed, or `--yes` given.

use super::args::Style;
use super::output::say;
use crate::base::ids::TargetName;
use crate::base::{Code, Error, Result};
use std::io::{BufRead, IsTerminal, Write};

/// Makes sure that `what` is meant.
pub fn confirm(what: &str, target: &TargetName, style: &Style) -> Result<()> {
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
    let _ = write!(std::io::stderr().lock(), "Type {target} to go on: ");
    let mut typed = String::new();
    let read = std::io::stdin().lock().read_line(&mut typed);
    matches(read.map(|_| typed.as_str()).unwrap_or_default(), what, target)
}

fn matches(typed: &str, what: &str, target: &TargetName) -> Result<()> {
    if typed.trim() == target.as_str() {
        return Ok(());
    }
    Err(Error::new(Code::NotConfirmed, format!("{what}: the answer was not {target}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_very_name_will_do() {
        let target = TargetName::new("graph").expect("name");
        assert!(matches("graph\n", "x", &target).is_ok());
        for other in ["", "\n", "y\n", "yes\n", "graph2\n", "Graph\n"] {
            assert_eq!(matches(other, "x", &target).map_err(|e| e.code()), Err(Code::NotConfirmed), "{other:?}");
        }
    }

    #[test]
    fn without_a_terminal_nothing_is_assumed() {
        let target = TargetName::new("graph").expect("name");
        let style = Style { no_ask_password: true, ..Style::default() };
        assert_eq!(confirm("x", &target, &style).map_err(|e| e.code()), Err(Code::NotConfirmed));
        assert!(confirm("x", &target, &Style { yes: true, ..style }).is_ok());
    }
}
