//! `attestors`: how agents prove facts.

use std::{collections::BTreeMap, path::PathBuf};

use schemars::JsonSchema;
use serde::Deserialize;

use super::described_as_written;
use crate::config::value::{self, As, RolePattern, Upstream, name};

/// How agents prove facts.
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "AttestorFields")]
pub enum Attestor {
    /// `{kind: join-token}`.
    JoinToken,
    /// `{kind: aws-web-identity, issuers: {ACCOUNT: URL}, …}`.
    AwsWebIdentity(WebIdentityAttestor),
    /// `{kind: aws-caller-identity, accounts: […], …}`.
    AwsCallerIdentity(CallerIdentityAttestor),
    /// `{kind: kubernetes, issuer: …, audience: …, …}`.
    Kubernetes(KubernetesAttestor),
    /// `{kind: oidc, issuer: …, audience: …, …}`.
    Oidc(OidcAttestor),
}

/// Tokens of `sts:GetWebIdentityToken`.
#[derive(Debug, Clone)]
pub struct WebIdentityAttestor {
    /// Account → its issuer (`iam:GetOutboundWebIdentityFederationInfo`).
    pub issuers: BTreeMap<String, String>,
    /// The organisation every token must be of.
    pub org: Option<String>,
    /// Partitions whose accounts are admitted.
    pub partitions: Vec<String>,
    /// Roles (`ACCOUNT:role/NAME`, globs) whose trust policy admits EKS Pod Identity and nothing else:
    /// only their session tags say which pod it is.
    pub pod_identity_roles: Vec<RolePattern>,
}

/// Requests of `sts:GetCallerIdentity`, signed by the caller and sent by us.
#[derive(Debug, Clone)]
pub struct CallerIdentityAttestor {
    /// Accounts whose roles are admitted.
    pub accounts: Vec<String>,
    /// Partitions whose accounts are admitted: each numbers its accounts for itself.
    pub partitions: Vec<String>,
    /// Region → STS endpoint, where it is not the partition's usual one (`http://` for loopback only).
    pub sts_endpoints: BTreeMap<String, Upstream>,
}

/// Projected service-account tokens of one cluster.
#[derive(Debug, Clone)]
pub struct KubernetesAttestor {
    /// The cluster's issuer, as its tokens have it.
    pub issuer: String,
    /// The one audience that attests here.
    pub audience: String,
    /// Where the issuer's keys are, where OIDC discovery does not say or cannot be reached.
    pub jwks_url: Option<Upstream>,
    /// PEM file of the CAs that signed the issuer's TLS certificate; the Web PKI where absent.
    pub ca_file: Option<PathBuf>,
    /// Ask the cluster's API, which knows deleted pods.
    pub token_review: Option<TokenReview>,
}

/// The Kubernetes API's TokenReview.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TokenReview {
    /// The API server.
    pub url: Upstream,
    /// PEM file of its CA.
    #[serde(default, deserialize_with = "value::option::<name::AbsolutePath, _>")]
    #[schemars(with = "Option<As<name::AbsolutePath>>")]
    pub ca_file: Option<PathBuf>,
    /// The authority's own service-account token; read anew for each call, as the kubelet replaces it.
    #[serde(deserialize_with = "value::one::<name::AbsolutePath, _>")]
    #[schemars(with = "As<name::AbsolutePath>")]
    pub token_file: PathBuf,
}

/// Tokens of any OIDC issuer.
#[derive(Debug, Clone)]
pub struct OidcAttestor {
    /// The issuer, as its tokens have it.
    pub issuer: String,
    /// The one audience that attests here.
    pub audience: String,
    /// As for `kubernetes`.
    pub jwks_url: Option<Upstream>,
    /// As for `kubernetes`.
    pub ca_file: Option<PathBuf>,
    /// Fact → claim (`a.b` for a member of a member). `sub` is a fact always.
    pub facts: BTreeMap<String, String>,
}

