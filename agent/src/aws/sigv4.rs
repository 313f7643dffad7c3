//! SigV4 and SigV4A as services want them: what is signed is what is sent.
//!
//! ```text
//! body     what the app says of its body, and what the service takes: held and hashed, or streamed
//! headers  which of the app's headers pass, and which are signed
//! canonical  path, query and header values in their one form, which is sent
//! key      the day's key, and a signature over all of it: in headers, or (presign) in the query
//! ```
//!
//! What changes on the wire, so that every verifier sees the same thing:
//!
//! - query: pairs in order, every byte outside `A-Z a-z 0-9 - _ . ~` escaped in upper case, `+` (a space
//!   to AWS) as `%20`, empty pairs gone, a name without `=` with one;
//! - path, all services but S3: dot segments resolved, empty segments gone;
//! - path, S3: escapes as above, but for `/`; nothing resolved (`a//b` is another key than `a/b`);
//! - signed headers: one line a name, white space at the ends gone and within collapsed to one space;
//!   a default port is left out of `host`.
//!
//! Refused, because a verifier may read it otherwise than we: escapes that are not hex or not UTF-8,
//! escaped dot segments, an S3 key that climbs above its start, signed headers that are not ASCII, a repeated
//! `host` or `content-type`, a query that is signed already, a body in signed pieces.
//!
//! The arithmetic is ours, and small: one pass over the request, a key made once a day, nothing built twice.
//! AWS's `aws-sigv4` and botocore are what it is compared with.
//!
//! <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html>

use aws_credential_types::Credentials;
use http::{
    HeaderName, HeaderValue, Uri, header::AUTHORIZATION, request::Parts, uri::PathAndQuery,
};

use super::{SetupError, SignError};
use crate::config::value::is_unsignable;

mod body;
mod canonical;
mod headers;
mod key;
mod presign;

use body::{Bodies, CONTENT_SHA256};
pub use body::{Hasher, Payload, Plan};
use canonical::Path;
use headers::{AMZ, AmzHeaders};
pub(super) use key::{Key, Regions};

const DATE: HeaderName = HeaderName::from_static("x-amz-date");
const REGION_SET: HeaderName = HeaderName::from_static("x-amz-region-set");
const SECURITY_TOKEN: HeaderName = HeaderName::from_static("x-amz-security-token");

/// How a service wants its requests signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Profile {
    path: Path,
    bodies: Bodies,
    /// Sends what stands for the body as `x-amz-content-sha256`.
    content_sha256: bool,
}

/// All about a route's signatures that is the same for each of its requests.
#[derive(Debug, Clone)]
pub(super) struct Recipe {
    pub(super) profile: Profile,
    pub(super) service: String,
    pub(super) regions: Regions,
    amz: AmzHeaders,
    extras: Vec<HeaderName>,
}

impl Profile {
    /// The profile of a signing name. With `unsigned` a body of which the app says nothing is not signed, where the
    /// service allows that.
    ///
    /// # Errors
    /// For what is no signing name, and for the services whose rules are known to differ and are not built.
    pub fn of(service: &str, unsigned: bool) -> Result<Self, SetupError> {
        match service {
            "s3" | "s3-outposts" | "s3-object-lambda" => Ok(Self {
                path: Path::Key,
                bodies: Bodies::AsSaid { unsigned },
                content_sha256: true,
            }),
            "vpc-lattice-svcs" => Ok(Self {
                path: Path::Normalised,
                bodies: Bodies::Unsigned,
                content_sha256: true,
            }),
            "aoss" => Ok(Self {
                content_sha256: true,
                ..Self::GENERIC
            }),
            "s3express" => Err(SetupError::new(
                format!("service {service:?}"),
                "it signs with sessions of its own (CreateSession), which are not supported",
            )),
            _ if is_signing_name(service) => Ok(Self::GENERIC),
            _ => Err(SetupError::new(
                format!("service {service:?}"),
                "expected a signing name such as execute-api or lambda",
            )),
        }
    }

    pub(super) const GENERIC: Self = Self {
        path: Path::Normalised,
        bodies: Bodies::Hashed,
        content_sha256: false,
    };

    /// How the body of a request with these headers is to be sent. Asked before a byte of it is read.
    ///
    /// # Errors
    /// [`SignError::Unsignable`]: in pieces that can't be signed for, or that its headers contradict each other about.
    pub fn plan(&self, headers: &http::HeaderMap) -> Result<Plan, SignError> {
        self.bodies.plan(headers)
    }

    /// The path as it is signed and sent, where that is not the usual normal form: an S3 key.
    ///
    /// # Errors
    /// [`SignError::Unsignable`].
    pub fn key_path<'a>(
        &self,
        path: &'a str,
    ) -> Option<Result<std::borrow::Cow<'a, str>, SignError>> {
        (self.path == Path::Key).then(|| canonical::path(path, Path::Key))
    }
}

impl Recipe {
    pub(super) fn new(profile: Profile, service: &str, regions: Regions) -> Self {
        Self {
            profile,
            service: service.to_owned(),
            regions,
            amz: AmzHeaders::Usual,
            extras: Vec::new(),
        }
    }

