//! What is refused and what is not, as operators write it.

use super::*;
use crate::config::{AuthorityConfig, parse_with};

const ATTESTORS: &str = "
  aws: {kind: aws-web-identity, issuers: {'111111111111': 'https://a.example', '222222222222': 'https://b.example'}, pod_identity_roles: ['111111111111:role/*']}
  signed: {kind: aws-caller-identity, accounts: ['111111111111', '222222222222']}
  home: {kind: aws-caller-identity, accounts: ['111111111111']}
  world: {kind: aws-caller-identity, accounts: ['111111111111'], partitions: [aws, aws-cn]}
  blue: {kind: kubernetes, issuer: 'https://blue.example', audience: a}
  green: {kind: kubernetes, issuer: 'https://green.example', audience: a}
  ci: {kind: oidc, issuer: 'https://ci.example', audience: a, facts: {repo: repository}}
  join: {kind: join-token}
";

/// What is found in `rules`, one a line.
fn found(rules: &[&str]) -> Vec<String> {
    let rules: Vec<String> = rules.iter().map(|rule| format!("- {{{rule}}}\n")).collect();
    let text = format!(
        "trust_domain: example.org\nlisten: 127.0.0.1:1\nadmin: unix:/a\nca: {{key: memory}}\nstate: memory\n\
         attestors:{ATTESTORS}rules:\n{}",
        rules.concat()
    );
    let config: AuthorityConfig = parse_with(&text, "a.yaml", |_| vec![], &|_| None)
        .unwrap_or_else(|errors| panic!("{errors}"));
    let found = find(&config.rules, &config.attestors);
    found
        .iter()
        .map(|found| format!("{} {found}", found.rule))
        .collect()
}

#[track_caller]
fn fine(rules: &[&str]) {
    let found = found(rules);
    assert!(found.is_empty(), "{rules:?}: {found:#?}");
}

#[track_caller]
fn refused(rules: &[&str], what: &str) {
    match found(rules).as_slice() {
        [one] => assert!(one.contains(what), "{one}"),
        other => panic!("{rules:?}: expected one, found {other:#?}"),
    }
}

#[test]
fn s18_an_account_must_be_matched_or_stand_in_the_template() {
    refused(
        &["attestor: aws, match: {role: 'svc-*'}, id: '/{role}'"],
        "two accounts: /svc-x",
    );
    refused(
        &["attestor: aws, match: {account: '*', role: a}, id: /a"],
        "two accounts: /a",
    );
    refused(
        &["attestor: aws, match: {account: '*', org: o, role: a}, id: '/{role}'"],
        "two accounts",
    );
    fine(&["attestor: aws, match: {account: '111111111111'}, id: '/{role}'"]);
    fine(&["attestor: aws, match: {account: '1*'}, id: '/{role}'"]);
    fine(&["attestor: aws, match: {role: '*'}, id: '/{account}/{role}'"]);
    fine(&["attestor: home, match: {role: '*'}, id: '/{role}'"]);
    fine(&["attestor: aws, match: {role: '*'}, id: '/{role}', shared: true"]);
}

#[test]
fn s18_an_account_of_another_partition_is_another_account() {
    refused(
        &["attestor: world, match: {role: a}, id: /a"],
        "two partitions: /a for world with {account: 111111111111, partition: aws,",
    );
    fine(&["attestor: world, match: {partition: aws, role: a}, id: /a"]);
    fine(&["attestor: world, match: {role: a}, id: '/{partition}/a'"]);
    let home = "attestor: home, match: {role: a}, id: /a";
    refused(
        &[
            home,
            "attestor: world, match: {partition: aws-cn, role: a}, id: /a",
        ],
        "two partitions",
    );
    fine(&[
        home,
        "attestor: world, match: {partition: aws, role: a}, id: /a",
    ]);
}