/// An attestor, as it is written.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Attestor")]
struct AttestorFields {
    /// What an agent presents: `join-token`, `aws-web-identity`, `aws-caller-identity`, `kubernetes`, `oidc`.
    kind: AttestorKind,
    /// `aws-web-identity`: account → the issuer of its tokens
    /// (`aws iam get-outbound-web-identity-federation-info`).
    #[serde(default, deserialize_with = "value::map::<name::Issuer, _>")]
    #[schemars(with = "BTreeMap<String, As<name::Issuer>>")]
    issuers: BTreeMap<String, String>,
    /// `aws-web-identity`: the organisation every token must be of, such as `o-abc`.
    org: Option<String>,
    /// `aws-web-identity`: roles as `ACCOUNT:role/NAME` (globs) whose trust policy admits
    /// `pods.eks.amazonaws.com` and nothing else; for them the session tags of EKS Pod Identity are facts.
    #[serde(default)]
    pod_identity_roles: Vec<RolePattern>,
    /// `aws-caller-identity`: accounts whose roles are admitted.
    #[serde(default, deserialize_with = "value::list::<name::Account, _>")]
    #[schemars(with = "Vec<As<name::Account>>")]
    accounts: Vec<String>,
    /// `aws-web-identity`, `aws-caller-identity`: partitions whose accounts are admitted, `aws` unless others
    /// are named. Each numbers its accounts for itself.
    #[serde(default, deserialize_with = "value::list::<name::Partition, _>")]
    #[schemars(with = "Vec<As<name::Partition>>")]
    partitions: Vec<String>,
    /// `aws-caller-identity`: region → STS endpoint, where it is not the usual one.
    #[serde(default)]
    sts_endpoints: BTreeMap<String, Upstream>,
    /// `kubernetes`, `oidc`: the issuer, exactly as its tokens have it.
    #[serde(default, deserialize_with = "value::option::<name::Issuer, _>")]
    #[schemars(with = "Option<As<name::Issuer>>")]
    issuer: Option<String>,
    /// `kubernetes`, `oidc`: the one audience a token must have.
    #[serde(default, deserialize_with = "value::option::<name::Audience, _>")]
    #[schemars(with = "Option<As<name::Audience>>")]
    audience: Option<String>,
    /// `kubernetes`, `oidc`: the issuer's keys, where its discovery document does not say or cannot be reached.
    jwks_url: Option<Upstream>,
    /// `kubernetes`, `oidc`: PEM file of the CAs of the issuer's TLS certificate; the Web PKI where absent.
    #[serde(default, deserialize_with = "value::option::<name::AbsolutePath, _>")]
    #[schemars(with = "Option<As<name::AbsolutePath>>")]
    ca_file: Option<PathBuf>,
    /// `kubernetes`: ask the cluster's API about each token, too.
    token_review: Option<TokenReview>,
    /// `oidc`: fact → claim (`a.b` for a member of a member).
    #[serde(default)]
    facts: BTreeMap<String, String>,
}

#[derive(Deserialize, JsonSchema, Clone, Copy, PartialEq)]
#[serde(rename_all = "kebab-case")]
enum AttestorKind {
    /// A single-use token made by `warifu authority join-token`.
    JoinToken,
    /// A token of `sts:GetWebIdentityToken`.
    AwsWebIdentity,
    /// A signed request of `sts:GetCallerIdentity`.
    AwsCallerIdentity,
    /// A projected service-account token.
    Kubernetes,
    /// A token of any OIDC issuer.
    Oidc,
}

described_as_written!(Attestor => AttestorFields);

impl AttestorKind {
    fn name(self) -> &'static str {
        match self {
            Self::JoinToken => "join-token",
            Self::AwsWebIdentity => "aws-web-identity",
            Self::AwsCallerIdentity => "aws-caller-identity",
            Self::Kubernetes => "kubernetes",
            Self::Oidc => "oidc",
        }
    }
}

