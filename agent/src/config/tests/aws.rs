//! `aws:` of an agent's file.

use super::*;
use crate::config::{aws::RoleFrom, aws::WebIdentity};

const ARN: &str = "arn:aws:iam::123456789012:role/orders";

/// [`SMALL`] with these roles; they begin on line 8.
fn file(roles: &str) -> String {
    format!("{SMALL}aws:\n  roles:\n{roles}").replace("ARN", ARN)
}

#[test]
fn a_role_is_read_with_all_that_may_be_said_of_it() {
    let text = file(
        "    first: {arn: 'ARN'}
    all:
      arn: 'ARN'
      from: first
      session_name: '{name}.{trust_domain}'
      external_id: tenant-1
      source_identity: '{path}'
      tags: {team: shop, workload: '{spiffe_id}'}
      transitive_tags: [team]
      policy: {Version: 2012-10-17, Statement: [{Effect: Allow, Action: 's3:*', Resource: '*'}]}
      policy_arns: ['arn:aws:iam::aws:policy/ReadOnlyAccess']
      duration: 1h
    file: {arn: 'ARN', from: {web_identity: {token_file: /t}}}
    svid: {arn: 'ARN', from: {web_identity: {audience: sts.amazonaws.com}}, duration: 12h}
  sts_failover: [us-east-1, 'us-west-2=https://sts.example']
",
    );
    let aws = parse_agent(&text, "agent.yaml").unwrap().aws;
    let all = &aws.roles["all"];
    assert_eq!(all.from, RoleFrom::Role("first".to_owned()));
    assert_eq!(
        all.policy.as_ref().unwrap().as_str(),
        r#"{"Statement":[{"Action":"s3:*","Effect":"Allow","Resource":"*"}],"Version":"2012-10-17"}"#
    );
    assert_eq!(aws.roles["first"].from, RoleFrom::Base);
    let file = WebIdentity::TokenFile("/t".into());
    assert_eq!(aws.roles["file"].from, RoleFrom::WebIdentity(file));
    let svid = WebIdentity::Audience("sts.amazonaws.com".to_owned());
    assert_eq!(aws.roles["svid"].from, RoleFrom::WebIdentity(svid));
    assert_eq!(aws.sts_failover.len(), 2);
}

