//! Trust policies of roles, evaluated as IAM documents them.
//! <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_evaluation-logic.html>

use std::collections::BTreeMap;

use serde_json::Value;

/// A request for a session of a role.
#[derive(Debug)]
pub(super) struct Asks {
    pub(super) who: Who,
    /// Condition keys that the request has, in lower case, and their values.
    pub(super) keys: BTreeMap<String, Vec<String>>,
}

/// Who asks.
#[derive(Debug)]
pub(super) enum Who {
    /// A user, or a role whose session it is: by ARN.
    Aws(String),
    /// Whoever has a token of this provider.
    Federated(String),
}

impl Asks {
    pub(super) fn of(who: Who) -> Self {
        let keys = BTreeMap::new();
        Self { who, keys }
    }

    /// With a condition key, where there is a value of it.
    pub(super) fn key(&mut self, name: &str, values: impl IntoIterator<Item = String>) {
        let values: Vec<String> = values.into_iter().collect();
        if !values.is_empty() {
            self.keys.insert(name.to_ascii_lowercase(), values);
        }
    }

    /// Whether the trust policy lets it do `action`: some statement allows it, and none denies it.
    pub(super) fn may(&self, action: &str, policy: &Value) -> bool {
        let any = |effect: &str| {
            let mut statements = many(&policy["Statement"]).into_iter();
            statements.any(|it| it["Effect"] == effect && self.is_meant_by(it, action))
        };
        any("Allow") && !any("Deny")
    }

    fn is_meant_by(&self, statement: &Value, action: &str) -> bool {
        let actions = texts(&statement["Action"]);
        let conditions = statement["Condition"].as_object();
        let mut conditions = conditions.into_iter().flatten();
        actions.iter().any(|it| is_like(action, it))
            && self.is_principal(&statement["Principal"])
            && conditions.all(|(operator, keys)| {
                let mut keys = keys.as_object().expect("keys").iter();
                keys.all(|(key, values)| self.meets(operator, key, &texts(values)))
            })
    }

    fn is_principal(&self, principal: &Value) -> bool {
        match &self.who {
            Who::Aws(arn) => {
                let account = arn.split(':').nth(4).unwrap_or_default();
                let root = format!("arn:aws:iam::{account}:root");
                let mut named = texts(&principal["AWS"]).into_iter();
                *principal == "*" || named.any(|it| it == "*" || it == *arn || it == root)
            }
            Who::Federated(provider) => texts(&principal["Federated"]).contains(provider),
        }
    }

    /// <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_elements_condition_operators.html>
    fn meets(&self, operator: &str, key: &str, wanted: &[String]) -> bool {
        let values = self.keys.get(&key.to_ascii_lowercase());
        let (set, operator) = match operator.split_once(':') {
            Some((set, operator)) => (Some(set), operator),
            None => (None, operator),
        };
        if operator == "Null" {
            return wanted.contains(&values.is_none().to_string());
        }
        let (operator, if_exists) = match operator.strip_suffix("IfExists") {
            Some(operator) => (operator, true),
            None => (operator, false),
        };
        let (equals, negated): (fn(&str, &str) -> bool, bool) = match operator {
            "StringEquals" => (|value, wanted| value == wanted, false),
            "StringNotEquals" => (|value, wanted| value == wanted, true),
            "StringEqualsIgnoreCase" => (str::eq_ignore_ascii_case, false),
            "StringLike" => (is_like, false),
            "StringNotLike" => (is_like, true),
            other => panic!("this stand-in knows no operator {other:?}"),
        };
        let is = |value: &String| wanted.iter().any(|it| equals(value, it)) != negated;
        match (set, values) {
            (Some("ForAllValues"), None) => true,
            (Some("ForAllValues"), Some(values)) => values.iter().all(is),
            (Some("ForAnyValue"), None) => if_exists,
            (Some("ForAnyValue"), Some(values)) => values.iter().any(is),
            (Some(other), _) => panic!("this stand-in knows no {other:?}"),
            (None, None) => if_exists || negated,
            // Without a set operator a key with several values is compared with nothing.
            (None, Some(values)) => values.len() == 1 && values.iter().all(is),
        }
    }
}

