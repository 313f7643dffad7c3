//! What the leaf of an X.509-SVID must look like (X509-SVID specification §§2–5, design S2).
//!
//! The one place that decides it: our own SVID is parsed through it, and so is every peer's.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::digest;
use thiserror::Error;
use x509_parser::{
    certificate::X509Certificate, extensions::GeneralName, prelude::FromDer as _, time::ASN1Time,
};

use crate::{SpiffeId, SpiffeIdError};

/// Longest SPIFFE ID, in bytes (SPIFFE-ID specification §2.3).
const MAX_SPIFFE_ID_BYTES: usize = 2048;

/// Context tag of a URI among general names (RFC 5280 §4.2.1.6).
const URI_TAG: u32 = 6;

/// What a leaf that keeps the rules says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Leaf {
    /// Its only URI SAN.
    pub(crate) id: SpiffeId,
    pub(crate) not_before: SystemTime,
    pub(crate) not_after: SystemTime,
}

/// Which rule of the X509-SVID specification a certificate breaks.
#[derive(Debug, Clone, PartialEq, Error)]
#[non_exhaustive]
pub enum LeafError {
    /// Not one DER certificate, or one with ill-formed or repeated extensions.
    #[error("it is not a well-formed X.509 certificate")]
    Malformed,
    /// Not exactly one URI SAN.
    #[error("it has {0} URI SANs, an X.509-SVID has exactly one")]
    UriSans(usize),
    /// The URI SAN is not a SPIFFE ID.
    #[error("its URI SAN is not a SPIFFE ID: {0}")]
    Id(#[from] SpiffeIdError),
    /// The URI SAN is longer than 2048 bytes.
    #[error("its SPIFFE ID is longer than 2048 bytes")]
    IdTooLong,
    /// The URI SAN is a second spelling of a SPIFFE ID, as `spiffe://EXAMPLE.org/x` is.
    #[error("its SPIFFE ID is not in canonical form, which would be {0}")]
    NotCanonical(SpiffeId),
    /// The SPIFFE ID is that of a trust domain: it has no path.
    #[error("its SPIFFE ID {0} has no path, so it names a trust domain and no workload")]
    NoPath(SpiffeId),
    /// The subject is empty and the SAN extension not critical.
    #[error("its subject is empty and its SAN extension not critical")]
    SanNotCritical,
    /// Basic constraints are missing: `cA` must be stated to be false.
    #[error("it has no basic constraints, so it does not say that it is no CA")]
    NoBasicConstraints,
    /// It is a CA certificate.
    #[error("it is a CA certificate")]
    Ca,
    /// Key usage is missing.
    #[error("it has no key usage")]
    NoKeyUsage,
    /// Key usage is not critical.
    #[error("its key usage is not critical")]
    KeyUsageNotCritical,
    /// Key usage lacks `digitalSignature`.
    #[error("its key usage lacks digitalSignature")]
    NoDigitalSignature,
    /// Key usage has `keyCertSign` or `cRLSign`.
    #[error("its key usage has keyCertSign or cRLSign, which only a CA may have")]
    CaKeyUsage,
    /// Extended key usage is present without both `serverAuth` and `clientAuth`.
    #[error("its extended key usage lacks serverAuth or clientAuth")]
    ExtendedKeyUsage,
}

impl Leaf {
    /// Parses a leaf and checks every MUST. The signature and the time are the verifier's business.
    pub(crate) fn parse(der: &[u8]) -> Result<Self, LeafError> {
        let certificate = parse(der).ok_or(LeafError::Malformed)?;
        let id = only_uri_san(&certificate)?;
        check_not_ca(&certificate)?;
        check_usage(&certificate)?;
        let validity = certificate.validity();
        Ok(Self {
            id,
            not_before: system_time(validity.not_before),
            not_after: system_time(validity.not_after),
        })
    }
}

/// Parses exactly one DER certificate.
pub(crate) fn parse(der: &[u8]) -> Option<X509Certificate<'_>> {
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Some(certificate),
        _ => None,
    }
}