#[test]
fn what_aws_would_refuse_of_a_role_is_refused_in_the_file() {
    let long = "x".repeat(1225);
    let tags = |count: usize| -> String {
        let tags: Vec<String> = (0..count).map(|n| format!("t{n}: v")).collect();
        format!("tags: {{{}}}", tags.join(", "))
    };
    let policy = |size: usize| {
        let filler = "a".repeat(size);
        format!("policy: {{Statement: [{filler}]}}")
    };
    let arns = |count: usize| {
        let arn = "arn:aws:iam::aws:policy/ReadOnlyAccess";
        format!("policy_arns: ['{}']", vec![arn; count].join("', '"))
    };
    // `{"Statement":["…"]}` is 18 characters around, and the ARN has 38.
    let just_too_large = format!("{}, {}", policy(2048 - 18 - 38 + 1), arns(1));
    for (role, field, what) in [
        ("duration: 10m".to_owned(), "duration", "15m to 12h"),
        ("duration: 13h".to_owned(), "duration", "15m to 12h"),
        ("external_id: x".to_owned(), "external_id", "2 to 1224"),
        (format!("external_id: {long}"), "external_id", "2 to 1224"),
        ("session_name: 'a b'".to_owned(), "session_name", "2 to 64"),
        (
            "session_name: '{host}'".to_owned(),
            "session_name",
            "{trust_domain}",
        ),
        (
            "source_identity: '{spiffe_id}'".to_owned(),
            "source_identity",
            "no : and no /",
        ),
        (tags(51), "tags", "at most 50"),
        (
            format!("tags: {{{}: v}}", "k".repeat(129)),
            &format!("tags.{}", "k".repeat(129)),
            "1 to 128",
        ),
        (
            format!("tags: {{k: {}}}", "v".repeat(257)),
            "tags.k",
            "up to 256",
        ),
        ("tags: {'aws:x': v}".to_owned(), "tags.aws:x", "AWS's own"),
        (
            "tags: {Team: a, team: b}".to_owned(),
            "tags.team",
            "differ in case",
        ),
        (
            "transitive_tags: [team]".to_owned(),
            "transitive_tags[0]",
            "none of this role's tags",
        ),
        (
            "tags: {a: b}, transitive_tags: [a, a]".to_owned(),
            "transitive_tags[1]",
            "listed already",
        ),
        (
            "policy: {Version: 2012-10-17}".to_owned(),
            "policy",
            "an IAM policy",
        ),
        ("policy: text".to_owned(), "policy", "a mapping"),
        (policy(2048), "policy", "at most 2048"),
        (just_too_large, "policy", "found 2049"),
        (arns(11), "policy_arns", "at most 10"),
        (
            "policy_arns: [ReadOnlyAccess]".to_owned(),
            "policy_arns[0]",
            "ARN of a managed policy",
        ),
        (
            "from: nobody".to_owned(),
            "from",
            "aws.roles has no \"nobody\"",
        ),
        (
            "from: {web_identity: {audience: 'warifu:example.org:attest:x'}}".to_owned(),
            "from.web_identity.audience",
            "for attestation",
        ),
        (
            "from: {web_identity: {token_file: /t}}, external_id: abc".to_owned(),
            "external_id",
            "takes no external_id",
        ),
        (
            "from: {web_identity: {token_file: /t}}, source_identity: abc".to_owned(),
            "source_identity",
            "claims of the token",
        ),
        (
            "from: {web_identity: {token_file: /t}}, tags: {a: b}".to_owned(),
            "tags",
            "claims of the token",
        ),
    ] {
        let text = file(&format!("    it: {{arn: 'ARN', {role}}}\n"));
        let field = format!("aws.roles.it.{field}");
        one(agent_errors(&text), 8, &field, what);
    }
    let fits = format!("{}, {}", policy(2048 - 18 - 38), arns(1));
    parse_agent(
        &file(&format!("    it: {{arn: 'ARN', {fits}, {}}}\n", tags(50))),
        "agent.yaml",
    )
    .unwrap();
}

#[test]
fn chains_end_and_obey_the_limits_of_aws() {
    let roles = |b: &str, c: &str| {
        file(&format!(
            "    a: {{arn: 'ARN', tags: {{t: v}}, transitive_tags: [t], source_identity: abc}}\n    b: {{arn: 'ARN', {b}}}\n    c: {{arn: 'ARN', {c}}}\n"
        ))
    };
    for (b, c, line, field, what) in [
        (
            "from: a",
            "from: b, duration: 2h",
            10,
            "c.duration",
            "role chaining",
        ),
        (
            "from: a",
            "from: b, tags: {T: w}",
            10,
            "c.tags.T",
            "inherited from a",
        ),
        (
            "from: a",
            "from: b, source_identity: other",
            10,
            "c.source_identity",
            "a sets it already",
        ),
        ("from: b", "from: a", 9, "b.from", "in a circle: b from b"),
    ] {
        one(
            agent_errors(&roles(b, c)),
            line,
            &format!("aws.roles.{field}"),
            what,
        );
    }
    let circle = agent_errors(&roles("from: c", "from: b"));
    assert_eq!(circle.len(), 2, "{circle:#?}");
    assert!(circle[0].2.contains("b from c from b"), "{circle:#?}");
    parse_agent(
        &roles("from: a, duration: 1h", "from: b, tags: {u: w}"),
        "agent.yaml",
    )
    .unwrap();
}

