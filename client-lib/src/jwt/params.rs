//! The key material of a public JWK (RFC 7518 §6, RFC 8037 §2): checked once, then kept in the
//! exact text the thumbprint and the published JWK are made of.

use aws_lc_rs::{
    digest,
    rsa::PublicKeyComponents,
    signature::{ParsedPublicKey, VerificationAlgorithm},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Map, Value};

use super::{Algorithm, JwtError};

/// Smallest RSA modulus accepted (RFC 7518 §3.3), and the largest the verifier takes: work grows
/// with the cube of it.
const RSA_MODULUS_BYTES: std::ops::RangeInclusive<usize> = 256..=1024;

/// Longest RSA exponent accepted. 65537 takes three bytes; a long one only makes verifying slow.
const RSA_MAX_EXPONENT_BYTES: usize = 4;

/// Public key material; every string is canonical base64url.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Params {
    /// A point on a NIST curve.
    Ec { curve: Curve, x: String, y: String },
    /// Modulus and exponent.
    Rsa { n: String, e: String },
    /// An Ed25519 key.
    Ed25519 { x: String },
}

/// The curves of RFC 7518 §6.2.1.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Curve {
    P256,
    P384,
    P521,
}

impl Params {
    /// Reads the members `kty` names. `None`: a kind of key we don't know, to be ignored (RFC 7517 §5).
    pub(crate) fn from_members(jwk: &Map<String, Value>) -> Result<Option<Self>, JwtError> {
        let text = |name: &str| jwk.get(name).and_then(Value::as_str);
        let bytes = |name: &str| {
            text(name)
                .and_then(|value| URL_SAFE_NO_PAD.decode(value).ok())
                .ok_or(JwtError::Key("a key member is missing or not base64url"))
        };
        match text("kty") {
            Some("EC") => {
                let Some(curve) = text("crv").and_then(Curve::from_name) else {
                    return Ok(None);
                };
                let (x, y) = (bytes("x")?, bytes("y")?);
                if x.len() != curve.coordinate_bytes() || y.len() != curve.coordinate_bytes() {
                    return Err(JwtError::Key(
                        "a coordinate has the wrong length for its curve",
                    ));
                }
                Ok(Some(Self::ec(curve, &x, &y)))
            }
            Some("RSA") => Self::rsa(&bytes("n")?, &bytes("e")?).map(Some),
            Some("OKP") if text("crv") == Some("Ed25519") => {
                let x = bytes("x")?;
                if x.len() != 32 {
                    return Err(JwtError::Key("an Ed25519 key is 32 bytes"));
                }
                Ok(Some(Self::ed25519(&x)))
            }
            Some(_) => Ok(None),
            None => Err(JwtError::Key("kty is missing or not a string")),
        }
    }

    /// An uncompressed SEC1 point, whose length tells the curve.
    pub(crate) fn from_point(point: &[u8]) -> Option<Self> {
        let (&4, coordinates) = point.split_first()? else {
            return None;
        };
        let curve = match coordinates.len() {
            64 => Curve::P256,
            96 => Curve::P384,
            132 => Curve::P521,
            _ => return None,
        };
        let (x, y) = coordinates.split_at_checked(curve.coordinate_bytes())?;
        Some(Self::ec(curve, x, y))
    }

    /// An RSA key; refuses weak and malformed ones.
    pub(crate) fn rsa(n: &[u8], e: &[u8]) -> Result<Self, JwtError> {
        if n.first() == Some(&0) || e.first() == Some(&0) {
            return Err(JwtError::Key("an RSA member has leading zeros"));
        }
        let top_bit_set = n.first().is_some_and(|byte| byte & 0x80 != 0);
        let strong = RSA_MODULUS_BYTES.contains(&n.len())
            && (top_bit_set || n.len() > *RSA_MODULUS_BYTES.start());
        if !strong {
            return Err(JwtError::Key("the RSA modulus is not of 2048 to 8192 bits"));
        }
        if n.last().is_none_or(|byte| byte & 1 == 0) {
            return Err(JwtError::Key("the RSA modulus is even"));
        }
        let odd = e.last().is_some_and(|byte| byte & 1 == 1);
        if !odd || e == [1] || e.len() > RSA_MAX_EXPONENT_BYTES {
            return Err(JwtError::Key("the RSA exponent is even, 1 or too long"));
        }
        Ok(Self::Rsa {
            n: URL_SAFE_NO_PAD.encode(n),
            e: URL_SAFE_NO_PAD.encode(e),
        })
    }

    /// A raw Ed25519 public key.
    pub(crate) fn ed25519(x: &[u8]) -> Self {
        Self::Ed25519 {
            x: URL_SAFE_NO_PAD.encode(x),
        }
    }

