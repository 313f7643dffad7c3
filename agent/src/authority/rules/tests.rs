use proptest::prelude::*;

use super::*;
use crate::config::value::Span;

mod scopes;

fn rule(attestor: &str, matches: &[(&str, &str)], id: &str) -> Rule {
    Rule {
        attestor: attestor.into(),
        r#match: matches
            .iter()
            .map(|(k, v)| ((*k).into(), v.parse().unwrap()))
            .collect(),
        id: id.parse().unwrap(),
        also: vec![],
        ttl: Span(Duration::from_secs(3600)),
        jwt_ttl: Span(Duration::from_secs(300)),
        dns: vec![],
        audiences: vec![],
        scopes: vec![],
        shared: false,
    }
}

fn compile_all(rules: &[Rule]) -> Result<Rules, RuleError> {
    Rules::compile(
        &TrustDomain::new("example.org").unwrap(),
        rules,
        &["join", "ci"]
            .map(|name| (name.to_owned(), Attestor::JoinToken))
            .into(),
        &["Authority.internal".to_owned()],
    )
}

fn facts(pairs: &[(&str, &str)]) -> Facts {
    pairs
        .iter()
        .map(|(k, v)| ((*k).into(), (*v).into()))
        .collect()
}

fn id(rules: &Rules, given: &[(&str, &str)]) -> Result<String, Refusal> {
    rules
        .decide("join", &facts(given))
        .map(|grants| grants.first.spiffe_id.to_string())
}

#[test]
fn the_first_rule_that_matches_decides() {
    let rules = compile_all(&[
        rule("ci", &[], "/of/another-attestor"),
        rule("join", &[("service", "pay*")], "/payments"),
        rule("join", &[], "/{service}"),
    ])
    .unwrap();
    let payments = id(&rules, &[("service", "payroll")]).unwrap();
    assert_eq!(payments, "spiffe://example.org/payments");
    let orders = id(&rules, &[("service", "orders")]).unwrap();
    assert_eq!(orders, "spiffe://example.org/orders");
}

#[test]
fn s16_without_a_matching_rule_nothing_is_issued() {
    assert_eq!(
        id(&compile_all(&[]).unwrap(), &[("service", "orders")]),
        Err(Refusal::NoMatch)
    );
    let rules = compile_all(&[rule("join", &[("service", "x")], "/x")]).unwrap();
    assert_eq!(id(&rules, &[("service", "orders")]), Err(Refusal::NoMatch));
    assert_eq!(id(&rules, &[]), Err(Refusal::NoMatch));
}

#[test]
fn s18_no_fact_makes_a_rule_yield_a_reserved_identity() {
    let rules = compile_all(&[rule("join", &[], "/{a}/authority")]).unwrap();
    for value in ["warifu", "WARIFU"] {
        let refused = id(&rules, &[("a", value)]).unwrap_err();
        assert!(refused.to_string().contains("reserved"), "{refused}");
    }
    let rules = compile_all(&[rule("join", &[], "/war{a}/authority")]).unwrap();
    assert!(id(&rules, &[("a", "ifu")]).is_err());
}

#[test]
fn s18_a_fact_that_is_no_path_segment_is_refused_and_never_mapped() {
    let rules = compile_all(&[rule("join", &[], "/ns/{a}")]).unwrap();
    for value in [
        "", ".", "..", "a/b", "/", "a b", "a%2fb", "é", "a\0b", "a:b", "a\nb", "{b}", "*",
    ] {
        let refused = id(&rules, &[("a", value)]);
        assert!(
            matches!(refused, Err(Refusal::Unfillable { rule: 0, .. })),
            "{value:?}: {refused:?}"
        );
    }
    // Dots are fine inside, and dot segments can't be put together from literal and fact.
    assert!(id(&rules, &[("a", "..a")]).is_ok());
    let rules = compile_all(&[rule("join", &[], "/ns/.{a}")]).unwrap();
    assert!(id(&rules, &[("a", ".")]).is_err());
}

