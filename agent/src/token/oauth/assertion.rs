//! A client assertion (RFC 7523 §2.2 and §3, with the audience and type of its successor): a JWT that says who asks,
//! to one authorization server, once, for a minute.

use std::time::{Duration, SystemTime};

use aws_lc_rs::{
    digest::{SHA256, digest},
    rand::{self, SystemRandom},
    rsa,
    signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _,
        RSA_PKCS1_SHA256, RSA_PSS_SHA256,
    },
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use rustls_pki_types::{PrivateKeyDer, pem::PemObject};
use serde_json::json;
use thiserror::Error;
use warifu::Secret;

/// How long an assertion is good: it is made for one request, which has a few seconds; the server's clock may be behind.
const LIFE: Duration = Duration::from_secs(60);

/// Shortest RSA key that signs: what RFC 7518 §3.3 demands.
const MIN_RSA_BYTES: usize = 2048 / 8;

/// Says what it is, so that no other JWT of the same key is taken for it (RFC 8725 §3.11; the successor of RFC 7523).
const TYPE: &str = "client-authentication+jwt";

/// How an RSA key signs. All other keys have one way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RsaAlgorithm {
    /// PKCS#1 v1.5: what every server takes.
    Rs256,
    /// PSS: what FAPI demands.
    Ps256,
}

/// Why a key can't sign assertions. Never shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the client's private key {0}")]
pub struct KeyError(&'static str);

/// A private key, and how it signs.
pub(super) struct Key {
    pair: Pair,
    /// RFC 7638: what a server that was given the public key calls it, unless told otherwise.
    thumbprint: String,
}

enum Pair {
    Es256(EcdsaKeyPair),
    Rsa(rsa::KeyPair, RsaAlgorithm),
    EdDsa(Ed25519KeyPair),
}

impl Key {
    /// Reads the first private key of a PEM text.
    ///
    /// # Errors
    /// When there is none, or none we sign with.
    pub(super) fn from_pem(pem: &str, rsa: RsaAlgorithm) -> Result<Self, KeyError> {
        let der = PrivateKeyDer::from_pem_slice(pem.as_bytes())
            .map_err(|_| KeyError("is not PEM with a PRIVATE KEY that is not encrypted"))?;
        let unusable = KeyError("is none of P-256, RSA or Ed25519");
        let of_ec = |pair| Ok(Pair::Es256(pair));
        let of_rsa = |pair| Ok(Pair::Rsa(pair, rsa));
        let curve = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let pair = match &der {
            PrivateKeyDer::Pkcs8(der) => {
                let der = der.secret_pkcs8_der();
                let ec = EcdsaKeyPair::from_pkcs8(curve, der).map(Pair::Es256);
                ec.or_else(|_| Ed25519KeyPair::from_pkcs8(der).map(Pair::EdDsa))
                    .or_else(|_| rsa::KeyPair::from_pkcs8(der).map(|it| Pair::Rsa(it, rsa)))
                    .map_err(|_| unusable)
            }
            PrivateKeyDer::Sec1(der) => {
                EcdsaKeyPair::from_private_key_der(curve, der.secret_sec1_der())
                    .map_or(Err(unusable), of_ec)
            }
            PrivateKeyDer::Pkcs1(der) => {
                rsa::KeyPair::from_der(der.secret_pkcs1_der()).map_or(Err(unusable), of_rsa)
            }
            _ => Err(unusable),
        }?;
        if let Pair::Rsa(pair, _) = &pair
            && pair.public_modulus_len() < MIN_RSA_BYTES
        {
            return Err(KeyError("is an RSA key of less than 2048 bits"));
        }
        let thumbprint = thumbprint(&pair)?;
        Ok(Self { pair, thumbprint })
    }

    fn algorithm(&self) -> &'static str {
        match &self.pair {
            Pair::Es256(_) => "ES256",
            Pair::Rsa(_, RsaAlgorithm::Rs256) => "RS256",
            Pair::Rsa(_, RsaAlgorithm::Ps256) => "PS256",
            Pair::EdDsa(_) => "EdDSA",
        }
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        let random = SystemRandom::new();
        let failed = |_| KeyError("could not sign");
        match &self.pair {
            Pair::Es256(pair) => {
                let signature = pair.sign(&random, message).map_err(failed)?;
                Ok(signature.as_ref().to_vec())
            }
            Pair::EdDsa(pair) => Ok(pair.sign(message).as_ref().to_vec()),
            Pair::Rsa(pair, algorithm) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                let signed = match algorithm {
                    RsaAlgorithm::Rs256 => {
                        pair.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature)
                    }
                    RsaAlgorithm::Ps256 => {
                        pair.sign(&RSA_PSS_SHA256, &random, message, &mut signature)
                    }
                };
                signed.map_err(failed)?;
                Ok(signature)
            }
        }
    }
}

/// `client` to the authorization server `issuer`, at `now`; names the key by `kid`, or its thumbprint.
///
/// # Errors
/// When the system gives no randomness.
pub(super) fn assertion(
    key: &Key,
    kid: Option<&str>,
    client: &str,
    issuer: &str,
    now: SystemTime,
) -> Result<Secret<String>, KeyError> {
    let mut id = [0; 16];
    rand::fill(&mut id).map_err(|_| KeyError("was not used: the system gives no randomness"))?;
    let seconds = |time: SystemTime| {
        let since = time.duration_since(SystemTime::UNIX_EPOCH);
        since.unwrap_or_default().as_secs()
    };
    let header = json!({
        "alg": key.algorithm(),
        "kid": kid.unwrap_or(&key.thumbprint),
        "typ": TYPE,
    });
    let claims = json!({
        "iss": client,
        "sub": client,
        "aud": issuer,
        "iat": seconds(now),
        "exp": seconds(now + LIFE),
        "jti": URL_SAFE_NO_PAD.encode(id),
    });
    let mut token = String::new();
    URL_SAFE_NO_PAD.encode_string(header.to_string(), &mut token);
    token.push('.');
    URL_SAFE_NO_PAD.encode_string(claims.to_string(), &mut token);
    let signature = key.sign(token.as_bytes())?;
    token.push('.');
    URL_SAFE_NO_PAD.encode_string(signature, &mut token);
    Ok(Secret::new(token))
}

