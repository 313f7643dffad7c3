//! Our profile of SigV4, around the `aws-sigv4` crate: what is signed is what is sent.
//!
//! The request is first put into a form in which every verifier sees the same thing, and that form is
//! sent. What changes on the wire:
//!
//! - query: pairs in order, every byte outside `A-Z a-z 0-9 - _ . ~` escaped in upper case, `+` (a space
//!   to AWS) as `%20`, empty pairs gone, a name without `=` with one;
//! - path, all services but S3: dot segments resolved, empty segments gone;
//! - path, S3: escapes as above, nothing resolved (`a//b` is another key than `a/b`);
//! - signed headers: one line a name, white space at the ends gone and within collapsed to one space;
//!   a default port is left out of `host`.
//!
//! Refused, because a verifier may read it otherwise than we: escapes that are not hex or not UTF-8,
//! escaped dot segments, an escaped slash in an S3 key, signed headers that are not ASCII, a repeated
//! `host` or `content-type`, a query that is signed already, a body in signed pieces.
//!
//! <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html>

use std::time::SystemTime;

use aws_sigv4::{
    http_request::{
        PayloadChecksumKind, PercentEncodingMode, SessionTokenMode, SignableBody, SignableRequest,
        SigningSettings, UriPathNormalizationMode,
    },
    sign::v4,
};
use aws_smithy_runtime_api::client::identity::Identity;
use http::{
    HeaderMap, HeaderName, HeaderValue, Uri,
    header::{AUTHORIZATION, CONTENT_TYPE, HOST},
    request::Parts,
    uri::PathAndQuery,
};

use super::{SetupError, SignError};
use crate::config::value::is_unsignable;

mod canonical;
mod streamed;

use canonical::Path;
pub use streamed::refuse_streamed;

/// Prefix of the headers (and, in any case, query parameters) that carry or steer a signature.
const AMZ: &str = "x-amz-";

/// How a service wants its requests signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Profile {
    path: Path,
    /// Sends the body's hash as `x-amz-content-sha256`.
    content_sha256: bool,
    session_token: SessionTokenMode,
}

/// What the signature is for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scope<'a> {
    pub(super) region: &'a str,
    pub(super) service: &'a str,
}

