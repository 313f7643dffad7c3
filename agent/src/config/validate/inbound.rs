//! Listeners for calls to the app.

use std::time::{Duration, SystemTime};

use super::{Path, Problems, agent, timeouts::timeouts};
use crate::config::{AgentConfig, inbound::Inbound, value::Forward};

mod accept;
mod claims;
mod client_cert_headers;
mod ext_authz;
mod opaque;
mod permissive;
mod rego;
mod rules;
mod tls;

pub(super) fn inbound(config: &AgentConfig, inbound: &Inbound, at: &Path, problems: &mut Problems) {
    let own = &config.trust_domain;
    match (&inbound.forward, &inbound.ext_authz) {
        (Some(forward), None) => not_ourselves(config, forward, &at.key("forward"), problems),
        (None, Some(ext_authz)) => ext_authz::ext_authz(inbound, ext_authz, at, problems),
        (None, None) => problems.add(
            at.clone(),
            "expected forward (the app), such as forward: http://127.0.0.1:8080, or ext_authz (Envoy asks here)",
        ),
        (Some(_), Some(_)) => problems.add(
            at.key("ext_authz"),
            "expected either forward or ext_authz: where Envoy asks, Envoy forwards",
        ),
    }
    problems.add_if(
        inbound.accept.is_empty(),
        at.key("accept"),
        "expected at least one way for a caller to prove itself, such as \
         accept: [{mtls: {trust_domains: [example.org]}}]",
    );
    let accepted = accept::accept(own, inbound, &at.key("accept"), problems);
    tls::tls(inbound, &accepted, &at.key("tls"), problems);
    opaque::opaque(inbound, at, problems);
    permissive::permissive(inbound, SystemTime::now(), at, problems);
    if let Some(rego) = &inbound.rego {
        rego::rego(rego, &at.key("rego"), problems);
    }
    rules::rules(own, inbound, &accepted, at, problems);
    claims::claims(
        inbound,
        !accepted.names.is_empty(),
        &at.key("forward_claims"),
        problems,
    );
    client_cert_headers::client_cert_headers(inbound, &at.key("client_cert_headers"), problems);
    timeouts(&inbound.timeouts, &at.key("timeouts"), problems);
    problems.span(
        at.key("max_connection_age"),
        inbound.max_connection_age,
        Duration::from_secs(1),
        Duration::from_secs(30 * 24 * 60 * 60),
    );
    if let Some(rate) = &inbound.limits.per_caller.rate {
        let at = at.key("limits").key("per_caller").key("rate");
        // Below, a rate says no more than the number of requests; above, nobody notices that there is one.
        let (least, most) = (Duration::from_millis(100), Duration::from_secs(60 * 60));
        problems.span(at.key("every"), rate.every, least, most);
        problems.add_if(
            rate.each().is_zero(),
            at.key("requests"),
            "expected fewer than one in each nanosecond",
        );
    }
    problems.add_if(
        inbound.max_connections == 0,
        at.key("max_connections"),
        "expected at least 1",
    );
}

/// What goes to the agent itself would go in circles.
fn not_ourselves(config: &AgentConfig, forward: &Forward, at: &Path, problems: &mut Problems) {
    let forward = forward.at();
    let listeners = agent::listeners(config);
    if let Some((other, _)) = listeners.iter().find(|(_, l)| l.collides_with(&forward)) {
        problems.add(
            at.clone(),
            format!("expected the app, but {forward} is the agent's own {other}: requests would go in circles"),
        );
    }
}
