//! The trust bundle (SPIFFE Trust Domain and Bundle specification): what a trust domain's
//! identities are verified with.

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use rustls_pki_types::CertificateDer;
use serde_json::{Map, Value, json};
use thiserror::Error;
use x509_parser::{public_key::PublicKey, x509::SubjectPublicKeyInfo};

use super::{leaf, pem};
use crate::{
    TrustDomain,
    jwt::{JwtError, KeySet, json, params::Params},
};

mod map;
#[cfg(test)]
mod tests;

pub use map::{MAX_MAP_BYTES, MAX_TRUST_DOMAINS};

/// Longest bundle accepted, in bytes. Ten roots and ten keys are about 20 KiB.
pub const MAX_BUNDLE_BYTES: usize = 1024 * 1024;

/// Most roots accepted: every handshake looks through them.
pub const MAX_X509_AUTHORITIES: usize = 100;

/// `spiffe_refresh_hint` of a bundle that has none (SPIFFE Federation specification §4.1).
pub const DEFAULT_REFRESH_HINT: Duration = Duration::from_secs(5 * 60);

/// Longest `spiffe_refresh_hint` taken at its word: who asks less often than daily misses a rotation.
pub const MAX_REFRESH_HINT: Duration = Duration::from_secs(24 * 60 * 60);

/// The X.509 roots and JWT keys of one trust domain.
#[derive(Debug, Clone, PartialEq)]
pub struct TrustBundle {
    /// Whose bundle this is.
    pub trust_domain: TrustDomain,
    /// Root certificates (DER).
    pub x509_authorities: Vec<CertificateDer<'static>>,
    /// Keys JWT-SVIDs are verified with.
    pub jwt_authorities: KeySet,
    /// `spiffe_sequence`: grows with every change of content. 0 where the publisher has none.
    pub sequence: u64,
    /// `spiffe_refresh_hint`: how often to ask again; whole seconds.
    pub refresh_hint: Duration,
}

/// Why bytes are not a SPIFFE bundle.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum BundleError {
    /// Not JSON, or not the shape of a JWK set.
    #[error("not a SPIFFE bundle: {0}")]
    Malformed(String),
    /// An entry for X.509-SVIDs is not one CA certificate.
    #[error("entry {index} of the bundle of {trust_domain} is no X.509 authority: {reason}")]
    X509Authority {
        /// Whose bundle it is.
        trust_domain: TrustDomain,
        /// Where in `keys` it stands.
        index: usize,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// An entry for JWT-SVIDs is not a usable key, or two have the same `kid`.
    #[error("the bundle of {trust_domain} has an unusable JWT authority: {reason}")]
    JwtAuthority {
        /// Whose bundle it is.
        trust_domain: TrustDomain,
        /// What is wrong with it.
        reason: JwtError,
    },
}

impl TrustBundle {
    /// Parses the JWKS form. Unknown `use` and `kty` are ignored, as the specification demands.
    ///
    /// # Errors
    /// When a MUST of the bundle specification is broken.
    pub fn from_json(trust_domain: TrustDomain, json: &[u8]) -> Result<Self, BundleError> {
        let malformed = |what: &str| BundleError::Malformed(what.to_owned());
        if json.len() > MAX_BUNDLE_BYTES {
            return Err(malformed("it is longer than 1 MiB"));
        }
        let document =
            json::parse_object(json).map_err(|error| BundleError::Malformed(error.to_string()))?;
        Self::from_members(trust_domain, &document)
    }

    fn from_members(
        trust_domain: TrustDomain,
        document: &Map<String, Value>,
    ) -> Result<Self, BundleError> {
        let malformed = |what: &str| BundleError::Malformed(what.to_owned());
        let number = |name: &str| match document.get(name) {
            None => Ok(None),
            Some(value) => value
                .as_u64()
                .map(Some)
                .ok_or_else(|| malformed(&format!("{name} is not a whole number from 0"))),
        };
        let sequence = number("spiffe_sequence")?.unwrap_or(0);
        let refresh_hint =
            number("spiffe_refresh_hint")?.map_or(DEFAULT_REFRESH_HINT, Duration::from_secs);
        let entries = document
            .get("keys")
            .and_then(Value::as_array)
            .ok_or_else(|| malformed("it has no list of keys"))?;

        let mut x509_authorities = Vec::new();
        let mut jwt_authorities = Vec::new();
        for (index, entry) in entries.iter().enumerate() {
            let jwk = entry
                .as_object()
                .ok_or_else(|| malformed("an entry of keys is not a JSON object"))?;
            match jwk.get("use").and_then(Value::as_str) {
                Some("x509-svid") => {
                    let root =
                        x509_authority(jwk).map_err(|reason| BundleError::X509Authority {
                            trust_domain: trust_domain.clone(),
                            index,
                            reason,
                        })?;
                    x509_authorities.extend(root);
                }
                Some("jwt-svid") => {
                    let key = KeySet::key_of_bundle(jwk)
                        .map_err(|reason| jwt_error(&trust_domain, reason))?;
                    jwt_authorities.extend(key);
                }
                _ => {}
            }
        }
        if x509_authorities.len() > MAX_X509_AUTHORITIES {
            return Err(malformed("it has more than 100 X.509 authorities"));
        }
        Ok(Self {
            jwt_authorities: KeySet::unique(jwt_authorities)
                .map_err(|reason| jwt_error(&trust_domain, reason))?,
            trust_domain,
            x509_authorities,
            sequence,
            refresh_hint: refresh_hint.min(MAX_REFRESH_HINT),
        })
    }

