//! The certificate authority: root → path-length-0 intermediate → leaf. P-256 throughout.
//!
//! The root signs intermediates only; its key is here, in KMS, or in ACM PCA. Each replica has an
//! intermediate of its own, in memory, and signs leaves with it (but for ACM PCA in mode `leaf`); nothing
//! a certificate signs is valid before or after it.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use aws_lc_rs::digest::{SHA256, digest};
use rcgen::{Issuer, KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData as _, SubjectPublicKeyInfo};
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use thiserror::Error;
use warifu::{Secret, SpiffeId, TrustDomain};
use x509_parser::{parse_x509_certificate, time::ASN1Time};

use crate::revocation::Origin;

mod csr;
mod private;
mod remote;
mod template;

pub(super) use csr::{CsrError, public_key};

use super::{
    kms::{Kms, KmsError, PublicKey},
    pca::Pca,
};
use crate::{aws::ApiError, config::authority::PcaMode};
use private::PcaSigner;
use template::Validity;

const READING_A_ROOT: &str = "reading a root";

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
    /// The root's key is in KMS.
    #[error(transparent)]
    Kms(#[from] KmsError),
    /// The root is in ACM PCA.
    #[error(transparent)]
    Pca(#[from] ApiError),
    /// ACM PCA answered something that no agent should take.
    #[error(
        "the certificate that {arn} made with template {template} {why}; it is used for nothing: check the \
         private CA, and that no other template is forced on it"
    )]
    Refused {
        /// The private CA.
        arn: String,
        /// What was asked for.
        template: &'static str,
        /// What is wrong with the answer.
        why: String,
    },
    /// What would be presented to agents does not verify.
    #[error(
        "the authority's own certificate does not verify against the root that is published: {0}"
    )]
    Unusable(String),
}

impl CaError {
    /// Whether it may pass by itself.
    pub(super) fn is_outage(&self) -> bool {
        match self {
            Self::Kms(why) => why.is_outage(),
            Self::Pca(why) => why.is_outage(),
            _ => false,
        }
    }
}

/// A root that can sign intermediates.
#[derive(Debug)]
pub(super) struct Root {
    certificate: CertificateDer<'static>,
    validity: Validity,
    key: RootKey,
}

/// Where a root's key is.
pub(super) enum RootKey {
    /// Here.
    Held(KeyPair),
    /// In KMS.
    Kms { kms: Kms, key: PublicKey },
    /// In ACM PCA, which signs what it is asked to, in its own way.
    Pca {
        pca: Arc<Pca>,
        arn: String,
        mode: PcaMode,
    },
}

/// What leaves are signed by.
#[derive(Debug)]
pub(super) enum Signer {
    /// An intermediate of this replica's own, in memory.
    Intermediate(Box<Intermediate>),
    /// ACM PCA, which is asked for every leaf.
    Pca(PcaSigner),
}

/// A replica's signing certificate.
pub(super) struct Intermediate {
    certificate: CertificateDer<'static>,
    /// What is between it and the root.
    above: Vec<CertificateDer<'static>>,
    issuer: Issuer<'static, KeyPair>,
    validity: Validity,
    made_at: SystemTime,
    root: CertificateDer<'static>,
}

/// What is to be certified.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted<'a> {
    pub(super) key: &'a SubjectPublicKeyInfo,
    /// The request (DER) that proves the key.
    pub(super) csr: &'a [u8],
    pub(super) id: &'a SpiffeId,
    pub(super) dns: &'a [String],
    /// What it goes back to.
    pub(super) origin: Option<&'a Origin>,
    pub(super) ttl: Duration,
}

/// A leaf certificate.
#[derive(Debug)]
pub(super) struct Leaf {
    pub(super) certificate: CertificateDer<'static>,
    /// What is between it and the root, in order.
    pub(super) above: Vec<CertificateDer<'static>>,
    /// Lower-case hex.
    pub(super) serial: String,
    pub(super) not_after: SystemTime,
}

/// A new root under a key of its own: certificate, private key (PKCS#8), and when it ends.
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