#[test]
fn s18_a_fact_that_was_not_attested_refuses() {
    let rules = compile_all(&[rule("join", &[], "/{service}")]).unwrap();
    let refused = id(&rules, &[("servic", "orders")]).unwrap_err();
    assert!(refused.to_string().contains("not attested"), "{refused}");
}

#[test]
fn s18_a_rule_that_matches_and_cannot_be_filled_is_not_passed_over() {
    let rules = compile_all(&[rule("join", &[], "/{service}"), rule("join", &[], "/other")]);
    assert!(id(&rules.unwrap(), &[("service", "a/b")]).is_err());
}

#[test]
fn s18_a_dns_name_takes_whole_lower_case_labels_and_never_the_authoritys() {
    let mut of = rule("join", &[], "/{s}");
    of.dns = vec!["{s}.internal".parse().unwrap()];
    let rules = compile_all(std::slice::from_ref(&of)).unwrap();
    let grants = rules.decide("join", &facts(&[("s", "orders")])).unwrap();
    assert_eq!(grants.first.dns, ["orders.internal"]);
    for value in [
        "authority",
        "Orders",
        "a.b",
        "-a",
        "a-",
        "a_b",
        "*",
        &"a".repeat(64),
    ] {
        let refused = rules.decide("join", &facts(&[("s", value)]));
        assert!(refused.is_err(), "{value}");
    }
}

#[test]
fn a_rule_of_an_unknown_attestor_is_named() {
    let rules = [rule("join", &[], "/ok"), rule("nobody", &[], "/x")];
    let refused = compile_all(&rules).unwrap_err();
    assert_eq!((refused.rule, &*refused.field), (1, "attestor"));
}

#[test]
fn explains_which_rule_decided_and_why_the_others_did_not() {
    let rules = compile_all(&[
        rule("ci", &[], "/x/a"),
        rule("join", &[("env", "prod")], "/x/b"),
        rule("join", &[("service", "pay*")], "/x/c"),
        rule("join", &[], "/{service}"),
        rule("join", &[], "/x/e"),
    ])
    .unwrap();
    let outcomes: Vec<String> = rules
        .explain("join", &facts(&[("service", "orders")]))
        .iter()
        .map(|(_, outcome)| outcome.to_string())
        .collect();
    assert!(outcomes[0].contains("attestor is \"ci\""), "{outcomes:?}");
    assert!(
        outcomes[1].contains("\"env\" was not attested"),
        "{outcomes:?}"
    );
    assert!(outcomes[2].contains("expected \"pay*\""), "{outcomes:?}");
    assert_eq!(outcomes[3], "grants spiffe://example.org/orders");
    assert!(outcomes[4].starts_with("not asked"), "{outcomes:?}");
}

/// A rule with further identities.
fn with_also(also: &[(&str, Option<&str>)]) -> Rule {
    let also = also.iter().map(|(id, hint)| Also {
        id: id.parse().unwrap(),
        hint: hint.map(str::to_owned),
        dns: vec![],
        audiences: vec![],
        scopes: vec![],
    });
    Rule {
        also: also.collect(),
        ..rule("join", &[], "/{service}")
    }
}

