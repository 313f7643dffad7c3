//! The index against the plainest reading of the rules: each rule, part by part.

use proptest::prelude::*;

use super::*;
use crate::config::{
    inbound::When,
    value::{Cidr, Moment},
};

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

/// Without an index, and without what the index shares with the rules.
fn holds(rule: &Rule, denies: bool, asked: &Asked) -> bool {
    let peer = rule.peer.as_ref().is_none_or(|pattern| {
        let peer = asked.caller.peer.as_ref();
        peer.is_some_and(|peer| is(pattern, &peer.spiffe_id.to_string()))
    });
    let subject = rule.subject.as_ref().is_none_or(|rule| {
        let Some(subject) = &asked.caller.subject else {
            return false;
        };
        let spiffe_id = rule.spiffe_id.as_ref();
        spiffe_id.is_none_or(|pattern| is(pattern, &subject.subject))
            && (rule.scope.iter()).all(|scope| subject.scopes.contains(scope))
            && (rule.issuer.iter()).all(|issuer| asked.evidence.accept.as_ref() == Some(issuer))
            && rule.role.as_ref().is_none_or(|pattern| {
                let role = asked.evidence.role.as_deref().unwrap_or(":role/");
                let (account, name) = role.split_once(":role/").unwrap();
                pattern.matches(account, name)
            })
            && rule.claims.iter().all(|(name, wanted)| {
                let claim = asked.evidence.claims.get(name).unwrap_or(&Value::Null);
                let claims = claim.as_array().cloned().unwrap_or(vec![claim.clone()]);
                claims.iter().any(|claim| {
                    wanted.0.iter().any(|wanted| match wanted {
                        ClaimValue::Text(text) => claim.as_str() == Some(text),
                        ClaimValue::Bool(value) => claim.as_bool() == Some(*value),
                        ClaimValue::Integer(value) => claim.as_f64() == Some(*value as f64),
                        ClaimValue::Fraction(_) => unreachable!(),
                    })
                })
            })
    });
    let headers = rule.headers.iter().all(|(name, values)| {
        let lines: Vec<String> = (asked.headers.get_all(name).iter())
            .map(|line| line.to_str().unwrap().to_owned())
            .collect();
        let wanted = lines.iter().filter(|line| values.contains(line)).count();
        wanted > 0 && (denies || wanted == lines.len())
    });
    let source = rule.source.is_empty()
        || match asked.source {
            Some(source) => rule.source.iter().any(|range| range.contains(source)),
            None => denies,
        };
    let when = (rule.when.as_ref().and_then(|it| it.not_before)).is_none_or(|it| asked.now >= it.0);
    let path = split(&asked.path);
    let to = rule.to.iter().any(|target| {
        let rest = target.segments.last() == Some(&Segment::Rest);
        let method = target.method.as_deref();
        method.is_none_or(|ours| ours == asked.method.as_str())
            && fits(&target.segments, &path)
            && (target.trailing_slash == asked.path.ends_with('/')
                || rest && !target.trailing_slash)
    });
    let to = to || denies && rule.to.is_empty();
    peer && subject && headers && source && when && to
}

/// What decides, and what would have.
fn naive(
    allow: &[Rule],
    deny: &[Rule],
    asked: &Asked,
) -> (Option<bool>, Option<String>, Option<String>) {
    if asked.caller.peer.is_none() && asked.caller.subject.is_none() {
        return (None, None, None);
    }
    let first = |rules: &[Rule], list: &str, shadow| {
        let found = rules
            .iter()
            .position(|rule| rule.shadow == shadow && holds(rule, list == "deny", asked));
        found.map(|place| format!("{list}[{place}]"))
    };
    if let Some(rule) = first(deny, "deny", false) {
        return (Some(false), Some(rule), None);
    }
    match first(allow, "allow", false) {
        Some(rule) => (Some(true), Some(rule), first(deny, "deny", true)),
        None => (None, None, first(allow, "allow", true)),
    }
}

fn any_id() -> impl Strategy<Value = String> {
    "spiffe://(t|u)(/[ab]){0,2}"
}

fn any_id_pattern() -> impl Strategy<Value = String> {
    "spiffe://(t|u)(/([ab]|\\*)){0,2}(/\\*\\*)?"
}

fn any_claim_value() -> impl Strategy<Value = ClaimValue> {
    prop_oneof![
        "[xy]".prop_map(ClaimValue::Text),
        any::<bool>().prop_map(ClaimValue::Bool),
        (0_i64..3).prop_map(ClaimValue::Integer),
    ]
}

fn any_subject() -> impl Strategy<Value = SubjectMatch> {
    let rare = |strategy: &'static str| proptest::option::weighted(0.3, strategy);
    (
        proptest::option::weighted(0.3, any_id_pattern()),
        rare("[xy]"),
        rare("[pq]"),
        rare("11111111111[12]:role/(a|b|a\\*|\\*b|a\\*b|ab)"),
        proptest::collection::btree_map(
            "[cd]",
            proptest::collection::vec(any_claim_value(), 1..3).prop_map(AnyOf),
            0..2,
        ),
    )
        .prop_map(|(spiffe_id, scope, issuer, role, claims)| SubjectMatch {
            spiffe_id: spiffe_id.as_deref().map(id),
            scope,
            issuer,
            role: role.map(|role| role.parse().unwrap()),
            claims,
        })
}

