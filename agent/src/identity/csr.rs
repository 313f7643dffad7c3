//! The workload's key: made here, fresh for every certificate, and never sent.

use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls_pki_types::PrivatePkcs8KeyDer;

use crate::attest::ClientError;

/// A new P-256 key and a PKCS#10 request for it. The request asks for no name: the authority decides
/// the name and ignores everything but the key. It has a subject because ACM PCA, which may be behind
/// the authority, takes none without.
pub(super) fn make() -> Result<(PrivatePkcs8KeyDer<'static>, Vec<u8>), ClientError> {
    let failed = |why: rcgen::Error| ClientError::Local(format!("making a key: {why}"));
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(failed)?;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::OrganizationName, "Warifu");
    let csr = params.serialize_request(&key).map_err(failed)?;
    let csr = csr.der().to_vec();
    Ok((key.into(), csr))
}
