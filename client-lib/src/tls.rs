//! rustls configurations for SPIFFE mTLS. One provider (aws-lc-rs); sessions never resume (S1).

use std::sync::{Arc, OnceLock};

use rustls::{ClientConfig, ServerConfig, crypto::CryptoProvider};
use rustls_pki_types::CertificateDer;
use thiserror::Error;

use crate::{
    SpiffeId, TrustDomain,
    identity::{Identity, TrustBundle, X509Svid, leaf::Leaf},
};

/// Why a TLS configuration could not be made.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TlsError {
    /// rustls refused the material.
    #[error("TLS configuration: {0}")]
    Rustls(#[from] rustls::Error),
}

/// Which peers a TLS connection accepts.
#[derive(Debug, Clone)]
pub enum ExpectedPeer {
    /// Exactly this SPIFFE ID.
    Id(SpiffeId),
    /// Any workload of this trust domain.
    Member(TrustDomain),
}

/// The one cryptographic provider of the process (aws-lc-rs, X25519MLKEM768 preferred).
pub fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    Arc::clone(PROVIDER.get_or_init(|| Arc::new(rustls::crypto::aws_lc_rs::default_provider())))
}

/// A server that presents `identity` and demands a client X.509-SVID of one of `accepted`.
/// Trust domains other than the identity's own need a bundle in `federated`.
/// ALPN: `h2`, `http/1.1`.
///
/// # Errors
/// When the SVID's key or chain is refused by rustls.
pub fn server_config(
    identity: &Identity,
    federated: &[TrustBundle],
    accepted: &[TrustDomain],
) -> Result<ServerConfig, TlsError> {
    let _ = (identity, federated, accepted);
    unimplemented!("client-lib")
}

/// A server that presents `svid` and asks for no client certificate (the authority's front door).
///
/// # Errors
/// When the SVID's key or chain is refused by rustls.
pub fn server_config_without_client_auth(
    svid: &X509Svid,
    extra_chain: &[CertificateDer<'static>],
) -> Result<ServerConfig, TlsError> {
    let _ = (svid, extra_chain);
    unimplemented!("client-lib")
}

/// A client that presents `identity` and accepts only `expected`, verified with `bundle`
/// (the bundle of the expected peer's trust domain).
///
/// # Errors
/// When the SVID's key or chain is refused by rustls.
pub fn client_config(
    identity: &Identity,
    bundle: &TrustBundle,
    expected: ExpectedPeer,
) -> Result<ClientConfig, TlsError> {
    let _ = (identity, bundle, expected);
    unimplemented!("client-lib")
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
    let _ = (anchors, expected);
    unimplemented!("client-lib")
}

/// The SPIFFE ID of a verified peer: the single URI SAN of its leaf.
/// `None` where there is not exactly one, or it is not a SPIFFE ID with a path.
pub fn peer_id(leaf: &CertificateDer<'_>) -> Option<SpiffeId> {
    Leaf::parse(leaf).ok().map(|leaf| leaf.id)
}
