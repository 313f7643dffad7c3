use std::collections::BTreeMap;

use serde_json::json;
use warifu::{
    SpiffeId,
    caller::{Peer, Subject},
};

use super::*;
use crate::config::{
    inbound::{Rule, SubjectMatch},
    value::{AnyOf, ClaimValue, IdPattern, Segment, Target},
};

mod naive;
#[cfg(feature = "rego")]
mod rego;

fn segments(path: &str) -> Vec<Segment> {
    path.split('/')
        .filter(|segment| !segment.is_empty())
        .map(|segment| match segment {
            "*" => Segment::One,
            "**" => Segment::Rest,
            text => Segment::Literal(text.to_owned()),
        })
        .collect()
}

fn id(pattern: &str) -> IdPattern {
    let id = pattern.strip_prefix("spiffe://").unwrap();
    let (domain, path) = id.split_at(id.find('/').unwrap_or(id.len()));
    IdPattern {
        trust_domain: domain.to_owned(),
        segments: segments(path),
    }
}

fn target(text: &str) -> Target {
    let (method, path) = text.split_once(' ').unwrap();
    Target {
        method: (method != "*").then(|| method.to_owned()),
        segments: segments(path),
        trailing_slash: path.ends_with('/'),
    }
}

fn allow(peer: Option<&str>, subject: Option<(Option<&str>, Option<&str>)>, to: &[&str]) -> Rule {
    Rule {
        peer: peer.map(id),
        subject: subject.map(|(spiffe_id, scope)| SubjectMatch {
            spiffe_id: spiffe_id.map(id),
            scope: scope.map(str::to_owned),
            ..SubjectMatch::default()
        }),
        to: to.iter().map(|text| target(text)).collect(),
        ..Rule::default()
    }
}

fn caller(peer: Option<&str>, subject: Option<(&str, &[&str])>) -> Caller {
    Caller {
        peer: peer.map(|id| Peer {
            spiffe_id: SpiffeId::new(id).unwrap(),
            cert_sha256: String::new(),
        }),
        subject: subject.map(|(id, scopes)| Subject {
            proof: PROOF_JWT_SVID.to_owned(),
            subject: id.to_owned(),
            issuer: None,
            scopes: scopes.iter().map(|&scope| scope.to_owned()).collect(),
            claims: BTreeMap::new(),
        }),
    }
}

fn decide(rules: &[Rule], caller: &Caller, request: &str) -> Decision {
    Asked::of(caller, request)
        .verdict(&Policy::new(rules, &[]))
        .decision
}

/// A request with nothing special about it, until it is given something.
#[derive(Debug, Clone)]
struct Asked {
    caller: Caller,
    evidence: Evidence,
    method: Method,
    path: String,
    headers: HeaderMap,
    source: Option<IpAddr>,
    now: SystemTime,
}

impl Asked {
    fn of(caller: &Caller, request: &str) -> Self {
        let (method, path) = request.split_once(' ').unwrap();
        Self {
            caller: caller.clone(),
            evidence: Evidence::default(),
            method: Method::from_bytes(method.as_bytes()).unwrap(),
            path: path.to_owned(),
            headers: HeaderMap::new(),
            source: Some([192, 0, 2, 7].into()),
            now: SystemTime::UNIX_EPOCH,
        }
    }

    fn request(&self) -> Request<'_> {
        Request {
            method: &self.method,
            path: &self.path,
            host: None,
            headers: &self.headers,
            source: self.source,
            now: self.now,
        }
    }

    fn verdict(&self, policy: &Policy) -> Verdict {
        policy.decide(&self.caller, &self.evidence, self.request())
    }

    /// The rule that allows it, or the reason why none does.
    fn said(&self, allow: &[Rule], deny: &[Rule]) -> String {
        let verdict = self.verdict(&Policy::new(allow, deny));
        match verdict.decision {
            Decision::Allow(rule) | Decision::Deny(Reason::Rule(rule)) => rule.to_string(),
            Decision::Deny(reason) => reason.as_str().to_owned(),
        }
    }
}

/// Allowed by the rule at this place.
fn allowed(place: usize) -> Decision {
    Decision::Allow(RuleName(format!("allow[{place}]").into()))
}

const ORDERS: &str = "spiffe://example.org/orders";

