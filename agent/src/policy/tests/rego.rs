//! Rego beside rules: they agree where both can say it, and what goes wrong refuses.

use std::{fmt::Write, time::Duration};

use proptest::prelude::*;

use super::{
    naive::{any_asked, any_rule},
    *,
};
use crate::http::headers::Filter;

const ORDERS: &str = "spiffe://example.org/orders";

/// What [`rules`] say, in Rego.
const POLICY: &str = r#"
package warifu

default allow := false

allow if {
    input.peer.spiffe_id == "spiffe://example.org/orders"
    input.request.method in {"GET", "POST"}
    input.request.segments[0] == "charges"
    not denied
}

allow if {
    "charges.read" in input.subject.scopes
    input.subject.claims.tenant_id in {"a", "b"}
    input.request.method == "GET"
    glob.match("/charges/*", ["/"], input.request.path)
    net.cidr_contains("10.0.0.0/8", input.request.source)
    not denied
}

denied if input.request.method == "DELETE"

denied if "beta" in input.request.headers["x-stage"]
"#;

fn rules() -> Policy {
    let tenant = Rule {
        subject: Some(SubjectMatch {
            scope: Some("charges.read".to_owned()),
            claims: [(
                "tenant_id".to_owned(),
                AnyOf(vec![
                    ClaimValue::Text("a".to_owned()),
                    ClaimValue::Text("b".to_owned()),
                ]),
            )]
            .into(),
            ..SubjectMatch::default()
        }),
        source: vec!["10.0.0.0/8".parse().unwrap()],
        to: vec![target("GET /charges/*")],
        ..Rule::default()
    };
    let to = [
        "GET /charges",
        "GET /charges/**",
        "POST /charges",
        "POST /charges/**",
    ];
    let deletes = Rule {
        to: vec![target("DELETE /**")],
        ..Rule::default()
    };
    let beta = Rule {
        headers: vec![("x-stage".parse().unwrap(), vec!["beta".to_owned()])],
        ..Rule::default()
    };
    Policy::new(&[allow(Some(ORDERS), None, &to), tenant], &[deletes, beta])
}

fn compiled(text: &str) -> Result<Rego, NoPolicy> {
    // Longer than by default: the machine that tests may be busy.
    within(text, Duration::from_secs(5))
}

fn within(text: &str, timeout: Duration) -> Result<Rego, NoPolicy> {
    let sources = vec![("/etc/policy.rego".to_owned(), text.to_owned())];
    let secret = http::HeaderName::from_static("x-custom-auth");
    let hidden = Filter::to_policy([&secret]);
    Rego::compile(sources, "data.warifu.allow", timeout, hidden)
}

fn only(text: &str) -> Policy {
    Policy::default().with_rego(compiled(text).unwrap_or_else(|why| panic!("{why}\n{text}")))
}

fn decides(policy: &Policy, asked: &Asked) -> Decision {
    let explained = policy.explain(&asked.caller, &asked.evidence, asked.request());
    explained.verdict.decision
}

fn orders() -> Asked {
    Asked::of(&caller(Some(ORDERS), None), "GET /a")
}

