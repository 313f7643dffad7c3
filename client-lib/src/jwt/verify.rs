//! Verification: size, form, header, key, signature, and only then the claims.

use std::time::{Duration, SystemTime};

use base64::{
    Engine as _,
    engine::general_purpose::{URL_SAFE, URL_SAFE_NO_PAD},
};
use serde_json::{Map, Value};

use super::{
    Algorithm, Claims, HmacKey, JwtError, KeySet, LoadBalancer, MAX_TOKEN_BYTES, Profile, claims,
    json,
};

/// The one `alg` of a shared secret.
const HS256: &str = "HS256";

/// Verifies `token` against `profile` with `keys` at `now`.
///
/// # Errors
/// See [`JwtError`]; everything S9 of the design lists is refused.
pub fn verify(
    token: &str,
    profile: &Profile,
    keys: &KeySet,
    now: SystemTime,
) -> Result<Claims, JwtError> {
    check_length(token)?;
    verify_document(token, profile, keys, now)
}

/// The same for what is no token of a request but a document that was asked for. Whoever read it has
/// bounded its length.
///
/// # Errors
/// See [`JwtError`].
pub fn verify_document(
    document: &str,
    profile: &Profile,
    keys: &KeySet,
    now: SystemTime,
) -> Result<Claims, JwtError> {
    let parts = Parts::split(document, profile)?;
    let header = parts.header()?;
    let head = Head::read(&header, profile, now)?;
    let algorithm = head.algorithm(profile)?;
    let kid = head.kid.ok_or(JwtError::Header("kid is missing"))?;
    let key = keys.find(kid).ok_or(JwtError::UnknownKey)?;
    if key.algorithm() != algorithm {
        return Err(JwtError::Header("alg is not that of the key"));
    }
    if !key.verify_raw(parts.signed.as_bytes(), &parts.decode(parts.signature)?) {
        return Err(JwtError::Signature);
    }
    claims::read(parts.payload()?, &head, profile, now)
}

/// Verifies `token` with one of the secrets shared with its issuer: the present one, and while it changes
/// the former. Only for [`Profile::hs256`]; every other profile refuses every token here.
///
/// # Errors
/// See [`JwtError`].
pub fn verify_hs256(
    token: &str,
    profile: &Profile,
    keys: &[HmacKey],
    now: SystemTime,
) -> Result<Claims, JwtError> {
    check_length(token)?;
    let parts = Parts::split(token, profile)?;
    let header = parts.header()?;
    let head = Head::read(&header, profile, now)?;
    if !profile.symmetric || head.alg != HS256 {
        return Err(JwtError::Header("alg is not of this profile"));
    }
    let tag = parts.decode(parts.signature)?;
    let is_signed = |key: &HmacKey| key.verify(parts.signed.as_bytes(), &tag);
    if !keys.iter().any(is_signed) {
        return Err(JwtError::Signature);
    }
    claims::read(parts.payload()?, &head, profile, now)
}

/// Which key a token of this profile names: good for having it fetched, and for nothing else.
pub(super) fn key_id(token: &str, profile: &Profile, now: SystemTime) -> Result<String, JwtError> {
    check_length(token)?;
    let header = Parts::split(token, profile)?.header()?;
    let head = Head::read(&header, profile, now)?;
    let kid = head.kid.ok_or(JwtError::Header("kid is missing"))?;
    Ok(kid.to_owned())
}

fn check_length(token: &str) -> Result<(), JwtError> {
    if token.len() > MAX_TOKEN_BYTES {
        return Err(JwtError::Malformed("longer than 8 KiB"));
    }
    Ok(())
}

/// A compact serialisation, cut but not yet decoded.
struct Parts<'a> {
    header: &'a str,
    payload: &'a str,
    signature: &'a str,
    /// `header.payload`: what the signature is over.
    signed: &'a str,
    /// Whether each part ends in the `=` of padded base64url, where there are any to add.
    padded: bool,
}

impl<'a> Parts<'a> {
    fn split(token: &'a str, profile: &Profile) -> Result<Self, JwtError> {
        const NOT_THREE: JwtError = JwtError::Malformed("not three parts");
        let (signed, signature) = token.rsplit_once('.').ok_or(NOT_THREE)?;
        let (header, payload) = signed.split_once('.').ok_or(NOT_THREE)?;
        if payload.contains('.') {
            return Err(NOT_THREE);
        }
        Ok(Self {
            header,
            payload,
            signature,
            signed,
            padded: profile.load_balancer.is_some(),
        })
    }

