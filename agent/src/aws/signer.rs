//! Signing the requests of one route.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwapOption;
use http::{
    header::{CONTENT_TYPE, HOST},
    request::Parts,
};
use warifu::SpiffeId;

use super::{
    Roles, SessionError, SetupError, SignError,
    cache::{Cache, Held},
    clock::Clock,
    sigv4::{Key, Payload, Profile, Recipe, Regions},
};
use crate::{config::outbound::RouteSigV4, telemetry::timestamp::Timestamp};

/// Signs the requests of one route: its role, service and region.
#[derive(Clone)]
pub struct Signer {
    credentials: Cache,
    clock: Clock,
    recipe: Recipe,
    made: Arc<ArcSwapOption<Made>>,
}

/// The last key: good for the day, while the credentials are the same.
struct Made {
    held: Arc<Held>,
    key: Key,
}

/// A URL that is signed in its query, but for scheme and host: `parts.uri` has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Presigned {
    /// What must be sent with it, beside `host`: names and values.
    pub headers: Vec<(String, String)>,
    /// When it is good no more.
    pub expires: SystemTime,
}

impl Signer {
    /// A signer for `route`, of this workload.
    ///
    /// # Errors
    /// When the route's role or headers can't be what AWS takes, or the role session is named after the workload and
    /// that has no name yet. No call is made.
    pub fn new(
        roles: &Roles,
        route: &RouteSigV4,
        workload: Option<&SpiffeId>,
    ) -> Result<Self, SessionError> {
        let profile = Profile::of(&route.service, route.unsigned_payload)?;
        let mut extras = route.signed_headers.clone();
        extras.retain(|name| *name != HOST && *name != CONTENT_TYPE);
        let mut recipe = Recipe::new(profile, &route.service, regions(route, roles.region())?)
            .signed_headers(extras)?;
        if let Some(patterns) = &route.amz_headers {
            recipe = recipe.amz_headers(patterns)?;
        }
        let credentials = match &route.role {
            Some(role) => roles.credentials(&roles.session(role, workload)?),
            None => roles.base(),
        };
        Ok(Self {
            credentials,
            clock: roles.clock().clone(),
            recipe,
            made: Arc::default(),
        })
    }

    /// Puts path, query and signed headers in the form that is signed, strips what the app must not say
    /// (`authorization`, what carries or steers a signature, who calls), and signs with credentials that are valid
    /// now.
    ///
    /// `parts.uri` is in origin form with the upstream's base path; `parts.headers` has the
    /// upstream's `host`. Called again for every attempt: a signature is good for minutes.
    ///
    /// # Errors
    /// See [`SignError`]. `parts` may be changed, but carries no signature then.
    pub async fn sign(&self, parts: &mut Parts, payload: &Payload) -> Result<(), SignError> {
        self.recipe.prepare(parts)?;
        let held = self.held().await?;
        let date = Timestamp(self.clock.now()).basic();
        let made = self.made(held, &date)?;
        self.recipe.sign(&made.key, &date, parts, payload)
    }

    /// As [`Signer::sign`], in the query: whoever has the URL may make this call, for `longest`, or as long as the
    /// credentials that sign live.
    ///
    /// # Errors
    /// See [`SignError`].
    pub async fn presign(
        &self,
        parts: &mut Parts,
        payload: &Payload,
        longest: Duration,
    ) -> Result<Presigned, SignError> {
        self.recipe.prepare(parts)?;
        let held = self.held().await?;
        let now = self.clock.now();
        let left = held
            .credentials
            .expiry()
            .map(|expiry| expiry.duration_since(now).unwrap_or_default());
        let expires = Duration::from_secs(left.map_or(longest, |left| left.min(longest)).as_secs());
        let date = Timestamp(now).basic();
        let made = self.made(held, &date)?;
        let headers = self
            .recipe
            .presign(&made.key, &date, expires, parts, payload)?;
        Ok(Presigned {
            headers,
            expires: now + expires,
        })
    }

    async fn held(&self) -> Result<Arc<Held>, SignError> {
        let held = self.credentials.get().await;
        held.map_err(|error| SignError::NoCredentials {
            role: self.credentials.name().to_owned(),
            why: error.to_string(),
        })
    }

    /// The key for these credentials and this day. Two requests may make it at the same time: it is the same key.
    fn made(&self, held: Arc<Held>, date: &str) -> Result<Arc<Made>, SignError> {
        if let Some(made) = self.made.load_full()
            && Arc::ptr_eq(&made.held, &held)
            && made.key.is_of(date)
        {
            return Ok(made);
        }
        let key = self.recipe.key(&held.credentials, date)?;
        let made = Arc::new(Made { held, key });
        self.made.store(Some(Arc::clone(&made)));
        Ok(made)
    }
}

/// Where a route's signatures are good.
fn regions(route: &RouteSigV4, usual: &str) -> Result<Regions, SetupError> {
    if route.region_set.is_empty() {
        let region = route.region.as_deref().unwrap_or(usual);
        return Ok(Regions::One(region.to_owned()));
    }
    Regions::set_of(&route.region_set)
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signer")
            .field("credentials", &self.credentials.name())
            .field("recipe", &self.recipe)
            .finish_non_exhaustive()
    }
}
