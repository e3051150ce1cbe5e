//! Rust source as the rules look at it: without comments and the insides of literals, and with the tests marked.

use std::fs;
use std::path::{Path, PathBuf};

/// Something a rule does not like.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Finding {
    /// Path from the root of the checkout.
    pub(crate) path: String,
    /// Line, from 1; 0 = the file as a whole.
    pub(crate) line: usize,
    /// What is wrong, and what to do instead.
    pub(crate) text: String,
}

impl Finding {
    pub(crate) fn new(path: &str, line: usize, text: impl Into<String>) -> Self {
        Finding { path: path.to_owned(), line, text: text.into() }
    }
}

/// Fails the test with one line for each finding, as editors understand it.
pub(crate) fn report(mut findings: Vec<Finding>) {
    findings.sort();
    let lines: Vec<_> = findings.iter().map(|f| format!("{}:{}: {}", f.path, f.line, f.text)).collect();
    assert!(lines.is_empty(), "\n{}\n", lines.join("\n"));
}

/// One Rust file. All three texts have the same lines at the same places.
pub(crate) struct Source {
    /// Path from the root of the checkout, with `/`.
    pub(crate) path: String,
    /// As it is.
    pub(crate) text: String,
    /// Comments and the insides of string and character literals are blank.
    pub(crate) code: String,
    /// Like `code`, and items for tests only are blank too.
    pub(crate) product: String,
}

impl Source {
    /// A file from its path and text; everything below `tests/` is for tests.
    pub(crate) fn new(path: &str, text: &str) -> Self {
        let code = blank_comments_and_literals(text);
        let product = if path.starts_with("tests/") { blank(&code) } else { blank_test_items(&code) };
        Source { path: path.to_owned(), text: text.to_owned(), code, product }
    }

    /// Lines of `code` that only tests have: what [`Source::product`] left out.
    pub(crate) fn test_code(&self) -> String {
        let bytes = self.code.bytes().zip(self.product.bytes());
        let only = bytes.map(|(all, product)| if all != product || all == b'\n' { all } else { b' ' });
        String::from_utf8(only.collect()).expect("ascii")
    }

    /// Lines before the tests begin.
    pub(crate) fn lines_before_tests(&self) -> usize {
        test_modules(&self.code).first().map_or(self.text.lines().count(), |&at| line_of(&self.code, at) - 1)
    }

    /// The module the file is: `src/driver/neo4j/mod.rs` is `["driver", "neo4j"]`.
    pub(crate) fn module(&self) -> Vec<&str> {
        let inner = self.path.strip_prefix("src/").unwrap_or(&self.path).trim_end_matches(".rs");
        let mut parts: Vec<_> = inner.split('/').collect();
        if matches!(parts.last(), Some(&"mod" | &"lib")) {
            parts.pop();
        }
        parts
    }
}

/// The root of the checkout.
pub(crate) fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Every file below `directory` whose name ends in one of `endings`, as (path from the root, text).
pub(crate) fn files(directory: &str, endings: &[&str]) -> Vec<(String, String)> {
    let mut found = Vec::new();
    collect(&root().join(directory), &mut found);
    found.sort();
    found
        .into_iter()
        .filter(|path| endings.iter().any(|ending| path.to_string_lossy().ends_with(ending)))
        .map(|path| {
            let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
            (relative(&path), text)
        })
        .collect()
}

/// `path` from the root of the checkout.
pub(crate) fn relative(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).to_string_lossy().into_owned()
}

fn collect(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            // Fixtures are data: frozen, and not ours to judge.
            if path != root().join("tests/data") {
                collect(&path, found);
            }
        } else {
            found.push(path);
        }
    }
}

/// Every Rust file of the tree. A module declared with `#[cfg(test)] mod x;` is for tests as a whole.
pub(crate) fn tree() -> Vec<Source> {
    let mut sources: Vec<_> = ["src", "tests"]
        .iter()
        .flat_map(|directory| files(directory, &[".rs"]))
        .map(|(path, text)| Source::new(&path, &text))
        .collect();
    let of_tests: Vec<String> = sources.iter().flat_map(test_module_files).collect();
    for source in &mut sources {
        if of_tests
            .iter()
            .any(|stem| source.path == format!("{stem}.rs") || source.path.starts_with(&format!("{stem}/")))
        {
            source.product = blank(&source.code);
        }
    }
    sources
}

