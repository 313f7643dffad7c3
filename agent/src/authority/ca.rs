//! The certificate authority: root → path-length-0 intermediate → leaf. P-256 throughout.
//!
//! The root signs intermediates only. Each replica has an intermediate of its own, in memory, and
//! signs leaves with it; nothing a certificate signs is valid before or after it.

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use aws_lc_rs::digest::{SHA256, digest};
use rcgen::{Issuer, KeyPair, PKCS_ECDSA_P256_SHA256, SubjectPublicKeyInfo};
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use thiserror::Error;
use warifu::{Secret, SpiffeId, TrustDomain};
use x509_parser::{parse_x509_certificate, time::ASN1Time};

use crate::revocation::Origin;

mod csr;
mod template;

pub(super) use csr::{CsrError, public_key};

use template::Validity;

/// Why there is no certificate.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CaError {
    /// A key or a certificate could not be made or read.
    #[error("{doing}: {why}")]
    Certificate {
        /// What was being done.
        doing: &'static str,
        /// What failed.
        why: String,
    },
    /// The signing certificate is (about to be) over.
    #[error("the {0} has expired; rotation could not replace it, see the errors before")]
    Expired(&'static str),
}

/// A root that can sign intermediates.
pub(super) struct Root {
    certificate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
    validity: Validity,
}

/// A replica's signing certificate.
pub(super) struct Intermediate {
    certificate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
    validity: Validity,
    made_at: SystemTime,
    root: CertificateDer<'static>,
}

/// A leaf certificate.
#[derive(Debug)]
pub(super) struct Leaf {
    pub(super) certificate: CertificateDer<'static>,
    /// Lower-case hex.
    pub(super) serial: String,
    pub(super) not_after: SystemTime,
}

/// A new root: certificate, private key (PKCS#8), and when it ends.
pub(super) fn make_root(
    trust_domain: &TrustDomain,
    now: SystemTime,
    ttl: Duration,
) -> Result<(CertificateDer<'static>, Secret<Vec<u8>>, SystemTime), CaError> {
    let key = new_key()?;
    let validity = Validity::new(now, ttl);
    let params = template::root(trust_domain, &key, validity)?;
    let certificate = params.self_signed(&key).map_err(failed("signing a root"))?;
    let secret = Secret::new(key.serialize_der());
    Ok((certificate.into(), secret, validity.not_after))
}

/// SHA-256 of a certificate's SubjectPublicKeyInfo: what agents pin.
pub(super) fn spki_sha256(certificate: &CertificateDer<'_>) -> Result<[u8; 32], CaError> {
    let (_, parsed) =
        parse_x509_certificate(certificate).map_err(failed("reading a root certificate"))?;
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, parsed.public_key().raw).as_ref());
    Ok(hash)
}

impl Root {
    /// From what [`make_root`] made.
    pub(super) fn load(
        certificate: CertificateDer<'static>,
        key: &Secret<Vec<u8>>,
    ) -> Result<Self, CaError> {
        let doing = "reading a root";
        let der = PrivatePkcs8KeyDer::from(key.expose().as_slice());
        let key = KeyPair::from_pkcs8_der_and_sign_algo(&der, &PKCS_ECDSA_P256_SHA256)
            .map_err(failed(doing))?;
        let (_, parsed) = parse_x509_certificate(&certificate).map_err(failed(doing))?;
        if rcgen::PublicKeyData::subject_public_key_info(&key) != parsed.public_key().raw {
            return Err(CaError::Certificate {
                doing,
                why: "the private key is another certificate's".into(),
            });
        }
        let validity = Validity {
            not_before: system_time(parsed.validity().not_before),
            not_after: system_time(parsed.validity().not_after),
        };
        let issuer = Issuer::from_ca_cert_der(&certificate, key).map_err(failed(doing))?;
        Ok(Self {
            certificate,
            issuer,
            validity,
        })
    }

    pub(super) fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }
}

impl Intermediate {
    /// A new one under `root`.
    pub(super) fn make(
        trust_domain: &TrustDomain,
        root: &Root,
        now: SystemTime,
        ttl: Duration,
    ) -> Result<Self, CaError> {
        let key = new_key()?;
        let validity = Validity::new(now, ttl)
            .within(root.validity)
            .ok_or(CaError::Expired("root"))?;
        let params = template::intermediate(trust_domain, &key, validity)?;
        let certificate = params
            .signed_by(&key, &root.issuer)
            .map_err(failed("signing an intermediate"))?;
        Ok(Self {
            certificate: certificate.into(),
            issuer: Issuer::new(params, key),
            validity,
            made_at: now,
            root: root.certificate.clone(),
        })
    }

    /// Signs a leaf for `key`: one URI SAN, `dns` SANs, what it goes back to; nothing a request could have
    /// asked for.
    pub(super) fn leaf(
        &self,
        key: &SubjectPublicKeyInfo,
        id: &SpiffeId,
        dns: &[String],
        origin: Option<&Origin>,
        now: SystemTime,
        ttl: Duration,
    ) -> Result<Leaf, CaError> {
        let validity = Validity::new(now, ttl)
            .within(self.validity)
            .filter(|validity| now < validity.not_after)
            .ok_or(CaError::Expired("intermediate"))?;
        let params = template::leaf(id, dns, origin, validity)?;
        let serial = params.serial_number.as_ref().map(ToString::to_string);
        let certificate = params
            .signed_by(key, &self.issuer)
            .map_err(failed("signing a leaf"))?;
        Ok(Leaf {
            certificate: certificate.into(),
            serial: serial.unwrap_or_default().replace(':', ""),
            not_after: validity.not_after,
        })
    }

    pub(super) fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// Whether it should be made anew: another root is current, or half of its life is over.
    pub(super) fn is_stale(&self, root: &CertificateDer<'_>, now: SystemTime) -> bool {
        let life = self.validity.not_after.duration_since(self.made_at);
        self.root != *root || now >= self.made_at + life.unwrap_or_default() / 2
    }

    pub(super) fn not_after(&self) -> SystemTime {
        self.validity.not_after
    }
}

impl fmt::Debug for Root {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Root")
            .field("validity", &self.validity)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Intermediate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Intermediate")
            .field("validity", &self.validity)
            .finish_non_exhaustive()
    }
}

/// A new P-256 key.
pub(super) fn new_key() -> Result<KeyPair, CaError> {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(failed("making a key"))
}

fn system_time(time: ASN1Time) -> SystemTime {
    let seconds = u64::try_from(time.timestamp()).unwrap_or(0);
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

fn failed<E: fmt::Display>(doing: &'static str) -> impl Fn(E) -> CaError {
    move |why| CaError::Certificate {
        doing,
        why: why.to_string(),
    }
}

#[cfg(test)]
mod tests;
