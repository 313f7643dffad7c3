//! The claims of a payload whose signature verified (RFC 7519 §4).

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Map, Value};

use super::{
    AudienceRule, Claims, Confirmation, JwtError, MAX_AUDIENCES, Profile, Required, SubjectRule,
    verify::Head,
};
use crate::SpiffeId;

/// Last second of the year 9999, the last a date can be written for (RFC 5280 §4.1.2.5, RFC 3339).
const LAST_DATE: Duration = Duration::from_secs(253_402_300_799);

/// Longest `sub` and `iss`: that of a SPIFFE ID.
const MAX_NAME_BYTES: usize = 2048;

/// Characters of a SHA-256 in base64url.
const THUMBPRINT_CHARS: usize = 43;

/// Begins the `sub` of a service account.
const SERVICE_ACCOUNT: &str = "system:serviceaccount:";

/// Reads the claims.
pub(super) fn read(
    all: Map<String, Value>,
    head: &Head<'_>,
    profile: &Profile,
    now: SystemTime,
) -> Result<Claims, JwtError> {
    let dates = dates(&all, head, profile, now)?;
    let issuer = issuer(&all, profile)?;
    let audiences = audiences(&all, profile)?;
    let subject = subject(&all, profile)?;
    let id = id(&all)?;
    check_use(&all, profile)?;
    let certificate = certificate(&all, profile)?;
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
        key_id: head.kid.unwrap_or_default().to_owned(),
        certificate,
    })
}

/// The dates a caller needs; the others are checked and forgotten.
struct Dates {
    expires_at: SystemTime,
    issued_at: Option<SystemTime>,
}

fn dates(
    all: &Map<String, Value>,
    head: &Head<'_>,
    profile: &Profile,
    now: SystemTime,
) -> Result<Dates, JwtError> {
    let now = since_1970(now)?;
    let date = |name: &str, ill_typed| match all.get(name) {
        None => Ok(None),
        Some(value) => numeric_date(value, profile.fractional_dates)
            .map(Some)
            .ok_or(JwtError::Claim(ill_typed)),
    };
    // Where the header says one, too, it is over at the earlier of the two.
    let exp = date("exp", "exp is not a date")?
        .into_iter()
        .chain(head.expires)
        .min()
        .ok_or(JwtError::Claim("exp is missing"))?;
    let nbf = date("nbf", "nbf is not a date")?;
    let iat = date("iat", "iat is not a date")?;
    check_expiry(exp, profile, now)?;
    let horizon = now.saturating_add(profile.skew);
    if nbf.is_some_and(|nbf| nbf > horizon) {
        return Err(JwtError::Claim("nbf is in the future"));
    }
    if iat.is_some_and(|iat| iat > horizon) {
        return Err(JwtError::Claim("iat is in the future"));
    }
    if let Some(longest) = profile.max_lifetime {
        let iat = iat.ok_or(JwtError::Claim("iat is missing"))?;
        if exp.saturating_sub(iat) > longest {
            return Err(JwtError::Claim("it lives longer than we allow"));
        }
    }
    Ok(Dates {
        expires_at: UNIX_EPOCH + exp,
        issued_at: iat.map(|iat| UNIX_EPOCH + iat),
    })
}

pub(super) fn check_expiry(
    exp: Duration,
    profile: &Profile,
    now: Duration,
) -> Result<(), JwtError> {
    if now >= exp.saturating_add(profile.skew) {
        return Err(JwtError::Expired);
    }
    Ok(())
}

pub(super) fn since_1970(now: SystemTime) -> Result<Duration, JwtError> {
    now.duration_since(UNIX_EPOCH)
        .map_err(|_| JwtError::Claim("our own clock is before 1970"))
}

/// RFC 7519 §2 NumericDate, from 1970 to 9999.
pub(super) fn numeric_date(value: &Value, fractional: bool) -> Option<Duration> {
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
    // A load balancer says it in the header, where it was checked.
    let is_said_elsewhere = profile.load_balancer.is_some() && issuer.is_none();
    if profile.issuer.is_some() && issuer != profile.issuer && !is_said_elsewhere {
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
        None if profile.audience_rule == AudienceRule::MayBeAbsent => return Ok(Vec::new()),
        None => return Err(JwtError::Claim("aud is missing")),
    };
    if profile.audience_rule == AudienceRule::OnlyOne && listed.len() > 1 {
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
    match profile.subject {
        SubjectRule::SpiffeId if !is_canonical_id() => {
            Err(JwtError::Claim("sub is not a SPIFFE ID with a path"))
        }
        SubjectRule::ServiceAccount if !is_service_account(all, subject) => Err(JwtError::Claim(
            "sub is not the service account that kubernetes.io names",
        )),
        _ => Ok(subject.clone()),
    }
}

/// Whether a projected token's two ways to name its service account agree, in names of Kubernetes (RFC 1123),
/// which have nothing that could be taken for a separator.
fn is_service_account(all: &Map<String, Value>, subject: &str) -> bool {
    let is_part = |byte: u8| {
        byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'.')
    };
    let is_name = |name: &str| (1..=253).contains(&name.len()) && name.bytes().all(is_part);
    let Some((namespace, name)) = subject
        .strip_prefix(SERVICE_ACCOUNT)
        .and_then(|rest| rest.split_once(':'))
    else {
        return false;
    };
    let said = |pointer: &str| {
        let bound = all.get("kubernetes.io")?;
        bound.pointer(pointer)?.as_str()
    };
    is_name(namespace)
        && is_name(name)
        && said("/namespace") == Some(namespace)
        && said("/serviceaccount/name") == Some(name)
}

/// What the token is for, and to whom it was issued, where the profile pins those.
fn check_use(all: &Map<String, Value>, profile: &Profile) -> Result<(), JwtError> {
    let said = |name: &str| all.get(name).and_then(Value::as_str);
    if profile.token_use.is_some() && said("token_use") != profile.token_use {
        return Err(JwtError::Claim("token_use is not that of this profile"));
    }
    let is_ours = |clients: &Vec<String>| {
        said("client_id").is_some_and(|said| clients.iter().any(|it| it == said))
    };
    if profile.clients.as_ref().is_some_and(|it| !is_ours(it)) {
        return Err(JwtError::Claim("client_id is not a pinned one"));
    }
    Ok(())
}

/// The certificate the token is bound to (RFC 8705 §3.1). Bound to anything else, it is refused: whoever took
/// it for a bearer token would undo what its issuer bound it for.
fn certificate(all: &Map<String, Value>, profile: &Profile) -> Result<Option<[u8; 32]>, JwtError> {
    let bound = match (all.get("cnf"), profile.confirmation) {
        (None, _) | (_, Confirmation::Document) => return Ok(None),
        (Some(_), Confirmation::Refused) => {
            return Err(JwtError::Claim("it is bound to a key (cnf)"));
        }
        (Some(bound), Confirmation::Certificate) => bound,
    };
    let members = bound
        .as_object()
        .ok_or(JwtError::Claim("cnf is not an object"))?;
    if members.len() != 1 || !members.contains_key("x5t#S256") {
        return Err(JwtError::Claim(
            "it is bound by something else than a certificate's x5t#S256 (cnf)",
        ));
    }
    members
        .get("x5t#S256")
        .and_then(Value::as_str)
        .filter(|text| text.len() == THUMBPRINT_CHARS)
        .and_then(|text| URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok())
        .map(Some)
        .ok_or(JwtError::Claim(
            "cnf.x5t#S256 is not a SHA-256 in base64url",
        ))
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