#[test]
fn a_rule_grants_its_further_identities_beside_the_first_in_its_order() {
    let mut of = with_also(&[
        ("/{service}/reports", Some("reports")),
        ("/{service}/jobs", None),
    ]);
    of.also[0].dns = vec!["reports.internal".parse().unwrap()];
    of.also[0].audiences = vec!["ledger".into()];
    of.also[0].scopes = vec!["read".into()];
    let rules = compile_all(&[of]).unwrap();
    let grants = rules
        .decide("join", &facts(&[("service", "orders")]))
        .unwrap();
    assert_eq!(grants.first.spiffe_id.path(), "/orders");
    assert_eq!((grants.first.also, &grants.first.hint), (None, &None));
    let [reports, jobs] = grants.further.as_slice() else {
        panic!("{grants:?}")
    };
    assert_eq!(reports.spiffe_id.path(), "/orders/reports");
    assert_eq!(reports.hint.as_deref(), Some("reports"));
    assert_eq!(reports.dns, ["reports.internal"]);
    assert!(reports.allows_audience("ledger") && !grants.first.allows_audience("ledger"));
    assert_eq!(reports.scopes, ["read"]);
    assert_eq!(
        (reports.ttl, reports.jwt_ttl),
        (grants.first.ttl, grants.first.jwt_ttl)
    );
    assert_eq!(jobs.spiffe_id.path(), "/orders/jobs");
    assert_eq!(
        (jobs.origin(), jobs.hint.as_deref()),
        ("rules[0].also[1]".to_owned(), None)
    );
    assert_eq!(grants.of("spiffe://example.org/orders/jobs"), Some(jobs));
    assert_eq!(grants.of("spiffe://example.org/orders/other"), None);
}

#[test]
fn s18_a_further_identity_is_as_safe_as_the_first() {
    let why = |of: Rule, service| {
        // As a file that was never checked.
        let rules = Rules::of(
            &TrustDomain::new("example.org").unwrap(),
            &[of],
            &["authority.internal".to_owned()],
        );
        let refused = rules.decide("join", &facts(&[("service", service)]));
        refused.unwrap_err().to_string()
    };
    let reserved = why(with_also(&[("/{service}/x", None)]), "warifu");
    assert!(reserved.contains("reserved"), "{reserved}");
    let reserved = why(with_also(&[("/x", None), ("/{stage}/x", None)]), "a");
    assert!(
        reserved.contains("also[1].id: fact \"stage\" was not attested"),
        "{reserved}"
    );
    // Whoever is called reports would be everybody's reports.
    let twice = why(with_also(&[("/reports", None)]), "reports");
    assert!(
        twice.contains("also[0].id: spiffe://example.org/reports is another of its own"),
        "{twice}"
    );
    let mut named = with_also(&[("/x", None)]);
    named.also[0].dns = vec!["{service}.internal".parse().unwrap()];
    let taken = why(named, "authority");
    assert!(
        taken.contains("also[0].dns: authority.internal is the authority's own name"),
        "{taken}"
    );
}

#[test]
fn s18_a_rule_whose_identities_collide_is_refused_when_it_is_loaded() {
    let why = |also: &[(&str, Option<&str>)]| compile_all(&[with_also(also)]).map(|_| ());
    why(&[("/{service}/reports", None)]).unwrap();
    let error = why(&[("/{service}/reports", None), ("/reports", None)]).unwrap_err();
    assert_eq!((error.rule, error.field.as_str()), (0, "also[1].id"));
    assert!(error.to_string().contains("two workloads"), "{error}");
}

#[test]
fn audiences_are_exact_or_all() {
    let mut of = rule("join", &[], "/x");
    of.audiences = vec!["payments".into()];
    let granted = |of: &Rule| {
        let rules = compile_all(std::slice::from_ref(of)).unwrap();
        rules.decide("join", &Facts::new()).unwrap().first
    };
    let grant = granted(&of);
    assert!(grant.allows_audience("payments"));
    assert!(!grant.allows_audience("payments2") && !grant.allows_audience("*"));
    of.audiences = vec!["*".into()];
    assert!(granted(&of).allows_audience("anything"));
    of.audiences = vec![];
    assert!(!granted(&of).allows_audience("anything"), "S16");
}

