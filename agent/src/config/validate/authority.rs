//! The authority's file.

use std::time::Duration;

use super::{Problem, Problems, root};
use crate::config::{
    authority::AuthorityConfig,
    secretsmanager::SecretsManager,
    value::{Listen, Span},
};

/// Shorter lives than this are renewed all the time.
const SHORTEST: Duration = Duration::from_secs(1);
const YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);
/// What a rotation needs beside the configured spans: replicas notice late, clocks differ. Above what
/// the authority reckons with.
const ROTATION_MARGIN: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

mod attestors;
mod publish;
mod rules;
mod state;

pub(in crate::config) fn authority(config: &AuthorityConfig) -> Vec<Problem> {
    let mut problems = Problems::default();
    problems.add_if(
        !matches!(config.admin, Listen::Unix(_)),
        root().key("admin"),
        "expected a unix socket such as unix:/run/warifu/authority.sock: who may administer is decided by \
         its permissions",
    );
    for (field, given) in [
        ("sts_failover", !config.aws.sts_failover.is_empty()),
        ("roles", !config.aws.roles.is_empty()),
        (
            "secretsmanager",
            config.aws.secretsmanager != SecretsManager::default(),
        ),
    ] {
        problems.add_if(
            given,
            root().key("aws").key(field),
            "an authority assumes no roles and reads no secrets: this belongs into an agent's file",
        );
    }
    ca(config, &mut problems);
    state::state(config, &mut problems);
    problems.add_if(
        config.attestors.is_empty(),
        root().key("attestors"),
        "expected at least one attestor, such as bootstrap: {kind: join-token}",
    );
    attestors::attestors(config, &mut problems);
    rules::rules(config, &mut problems);
    rules::administrators(config, &mut problems);
    publish::publish(config, &mut problems);
    let listen = root().key("listen");
    let mut listeners = vec![
        (listen, Listen::Tcp(config.listen)),
        (root().key("admin"), config.admin.clone()),
    ];
    if let Some(probes) = &config.probes {
        listeners.push((root().key("probes"), probes.clone()));
    }
    if let Some(web) = &config.web {
        listeners.push((root().key("web").key("listen"), Listen::Tcp(web.listen)));
    }
    problems.listeners(&listeners);
    problems.span(
        root().key("max_attestation_age"),
        config.max_attestation_age,
        SHORTEST,
        YEAR,
    );
    problems.add_if(
        config.attestations_per_second == 0,
        root().key("attestations_per_second"),
        "expected at least 1: nobody could attest",
    );
    problems.span(
        root().key("bundle_refresh_hint"),
        config.bundle_refresh_hint,
        SHORTEST,
        DAY,
    );
    problems.0
}

fn ca(config: &AuthorityConfig, problems: &mut Problems) {
    let at = root().key("ca");
    let ca = &config.ca;
    problems.span(at.key("root_ttl"), ca.root_ttl, SHORTEST, 30 * YEAR);
    problems.span(
        at.key("intermediate_ttl"),
        ca.intermediate_ttl,
        SHORTEST,
        ca.root_ttl.0,
    );
    let hint = config.bundle_refresh_hint;
    problems.add_if(
        ca.publish_ahead.0 < hint.0.saturating_mul(2),
        at.key("publish_ahead"),
        format!(
            "expected at least twice bundle_refresh_hint, {hint}: agents would meet certificates of a new root \
             before they ask for the bundle again; found {}",
            ca.publish_ahead
        ),
    );
    let step = ca.publish_ahead.0.saturating_add(ca.intermediate_ttl.0);
    let least = Span(step.saturating_add(ROTATION_MARGIN).saturating_mul(2));
    problems.add_if(
        ca.publish_ahead < ca.root_ttl && ca.root_ttl < least,
        at.key("root_ttl"),
        format!(
            "expected at least {least}: a root's life must hold publish_ahead and intermediate_ttl twice, with a \
             minute for replicas and clocks, so that the next root is ready in time; found {}",
            ca.root_ttl
        ),
    );
    problems.add_if(
        ca.publish_ahead >= ca.root_ttl,
        at.key("publish_ahead"),
        format!(
            "a new root must be published for less than a root's life, {}; found {}",
            ca.root_ttl, ca.publish_ahead
        ),
    );
}