#[test]
fn s16_without_rules_everything_is_denied() {
    let deny = Decision::Deny(Reason::NoRuleForCaller);
    assert_eq!(decide(&[], &caller(Some(ORDERS), None), "GET /"), deny);
    assert_eq!(
        decide(&[], &caller(None, Some((ORDERS, &["read"]))), "GET /"),
        deny
    );
    // Neither rules without a target nor targets no request can have allow anything.
    let rules = [allow(None, None, &[]), allow(None, None, &["G@T /"])];
    assert!(matches!(
        decide(&rules, &caller(Some(ORDERS), None), "GET /"),
        Decision::Deny(_)
    ));
}

#[test]
fn s16_a_caller_who_proved_nothing_is_denied_by_every_rule() {
    let rules = [
        allow(None, None, &["* /**", "* /"]),
        allow(None, Some((None, None)), &["* /**"]),
    ];
    let nobody = caller(None, None);
    assert_eq!(
        decide(&rules, &nobody, "GET /a"),
        Decision::Deny(Reason::NoRuleForCaller)
    );
    assert_eq!(
        decide(&rules, &caller(Some(ORDERS), None), "GET /a"),
        allowed(0)
    );
}

#[test]
fn s16_what_no_rule_allows_is_denied_and_says_why() {
    let rules = [
        allow(Some(ORDERS), None, &["POST /charges", "GET /charges/*"]),
        allow(
            Some("spiffe://example.org/batch/*"),
            None,
            &["GET /reports/**"],
        ),
    ];
    let orders = caller(Some(ORDERS), None);
    let batch = caller(Some("spiffe://example.org/batch/7"), None);
    let other = Decision::Deny(Reason::NoRuleForCaller);
    let refused = Decision::Deny(Reason::NoRuleForRequest);
    let request = || refused.clone();
    for (caller, asked, decision) in [
        (&orders, "POST /charges", allowed(0)),
        (&orders, "GET /charges/1", allowed(0)),
        (&orders, "GET /charges", request()),
        (&orders, "DELETE /charges/1", request()),
        (&orders, "post /charges", request()),
        (&orders, "POST /charges/", request()),
        (&orders, "POST /Charges", request()),
        (&orders, "GET /charges/1/2", request()),
        (&orders, "GET /charges/", request()),
        (&orders, "GET /reports/1", request()),
        (&batch, "GET /reports/1", allowed(1)),
        (&batch, "GET /reports/1/2/3/", allowed(1)),
        (&batch, "GET /reports", request()),
        (&batch, "GET /reports/", request()),
        (&batch, "GET /", request()),
    ] {
        assert_eq!(decide(&rules, caller, asked), decision, "{asked}");
    }
    for stranger in [
        "spiffe://example.org/order",
        "spiffe://example.org/orders/x",
        "spiffe://example.org/Orders",
        "spiffe://example.com/orders",
        "spiffe://example.org",
        "spiffe://example.org/batch",
        "spiffe://example.org/batch/7/8",
    ] {
        assert_eq!(
            decide(&rules, &caller(Some(stranger), None), "POST /charges"),
            other,
            "{stranger}"
        );
    }
}

#[test]
fn s16_every_part_of_a_rule_must_hold() {
    let jwt = "spiffe://example.org/web";
    let rules = [allow(
        Some(ORDERS),
        Some((Some(jwt), Some("charges.write"))),
        &["POST /charges"],
    )];
    let asked = "POST /charges";
    let held: &[&str] = &["charges.read", "charges.write"];
    assert_eq!(
        decide(&rules, &caller(Some(ORDERS), Some((jwt, held))), asked),
        allowed(0)
    );
    for lacking in [
        caller(Some(ORDERS), None),
        caller(None, Some((jwt, held))),
        caller(Some(jwt), Some((ORDERS, held))),
        caller(Some(ORDERS), Some((jwt, &["charges.read"]))),
        caller(Some(ORDERS), Some((jwt, &["charges.write.not"]))),
        caller(Some(ORDERS), Some(("spiffe://example.org/we", held))),
    ] {
        assert!(
            matches!(decide(&rules, &lacking, asked), Decision::Deny(_)),
            "{lacking:?}"
        );
    }
}

