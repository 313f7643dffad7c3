//! STS: the region's own endpoint, and those of other regions that are asked where it fails or does not answer.
//!
//! Credentials are good in every region whichever STS gave them. What STS decided stands: another region is asked only
//! where the answer was a 5xx, or there was none.

use std::{
    fmt,
    future::Future,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use aws_config::identity::IdentityCache;
use aws_sdk_sts::{Client, Config, config::Builder, error::SdkError};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_types::timeout::TimeoutConfig;
use aws_types::{SdkConfig, region::Region};
use prometheus_client::metrics::counter::Counter;
use tokio::sync::Semaphore;

use super::{
    cache::Cache,
    clock::{Clock, LearnSkew},
    roles::Timing,
    sdk::FromCache,
};
use crate::config::{aws::Aws, value::Upstream};

/// How long an endpoint that answered in another's stead is asked first: long enough that an outage costs time once,
/// short enough that a region's STS has its load back soon.
const AWAY: Duration = Duration::from_secs(5 * 60);

/// Calls at once: an agent of many roles starts, or all their sessions end together.
const MAX_CALLS: usize = 16;

/// Every endpoint. Clones share what was learned of them.
#[derive(Clone)]
pub(super) struct Sts(Arc<Inner>);

struct Inner {
    /// The region's own first.
    places: Vec<Place>,
    /// For regions that are none of theirs.
    elsewhere: Config,
    /// Whom to ask first, and until when.
    away: Mutex<Option<(usize, SystemTime)>>,
    calls: Semaphore,
    clock: Clock,
    failovers: Counter,
}

/// One endpoint.
struct Place {
    /// For errors: a region, or a URL.
    name: String,
    region: String,
    config: Config,
}

/// STS with credentials to sign with. Clones share them.
#[derive(Clone)]
pub(super) struct SignedSts {
    sts: Sts,
    clients: Arc<[Client]>,
}

/// No endpoint gave what was asked.
pub(super) struct Failed<E> {
    /// What the last one that was asked said.
    pub(super) last: SdkError<E, HttpResponse>,
    /// Endpoints that were asked before it, and what came of it.
    pub(super) before: Vec<(String, SdkError<E, HttpResponse>)>,
}

impl Sts {
    /// The endpoints of `settings`, asked with what `sdk` says of HTTP, time and retries.
    pub(super) fn new(
        sdk: &SdkConfig,
        settings: &Aws,
        clock: &Clock,
        timing: &Timing,
        failovers: Counter,
    ) -> Self {
        let own = sdk.region().map_or_else(String::new, ToString::to_string);
        let builder = || {
            Builder::from(sdk)
                // Ours alone caches: the SDK's drops what it has before it asks for more.
                .identity_cache(IdentityCache::no_cache())
                .interceptor(LearnSkew(clock.clone()))
        };
        let mut elsewhere = builder();
        elsewhere.set_endpoint_url(None);
        let mut places = Vec::new();
        let mut first = builder();
        if let Some(endpoint) = &settings.sts_endpoint {
            first = first.endpoint_url(url(endpoint));
        }
        let named = settings.sts_endpoint.as_ref().map(ToString::to_string);
        places.push((named.unwrap_or_else(|| own.clone()), own, first));
        for other in &settings.sts_failover {
            // `AWS_ENDPOINT_URL_STS` is the own region's.
            let mut builder = builder().region(Region::new(other.region.clone()));
            builder.set_endpoint_url(other.endpoint.as_ref().map(url));
            places.push((other.to_string(), other.region.clone(), builder));
        }
        let timeouts = (places.len() > 1).then(|| {
            TimeoutConfig::builder()
                .connect_timeout(timing.connect)
                .read_timeout(timing.attempt)
                .operation_attempt_timeout(timing.attempt)
                // What hangs once is not asked again while there are others.
                .operation_timeout(timing.before_failover)
                .build()
        });
        let places = places.into_iter().map(|(name, region, mut builder)| {
            if let Some(timeouts) = &timeouts {
                builder = builder.timeout_config(timeouts.clone());
            }
            Place {
                name,
                region,
                config: builder.build(),
            }
        });
        Self(Arc::new(Inner {
            places: places.collect(),
            elsewhere: elsewhere.build(),
            away: Mutex::default(),
            calls: Semaphore::new(MAX_CALLS),
            clock: clock.clone(),
            failovers,
        }))
    }

    /// Asked with these credentials.
    pub(super) fn signed_with(&self, credentials: &Cache) -> SignedSts {
        let client = |place: &Place| client(&place.config, credentials);
        SignedSts {
            sts: self.clone(),
            clients: self.0.places.iter().map(client).collect(),
        }
    }

    /// The STS of one region, asked with these credentials: the one that the configuration says for it, or AWS's.
    pub(super) fn in_region(&self, region: &str, credentials: &Cache) -> Client {
        let mut places = self.0.places.iter();
        if let Some(place) = places.find(|place| place.region == region) {
            return client(&place.config, credentials);
        }
        let mut config = self.0.elsewhere.to_builder();
        config.set_region(Some(Region::new(region.to_owned())));
        client(&config.build(), credentials)
    }

    /// Whom to ask first.
    fn first(&self) -> usize {
        let now = self.0.clock.now();
        let mut away = self.0.away.lock().unwrap_or_else(PoisonError::into_inner);
        // A clock that went back is no reason to stay away for ever.
        away.take_if(|(_, until)| now >= *until || *until > now + AWAY);
        away.map_or(0, |(place, _)| place)
    }

    fn answered(&self, place: usize) {
        let until = self.0.clock.now() + AWAY;
        let mut away = self.0.away.lock().unwrap_or_else(PoisonError::into_inner);
        match place {
            0 => *away = None,
            _ if away.is_none_or(|(other, _)| other != place) => *away = Some((place, until)),
            _ => {}
        }
    }
}

impl SignedSts {
    /// Asks the endpoints in turn until one decides. Cancel-safe.
    pub(super) async fn ask<T, E, F>(
        &self,
        mut call: impl FnMut(Client) -> F,
    ) -> Result<T, Failed<E>>
    where
        F: Future<Output = Result<T, SdkError<E, HttpResponse>>>,
    {
        // Never closed.
        let _permit = self.sts.0.calls.acquire().await;
        let first = self.sts.first();
        let count = self.clients.len();
        let mut before = Vec::new();
        for step in 0..count {
            let at = (first + step) % count;
            let (Some(client), Some(place)) = (self.clients.get(at), self.sts.0.places.get(at))
            else {
                break;
            };
            match call(client.clone()).await {
                Err(error) if step + 1 < count && is_undecided(&error) => {
                    tracing::debug!(
                        sts = place.name,
                        "no answer, or a failure: asking another region's STS"
                    );
                    self.sts.0.failovers.inc();
                    before.push((place.name.clone(), error));
                }
                Ok(answer) => {
                    self.sts.answered(at);
                    return Ok(answer);
                }
                Err(last) => return Err(Failed { last, before }),
            }
        }
        let nobody = "there is no STS endpoint";
        Err(Failed {
            last: SdkError::construction_failure(nobody),
            before,
        })
    }
}

/// Whether STS decided nothing: it failed, or gave no answer.
fn is_undecided<E>(error: &SdkError<E, HttpResponse>) -> bool {
    match error {
        // Of a 200 that is not whole the SDK makes an error of the service, too.
        SdkError::ServiceError(answer) => !(400..500).contains(&answer.raw().status().as_u16()),
        SdkError::ConstructionFailure(_) => false,
        _ => true,
    }
}

fn client(config: &Config, credentials: &Cache) -> Client {
    let config = config.to_builder();
    let provider = FromCache(credentials.clone());
    Client::from_conf(config.credentials_provider(provider).build())
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

impl fmt::Debug for Sts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let places = self.0.places.iter().map(|place| &place.name);
        f.debug_list().entries(places).finish()
    }
}
