//! The way to one route's upstream: who it must be, and the connections to it (S19).

use std::{
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{Instant, SystemTime},
};

use rustls::{ClientConfig, RootCertStore, client::Resumption};
use rustls_pki_types::ServerName;
use warifu::{
    SpiffeId,
    identity::Identity,
    tls::{self, ExpectedPeer},
};

use super::{Setup, refusal::Refusal, route::RouteError};
use crate::{
    config::{
        outbound::{Protocol, Route, TcpRoute},
        value::TcpUpstream,
    },
    http::pool::{Address, Admit, Destination, Keep, Pool, Proxy, Tls, Upstream},
    identity::Revocations,
    revocation::Provenance,
};

mod private_ca;

use private_ca::PrivateCa;

/// A route's upstream.
#[derive(Debug)]
pub(super) enum Link {
    /// Reached as it is: plaintext to loopback, or verified by the Web PKI.
    Fixed(Upstream),
    /// Verified by CA certificates in a file.
    Private(PrivateCa),
    /// Reached with our identity, and only if it is whom the route expects.
    Mtls(Box<Mtls>),
}

#[derive(Debug)]
pub(super) struct Mtls {
    expect: SpiffeId,
    /// Without its TLS, which needs an identity.
    destination: Destination,
    server_name: ServerName<'static>,
    keep: Keep,
    pool: Pool,
    revocations: Revocations,
    /// Made with the first identity: before, there is nothing to connect with.
    made: Mutex<Option<Made>>,
}

#[derive(Debug)]
struct Made {
    /// Of the identity.
    generation: u64,
    /// The revocation list its peers were last compared with.
    list: u64,
    /// Of the TLS: counts up with either.
    tls: u64,
    upstream: Upstream,
}

/// The TLS of upstreams that are known by a public certificate: Mozilla's roots.
///
/// # Errors
/// When the provider can't do TLS 1.2 and 1.3.
pub fn public_tls() -> Result<Arc<ClientConfig>, rustls::Error> {
    trusting(RootCertStore::from_iter(
        webpki_roots::TLS_SERVER_ROOTS.iter().cloned(),
    ))
}

/// The TLS of upstreams that are known by a certificate under `roots`.
fn trusting(roots: RootCertStore) -> Result<Arc<ClientConfig>, rustls::Error> {
    let mut config = ClientConfig::builder_with_provider(tls::provider())
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

impl Link {
    pub(super) fn new(route: &Route, setup: &Setup<'_>) -> Result<Self, RouteError> {
        let upstream = &route.upstream;
        let keep = Keep::UPSTREAM.connecting_within(route.timeouts.connect.0);
        let host = upstream.host.as_str();
        let ip = host.parse::<IpAddr>().ok();
        if !upstream.tls {
            // Only an address: a name could resolve to anything, `localhost` too.
            let Some(address) = ip.filter(IpAddr::is_loopback) else {
                return Err(RouteError::Plaintext {
                    route: route.host.clone(),
                    upstream: host.to_owned(),
                });
            };
            if route.mtls.is_some() {
                return Err(RouteError::MtlsWithoutTls {
                    route: route.host.clone(),
                });
            }
            let address = Address::Socket((address, upstream.port).into());
            let destination = Destination {
                http2: route.protocol == Protocol::Http2,
                ..Destination::new(address, None)
            };
            return Ok(Self::Fixed(setup.pool.upstream(destination, keep)));
        }
        let proxy = route.proxy.as_ref();
        let destination = Destination {
            proxy: proxy.map(|proxy| Proxy::new(address(&proxy.host, proxy.port))),
            ..Destination::new(address(host, upstream.port), None)
        };
        let asked_for = route
            .tls
            .as_ref()
            .and_then(|tls| tls.server_name.as_deref());
        let server_name =
            server_name(asked_for.unwrap_or(host)).ok_or_else(|| RouteError::HostName {
                route: route.host.clone(),
                upstream: host.to_owned(),
            })?;
        if let Some(mtls) = &route.mtls {
            return Ok(Self::Mtls(Box::new(Mtls {
                expect: mtls.expect.clone(),
                destination,
                server_name,
                keep,
                pool: setup.pool.clone(),
                revocations: setup.revocations.clone(),
                made: Mutex::new(None),
            })));
        }
        let ca_bundle = route.tls.as_ref().and_then(|tls| tls.ca_bundle.as_ref());
        if let Some(path) = ca_bundle {
            let ca = PrivateCa::new(path, server_name, destination, keep, setup.pool);
            return ca.map(Self::Private).map_err(|why| RouteError::CaBundle {
                route: route.host.clone(),
                why,
            });
        }
        let tls = Tls {
            config: Arc::clone(&setup.public_tls),
            server_name,
            generation: 0,
            admit: None,
            expires: None,
        };
        let destination = Destination {
            tls: Some(tls),
            ..destination
        };
        Ok(Self::Fixed(setup.pool.upstream(destination, keep)))
    }

    /// The upstream, as this identity may reach it now.
    pub(super) fn upstream(
        &self,
        identity: Option<&Identity>,
        now: SystemTime,
    ) -> Result<Upstream, Refusal> {
        match self {
            Self::Fixed(upstream) => Ok(upstream.clone()),
            Self::Private(ca) => Ok(ca.upstream(Instant::now())),
            Self::Mtls(mtls) => mtls.upstream(identity.ok_or(Refusal::NoIdentity)?, now),
        }
    }
}

/// An address that is known, or a name that is looked up at each connect.
fn address(host: &str, port: u16) -> Address {
    match host.parse::<IpAddr>() {
        Ok(ip) => Address::Socket((ip, port).into()),
        Err(_) => Address::Name(host.to_owned(), port),
    }
}

/// What is asked for in the handshake, and must be in the certificate.
fn server_name(host: &str) -> Option<ServerName<'static>> {
    match host.parse::<IpAddr>() {
        Ok(ip) => Some(ServerName::from(ip)),
        Err(_) => ServerName::try_from(host.to_owned()).ok(),
    }
}