#[test]
fn s18_rules_that_each_match_one_account_are_held_against_each_other() {
    let one = "attestor: aws, match: {account: '111111111111', role: 'svc-*'}, id: '/{role}'";
    let other = "attestor: aws, match: {account: '222222222222', role: '*-a'}, id: '/{role}'";
    refused(&[one, other], "1 one SPIFFE ID for two accounts: /svc-a");
    refused(&[one, &format!("{other}, shared: true")], "two accounts");
    fine(&[
        &format!("{one}, shared: true"),
        &format!("{other}, shared: true"),
    ]);
    fine(&[one, &other.replace("/{role}", "/b/{role}")]);
    fine(&[one, &other.replace("'*-a'", "'job-*'")]);
    // Written out, it is still one identity for two accounts: so it has to be said.
    let literal =
        |account| format!("attestor: aws, match: {{account: '{account}', role: a}}, id: /a");
    refused(
        &[&literal("111111111111"), &literal("222222222222")],
        "two accounts: /a",
    );
}

#[test]
fn s18_two_attestors_of_aws_speak_of_the_same_accounts() {
    let by = |attestor| {
        format!("attestor: {attestor}, match: {{account: '111111111111'}}, id: '/{{role}}'")
    };
    fine(&[&by("aws"), &by("signed"), &by("home")]);
    let other = "attestor: signed, match: {account: '222222222222'}, id: '/{role}'";
    refused(&[&by("aws"), other], "two accounts: /orders for aws with");
}

#[test]
fn s18_a_namespace_must_be_matched_or_stand_in_the_template() {
    refused(
        &["attestor: blue, match: {service_account: '*'}, id: '/{service_account}'"],
        "two namespaces",
    );
    refused(
        &["attestor: blue, match: {namespace: '*', service_account: a}, id: /a"],
        "two namespaces: /a",
    );
    fine(&["attestor: blue, match: {namespace: shop}, id: '/{service_account}'"]);
    fine(&["attestor: blue, match: {namespace: '*'}, id: '/ns/{namespace}/sa/{service_account}'"]);
    refused(
        &[
            "attestor: blue, match: {namespace: shop}, id: '/{service_account}'",
            "attestor: blue, match: {namespace: '*'}, id: '/{namespace}'",
        ],
        "1 one SPIFFE ID for two namespaces: /",
    );
}

#[test]
fn s18_two_clusters_get_no_id_in_common() {
    let of = |cluster, id| format!("attestor: {cluster}, match: {{namespace: shop}}, id: '{id}'");
    let message = "1 one SPIFFE ID for what two attestors prove: /orders for blue with {namespace: shop, \
                   service_account: orders} (rules[0]) and for green with {namespace: shop, service_account: \
                   orders} (rules[1]); let the templates differ, in a first segment of their own for example; \
                   write shared: true in both rules if one is meant for both";
    refused(
        &[
            &of("blue", "/{service_account}"),
            &of("green", "/{service_account}"),
        ],
        message,
    );
    refused(
        &[
            &of("blue", "/shop/{service_account}"),
            &of("green", "/{namespace}/orders"),
        ],
        "two attestors",
    );
    refused(
        &[&of("blue", "/orders"), &of("green", "/orders")],
        "two attestors prove: /orders",
    );
    refused(
        &[
            &of("blue", "/orders"),
            "attestor: join, match: {s: '*'}, id: '/{s}'",
        ],
        "two attestors",
    );
    fine(&[
        &of("blue", "/blue/{service_account}"),
        &of("green", "/green/{service_account}"),
    ]);
    fine(&[
        &of("blue", "/x-{service_account}"),
        &of("green", "/y-{service_account}"),
    ]);
    fine(&[
        &of("blue", "/{service_account}-x"),
        &of("green", "/{service_account}-y"),
    ]);
}

