//! The client of a bucket: where, as whom, how long anything may take, and how often it is tried again.

use super::bridge::Bridge;
use super::fault::{Attempt, Failure};
use super::{Checksums, Encryption, S3StoreSettings};
use crate::artifact::object_key::ObjectKey;
use crate::base::{Code, Error, Result};
use aws_config::environment::EnvironmentVariableRegionProvider;
use aws_config::imds::region::ImdsRegionProvider;
use aws_config::meta::region::RegionProviderChain;
use aws_config::profile::ProfileFileRegionProvider;
use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::config::interceptors::BeforeTransmitInterceptorContextRef;
use aws_sdk_s3::config::{
    BehaviorVersion, ConfigBag, Credentials, Intercept, Region, RequestChecksumCalculation, ResponseChecksumValidation,
    RuntimeComponents, StalledStreamProtectionConfig,
};
use aws_sdk_s3::error::{BoxError, ProvideErrorMetadata, SdkError};
use aws_sdk_s3::types::ServerSideEncryption;
use aws_smithy_http_client::tls::Provider;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// What a request over plain HTTP is refused with.
pub(super) const PLAIN_REFUSED: &str = "plain http is not allowed";
/// The region of stores that have none, as they themselves call it.
const REGION_OF_OTHERS: &str = "us-east-1";

/// How long a call may take and how often it is tried.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// Until a connection stands.
    pub(super) connect: Duration,
    /// From a request's end to the first byte of its answer.
    pub(super) first_byte: Duration,
    /// One try of a call that moves little.
    pub(super) attempt: Duration,
    /// All tries of a call that moves little.
    pub(super) operation: Duration,
    /// One try of a call that moves a part: 16 MiB at 30 kB/s.
    pub(super) transfer_attempt: Duration,
    /// All tries of a call that moves a part.
    pub(super) transfer_operation: Duration,
    /// Without a byte of a body that should be flowing.
    pub(super) stall: Duration,
    /// Tries of a call that a person may be waiting for.
    pub(super) attempts: u32,
    /// Tries of a call on which hours of work may hang: they outlast a minute's outage, although pauses are left to chance.
    pub(super) transfer_attempts: u32,
    /// The first pause between tries; it doubles, and half is left to chance.
    pub(super) first_pause: Duration,
    /// No pause is longer.
    pub(super) longest_pause: Duration,
    /// From the end of an upload to its last look: a part that was on its way may make an upload again of what was ended.
    pub(super) latecomers: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Patience {
            connect: Duration::from_secs(10),
            first_byte: Duration::from_secs(60),
            attempt: Duration::from_secs(90),
            operation: Duration::from_secs(180),
            transfer_attempt: Duration::from_secs(600),
            transfer_operation: Duration::from_secs(3600),
            stall: Duration::from_secs(60),
            attempts: 4,
            transfer_attempts: 30,
            first_pause: Duration::from_millis(200),
            longest_pause: Duration::from_secs(10),
            latecomers: Duration::from_secs(900),
        }
    }
}

/// The same bucket for two sorts of calls.
#[derive(Clone)]
pub(super) struct Clients {
    /// For whatever only looks or names. Somebody may be waiting to hear that nothing is reached; once something was, work is
    /// under way that outlasts an outage.
    pub(super) quick: Client,
    /// For whatever carries a body or ends an upload.
    pub(super) transfer: Client,
}

/// A bucket, what is known of it, and the way to it.
pub(super) struct Bucket {
    pub(super) settings: S3StoreSettings,
    pub(super) bridge: Bridge,
    pub(super) patience: Patience,
    keys: Option<(String, String)>,
    clients: Mutex<Option<Made>>,
    /// Whether the store has answered.
    reached: AtomicBool,
}

/// The clients as they were made.
struct Made {
    /// [`Clients::quick`] before the store has answered.
    hasty: Client,
    /// [`Clients::quick`] afterwards.
    steady: Client,
    transfer: Client,
}

impl Bucket {
    pub(super) fn new(settings: S3StoreSettings, patience: Patience, keys: Option<(String, String)>) -> Self {
        Bucket {
            settings,
            patience,
            keys,
            bridge: Bridge::default(),
            clients: Mutex::new(None),
            reached: AtomicBool::new(false),
        }
    }

    /// `s3://bucket/prefix`.
    pub(super) fn location(&self) -> String {
        match self.settings.prefix.as_str() {
            "" => format!("s3://{}", self.settings.bucket),
            prefix => format!("s3://{}/{prefix}", self.settings.bucket),
        }
    }

    /// What an object, or a prefix of objects, is called in the bucket.
    pub(super) fn name(&self, key: &str) -> String {
        match self.settings.prefix.as_str() {
            "" => key.to_owned(),
            prefix => format!("{prefix}/{key}"),
        }
    }

    /// What the store is asked to encrypt with, and the key.
    pub(super) fn encryption(&self) -> (Option<ServerSideEncryption>, Option<String>) {
        match &self.settings.encryption {
            Encryption::None => (None, None),
            Encryption::S3 => (Some(ServerSideEncryption::Aes256), None),
            Encryption::Kms(key) => (Some(ServerSideEncryption::AwsKms), key.clone()),
        }
    }

