//! What a token of each kind must look like. Everything a profile lets pass beyond [`STRICT`] is an exception to
//! S9 of the design, and stands here and nowhere else, with its reason.

use std::{borrow::Cow, time::Duration};

use super::{Algorithm, DEFAULT_SKEW};

/// What a token of one kind must look like. Made by the constructors below and nowhere else; a caller may
/// tighten what it got, and widen only `skew`, `algorithms` and `confirmation`, whose fields say what it takes on.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Profile {
    /// Allowed `typ` values, compared exactly; an empty string means "absent".
    pub typ: Vec<&'static str>,
    /// Allowed header members; any other refuses the token, `crit` and `jku` among them.
    pub header: &'static [&'static str],
    /// Algorithms this issuer pins.
    pub algorithms: Cow<'static, [Algorithm]>,
    /// Whether the token is signed with a secret we share with its issuer (HS256), and with nothing else:
    /// then `algorithms` is empty, and only [`verify_hs256`](super::verify_hs256) takes it.
    pub symmetric: bool,
    /// Required `iss`; `None` where the profile has none (JWT-SVID).
    pub issuer: Option<String>,
    /// The token must name at least one of these in `aud`.
    pub audiences: Vec<String>,
    /// How many audiences `aud` may name.
    pub audience_rule: AudienceRule,
    /// Where listed: `client_id` must be one of these.
    pub clients: Option<Vec<String>>,
    /// What `token_use` must be (Cognito).
    pub token_use: Option<&'static str>,
    /// What the header must say besides, where an Application Load Balancer signs.
    pub load_balancer: Option<LoadBalancer>,
    /// What `sub` must be.
    pub subject: SubjectRule,
    /// Claims that must be there beside `sub`, `aud` and `exp`.
    pub required: &'static [Required],
    /// Whether `exp`, `nbf` and `iat` may have a fraction (RFC 7519 allows it, JWT-SVID clients don't).
    pub fractional_dates: bool,
    /// Tolerated clock difference.
    pub skew: Duration,
    /// Longest time from `iat` to `exp`; where there is one, a token without `iat` is refused.
    pub max_lifetime: Option<Duration>,
    /// What becomes of a token that is bound to a key (`cnf`, RFC 7800).
    pub confirmation: Confirmation,
}

/// How many audiences `aud` may name. Whoever a token is for can present it to the others it is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AudienceRule {
    /// Any number up to [`MAX_AUDIENCES`](super::MAX_AUDIENCES), at least one of ours.
    OneOfThem,
    /// One, ours.
    OnlyOne,
    /// As `OneOfThem`, and `aud` may be absent: the issuer has none, and something else is pinned.
    MayBeAbsent,
}

/// What the `sub` of a token must be. It is never absent or empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SubjectRule {
    /// Any string of up to 2048 bytes.
    Text,
    /// A SPIFFE ID with a path, in canonical form.
    SpiffeId,
    /// `system:serviceaccount:NAMESPACE:NAME`, and the claim `kubernetes.io` names the same.
    ServiceAccount,
}

/// A claim that a profile demands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Required {
    /// `iat`.
    IssuedAt,
    /// `jti`.
    Id,
    /// `client_id`, a string that is not empty.
    ClientId,
}

/// What becomes of a token that is bound to a key (`cnf`). One that is bound to a key we can't check (DPoP's
/// `jkt`, a `jwk`) is refused by every profile: as a bearer token it is worth nothing (RFC 9449 §7.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Confirmation {
    /// It is refused: there is nothing here to hold it against.
    Refused,
    /// It may be bound to a certificate (`x5t#S256`, RFC 8705 §3.1). **Whoever says so compares**
    /// [`Claims::certificate_thumbprint`](super::Claims::certificate_thumbprint) with the certificate of the
    /// connection, and refuses the token where they differ or there is none.
    Certificate,
    /// `cnf` is whatever the signer put there, and whoever reads the document reads it: for documents that
    /// Warifu signs for itself.
    Document,
}

/// What the header of an Application Load Balancer's token must say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadBalancer {
    /// ARNs of load balancers; `signer` must be one. Its keys sign for every load balancer of the region.
    pub signers: Vec<String>,
    /// Clients at the identity provider; `client` must be one.
    pub clients: Vec<String>,
}

/// The header members of a JWT-SVID; we make no others anywhere.
const HEADER_MEMBERS: &[&str] = &["alg", "kid", "typ"];

/// The same, and a certificate by its thumbprint, which many issuers add and nobody looks at.
const HEADER_WITH_THUMBPRINT: &[&str] = &["alg", "kid", "typ", "x5t", "x5t#S256"];