impl Mtls {
    /// The way to a peer that opaque TCP is carried to.
    pub(super) fn over_tcp(route: &TcpRoute, setup: &Setup<'_>) -> Result<Self, RouteError> {
        let TcpUpstream { host, port } = &route.upstream;
        let no_name = || RouteError::HostName {
            route: route.upstream.to_string(),
            upstream: host.clone(),
        };
        Ok(Self {
            expect: route.mtls.expect.clone(),
            destination: Destination::new(address(host, *port), None),
            server_name: server_name(host).ok_or_else(no_name)?,
            keep: Keep::UPSTREAM,
            pool: setup.pool.clone(),
            revocations: setup.revocations.clone(),
            made: Mutex::new(None),
        })
    }

    /// New connections use `identity` from the first request that finds it new; those made with an
    /// older one take no request any more, nor do those of before the revocation list changed: they are
    /// made anew, and their peers compared with it. Nothing goes out under an identity that has expired.
    pub(super) fn upstream(
        &self,
        identity: &Identity,
        now: SystemTime,
    ) -> Result<Upstream, Refusal> {
        if identity.svid.not_after() <= now {
            return Err(Refusal::IdentityExpired);
        }
        let known = self.revocations.load();
        if known.is_too_old() {
            return Err(Refusal::RevocationsStale(known.to_string()));
        }
        let list = known.list.number();
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(made) = made.as_ref()
            && made.generation >= identity.generation
            && (made.list >= list || known.list.is_empty())
        {
            return Ok(made.upstream.clone());
        }
        let expected = ExpectedPeer::Id(self.expect.clone());
        let generation = made.as_ref().map_or(0, |made| made.tls) + 1;
        // That of the expected peer's own trust domain, and never another's with it.
        let trust_domain = self.expect.trust_domain();
        let bundle = identity
            .bundle_of(trust_domain)
            .ok_or_else(|| Refusal::NoBundle(trust_domain.clone()))?;
        let config = tls::client_config(identity, bundle, expected)
            .map_err(|error| Refusal::Identity(error.to_string()))?;
        let tls = Tls {
            config: Arc::new(config),
            server_name: self.server_name.clone(),
            generation,
            admit: Some(self.unless_revoked()),
            expires: Some(identity.svid.not_after()),
        };
        let upstream = match made.take() {
            Some(made) => {
                made.upstream.set_tls(tls);
                made.upstream
            }
            None => {
                let destination = Destination {
                    tls: Some(tls),
                    ..self.destination.clone()
                };
                self.pool.upstream(destination, self.keep)
            }
        };
        *made = Some(Made {
            generation: identity.generation,
            list,
            tls: generation,
            upstream: upstream.clone(),
        });
        Ok(upstream)
    }

    /// Admits the peer unless something it goes back to is revoked.
    fn unless_revoked(&self) -> Admit {
        let (revocations, expect) = (self.revocations.clone(), self.expect.clone());
        Admit::new(move |chain| {
            let known = revocations.load();
            if known.list.is_empty() {
                return Ok(());
            }
            match known.list.revokes(&Provenance::of_chain(&expect, chain)) {
                None => Ok(()),
                Some(kind) => Err(format!(
                    "the peer {expect} is revoked by {kind} ({})",
                    *known
                )),
            }
        })
    }
}