#[test]
fn rego_and_rules_agree_on_a_table_of_requests() {
    let (rules, rego) = (rules(), only(POLICY));
    let callers = [
        caller(Some(ORDERS), None),
        caller(Some("spiffe://example.org/other"), None),
        caller(None, Some(("user-1", &["charges.read", "openid"]))),
        caller(None, None),
    ];
    let requests = [
        "GET /charges",
        "POST /charges",
        "GET /charges/1",
        "DELETE /charges/1",
        "GET /",
        "PUT /charges/1",
    ];
    let (mut allowed, mut cases) = (0, 0);
    for who in &callers {
        for request in requests {
            for tenant in [json!("a"), json!("c"), json!(1)] {
                for source in [Some("10.1.2.3"), Some("192.0.2.1"), None] {
                    for stage in [None, Some("beta"), Some("live")] {
                        let mut asked = Asked::of(who, request);
                        if who.subject.is_some() {
                            let claims = &mut asked.evidence.claims;
                            claims.insert("tenant_id".to_owned(), tenant.clone());
                        }
                        asked.source = source.map(|it| it.parse().unwrap());
                        if let Some(stage) = stage {
                            asked.headers.insert("x-stage", stage.parse().unwrap());
                        }
                        let both = [&rules, &rego].map(|policy| decides(policy, &asked));
                        let [by_rules, by_rego] =
                            both.each_ref().map(|it| matches!(it, Decision::Allow(_)));
                        assert_eq!(by_rules, by_rego, "{asked:?}: {both:?}");
                        cases += 1;
                        allowed += usize::from(by_rules);
                    }
                }
            }
        }
    }
    assert!(
        allowed > 50 && cases - allowed > 200,
        "{allowed} of {cases}"
    );
}

/// Rules as they would be written in Rego.
fn in_rego(allow: &[Rule], deny: &[Rule]) -> String {
    let mut text = "package warifu\n\n\
        default allow := false\n\nallow if {\n\tallowed\n\tnot denied\n}\n\n\
        default allowed := false\n\ndefault denied := false\n\n\
        is_one(value, wanted) if {\n\tnot is_array(value)\n\tvalue in wanted\n}\n\n\
        is_one(value, wanted) if {\n\tis_array(value)\n\tsome one in value\n\tone in wanted\n}\n\n\
        in_one(ranges) if {\n\tsome range in ranges\n\tnet.cidr_contains(range, input.request.source)\n}\n\n\
        in_one_or_unknown(ranges) if in_one(ranges)\n\n\
        in_one_or_unknown(_) if not input.request.source\n"
        .to_owned();
    for (rules, denies) in [(allow, false), (deny, true)] {
        for rule in rules.iter().filter(|rule| !rule.shadow) {
            let head = if denies { "denied" } else { "allowed" };
            let parts = parts_in_rego(rule, denies).join("\n\t");
            write!(text, "\n{head} if {{\n\ttrue\n\t{parts}\n}}\n").unwrap();
        }
    }
    text
}

fn parts_in_rego(rule: &Rule, denies: bool) -> Vec<String> {
    let mut parts = Vec::new();
    let matches = |regex: String, what: &str| format!("regex.match(`{regex}`, {what})");
    if let Some(peer) = &rule.peer {
        parts.push(matches(id_regex(peer), "input.peer.spiffe_id"));
    }
    if let Some(subject) = &rule.subject {
        parts.push("input.subject".to_owned());
        if let Some(id) = &subject.spiffe_id {
            parts.push("input.subject.proof == \"jwt-svid\"".to_owned());
            parts.push(matches(id_regex(id), "input.subject.sub"));
        }
        parts.extend((subject.scope.iter()).map(|it| format!("{it:?} in input.subject.scopes")));
        parts.extend((subject.issuer.iter()).map(|it| format!("input.subject.issuer == {it:?}")));
        if let Some(role) = &subject.role {
            let regex = format!("^{}$", role.to_string().replace('*', ".*"));
            parts.push(matches(regex, "input.subject.role"));
        }
        for (name, wanted) in &subject.claims {
            let wanted: Vec<String> = (wanted.0.iter())
                .map(|value| match value {
                    ClaimValue::Text(text) => format!("{text:?}"),
                    ClaimValue::Bool(value) => value.to_string(),
                    ClaimValue::Integer(value) => value.to_string(),
                    ClaimValue::Fraction(_) => unreachable!(),
                })
                .collect();
            let wanted = wanted.join(", ");
            parts.push(format!("is_one(input.subject.claims.{name}, {{{wanted}}})"));
        }
    }
    for (name, values) in &rule.headers {
        let lines = format!("input.request.headers[{:?}]", name.as_str());
        let wanted: Vec<String> = values.iter().map(|value| format!("{value:?}")).collect();
        let wanted = wanted.join(", ");
        parts.push(match denies {
            true => format!("is_one({lines}, {{{wanted}}})"),
            false => format!("every line in {lines} {{ line in {{{wanted}}} }}"),
        });
    }
    if !rule.source.is_empty() {
        let ranges: Vec<String> = (rule.source.iter()).map(|it| format!("\"{it}\"")).collect();
        let within = if denies {
            "in_one_or_unknown"
        } else {
            "in_one"
        };
        parts.push(format!("{within}([{}])", ranges.join(", ")));
    }
    if rule.when.is_some() {
        parts.push("input.request.unix_time >= 1".to_owned());
    }
    if !(denies && rule.to.is_empty()) {
        let targets: Vec<String> = (rule.to.iter())
            .map(|target| {
                let method = target.method.as_deref().unwrap_or("[A-Z]+");
                let rest = target.segments.last() == Some(&Segment::Rest);
                let end = match (target.trailing_slash, rest) {
                    (true, _) => "/",
                    (false, true) => "/?",
                    (false, false) => "",
                };
                format!("^{method} {}{end}$", segments_regex(&target.segments))
            })
            .collect();
        // Of no target, none fits.
        let regex = match targets.is_empty() {
            true => "^never$".to_owned(),
            false => targets.join("|"),
        };
        let asked = "concat(\" \", [input.request.method, input.request.path])";
        parts.push(matches(regex, asked));
    }
    parts
}