impl AttestorFields {
    /// The first field that this kind of attestor has no use for.
    fn superfluous(&self) -> Option<&'static str> {
        use AttestorKind::{AwsCallerIdentity, AwsWebIdentity, Kubernetes, Oidc};
        let tokens = [Kubernetes, Oidc].as_slice();
        let fields = [
            (
                "issuers",
                !self.issuers.is_empty(),
                [AwsWebIdentity].as_slice(),
            ),
            ("org", self.org.is_some(), &[AwsWebIdentity]),
            (
                "pod_identity_roles",
                !self.pod_identity_roles.is_empty(),
                &[AwsWebIdentity],
            ),
            ("accounts", !self.accounts.is_empty(), &[AwsCallerIdentity]),
            (
                "partitions",
                !self.partitions.is_empty(),
                &[AwsWebIdentity, AwsCallerIdentity],
            ),
            (
                "sts_endpoints",
                !self.sts_endpoints.is_empty(),
                &[AwsCallerIdentity],
            ),
            ("issuer", self.issuer.is_some(), tokens),
            ("audience", self.audience.is_some(), tokens),
            ("jwks_url", self.jwks_url.is_some(), tokens),
            ("ca_file", self.ca_file.is_some(), tokens),
            ("token_review", self.token_review.is_some(), &[Kubernetes]),
            ("facts", !self.facts.is_empty(), &[Oidc]),
        ];
        let mut wrong = fields
            .iter()
            .filter(|(_, there, kinds)| *there && !kinds.contains(&self.kind));
        wrong.next().map(|(name, ..)| *name)
    }
}

impl TryFrom<AttestorFields> for Attestor {
    type Error = String;

    fn try_from(fields: AttestorFields) -> Result<Self, Self::Error> {
        let kind = fields.kind.name();
        if let Some(field) = fields.superfluous() {
            return Err(format!(
                "with \"kind: {kind}\" there is no {field}; remove it"
            ));
        }
        let missing = |field: &str, example: &str| {
            format!("with \"kind: {kind}\" the key \"{field}\" is required, such as {example}")
        };
        let issuer = |issuer: Option<String>| {
            issuer.ok_or_else(|| missing("issuer", "issuer: https://token.actions.example.com"))
        };
        let audience = |audience: Option<String>| {
            audience.ok_or_else(|| missing("audience", "audience: \"warifu:example.org:attest\""))
        };
        Ok(match fields.kind {
            AttestorKind::JoinToken => Self::JoinToken,
            AttestorKind::AwsWebIdentity if fields.issuers.is_empty() => {
                return Err(missing(
                    "issuers",
                    "issuers: {\"123456789012\": \"https://UUID.tokens.sts.global.api.aws\"}",
                ));
            }
            AttestorKind::AwsWebIdentity => Self::AwsWebIdentity(WebIdentityAttestor {
                issuers: fields.issuers,
                org: fields.org,
                partitions: partitions(fields.partitions),
                pod_identity_roles: fields.pod_identity_roles,
            }),
            AttestorKind::AwsCallerIdentity if fields.accounts.is_empty() => {
                return Err(missing("accounts", "accounts: [\"123456789012\"]"));
            }
            AttestorKind::AwsCallerIdentity => Self::AwsCallerIdentity(CallerIdentityAttestor {
                accounts: fields.accounts,
                partitions: partitions(fields.partitions),
                sts_endpoints: fields.sts_endpoints,
            }),
            AttestorKind::Kubernetes => Self::Kubernetes(KubernetesAttestor {
                issuer: issuer(fields.issuer)?,
                audience: audience(fields.audience)?,
                jwks_url: fields.jwks_url,
                ca_file: fields.ca_file,
                token_review: fields.token_review,
            }),
            AttestorKind::Oidc => Self::Oidc(OidcAttestor {
                issuer: issuer(fields.issuer)?,
                audience: audience(fields.audience)?,
                jwks_url: fields.jwks_url,
                ca_file: fields.ca_file,
                facts: fields.facts,
            }),
        })
    }
}

/// Those that are named, or the one that nearly everybody is in.
fn partitions(named: Vec<String>) -> Vec<String> {
    match named.is_empty() {
        true => vec!["aws".to_owned()],
        false => named,
    }
}
