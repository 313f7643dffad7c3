//! The attestation record: what was proved, when, and by whom it may be used. A JWS by a key of its
//! own; never a JWT-SVID, and never accepted as one.

use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use warifu::{
    TrustDomain,
    jwt::{self, JwtError, KeySet, Profile, PublicJwk, SigningKey},
};

use super::rules::Facts;

/// Tells it from every other token.
const TYP: &str = "warifu-record+jwt";

/// What a record says.
#[derive(Debug, Clone)]
pub(super) struct Record {
    /// Of everything that goes back to this attestation.
    pub(super) lineage: String,
    /// Who proved …
    pub(super) attestor: String,
    /// … what …
    pub(super) facts: Facts,
    /// … and when.
    pub(super) attested_at: SystemTime,
    /// When it ends.
    pub(super) expires_at: SystemTime,
    /// Every use needs a proof by this key.
    pub(super) renewal_key: PublicJwk,
}

#[derive(Serialize, Deserialize)]
struct Claims {
    iss: String,
    aud: String,
    /// The lineage.
    sub: String,
    iat: u64,
    exp: u64,
    attestor: String,
    facts: Facts,
    cnf: Confirmation,
}

/// RFC 7800 §3.2.
#[derive(Serialize, Deserialize)]
struct Confirmation {
    jwk: serde_json::Value,
}

impl Record {
    pub(super) fn sign(&self, key: &SigningKey, trust_domain: &TrustDomain) -> String {
        let claims = Claims {
            iss: issuer(trust_domain),
            aud: audience(trust_domain),
            sub: self.lineage.clone(),
            iat: unix(self.attested_at),
            exp: unix(self.expires_at),
            attestor: self.attestor.clone(),
            facts: self.facts.clone(),
            cnf: Confirmation {
                jwk: self.renewal_key.to_json("sig"),
            },
        };
        jwt::sign(key, TYP, &claims)
    }

    pub(super) fn verify(
        record: &str,
        keys: &KeySet,
        trust_domain: &TrustDomain,
        now: SystemTime,
    ) -> Result<Self, JwtError> {
        let profile = Profile::internal(TYP, issuer(trust_domain), audience(trust_domain));
        let verified = jwt::verify(record, &profile, keys, now)?;
        let claims = Claims::deserialize(serde_json::Value::Object(verified.all))
            .map_err(|_| JwtError::Claim("not an attestation record's"))?;
        Ok(Self {
            lineage: claims.sub,
            attestor: claims.attestor,
            facts: claims.facts,
            attested_at: from_unix(claims.iat),
            expires_at: verified.expires_at,
            renewal_key: PublicJwk::from_json(&claims.cnf.jwk)?,
        })
    }
}

fn issuer(trust_domain: &TrustDomain) -> String {
    format!("spiffe://{trust_domain}/warifu/authority")
}

fn audience(trust_domain: &TrustDomain) -> String {
    format!("warifu:{trust_domain}:record")
}

/// Whole seconds since 1970.
pub(super) fn unix(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    since.unwrap_or_default().as_secs()
}

fn from_unix(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH
        .checked_add(Duration::from_secs(seconds))
        .unwrap_or(SystemTime::UNIX_EPOCH)
}
