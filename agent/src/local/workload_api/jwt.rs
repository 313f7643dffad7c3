//! JWT-SVIDs: handed out, and verified for those who can't.

use std::{collections::BTreeMap, time::SystemTime};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use prost_types::{ListValue, Struct, Value as ProstValue, value::Kind};
use serde::Deserialize;
use serde_json::{Map, Value};
use tokio::task::JoinSet;
use tonic::Status;
use warifu::{
    SpiffeId,
    identity::{Identity, X509Svid},
    jwt::{Claims, JwtError, Profile, verify},
};

use super::snapshot::listed;
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

/// JWT-SVIDs for the audiences `asked` names: of the identity it names, or of all there are in `identity`, the default
/// one first, whose hint is `hint`.
///
/// What can be had of the others is given; but without the default one's token there is no answer. A client takes the
/// first for the default, and must not call as somebody else because of a refusal it was not told of.
pub(super) async fn fetch(
    tokens: &Requested,
    identity: &Identity,
    asked: JwtsvidRequest,
    hint: &str,
) -> Result<JwtsvidResponse, Status> {
    let all = listed(identity, hint);
    let is_asked_for = |(svid, _): &(&X509Svid, &str)| {
        asked.spiffe_id.is_empty() || svid.id().to_string() == asked.spiffe_id
    };
    let mut wanted = all.filter(is_asked_for).map(|(svid, hint)| {
        let of_first = svid.id() == identity.svid.id();
        Mint {
            tokens: tokens.clone(),
            id: svid.id().clone(),
            of_first,
            audiences: asked.audience.clone(),
            hint: hint.to_owned(),
        }
    });
    let first = wanted.next().ok_or_else(|| not_held(&asked.spiffe_id))?;
    // All at once: each may be a question to the authority.
    let mut others: JoinSet<_> = wanted
        .enumerate()
        .map(|(place, mint)| async move { (place, mint.minted().await) })
        .collect();
    let first = first.minted().await.map_err(|why| match why {
        MintError::Refused { .. } => absence::refused(&why.to_string()),
        // Tokens given out here are the authority's.
        MintError::Denied { .. } | MintError::Unavailable { .. } => {
            absence::unavailable(&why.to_string())
        }
    })?;
    let mut further = BTreeMap::new();
    while let Some(done) = others.join_next().await {
        if let Ok((place, Ok(svid))) = done {
            further.insert(place, svid);
        }
    }
    let svids = std::iter::once(first).chain(further.into_values());
    Ok(JwtsvidResponse {
        svids: svids.collect(),
    })
}

/// A JWT-SVID that is asked for.
struct Mint {
    tokens: Requested,
    id: SpiffeId,
    of_first: bool,
    audiences: Vec<String>,
    hint: String,
}

impl Mint {
    async fn minted(self) -> Result<Jwtsvid, MintError> {
        let token = match self.of_first {
            true => self.tokens.jwt_svid(&self.id, self.audiences).await?,
            false => {
                let minting = self.tokens.further_jwt_svid(&self.id, self.audiences);
                minting.await?
            }
        };
        let token = token.expose();
        Ok(Jwtsvid {
            // A rule that was changed names the next token otherwise before the next certificate.
            spiffe_id: subject(token).unwrap_or_else(|| self.id.to_string()),
            svid: token.to_owned(),
            hint: self.hint,
        })
    }
}

fn not_held(asked: &str) -> Status {
    match SpiffeId::new(asked) {
        Ok(_) => absence::not_ours(asked),
        Err(why) => Status::invalid_argument(format!("spiffe_id: {why}")),
    }
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
