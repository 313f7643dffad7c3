//! What differs between two versions of a file, by field.

use super::node::{Node, Path, Value};

/// Keys of a listener that take effect at a reload.
const LIVE: &[&str] = &["allow", "deny"];

/// Fields that differ and take effect at a restart only.
pub(super) fn at_restart(old: &Node, new: &Node) -> Vec<String> {
    let mut found = Vec::new();
    differences(old, new, &Path::default(), &mut found);
    found.iter().map(ToString::to_string).collect()
}

fn differences(old: &Node, new: &Node, at: &Path, found: &mut Vec<Path>) {
    match (&old.value, &new.value) {
        (Value::Map(old), Value::Map(new)) => {
            let of = |entries: &'_ [(super::node::Key, Node)], wanted: &str| {
                entries.iter().position(|(key, _)| key.text == wanted)
            };
            for (key, was) in old {
                let at = at.key(&key.text);
                match of(new, &key.text).and_then(|place| new.get(place)) {
                    _ if is_live(&at) => {}
                    Some((_, is)) => differences(was, is, &at, found),
                    None => found.push(at),
                }
            }
            for (key, _) in new {
                let at = at.key(&key.text);
                if of(old, &key.text).is_none() && !is_live(&at) {
                    found.push(at);
                }
            }
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

/// `inbound[N].allow` and its kin.
fn is_live(at: &Path) -> bool {
    let shown = at.to_string();
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

    #[test]
    fn rules_change_live_and_everything_else_is_named() {
        let old = "trust_domain: a\ndrain: 1s\ninbound:\n- {listen: x, allow: [{to: [a]}], max_connections: 5}\n- {listen: y}\n";
        let changed = |new: &str| at_restart(&parse(old).unwrap(), &parse(new).unwrap());
        assert!(changed(old).is_empty());
        assert!(changed(&old.replace("[a]", "[a, b]")).is_empty());
        assert!(
            changed(&old.replace("{listen: y}", "{listen: y, deny: [], allow: []}")).is_empty()
        );
        assert_eq!(
            changed(
                &old.replace("drain: 1s", "drain: 2s")
                    .replace("5", "6")
                    .replace("listen: y", "listen: z")
            ),
            ["drain", "inbound[0].max_connections", "inbound[1].listen"]
        );
        assert_eq!(changed(&old.replace("drain: 1s\n", "")), ["drain"]);
        assert_eq!(
            changed(&format!("{old}- {{listen: z}}\nworkers: 2\n")),
            ["inbound", "workers"]
        );
        // No rule of a listener's.
        assert_eq!(changed(&format!("{old}allow: 1\n")), ["allow"]);
    }
}