fn id_regex(pattern: &IdPattern) -> String {
    let path = segments_regex(&pattern.segments);
    format!("^spiffe://{}{path}$", pattern.trust_domain)
}

fn segments_regex(segments: &[Segment]) -> String {
    let of = |segment: &Segment| match segment {
        Segment::Literal(text) => format!("/{text}"),
        Segment::One => "/[^/]+".to_owned(),
        Segment::Rest => "(/[^/]+)+".to_owned(),
    };
    segments.iter().map(of).collect()
}

proptest! {
    // Each compiles a policy and runs it on a thread.
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn s16_rules_decide_as_the_same_rules_in_rego_do(
        allow in proptest::collection::vec(any_rule(), 0..5),
        deny in proptest::collection::vec(any_rule(), 0..2),
        asked in proptest::collection::vec(any_asked(), 1..8),
    ) {
        let rules = Policy::new(&allow, &deny);
        let text = in_rego(&allow, &deny);
        let rego = only(&text);
        for asked in &asked {
            let both = [&rules, &rego].map(|policy| decides(policy, asked));
            let [by_rules, by_rego] = both.each_ref().map(|it| matches!(it, Decision::Allow(_)));
            prop_assert_eq!(by_rules, by_rego, "{:?}: {:?}\n{}", asked, both, text);
        }
    }
}

fn said(policy: &Policy, asked: &Asked) -> String {
    match decides(policy, asked) {
        Decision::Allow(rule) => format!("allow {rule}"),
        Decision::Deny(Reason::Rule(rule)) => format!("deny {rule}"),
        Decision::Deny(Reason::Undecided(rule, why)) => format!("{rule} {}", why.as_str()),
        Decision::Deny(reason) => reason.as_str().to_owned(),
    }
}

#[test]
fn s16_a_rule_that_denies_wins_over_rego_and_rego_is_asked_where_no_rule_decides() {
    let yes = || compiled("package warifu\nallow := true\n").unwrap();
    let no = || compiled("package warifu\nallow := false\n").unwrap();
    let all = [allow(Some(ORDERS), None, &["GET /**"])];
    let deny = [Rule {
        to: vec![target("GET /**")],
        ..Rule::default()
    }];
    let asked = orders();
    let of = |allow: &[Rule], deny: &[Rule], rego| {
        said(&Policy::new(allow, deny).with_rego(rego), &asked)
    };
    assert_eq!(of(&[], &[], yes()), "allow data.warifu.allow");
    assert_eq!(of(&[], &[], no()), "not_allowed_by_rego");
    assert_eq!(of(&all, &[], yes()), "allow allow[0]");
    assert_eq!(of(&all, &[], no()), "allow allow[0]");
    assert_eq!(of(&[], &deny, yes()), "deny deny[0]");
    assert_eq!(of(&all, &deny, yes()), "deny deny[0]");
    // Who proved nothing is not asked about.
    let nobody = Asked::of(&caller(None, None), "GET /a");
    let policy = Policy::default().with_rego(yes());
    assert_eq!(said(&policy, &nobody), "no_rule_for_caller");
}

