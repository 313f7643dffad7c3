//! What the attestors that take tokens have in common: whose a token says it is, and the issuer's keys.

use std::{
    borrow::Cow,
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

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
    Presented,
    pool::{Pool, Waiting},
};
use crate::{
    attest::wire::ErrorCode,
    authority::{denied::Denied, rules::Facts},
    config::value::Upstream,
    http::fetch::{Fetcher, FetcherError, Limits, OidcKeys},
};

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
        algorithms: impl Into<Cow<'static, [Algorithm]>>,
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
}
