//! How much is served.

use std::{num::NonZeroUsize, time::Duration};

use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::value::{Size, Span};

/// What a listener takes before it refuses.
#[derive(Debug, Clone, Copy, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Of each caller, told apart by its SPIFFE ID, or else by what its token names.
    #[serde(default)]
    pub per_caller: PerCaller,
    /// Requests under way at once, of all callers; more are answered 503. No limit but the connections' where absent.
    pub concurrency: Option<NonZeroUsize>,
    /// Bytes of a request's body; more is answered 413. No limit where absent: bodies are streamed, and take no memory.
    pub body: Option<Size>,
}

/// What one caller may ask; more is answered 429.
#[derive(Debug, Clone, Copy, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PerCaller {
    /// Requests in a time.
    pub rate: Option<Rate>,
    /// Requests under way at once.
    pub concurrency: Option<NonZeroUsize>,
}

/// A rate, and how far ahead of it a caller may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rate {
    /// Requests …
    pub requests: NonZeroUsize,
    /// … in each of these spans.
    pub every: Span,
    /// Requests at once after a pause; as many as `requests` where absent.
    pub burst: Option<NonZeroUsize>,
}

impl Rate {
    /// Time that one request takes up.
    pub fn each(&self) -> Duration {
        self.every.0 / u32::try_from(self.requests.get()).unwrap_or(u32::MAX)
    }

    /// Time that a whole burst takes up.
    pub fn whole_burst(&self) -> Duration {
        let burst = self.burst.unwrap_or(self.requests);
        self.each()
            .saturating_mul(u32::try_from(burst.get()).unwrap_or(u32::MAX))
    }
}