#[test]
fn a_rule_in_shadow_says_what_it_would_have_done_where_rego_decides() {
    let shadow = |to| Rule {
        to: vec![target(to)],
        peer: Some(id(ORDERS)),
        shadow: true,
        ..Rule::default()
    };
    let shadowed = |text: &str| {
        let policy = Policy::new(&[shadow("GET /a")], &[shadow("* /**")]);
        let policy = policy.with_rego(compiled(text).unwrap());
        let asked = orders();
        let explained = policy.explain(&asked.caller, &asked.evidence, asked.request());
        explained.verdict.shadow.map(|rule| rule.to_string())
    };
    let denies = shadowed("package warifu\nallow := true\n");
    assert_eq!(denies.as_deref(), Some("deny[0]"));
    let allows = shadowed("package warifu\nallow := false\n");
    assert_eq!(allows.as_deref(), Some("allow[0]"));
}

#[test]
fn s16_what_is_undefined_wrong_or_no_answer_in_a_policy_refuses() {
    let asked = orders();
    for (why, text) in [
        ("not_allowed_by_rego", "allow if input.nothing.like.this"),
        ("not_allowed_by_rego", "allow if input.subject"),
        (
            "not_allowed_by_rego",
            "default allow := false\nallow if input.subject.claims.admin",
        ),
        ("data.warifu.allow failed", "allow := \"yes\""),
        ("data.warifu.allow failed", "allow := 1"),
        ("data.warifu.allow failed", "allow := [true]"),
        ("data.warifu.allow failed", "allow contains true"),
        (
            "data.warifu.allow failed",
            "allow if to_number(input.request.path) > 0",
        ),
        // What is wrong is not taken for what is not so.
        (
            "data.warifu.allow failed",
            "allow if not to_number(input.request.path) > 0",
        ),
        (
            "data.warifu.allow failed",
            "allow if not denied\ndenied if to_number(input.request.path) > 0",
        ),
        (
            "data.warifu.allow failed",
            "allow if not denied(1)\ndenied(_) if to_number(input.request.path) > 0",
        ),
        (
            "data.warifu.allow failed",
            "allow := true if input.peer\nallow := false if input.request",
        ),
        (
            "data.warifu.allow failed",
            "allow if not level\nlevel := 1 if input.peer\nlevel := 2 if input.request",
        ),
    ] {
        assert_eq!(
            said(&only(&format!("package warifu\n{text}\n")), &asked),
            why,
            "{text}"
        );
    }
}

/// Thirty to the sixth steps.
const ENDLESS: &str = "package warifu\n
    l := [0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29]\n
    allow if not slow(1)\n
    slow(_) if {\nsome a in l\nsome b in l\nsome c in l\nsome d in l\nsome e in l\nsome f in l\na + b + c + d + e + f < 0\n}\n";

#[test]
fn s16_a_policy_without_an_end_refuses_within_its_time() {
    let rego = within(ENDLESS, Duration::from_millis(50)).unwrap();
    let began = std::time::Instant::now();
    let policy = Policy::default().with_rego(rego);
    assert_eq!(said(&policy, &orders()), "data.warifu.allow late");
    assert!(
        began.elapsed() < Duration::from_secs(2),
        "{:?}",
        began.elapsed()
    );
}

