//! The seam to [`crate::aws`].

use std::{fmt, future::Future, pin::Pin};

use http::request::Parts;

use crate::aws::{SignError, Signer};

/// Signs the requests of one route.
pub trait Sign: fmt::Debug + Send + Sync + 'static {
    /// Signs `parts` with `body`; called for each request that is sent.
    fn sign<'a>(
        &'a self,
        parts: &'a mut Parts,
        body: &'a [u8],
    ) -> Pin<Box<dyn Future<Output = Result<(), SignError>> + Send + 'a>>;
}

impl Sign for Signer {
    fn sign<'a>(
        &'a self,
        parts: &'a mut Parts,
        body: &'a [u8],
    ) -> Pin<Box<dyn Future<Output = Result<(), SignError>> + Send + 'a>> {
        Box::pin(Self::sign(self, parts, body))
    }
}