    /// Lets these of the app's `x-amz-…` and `x-amzn-…` headers through, and no others.
    ///
    /// # Errors
    /// For what never passes.
    pub(super) fn amz_headers(mut self, patterns: &[String]) -> Result<Self, SetupError> {
        if let Some(never) = patterns.iter().find(|pattern| !headers::may_pass(pattern)) {
            let why = "expected x-amz-NAME, x-amzn-NAME or such a name's beginning and a *, and nothing that \
                       carries a signature";
            return Err(SetupError::new(format!("amz_headers: {never}"), why));
        }
        self.amz = AmzHeaders::Only(patterns.to_vec());
        Ok(self)
    }

    /// Signs these headers, too.
    ///
    /// # Errors
    /// For those that proxies change, and those that are removed or signed anyhow.
    pub(super) fn signed_headers(mut self, names: Vec<HeaderName>) -> Result<Self, SetupError> {
        for name in &names {
            if name.as_str().starts_with(AMZ) {
                let why =
                    "x-amz-* headers are signed wherever they pass; say which pass in amz_headers";
                return Err(SetupError::new(format!("signed_headers: {name}"), why));
            }
            if is_unsignable(name) {
                let why = "it changes on the way, or is set by the agent; it can't be signed";
                return Err(SetupError::new(format!("signed_headers: {name}"), why));
            }
        }
        self.extras = names;
        Ok(self)
    }

    /// The key for the day of `date` ([`Key::is_of`]).
    pub(super) fn key(&self, credentials: &Credentials, date: &str) -> Result<Key, SignError> {
        Key::new(credentials, &self.regions, &self.service, date)
    }

    /// Puts `parts` into the form that is signed and sent: call before [`Recipe::sign`] and [`Recipe::presign`].
    pub(super) fn prepare(&self, parts: &mut Parts) -> Result<(), SignError> {
        headers::prepare(&self.amz, &self.extras, parts)?;
        let path = canonical::path(parts.uri.path(), self.profile.path)?;
        let raw_query = parts.uri.query();
        let query = canonical::query(raw_query.unwrap_or_default())?;
        if path == parts.uri.path() && query.as_deref() == raw_query {
            return Ok(());
        }
        let path_and_query = match query {
            Some(query) => format!("{path}?{query}"),
            None => path.into_owned(),
        };
        set_target(parts, path_and_query)
    }

    /// Signs prepared `parts` in headers; `date` is now, as `x-amz-date` has it.
    pub(super) fn sign(
        &self,
        key: &Key,
        date: &str,
        parts: &mut Parts,
        payload: &Payload,
    ) -> Result<(), SignError> {
        let headers = &mut parts.headers;
        headers.insert(DATE, HeaderValue::from_str(date).map_err(unsignable)?);
        if let Some(token) = key.token() {
            headers.insert(SECURITY_TOKEN, token.clone());
        }
        if self.profile.content_sha256 {
            headers.insert(CONTENT_SHA256, payload.header()?);
        }
        if let Some(set) = self.regions.set() {
            headers.insert(REGION_SET, HeaderValue::from_str(set).map_err(unsignable)?);
        }
        let query = parts.uri.query().unwrap_or_default();
        let (canonical, names) = self.canonical_request(parts, query, payload);
        let signature = key.sign(date, canonical.as_bytes())?;
        let (algorithm, credential) = (key.algorithm(), key.credential());
        let value = [
            algorithm,
            " Credential=",
            credential,
            ", SignedHeaders=",
            &names,
            ", Signature=",
            &signature,
        ]
        .concat();
        let mut value = HeaderValue::try_from(value).map_err(unsignable)?;
        // The signature is worth a replay within minutes.
        value.set_sensitive(true);
        parts.headers.insert(AUTHORIZATION, value);
        Ok(())
    }

    /// The canonical request, and the signed headers' names.
    fn canonical_request(&self, parts: &Parts, query: &str, payload: &Payload) -> (String, String) {
        let signed = headers::signed(&parts.headers, &self.extras);
        let size: usize = signed
            .iter()
            .map(|(name, value)| 2 * name.len() + value.len() + 3)
            .sum();
        let path = parts.uri.path();
        let mut text = String::with_capacity(size + 2 * path.len() + query.len() + 128);
        text.push_str(parts.method.as_str());
        text.push('\n');
        match self.profile.path {
            Path::Key => text.push_str(path),
            _ => canonical::escape_path(path, &mut text),
        }
        text.push('\n');
        text.push_str(query);
        text.push('\n');
        let mut names = String::with_capacity(size);
        for (name, value) in signed {
            text.push_str(name);
            text.push(':');
            // ASCII, as prepared.
            text.push_str(std::str::from_utf8(value).unwrap_or_default());
            text.push('\n');
            if !names.is_empty() {
                names.push(';');
            }
            names.push_str(name);
        }
        text.push('\n');
        text.push_str(&names);
        text.push('\n');
        text.push_str(payload.as_str());
        (text, names)
    }
}

fn set_target(parts: &mut Parts, path_and_query: String) -> Result<(), SignError> {
    let mut uri = std::mem::take(&mut parts.uri).into_parts();
    uri.path_and_query = Some(PathAndQuery::try_from(path_and_query).map_err(unsignable)?);
    parts.uri = Uri::from_parts(uri).map_err(unsignable)?;
    Ok(())
}

fn is_signing_name(service: &str) -> bool {
    !service.is_empty()
        && service.len() <= 64
        && service
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

fn unsignable(why: impl std::fmt::Display) -> SignError {
    SignError::Unsignable(why.to_string())
}

#[cfg(test)]
mod vectors;
