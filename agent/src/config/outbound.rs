//! `outbound:` of the agent's file.

use schemars::JsonSchema;
use serde::Deserialize;
use warifu::SpiffeId;

use super::value::{self, As, HttpProxy, Listen, SecretRef, Upstream, name};

mod access_token;
mod aws_web_identity;
mod cognito;
mod jwt;
mod oauth;
mod secret_header;
mod sigv4;
mod tcp;
mod transport;

pub use access_token::RouteAccessToken;
pub use aws_web_identity::{RouteAwsWebIdentity, WebIdentityAlgorithm};
pub use cognito::RouteCognito;
pub use jwt::RouteJwt;
pub use oauth::{
    PrivateKeyJwt, RouteOauth, RouteOauthClient, RsaSigning, SpiffeJwt, TlsClientAuth,
};
pub use secret_header::RouteSecretHeader;
pub use sigv4::{RoutePresign, RouteSigV4};
pub use tcp::TcpRoute;
pub use transport::{Protocol, Retries, RouteTls, Timeouts};

/// The listener for calls from the app.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Outbound {
    /// Loopback or a unix socket.
    pub listen: Listen,
    /// By host; what no route names is refused.
    pub routes: Vec<Route>,
    /// TCP that is not HTTP, over mTLS: a listener each.
    #[serde(default)]
    pub tcp: Vec<TcpRoute>,
}

/// Where calls to one host go and what is attached.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// What the app calls: the request's host, without a port, lower case.
    #[serde(deserialize_with = "value::one::<name::Host, _>")]
    #[schemars(with = "As<name::Host>")]
    pub host: String,
    /// Where it goes.
    pub upstream: Upstream,
    /// mTLS with our X.509-SVID.
    pub mtls: Option<RouteMtls>,
    /// A JWT-SVID in `authorization`.
    pub jwt: Option<RouteJwt>,
    /// An access token of the authority in `authorization`.
    pub access_token: Option<RouteAccessToken>,
    /// An access token of another provider in `authorization`.
    pub oauth: Option<RouteOauth>,
    /// A secret in a header of its own.
    pub secret_header: Option<RouteSecretHeader>,
    /// SECRET_HASH for an Amazon Cognito user pool.
    pub cognito: Option<RouteCognito>,
    /// A token of `sts:GetWebIdentityToken` in `authorization`.
    pub aws_web_identity: Option<RouteAwsWebIdentity>,
    /// An AWS SigV4 signature.
    pub sigv4: Option<RouteSigV4>,
    /// How the upstream is verified, where that is neither by `mtls` nor by the public roots.
    pub tls: Option<RouteTls>,
    /// An HTTP proxy that is asked to connect there: `http://host:port`.
    pub proxy: Option<HttpProxy>,
    /// Which HTTP a plaintext upstream speaks.
    #[serde(default)]
    pub protocol: Protocol,
    /// What its requests may take.
    #[serde(default)]
    pub timeouts: Timeouts,
    /// When its requests are sent again.
    #[serde(default)]
    pub retries: Retries,
}

impl Route {
    /// The ways of attaching a credential that it names: one at most, where it is valid.
    pub fn ways(&self) -> Vec<&'static str> {
        let named = [
            ("jwt", self.jwt.is_some()),
            ("access_token", self.access_token.is_some()),
            ("oauth", self.oauth.is_some()),
            ("secret_header", self.secret_header.is_some()),
            ("cognito", self.cognito.is_some()),
            ("aws_web_identity", self.aws_web_identity.is_some()),
            ("sigv4", self.sigv4.is_some()),
        ];
        let named = named.into_iter().filter(|(_, is_named)| *is_named);
        named.map(|(way, _)| way).collect()
    }

    /// The secrets that it names.
    pub fn secrets(&self) -> impl Iterator<Item = &SecretRef> {
        let client = self.oauth.as_ref().map(|it| &it.client);
        let named = [
            client.and_then(|it| it.client_secret_basic.as_ref()),
            client.and_then(|it| it.client_secret_post.as_ref()),
            client.and_then(|it| it.private_key_jwt.as_ref().map(|jwt| &jwt.key)),
            self.secret_header.as_ref().map(|it| &it.value),
            self.cognito.as_ref().map(|it| &it.client_secret),
        ];
        named.into_iter().flatten()
    }
}

/// mTLS on a route.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RouteMtls {
    /// The upstream's SPIFFE ID.
    #[serde(deserialize_with = "value::one::<name::Id, _>")]
    #[schemars(with = "As<name::Id>")]
    pub expect: SpiffeId,
}
