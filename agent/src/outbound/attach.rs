//! What a route attaches to its requests, and how they are sent with it.
//!
//! A file a way: each says what is attached, when it is made anew, and what an answer may lead to.

use std::{sync::Arc, time::Duration};

use http::{Request, Response, request::Parts};

use cognito::Cognito;
use secret_header::SecretHeader;

use super::{Setup, budget::Budget, metrics::Counters, refusal::Refusal, route::RouteError};
use crate::{
    aws, config,
    http::{body::Body, pool::Upstream},
    token::{Source, Wanted},
};

pub(super) use buffer::Buffers;
pub use cognito::rewrite as rewrite_cognito;
pub use sign::Sign;

mod bearer;
mod buffer;
mod cognito;
mod oauth;
mod secret_header;
mod sign;
mod sigv4;

/// What is attached to its requests.
#[derive(Debug)]
pub(super) enum Credential {
    None,
    Bearer(Source),
    SecretHeader(SecretHeader),
    Cognito(Cognito),
    SigV4 {
        signer: Arc<dyn Sign>,
        max_body: usize,
    },
}

/// One request's way out: what every way of attaching needs to send it.
#[derive(Debug)]
pub(super) struct Call<'a> {
    pub(super) upstream: &'a Upstream,
    /// The route's time to the first byte of an answer.
    pub(super) timeout: Duration,
    pub(super) retries: &'a config::outbound::Retries,
    pub(super) budget: &'a Budget,
    pub(super) counters: &'a Counters,
    pub(super) buffers: &'a Buffers,
}

impl Credential {
    pub(super) fn new(
        route: &config::outbound::Route,
        setup: &Setup<'_>,
    ) -> Result<Self, RouteError> {
        if route.ways().len() > 1 {
            return Err(RouteError::TwoCredentials {
                route: route.host.clone(),
            });
        }
        if let Some(jwt) = &route.jwt {
            let wanted = Wanted::jwt_svid(&jwt.audience);
            return Ok(Self::Bearer(setup.tokens.source(wanted)));
        }
        if let Some(token) = &route.access_token {
            let wanted = Wanted::access_token(&token.audience, token.scopes.iter().cloned());
            return Ok(Self::Bearer(setup.tokens.source(wanted)));
        }
        if let Some(oauth) = &route.oauth {
            return oauth::source(&route.host, oauth, setup).map(Self::Bearer);
        }
        if let Some(header) = &route.secret_header {
            return Ok(Self::SecretHeader(SecretHeader {
                name: header.name.clone(),
                secret: setup.secrets.source(&header.value),
            }));
        }
        if let Some(cognito) = &route.cognito {
            return Ok(Self::Cognito(Cognito {
                client_id: cognito.client_id.clone(),
                secret: setup.secrets.source(&cognito.client_secret),
                path: format!("{}/", route.upstream.base_path),
            }));
        }
        if let Some(sigv4) = &route.sigv4 {
            let signer = setup.signers.get(&route.host);
            let signer = signer.ok_or_else(|| RouteError::NoSigner {
                route: route.host.clone(),
            })?;
            return Ok(Self::SigV4 {
                signer: Arc::clone(signer),
                max_body: sigv4.max_body,
            });
        }
        Ok(Self::None)
    }

    /// The headers that give way to it.
    pub(super) fn replaces(&self) -> Vec<&str> {
        match self {
            Self::None => Vec::new(),
            Self::Bearer(_) | Self::SigV4 { .. } => vec!["authorization"],
            Self::SecretHeader(header) => vec![header.name.as_str()],
            Self::Cognito(_) => cognito::REMOVED.to_vec(),
        }
    }

    /// Attaches it, and sends.
    pub(super) async fn send(
        &self,
        call: &Call<'_>,
        parts: Parts,
        body: Body,
    ) -> Result<Response<Body>, Refusal> {
        match self {
            Self::None => call.send(parts, body).await,
            Self::Bearer(tokens) => bearer::send(call, tokens, parts, body).await,
            Self::SecretHeader(header) => secret_header::send(call, header, parts, body).await,
            Self::Cognito(cognito) => cognito::send(call, cognito, parts, body).await,
            Self::SigV4 { signer, max_body } => {
                aws::refuse_streamed(&parts.headers)?;
                let body = call.buffers.read(body, *max_body).await?;
                sigv4::send(call, &**signer, parts, body.bytes()).await
            }
        }
    }
}

impl Call<'_> {
    /// What is to be attached may have to be obtained first, from someone who may be slow.
    async fn in_time<T>(&self, obtaining: impl Future<Output = T>) -> Result<T, Refusal> {
        let obtained = tokio::time::timeout(self.timeout, obtaining).await;
        obtained.map_err(|_| Refusal::NotInTime(self.timeout))
    }

    /// Sends as it is.
    async fn send(&self, parts: Parts, body: Body) -> Result<Response<Body>, Refusal> {
        self.until_answered(Request::from_parts(parts, body)).await
    }
}
