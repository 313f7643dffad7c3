//! What the configuration says of a listener, at one time: the terms on which it serves.
//!
//! They never change; a reload makes new ones, which take the place of the old in one step. A request takes those in
//! force when it begins, and is decided by them whole. What goes on for longer is asked again under those of the day.

use std::{num::NonZeroU32, sync::Arc, time::SystemTime};

use warifu::jwt::SigningKey;

use super::{
    Environment, StartError, authenticate::Authenticator, certificate::Certificate, key_file,
    rego::policy_of,
};
use crate::{
    config::{
        inbound::{self as config, Accept},
        outbound::Protocol,
        private::Staged,
        value::Listen,
    },
    http::{
        headers::{Filter, Unseen},
        patience::Patience,
        pool::{Address, Destination, Keep, SendError, Upstream},
    },
    policy::Policy,
};

/// One version of a listener's configuration, and what was made of it.
#[derive(Debug)]
pub(super) struct Terms {
    /// All of it but the rules, which are in the policy.
    pub(super) config: config::Inbound,
    pub(super) certificate: Arc<Certificate>,
    pub(super) authenticator: Arc<Authenticator>,
    pub(super) policy: Policy,
    pub(super) patience: Patience,
    /// Signs who called, for apps reached over TCP.
    pub(super) context_key: Option<Arc<SigningKey>>,
    pub(super) to_app: Arc<Filter>,
    /// What the app is told that caches never see.
    pub(super) unseen: Unseen,
    /// `None` where Envoy asks.
    app: Option<Upstream>,
    /// Of requests that are allowed, one in so many has its line in the audit log.
    pub(super) one_in: NonZeroU32,
}

/// Terms that are not in force yet.
#[derive(Debug)]
pub(super) struct Made {
    pub(super) terms: Terms,
    /// What their app verifies by, where it is new.
    key_file: Option<Staged>,
}

impl Made {
    /// The terms, to be served by from now on: what their app verifies by is in place.
    pub(super) fn in_force(self) -> Result<Terms, StartError> {
        self.key_file.map_or(Ok(()), Staged::put_in_place)?;
        Ok(self.terms)
    }
}

impl Terms {
    /// What `config` says. What it leaves as it was is taken over from `before`, with all that goes on there; the rest is
    /// made anew, and the files it names are read. Nothing outside changes.
    pub(super) fn of(
        config: &config::Inbound,
        one_in: NonZeroU32,
        environment: &Environment,
        before: Option<&Self>,
    ) -> Result<Made, StartError> {
        let kept = |is_same: fn(&config::Inbound, &config::Inbound) -> bool| {
            before.filter(|before| is_same(&before.config, config))
        };
        let same_certificate = |old: &config::Inbound, new: &config::Inbound| {
            old.tls == new.tls
                && old.accept == new.accept
                && old.client_cert_headers == new.client_cert_headers
        };
        let certificate = match kept(same_certificate) {
            Some(before) => Arc::clone(&before.certificate),
            None => {
                let files = kept(|old, new| old.tls == new.tls);
                let files = files.and_then(|before| before.certificate.files().cloned());
                let identity = environment.identity.clone();
                Arc::new(Certificate::new(config, identity, files)?)
            }
        };
        let same_callers = |old: &config::Inbound, new: &config::Inbound| {
            old.accept == new.accept && old.forward_claims == new.forward_claims
        };
        // With it goes what it remembers: what another verified, under other terms, proves nothing here.
        let authenticator = match kept(same_callers) {
            Some(before) => Arc::clone(&before.authenticator),
            None => Arc::new(Authenticator::new(config, environment)?),
        };
        let (context_key, key_file) = match kept(|old, new| old.context == new.context) {
            Some(before) => (before.context_key.clone(), None),
            None => context_key(config)?.unzip(),
        };
        let same_app = |old: &config::Inbound, new: &config::Inbound| {
            old.forward == new.forward
                && old.app_protocol == new.app_protocol
                && old.timeouts.connect == new.timeouts.connect
        };
        let app = match kept(same_app) {
            Some(before) => before.app.clone(),
            None => app(config, environment),
        };
        let terms = Self {
            certificate,
            authenticator,
            policy: policy_of(config)?,
            patience: Patience::new(&config.timeouts),
            context_key,
            to_app: Arc::new(to_app(config)),
            unseen: Unseen::new(config.forward_claims.values()),
            app,
            one_in,
            config: config::Inbound {
                allow: Vec::new(),
                deny: Vec::new(),
                ..config.clone()
            },
        };
        Ok(Made { terms, key_file })
    }

    /// Where it goes. A listener with an app keeps one: what has none is another's configuration.
    pub(super) fn app(&self) -> Result<&Upstream, SendError> {
        self.app.as_ref().ok_or_else(|| SendError::Connect {
            to: "the app".to_owned(),
            why: "the listener has none".to_owned(),
        })
    }

    /// Until when refusals are written down and don't happen.
    pub(super) fn permissive_until(&self) -> Option<SystemTime> {
        self.config.permissive.map(|permissive| permissive.until.0)
    }

    /// When a connection that begins `now` ends, where its client's proof ends at `expires`.
    pub(super) fn ends_by(
        &self,
        expires: Option<SystemTime>,
        now: SystemTime,
    ) -> Option<SystemTime> {
        let too_old = now.checked_add(self.config.max_connection_age.0);
        [expires, too_old].into_iter().flatten().min()
    }

    /// Whether headers may be asked about again.
    pub(super) fn keeps_headers(&self) -> bool {
        self.reads_headers() || self.policy.asks_rego()
    }

    /// Whether rules look at headers, or a proxy's word on the source address is taken from one.
    pub(super) fn reads_headers(&self) -> bool {
        self.config.trusted_hops > 0 || self.policy.reads_headers()
    }
}

fn context_key(config: &config::Inbound) -> Result<Option<(Arc<SigningKey>, Staged)>, StartError> {
    let Some(context) = &config.context else {
        return Ok(None);
    };
    let (key, staged) = key_file::stage(&context.key_file)?;
    Ok(Some((Arc::new(key), staged)))
}

fn to_app(config: &config::Inbound) -> Filter {
    let secrets = config.accept.iter().filter_map(|accept| match accept {
        Accept::SecretHeader(secret) => Some(&secret.header),
        _ => None,
    });
    let removed = config.forward_claims.values().chain(secrets);
    match config.ext_authz {
        Some(_) => Filter::to_app_of_proxy(removed),
        None => Filter::to_app(removed),
    }
}

fn app(config: &config::Inbound, environment: &Environment) -> Option<Upstream> {
    let address = match config.forward.as_ref()?.at() {
        Listen::Tcp(address) => Address::Socket(address),
        Listen::Unix(path) => Address::Unix(path),
    };
    let app = Destination {
        http2: config.app_protocol == Protocol::Http2,
        ..Destination::new(address, None)
    };
    let keep = Keep::APP.connecting_within(config.timeouts.connect.0);
    Some(environment.pool.upstream(app, keep))
}
