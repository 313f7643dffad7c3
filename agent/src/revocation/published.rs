//! The list on its way from the authority: a JWS by the key that signs JWT-SVIDs, which agents have in
//! their bundle. It is none: `typ`, `aud` and `sub` are those of nothing else.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use serde::{Deserialize, Serialize};
use warifu::{
    TrustDomain,
    jwt::{self, Algorithm, JwtError, KeySet, Profile, SigningKey},
};

use super::Kind;

/// Tells it from every token.
const TYP: &str = "warifu-revocations+jwt";

/// How long a copy may be shown to an agent. Long: its age is told by `iat`, and an old list is better than
/// none.
const LIFE: Duration = Duration::from_secs(7 * 24 * 3600);

/// How far the authority's clock may be ahead of the agent's: as much as certificates are backdated.
const SKEW: Duration = Duration::from_secs(30);

/// What an authority publishes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// Counts up with every change.
    pub number: u64,
    /// When the authority last knew that this is the list; whole seconds.
    pub as_of: SystemTime,
    /// What is revoked; roles as [`super::Origin::hash_of_role`].
    pub entries: Vec<(Kind, String)>,
}

#[derive(Serialize, Deserialize)]
struct Claims {
    iss: String,
    aud: String,
    sub: String,
    iat: u64,
    exp: u64,
    number: u64,
    revoked: BTreeMap<String, Vec<String>>,
}

impl Published {
    /// The compact JWS.
    pub fn sign(&self, key: &SigningKey, trust_domain: &TrustDomain) -> String {
        let mut revoked = BTreeMap::<String, Vec<String>>::new();
        for (kind, value) in &self.entries {
            let values = revoked.entry(kind.name().to_owned()).or_default();
            values.push(value.clone());
        }
        let claims = Claims {
            iss: issuer(trust_domain),
            aud: audience(trust_domain),
            // No SPIFFE ID: even a verifier that looks at nothing else takes it for nobody's token.
            sub: audience(trust_domain),
            iat: unix(self.as_of),
            exp: unix(self.as_of + LIFE),
            number: self.number,
            revoked,
        };
        jwt::sign(key, TYP, &claims)
    }

    /// From the compact JWS, whose length the caller has bounded. Kinds of a newer authority are passed over,
    /// and counted.
    ///
    /// # Errors
    /// See [`JwtError`].
    pub fn verify(
        jws: &str,
        keys: &KeySet,
        trust_domain: &TrustDomain,
        now: SystemTime,
    ) -> Result<(Self, usize), JwtError> {
        let mut profile = Profile::internal(TYP, issuer(trust_domain), audience(trust_domain));
        // Those that JWT-SVIDs may be signed with.
        profile.algorithms = vec![Algorithm::ES256, Algorithm::RS256].into();
        profile.skew = SKEW;
        let verified = jwt::verify_document(jws, &profile, keys, now)?;
        let claims = Claims::deserialize(serde_json::Value::Object(verified.all))
            .map_err(|_| JwtError::Claim("not a revocation list's"))?;
        let mut entries = Vec::new();
        let mut unknown = 0;
        for (name, values) in claims.revoked {
            match Kind::ALL.into_iter().find(|kind| kind.name() == name) {
                Some(kind) => entries.extend(values.into_iter().map(|value| (kind, value))),
                None => unknown += values.len(),
            }
        }
        let published = Self {
            number: claims.number,
            as_of: SystemTime::UNIX_EPOCH + Duration::from_secs(claims.iat),
            entries,
        };
        Ok((published, unknown))
    }
}

fn issuer(trust_domain: &TrustDomain) -> String {
    format!("spiffe://{trust_domain}/warifu/authority")
}

fn audience(trust_domain: &TrustDomain) -> String {
    format!("warifu:{trust_domain}:revocations")
}

