//! The AWS identities of this agent.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak},
    time::Duration,
};

use aws_credential_types::provider::SharedCredentialsProvider;
use aws_sdk_sts::Client;
use aws_smithy_async::time::{SharedTimeSource, SystemTimeSource};
use aws_types::{SdkConfig, region::Region};
use prometheus_client::registry::Registry;
use warifu::{SpiffeId, aws::partition};

use super::{
    cache::{Cache, CredentialsStatus, Limits},
    clock::Clock,
    metrics::Metrics,
    sdk,
    session::{From, RoleSession, SessionError, SetupError},
    source::{IdentityTokens, Source, Token},
    sts::Sts,
};
use crate::config::{aws::Aws, value::RoleRef};

/// Time for one attempt at STS: it answers in well under a second, also from the other side of the
/// world; a stuck connection should leave time for another attempt.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(4);

/// Time for a call to STS with its retries, so for the first request of a route: below the time a
/// client of ours waits for its answer.
const CALL_TIMEOUT: Duration = Duration::from_secs(12);

/// The same where there is another region's STS to ask: one attempt that hangs, or three that fail at once. All four
/// endpoints there may be then have their turn within [`RENEWAL_TIMEOUT`].
const BEFORE_FAILOVER: Duration = Duration::from_secs(5);

/// Time to connect to STS or a metadata service.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// Attempts in a call. More only adds to the load that made the first ones fail; our own back-off follows.
const ATTEMPTS: u32 = 3;

/// Pause before the SDK's second attempt, doubled for the third, with its jitter.
const FIRST_PAUSE: Duration = Duration::from_millis(200);

/// A renewal: the credentials that sign first, if need be, then STS.
const RENEWAL_TIMEOUT: Duration = Duration::from_secs(25);

/// How long a request waits for new credentials while the old ones are still good for up to a minute.
const PATIENCE: Duration = Duration::from_secs(2);

/// The AWS identities of this agent: base credentials, and role sessions assumed with them, with each other or with
/// tokens.
///
/// Clones share one cache. Role sessions are those the configuration names, so their number is bounded.
#[derive(Debug, Clone)]
pub struct Roles(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    settings: Aws,
    base: Cache,
    sts: Sts,
    /// What clients of other services are made from.
    sdk: SdkConfig,
    region: String,
    clock: Clock,
    timing: Timing,
    metrics: Metrics,
    tokens: OnceLock<Weak<dyn IdentityTokens>>,
    sessions: Mutex<HashMap<RoleSession, Cache>>,
}

