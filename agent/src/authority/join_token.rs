//! Join tokens: 256 random bits that stand for facts, once, for a while.

use std::time::{Duration, SystemTime};

use aws_lc_rs::digest::{SHA256, digest};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use thiserror::Error;
use warifu::Secret;

use super::{
    denied::Denied,
    keys::{self, KeyError},
    rules::Facts,
    state::{JoinToken, StoreError, TokenHash},
};
use crate::attest::wire::ErrorCode;

/// Longest life: a token is meant for a deployment that happens now.
pub(super) const MAX_TTL: Duration = Duration::from_secs(7 * 24 * 3600);
/// Facts go into the attestation record, which must stay far below 8 KiB.
const MAX_FACTS_BYTES: usize = 2048;

/// Tells a leaked token from other random text, to people and to scanners.
const PREFIX: &str = "wjt_";

/// A new join token. It is shown once, here.
#[derive(Debug, Clone)]
pub struct NewJoinToken {
    /// The token.
    pub token: Secret<String>,
    /// When it expires.
    pub expires_at: SystemTime,
    /// The SPIFFE ID its facts lead to by today's rules, or why they lead to none.
    pub leads_to: Result<String, String>,
}

/// Why no join token was made.
#[derive(Debug, Clone, Error)]
#[non_exhaustive]
pub enum JoinTokenError {
    /// It is not configured, or attests by other means.
    #[error("no attestor of kind join-token is called {0:?}; see `attestors` in the configuration")]
    Attestor(String),
    /// Too long or too short.
    #[error("ttl is {0:?}; expected 1s to 7d")]
    Ttl(Duration),
    /// Names or values that no rule could use.
    #[error(
        "fact {0:?} is not usable: expected a name of lower-case letters, digits and \"_\", a value without control characters, and {MAX_FACTS_BYTES} bytes at most for all facts"
    )]
    Fact(String),
    /// The store refused or failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// No randomness.
    #[error("{0}")]
    Crypto(String),
}

/// Why a join token attests nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unusable {
    /// There is none such.
    Unknown,
    /// Its time is over.
    Expired,
    /// Another key has it.
    Used,
}

/// A token and what is kept of it.
pub(super) fn make(
    attestor: &str,
    facts: Facts,
    ttl: Duration,
    now: SystemTime,
) -> Result<(Secret<String>, JoinToken), JoinTokenError> {
    if !(Duration::from_secs(1)..=MAX_TTL).contains(&ttl) {
        return Err(JoinTokenError::Ttl(ttl));
    }
    check(&facts)?;
    let crypto = |why: KeyError| JoinTokenError::Crypto(why.to_string());
    let random = keys::random::<32>().map_err(crypto)?;
    let token = Secret::new(format!(
        "{PREFIX}{}",
        URL_SAFE_NO_PAD.encode(random.expose())
    ));
    let lineage = keys::random::<16>().map_err(crypto)?;
    let kept = JoinToken {
        hash: hash(&token),
        attestor: attestor.to_owned(),
        facts,
        lineage: URL_SAFE_NO_PAD.encode(lineage.expose()),
        expires_at: now + ttl,
    };
    Ok((token, kept))
}

/// What the store knows a token by.
pub(super) fn hash(token: &Secret<String>) -> TokenHash {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, token.expose().as_bytes()).as_ref());
    hash
}

/// The same to the agent.
pub(super) fn denied(why: Unusable) -> Denied {
    let what = match why {
        Unusable::Unknown => "is not one of this authority's",
        Unusable::Expired => "has expired",
        Unusable::Used => "was used by another agent already",
    };
    Denied::new(
        ErrorCode::InvalidEvidence,
        format!("this join token {what}; make a new one with `warifu authority join-token`"),
    )
}

fn check(facts: &Facts) -> Result<(), JoinTokenError> {
    let mut bytes = 0;
    for (name, value) in facts {
        let is_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        bytes += name.len() + value.len();
        if name.is_empty()
            || !name.chars().all(is_name)
            || value.chars().any(char::is_control)
            || bytes > MAX_FACTS_BYTES
        {
            return Err(JoinTokenError::Fact(name.clone()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(name: &str, value: &str) -> Facts {
        Facts::from([(name.to_owned(), value.to_owned())])
    }

    #[test]
    fn a_token_is_long_random_and_kept_only_as_a_hash() {
        let now = SystemTime::UNIX_EPOCH;
        let made = |_| make("join", Facts::new(), Duration::from_secs(60), now).unwrap();
        let (one, other) = (made(1), made(2));
        assert_eq!(one.0.expose().len(), PREFIX.len() + 43);
        assert_ne!(one.0.expose(), other.0.expose());
        assert_ne!(one.1.lineage, other.1.lineage);
        assert!(!format!("{:?}", one.1).contains(one.0.expose()));
        assert_eq!(hash(&one.0), one.1.hash);
    }

    #[test]
    fn facts_that_no_rule_could_use_are_refused() {
        let made = |facts| {
            make(
                "join",
                facts,
                Duration::from_secs(60),
                SystemTime::UNIX_EPOCH,
            )
        };
        for bad in [
            facts("", "x"),
            facts("Name", "x"),
            facts("a b", "x"),
            facts("a", "x\ny"),
            facts("a", &"x".repeat(MAX_FACTS_BYTES)),
        ] {
            assert!(matches!(made(bad), Err(JoinTokenError::Fact(_))));
        }
        assert!(made(facts("service_account", "orders/with: anything")).is_ok());
    }

    #[test]
    fn a_life_is_between_a_second_and_a_week() {
        let made = |ttl| make("join", Facts::new(), ttl, SystemTime::UNIX_EPOCH);
        assert!(made(Duration::from_millis(999)).is_err());
        assert!(made(MAX_TTL + Duration::from_secs(1)).is_err());
        assert!(made(MAX_TTL).is_ok());
    }
}
