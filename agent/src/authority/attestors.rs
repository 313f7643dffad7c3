//! What evidence proves: facts of a named attestor. No rule is asked here, and nothing is spent.
//!
//! ```text
//! evidence ──▶ the attestor it is for ──▶ verified locally, or by asking STS or a cluster (own pool each)
//!                                              └──▶ Proven: facts, lineage, what may be used once
//! ```

use std::{collections::BTreeMap, time::SystemTime};

use thiserror::Error;
use tokio::task::JoinSet;
use warifu::{Secret, TrustDomain, jwt::PublicJwk};

use super::{
    denied::Denied,
    join_token::{self, Unusable},
    metrics::Metrics,
    rules::Facts,
    state::{Store, TokenHash},
};
use crate::{
    attest::wire::{ErrorCode, Evidence},
    config::authority::{self as configured, facts::PARTITION},
    http::fetch::FetcherError,
    revocation::role_name,
};

mod bearer;
mod caller_identity;
mod examine;
mod kubernetes;
mod oidc;
mod places;
mod pool;
#[cfg(test)]
mod stub;
mod token;
mod web_identity;

use caller_identity::CallerIdentity;
pub(super) use caller_identity::{facts_of_answer, request_of_proof};
use kubernetes::Kubernetes;
use oidc::Oidc;
use token::Issuer;
use web_identity::WebIdentity;

/// Issuers whose keys are fetched at once when the authority starts.
const WARMING: usize = 16;

/// The configured attestors.
#[derive(Debug)]
pub(super) struct Attestors {
    trust_domain: TrustDomain,
    by_name: BTreeMap<String, Attestor>,
    /// Partitions whose accounts the attestors of AWS admit, by the attestor's name.
    partitions: BTreeMap<String, Vec<String>>,
}

/// One of them, with what it judges evidence by.
#[derive(Debug)]
enum Attestor {
    JoinToken,
    WebIdentity(WebIdentity),
    CallerIdentity(CallerIdentity),
    Kubernetes(Box<Kubernetes>),
    Oidc(Oidc),
}

/// An attestor that can't be had.
#[derive(Debug, Error)]
#[error("attestors.{name}: {why}")]
pub struct AttestorError {
    /// Its name.
    pub name: String,
    /// What is wrong.
    pub why: AttestorProblem,
}

/// What is wrong with an attestor.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum AttestorProblem {
    /// A file of CAs, or TLS.
    #[error(transparent)]
    Fetcher(#[from] FetcherError),
    /// Its audience is for calls.
    #[error("{0:?} is an audience for calls; whoever is called could attest with the token")]
    CallAudience(String),
}

/// Evidence, and what it was presented with. The proof by the renewal key has been checked already.
#[derive(Debug, Clone, Copy)]
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
    Token {
        /// A hash of the attestor's name and the token's `jti`, or of the token without its signature.
        id: [u8; 32],
        /// When it verifies no longer.
        until: SystemTime,
    },
}

impl Attestors {
    /// Those that are configured. Asks nobody: see [`Attestors::warm`].
    pub(super) fn new(
        trust_domain: &TrustDomain,
        configured: &BTreeMap<String, configured::Attestor>,
        metrics: &Metrics,
    ) -> Result<Self, AttestorError> {
        let made = configured.iter().map(|(name, attestor)| {
            let failed = |why| AttestorError {
                name: name.clone(),
                why,
            };
            let made = Attestor::new(name, attestor, metrics).map_err(failed)?;
            Ok((name.clone(), made))
        });
        Ok(Self {
            trust_domain: trust_domain.clone(),
            by_name: made.collect::<Result<_, _>>()?,
            partitions: configured.iter().filter_map(partitions).collect(),
        })
    }