#[test]
fn s16_a_subject_is_a_spiffe_id_only_when_a_jwt_svid_proved_it() {
    let rules = [
        allow(None, Some((Some(ORDERS), None)), &["GET /a"]),
        allow(None, Some((None, Some("read"))), &["GET /b"]),
    ];
    let mut caller = caller(None, Some((ORDERS, &["read"])));
    assert_eq!(decide(&rules, &caller, "GET /a"), allowed(0));
    assert_eq!(decide(&rules, &caller, "GET /b"), allowed(1));
    caller.subject.as_mut().unwrap().proof = "cognito-access".to_owned();
    assert!(matches!(
        decide(&rules, &caller, "GET /a"),
        Decision::Deny(_)
    ));
    assert_eq!(decide(&rules, &caller, "GET /b"), allowed(1));
}

#[test]
fn the_first_rule_of_the_file_that_allows_is_named() {
    let rules = [
        allow(None, None, &["GET /none"]),
        allow(Some("spiffe://example.org/**"), None, &["* /**"]),
        allow(Some(ORDERS), None, &["GET /a"]),
        allow(Some("spiffe://example.org/*"), None, &["GET /*"]),
    ];
    assert_eq!(
        decide(&rules, &caller(Some(ORDERS), None), "GET /a"),
        allowed(1)
    );
    assert_eq!(
        decide(&rules[2..], &caller(Some(ORDERS), None), "GET /a"),
        allowed(0)
    );
}

#[test]
fn the_root_is_a_path_of_its_own() {
    let rules = [allow(Some(ORDERS), None, &["GET /"])];
    let orders = caller(Some(ORDERS), None);
    assert_eq!(decide(&rules, &orders, "GET /"), allowed(0));
    assert!(matches!(
        decide(&rules, &orders, "GET /a"),
        Decision::Deny(_)
    ));
    let rules = [allow(Some(ORDERS), None, &["GET /*", "GET /**"])];
    assert!(matches!(
        decide(&rules, &orders, "GET /"),
        Decision::Deny(_)
    ));
}

/// A caller whose token says so much.
fn web(claims: Value) -> Asked {
    let caller = caller(None, Some((ORDERS, &["charges.read"])));
    let mut asked = Asked::of(&caller, "GET /a");
    asked.evidence.claims = claims.as_object().unwrap().clone();
    asked.evidence.accept = Some("cognito".to_owned());
    asked
}

/// A rule about a subject, for any path of one segment.
fn subject(of: impl FnOnce(&mut SubjectMatch)) -> Rule {
    let mut subject = SubjectMatch::default();
    of(&mut subject);
    Rule {
        subject: Some(subject),
        to: vec![target("* /*")],
        ..Rule::default()
    }
}

fn claim(name: &str, wanted: &[ClaimValue]) -> Rule {
    subject(|it| {
        it.claims.insert(name.to_owned(), AnyOf(wanted.to_vec()));
    })
}

fn text(text: &str) -> ClaimValue {
    ClaimValue::Text(text.to_owned())
}

#[test]
fn a_claim_must_be_one_of_the_values_wanted_or_contain_one() {
    let tenant = [claim("tenant_id", &[text("a"), text("b")])];
    let admin = [claim("admin", &[ClaimValue::Bool(true)])];
    let level = [claim("level", &[ClaimValue::Integer(3)])];
    for (rules, claims, holds) in [
        (&tenant, json!({"tenant_id": "b"}), true),
        (&tenant, json!({"tenant_id": ["x", "a"]}), true),
        (&tenant, json!({"tenant_id": "c"}), false),
        (&tenant, json!({"tenant_id": "a b"}), false),
        (&tenant, json!({"tenant_id": []}), false),
        (&tenant, json!({"tenant_id": [["a"]]}), false),
        (&tenant, json!({"tenant_id": {"a": "a"}}), false),
        (&tenant, json!({"tenant": "a"}), false),
        (&admin, json!({"admin": true}), true),
        (&admin, json!({"admin": "true"}), false),
        (&admin, json!({"admin": 1}), false),
        (&level, json!({"level": 3}), true),
        (&level, json!({"level": 3.0}), true),
        (&level, json!({"level": "3"}), false),
        (&level, json!({"level": [1, 2, 3]}), true),
        (&level, json!({"level": null}), false),
    ] {
        let said = web(claims.clone()).said(rules, &[]);
        assert_eq!(said == "allow[0]", holds, "{claims} {said}");
    }
}

