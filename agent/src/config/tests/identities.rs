//! `rules[].also` of `authority.yaml`, and `local.files[].spiffe_id` of `agent.yaml`.

use super::*;

fn rule(also: &str) -> String {
    format!(
        "\
trust_domain: example.org
listen: 127.0.0.1:8443
admin: unix:/run/a.sock
ca: {{key: memory}}
attestors: {{a: {{kind: join-token}}}}
rules:
- {{attestor: a, match: {{service: orders}}, id: /orders, also: [{also}]}}
dns_names: [auth.internal]
state: memory
"
    )
}

#[test]
fn further_identities_are_held_to_what_the_first_is_held_to_and_have_hints_of_their_own() {
    let good =
        "{id: /a, hint: reports, dns: [a.internal], audiences: ['*'], scopes: [read]}, {id: /b}";
    parse_authority(&rule(good), "authority.yaml").unwrap();
    let long = format!("{{id: /a, hint: {}}}", "x".repeat(1025));
    let many: Vec<String> = (0..9).map(|number| format!("{{id: /a{number}}}")).collect();
    for (also, field) in [
        ("{id: /orders}", "rules[0].also[0].id"),
        ("{id: /a}, {id: /a}", "rules[0].also[1].id"),
        ("{id: /warifu/authority}", "rules[0].also[0].id"),
        (
            "{id: /a, hint: x}, {id: /b, hint: x}",
            "rules[0].also[1].hint",
        ),
        ("{id: /a, hint: ''}", "rules[0].also[0].hint"),
        ("{id: /a, hint: \"x\\ty\"}", "rules[0].also[0].hint"),
        (&long, "rules[0].also[0].hint"),
        ("{id: /a, dns: [auth.internal]}", "rules[0].also[0].dns[0]"),
        (
            "{id: /a, audiences: ['a*']}",
            "rules[0].also[0].audiences[0]",
        ),
        ("{id: /a, ttl: 1h}", "rules[0].also[0]"),
        ("{hint: x}", "rules[0].also[0]"),
        (&many.join(", "), "rules[0].also"),
    ] {
        let found = authority_errors(&rule(also));
        let [(7, at, _)] = found.as_slice() else {
            panic!("{also}: {found:#?}")
        };
        assert_eq!(at, field, "{also}: {found:#?}");
    }
}

#[test]
fn files_of_an_identity_of_another_trust_domain_are_a_mistake() {
    let files = |id: &str| {
        format!("{SMALL}local: {{files: [{{directory: /run/tls, spiffe_id: '{id}'}}]}}\n")
    };
    parse_agent(&files("spiffe://example.org/reports"), "agent.yaml").unwrap();
    for id in ["spiffe://other.example/reports", "reports"] {
        let found = agent_errors(&files(id));
        let [(_, at, _)] = found.as_slice() else {
            panic!("{found:#?}")
        };
        assert_eq!(at, "local.files[0].spiffe_id", "{found:#?}");
    }
}
