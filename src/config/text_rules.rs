//! What a text must look like to be a host name, a bucket, a unit… Each rule says what it wants; none asks the host.

/// A rule: an error says what is expected, to follow "must be".
pub type Rule = fn(&str) -> Result<(), &'static str>;

fn demand(good: bool, expected: &'static str) -> Result<(), &'static str> {
    if good { Ok(()) } else { Err(expected) }
}

fn word(text: &str, length: std::ops::RangeInclusive<usize>, others: &str) -> bool {
    length.contains(&text.len()) && text.chars().all(|c| c.is_ascii_alphanumeric() || others.contains(c))
}

/// Any line of text that is not empty.
pub fn line(text: &str) -> Result<(), &'static str> {
    let good = !text.trim().is_empty() && text.len() <= 1024 && !text.chars().any(char::is_control);
    demand(good, "one line of text that is not empty")
}

/// An environment's name; it becomes part of every object's key.
pub fn environment(text: &str) -> Result<(), &'static str> {
    let good = word(text, 1..=32, "._-") && !text.starts_with('.');
    demand(good, "1 to 32 characters out of A-Z, a-z, 0-9, '.', '_' and '-', the first of them not '.'")
}

/// A bucket's name.
pub fn bucket(text: &str) -> Result<(), &'static str> {
    demand(
        word(text, 3..=63, ".-_") && !text.starts_with('.'),
        "a bucket's name: 3 to 63 letters, digits, '.', '-' and '_'",
    )
}

/// What every key of a bucket begins with.
pub fn prefix(text: &str) -> Result<(), &'static str> {
    let trimmed = text.strip_suffix('/').unwrap_or(text);
    let segment = |s: &str| word(s, 1..=255, "._=-%") && !s.starts_with('.');
    let good = text.is_empty() || (text.len() <= 512 && trimmed.split('/').all(segment));
    demand(good, "segments of letters, digits, '.', '_', '=' and '-' between slashes; %H stands for the host's name")
}

/// A region of a store.
pub fn region(text: &str) -> Result<(), &'static str> {
    demand(word(text, 1..=64, "-_"), "a region like eu-central-1")
}

/// The address of a store: scheme and host, without a path.
pub fn endpoint(text: &str) -> Result<(), &'static str> {
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    demand(
        rest.is_some_and(|rest| authority(rest.strip_suffix('/').unwrap_or(rest))),
        "an address like https://s3.example.net",
    )
}

/// A web address.
pub fn web_address(text: &str) -> Result<(), &'static str> {
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    let good = rest.is_some_and(|rest| {
        authority(rest.split(['/', '?']).next().unwrap_or_default()) && rest.bytes().all(|b| b.is_ascii_graphic())
    });
    demand(good, "an address like https://example.net/path")
}

/// A repository's address.
pub fn repository_url(text: &str) -> Result<(), &'static str> {
    let good = (text.starts_with("s3://") || text.starts_with("file:///")) && line(text).is_ok();
    demand(good, "an address like s3://bucket/prefix?region=eu-central-1 or file:///backup")
}

/// A mail server.
pub fn mail_server(text: &str) -> Result<(), &'static str> {
    let rest = text.strip_prefix("smtp://").or_else(|| text.strip_prefix("smtps://"));
    demand(rest.is_some_and(authority), "an address like smtp://mail.example.net:587")
}

/// A mail address; only what cannot be one is refused.
pub fn mail_address(text: &str) -> Result<(), &'static str> {
    let good = text.split_once('@').is_some_and(|(user, host)| !user.is_empty() && host_name(host));
    demand(good && text.bytes().all(|b| b.is_ascii_graphic()), "a mail address like ops@example.net")
}

/// Where Neo4j answers, or `off`.
pub fn bolt(text: &str) -> Result<(), &'static str> {
    const SCHEMES: [&str; 6] = ["bolt", "bolt+s", "bolt+ssc", "neo4j", "neo4j+s", "neo4j+ssc"];
    let good = text.split_once("://").is_some_and(|(scheme, rest)| SCHEMES.contains(&scheme) && authority(rest));
    demand(good || text == "off", "an address like bolt://127.0.0.1:7687, or off")
}

/// A backup service of Neo4j Enterprise.
pub fn backup_server(text: &str) -> Result<(), &'static str> {
    let port = text.rsplit_once(':').is_some_and(|(_, port)| port.bytes().all(|b| b.is_ascii_digit()));
    demand(port && authority(text), "an address like 127.0.0.1:6362")
}

/// A systemd service, or `none`.
pub fn unit(text: &str) -> Result<(), &'static str> {
    let name = text.strip_suffix(".service").unwrap_or_default();
    demand(word(name, 1..=247, ":_.@-\\") || text == "none", "a unit like neo4j.service, or none")
}

