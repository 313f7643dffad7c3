//! Tokens, by who issues them and what they look like.

use std::path::PathBuf;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Deserialize;
use warifu::TrustDomain;

use crate::config::value::{self, As, SecretRef, Span, Upstream, name};

/// A token, by profile.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "JwtFields")]
pub struct JwtAccept {
    /// What rules and audit lines call it.
    pub name: String,
    /// What kind of token, and all that is pinned of it.
    pub profile: JwtProfile,
    /// Longest life (`exp` − `iat`) of a token; the profile's own where absent.
    pub max_lifetime: Option<Span>,
    /// What is asked of tokens that are bound to a certificate, and of those that are not.
    pub bound_certificate: BoundCertificate,
}

/// Kinds of token, each with what it must pin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JwtProfile {
    /// `jwt-svid`, verified with the trust domain's bundle.
    JwtSvid {
        /// Audiences that mean us.
        audiences: Vec<String>,
        /// Whose tokens; those of the agent's own trust domain where empty.
        trust_domains: Vec<TrustDomain>,
    },
    /// `at+jwt`: an OAuth access token (RFC 9068), of the authority or any other issuer.
    AccessToken {
        /// Who issues it.
        issuer: Issuer,
        /// Audiences that mean us.
        audiences: Vec<String>,
    },
    /// `cognito-access`: an access token of a user pool. It has no audience.
    CognitoAccess {
        /// The user pool.
        issuer: Issuer,
        /// App clients whose tokens are accepted.
        client_ids: Vec<String>,
    },
    /// `cognito-id`: an ID token of a user pool.
    CognitoId {
        /// The user pool.
        issuer: Issuer,
        /// App clients whose tokens are accepted.
        client_ids: Vec<String>,
    },
    /// `alb`: what an Application Load Balancer says of the user it signed in, in `x-amzn-oidc-data`.
    Alb(LoadBalancer),
    /// `kubernetes`: a projected service-account token.
    Kubernetes {
        /// The cluster.
        issuer: Issuer,
        /// Audiences that mean us.
        audiences: Vec<String>,
    },
    /// `oidc`: a token of any other issuer.
    Oidc {
        /// Who issues it.
        issuer: Issuer,
        /// Audiences that mean us.
        audiences: Vec<String>,
        /// Algorithms it signs with.
        algorithms: Vec<warifu::jwt::Algorithm>,
    },
    /// `hs256`: a token made with a secret that we have, too.
    Hs256 {
        /// `iss`, as its tokens have it.
        issuer: String,
        /// Audiences that mean us.
        audiences: Vec<String>,
        /// The secret, of 32 bytes or more.
        secret: SecretRef,
    },
}

/// Who issues a token, and where its keys are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issuer {
    /// `iss`, byte for byte.
    pub url: String,
    /// Its keys, where its discovery document does not say or cannot be reached.
    pub jwks_uri: Option<Upstream>,
    /// PEM file of the CAs of its TLS certificate; the Web PKI where absent.
    pub ca_bundle: Option<PathBuf>,
}

/// An Application Load Balancer, and what it may say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadBalancer {
    /// Who signed the user in.
    pub issuer: String,
    /// The load balancers, by ARN.
    pub signers: Vec<String>,
    /// Clients as which they signed the user in.
    pub client_ids: Vec<String>,
    /// Where its keys are, by `kid`; AWS's place for the region where absent.
    pub keys_url: Option<Upstream>,
    /// PEM file of the CAs of that place's TLS certificate; the Web PKI where absent.
    pub ca_bundle: Option<PathBuf>,
}

/// What is asked of tokens that are bound to a client certificate (RFC 8705), and of those that are not.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum BoundCertificate {
    /// A bound token comes with its certificate.
    #[default]
    Checked,
    /// The same, and a token that is bound to none is refused.
    Required,
}

