//! Issuers of bearer tokens that attest: what `kubernetes` and `oidc` have in common. Such a token is bound to nothing,
//! so it lives for hours at most, and one key may use it once.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use aws_lc_rs::digest::{Context, SHA256};
use warifu::{
    Secret,
    jwt::{Claims, Profile},
};

use super::{
    AttestorProblem, Presented, Proven, SingleUse,
    pool::Pool,
    token::{self, Issuer, Refused},
};
use crate::{
    authority::{denied::Denied, rules::Facts},
    config::value::{Upstream, is_call_audience},
};

/// Longest life of a bearer token. Those of EKS and of Azure's managed identities live a day and up to five
/// minutes; an hour more for issuers that round. A token good for longer is one to be stolen, and what
/// is kept of it would be kept as long.
const MAX_LIFE: Duration = Duration::from_secs(25 * 3600);

/// An issuer, as one attestor knows it.
#[derive(Debug)]
pub(super) struct Bearer {
    pub(super) name: String,
    pub(super) issuer: Issuer,
    pub(super) profile: Profile,
}

impl Bearer {
    /// Tokens of `issuer`, which are for `audience` and nobody else.
    pub(super) fn new(
        name: &str,
        issuer: &str,
        audience: &str,
        (jwks_url, ca_file): (Option<&Upstream>, Option<PathBuf>),
        pool: &Pool,
    ) -> Result<Self, AttestorProblem> {
        let profile = profile(issuer, audience)?;
        let keys = Arc::new(token::keys(issuer, jwks_url, ca_file)?);
        Ok(Self {
            name: name.to_owned(),
            issuer: Issuer::new(keys, profile.algorithms.clone(), pool),
            profile,
        })
    }

    /// Whether its tokens are of `issuer`.
    pub(super) fn is_of(&self, issuer: &str) -> bool {
        self.profile.issuer.as_deref() == Some(issuer)
    }

    /// The claims of a token that verifies, and lives no longer than it may.
    pub(super) async fn verify(
        &self,
        token: &Secret<String>,
        presented: Presented<'_>,
    ) -> Result<Claims, Denied> {
        let claims = self.issuer.verify(token, &self.profile, &presented).await?;
        check_life(&claims, presented.now)?;
        Ok(claims)
    }

    /// What a token with these `claims` proves: `facts`, to one key.
    pub(super) fn proven(
        &self,
        token: &Secret<String>,
        claims: &Claims,
        facts: Facts,
    ) -> Result<Proven, Refused> {
        Ok(Proven {
            attestor: self.name.clone(),
            facts: token::checked(facts)?,
            lineage: None,
            single_use: Some(single_use(&self.name, token, claims, self.profile.skew)),
        })
    }
}

/// The profile of a bearer token that attests, and is for nothing else.
pub(super) fn profile(issuer: &str, audience: &str) -> Result<Profile, AttestorProblem> {
    match is_call_audience(audience) {
        true => Err(AttestorProblem::CallAudience(audience.to_owned())),
        false => Ok(Profile::oidc_evidence(issuer, audience)),
    }
}

/// What of a bearer token may be used once: by its `jti`, or by all of it but its signature where it has none.
/// Whoever has an ECDSA signature can make a second one for the same token.
fn single_use(
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
fn check_life(claims: &Claims, now: SystemTime) -> Result<(), Refused> {
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

#[cfg(test)]
mod tests {
    use serde_json::json;
    use warifu::jwt::{self, KeySet, SigningKey};

    use super::*;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn what_is_used_once_is_told_apart_by_attestor_and_by_kind() {
        let token = Secret::new("a.b.c".to_owned());
        let key = SigningKey::generate();
        let keys = KeySet::new(vec![key.public().clone()]);
        let claims = |id: Option<&str>| {
            let mut claims = json!({"sub": "x", "iss": "i", "aud": "a", "iat": 1, "exp": 9});
            if let Some(id) = id {
                claims["jti"] = id.into();
            }
            let profile = Profile::oidc_evidence("i", "a");
            jwt::verify(&jwt::sign(&key, "JWT", &claims), &profile, &keys, at(1)).unwrap()
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
