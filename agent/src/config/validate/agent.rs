//! The agent's file.

use std::{collections::BTreeMap, time::Duration};

use warifu::{TrustDomain, identity::MAX_TRUST_DOMAINS};

use super::{Path, Problem, Problems, aws, local, outbound, root};
use crate::config::{
    agent::{Accept, AgentConfig, Allow, Inbound, JwtAccept},
    value::{Forward, IdPattern, Listen},
};

/// A drain or a request longer than this is stuck.
pub(super) const HOUR: Duration = Duration::from_secs(60 * 60);

/// More threads than any machine we know has processors.
const MAX_WORKERS: usize = 256;

/// Headers a claim must not replace: they frame the message, steer its way, or say who sent it.
const NOT_FOR_CLAIMS: &[&str] = &[
    "authorization",
    "client-cert",
    "client-cert-chain",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "cookie",
    "expect",
    "forwarded",
    "host",
    "keep-alive",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "via",
    "x-forwarded-client-cert",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-method",
    "x-forwarded-prefix",
    "x-forwarded-proto",
    "x-forwarded-uri",
    "x-http-method",
    "x-http-method-override",
    "x-method-override",
    "x-original-method",
    "x-original-uri",
    "x-original-url",
    "x-rewrite-url",
];

pub(in crate::config) fn agent(config: &AgentConfig) -> Vec<Problem> {
    let mut problems = Problems::default();
    let authority = &config.authority;
    problems.add_if(
        authority.root_spki_sha256.is_empty() && authority.bundle.is_none(),
        root().key("authority"),
        "give root_spki_sha256 (pins of the authority's root) or bundle (a PEM file of its roots), so that \
         the authority can be told from an impostor",
    );
    for (index, inbound) in config.inbound.iter().enumerate() {
        self::inbound(
            config,
            inbound,
            &root().key("inbound").index(index),
            &mut problems,
        );
    }
    outbound::outbound(config, &mut problems);
    local::local(config, &root().key("local"), &mut problems);
    aws::aws(config, &mut problems);
    problems.add_if(
        config.admin.listen.as_ref().is_some_and(|listen| !listen.is_local()),
        root().key("admin").key("listen"),
        "expected a unix socket or a loopback address: status and drain have no other protection; what may \
         be exposed is admin.probes",
    );
    problems.listeners(&listeners(config));
    problems.span(root().key("drain"), config.drain, Duration::ZERO, HOUR);
    // A list is asked for three times as often; beyond a week hardly anything it lists is alive.
    problems.span(
        root().key("revocation").key("max_age"),
        config.revocation.max_age,
        Duration::from_secs(3),
        HOUR * 24 * 7,
    );
    // Below, Secrets Manager is asked all the time; above, a rotation may be over before it is noticed.
    problems.span(
        root().key("aws").key("secretsmanager").key("refresh"),
        config.aws.secretsmanager.refresh,
        Duration::from_secs(10),
        HOUR * 24,
    );
    problems.add_if(
        config.workers == 0 || config.workers > MAX_WORKERS,
        root().key("workers"),
        format!(
            "expected 1 to {MAX_WORKERS} threads, found {}",
            config.workers
        ),
    );
    problems.0
}

fn listeners(config: &AgentConfig) -> Vec<(Path, Listen)> {
    let inbound = config.inbound.iter().enumerate().map(|(index, inbound)| {
        let at = root().key("inbound").index(index).key("listen");
        (at, Some(&inbound.listen))
    });
    let outbound = config.outbound.as_ref().map(|outbound| &outbound.listen);
    let tcp = config.outbound.iter().flat_map(|outbound| &outbound.tcp);
    let tcp = tcp.enumerate().map(|(index, tcp)| {
        let at = root().key("outbound").key("tcp").index(index);
        (at.key("listen"), Some(&tcp.listen))
    });
    let admin = root().key("admin");
    inbound
        .chain(tcp)
        .chain([
            (root().key("outbound").key("listen"), outbound),
            (admin.key("listen"), config.admin.listen.as_ref()),
            (admin.key("probes"), config.admin.probes.as_ref()),
        ])
        .filter_map(|(at, listen)| Some((at, listen?.clone())))
        .chain(local::listeners(&config.local, &root().key("local")))
        .collect()
}