/// A cluster of Debian's tools.
pub fn cluster(text: &str) -> Result<(), &'static str> {
    let good = text.split_once('/').is_some_and(|(version, name)| {
        version.starts_with(|c: char| c.is_ascii_digit())
            && version.bytes().all(|b| b.is_ascii_digit() || b == b'.')
            && word(name, 1..=128, "._-")
            && !name.starts_with(['.', '-'])
    });
    demand(good, "a version and a name, like 15/main")
}

/// A directory of sockets, or a host.
pub fn socket_or_host(text: &str) -> Result<(), &'static str> {
    let directory = text.starts_with('/') && line(text).is_ok();
    demand(
        directory || host_name(text) || text.parse::<std::net::IpAddr>().is_ok(),
        "an absolute directory or a host's name",
    )
}

/// A Neo4j database; it is also a directory's name.
pub fn neo4j_database(text: &str) -> Result<(), &'static str> {
    let good = word(text, 1..=63, ".-_") && text.starts_with(|c: char| c.is_ascii_alphanumeric());
    demand(good, "a database's name: letters, digits, '.', '-' and '_', a letter or digit first")?;
    demand(
        !text.eq_ignore_ascii_case("system"),
        "the name of a database with data: each backup holds the database \"system\" as well",
    )
}

/// A repository's name.
pub fn repository_name(text: &str) -> Result<(), &'static str> {
    demand(crate::base::ids::TargetName::new(text).is_ok(), "a name of 1 to 32 characters out of a-z, 0-9 and _")
}

fn host_name(text: &str) -> bool {
    word(text, 1..=253, ".-_") && !text.starts_with(['.', '-'])
}

/// `host`, `host:port`, `[v6]:port`.
fn authority(text: &str) -> bool {
    let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, port)) => {
            if address.parse::<std::net::Ipv6Addr>().is_err() {
                return false;
            }
            ("localhost", port)
        }
        None => text.split_at(text.find(':').unwrap_or(text.len())),
    };
    let port_good = port.strip_prefix(':').map_or(port.is_empty(), |port| port.parse::<u16>().is_ok_and(|p| p > 0));
    host_name(host) && port_good
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_tell_good_from_bad() {
        let table: &[(&str, Rule, &[&str], &[&str])] = &[
            ("environment", environment, &["prod", "eu-1.x"], &["", ".x", "a/b", "prod west", "é"]),
            ("bucket", bucket, &["db-backups"], &["x", "a/b", "../x"]),
            ("prefix", prefix, &["", "%H", "a/b=c/", "x"], &["/a", "a//b", "../x", "a b"]),
            (
                "endpoint",
                endpoint,
                &["https://s3.example.net", "http://127.0.0.1:9000/"],
                &["s3.example.net", "https://", "https://a/b"],
            ),
            (
                "web",
                web_address,
                &["https://h/x?y=1", "http://[::1]:8/x"],
                &["ftp://h", "https://", "https://h/a b", "https://h:0/"],
            ),
            ("mail", mail_address, &["ops@example.net"], &["ops", "@x", "a@", "a b@c", "a@b\nBcc: c@d"]),
            (
                "bolt",
                bolt,
                &["bolt://127.0.0.1:7687", "neo4j+s://db.example.net", "off"],
                &["127.0.0.1:7687", "http://x", "bolt://", "bolt://h:x", "bolt://h:7687/x"],
            ),
            (
                "backup server",
                backup_server,
                &["127.0.0.1:6362", "db.example.net:6362", "[::1]:6362"],
                &["127.0.0.1", "", "a:1,b:2", "--x:1", "h:0", "http://h:1"],
            ),
            (
                "unit",
                unit,
                &["neo4j.service", "postgresql@15-main.service", "none"],
                &["neo4j", "", ".service", "../x.service", "a b.service"],
            ),
            ("cluster", cluster, &["15/main", "9.6/x-1"], &["main", "15", "/main", "15/../x", "15/.."]),
            ("host", socket_or_host, &["/run/postgresql", "db.example.net", "::1"], &["", "a b", "run/x"]),
            ("database", neo4j_database, &["neo4j", "a.b-c"], &["", "../x", ".x", "a/b"]),
            ("server", mail_server, &["smtp://mail:25", "smtps://mail.example.net"], &["mail", "smtp://"]),
            ("url", repository_url, &["s3://b/p", "file:///backup"], &["/backup", "file://backup", "ftp://x"]),
        ];
        for (name, rule, good, bad) in table {
            good.iter().for_each(|text| assert_eq!(rule(text), Ok(()), "{name}: {text:?}"));
            bad.iter().for_each(|text| assert!(rule(text).is_err(), "{name}: {text:?}"));
        }
    }
}
