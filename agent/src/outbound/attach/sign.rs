//! The seam to [`crate::aws`].

use std::{fmt, future::Future, pin::Pin, time::Duration};

use http::request::Parts;

use crate::aws::{Payload, Presigned, SignError, Signer};

/// What comes of signing.
pub type Signing<'a, T> = Pin<Box<dyn Future<Output = Result<T, SignError>> + Send + 'a>>;

/// Signs the requests of one route.
pub trait Sign: fmt::Debug + Send + Sync + 'static {
    /// Signs `parts`, and what stands for the body; called for each request that is sent.
    fn sign<'a>(&'a self, parts: &'a mut Parts, payload: &'a Payload) -> Signing<'a, ()>;

    /// Signs `parts` in the query, for `longest`: `parts.uri` is then the URL's path and query.
    fn presign<'a>(
        &'a self,
        parts: &'a mut Parts,
        payload: &'a Payload,
        longest: Duration,
    ) -> Signing<'a, Presigned>;
}

impl Sign for Signer {
    fn sign<'a>(&'a self, parts: &'a mut Parts, payload: &'a Payload) -> Signing<'a, ()> {
        Box::pin(Self::sign(self, parts, payload))
    }

    fn presign<'a>(
        &'a self,
        parts: &'a mut Parts,
        payload: &'a Payload,
        longest: Duration,
    ) -> Signing<'a, Presigned> {
        Box::pin(Self::presign(self, parts, payload, longest))
    }
}
