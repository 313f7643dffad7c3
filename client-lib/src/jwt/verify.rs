//! Verification: size, form, header, key, signature, and only then the claims.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Map, Value};

use super::{
    Claims, JwtError, KeySet, MAX_AUDIENCES, MAX_TOKEN_BYTES, Profile, PublicJwk, Required,
    SubjectRule, json,
};
use crate::SpiffeId;

/// Last second of the year 9999, the last a date can be written for (RFC 5280 §4.1.2.5, RFC 3339).
const LAST_DATE: Duration = Duration::from_secs(253_402_300_799);

/// Longest `sub` and `iss`: that of a SPIFFE ID.
const MAX_NAME_BYTES: usize = 2048;

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
    if token.len() > MAX_TOKEN_BYTES {
        return Err(JwtError::Malformed("longer than 8 KiB"));
    }
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
    let parts = Parts::split(document)?;
    let key = key_for(&parts.header()?, profile, keys)?;
    if !key.verify_raw(parts.signed.as_bytes(), &decode(parts.signature)?) {
        return Err(JwtError::Signature);
    }
    claims(parts.payload()?, key, profile, now)
}

/// A compact serialisation, cut but not yet decoded.
struct Parts<'a> {
    header: &'a str,
    payload: &'a str,
    signature: &'a str,
    /// `header.payload`: what the signature is over.
    signed: &'a str,
}

impl<'a> Parts<'a> {
    fn split(token: &'a str) -> Result<Self, JwtError> {
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
        })
    }

    fn header(&self) -> Result<Map<String, Value>, JwtError> {
        json::parse_object(&decode(self.header)?)
            .map_err(|_| JwtError::Malformed("the header is not a JSON object of unique members"))
    }

    fn payload(&self) -> Result<Map<String, Value>, JwtError> {
        json::parse_object(&decode(self.payload)?)
            .map_err(|_| JwtError::Malformed("the payload is not a JSON object of unique members"))
    }
}

/// Canonical base64url: no padding, no spaces, no left-over bits (RFC 7515 §2).
fn decode(part: &str) -> Result<Vec<u8>, JwtError> {
    URL_SAFE_NO_PAD
        .decode(part)
        .map_err(|_| JwtError::Malformed("a part is not canonical base64url"))
}

/// Checks the header and finds the one key it may have been signed with.
fn key_for<'k>(
    header: &Map<String, Value>,
    profile: &Profile,
    keys: &'k KeySet,
) -> Result<&'k PublicJwk, JwtError> {
    if header.contains_key("crit") || header.contains_key("b64") {
        return Err(JwtError::Header("it asks for an extension (crit, b64)"));
    }
    if header
        .keys()
        .any(|name| !profile.header.contains(&name.as_str()))
    {
        return Err(JwtError::Header("a member is not of this profile"));
    }
    let text = |name: &str, ill_typed| match header.get(name) {
        None => Ok(None),
        Some(Value::String(value)) => Ok(Some(value.as_str())),
        Some(_) => Err(JwtError::Header(ill_typed)),
    };
    let typ = match text("typ", "typ is not a string")? {
        Some("") => return Err(JwtError::Header("typ is empty")),
        Some(typ) => typ,
        None => "",
    };
    if !profile.typ.contains(&typ) {
        return Err(JwtError::Header("typ is not of this profile"));
    }
    let alg = text("alg", "alg is not a string")?.ok_or(JwtError::Header("alg is missing"))?;
    let algorithm = *profile
        .algorithms
        .iter()
        .find(|algorithm| algorithm.name() == alg)
        .ok_or(JwtError::Header("alg is not of this profile"))?;
    let kid = text("kid", "kid is not a string")?.ok_or(JwtError::Header("kid is missing"))?;
    let key = keys.find(kid).ok_or(JwtError::UnknownKey)?;
    if key.algorithm() != algorithm {
        return Err(JwtError::Header("alg is not that of the key"));
    }
    Ok(key)
}

/// Reads the claims of a payload whose signature verified.
fn claims(
    all: Map<String, Value>,
    key: &PublicJwk,
    profile: &Profile,
    now: SystemTime,
) -> Result<Claims, JwtError> {
    let dates = dates(&all, profile, now)?;
    let issuer = issuer(&all, profile)?;
    let audiences = audiences(&all, profile)?;
    let subject = subject(&all, profile)?;
    let id = id(&all)?;
    for claim in profile.required {
        match claim {
            Required::IssuedAt if dates.issued_at.is_none() => {
                return Err(JwtError::Claim("iat is missing"));
            }
            Required::Id if id.is_none() => return Err(JwtError::Claim("jti is missing")),
            Required::ClientId if !is_text(all.get("client_id")) => {
                return Err(JwtError::Claim(
                    "client_id is missing, or not a string of 1 to 2048 bytes",
                ));
            }
            _ => {}
        }
    }
    let scopes = match all.get("scope") {
        None => Vec::new(),
        Some(Value::String(scope)) => scope.split(' ').map(str::to_owned).collect(),
        Some(_) => return Err(JwtError::Claim("scope is not a string")),
    };
    Ok(Claims {
        subject,
        issuer,
        audiences,
        expires_at: dates.expires_at,
        issued_at: dates.issued_at,
        id,
        scopes: scopes
            .into_iter()
            .filter(|scope| !scope.is_empty())
            .collect(),
        all,
        key_id: key.kid().to_owned(),
    })
}

