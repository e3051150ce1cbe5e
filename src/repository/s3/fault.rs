//! What a bucket's answers, and the lack of them, mean: each becomes one of the registered errors, with what was
//! tried, on what, and what to do.
//!
//! Texts of the other side are foreign bytes: they are cut to one short line.

use crate::base::{Code, Error};
use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};

/// Longest text of the other side that is passed on, in characters.
const FOREIGN_TEXT_MAX: usize = 300;

/// A call to the store and what it needs.
#[derive(Clone, Debug)]
pub(super) struct Attempt {
    /// `uploading`, `listing`.
    pub(super) doing: &'static str,
    /// The right it takes, as IAM calls it.
    pub(super) right: &'static str,
    /// On what.
    pub(super) what: String,
}

/// Why a call failed.
#[derive(Debug)]
pub(super) enum Failure {
    /// The store answered with an error.
    Answer {
        /// HTTP status.
        status: u16,
        /// The store's own word for it, for example `NoSuchKey`; HEAD brings none.
        code: Option<String>,
        /// What it said.
        text: String,
    },
    /// There were no credentials to sign with.
    Credentials(String),
    /// The connection was not to be trusted.
    Tls(String),
    /// Plain HTTP was not allowed.
    Plain(String),
    /// No answer in time, or none that could be read.
    Silence(String),
}

impl<E> From<SdkError<E, HttpResponse>> for Failure
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
{
    fn from(error: SdkError<E, HttpResponse>) -> Self {
        if let SdkError::ServiceError(answer) = &error {
            let meta = answer.err().meta();
            return Failure::Answer {
                status: answer.raw().status().as_u16(),
                code: meta.code().map(one_line),
                text: one_line(meta.message().unwrap_or_default()),
            };
        }
        if let SdkError::ResponseError(answer) = &error
            && !answer.raw().status().is_success()
        {
            let status = answer.raw().status().as_u16();
            return Failure::Answer { status, code: None, text: "an answer that could not be read".to_owned() };
        }
        let text = chain(&error);
        let lower = text.to_lowercase();
        match () {
            () if text.contains(super::client::PLAIN_REFUSED) => Failure::Plain(text),
            () if lower.contains("credential") || lower.contains("identity") => Failure::Credentials(text),
            () if ["certificate", "unknownissuer", "tls", "handshake"].iter().any(|word| lower.contains(word)) => {
                Failure::Tls(text)
            }
            () => Failure::Silence(text),
        }
    }
}

/// The causes of an error in one line, each once.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        let next = inner.to_string();
        if !text.contains(&next) {
            text = format!("{text}: {next}");
        }
        source = inner.source();
    }
    one_line(&text)
}

fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(FOREIGN_TEXT_MAX).collect()
}

/// Words for credentials that do not count, or no longer.
const CREDENTIAL_CODES: [&str; 9] = [
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
    "ExpiredToken",
    "ExpiredTokenException",
    "TokenRefreshRequired",
    "InvalidToken",
    "InvalidSecurity",
    "UnrecognizedClientException",
    "NotSignedUp",
];
/// Words for another region than the bucket's.
const REGION_CODES: [&str; 4] =
    ["PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException", "TemporaryRedirect"];
/// Words for a full store.
const FULL_CODES: [&str; 4] =
    ["QuotaExceeded", "XMinioStorageFull", "InsufficientStorage", "XMinioAdminBucketQuotaExceeded"];

impl Failure {
    fn answered(&self, statuses: &[u16], codes: &[&str]) -> bool {
        match self {
            Failure::Answer { status, code: None, .. } => statuses.contains(status),
            Failure::Answer { code: Some(code), .. } => codes.contains(&code.as_str()),
            _ => false,
        }
    }

    /// There is no such object.
    pub(super) fn is_absent(&self) -> bool {
        self.answered(&[404], &["NoSuchKey", "NotFound"])
    }

    /// There is no such upload (any more).
    pub(super) fn is_no_upload(&self) -> bool {
        self.answered(&[404], &["NoSuchUpload", "NotFound"])
    }

    /// A condition (`If-Match`, `If-None-Match`) was not met.
    pub(super) fn is_condition(&self) -> bool {
        matches!(self, Failure::Answer { status: 412, .. })
    }

    /// Something else is just being done to the object or beside it; the same request may be taken a moment later.
    pub(super) fn is_crossing(&self) -> bool {
        matches!(self, Failure::Answer { status: 409, .. })
    }

    /// The wanted range lies outside the object.
    pub(super) fn is_range(&self) -> bool {
        self.answered(&[416], &["InvalidRange"])
    }

    /// It may have been carried out all the same: the answer got lost on the way.
    pub(super) fn is_uncertain(&self) -> bool {
        match self {
            Failure::Silence(_) => true,
            Failure::Answer { status, .. } => *status >= 500,
            _ => false,
        }
    }

    /// An answer that came without a word why, as HEAD's do.
    pub(super) fn is_mute_refusal(&self) -> bool {
        matches!(self, Failure::Answer { status: 400 | 401 | 403 | 301 | 307, code, .. }
            if code.as_deref().is_none_or(|code| !CREDENTIAL_CODES.contains(&code) && code != "AccessDenied"))
    }

