//! What differs between two versions of a file, by field.

use super::node::{Key, Node, Path, Value};

/// Keys of a listener that take effect at a reload.
const LIVE: &[&str] = &[
    "accept",
    "allow",
    "app_port_check",
    "app_protocol",
    "client_cert_headers",
    "context",
    "deny",
    "forward",
    "forward_claims",
    "limits",
    "max_connection_age",
    "permissive",
    "proxy_protocol",
    "rego",
    "timeouts",
    "tls",
    "trusted_hops",
];

/// Fields that differ and take effect at a restart only.
pub(super) fn at_restart(old: &Node, new: &Node) -> Vec<String> {
    let mut found = Vec::new();
    differences(old, new, &Path::default(), &mut found);
    found.iter().map(ToString::to_string).collect()
}

fn differences(old: &Node, new: &Node, at: &Path, found: &mut Vec<Path>) {
    match (&old.value, &new.value) {
        (Value::Map(old), Value::Map(new)) => {
            let nothing = Value::Map(Vec::new());
            let nothing = |beside: &Node| Node {
                at: beside.at,
                value: nothing.clone(),
            };
            for (key, was) in old {
                let at = at.key(&key.text);
                match (get(new, &key.text), &was.value) {
                    _ if is_live(&at) => {}
                    (Some(is), _) => differences(was, is, &at, found),
                    (None, Value::Map(_)) => differences(was, &nothing(was), &at, found),
                    (None, _) => found.push(at),
                }
            }
            for (key, is) in new {
                let at = at.key(&key.text);
                match (get(old, &key.text), &is.value) {
                    _ if is_live(&at) => {}
                    (Some(_), _) => {}
                    (None, Value::Map(_)) => differences(&nothing(is), is, &at, found),
                    (None, _) => found.push(at),
                }
            }
        }
        (Value::List(old), Value::List(new)) if at.to_string() == "inbound" => {
            listeners(old, new, at, found);
        }
        (Value::List(old), Value::List(new)) if old.len() == new.len() => {
            for (index, (was, is)) in old.iter().zip(new).enumerate() {
                differences(was, is, &at.index(index), found);
            }
        }
        _ if same(old, new) => {}
        _ => found.push(at.clone()),
    }
}

/// A listener is the same where it listens at the same place for the same purpose, wherever in the file it is: before an app
/// that speaks HTTP, before one that does not, or for Envoy. What is new is named whole, what is gone by the list it was in.
fn listeners(old: &[Node], new: &[Node], at: &Path, found: &mut Vec<Path>) {
    let is_same = |one: &Node, other: &Node| {
        let text = |node: &Node, key: &str| match &member(node, key)?.value {
            Value::Text { text, .. } => Some(text.clone()),
            _ => None,
        };
        let is_asked = |node: &Node| member(node, "ext_authz").is_some();
        let is_opaque = |node: &Node| text(node, "forward").is_some_and(|it| it.starts_with("tcp"));
        text(one, "listen") == text(other, "listen")
            && is_asked(one) == is_asked(other)
            && is_opaque(one) == is_opaque(other)
    };
    for (index, is) in new.iter().enumerate() {
        let at = at.index(index);
        match old.iter().find(|was| is_same(was, is)) {
            Some(was) => differences(was, is, &at, found),
            None => found.push(at),
        }
    }
    let is_gone = |was: &Node| !new.iter().any(|is| is_same(was, is));
    if old.iter().any(is_gone) && new.len() < old.len() {
        found.push(at.clone());
    }
}

fn member<'a>(node: &'a Node, key: &str) -> Option<&'a Node> {
    match &node.value {
        Value::Map(entries) => get(entries, key),
        _ => None,
    }
}

fn get<'a>(entries: &'a [(Key, Node)], wanted: &str) -> Option<&'a Node> {
    let mut entries = entries.iter();
    let found = entries.find(|(key, _)| key.text == wanted);
    found.map(|(_, node)| node)
}

/// `inbound[N].allow` and its kin; and how much of the audit log is written.
fn is_live(at: &Path) -> bool {
    let shown = at.to_string();
    if shown == "audit.allowed_one_in" {
        return true;
    }
    let of_listener = shown.strip_prefix("inbound[");
    let key = of_listener.and_then(|rest| rest.split_once("]."));
    key.is_some_and(|(_, key)| LIVE.contains(&key))
}

fn same(old: &Node, new: &Node) -> bool {
    match (&old.value, &new.value) {
        (Value::Null, Value::Null) => true,
        (Value::Bool(old), Value::Bool(new)) => old == new,
        (Value::Integer(old), Value::Integer(new)) => old == new,
        (Value::Float(old), Value::Float(new)) => old.to_bits() == new.to_bits(),
        (Value::Text { text: old, .. }, Value::Text { text: new, .. }) => old == new,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::{super::node::parse, *};

    const OLD: &str = "trust_domain: a\ndrain: 1s\ninbound:\n\
        - {listen: x, allow: [{to: [a]}], max_connections: 5, limits: {concurrency: 3}}\n\
        - {listen: y, forward: a}\n";

    fn changed(new: &str) -> Vec<String> {
        at_restart(&parse(OLD).unwrap(), &parse(new).unwrap())
    }

    #[test]
    fn what_a_listener_serves_by_changes_live_and_everything_else_is_named() {
        assert!(changed(OLD).is_empty());
        assert!(changed(&OLD.replace("[a]", "[a, b]")).is_empty());
        let more =
            "{listen: y, deny: [], allow: [], tls: {client_cert: none}, accept: [b], forward: b";
        assert!(changed(&OLD.replace("{listen: y, forward: a", more)).is_empty());
        assert!(changed(&OLD.replace(", limits: {concurrency: 3}", "")).is_empty());
        assert_eq!(
            changed(&OLD.replace("drain: 1s", "drain: 2s").replace(": 5", ": 6")),
            ["drain", "inbound[0].max_connections"]
        );
        assert_eq!(changed(&OLD.replace("drain: 1s\n", "")), ["drain"]);
        // No rule of a listener's.
        assert_eq!(changed(&format!("{OLD}allow: 1\n")), ["allow"]);
        assert!(changed(&format!("{OLD}audit: {{allowed_one_in: 3}}\n")).is_empty());
        assert_eq!(
            changed(&format!("{OLD}audit: {{allowed_one_in: 3, file: /a}}\n")),
            ["audit.file"]
        );
    }

    #[test]
    fn a_listener_is_told_by_where_and_what_it_is() {
        let second = "- {listen: y, forward: a}\n";
        assert_eq!(
            changed(&format!("{OLD}- {{listen: z}}\nworkers: 2\n")),
            ["inbound[2]", "workers"]
        );
        assert_eq!(
            changed(&OLD.replace("listen: y", "listen: z")),
            ["inbound[1]"]
        );
        assert_eq!(
            changed(&OLD.replace("forward: a", "ext_authz: {}")),
            ["inbound[1]"]
        );
        for opaque in ["tcp://127.0.0.1:1", "tcp+unix:/a"] {
            let opaque = OLD.replace("forward: a", &format!("forward: \"{opaque}\""));
            assert_eq!(changed(&opaque), ["inbound[1]"]);
        }
        assert_eq!(changed(&OLD.replace(second, "")), ["inbound"]);
        // In another order they are the same.
        let first = OLD.lines().nth(3).unwrap();
        let moved = OLD.replace(&format!("{first}\n"), "") + first;
        assert!(changed(&moved).is_empty(), "{:?}", changed(&moved));
    }
}
