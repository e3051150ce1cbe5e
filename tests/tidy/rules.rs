//! Size, names, and what must not be written, or only in one place.

use super::source::{Finding, Source, closing, line_of, occurrences};

/// Most lines of a file before its tests.
pub(crate) const FILE_LINES_MAX: usize = 500;
/// Most lines of a file that is all tests: a scenario reads from top to bottom, but not for ever.
pub(crate) const TEST_FILE_LINES_MAX: usize = 800;
/// Half of all files of `src/` have at most this many lines before their tests.
pub(crate) const FILE_LINES_MEDIAN_MAX: usize = 250;
/// Most lines of a function, from `fn` to its closing brace.
pub(crate) const FUNCTION_LINES_MAX: usize = 70;

/// No file is longer than anybody reads in one go.
pub(crate) fn files_are_short(sources: &[Source]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for source in sources {
        let all_tests = source.product.trim().is_empty() && !source.code.trim().is_empty();
        let (lines, limit, what) = match all_tests {
            true => (source.text.lines().count(), TEST_FILE_LINES_MAX, "lines of tests"),
            false => (source.lines_before_tests(), FILE_LINES_MAX, "lines before its tests"),
        };
        if lines > limit {
            let text = format!("{lines} {what}, more than {limit}: find the seam and split it");
            findings.push(Finding::new(&source.path, limit + 1, text));
        }
    }
    findings
}

/// The median length of the files of `src/`.
pub(crate) fn median_is_low(sources: &[Source]) -> Vec<Finding> {
    let product = sources.iter().filter(|s| s.path.starts_with("src/") && !s.product.trim().is_empty());
    let mut lengths: Vec<_> = product.map(Source::lines_before_tests).collect();
    lengths.sort_unstable();
    match lengths.get(lengths.len() / 2) {
        Some(&median) if median > FILE_LINES_MEDIAN_MAX => {
            let text = format!("half of all files have more than {median} lines; {FILE_LINES_MEDIAN_MAX} is the limit");
            vec![Finding::new("src", 0, text)]
        }
        _ => Vec::new(),
    }
}

/// No function is longer than a screen, tests included.
pub(crate) fn functions_are_short(sources: &[Source]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for source in sources {
        for at in occurrences(&source.code, "fn") {
            let Some((name, end)) = function(&source.code, at) else { continue };
            let first = line_of(&source.code, at);
            let lines = line_of(&source.code, end - 1) - first + 1;
            if lines > FUNCTION_LINES_MAX {
                let text = format!("`{name}` has {lines} lines, more than {FUNCTION_LINES_MAX}: split it");
                findings.push(Finding::new(&source.path, first, text));
            }
        }
    }
    findings
}

/// Name and end of the function whose `fn` is at `at`; `None` for function types and functions without a body.
fn function(code: &str, at: usize) -> Option<(String, usize)> {
    let rest = code[at + 2..].trim_start();
    let name: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
    if name.is_empty() {
        return None;
    }
    let mut here = code.len() - rest.len();
    loop {
        match code.as_bytes().get(here)? {
            b'(' | b'[' => here = closing(code, here)?,
            b'{' => return Some((name, closing(code, here)?)),
            b';' => return None,
            _ => here += 1,
        }
    }
}

/// Every file begins by saying what is in it.
pub(crate) fn files_say_what_they_are(sources: &[Source]) -> Vec<Finding> {
    let silent = |source: &&Source| {
        let first = source.text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
        first.strip_prefix("//!").is_none_or(|text| text.trim().len() < 10)
    };
    sources
        .iter()
        .filter(silent)
        .map(|source| Finding::new(&source.path, 1, "no `//!` line that says what is in this file"))
        .collect()
}

/// Names that say nothing about what is inside.
pub(crate) fn no_bags(sources: &[Source]) -> Vec<Finding> {
    const BAGS: [&str; 10] =
        ["util", "utils", "helper", "helpers", "common", "manager", "managers", "misc", "shared", "stuff"];
    sources
        .iter()
        .filter(|source| source.path.trim_end_matches(".rs").split('/').any(|part| BAGS.contains(&part)))
        .map(|source| Finding::new(&source.path, 0, "the name does not say what is inside"))
        .collect()
}

/// Which part of a file a ban is about.
#[derive(Clone, Copy)]
enum Part {
    Product,
    Tests,
    All,
}

/// Something that may be written only in the named places.
struct Ban {
    words: &'static [&'static str],
    part: Part,
    except_below: &'static [&'static str],
    instead: &'static str,
}

const BANS: [Ban; 6] = [
    Ban {
        words: &["SystemTime::now", "Timestamp::now", "Zoned::now", "Utc::now", "Local::now"],
        part: Part::Product,
        except_below: &["src/base/clock.rs"],
        instead: "ask a `base::clock::Clock`: tests must be able to set the time",
    },
    Ban {
        words: &["Command::new", "process::Command"],
        part: Part::Product,
        except_below: &["src/base/process.rs", "src/base/process/terminal.rs"],
        instead: "use `base::process`: it drops rights, watches and kills whole groups",
    },
    Ban {
        words: &["println!", "eprintln!", "print!", "eprint!"],
        part: Part::Product,
        except_below: &["src/cli/", "src/bin/"],
        instead: "return it or log it: only the command line prints",
    },
    Ban {
        words: &["todo!", "unimplemented!", "dbg!"],
        part: Part::All,
        except_below: &[],
        instead: "finish it, or refuse with `NOT_AVAILABLE`",
    },
    Ban {
        words: &["sleep("],
        part: Part::Tests,
        except_below: &[],
        instead: "wait for the condition: `base::clock::wait_until`",
    },
    Ban { words: &["#[ignore"], part: Part::All, except_below: &[], instead: "a test runs, or is not there" },
];

