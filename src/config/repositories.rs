//! The repositories: a directory, a bucket, or what a URL says of either.

use super::resolver::{Pick, Resolver};
use super::schema;
use super::settings::{RepositorySettings, RequestChecksums, S3Settings, ServerSideEncryption};
use super::value::{Origin, Value};
use std::collections::BTreeMap;
use std::path::Path;

/// Name of the repository that is there when none is configured.
pub const DEFAULT_REPOSITORY: &str = "main";
/// What a URL's query may say.
const URL_PARAMETERS: [&str; 7] = ["region", "endpoint", "path_style", "allow_http", "sse", "kms_key_id", "checksums"];

/// All repositories; the default one when none was named.
pub fn repositories(r: &mut Resolver<'_>, state_directory: &Path) -> BTreeMap<String, RepositorySettings> {
    let mut names = r.names_below("repository");
    if names.is_empty() {
        names.push(DEFAULT_REPOSITORY.to_owned());
    }
    let mut found = BTreeMap::new();
    for name in names {
        let table = format!("repository.{name}");
        if let Some(settings) = repository(r, &table, state_directory) {
            let twin =
                found.iter().find(|(_, other)| **other == settings).map(|(other, _): (&String, _)| other.clone());
            if let Some(twin) = twin {
                r.wrong_table(&table, format_args!("is the same place as repository.{twin}"));
            }
            found.insert(name, settings);
        }
    }
    found
}

fn repository(r: &mut Resolver<'_>, table: &str, state_directory: &Path) -> Option<RepositorySettings> {
    if let Some(url) = r.said(&format!("{table}.url")) {
        expand_url(r, table, &url);
        r.replaced(&url.path);
    }
    let kind = r.value(&format!("{table}.type"), "repository.*.type", "")?;
    if kind.text() == "s3" {
        return s3(r, table).map(RepositorySettings::S3);
    }
    let key = format!("{table}.path");
    let pick = r.said(&key).unwrap_or_else(|| {
        let path = state_directory.join("repository").display().to_string();
        r.settle(&key, Value::Text(path), Origin::Default)
    });
    Some(RepositorySettings::Local { path: pick.path_buf() })
}

/// Every part of a URL stands for the key of that name.
fn expand_url(r: &mut Resolver<'_>, table: &str, url: &Pick) {
    let text = url.text();
    let (kind, rest) = match text.split_once("://") {
        Some(("s3", rest)) => ("s3", rest),
        Some(("file", rest)) => ("local", rest),
        _ => return,
    };
    let key = |name: &str| format!("{table}.{name}");
    let kind_key = key("type");
    match r.said(&kind_key) {
        Some(said) if said.text() != kind => {
            return r.wrong(url, format_args!("is of type \"{kind}\", but type says {}", said.value));
        }
        Some(_) => {}
        None => r.stands_for(&kind_key, Value::Text(kind.to_owned()), url),
    }
    if kind == "local" {
        return part(r, table, "path", kind, Value::Text(rest.to_owned()), url);
    }
    let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (bucket, prefix) = place.split_once('/').unwrap_or((place, ""));
    part(r, table, "bucket", kind, Value::Text(bucket.to_owned()), url);
    if !prefix.is_empty() {
        part(r, table, "prefix", kind, Value::Text(prefix.to_owned()), url);
    }
    for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        if !URL_PARAMETERS.contains(&name) {
            let guess = schema::nearest(name, URL_PARAMETERS).map(|near| format!("; did you mean \"{near}\"?"));
            r.wrong(url, format_args!("has an unknown parameter {name:?}{}", guess.unwrap_or_default()));
            continue;
        }
        let value = match value {
            "true" => Value::Flag(true),
            "false" => Value::Flag(false),
            text => Value::Text(text.to_owned()),
        };
        part(r, table, name, kind, value, url);
    }
}

fn part(r: &mut Resolver<'_>, table: &str, name: &str, kind: &str, value: Value, url: &Pick) {
    let verdict = schema::key(&format!("repository.*.{name}"), kind).map(|key| key.kind.check(&value));
    match verdict {
        Some(Err(text)) => r.wrong(url, format_args!("{name} {text}")),
        _ => r.stands_for(&format!("{table}.{name}"), value, url),
    }
}

fn s3(r: &mut Resolver<'_>, table: &str) -> Option<S3Settings> {
    let key = |name: &str| format!("{table}.{name}");
    let Some(bucket) = r.said(&key("bucket")) else {
        if !r.was_given(&key("bucket")) && !r.was_given(&key("url")) {
            r.wrong_table(table, "needs a bucket: bucket = \"…\" or url = \"s3://bucket/prefix\"");
        }
        return None;
    };
    let optional = |r: &mut Resolver<'_>, name: &str| r.said(&key(name));
    let endpoint = optional(r, "endpoint");
    let kms_key_id = optional(r, "kms_key_id");
    let region = optional(r, "region").map(|pick| pick.text());
    let mut value = |name: &str| r.value(&key(name), &format!("repository.*.{name}"), "s3");
    let prefix = value("prefix");
    let path_style = value("path_style").is_some_and(|pick| pick.flag());
    let allow_http = value("allow_http").is_some_and(|pick| pick.flag());
    let sse = match value("sse").map(|pick| pick.text()).as_deref() {
        Some("s3") => ServerSideEncryption::S3,
        Some("kms") => ServerSideEncryption::Kms,
        _ => ServerSideEncryption::None,
    };
    let checksums = match value("checksums").map(|pick| pick.text()).as_deref() {
        Some("when_supported") => RequestChecksums::WhenSupported,
        _ => RequestChecksums::WhenRequired,
    };
    if let Some(endpoint) = endpoint.as_ref().filter(|pick| pick.text().starts_with("http://") && !allow_http) {
        r.wrong(endpoint, "is not encrypted in transit; if that is meant, say allow_http = true");
    }
    if let Some(kms) = kms_key_id.as_ref().filter(|_| sse != ServerSideEncryption::Kms) {
        r.wrong(kms, "needs sse = \"kms\"");
    }
    Some(S3Settings {
        bucket: bucket.text(),
        prefix: prefix.map(|prefix| expand_prefix(r, &prefix)).unwrap_or_default(),
        region,
        endpoint: endpoint.map(|pick| pick.text().trim_end_matches('/').to_owned()),
        path_style,
        allow_http,
        sse,
        kms_key_id: kms_key_id.map(|pick| pick.text()),
        checksums,
    })
}

/// `%H` → the host's name. No other specifier exists.
fn expand_prefix(r: &mut Resolver<'_>, prefix: &Pick) -> String {
    let text = prefix.text();
    if text.replace("%H", "").contains('%') {
        r.wrong(prefix, format_args!("{text:?} has a % that is not %H"));
    }
    text.replace("%H", &r.host.name()).trim_end_matches('/').to_owned()
}
