//! SigV4A: an ECDSA key derived from the secret, whose signature is good in a set of regions.
//!
//! The derivation is that of NIST SP 800-108 in counter mode, as
//! <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html> has it.

use aws_credential_types::Credentials;
use aws_lc_rs::{
    hmac::{self, HMAC_SHA256},
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair},
};
use zeroize::Zeroizing;

use super::{SignError, hex, unsignable};

pub(super) const ALGORITHM: &str = "AWS4-ECDSA-P256-SHA256";

/// The order of P-256 less two (SP 800-186 §3.2.1.3): no candidate above it makes a key.
const ORDER_LESS_TWO: [u8; 32] = [
    0xff, 0xff, 0xff, 0xff, 0x00, 0x00, 0x00, 0x00, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
    0xbc, 0xe6, 0xfa, 0xad, 0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x4f,
];

/// Bits of the key.
const LENGTH: [u8; 4] = 256_u32.to_be_bytes();

/// A private key as RFC 5915 has it, without its public half: version 1, 32 bytes, the curve's name.
const SEC1_START: [u8; 7] = [0x30, 0x31, 0x02, 0x01, 0x01, 0x04, 0x20];
const SEC1_END: [u8; 12] = [
    0xa0, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07,
];

pub(super) fn derived(credentials: &Credentials) -> Result<EcdsaKeyPair, SignError> {
    let scalar = scalar(credentials.access_key_id(), credentials.secret_access_key())
        .ok_or_else(|| unsignable("no SigV4A key can be derived from these credentials"))?;
    let der = Zeroizing::new([&SEC1_START[..], &scalar[..], &SEC1_END[..]].concat());
    EcdsaKeyPair::from_private_key_der(&ECDSA_P256_SHA256_ASN1_SIGNING, &der).map_err(unsignable)
}

pub(super) fn sign(key: &EcdsaKeyPair, text: &[u8]) -> Result<String, SignError> {
    let signature = key
        .sign(&SystemRandom::new(), text)
        .map_err(|_| unsignable("ECDSA failed"))?;
    Ok(hex(signature.as_ref()))
}

fn scalar(id: &str, secret: &str) -> Option<Zeroizing<[u8; 32]>> {
    let key = Zeroizing::new(["AWS4A", secret].concat());
    let key = hmac::Key::new(HMAC_SHA256, key.as_bytes());
    // One in four thousand million candidates is none, so the second attempt is never seen.
    (1..=254_u8).find_map(|counter| {
        let mut mac = hmac::Context::with_key(&key);
        for part in [
            &1_u32.to_be_bytes()[..],
            ALGORITHM.as_bytes(),
            &[0],
            id.as_bytes(),
            &[counter],
            &LENGTH,
        ] {
            mac.update(part);
        }
        let mut candidate = Zeroizing::new([0; 32]);
        candidate.copy_from_slice(mac.sign().as_ref().get(..32)?);
        // Both big-endian and of one length, so they compare as numbers.
        (*candidate <= ORDER_LESS_TWO).then(|| {
            add_one(&mut candidate);
            candidate
        })
    })
}

fn add_one(number: &mut [u8; 32]) {
    for byte in number.iter_mut().rev() {
        let (sum, carried) = byte.overflowing_add(1);
        *byte = sum;
        if !carried {
            return;
        }
    }
}

#[cfg(test)]
pub(in crate::aws::sigv4) fn public_key(credentials: &Credentials) -> Vec<u8> {
    use aws_lc_rs::signature::KeyPair;
    derived(credentials).unwrap().public_key().as_ref().to_vec()
}
