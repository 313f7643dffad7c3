//! Access tokens of any provider: OAuth 2.0 client credentials (RFC 6749 §4.4).
//!
//! One request a token, to the token endpoint that the configuration names: no redirect is followed, TLS is verified,
//! the answer is bounded and read strictly. When a token is asked for, kept and replaced is the business of
//! [`Tokens`](super::Tokens), as for every other token.

use std::{
    collections::BTreeSet,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Request, StatusCode,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER},
};
use tokio::time::Instant;

use super::{Mint, MintError, Minted, Minting, Wanted};
use crate::{
    http::fetch::{Fetcher, FetcherError, Limits},
    secrets,
};
use answer::{Denial, Refused};
use authentication::Proof;

pub use assertion::{KeyError, RsaAlgorithm};
pub use authentication::{Authentication, Certificate};

mod answer;
mod assertion;
mod authentication;
mod form;

pub use answer::read as read_answer;

/// To connect and shake hands: a SYN may be lost, and found lost after one second.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// For one request to a token endpoint. They answer in tens of milliseconds, a busy one in a second or two; below what
/// a mint may take in all.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(8);

/// Longest answer: a token of 16 KiB, and much beside it.
const MAX_ANSWER: usize = 64 * 1024;

/// How many values of a secret are tried: one for each stage.
const MAX_VALUES: usize = 3;

/// Longest wait that a provider's `Retry-After` leads to: who asks for more is asked again nevertheless.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(60);

/// What distinguishes one provider's tokens from another's; they are kept by it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Grant {
    /// The token endpoint's URL.
    pub token_url: String,
    /// Who asks, and how it proves that: for people, and to tell clients apart. No secret.
    pub client: String,
    /// `scope`.
    pub scopes: BTreeSet<String>,
    /// `audience`, where the provider has such a parameter.
    pub audience: Option<String>,
    /// `resource` (RFC 8707).
    pub resources: Vec<String>,
    /// CAs that the provider's certificate is verified with; the public ones where absent.
    pub ca_bundle: Option<PathBuf>,
}

/// One client at one provider.
#[derive(Debug)]
pub struct Provider {
    grant: Grant,
    authentication: Authentication,
    /// With the CA certificates that were good last.
    fetcher: Mutex<Fetcher>,
    /// Asked to wait until then.
    not_before: Mutex<Option<Instant>>,
}

impl Grant {
    /// What the token is for, for people.
    pub fn target(&self) -> &str {
        let resource = self.resources.first();
        let named = self.audience.as_ref().or(resource);
        named.unwrap_or(&self.token_url)
    }
}

impl Provider {
    /// Makes no call.
    ///
    /// # Errors
    /// When the CA file can't be read.
    pub fn new(grant: Grant, authentication: Authentication) -> Result<Self, FetcherError> {
        let fetcher = Fetcher::new(grant.ca_bundle.clone())?;
        Ok(Self {
            grant,
            authentication,
            fetcher: Mutex::new(fetcher.limited(LIMITS)),
            not_before: Mutex::default(),
        })
    }

    /// Asks for a token; again with another proof where the one presented is refused: a secret is being rotated, or a
    /// JWT-SVID was seen before.
    async fn ask(&self) -> Result<Minted, MintError> {
        self.may_ask()?;
        match &self.authentication {
            Authentication::TlsClientAuth { .. } => self.ask_with(Proof::Connection).await,
            Authentication::SpiffeJwt { svids, .. } => {
                let svid = svids.token().await?;
                let asked = self.ask_with(Proof::Svid(&svid)).await;
                if !is_about_the_proof(&asked) {
                    return asked;
                }
                match svids.other_than(&svid).await {
                    Some(other) => self.ask_with(Proof::Svid(&other)).await,
                    None => asked,
                }
            }
            Authentication::Basic { secret, .. }
            | Authentication::Post { secret, .. }
            | Authentication::PrivateKeyJwt { key: secret, .. } => {
                self.ask_with_values_of(secret).await
            }
        }
    }

    async fn ask_with_values_of(&self, secret: &secrets::Source) -> Result<Minted, MintError> {
        let value = secret.value().await;
        let mut value = value.map_err(|why| self.unavailable(why.to_string()))?;
        let mut refused = Vec::new();
        loop {
            let asked = self.ask_with(Proof::Secret(&value)).await;
            if !is_about_the_proof(&asked) {
                if asked.is_ok() {
                    secret.works(&value);
                }
                return asked;
            }
            refused.push(value);
            let other = match refused.len() < MAX_VALUES {
                true => secret.other_than(&refused).await,
                false => None,
            };
            let Some(other) = other else {
                secret.none_works();
                return asked;
            };
            value = other;
        }
    }

