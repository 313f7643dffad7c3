//! Rules that could give one identity to two accounts, clusters or namespaces are refused before anything starts:
//! with file, line, column, field, what would happen, and what to do.

use warifu_tests::process::Sandbox;

const HEAD: &str = r#"trust_domain: example.org
listen: 127.0.0.1:0
admin: unix:DIR/authority.sock
ca: {key: disk, path: DIR/ca}
state: sqlite
attestors:
  aws: {kind: aws-web-identity, issuers: {"111111111111": "https://a.example", "222222222222": "https://b.example"}}
  blue: {kind: kubernetes, issuer: "https://blue.example", audience: "warifu:example.org:attest"}
  green: {kind: kubernetes, issuer: "https://green.example", audience: "warifu:example.org:attest:green"}
  join: {kind: join-token}
rules:
"#;

/// Rules, and what is said of them after the file's name.
const REFUSED: &[(&str, &str)] = &[
    (
        r#"- {attestor: aws, match: {role: "svc-*"}, id: "/{role}"}"#,
        "12:47: rules[0].id: one SPIFFE ID for two accounts: /svc-x for aws with {account: 111111111111, partition: aws, \
         role: svc-x} (rules[0]) and for aws with {account: 222222222222, partition: aws, role: svc-x} (rules[0]); \
         match one account, or put {account} into the template; write shared: true in the rule if one is meant for both",
    ),
    (
        r#"- {attestor: aws, match: {account: "111111111111"}, id: "/{role}"}
- {attestor: aws, match: {account: "222222222222"}, id: "/{role}"}"#,
        "13:57: rules[1].id: one SPIFFE ID for two accounts: /orders for aws with {account: 111111111111, partition: aws, \
         role: orders} (rules[0]) and for aws with {account: 222222222222, partition: aws, role: orders} (rules[1]); \
         put {account} into both templates, or let them differ in a segment; write shared: true in both rules if one \
         is meant for both",
    ),
    (
        r#"- {attestor: blue, match: {service_account: "*"}, id: "/{service_account}"}"#,
        "12:55: rules[0].id: one SPIFFE ID for two namespaces: /orders for blue with {namespace: shop, service_account: \
         orders} (rules[0]) and for blue with {namespace: blog, service_account: orders} (rules[0]); match one \
         namespace, or put {namespace} into the template; write shared: true in the rule if one is meant for both",
    ),
    (
        r#"- {attestor: blue, match: {namespace: shop}, id: "/shop/{service_account}"}
- {attestor: green, match: {namespace: "*"}, id: "/{namespace}/{service_account}"}"#,
        "13:50: rules[1].id: one SPIFFE ID for what two attestors prove: /shop/orders for blue with {namespace: shop, \
         service_account: orders} (rules[0]) and for green with {namespace: shop, service_account: orders} (rules[1]); \
         let the templates differ, in a first segment of their own for example; write shared: true in both rules if \
         one is meant for both",
    ),
    (
        r#"- {attestor: aws, match: {role: "*"}, id: "/{account}/{role}", dns: ["{role}.internal"]}"#,
        "12:70: rules[0].dns[0]: one DNS name for two accounts: orders.internal for aws with {account: 111111111111, \
         partition: aws, role: orders} (rules[0]) and for aws with {account: 222222222222, partition: aws, role: \
         orders} (rules[0]); match one account, or put {account} into the template; write shared: true in the rule if \
         one is meant for both",
    ),
    (
        r#"- {attestor: join, match: {stage: canary}, id: "/{service}-canary"}
- {attestor: join, match: {service: "*"}, id: "/{service}"}"#,
        "13:47: rules[1].id: one SPIFFE ID for two workloads: /x-canary for join with {service: x, stage: canary} \
         (rules[0]) and for join with {service: x-canary} (rules[1]); let the templates differ in a segment, or exclude \
         one by what is matched of service; write shared: true in both rules if one is meant for both",
    ),
    (
        r#"- {attestor: aws, match: {account: "111111111111"}, id: "/{role}-{session}"}"#,
        "12:57: rules[0].id: expected the path of a SPIFFE ID such as /orders or /{role}, found \"/{role}-{session}\": \
         at most one {fact}, with its name in lower case, stands between slashes (or dots)",
    ),
];

/// Rules that the same check has nothing against.
const FINE: &[&str] = &[
    r#"- {attestor: aws, match: {account: "111111111111", role: "svc-*"}, id: "/{role}"}
- {attestor: blue, match: {namespace: "*"}, id: "/blue/{namespace}/{service_account}"}
- {attestor: green, match: {namespace: "*"}, id: "/green/{namespace}/{service_account}"}"#,
    r#"- {attestor: aws, match: {role: "*"}, id: "/aws/{account}/{role}", dns: ["{role}.{account}.internal"]}"#,
    r#"- {attestor: blue, match: {namespace: shop}, id: "/shop/{service_account}", shared: true}
- {attestor: green, match: {namespace: shop}, id: "/shop/{service_account}", shared: true}"#,
];

