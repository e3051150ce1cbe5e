//! Questions to a person at the terminal, on standard error: yes or no, a line, a line that is not shown.

use super::args::Style;
use super::output::say;
use crate::base::secret::Secret;
use crate::base::{Code, Error, Result};
use nix::sys::termios::{LocalFlags, SetArg, Termios, tcgetattr, tcsetattr};
use std::io::{BufRead, IsTerminal, Stdin, Write, stdin};

/// Somebody who may be asked, or nobody.
#[derive(Clone, Copy, Debug)]
pub struct Person {
    there: bool,
    agrees: bool,
}

impl Person {
    /// Whoever sits at this process's terminal; with `--yes`, somebody who agrees to everything and is not asked.
    pub fn of(style: &Style) -> Person {
        let there = !style.yes && !style.no_ask_password && stdin().is_terminal() && std::io::stderr().is_terminal();
        Person { there, agrees: style.yes }
    }

    /// Nobody, for what only shows: no question is asked.
    pub fn nobody() -> Person {
        Person { there: false, agrees: false }
    }

    /// Whether `what` is agreed to. `NOT_CONFIRMED` where there is nobody to ask.
    pub fn agrees(&self, what: &str) -> Result<bool> {
        if self.agrees {
            return Ok(true);
        }
        if !self.there {
            return Err(Error::new(Code::NotConfirmed, format!("{what} There is nobody to ask"))
                .with_hint("`--dry-run` shows what would be done, `--yes` agrees to it"));
        }
        loop {
            match self.line(&format!("{what} [Y/n]"))?.to_ascii_lowercase().as_str() {
                "" | "y" | "yes" => return Ok(true),
                "n" | "no" => return Ok(false),
                _ => say("Please answer yes or no."),
            }
        }
    }

    /// A line; empty where nobody is there.
    pub fn line(&self, question: &str) -> Result<String> {
        if !self.there {
            return Ok(String::new());
        }
        let _ = write!(std::io::stderr().lock(), "{question} ");
        let mut typed = String::new();
        match stdin().lock().read_line(&mut typed) {
            Ok(0) => Err(Error::new(Code::NotConfirmed, "the answers ended")),
            Ok(_) => Ok(typed.trim().to_owned()),
            Err(cause) => Err(Error::new(Code::IoFailed, format!("reading the answer: {cause}"))),
        }
    }

    /// A line that the terminal does not show; empty where nobody is there.
    pub fn hidden_line(&self, question: &str) -> Result<Secret> {
        let silence = if self.there { Silence::begin() } else { None };
        let line = self.line(question);
        if silence.is_some() {
            say("");
        }
        line.map(|line| Secret::new(line.into_bytes()))
    }
}

/// While it lives the terminal does not show what is typed.
struct Silence {
    terminal: Stdin,
    before: Termios,
}

impl Silence {
    fn begin() -> Option<Silence> {
        let terminal = stdin();
        let before = tcgetattr(&terminal).ok()?;
        let mut silent = before.clone();
        silent.local_flags.remove(LocalFlags::ECHO);
        tcsetattr(&terminal, SetArg::TCSAFLUSH, &silent).ok()?;
        Some(Silence { terminal, before })
    }
}

impl Drop for Silence {
    fn drop(&mut self) {
        let _ = tcsetattr(&self.terminal, SetArg::TCSAFLUSH, &self.before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_terminal_nothing_is_agreed_to_or_typed() {
        let nobody = Person::of(&Style { no_ask_password: true, ..Style::default() });
        assert!(Person::nobody().agrees("Go on?").is_err());
        assert_eq!(nobody.agrees("Go on?").map_err(|error| error.code()), Err(Code::NotConfirmed));
        assert_eq!(nobody.line("Where?").expect("nothing"), "");
        assert_eq!(nobody.hidden_line("Password?").expect("nothing").expose(), b"");
        assert!(Person::of(&Style { yes: true, ..Style::default() }).agrees("Go on?").expect("agreed"));
    }
}
