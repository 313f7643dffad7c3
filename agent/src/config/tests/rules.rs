//! Rules of a listener: what can never hold, or names nobody, is a mistake.

use super::*;

fn listener(listen: &str, rules: &str) -> String {
    format!(
        "{SMALL}inbound:\n- listen: '{listen}'\n  forward: unix:/app\n  accept:\n  - mtls: {{trust_domains: \
         [example.org]}}\n  - jwt: {{profile: jwt-svid, audiences: [a]}}\n{rules}"
    )
}

#[test]
fn rules_say_all_that_they_can() {
    let text = listener(
        "127.0.0.1:1",
        "  trusted_hops: 2
  allow:
  - name: orders
    peer: 'spiffe://example.org/**'
    subject: {issuer: jwt-svid, scope: a, claims: {tenant: [a, 'b'], admin: true, level: 3, share: 0.5}}
    to: ['GET /**']
    source: [10.0.0.0/8, '2001:db8::/32', 192.0.2.7]
    headers: {X-Tenant: [acme]}
    when: {days: [mon, fri], from: '22:00', to: '06:00', offset: '+09:00', not_after: '2030-01-01T00:00:00Z'}
    shadow: true
  deny:
  - {to: ['* /admin/**']}
  - {source: [203.0.113.0/24]}
  - {peer: 'spiffe://example.org/bad'}
",
    );
    let agent = parse_agent(&text, "agent.yaml").unwrap_or_else(|errors| panic!("{errors}"));
    let rule = &agent.inbound[0].allow[0];
    assert_eq!(rule.headers[0].0, "x-tenant");
    assert_eq!(rule.subject.as_ref().unwrap().claims.len(), 4);
    assert_eq!(agent.inbound[0].deny.len(), 3);
}

#[test]
fn a_rule_that_can_never_hold_or_names_nobody_is_a_mistake() {
    let peer = "peer: 'spiffe://example.org/a'";
    for (list, rule, field, what) in [
        (
            "allow",
            "to: ['GET /'], source: [10.0.0.0/8]",
            "",
            "expected peer or subject",
        ),
        (
            "allow",
            "peer: 'spiffe://example.org/a'",
            ".to",
            "expected what may be asked",
        ),
        ("deny", "name: a", "", "as it stands, everything is"),
        (
            "deny",
            "subject: {}",
            ".subject",
            "expected issuer, spiffe_id, role, scope or claims",
        ),
        (
            "deny",
            "subject: {issuer: cognito}",
            ".subject.issuer",
            "one of [jwt-svid]",
        ),
        (
            "deny",
            "subject: {role: '123456789012:role/a'}",
            ".subject.role",
            "add aws-web-identity",
        ),
        (
            "deny",
            "subject: {claims: {a: []}}",
            ".subject.claims.a",
            "this never holds",
        ),
        (
            "deny",
            "subject: {claims: {scope: a}}",
            ".subject.claims.scope",
            "use subject.scope",
        ),
        (
            "deny",
            "source: [10.0.0.1/8]",
            ".source[0]",
            "write 10.0.0.0/8",
        ),
        (
            "deny",
            "headers: {x-a: []}",
            ".headers.x-a",
            "this never holds",
        ),
        (
            "deny",
            "headers: {x-a: ['a ']}",
            ".headers.x-a[0]",
            "no space at its ends",
        ),
        (
            "deny",
            "headers: {authorization: [a]}",
            ".headers.authorization",
            "accept a token",
        ),
        (
            "deny",
            "headers: {x-forwarded-for: [a]}",
            ".headers.x-forwarded-for",
            "trusted_hops",
        ),
        (
            "deny",
            "headers: {x-warifu-caller: [a]}",
            ".headers.x-warifu-caller",
            "use peer or subject",
        ),
        ("deny", "when: {}", ".when", "expected days"),
        (
            "deny",
            "when: {from: '08:00', to: '08:00'}",
            ".when.to",
            "no time at all",
        ),
        (
            "deny",
            "when: {from: '24:00'}",
            ".when.from",
            "nothing of the day",
        ),
        (
            "deny",
            "when: {days: [mon, mon]}",
            ".when.days[1]",
            "listed already",
        ),
        (
            "deny",
            "when: {not_before: '2026-01-02T00:00:00Z', not_after: '2026-01-01T00:00:00Z'}",
            ".when.not_after",
            "after not_before",
        ),
    ] {
        let text = listener("127.0.0.1:1", &format!("  {list}:\n  - {{{rule}}}\n"));
        one(
            agent_errors(&text),
            13,
            &format!("inbound[0].{list}[0]{field}"),
            what,
        );
    }
    let twice =
        format!("  allow: [{{name: a, {peer}, to: ['GET /']}}]\n  deny: [{{name: a, {peer}}}]\n");
    let text = listener("127.0.0.1:1", &twice);
    one(
        agent_errors(&text),
        13,
        "inbound[0].deny[0].name",
        "the name of allow[0] already",
    );
    let text = listener("unix:/in.sock", "  deny: [{source: [10.0.0.0/8]}]\n");
    one(
        agent_errors(&text),
        12,
        "inbound[0].deny[0].source",
        "set trusted_hops",
    );
}
