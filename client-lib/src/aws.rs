//! Call services behind Warifu with an IAM role, from where no agent runs: a Lambda, a batch job.
//!
//! ```text
//!  role's keys ─▶ sts:GetWebIdentityToken ───────────────────────▶ token ─▶ Authorization of each call
//!       └──────▶ signature of sts:GetCallerIdentity ─▶ authority ──▶ token ─┘
//! ```
//!
//! A [`TokenSource`] has tokens for one service. The first way is [`Role::web_identity`]: AWS signs who calls, and the
//! service's listener has an entry `aws-web-identity`. Where that is not to be had (the account has not enabled it, the
//! partition lacks it), [`Role::exchange`] proves the role to the authority and gets its access token; the listener has
//! an entry `jwt` of profile `at+jwt`.
//!
//! ```no_run
//! # async fn call() -> Result<(), Box<dyn std::error::Error>> {
//! use warifu::{TrustDomain, aws::Role};
//!
//! let role = Role::from_env()?;                                          // once, outside the handler
//! let payments = role.web_identity(&TrustDomain::new("example.org")?, "payments")?;
//!
//! let mut request = http::Request::get("https://payments.example.com/charges").body(())?;
//! payments.authorize(&mut request).await?;                               // then send it, with any HTTP client
//! # Ok(()) }
//! ```
//!
//! The token is kept, and renewed when half of its life is over: calls don't wait for it. However many ask at once, AWS is
//! asked once. While a renewal fails, the token is used to its end.

use std::{fmt, sync::Arc, time::SystemTime};

use http::{HeaderValue, Request, Uri, header::AUTHORIZATION};

use crate::{TrustDomain, jwt::SigningKey};

mod authority;
mod cache;
mod credentials;
mod error;
mod exchange;
mod https;
mod region;
mod sigv4;
mod web_identity;

pub use authority::Authority;
pub use credentials::{Credentials, CredentialsError, Environment, Obtaining, SessionKeys};
pub use error::TokenError;
pub use region::{Partition, is_region, partition, sts_host};

use cache::{Cache, Mint};
use exchange::Exchange;
use https::Origin;
use web_identity::WebIdentity;

/// Longest audience or scope, in bytes: the authority takes no longer one, and AWS 1,000 characters.
const MAX_NAME: usize = 512;

/// The audience of tokens that [`Role::web_identity`] gets for a service: what `aws-web-identity: {audience}` of its
/// listener says, and what IAM policies may limit (`sts:IdentityTokenAudience`).
pub fn call_audience(trust_domain: &TrustDomain, service: &str) -> String {
    format!("warifu:{trust_domain}:call:{service}")
}

/// An IAM role, by the keys of its session. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Role {
    region: String,
    credentials: Arc<dyn Credentials>,
    endpoint: Option<Origin>,
}

impl Role {
    /// The role whose keys are in the environment ([`Environment`]), as AWS Lambda has it; the region is `AWS_REGION`
    /// or `AWS_DEFAULT_REGION`.
    ///
    /// # Errors
    /// No region is set.
    pub fn from_env() -> Result<Self, TokenError> {
        let region = ["AWS_REGION", "AWS_DEFAULT_REGION"]
            .into_iter()
            .find_map(|name| std::env::var(name).ok());
        let region = region.ok_or_else(|| {
            TokenError::setting("AWS_REGION is not set: which region's STS is to be asked?")
        })?;
        Self::new(&region, Environment)
    }

    /// The role whose keys `credentials` gives, in `region`.
    ///
    /// # Errors
    /// No such region can be.
    pub fn new(region: &str, credentials: impl Credentials) -> Result<Self, TokenError> {
        if !is_region(region) {
            let why = format!("{region:?} is no AWS region's name; expected one such as eu-west-1");
            return Err(TokenError::setting(why));
        }
        Ok(Self {
            region: region.to_owned(),
            credentials: Arc::new(credentials),
            endpoint: None,
        })
    }

    /// Asks STS at `url` instead of the region's public endpoint: `https://host[:port]` of an interface or FIPS
    /// endpoint, or `http://` to an emulator on loopback.
    ///
    /// # Errors
    /// Another form.
    pub fn sts_endpoint(mut self, url: &str) -> Result<Self, TokenError> {
        self.endpoint = Some(Origin::parse(url)?);
        Ok(self)
    }

