//! The authority's file.

use std::time::Duration;

use super::{Path, Problem, Problems, root};
use crate::config::{
    authority::{AuthorityConfig, CaKey, Rule, State},
    value::{Listen, Span},
};

/// Shorter lives than this are renewed all the time.
const SHORTEST: Duration = Duration::from_secs(1);
/// A JWT-SVID is a bearer token, and a third party's verifier knows no revocation.
const LONGEST_JWT: Duration = Duration::from_secs(24 * 60 * 60);
const YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);
/// What a rotation needs beside the configured spans: replicas notice late, clocks differ. Above what
/// the authority reckons with.
const ROTATION_MARGIN: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

pub(in crate::config) fn authority(config: &AuthorityConfig) -> Vec<Problem> {
    let mut problems = Problems::default();
    problems.add_if(
        !matches!(config.admin, Listen::Unix(_)),
        root().key("admin"),
        "expected a unix socket such as unix:/run/warifu/authority.sock: who may administer is decided by \
         its permissions",
    );
    ca(config, &mut problems);
    problems.add_if(
        config.attestors.is_empty(),
        root().key("attestors"),
        "expected at least one attestor, such as bootstrap: {kind: join-token}",
    );
    for (index, rule) in config.rules.iter().enumerate() {
        self::rule(
            config,
            rule,
            &root().key("rules").index(index),
            &mut problems,
        );
    }
    let listen = root().key("listen");
    let mut listeners = vec![
        (listen, Listen::Tcp(config.listen)),
        (root().key("admin"), config.admin.clone()),
    ];
    if let Some(probes) = &config.probes {
        listeners.push((root().key("probes"), probes.clone()));
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
    match (&ca.key, &config.state) {
        (CaKey::Memory, State::Sqlite) => problems.add(
            root().key("state"),
            "sqlite lives in the directory of a disk CA; with key: memory use state: memory",
        ),
        (CaKey::Disk { .. }, State::Memory) => problems.add(
            root().key("state"),
            "with key: disk the state must outlive the process too; use state: sqlite",
        ),
        _ => {}
    }
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

fn rule(config: &AuthorityConfig, rule: &Rule, at: &Path, problems: &mut Problems) {
    if !config.attestors.contains_key(&rule.attestor) {
        let known: Vec<&str> = config.attestors.keys().map(String::as_str).collect();
        problems.add(
            at.key("attestor"),
            format!(
                "there is no attestor {:?}; there are: {}",
                rule.attestor,
                known.join(", ")
            ),
        );
    }
    problems.add_if(
        rule.r#match.is_empty(),
        at.key("match"),
        "expected the facts this rule is for, such as {service: payments}; \"*\" matches any value",
    );
    let longest = config.ca.intermediate_ttl;
    problems.add_if(
        rule.ttl.0 < SHORTEST || rule.ttl > longest,
        at.key("ttl"),
        format!(
            "expected {} to {longest} (ca.intermediate_ttl: a leaf never outlives its intermediate), found {}",
            Span(SHORTEST),
            rule.ttl
        ),
    );
    problems.span(at.key("jwt_ttl"), rule.jwt_ttl, SHORTEST, LONGEST_JWT);
    for (index, name) in rule.dns.iter().enumerate() {
        let taken = config
            .dns_names
            .iter()
            .any(|own| own.eq_ignore_ascii_case(name));
        problems.add_if(
            taken,
            at.key("dns").index(index),
            format!("{name} is the authority's own name; no workload may have it"),
        );
    }
    let wildcard = |audience: &String| audience.contains('*') && audience != "*";
    for (index, audience) in rule.audiences.iter().enumerate() {
        problems.add_if(
            wildcard(audience),
            at.key("audiences").index(index),
            format!("expected an audience or \"*\" alone, found {audience:?}"),
        );
    }
}
