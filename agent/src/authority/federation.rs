//! The bundles of other trust domains: fetched, kept, and handed on to agents, each by itself.
//!
//! ```text
//! https_web, or https_spiffe (by the bundle there is) ──▶ not older than what is known ──▶ known ──▶ agents
//!      ▲ every refresh hint, also after a failure                                            └──▶ store
//! ```
//!
//! What is known is kept in the store, so that a replica that starts anew can still verify an endpoint whose
//! roots have rotated since the file of the configuration was written.

use std::{
    fs,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use thiserror::Error;
use warifu::{
    TrustDomain,
    identity::{BundleError, MAX_REFRESH_HINT, TrustBundle},
    tls::{self, Anchors, TlsError},
};

use super::{
    metrics::Metrics,
    publish::Page,
    state::{Store, StoreError},
    status::FederationStatus,
};
use crate::{
    config::authority::{Federated, FederationProfile},
    http::fetch::{FetchError, Fetcher, FetcherError, Limits, MAX_ANSWER},
    telemetry::timestamp::Timestamp,
};

mod kept;

use kept::Kept;

/// Longest bundle of another trust domain: forty roots. Every agent is sent all of them in one document.
const MAX_BUNDLE: usize = 64 * 1024;

/// A bundle is asked for at most this often, whatever its hint says.
const MIN_POLL: Duration = Duration::from_secs(10);

/// Between two attempts where nothing is known yet (SPIFFE Federation §4.1).
const DEFAULT_POLL: Duration = Duration::from_secs(5 * 60);

/// The trust domains we know.
#[derive(Debug, Default)]
pub(super) struct Federation {
    domains: Vec<Arc<Domain>>,
    /// The map for agents, and our own bundle that is in it; made anew when either has changed.
    map: Mutex<Option<(Bytes, Page)>>,
}

/// One trust domain.
#[derive(Debug)]
struct Domain {
    configured: Federated,
    /// Tells this configuration from another of the same trust domain.
    source: String,
    endpoint: Endpoint,
    known: Mutex<Known>,
}

/// How the endpoint is verified.
#[derive(Debug)]
enum Endpoint {
    /// By its name.
    Web(Fetcher),
    /// By its SPIFFE ID and the bundle that is known, so anew each time.
    Spiffe,
}

#[derive(Debug, Default)]
struct Known {
    bundle: Option<TrustBundle>,
    fetched_at: Option<SystemTime>,
    failure: Option<String>,
}

/// Why the configuration of a trust domain can't be used.
#[derive(Debug, Error)]
#[error("federation, {trust_domain}: {why}")]
pub struct FederationError {
    /// Which.
    pub trust_domain: TrustDomain,
    /// What is wrong.
    pub why: String,
}

/// Why a bundle was not taken over.
#[derive(Debug, Error)]
enum PollError {
    #[error(transparent)]
    Fetch(#[from] FetchError),
    #[error("what came is no bundle: {0}")]
    Bundle(#[from] BundleError),
    #[error("it offers sequence {offered}, and {known} is known: older bundles are not taken")]
    Older { offered: u64, known: u64 },
    #[error("nothing verifies its endpoint: {0}")]
    Unverifiable(#[from] TlsError),
    #[error("its endpoint has no SPIFFE ID in the configuration")]
    Unnamed,
}

impl Federation {
    /// What the configuration says, with the bundles of its files.
    pub(super) fn new(configured: &[Federated]) -> Result<Self, FederationError> {
        let domains = configured.iter().map(|it| Domain::new(it).map(Arc::new));
        Ok(Self {
            domains: domains.collect::<Result<_, _>>()?,
            map: Mutex::default(),
        })
    }

    /// Takes over what was kept in the store.
    pub(super) async fn load(&self, store: &dyn Store) -> Result<(), StoreError> {
        if self.domains.is_empty() {
            return Ok(());
        }
        let kept = Kept::load(store).await?;
        for domain in &self.domains {
            let Some((bundle, fetched_at)) = kept.bundle(&domain.configured, &domain.source) else {
                continue;
            };
            let mut known = domain.known();
            if check_sequence(known.bundle.as_ref(), &bundle).is_ok() {
                known.bundle = Some(bundle);
                known.fetched_at = Some(fetched_at);
            }
        }
        Ok(())
    }

    pub(super) fn count(&self) -> usize {
        self.domains.len()
    }

    /// Asks for the bundle of the trust domain `index`; says when to ask again.
    pub(super) async fn poll(
        &self,
        index: usize,
        store: &dyn Store,
        metrics: &Metrics,
        now: SystemTime,
    ) -> Duration {
        let Some(domain) = self.domains.get(index) else {
            return MAX_REFRESH_HINT;
        };
        let name = &domain.configured.trust_domain;
        let outcome = match domain.fetch().await {
            Ok(bundle) => domain.take(bundle, now),
            Err(why) => Err(why),
        };
        match outcome {
            Ok(changed) => {
                metrics.federated(name.as_str(), now);
                if changed {
                    tracing::info!(trust_domain = %name, "a federated bundle is new");
                    *lock(&self.map) = None;
                    self.keep(domain, store).await;
                }
            }
            Err(why) => {
                metrics.federation_failed(name.as_str());
                let why = why.to_string();
                let mut known = domain.known();
                if known.failure.as_ref() != Some(&why) {
                    tracing::warn!(trust_domain = %name, %why, "a federated bundle could not be refreshed");
                }
                known.failure = Some(why);
            }
        }
        let hint = domain.known().bundle.as_ref().map(|it| it.refresh_hint);
        hint.unwrap_or(DEFAULT_POLL)
            .clamp(MIN_POLL, MAX_REFRESH_HINT)
    }

    /// The bundles of all trust domains, ours among them, for agents.
    pub(super) fn map(&self, own: &TrustBundle, own_json: &Bytes) -> Page {
        let mut map = lock(&self.map);
        if let Some((of, page)) = &*map
            && of == own_json
        {
            return page.clone();
        }
        let federated = self.domains.iter();
        let federated: Vec<_> = federated
            .filter_map(|domain| domain.known().bundle.clone())
            .collect();
        let json = TrustBundle::map_to_json(std::iter::once(own).chain(&federated));
        let page = Page::always_asked_about(json.into());
        *map = Some((own_json.clone(), page.clone()));
        page
    }

    pub(super) fn status(&self) -> Vec<FederationStatus> {
        let domains = self.domains.iter().map(|domain| {
            let known = domain.known();
            FederationStatus {
                trust_domain: domain.configured.trust_domain.to_string(),
                sequence: known.bundle.as_ref().map(|bundle| bundle.sequence),
                roots: known
                    .bundle
                    .as_ref()
                    .map_or(0, |bundle| bundle.x509_authorities.len()),
                fetched_at: known.fetched_at.map(|at| Timestamp(at).to_string()),
                last_error: known.failure.clone(),
            }
        });
        domains.collect()
    }

    /// A store that is away costs only the next start what is known now.
    async fn keep(&self, domain: &Domain, store: &dyn Store) {
        let (bundle, fetched_at) = {
            let known = domain.known();
            (known.bundle.clone(), known.fetched_at)
        };
        let (Some(bundle), Some(fetched_at)) = (bundle, fetched_at) else {
            return;
        };
        if let Err(why) = kept::put(store, &domain.source, &bundle, fetched_at).await {
            let name = &domain.configured.trust_domain;
            tracing::warn!(trust_domain = %name, %why, "a federated bundle could not be kept for the next start");
        }
    }
}

impl Domain {
    fn new(configured: &Federated) -> Result<Self, FederationError> {
        let wrong = |why: String| FederationError {
            trust_domain: configured.trust_domain.clone(),
            why,
        };
        let fetcher = |why: FetcherError| wrong(why.to_string());
        let mut file = None;
        if let Some(path) = &configured.bundle {
            let in_file = |why: String| wrong(format!("bundle {path:?}: {why}"));
            let length = fs::metadata(path).map_err(|why| in_file(why.to_string()))?;
            if length.len() > MAX_BUNDLE as u64 {
                return Err(in_file(format!("it is over {MAX_BUNDLE} bytes")));
            }
            file = Some(fs::read(path).map_err(|why| in_file(why.to_string()))?);
        }
        let bundle = match (&file, &configured.bundle) {
            (Some(json), Some(path)) => {
                let bundle = TrustBundle::from_json(configured.trust_domain.clone(), json);
                let bundle = bundle.map_err(|why| wrong(format!("bundle {path:?}: {why}")))?;
                if bundle.x509_authorities.is_empty() {
                    return Err(wrong(format!("bundle {path:?}: it has no X.509 authority")));
                }
                Some(bundle)
            }
            _ => None,
        };
        Ok(Self {
            source: kept::source(configured, file.as_deref()),
            endpoint: match configured.profile {
                FederationProfile::HttpsWeb => Endpoint::Web(limited(
                    Fetcher::new(configured.ca_file.clone()).map_err(fetcher)?,
                )),
                FederationProfile::HttpsSpiffe => Endpoint::Spiffe,
            },
            known: Mutex::new(Known {
                bundle,
                ..Known::default()
            }),
            configured: configured.clone(),
        })
    }

    async fn fetch(&self) -> Result<TrustBundle, PollError> {
        let url = self.configured.url.to_string();
        let json = match &self.endpoint {
            Endpoint::Web(fetcher) => fetcher.get(&url).await?,
            Endpoint::Spiffe => self.by_spiffe_id()?.get(&url).await?,
        };
        let trust_domain = self.configured.trust_domain.clone();
        Ok(TrustBundle::from_json(trust_domain, &json)?)
    }

    /// A client that accepts only the endpoint's SPIFFE ID, under the roots that are known now.
    fn by_spiffe_id(&self) -> Result<Fetcher, PollError> {
        let roots = self
            .known()
            .bundle
            .as_ref()
            .map(|it| it.x509_authorities.clone());
        let anchors = Anchors {
            roots: roots.unwrap_or_default(),
            ..Anchors::default()
        };
        let id = self.configured.endpoint_spiffe_id.as_ref();
        let id = id.ok_or(PollError::Unnamed)?;
        Ok(limited(Fetcher::with_tls(tls::bootstrap_client_config(
            &anchors, id,
        )?)))
    }

    /// Takes a bundle over unless it is older than what is known; whether it is another.
    fn take(&self, bundle: TrustBundle, now: SystemTime) -> Result<bool, PollError> {
        let mut known = self.known();
        check_sequence(known.bundle.as_ref(), &bundle)?;
        let changed = known.bundle.as_ref() != Some(&bundle);
        *known = Known {
            bundle: Some(bundle),
            fetched_at: Some(now),
            failure: None,
        };
        Ok(changed)
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        lock(&self.known)
    }
}

/// A publisher without sequences has 0 always; then the last one counts.
fn check_sequence(known: Option<&TrustBundle>, offered: &TrustBundle) -> Result<(), PollError> {
    match known.map(|bundle| bundle.sequence) {
        Some(known) if offered.sequence < known => Err(PollError::Older {
            offered: offered.sequence,
            known,
        }),
        _ => Ok(()),
    }
}

fn limited(fetcher: Fetcher) -> Fetcher {
    fetcher.limited(Limits {
        answer: MAX_BUNDLE.min(MAX_ANSWER),
        ..Limits::default()
    })
}

/// What the locks guard is whole after every step.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
