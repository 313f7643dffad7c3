//! JWT-SVIDs: handed out, and verified for those who can't.

use std::{collections::BTreeMap, time::SystemTime};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use prost_types::{ListValue, Struct, Value as ProstValue, value::Kind};
use serde::Deserialize;
use serde_json::{Map, Value};
use tonic::Status;
use warifu::{
    SpiffeId,
    identity::Identity,
    jwt::{Claims, JwtError, Profile, verify},
};

use crate::{
    attest::wire::{MAX_AUDIENCE, MAX_AUDIENCES},
    local::{
        absence,
        proto::workload::{
            Jwtsvid, JwtsvidRequest, JwtsvidResponse, ValidateJwtsvidRequest,
            ValidateJwtsvidResponse,
        },
    },
    token::{MintError, Requested},
};

/// Whether `asked` has what it must have.
pub(super) fn check(asked: &JwtsvidRequest) -> Result<(), Status> {
    let is_usable = |audience: &String| {
        (1..=MAX_AUDIENCE).contains(&audience.len()) && !audience.chars().any(char::is_control)
    };
    if (1..=MAX_AUDIENCES).contains(&asked.audience.len()) && asked.audience.iter().all(is_usable) {
        return Ok(());
    }
    Err(Status::invalid_argument(format!(
        "audience: expected 1 to {MAX_AUDIENCES} of 1 to {MAX_AUDIENCE} bytes without control characters"
    )))
}

/// A JWT-SVID for the audiences `asked` names, of `identity`.
pub(super) async fn fetch(
    tokens: &Requested,
    identity: &Identity,
    asked: JwtsvidRequest,
    hint: &str,
) -> Result<JwtsvidResponse, Status> {
    let id = identity.svid.id();
    if !asked.spiffe_id.is_empty() && asked.spiffe_id != id.to_string() {
        return Err(match SpiffeId::new(&asked.spiffe_id) {
            Ok(_) => absence::not_ours(&asked.spiffe_id),
            Err(why) => Status::invalid_argument(format!("spiffe_id: {why}")),
        });
    }
    let token = tokens.jwt_svid(id, asked.audience).await;
    let token = token.map_err(|why| match why {
        MintError::Refused { .. } => absence::refused(&why.to_string()),
        // Tokens given out here are the authority's.
        MintError::Denied { .. } | MintError::Unavailable { .. } => {
            absence::unavailable(&why.to_string())
        }
    })?;
    let token = token.expose();
    Ok(JwtsvidResponse {
        svids: vec![Jwtsvid {
            // A rule that was changed names the next token otherwise before the next certificate.
            spiffe_id: subject(token).unwrap_or_else(|| id.to_string()),
            svid: token.to_owned(),
            hint: hint.to_owned(),
        }],
    })
}

/// `sub` of a token the authority just gave us; nothing is decided by it.
fn subject(token: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Payload {
        sub: String,
    }
    let payload = URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
    serde_json::from_slice(&payload)
        .ok()
        .map(|Payload { sub }| sub)
}

/// Whether `asked` has what it must have.
pub(super) fn check_validation(asked: &ValidateJwtsvidRequest) -> Result<(), Status> {
    for (name, field) in [("audience", &asked.audience), ("svid", &asked.svid)] {
        if field.is_empty() {
            return Err(Status::invalid_argument(format!("{name} is missing")));
        }
    }
    Ok(())
}

/// Verifies a JWT-SVID of our own trust domain, or one we are federated with.
pub(super) fn validate(
    identity: &Identity,
    asked: &ValidateJwtsvidRequest,
) -> Result<ValidateJwtsvidResponse, Status> {
    let claims = verified(identity, asked, SystemTime::now())
        .map_err(|why| Status::invalid_argument(format!("svid: {why}")))?;
    Ok(ValidateJwtsvidResponse {
        spiffe_id: claims.subject,
        claims: Some(structure(claims.all)),
    })
}

fn verified(
    identity: &Identity,
    asked: &ValidateJwtsvidRequest,
    now: SystemTime,
) -> Result<Claims, JwtError> {
    let profile = Profile::jwt_svid(vec![asked.audience.clone()]);
    let mut failure = JwtError::UnknownKey;
    for bundle in std::iter::once(&identity.bundle).chain(identity.federated.iter()) {
        match verify(&asked.svid, &profile, &bundle.jwt_authorities, now) {
            // The key of one trust domain vouches for no other.
            Ok(claims) => match SpiffeId::new(&claims.subject) {
                Ok(id) if id.is_member_of(&bundle.trust_domain) => return Ok(claims),
                _ => failure = JwtError::Claim("sub is not of the trust domain whose key signed"),
            },
            // Another trust domain may have a key by this name, too.
            Err(JwtError::UnknownKey) => {}
            Err(why) => failure = why,
        }
    }
    Err(failure)
}

fn structure(claims: Map<String, Value>) -> Struct {
    let fields: BTreeMap<_, _> = claims.into_iter().map(|(k, v)| (k, value(v))).collect();
    Struct { fields }
}

fn value(json: Value) -> ProstValue {
    let kind = match json {
        Value::Null => Kind::NullValue(0),
        Value::Bool(it) => Kind::BoolValue(it),
        Value::Number(it) => Kind::NumberValue(it.as_f64().unwrap_or_default()),
        Value::String(it) => Kind::StringValue(it),
        Value::Array(list) => Kind::ListValue(ListValue {
            values: list.into_iter().map(value).collect(),
        }),
        Value::Object(members) => Kind::StructValue(structure(members)),
    };
    ProstValue { kind: Some(kind) }
}