impl Profile {
    /// The profile of a signing name.
    ///
    /// # Errors
    /// For the services whose rules are known to differ and are not built yet.
    pub(super) fn of(service: &str) -> Result<Self, SetupError> {
        match service {
            "s3" => Ok(Self::S3),
            "vpc-lattice-svcs" | "s3express" | "aoss" => Err(SetupError::new(
                format!("service {service:?}"),
                "this service has signing rules of its own, which are not supported",
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
        content_sha256: false,
        session_token: SessionTokenMode::Include,
    };

    const S3: Self = Self {
        path: Path::AsSent,
        content_sha256: true,
        session_token: SessionTokenMode::Include,
    };

    fn settings(self) -> SigningSettings {
        let mut settings = SigningSettings::default();
        (
            settings.percent_encoding_mode,
            settings.uri_path_normalization_mode,
        ) = match self.path {
            Path::Normalised => (
                PercentEncodingMode::Double,
                UriPathNormalizationMode::Enabled,
            ),
            Path::AsSent => (
                PercentEncodingMode::Single,
                UriPathNormalizationMode::Disabled,
            ),
            #[cfg(test)]
            Path::DoubleAsSent => (
                PercentEncodingMode::Double,
                UriPathNormalizationMode::Disabled,
            ),
        };
        settings.payload_checksum_kind = if self.content_sha256 {
            PayloadChecksumKind::XAmzSha256
        } else {
            PayloadChecksumKind::NoHeader
        };
        settings.session_token_mode = self.session_token;
        // The list of headers given is the list of headers signed.
        settings.excluded_headers = None;
        settings
    }
}

/// Whether a further header may be signed.
///
/// # Errors
/// For headers that proxies change, and those that are always removed.
pub(super) fn may_be_signed(name: &HeaderName) -> Result<(), SetupError> {
    if name.as_str().starts_with(AMZ) {
        let why = "x-amz-* headers of the app are always removed, never signed";
        Err(SetupError::new(format!("signed_headers: {name}"), why))
    } else if is_unsignable(name) {
        let why = "it changes on the way, or is set by the agent; it can't be signed";
        Err(SetupError::new(format!("signed_headers: {name}"), why))
    } else {
        Ok(())
    }
}

/// Puts `parts` into the form that is signed and sent: call before [`sign`].
pub(super) fn prepare(
    profile: Profile,
    extras: &[HeaderName],
    parts: &mut Parts,
) -> Result<(), SignError> {
    refuse_streamed(&parts.headers)?;
    strip(&mut parts.headers);
    let authority = parts.uri.authority().map(http::uri::Authority::as_str);
    let host = canonical::host(&parts.headers, authority)?;
    parts.headers.insert(HOST, host);
    for name in std::iter::once(&CONTENT_TYPE).chain(extras) {
        if let Some(value) = canonical::header(&parts.headers, name)? {
            parts.headers.insert(name, value);
        }
    }

    let path = canonical::path(parts.uri.path(), profile.path)?;
    let query = canonical::query(parts.uri.query().unwrap_or_default())?;
    let path_and_query = match query {
        Some(query) => format!("{path}?{query}"),
        None => path.into_owned(),
    };
    let mut uri = std::mem::take(&mut parts.uri).into_parts();
    uri.path_and_query = Some(PathAndQuery::try_from(path_and_query).map_err(unsignable)?);
    parts.uri = Uri::from_parts(uri).map_err(unsignable)?;
    Ok(())
}

/// Signs prepared `parts` at `time`; `payload_hash` is the body's SHA-256 in lower-case hex.
pub(super) fn sign(
    profile: Profile,
    extras: &[HeaderName],
    scope: Scope<'_>,
    identity: &Identity,
    time: SystemTime,
    parts: &mut Parts,
    payload_hash: String,
) -> Result<(), SignError> {
    let params = v4::SigningParams::builder()
        .identity(identity)
        .region(scope.region)
        .name(scope.service)
        .time(time)
        .settings(profile.settings())
        .build()
        .map_err(unsignable)?
        .into();
    let path_and_query = parts.uri.path_and_query().map_or("/", PathAndQuery::as_str);
    let request = SignableRequest::new(
        parts.method.as_str(),
        path_and_query,
        signed_headers(&parts.headers, extras),
        SignableBody::Precomputed(payload_hash),
    )
    .map_err(unsignable)?;
    let (instructions, _) = aws_sigv4::http_request::sign(request, &params)
        .map_err(unsignable)?
        .into_parts();
    let (headers, _) = instructions.into_parts();
    for header in headers {
        let mut value = HeaderValue::from_str(header.value()).map_err(unsignable)?;
        // The signature is worth a replay within minutes, the token is half a credential.
        value.set_sensitive(header.sensitive() || header.name() == AUTHORIZATION.as_str());
        parts
            .headers
            .insert(HeaderName::from_static(header.name()), value);
    }
    Ok(())
}

/// The names and values that are signed: an allow-list. What others put beside them on the way, or
/// take away, does not break the signature.
fn signed_headers<'a>(
    headers: &'a HeaderMap,
    extras: &'a [HeaderName],
) -> impl Iterator<Item = (&'a str, &'a str)> {
    [&HOST, &CONTENT_TYPE]
        .into_iter()
        .chain(extras.iter().filter(|n| *n != HOST && *n != CONTENT_TYPE))
        .filter_map(|name| Some((name.as_str(), headers.get(name)?.to_str().ok()?)))
}

/// Removes what the app must not say (S6), and what an earlier attempt said.
fn strip(headers: &mut HeaderMap) {
    headers.remove(AUTHORIZATION);
    let amz: Vec<HeaderName> = headers
        .keys()
        .filter(|name| name.as_str().starts_with(AMZ))
        .cloned()
        .collect();
    for name in amz {
        headers.remove(name);
    }
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