/// Limits of the SDK's calls and of ours. One place, so that tests can be quick.
#[derive(Debug, Clone, Copy)]
pub(super) struct Timing {
    pub(super) connect: Duration,
    pub(super) attempt: Duration,
    pub(super) call: Duration,
    pub(super) before_failover: Duration,
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
            before_failover: BEFORE_FAILOVER,
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
        Self::build(&sdk, provider, settings, clock, timing)
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
        Self::build(&sdk, provider, settings, clock, timing)
    }

    fn build(
        sdk: &SdkConfig,
        provider: SharedCredentialsProvider,
        settings: &Aws,
        clock: Clock,
        timing: Timing,
    ) -> Result<Self, SetupError> {
        let region = sdk.region().map_or_else(String::new, ToString::to_string);
        same_partition(&region, settings)?;
        let metrics = Metrics::default();
        let base = Source::Base(provider);
        let base = Cache::new(base, clock.clone(), timing.limits, &metrics);
        let sts = Sts::new(sdk, settings, &clock, &timing, metrics.failovers());
        Ok(Self(Arc::new(Inner {
            settings: settings.clone(),
            base,
            sts,
            sdk: sdk.clone(),
            region,
            clock,
            timing,
            metrics,
            tokens: OnceLock::new(),
            sessions: Mutex::default(),
        })))
    }

    /// The region of this agent.
    pub fn region(&self) -> &str {
        &self.0.region
    }

    /// The ARN of a role.
    pub fn arn<'a>(&'a self, role: &'a RoleRef) -> Option<&'a str> {
        self.0.settings.arn(role)
    }

    /// Registers the metrics.
    pub fn register(&self, registry: &mut Registry) {
        self.0.metrics.register(registry);
    }

    /// Whose tokens are presented for roles that are assumed with a token of this workload's issuer, for as long as the
    /// caller keeps them. The first that is said stays.
    pub fn present_tokens_of(&self, tokens: &Arc<dyn IdentityTokens>) {
        let _ = self.0.tokens.set(Arc::downgrade(tokens));
    }

    /// The session of `role`, for this workload. Makes no call.
    ///
    /// # Errors
    /// See [`SessionError`].
    pub fn session(
        &self,
        role: &RoleRef,
        workload: Option<&SpiffeId>,
    ) -> Result<RoleSession, SessionError> {
        RoleSession::new(&self.0.settings, role, workload)
    }

    /// For the status page: the base credentials, then every role session that was wanted so far.
    pub fn status(&self) -> Vec<CredentialsStatus> {
        let mut status: Vec<_> = self.sessions().values().map(Cache::status).collect();
        status.sort_by(|a, b| (&a.name, &a.session).cmp(&(&b.name, &b.session)));
        status.insert(0, self.0.base.status());
        status
    }

    pub(super) fn clock(&self) -> &Clock {
        &self.0.clock
    }

    pub(super) fn sdk(&self) -> &SdkConfig {
        &self.0.sdk
    }

    pub(super) fn base(&self) -> Cache {
        self.0.base.clone()
    }

    /// STS of this region (or of `region`), for what no other region's can answer, asked with `credentials`.
    pub(super) fn regional_sts(&self, region: Option<&str>, credentials: &Cache) -> Client {
        let region = region.unwrap_or(&self.0.region);
        self.0.sts.in_region(region, credentials)
    }

    /// The credentials of a session, and those it is assumed with.
    pub(super) fn credentials(&self, session: &RoleSession) -> Cache {
        if let Some(cache) = self.sessions().get(session) {
            return cache.clone();
        }
        // Outside of the lock: it makes those it is assumed with, in turn. Two at once make two, and one stays.
        let source = self.source(session);
        let (clock, limits) = (self.0.clock.clone(), self.0.timing.limits);
        let cache = Cache::new(source, clock, limits, &self.0.metrics);
        self.sessions()
            .entry(session.clone())
            .or_insert(cache)
            .clone()
    }

    fn source(&self, session: &RoleSession) -> Source {
        let base = self.base();
        let (session, clock) = (session.clone(), self.0.clock.clone());
        let token = match &session.parameters().from {
            From::Base => None,
            From::Role(before) => {
                let signer = self.credentials(before);
                let sts = self.0.sts.signed_with(&signer);
                return Source::Role {
                    session,
                    signer,
                    sts,
                    clock,
                };
            }
            From::File(path) => Some(Token::file(path)),
            From::Audience(audience) => Some(match self.0.tokens.get() {
                Some(tokens) => Token::Issued {
                    tokens: Weak::clone(tokens),
                    audience: audience.clone(),
                },
                None => Token::Nobody,
            }),
        };
        let sts = self.0.sts.signed_with(&base);
        match token {
            Some(token) => Source::Token {
                session,
                token,
                sts,
                clock,
            },
            None => Source::Role {
                session,
                signer: base,
                sts,
                clock,
            },
        }
    }

    fn sessions(&self) -> MutexGuard<'_, HashMap<RoleSession, Cache>> {
        let sessions = self.0.sessions.lock();
        sessions.unwrap_or_else(PoisonError::into_inner)
    }
}

/// Credentials are good in their own partition only.
fn same_partition(region: &str, settings: &Aws) -> Result<(), SetupError> {
    let of = |region: &str| partition(region).map(|it| it.id);
    for (index, other) in settings.sts_failover.iter().enumerate() {
        if let (Some(own), Some(theirs)) = (of(region), of(&other.region))
            && own != theirs
        {
            return Err(SetupError::new(
                format!("aws.sts_failover[{index}]"),
                format!(
                    "{} is in the partition {theirs}, and this agent's region {region} in {own}: expected a region \
                     of {own}",
                    other.region
                ),
            ));
        }
    }
    Ok(())
}