    /// The JWKS form (`use` = `x509-svid` with one `x5c`, or `jwt-svid` with a `kid`).
    pub fn to_json(&self) -> String {
        self.to_value().to_string()
    }

    fn to_value(&self) -> Value {
        let x509 = self.x509_authorities.iter().map(|root| x509_jwk(root));
        let jwt = self
            .jwt_authorities
            .iter()
            .map(|key| key.to_json("jwt-svid"));
        json!({
            "spiffe_sequence": self.sequence,
            "spiffe_refresh_hint": self.refresh_hint.as_secs(),
            "keys": x509.chain(jwt).collect::<Vec<_>>(),
        })
    }

    /// The roots as PEM (RFC 7468).
    pub fn x509_pem(&self) -> String {
        pem::certificates(&self.x509_authorities)
    }
}

fn jwt_error(trust_domain: &TrustDomain, reason: JwtError) -> BundleError {
    BundleError::JwtAuthority {
        trust_domain: trust_domain.clone(),
        reason,
    }
}

/// The certificate of an `x509-svid` entry; `None` where its `kty` is none we know.
fn x509_authority(
    jwk: &Map<String, Value>,
) -> Result<Option<CertificateDer<'static>>, &'static str> {
    match jwk.get("kty").and_then(Value::as_str) {
        Some("EC" | "RSA" | "OKP" | "AKP") => {}
        Some(_) => return Ok(None),
        None => return Err("kty is missing"),
    }
    let [Value::String(text)] = jwk
        .get("x5c")
        .and_then(Value::as_array)
        .ok_or("x5c is missing")?
        .as_slice()
    else {
        return Err("x5c does not hold exactly one certificate");
    };
    let der = STANDARD.decode(text).map_err(|_| "x5c is not base64")?;
    let certificate = leaf::parse(&der).ok_or("x5c is not an X.509 certificate")?;
    if leaf::ca_path_length(&certificate).is_none() {
        return Err("its certificate is not a CA's");
    }
    let root = CertificateDer::from(der);
    webpki::anchor_from_trusted_cert(&root)
        .map_err(|_| "its certificate can't be a trust anchor")?;
    Ok(Some(root))
}

/// The entry of one root. Clients written in Go and Java read the members of the key as well, and
/// refuse an entry without, though only `x5c` counts.
fn x509_jwk(root: &CertificateDer<'_>) -> Value {
    let mut jwk = leaf::parse(root)
        .and_then(|certificate| key_params(certificate.public_key()))
        .map(|params| params.members())
        // The key type of ML-DSA and what else is not described by members of its own.
        .unwrap_or_else(|| Map::from_iter([("kty".to_owned(), "AKP".into())]));
    jwk.insert("use".to_owned(), "x509-svid".into());
    jwk.insert("x5c".to_owned(), json!([STANDARD.encode(root)]));
    Value::Object(jwk)
}

fn key_params(key: &SubjectPublicKeyInfo<'_>) -> Option<Params> {
    match key.parsed().ok()? {
        PublicKey::EC(point) => Params::from_point(point.data()),
        PublicKey::RSA(key) => {
            let unsigned = |bytes: &[u8]| match bytes {
                [0, rest @ ..] => rest.to_vec(),
                _ => bytes.to_vec(),
            };
            Params::rsa(&unsigned(key.modulus), &unsigned(key.exponent)).ok()
        }
        PublicKey::Unknown(bytes) if bytes.len() == 32 => Some(Params::ed25519(bytes)),
        _ => None,
    }
}
