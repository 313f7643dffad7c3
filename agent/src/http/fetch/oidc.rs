//! The keys of an issuer of OpenID Connect, found by its discovery document.

use serde::Deserialize;
use warifu::jwt::jwks::{Fetch, FetchError, Fetching};

use super::Fetcher;

/// Where the document is, under the issuer (OpenID Connect Discovery §4).
const DISCOVERY: &str = "/.well-known/openid-configuration";

/// An issuer's keys: by its discovery document, read anew each time, or at a URL that is known.
#[derive(Debug)]
pub struct OidcKeys {
    fetcher: Fetcher,
    issuer: String,
    jwks_url: Option<String>,
}

/// What is read of it (§3).
#[derive(Deserialize)]
struct Discovery {
    issuer: String,
    jwks_uri: String,
}

impl OidcKeys {
    /// The keys of `issuer`, which is spelt as in its tokens; at `jwks_url` where that is configured,
    /// and then nothing else is fetched.
    pub fn new(fetcher: Fetcher, issuer: impl Into<String>, jwks_url: Option<String>) -> Self {
        Self {
            fetcher,
            issuer: issuer.into(),
            jwks_url,
        }
    }

    async fn jwks(&self) -> Result<Vec<u8>, FetchError> {
        let url = match &self.jwks_url {
            Some(url) => url.clone(),
            None => self.discover().await?,
        };
        let jwks = self.fetcher.get(&url).await.map_err(FetchError::new)?;
        Ok(jwks.into())
    }

    /// `jwks_uri`, from a document that is this issuer's.
    async fn discover(&self) -> Result<String, FetchError> {
        let url = format!("{}{DISCOVERY}", self.issuer.trim_end_matches('/'));
        let refused = |why: String| FetchError::new(format!("GET {url}: {why}"));
        let document = self.fetcher.get(&url).await.map_err(FetchError::new)?;
        let Discovery { issuer, jwks_uri } = serde_json::from_slice(&document)
            .map_err(|why| refused(format!("this is no discovery document: {why}")))?;
        if issuer != self.issuer {
            return Err(refused(format!(
                "its issuer is {issuer:?}, and not {:?}",
                self.issuer
            )));
        }
        // An issuer behind TLS does not hand its keys over to plaintext, be it on this machine.
        if self.issuer.starts_with("https://") && !jwks_uri.starts_with("https://") {
            return Err(refused(format!(
                "its jwks_uri {jwks_uri:?} is not an https:// URL"
            )));
        }
        Ok(jwks_uri)
    }
}

impl Fetch for OidcKeys {
    fn fetch(&self) -> Fetching<'_> {
        Box::pin(self.jwks())
    }
}