#[test]
fn s14_a_request_too_large_to_be_asked_about_is_refused() {
    let mut asked = orders();
    let long = "x".repeat(300 << 10);
    asked.headers.insert("x-long", long.parse().unwrap());
    let policy = only("package warifu\nallow := true\n");
    assert_eq!(said(&policy, &asked), "data.warifu.allow too_large");
}

#[test]
fn what_is_no_policy_is_refused_with_its_place() {
    for (text, expected) in [
        ("allow if {\n", "/etc/policy.rego:3:1: expecting expression"),
        (
            "allow { true }\n",
            "/etc/policy.rego:2:7: `if` keyword is required",
        ),
        (
            "allow if nobody == 1\n",
            "data.warifu.allow: /etc/policy.rego:2:10: use of undefined variable `nobody`",
        ),
        (
            "allow if no_such_function(1)\n",
            "/etc/policy.rego:2:10: Unknown function: 'no_such_function'",
        ),
        (
            "permit := true\n",
            "data.warifu.allow: not a valid rule path",
        ),
    ] {
        let error = compiled(&format!("package warifu\n{text}")).unwrap_err();
        assert!(error.to_string().contains(expected), "{text}: {error}");
    }
}

#[test]
fn a_policy_reaches_nothing() {
    for call in [
        "http.send({\"method\": \"get\", \"url\": \"http://127.0.0.1/\"})",
        "net.lookup_ip_addr(\"example.org\")",
        "opa.runtime().env.HOME",
        "time.now_ns() > 0",
        "uuid.rfc4122(\"\")",
        "io.jwt.decode(input.request.path)",
        "test.sleep(\"1s\")",
        "rego.parse_module(\"a\", \"b\")",
    ] {
        let (name, _) = call.split_once('(').unwrap();
        let error = compiled(&format!("package warifu\nallow if {call}\n")).unwrap_err();
        let error = error.to_string();
        assert!(error.starts_with("/etc/policy.rego:2:"), "{call}: {error}");
        let expected = format!(": Unknown function: '{name}'");
        assert!(error.contains(&expected), "{call}: {error}");
    }
    for (call, why) in [
        ("rand.intn(\"a\", 2) == 1", "another answer each time"),
        ("print(input)", "past the log"),
    ] {
        let text = format!("package warifu\n# not print, not rand.intn\nallow if {call}\n");
        let error = compiled(&text).unwrap_err().to_string();
        assert!(error.starts_with("/etc/policy.rego:3: "), "{call}: {error}");
        assert!(error.contains(why), "{call}: {error}");
    }
}

#[test]
fn s14_a_policy_that_could_take_all_memory_or_stack_is_refused() {
    for (text, expected) in [
        (
            "allow if count(numbers.range(0, to_number(input.request.headers.n[0]))) > 0\n",
            "/etc/policy.rego:2: numbers.range is not for policies",
        ),
        ("allow if bits.lsh(1, 1000000) > 0\n", "bits.lsh is not"),
        (
            "allow if net.cidr_expand(\"10.0.0.0/8\")\n",
            "net.cidr_expand is not",
        ),
        (
            "allow if f(3)\nf(x) if f(x - 1)\n",
            "data.warifu.f builds on itself",
        ),
        (
            "allow if f(3)\nf(x) if not g(x)\ng(x) if count([f(y) | y := x]) > 0\n",
            "builds on itself",
        ),
        (
            "allow if a\nallow if b(1)\na if b(1)\nb(x) if c(x)\nc(x) if b(x)\n",
            "builds on itself",
        ),
        ("allow if a\na if not allow\n", "builds on itself"),
        (
            "allow if data.warifu[input.request.method]\nGET if allow\n",
            "ecursion",
        ),
    ] {
        let error = compiled(&format!("package warifu\n{text}")).unwrap_err();
        assert!(error.to_string().contains(expected), "{text}: {error}");
    }
}

