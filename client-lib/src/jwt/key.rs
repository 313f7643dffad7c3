//! Public keys: JWK and JWK sets (RFC 7517), one algorithm per key.

use std::{fmt, sync::Arc};

use aws_lc_rs::{
    digest,
    encoding::AsDer as _,
    signature::{self, ParsedPublicKey},
};
use rustls_pki_types::{SubjectPublicKeyInfoDer, pem::PemObject as _};
use serde_json::{Map, Value};

use super::{
    JwtError, json,
    params::{Params, Verifier},
};

/// Longest JWK set accepted: a hundred RSA-4096 keys with certificates fit well.
pub const MAX_JWKS_BYTES: usize = 1024 * 1024;

/// Most keys accepted in one set. Issuers publish two to four.
pub const MAX_KEYS: usize = 100;

/// Longest `kid` accepted, in bytes; it is copied, compared and hashed.
const MAX_KID_BYTES: usize = 256;

/// What a P-256 key in DER begins with (RFC 5480 §2): ecPublicKey, prime256v1, and 65 bytes of a point.
const P256_SPKI: &[u8] = &[
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a,
    0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

/// Members that only a private or symmetric key has (RFC 7518 §6).
const PRIVATE_MEMBERS: &[&str] = &["d", "p", "q", "dp", "dq", "qi", "oth", "k", "priv"];

/// Signature algorithms we accept of key pairs (RFC 7518 §3.1, RFC 8037). `none` is nowhere, and the HMAC of a
/// shared secret is elsewhere ([`HmacKey`](super::HmacKey)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Algorithm {
    ES256,
    ES384,
    ES512,
    RS256,
    RS384,
    RS512,
    PS256,
    PS384,
    PS512,
    EdDSA,
}

/// One parsed public key with its `kid`. Cloning is cheap.
#[derive(Clone)]
pub struct PublicJwk(Arc<Inner>);

struct Inner {
    kid: String,
    algorithm: Algorithm,
    params: Params,
    verifier: ParsedPublicKey,
    spki_sha256: [u8; 32],
}

/// Keys by `kid`; parsed once.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct KeySet {
    /// Sorted by `kid`, which is unique.
    keys: Vec<PublicJwk>,
}

impl PublicJwk {
    /// Parses one public JWK whose `use`, if any, is `sig` or `jwt-svid`.
    /// A key without `kid` goes by its thumbprint.
    ///
    /// # Errors
    /// [`JwtError::Key`]: malformed, private, weak, or of a kind we don't verify with.
    pub fn from_json(json: &Value) -> Result<Self, JwtError> {
        let members = json
            .as_object()
            .ok_or(JwtError::Key("a JWK is a JSON object"))?;
        if !matches!(key_use(members)?, None | Some("sig" | "jwt-svid")) {
            return Err(JwtError::Key("use is not that of a signature key"));
        }
        let kid = kid(members)?.map(str::to_owned);
        Self::from_members(members, kid, Algorithm::ALL)?
            .ok_or(JwtError::Key("unknown kty, crv or alg"))
    }

    /// A P-256 key, called `kid`, from PEM (`PUBLIC KEY`, RFC 7468 §13): as Application Load Balancers publish
    /// theirs.
    ///
    /// # Errors
    /// [`JwtError::Key`]: not one PEM block with a P-256 key on its curve, uncompressed.
    pub fn p256_from_pem(kid: &str, pem: &[u8]) -> Result<Self, JwtError> {
        const NOT_P256: JwtError = JwtError::Key("not a P-256 public key in PEM");
        let spki = SubjectPublicKeyInfoDer::from_pem_slice(pem).map_err(|_| NOT_P256)?;
        let point = spki.strip_prefix(P256_SPKI).ok_or(NOT_P256)?;
        let params = Params::from_point(point).ok_or(NOT_P256)?;
        match params.default_algorithm() {
            Algorithm::ES256 => Self::build(kid.to_owned(), Algorithm::ES256, params),
            _ => Err(NOT_P256),
        }
    }

    /// The `kid`.
    pub fn kid(&self) -> &str {
        &self.0.kid
    }

    /// The one algorithm this key is used with.
    pub fn algorithm(&self) -> Algorithm {
        self.0.algorithm
    }

    /// The JWK as JSON (public members only), with the given `use`.
    pub fn to_json(&self, key_use: &str) -> Value {
        let mut members = self.0.params.members();
        members.insert("alg".to_owned(), self.0.algorithm.name().into());
        members.insert("kid".to_owned(), self.kid().into());
        members.insert("use".to_owned(), key_use.into());
        Value::Object(members)
    }

    /// RFC 7638 SHA-256 thumbprint, base64url.
    pub fn thumbprint(&self) -> String {
        self.0.params.thumbprint()
    }

    /// SHA-256 of the key as DER SubjectPublicKeyInfo (RFC 5280 §4.1.2.7), whatever its `kid`.
    pub fn spki_sha256(&self) -> [u8; 32] {
        self.0.spki_sha256
    }

