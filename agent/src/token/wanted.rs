//! Which token.

use std::{borrow::Cow, collections::BTreeSet, time::Duration};

use crate::config::{
    outbound::{RouteAwsWebIdentity, WebIdentityAlgorithm},
    value::RoleRef,
};

use warifu::SpiffeId;

use super::oauth::Grant;

/// A token to be had. Two that are equal are one token: it is minted once for all who want it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Wanted {
    /// A JWT-SVID for exactly these audiences.
    JwtSvid {
        /// `aud`.
        audiences: Vec<String>,
        /// The further identity it is of; of the first where absent.
        of: Option<SpiffeId>,
    },
    /// An access token (RFC 9068).
    AccessToken {
        /// `aud`.
        audience: String,
        /// Of those the authority's rule grants; all of them where empty.
        scopes: BTreeSet<String>,
    },
    /// A provider's access token, for client credentials.
    Oauth(Box<Grant>),
    /// A token of AWS that says which role this is.
    AwsWebIdentity(AwsWebIdentity),
}

/// A token of `sts:GetWebIdentityToken`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AwsWebIdentity {
    /// `aud`, in any order.
    pub audiences: BTreeSet<String>,
    /// Whose; the base credentials' where absent.
    pub role: Option<RoleRef>,
    /// How long it lives at most.
    pub life: Duration,
    /// What it is signed with.
    pub algorithm: WebIdentityAlgorithm,
    /// Whose STS gives it.
    pub region: Option<String>,
}

impl From<&RouteAwsWebIdentity> for Wanted {
    fn from(route: &RouteAwsWebIdentity) -> Self {
        Self::AwsWebIdentity(AwsWebIdentity {
            audiences: route.audiences.iter().cloned().collect(),
            role: route.role.clone(),
            life: route.duration.0,
            algorithm: route.algorithm,
            region: route.region.clone(),
        })
    }
}

impl Wanted {
    /// A JWT-SVID for `audience` alone.
    pub fn jwt_svid(audience: &str) -> Self {
        Self::JwtSvid {
            audiences: vec![audience.to_owned()],
            of: None,
        }
    }

    /// An access token for `audience` with `scopes`, or all that the rule grants where there are none.
    pub fn access_token(audience: &str, scopes: impl IntoIterator<Item = String>) -> Self {
        Self::AccessToken {
            audience: audience.to_owned(),
            scopes: scopes.into_iter().collect(),
        }
    }

    /// Its audience, or all of them, for people.
    pub fn audience(&self) -> Cow<'_, str> {
        match self {
            Self::JwtSvid { audiences, .. } => match audiences.as_slice() {
                [one] => one.into(),
                several => several.join(", ").into(),
            },
            Self::AccessToken { audience, .. } => audience.into(),
            Self::Oauth(grant) => grant.target().into(),
            Self::AwsWebIdentity(AwsWebIdentity { audiences, .. }) => {
                let audiences: Vec<&str> = audiences.iter().map(String::as_str).collect();
                audiences.join(", ").into()
            }
        }
    }

    /// The scopes that are asked for.
    pub fn scopes(&self) -> Option<&BTreeSet<String>> {
        match self {
            Self::JwtSvid { .. } | Self::AwsWebIdentity(_) => None,
            Self::AccessToken { scopes, .. } => Some(scopes),
            Self::Oauth(grant) => Some(&grant.scopes),
        }
    }

    /// The further identity it is of, if it is not of the first.
    pub fn further(&self) -> Option<&SpiffeId> {
        match self {
            Self::JwtSvid { of, .. } => of.as_ref(),
            Self::AccessToken { .. } | Self::Oauth(_) | Self::AwsWebIdentity(_) => None,
        }
    }

    /// What it is, as the status page has it.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::JwtSvid { .. } => "jwt-svid",
            Self::AccessToken { .. } => "access-token",
            Self::Oauth(_) => "oauth",
            Self::AwsWebIdentity(_) => "aws-web-identity",
        }
    }
}
