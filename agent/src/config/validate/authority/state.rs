//! `state` and `replicas`.

use crate::config::{
    authority::{AuthorityConfig, CaKey, State},
    validate::{Problems, root},
};

pub(super) fn state(config: &AuthorityConfig, problems: &mut Problems) {
    match (&config.ca.key, &config.state) {
        (CaKey::Memory, State::Sqlite) => problems.add(
            root().key("state"),
            "sqlite lives in the directory of a disk CA; with key: memory use state: memory",
        ),
        (CaKey::Memory, State::Dynamodb { .. }) => problems.add(
            root().key("state"),
            "what a memory CA keeps in a table, no key opens after a restart; with key: memory use state: memory",
        ),
        (CaKey::Disk { .. }, State::Memory) => problems.add(
            root().key("state"),
            "with key: disk the state must outlive the process too; use state: sqlite",
        ),
        _ => {}
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
}
