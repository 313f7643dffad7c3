//! The documents everybody may read: the trust bundle, for each issuer its discovery document and its keys, the
//! revocation list. Made once for each change.

use std::{collections::BTreeMap, time::Duration};

use aws_lc_rs::digest::{SHA256, digest};
use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Response, StatusCode,
    header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH},
};
use serde_json::{Value, json};
use warifu::jwt::KeySet;

use super::{ca::hex, settings::Settings};
use crate::{attest::wire::AccessTokenKeys, config::authority::issuer_path, http::body::Body};

/// Where the trust bundle is for the world (`https_web` of SPIFFE federation).
pub(super) const BUNDLE: &str = "/bundle";

/// It may be kept, and must be asked about again.
const ALWAYS_ASKED_ABOUT: HeaderValue = HeaderValue::from_static("no-cache");

/// The tag of what can't be named: it is sent again.
const NO_TAG: HeaderValue = HeaderValue::from_static("\"\"");

/// A document with its `ETag`.
#[derive(Debug, Clone)]
pub(super) struct Page {
    pub(super) body: Bytes,
    content_type: HeaderValue,
    etag: HeaderValue,
    cache: HeaderValue,
}

/// Documents by path.
#[derive(Debug, Default)]
pub(super) struct Pages(BTreeMap<String, Page>);

impl Page {
    /// A document that may be kept, and must be asked about again each time.
    pub(super) fn always_asked_about(body: Bytes) -> Self {
        Self::new(body, ALWAYS_ASKED_ABOUT)
    }

    /// A signed document that goes by its number: what it says beside that, such as when it was signed, makes it no
    /// other.
    pub(super) fn numbered(jws: Bytes, number: u64) -> Self {
        let etag = HeaderValue::try_from(format!("\"{number}\""));
        Self {
            body: jws,
            content_type: HeaderValue::from_static("application/jwt"),
            etag: etag.unwrap_or(NO_TAG),
            cache: ALWAYS_ASKED_ABOUT,
        }
    }

    /// A document that may be used as it is for this long.
    fn kept_for(body: impl Into<Bytes>, span: Duration) -> Self {
        let seconds = format!("public, max-age={}", span.as_secs());
        let cache = HeaderValue::try_from(seconds);
        let cache = cache.unwrap_or(ALWAYS_ASKED_ABOUT);
        Self::new(body.into(), cache)
    }

    fn new(body: Bytes, cache: HeaderValue) -> Self {
        Self {
            etag: etag(&body),
            body,
            content_type: HeaderValue::from_static("application/json"),
            cache,
        }
    }

    /// The answer to a GET or HEAD with these headers: the document, or that it is still the same.
    pub(super) fn answer(&self, request: &HeaderMap) -> Response<Body> {
        if !self.is_known_to(request) {
            return self.whole();
        }
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        self.tagged(response)
    }

    /// The document, whatever is known of it.
    pub(super) fn whole(&self) -> Response<Body> {
        let mut response = Response::new(Body::from(self.body.clone()));
        let content_type = self.content_type.clone();
        response.headers_mut().insert(CONTENT_TYPE, content_type);
        self.tagged(response)
    }

    fn tagged(&self, mut response: Response<Body>) -> Response<Body> {
        let headers = response.headers_mut();
        headers.insert(ETAG, self.etag.clone());
        headers.insert(CACHE_CONTROL, self.cache.clone());
        response
    }

    /// RFC 9110 §13.1.2, whose comparison is a weak one.
    fn is_known_to(&self, request: &HeaderMap) -> bool {
        let known = request.get_all(IF_NONE_MATCH).iter();
        let mut known = known
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .map(|tag| tag.trim());
        known.any(|tag| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == self.etag)
    }
}