/// A token by profile, as it is written.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "JwtAccept")]
struct JwtFields {
    /// Which kind of token: `jwt-svid`, `at+jwt`, `cognito-access`, `cognito-id`, `alb`, `kubernetes`, `oidc`, `hs256`.
    profile: ProfileName,
    /// What rules and audit lines call it; the profile's name where absent.
    #[serde(default, deserialize_with = "value::option::<name::AcceptName, _>")]
    #[schemars(with = "Option<As<name::AcceptName>>")]
    name: Option<String>,
    /// All but `jwt-svid`: the issuer, exactly as its tokens have it.
    #[serde(default, deserialize_with = "value::option::<name::Issuer, _>")]
    #[schemars(with = "Option<As<name::Issuer>>")]
    issuer: Option<String>,
    /// `jwt-svid`, `at+jwt`, `kubernetes`, `oidc`, `hs256`: audiences that mean us.
    #[serde(default, deserialize_with = "value::list::<name::CallAudience, _>")]
    #[schemars(with = "Vec<As<name::CallAudience>>")]
    audiences: Vec<String>,
    /// `jwt-svid`: whose tokens; those of the agent's own trust domain where empty.
    #[serde(default, deserialize_with = "value::list::<name::Domain, _>")]
    #[schemars(with = "Vec<As<name::Domain>>")]
    trust_domains: Vec<TrustDomain>,
    /// `cognito-access`, `cognito-id`, `alb`: clients whose tokens are accepted.
    #[serde(default, deserialize_with = "value::list::<name::ClientId, _>")]
    #[schemars(with = "Vec<As<name::ClientId>>")]
    client_ids: Vec<String>,
    /// `alb`: the load balancers, by ARN.
    #[serde(default, deserialize_with = "value::list::<name::AlbArn, _>")]
    #[schemars(with = "Vec<As<name::AlbArn>>")]
    signers: Vec<String>,
    /// `oidc`: algorithms that its tokens are signed with.
    #[serde(default, deserialize_with = "value::list::<name::JwsAlgorithm, _>")]
    #[schemars(with = "Vec<As<name::JwsAlgorithm>>")]
    algorithms: Vec<warifu::jwt::Algorithm>,
    /// `hs256`: the secret, of 32 bytes or more.
    secret: Option<SecretRef>,
    /// Where the issuer's keys are, where its discovery document does not say or cannot be reached. `alb`: the
    /// place under which its keys are, by `kid`.
    jwks_uri: Option<Upstream>,
    /// PEM file of the CAs of the TLS certificate of where the keys are; the Web PKI where absent.
    #[serde(default, deserialize_with = "value::option::<name::AbsolutePath, _>")]
    #[schemars(with = "Option<As<name::AbsolutePath>>")]
    ca_bundle: Option<PathBuf>,
    /// Longest life of a token, from `iat` to `exp`.
    max_lifetime: Option<Span>,
    /// Whether a token must be bound to the caller's certificate (`cnf.x5t#S256`, RFC 8705). One that is bound must
    /// always come with it.
    #[serde(default)]
    bound_certificate: BoundCertificate,
}

#[derive(Deserialize, JsonSchema, Clone, Copy, PartialEq)]
#[serde(rename_all = "kebab-case")]
enum ProfileName {
    /// A JWT-SVID.
    JwtSvid,
    /// An OAuth access token (RFC 9068).
    #[serde(rename = "at+jwt")]
    AccessToken,
    /// An access token of a Cognito user pool.
    CognitoAccess,
    /// An ID token of a Cognito user pool.
    CognitoId,
    /// What an Application Load Balancer says of a user.
    Alb,
    /// A projected service-account token.
    Kubernetes,
    /// A token of any other issuer.
    Oidc,
    /// A token made with a shared secret.
    Hs256,
}

impl JsonSchema for JwtAccept {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        JwtFields::schema_name()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        JwtFields::json_schema(generator)
    }
}

impl JwtProfile {
    /// Its name in the configuration, and what a caller's proof is called.
    pub fn name(&self) -> &'static str {
        match self {
            Self::JwtSvid { .. } => "jwt-svid",
            Self::AccessToken { .. } => "at+jwt",
            Self::CognitoAccess { .. } => "cognito-access",
            Self::CognitoId { .. } => "cognito-id",
            Self::Alb(_) => "alb",
            Self::Kubernetes { .. } => "kubernetes",
            Self::Oidc { .. } => "oidc",
            Self::Hs256 { .. } => "hs256",
        }
    }

    /// Who issues it, by `iss`; a JWT-SVID needs none.
    pub fn issuer(&self) -> Option<&str> {
        match self {
            Self::JwtSvid { .. } => None,
            Self::AccessToken { issuer, .. }
            | Self::CognitoAccess { issuer, .. }
            | Self::CognitoId { issuer, .. }
            | Self::Kubernetes { issuer, .. }
            | Self::Oidc { issuer, .. } => Some(&issuer.url),
            Self::Alb(balancer) => Some(&balancer.issuer),
            Self::Hs256 { issuer, .. } => Some(issuer),
        }
    }
}

impl ProfileName {
    fn name(self) -> &'static str {
        match self {
            Self::JwtSvid => "jwt-svid",
            Self::AccessToken => "at+jwt",
            Self::CognitoAccess => "cognito-access",
            Self::CognitoId => "cognito-id",
            Self::Alb => "alb",
            Self::Kubernetes => "kubernetes",
            Self::Oidc => "oidc",
            Self::Hs256 => "hs256",
        }
    }

    /// The keys that this profile has beside those that all have.
    fn keys(self) -> &'static [&'static str] {
        match self {
            Self::JwtSvid => &["audiences", "trust_domains"],
            Self::AccessToken | Self::Kubernetes => {
                &["issuer", "audiences", "jwks_uri", "ca_bundle"]
            }
            Self::CognitoAccess | Self::CognitoId => {
                &["issuer", "client_ids", "jwks_uri", "ca_bundle"]
            }
            Self::Alb => &["issuer", "signers", "client_ids", "jwks_uri", "ca_bundle"],
            Self::Oidc => &["issuer", "audiences", "algorithms", "jwks_uri", "ca_bundle"],
            Self::Hs256 => &["issuer", "audiences", "secret"],
        }
    }
}