    fn ec(curve: Curve, x: &[u8], y: &[u8]) -> Self {
        Self::Ec {
            curve,
            x: URL_SAFE_NO_PAD.encode(x),
            y: URL_SAFE_NO_PAD.encode(y),
        }
    }

    /// The members RFC 7638 hashes, which are the key's required members.
    pub(crate) fn members(&self) -> Map<String, Value> {
        let pairs: &[(&str, &str)] = match self {
            Self::Ec { curve, x, y } => &[("crv", curve.name()), ("kty", "EC"), ("x", x), ("y", y)],
            Self::Rsa { n, e } => &[("e", e), ("kty", "RSA"), ("n", n)],
            Self::Ed25519 { x } => &[("crv", "Ed25519"), ("kty", "OKP"), ("x", x)],
        };
        pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).into()))
            .collect()
    }

    /// RFC 7638 SHA-256 thumbprint, base64url. The members are in lexicographic order and hold
    /// nothing JSON would escape, so this text is the canonical form.
    pub(crate) fn thumbprint(&self) -> String {
        let canonical = match self {
            Self::Ec { curve, x, y } => {
                format!(
                    r#"{{"crv":"{}","kty":"EC","x":"{x}","y":"{y}"}}"#,
                    curve.name()
                )
            }
            Self::Rsa { n, e } => format!(r#"{{"e":"{e}","kty":"RSA","n":"{n}"}}"#),
            Self::Ed25519 { x } => format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{x}"}}"#),
        };
        URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, canonical.as_bytes()))
    }

    /// The algorithm of a key that doesn't name one. For RSA several would do: RS256, the default
    /// of every issuer that leaves `alg` out.
    pub(crate) fn default_algorithm(&self) -> Algorithm {
        match self {
            Self::Ec { curve, .. } => match curve {
                Curve::P256 => Algorithm::ES256,
                Curve::P384 => Algorithm::ES384,
                Curve::P521 => Algorithm::ES512,
            },
            Self::Rsa { .. } => Algorithm::RS256,
            Self::Ed25519 { .. } => Algorithm::EdDSA,
        }
    }

    /// Whether a key of this material can be used with `algorithm`.
    pub(crate) fn allows(&self, algorithm: Algorithm) -> bool {
        use Algorithm::{PS256, PS384, PS512, RS256, RS384, RS512};
        match self {
            Self::Rsa { .. } => {
                matches!(algorithm, RS256 | RS384 | RS512 | PS256 | PS384 | PS512)
            }
            Self::Ec { .. } | Self::Ed25519 { .. } => algorithm == self.default_algorithm(),
        }
    }

    /// Hands the material to the verifier, which refuses a point that is not on its curve.
    pub(crate) fn parse(&self, algorithm: Algorithm) -> Result<ParsedPublicKey, JwtError> {
        let bytes = |text: &str| {
            URL_SAFE_NO_PAD
                .decode(text)
                .map_err(|_| JwtError::Key("not base64url"))
        };
        match (self, algorithm.verifier()) {
            (Self::Ec { x, y, .. }, Verifier::Other(verifier)) => {
                let point = [vec![4], bytes(x)?, bytes(y)?].concat();
                ParsedPublicKey::new(verifier, point)
                    .map_err(|_| JwtError::Key("the point is not on its curve"))
            }
            (Self::Ed25519 { x }, Verifier::Other(verifier)) => {
                ParsedPublicKey::new(verifier, bytes(x)?)
                    .map_err(|_| JwtError::Key("not an Ed25519 key"))
            }
            (Self::Rsa { n, e }, Verifier::Rsa(verifier)) => PublicKeyComponents {
                n: bytes(n)?,
                e: bytes(e)?,
            }
            .to_parsed_public_key(verifier)
            .map_err(|_| JwtError::Key("not an RSA key")),
            _ => Err(JwtError::Key("alg does not fit the kind of key")),
        }
    }
}

/// How aws-lc-rs names a verification algorithm.
pub(crate) enum Verifier {
    Rsa(&'static aws_lc_rs::signature::RsaParameters),
    Other(&'static dyn VerificationAlgorithm),
}

impl Curve {
    fn from_name(name: &str) -> Option<Self> {
        match name {
            "P-256" => Some(Self::P256),
            "P-384" => Some(Self::P384),
            "P-521" => Some(Self::P521),
            _ => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::P256 => "P-256",
            Self::P384 => "P-384",
            Self::P521 => "P-521",
        }
    }

    /// RFC 7518 §6.2.1.2: coordinates are always of full length.
    fn coordinate_bytes(self) -> usize {
        match self {
            Self::P256 => 32,
            Self::P384 => 48,
            Self::P521 => 66,
        }
    }
}