    /// The clients, made at the first call. Nothing is asked of the network for it, unless the region must be.
    pub(super) fn clients(&self) -> Result<Clients> {
        let mut kept = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        let made = match &mut *kept {
            Some(made) => made,
            none => {
                let (settings, patience, keys) = (self.settings.clone(), self.patience, self.keys.clone());
                none.insert(self.bridge.wait(async move { connect(&settings, &patience, keys).await })??)
            }
        };
        let quick = if self.reached.load(Ordering::Relaxed) { &made.steady } else { &made.hasty };
        Ok(Clients { quick: quick.clone(), transfer: made.transfer.clone() })
    }

    /// Carries a call out.
    pub(super) fn call<T, E, F>(&self, future: F) -> Result<Result<T, Failure>>
    where
        F: Future<Output = Result<T, SdkError<E, HttpResponse>>> + Send + 'static,
        E: ProvideErrorMetadata + std::error::Error + Send + 'static,
        T: Send + 'static,
    {
        let answer = self.bridge.wait(async move { future.await.map_err(Failure::from) })?;
        if answer.is_ok() {
            self.reached.store(true, Ordering::Relaxed);
        }
        Ok(answer)
    }

    /// Says what a call on an object failed with.
    pub(super) fn error(&self, doing: &'static str, right: &'static str, key: &ObjectKey, failure: Failure) -> Error {
        failure.into_error(&Attempt { doing, right, what: key.to_string() }, &self.location())
    }
}

async fn connect(settings: &S3StoreSettings, patience: &Patience, keys: Option<(String, String)>) -> Result<Made> {
    let http = aws_smithy_http_client::Builder::new().tls_provider(Provider::Rustls(CryptoMode::Ring)).build_https();
    let mut loader =
        aws_config::defaults(BehaviorVersion::v2026_01_12()).http_client(http).region(region(settings).await?);
    if let Some((id, secret)) = keys {
        loader = loader.credentials_provider(Credentials::new(id, secret, None, None, "given"));
    }
    if let Some(endpoint) = &settings.endpoint {
        loader = loader.endpoint_url(endpoint);
    }
    let shared = loader.load().await;
    let client = |attempts: u32, attempt: Duration, operation: Duration| {
        let mut config = aws_sdk_s3::config::Builder::from(&shared)
            .force_path_style(settings.path_style)
            .retry_config(
                RetryConfig::standard()
                    .with_max_attempts(attempts)
                    .with_initial_backoff(patience.first_pause)
                    .with_max_backoff(patience.longest_pause),
            )
            .timeout_config(
                TimeoutConfig::builder()
                    .connect_timeout(patience.connect)
                    .read_timeout(patience.first_byte)
                    .operation_attempt_timeout(attempt)
                    .operation_timeout(operation)
                    .build(),
            )
            // Bodies that come in have a watch of their own, which knows how slow the reader is.
            .stalled_stream_protection(
                StalledStreamProtectionConfig::enabled()
                    .upload_enabled(true)
                    .download_enabled(false)
                    .grace_period(patience.stall)
                    .build(),
            )
            .interceptor(OnlyTls { allow_http: settings.allow_http });
        let (calculation, validation) = match settings.checksums {
            Checksums::WhenRequired => {
                (RequestChecksumCalculation::WhenRequired, ResponseChecksumValidation::WhenRequired)
            }
            Checksums::WhenSupported => {
                (RequestChecksumCalculation::WhenSupported, ResponseChecksumValidation::WhenSupported)
            }
        };
        config.set_request_checksum_calculation(Some(calculation));
        config.set_response_checksum_validation(Some(validation));
        if let Some(endpoint) = &settings.endpoint {
            // The environment's AWS_ENDPOINT_URL_S3 would come first otherwise.
            config = config.endpoint_url(endpoint);
        }
        Client::from_conf(config.build())
    };
    Ok(Made {
        hasty: client(patience.attempts, patience.attempt, patience.operation),
        steady: client(patience.transfer_attempts, patience.attempt, patience.operation),
        transfer: client(patience.transfer_attempts, patience.transfer_attempt, patience.transfer_operation),
    })
}

/// The region that is configured, or that the environment or the profile says. On Amazon's own machines the machine
/// knows it; another store takes any.
async fn region(settings: &S3StoreSettings) -> Result<Region> {
    let said = RegionProviderChain::first_try(settings.region.clone().map(Region::new))
        .or_else(EnvironmentVariableRegionProvider::new())
        .or_else(ProfileFileRegionProvider::new());
    let found = match &settings.endpoint {
        Some(_) => said.or_else(Region::new(REGION_OF_OTHERS)).region().await,
        None => said.or_else(ImdsRegionProvider::builder().build()).region().await,
    };
    found.ok_or_else(|| {
        Error::new(Code::ConfigInvalid, format!("opening s3://{}: no region is known", settings.bucket))
            .with_hint("set `region` of the repository to the bucket's region")
    })
}

/// Refuses to speak without TLS, whatever the environment's endpoints say, before anything is sent.
#[derive(Debug)]
struct OnlyTls {
    allow_http: bool,
}

impl Intercept for OnlyTls {
    fn name(&self) -> &'static str {
        "OnlyTls"
    }

    fn read_before_transmit(
        &self,
        context: &BeforeTransmitInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let uri = context.request().uri();
        if self.allow_http || uri.starts_with("https://") {
            return Ok(());
        }
        Err(format!("{PLAIN_REFUSED}: {}", uri.split('?').next().unwrap_or_default()).into())
    }
}