fn unix(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    since.unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
    }

    fn td() -> TrustDomain {
        TrustDomain::new("example.org").unwrap()
    }

    fn published() -> Published {
        Published {
            number: 3,
            as_of: now(),
            entries: vec![
                (Kind::Lineage, "l1".into()),
                (Kind::SpiffeId, "spiffe://example.org/orders".into()),
                (Kind::TokenId, "t1".into()),
                (Kind::TokenId, "t2".into()),
            ],
        }
    }

    fn keys(key: &SigningKey) -> KeySet {
        KeySet::new(vec![key.public().clone()])
    }

    #[test]
    fn an_agent_reads_what_the_authority_signed() {
        let key = SigningKey::generate();
        let jws = published().sign(&key, &td());
        let read = |keys: &KeySet, td: &TrustDomain, now| Published::verify(&jws, keys, td, now);
        assert_eq!(read(&keys(&key), &td(), now()), Ok((published(), 0)));
        let other = TrustDomain::new("partner.example").unwrap();
        assert!(read(&keys(&key), &other, now()).is_err());
        assert!(read(&keys(&SigningKey::generate()), &td(), now()).is_err());
        assert!(read(&keys(&key), &td(), now() + LIFE + SKEW).is_err());
        assert!(read(&keys(&key), &td(), now() - SKEW).is_ok());
    }

    #[test]
    fn a_long_list_is_read_though_a_token_of_that_length_is_not() {
        let key = SigningKey::generate();
        let mut published = published();
        published.entries = (0..5000)
            .map(|n| (Kind::Lineage, format!("l{n}")))
            .collect();
        let jws = published.sign(&key, &td());
        assert!(jws.len() > jwt::MAX_TOKEN_BYTES);
        let read = Published::verify(&jws, &keys(&key), &td(), now());
        assert_eq!(read.unwrap().0.entries.len(), 5000);
    }

    #[test]
    fn a_list_never_passes_as_a_jwt_svid_nor_as_another_document_of_ours() {
        let key = SigningKey::generate();
        let jws = published().sign(&key, &td());
        let audience = audience(&td());
        let svid = Profile::jwt_svid(vec![audience.clone()]);
        let refused =
            |profile: &Profile| jwt::verify(&jws, profile, &keys(&key), now()).unwrap_err();
        assert_eq!(
            refused(&svid),
            JwtError::Header("typ is not of this profile")
        );
        let record = Profile::internal("warifu-record+jwt", issuer(&td()), audience.clone());
        assert!(matches!(refused(&record), JwtError::Header(_)));

        // Nor would it by another `typ`: its subject is nobody's SPIFFE ID.
        let forged = jws.split('.').nth(1).unwrap();
        let payload: serde_json::Value = serde_json::from_slice(
            &base64::Engine::decode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, forged)
                .unwrap(),
        )
        .unwrap();
        let token = jwt::sign(&key, "JWT", &payload);
        let error = jwt::verify(&token, &svid, &keys(&key), now()).unwrap_err();
        assert_eq!(error, JwtError::Claim("sub is not a SPIFFE ID with a path"));
    }

    #[test]
    fn a_jwt_svid_never_passes_as_a_list() {
        let key = SigningKey::generate();
        let claims = json!({"iss": issuer(&td()), "aud": audience(&td()), "iat": 1_800_000_000,
            "sub": "spiffe://example.org/orders", "exp": 1_800_000_300, "number": 9, "revoked": {}});
        let token = jwt::sign(&key, "JWT", &claims);
        assert!(Published::verify(&token, &keys(&key), &td(), now()).is_err());
        let other_audience = json!({"iss": issuer(&td()), "aud": "payments", "iat": 1_800_000_000,
            "sub": "x", "exp": 1_800_000_300, "number": 9, "revoked": {}});
        let token = jwt::sign(&key, TYP, &other_audience);
        assert!(Published::verify(&token, &keys(&key), &td(), now()).is_err());
    }

    #[test]
    fn kinds_of_a_newer_authority_are_passed_over_and_counted() {
        let key = SigningKey::generate();
        let claims = json!({"iss": issuer(&td()), "aud": audience(&td()), "sub": audience(&td()),
            "iat": 1_800_000_000, "exp": 1_800_000_300, "number": 9,
            "revoked": {"moon-phase": ["full", "new"], "lineage": ["l1"]}});
        let jws = jwt::sign(&key, TYP, &claims);
        let (read, unknown) = Published::verify(&jws, &keys(&key), &td(), now()).unwrap();
        assert_eq!(read.entries, [(Kind::Lineage, "l1".to_owned())]);
        assert_eq!(unknown, 2);
    }
}
