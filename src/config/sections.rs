//! The tables that may be repeated below a target, each read for one target (or for none: the top level).

use super::kind;
use super::resolver::{Pick, Resolver};
use super::settings::{
    AlertSettings, CompressionAlgorithm, CompressionSettings, EncryptionMethod, EncryptionSettings, LimitSettings,
    MailAlert, PreflightSettings, RetentionSettings, ScheduleSettings, SecretSource, SloSettings, SpoolFull, UrlSource,
    WebhookAlert, WebhookFormat,
};
use super::value::{Origin, Value};
use std::path::{Path, PathBuf};

/// Fewest PBKDF2 iterations that need no word of their own.
pub const ITERATIONS_MIN: u32 = 100_000;
/// Where the passphrase is when nobody says otherwise.
pub const DEFAULT_PASSPHRASE_FILE: &str = "/etc/neo4j-backup/keys/current";
/// The systemd credential that holds the passphrase.
pub const PASSPHRASE_CREDENTIAL: &str = "passphrase";
/// The systemd credential that holds the signing secret.
pub const SIGNING_CREDENTIAL: &str = "signing";
/// Highest level of gzip.
const GZIP_LEVEL_MAX: u32 = 9;

/// `[encryption]`.
pub fn encryption(r: &mut Resolver<'_>, target: Option<&str>) -> EncryptionSettings {
    let method_pick = r.section_value(target, "encryption.method");
    let method = match method_pick.text().as_str() {
        "none" => EncryptionMethod::None,
        _ => EncryptionMethod::Aes256Cbc,
    };
    let iterations_pick = r.section_value(target, "encryption.iterations");
    let iterations = iterations_pick.integer();
    let allow_low_iterations = r.section_value(target, "encryption.allow_low_iterations").flag();
    if iterations < ITERATIONS_MIN && !allow_low_iterations {
        let text = format!("must be at least {ITERATIONS_MIN}, not {iterations}, unless allow_low_iterations = true");
        r.wrong(&iterations_pick, text);
    }
    let passphrase = passphrase(r, target);
    let signing_file = signing(r, target);
    if method == EncryptionMethod::None && signing_file.is_none() {
        r.wrong(&method_pick, "\"none\" needs signing_file: what is not encrypted is signed all the same");
    }
    let older = r.section_value(target, "encryption.older_passphrase_files");
    EncryptionSettings {
        method,
        passphrase,
        older: kind::texts(&older.value).into_iter().map(PathBuf::from).collect(),
        signing_file,
        iterations,
        allow_low_iterations,
    }
}

fn secret(r: &Resolver<'_>, pick: &Pick) -> SecretSource {
    let path = pick.path_buf();
    match &r.credentials {
        Some(directory) if path.starts_with(directory) => SecretSource::Credential(path),
        _ => SecretSource::File(path),
    }
}

fn credential(r: &mut Resolver<'_>, name: &str, key: &str) -> Option<Pick> {
    let path = r.credentials.as_ref()?.join(name);
    if !r.host.is_file(&path) {
        return None;
    }
    let value = Value::Text(path.display().to_string());
    Some(r.settle(key, value, Origin::Discovered(format!("systemd credential {name}"))))
}

fn passphrase(r: &mut Resolver<'_>, target: Option<&str>) -> SecretSource {
    const KEY: &str = "encryption.passphrase_file";
    let pick = r.section(target, KEY).or_else(|| credential(r, PASSPHRASE_CREDENTIAL, KEY));
    let pick = pick.unwrap_or_else(|| r.settle(KEY, Value::Text(DEFAULT_PASSPHRASE_FILE.to_owned()), Origin::Default));
    secret(r, &pick)
}

fn signing(r: &mut Resolver<'_>, target: Option<&str>) -> Option<SecretSource> {
    const KEY: &str = "encryption.signing_file";
    let pick = r.section(target, KEY).or_else(|| credential(r, SIGNING_CREDENTIAL, KEY))?;
    Some(secret(r, &pick))
}

/// `[compression]`.
pub fn compression(r: &mut Resolver<'_>, target: Option<&str>) -> CompressionSettings {
    let algorithm_pick = r.section_value(target, "compression.algorithm");
    let algorithm = match algorithm_pick.text().as_str() {
        "none" => CompressionAlgorithm::None,
        "gzip" => CompressionAlgorithm::Gzip,
        _ => CompressionAlgorithm::Zstd,
    };
    let default = if algorithm == CompressionAlgorithm::Gzip { 6u32 } else { 3 };
    let level = match r.section(target, "compression.level") {
        Some(pick) => {
            let level: u32 = pick.integer();
            if algorithm == CompressionAlgorithm::Gzip && level > GZIP_LEVEL_MAX {
                r.wrong(&pick, format_args!("must be from 1 to {GZIP_LEVEL_MAX} for gzip, not {level}"));
            }
            level
        }
        None if algorithm == CompressionAlgorithm::None => 0,
        None => {
            // Beside the algorithm it belongs to: another target may have another one.
            let table = algorithm_pick.path.strip_suffix("algorithm").unwrap_or_default();
            r.settle(&format!("{table}level"), Value::Integer(default.into()), Origin::Default).integer()
        }
    };
    CompressionSettings { algorithm, level: if algorithm == CompressionAlgorithm::None { 0 } else { level } }
}

/// When a Neo4j database has its full backup where nobody says when: half an hour after PostgreSQL's, so that the two
/// do not collide.
const NEO4J_FULL: &str = "02:30 UTC";