fn inbound(config: &AgentConfig, inbound: &Inbound, at: &Path, problems: &mut Problems) {
    let own = &config.trust_domain;
    let forward = match &inbound.forward {
        Forward::Tcp(address) => Listen::Tcp(*address),
        Forward::Unix(path) => Listen::Unix(path.clone()),
    };
    if let Some((other, _)) = listeners(config)
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
    let (mut mtls, mut jwt) = (0, 0);
    let mut accepted = Accepted::default();
    for (index, accept) in inbound.accept.iter().enumerate() {
        let at = at.key("accept").index(index);
        match accept {
            Accept::Mtls { trust_domains } => {
                mtls += 1;
                let at = at.key("mtls").key("trust_domains");
                problems.add_if(
                    trust_domains.is_empty(),
                    at.clone(),
                    format!("expected [{own}]"),
                );
                listed_once(trust_domains, &at, problems);
                accepted.peers.extend(trust_domains);
            }
            Accept::Jwt(JwtAccept {
                audiences,
                trust_domains,
                ..
            }) => {
                jwt += 1;
                problems.add_if(
                    audiences.is_empty(),
                    at.key("jwt").key("audiences"),
                    "expected the audiences that mean this service, such as [payments]: a token meant for \
                     another service must not pass here",
                );
                listed_once(trust_domains, &at.key("jwt").key("trust_domains"), problems);
                accepted.subjects.extend(trust_domains);
                if trust_domains.is_empty() {
                    accepted.subjects.push(own);
                }
            }
        }
    }
    for (count, name) in [(mtls, "mtls"), (jwt, "jwt")] {
        problems.add_if(
            count > 1,
            at.key("accept"),
            format!("{name} is listed {count} times; list it once"),
        );
    }
    for (index, allow) in inbound.allow.iter().enumerate() {
        let at = at.key("allow").index(index);
        rule(own, allow, &accepted, &at, problems);
    }
    claims(inbound, jwt > 0, &at.key("forward_claims"), problems);
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

/// Whose callers a listener accepts, by what they present.
#[derive(Default)]
struct Accepted<'a> {
    peers: Vec<&'a TrustDomain>,
    subjects: Vec<&'a TrustDomain>,
}

fn listed_once(trust_domains: &[TrustDomain], at: &Path, problems: &mut Problems) {
    problems.at_most(MAX_TRUST_DOMAINS, trust_domains.len(), at.clone());
    for (index, domain) in trust_domains.iter().enumerate() {
        problems.add_if(
            trust_domains.iter().take(index).any(|it| it == domain),
            at.index(index),
            format!("{domain} is listed already"),
        );
    }
}

/// A rule that can never match, or that names nobody, is a mistake.
fn rule(
    own: &TrustDomain,
    allow: &Allow,
    accepted: &Accepted<'_>,
    at: &Path,
    problems: &mut Problems,
) {
    problems.add_if(
        allow.peer.is_none() && allow.subject.is_none(),
        at.clone(),
        "expected peer or subject: a rule says who may call",
    );
    problems.add_if(
        allow.to.is_empty(),
        at.key("to"),
        "expected what may be asked, such as [\"GET /charges/*\"]",
    );
    if let Some(peer) = &allow.peer {
        problems.add_if(
            accepted.peers.is_empty(),
            at.key("peer"),
            "no caller has a peer identity here: add mtls to accept",
        );
        of_accepted(
            peer,
            &accepted.peers,
            ("caller", "mtls"),
            &at.key("peer"),
            problems,
        );
    }
    if let Some(subject) = &allow.subject {
        problems.add_if(
            accepted.subjects.is_empty(),
            at.key("subject"),
            "no caller has a subject here: add jwt to accept",
        );
        problems.add_if(
            subject.spiffe_id.is_none() && subject.scope.is_none(),
            at.key("subject"),
            "expected spiffe_id or scope",
        );
        // Another trust domain's authority grants scopes as it likes.
        let foreign = accepted.subjects.iter().find(|domain| **domain != own);
        if let (None, Some(foreign)) = (&subject.spiffe_id, foreign) {
            problems.add(
                at.key("subject"),
                format!(
                    "expected spiffe_id beside scope, such as \"spiffe://{own}/**\": tokens of {foreign} are \
                     accepted here, and its authority grants any scope"
                ),
            );
        }
        if let Some(id) = &subject.spiffe_id {
            let at = at.key("subject").key("spiffe_id");
            of_accepted(id, &accepted.subjects, ("token", "jwt"), &at, problems);
        }
    }
}

fn of_accepted(
    id: &IdPattern,
    accepted: &[&TrustDomain],
    (what, by): (&str, &str),
    at: &Path,
    problems: &mut Problems,
) {
    if accepted.is_empty() || accepted.iter().any(|it| it.as_str() == id.trust_domain) {
        return;
    }
    let listed: Vec<&str> = accepted.iter().map(|it| it.as_str()).collect();
    problems.add(
        at.clone(),
        format!(
            "no {what} of trust domain {} is accepted, only of {}; add it to trust_domains of {by} in accept",
            id.trust_domain,
            listed.join(", ")
        ),
    );
}

fn claims(inbound: &Inbound, jwt: bool, at: &Path, problems: &mut Problems) {
    problems.add_if(
        !inbound.forward_claims.is_empty() && !jwt,
        at.clone(),
        "no caller has claims here: add jwt to accept",
    );
    let mut taken: BTreeMap<&str, &str> = BTreeMap::new();
    for (claim, header) in &inbound.forward_claims {
        let name = header.as_str();
        let reserved = NOT_FOR_CLAIMS.contains(&name)
            || name.starts_with("x-warifu-")
            || name.starts_with("x-amz-")
            || name.starts_with("x-amzn-");
        problems.add_if(
            reserved,
            at.key(claim),
            format!(
                "the header {name} has a meaning of its own; choose another, such as x-user-{claim}"
            ),
        );
        if let Some(other) = taken.insert(name, claim) {
            problems.add(
                at.key(claim),
                format!("the header {name} is taken by the claim {other}"),
            );
        }
    }
}