    fn header(&self) -> Result<Map<String, Value>, JwtError> {
        json::parse_object(&self.decode(self.header)?)
            .map_err(|_| JwtError::Malformed("the header is not a JSON object of unique members"))
    }

    fn payload(&self) -> Result<Map<String, Value>, JwtError> {
        json::parse_object(&self.decode(self.payload)?)
            .map_err(|_| JwtError::Malformed("the payload is not a JSON object of unique members"))
    }

    /// Canonical base64url: no spaces, no left-over bits, and no padding (RFC 7515 §2), or always padding.
    fn decode(&self, part: &str) -> Result<Vec<u8>, JwtError> {
        let engine = match self.padded {
            true => &URL_SAFE,
            false => &URL_SAFE_NO_PAD,
        };
        engine
            .decode(part)
            .map_err(|_| JwtError::Malformed("a part is not canonical base64url"))
    }
}

/// A header that is of the profile.
pub(super) struct Head<'a> {
    alg: &'a str,
    pub(super) kid: Option<&'a str>,
    /// `exp`, which a load balancer puts here.
    pub(super) expires: Option<Duration>,
}

impl<'a> Head<'a> {
    fn read(
        header: &'a Map<String, Value>,
        profile: &Profile,
        now: SystemTime,
    ) -> Result<Self, JwtError> {
        if header.contains_key("crit") || header.contains_key("b64") {
            return Err(JwtError::Header("it asks for an extension (crit, b64)"));
        }
        if header
            .keys()
            .any(|name| !profile.header.contains(&name.as_str()))
        {
            return Err(JwtError::Header("a member is not of this profile"));
        }
        let typ = match text(header, "typ", "typ is not a string")? {
            Some("") => return Err(JwtError::Header("typ is empty")),
            Some(typ) => typ,
            None => "",
        };
        if !profile.typ.contains(&typ) {
            return Err(JwtError::Header("typ is not of this profile"));
        }
        let alg = text(header, "alg", "alg is not a string")?
            .ok_or(JwtError::Header("alg is missing"))?;
        let kid = text(header, "kid", "kid is not a string")?;
        for name in ["x5t", "x5t#S256"] {
            text(header, name, "a thumbprint is not a string")?;
        }
        let expires = match &profile.load_balancer {
            Some(load_balancer) => Some(load_balancer.check(header, profile, now)?),
            None => None,
        };
        Ok(Self { alg, kid, expires })
    }

    /// That of a key pair.
    fn algorithm(&self, profile: &Profile) -> Result<Algorithm, JwtError> {
        let mut pinned = profile.algorithms.iter().copied();
        pinned
            .find(|algorithm| algorithm.name() == self.alg && !profile.symmetric)
            .ok_or(JwtError::Header("alg is not of this profile"))
    }
}

impl LoadBalancer {
    /// When the header says that the token expires, where that and all else in it is as it must be.
    fn check(
        &self,
        header: &Map<String, Value>,
        profile: &Profile,
        now: SystemTime,
    ) -> Result<Duration, JwtError> {
        let is_one_of = |name: &str, allowed: &[String]| {
            let said = header.get(name).and_then(Value::as_str);
            said.is_some_and(|said| allowed.iter().any(|it| it == said))
        };
        if !is_one_of("signer", &self.signers) {
            return Err(JwtError::Header("signer is not a pinned load balancer"));
        }
        if !is_one_of("client", &self.clients) {
            return Err(JwtError::Header("client is not a pinned one"));
        }
        if !is_one_of("iss", profile.issuer.as_slice()) {
            return Err(JwtError::Header("iss is not the pinned issuer"));
        }
        let exp = header
            .get("exp")
            .and_then(|exp| claims::numeric_date(exp, false))
            .ok_or(JwtError::Header("exp is missing, or not a date"))?;
        claims::check_expiry(exp, profile, claims::since_1970(now)?)?;
        Ok(exp)
    }
}

fn text<'a>(
    header: &'a Map<String, Value>,
    name: &str,
    ill_typed: &'static str,
) -> Result<Option<&'a str>, JwtError> {
    match header.get(name) {
        None => Ok(None),
        Some(Value::String(value)) => Ok(Some(value)),
        Some(_) => Err(JwtError::Header(ill_typed)),
    }
}
