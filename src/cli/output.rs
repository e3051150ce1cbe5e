//! Where answers go and in which form. Writing to a pipe whose reader left is not an error worth a word.

use super::args::{JsonMode, Style};
use crate::base::process::terminal::page;
use crate::base::{Code, Error, Result};
use comfy_table::presets::{NOTHING, UTF8_HORIZONTAL_ONLY};
use comfy_table::{ContentArrangement, Table};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::Serialize;
use std::io::{IsTerminal, Write};

/// How answers are written.
#[derive(Clone, Debug)]
pub struct Output {
    /// JSON instead of text.
    pub json: Option<JsonMode>,
    /// Whether standard output is a terminal: tables, else plain text with a row a line.
    pub terminal: bool,
    /// Whether colours may be used.
    pub colors: bool,
    /// Lines of the terminal, where what is longer goes into a pager.
    pub page: Option<usize>,
    /// Headings and totals.
    pub legend: bool,
    /// The reader's time zone.
    pub zone: TimeZone,
    /// The reader's now, for ages.
    pub now: Timestamp,
}

impl Output {
    /// What the command line, the terminal and the environment ask for.
    pub fn new(style: &Style, now: Timestamp) -> Self {
        let terminal = std::io::stdout().is_terminal();
        let json = match style.json {
            Some(JsonMode::Off) => None,
            Some(mode) => Some(mode),
            None if style.j => Some(if terminal { JsonMode::Pretty } else { JsonMode::Short }),
            None => None,
        };
        // https://no-color.org: present and not empty.
        let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Output {
            json,
            terminal,
            colors: terminal && !no_color,
            page: terminal_size::terminal_size()
                .map(|(_, height)| usize::from(height.0))
                .filter(|_| terminal && !style.no_pager && std::io::stdin().is_terminal()),
            legend: !style.no_legend,
            zone: TimeZone::system(),
            now,
        }
    }

    /// Writes a value as JSON, or the text that `render` makes.
    pub fn print(&self, value: &impl Serialize, render: impl FnOnce() -> String) -> Result<()> {
        let text = match self.as_json(value)? {
            Some(json) => json,
            None => render(),
        };
        let long = self.page.is_some_and(|height| text.lines().count() > height);
        if long && page(&text) { Ok(()) } else { print(&text) }
    }

    /// A value as JSON, if JSON was asked for.
    pub fn as_json(&self, value: &impl Serialize) -> Result<Option<String>> {
        let json = match self.json {
            Some(JsonMode::Pretty) => serde_json::to_string_pretty(value),
            Some(_) => serde_json::to_string(value),
            None => return Ok(None),
        };
        json.map(Some).map_err(unwritable)
    }

    /// An empty table of this output's sort.
    pub fn table(&self, header: &[&str]) -> Table {
        let mut table = Table::new();
        if self.terminal {
            table.load_style(UTF8_HORIZONTAL_ONLY).set_content_arrangement(ContentArrangement::Dynamic);
        } else {
            table.load_style(NOTHING).set_content_arrangement(ContentArrangement::Disabled);
        }
        if !self.colors {
            table.force_no_tty();
        }
        if self.legend {
            table.set_header(header.to_vec());
        }
        table
    }
}

fn unwritable(cause: serde_json::Error) -> Error {
    Error::new(Code::Internal, format!("writing the answer as JSON: {cause}"))
}

/// A table as text, without blanks at the ends of lines.
pub fn lines(table: &Table) -> String {
    let text = table.to_string();
    let lines: Vec<_> = text.lines().map(str::trim_end).collect();
    lines.join("\n")
}

/// Writes text to standard output, with a line's end.
pub fn print(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    let written = writeln!(out, "{}", text.trim_end_matches('\n')).and_then(|()| out.flush());
    match written {
        Err(cause) if cause.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Error::io("writing to", std::path::Path::new("standard output"), cause))
        }
        _ => Ok(()),
    }
}

/// Writes a line to standard error, for people; whatever comes of it.
pub fn say(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}
