//! A request of Cognito's API, read as far as its hash needs it, and written again with the hash. Pure.
//!
//! Read strictly: two readings of one body would be two requests. Every other member stays as it was written, byte for
//! byte.

use std::fmt;

use serde::{
    Deserialize,
    de::{Deserializer, MapAccess, Visitor},
};
use serde_json::value::RawValue;
use warifu::jwt::json;

use crate::outbound::refusal::Refusal;

/// Prefix of `x-amz-target`.
const SERVICE: &str = "AWSCognitoIdentityProviderService.";

/// Cognito's own limit of a user name.
const MAX_USERNAME: usize = 128;

/// What may be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    /// The hash and the user name are parameters of the flow.
    InitiateAuth,
    /// They are responses to the challenge.
    RespondToAuthChallenge,
    /// They stand beside the client's id: SignUp and its kin.
    OfUser,
}

/// A request, as it came.
#[derive(Debug)]
pub(super) struct Request<'a> {
    action: Action,
    members: Members<'a>,
    /// Those of the object that has the hash, where it is one below.
    inner: Option<Members<'a>>,
    client_id: String,
    username: String,
}

/// The members of an object, in their order.
#[derive(Debug)]
struct Members<'a>(Vec<(String, &'a RawValue)>);

/// Reads `body` as a request of `target` (an `x-amz-target`), and writes it with `hash`: what the fuzzer calls.
///
/// `None` where it is refused.
pub fn rewrite(target: &str, body: &[u8], hash: &str) -> Option<String> {
    let request = Request::read(Action::of_target(target)?, body).ok()?;
    Some(request.with_hash(hash))
}

impl Action {
    pub(super) fn of_target(target: &str) -> Option<Self> {
        match target.strip_prefix(SERVICE)? {
            "InitiateAuth" => Some(Self::InitiateAuth),
            "RespondToAuthChallenge" => Some(Self::RespondToAuthChallenge),
            "SignUp"
            | "ConfirmSignUp"
            | "ForgotPassword"
            | "ConfirmForgotPassword"
            | "ResendConfirmationCode" => Some(Self::OfUser),
            _ => None,
        }
    }

    /// The object that has user name and hash, where it is not the request itself.
    fn inner(self) -> Option<&'static str> {
        match self {
            Self::InitiateAuth => Some("AuthParameters"),
            Self::RespondToAuthChallenge => Some("ChallengeResponses"),
            Self::OfUser => None,
        }
    }

    fn username(self) -> &'static str {
        match self {
            Self::InitiateAuth | Self::RespondToAuthChallenge => "USERNAME",
            Self::OfUser => "Username",
        }
    }

    fn hash(self) -> &'static str {
        match self {
            Self::InitiateAuth | Self::RespondToAuthChallenge => "SECRET_HASH",
            Self::OfUser => "SecretHash",
        }
    }
}

impl<'a> Request<'a> {
    /// # Errors
    /// [`Refusal::CognitoBody`].
    pub(super) fn read(action: Action, body: &'a [u8]) -> Result<Self, Refusal> {
        let wrong = Refusal::CognitoBody;
        // Everywhere, also in what is passed on as it is: no two members of one name, and nothing nested for ever.
        json::parse_object(body).map_err(|_| {
            wrong("it is not one JSON object whose members have names of their own")
        })?;
        let members: Members<'a> =
            serde_json::from_slice(body).map_err(|_| wrong("it is not a JSON object"))?;
        let client_id = members
            .text("ClientId")
            .ok_or(wrong("it has no ClientId that is a text"))?;
        let inner = match action.inner() {
            None => None,
            Some(name) => {
                let object = members.get(name).map(RawValue::get);
                let object: Option<Members<'a>> =
                    object.and_then(|object| serde_json::from_str(object).ok());
                Some(object.ok_or(wrong(
                    "it has no object AuthParameters (InitiateAuth) or ChallengeResponses",
                ))?)
            }
        };
        let holder = inner.as_ref().unwrap_or(&members);
        let username = holder.text(action.username());
        let username = username.filter(|it| (1..=MAX_USERNAME).contains(&it.chars().count()));
        let username = username.ok_or(wrong(
                "it has no user name of 1 to 128 characters, which the hash is of: Username, or USERNAME among \
                 AuthParameters or ChallengeResponses; with REFRESH_TOKEN, too, where it is the `username` of the \
                 access token that came with it",
        ))?;
        Ok(Self {
            action,
            members,
            inner,
            client_id,
            username,
        })
    }

    pub(super) fn client_id(&self) -> &str {
        &self.client_id
    }

    pub(super) fn username(&self) -> &str {
        &self.username
    }

    /// The request with `hash` in place of what it had.
    pub(super) fn with_hash(&self, hash: &str) -> String {
        let hash = (self.action.hash(), quoted(hash));
        match (&self.inner, self.action.inner()) {
            (Some(inner), Some(name)) => {
                let inner = inner.with(hash.0, &hash.1);
                self.members.with(name, &inner)
            }
            _ => self.members.with(hash.0, &hash.1),
        }
    }
}