#[test]
fn s18_pods_in_aws_need_their_cluster() {
    let of = |demands: &str, id: &str| format!("attestor: aws, match: {{{demands}}}, id: '{id}'");
    let arn = "cluster_arn: 'arn:aws:eks:eu-west-1:111111111111:cluster/prod'";
    let account = "account: '111111111111'";
    refused(
        &[&of(account, "/{namespace}/{service_account}")],
        "two clusters",
    );
    refused(
        &[&of(
            &format!("{account}, cluster: prod, namespace: shop"),
            "/{service_account}",
        )],
        "two clusters",
    );
    refused(
        &[&of(&format!("{account}, {arn}"), "/{service_account}")],
        "two namespaces",
    );
    fine(&[&of(
        &format!("{account}, {arn}"),
        "/{namespace}/{service_account}",
    )]);
    fine(&[&of(
        &format!("{account}, {arn}, namespace: shop"),
        "/{service_account}",
    )]);
    fine(&[&of(
        account,
        "/{cluster_account}/{cluster_region}/{cluster}/{namespace}/{service_account}",
    )]);
    // What all the pods of a role have is one thing, what one of them has another.
    refused(
        &[
            &of(
                &format!("{account}, {arn}, namespace: shop"),
                "/{service_account}",
            ),
            &of(account, "/{role}"),
        ],
        "pods and a whole account",
    );
}

#[test]
fn s18_a_dns_name_goes_to_one_scope() {
    let of = |account, role, dns| {
        format!(
            "attestor: aws, match: {{account: '{account}', role: '{role}'}}, id: '/{{account}}/{{role}}', dns: ['{dns}']"
        )
    };
    let (one, other) = ("111111111111", "222222222222");
    refused(
        &[&of(one, "*", "{role}.x"), &of(other, "*", "{role}.x")],
        "1 one DNS name for two accounts: orders.x",
    );
    refused(
        &[&of(one, "*", "{role}.x"), &of(other, "b", "a.x")],
        "one DNS name for two accounts: a.x",
    );
    refused(
        &[&of("*", "*", "{role}.x")],
        "one DNS name for two accounts",
    );
    fine(&[&of("*", "*", "{role}.{account}.x")]);
    fine(&[&of(one, "a", "a.x"), &of(one, "b", "a.x")]);
    fine(&[&of(one, "*", "{role}.x"), &of(other, "*", "{role}.y")]);
}

#[test]
fn s18_within_one_scope_a_template_may_not_make_what_another_rule_writes_for_other_facts() {
    let of = |demands: &str, id: &str| format!("attestor: join, match: {{{demands}}}, id: '{id}'");
    refused(
        &[
            &of("stage: canary", "/{service}-canary"),
            &of("service: '*'", "/{service}"),
        ],
        "1 one SPIFFE ID for two workloads: /x-canary",
    );
    // Both are written out: the operator said so, twice.
    fine(&[
        &of("service: orders", "/orders"),
        &of("service: orders2", "/orders"),
    ]);
    // The same facts lead to the same identity, by whichever rule.
    fine(&[
        &of("service: 'a*', stage: prod", "/{service}"),
        &of("service: '*'", "/{service}"),
    ]);
    fine(&[
        &of("service: orders, stage: prod", "/orders"),
        &of("service: '*'", "/{service}"),
    ]);
    // The first rule takes all that would collide.
    fine(&[
        &of("service: 'pay*'", "/pay"),
        &of("service: '*'", "/{service}"),
    ]);
    refused(
        &[
            &of("service: 'pay*', stage: prod", "/pay"),
            &of("service: '*'", "/{service}"),
        ],
        "two workloads: /pay",
    );
}