impl JwtFields {
    /// The first key that is there and that the profile has no use for.
    fn superfluous(&self) -> Option<&'static str> {
        let there = [
            ("issuer", self.issuer.is_some()),
            ("audiences", !self.audiences.is_empty()),
            ("trust_domains", !self.trust_domains.is_empty()),
            ("client_ids", !self.client_ids.is_empty()),
            ("signers", !self.signers.is_empty()),
            ("algorithms", !self.algorithms.is_empty()),
            ("secret", self.secret.is_some()),
            ("jwks_uri", self.jwks_uri.is_some()),
            ("ca_bundle", self.ca_bundle.is_some()),
        ];
        let keys = self.profile.keys();
        let mut wrong = there
            .into_iter()
            .filter(|(name, there)| *there && !keys.contains(name));
        wrong.next().map(|(name, _)| name)
    }

    /// What must be said, and was not, with an example.
    fn missing(&self) -> Option<(&'static str, &'static str)> {
        let needs = |key| self.profile.keys().contains(&key);
        [
            (
                "issuer",
                self.issuer.is_none(),
                "issuer: \"https://issuer.example.com\"",
            ),
            (
                "audiences",
                self.audiences.is_empty(),
                "audiences: [payments]: a token meant for another service must not pass here",
            ),
            (
                "client_ids",
                self.client_ids.is_empty(),
                "client_ids: [1example23456789]: a user pool's tokens do not say whom they are for",
            ),
            (
                "signers",
                self.signers.is_empty(),
                "signers: [\"arn:aws:elasticloadbalancing:eu-west-1:123456789012:loadbalancer/app/NAME/ID\"]: any \
                 load balancer of AWS signs with these keys",
            ),
            (
                "algorithms",
                self.algorithms.is_empty(),
                "algorithms: [RS256]",
            ),
            (
                "secret",
                self.secret.is_none(),
                "secret: \"file:/run/secrets/key\"",
            ),
        ]
        .into_iter()
        .find(|(key, absent, _)| *absent && needs(*key))
        .map(|(key, _, example)| (key, example))
    }
}

impl TryFrom<JwtFields> for JwtAccept {
    type Error = String;

    fn try_from(fields: JwtFields) -> Result<Self, String> {
        let profile = fields.profile.name();
        if let Some(key) = fields.superfluous() {
            let keys = fields.profile.keys().join(", ");
            return Err(format!(
                "with \"profile: {profile}\" there is no {key}; it has {keys}, and name, max_lifetime, bound_certificate"
            ));
        }
        if let Some((key, example)) = fields.missing() {
            return Err(format!(
                "with \"profile: {profile}\" the key \"{key}\" is required, such as {example}"
            ));
        }
        let JwtFields {
            audiences,
            client_ids,
            ..
        } = fields;
        // None is missing: that was looked at.
        let url = fields.issuer.unwrap_or_default();
        let issuer = Issuer {
            url: url.clone(),
            jwks_uri: fields.jwks_uri.clone(),
            ca_bundle: fields.ca_bundle.clone(),
        };
        let kind = match (fields.profile, fields.secret) {
            (ProfileName::JwtSvid, _) => JwtProfile::JwtSvid {
                audiences,
                trust_domains: fields.trust_domains,
            },
            (ProfileName::AccessToken, _) => JwtProfile::AccessToken { issuer, audiences },
            (ProfileName::CognitoAccess, _) => JwtProfile::CognitoAccess { issuer, client_ids },
            (ProfileName::CognitoId, _) => JwtProfile::CognitoId { issuer, client_ids },
            (ProfileName::Alb, _) => JwtProfile::Alb(LoadBalancer {
                issuer: url,
                signers: fields.signers,
                client_ids,
                keys_url: fields.jwks_uri,
                ca_bundle: fields.ca_bundle,
            }),
            (ProfileName::Kubernetes, _) => JwtProfile::Kubernetes { issuer, audiences },
            (ProfileName::Oidc, _) => JwtProfile::Oidc {
                issuer,
                audiences,
                algorithms: fields.algorithms,
            },
            (ProfileName::Hs256, Some(secret)) => JwtProfile::Hs256 {
                issuer: url,
                audiences,
                secret,
            },
            (ProfileName::Hs256, None) => return Err("the key \"secret\" is required".to_owned()),
        };
        Ok(Self {
            name: fields.name.unwrap_or_else(|| profile.to_owned()),
            profile: kind,
            max_lifetime: fields.max_lifetime,
            bound_certificate: fields.bound_certificate,
        })
    }
}
