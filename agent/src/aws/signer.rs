//! Signing the requests of one route.

use std::{fmt, time::SystemTime};

use aws_lc_rs::digest;
use http::{HeaderName, header::CONTENT_TYPE, header::HOST, request::Parts};

use super::{
    RoleSession, Roles, SetupError, SignError,
    cache::Cache,
    clock::Clock,
    sigv4::{self, Profile, Scope},
};
use crate::config::outbound::RouteSigV4;

/// Signs the requests of one route: its role, service and region.
#[derive(Clone)]
pub struct Signer {
    credentials: Cache,
    clock: Clock,
    profile: Profile,
    service: String,
    region: String,
    extras: Vec<HeaderName>,
}

impl Signer {
    /// A signer for `route`. `session_name` names the role session where the route doesn't
    /// ([`session_name`](super::session_name)).
    ///
    /// # Errors
    /// When the route's role, names, duration or headers can't be what AWS takes. No call is made.
    pub fn new(roles: &Roles, route: &RouteSigV4, session_name: &str) -> Result<Self, SetupError> {
        let profile = Profile::of(&route.service)?;
        for name in &route.signed_headers {
            sigv4::may_be_signed(name)?;
        }
        let credentials = match &route.role {
            Some(role) => roles.session(RoleSession::new(
                role,
                route.session_name.as_deref().unwrap_or(session_name),
                route.external_id.as_deref(),
                route.duration.0,
            )?),
            None => roles.base(),
        };
        let mut extras = route.signed_headers.clone();
        extras.retain(|name| *name != HOST && *name != CONTENT_TYPE);
        extras.dedup();
        Ok(Self {
            credentials,
            clock: roles.clock().clone(),
            profile,
            service: route.service.clone(),
            region: route
                .region
                .clone()
                .unwrap_or_else(|| roles.region().to_owned()),
            extras,
        })
    }

    /// Puts path, query and signed headers in the form that is signed, strips inbound
    /// `authorization` and `x-amz-*`, and signs with credentials that are valid now.
    ///
    /// `parts.uri` is in origin form with the upstream's base path; `parts.headers` has the
    /// upstream's `host`. Called again for every attempt: a signature is good for minutes.
    ///
    /// # Errors
    /// See [`SignError`]. `parts` may be changed, but carries no signature then.
    pub async fn sign(&self, parts: &mut Parts, body: &[u8]) -> Result<(), SignError> {
        sigv4::prepare(self.profile, &self.extras, parts)?;
        let held = self
            .credentials
            .get()
            .await
            .map_err(|error| SignError::NoCredentials {
                role: self.credentials.name().to_owned(),
                why: error.to_string(),
            })?;
        let scope = Scope {
            region: &self.region,
            service: &self.service,
        };
        let now: SystemTime = self.clock.now();
        let hash = hex_sha256(body);
        sigv4::sign(
            self.profile,
            &self.extras,
            scope,
            &held.identity,
            now,
            parts,
            hash,
        )
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signer")
            .field("credentials", &self.credentials.name())
            .field("service", &self.service)
            .field("region", &self.region)
            .finish_non_exhaustive()
    }
}

/// SHA-256 in lower-case hex.
pub(super) fn hex_sha256(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(64);
    for byte in digest::digest(&digest::SHA256, bytes).as_ref() {
        for nibble in [byte >> 4, byte & 15] {
            text.push(char::from_digit(u32::from(nibble), 16).unwrap_or('0'));
        }
    }
    text
}