/// `[schedule]`, for a kind of target.
pub fn schedule(r: &mut Resolver<'_>, target: Option<(&str, &str)>) -> ScheduleSettings {
    let (target, kind) = target.unzip();
    let mut time = |key: &str| {
        let pick = r.section_value(target, key);
        let own = target.filter(|_| kind == Some("neo4j") && key == "schedule.full" && pick.origin == Origin::Default);
        let settled = own
            .map(|own| r.settle(&format!("target.{own}.{key}"), Value::Text(NEO4J_FULL.to_owned()), Origin::Default));
        Some(settled.unwrap_or(pick).text()).filter(|time| time != "off")
    };
    let (full, incremental) = (time("schedule.full"), time("schedule.incremental"));
    ScheduleSettings { full, incremental, at_start: r.section_value(target, "schedule.at_start").flag() }
}

/// `[retention]`.
pub fn retention(r: &mut Resolver<'_>, target: Option<&str>) -> RetentionSettings {
    RetentionSettings {
        daily: r.section_value(target, "retention.daily").integer(),
        weekly: r.section_value(target, "retention.weekly").integer(),
        monthly: r.section_value(target, "retention.monthly").integer(),
        days: r.section(target, "retention.days").map(|pick| pick.integer()),
        point_in_time: r.section_value(target, "retention.point_in_time").span(),
        minimum_verified: r.section_value(target, "retention.minimum_verified").integer(),
        trash: r.section_value(target, "retention.trash").span(),
    }
}

/// `[preflight]`.
pub fn preflight(r: &mut Resolver<'_>, target: Option<&str>) -> PreflightSettings {
    PreflightSettings { minimum_free_percent: r.section_value(target, "preflight.minimum_free_percent").integer() }
}

/// `[limits]`.
pub fn limits(r: &mut Resolver<'_>, target: Option<&str>) -> LimitSettings {
    LimitSettings {
        memory: r.section_value(target, "limits.memory").size(),
        bandwidth: r.section_value(target, "limits.bandwidth").size(),
        spool: r.section_value(target, "limits.spool").size(),
        spool_full: match r.section_value(target, "limits.spool_full").text().as_str() {
            "drop" => SpoolFull::Drop,
            _ => SpoolFull::Block,
        },
        set_aside_keep: r.section_value(target, "limits.set_aside_keep").span(),
    }
}

/// `[slo]`.
pub fn slo(r: &mut Resolver<'_>, target: Option<&str>) -> SloSettings {
    SloSettings { rpo: r.section_value(target, "slo.rpo").span(), rto: r.section_value(target, "slo.rto").span() }
}

/// `[alerts.*]`.
pub fn alerts(r: &mut Resolver<'_>, target: Option<&str>) -> AlertSettings {
    AlertSettings {
        mail: present(r, target, "alerts.mail").and_then(|table| mail(r, target, &table)),
        webhook: present(r, target, "alerts.webhook").and_then(|table| {
            let url = url(r, target, "alerts.webhook", &table)?;
            let format = r.section_said(target, "alerts.webhook.format");
            let format = format.or_else(|| r.value(&format!("{table}.format"), "alerts.webhook.format", ""));
            let slack = format.is_some_and(|pick| pick.text() == "slack");
            Some(WebhookAlert { url, format: if slack { WebhookFormat::Slack } else { WebhookFormat::Json } })
        }),
        ping: present(r, target, "alerts.ping").and_then(|table| url(r, target, "alerts.ping", &table)),
    }
}

/// The table, where it was named: the target's own or the top level's.
fn present(r: &Resolver<'_>, target: Option<&str>, table: &str) -> Option<String> {
    let own = target.map(|target| format!("target.{target}.{table}")).filter(|own| r.has_table(own));
    own.or_else(|| r.has_table(table).then(|| table.to_owned()))
}

fn given(r: &Resolver<'_>, table: &str, section: &str, key: &str) -> bool {
    r.was_given(&format!("{table}.{key}")) || r.was_given(&format!("{section}.{key}"))
}

fn mail(r: &mut Resolver<'_>, target: Option<&str>, table: &str) -> Option<MailAlert> {
    let to = r.section(target, "alerts.mail.to").map(|pick| kind::texts(&pick.value)).unwrap_or_default();
    if to.is_empty() {
        if !given(r, table, "alerts.mail", "to") || r.section(target, "alerts.mail.to").is_some() {
            r.wrong_table(table, "needs recipients: to = [\"ops@example.net\"]");
        }
        return None;
    }
    let from = r.section(target, "alerts.mail.from").unwrap_or_else(|| {
        let sender = format!("neo4j-backup@{}", r.host.name());
        r.settle(&format!("{table}.from"), Value::Text(sender), Origin::Discovered("this host's name".to_owned()))
    });
    let mut text = |key: &str| r.section(target, key).map(|pick| pick.text());
    let (smtp, user) = (text("alerts.mail.smtp"), text("alerts.mail.user"));
    let password_file = text("alerts.mail.password_file").map(PathBuf::from);
    if user.is_some() != password_file.is_some() {
        r.wrong_table(table, "needs both user and password_file, or neither");
    }
    Some(MailAlert { to, from: from.text(), smtp, user, password_file })
}

fn url(r: &mut Resolver<'_>, target: Option<&str>, section: &str, table: &str) -> Option<UrlSource> {
    let plain = r.section(target, &format!("{section}.url"));
    let file = r.section(target, &format!("{section}.url_file"));
    match (plain, file) {
        (Some(url), None) => Some(UrlSource::Plain(url.text())),
        (None, Some(file)) => Some(UrlSource::File(Path::new(&file.text()).to_owned())),
        (Some(_), Some(_)) => {
            r.wrong_table(table, "has both url and url_file: say one");
            None
        }
        (None, None) => {
            if !given(r, table, section, "url") && !given(r, table, section, "url_file") {
                r.wrong_table(table, "needs url or url_file");
            }
            None
        }
    }
}