#[test]
fn s18_check_and_start_refuse_them_and_say_what_to_do() {
    for (rules, expected) in REFUSED {
        let sandbox = Sandbox::new();
        let dir = sandbox.path("").display().to_string();
        sandbox.write("a.yaml", format!("{HEAD}{rules}\n").replace("DIR/", &dir));
        let before = sandbox.content();
        for arguments in [
            ["check", "--config", "a.yaml"],
            ["authority", "--config", "a.yaml"],
        ] {
            let refused = sandbox.warifu(&arguments).run();
            assert_eq!(refused.code, Some(2), "{rules}\n{}", refused.stderr);
            let first = refused.stderr.lines().next().unwrap_or_default();
            assert_eq!(first, format!("a.yaml:{expected}"), "{rules}");
        }
        assert_eq!(sandbox.content(), before, "nothing was started or written");
    }
}

#[test]
fn facts_that_nobody_proves_or_that_callers_choose_are_refused() {
    for (rule, expected) in [
        (
            "- {attestor: aws, match: {acount: '111111111111'}, id: '/{account}/{role}'}",
            "12:35: rules[0].match.acount: this attestor proves no fact \"acount\", did you mean \"account\"? It proves: account, ",
        ),
        (
            "- {attestor: blue, match: {namespace: shop}, id: '/{pod_name}'}",
            "12:50: rules[0].id: this attestor proves no fact \"pod_name\"",
        ),
        (
            "- {attestor: aws, match: {account: '111111111111', namespace: a}, id: /a}",
            "12:63: rules[0].match.namespace: namespace is proved for roles of EKS Pod Identity only; list them in pod_identity_roles",
        ),
        (
            "- {attestor: aws, match: {account: '111111111111'}, id: '/{role}/{source_region}'}",
            "12:57: rules[0].id: {source_region} is chosen by whoever assumes the role",
        ),
        (
            "- {attestor: aws, match: {Role: a}, id: /a}",
            "12:33: rules[0].match.Role: \"Role\" is no fact; their names have lower-case letters",
        ),
    ] {
        let sandbox = Sandbox::new();
        let dir = sandbox.path("").display().to_string();
        sandbox.write("a.yaml", format!("{HEAD}{rule}\n").replace("DIR/", &dir));
        let refused = sandbox.warifu(&["check", "--config", "a.yaml"]).run();
        assert_eq!(refused.code, Some(2), "{rule}");
        let found = refused
            .stderr
            .lines()
            .any(|line| line.starts_with(&format!("a.yaml:{expected}")));
        assert!(found, "{expected}\n{}", refused.stderr);
    }
}

#[test]
fn rules_that_keep_scopes_apart_or_say_that_they_share_pass() {
    for rules in FINE {
        let sandbox = Sandbox::new();
        let dir = sandbox.path("").display().to_string();
        sandbox.write("a.yaml", format!("{HEAD}{rules}\n").replace("DIR/", &dir));
        let checked = sandbox.warifu(&["check", "--config", "a.yaml"]).run();
        assert_eq!(checked.code, Some(0), "{rules}\n{}", checked.stderr);
    }
}

#[test]
fn administrators_that_are_nobody_or_everybody_are_refused() {
    for (administrators, expected) in [
        (
            "- {attestor: join, match: {service: ops}, may: [rotate]}",
            "13:14: administrators[0].attestor: \"join\" takes join tokens, which administrators make",
        ),
        (
            "- {attestor: nobody, match: {service: ops}, may: [rotate]}",
            "13:14: administrators[0].attestor: there is no attestor \"nobody\"",
        ),
        (
            "- {attestor: aws, match: {role: '*'}, may: [rotate]}",
            "13:19: administrators[0].match: this is everybody whom the attestor admits",
        ),
        (
            "- {attestor: aws, match: {}, may: [rotate]}",
            "13:19: administrators[0].match: expected the facts of who may administer",
        ),
        (
            "- {attestor: aws, match: {role: ops}, may: []}",
            "13:39: administrators[0].may: expected what they may do",
        ),
        (
            "- {attestor: aws, match: {role: ops}, may: [everything]}",
            "13:45: administrators[0].may[0]:",
        ),
    ] {
        let sandbox = Sandbox::new();
        let dir = sandbox.path("").display().to_string();
        let text = format!("{HEAD}administrators:\n{administrators}\n").replace("rules:\n", "");
        let text = format!("{}\n", text.trim_end());
        sandbox.write(
            "a.yaml",
            format!("# administrators\n{text}").replace("DIR/", &dir),
        );
        let refused = sandbox.warifu(&["check", "--config", "a.yaml"]).run();
        assert_eq!(refused.code, Some(2), "{administrators}");
        let first = refused.stderr.lines().next().unwrap_or_default();
        assert!(
            first.starts_with(&format!("a.yaml:{expected}")),
            "{first}\n{expected}"
        );
    }
}
