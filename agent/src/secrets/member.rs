//! One member of a secret that is a JSON object: `secretsmanager:NAME#MEMBER`. The others are not kept.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, Visitor};
use warifu::Secret;

use super::VaultError;

/// The text of `member` in `json`.
///
/// # Errors
/// When it is no JSON object, or `member` is not exactly one text in it. Shows nothing of it.
pub(super) fn of(json: &Secret<String>, member: &str) -> Result<Secret<String>, VaultError> {
    let mut deserializer = serde_json::Deserializer::from_str(json.expose());
    let found = Member(member).deserialize(&mut deserializer);
    match found.and_then(|found| deserializer.end().map(|()| found)) {
        Ok(Some(text)) if !text.expose().is_empty() => Ok(text),
        // serde's own words might quote the value.
        _ => Err(VaultError {
            why: format!("its value is no JSON object with exactly one {member:?} that is a text"),
            refused: true,
        }),
    }
}

struct Member<'a>(&'a str);

impl<'de> DeserializeSeed<'de> for Member<'_> {
    type Value = Option<Secret<String>>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Member<'_> {
    type Value = Option<Secret<String>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some(name) = access.next_key::<String>()? {
            if name != self.0 {
                access.next_value::<IgnoredAny>()?;
                continue;
            }
            let text = Secret::new(access.next_value::<String>()?);
            if found.replace(text).is_some() {
                return Err(A::Error::custom("twice"));
            }
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s12_one_text_of_an_object_is_read_and_an_error_shows_nothing_of_it() {
        let read = |json: &str| of(&Secret::new(json.to_owned()), "client_secret");
        let json =
            r#"{"client_id": "a", "client_secret": "hunter2", "more": [{"client_secret": 1}]}"#;
        assert_eq!(read(json).unwrap().expose(), "hunter2");
        for wrong in [
            "hunter2",
            r#""hunter2""#,
            r#"{"secret": "hunter2"}"#,
            r#"{"client_secret": ["hunter2"]}"#,
            r#"{"client_secret": ""}"#,
            r#"{"client_secret": "hunter2", "client_secret": "hunter2"}"#,
            r#"{"client_secret": "hunter2"} hunter2"#,
            r#"{"client_secret": "hunter2""#,
        ] {
            let error = read(wrong).unwrap_err();
            assert!(error.refused && !error.why.contains("hunter2"), "{error:?}");
        }
    }
}