/// RFC 7638 §3: SHA-256 of the members that make the key, in this order and form.
fn thumbprint(pair: &Pair) -> Result<String, KeyError> {
    let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let members = match pair {
        Pair::Es256(pair) => {
            // 0x04 ‖ x ‖ y.
            let point = pair.public_key().as_ref();
            let halves = point.get(1..).and_then(|xy| xy.split_at_checked(32));
            let (x, y) = halves.ok_or(KeyError("has no public point"))?;
            let (x, y) = (encode(x), encode(y));
            format!(r#"{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}"#)
        }
        Pair::EdDsa(pair) => {
            let x = encode(pair.public_key().as_ref());
            format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{x}"}}"#)
        }
        Pair::Rsa(pair, _) => {
            let public = pair.public_key();
            let n = encode(public.modulus().big_endian_without_leading_zero());
            let e = encode(public.exponent().big_endian_without_leading_zero());
            format!(r#"{{"e":"{e}","kty":"RSA","n":"{n}"}}"#)
        }
    };
    Ok(encode(digest(&SHA256, members.as_bytes()).as_ref()))
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::encoding::AsDer;
    use base64::engine::general_purpose::STANDARD;
    use warifu::jwt::SigningKey;

    use super::*;

    fn pem(label: &str, der: &[u8]) -> String {
        let body = STANDARD.encode(der);
        format!("-----BEGIN {label}-----\n{body}\n-----END {label}-----\n")
    }

    fn keys() -> Vec<(&'static str, RsaAlgorithm, String)> {
        let ec = SigningKey::generate();
        let rsa = SigningKey::generate_rsa();
        let ed = Ed25519KeyPair::generate().unwrap();
        let ed = ed.to_pkcs8v1().unwrap();
        let of = |key: &SigningKey| pem("PRIVATE KEY", key.to_pkcs8().expose());
        vec![
            ("ES256", RsaAlgorithm::Rs256, of(&ec)),
            ("RS256", RsaAlgorithm::Rs256, of(&rsa)),
            ("PS256", RsaAlgorithm::Ps256, of(&rsa)),
            (
                "EdDSA",
                RsaAlgorithm::Rs256,
                pem("PRIVATE KEY", ed.as_ref()),
            ),
        ]
    }

    fn parts(assertion: &Secret<String>) -> [serde_json::Value; 2] {
        let mut parts = assertion.expose().split('.');
        [(); 2].map(|()| {
            let part = URL_SAFE_NO_PAD.decode(parts.next().unwrap()).unwrap();
            serde_json::from_slice(&part).unwrap()
        })
    }

    #[test]
    fn an_assertion_is_for_one_server_for_a_minute_and_never_the_same_twice() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        for (algorithm, rsa, pem) in keys() {
            let key = Key::from_pem(&pem, rsa).unwrap();
            let make = || assertion(&key, None, "orders", "https://as.example", now).unwrap();
            let [header, claims] = parts(&make());
            assert_eq!(header["alg"], algorithm);
            assert_eq!(header["typ"], "client-authentication+jwt");
            assert_eq!(header["kid"], key.thumbprint.as_str());
            assert_eq!(
                (&claims["iss"], &claims["sub"]),
                (&"orders".into(), &"orders".into())
            );
            assert_eq!(claims["aud"], "https://as.example");
            assert_eq!(
                claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap(),
                60
            );
            assert_ne!(claims["jti"], parts(&make())[1]["jti"]);
            let named = assertion(&key, Some("mine"), "orders", "x", now).unwrap();
            assert_eq!(parts(&named)[0]["kid"], "mine");
        }
    }

    #[test]
    fn a_key_is_called_by_the_thumbprint_that_others_compute_and_its_signature_verifies() {
        let now = SystemTime::now();
        for key in [SigningKey::generate(), SigningKey::generate_rsa()] {
            let ours = pem("PRIVATE KEY", key.to_pkcs8().expose());
            let ours = Key::from_pem(&ours, RsaAlgorithm::Rs256).unwrap();
            assert_eq!(ours.thumbprint, key.public().thumbprint());
            let made = assertion(&ours, None, "orders", "https://as.example", now).unwrap();
            let (signed, signature) = made.expose().rsplit_once('.').unwrap();
            let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
            assert!(key.public().verify_raw(signed.as_bytes(), &signature));
        }
    }

    #[test]
    fn keys_we_do_not_sign_with_are_refused() {
        let weak = rsa::KeyPair::generate(rsa::KeySize::Rsa2048).unwrap();
        let der: aws_lc_rs::encoding::Pkcs8V1Der<'_> = weak.as_der().unwrap();
        assert!(Key::from_pem(&pem("PRIVATE KEY", der.as_ref()), RsaAlgorithm::Rs256).is_ok());
        for wrong in [
            String::new(),
            "hunter2".to_owned(),
            pem("PRIVATE KEY", b"hunter2"),
            pem("ENCRYPTED PRIVATE KEY", der.as_ref()),
            pem("CERTIFICATE", der.as_ref()),
        ] {
            let error = Key::from_pem(&wrong, RsaAlgorithm::Rs256);
            let error = error.err().expect("no key").to_string();
            assert!(!error.contains("hunter2"), "{error}");
        }
    }
}
