//! Every certificate is built here (RFC 5280, X509-SVID §3–§4).

use std::time::{Duration, SystemTime};

use aws_lc_rs::digest::{SHA256, digest};
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose, PublicKeyData, SanType, SerialNumber,
};
use warifu::{SpiffeId, TrustDomain};

use super::{CaError, failed, hex};
use crate::{authority::keys, revocation::Origin};

/// How long before its making a certificate is valid already: for verifiers whose clocks are
/// behind. Three times what a machine with time synchronisation is off at worst.
pub(super) const BACKDATE: Duration = Duration::from_secs(30);

/// 128 bits: far more than the 64 random ones of the CA/Browser Forum's requirements, below the 20
/// bytes of RFC 5280 §4.1.2.2.
const SERIAL_BYTES: usize = 16;

/// Of the hash in the name of a CA certificate: two of a trust domain never have the same.
const NAME_BYTES: usize = 8;

/// From when to when; whole seconds, as X.509 has it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Validity {
    pub(super) not_before: SystemTime,
    pub(super) not_after: SystemTime,
}

impl Validity {
    /// From [`BACKDATE`] before `now` to `ttl` after it, rounded up so that a life of a second is one.
    pub(super) fn new(now: SystemTime, ttl: Duration) -> Self {
        let since = now
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        let end = since + ttl;
        let end = end.as_secs() + u64::from(end.subsec_nanos() > 0);
        let start = since.saturating_sub(BACKDATE).as_secs();
        Self {
            not_before: SystemTime::UNIX_EPOCH + Duration::from_secs(start),
            not_after: SystemTime::UNIX_EPOCH + Duration::from_secs(end),
        }
    }

    /// What of it is within `issuer`'s; `None` if nothing is.
    pub(super) fn within(self, issuer: Self) -> Option<Self> {
        let both = Self {
            not_before: self.not_before.max(issuer.not_before),
            not_after: self.not_after.min(issuer.not_after),
        };
        (both.not_before < both.not_after).then_some(both)
    }
}

/// A root. Its name has a piece of its key and serial number in it: a path builder that goes by names
/// must not confuse the roots before and after a rotation, which may have one key where KMS holds it.
pub(super) fn root(
    trust_domain: &TrustDomain,
    key: &impl PublicKeyData,
    validity: Validity,
) -> Result<CertificateParams, CaError> {
    ca(
        trust_domain,
        "root",
        key,
        validity,
        BasicConstraints::Unconstrained,
    )
}

/// A replica's intermediate: signs leaves and nothing else.
pub(super) fn intermediate(
    trust_domain: &TrustDomain,
    key: &impl PublicKeyData,
    validity: Validity,
) -> Result<CertificateParams, CaError> {
    let mut params = ca(
        trust_domain,
        "intermediate",
        key,
        validity,
        BasicConstraints::Constrained(0),
    )?;
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

/// A leaf, and what it goes back to. The subject is empty, which makes the SAN extension critical (RFC 5280 §4.2.1.6).
pub(super) fn leaf(
    id: &SpiffeId,
    dns: &[String],
    origin: Option<&Origin>,
    validity: Validity,
) -> Result<CertificateParams, CaError> {
    let mut params = base(validity)?;
    params.subject_alt_names = vec![uri(&id.to_string())?];
    for name in dns {
        let name = name.as_str().try_into().map_err(failed("a DNS name"))?;
        params.subject_alt_names.push(SanType::DnsName(name));
    }
    // Explicit, though false is the default: verifiers of X509-SVIDs want to see it.
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    // Not critical, which is rcgen's default.
    let extension = |it: &Origin| CustomExtension::from_oid_content(Origin::oid(), it.to_der());
    params.custom_extensions = origin.map(extension).into_iter().collect();
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

/// A request for a leaf. It has a subject because ACM PCA takes none without; the names it gives are those
/// it is told beside the request.
pub(super) fn request() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::OrganizationName, "Warifu");
    params
}

fn ca(
    trust_domain: &TrustDomain,
    role: &str,
    key: &impl PublicKeyData,
    validity: Validity,
    constraints: BasicConstraints,
) -> Result<CertificateParams, CaError> {
    let mut params = base(validity)?;
    let mut told_apart = key.subject_public_key_info();
    if let Some(serial) = &params.serial_number {
        told_apart.extend(serial.as_ref());
    }
    let hash = digest(&SHA256, &told_apart);
    let short = hex(hash.as_ref().get(..NAME_BYTES).unwrap_or_default());
    params
        .distinguished_name
        .push(DnType::OrganizationName, trust_domain.as_str());
    params
        .distinguished_name
        .push(DnType::CommonName, format!("Warifu {role} {short}"));
    params.subject_alt_names = vec![uri(&trust_domain.id_string())?];
    params.is_ca = IsCa::Ca(constraints);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    // No name constraints: few verifiers implement those on URIs, and the path length says enough.
    Ok(params)
}

fn base(validity: Validity) -> Result<CertificateParams, CaError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.not_before = validity.not_before.into();
    params.not_after = validity.not_after.into();
    let serial = keys::random::<SERIAL_BYTES>().map_err(failed("a serial number"))?;
    let mut serial = *serial.expose();
    // Positive, and never with a leading zero octet: the same 16 octets however it is printed.
    if let Some(first) = serial.first_mut() {
        *first = *first & 0x7f | 0x40;
    }
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    Ok(params)
}

fn uri(text: &str) -> Result<SanType, CaError> {
    let uri = text.try_into().map_err(failed("a URI SAN"))?;
    Ok(SanType::URI(uri))
}
