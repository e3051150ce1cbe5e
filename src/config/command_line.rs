//! A command that was written as one string, split into its arguments the way a shell would, without any shell:
//! quotes and backslashes group, and nothing is ever expanded.

/// Splits `text`. Characters that only a shell gives a meaning to are refused where they stand outside quotes, so that
/// nobody believes a pipe or a variable would work.
pub fn split(text: &str) -> Result<Vec<String>, String> {
    let mut arguments = Vec::new();
    let mut current: Option<String> = None;
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match character {
            ' ' | '\t' | '\n' => arguments.extend(current.take()),
            '\'' => quoted(&mut characters, '\'', current.get_or_insert_default())?,
            '"' => quoted(&mut characters, '"', current.get_or_insert_default())?,
            '\\' => match characters.next() {
                Some(next) => current.get_or_insert_default().push(next),
                None => return Err("ends in a backslash".to_owned()),
            },
            '|' | '&' | ';' | '<' | '>' | '$' | '`' | '*' | '?' | '(' | ')' => {
                return Err(format!("has {character:?} outside quotes, but no shell reads it"));
            }
            other => current.get_or_insert_default().push(other),
        }
    }
    arguments.extend(current);
    Ok(arguments)
}

fn quoted(characters: &mut std::str::Chars<'_>, quote: char, into: &mut String) -> Result<(), String> {
    while let Some(character) = characters.next() {
        match character {
            c if c == quote => return Ok(()),
            // As in a shell: inside double quotes a backslash protects only these two.
            '\\' if quote == '"' => match characters.next() {
                Some(next @ ('"' | '\\')) => into.push(next),
                Some(next) => into.extend(['\\', next]),
                None => break,
            },
            other => into.push(other),
        }
    }
    Err(format!("has a {quote} that is not closed"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn quotes_group_and_nothing_is_expanded() {
        let good: [(&str, &[&str]); 6] = [
            ("/bin/neo4j stop", &["/bin/neo4j", "stop"]),
            ("  /a  'b c' \"d \\\" $e\" ", &["/a", "b c", "d \" $e"]),
            ("/a '' b", &["/a", "", "b"]),
            ("/a b\\ c", &["/a", "b c"]),
            ("/a x'y z'", &["/a", "xy z"]),
            ("", &[]),
        ];
        for (text, arguments) in good {
            assert_eq!(split(text).expect(text), arguments, "{text}");
        }
        for bad in ["/a 'b", "/a \"b", "/a \\", "/a | b", "/a $HOME", "/a; b", "/a > f", "/a `b`", "/a \"\\"] {
            assert!(split(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn quoted_arguments_come_back(arguments in proptest::collection::vec("[^']{0,12}", 0..5)) {
            let line = arguments.iter().map(|a| format!("'{a}'")).collect::<Vec<_>>().join(" ");
            prop_assert_eq!(split(&line).expect("split"), arguments);
        }
    }
}
