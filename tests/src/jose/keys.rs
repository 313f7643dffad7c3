//! A key of every algorithm, each called by its name.

use aws_lc_rs::{
    hmac,
    rand::SystemRandom,
    rsa,
    signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING,
        ECDSA_P521_SHA512_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _,
        RSA_PKCS1_SHA256, RSA_PKCS1_SHA384, RSA_PKCS1_SHA512, RSA_PSS_SHA256, RSA_PSS_SHA384,
        RSA_PSS_SHA512, RsaEncoding,
    },
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use warifu::{
    Secret,
    jwt::{Algorithm, HmacKey, KeySet},
};

const SECRET: [u8; 32] = [7; 32];

/// All there is to sign and to verify with.
pub struct Keys {
    es256: EcdsaKeyPair,
    /// Not published.
    stranger: EcdsaKeyPair,
    es384: EcdsaKeyPair,
    es512: EcdsaKeyPair,
    eddsa: Ed25519KeyPair,
    rsa: rsa::KeyPair,
    public: KeySet,
    jwks: Value,
}

impl Default for Keys {
    fn default() -> Self {
        Self::new()
    }
}

impl Keys {
    /// New ones.
    pub fn new() -> Self {
        let ec = |algorithm| EcdsaKeyPair::generate(algorithm).expect("aws-lc makes a key");
        let es256 = ec(&ECDSA_P256_SHA256_FIXED_SIGNING);
        let es384 = ec(&ECDSA_P384_SHA384_FIXED_SIGNING);
        let es512 = ec(&ECDSA_P521_SHA512_FIXED_SIGNING);
        let eddsa = Ed25519KeyPair::generate().expect("aws-lc makes a key");
        let rsa = rsa::KeyPair::generate(rsa::KeySize::Rsa2048).expect("aws-lc makes a key");
        let public = rsa.public_key();
        let mut jwks = vec![
            ec_jwk("ES256", "P-256", &es256),
            ec_jwk("ES384", "P-384", &es384),
            ec_jwk("ES512", "P-521", &es512),
            json!({
                "kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "kid": "EdDSA", "use": "sig",
                "x": encode(eddsa.public_key().as_ref()),
            }),
        ];
        for alg in ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"] {
            jwks.push(json!({
                "kty": "RSA", "alg": alg, "kid": alg, "use": "sig",
                "n": encode(public.modulus().big_endian_without_leading_zero()),
                "e": encode(public.exponent().big_endian_without_leading_zero()),
            }));
        }
        let jwks = json!({ "keys": jwks });
        let public = KeySet::of_issuer(jwks.to_string().as_bytes(), Algorithm::ALL)
            .expect("keys of every algorithm");
        Self {
            stranger: ec(&ECDSA_P256_SHA256_FIXED_SIGNING),
            es256,
            es384,
            es512,
            eddsa,
            rsa,
            public,
            jwks,
        }
    }

    /// The published ones, parsed.
    pub fn public(&self) -> &KeySet {
        &self.public
    }

    /// The published ones, as a document.
    pub fn jwks(&self) -> &Value {
        &self.jwks
    }

    /// The published one of this name, as a document.
    pub fn jwk(&self, kid: &str) -> Option<&Value> {
        let keys = self.jwks["keys"].as_array()?;
        keys.iter().find(|jwk| jwk["kid"] == kid)
    }

    /// The shared one.
    pub fn secret(&self) -> HmacKey {
        HmacKey::new(&Secret::new(SECRET.to_vec())).expect("32 bytes")
    }

    /// The shared one's bytes.
    pub fn secret_bytes(&self) -> &[u8] {
        &SECRET
    }

    /// A signature over `message` as `alg` has it.
    pub fn sign(&self, alg: &str, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        let ec = |pair: &EcdsaKeyPair| {
            let signature = pair.sign(&random, message).expect("aws-lc signs");
            signature.as_ref().to_vec()
        };
        let rsa = |encoding: &'static dyn RsaEncoding| {
            let mut signature = vec![0; self.rsa.public_modulus_len()];
            self.rsa
                .sign(encoding, &random, message, &mut signature)
                .expect("aws-lc signs");
            signature
        };
        match alg {
            "ES256" => ec(&self.es256),
            "ES384" => ec(&self.es384),
            "ES512" => ec(&self.es512),
            "EdDSA" => self.eddsa.sign(message).as_ref().to_vec(),
            "RS256" => rsa(&RSA_PKCS1_SHA256),
            "RS384" => rsa(&RSA_PKCS1_SHA384),
            "RS512" => rsa(&RSA_PKCS1_SHA512),
            "PS256" => rsa(&RSA_PSS_SHA256),
            "PS384" => rsa(&RSA_PSS_SHA384),
            "PS512" => rsa(&RSA_PSS_SHA512),
            "HS256" => hmac(&SECRET, message),
            other => panic!("no key of {other}"),
        }
    }

    /// A signature of ES256 by a key that is not published.
    pub fn sign_as_stranger(&self, message: &[u8]) -> Vec<u8> {
        let signature = self.stranger.sign(&SystemRandom::new(), message);
        signature.expect("aws-lc signs").as_ref().to_vec()
    }

    /// HMAC with a published key for a secret, as a verifier does that lets the token choose.
    pub fn sign_with_public_key(&self, kid: &str, message: &[u8]) -> Vec<u8> {
        let jwk = self.jwk(kid).map(Value::to_string).unwrap_or_default();
        hmac(jwk.as_bytes(), message)
    }
}

fn hmac(secret: &[u8], message: &[u8]) -> Vec<u8> {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
    hmac::sign(&key, message).as_ref().to_vec()
}

fn ec_jwk(alg: &str, crv: &str, pair: &EcdsaKeyPair) -> Value {
    let point = pair.public_key().as_ref();
    let (x, y) = point[1..].split_at((point.len() - 1) / 2);
    json!({
        "kty": "EC", "crv": crv, "alg": alg, "kid": alg, "use": "sig", "x": encode(x), "y": encode(y),
    })
}

fn encode(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}
