//! The verifiers rustls calls: the leaf's rules, then the roots of the leaf's own trust domain, then
//! whether this peer is wanted.

use std::{collections::HashMap, fmt, sync::Arc, time::SystemTime};

use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, OtherError, PeerIncompatible,
    SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto,
    server::danger::{ClientCertVerified, ClientCertVerifier},
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use thiserror::Error;
use webpki::KeyUsage;

use super::{Anchors, ExpectedPeer, provider, roots::Roots};
use crate::{
    SpiffeId, TrustDomain,
    identity::{
        LeafError, MAX_CHAIN, TrustBundle,
        leaf::{self, Leaf},
        spki_sha256,
    },
};

/// Why a peer was refused, beside what X.509 itself forbids. It is found in the
/// [`rustls::CertificateError::Other`] of the failed handshake.
#[derive(Clone, PartialEq, Error)]
#[non_exhaustive]
pub enum PeerError {
    /// The leaf breaks a MUST of the X509-SVID specification.
    #[error("the peer's certificate is no X.509-SVID: {0}")]
    Leaf(#[from] LeafError),
    /// The peer's trust domain is not accepted here.
    #[error("the peer {0} is of a trust domain that is not accepted here")]
    TrustDomain(SpiffeId),
    /// The peer's trust domain is accepted, but we hold no bundle of it.
    #[error("the peer {0} can't be verified: there is no bundle of its trust domain yet")]
    NoBundle(SpiffeId),
    /// The peer is a verified workload, and not the one that was called.
    #[error("the peer is {actual}, expected was {expected}")]
    Unexpected {
        /// Who answered.
        actual: SpiffeId,
        /// Who should have.
        expected: ExpectedPeer,
    },
    /// The peer sent more certificates than a chain has.
    #[error("the peer sent {0} certificates, at most {MAX_CHAIN} are accepted")]
    ChainTooLong(usize),
    /// The peer sent no root whose public key is pinned.
    #[error("the peer {0} sent no root certificate whose public key is pinned")]
    NoPinnedRoot(SpiffeId),
}

/// The text, too: rustls prints causes with `Debug`.
impl fmt::Debug for PeerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl From<PeerError> for rustls::Error {
    fn from(error: PeerError) -> Self {
        Self::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(error))))
    }
}