/// The header members of an Application Load Balancer.
const HEADER_OF_ALB: &[&str] = &["alg", "client", "exp", "iss", "kid", "signer", "typ"];

/// The algorithms of the JWT-SVID specification.
const JWT_SVID_ALGORITHMS: &[Algorithm] = &[
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::ES512,
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
];

/// What API servers sign with: RSA keys always with RS256.
const KUBERNETES_ALGORITHMS: &[Algorithm] = &[
    Algorithm::RS256,
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::ES512,
];

/// What every profile starts from: nothing here is an exception to S9.
const STRICT: Profile = Profile {
    typ: Vec::new(),
    header: HEADER_MEMBERS,
    algorithms: Cow::Borrowed(JWT_SVID_ALGORITHMS),
    symmetric: false,
    issuer: None,
    audiences: Vec::new(),
    audience_rule: AudienceRule::OneOfThem,
    clients: None,
    token_use: None,
    load_balancer: None,
    subject: SubjectRule::Text,
    required: &[],
    fractional_dates: false,
    skew: DEFAULT_SKEW,
    max_lifetime: None,
    confirmation: Confirmation::Refused,
};

impl Profile {
    /// A JWT-SVID for one of `audiences`. `sub` must be a SPIFFE ID; the caller checks its trust
    /// domain against the keys it passed. `kid` is required, as every issuer and client has it.
    /// Exception: it need not have an `iss`, as the JWT-SVID specification has it.
    pub fn jwt_svid(audiences: Vec<String>) -> Self {
        Self {
            typ: vec!["JWT", "JOSE", ""],
            audiences,
            subject: SubjectRule::SpiffeId,
            ..STRICT
        }
    }

    /// A document Warifu signs for itself (attestation record, signed context): ES256, exactly this
    /// `typ`, `iss` and `aud`. Like every token it needs `sub` and `exp`. Exception: its `cnf` is ours to read.
    pub fn internal(
        typ: &'static str,
        issuer: impl Into<String>,
        audience: impl Into<String>,
    ) -> Self {
        Self {
            typ: vec![typ],
            algorithms: Cow::Borrowed(&[Algorithm::ES256]),
            issuer: Some(issuer.into()),
            audiences: vec![audience.into()],
            confirmation: Confirmation::Document,
            ..STRICT
        }
    }

    /// A token of `sts:GetWebIdentityToken` for `audience` alone. AWS signs it with RS256 or ES384, as
    /// its caller asked. How old it may be, whose account it is of, and that `sub` is a role, is for the
    /// caller to check, with [`aws::WebIdentity`](super::aws::WebIdentity).
    /// <https://docs.aws.amazon.com/IAM/latest/UserGuide/id_roles_providers_outbound_token_claims.html>
    pub fn aws_web_identity(issuer: impl Into<String>, audience: impl Into<String>) -> Self {
        Self {
            typ: vec!["JWT", ""],
            algorithms: Cow::Borrowed(&[Algorithm::RS256, Algorithm::ES384]),
            issuer: Some(issuer.into()),
            audiences: vec![audience.into()],
            audience_rule: AudienceRule::OnlyOne,
            required: &[Required::IssuedAt],
            ..STRICT
        }
    }

    /// What attests to the authority: an ID token or a Kubernetes service-account token that is for `audience`
    /// **alone**, by any of our algorithms. Exceptions as for [`oidc`](Self::oidc).
    pub fn oidc_evidence(issuer: impl Into<String>, audience: impl Into<String>) -> Self {
        Self {
            audience_rule: AudienceRule::OnlyOne,
            ..Self::oidc(issuer, vec![audience.into()], Algorithm::ALL)
        }
    }

    /// A token by which any issuer of OpenID Connect says who calls (Core §2), for one of `audiences`, signed
    /// with one of `algorithms`. Exceptions, because issuers in use have them: dates may have a fraction, and
    /// the header may name a certificate by its thumbprint (`x5t`), which nobody looks at.
    pub fn oidc(
        issuer: impl Into<String>,
        audiences: Vec<String>,
        algorithms: impl Into<Cow<'static, [Algorithm]>>,
    ) -> Self {
        Self {
            typ: vec!["JWT", ""],
            header: HEADER_WITH_THUMBPRINT,
            algorithms: algorithms.into(),
            issuer: Some(issuer.into()),
            audiences,
            required: &[Required::IssuedAt],
            fractional_dates: true,
            ..STRICT
        }
    }