/// Paths without `.rs` of the modules that `source` declares for tests only.
fn test_module_files(source: &Source) -> Vec<String> {
    let own = source.path.trim_end_matches(".rs");
    let directory = own.strip_suffix("/mod").or(own.strip_suffix("/lib")).unwrap_or(own);
    test_modules(&source.code)
        .into_iter()
        .filter_map(|at| {
            let declaration = source.code[at..].split_once("mod ")?.1;
            let name: String = declaration.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            declaration[name.len()..].trim_start().starts_with(';').then(|| format!("{directory}/{name}"))
        })
        .collect()
}

/// The line (from 1) of a byte position.
pub(crate) fn line_of(text: &str, at: usize) -> usize {
    text.as_bytes()[..at].iter().filter(|&&b| b == b'\n').count() + 1
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// Byte positions where `needle` stands in `code`, not as a part of a longer word.
pub(crate) fn occurrences(code: &str, needle: &str) -> Vec<usize> {
    let bytes = code.as_bytes();
    let first_is_word = needle.bytes().next().is_some_and(is_word);
    let last_is_word = needle.bytes().last().is_some_and(is_word);
    code.match_indices(needle)
        .map(|(at, _)| at)
        .filter(|&at| !(first_is_word && at > 0 && is_word(bytes[at - 1])))
        .filter(|&at| !(last_is_word && bytes.get(at + needle.len()).copied().is_some_and(is_word)))
        .collect()
}

/// The position just after the bracket that closes the one at `open`.
pub(crate) fn closing(code: &str, open: usize) -> Option<usize> {
    let mut depth = 0usize;
    for (at, byte) in code.bytes().enumerate().skip(open) {
        match byte {
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth = depth.checked_sub(1)?,
            _ => {}
        }
        if depth == 0 {
            return Some(at + 1);
        }
    }
    None
}

fn blank(code: &str) -> String {
    code.chars().map(|c| if c == '\n' { '\n' } else { ' ' }).collect()
}

/// Positions of `#[cfg(test)]` that stand before a `mod`.
fn test_modules(code: &str) -> Vec<usize> {
    let begins_module = |&at: &usize| {
        let (start, _) = item_after(code, at);
        let item = code[start..].strip_prefix("pub ").unwrap_or(&code[start..]);
        item.starts_with("mod ")
    };
    test_attributes(code).into_iter().filter(begins_module).collect()
}

fn test_attributes(code: &str) -> Vec<usize> {
    let mut found: Vec<_> = ["#[cfg(test)]", "#[cfg(all(test", "#[test]"]
        .iter()
        .flat_map(|attribute| code.match_indices(attribute))
        .map(|(at, _)| at)
        .collect();
    found.sort_unstable();
    found
}

/// Where the item that the attribute at `at` belongs to begins, and where it ends.
fn item_after(code: &str, at: usize) -> (usize, usize) {
    let skip_space = |at: usize| at + (code[at..].len() - code[at..].trim_start().len());
    let mut start = at;
    while code[start..].starts_with("#[") {
        start = skip_space(closing(code, start + 1).unwrap_or(code.len()));
    }
    let is_item = ["pub", "fn", "mod", "use", "impl", "struct", "enum", "const", "static", "type", "trait", "async"]
        .iter()
        .any(|word| occurrences(&code[start..], word).first() == Some(&0));
    let mut end = start;
    while let Some(&byte) = code.as_bytes().get(end) {
        match byte {
            b'{' => return (start, closing(code, end).unwrap_or(code.len())),
            b'(' | b'[' => end = closing(code, end).unwrap_or(code.len()),
            b';' => return (start, end + 1),
            b',' | b'}' if !is_item => return (start, end),
            _ => end += 1,
        }
    }
    (start, end)
}

fn blank_test_items(code: &str) -> String {
    let mut bytes = code.as_bytes().to_vec();
    for at in test_attributes(code) {
        let (_, end) = item_after(code, at);
        bytes[at..end].iter_mut().filter(|b| **b != b'\n').for_each(|b| *b = b' ');
    }
    String::from_utf8(bytes).expect("ascii")
}

/// Length of the literal or comment at the start of `rest`, and how much of its two ends stays visible;
/// `None` if there is none. `follows_word`: the byte before belongs to a name.
fn literal_or_comment(rest: &[u8], follows_word: bool) -> Option<(usize, usize)> {
    if rest.starts_with(b"//") {
        return Some((rest.iter().position(|&b| b == b'\n').unwrap_or(rest.len()), 0));
    }
    if rest.starts_with(b"/*") {
        return Some((block_comment(rest), 0));
    }
    if rest[0] == b'"' {
        return Some((string(rest), 1));
    }
    if rest[0] == b'\'' {
        return character(rest).map(|length| (length, 1));
    }
    let prefix = [&b"br"[..], b"cr", b"r"].into_iter().find(|p| rest.starts_with(p)).filter(|_| !follows_word)?;
    let hashes = rest[prefix.len()..].iter().take_while(|&&b| b == b'#').count();
    let quote = prefix.len() + hashes;
    (rest.get(quote) == Some(&b'"')).then(|| {
        let end = [&b"\""[..], &vec![b'#'; hashes]].concat();
        let inner = &rest[quote + 1..];
        let length = inner.windows(end.len()).position(|w| w == end).unwrap_or(inner.len());
        ((quote + 1 + length + end.len()).min(rest.len()), 0)
    })
}

fn block_comment(rest: &[u8]) -> usize {
    let (mut depth, mut at) = (0usize, 0);
    while at < rest.len() {
        if rest[at..].starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if rest[at..].starts_with(b"*/") {
            depth -= 1;
            at += 2;
        } else {
            at += 1;
        }
        if depth == 0 {
            break;
        }
    }
    at
}

fn string(rest: &[u8]) -> usize {
    let mut at = 1;
    while at < rest.len() && rest[at] != b'"' {
        at += if rest[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(rest.len())
}

/// A character literal's length; `None` for a lifetime.
fn character(rest: &[u8]) -> Option<usize> {
    if rest.get(1) == Some(&b'\\') {
        return rest.iter().skip(3).position(|&b| b == b'\'').map(|at| at + 4);
    }
    let text = std::str::from_utf8(&rest[1..rest.len().min(5)])
        .or_else(|e| std::str::from_utf8(&rest[1..1 + e.valid_up_to()]));
    let width = text.ok()?.chars().next()?.len_utf8();
    (rest.get(1 + width) == Some(&b'\'')).then_some(width + 2)
}

fn blank_comments_and_literals(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out: Vec<u8> = bytes.iter().map(|&b| if b.is_ascii() { b } else { b' ' }).collect();
    let mut at = 0;
    while at < bytes.len() {
        let follows_word = at > 0 && is_word(bytes[at - 1]);
        match literal_or_comment(&bytes[at..], follows_word) {
            Some((length, kept)) => {
                let inside = at + kept..(at + length).saturating_sub(kept).max(at + kept);
                out[inside].iter_mut().filter(|b| **b != b'\n').for_each(|b| *b = b' ');
                at += length.max(1);
            }
            None => at += 1,
        }
    }
    String::from_utf8(out).expect("ascii")
}

#[test]
fn comments_and_literals_are_blank_and_nothing_else_is() {
    let text = "let a = \"x // \\\" y\"; // z \"\nlet b = 'c'; let d: &'static str = r#\"e\"f\"#; /* g /* h */ i */ let j = b'\\'';";
    let code = blank_comments_and_literals(text);
    assert_eq!(code.len(), text.len());
    for gone in ["x", "y", "z", "c'", "e", "f\"", "g", "h", "i */"] {
        assert!(!code.replace("let", "").replace("static", "").contains(gone), "{gone}: {code}");
    }
    for kept in ["let a = \"", "let b = '", "&'static str", "let j = b'"] {
        assert!(code.contains(kept), "{kept}: {code}");
    }
}

#[test]
fn test_items_are_told_from_the_product() {
    let text = "fn a() {}\n#[cfg(test)]\nuse x::{y};\nstruct S {\n    #[cfg(test)]\n    t: u8,\n    p: u8,\n}\n#[cfg(test)]\n#[allow(dead_code)]\nmod tests {\n    fn b() { let _ = '}'; }\n}\nfn c() {}\n";
    let source = Source::new("src/base/x.rs", text);
    for kept in ["fn a()", "p: u8", "fn c()"] {
        assert!(source.product.contains(kept), "{kept}");
    }
    for gone in ["use x", "t: u8", "fn b"] {
        assert!(!source.product.contains(gone), "{gone}");
        assert!(source.test_code().contains(gone), "{gone}");
    }
    assert_eq!(source.lines_before_tests(), 8);
}

#[test]
fn a_module_in_a_file_of_its_own_can_be_for_tests() {
    let source = Source::new("src/agent/mod.rs", "#[cfg(test)]\nmod trial;\nmod job;\n");
    assert_eq!(test_module_files(&source), ["src/agent/trial"]);
    let source = Source::new("src/agent/job.rs", "#[cfg(test)]\nmod trial;\n");
    assert_eq!(test_module_files(&source), ["src/agent/job/trial"]);
}
