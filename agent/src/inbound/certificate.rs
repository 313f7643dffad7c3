//! What the listener presents in a handshake, and whom the handshake proved.

use std::{
    fmt::Write,
    slice,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::SystemTime,
};

use arc_swap::ArcSwapOption;
use aws_lc_rs::digest::{SHA256, digest};
use rustls::ServerConfig;
use rustls_pki_types::CertificateDer;
use warifu::{
    SpiffeId, TrustDomain,
    caller::Peer,
    identity::Identity,
    tls::{self, Callers},
};

use super::refusal::Refusal;
use crate::{
    config::inbound::{self as config, Accept, ClientCert, Presents},
    http::{
        server::{Refused, Security, Tls},
        tls_files::{self, TlsFilesError},
    },
    identity,
    revocation::Provenance,
};
pub(super) use files::Files;
pub(super) use headers::Headers;
use headers::Told;

mod files;
mod headers;

/// The TLS side of a listener.
#[derive(Debug)]
pub(super) struct Certificate {
    identity: identity::Current,
    /// What is presented in place of the agent's X.509-SVID.
    files: Option<Arc<Files>>,
    client_cert: ClientCert,
    /// Trust domains whose workloads may present a certificate.
    accepted: Vec<TrustDomain>,
    /// What the app is told of a caller's.
    told: Told,
    /// Whether HTTP is spoken above; else ALPN has nothing to choose from, and whatever a client offers is fine.
    http: bool,
    current: ArcSwapOption<Configured>,
}

/// A configuration, made once per identity snapshot and content of the files.
#[derive(Debug)]
struct Configured {
    made_of: MadeOf,
    tls: Tls,
}

/// The generations of the identity, where that matters, and of the files.
type MadeOf = (Option<u64>, Option<u64>);

/// A peer that proved itself.
#[derive(Debug)]
pub(super) struct Proved {
    pub(super) peer: Peer,
    /// The SHA-256 of its certificate.
    pub(super) certificate: [u8; 32],
    /// When its certificate expires.
    pub(super) expires: SystemTime,
    /// What the app is told of it.
    pub(super) headers: Headers,
    /// What it goes back to.
    pub(super) provenance: Provenance,
    /// Of another trust domain than ours.
    pub(super) foreign: Option<Foreign>,
}

/// A peer of another trust domain. Its bundle may change or be withdrawn while it is connected.
#[derive(Debug)]
pub(super) struct Foreign {
    trust_domain: TrustDomain,
    chain: Vec<CertificateDer<'static>>,
    /// The generation of the snapshot that verifies it: asked once per snapshot, not once per request.
    verified: AtomicU64,
}

impl Certificate {
    /// As `config` has it, with `files` where they are the ones it names; else they are read.
    pub(super) fn new(
        config: &config::Inbound,
        identity: identity::Current,
        files: Option<Arc<Files>>,
    ) -> Result<Self, TlsFilesError> {
        let accepted = config.accept.iter().filter_map(|accept| match accept {
            Accept::Mtls { trust_domains } => Some(trust_domains),
            _ => None,
        });
        let accepted = accepted.flatten().cloned().collect();
        let files = match config.tls.as_ref().map(|tls| &tls.presents) {
            None | Some(Presents::Svid) => None,
            Some(Presents::Files(listed)) => match files {
                Some(files) => Some(files),
                None => Some(Arc::new(Files::load(listed)?)),
            },
        };
        let client_cert = match (&config.ext_authz, config.client_cert()) {
            // Envoy asks for them, and says of whom it had none.
            (Some(_), ClientCert::Required) => ClientCert::Optional,
            (_, asked) => asked,
        };
        Ok(Self {
            identity,
            files,
            client_cert,
            accepted,
            told: Told::new(&config.client_cert_headers),
            http: !config.is_opaque(),
            current: ArcSwapOption::empty(),
        })
    }

    /// Our X.509-SVID, to workloads of these trust domains, which must present theirs.
    pub(super) fn of_svid(accepted: Vec<TrustDomain>, identity: identity::Current) -> Self {
        Self {
            identity,
            files: None,
            client_cert: ClientCert::Required,
            accepted,
            told: Told::default(),
            http: true,
            current: ArcSwapOption::empty(),
        }
    }

