//! Compiled routes.

use std::{collections::HashMap, sync::Arc};

use http::{
    HeaderValue, Uri,
    uri::{self, PathAndQuery},
};
use thiserror::Error;

use super::{
    Setup,
    attach::Credential,
    budget::Budget,
    link::Link,
    metrics::{Counters, Metrics},
    refusal::Refusal,
};
use crate::{
    config,
    http::{headers::Filter, path, patience::Patience},
};

/// Why a route can't be.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RouteError {
    /// Credentials and requests would be readable on the network.
    #[error("route {route}: plaintext to {upstream}, which is not loopback; use https")]
    Plaintext {
        /// The route's host.
        route: String,
        /// The upstream's.
        upstream: String,
    },
    /// mTLS needs TLS.
    #[error("route {route}: `mtls` needs an https upstream")]
    MtlsWithoutTls {
        /// The route's host.
        route: String,
    },
    /// The upstream's name can't be asked for.
    #[error("route {route}: {upstream} is not a host name")]
    HostName {
        /// The route's host.
        route: String,
        /// The upstream's.
        upstream: String,
    },
    /// Which of them would be attached?
    #[error("route {route}: a route attaches one credential, and this one names several")]
    TwoCredentials {
        /// The route's host.
        route: String,
    },
    /// The upstream can't be verified.
    #[error("route {route}: tls.ca_bundle: {why}")]
    CaBundle {
        /// The route's host.
        route: String,
        /// What is wrong with the file.
        why: String,
    },
    /// The signature can't be made.
    #[error("route {route}: `sigv4`: {why}")]
    SigV4 {
        /// The route's host.
        route: String,
        /// What was expected.
        why: String,
    },
    /// Nothing was wired to sign with.
    #[error("route {route}: `sigv4` without a signer")]
    NoSigner {
        /// The route's host.
        route: String,
    },
    /// The provider's certificate can't be verified as the route says.
    #[error("route {route}: oauth: {why}")]
    Oauth {
        /// The route's host.
        route: String,
        /// What is wrong.
        why: String,
    },
    /// Nothing was wired to have tokens of AWS from.
    #[error("route {route}: `aws_web_identity` without AWS")]
    NoAws {
        /// The route's host.
        route: String,
    },
    /// Which of them would serve?
    #[error("route {route} is there twice")]
    Twice {
        /// The route's host.
        route: String,
    },
}

/// The routes, by host.
#[derive(Debug)]
pub(super) struct Routes {
    by_host: HashMap<String, Route>,
    /// For the answer to those who asked for another.
    hosts: String,
}

/// One route.
#[derive(Debug)]
pub(super) struct Route {
    pub(super) host: String,
    pub(super) link: Link,
    /// The upstream's `host`.
    pub(super) authority: HeaderValue,
    base_path: String,
    pub(super) credential: Credential,
    pub(super) to_network: Arc<Filter>,
    pub(super) from_network: Arc<Filter>,
    pub(super) patience: Patience,
    pub(super) retries: config::outbound::Retries,
    pub(super) budget: Budget,
    pub(super) counters: Counters,
}

impl Routes {
    pub(super) fn new(setup: &Setup<'_>, metrics: &Metrics) -> Result<Self, RouteError> {
        let mut by_host = HashMap::new();
        for route in &setup.config.routes {
            let compiled = Route::new(route, setup, metrics)?;
            if by_host.insert(route.host.clone(), compiled).is_some() {
                let route = route.host.clone();
                return Err(RouteError::Twice { route });
            }
        }
        let hosts: Vec<_> = setup
            .config
            .routes
            .iter()
            .map(|r| r.host.as_str())
            .collect();
        let hosts = if hosts.is_empty() {
            "none".to_owned()
        } else {
            hosts.join(", ")
        };
        Ok(Self { by_host, hosts })
    }

    pub(super) fn find(&self, host: &str) -> Result<&Route, Refusal> {
        self.by_host.get(host).ok_or_else(|| Refusal::NoRoute {
            host: host.to_owned(),
            routes: self.hosts.clone(),
        })
    }
}

impl Route {
    fn new(
        route: &config::outbound::Route,
        setup: &Setup<'_>,
        metrics: &Metrics,
    ) -> Result<Self, RouteError> {
        let credential = Credential::new(route, setup)?;
        let upstream = &route.upstream;
        let authority =
            HeaderValue::try_from(upstream.authority()).map_err(|_| RouteError::HostName {
                route: route.host.clone(),
                upstream: upstream.host.clone(),
            })?;
        Ok(Self {
            link: Link::new(route, setup)?,
            authority,
            base_path: upstream.base_path.clone(),
            to_network: Arc::new(credential.filter()),
            credential,
            from_network: Arc::new(Filter::from_network()),
            patience: Patience::new(&route.timeouts),
            retries: route.retries.clone(),
            budget: Budget::new(),
            counters: metrics.counters(&route.host),
            host: route.host.clone(),
        })
    }

    /// The target as the upstream gets it: origin form, the path in normal form behind the base
    /// path, the query as it is.
    pub(super) fn rewrite(&self, uri: &Uri) -> Result<Uri, Refusal> {
        let normal = match self.credential.key_path(uri.path()) {
            Some(key) => key?,
            None => path::normal_form(uri.path())?,
        };
        let target = uri.path_and_query().ok_or(Refusal::Url)?;
        if self.base_path.is_empty() && normal == target.path() {
            return Ok(Uri::from(target.clone()));
        }
        let mut text = String::with_capacity(self.base_path.len() + target.as_str().len());
        text.push_str(&self.base_path);
        text.push_str(&normal);
        if let Some(query) = target.query() {
            text.push('?');
            text.push_str(query);
        }
        let target = PathAndQuery::try_from(text).map_err(|_| Refusal::Url)?;
        let mut parts = uri::Parts::default();
        parts.path_and_query = Some(target);
        Uri::from_parts(parts).map_err(|_| Refusal::Url)
    }
}
