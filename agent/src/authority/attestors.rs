//! What evidence proves: facts of a named attestor. No rule is asked here, and nothing is spent.
//!
//! ```text
//! evidence ──▶ the attestor it is for ──▶ verified locally, or by asking STS or a cluster (own pool each)
//!                                              └──▶ Proven: facts, lineage, what may be used once
//! ```

use std::{collections::BTreeMap, time::SystemTime};

use warifu::{Secret, jwt::PublicJwk};

use super::{
    denied::Denied,
    join_token::{self, Unusable},
    rules::Facts,
    state::{Store, TokenHash},
};
use crate::{
    attest::wire::{ErrorCode, Evidence},
    config::authority::Attestor,
    revocation::role_name,
};

/// The configured attestors.
#[derive(Debug)]
pub(super) struct Attestors {
    by_name: BTreeMap<String, Attestor>,
}

/// Evidence, and what it was presented with. The proof by the renewal key has been checked already.
#[derive(Debug, Clone, Copy)]
#[expect(dead_code, reason = "the attestors that need them are being built")]
pub(super) struct Presented<'a> {
    pub(super) evidence: &'a Evidence,
    /// Evidence that can be is bound to it.
    pub(super) renewal_key: &'a PublicJwk,
    /// Ours, and fresh.
    pub(super) challenge: &'a str,
    /// Who sent it, for limits; no fact.
    pub(super) remote: &'a str,
    pub(super) now: SystemTime,
}

/// What evidence proved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Proven {
    /// By which attestor.
    pub(super) attestor: String,
    /// What.
    pub(super) facts: Facts,
    /// The lineage, where it was fixed before (a join token's).
    pub(super) lineage: Option<String>,
    /// What must be spent before anything is issued, where the evidence is not bound to the key.
    pub(super) single_use: Option<SingleUse>,
}

/// Evidence that one key may use. Whoever proved it has found that it is still good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum SingleUse {
    /// A join token.
    JoinToken { hash: TokenHash, until: SystemTime },
    /// A bearer token of somebody else's.
    #[expect(
        dead_code,
        reason = "the attestors that take bearer tokens are being built"
    )]
    Token {
        /// SHA-256 of the attestor's name and the token's `jti`, or of the whole token where it has none.
        id: [u8; 32],
        /// Its `exp`.
        until: SystemTime,
    },
}

impl Attestors {
    pub(super) fn new(by_name: BTreeMap<String, Attestor>) -> Self {
        Self { by_name }
    }

    /// Whether there is one of that name.
    pub(super) fn has(&self, name: &str) -> bool {
        self.by_name.contains_key(name)
    }

    /// Whether `name` is of kind `join-token`.
    pub(super) fn takes_join_tokens(&self, name: &str) -> bool {
        matches!(self.by_name.get(name), Some(Attestor::JoinToken))
    }

    /// The AWS role among `facts`, where an attestor proved it.
    pub(super) fn role(&self, attestor: &str, facts: &Facts) -> Option<String> {
        use Attestor::{AwsCallerIdentity, AwsWebIdentity};
        match self.by_name.get(attestor)? {
            AwsWebIdentity(_) | AwsCallerIdentity(_) => {
                Some(role_name(facts.get("account")?, facts.get("role")?))
            }
            Attestor::JoinToken | Attestor::Kubernetes(_) | Attestor::Oidc(_) => None,
        }
    }

    /// What the evidence proves. `store` knows the join tokens.
    pub(super) async fn prove(
        &self,
        presented: Presented<'_>,
        store: &dyn Store,
    ) -> Result<Proven, Denied> {
        match presented.evidence {
            Evidence::JoinToken { token } => self.join_token(token, store, presented.now).await,
            Evidence::AwsWebIdentity { .. }
            | Evidence::AwsCallerIdentity(_)
            | Evidence::Kubernetes { .. }
            | Evidence::Oidc { .. } => Err(Denied::new(
                ErrorCode::InvalidEvidence,
                "no attestor of this kind is configured",
            )),
        }
    }

    async fn join_token(
        &self,
        token: &Secret<String>,
        store: &dyn Store,
        now: SystemTime,
    ) -> Result<Proven, Denied> {
        let hash = join_token::hash(token);
        let found = store.join_token(hash).await?;
        let token = found.ok_or_else(|| join_token::denied(Unusable::Unknown))?;
        if token.expires_at <= now {
            return Err(join_token::denied(Unusable::Expired));
        }
        if !self.takes_join_tokens(&token.attestor) {
            return Err(Denied::new(
                ErrorCode::InvalidEvidence,
                format!("attestor {:?} is not configured any more", token.attestor),
            ));
        }
        Ok(Proven {
            attestor: token.attestor,
            facts: token.facts,
            lineage: Some(token.lineage),
            single_use: Some(SingleUse::JoinToken {
                hash,
                until: token.expires_at,
            }),
        })
    }
}