impl<'a> Members<'a> {
    fn get(&self, name: &str) -> Option<&'a RawValue> {
        let found = self.0.iter().find(|(it, _)| it == name);
        found.map(|(_, value)| *value)
    }

    fn text(&self, name: &str) -> Option<String> {
        serde_json::from_str(self.get(name)?.get()).ok()
    }

    /// As an object, with `value` for `name`: in its place, or as the last.
    fn with(&self, name: &str, value: &str) -> String {
        let mut text = String::from("{");
        let mut put = |name: &str, value: &str| {
            if text.len() > 1 {
                text.push(',');
            }
            text.push_str(&quoted(name));
            text.push(':');
            text.push_str(value);
        };
        let mut replaced = false;
        for (it, old) in &self.0 {
            let is_it = it == name;
            replaced |= is_it;
            put(it, if is_it { value } else { old.get() });
        }
        if !replaced {
            put(name, value);
        }
        text.push('}');
        text
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = access.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(InOrder)
    }
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn target(action: &str) -> String {
        format!("{SERVICE}{action}")
    }

    fn hashed(action: &str, body: &str) -> Option<String> {
        rewrite(&target(action), body.as_bytes(), "H4sh=")
    }

    #[test]
    fn the_hash_goes_where_each_action_has_it_and_all_else_stays_as_it_was_written() {
        for (action, body, expected) in [
            (
                "InitiateAuth",
                r#"{ "ClientId":"c", "AuthParameters":{"USERNAME":"u", "PASSWORD":"p\u0041"}, "x":1.50e3 }"#,
                r#"{"ClientId":"c","AuthParameters":{"USERNAME":"u","PASSWORD":"p\u0041","SECRET_HASH":"H4sh="},"x":1.50e3}"#,
            ),
            (
                "RespondToAuthChallenge",
                r#"{"ChallengeResponses":{"SECRET_HASH":"mine","USERNAME":"u"},"ClientId":"c","Session":"s"}"#,
                r#"{"ChallengeResponses":{"SECRET_HASH":"H4sh=","USERNAME":"u"},"ClientId":"c","Session":"s"}"#,
            ),
            (
                "SignUp",
                r#"{"ClientId":"c","Username":"u","SecretHash":null,"UserAttributes":[{"Name": "a"}]}"#,
                r#"{"ClientId":"c","Username":"u","SecretHash":"H4sh=","UserAttributes":[{"Name": "a"}]}"#,
            ),
        ] {
            assert_eq!(hashed(action, body).as_deref(), Some(expected), "{action}");
        }
        for action in [
            "ConfirmSignUp",
            "ForgotPassword",
            "ConfirmForgotPassword",
            "ResendConfirmationCode",
        ] {
            let hashed = hashed(action, r#"{"ClientId":"c","Username":"u"}"#).unwrap();
            assert_eq!(
                hashed,
                r#"{"ClientId":"c","Username":"u","SecretHash":"H4sh="}"#
            );
        }
    }

    #[test]
    fn s05_other_actions_are_refused_whatever_their_body() {
        let body = json!({"ClientId": "c", "Username": "u", "AuthParameters": {"USERNAME": "u"}});
        let body = body.to_string();
        for action in [
            "AdminInitiateAuth",
            "AdminGetUser",
            "GetUser",
            "DescribeUserPoolClient",
            "RevokeToken",
            "GetTokensFromRefreshToken",
            "initiateauth",
            "InitiateAuth ",
            "",
        ] {
            assert_eq!(hashed(action, &body), None, "{action}");
        }
        assert!(rewrite("InitiateAuth", body.as_bytes(), "x").is_none());
        assert!(hashed("InitiateAuth", &body).is_some());
    }

    #[test]
    fn a_body_that_can_be_read_in_two_ways_or_names_nobody_is_refused() {
        for (action, body) in [
            (
                "InitiateAuth",
                r#"{"ClientId":"c","AuthParameters":{"REFRESH_TOKEN":"t"}}"#,
            ),
            ("InitiateAuth", r#"{"ClientId":"c","Username":"u"}"#),
            ("InitiateAuth", r#"{"ClientId":"c","AuthParameters":null}"#),
            (
                "InitiateAuth",
                r#"{"ClientId":"c","AuthParameters":{"USERNAME":1}}"#,
            ),
            ("SignUp", r#"{"ClientId":"c"}"#),
            ("SignUp", r#"{"ClientId":"c","Username":""}"#),
            ("SignUp", r#"{"ClientId":1,"Username":"u"}"#),
            ("SignUp", r#"{"Username":"u"}"#),
            (
                "SignUp",
                r#"{"ClientId":"c","Username":"u","Username":"v"}"#,
            ),
            (
                "SignUp",
                r#"{"ClientId":"c","ClientI\u0064":"d","Username":"u"}"#,
            ),
            (
                "SignUp",
                r#"{"ClientId":"c","Username":"u","x":{"y":1,"y":2}}"#,
            ),
            ("SignUp", r#"{"ClientId":"c","Username":"u"} {}"#),
            ("SignUp", r#"[{"ClientId":"c","Username":"u"}]"#),
            ("SignUp", ""),
        ] {
            assert_eq!(hashed(action, body), None, "{body}");
        }
        let long = json!({"ClientId": "c", "Username": "u".repeat(129)}).to_string();
        assert_eq!(hashed("SignUp", &long), None);
    }

    proptest! {
        #[test]
        fn only_the_hash_differs(
            name in "\\PC{1,20}",
            others in proptest::collection::btree_map("[a-z]{1,6}", "\\PC{0,10}", 0..6),
        ) {
            let mut body = json!({"ClientId": "c", "Username": name});
            for (key, value) in others {
                body[key] = json!({ "v": value });
            }
            let hashed = hashed("SignUp", &body.to_string()).unwrap();
            let mut hashed: Value = serde_json::from_str(&hashed).unwrap();
            let hash = hashed.as_object_mut().unwrap().remove("SecretHash");
            prop_assert_eq!(hash, Some(json!("H4sh=")));
            prop_assert_eq!(hashed, body);
        }
    }
}