    /// Whether `signature` is over `message`, in the form the key's JWS algorithm has it
    /// (ES256: r ‖ s, 64 bytes, as [`super::SigningKey::sign_raw`] makes them).
    pub fn verify_raw(&self, message: &[u8], signature: &[u8]) -> bool {
        self.0.verifier.verify_sig(message, signature).is_ok()
    }

    /// The key for `params`, named by its thumbprint, used with its default algorithm.
    pub(super) fn from_params(params: Params) -> Result<Self, JwtError> {
        let algorithm = params.default_algorithm();
        Self::build(params.thumbprint(), algorithm, params)
    }

    /// `None`: a key to be ignored, because its kind or algorithm is none of `pinned`. A key that
    /// names no algorithm has the first of them that fits it.
    fn from_members(
        jwk: &Map<String, Value>,
        kid: Option<String>,
        pinned: &[Algorithm],
    ) -> Result<Option<Self>, JwtError> {
        let Some(params) = Params::from_members(jwk)? else {
            return Ok(None);
        };
        if PRIVATE_MEMBERS.iter().any(|name| jwk.contains_key(*name)) {
            return Err(JwtError::Key("it has private members"));
        }
        check_operations(jwk)?;
        let fits = |algorithm: &&Algorithm| params.allows(**algorithm);
        let algorithm = match jwk.get("alg") {
            None => pinned.iter().find(fits),
            Some(Value::String(name)) => match Algorithm::from_name(name) {
                None => None,
                Some(named) if params.allows(named) => pinned.iter().find(|it| **it == named),
                Some(_) => return Err(JwtError::Key("alg does not fit kty and crv")),
            },
            Some(_) => return Err(JwtError::Key("alg is not a string")),
        };
        let Some(&algorithm) = algorithm else {
            return Ok(None);
        };
        let kid = kid.unwrap_or_else(|| params.thumbprint());
        Self::build(kid, algorithm, params).map(Some)
    }

    fn build(kid: String, algorithm: Algorithm, params: Params) -> Result<Self, JwtError> {
        let verifier = params.parse(algorithm)?;
        let spki = verifier
            .as_der()
            .map_err(|_| JwtError::Key("it has no DER form"))?;
        let mut spki_sha256 = [0; 32];
        spki_sha256.copy_from_slice(digest::digest(&digest::SHA256, spki.as_ref()).as_ref());
        Ok(Self(Arc::new(Inner {
            kid,
            algorithm,
            params,
            verifier,
            spki_sha256,
        })))
    }
}

impl PartialEq for PublicJwk {
    fn eq(&self, other: &Self) -> bool {
        let (a, b) = (&self.0, &other.0);
        a.kid == b.kid && a.algorithm == b.algorithm && a.params == b.params
    }
}

impl fmt::Debug for PublicJwk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PublicJwk")
            .field("kid", &self.kid())
            .field("algorithm", &self.algorithm())
            .finish_non_exhaustive()
    }
}

impl KeySet {
    /// Parses a JWK set; keeps keys whose `use` is `key_use` or absent. Ignored, because no token
    /// can be verified with them: keys without `kid`, and those of an unknown `kty`, `crv` or `alg`.
    ///
    /// # Errors
    /// [`JwtError::Key`]: not a JWK set, too large, a duplicate `kid`, a private member, a weak or
    /// malformed key.
    pub fn from_jwks(json: &[u8], key_use: &str) -> Result<Self, JwtError> {
        Self::parse(json, key_use, Algorithm::ALL)
    }

    /// Parses the JWK set of an issuer that signs with the `pinned` algorithms only: its signature
    /// keys of other algorithms are ignored, too. A key that names none, as those of AWS don't, is
    /// used with the first of `pinned` that fits its `kty` and `crv`.
    ///
    /// # Errors
    /// As for [`from_jwks`](Self::from_jwks).
    pub fn of_issuer(json: &[u8], pinned: &[Algorithm]) -> Result<Self, JwtError> {
        Self::parse(json, "sig", pinned)
    }

    fn parse(json: &[u8], key_use: &str, pinned: &[Algorithm]) -> Result<Self, JwtError> {
        if json.len() > MAX_JWKS_BYTES {
            return Err(JwtError::Key("the JWK set is too large"));
        }
        let document = json::parse_object(json)
            .map_err(|_| JwtError::Key("the JWK set is not strict JSON"))?;
        let entries = document
            .get("keys")
            .and_then(Value::as_array)
            .ok_or(JwtError::Key("the JWK set has no list of keys"))?;
        let mut keys = Vec::new();
        for entry in entries {
            let members = entry
                .as_object()
                .ok_or(JwtError::Key("a JWK is a JSON object"))?;
            if self::key_use(members)?.is_some_and(|it| it != key_use) {
                continue;
            }
            let Some(kid) = kid(members)? else { continue };
            keys.extend(PublicJwk::from_members(
                members,
                Some(kid.to_owned()),
                pinned,
            )?);
        }
        Self::unique(keys)
    }

