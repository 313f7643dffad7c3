//! PKCS#10 requests (RFC 2986): proof of a key, and nothing else. Names, extensions and attributes
//! in them are ignored.

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P384_SHA384_ASN1, EcdsaVerificationAlgorithm, UnparsedPublicKey,
};
use rcgen::SubjectPublicKeyInfo;
use thiserror::Error;
use x509_parser::{
    certification_request::X509CertificationRequest,
    oid_registry::{
        OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_NIST_EC_P384, OID_SIG_ECDSA_WITH_SHA256,
        OID_SIG_ECDSA_WITH_SHA384, Oid,
    },
    prelude::FromDer,
};

/// Largest request: one for P-384 is below 500 bytes, with room for names we ignore.
const MAX_BYTES: usize = 8 * 1024;

/// Why a request was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(in crate::authority) enum CsrError {
    #[error("not a PKCS#10 request in DER of at most 8 KiB")]
    Malformed,
    #[error("expected a P-256 key with ecdsa-with-SHA256, or a P-384 key with ecdsa-with-SHA384")]
    Key,
    #[error("the request is not signed by the key it asks for")]
    Signature,
}

/// The key of a request, which it proves to hold.
pub(in crate::authority) fn public_key(der: &[u8]) -> Result<SubjectPublicKeyInfo, CsrError> {
    if der.len() > MAX_BYTES {
        return Err(CsrError::Malformed);
    }
    let (rest, request) =
        X509CertificationRequest::from_der(der).map_err(|_| CsrError::Malformed)?;
    if !rest.is_empty() {
        return Err(CsrError::Malformed);
    }
    let info = &request.certification_request_info;
    let key = &info.subject_pki;
    let curve = key
        .algorithm
        .parameters
        .as_ref()
        .and_then(|parameters| parameters.as_oid().ok())
        .ok_or(CsrError::Key)?;
    let algorithm = algorithm(
        &key.algorithm.algorithm,
        &curve,
        &request.signature_algorithm.algorithm,
    )
    .ok_or(CsrError::Key)?;
    UnparsedPublicKey::new(algorithm, &key.subject_public_key.data)
        .verify(info.raw, &request.signature_value.data)
        .map_err(|_| CsrError::Signature)?;
    SubjectPublicKeyInfo::from_der(key.raw).map_err(|_| CsrError::Key)
}

fn algorithm(
    key: &Oid<'_>,
    curve: &Oid<'_>,
    signature: &Oid<'_>,
) -> Option<&'static EcdsaVerificationAlgorithm> {
    if *key != OID_KEY_TYPE_EC_PUBLIC_KEY {
        return None;
    }
    if *curve == OID_EC_P256 && *signature == OID_SIG_ECDSA_WITH_SHA256 {
        return Some(&ECDSA_P256_SHA256_ASN1);
    }
    if *curve == OID_NIST_EC_P384 && *signature == OID_SIG_ECDSA_WITH_SHA384 {
        return Some(&ECDSA_P384_SHA384_ASN1);
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rcgen::{
        CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519,
        PublicKeyData, SignatureAlgorithm,
    };

    use super::*;

    fn request(algorithm: &'static SignatureAlgorithm) -> (KeyPair, Vec<u8>) {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let params = CertificateParams::new(vec!["evil.example".to_owned()]).unwrap();
        let csr = params.serialize_request(&key).unwrap().der().to_vec();
        (key, csr)
    }

    #[test]
    fn the_key_of_a_p256_or_p384_request_is_returned_whatever_else_it_asks_for() {
        for algorithm in [&PKCS_ECDSA_P256_SHA256, &PKCS_ECDSA_P384_SHA384] {
            let (key, csr) = request(algorithm);
            let got = public_key(&csr).unwrap();
            assert_eq!(got.der_bytes(), PublicKeyData::der_bytes(&key));
        }
    }

    #[test]
    fn another_kind_of_key_is_refused() {
        assert_eq!(public_key(&request(&PKCS_ED25519).1), Err(CsrError::Key));
    }

    #[test]
    fn a_request_signed_by_another_key_is_refused() {
        let (_, mut csr) = request(&PKCS_ECDSA_P256_SHA256);
        let last = csr.len() - 1;
        csr[last] ^= 1;
        assert_eq!(public_key(&csr), Err(CsrError::Signature));
    }

    #[test]
    fn more_bytes_than_a_request_are_refused() {
        let (_, mut csr) = request(&PKCS_ECDSA_P256_SHA256);
        csr.push(0);
        assert_eq!(public_key(&csr), Err(CsrError::Malformed));
        assert_eq!(public_key(&[0x30; MAX_BYTES + 1]), Err(CsrError::Malformed));
        assert_eq!(public_key(&[]), Err(CsrError::Malformed));
    }

    proptest! {
        #[test]
        fn s17_no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(public_key(&bytes).is_err());
        }

        // Damage outside the signed part (an unused bit of the signature's BIT STRING) may go
        // unnoticed; what is read is signed.
        #[test]
        fn s17_a_damaged_request_never_yields_another_key(
            at in any::<proptest::sample::Index>(), bit in 0u8..8,
        ) {
            let (key, mut csr) = request(&PKCS_ECDSA_P256_SHA256);
            let at = at.index(csr.len());
            csr[at] ^= 1 << bit;
            if let Ok(got) = public_key(&csr) {
                prop_assert_eq!(got.der_bytes(), PublicKeyData::der_bytes(&key));
            }
        }
    }
}