impl Pages {
    /// The documents of one moment. Keys of access tokens are in no bundle, and neither kind of keys is
    /// among the other.
    pub(super) fn new(
        settings: &Settings,
        bundle: &Bytes,
        jwt_keys: &KeySet,
        access_keys: &KeySet,
    ) -> Self {
        // Keys and roots are published at least twice this long before they sign.
        let hint = settings.refresh_hint;
        let page = Page::kept_for(bundle.clone(), hint);
        let mut pages = BTreeMap::from([(BUNDLE.to_owned(), page)]);
        let issuers = [
            (&settings.jwt_issuer, jwt_keys),
            (&settings.access_issuer, access_keys),
        ];
        for (issuer, keys) in issuers {
            let Some(issuer) = issuer else { continue };
            let base = issuer_path(issuer);
            let documents = [
                (
                    format!("{base}/.well-known/openid-configuration"),
                    discovery(issuer, keys),
                ),
                (format!("{base}/keys"), jwks(keys)),
            ];
            let documents = documents
                .map(|(path, document)| (path, Page::kept_for(document.to_string(), hint)));
            pages.extend(documents);
        }
        Self(pages)
    }

    pub(super) fn get(&self, path: &str) -> Option<&Page> {
        self.0.get(path)
    }
}

/// OpenID Connect Discovery §3, as far as it is about verifying tokens. IAM wants all of these members;
/// nobody can log in, so the authorization endpoint is a name and no address.
fn discovery(issuer: &str, keys: &KeySet) -> Value {
    let mut algorithms: Vec<_> = keys.iter().map(|key| key.algorithm().name()).collect();
    algorithms.sort_unstable();
    algorithms.dedup();
    json!({
        "issuer": issuer,
        "jwks_uri": format!("{}/keys", issuer.trim_end_matches('/')),
        "authorization_endpoint": "urn:warifu:issuing-api",
        "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": algorithms,
        "claims_supported": ["aud", "exp", "iat", "iss", "jti", "sub"],
    })
}

fn jwks(keys: &KeySet) -> Value {
    let keys: Vec<_> = keys.iter().map(|key| key.to_json("sig")).collect();
    json!({ "keys": keys })
}

/// The keys of access tokens for agents, which know the authority by its certificate and not by its URL.
pub(super) fn access_token_keys(issuer: &str, keys: &KeySet) -> Page {
    let published = AccessTokenKeys {
        issuer: issuer.to_owned(),
        keys: keys.iter().map(|key| key.to_json("sig")).collect(),
    };
    let body = serde_json::to_vec(&published).unwrap_or_default();
    Page::always_asked_about(body.into())
}

/// Of the content: a rebuilt authority may come to the same sequence with other keys.
fn etag(body: &Bytes) -> HeaderValue {
    let hash = digest(&SHA256, body);
    let short = hash.as_ref().get(..16).unwrap_or_default();
    HeaderValue::try_from(format!("\"{}\"", hex(short))).unwrap_or(NO_TAG)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_that_is_known_is_not_sent_again() {
        let page = Page::kept_for("{}", Duration::from_secs(300));
        let answer = |known: &str| {
            let mut headers = HeaderMap::new();
            headers.append(IF_NONE_MATCH, HeaderValue::try_from(known).unwrap());
            page.answer(&headers).status()
        };
        let etag = page.etag.to_str().unwrap();
        for known in [
            etag.to_owned(),
            format!("W/{etag}"),
            format!("\"a\", {etag}"),
            "*".to_owned(),
        ] {
            assert_eq!(answer(&known), StatusCode::NOT_MODIFIED, "{known}");
        }
        for other in ["\"a\"", "", etag.trim_matches('"')] {
            assert_eq!(answer(other), StatusCode::OK, "{other}");
        }
        let response = page.answer(&HeaderMap::new());
        assert_eq!(response.headers()[CACHE_CONTROL], "public, max-age=300");
        assert_eq!(response.headers()[CONTENT_TYPE], "application/json");
    }

    #[test]
    fn a_numbered_document_is_known_by_its_number_in_every_form_a_tag_has() {
        let page = Page::numbered("a.b.c".into(), 7);
        let answer = |known: &'static str| {
            let known = HeaderValue::from_static(known);
            page.answer(&HeaderMap::from_iter([(IF_NONE_MATCH, known)]))
        };
        for known in ["\"7\"", "W/\"7\"", "\"6\", \"7\"", "*"] {
            let response = answer(known);
            assert_eq!(response.status(), StatusCode::NOT_MODIFIED, "{known}");
            assert_eq!(response.headers()[ETAG], "\"7\"");
        }
        let response = answer("\"6\"");
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()[CONTENT_TYPE], "application/jwt");
        assert_eq!(response.headers()[CACHE_CONTROL], "no-cache");
    }
}
