//! Where credentials come from: the base ones from the SDK's default chain, role sessions from STS.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use aws_config::identity::IdentityCache;
use aws_credential_types::{
    Credentials, provider::ProvideCredentials, provider::SharedCredentialsProvider,
};
use aws_smithy_async::time::{SharedTimeSource, SystemTimeSource};
use aws_types::{SdkConfig, region::Region};
use prometheus_client::registry::Registry;

use super::{
    cache::{Cache, CredentialsStatus, Limits},
    clock::{Clock, LearnSkew},
    error::CredentialsError,
    metrics::Metrics,
    sdk::{self, FromCache},
    session::{RoleSession, SetupError},
};
use crate::config::{agent::Aws, value::Upstream};

/// Time for one attempt at STS: it answers in well under a second, also from the other side of the
/// world; a stuck connection should leave time for another attempt.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(4);

/// Time for a call to STS with its retries, so for the first request of a route: below the time a
/// client of ours waits for its answer.
const CALL_TIMEOUT: Duration = Duration::from_secs(12);

/// Time to connect to STS or a metadata service.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// Attempts in a call. More only adds to the load that made the first ones fail; our own back-off follows.
const ATTEMPTS: u32 = 3;

/// Pause before the SDK's second attempt, doubled for the third, with its jitter.
const FIRST_PAUSE: Duration = Duration::from_millis(200);

/// A renewal: the base credentials first, if need be, then STS.
const RENEWAL_TIMEOUT: Duration = Duration::from_secs(25);

/// How long a request waits for new credentials while the old ones are still good for up to a minute.
const PATIENCE: Duration = Duration::from_secs(2);

const BASE: &str = "the base credentials";

/// The AWS identities of this agent: base credentials, and role sessions assumed with them.
///
/// Clones share one cache. Role sessions are those the configuration names, so their number is bounded.
#[derive(Debug, Clone)]
pub struct Roles(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    base: Cache,
    sts: aws_sdk_sts::Client,
    /// What clients of other services are made from.
    sdk: SdkConfig,
    region: String,
    clock: Clock,
    timing: Timing,
    metrics: Metrics,
    sessions: Mutex<HashMap<RoleSession, Cache>>,
}

/// Limits of the SDK's calls and of ours. One place, so that tests can be quick.
#[derive(Debug, Clone, Copy)]
pub(super) struct Timing {
    pub(super) connect: Duration,
    pub(super) attempt: Duration,
    pub(super) call: Duration,
    pub(super) attempts: u32,
    pub(super) first_pause: Duration,
    pub(super) limits: Limits,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            connect: CONNECT_TIMEOUT,
            attempt: ATTEMPT_TIMEOUT,
            call: CALL_TIMEOUT,
            attempts: ATTEMPTS,
            first_pause: FIRST_PAUSE,
            limits: Limits {
                renewal: RENEWAL_TIMEOUT,
                patience: PATIENCE,
            },
        }
    }
}

impl Roles {
    /// Base credentials from the SDK's default chain: environment, profile, web identity token (IRSA),
    /// container (ECS, EKS Pod Identity), instance metadata. Makes no call; they are looked for when
    /// they are first needed.
    ///
    /// # Errors
    /// When no region is known, or TLS can't be set up.
    pub async fn from_environment(settings: &Aws) -> Result<Self, SetupError> {
        let region = sdk::region(settings).await?;
        let timing = Timing::default();
        let clock = Clock::new(SharedTimeSource::new(SystemTimeSource::new()));
        let sdk = sdk::loader(region, &clock, &timing)?.load().await;
        let provider = sdk::chain(&sdk)?;
        Ok(Self::build(&sdk, provider, settings, clock, timing))
    }

    /// Base credentials from `provider`, and nothing from the environment but what the SDK itself
    /// reads (`AWS_USE_FIPS_ENDPOINT` and the like).
    ///
    /// # Errors
    /// When `settings` has no region, or TLS can't be set up.
    pub async fn with_provider(
        settings: &Aws,
        provider: SharedCredentialsProvider,
    ) -> Result<Self, SetupError> {
        let source = SharedTimeSource::new(SystemTimeSource::new());
        Self::with_provider_and_time(settings, provider, source, Timing::default()).await
    }

    pub(super) async fn with_provider_and_time(
        settings: &Aws,
        provider: SharedCredentialsProvider,
        time: SharedTimeSource,
        timing: Timing,
    ) -> Result<Self, SetupError> {
        let region = settings
            .region
            .clone()
            .ok_or_else(|| SetupError::new("aws.region", "it must be set"))?;
        let clock = Clock::new(time);
        let sdk = sdk::loader(Region::new(region), &clock, &timing)?
            .credentials_provider(provider.clone())
            .load()
            .await;
        Ok(Self::build(&sdk, provider, settings, clock, timing))
    }