    /// Fetches the keys of every issuer, so that the first who attest don't have to wait. One that is away
    /// is asked again when its first token comes.
    pub(super) async fn warm(&self, now: SystemTime) {
        let mut warming = JoinSet::new();
        for issuer in self.by_name.values().flat_map(Attestor::issuers) {
            if warming.len() >= WARMING {
                warming.join_next().await;
            }
            warming.spawn(issuer.warm(now));
        }
        warming.join_all().await;
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
        match self.by_name.get(attestor)? {
            Attestor::WebIdentity(_) | Attestor::CallerIdentity(_) => {
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
        let proven = self.prove_somewhere(presented, store).await?;
        self.check_partition(&proven)?;
        Ok(proven)
    }

    /// An account of another partition is another account, whatever its number.
    fn check_partition(&self, proven: &Proven) -> Result<(), Denied> {
        let Some(admitted) = self.partitions.get(&proven.attestor) else {
            return Ok(());
        };
        let partition = proven.facts.get(PARTITION).cloned().unwrap_or_default();
        if admitted.contains(&partition) {
            return Ok(());
        }
        Err(Denied::new(
            ErrorCode::InvalidEvidence,
            format!(
                "evidence: it is of partition {partition:?}, and attestor {:?} admits {}; see its `partitions`",
                proven.attestor,
                admitted.join(", ")
            ),
        ))
    }

    /// What the evidence proves, in whichever partition. What asks somebody else is boxed: every request would
    /// have room for the largest.
    async fn prove_somewhere(
        &self,
        presented: Presented<'_>,
        store: &dyn Store,
    ) -> Result<Proven, Denied> {
        match presented.evidence {
            Evidence::JoinToken { token } => self.join_token(token, store, presented.now).await,
            Evidence::AwsWebIdentity { token } => self.web_identity(token, presented).await,
            Evidence::Kubernetes { token } => {
                let attestor = self.of_issuer(token, |attestor, issuer| match attestor {
                    Attestor::Kubernetes(it) if it.bearer.is_of(issuer) => Some(it),
                    _ => None,
                });
                Box::pin(attestor?.prove(token, presented)).await
            }
            Evidence::Oidc { token } => {
                let attestor = self.of_issuer(token, |attestor, issuer| match attestor {
                    Attestor::Oidc(it) if it.bearer.is_of(issuer) => Some(it),
                    _ => None,
                });
                Box::pin(attestor?.prove(token, presented)).await
            }
            Evidence::AwsCallerIdentity(proof) => {
                // There is one at most: nothing in a proof says which would be meant.
                let found = self.by_name.values().find_map(|attestor| match attestor {
                    Attestor::CallerIdentity(it) => Some(it),
                    _ => None,
                });
                let none = "no attestor of kind aws-caller-identity is configured";
                let attestor =
                    found.ok_or_else(|| Denied::new(ErrorCode::InvalidEvidence, none))?;
                Box::pin(attestor.prove(proof, presented)).await
            }
        }
    }

    async fn web_identity(
        &self,
        token: &Secret<String>,
        presented: Presented<'_>,
    ) -> Result<Proven, Denied> {
        let found = self.of_issuer(token, |attestor, issuer| match attestor {
            Attestor::WebIdentity(it) => Some((it, it.account_of(issuer)?)),
            _ => None,
        });
        let (attestor, account) = found?;
        attestor
            .prove(account, token, &self.trust_domain, presented)
            .await
    }

    /// The attestor for a token, by the issuer the token names: one that is configured, or none. What it
    /// names is believed when the token verifies with that issuer's keys, and not before.
    fn of_issuer<'a, T>(
        &'a self,
        token: &Secret<String>,
        mut find: impl FnMut(&'a Attestor, &str) -> Option<T>,
    ) -> Result<T, Denied> {
        let issuer = token::unverified_issuer(token);
        let found = issuer.as_deref().and_then(|issuer| {
            let mut attestors = self.by_name.values();
            attestors.find_map(|attestor| find(attestor, issuer))
        });
        found.ok_or_else(|| token::unknown_issuer(issuer.as_deref()))
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

impl Attestor {
    fn new(
        name: &str,
        attestor: &configured::Attestor,
        metrics: &Metrics,
    ) -> Result<Self, AttestorProblem> {
        Ok(match attestor {
            configured::Attestor::JoinToken => Self::JoinToken,
            configured::Attestor::AwsWebIdentity(it) => {
                Self::WebIdentity(WebIdentity::new(name, it, metrics)?)
            }
            configured::Attestor::AwsCallerIdentity(it) => {
                Self::CallerIdentity(CallerIdentity::new(name, it, metrics)?)
            }
            configured::Attestor::Kubernetes(it) => {
                Self::Kubernetes(Kubernetes::new(name, it, metrics)?.into())
            }
            configured::Attestor::Oidc(it) => Self::Oidc(Oidc::new(name, it, metrics)?),
        })
    }

    fn issuers(&self) -> Vec<&Issuer> {
        match self {
            Self::JoinToken | Self::CallerIdentity(_) => vec![],
            Self::WebIdentity(it) => it.issuers().collect(),
            Self::Kubernetes(it) => vec![&it.bearer.issuer],
            Self::Oidc(it) => vec![&it.bearer.issuer],
        }
    }
}

/// The partitions of an attestor of AWS.
fn partitions((name, attestor): (&String, &configured::Attestor)) -> Option<(String, Vec<String>)> {
    let partitions = match attestor {
        configured::Attestor::AwsWebIdentity(it) => &it.partitions,
        configured::Attestor::AwsCallerIdentity(it) => &it.partitions,
        configured::Attestor::JoinToken
        | configured::Attestor::Kubernetes(_)
        | configured::Attestor::Oidc(_) => return None,
    };
    Some((name.clone(), partitions.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_of_a_partition_that_is_not_admitted_proves_nothing() {
        let admits = |partitions: &[&str]| Attestors {
            trust_domain: TrustDomain::new("example.org").unwrap(),
            by_name: BTreeMap::new(),
            partitions: BTreeMap::from([(
                "aws".to_owned(),
                partitions.iter().map(|&it| it.to_owned()).collect(),
            )]),
        };
        let proven = |attestor: &str, facts: &[(&str, &str)]| Proven {
            attestor: attestor.to_owned(),
            facts: facts
                .iter()
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                .collect(),
            lineage: None,
            single_use: None,
        };
        let china = proven(
            "aws",
            &[("account", "123456789012"), ("partition", "aws-cn")],
        );
        let refused = admits(&["aws"]).check_partition(&china).unwrap_err();
        assert_eq!(refused.code, ErrorCode::InvalidEvidence);
        assert!(
            refused
                .message
                .contains("\"aws-cn\", and attestor \"aws\" admits aws"),
            "{}",
            refused.message
        );
        assert!(admits(&["aws", "aws-cn"]).check_partition(&china).is_ok());
        assert!(
            admits(&["aws"])
                .check_partition(&proven("aws", &[]))
                .is_err()
        );
        assert!(
            admits(&["aws"])
                .check_partition(&proven("prod", &[]))
                .is_ok()
        );
    }
}
