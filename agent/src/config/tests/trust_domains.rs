//! Whose callers a listener accepts.

use super::*;

#[test]
fn s02_a_caller_of_another_trust_domain_is_named_only_where_the_listener_lists_it() {
    let inbound = |accept: &str, allow: &str| {
        format!(
            "{SMALL}inbound:\n- listen: '127.0.0.1:1'\n  forward: unix:/app\n  accept: [{accept}]\n  allow: [{allow}]\n"
        )
    };
    let both = "[example.org, partner.example]";
    let peer = "{peer: 'spiffe://partner.example/x', to: ['GET /']}";
    let subject = "{subject: {spiffe_id: 'spiffe://partner.example/x', scope: a}, to: ['GET /']}";
    let scope = "{subject: {scope: a}, to: ['GET /']}";
    let mtls = |domains: &str| format!("{{mtls: {{trust_domains: {domains}}}}}");
    let jwt = |domains: &str| {
        format!("{{jwt: {{profile: jwt-svid, audiences: [a], trust_domains: {domains}}}}}")
    };
    for (accept, allow) in [
        (mtls(both), peer),
        (jwt(both), subject),
        (jwt("[]"), scope),
        (jwt("[example.org]"), scope),
    ] {
        let text = inbound(&accept, allow);
        assert!(parse_agent(&text, "agent.yaml").is_ok(), "{text}");
    }
    for (accept, allow, field, what) in [
        (
            mtls("[example.org]"),
            peer,
            "peer",
            "only of example.org; add it to trust_domains of mtls",
        ),
        (
            jwt("[]"),
            subject,
            "subject.spiffe_id",
            "only of example.org; add it to trust_domains of jwt",
        ),
        // Its authority would grant itself whatever scope a rule asks for.
        (
            jwt(both),
            scope,
            "subject",
            "expected spiffe_id beside scope",
        ),
        (
            jwt("[partner.example]"),
            scope,
            "subject",
            "its authority grants any scope",
        ),
    ] {
        let text = inbound(&accept, allow);
        one(
            agent_errors(&text),
            10,
            &format!("inbound[0].allow[0].{field}"),
            what,
        );
    }
}
