use std::collections::BTreeMap;

use proptest::prelude::*;
use warifu::{SpiffeId, caller::Peer};

use super::*;
use crate::config::{inbound::SubjectMatch, value::Target};

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

fn allow(peer: Option<&str>, subject: Option<(Option<&str>, Option<&str>)>, to: &[&str]) -> Allow {
    Allow {
        peer: peer.map(id),
        subject: subject.map(|(spiffe_id, scope)| SubjectMatch {
            spiffe_id: spiffe_id.map(id),
            scope: scope.map(str::to_owned),
        }),
        to: to.iter().map(|text| target(text)).collect(),
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

fn decide(rules: &[Allow], caller: &Caller, request: &str) -> Decision {
    let (method, path) = request.split_once(' ').unwrap();
    let method = Method::from_bytes(method.as_bytes()).unwrap();
    Policy::new(rules).decide(
        caller,
        Request {
            method: &method,
            path,
        },
    )
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
        Decision::Allow(0)
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
    let request = Decision::Deny(Reason::NoRuleForRequest);
    for (caller, asked, decision) in [
        (&orders, "POST /charges", Decision::Allow(0)),
        (&orders, "GET /charges/1", Decision::Allow(0)),
        (&orders, "GET /charges", request),
        (&orders, "DELETE /charges/1", request),
        (&orders, "post /charges", request),
        (&orders, "POST /charges/", request),
        (&orders, "POST /Charges", request),
        (&orders, "GET /charges/1/2", request),
        (&orders, "GET /charges/", request),
        (&orders, "GET /reports/1", request),
        (&batch, "GET /reports/1", Decision::Allow(1)),
        (&batch, "GET /reports/1/2/3/", Decision::Allow(1)),
        (&batch, "GET /reports", request),
        (&batch, "GET /reports/", request),
        (&batch, "GET /", request),
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
        Decision::Allow(0)
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
    assert_eq!(decide(&rules, &caller, "GET /a"), Decision::Allow(0));
    assert_eq!(decide(&rules, &caller, "GET /b"), Decision::Allow(1));
    caller.subject.as_mut().unwrap().proof = "cognito-access".to_owned();
    assert!(matches!(
        decide(&rules, &caller, "GET /a"),
        Decision::Deny(_)
    ));
    assert_eq!(decide(&rules, &caller, "GET /b"), Decision::Allow(1));
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
        Decision::Allow(1)
    );
    assert_eq!(
        decide(&rules[2..], &caller(Some(ORDERS), None), "GET /a"),
        Decision::Allow(0)
    );
}

#[test]
fn the_root_is_a_path_of_its_own() {
    let rules = [allow(Some(ORDERS), None, &["GET /"])];
    let orders = caller(Some(ORDERS), None);
    assert_eq!(decide(&rules, &orders, "GET /"), Decision::Allow(0));
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

/// The same semantics, one rule after the other.
fn naive(rules: &[Allow], caller: &Caller, method: &str, path: &str) -> Option<usize> {
    fn fits(pattern: &[Segment], given: &[&str]) -> bool {
        match (pattern, given) {
            ([], []) => true,
            ([Segment::Rest], [_, ..]) => true,
            ([Segment::One, pattern @ ..], [_, given @ ..]) => fits(pattern, given),
            ([Segment::Literal(text), pattern @ ..], [first, given @ ..]) => {
                text == first && fits(pattern, given)
            }
            _ => false,
        }
    }
    fn split(path: &str) -> Vec<&str> {
        path.split('/')
            .filter(|segment| !segment.is_empty())
            .collect()
    }
    fn is(pattern: &IdPattern, id: &str) -> bool {
        let id = split(id.strip_prefix("spiffe://").unwrap());
        id[0] == pattern.trust_domain && fits(&pattern.segments, &id[1..])
    }
    let authenticated = caller.peer.is_some() || caller.subject.is_some();
    rules.iter().position(|rule| {
        authenticated
            && rule.peer.as_ref().is_none_or(|pattern| {
                caller
                    .peer
                    .as_ref()
                    .is_some_and(|peer| is(pattern, &peer.spiffe_id.to_string()))
            })
            && rule.subject.as_ref().is_none_or(|rule| {
                caller.subject.as_ref().is_some_and(|subject| {
                    rule.spiffe_id
                        .as_ref()
                        .is_none_or(|pattern| is(pattern, &subject.subject))
                        && rule
                            .scope
                            .as_ref()
                            .is_none_or(|scope| subject.scopes.contains(scope))
                })
            })
            && rule.to.iter().any(|target| {
                let rest = target.segments.last() == Some(&Segment::Rest);
                target.method.as_deref().is_none_or(|ours| ours == method)
                    && fits(&target.segments, &split(path))
                    && (target.trailing_slash == path.ends_with('/')
                        || rest && !target.trailing_slash)
            })
    })
}

fn any_id() -> impl Strategy<Value = String> {
    "spiffe://(t|u)(/[ab]){0,2}"
}

fn any_id_pattern() -> impl Strategy<Value = String> {
    "spiffe://(t|u)(/([ab]|\\*)){0,2}(/\\*\\*)?"
}

fn any_rule() -> impl Strategy<Value = Allow> {
    let subject = (
        proptest::option::of(any_id_pattern()),
        proptest::option::of("[xy]"),
    );
    let target = "(GET|PUT|\\*) (/|(/([ab]|\\*)){1,3}/?|(/([ab]|\\*)){0,2}/\\*\\*/?)";
    (
        proptest::option::of(any_id_pattern()),
        proptest::option::of(subject),
        proptest::collection::vec(target, 0..4),
    )
        .prop_map(|(peer, subject, to)| {
            let subject = subject
                .as_ref()
                .map(|(id, scope)| (id.as_deref(), scope.as_deref()));
            let to: Vec<_> = to.iter().map(String::as_str).collect();
            allow(peer.as_deref(), subject, &to)
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]
    #[test]
    fn s16_the_index_decides_as_reading_every_rule_does(
        rules in proptest::collection::vec(any_rule(), 0..12),
        peer in proptest::option::of(any_id()),
        subject in proptest::option::of((any_id(), proptest::collection::vec("[xy]", 0..2))),
        method in "GET|PUT|POST",
        path in "/|(/[abc]){1,4}/?",
    ) {
        let scopes: Vec<_> = subject.iter().flat_map(|(_, scopes)| scopes.iter().map(String::as_str)).collect();
        let subject = subject.as_ref().map(|(id, _)| (id.as_str(), scopes.as_slice()));
        let caller = caller(peer.as_deref(), subject);
        let decision = decide(&rules, &caller, &format!("{method} {path}"));
        let allowed_by = match decision {
            Decision::Allow(rule) => Some(rule),
            Decision::Deny(_) => None,
        };
        prop_assert_eq!(allowed_by, naive(&rules, &caller, &method, &path));
    }
}
