//! rustls configurations for SPIFFE mTLS. One provider (aws-lc-rs), TLS 1.3 only (clients from outside the mesh may
//! speak 1.2 where they present no certificate), and sessions never resume (S1): a resumed session skips the
//! verification of certificates.
//!
//! Who a peer is stands in its certificate's SPIFFE ID. Host names are not looked at; the roots a
//! chain must end in are those of the trust domain the leaf names, and of no other.

use std::{
    fmt,
    sync::{Arc, OnceLock},
    time::SystemTime,
};

use rustls::{
    CipherSuite, ClientConfig, ServerConfig, SupportedCipherSuite,
    client::Resumption,
    crypto::CryptoProvider,
    server::{
        NoClientAuth, NoServerSessionStorage, ResolvesServerCert, danger::ClientCertVerifier,
    },
    sign::{CertifiedKey, SingleCertAndKey},
    version::{TLS12, TLS13},
};
use rustls_pki_types::CertificateDer;
use thiserror::Error;

use crate::{
    SpiffeId, TrustDomain,
    identity::{Identity, TrustBundle, X509Svid, leaf::Leaf},
};

mod roots;
mod verifier;

#[cfg(test)]
mod tests;

pub use verifier::PeerError;
use verifier::{ClientVerifier, ServerVerifier};

/// What both sides speak above TLS, the preferred first.
const ALPN: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// Why a TLS configuration could not be made.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TlsError {
    /// rustls refused the material.
    #[error("TLS configuration: {0}")]
    Rustls(#[from] rustls::Error),
    /// The expected peer's trust domain is not that of the bundle it would be verified with.
    #[error(
        "{expected} can't be verified with the bundle of {bundle}: pass that of its own trust domain"
    )]
    WrongBundle {
        /// Who should be verified.
        expected: ExpectedPeer,
        /// Whose bundle was passed.
        bundle: TrustDomain,
    },
    /// There is nothing to verify the peer with.
    #[error(
        "there is no anchor to verify {0} with: pin the SHA-256 of its root's public key, or pass a root"
    )]
    NoAnchor(SpiffeId),
}

/// Which peers a TLS connection accepts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExpectedPeer {
    /// Exactly this SPIFFE ID.
    Id(SpiffeId),
    /// Any workload of this trust domain.
    Member(TrustDomain),
}

impl ExpectedPeer {
    /// Whether `id` is this peer, or one of these.
    pub fn admits(&self, id: &SpiffeId) -> bool {
        match self {
            Self::Id(expected) => id == expected,
            Self::Member(trust_domain) => id.is_member_of(trust_domain),
        }
    }

    /// The trust domain whose bundle verifies this peer.
    pub fn trust_domain(&self) -> &TrustDomain {
        match self {
            Self::Id(id) => id.trust_domain(),
            Self::Member(trust_domain) => trust_domain,
        }
    }
}

impl fmt::Display for ExpectedPeer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(id) => write!(f, "{id}"),
            Self::Member(trust_domain) => write!(f, "any workload of {trust_domain}"),
        }
    }
}

/// The one cryptographic provider of the process (aws-lc-rs, X25519MLKEM768 preferred).
///
/// Of the cipher suites AES-128 with SHA-256 comes first, the one RFC 8446 §9.1 makes mandatory: both are secure for
/// as long as the key exchange is, and no processor helps with the SHA-384 of the other, which costs every handshake.
pub fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    Arc::clone(PROVIDER.get_or_init(|| {
        let mut provider = rustls::crypto::aws_lc_rs::default_provider();
        let is_other =
            |suite: &SupportedCipherSuite| suite.suite() != CipherSuite::TLS13_AES_128_GCM_SHA256;
        provider.cipher_suites.sort_by_key(is_other);
        Arc::new(provider)
    }))
}

/// A server that presents `identity` and demands a client X.509-SVID of one of `accepted`.
/// Trust domains other than the identity's own need a bundle in `federated`; until there is one,
/// their workloads are refused in the handshake. ALPN: `h2`, `http/1.1`.
///
/// # Errors
/// When the SVID's key or chain is refused by rustls.
pub fn server_config(
    identity: &Identity,
    federated: &[TrustBundle],
    accepted: &[TrustDomain],
) -> Result<ServerConfig, TlsError> {
    server_config_for(&identity.svid, Callers::of(identity, federated, accepted))
}

/// Which client certificates a server takes.
#[derive(Debug)]
pub struct Callers(ClientVerifier);

impl Callers {
    /// An X.509-SVID of one of `accepted`, demanded of every client. Trust domains other than the identity's own need a
    /// bundle in `federated`; until there is one, their workloads are refused in the handshake.
    pub fn of(identity: &Identity, federated: &[TrustBundle], accepted: &[TrustDomain]) -> Self {
        let bundles: Vec<_> = std::iter::once(&identity.bundle).chain(federated).collect();
        Self(ClientVerifier::new(&bundles, accepted))
    }

    /// The same, of clients that have one: one that is presented must verify.
    #[must_use]
    pub fn optional(mut self) -> Self {
        self.0.optional = true;
        self
    }
}

/// A server that presents `svid`, to `callers`. ALPN: `h2`, `http/1.1`.
///
/// # Errors
/// When the SVID's key or chain is refused by rustls.
pub fn server_config_for(svid: &X509Svid, callers: Callers) -> Result<ServerConfig, TlsError> {
    server(Arc::new(callers.0), Arc::clone(svid.certified()))
}

