//! What a route attaches to its requests, and how they are sent with it.
//!
//! A file a way: each says what is attached, when it is made anew, and what an answer may lead to.

use std::{borrow::Cow, sync::Arc, time::Duration};

use http::{Request, Response, request::Parts};

use cognito::Cognito;
use secret_header::SecretHeader;

use super::{Setup, budget::Budget, metrics::Counters, refusal::Refusal, route::RouteError};
use crate::{
    aws::SignError,
    config,
    http::{body::Body, headers::Filter, pool::Upstream},
    token::{Source, Wanted},
};

pub(super) use buffer::Buffers;
pub use cognito::rewrite as rewrite_cognito;
pub use sign::{Sign, Signing};
use sigv4::SigV4;

mod bearer;
mod buffer;
mod cognito;
mod oauth;
pub(super) mod presign;
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
    SigV4(SigV4),
}

/// One request's way out: what every way of attaching needs to send it.
#[derive(Debug)]
pub(super) struct Call<'a> {
    pub(super) upstream: &'a Upstream,
    /// The time to the first byte of an answer.
    pub(super) first_byte: Duration,
    /// The time to obtain what is attached.
    pub(super) obtain: Duration,
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
        if let Some(token) = &route.aws_web_identity {
            let mint = setup.web_identity.as_ref();
            let mint = mint.ok_or_else(|| RouteError::NoAws {
                route: route.host.clone(),
            })?;
            let source = setup.tokens.source_of(token.into(), Arc::clone(mint));
            return Ok(Self::Bearer(source));
        }
        if let Some(sigv4) = &route.sigv4 {
            let signer = setup.signers.get(&route.host);
            let signer = signer.ok_or_else(|| RouteError::NoSigner {
                route: route.host.clone(),
            })?;
            let sigv4 = SigV4::new(route, sigv4, Arc::clone(signer));
            return Ok(Self::SigV4(sigv4?));
        }
        Ok(Self::None)
    }

    /// The headers that give way to it.
    pub(super) fn replaces(&self) -> Vec<&str> {
        match self {
            Self::None => Vec::new(),
            Self::Bearer(_) | Self::SigV4(_) => vec!["authorization"],
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
            // Rare, and larger than the rest: on the heap, or every request would carry their room along.
            Self::SecretHeader(header) => {
                Box::pin(secret_header::send(call, header, parts, body)).await
            }
            Self::Cognito(cognito) => Box::pin(cognito::send(call, cognito, parts, body)).await,
            Self::SigV4(sigv4) => sigv4.send(call, parts, body).await,
        }
    }

    /// Answers with a URL that makes this call, instead of making it.
    pub(super) async fn presign(
        &self,
        call: &Call<'_>,
        parts: Parts,
        body: Body,
        span: Duration,
    ) -> Result<Response<Body>, Refusal> {
        match self {
            Self::SigV4(sigv4) => sigv4.presign(call, parts, body, span).await,
            _ => Err(Refusal::PresignNotAllowed),
        }
    }

    /// The path as it is sent, where that is not the usual normal form: an S3 key.
    pub(super) fn key_path<'a>(&self, path: &'a str) -> Option<Result<Cow<'a, str>, SignError>> {
        match self {
            Self::SigV4(sigv4) => sigv4.key_path(path),
            _ => None,
        }
    }

    /// What is removed from requests it is attached to.
    pub(super) fn filter(&self) -> Filter {
        match self {
            Self::SigV4(_) => Filter::to_network(&self.replaces()).without_trailers(),
            _ => Filter::to_network(&self.replaces()),
        }
    }
}

impl Call<'_> {
    /// What is to be attached may have to be obtained first, from someone who may be slow.
    async fn in_time<T>(&self, obtaining: impl Future<Output = T>) -> Result<T, Refusal> {
        let obtained = tokio::time::timeout(self.obtain, obtaining).await;
        obtained.map_err(|_| Refusal::NotInTime(self.obtain))
    }

    /// Sends as it is.
    async fn send(&self, parts: Parts, body: Body) -> Result<Response<Body>, Refusal> {
        self.until_answered(Request::from_parts(parts, body)).await
    }
}
