//! `neo4j.conf` as the server reads it, for whoever looks for the server and for whoever backs it up: two readers would not
//! agree one day.
//!
//! The format is that of `java.util.Properties.load`. A name ends at the first `=`, `:` or white
//! space that no backslash stands before; a line that ends in a backslash goes on in the next one; of repeated names the last
//! one counts.

use std::collections::BTreeMap;
use std::iter::Peekable;
use std::str::Chars;

/// Former names of settings, of Neo4j 4, which servers of 5 and later still take where the present one is not set.
const FORMER: [(&str, &str); 8] = [
    ("server.directories.data", "dbms.directories.data"),
    ("server.directories.transaction.logs.root", "dbms.directories.transaction.logs.root"),
    ("server.directories.plugins", "dbms.directories.plugins"),
    ("initial.dbms.default_database", "dbms.default_database"),
    ("server.memory.heap.max_size", "dbms.memory.heap.max_size"),
    ("server.default_listen_address", "dbms.default_listen_address"),
    ("server.bolt.enabled", "dbms.connector.bolt.enabled"),
    ("server.bolt.listen_address", "dbms.connector.bolt.listen_address"),
];

/// The settings of a server, as a file has them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Neo4jConf(BTreeMap<String, String>);

impl Neo4jConf {
    /// The settings in `text`, values without white space around them.
    pub fn parse(text: &str) -> Neo4jConf {
        Neo4jConf(parse(text))
    }

    /// A setting by its present name; `None` where it has no value. The former name fills a gap, and one without a value says
    /// nothing, as the server has it.
    pub fn get(&self, name: &str) -> Option<&str> {
        let former = FORMER.iter().find(|(present, _)| *present == name).map(|(_, former)| *former);
        let said = self.0.get(name).or_else(|| self.0.get(former?).filter(|value| !value.trim().is_empty()));
        said.map(String::as_str).filter(|value| !value.is_empty())
    }

    /// Whether nothing is set.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

fn parse(text: &str) -> BTreeMap<String, String> {
    logical_lines(text).iter().map(|line| name_and_value(line)).collect()
}

fn is_white(character: char) -> bool {
    matches!(character, ' ' | '\t' | '\x0c')
}

/// Lines without comments and blank ones, each joined with those it goes on in.
fn logical_lines(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    let mut open = false;
    for line in text.split(['\n', '\r']) {
        let line = line.trim_start_matches(is_white);
        if !open && (line.is_empty() || line.starts_with(['#', '!'])) {
            continue;
        }
        let backslashes = line.chars().rev().take_while(|&character| character == '\\').count();
        let goes_on = backslashes % 2 == 1;
        let part = if goes_on { &line[..line.len() - 1] } else { line };
        match lines.last_mut().filter(|_| open) {
            Some(last) => last.push_str(part),
            None => lines.push(part.to_owned()),
        }
        open = goes_on;
    }
    lines
}

fn name_and_value(line: &str) -> (String, String) {
    let mut rest = line.chars().peekable();
    let mut name = String::new();
    while let Some(character) = rest.next_if(|&next| !is_white(next) && next != '=' && next != ':') {
        push(&mut name, character, &mut rest);
    }
    while rest.next_if(|&next| is_white(next)).is_some() {}
    if rest.next_if(|&next| next == '=' || next == ':').is_some() {
        while rest.next_if(|&next| is_white(next)).is_some() {}
    }
    let mut value = String::new();
    while let Some(character) = rest.next() {
        push(&mut value, character, &mut rest);
    }
    (name, value.trim().to_owned())
}

/// Appends a character, or what the escape stands for that it begins.
fn push(text: &mut String, character: char, rest: &mut Peekable<Chars<'_>>) {
    if character != '\\' {
        text.push(character);
        return;
    }
    match rest.next() {
        Some('t') => text.push('\t'),
        Some('n') => text.push('\n'),
        Some('r') => text.push('\r'),
        Some('f') => text.push('\x0c'),
        Some('u') => {
            let digits: String = std::iter::from_fn(|| rest.next_if(char::is_ascii_hexdigit)).take(4).collect();
            let code = u32::from_str_radix(&digits, 16).ok().filter(|_| digits.len() == 4);
            text.push(code.and_then(char::from_u32).unwrap_or(char::REPLACEMENT_CHARACTER));
        }
        Some(other) => text.push(other),
        None => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn value(text: &str) -> Option<String> {
        parse(text).remove("a.b")
    }

    #[test]
    fn names_and_values_are_told_apart_as_java_does() {
        for text in
            ["a.b=x y", "a.b = x y ", "a.b: x y", "a.b x y", "\ta.b\t:x y", "a.b=x \\\n   y", "a\\u002eb=x\\u0020y"]
        {
            assert_eq!(value(text).as_deref(), Some("x y"), "{text:?}");
        }
        assert_eq!(value("a.b=one\r\na.b=two\n").as_deref(), Some("two"));
        assert_eq!(value("# a.b=x\n!a.b=x\n  # a.b=x \\\na.b=y").as_deref(), Some("y"), "a comment does not go on");
        assert_eq!(value("a.b=x\\\\\nc=d").as_deref(), Some("x\\"), "two backslashes are one");
        assert_eq!(value("a.b==x").as_deref(), Some("=x"));
        assert_eq!(value("a.b = no\n\nx=y\na.b=yes # no comment\n").as_deref(), Some("yes # no comment"));
        assert_eq!(value("a.b=a=b").as_deref(), Some("a=b"));
        assert_eq!(value("a\\:b=x\na.b").as_deref(), Some(""));
        assert_eq!(parse("a\\:b=x").remove("a:b").as_deref(), Some("x"));
    }

    proptest! {
        #[test]
        fn any_text_is_read(text in "\\PC{0,200}") {
            let _ = parse(&text);
        }

        #[test]
        fn plain_lines_are_what_they_say(name in "[a-z.]{1,20}", text in "[a-zA-Z0-9/_.-]{0,20}") {
            prop_assert_eq!(parse(&format!("{name}={text}\n")).remove(&name), Some(text));
        }
    }
}