/// A new root under `key` in KMS, and when it ends.
pub(super) async fn make_kms_root(
    trust_domain: &TrustDomain,
    kms: &Kms,
    key: &PublicKey,
    now: SystemTime,
    ttl: Duration,
) -> Result<(CertificateDer<'static>, SystemTime), CaError> {
    let validity = Validity::new(now, ttl);
    let params = template::root(trust_domain, key, validity)?;
    let write = |key: &remote::Remote| params.self_signed(key);
    let certificate = remote::sign(kms, key, "signing a root", write).await?;
    Ok((certificate, validity.not_after))
}

/// SHA-256 of a certificate's SubjectPublicKeyInfo: what agents pin.
pub(super) fn spki_sha256(certificate: &CertificateDer<'_>) -> Result<[u8; 32], CaError> {
    let (_, parsed) =
        parse_x509_certificate(certificate).map_err(failed("reading a root certificate"))?;
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, parsed.public_key().raw).as_ref());
    Ok(hash)
}

impl RootKey {
    /// From what [`make_root`] made.
    pub(super) fn held(key: &Secret<Vec<u8>>) -> Result<Self, CaError> {
        let der = PrivatePkcs8KeyDer::from(key.expose().as_slice());
        KeyPair::from_pkcs8_der_and_sign_algo(&der, &PKCS_ECDSA_P256_SHA256)
            .map(Self::Held)
            .map_err(failed(READING_A_ROOT))
    }

    /// The key `arn` of KMS, whose public half the root's certificate has.
    pub(super) fn in_kms(
        kms: Kms,
        arn: String,
        certificate: &CertificateDer<'_>,
    ) -> Result<Self, CaError> {
        let (_, parsed) = parse_x509_certificate(certificate).map_err(failed(READING_A_ROOT))?;
        let spki = SubjectPublicKeyInfo::from_der(parsed.public_key().raw);
        let point = spki.map_err(failed(READING_A_ROOT))?.der_bytes().to_vec();
        let key = PublicKey { arn, point };
        Ok(Self::Kms { kms, key })
    }
}

impl Root {
    pub(super) fn new(certificate: CertificateDer<'static>, key: RootKey) -> Result<Self, CaError> {
        let (_, parsed) = parse_x509_certificate(&certificate).map_err(failed(READING_A_ROOT))?;
        let is_its_key = match &key {
            RootKey::Held(key) => key.subject_public_key_info() == parsed.public_key().raw,
            RootKey::Kms { key, .. } => key.subject_public_key_info() == parsed.public_key().raw,
            RootKey::Pca { .. } => true,
        };
        if !is_its_key {
            return Err(CaError::Certificate {
                doing: READING_A_ROOT,
                why: "the private key is another certificate's".into(),
            });
        }
        let validity = Validity {
            not_before: system_time(parsed.validity().not_before),
            not_after: system_time(parsed.validity().not_after),
        };
        Ok(Self {
            certificate,
            validity,
            key,
        })
    }

    pub(super) fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }
}

impl Signer {
    /// A new one under `root`.
    pub(super) async fn make(
        trust_domain: &TrustDomain,
        root: &Root,
        now: SystemTime,
        ttl: Duration,
    ) -> Result<Self, CaError> {
        if let RootKey::Pca {
            pca,
            arn,
            mode: PcaMode::Leaf,
        } = &root.key
        {
            let signer = PcaSigner::new(Arc::clone(pca), arn.clone(), root);
            return Ok(Self::Pca(signer));
        }
        let intermediate = Intermediate::make(trust_domain, root, now, ttl).await?;
        Ok(Self::Intermediate(Box::new(intermediate)))
    }

    /// Signs a leaf.
    pub(super) async fn leaf(&self, wanted: Wanted<'_>, now: SystemTime) -> Result<Leaf, CaError> {
        match self {
            Self::Intermediate(intermediate) => intermediate.leaf(wanted, now),
            // Boxed: calls of the SDK are large, and every request would have room for one.
            Self::Pca(pca) => Box::pin(pca.leaf(wanted, now)).await,
        }
    }

    /// Whether it should be made anew: another root is current, or half of its life is over.
    pub(super) fn is_stale(&self, root: &CertificateDer<'_>, now: SystemTime) -> bool {
        match self {
            Self::Intermediate(intermediate) => intermediate.is_stale(root, now),
            Self::Pca(pca) => !pca.is_under(root),
        }
    }