    /// Whether callers are asked for one.
    pub(super) fn client_cert(&self) -> ClientCert {
        self.client_cert
    }

    /// What is presented from files, where it is.
    pub(super) fn files(&self) -> Option<&Arc<Files>> {
        self.files.as_ref()
    }

    /// How a handshake at `now` is made: with what there is now, never with what has expired (S13).
    pub(super) fn current(&self, now: SystemTime) -> Security {
        let identity = self.identity.borrow().clone();
        let made_of = (
            identity
                .as_ref()
                .filter(|_| self.needs_identity())
                .map(|it| it.generation),
            self.files.as_ref().map(|files| files.generation()),
        );
        let expires = match (&self.files, &identity) {
            (Some(files), _) => files.expires(now),
            (None, None) => return Security::Unavailable("this agent has no identity yet"),
            (None, Some(identity)) => Some(identity.svid.not_after()).filter(|at| *at > now),
        };
        if expires.is_none() {
            return Security::Unavailable("what this agent presents has expired");
        }
        if let Some(current) = &*self.current.load()
            && current.made_of == made_of
        {
            return Security::Tls(current.tls.clone());
        }
        match self.configure(identity.as_deref()) {
            Ok(None) => Security::Unavailable("this agent has no identity yet"),
            Ok(Some(config)) => {
                let tls = Tls {
                    config: Arc::new(config),
                    expires,
                };
                self.current.store(Some(Arc::new(Configured {
                    made_of,
                    tls: tls.clone(),
                })));
                Security::Tls(tls)
            }
            Err(error) => {
                tracing::error!(%error, "the agent's identity cannot be served");
                Security::Unavailable("this agent's identity cannot be served")
            }
        }
    }

    /// Whether handshakes need our identity: to present it, or to verify callers with its bundles.
    fn needs_identity(&self) -> bool {
        self.files.is_none() || self.client_cert != ClientCert::None
    }

    /// `None` while there is no identity and one is needed.
    fn configure(
        &self,
        identity: Option<&Identity>,
    ) -> Result<Option<ServerConfig>, tls::TlsError> {
        let callers = |identity: &Identity| {
            let callers = Callers::of(identity, &identity.federated, &self.accepted);
            match self.client_cert {
                ClientCert::None => None,
                ClientCert::Required => Some(callers),
                ClientCert::Optional => Some(callers.optional()),
            }
        };
        if self.needs_identity() && identity.is_none() {
            return Ok(None);
        }
        let callers = identity.and_then(callers);
        let mut config = match (&self.files, identity, callers) {
            (Some(files), _, callers) => tls::outside_server_config(files.resolver(), callers)?,
            (None, Some(identity), None) => {
                tls::server_config_without_client_auth(&identity.svid, &[])?
            }
            (None, Some(identity), Some(callers)) => {
                tls::server_config_for(&identity.svid, callers)?
            }
            (None, None, _) => return Ok(None),
        };
        if !self.http {
            config.alpn_protocols.clear();
        }
        Ok(Some(config))
    }