    async fn ask_with(&self, proof: Proof<'_>) -> Result<Minted, MintError> {
        let mut form = form::Form::new();
        form.put("grant_type", "client_credentials");
        if !self.grant.scopes.is_empty() {
            let scopes: Vec<&str> = self.grant.scopes.iter().map(String::as_str).collect();
            form.put("scope", &scopes.join(" "));
        }
        if let Some(audience) = &self.grant.audience {
            form.put("audience", audience);
        }
        for resource in &self.grant.resources {
            form.put("resource", resource);
        }
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        let form_type = HeaderValue::from_static("application/x-www-form-urlencoded");
        headers.insert(CONTENT_TYPE, form_type);
        let now = SystemTime::now();
        let basic = self.authentication.put(&mut form, proof, now);
        if let Some(basic) = basic.map_err(|why| self.unavailable(why))? {
            headers.insert(AUTHORIZATION, basic);
        }
        let mut request = Request::post(self.grant.token_url.as_str())
            .body(Bytes::from(form.into_text()))
            .map_err(|why| self.unavailable(why.to_string()))?;
        request.headers_mut().extend(headers);

        let as_whom = self.authentication.certificate().await;
        let as_whom = as_whom.map_err(|why| self.unavailable(why))?;
        let fetcher = self.fetcher().await;
        let fetcher = match as_whom {
            None => fetcher,
            Some(client) => fetcher.presenting(client),
        };
        let asked_at = SystemTime::now();
        let answer = fetcher.send(request).await;
        let answer = answer.map_err(|why| self.unavailable(why.to_string()))?;
        let (head, body) = answer.into_parts();
        let read = answer::read(head.status, content_type(&head.headers), &body);
        let granted = read.map_err(|why| self.refused(why, head.status, &head.headers))?;
        let scopes = granted.scopes;
        if let Some(scopes) = &scopes
            && !self.grant.scopes.is_subset(scopes)
        {
            let asked: Vec<&String> = self.grant.scopes.difference(scopes).collect();
            tracing::warn!(
                token_url = self.grant.token_url,
                not_granted = ?asked,
                "the token has less scope than was asked for"
            );
        }
        Ok(Minted {
            token: granted.token,
            // From before it was asked for: never longer than it is valid.
            expires_at: asked_at + granted.lives,
            scopes: scopes
                .unwrap_or_else(|| self.grant.scopes.clone())
                .into_iter()
                .collect(),
        })
    }

    /// Trusts what the CA file says now, or what it said last where that can't be used: read anew for each token, as
    /// the files of a client certificate are.
    async fn fetcher(&self) -> Fetcher {
        if let Some(path) = self.grant.ca_bundle.clone() {
            let read = tokio::task::spawn_blocking(|| Fetcher::ca_file(path)).await;
            match read {
                Ok(Ok(fetcher)) => *lock(&self.fetcher) = fetcher.limited(LIMITS),
                Ok(Err(why)) => {
                    tracing::error!(%why, "the CA certificates in use stay; correct the file");
                }
                // It was neither aborted nor does it panic.
                Err(why) => tracing::error!(%why, "the CA file was not read"),
            }
        }
        lock(&self.fetcher).clone()
    }

    /// A provider that said how long to wait is not asked before.
    fn may_ask(&self) -> Result<(), MintError> {
        let mut not_before = lock(&self.not_before);
        match *not_before {
            Some(until) if Instant::now() < until => {
                Err(self.unavailable("it asked to be left alone for a while (Retry-After)".into()))
            }
            _ => {
                *not_before = None;
                Ok(())
            }
        }
    }

    fn refused(&self, why: Refused, status: StatusCode, headers: &HeaderMap) -> MintError {
        match why {
            Refused::ForNow(why) => {
                let wait = headers.get(RETRY_AFTER).and_then(|it| it.to_str().ok());
                if let Some(seconds) = wait.and_then(|it| it.parse().ok()) {
                    let wait = Duration::from_secs(seconds).min(MAX_RETRY_AFTER);
                    let until = Instant::now() + wait;
                    *lock(&self.not_before) = Some(until);
                }
                self.unavailable(format!("{status}, {why}"))
            }
            Refused::Decided(Denial { error, advice }) => MintError::Denied {
                by: self.grant.token_url.clone(),
                client: self.grant.client.clone(),
                error,
                why: format!("{status}: {advice}"),
            },
        }
    }

    fn unavailable(&self, why: String) -> MintError {
        MintError::Unavailable {
            audience: self.grant.target().to_owned(),
            why: format!("asking {}: {why}", self.grant.token_url),
        }
    }
}

const LIMITS: Limits = Limits {
    connect: CONNECT_TIMEOUT,
    total: REQUEST_TIMEOUT,
    answer: MAX_ANSWER,
};

impl Mint for Arc<Provider> {
    fn mint(&self, _: Wanted) -> Minting {
        let provider = Arc::clone(self);
        Box::pin(async move { provider.ask().await })
    }
}

/// Locks. Nothing panics while it holds one of these, and if something did, the data would be whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether it was the proof that was refused: nothing else is (RFC 6749 §5.2).
fn is_about_the_proof(asked: &Result<Minted, MintError>) -> bool {
    let Err(MintError::Denied { error, .. }) = asked else {
        return false;
    };
    *error == Some("invalid_client")
}

fn content_type(headers: &HeaderMap) -> &str {
    let line = headers.get(CONTENT_TYPE).and_then(|it| it.to_str().ok());
    line.unwrap_or_default()
}
