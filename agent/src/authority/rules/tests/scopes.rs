//! No identity goes to two accounts, clusters or namespaces (S18): for rules that pass the check, by asking;
//! and what the check refuses really does that.

use std::collections::BTreeSet;

use super::*;
use crate::config::authority::{CallerIdentityAttestor, KubernetesAttestor, WebIdentityAttestor};

const ACCOUNTS: [&str; 2] = ["111111111111", "222222222222"];
/// Of the attestors that sign; the other admits the first.
const PARTITIONS: [&str; 2] = ["aws", "aws-cn"];
const PODS: [&str; 5] = [
    "cluster_arn",
    "cluster",
    "cluster_region",
    "cluster_account",
    "namespace",
];

fn attestors() -> BTreeMap<String, Attestor> {
    let kubernetes = |issuer: &str| {
        Attestor::Kubernetes(KubernetesAttestor {
            issuer: issuer.into(),
            audience: "a".into(),
            jwks_url: None,
            ca_file: None,
            token_review: None,
        })
    };
    let aws = Attestor::AwsWebIdentity(WebIdentityAttestor {
        issuers: ACCOUNTS
            .map(|account| (account.to_owned(), String::new()))
            .into(),
        org: None,
        partitions: vec!["aws".into()],
        pod_identity_roles: ACCOUNTS
            .map(|account| format!("{account}:role/*").parse().unwrap())
            .into(),
    });
    let signed = |accounts: &[&str]| {
        Attestor::AwsCallerIdentity(CallerIdentityAttestor {
            partitions: PARTITIONS.map(str::to_owned).to_vec(),
            accounts: accounts.iter().map(|&account| account.to_owned()).collect(),
            sts_endpoints: BTreeMap::new(),
        })
    };
    [
        ("aws", aws),
        ("signed", signed(&ACCOUNTS)),
        ("one", signed(&ACCOUNTS[..1])),
        ("blue", kubernetes("https://blue")),
        ("green", kubernetes("https://green")),
        ("join", Attestor::JoinToken),
    ]
    .map(|(name, attestor)| (name.to_owned(), attestor))
    .into()
}

/// Everybody there is, in a small world.
fn everybody() -> Vec<(&'static str, Facts)> {
    let values = ["a", "b", "aa", "ab", "ba"];
    let mut all = Vec::new();
    for role in values {
        for account in ACCOUNTS {
            let role_only = facts(&[("partition", "aws"), ("account", account), ("role", role)]);
            all.push(("aws", role_only.clone()));
            for partition in PARTITIONS {
                let signed = facts(&[
                    ("partition", partition),
                    ("account", account),
                    ("role", role),
                ]);
                all.push(("signed", signed.clone()));
                if account == ACCOUNTS[0] {
                    all.push(("one", signed));
                }
            }
            for (cluster, region) in [("a", "b"), ("b", "b"), ("a", "a")] {
                for namespace in ["a", "b"] {
                    let arn = format!("arn:aws:eks:{region}:{account}:cluster/{cluster}");
                    let mut pod = role_only.clone();
                    pod.extend(facts(&[
                        ("cluster_arn", &arn),
                        ("cluster", cluster),
                        ("cluster_region", region),
                        ("cluster_account", account),
                        ("namespace", namespace),
                        ("service_account", role),
                    ]));
                    all.push(("aws", pod));
                }
            }
        }
        for namespace in values {
            let pod = facts(&[("namespace", namespace), ("service_account", role)]);
            all.extend(["blue", "green"].map(|attestor| (attestor, pod.clone())));
        }
        all.push(("join", facts(&[("role", role)])));
    }
    all
}