/// See [`super::verify`].
pub(super) fn verify(
    chain: &[CertificateDer<'_>],
    expected: &SpiffeId,
    roots: &[CertificateDer<'static>],
    now: SystemTime,
) -> Result<(), rustls::Error> {
    let (end_entity, intermediates) = chain
        .split_first()
        .ok_or(rustls::Error::NoCertificatesPresented)?;
    let id = Leaf::parse(end_entity).map_err(PeerError::from)?.id;
    if id != *expected {
        return Err(PeerError::Unexpected {
            actual: id,
            expected: ExpectedPeer::Id(expected.clone()),
        }
        .into());
    }
    let roots = Roots::new(roots);
    let since = now.duration_since(SystemTime::UNIX_EPOCH);
    let now = UnixTime::since_unix_epoch(since.unwrap_or_default());
    for usage in [KeyUsage::server_auth(), KeyUsage::client_auth()] {
        roots.verify(end_entity, intermediates, usage, now)?;
    }
    Ok(())
}

/// See [`super::verify_caller`].
pub(super) fn verify_caller(
    chain: &[CertificateDer<'_>],
    bundle: &TrustBundle,
    now: SystemTime,
) -> Result<(), rustls::Error> {
    let (end_entity, intermediates) = chain
        .split_first()
        .ok_or(rustls::Error::NoCertificatesPresented)?;
    let since = now.duration_since(SystemTime::UNIX_EPOCH);
    let now = UnixTime::since_unix_epoch(since.unwrap_or_default());
    let accepted = std::slice::from_ref(&bundle.trust_domain);
    ClientVerifier::new(&[bundle], accepted)
        .verify_client_cert(end_entity, intermediates, now)
        .map(drop)
}

/// Verifies callers: an X.509-SVID of an accepted trust domain is demanded of every client, or of those that
/// present a certificate.
#[derive(Debug)]
pub(super) struct ClientVerifier {
    /// Whether a client may come without.
    pub(super) optional: bool,
    /// The roots of every accepted trust domain, apart from each other; `None` where we have no bundle.
    accepted: HashMap<TrustDomain, Option<Roots>>,
}

impl ClientVerifier {
    /// Of two bundles of one trust domain the first counts.
    pub(super) fn new(bundles: &[&TrustBundle], accepted: &[TrustDomain]) -> Self {
        let roots = |trust_domain: &TrustDomain| {
            bundles
                .iter()
                .find(|bundle| bundle.trust_domain == *trust_domain)
                .map(|bundle| Roots::new(&bundle.x509_authorities))
        };
        Self {
            optional: false,
            accepted: accepted
                .iter()
                .map(|trust_domain| (trust_domain.clone(), roots(trust_domain)))
                .collect(),
        }
    }
}

impl ClientCertVerifier for ClientVerifier {
    /// Empty: clients have one SVID to offer, and our roots are no one's business.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn client_auth_mandatory(&self) -> bool {
        !self.optional
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let id = Leaf::parse(end_entity).map_err(PeerError::from)?.id;
        let roots = match self.accepted.get(id.trust_domain()) {
            Some(Some(roots)) => roots,
            Some(None) => return Err(PeerError::NoBundle(id).into()),
            None => return Err(PeerError::TrustDomain(id).into()),
        };
        roots.verify(end_entity, intermediates, KeyUsage::client_auth(), now)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        no_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        schemes()
    }
}

/// Verifies whom we call: the expected peer, and no other. Its host name doesn't matter.
#[derive(Debug)]
pub(super) struct ServerVerifier {
    /// Roots of the expected peer's trust domain.
    roots: Roots,
    /// SHA-256 of the public keys of more such roots, whose certificates the peer sends along.
    pins: Vec<[u8; 32]>,
    expected: ExpectedPeer,
}

impl ServerVerifier {
    /// Trusts the roots of a bundle.
    pub(super) fn of_bundle(bundle: &TrustBundle, expected: ExpectedPeer) -> Self {
        Self {
            roots: Roots::new(&bundle.x509_authorities),
            pins: Vec::new(),
            expected,
        }
    }

    /// Trusts what a client without an identity knows of its authority.
    pub(super) fn of_anchors(anchors: &Anchors, expected: &SpiffeId) -> Self {
        Self {
            roots: Roots::new(&anchors.roots),
            pins: anchors.spki_sha256.clone(),
            expected: ExpectedPeer::Id(expected.clone()),
        }
    }

    /// Whether nothing at all is trusted.
    pub(super) fn trusts_nothing(&self) -> bool {
        self.roots.is_empty() && self.pins.is_empty()
    }
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let id = Leaf::parse(end_entity).map_err(PeerError::from)?.id;
        if !self.expected.admits(&id) {
            return Err(PeerError::Unexpected {
                actual: id,
                expected: self.expected.clone(),
            }
            .into());
        }
        let usage = KeyUsage::server_auth();
        let known = self.roots.verify(end_entity, intermediates, usage, now);
        let verified = match known {
            Err(_) if !self.pins.is_empty() => pinned_roots(intermediates, &self.pins)
                .ok_or_else(|| PeerError::NoPinnedRoot(id).into())
                .and_then(|roots| roots.verify(end_entity, intermediates, usage, now)),
            known => known,
        };
        verified.map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        no_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        schemes()
    }
}

/// The presented roots with a pinned key. Each must have signed itself: the pin vouches for the key
/// only, and its owner for what else the certificate says (validity, constraints).
fn pinned_roots(presented: &[CertificateDer<'_>], pins: &[[u8; 32]]) -> Option<Roots> {
    let is_pinned = |der: &&CertificateDer<'_>| {
        spki_sha256(der).is_some_and(|hash| pins.contains(&hash)) && signed_itself(der)
    };
    let presented = presented.get(..MAX_CHAIN).unwrap_or(presented);
    let roots = Roots::new(presented.iter().filter(is_pinned));
    (!roots.is_empty()).then_some(roots)
}

fn signed_itself(der: &CertificateDer<'_>) -> bool {
    let (Some(certificate), Ok(key)) = (leaf::parse(der), webpki::EndEntityCert::try_from(der))
    else {
        return false;
    };
    let signature = certificate.signature_value.data.as_ref();
    certificate.issuer() == certificate.subject()
        && provider()
            .signature_verification_algorithms
            .all
            .iter()
            .any(|algorithm| {
                key.verify_signature(*algorithm, certificate.tbs_certificate.as_ref(), signature)
                    .is_ok()
            })
}

/// Mesh connections are TLS 1.3; the configurations allow nothing else, and so do we.
fn no_tls12() -> Result<HandshakeSignatureValid, rustls::Error> {
    Err(PeerIncompatible::Tls12NotOffered.into())
}

fn tls13_signature(
    message: &[u8],
    certificate: &CertificateDer<'_>,
    signature: &DigitallySignedStruct,
) -> Result<HandshakeSignatureValid, rustls::Error> {
    let algorithms = &provider().signature_verification_algorithms;
    crypto::verify_tls13_signature(message, certificate, signature, algorithms)
}

fn schemes() -> Vec<SignatureScheme> {
    provider()
        .signature_verification_algorithms
        .supported_schemes()
}
