//! `aws:` of both files.

use std::{collections::BTreeMap, fmt, path::PathBuf};

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{
    Deserialize, Deserializer,
    de::{self, MapAccess, Visitor, value::MapAccessDeserializer},
};

use super::{
    defaults,
    secretsmanager::SecretsManager,
    value::{self, As, RoleRef, SessionTemplate, Span, StsRegion, TagTemplate, Upstream, name},
};

/// AWS settings.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Aws {
    /// The region, where neither the environment nor a profile says.
    #[serde(default, deserialize_with = "value::option::<name::Region, _>")]
    #[schemars(with = "Option<As<name::Region>>")]
    pub region: Option<String>,
    /// Another STS endpoint (`http://` for loopback only).
    pub sts_endpoint: Option<Upstream>,
    /// Further regions whose STS is asked for role sessions, in this order, where the region's own fails (5xx) or does
    /// not answer. None are added by themselves.
    #[serde(default)]
    pub sts_failover: Vec<StsRegion>,
    /// How secrets that are named `secretsmanager:…` are read.
    #[serde(default)]
    pub secretsmanager: SecretsManager,
    /// Roles by name: what `role` may name elsewhere instead of an ARN.
    #[serde(default)]
    pub roles: BTreeMap<String, AwsRole>,
}

/// A role, and how it is assumed.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AwsRole {
    /// Its ARN.
    #[serde(deserialize_with = "value::one::<name::RoleArn, _>")]
    #[schemars(with = "As<name::RoleArn>")]
    pub arn: String,
    /// With what it is assumed.
    #[serde(default)]
    pub from: RoleFrom,
    /// The role session's name; `{path}` where absent.
    pub session_name: Option<SessionTemplate>,
    /// The trust policy's external id.
    #[serde(default, deserialize_with = "value::option::<name::ExternalId, _>")]
    #[schemars(with = "Option<As<name::ExternalId>>")]
    pub external_id: Option<String>,
    /// `SourceIdentity`: stays with the session, and with those that are assumed with it.
    pub source_identity: Option<SessionTemplate>,
    /// Session tags.
    #[serde(default)]
    pub tags: BTreeMap<String, TagTemplate>,
    /// Keys of `tags` that stay with sessions that are assumed with this one.
    #[serde(default)]
    pub transitive_tags: Vec<String>,
    /// A session policy: the session may do what both it and the role's policies allow.
    pub policy: Option<SessionPolicy>,
    /// Managed policies that limit the session as `policy` does.
    #[serde(default, deserialize_with = "value::list::<name::PolicyArn, _>")]
    #[schemars(with = "Vec<As<name::PolicyArn>>")]
    pub policy_arns: Vec<String>,
    /// The session's duration, 15 min to 12 h; 1 h at most where it is assumed with another role.
    #[serde(default = "defaults::role_session")]
    pub duration: Span,
}

/// What a role is assumed with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum RoleFrom {
    /// The base credentials.
    #[default]
    Base,
    /// Another role of `aws.roles` (role chaining).
    Role(String),
    /// A token: `AssumeRoleWithWebIdentity`.
    WebIdentity(WebIdentity),
}

/// A token that says who this is to AWS.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum WebIdentity {
    /// A file, read anew each time: a projected service-account token of Kubernetes, say.
    TokenFile(
        #[serde(deserialize_with = "value::one::<name::AbsolutePath, _>")]
        #[schemars(with = "As<name::AbsolutePath>")]
        PathBuf,
    ),
    /// A JWT-SVID of the authority for this audience.
    Audience(
        #[serde(deserialize_with = "value::one::<name::CallAudience, _>")]
        #[schemars(with = "As<name::CallAudience>")]
        String,
    ),
}

/// A session policy, as the JSON that AWS gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionPolicy(String);

impl Aws {
    /// The ARN of a role. `None` for a name that is none of `roles`, which the file's own check refuses.
    pub fn arn<'a>(&'a self, role: &'a RoleRef) -> Option<&'a str> {
        match role {
            RoleRef::Arn(arn) => Some(arn),
            RoleRef::Name(name) => self.roles.get(name).map(|role| role.arn.as_str()),
        }
    }
}

impl AwsRole {
    /// The role with this ARN, assumed with the base credentials and with nothing said of it.
    pub fn plain(arn: &str) -> Self {
        Self {
            arn: arn.to_owned(),
            from: RoleFrom::Base,
            session_name: None,
            external_id: None,
            source_identity: None,
            tags: BTreeMap::new(),
            transitive_tags: Vec::new(),
            policy: None,
            policy_arns: Vec::new(),
            duration: defaults::role_session(),
        }
    }
}

impl SessionPolicy {
    /// The JSON, without a space too many: its length counts.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<'de> Deserialize<'de> for SessionPolicy {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let policy = serde_json::Map::deserialize(deserializer)?;
        if !policy.contains_key("Statement") {
            return Err(de::Error::custom(
                "expected an IAM policy: {Version: \"2012-10-17\", Statement: [{Effect: Allow, Action: …, Resource: …}]}",
            ));
        }
        serde_json::to_string(&policy)
            .map(Self)
            .map_err(de::Error::custom)
    }
}

impl JsonSchema for SessionPolicy {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "SessionPolicy".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        schemars::json_schema!({
            "type": "object",
            "description": "an IAM policy: {Version, Statement}",
            "required": ["Statement"],
        })
    }
}

/// `{web_identity: …}`
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct FromToken {
    web_identity: WebIdentity,
}

impl<'de> Deserialize<'de> for RoleFrom {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;

        impl<'de> Visitor<'de> for Either {
            type Value = RoleFrom;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(
                    "base, the name of a role, {web_identity: {token_file: FILE}} or {web_identity: {audience: …}}",
                )
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<RoleFrom, E> {
                Ok(match text {
                    "base" => RoleFrom::Base,
                    name => RoleFrom::Role(name.to_owned()),
                })
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<RoleFrom, A::Error> {
                let FromToken { web_identity } =
                    FromToken::deserialize(MapAccessDeserializer::new(map))?;
                Ok(RoleFrom::WebIdentity(web_identity))
            }
        }

        deserializer.deserialize_any(Either)
    }
}

impl JsonSchema for RoleFrom {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "RoleFrom".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let token = generator.subschema_for::<FromToken>();
        schemars::json_schema!({
            "description": "base, the name of another role, or a token",
            "default": "base",
            "anyOf": [{"type": "string"}, token],
        })
    }
}
