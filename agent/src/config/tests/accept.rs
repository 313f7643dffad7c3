//! Ways for callers to prove themselves, and what each must pin.

use std::time::{Duration, SystemTime};

use super::*;
use crate::config::inbound::{Accept, BoundCertificate, ClientCert, JwtProfile};

/// A file whose one listener accepts this: `- …` from line 8.
fn with(accept: &str, more: &str) -> String {
    format!(
        "{SMALL}inbound:\n- listen: 127.0.0.1:8443\n  forward: http://127.0.0.1:8080\n  accept:\n{accept}{more}"
    )
}

fn found(accept: &str) -> Vec<(u64, String, String)> {
    agent_errors(&with(&format!("  - {accept}\n"), ""))
}

const POOL: &str = "https://cognito-idp.eu-west-1.amazonaws.com/eu-west-1_x";

#[test]
fn every_profile_is_read_with_what_it_pins() {
    let text = format!(
        "  - {{mtls: {{trust_domains: [example.org]}}}}
  - {{jwt: {{profile: jwt-svid, audiences: [payments]}}}}
  - {{jwt: {{profile: at+jwt, issuer: \"https://a.example\", audiences: [payments], bound_certificate: required}}}}
  - {{jwt: {{profile: cognito-access, name: cognito, issuer: \"{POOL}\", client_ids: [abc], max_lifetime: 1h}}}}
  - {{jwt: {{profile: cognito-id, issuer: \"{POOL}\", client_ids: [abc]}}}}
  - {{jwt: {{profile: alb, issuer: \"https://a.example\", client_ids: [abc], \
         signers: [\"arn:aws:elasticloadbalancing:eu-west-1:123456789012:loadbalancer/app/web/50dc\"]}}}}
  - {{jwt: {{profile: kubernetes, issuer: \"https://k.example\", audiences: [payments]}}}}
  - {{jwt: {{profile: oidc, issuer: \"https://o.example\", audiences: [payments], algorithms: [RS256, EdDSA], \
         jwks_uri: \"https://o.example/keys\", ca_bundle: /etc/ca.pem}}}}
  - {{jwt: {{profile: hs256, issuer: \"https://h.example\", audiences: [payments], secret: \"file:/run/key\"}}}}
  - {{aws-web-identity: {{audience: \"warifu:example.org:call:payments\", org: o-abc, \
         issuers: {{\"123456789012\": \"https://u.tokens.sts.global.api.aws\"}}}}}}
  - {{secret-header: {{header: x-custom-auth, secret: \"secretsmanager:legacy\", subject: batch}}}}
"
    );
    let config = parse_agent(&with(&text, ""), "agent.yaml").unwrap_or_else(|why| panic!("{why}"));
    let listener = &config.inbound[0];
    let names: Vec<_> = listener.accept.iter().map(Accept::name).collect();
    assert_eq!(
        names,
        [
            None,
            Some("jwt-svid"),
            Some("at+jwt"),
            Some("cognito"),
            Some("cognito-id"),
            Some("alb"),
            Some("kubernetes"),
            Some("oidc"),
            Some("hs256"),
            Some("aws-web-identity"),
            Some("secret-header"),
        ]
    );
    let Accept::Jwt(access) = &listener.accept[2] else {
        panic!()
    };
    assert_eq!(access.bound_certificate, BoundCertificate::Required);
    let Accept::Jwt(oidc) = &listener.accept[7] else {
        panic!()
    };
    let JwtProfile::Oidc { algorithms, .. } = &oidc.profile else {
        panic!()
    };
    assert_eq!(algorithms.len(), 2);
    assert_eq!(listener.client_cert(), ClientCert::Required);
}

#[test]
fn s09_what_a_profile_must_pin_is_demanded_and_what_it_has_not_is_named() {
    for (entry, what) in [
        (
            "profile: cognito-access, issuer: \"https://a.b\"",
            "\"client_ids\" is required",
        ),
        (
            "profile: cognito-id, issuer: \"https://a.b\"",
            "\"client_ids\" is required",
        ),
        ("profile: jwt-svid", "\"audiences\" is required"),
        ("profile: at+jwt, audiences: [a]", "\"issuer\" is required"),
        (
            "profile: at+jwt, issuer: \"https://a.b\"",
            "\"audiences\" is required",
        ),
        (
            "profile: kubernetes, issuer: \"https://a.b\"",
            "\"audiences\" is required",
        ),
        (
            "profile: oidc, issuer: \"https://a.b\", audiences: [a]",
            "\"algorithms\" is required",
        ),
        (
            "profile: alb, issuer: \"https://a.b\", client_ids: [a]",
            "\"signers\" is required",
        ),
        (
            "profile: hs256, issuer: \"https://a.b\", audiences: [a]",
            "\"secret\" is required",
        ),
        (
            "profile: cognito-access, issuer: \"https://a.b\", audiences: [a]",
            "there is no audiences; it has issuer, client_ids",
        ),
        (
            "profile: jwt-svid, audiences: [a], issuer: \"https://a.b\"",
            "there is no issuer",
        ),
        (
            "profile: at+jwt, issuer: \"https://a.b\", audiences: [a], secret: \"file:/k\"",
            "there is no secret",
        ),
        (
            "profile: cognito-acess, issuer: \"https://a.b\"",
            "did you mean \"cognito-access\"?",
        ),
        (
            "profile: oidc, isuer: \"https://a.b\"",
            "did you mean \"issuer\"?",
        ),
        (
            "profile: oidc, issuer: \"https://a.b\", audiences: [a], algorithms: [HS256]",
            "a shared secret is profile hs256's",
        ),
        (
            "profile: oidc, issuer: \"http://a.b\", audiences: [a], algorithms: [RS256]",
            "https",
        ),
        (
            "profile: jwt-svid, audiences: [\"warifu:example.org:attest:x\"]",
            "who is called with such a token could become this workload",
        ),
    ] {
        let found = found(&format!("{{jwt: {{{entry}}}}}"));
        assert!(
            found
                .iter()
                .any(|(line, _, said)| *line == 10 && said.contains(what)),
            "{entry}: {found:#?}"
        );
    }
}

#[test]
fn tokens_that_could_not_be_told_apart_are_one_entrys() {
    let oidc = |name: &str, issuer: &str| {
        format!(
            "  - {{jwt: {{profile: oidc, name: {name}, issuer: \"{issuer}\", audiences: [a], algorithms: [RS256]}}}}\n"
        )
    };
    let access = |name: &str, issuer: &str| {
        format!(
            "  - {{jwt: {{profile: at+jwt, name: {name}, issuer: \"{issuer}\", audiences: [a]}}}}\n"
        )
    };
    let (a, b) = ("https://a.example", "https://b.example");
    let good = oidc("one", a) + &oidc("two", b) + &access("three", a);
    parse_agent(&with(&good, ""), "agent.yaml").unwrap();
    for (twice, at) in [
        (oidc("one", a) + &oidc("two", a), 11),
        (access("x", b) + &access("y", b), 11),
    ] {
        one(
            agent_errors(&with(&twice, "")),
            at,
            "inbound[0].accept[1].jwt",
            "could not be told apart",
        );
    }
    let aws = format!(
        "  - {{aws-web-identity: {{audience: x, issuers: {{\"123456789012\": \"{a}\"}}}}}}\n{}",
        oidc("one", a)
    );
    one(
        agent_errors(&with(&aws, "")),
        11,
        "inbound[0].accept[1].jwt",
        "could not be told apart",
    );
    let same = oidc("one", a) + &oidc("one", b);
    one(
        agent_errors(&with(&same, "")),
        11,
        "inbound[0].accept[1]",
        "another entry is called one already",
    );
}

#[test]
fn s08_an_aws_issuer_is_pinned_by_account() {
    for (entry, what) in [
        (
            "audience: x, issuers: {}",
            "every customer of AWS has tokens like these",
        ),
        (
            "audience: x, issuers: {\"12\": \"https://a.b\"}",
            "expected an AWS account",
        ),
        (
            "audience: \"warifu:example.org:attest:x\", issuers: {\"123456789012\": \"https://a.b\"}",
            "attestation",
        ),
    ] {
        let found = found(&format!("{{aws-web-identity: {{{entry}}}}}"));
        assert!(
            found.iter().any(|(_, _, said)| said.contains(what)),
            "{entry}: {found:#?}"
        );
    }
}

#[test]
fn a_listener_presents_one_thing_and_asks_for_what_it_accepts() {
    let mtls = "  - {mtls: {trust_domains: [example.org]}}\n";
    let jwt = "  - {jwt: {profile: jwt-svid, audiences: [a]}}\n";
    let files = "{certificate_file: /a.pem, key_file: /a.key}";
    for (accept, tls, what) in [
        (
            mtls,
            format!("identity: svid, certificates: [{files}]"),
            "not both",
        ),
        (
            jwt,
            "client_cert: optional".to_owned(),
            "add mtls with its trust_domains",
        ),
        (mtls, "client_cert: none".to_owned(), "can prove nobody"),
        (
            mtls,
            "certificates: [{certificate_file: /a.pem}]".to_owned(),
            "key_file",
        ),
        (
            mtls,
            "certifcates: []".to_owned(),
            "did you mean \"certificates\"?",
        ),
    ] {
        let found = agent_errors(&with(accept, &format!("  tls: {{{tls}}}\n")));
        assert!(
            found.iter().any(|(_, _, said)| said.contains(what)),
            "{tls}: {found:#?}"
        );
    }
    let good = with(
        mtls,
        &format!("  tls: {{certificates: [{files}], client_cert: optional}}\n"),
    );
    let config = parse_agent(&good, "agent.yaml").unwrap();
    assert_eq!(config.inbound[0].client_cert(), ClientCert::Optional);
    let config = parse_agent(&with(jwt, ""), "agent.yaml").unwrap();
    assert_eq!(config.inbound[0].client_cert(), ClientCert::None);
}

#[test]
fn s16_permissive_mode_ends_within_ninety_days() {
    let accept = "  - {jwt: {profile: jwt-svid, audiences: [a]}}\n";
    let until = |days: u32| {
        let day = Duration::from_secs(24 * 3600);
        let at = Moment(SystemTime::now() + day * days);
        with(accept, &format!("  permissive: {{until: \"{at}\"}}\n"))
    };
    parse_agent(&until(89), "agent.yaml").unwrap();
    one(
        agent_errors(&until(92)),
        11,
        "inbound[0].permissive.until",
        "within 90 days",
    );
    // One that is over is off, and no mistake.
    parse_agent(
        &with(accept, "  permissive: {until: 2020-01-01T00:00:00Z}\n"),
        "agent.yaml",
    )
    .unwrap();
    let found = agent_errors(&with(accept, "  permissive: {}\n"));
    one(found, 11, "inbound[0].permissive", "\"until\" is missing");
}

#[test]
fn a_rule_says_whose_scopes_it_means_where_there_are_several() {
    let accept = "  - {jwt: {profile: jwt-svid, audiences: [a]}}
  - {jwt: {profile: oidc, issuer: \"https://o.example\", audiences: [a], algorithms: [RS256]}}
";
    let rule = |list: &str, subject: &str| {
        with(
            accept,
            &format!("  {list}: [{{subject: {{{subject}}}, to: [\"GET /\"]}}]\n"),
        )
    };
    one(
        agent_errors(&rule("allow", "scope: read")),
        12,
        "inbound[0].allow[0].subject",
        "expected issuer, one of [jwt-svid, oidc]",
    );
    for good in [
        rule("allow", "scope: read, issuer: oidc"),
        rule(
            "allow",
            "scope: read, spiffe_id: \"spiffe://example.org/x\"",
        ),
        rule("deny", "scope: read"),
    ] {
        parse_agent(&good, "agent.yaml").unwrap_or_else(|why| panic!("{why}"));
    }
    let one_only = accept.lines().next().unwrap().to_owned() + "\n";
    let text = with(
        &one_only,
        "  allow: [{subject: {scope: read}, to: [\"GET /\"]}]\n",
    );
    parse_agent(&text, "agent.yaml").unwrap();
}
