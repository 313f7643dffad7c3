//! How every client of the AWS SDK is set up: one HTTP client, one clock, one set of time-outs, and
//! credentials from our own cache.

use std::time::Duration;

use aws_config::{
    BehaviorVersion, ConfigLoader, environment::region::EnvironmentVariableRegionProvider,
    identity::IdentityCache, meta::region::RegionProviderChain, profile::ProfileFileRegionProvider,
    retry::RetryConfig, timeout::TimeoutConfig,
};
use aws_credential_types::{
    provider::SharedCredentialsProvider,
    provider::{ProvideCredentials, error::CredentialsError as ProviderError, future},
};
use aws_smithy_async::time::{SharedTimeSource, SystemTimeSource};
use aws_types::{SdkConfig, region::Region};
use prometheus_client::registry::Registry;

use super::{
    cache::Cache, clock::Clock, http::SdkHttpClient, metrics::Metrics, roles::Timing,
    session::SetupError, source::Source,
};
use crate::config::aws::Aws;

/// Longest pause between the SDK's attempts, with its jitter.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// What the clients of other services than STS's `AssumeRole` are made of (`Client::new(&sdk)`): KMS,
/// DynamoDB, ACM PCA, STS. Credentials come from the SDK's default chain (environment, profile, web
/// identity, container, instance), and are kept and renewed by our cache. Makes no call.
///
/// The region is the environment's, else the profile's, else `settings.region`. The SDK's own
/// environment variables for endpoints (`AWS_ENDPOINT_URL_KMS` and the like) work.
///
/// # Errors
/// When no region is known, or TLS can't be set up.
pub async fn sdk(settings: &Aws, registry: &mut Registry) -> Result<SdkConfig, SetupError> {
    let region = region(settings).await?;
    let clock = Clock::new(SharedTimeSource::new(SystemTimeSource::new()));
    let timing = Timing::default();
    let sdk = loader(region, &clock, &timing)?.load().await;
    let provider = chain(&sdk)?;
    let metrics = Metrics::default();
    metrics.register(registry);
    let base = Cache::new(Source::Base(provider), clock, timing.limits, &metrics);
    Ok(sdk
        .into_builder()
        // Ours alone caches: the SDK's drops what it has before it asks for more.
        .identity_cache(IdentityCache::no_cache())
        .credentials_provider(SharedCredentialsProvider::new(FromCache(base)))
        .build())
}

/// As [`sdk`], but with credentials from `provider`, in `settings.region`, and with every service at
/// `endpoint`: an emulator's.
///
/// # Errors
/// When `settings` has no region, or TLS can't be set up.
pub async fn sdk_at(
    settings: &Aws,
    provider: SharedCredentialsProvider,
    endpoint: &str,
) -> Result<SdkConfig, SetupError> {
    let region = settings.region.clone();
    let region = region.ok_or_else(|| SetupError::new("aws.region", "it must be set"))?;
    let clock = Clock::new(SharedTimeSource::new(SystemTimeSource::new()));
    let sdk = loader(Region::new(region), &clock, &Timing::default())?
        .credentials_provider(provider)
        .endpoint_url(endpoint);
    Ok(sdk.load().await)
}

/// The region: the environment's, else the profile's, else the configuration's.
pub(super) async fn region(settings: &Aws) -> Result<Region, SetupError> {
    // Instance metadata is not asked for the region: elsewhere than on EC2 that costs seconds.
    RegionProviderChain::first_try(EnvironmentVariableRegionProvider::new())
        .or_else(ProfileFileRegionProvider::new())
        .or_else(settings.region.clone().map(Region::new))
        .region()
        .await
        .ok_or_else(|| {
            SetupError::new(
                "aws.region",
                "no region is known; set it, or AWS_REGION, or the profile's region",
            )
        })
}

/// The SDK's default credential chain.
pub(super) fn chain(sdk: &SdkConfig) -> Result<SharedCredentialsProvider, SetupError> {
    sdk.credentials_provider()
        .ok_or_else(|| SetupError::new("aws", "the SDK has no credential chain"))
}

pub(super) fn loader(
    region: Region,
    clock: &Clock,
    timing: &Timing,
) -> Result<ConfigLoader, SetupError> {
    let http = SdkHttpClient::new()
        .map_err(|e| SetupError::new("aws", format!("TLS can't be set up: {e}")))?;
    Ok(aws_config::defaults(BehaviorVersion::latest())
        .region(region)
        .http_client(http)
        .time_source(clock.source())
        .retry_config(
            RetryConfig::standard()
                .with_max_attempts(timing.attempts)
                .with_initial_backoff(timing.first_pause)
                .with_max_backoff(LONGEST_PAUSE),
        )
        .timeout_config(
            TimeoutConfig::builder()
                .connect_timeout(timing.connect)
                .read_timeout(timing.attempt)
                .operation_attempt_timeout(timing.attempt)
                .operation_timeout(timing.call)
                .build(),
        ))
}

/// The base credentials for the SDK's own signer.
#[derive(Debug)]
pub(super) struct FromCache(pub(super) Cache);

impl ProvideCredentials for FromCache {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(async {
            match self.0.get().await {
                Ok(held) => Ok(held.credentials.clone()),
                Err(error) => Err(ProviderError::provider_error(error.to_string())),
            }
        })
    }
}