/// Functions so deep on one another, each as deep in expressions as Rego allows.
fn deep(levels: usize) -> String {
    let mut text = "package warifu\nallow if f0(1)\n".to_owned();
    for level in 0..levels {
        let mut body = format!("f{}(x)", level + 1);
        for _ in 0..9 {
            body = format!("count([1 | every y in [1] {{ {body} }} ]) > 0");
        }
        writeln!(text, "f{level}(x) if {body}").unwrap();
    }
    text + &format!("f{levels}(x) if true\n")
}

#[test]
fn s17_the_deepest_policy_that_is_taken_has_the_stack_it_needs() {
    assert_eq!(said(&only(&deep(31)), &orders()), "allow data.warifu.allow");
    let error = compiled(&deep(32)).unwrap_err().to_string();
    assert!(error.contains("more than 32 deep"), "{error}");
}

#[test]
fn s12_a_policy_does_not_see_credentials_nor_what_only_seems_to_say_who_calls() {
    let mut asked = orders();
    for name in [
        "authorization",
        "cookie",
        "proxy-authorization",
        "x-custom-auth",
        "x_custom_auth",
        "x-forwarded-client-cert",
        "client-cert",
        "x-amzn-oidc-data",
        "x-warifu-caller",
        "x-forwarded-for",
        "forwarded",
        "x-tenant",
    ] {
        let name: http::HeaderName = name.parse().unwrap();
        asked.headers.append(&name, "first".parse().unwrap());
        asked
            .headers
            .append(&name, http::HeaderValue::from_bytes(b"sec\xffond").unwrap());
    }
    let policy = only(
        "package warifu\nallow if object.keys(input.request.headers) == {\"x-tenant\"}\n\
         allow if false\n",
    );
    assert_eq!(said(&policy, &asked), "allow data.warifu.allow");
    // Every line is seen, also one that is no text.
    let policy = only(
        "package warifu\nallow if {\ncount(input.request.headers[\"x-tenant\"]) == 2\n\
         startswith(input.request.headers[\"x-tenant\"][1], \"sec\")\n}\n",
    );
    assert_eq!(said(&policy, &asked), "allow data.warifu.allow");
}

#[test]
fn the_input_says_what_was_proved_and_what_is_asked_and_nothing_that_is_not_known() {
    let mut asked = Asked::of(
        &caller(Some(ORDERS), Some(("user-1", &["a", "b"]))),
        "POST /charges/1",
    );
    asked.evidence.accept = Some("cognito".to_owned());
    asked.evidence.role = Some("123456789012:role/batch".to_owned());
    asked
        .evidence
        .claims
        .insert("tenant".to_owned(), json!({"id": 7}));
    asked.source = Some("::ffff:10.1.2.3".parse().unwrap());
    asked.headers.append("x-a", "1".parse().unwrap());
    let is = |part: &str, value: Value, asked: &Asked| {
        let policy = only(&format!(
            "package warifu\nallow if input.{part} == {value}\n"
        ));
        assert_eq!(said(&policy, asked), "allow data.warifu.allow", "{part}");
    };
    is("peer", json!({"spiffe_id": ORDERS}), &asked);
    let subject = json!({
        "proof": "jwt-svid", "sub": "user-1", "issuer": "cognito", "role": "123456789012:role/batch",
        "scopes": ["a", "b"], "claims": {"tenant": {"id": 7}},
    });
    is("subject", subject, &asked);
    let request = json!({
        "method": "POST", "path": "/charges/1", "segments": ["charges", "1"], "headers": {"x-a": ["1"]},
        "source": "10.1.2.3", "time": "1970-01-01T00:00:00.000Z", "unix_time": 0,
    });
    is("request", request, &asked);
    // `null` would be something: a policy that asks whether there is a subject would hear that there is one.
    let mut asked = orders();
    asked.source = None;
    for absent in ["subject", "request.source", "request.host"] {
        let policy = only(&format!("package warifu\nallow if not input.{absent}\n"));
        assert_eq!(said(&policy, &asked), "allow data.warifu.allow", "{absent}");
    }
}
