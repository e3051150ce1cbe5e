//! The generated parts of `docs/CONFIGURATION.md`: a table of keys for each section, and the environment's names.

use super::environment::{COMMON, MODE_DOCUMENTED, PREFIX};
use super::schema::{Fallback, Key, Standing};
use super::template::SECTIONS;

/// Begins the generated part.
pub const BEGIN: &str = "<!-- generated from the table of keys: begin -->\n";
/// Ends it.
pub const END: &str = "<!-- generated from the table of keys: end -->\n";

/// The generated part, in Markdown, without its marks.
pub fn reference() -> String {
    let mut text = String::new();
    for section in SECTIONS {
        let title = match (section.table, section.kind) {
            ("", _) => "Top of the file".to_owned(),
            ("target.*", kind) => format!("`[target.NAME]` with `kind = \"{kind}\"`"),
            ("repository.*", kind) => format!("`[repository.NAME]` with `type = \"{kind}\"`"),
            (table, _) => format!("`[{table}]`"),
        };
        text.push_str(&format!("### {title}\n\n{}\n\n", section.about));
        text.push_str("| key | takes | without it | what it is for |\n|---|---|---|---|\n");
        section.keys().for_each(|key| text.push_str(&row(key)));
        text.push('\n');
    }
    text.push_str("### Environment\n\n| variable | sets | takes |\n|---|---|---|\n");
    text.push_str(&format!(
        "| `{PREFIX}…` | any key: `{PREFIX}TARGET__GRAPH__BOLT` is `target.graph.bolt` | as the key |\n"
    ));
    for common in COMMON {
        text.push_str(&format!("| `{}` | `{}` | {} |\n", common.name, common.key, common.takes));
    }
    let (name, sets, takes) = MODE_DOCUMENTED;
    text.push_str(&format!("| `{name}` | {} | {takes} |\n", sets.replace('*', "NAME")));
    text
}

fn row(key: &Key) -> String {
    let without = match key.default {
        Fallback::Value(value) => format!("`{value}`"),
        Fallback::Discovered(how) | Fallback::Unset(how) => how.to_owned(),
        Fallback::Required => "must be given".to_owned(),
    };
    let later = if key.standing == Standing::Later { " *(later)*" } else { "" };
    let about = if key.about.contains('`') { key.about.to_owned() } else { key.about.replace("%H", "`%H`") };
    format!("| `{}` | {} | {} | {about}{later} |\n", key.name(), key.kind.describe(), without.replace('|', "\\|"))
}

/// Puts the generated part between its marks in `document`; `None` if the marks are not there.
pub fn insert_into(document: &str) -> Option<String> {
    let (before, rest) = document.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}\n{}\n{END}{after}", reference().trim_end()))
}
