//! What the attestors that take tokens have in common: whose a token says it is, the issuer's keys, and what
//! of it may be used once.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use aws_lc_rs::digest::{Context, SHA256};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, de::DeserializeOwned};
use thiserror::Error;
use warifu::{
    Secret,
    jwt::{
        Algorithm, Claims, MAX_JWKS_BYTES, MAX_TOKEN_BYTES, Profile,
        jwks::{Cache, Fetch, Unverified},
    },
};

use super::{
    Presented, SingleUse,
    pool::{Pool, Waiting},
};
use crate::{
    attest::wire::ErrorCode,
    authority::{denied::Denied, rules::Facts},
    config::value::Upstream,
    http::fetch::{Fetcher, FetcherError, Limits, OidcKeys},
};

/// Longest life of a bearer token. Those of EKS and of Azure's managed identities live a day and up to five
/// minutes; an hour more for issuers that round. A token good for longer is one to be stolen, and what
/// is kept of it would be kept as long.
pub(super) const MAX_LIFE: Duration = Duration::from_secs(25 * 3600);

/// Most bytes of facts, as the attestation record has them: it must stay below 8 KiB.
const MAX_FACTS: usize = 4096;

/// What each of the two fetches for an issuer's keys may take: together less than a request may, so that who
/// waits for them is told that they can't be had.
const LIMITS: Limits = Limits {
    connect: Duration::from_secs(2),
    total: Duration::from_secs(3),
    answer: MAX_JWKS_BYTES,
};

/// Longest `iss` that an error repeats.
const MAX_SHOWN: usize = 200;

/// Why a token proves nothing; says what was expected.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0}")]
pub(super) struct Refused(pub(super) String);

/// An issuer: its keys, and the places of those who wait for them.
#[derive(Debug)]
pub(super) struct Issuer {
    keys: Cache,
    waiting: Waiting,
}

impl Issuer {
    /// The issuer whose keys come from `source`, and are used with `algorithms`.
    pub(super) fn new(
        source: Arc<dyn Fetch>,
        algorithms: &'static [Algorithm],
        pool: &Pool,
    ) -> Self {
        Self {
            keys: Cache::new(source, algorithms),
            waiting: pool.waiting("fetching an issuer's keys"),
        }
    }

    /// The claims of a token that verifies.
    ///
    /// # Errors
    /// 401 where it does not, 503 where nobody can say (S10).
    pub(super) async fn verify(
        &self,
        token: &Secret<String>,
        profile: &Profile,
        presented: &Presented<'_>,
    ) -> Result<Claims, Denied> {
        let verified = self.keys.verify(token.expose(), profile, presented.now);
        let verified = self.waiting.run(presented.remote, verified);
        verified.await?.map_err(|why| match why {
            Unverified::Unavailable(why) => {
                tracing::warn!(issuer = profile.issuer, %why, "no keys to verify evidence with");
                Denied::evidence_unavailable(
                    "the keys of this token's issuer can't be had now; the authority's log has the reason",
                )
            }
            why => Refused(why.to_string()).into(),
        })
    }

    /// Has the keys at hand before they are needed.
    pub(super) fn warm(&self, now: SystemTime) -> impl Future<Output = ()> + use<> {
        let keys = self.keys.clone();
        async move {
            if let Err(why) = keys.warm(now).await {
                tracing::warn!(%why, "evidence that needs these keys will have them fetched again");
            }
        }
    }
}

/// Where an issuer's keys come from: at `jwks_url`, else where its discovery document says.
pub(super) fn keys(
    issuer: &str,
    jwks_url: Option<&Upstream>,
    ca_file: Option<PathBuf>,
) -> Result<OidcKeys, FetcherError> {
    let fetcher = Fetcher::new(ca_file)?.limited(LIMITS);
    let jwks_url = jwks_url.map(Upstream::to_string);
    Ok(OidcKeys::new(fetcher, issuer, jwks_url))
}

/// Which issuer a token says it is of: good for choosing among the configured ones, and for nothing else.
pub(super) fn unverified_issuer(token: &Secret<String>) -> Option<String> {
    #[derive(Deserialize)]
    struct Payload {
        iss: String,
    }
    unverified(token).map(|Payload { iss }| iss)
}

/// Which audience a token says it is for, if that is one: good for telling people, and for nothing else.
pub(super) fn unverified_audience(token: &Secret<String>) -> Option<String> {
    #[derive(Deserialize)]
    struct Payload {
        aud: String,
    }
    unverified(token).map(|Payload { aud }| aud)
}

fn unverified<T: DeserializeOwned>(token: &Secret<String>) -> Option<T> {
    let token = token.expose();
    if token.len() > MAX_TOKEN_BYTES {
        return None;
    }
    let payload = URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
    serde_json::from_slice(&payload).ok()
}

/// Why a token's issuer has no attestor.
pub(super) fn unknown_issuer(issuer: Option<&str>) -> Denied {
    let Some(issuer) = issuer else {
        return Refused("this is no token that names its issuer".to_owned()).into();
    };
    let shown: String = issuer.chars().take(MAX_SHOWN).collect();
    Refused(format!(
        "no attestor of this kind is for the issuer {shown:?}; `attestors` of the authority lists them"
    ))
    .into()
}

