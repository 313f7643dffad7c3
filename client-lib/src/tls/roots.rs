//! Roots of one trust domain, and the verification of a chain against them.

use std::{sync::Arc, time::SystemTime};

use rustls::{CertificateError, OtherError};
use rustls_pki_types::{CertificateDer, TrustAnchor, UnixTime};
use webpki::{EndEntityCert, KeyUsage, VerifiedPath, anchor_from_trusted_cert};

use super::{PeerError, provider};
use crate::identity::{MAX_CHAIN, leaf};

/// Roots of one trust domain. Those of two are never put into one of these.
#[derive(Debug)]
pub(super) struct Roots {
    anchors: Vec<TrustAnchor<'static>>,
    /// What webpki doesn't keep of an anchor, in the same order.
    limits: Vec<Limits>,
}

#[derive(Debug)]
struct Limits {
    not_before: UnixTime,
    not_after: UnixTime,
    /// How many CA certificates may stand between the root and a leaf.
    path_length: Option<u32>,
}

impl Roots {
    /// A certificate which is none, or no CA's, is no root: nothing will chain to it.
    pub(super) fn new<'a>(certificates: impl IntoIterator<Item = &'a CertificateDer<'a>>) -> Self {
        let (anchors, limits) = certificates.into_iter().filter_map(root).unzip();
        Self { anchors, limits }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.anchors.is_empty()
    }

    /// Whether a chain leads from `end_entity` to one of these roots, all of it valid at `now`.
    /// What the leaf says is not looked at here.
    pub(super) fn verify(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        usage: KeyUsage,
        now: UnixTime,
    ) -> Result<(), rustls::Error> {
        if intermediates.len() >= MAX_CHAIN {
            return Err(PeerError::ChainTooLong(intermediates.len() + 1).into());
        }
        EndEntityCert::try_from(end_entity)
            .and_then(|leaf| {
                leaf.verify_for_usage(
                    provider().signature_verification_algorithms.all,
                    &self.anchors,
                    intermediates,
                    now,
                    usage,
                    None,
                    Some(&|path| self.check_path(path, now)),
                )
                .map(drop)
            })
            .map_err(rustls_error)
    }

    /// The rules of RFC 5280 §6.1 that webpki leaves to its caller: validity and path length of the
    /// root, and `keyCertSign` of what stands between root and leaf.
    fn check_path(&self, path: &VerifiedPath<'_>, now: UnixTime) -> Result<(), webpki::Error> {
        let limits = self
            .anchors
            .iter()
            .zip(&self.limits)
            .find(|(anchor, _)| std::ptr::eq(*anchor, path.anchor()))
            .map(|(_, limits)| limits)
            .ok_or(webpki::Error::UnknownIssuer)?;
        if now < limits.not_before {
            return Err(webpki::Error::CertNotValidYet {
                time: now,
                not_before: limits.not_before,
            });
        }
        if now > limits.not_after {
            return Err(webpki::Error::CertExpired {
                time: now,
                not_after: limits.not_after,
            });
        }
        let mut between: u32 = 0;
        for intermediate in path.intermediate_certificates() {
            leaf::parse(&intermediate.der())
                .and_then(|certificate| leaf::ca_path_length(&certificate))
                .ok_or(webpki::Error::EndEntityUsedAsCa)?;
            between += 1;
        }
        if limits.path_length.is_some_and(|most| between > most) {
            return Err(webpki::Error::PathLenConstraintViolated);
        }
        Ok(())
    }
}

fn root(der: &CertificateDer<'_>) -> Option<(TrustAnchor<'static>, Limits)> {
    let certificate = leaf::parse(der)?;
    let validity = certificate.validity();
    let limits = Limits {
        not_before: unix_time(leaf::system_time(validity.not_before)),
        not_after: unix_time(leaf::system_time(validity.not_after)),
        path_length: leaf::ca_path_length(&certificate)?,
    };
    let anchor = anchor_from_trusted_cert(der).ok()?.to_owned();
    Some((anchor, limits))
}

/// `system_time` is never before 1970.
fn unix_time(time: SystemTime) -> UnixTime {
    UnixTime::since_unix_epoch(
        time.duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default(),
    )
}

/// The answers rustls has an alert for; the rest keeps webpki's own words.
fn rustls_error(error: webpki::Error) -> rustls::Error {
    use webpki::Error as E;
    rustls::Error::InvalidCertificate(match error {
        E::BadDer | E::BadDerTime | E::TrailingData(_) => CertificateError::BadEncoding,
        E::CertExpired { time, not_after } => CertificateError::ExpiredContext { time, not_after },
        E::CertNotValidYet { time, not_before } => {
            CertificateError::NotValidYetContext { time, not_before }
        }
        E::InvalidCertValidity => CertificateError::Expired,
        E::UnknownIssuer => CertificateError::UnknownIssuer,
        E::InvalidSignatureForPublicKey => CertificateError::BadSignature,
        E::UnsupportedCriticalExtension => CertificateError::UnhandledCriticalExtension,
        other => CertificateError::Other(OtherError(Arc::new(other))),
    })
}
