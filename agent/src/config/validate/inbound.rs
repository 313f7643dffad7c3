//! Listeners for calls to the app.

use std::time::Duration;

use super::{Path, Problems, agent, timeouts::timeouts};
use crate::config::{
    AgentConfig,
    inbound::Inbound,
    value::{Forward, Listen},
};

mod accept;
mod claims;
mod rules;

pub(super) fn inbound(config: &AgentConfig, inbound: &Inbound, at: &Path, problems: &mut Problems) {
    let own = &config.trust_domain;
    let forward = match &inbound.forward {
        Forward::Tcp(address) => Listen::Tcp(*address),
        Forward::Unix(path) => Listen::Unix(path.clone()),
    };
    if let Some((other, _)) = agent::listeners(config)
        .iter()
        .find(|(_, l)| l.collides_with(&forward))
    {
        problems.add(
            at.key("forward"),
            format!("expected the app, but {forward} is the agent's own {other}: requests would go in circles"),
        );
    }
    problems.add_if(
        inbound.accept.is_empty(),
        at.key("accept"),
        "expected at least one way for a caller to prove itself, such as \
         accept: [{mtls: {trust_domains: [example.org]}}]",
    );
    let accepted = accept::accept(own, inbound, &at.key("accept"), problems);
    rules::rules(own, inbound, &accepted, at, problems);
    claims::claims(
        inbound,
        !accepted.subjects.is_empty(),
        &at.key("forward_claims"),
        problems,
    );
    timeouts(&inbound.timeouts, &at.key("timeouts"), problems);
    problems.span(
        at.key("max_connection_age"),
        inbound.max_connection_age,
        Duration::from_secs(1),
        Duration::from_secs(30 * 24 * 60 * 60),
    );
    problems.add_if(
        inbound.max_connections == 0,
        at.key("max_connections"),
        "expected at least 1",
    );
}
