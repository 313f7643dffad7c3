//! An issuer's keys: real ones, made and used with aws-lc-rs alone, so that what is tested did not sign.

use aws_lc_rs::{
    digest::{SHA256, digest},
    rand::SystemRandom,
    rsa::{self, KeySize},
    signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, KeyPair,
        RSA_PKCS1_SHA256,
    },
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};

/// How a token is signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    Rs256,
    /// ECDSA on P-256.
    Es256,
    /// ECDSA on P-384.
    Es384,
}

/// One key of each kind.
pub(super) struct Keys {
    generation: usize,
    rsa: rsa::KeyPair,
    p256: EcdsaKeyPair,
    p384: EcdsaKeyPair,
}

impl Algorithm {
    /// `alg`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Rs256 => "RS256",
            Self::Es256 => "ES256",
            Self::Es384 => "ES384",
        }
    }
}

impl Keys {
    pub(super) fn generate(generation: usize) -> Self {
        Self {
            generation,
            rsa: rsa::KeyPair::generate(KeySize::Rsa2048).unwrap(),
            p256: EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap(),
            p384: EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).unwrap(),
        }
    }

    /// As generic as those of AWS: two issuers have the same, for different keys.
    pub(super) fn kid(&self, algorithm: Algorithm) -> String {
        let kind = match algorithm {
            Algorithm::Rs256 => "RSA",
            Algorithm::Es256 => "EC256",
            Algorithm::Es384 => "EC384",
        };
        format!("{kind}_{}", self.generation)
    }

    pub(super) fn sign(&self, algorithm: Algorithm, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match algorithm {
            Algorithm::Rs256 => {
                let mut signature = vec![0; self.rsa.public_modulus_len()];
                let signed = self
                    .rsa
                    .sign(&RSA_PKCS1_SHA256, &random, message, &mut signature);
                signed.unwrap();
                signature
            }
            Algorithm::Es256 => self.p256.sign(&random, message).unwrap().as_ref().to_vec(),
            Algorithm::Es384 => self.p384.sign(&random, message).unwrap().as_ref().to_vec(),
        }
    }

    /// As AWS publishes them: the RSA key says no `alg`.
    pub(super) fn jwks(&self) -> Vec<Value> {
        let (n, e) = self.rsa_components();
        let ec = |curve: &str, algorithm: Algorithm, pair: &EcdsaKeyPair| {
            let point = &pair.public_key().as_ref()[1..];
            let (x, y) = point.split_at(point.len() / 2);
            json!({
                "kty": "EC", "use": "sig", "alg": algorithm.name(), "crv": curve,
                "kid": self.kid(algorithm), "x": encode(x), "y": encode(y),
            })
        };
        vec![
            json!({"kty": "RSA", "use": "sig", "kid": self.kid(Algorithm::Rs256), "n": encode(&n), "e": encode(&e)}),
            ec("P-256", Algorithm::Es256, &self.p256),
            ec("P-384", Algorithm::Es384, &self.p384),
        ]
    }

    /// The RSA key's SubjectPublicKeyInfo-less DER: what a confused verifier takes for an HMAC secret.
    pub(super) fn rsa_der(&self) -> Vec<u8> {
        self.rsa.public_key().as_ref().to_vec()
    }

    /// Modulus and exponent, from RFC 8017's RSAPublicKey.
    fn rsa_components(&self) -> (Vec<u8>, Vec<u8>) {
        let der = self.rsa_der();
        let (sequence, _) = element(&der);
        let (n, rest) = element(sequence);
        let (e, _) = element(rest);
        let unsigned = |integer: &[u8]| {
            let zeros = integer.iter().take_while(|byte| **byte == 0).count();
            integer[zeros..].to_vec()
        };
        (unsigned(n), unsigned(e))
    }
}

/// The content of the first DER element, and what follows it.
fn element(der: &[u8]) -> (&[u8], &[u8]) {
    let (length, start) = match der[1] {
        short @ 0..=127 => (usize::from(short), 2),
        long => {
            let bytes = usize::from(long & 0x7f);
            let length = der[2..2 + bytes]
                .iter()
                .fold(0, |length, byte| length << 8 | usize::from(*byte));
            (length, 2 + bytes)
        }
    };
    (&der[start..start + length], &der[start + length..])
}

/// base64url without padding.
pub(super) fn encode(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Something unique in the form of a UUID.
pub(crate) fn uuid() -> String {
    let mut random = [0; 16];
    aws_lc_rs::rand::fill(&mut random).unwrap();
    let hex: String = digest(&SHA256, &random)
        .as_ref()
        .iter()
        .take(16)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let part = |from: usize, to: usize| hex[from..to].to_owned();
    [
        part(0, 8),
        part(8, 12),
        part(12, 16),
        part(16, 20),
        part(20, 32),
    ]
    .join("-")
}