    /// Parses the JWK with this use and a `kid` out of a SPIFFE bundle, where `kid` is mandatory.
    #[cfg(feature = "tls")]
    pub(crate) fn key_of_bundle(
        members: &Map<String, Value>,
    ) -> Result<Option<PublicJwk>, JwtError> {
        let kid = kid(members)?.ok_or(JwtError::Key("kid is missing"))?;
        PublicJwk::from_members(members, Some(kid.to_owned()), Algorithm::ALL)
    }

    /// A set of exactly these; of two with the same `kid`, the first.
    pub fn new(mut keys: Vec<PublicJwk>) -> Self {
        keys.sort_by(|a, b| a.kid().cmp(b.kid()));
        keys.dedup_by(|later, earlier| later.kid() == earlier.kid());
        Self { keys }
    }

    /// A set of these, refusing duplicates and too many.
    pub(crate) fn unique(keys: Vec<PublicJwk>) -> Result<Self, JwtError> {
        let count = keys.len();
        if count > MAX_KEYS {
            return Err(JwtError::Key("the JWK set has too many keys"));
        }
        let set = Self::new(keys);
        if set.keys.len() != count {
            return Err(JwtError::Key("two keys have the same kid"));
        }
        Ok(set)
    }

    /// The keys, in the order of their `kid`.
    pub fn iter(&self) -> impl Iterator<Item = &PublicJwk> {
        self.keys.iter()
    }

    /// The key with this `kid`.
    pub fn find(&self, kid: &str) -> Option<&PublicJwk> {
        let index = self.keys.binary_search_by(|key| key.kid().cmp(kid)).ok()?;
        self.keys.get(index)
    }
}

impl Algorithm {
    /// All of them. RS256 leads those of RSA: it is the default of every issuer that leaves `alg` out.
    pub const ALL: &'static [Self] = &[
        Self::ES256,
        Self::ES384,
        Self::ES512,
        Self::RS256,
        Self::RS384,
        Self::RS512,
        Self::PS256,
        Self::PS384,
        Self::PS512,
        Self::EdDSA,
    ];

    /// The `alg` value.
    pub fn name(self) -> &'static str {
        match self {
            Self::ES256 => "ES256",
            Self::ES384 => "ES384",
            Self::ES512 => "ES512",
            Self::RS256 => "RS256",
            Self::RS384 => "RS384",
            Self::RS512 => "RS512",
            Self::PS256 => "PS256",
            Self::PS384 => "PS384",
            Self::PS512 => "PS512",
            Self::EdDSA => "EdDSA",
        }
    }

    /// The algorithm `alg` names; case matters (RFC 7515 §4.1.1).
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL
            .iter()
            .copied()
            .find(|algorithm| algorithm.name() == name)
    }

    /// Who verifies it. PSS salts are as long as the digest, as RFC 7518 §3.5 demands.
    pub(super) fn verifier(self) -> Verifier {
        match self {
            Self::ES256 => Verifier::Other(&signature::ECDSA_P256_SHA256_FIXED),
            Self::ES384 => Verifier::Other(&signature::ECDSA_P384_SHA384_FIXED),
            Self::ES512 => Verifier::Other(&signature::ECDSA_P521_SHA512_FIXED),
            Self::RS256 => Verifier::Rsa(&signature::RSA_PKCS1_2048_8192_SHA256),
            Self::RS384 => Verifier::Rsa(&signature::RSA_PKCS1_2048_8192_SHA384),
            Self::RS512 => Verifier::Rsa(&signature::RSA_PKCS1_2048_8192_SHA512),
            Self::PS256 => Verifier::Rsa(&signature::RSA_PSS_2048_8192_SHA256),
            Self::PS384 => Verifier::Rsa(&signature::RSA_PSS_2048_8192_SHA384),
            Self::PS512 => Verifier::Rsa(&signature::RSA_PSS_2048_8192_SHA512),
            Self::EdDSA => Verifier::Other(&signature::ED25519),
        }
    }
}

fn key_use(jwk: &Map<String, Value>) -> Result<Option<&str>, JwtError> {
    match jwk.get("use") {
        None => Ok(None),
        Some(Value::String(key_use)) => Ok(Some(key_use)),
        Some(_) => Err(JwtError::Key("use is not a string")),
    }
}

fn kid(jwk: &Map<String, Value>) -> Result<Option<&str>, JwtError> {
    match jwk.get("kid") {
        None => Ok(None),
        Some(Value::String(kid)) if (1..=MAX_KID_BYTES).contains(&kid.len()) => Ok(Some(kid)),
        Some(_) => Err(JwtError::Key("kid is not a string of 1 to 256 bytes")),
    }
}

/// RFC 7517 §4.3: where operations are listed, verifying must be one of them.
fn check_operations(jwk: &Map<String, Value>) -> Result<(), JwtError> {
    let Some(operations) = jwk.get("key_ops") else {
        return Ok(());
    };
    let lists_verify = operations
        .as_array()
        .is_some_and(|list| list.iter().any(|operation| operation == "verify"));
    if lists_verify {
        Ok(())
    } else {
        Err(JwtError::Key("key_ops does not list verify"))
    }
}