#[test]
fn a_role_that_is_named_must_be_there() {
    let text = file("    orders: {arn: 'ARN'}\n    base: {arn: 'ARN'}\n");
    one(agent_errors(&text), 9, "aws.roles.base", "not `base`");
    let with = |more: &str| file(&format!("    orders: {{arn: 'ARN'}}\n{more}"));
    let route = |role: &str| {
        with(&format!(
            "outbound:\n  listen: unix:/o\n  routes:\n  - {{host: a, upstream: 'https://a', sigv4: {{service: s, role: {role}}}}}\n"
        ))
    };
    one(
        agent_errors(&route("order")),
        12,
        "outbound.routes[0].sigv4.role",
        "did you mean \"orders\"",
    );
    one(
        agent_errors(&route("'arn:aws:iam::1:role/x'")),
        12,
        "outbound.routes[0].sigv4.role",
        "12 digits",
    );
    parse_agent(&route("orders"), "agent.yaml").unwrap();
    let local = |role: &str| {
        with(&format!(
            "local:\n  aws_credentials:\n  - {{listen: 'unix:/c', role: {role}}}\n"
        ))
    };
    one(
        agent_errors(&local("zebra")),
        11,
        "local.aws_credentials[0].role",
        "there are orders",
    );
    parse_agent(&local("orders"), "agent.yaml").unwrap();
}

#[test]
fn other_regions_are_few_and_other() {
    let with = |list: &str| format!("{SMALL}aws:\n  region: eu-west-1\n  sts_failover: [{list}]\n");
    for (list, field, what) in [
        ("eu-west-1", "[0]", "own region"),
        ("us-east-1, us-east-1", "[1]", "listed already"),
        (
            "us-east-1, us-east-2, us-west-1, us-west-2",
            "",
            "at most 3",
        ),
        ("'https://sts.example'", "[0]", "a region such as"),
        ("'us-east-1=http://10.0.0.1'", "[0]", "use https://"),
    ] {
        one(
            agent_errors(&with(list)),
            8,
            &format!("aws.sts_failover{field}"),
            what,
        );
    }
}

#[test]
fn an_authority_assumes_no_roles_and_reads_no_secrets() {
    for (field, given) in [
        ("roles", format!("{{a: {{arn: '{ARN}'}}}}")),
        ("secretsmanager", format!("{{role: '{ARN}'}}")),
        ("secretsmanager", "{refresh: 1m}".to_owned()),
    ] {
        let text = format!("{AUTHORITY}\naws: {{{field}: {given}}}\n");
        let found = authority_errors(&text);
        let field = format!("aws.{field}");
        let told = found.iter().find(|it| it.1 == field);
        let (_, _, message) = told.unwrap_or_else(|| panic!("{found:#?}"));
        assert!(message.contains("into an agent's file"), "{message}");
    }
}

#[test]
fn a_token_of_aws_is_for_calls_and_within_the_limits_of_sts() {
    let with = |it: &str| {
        file(&format!(
            "    orders: {{arn: 'ARN'}}\noutbound:\n  listen: unix:/o\n  routes:\n  - {{host: a, upstream: 'https://a', aws_web_identity: {{{it}}}}}\n"
        ))
    };
    let many: Vec<String> = (0..11).map(|n| format!("a{n}")).collect();
    let many = format!("audiences: [{}]", many.join(", "));
    for (it, field, what) in [
        ("audiences: []", "audiences", "at least one"),
        (many.as_str(), "audiences", "at most 10"),
        ("audiences: [a, a]", "audiences[1]", "listed already"),
        (
            "audiences: ['warifu:example.org:attest:x']",
            "audiences[0]",
            "for attestation",
        ),
        (
            "audiences: ['warifu:example.org:attest']",
            "audiences[0]",
            "for attestation",
        ),
        ("audiences: [a], duration: 59s", "duration", "1m to 1h"),
        ("audiences: [a], duration: 61m", "duration", "1m to 1h"),
        ("audiences: [a], role: nobody", "role", "aws.roles has no"),
        ("audiences: [a], algorithm: ES256", "algorithm", "RS256"),
    ] {
        let field = format!("outbound.routes[0].aws_web_identity.{field}");
        one(agent_errors(&with(it)), 12, &field, what);
    }
    let right = with(
        "audiences: ['warifu:example.org:call:x'], role: orders, algorithm: ES384, duration: 1h",
    );
    parse_agent(&right, "agent.yaml").unwrap();
}