pub(super) fn any_rule() -> impl Strategy<Value = Rule> {
    let target = "(GET|PUT|\\*) (/|(/([ab]|\\*)){1,3}/?|(/([ab]|\\*)){0,2}/\\*\\*/?)";
    let range = prop_oneof![
        Just("10.0.0.0/8"),
        Just("10.1.0.0/16"),
        Just("10.1.2.3/32"),
        Just("2001:db8::/32"),
        Just("0.0.0.0/0"),
    ];
    (
        proptest::option::weighted(0.4, any_id_pattern()),
        proptest::option::weighted(0.5, any_subject()),
        proptest::collection::vec(target, 0..4),
        proptest::collection::vec(range, 0..2),
        proptest::collection::btree_map("x-[gh]", proptest::collection::vec("[mn]", 1..3), 0..2),
        proptest::bool::weighted(0.2),
        proptest::bool::weighted(0.2),
    )
        .prop_map(|(peer, subject, to, source, headers, later, shadow)| Rule {
            name: None,
            peer: peer.as_deref().map(id),
            subject,
            to: to.iter().map(|text| super::target(text)).collect(),
            source: source
                .iter()
                .map(|it| it.parse::<Cidr>().unwrap())
                .collect(),
            headers: headers
                .into_iter()
                .map(|(name, values)| (name.parse().unwrap(), values))
                .collect(),
            when: later.then(|| When {
                not_before: Some(Moment(
                    SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1),
                )),
                ..When::default()
            }),
            shadow,
        })
}

fn any_evidence() -> impl Strategy<Value = Evidence> {
    let scalar = prop_oneof![
        "[xy]".prop_map(Value::from),
        any::<bool>().prop_map(Value::from),
        (0..3).prop_map(Value::from),
        Just(json!(1.0)),
        Just(Value::Null),
    ];
    let claim = prop_oneof![
        scalar.clone(),
        proptest::collection::vec(scalar, 0..3).prop_map(Value::from),
    ];
    (
        proptest::collection::btree_map("[cde]", claim, 0..4),
        proptest::option::of("[pq]"),
        proptest::option::of("11111111111[12]:role/(a|b|ab|acb)"),
    )
        .prop_map(|(claims, accept, role)| Evidence {
            claims: claims.into_iter().collect(),
            accept,
            role,
        })
}

pub(super) fn any_asked() -> impl Strategy<Value = Asked> {
    let source = prop_oneof![
        Just(None),
        Just(Some("10.1.2.3")),
        Just(Some("::ffff:10.1.9.9")),
        Just(Some("10.200.0.1")),
        Just(Some("2001:db8::1")),
        Just(Some("192.0.2.1")),
    ];
    (
        proptest::option::of(any_id()),
        proptest::option::of((
            any_id(),
            proptest::collection::vec("[xy]", 0..2),
            any_evidence(),
        )),
        "(GET|PUT|POST) (/|(/[abc]){1,4}/?)",
        source,
        proptest::collection::vec(("x-[gh]", "[mno]"), 0..3),
        any::<bool>(),
    )
        .prop_map(|(peer, subject, request, source, headers, later)| {
            let scopes: Vec<&str> = (subject.iter())
                .flat_map(|(_, scopes, _)| scopes.iter().map(String::as_str))
                .collect();
            let proved = subject.as_ref().map(|(id, ..)| (id.as_str(), &scopes[..]));
            let mut asked = Asked::of(&caller(peer.as_deref(), proved), &request);
            for (name, value) in &headers {
                let name: http::HeaderName = name.parse().unwrap();
                asked.headers.append(name, value.parse().unwrap());
            }
            asked.evidence = subject.map(|(_, _, evidence)| evidence).unwrap_or_default();
            asked.source = source.map(|it| it.parse().unwrap());
            asked.now += std::time::Duration::from_secs(u64::from(later));
            asked
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]
    #[test]
    fn s16_the_index_decides_as_reading_every_rule_does(
        allow in proptest::collection::vec(any_rule(), 0..12),
        deny in proptest::collection::vec(any_rule(), 0..4),
        asked in any_asked(),
    ) {
        let policy = Policy::new(&allow, &deny);
        let verdict = asked.verdict(&policy);
        let (decided, rule) = match verdict.decision {
            Decision::Allow(rule) => (Some(true), Some(rule.to_string())),
            Decision::Deny(Reason::Rule(rule)) => (Some(false), Some(rule.to_string())),
            Decision::Deny(_) => (None, None),
        };
        let shadow = verdict.shadow.map(|rule| rule.to_string());
        prop_assert_eq!((decided, rule.clone(), shadow), naive(&allow, &deny, &asked));

        // What is explained is what was decided.
        let explanation = policy.explain(&asked.caller, &asked.evidence, asked.request());
        let holding = explanation.rules.iter().filter(|it| it.misses.is_empty());
        let deciding: Vec<_> = holding.filter(|it| !it.shadow).map(|it| it.rule.clone()).collect();
        prop_assert_eq!(rule.is_some(), !deciding.is_empty());
        prop_assert!(rule.is_none_or(|rule| deciding.contains(&rule)));
    }
}