proptest! {
    #[test]
    fn s18_whatever_the_facts_an_identity_is_in_the_domain_and_not_reserved(
        a in "\\PC{0,12}", b in "[a-zA-Z0-9./%_-]{0,12}",
    ) {
        let rules = compile_all(&[rule("join", &[], "/{a}/x-{b}")]).unwrap();
        if let Ok(grants) = rules.decide("join", &facts(&[("a", &a), ("b", &b)])) {
            let path = grants.first.spiffe_id.path().to_owned();
            prop_assert_eq!(&path, &format!("/{a}/x-{b}"), "filled in, not mapped");
            prop_assert_eq!(path.matches('/').count(), 2);
            prop_assert!(!path.to_lowercase().starts_with("/warifu/"));
        }
    }

    #[test]
    fn s18_different_facts_never_share_an_identity(
        a in ("[a-c.-]{1,4}", "[a-c.-]{1,4}"), b in ("[a-c.-]{1,4}", "[a-c.-]{1,4}"),
    ) {
        prop_assume!(a != b);
        let rules = compile_all(&[rule("join", &[], "/p-{a}/{b}-s")]).unwrap();
        let of = |(x, y): &(String, String)| id(&rules, &[("a", x), ("b", y)]);
        if let (Ok(one), Ok(other)) = (of(&a), of(&b)) {
            prop_assert_ne!(one, other);
        }
    }

    #[test]
    fn the_index_finds_what_asking_every_rule_finds(
        rules in prop::collection::vec(any_rule(), 0..12), given in prop::collection::vec(any_facts(), 1..12),
    ) {
        let rules = Rules::of(&TrustDomain::new("example.org").unwrap(), &rules, &[]);
        for facts in given {
            for attestor in ["join", "ci", "nobody"] {
                let first = rules.rules.iter().position(|rule| rule.mismatch(attestor, &facts).is_none());
                let found = match rules.decide(attestor, &facts) {
                    Ok(grants) => Some(grants.first.rule),
                    Err(Refusal::Unfillable { rule, .. }) => Some(rule),
                    Err(_) => None,
                };
                prop_assert_eq!(found, first, "{:?}", facts);
            }
        }
    }
}

fn any_rule() -> impl Strategy<Value = Rule> {
    let demands = prop::collection::btree_map("[ab]", "[ab*]{1,3}", 0..3);
    (prop_oneof![Just("join"), Just("ci")], demands).prop_map(|(attestor, demands)| {
        let demands: Vec<(&str, &str)> = demands.iter().map(|(k, v)| (&**k, &**v)).collect();
        rule(attestor, &demands, "/{a}")
    })
}

fn any_facts() -> impl Strategy<Value = Facts> {
    prop::collection::btree_map("[abc]", "[ab]{0,4}", 0..4)
}

#[test]
fn facts_are_the_same_where_every_fact_a_rule_names_is() {
    let by_service = Rule {
        shared: true,
        ..rule("join", &[("service", "svc-*"), ("stage", "*")], "/shared")
    };
    let rules = compile_all(&[by_service, rule("join", &[("pod", "*")], "/pods/{pod}")]).unwrap();
    let same = |a: &[(&str, &str)], b: &[(&str, &str)]| rules.same("join", &facts(a), &facts(b));
    let (orders, prod) = (("service", "svc-orders"), ("stage", "prod"));
    assert!(same(&[orders, prod], &[orders, prod]));
    // Which no rule names.
    assert!(same(
        &[orders, prod, ("session", "i-1")],
        &[orders, prod, ("session", "i-2")]
    ));
    // One identity, and another service all the same.
    assert!(!same(&[orders, prod], &[("service", "svc-payments"), prod]));
    assert!(!same(&[orders, prod], &[orders, ("stage", "test")]));
    assert!(
        !same(&[orders, prod], &[("pod", "shared")]),
        "by another rule"
    );
    assert!(!same(&[("pod", "a")], &[("pod", "b")]));
    assert!(!same(&[orders, prod], &[]), "what entitled to nothing");
    // A further identity of another name is another identity.
    let rules = compile_all(&[Rule {
        id: "/orders".parse().unwrap(),
        ..with_also(&[("/orders/{stage}", None)])
    }]);
    let rules = rules.unwrap();
    let same_further =
        |a: &[(&str, &str)], b: &[(&str, &str)]| rules.same("join", &facts(a), &facts(b));
    assert!(same_further(&[prod, ("pod", "a")], &[prod, ("pod", "b")]));
    assert!(!same_further(&[prod], &[("stage", "test")]));
    assert!(!same(&[], &[]));
}
