//! One TOML file as a tree of values that know their lines.

use super::problem::Problem;
use super::value::{Node, Origin, Table, Value};
use std::path::Path;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Largest configuration file that is read, in bytes.
pub const FILE_MAX: u64 = 1 << 20;

/// Turns byte offsets into lines, counted from 1.
struct Lines {
    starts: Vec<usize>,
}

impl Lines {
    fn of(text: &str) -> Lines {
        let after_newlines = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at + 1);
        Lines { starts: std::iter::once(0).chain(after_newlines).collect() }
    }

    fn at(&self, offset: usize) -> usize {
        self.starts.partition_point(|start| *start <= offset)
    }
}

struct Reader<'a> {
    file: &'a Path,
    lines: Lines,
}

/// Reads `text` as the content of `file`. Every syntax error of the file is reported, and no tree then.
pub fn parse(file: &Path, text: &str) -> Result<Table, Vec<Problem>> {
    let reader = Reader { file, lines: Lines::of(text) };
    let (document, errors) = DeTable::parse_recoverable(text);
    if errors.is_empty() {
        return Ok(reader.table(reader.origin(0), document.get_ref()));
    }
    let report = |error: &toml::de::Error| {
        let origin = reader.origin(error.span().map_or(0, |span| span.start));
        Problem::at(origin, error.message().replace('\n', ", "))
    };
    let mut problems: Vec<Problem> = errors.iter().map(report).collect();
    problems.sort();
    Err(problems)
}

impl Reader<'_> {
    fn origin(&self, offset: usize) -> Origin {
        Origin::File { file: self.file.to_owned(), line: self.lines.at(offset) }
    }

    fn table(&self, origin: Origin, source: &DeTable<'_>) -> Table {
        let mut table = Table::new(origin);
        for (key, value) in source {
            let origin = self.origin(key.span().start);
            table.entries.insert(key.get_ref().to_string(), self.node(origin, value));
        }
        table
    }

    fn node(&self, origin: Origin, value: &Spanned<DeValue<'_>>) -> Node {
        match value.get_ref() {
            DeValue::Table(table) => Node::Table(self.table(origin, table)),
            other => Node::Leaf(leaf(other), origin),
        }
    }
}

/// A value that is no table.
pub fn leaf(value: &DeValue<'_>) -> Value {
    match value {
        DeValue::String(text) => Value::Text(text.to_string()),
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
            .map_or(Value::Other("a very large number"), Value::Integer),
        DeValue::Boolean(flag) => Value::Flag(*flag),
        DeValue::Array(items) => Value::List(items.iter().map(|item| leaf(item.get_ref())).collect()),
        DeValue::Float(_) => Value::Other("a number with a fraction"),
        DeValue::Datetime(_) => Value::Other("a date or time without quotes"),
        DeValue::Table(_) => Value::Other("a table"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_counted_from_one() {
        let text = "a = 1\n\n[b]\nc = \"x\"\n[d.e]\nf.g = 3\n";
        let table = parse(Path::new("/f"), text).expect("parse");
        let at = |node: &Node| node.origin().to_string();
        assert_eq!(at(&table.entries["a"]), "/f:1");
        assert_eq!(at(&table.entries["b"]), "/f:3");
        let Node::Table(d) = &table.entries["d"] else { panic!("d is a table") };
        let Node::Table(e) = &d.entries["e"] else { panic!("e is a table") };
        let Node::Table(f) = &e.entries["f"] else { panic!("f is a table") };
        assert_eq!(at(&f.entries["g"]), "/f:6");
    }

    #[test]
    fn every_syntax_error_of_a_file_is_reported_with_its_line() {
        let errors = parse(Path::new("/f"), "a = \nb = 1\nb = 2\nc = \"x\n").expect_err("errors");
        let lines: Vec<String> = errors.iter().map(|problem| problem.to_string()).collect();
        for place in ["/f:1: ", "/f:3: ", "/f:4: "] {
            assert!(lines.iter().any(|line| line.starts_with(place)), "{place} in {lines:?}");
        }
        assert!(lines.iter().all(|line| !line.contains('\n')), "{lines:?}");
    }
}
