//! `state` and `replicas`.

use crate::config::{
    authority::{AuthorityConfig, CaKey, State},
    validate::{Problems, root},
};

pub(super) fn state(config: &AuthorityConfig, problems: &mut Problems) {
    let dir = config.ca.key.dir().is_some();
    match (&config.ca.key, &config.state) {
        (CaKey::Memory, State::Sqlite) => problems.add(
            root().key("state"),
            "sqlite lives in the directory of a disk CA; with key: memory use state: memory",
        ),
        (CaKey::Memory, State::Dynamodb { .. }) => problems.add(
            root().key("state"),
            "what a memory CA keeps in a table, no key opens after a restart; with key: memory use state: memory",
        ),
        (CaKey::Memory, State::Memory) => {}
        (_, State::Memory) => problems.add(
            root().key("state"),
            "the keys outlive the process, so the state must outlive it too, or every start would make new roots; \
             use state: sqlite with ca.path, or state: {dynamodb: {table: NAME}}",
        ),
        (_, State::Sqlite) if !dir => problems.add(
            root().key("state"),
            "sqlite lives in the directory ca.path, and here is none; use state: {dynamodb: {table: NAME}}",
        ),
        (_, State::Sqlite | State::Dynamodb { .. }) => {}
    }
    let replicas = root().key("replicas");
    match (&config.state, config.replicas) {
        (_, 0) => problems.add(replicas, "expected at least 1: nobody would issue"),
        (State::Sqlite, 2..) => problems.add(replicas, one_only("sqlite", "a file of one machine")),
        (State::Memory, 2..) => problems.add(replicas, one_only("memory", "this process's own")),
        (State::Dynamodb { .. }, _) | (_, 1) => {}
    }
}

fn one_only(state: &str, what: &str) -> String {
    format!(
        "state: {state} is {what}, so one replica only: others would give a join token to a second key; use \
         state: {{dynamodb: {{table: NAME}}}} for more"
    )
}

#[cfg(test)]
mod tests {
    use crate::config::parse_authority;

    const DISK: &str = "\
trust_domain: example.org
listen: 127.0.0.1:8443
admin: unix:/run/a.sock
ca: {key: disk, path: /var/lib/warifu}
attestors: {a: {kind: join-token}}
";

    fn check(more: &str) -> String {
        match parse_authority(&format!("{DISK}{more}"), "a.yaml") {
            Ok(_) => String::new(),
            Err(errors) => errors.to_string(),
        }
    }

    #[test]
    fn more_than_one_replica_is_for_a_table_only() {
        assert_eq!(check("state: sqlite\n"), "", "one unless said");
        assert_eq!(check("state: sqlite\nreplicas: 1\n"), "");
        assert_eq!(
            check("state: {dynamodb: {table: warifu}}\nreplicas: 3\n"),
            ""
        );
        let refused = check("state: sqlite\nreplicas: 2\n");
        assert!(refused.starts_with("a.yaml:7:11: replicas: "), "{refused}");
        assert!(
            refused.contains("use state: {dynamodb: {table: NAME}}"),
            "{refused}"
        );
        let refused = check("state: sqlite\nreplicas: 0\n");
        assert!(refused.contains("expected at least 1"), "{refused}");
    }

    #[test]
    fn a_memory_ca_keeps_nothing_that_outlives_it() {
        let memory = |state: &str| {
            let text = DISK.replace("{key: disk, path: /var/lib/warifu}", "{key: memory}");
            let parsed = parse_authority(&format!("{text}state: {state}\nreplicas: 2\n"), "a.yaml");
            parsed.unwrap_err().to_string()
        };
        assert!(memory("memory").contains("state: memory is this process's own"));
        let table = memory("{dynamodb: {table: warifu}}");
        assert!(table.contains("no key opens after a restart"), "{table}");
    }

    #[test]
    fn keys_in_aws_need_a_state_that_outlives_the_process_and_a_place_for_it() {
        let check = |ca: &str, state: &str| {
            let text = DISK.replace("{key: disk, path: /var/lib/warifu}", ca);
            match parse_authority(&format!("{text}state: {state}\n"), "a.yaml") {
                Ok(_) => String::new(),
                Err(errors) => errors.to_string(),
            }
        };
        let kms = "{key: aws-kms, key_id: alias/root, wrap_key_id: alias/wrap}";
        let arn = "arn:aws:acm-pca:eu-west-1:123456789012:certificate-authority/11111111-2222-3333-4444-555555555555";
        let pca = format!("{{key: acm-pca, arn: \"{arn}\", path: /var/lib/warifu}}");
        let sealed = format!("{{key: acm-pca, arn: \"{arn}\", wrap_key_id: alias/wrap}}");
        let table = "{dynamodb: {table: warifu}}";
        for (ca, state) in [
            (kms, table),
            (&pca, "sqlite"),
            (&pca, table),
            (&sealed, table),
        ] {
            assert_eq!(check(ca, state), "", "{ca} {state}");
        }
        for ca in [kms, &sealed] {
            let refused = check(ca, "sqlite");
            assert!(refused.starts_with("a.yaml:6:8: state: "), "{refused}");
            assert!(refused.contains("in the directory ca.path"), "{refused}");
        }
        for ca in [kms, &pca, &sealed] {
            assert!(check(ca, "memory").contains("new roots"), "{ca}");
        }
    }
}