fn many(value: &Value) -> Vec<&Value> {
    match value {
        Value::Null => Vec::new(),
        Value::Array(all) => all.iter().collect(),
        one => vec![one],
    }
}

fn texts(value: &Value) -> Vec<String> {
    let text = |value: &Value| match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    many(value).into_iter().map(text).collect()
}

/// `*` stands for any characters, `?` for one.
fn is_like(value: &str, pattern: &str) -> bool {
    let (value, pattern): (Vec<char>, Vec<char>) =
        (value.chars().collect(), pattern.chars().collect());
    fn rest(value: &[char], pattern: &[char]) -> bool {
        match pattern.split_first() {
            None => value.is_empty(),
            Some(('*', more)) => (0..=value.len()).any(|n| rest(&value[n..], more)),
            Some((one, more)) => value
                .split_first()
                .is_some_and(|(first, left)| (*one == '?' || one == first) && rest(left, more)),
        }
    }
    rest(&value, &pattern)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const USER: &str = "arn:aws:iam::123456789012:user/agent";

    fn allows(condition: Value, keys: &[(&str, &[&str])]) -> bool {
        let policy = json!({"Statement": {
            "Effect": "Allow",
            "Action": "sts:AssumeRole",
            "Principal": {"AWS": USER},
            "Condition": condition,
        }});
        let mut asks = Asks::of(Who::Aws(USER.to_owned()));
        for (key, values) in keys {
            asks.key(key, values.iter().map(|it| (*it).to_owned()));
        }
        asks.may("sts:AssumeRole", &policy)
    }

    #[test]
    fn conditions_are_met_as_iam_documents_them() {
        let equals = json!({"StringEquals": {"sts:SourceIdentity": ["a", "b"]}});
        assert!(allows(equals.clone(), &[("sts:sourceidentity", &["b"])]));
        assert!(!allows(equals.clone(), &[("sts:SourceIdentity", &["c"])]));
        assert!(!allows(equals, &[]));
        let not = json!({"StringNotEquals": {"k": "a"}});
        assert!(allows(not.clone(), &[]) && allows(not.clone(), &[("k", &["b"])]));
        assert!(!allows(not, &[("k", &["a"])]));
        let like = json!({"StringLike": {"k": "a*c?"}});
        assert!(allows(like.clone(), &[("k", &["abbbcd"])]));
        assert!(!allows(like, &[("k", &["abbbc"])]));
        let all = json!({"ForAllValues:StringEquals": {"k": ["a", "b"]}});
        assert!(allows(all.clone(), &[]) && allows(all.clone(), &[("k", &["a", "b"])]));
        assert!(!allows(all, &[("k", &["a", "c"])]));
        let any = json!({"ForAnyValue:StringEquals": {"k": "a"}});
        assert!(allows(any.clone(), &[("k", &["a", "c"])]) && !allows(any, &[]));
        let absent = json!({"Null": {"k": "true"}});
        assert!(allows(absent.clone(), &[]) && !allows(absent, &[("k", &["a"])]));
        let several = json!({"StringEquals": {"k": ["a", "b"]}});
        assert!(!allows(several, &[("k", &["a", "b"])]));
    }

    #[test]
    fn a_denial_outweighs_what_is_allowed_and_others_are_not_meant() {
        let asks = Asks::of(Who::Aws(USER.to_owned()));
        let statement = |effect: &str, who: &str, action: &str| json!({"Effect": effect, "Principal": {"AWS": who}, "Action": action});
        let root = "arn:aws:iam::123456789012:root";
        for (statements, expected) in [
            (vec![statement("Allow", root, "sts:*")], true),
            (vec![statement("Allow", USER, "sts:TagSession")], false),
            (
                vec![statement(
                    "Allow",
                    "arn:aws:iam::123456789012:user/other",
                    "sts:*",
                )],
                false,
            ),
            (
                vec![
                    statement("Allow", USER, "sts:*"),
                    statement("Deny", root, "sts:AssumeRole"),
                ],
                false,
            ),
        ] {
            assert_eq!(
                asks.may("sts:AssumeRole", &json!({"Statement": statements})),
                expected
            );
        }
    }
}