/// Where `facts` are from, as far as `rule` looks.
fn scope(rule: &Rule, facts: &Facts) -> Vec<String> {
    let of = |name: &str| facts.get(name).cloned().unwrap_or_default();
    let looks_at = |name: &str| {
        let template = format!("{{{name}}}");
        let mut templates = rule.templates();
        rule.r#match.contains_key(name)
            || templates.any(|(_, id, dns)| {
                let mut dns = dns.iter();
                id.to_string().contains(&template)
                    || dns.any(|dns| dns.to_string().contains(&template))
            })
    };
    match &*rule.attestor {
        "aws" | "signed" | "one" => {
            let pods = PODS
                .iter()
                .chain(&["service_account"])
                .any(|name| looks_at(name));
            let pod = PODS.iter().filter(|_| pods).map(|name| of(name));
            ["aws".to_owned(), of("account")]
                .into_iter()
                .chain(pod)
                .collect()
        }
        "join" => vec!["join".to_owned()],
        cluster => vec![cluster.to_owned(), of("namespace")],
    }
}

fn any_rule() -> impl Strategy<Value = Rule> {
    let attestor = prop_oneof![
        4 => Just("aws"), 2 => Just("signed"), 1 => Just("one"), 3 => Just("blue"), 2 => Just("green"),
        1 => Just("join")
    ];
    let names = || {
        prop_oneof![
            4 => Just("role"), 3 => Just("account"), 2 => Just("namespace"), 2 => Just("service_account"),
            1 => Just("cluster"), 1 => Just("cluster_region"), 1 => Just("cluster_account")
        ]
    };
    let segment = prop_oneof![
        2 => "[ab]{1,2}".prop_map(String::from),
        4 => names().prop_map(|name| format!("{{{name}}}")),
        1 => Just("{partition}".to_owned()),
        2 => ("[ab]?", names(), "[ab]?").prop_map(|(start, name, end)| format!("{start}{{{name}}}{end}")),
    ];
    let id = prop::collection::vec(segment, 1..4)
        .prop_map(|segments| format!("/{}", segments.join("/")))
        .prop_filter("a fact is named once", |id| {
            id.parse::<IdTemplate>().is_ok()
        });
    let dns = || {
        prop_oneof![
            3 => Just(vec![]),
            1 => Just(vec!["{role}.x"]), 1 => Just(vec!["{role}.{account}.x"]), 1 => Just(vec!["a.x"]),
            1 => Just(vec!["{service_account}.{namespace}.x"]),
        ]
    };
    let also = (id.clone(), dns()).prop_map(|(id, dns)| also(&id, &dns));
    let also = prop_oneof![3 => Just(vec![]), 2 => prop::collection::vec(also, 1..3)];
    let dns = dns();
    let account = prop_oneof![
        2 => Just(None), 2 => Just(Some("111111111111")), 2 => Just(Some("222222222222")), 1 => Just(Some("*")),
        1 => Just(Some("1*"))
    ];
    let arn = prop_oneof![
        3 => Just(None), 1 => Just(Some("arn:aws:eks:b:111111111111:cluster/a")), 1 => Just(Some("*"))
    ];
    let value = || prop::option::of("[ab*]{1,2}");
    let partition = prop_oneof![2 => Just(None), 5 => Just(Some("aws")), 1 => Just(Some("aws-cn")), 1 => Just(Some("*"))];
    let demands = (partition, account, arn, value(), value(), value());
    (attestor, demands, id, dns, also, prop::bool::weighted(0.1)).prop_map(
        |(attestor, demands, id, dns, also, shared)| {
            let (partition, account, arn, role, namespace, service_account) = demands;
            let of_aws = ["aws", "signed", "one"].contains(&attestor);
            let mut all: Vec<(&str, &str)> = Vec::new();
            all.extend(partition.filter(|_| of_aws).map(|it| ("partition", it)));
            all.extend(account.filter(|_| of_aws).map(|it| ("account", it)));
            all.extend(
                arn.filter(|_| attestor == "aws")
                    .map(|it| ("cluster_arn", it)),
            );
            all.extend(role.as_deref().map(|it| ("role", it)));
            all.extend(
                namespace
                    .as_deref()
                    .filter(|_| !of_aws)
                    .map(|it| ("namespace", it)),
            );
            all.extend(
                service_account
                    .as_deref()
                    .filter(|_| !of_aws)
                    .map(|it| ("service_account", it)),
            );
            Rule {
                shared,
                also,
                dns: dns.iter().map(|it| it.parse().unwrap()).collect(),
                ..rule(attestor, &all, &id)
            }
        },
    )
}