/// A certificate's time. What lies before 1970 is 1970: it only ever bounds a validity from below.
pub(crate) fn system_time(time: ASN1Time) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(time.timestamp().try_into().unwrap_or(0))
}

fn only_uri_san(certificate: &X509Certificate<'_>) -> Result<SpiffeId, LeafError> {
    let extension = certificate
        .subject_alternative_name()
        .map_err(|_| LeafError::Malformed)?
        .ok_or(LeafError::UriSans(0))?;
    // A URI that is not text counts too: two SANs don't become one because ours can't read the other.
    let is_uri = |name: &&GeneralName<'_>| match name {
        GeneralName::URI(_) => true,
        GeneralName::Invalid(tag, _) => tag.0 == URI_TAG,
        _ => false,
    };
    let mut uris = extension.value.general_names.iter().filter(is_uri);
    let uri = match (uris.next(), uris.count()) {
        (Some(GeneralName::URI(uri)), 0) => *uri,
        (Some(_), 0) => return Err(LeafError::Malformed),
        (first, rest) => return Err(LeafError::UriSans(usize::from(first.is_some()) + rest)),
    };
    if uri.len() > MAX_SPIFFE_ID_BYTES {
        return Err(LeafError::IdTooLong);
    }
    let id = SpiffeId::new(uri)?;
    // Whoever compares text would take it for somebody else; go-spiffe refuses it, too.
    if id.to_string() != uri {
        return Err(LeafError::NotCanonical(id));
    }
    if id.path().is_empty() {
        return Err(LeafError::NoPath(id));
    }
    if certificate.subject().iter().next().is_none() && !extension.critical {
        return Err(LeafError::SanNotCritical);
    }
    Ok(id)
}

fn check_not_ca(certificate: &X509Certificate<'_>) -> Result<(), LeafError> {
    let constraints = certificate
        .basic_constraints()
        .map_err(|_| LeafError::Malformed)?
        .ok_or(LeafError::NoBasicConstraints)?;
    if constraints.value.ca {
        return Err(LeafError::Ca);
    }
    Ok(())
}

fn check_usage(certificate: &X509Certificate<'_>) -> Result<(), LeafError> {
    let usage = certificate
        .key_usage()
        .map_err(|_| LeafError::Malformed)?
        .ok_or(LeafError::NoKeyUsage)?;
    if !usage.critical {
        return Err(LeafError::KeyUsageNotCritical);
    }
    if !usage.value.digital_signature() {
        return Err(LeafError::NoDigitalSignature);
    }
    if usage.value.key_cert_sign() || usage.value.crl_sign() {
        return Err(LeafError::CaKeyUsage);
    }
    let purposes = certificate
        .extended_key_usage()
        .map_err(|_| LeafError::Malformed)?;
    if purposes.is_some_and(|it| !(it.value.server_auth && it.value.client_auth)) {
        return Err(LeafError::ExtendedKeyUsage);
    }
    Ok(())
}

/// SHA-256 of a certificate's SubjectPublicKeyInfo (DER): what roots are pinned by, and what evidence
/// is bound to. `None` where `der` is not one certificate.
pub fn spki_sha256(der: &[u8]) -> Option<[u8; 32]> {
    let certificate = parse(der)?;
    let hash = digest::digest(&digest::SHA256, certificate.public_key().raw);
    hash.as_ref().try_into().ok()
}

/// Whether a certificate may sign others: a CA, with `keyCertSign` where it restricts its key.
/// Returns its path length constraint, or `None` where it is no CA.
pub(crate) fn ca_path_length(certificate: &X509Certificate<'_>) -> Option<Option<u32>> {
    let constraints = certificate.basic_constraints().ok()??;
    let may_sign = match certificate.key_usage().ok()? {
        Some(usage) => usage.value.key_cert_sign(),
        None => true,
    };
    (constraints.value.ca && may_sign).then_some(constraints.value.path_len_constraint)
}
