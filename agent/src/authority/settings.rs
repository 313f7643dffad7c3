//! The numbers issuing and rotation go by, checked against each other once.

use std::time::Duration;

use thiserror::Error;
use warifu::TrustDomain;

use super::{challenge, join_token, rotation::Schedule, rules::Rules};
use crate::config::{
    AuthorityConfig,
    authority::{State, TokenAlgorithm, TokenIssuer},
};

/// Longest life of a key that signs tokens or records; a new one takes over at half of it.
const KEY_LIFE: Duration = Duration::from_secs(28 * 24 * 3600);
/// How far the clocks of replicas and agents may differ without harm.
const CLOCKS: Duration = Duration::from_secs(5);
/// The store is looked at at least this often …
const MAX_RELOAD: Duration = Duration::from_secs(10);
/// … and at most this often.
const MIN_RELOAD: Duration = Duration::from_millis(100);

/// Checked settings.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    pub(super) trust_domain: TrustDomain,
    pub(super) root_ttl: Duration,
    pub(super) intermediate_ttl: Duration,
    pub(super) publish_ahead: Duration,
    pub(super) max_attestation_age: Duration,
    pub(super) refresh_hint: Duration,
    /// Of certificates.
    pub(super) longest_ttl: Duration,
    /// Of tokens.
    pub(super) longest_jwt_ttl: Duration,
    /// What JWT-SVIDs are signed with.
    pub(super) jwt_algorithm: TokenAlgorithm,
    /// `iss` of JWT-SVIDs, where they have one.
    pub(super) jwt_issuer: Option<String>,
    /// What access tokens are signed with, where any are minted …
    pub(super) access_algorithm: Option<TokenAlgorithm>,
    /// … and their `iss`.
    pub(super) access_issuer: Option<String>,
    /// Whoever can write the state can read what it is sealed by.
    pub(super) state_is_beside_the_key: bool,
    /// DNS names of the authority's own certificate.
    pub(super) dns_names: Vec<String>,
}

/// Spans that don't go together.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{field} is {is:?}; expected at least {least:?}: {why}")]
pub struct SettingsError {
    /// The field.
    pub field: &'static str,
    /// Its value.
    pub is: Duration,
    /// The smallest that works.
    pub least: Duration,
    /// What would go wrong.
    pub why: &'static str,
}

impl Settings {
    pub(super) fn new(config: &AuthorityConfig, rules: &Rules) -> Result<Self, SettingsError> {
        let settings = Self {
            trust_domain: config.trust_domain.clone(),
            root_ttl: config.ca.root_ttl.0,
            intermediate_ttl: config.ca.intermediate_ttl.0,
            publish_ahead: config.ca.publish_ahead.0,
            max_attestation_age: config.max_attestation_age.0,
            refresh_hint: config.bundle_refresh_hint.0,
            longest_ttl: rules.longest_ttl(),
            longest_jwt_ttl: rules.longest_jwt_ttl(),
            jwt_algorithm: algorithm(&config.tokens.jwt_svid).unwrap_or_default(),
            jwt_issuer: issuer(&config.tokens.jwt_svid),
            access_algorithm: algorithm(&config.tokens.access_token),
            access_issuer: issuer(&config.tokens.access_token),
            state_is_beside_the_key: matches!(config.state, State::Sqlite),
            dns_names: config.dns_names.clone(),
        };
        at_least(
            "ca.publish_ahead",
            settings.publish_ahead,
            settings.refresh_hint.saturating_mul(2),
            "agents would meet certificates of a new root before they ask for the bundle again",
        )?;
        let roots = settings.roots();
        at_least(
            "ca.root_ttl",
            roots.life,
            roots.step().saturating_mul(2),
            "a root's life must hold ca.publish_ahead and ca.intermediate_ttl twice, so that the next \
             one is ready in time",
        )?;
        if rules.longest_ttl() > settings.intermediate_ttl / 2 {
            tracing::warn!(
                longest_ttl = ?rules.longest_ttl(),
                intermediate_ttl = ?settings.intermediate_ttl,
                "certificates are cut to the rest of the intermediate's life: make ca.intermediate_ttl twice the longest ttl of a rule"
            );
        }
        Ok(settings)
    }

    /// How often the store is looked at.
    pub(super) fn reload(&self) -> Duration {
        (self.publish_ahead / 4).clamp(MIN_RELOAD, MAX_RELOAD)
    }

    /// The rotation of roots: a replica that has not looked yet still signs with its intermediate.
    pub(super) fn roots(&self) -> Schedule {
        Schedule {
            life: self.root_ttl,
            publish_ahead: self.publish_ahead,
            outlives: self.intermediate_ttl.saturating_add(self.margin()),
        }
    }

    /// The rotation of the keys that sign JWT-SVIDs and access tokens.
    pub(super) fn token_keys(&self) -> Schedule {
        self.keys(self.longest_jwt_ttl)
    }

    /// The rotation of the keys that sign attestation records.
    pub(super) fn record_keys(&self) -> Schedule {
        self.keys(self.max_attestation_age)
    }

    /// The rotation of the keys that authenticate challenges: only replicas need to know the next one
    /// before it is used, and they look at the store.
    pub(super) fn challenge_keys(&self) -> Schedule {
        Schedule {
            publish_ahead: self.margin(),
            ..self.keys(challenge::LIFE)
        }
    }

    fn keys(&self, outlives: Duration) -> Schedule {
        let mut schedule = Schedule {
            life: KEY_LIFE.min(self.root_ttl),
            publish_ahead: self.publish_ahead,
            outlives: outlives.saturating_add(self.margin()),
        };
        schedule.life = schedule.life.max(schedule.step().saturating_mul(2));
        schedule
    }

    /// After this time nothing of a revoked lineage is alive: its records are over, and so is the join token
    /// that the same key could have shown again, and then the last that was issued on them.
    pub(super) fn lineage_outlives(&self) -> Duration {
        let evidence = self.max_attestation_age.max(join_token::MAX_TTL);
        let issued = self.longest_ttl.max(self.longest_jwt_ttl);
        evidence.saturating_add(issued).saturating_add(CLOCKS * 2)
    }

    /// After this time a token has expired, by any clock.
    pub(super) fn token_outlives(&self) -> Duration {
        self.longest_jwt_ttl.saturating_add(CLOCKS * 2)
    }

    fn margin(&self) -> Duration {
        self.reload() * 2 + CLOCKS
    }
}

fn algorithm(issuer: &Option<TokenIssuer>) -> Option<TokenAlgorithm> {
    issuer.as_ref().map(|issuer| issuer.algorithm)
}

fn issuer(issuer: &Option<TokenIssuer>) -> Option<String> {
    issuer.as_ref().map(|issuer| issuer.issuer.clone())
}

fn at_least(
    field: &'static str,
    is: Duration,
    least: Duration,
    why: &'static str,
) -> Result<(), SettingsError> {
    if is >= least {
        return Ok(());
    }
    Err(SettingsError {
        field,
        is,
        least,
        why,
    })
}
