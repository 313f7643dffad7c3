//! What binds evidence to a renewal key: the hash of its SubjectPublicKeyInfo (RFC 5280 §4.1).

use aws_lc_rs::digest::{SHA256, digest};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use warifu::jwt::PublicJwk;

/// SubjectPublicKeyInfo of a P-256 key (RFC 5480 §2.1), up to the coordinates of its uncompressed point.
const P256_PREFIX: [u8; 27] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a,
    0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00, 0x04,
];

/// SHA-256 of the SubjectPublicKeyInfo of a renewal key (P-256).
pub fn spki_sha256(renewal_key: &PublicJwk) -> [u8; 32] {
    let jwk = renewal_key.to_json("sig");
    let mut spki = P256_PREFIX.to_vec();
    for name in ["x", "y"] {
        let coordinate = jwk.get(name).and_then(serde_json::Value::as_str);
        spki.extend(
            coordinate
                .and_then(|text| URL_SAFE_NO_PAD.decode(text).ok())
                .unwrap_or_default(),
        );
    }
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, &spki).as_ref());
    hash
}

/// [`spki_sha256`] as headers and audiences have it: base64url without padding.
pub fn spki_hash(renewal_key: &PublicJwk) -> String {
    URL_SAFE_NO_PAD.encode(spki_sha256(renewal_key))
}

#[cfg(test)]
mod tests {
    use warifu::jwt::SigningKey;

    use super::*;

    #[test]
    fn the_hash_is_that_of_the_key_as_a_certificate_has_it() {
        let key = SigningKey::generate();
        let pair = rcgen::KeyPair::try_from(key.to_pkcs8().expose().as_slice()).unwrap();
        let spki = rcgen::PublicKeyData::subject_public_key_info(&pair);
        assert_eq!(
            spki_sha256(&key.public()).as_slice(),
            digest(&SHA256, &spki).as_ref()
        );
    }
}