#[test]
fn a_rule_may_ask_which_entry_of_accept_proved_the_subject() {
    let of = |issuer: &str| [subject(|it| it.issuer = Some(issuer.to_owned()))];
    let mut asked = web(json!({}));
    assert_eq!(asked.said(&of("cognito"), &[]), "allow[0]");
    assert_eq!(asked.said(&of("other"), &[]), "no_rule_for_caller");
    asked.evidence.accept = None;
    assert_eq!(asked.said(&of("cognito"), &[]), "no_rule_for_caller");
}

#[test]
fn a_role_is_matched_by_account_and_by_its_name_with_stars() {
    let of = |role: &str| [subject(|it| it.role = Some(role.parse().unwrap()))];
    let mut asked = web(json!({}));
    for (proved, rule, holds) in [
        ("123456789012:role/batch", "123456789012:role/batch", true),
        (
            "123456789012:role/batch-7",
            "123456789012:role/batch-*",
            true,
        ),
        (
            "123456789012:role/a-batch",
            "123456789012:role/*-batch",
            true,
        ),
        (
            "123456789012:role/batch-7",
            "123456789012:role/batch",
            false,
        ),
        (
            "123456789012:role/batch",
            "123456789012:role/batch-*",
            false,
        ),
        ("210987654321:role/batch", "123456789012:role/batch", false),
        ("210987654321:role/batch", "123456789012:role/*", false),
    ] {
        asked.evidence.role = Some(proved.to_owned());
        let said = asked.said(&of(rule), &[]);
        assert_eq!(said == "allow[0]", holds, "{proved} {rule}");
    }
    asked.evidence.role = None;
    let said = asked.said(&of("123456789012:role/*"), &[]);
    assert_eq!(said, "no_rule_for_caller");
}

/// As `allow`, for orders and everything.
fn orders_may(change: impl FnOnce(&mut Rule)) -> Rule {
    let mut rule = allow(Some(ORDERS), None, &["* /", "* /**"]);
    change(&mut rule);
    rule
}

#[test]
fn a_deny_wins_wherever_it_stands_and_says_which() {
    let all = orders_may(|_| {});
    let none = Rule::default();
    let admin = Rule {
        name: Some("nobody-deletes".to_owned()),
        to: vec![target("DELETE /**")],
        ..Rule::default()
    };
    let caller = caller(Some(ORDERS), None);
    let get = Asked::of(&caller, "GET /charges");
    let delete = Asked::of(&caller, "DELETE /charges");
    let allow = [all];
    assert_eq!(get.said(&allow, &[]), "allow[0]");
    assert_eq!(get.said(&allow, std::slice::from_ref(&admin)), "allow[0]");
    assert_eq!(
        delete.said(&allow, std::slice::from_ref(&admin)),
        "nobody-deletes"
    );
    // Without targets it is about everything, `/` too.
    let root = Asked::of(&caller, "GET /");
    for asked in [&get, &delete, &root] {
        assert_eq!(asked.said(&allow, std::slice::from_ref(&none)), "deny[0]");
    }
    assert_eq!(delete.said(&allow, &[admin, none]), "nobody-deletes");
}

#[test]
fn s16_a_source_that_is_not_known_allows_nothing_and_denies() {
    let of = |ranges: &[&str]| -> Vec<_> { ranges.iter().map(|it| it.parse().unwrap()).collect() };
    let inside = [orders_may(|it| {
        it.source = of(&["10.0.0.0/8", "2001:db8::/32"])
    })];
    let outside = [orders_may(|it| it.source = of(&["203.0.113.0/24"]))];
    let any = [orders_may(|_| {})];
    let mut asked = Asked::of(&caller(Some(ORDERS), None), "GET /a");
    for (source, allows, denies) in [
        (Some("10.9.8.7"), true, false),
        (Some("::ffff:10.9.8.7"), true, false),
        (Some("2001:db8::5"), true, false),
        (Some("203.0.113.9"), false, true),
        (Some("::ffff:203.0.113.9"), false, true),
        (Some("192.0.2.1"), false, false),
        (None, false, true),
    ] {
        asked.source = source.map(|it| it.parse().unwrap());
        assert_eq!(asked.said(&inside, &[]) == "allow[0]", allows, "{source:?}");
        assert_eq!(
            asked.said(&any, &outside) == "deny[0]",
            denies,
            "{source:?}"
        );
    }
}

