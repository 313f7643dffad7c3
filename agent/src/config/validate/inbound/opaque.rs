//! Listeners whose app speaks no HTTP: what is about requests has no meaning there.

use super::{Path, Problems};
use crate::config::{
    inbound::{Accept, ClientCertHeader, Inbound, Rule},
    outbound::{Protocol, Timeouts},
};

pub(super) fn opaque(inbound: &Inbound, at: &Path, problems: &mut Problems) {
    if !inbound.is_opaque() {
        problems.add_if(
            inbound.proxy_protocol.is_some(),
            at.key("proxy_protocol"),
            "it is for apps that speak no HTTP (forward: tcp://…): over HTTP the app is told in headers",
        );
        return;
    }
    for (index, accept) in inbound.accept.iter().enumerate() {
        problems.add_if(
            !matches!(accept, Accept::Mtls { .. }),
            at.key("accept").index(index),
            "only mtls proves anything here: a connection carries no token and no header (forward: tcp://…)",
        );
    }
    for (list, rules) in [("allow", &inbound.allow), ("deny", &inbound.deny)] {
        for (index, it) in rules.iter().enumerate() {
            rule(it, &at.key(list).index(index), problems);
        }
    }
    let no_requests = "there are no requests here, only connections (forward: tcp://…); remove it";
    for (there, key) in [
        (!inbound.forward_claims.is_empty(), "forward_claims"),
        (inbound.context.is_some(), "context"),
        (
            inbound.client_cert_headers != [ClientCertHeader::Xfcc],
            "client_cert_headers",
        ),
        (inbound.trusted_hops != 0, "trusted_hops"),
        (inbound.app_protocol != Protocol::default(), "app_protocol"),
    ] {
        problems.add_if(there, at.key(key), no_requests);
    }
    problems.add_if(
        inbound.limits.body.is_some(),
        at.key("limits").key("body"),
        no_requests,
    );
    let Timeouts {
        connect: _,
        first_byte,
        whole,
    } = &inbound.timeouts;
    let at = at.key("timeouts");
    problems.add_if(first_byte.is_some(), at.key("first_byte"), no_requests);
    problems.add_if(whole.is_some(), at.key("whole"), no_requests);
}

/// What it demands must be something that a connection has.
fn rule(rule: &Rule, at: &Path, problems: &mut Problems) {
    problems.add_if(
        !rule.to.is_empty(),
        at.key("to"),
        "a connection has no method and no path (forward: tcp://…); remove to: whom the rule allows may connect",
    );
    problems.add_if(
        !rule.headers.is_empty(),
        at.key("headers"),
        "a connection has no headers (forward: tcp://…); rules here are about peer, source and when",
    );
    problems.add_if(
        rule.subject.is_some(),
        at.key("subject"),
        "a connection proves no subject (forward: tcp://…); rules here are about peer, source and when",
    );
}