    /// The certificate leaves are signed under, where it is this replica's own.
    pub(super) fn certificate(&self) -> Option<&CertificateDer<'static>> {
        match self {
            Self::Intermediate(intermediate) => Some(&intermediate.certificate),
            Self::Pca(_) => None,
        }
    }

    /// From then on nothing is signed.
    pub(super) fn not_after(&self) -> SystemTime {
        match self {
            Self::Intermediate(intermediate) => intermediate.validity.not_after,
            Self::Pca(pca) => pca.not_after(),
        }
    }
}

impl Intermediate {
    /// A new one under `root`.
    async fn make(
        trust_domain: &TrustDomain,
        root: &Root,
        now: SystemTime,
        ttl: Duration,
    ) -> Result<Self, CaError> {
        let doing = "signing an intermediate";
        let key = new_key()?;
        let validity = Validity::new(now, ttl)
            .within(root.validity)
            .ok_or(CaError::Expired("root"))?;
        let params = template::intermediate(trust_domain, &key, validity)?;
        let (certificate, above, validity) = match &root.key {
            RootKey::Held(root_key) => {
                let issuer = Issuer::from_ca_cert_der(&root.certificate, root_key);
                let issuer = issuer.map_err(failed(READING_A_ROOT))?;
                let certificate = params.signed_by(&key, &issuer).map_err(failed(doing))?;
                (certificate.into(), Vec::new(), validity)
            }
            RootKey::Kms { kms, key: root_key } => {
                let write = |root_key: &remote::Remote| {
                    let issuer = Issuer::from_ca_cert_der(&root.certificate, root_key)?;
                    params.signed_by(&key, &issuer)
                };
                let certificate = remote::sign(kms, root_key, doing, write).await?;
                (certificate, Vec::new(), validity)
            }
            RootKey::Pca { pca, arn, .. } => {
                let wanted = private::Subordinate {
                    trust_domain,
                    key: &key,
                    params: &params,
                    validity,
                };
                wanted.signed_by(pca, arn, &root.certificate).await?
            }
        };
        Ok(Self {
            certificate,
            above,
            issuer: Issuer::new(params, key),
            validity,
            made_at: now,
            root: root.certificate.clone(),
        })
    }

    /// Signs a leaf: one URI SAN, DNS SANs, what it goes back to; nothing a request could have asked for.
    fn leaf(&self, wanted: Wanted<'_>, now: SystemTime) -> Result<Leaf, CaError> {
        let validity = Validity::new(now, wanted.ttl)
            .within(self.validity)
            .filter(|validity| now < validity.not_after)
            .ok_or(CaError::Expired("intermediate"))?;
        let params = template::leaf(wanted.id, wanted.dns, wanted.origin, validity)?;
        let serial = params.serial_number.as_ref().map(ToString::to_string);
        let certificate = params
            .signed_by(wanted.key, &self.issuer)
            .map_err(failed("signing a leaf"))?;
        let mut above = vec![self.certificate.clone()];
        above.extend(self.above.iter().cloned());
        Ok(Leaf {
            certificate: certificate.into(),
            above,
            serial: serial.unwrap_or_default().replace(':', ""),
            not_after: validity.not_after,
        })
    }

    fn is_stale(&self, root: &CertificateDer<'_>, now: SystemTime) -> bool {
        let life = self.validity.not_after.duration_since(self.made_at);
        self.root != *root || now >= self.made_at + life.unwrap_or_default() / 2
    }
}

impl fmt::Debug for RootKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Held(_) => f.write_str("Held(***)"),
            Self::Kms { key, .. } => f.debug_tuple("Kms").field(&key.arn).finish(),
            Self::Pca { arn, mode, .. } => f.debug_tuple("Pca").field(arn).field(mode).finish(),
        }
    }
}

impl fmt::Debug for Intermediate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Intermediate")
            .field("validity", &self.validity)
            .finish_non_exhaustive()
    }
}

/// A request for `key`, as an agent makes one.
pub(super) fn request(key: &KeyPair) -> Result<Vec<u8>, CaError> {
    let request = template::request().serialize_request(key);
    let request = request.map_err(failed("making a request"))?;
    Ok(request.der().to_vec())
}

/// A new P-256 key.
pub(super) fn new_key() -> Result<KeyPair, CaError> {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(failed("making a key"))
}

/// Lower-case hex.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Before 1970 is 1970.
pub(super) fn system_time(time: ASN1Time) -> SystemTime {
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