#[test]
fn every_line_of_a_header_must_be_wanted_to_allow_and_one_is_enough_to_deny() {
    let of = |rule: &mut Rule| {
        let name = http::HeaderName::from_static("x-tenant");
        rule.headers
            .push((name, vec!["acme".to_owned(), "umbrella".to_owned()]));
    };
    let tenant = [orders_may(of)];
    let any = [orders_may(|_| {})];
    for (lines, allows, denies) in [
        (&["acme"][..], true, true),
        (&["acme", "umbrella"], true, true),
        (&["acme", "evil"], false, true),
        (&["evil"], false, false),
        (&["Acme"], false, false),
        (&["acme, evil"], false, false),
        (&[], false, false),
    ] {
        let mut asked = Asked::of(&caller(Some(ORDERS), None), "GET /a");
        for line in lines {
            asked.headers.append("x-tenant", line.parse().unwrap());
        }
        assert_eq!(asked.said(&tenant, &[]) == "allow[0]", allows, "{lines:?}");
        assert_eq!(asked.said(&any, &tenant) == "deny[0]", denies, "{lines:?}");
    }
}

#[test]
fn a_rule_in_shadow_decides_nothing_and_says_what_it_would_have() {
    let shadow = |rule: &Rule| Rule {
        shadow: true,
        ..rule.clone()
    };
    let all = orders_may(|_| {});
    let deletes = Rule {
        name: Some("no-deletes".to_owned()),
        to: vec![target("DELETE /**")],
        ..Rule::default()
    };
    let orders = caller(Some(ORDERS), None);
    let (get, delete) = (
        Asked::of(&orders, "GET /a"),
        Asked::of(&orders, "DELETE /a"),
    );
    let verdict = |asked: &Asked, allow: &[Rule], deny: &[Rule]| {
        let verdict = asked.verdict(&Policy::new(allow, deny));
        let allowed = matches!(verdict.decision, Decision::Allow(_));
        (allowed, verdict.shadow.map(|rule| rule.to_string()))
    };
    let (allow, deny) = ([all.clone()], [shadow(&deletes)]);
    assert_eq!(verdict(&get, &allow, &deny), (true, None));
    let would_deny = Some("no-deletes".to_owned());
    assert_eq!(verdict(&delete, &allow, &deny), (true, would_deny));
    // Places are those of the file, whatever is in shadow.
    let allow = [shadow(&deletes), shadow(&all)];
    let would_allow = Some("allow[1]".to_owned());
    assert_eq!(verdict(&get, &allow, &[]), (false, would_allow));
    // Where a rule denies, an allow in shadow would have changed nothing.
    assert_eq!(verdict(&delete, &allow, &[deletes]), (false, None));
}

#[test]
fn an_explanation_says_of_every_rule_what_it_lacks_the_nearest_first() {
    let rules = [
        allow(Some("spiffe://example.org/web"), None, &["GET /other"]),
        Rule {
            name: Some("reads".to_owned()),
            ..allow(Some(ORDERS), None, &["GET /charges/*"])
        },
    ];
    let policy = Policy::new(&rules, &[]);
    let explain = |request: &str| {
        let asked = Asked::of(&caller(Some(ORDERS), None), request);
        policy.explain(&asked.caller, &asked.evidence, asked.request())
    };
    let explanation = explain("POST /charges/1");
    let nearest = &explanation.rules[0];
    assert_eq!(nearest.rule, "reads");
    assert_eq!(
        nearest.misses,
        ["to: POST /charges/1 is not GET /charges/*"]
    );
    assert_eq!(
        explanation.rules[1].misses[0],
        "peer: spiffe://example.org/orders is not spiffe://example.org/web"
    );
    let explanation = explain("GET /charges/1");
    assert!(explanation.rules[0].misses.is_empty());
    assert!(matches!(explanation.verdict.decision, Decision::Allow(_)));
}