fn also(id: &str, dns: &[&str]) -> Also {
    Also {
        id: id.parse().unwrap(),
        hint: None,
        dns: dns.iter().map(|it| it.parse().unwrap()).collect(),
        audiences: vec![],
        scopes: vec![],
    }
}

fn unchecked(rules: &[Rule]) -> Rules {
    Rules::of(&TrustDomain::new("example.org").unwrap(), rules, &[])
}

/// The rules without those that the check is against.
fn passing(mut rules: Vec<Rule>) -> Vec<Rule> {
    while let Some(found) = overlap::find(&rules, &attestors()).first() {
        rules.remove(found.rule);
    }
    rules
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn s18_rules_that_pass_give_no_identity_to_two_scopes(rules in prop::collection::vec(any_rule(), 1..8)) {
        let rules = passing(rules);
        let compiled = unchecked(&rules);
        let mut holders: BTreeMap<String, (Vec<String>, Grant, Facts)> = BTreeMap::new();
        for (attestor, facts) in everybody() {
            let Ok(Grants { first, further }) = compiled.decide(attestor, &facts) else { continue };
            let mut own = BTreeSet::new();
            for grant in std::iter::once(first).chain(further) {
                prop_assert!(!grant.spiffe_id.path().to_lowercase().starts_with("/warifu"));
                prop_assert!(own.insert(grant.spiffe_id.to_string()), "{} twice", grant.spiffe_id);
                let rule = &rules[grant.rule];
                let scope = scope(rule, &facts);
                for identity in grant.dns.iter().cloned().chain([grant.spiffe_id.to_string()]) {
                    let (theirs, by, other) = holders
                        .entry(identity.clone())
                        .or_insert_with(|| (scope.clone(), grant.clone(), facts.clone()));
                    let meant = rule.shared && rules[by.rule].shared;
                    prop_assert!(
                        *theirs == scope || meant,
                        "{} for {:?} by {} and {:?} by {}", identity, facts, grant.origin(), other, by.origin()
                    );
                    // One workload's first identity is no other's further one, though both are of one scope.
                    let of_one_rule = identity.starts_with("spiffe:") && by.rule == grant.rule;
                    prop_assert!(
                        !of_one_rule || by.also == grant.also,
                        "{} for {:?} by {} and {:?} by {}", identity, facts, grant.origin(), other, by.origin()
                    );
                }
            }
        }
    }

    #[test]
    fn what_the_check_refuses_would_do_it(rules in prop::collection::vec(any_rule(), 1..5)) {
        let compiled = unchecked(&rules);
        for found in overlap::find(&rules, &attestors()) {
            let (one, other) = (&found.one, &found.other);
            prop_assert!(one.facts != other.facts || one.attestor != other.attestor, "{}", found);
            let wanted = |example: &overlap::Example| {
                let rule = &rules[example.rule];
                let mut facts = example.facts.clone();
                // The example has what matters; the rest is as it may be.
                for name in PODS.iter().chain(&["role", "service_account", "account", "partition"]) {
                    facts.entry((*name).to_owned()).or_insert_with(|| "b".to_owned());
                }
                let mut templates = rule.templates();
                let (_, id, dns) = templates.find(|(also, ..)| *also == example.also).unwrap();
                // Each template by itself: another may be impossible to fill with these.
                match found.dns {
                    None => fill::path(id, &facts).as_ref() == Ok(&found.identity),
                    Some(_) => dns.iter().any(|dns| fill::dns(dns, &facts).as_ref() == Ok(&found.identity)),
                }
            };
            prop_assert!(wanted(one) && wanted(other), "{}", found);
            for example in [one, other] {
                let rule = &compiled.rules[example.rule];
                let demands = rule.matches.iter().all(|(name, glob)| {
                    example.facts.get(name).is_some_and(|value| glob.matches(value))
                });
                prop_assert!(demands, "{}", found);
            }
        }
    }
}