/// The dates a caller needs; the others are checked and forgotten.
struct Dates {
    expires_at: SystemTime,
    issued_at: Option<SystemTime>,
}

fn dates(all: &Map<String, Value>, profile: &Profile, now: SystemTime) -> Result<Dates, JwtError> {
    let now = now
        .duration_since(UNIX_EPOCH)
        .map_err(|_| JwtError::Claim("our own clock is before 1970"))?;
    let date = |name: &str, ill_typed| match all.get(name) {
        None => Ok(None),
        Some(value) => numeric_date(value, profile.fractional_dates)
            .map(Some)
            .ok_or(JwtError::Claim(ill_typed)),
    };
    let exp = date("exp", "exp is not a date")?.ok_or(JwtError::Claim("exp is missing"))?;
    let nbf = date("nbf", "nbf is not a date")?;
    let iat = date("iat", "iat is not a date")?;
    if now >= exp.saturating_add(profile.skew) {
        return Err(JwtError::Expired);
    }
    let horizon = now.saturating_add(profile.skew);
    if nbf.is_some_and(|nbf| nbf > horizon) {
        return Err(JwtError::Claim("nbf is in the future"));
    }
    if iat.is_some_and(|iat| iat > horizon) {
        return Err(JwtError::Claim("iat is in the future"));
    }
    Ok(Dates {
        expires_at: UNIX_EPOCH + exp,
        issued_at: iat.map(|iat| UNIX_EPOCH + iat),
    })
}

/// RFC 7519 §2 NumericDate, from 1970 to 9999.
fn numeric_date(value: &Value, fractional: bool) -> Option<Duration> {
    let date = match value.as_u64() {
        Some(seconds) => Duration::from_secs(seconds),
        None if fractional => Duration::try_from_secs_f64(value.as_f64()?).ok()?,
        None => return None,
    };
    (date <= LAST_DATE).then_some(date)
}

fn issuer(all: &Map<String, Value>, profile: &Profile) -> Result<Option<String>, JwtError> {
    let issuer = match all.get("iss") {
        None => None,
        Some(Value::String(issuer)) if issuer.len() <= MAX_NAME_BYTES => Some(issuer.clone()),
        Some(_) => return Err(JwtError::Claim("iss is not a string, or too long")),
    };
    if profile.issuer.is_some() && issuer != profile.issuer {
        return Err(JwtError::Claim("iss is not the pinned issuer"));
    }
    Ok(issuer)
}

fn audiences(all: &Map<String, Value>, profile: &Profile) -> Result<Vec<String>, JwtError> {
    const ILL_TYPED: JwtError = JwtError::Claim("aud is not a string or a short list of strings");
    let listed = match all.get("aud") {
        Some(one @ Value::String(_)) => std::slice::from_ref(one),
        Some(Value::Array(list)) if list.len() <= MAX_AUDIENCES => list.as_slice(),
        Some(_) => return Err(ILL_TYPED),
        None => return Err(JwtError::Claim("aud is missing")),
    };
    if profile.single_audience && listed.len() > 1 {
        return Err(JwtError::Claim("aud names more than one audience"));
    }
    let audiences: Vec<String> = listed
        .iter()
        .map(|audience| audience.as_str().map(str::to_owned))
        .collect::<Option<_>>()
        .ok_or(ILL_TYPED)?;
    if audiences.iter().any(|it| profile.audiences.contains(it)) {
        Ok(audiences)
    } else {
        Err(JwtError::Claim("aud does not name us"))
    }
}

fn subject(all: &Map<String, Value>, profile: &Profile) -> Result<String, JwtError> {
    let subject = match all.get("sub") {
        Some(Value::String(subject)) if is_name(subject) => subject,
        Some(_) => return Err(JwtError::Claim("sub is not a string of 1 to 2048 bytes")),
        None => return Err(JwtError::Claim("sub is missing")),
    };
    // A second spelling of one identity (`SPIFFE://EXAMPLE.org/x`) would slip past rules that compare text.
    let is_canonical_id = || {
        SpiffeId::new(subject).is_ok_and(|id| !id.path().is_empty() && id.to_string() == *subject)
    };
    if profile.subject == SubjectRule::SpiffeId && !is_canonical_id() {
        return Err(JwtError::Claim("sub is not a SPIFFE ID with a path"));
    }
    Ok(subject.clone())
}

fn id(all: &Map<String, Value>) -> Result<Option<String>, JwtError> {
    match all.get("jti") {
        None => Ok(None),
        Some(Value::String(id)) if is_name(id) => Ok(Some(id.clone())),
        Some(_) => Err(JwtError::Claim("jti is not a string of 1 to 2048 bytes")),
    }
}

fn is_text(claim: Option<&Value>) -> bool {
    claim.and_then(Value::as_str).is_some_and(is_name)
}

fn is_name(text: &str) -> bool {
    (1..=MAX_NAME_BYTES).contains(&text.len())
}
