//! Reads `postgresql.conf`, only as far as discovery needs it; the server itself stays the judge of its files.

use super::host::Host;
use std::collections::BTreeMap;
use std::path::Path;

/// Deepest `include` in a `postgresql.conf` that is followed.
const INCLUDE_DEPTH_MAX: usize = 10;
/// Most files that one `postgresql.conf` may include, all told.
const INCLUDES_MAX: usize = 100;

/// A server's settings: the last assignment of each name wins.
pub type ServerSettings = BTreeMap<String, String>;

/// The settings of `postgresql.conf` at `path`, with everything it includes. Names are lower-cased, quotes removed.
pub fn postgresql(host: &Host<'_>, path: &Path) -> ServerSettings {
    let mut settings = ServerSettings::new();
    let mut left = INCLUDES_MAX;
    postgresql_file(host, path, 0, &mut left, &mut settings);
    settings
}

fn postgresql_file(host: &Host<'_>, path: &Path, depth: usize, left: &mut usize, settings: &mut ServerSettings) {
    if depth > INCLUDE_DEPTH_MAX || *left == 0 {
        return;
    }
    *left -= 1;
    let directory = path.parent().unwrap_or(Path::new("/"));
    for line in host.read(path).unwrap_or_default().lines() {
        let Some((name, value)) = assignment(line) else { continue };
        match name.as_str() {
            "include" | "include_if_exists" => {
                postgresql_file(host, &directory.join(&value), depth + 1, left, settings);
            }
            "include_dir" => {
                let inner = directory.join(&value);
                for file in host.list(&inner) {
                    if file.ends_with(".conf") && !file.starts_with('.') {
                        postgresql_file(host, &inner.join(file), depth + 1, left, settings);
                    }
                }
            }
            _ => {
                settings.insert(name, value);
            }
        }
    }
}

/// `name = value`, `name value`, `name = 'va''lue'  # comment`.
fn assignment(line: &str) -> Option<(String, String)> {
    let line = line.trim();
    let end = line.find(|c: char| !(c.is_ascii_alphanumeric() || "_.".contains(c)))?;
    let (name, rest) = line.split_at(end);
    let rest = rest.trim_start();
    let rest = rest.strip_prefix('=').unwrap_or(rest).trim_start();
    let value = match rest.strip_prefix('\'') {
        Some(quoted) => {
            let mut value = String::new();
            let mut characters = quoted.chars().peekable();
            loop {
                match characters.next()? {
                    '\'' if characters.peek() == Some(&'\'') => value.extend(characters.next()),
                    '\'' => break value,
                    '\\' => value.extend(characters.next()),
                    other => value.push(other),
                }
            }
        }
        None => rest.split('#').next().unwrap_or_default().trim().to_owned(),
    };
    (!name.is_empty()).then(|| (name.to_ascii_lowercase(), value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn postgresql_lines_are_read() {
        let good = [
            ("port = 5433 # comment", ("port", "5433")),
            ("data_directory '/var/lib/it''s'", ("data_directory", "/var/lib/it's")),
            ("Port=5433", ("port", "5433")),
            ("x = 'a # b' # c", ("x", "a # b")),
            ("include_dir = 'conf.d'", ("include_dir", "conf.d")),
        ];
        for (line, (name, value)) in good {
            assert_eq!(assignment(line), Some((name.to_owned(), value.to_owned())), "{line}");
        }
        for nothing in ["", "# port = 1", "'x'", "x = 'not closed"] {
            assert_eq!(assignment(nothing), None, "{nothing}");
        }
    }

    #[test]
    fn includes_are_followed_and_circles_end() {
        let root = tempfile::tempdir().expect("tempdir");
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().expect("parent")).expect("mkdir");
            std::fs::write(path, text).expect("write");
        };
        write("etc/p.conf", "port = 1\ninclude_dir = 'd'\n");
        write("etc/circle.conf", "include 'circle.conf'\nport = 7\n");
        write("etc/d/a.conf", "port = 2\n");
        write("etc/d/b.conf", "port = 3\nhost = 'x'\n");
        write("etc/d/.c.conf", "port = 4\n");
        let settings = postgresql(&Host::below(root.path()), Path::new("/etc/p.conf"));
        assert_eq!(settings["port"], "3");
        assert_eq!(settings["host"], "x");
        assert_eq!(postgresql(&Host::below(root.path()), Path::new("/etc/circle.conf"))["port"], "7");
    }

    proptest! {
        #[test]
        fn no_text_makes_a_reader_panic(text in "\\PC{0,80}") {
            let _ = assignment(&text);
        }
    }
}