/// What of a bearer token may be used once: by its `jti`, or by all of it but its signature where it has none.
/// Whoever has an ECDSA signature can make a second one for the same token.
pub(super) fn single_use(
    attestor: &str,
    token: &Secret<String>,
    claims: &Claims,
    skew: Duration,
) -> SingleUse {
    let mut hash = Context::new(&SHA256);
    let signed = token
        .expose()
        .rsplit_once('.')
        .map_or("", |(signed, _)| signed);
    let parts = match &claims.id {
        Some(id) => [attestor, "jti", id],
        None => [attestor, "token", signed],
    };
    for part in parts {
        // With its length, so that no two lists of parts are the same bytes.
        hash.update(&part.len().to_be_bytes());
        hash.update(part.as_bytes());
    }
    let mut id = [0; 32];
    id.copy_from_slice(hash.finish().as_ref());
    SingleUse::Token {
        id,
        // As long as it verifies.
        until: claims.expires_at + skew,
    }
}

/// Refuses a token that lives longer than [`MAX_LIFE`].
pub(super) fn check_life(claims: &Claims, now: SystemTime) -> Result<(), Refused> {
    let since = claims.issued_at.unwrap_or(now).min(now);
    let life = claims.expires_at.duration_since(since).unwrap_or_default();
    if life <= MAX_LIFE {
        return Ok(());
    }
    Err(Refused(format!(
        "it is good for {} h, and a bearer token that attests may be good for {} h at most; ask its issuer for a shorter one",
        life.as_secs() / 3600,
        MAX_LIFE.as_secs() / 3600
    )))
}

/// Facts that rules, records and logs can hold.
pub(super) fn checked(facts: Facts) -> Result<Facts, Refused> {
    for (name, value) in &facts {
        if value.chars().any(char::is_control) {
            return Err(Refused(format!("fact {name} has a control character")));
        }
    }
    let bytes = serde_json::to_vec(&facts).map_or(usize::MAX, |json| json.len());
    if bytes > MAX_FACTS {
        return Err(Refused(format!(
            "its facts take {bytes} bytes, at most {MAX_FACTS} are kept; use fewer or shorter tags or claims"
        )));
    }
    Ok(facts)
}

impl From<Refused> for Denied {
    fn from(Refused(why): Refused) -> Self {
        Self::new(ErrorCode::InvalidEvidence, format!("evidence: {why}"))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use warifu::jwt::SigningKey;

    use super::{super::stub::Stub, *};

    #[test]
    fn an_unverified_issuer_is_read_from_one_payload_and_in_one_way() {
        let signer = Stub::with(SigningKey::generate());
        let named = signer.sign(&json!({"iss": "https://a.example"}));
        assert_eq!(
            unverified_issuer(&named).as_deref(),
            Some("https://a.example")
        );
        let payload = |json: &str| Secret::new(format!("e30.{}.e30", URL_SAFE_NO_PAD.encode(json)));
        for none in [
            payload(r#"{"iss":"https://a.example","iss":"https://b.example"}"#),
            payload(r#"{"iss":["https://a.example"]}"#),
            payload(r#"{"iss":7}"#),
            payload("{}"),
            payload("x"),
            Secret::new("e30".to_owned()),
            Secret::new("e30.%.e30".to_owned()),
            Secret::new(format!("e30.{}.e30", "A".repeat(MAX_TOKEN_BYTES))),
        ] {
            assert_eq!(unverified_issuer(&none), None);
        }
    }

    #[test]
    fn what_is_used_once_is_told_apart_by_attestor_and_by_kind() {
        let token = Secret::new("a.b.c".to_owned());
        let claims = |id: Option<&str>| Claims {
            subject: "x".to_owned(),
            issuer: None,
            audiences: vec![],
            expires_at: SystemTime::UNIX_EPOCH,
            issued_at: None,
            id: id.map(str::to_owned),
            key_id: String::new(),
            scopes: vec![],
            all: serde_json::Map::new(),
        };
        let ids = [
            single_use("prod", &token, &claims(Some("1")), Duration::ZERO),
            // The same letters, cut elsewhere.
            single_use("prodjti", &token, &claims(Some("1")), Duration::ZERO),
            single_use("prod", &token, &claims(Some("jti1")), Duration::ZERO),
            single_use("ci", &token, &claims(Some("1")), Duration::ZERO),
            single_use("ci", &token, &claims(Some("a.b")), Duration::ZERO),
            single_use("ci", &token, &claims(None), Duration::ZERO),
        ];
        for (index, id) in ids.iter().enumerate() {
            assert!(!ids.iter().skip(index + 1).any(|other| other == id));
        }
        let resigned = Secret::new("a.b.d".to_owned());
        let again = single_use("ci", &resigned, &claims(None), Duration::ZERO);
        assert_eq!(
            ids.last(),
            Some(&again),
            "another signature over the same token"
        );
    }
}