    /// An OAuth access token (RFC 9068) for one of `audiences`, signed with one of `algorithms`. Its `typ` is
    /// spelt in either of the two ways of §4. Exception: the header may name a certificate by its thumbprint,
    /// as for [`oidc`](Self::oidc).
    pub fn access_token(
        issuer: impl Into<String>,
        audiences: Vec<String>,
        algorithms: impl Into<Cow<'static, [Algorithm]>>,
    ) -> Self {
        Self {
            typ: vec!["at+jwt", "application/at+jwt"],
            header: HEADER_WITH_THUMBPRINT,
            algorithms: algorithms.into(),
            issuer: Some(issuer.into()),
            audiences,
            required: &[Required::IssuedAt, Required::Id, Required::ClientId],
            ..STRICT
        }
    }

    /// An access token of a Cognito user pool, issued to one of `client_ids`; `issuer` is
    /// `https://cognito-idp.REGION.amazonaws.com/POOL`. Exception: Cognito puts no `aud` there, so `client_id`
    /// is pinned instead. One that has an `aud` is bound to a resource, and refused unless
    /// [`audiences`](Self::audiences) names that.
    /// <https://docs.aws.amazon.com/cognito/latest/developerguide/amazon-cognito-user-pools-using-the-access-token.html>
    pub fn cognito_access(issuer: impl Into<String>, client_ids: Vec<String>) -> Self {
        Self {
            audience_rule: AudienceRule::MayBeAbsent,
            clients: Some(client_ids),
            token_use: Some("access"),
            ..Self::cognito(issuer)
        }
    }

    /// An ID token of a Cognito user pool, whose only audience is one of `client_ids`.
    /// <https://docs.aws.amazon.com/cognito/latest/developerguide/amazon-cognito-user-pools-using-the-id-token.html>
    pub fn cognito_id(issuer: impl Into<String>, client_ids: Vec<String>) -> Self {
        Self {
            audiences: client_ids,
            audience_rule: AudienceRule::OnlyOne,
            token_use: Some("id"),
            ..Self::cognito(issuer)
        }
    }

    /// Cognito signs with RS256, and leaves `typ` out.
    fn cognito(issuer: impl Into<String>) -> Self {
        Self {
            typ: vec!["", "JWT"],
            algorithms: Cow::Borrowed(&[Algorithm::RS256]),
            issuer: Some(issuer.into()),
            required: &[Required::IssuedAt],
            ..STRICT
        }
    }

    /// What an Application Load Balancer says of a user it logged in (`x-amzn-oidc-data`). Exceptions, because
    /// load balancers are so: its base64url is padded; its header says `iss`, `client`, `exp` and `signer`; and it
    /// has no `aud`, so that `signer` and `client` are pinned instead. `iss` and `exp` of the header are held
    /// against the issuer and the clock, and again in the payload where they are there, too.
    /// <https://docs.aws.amazon.com/elasticloadbalancing/latest/application/listener-authenticate-users.html>
    pub fn alb(issuer: impl Into<String>, signers: Vec<String>, client_ids: Vec<String>) -> Self {
        Self {
            typ: vec!["JWT"],
            header: HEADER_OF_ALB,
            algorithms: Cow::Borrowed(&[Algorithm::ES256]),
            issuer: Some(issuer.into()),
            audience_rule: AudienceRule::MayBeAbsent,
            load_balancer: Some(LoadBalancer {
                signers,
                clients: client_ids,
            }),
            ..STRICT
        }
    }

    /// A projected service-account token of a Kubernetes cluster, for one of `audiences`.
    /// <https://kubernetes.io/docs/reference/access-authn-authz/service-accounts-admin/>
    pub fn kubernetes(issuer: impl Into<String>, audiences: Vec<String>) -> Self {
        Self {
            typ: vec!["", "JWT"],
            algorithms: Cow::Borrowed(KUBERNETES_ALGORITHMS),
            issuer: Some(issuer.into()),
            audiences,
            subject: SubjectRule::ServiceAccount,
            required: &[Required::IssuedAt],
            ..STRICT
        }
    }

    /// A token that its issuer signed with a secret it shares with us: HS256, and nothing else. Who can verify
    /// such a token can make one; prefer keys. Exception: `kid` may be missing, since there are no published
    /// keys to choose from.
    pub fn hs256(issuer: impl Into<String>, audiences: Vec<String>) -> Self {
        Self {
            typ: vec!["JWT", ""],
            algorithms: Cow::Borrowed(&[]),
            symmetric: true,
            issuer: Some(issuer.into()),
            audiences,
            ..STRICT
        }
    }
}