#[test]
fn s18_further_identities_are_held_against_all_the_others() {
    // Of one rule with itself.
    refused(
        &["attestor: home, match: {role: '*'}, id: '/{role}', also: [{id: /reports}]"],
        "0 one SPIFFE ID for two workloads: /reports for home with {account: 111111111111, partition: aws, role: \
         reports} (rules[0]) and for home with",
    );
    refused(
        &[
            "attestor: home, match: {role: '*'}, id: '/{role}', also: [{id: '/{role}-reports'}], shared: true",
        ],
        "two workloads",
    );
    fine(&["attestor: home, match: {role: '*'}, id: '/{role}', also: [{id: '/{role}/reports'}]"]);
    fine(&["attestor: home, match: {role: 'svc-*'}, id: '/{role}', also: [{id: /reports}]"]);
    // One that all of them have is what the operator wrote.
    fine(&["attestor: home, match: {role: '*'}, id: '/svc/{role}', also: [{id: /reports}]"]);
    // The account of a further one.
    let of = |also: &str| {
        format!(
            "attestor: aws, match: {{role: '*'}}, id: '/{{account}}/{{role}}', also: [{{{also}}}]"
        )
    };
    refused(
        &[&of("id: '/x/y/{role}'")],
        "0 one SPIFFE ID for two accounts: /x/y/",
    );
    refused(
        &[&of("id: '/x/{account}/{role}', dns: ['{role}.x']")],
        "one DNS name for two accounts",
    );
    fine(&[&of(
        "id: '/x/{account}/{role}', dns: ['{role}.{account}.x']",
    )]);
    // Of two rules.
    let orders = "attestor: home, match: {role: orders}, id: /orders, also: [{id: /a}, {id: /b}]";
    refused(
        &[orders, "attestor: blue, match: {namespace: shop}, id: /b"],
        "1 one SPIFFE ID for what two attestors prove: /b for home with",
    );
    refused(
        &[
            orders,
            "attestor: blue, match: {namespace: shop}, id: /x, also: [{id: /y}, {id: /b}]",
        ],
        "(rules[0].also[1]) and for blue with {namespace: shop} (rules[1].also[1])",
    );
    // A template of pods makes a rule one of pods.
    refused(
        &[
            "attestor: aws, match: {account: '111111111111'}, id: '/{role}', also: [{id: '/{cluster_account}/{cluster_region}/{cluster}/{namespace}/x'}]",
        ],
        "two clusters",
    );
}

#[test]
fn rules_that_can_never_decide_hurt_nobody() {
    fine(&[
        "attestor: aws, match: {account: '333333333333'}, id: /a",
        "attestor: blue, match: {namespace: a}, id: /a",
    ]);
    fine(&[
        "attestor: blue, match: {namespace: 'a b'}, id: '/{namespace}'",
        "attestor: green, match: {namespace: 'a b'}, id: '/{namespace}'",
    ]);
}

#[test]
fn what_is_wrong_a_thousand_times_is_said_twenty_times() {
    let of = |number| format!("attestor: aws, match: {{role: r{number}}}, id: /r{number}");
    let rules: Vec<String> = (0..1000).map(of).collect();
    let rules: Vec<&str> = rules.iter().map(String::as_str).collect();
    assert_eq!(found(&rules).len(), MOST);
}

#[test]
fn thousands_of_rules_are_held_against_each_other_in_little_time() {
    let of = |number| format!("attestor: home, match: {{role: r{number}-*}}, id: '/{{role}}'");
    let rules: Vec<String> = (0..2000).map(of).collect();
    let rules: Vec<&str> = rules.iter().map(String::as_str).collect();
    fine(&rules);
}

#[test]
fn s18_the_two_workloads_of_the_message_are_two_where_facts_change_places() {
    let both = |demands, id, also| {
        let rule =
            format!("attestor: join, match: {{{demands}}}, id: '{id}', also: [{{id: '{also}'}}]");
        let found = found(&[&rule]);
        let [found] = found.as_slice() else {
            panic!("{rule}: expected one, found {found:#?}")
        };
        found.clone()
    };
    let found = both("", "/{team}/{app}", "/{app}/{team}");
    assert!(
        found.contains(
            "two workloads: /y/x for join with {app: x, team: y} (rules[0]) \
             and for join with {app: y, team: x} (rules[0].also[0])"
        ),
        "{found}"
    );
    // Of what both admit, the shortest is one text.
    let found = both("team: 'a*', app: '*b'", "/{team}/{app}", "/{app}/{team}");
    assert!(found.contains("{app: ab, team: axb}"), "{found}");
    let found = both("team: '*'", "/a{team}", "/{team}a");
    assert!(
        found.contains("{team: xa} (rules[0]) and for join with {team: ax}"),
        "{found}"
    );
}