    /// The peer whose verified `chain` this is; `None` where it presented no certificate, and may.
    pub(super) fn peer(
        &self,
        chain: &[CertificateDer<'static>],
    ) -> Result<Option<Proved>, Refused> {
        let leaf = match (chain.first(), self.client_cert) {
            (None, ClientCert::Required) => {
                return Err(Refused("the client presented no certificate"));
            }
            (None, _) | (_, ClientCert::None) => return Ok(None),
            (Some(leaf), _) => leaf,
        };
        let unusable = Refused("the client's certificate is not an X.509-SVID");
        let spiffe_id = tls::peer_id(leaf).ok_or(unusable.clone())?;
        let expires = not_after(leaf).ok_or(unusable)?;
        let by = self
            .identity
            .borrow()
            .as_ref()
            .map(|identity| identity.svid.id().to_string());
        let certificate = sha256(leaf);
        let cert_sha256 = hex(&certificate);
        // None of the values can hold a character that Envoy's format would quote.
        let by = by.unwrap_or_default();
        let xfcc = format!("By={by};Hash={cert_sha256};URI={spiffe_id}");
        let headers = self.told.of(&xfcc, chain)?;
        let provenance = Provenance::of_chain(&spiffe_id, chain);
        let own = self.own_trust_domain();
        let foreign = (own.as_ref() != Some(spiffe_id.trust_domain())).then(|| Foreign {
            trust_domain: spiffe_id.trust_domain().clone(),
            chain: chain.to_vec(),
            // None has this: the first request looks whether the bundle changed since the handshake.
            verified: AtomicU64::new(0),
        });
        let peer = Peer {
            spiffe_id,
            cert_sha256,
        };
        Ok(Some(Proved {
            peer,
            certificate,
            expires,
            headers,
            provenance,
            foreign,
        }))
    }

    /// The peer of a proxy that we believe, which verified it and shows its `leaf`: `None` where the listener asks
    /// for no certificate. The proxy says that it is `principal`.
    pub(super) fn seen(
        &self,
        leaf: &CertificateDer<'static>,
        principal: &SpiffeId,
        now: SystemTime,
    ) -> Result<Option<Proved>, Refusal> {
        let refuse = Refusal::PeerNotAccepted;
        let proved = self.peer(slice::from_ref(leaf));
        let Some(proved) = proved.map_err(|why| refuse(why.0))? else {
            return Ok(None);
        };
        if proved.peer.spiffe_id != *principal {
            return Err(refuse("the certificate's SPIFFE ID is not the principal"));
        }
        self.refuse_unaccepted(&proved.peer)?;
        if proved.expires <= now {
            return Err(refuse("the certificate has expired"));
        }
        let identity = self.identity.borrow().clone().ok_or(Refusal::NoIdentity)?;
        if identity.bundle_of(principal.trust_domain()).is_none() {
            return Err(refuse("there is no bundle of its trust domain any more"));
        }
        // Its chain is the proxy's to verify, and to verify again.
        Ok(Some(Proved {
            foreign: None,
            ..proved
        }))
    }

    /// Refuses a peer of a trust domain whose workloads may present no certificate here.
    pub(super) fn refuse_unaccepted(&self, peer: &Peer) -> Result<(), Refusal> {
        match self.accepted.contains(peer.spiffe_id.trust_domain()) {
            true => Ok(()),
            false => Err(Refusal::PeerNotAccepted(
                "no certificate of its trust domain is accepted",
            )),
        }
    }

    fn own_trust_domain(&self) -> Option<TrustDomain> {
        let identity = self.identity.borrow();
        identity.as_ref().map(|it| it.bundle.trust_domain.clone())
    }

    /// Refuses a peer of another trust domain whose bundle, as it is now, would not have let it in.
    pub(super) fn refuse_withdrawn(&self, peer: &Foreign, now: SystemTime) -> Result<(), Refusal> {
        let identity = self.identity.borrow().clone().ok_or(Refusal::NoIdentity)?;
        if peer.verified.load(Ordering::Relaxed) == identity.generation {
            return Ok(());
        }
        let bundle = identity.bundle_of(&peer.trust_domain).ok_or_else(|| {
            Refusal::PeerNotVerified(format!(
                "there is no bundle of {} any more",
                peer.trust_domain
            ))
        })?;
        tls::verify_caller(&peer.chain, bundle, now)
            .map_err(|why| Refusal::PeerNotVerified(why.to_string()))?;
        peer.verified.store(identity.generation, Ordering::Relaxed);
        Ok(())
    }
}

fn not_after(leaf: &CertificateDer<'_>) -> Option<SystemTime> {
    let (_, certificate) = x509_parser::parse_x509_certificate(leaf).ok()?;
    tls_files::not_after(&certificate)
}

pub(super) fn sha256(bytes: &[u8]) -> [u8; 32] {
    // A SHA-256 has 32 bytes.
    digest(&SHA256, bytes)
        .as_ref()
        .try_into()
        .unwrap_or_default()
}

/// Lower-case hex.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
            // Writing to a string cannot fail.
            let _ = write!(text, "{byte:02x}");
            text
        })
}

#[cfg(test)]
impl Proved {
    pub(super) fn example() -> Self {
        let certificate = [7; 32];
        let spiffe_id = "spiffe://example.org/orders".parse().unwrap();
        let peer = Peer {
            spiffe_id,
            cert_sha256: hex(&certificate),
        };
        Self {
            peer,
            certificate,
            expires: SystemTime::UNIX_EPOCH,
            headers: Headers::default(),
            provenance: Provenance::default(),
            foreign: None,
        }
    }
}