/// A server for clients from outside the mesh: it presents what `certificates` chooses by the name that is asked for,
/// and speaks TLS 1.2, too, with clients that present no certificate. Sessions don't resume here either (S1).
///
/// # Errors
/// When rustls refuses it.
pub fn outside_server_config(
    certificates: Arc<dyn ResolvesServerCert>,
    callers: Option<Callers>,
) -> Result<ServerConfig, TlsError> {
    let verifier: Arc<dyn ClientCertVerifier> = match callers {
        Some(callers) => Arc::new(callers.0),
        None => Arc::new(NoClientAuth),
    };
    let config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13, &TLS12])?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(certificates);
    Ok(without_sessions(config))
}

/// A server that presents `svid` and asks for no client certificate (the authority's front door).
/// `extra_chain` is sent after the SVID's own chain: the root, for clients that know but its pin.
///
/// # Errors
/// When the SVID's key or chain is refused by rustls.
pub fn server_config_without_client_auth(
    svid: &X509Svid,
    extra_chain: &[CertificateDer<'static>],
) -> Result<ServerConfig, TlsError> {
    let chain = [svid.chain(), extra_chain].concat();
    let certified = CertifiedKey::new(chain, Arc::clone(&svid.certified().key));
    server(Arc::new(NoClientAuth), Arc::new(certified))
}

/// A client that presents `identity` and accepts only `expected`, verified with `bundle`
/// (the bundle of the expected peer's trust domain).
///
/// # Errors
/// When the bundle is another trust domain's.
pub fn client_config(
    identity: &Identity,
    bundle: &TrustBundle,
    expected: ExpectedPeer,
) -> Result<ClientConfig, TlsError> {
    if bundle.trust_domain != *expected.trust_domain() {
        return Err(TlsError::WrongBundle {
            expected,
            bundle: bundle.trust_domain.clone(),
        });
    }
    client(
        ServerVerifier::of_bundle(bundle, expected),
        Some(Arc::clone(identity.svid.certified())),
    )
}

/// What a client without an identity trusts when it first meets its authority.
#[derive(Debug, Clone, Default)]
pub struct Anchors {
    /// SHA-256 of a root's SubjectPublicKeyInfo: a presented CA certificate with this key is a root.
    pub spki_sha256: Vec<[u8; 32]>,
    /// Root certificates known beforehand (DER).
    pub roots: Vec<CertificateDer<'static>>,
}

/// A client that presents nothing and accepts only `expected`, whose chain must end in `anchors`.
/// With SPKI pins the server must send its root along.
///
/// # Errors
/// When there is no anchor at all.
pub fn bootstrap_client_config(
    anchors: &Anchors,
    expected: &SpiffeId,
) -> Result<ClientConfig, TlsError> {
    let verifier = ServerVerifier::of_anchors(anchors, expected);
    if verifier.trusts_nothing() {
        return Err(TlsError::NoAnchor(expected.clone()));
    }
    client(verifier, None)
}

/// Whether `chain` (leaf first) proves `expected` to clients and servers that trust `roots`, as they would find
/// it at `now`: every MUST of an X.509-SVID, and a path to a root.
///
/// # Errors
/// What they would refuse it for.
pub fn verify(
    chain: &[CertificateDer<'_>],
    expected: &SpiffeId,
    roots: &[CertificateDer<'static>],
    now: SystemTime,
) -> Result<(), rustls::Error> {
    verifier::verify(chain, expected, roots, now)
}

/// Whether `chain` (leaf first), which was verified before, still proves a caller of the trust domain of `bundle`
/// at `now`: for connections that outlive a bundle.
///
/// # Errors
/// What its handshake would be refused for.
pub fn verify_caller(
    chain: &[CertificateDer<'_>],
    bundle: &TrustBundle,
    now: SystemTime,
) -> Result<(), rustls::Error> {
    verifier::verify_caller(chain, bundle, now)
}

/// The SPIFFE ID of a verified peer: the single URI SAN of its leaf.
/// `None` where there is not exactly one, or the leaf breaks another rule of an X.509-SVID.
pub fn peer_id(leaf: &CertificateDer<'_>) -> Option<SpiffeId> {
    Leaf::parse(leaf).ok().map(|leaf| leaf.id)
}

fn server(
    verifier: Arc<dyn ClientCertVerifier>,
    certified: Arc<CertifiedKey>,
) -> Result<ServerConfig, TlsError> {
    let config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
    Ok(without_sessions(config))
}

fn without_sessions(mut config: ServerConfig) -> ServerConfig {
    // S1. All three: no ticket is sent, no session kept, and (rustls' default) none sealed into a ticket.
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.alpn_protocols = alpn();
    config
}

fn client(
    verifier: ServerVerifier,
    certified: Option<Arc<CertifiedKey>>,
) -> Result<ClientConfig, TlsError> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let mut config = match certified {
        Some(certified) => {
            builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(certified)))
        }
        None => builder.with_no_client_auth(),
    };
    config.resumption = Resumption::disabled();
    config.alpn_protocols = alpn();
    Ok(config)
}

fn alpn() -> Vec<Vec<u8>> {
    ALPN.iter().map(|protocol| protocol.to_vec()).collect()
}