/// Nothing stands where it is banned.
pub(crate) fn bans_hold(sources: &[Source]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for source in sources {
        for ban in BANS.iter().filter(|ban| !ban.except_below.iter().any(|place| source.path.starts_with(place))) {
            let code = match ban.part {
                Part::Product => source.product.clone(),
                Part::Tests => source.test_code(),
                Part::All => source.code.clone(),
            };
            for word in ban.words {
                for at in occurrences(&code, word) {
                    let text = format!("`{word}` has no place here: {}", ban.instead);
                    findings.push(Finding::new(&source.path, line_of(&code, at), text));
                }
            }
        }
    }
    findings
}

/// A rule must find `count` things in one file of this path and text.
#[cfg(test)]
fn expect(rule: fn(&[Source]) -> Vec<Finding>, path: &str, text: &str, lines: &[usize]) {
    let found: Vec<_> = rule(&[Source::new(path, text)]).iter().map(|finding| finding.line).collect();
    assert_eq!(found, lines, "{path}: {text}");
}

#[test]
fn a_long_file_is_found_and_long_tests_are_not() {
    let line = "fn f() {}\n";
    expect(files_are_short, "src/base/x.rs", &line.repeat(FILE_LINES_MAX), &[]);
    expect(files_are_short, "src/base/x.rs", &line.repeat(FILE_LINES_MAX + 1), &[FILE_LINES_MAX + 1]);
    let with_tests = format!("#[cfg(test)]\nmod tests {{\n{}}}\n", line.repeat(600));
    expect(files_are_short, "src/base/x.rs", &with_tests, &[]);
    expect(files_are_short, "tests/it/x.rs", &line.repeat(TEST_FILE_LINES_MAX), &[]);
    expect(files_are_short, "tests/it/x.rs", &line.repeat(TEST_FILE_LINES_MAX + 1), &[TEST_FILE_LINES_MAX + 1]);
    let median = |lines: usize| median_is_low(&[Source::new("src/base/x.rs", &line.repeat(lines))]).len();
    assert_eq!((median(FILE_LINES_MEDIAN_MAX), median(FILE_LINES_MEDIAN_MAX + 1)), (0, 1));
}

#[test]
fn a_long_function_is_found() {
    let body = |lines: usize| {
        format!("// x\npub fn f<T>(a: [T; 1]) -> u8\nwhere T: Fn() {{\n{}}}\n", "    a();\n".repeat(lines))
    };
    expect(functions_are_short, "src/base/x.rs", &body(FUNCTION_LINES_MAX - 3), &[]);
    expect(functions_are_short, "src/base/x.rs", &body(FUNCTION_LINES_MAX - 2), &[2]);
    expect(functions_are_short, "src/base/x.rs", "trait T { fn f(&self); }\ntype F = fn(u8);\n", &[]);
}

#[test]
fn a_file_without_a_word_about_itself_is_found() {
    expect(files_say_what_they_are, "src/base/x.rs", "//! Reads the clock of the host.\n", &[]);
    for silent in ["", "//!\n", "//! x\n", "// Reads the clock.\n", "use std::fs;\n//! Late words.\n"] {
        expect(files_say_what_they_are, "src/base/x.rs", silent, &[1]);
    }
}

#[test]
fn a_bag_is_found() {
    for bag in ["src/base/util.rs", "tests/it/common/mod.rs", "src/helpers/x.rs", "src/dbus/manager.rs"] {
        expect(no_bags, bag, "", &[0]);
    }
    expect(no_bags, "src/host/utility_unit.rs", "", &[]);
}

#[test]
fn what_is_banned_is_found_where_it_is_banned() {
    let samples = [
        ("src/agent/x.rs", "fn f() {\n    jiff::Timestamp::now();\n}\n", 2),
        ("src/agent/x.rs", "use std::process::Command;\n", 1),
        ("src/agent/x.rs", "fn f() { Command::new(\"x\"); }\n", 1),
        ("src/agent/x.rs", "fn f() { println!(); }\n", 1),
        ("src/agent/x.rs", "#[cfg(test)]\nmod tests {\n    fn f() { std::thread::sleep(x); }\n}\n", 3),
        ("tests/it/x.rs", "fn f() { todo!() }\n", 1),
        ("tests/it/x.rs", "async fn f() { tokio::time::sleep(x).await }\n", 1),
        ("tests/it/x.rs", "#[test]\n#[ignore = \"slow\"]\nfn f() {}\n", 2),
    ];
    for (path, text, line) in samples {
        expect(bans_hold, path, text, &[line]);
    }
}

#[test]
fn what_is_banned_elsewhere_is_left_alone() {
    let samples = [
        ("src/base/clock.rs", "fn f() { Timestamp::now(); }\n"),
        ("src/base/process.rs", "use std::process::Command;\n"),
        ("src/cli/x.rs", "fn f() { println!(); }\n"),
        ("src/base/retry.rs", "fn f() { std::thread::sleep(x); }\n"),
        ("src/agent/x.rs", "// println!()\n/// Command::new\nconst X: &str = \"todo!\";\n"),
        ("src/agent/x.rs", "fn f() { my_println!(); wait_until(); SlowTimestamp::now(); }\n"),
        ("src/agent/x.rs", "#[cfg(test)]\nmod tests { fn f() { Command::new(\"x\"); println!(); } }\n"),
        ("tests/it/x.rs", "fn f() { Command::new(\"x\"); println!(); Timestamp::now(); }\n"),
    ];
    for (path, text) in samples {
        expect(bans_hold, path, text, &[]);
    }
}