    /// Tokens for calls of `service` that AWS signs (`sts:GetWebIdentityToken`), for [`call_audience`]. The role
    /// must be allowed that action, and its account have enabled it once
    /// (`aws iam enable-outbound-web-identity-federation`).
    ///
    /// # Errors
    /// `service` can't be a part of an audience.
    pub fn web_identity(
        &self,
        trust_domain: &TrustDomain,
        service: &str,
    ) -> Result<TokenSource, TokenError> {
        check_name("service", service)?;
        Ok(TokenSource::of(WebIdentity {
            role: self.clone(),
            audience: call_audience(trust_domain, service),
        }))
    }

    /// Access tokens of the authority for `audience`, with `scopes`, or all that its rule grants where there are none.
    /// The authority needs an attestor of kind `aws-caller-identity` that lists the account, a rule that matches the
    /// role, and `tokens.access_token`. In IAM nothing is needed.
    ///
    /// # Errors
    /// `audience` or a scope has characters that none has.
    pub fn exchange(
        &self,
        authority: &Authority,
        audience: &str,
        scopes: &[&str],
    ) -> Result<TokenSource, TokenError> {
        check_name("audience", audience)?;
        for scope in scopes {
            check_name("scope", scope)?;
        }
        Ok(TokenSource::of(Exchange {
            role: self.clone(),
            authority: authority.clone(),
            audience: audience.to_owned(),
            scopes: scopes.iter().map(|it| (*it).to_owned()).collect(),
            key: SigningKey::generate(),
        }))
    }

    /// Where STS is asked.
    fn sts(&self) -> Origin {
        let public = || Origin::https(sts_host(&self.region));
        self.endpoint.clone().unwrap_or_else(public)
    }
}

/// Tokens for calls of one service. Cheap to clone; clones share what is kept. Make it once, and keep it.
///
/// Must be used inside a tokio runtime with its I/O and time drivers on.
#[derive(Clone)]
pub struct TokenSource(Arc<Cache>);

impl TokenSource {
    fn of(mint: impl Mint) -> Self {
        Self(Arc::new(Cache::new(mint)))
    }

    /// `Bearer TOKEN`, for the header `authorization`. It is marked sensitive: its `Debug` shows nothing. Send it over
    /// verified TLS only, and to this service only.
    ///
    /// # Errors
    /// There is no token, and none can be had now: the error says why, and what to do.
    pub async fn bearer(&self) -> Result<HeaderValue, TokenError> {
        self.0.get().await.map(|held| held.authorization)
    }

    /// Puts a token into `request`, whose URI is absolute, and `https` or loopback's.
    ///
    /// # Errors
    /// As [`bearer`](Self::bearer); and where the token would go over plain text, or there is an `authorization` already.
    pub async fn authorize<B>(&self, request: &mut Request<B>) -> Result<(), TokenError> {
        check_confidential(request.uri())?;
        if request.headers().contains_key(AUTHORIZATION) {
            return Err(TokenError::setting(
                "the request has an authorization header already: a service takes one credential of a kind",
            ));
        }
        let token = self.bearer().await?;
        request.headers_mut().insert(AUTHORIZATION, token);
        Ok(())
    }

    /// When the token that is kept ends, by this machine's clock; `None` while there is none.
    pub fn expires_at(&self) -> Option<SystemTime> {
        self.0.expires_at()
    }
}

impl fmt::Debug for TokenSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenSource")
            .field("expires_at", &self.expires_at())
            .finish_non_exhaustive()
    }
}

/// S19: whoever reads a token on its way can use it.
fn check_confidential(uri: &Uri) -> Result<(), TokenError> {
    let host = uri.host().unwrap_or_default();
    match uri.scheme_str() {
        Some("https") if !host.is_empty() => Ok(()),
        Some("http") if https::is_loopback(host) => Ok(()),
        Some("http") => Err(TokenError::setting(format!(
            "the token would go to {host} over plain text; call it by https://"
        ))),
        _ => Err(TokenError::setting(
            "the request's URI is not absolute, so nothing says where the token would go; write https://HOST/PATH",
        )),
    }
}

/// What may stand in an audience or a scope: printable ASCII without spaces, quotes and backslashes (RFC 6749 §3.3).
fn check_name(what: &str, name: &str) -> Result<(), TokenError> {
    let allowed = |b: u8| b.is_ascii_graphic() && b != b'"' && b != b'\\';
    match (1..=MAX_NAME).contains(&name.len()) && name.bytes().all(allowed) {
        true => Ok(()),
        false => Err(TokenError::setting(format!(
            "{name:?} is no {what}; expected 1 to {MAX_NAME} characters of ASCII without spaces and quotes"
        ))),
    }
}

#[cfg(test)]
mod tests;