    /// The error for people.
    pub(super) fn into_error(self, attempt: &Attempt, location: &str) -> Error {
        let Attempt { doing, right, what } = attempt;
        let (status, word, text) = match self {
            Failure::Answer { status, code, text } => (status, code, text),
            Failure::Credentials(text) => {
                return Error::new(Code::StorageCredentials, format!("{doing} {what} in {location}: {text}"));
            }
            Failure::Tls(text) => {
                return Error::new(Code::StorageUnreachable, format!("{doing} {what} in {location}: {text}"))
                    .with_hint(
                        "the store's certificate must be signed by an authority that this host trusts; \
                     `update-ca-certificates` adds one of your own",
                    );
            }
            Failure::Plain(text) => {
                return Error::new(Code::ConfigInvalid, format!("{doing} {what} in {location}: {text}"))
                    .with_hint("use an https:// endpoint, or say allow_http = true if that is meant");
            }
            Failure::Silence(text) => {
                return Error::new(Code::StorageUnreachable, format!("{doing} {what} in {location}: {text}"));
            }
        };
        let word = word.unwrap_or_default();
        let said = [word.as_str(), text.as_str()].iter().filter(|part| !part.is_empty()).copied().collect::<Vec<_>>();
        let said = if said.is_empty() { String::new() } else { format!(": {}", said.join(": ")) };
        let message = format!("{doing} {what} in {location}: the store answered {status}{said}");
        let error = |code| Error::new(code, message.clone());
        match word.as_str() {
            "NoSuchBucket" => error(Code::RepositoryNotFound)
                .with_hint("the bucket must exist: make it, or correct `bucket`, `region` or `endpoint`"),
            "NoSuchKey" | "NotFound" | "NoSuchUpload" => error(Code::ObjectNotFound),
            "RequestTimeTooSkewed" => error(Code::StorageCredentials)
                .with_hint("this host's clock is wrong, and signatures carry the time: `timedatectl` shows it"),
            "InvalidBucketName" => error(Code::ConfigInvalid),
            word if CREDENTIAL_CODES.contains(&word) => error(Code::StorageCredentials),
            word if FULL_CODES.contains(&word) => error(Code::BackupNoSpace)
                .with_hint("the store has no room left, or its quota for this bucket is used up"),
            word if REGION_CODES.contains(&word) => error(Code::ConfigInvalid)
                .with_hint("the bucket is in another region, or at another endpoint: set `region` of the repository"),
            word if word.starts_with("KMS.") => error(Code::StorageDenied)
                .with_hint("look at kms_key_id: the key must exist, be enabled and be usable with these credentials"),
            "AccessDenied" | "AllAccessDisabled" | "AccountProblem" | "Forbidden" => {
                error(Code::StorageDenied).with_hint(denied_hint(right, what, location))
            }
            _ if status == 401 || status == 403 => {
                error(Code::StorageDenied).with_hint(denied_hint(right, what, location))
            }
            _ if status == 404 => error(Code::ObjectNotFound),
            _ if status == 507 => error(Code::BackupNoSpace),
            _ if status >= 500 || status == 429 || status == 408 => error(Code::StorageUnreachable),
            _ => error(Code::RepositoryIo).with_hint("the store did not take the request; its own log says more"),
        }
    }
}

fn denied_hint(right: &str, what: &str, location: &str) -> String {
    format!("the credentials lack the right {right} on {what} in {location}; give it to them in the bucket's policy")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(status: u16, code: &str) -> Error {
        let code = (!code.is_empty()).then(|| code.to_owned());
        let attempt = Attempt { doing: "uploading", right: "s3:PutObject", what: "a/b".to_owned() };
        Failure::Answer { status, code, text: "why".to_owned() }.into_error(&attempt, "s3://bucket/p")
    }

    #[test]
    fn every_refusal_has_its_code() {
        for (status, word, code, exit) in [
            (403, "InvalidAccessKeyId", Code::StorageCredentials, 15),
            (403, "RequestTimeTooSkewed", Code::StorageCredentials, 15),
            (400, "ExpiredToken", Code::StorageCredentials, 15),
            (403, "AccessDenied", Code::StorageDenied, 15),
            (403, "", Code::StorageDenied, 15),
            (404, "NoSuchBucket", Code::RepositoryNotFound, 10),
            (503, "SlowDown", Code::StorageUnreachable, 75),
            (500, "", Code::StorageUnreachable, 75),
            (507, "XMinioStorageFull", Code::BackupNoSpace, 14),
            (301, "PermanentRedirect", Code::ConfigInvalid, 78),
            (400, "KMS.DisabledException", Code::StorageDenied, 15),
            (400, "EntityTooLarge", Code::RepositoryIo, 1),
        ] {
            let error = error(status, word);
            assert_eq!((error.code(), error.code().exit()), (code, exit), "{status} {word}");
            assert!(error.message().contains("uploading a/b in s3://bucket/p"), "{error}");
        }
    }

    #[test]
    fn a_missing_right_is_named() {
        let hint = error(403, "AccessDenied").hint().to_owned();
        assert!(hint.contains("s3:PutObject on a/b in s3://bucket/p"), "{hint}");
    }

    #[test]
    fn foreign_texts_are_one_short_line() {
        let long = one_line(&format!("a\nb\x1b[31m{}", "c".repeat(1000)));
        assert_eq!(long.chars().count(), FOREIGN_TEXT_MAX);
        assert!(!long.contains(char::is_control));
    }
}