    fn build(
        sdk: &SdkConfig,
        provider: SharedCredentialsProvider,
        settings: &Aws,
        clock: Clock,
        timing: Timing,
    ) -> Self {
        let metrics = Metrics::default();
        let base = Source::Base(provider);
        let base = Cache::new(base, clock.clone(), timing.limits, &metrics);
        let mut sts = aws_sdk_sts::config::Builder::from(sdk)
            // Ours alone caches: the SDK's drops what it has before it asks for more.
            .identity_cache(IdentityCache::no_cache())
            .credentials_provider(FromCache(base.clone()))
            .interceptor(LearnSkew(clock.clone()));
        if let Some(endpoint) = &settings.sts_endpoint {
            sts = sts.endpoint_url(url(endpoint));
        }
        Self(Arc::new(Inner {
            base,
            sts: aws_sdk_sts::Client::from_conf(sts.build()),
            region: sdk
                .region()
                .map_or_else(String::new, |region| region.as_ref().to_owned()),
            sdk: sdk.clone(),
            clock,
            timing,
            metrics,
            sessions: Mutex::default(),
        }))
    }

    /// The region of this agent.
    pub fn region(&self) -> &str {
        &self.0.region
    }

    /// Registers the metrics.
    pub fn register(&self, registry: &mut Registry) {
        self.0.metrics.register(registry);
    }

    /// For the status page: the base credentials, then every role session that was wanted so far.
    pub fn status(&self) -> Vec<CredentialsStatus> {
        let sessions = self
            .0
            .sessions
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let mut status: Vec<_> = sessions.values().map(Cache::status).collect();
        status.sort_by(|a, b| (&a.name, &a.session).cmp(&(&b.name, &b.session)));
        status.insert(0, self.0.base.status());
        status
    }

    pub(super) fn clock(&self) -> &Clock {
        &self.0.clock
    }

    pub(super) fn sts(&self) -> &aws_sdk_sts::Client {
        &self.0.sts
    }

    pub(super) fn sdk(&self) -> &SdkConfig {
        &self.0.sdk
    }

    pub(super) fn base(&self) -> Cache {
        self.0.base.clone()
    }

    pub(super) fn session(&self, session: RoleSession) -> Cache {
        let mut sessions = self
            .0
            .sessions
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        sessions
            .entry(session)
            .or_insert_with_key(|session| {
                let source = Source::Role {
                    sts: self.0.sts.clone(),
                    base: self.0.base.clone(),
                    clock: self.0.clock.clone(),
                    session: session.clone(),
                };
                let (clock, limits) = (self.0.clock.clone(), self.0.timing.limits);
                Cache::new(source, clock, limits, &self.0.metrics)
            })
            .clone()
    }
}

/// Where credentials come from.
pub(super) enum Source {
    /// The default chain, or whatever stands for it.
    Base(SharedCredentialsProvider),
    /// `AssumeRole`, signed with the base credentials.
    Role {
        sts: aws_sdk_sts::Client,
        base: Cache,
        clock: Clock,
        session: RoleSession,
    },
}

impl Source {
    /// Whose credentials these are: a role's ARN, or [`BASE`], and the session's name.
    pub(super) fn names(&self) -> (String, Option<String>) {
        match self {
            Self::Base(_) => (BASE.to_owned(), None),
            Self::Role { session, .. } => {
                (session.role.clone(), Some(session.session_name.clone()))
            }
        }
    }

    pub(super) async fn load(&self) -> Result<Credentials, CredentialsError> {
        match self {
            Self::Base(provider) => provider
                .provide_credentials()
                .await
                .map_err(|error| CredentialsError::no_base(&error)),
            Self::Role {
                sts,
                base,
                clock,
                session,
            } => assume(sts, base, clock, session).await,
        }
    }
}

async fn assume(
    sts: &aws_sdk_sts::Client,
    base: &Cache,
    clock: &Clock,
    session: &RoleSession,
) -> Result<Credentials, CredentialsError> {
    // Asked for here, not left to the SDK, which would wrap the error beyond recognition.
    let signer = base
        .get()
        .await
        .map_err(|error| CredentialsError::for_role(&session.role, &error))?;
    let duration = i32::try_from(session.duration.as_secs()).unwrap_or(i32::MAX);
    let answer = sts
        .assume_role()
        .role_arn(&session.role)
        .role_session_name(&session.session_name)
        .set_external_id(session.external_id.clone())
        .duration_seconds(duration)
        .send()
        .await;
    let answer = answer.map_err(|error| {
        let keys = &signer.credentials;
        let secrets = [
            keys.secret_access_key(),
            keys.session_token().unwrap_or_default(),
        ];
        let error = CredentialsError::assume_role(&session.role, &error, clock.skew(), &secrets);
        if let CredentialsError::Refused { bad_base: true, .. } = error {
            base.doubt(&signer);
        }
        error
    })?;
    let Some(credentials) = answer.credentials else {
        return Err(CredentialsError::no_credentials(&session.role));
    };
    let expires = std::time::SystemTime::try_from(credentials.expiration)
        .map_err(|_| CredentialsError::no_credentials(&session.role))?;
    Ok(Credentials::new(
        credentials.access_key_id,
        credentials.secret_access_key,
        Some(credentials.session_token),
        Some(expires),
        "AssumeRole",
    ))
}

pub(super) fn url(endpoint: &Upstream) -> String {
    let scheme = if endpoint.tls { "https" } else { "http" };
    let Upstream {
        host,
        port,
        base_path,
        ..
    } = endpoint;
    let host = if host.contains(':') {
        format!("[{host}]")
    } else {
        host.clone()
    };
    format!("{scheme}://{host}:{port}{base_path}")
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Base(_) => "Base",
            Self::Role { .. } => "Role",
        })
    }
}
