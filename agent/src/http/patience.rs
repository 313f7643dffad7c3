//! How long answers are waited for.

use std::time::Duration;

use http::{HeaderMap, header::CONTENT_TYPE};
use tokio::time::Instant;

use crate::config::{defaults::FIRST_BYTE_TIMEOUT, outbound::Timeouts};

/// No limit: timers take it for thirty years.
const NO_LIMIT: Duration = Duration::MAX;

/// The configured [`Timeouts`], for one request after the other.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    first_byte: Option<Duration>,
    whole: Option<Duration>,
}

/// When a request has to be over.
#[derive(Debug, Clone, Copy)]
pub struct Deadline {
    /// At this time …
    pub at: Instant,
    /// … which is so long after its beginning.
    pub whole: Duration,
}

impl Patience {
    /// As configured.
    pub fn new(timeouts: &Timeouts) -> Self {
        Self {
            first_byte: timeouts.first_byte.map(|limit| limit.0),
            whole: timeouts.whole.map(|limit| limit.0),
        }
    }

    /// From the last byte of a request with these headers to the first of its answer. Where nothing is configured, gRPC has no
    /// limit: a server that streams says nothing until it has something to say, and a call that is urgent carries its
    /// own (`grpc-timeout`).
    pub fn first_byte(&self, headers: &HeaderMap) -> Duration {
        match self.first_byte {
            Some(Duration::ZERO) => NO_LIMIT,
            Some(limit) => limit,
            None if is_grpc(headers) => NO_LIMIT,
            None => FIRST_BYTE_TIMEOUT,
        }
    }

    /// To obtain what is attached to a request, which has always a limit.
    pub fn credential(&self) -> Duration {
        let limit = self.first_byte.filter(|limit| !limit.is_zero());
        limit.unwrap_or(FIRST_BYTE_TIMEOUT)
    }

    /// For a request that begins now.
    pub fn deadline(&self) -> Option<Deadline> {
        let whole = self.whole?;
        let at = Instant::now().checked_add(whole)?;
        Some(Deadline { at, whole })
    }
}

/// `application/grpc`, and what follows it: `+proto`, `-web`.
fn is_grpc(headers: &HeaderMap) -> bool {
    let content_type = headers.get(CONTENT_TYPE);
    content_type.is_some_and(|it| it.as_bytes().starts_with(b"application/grpc"))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;
    use crate::config::value::Span;

    fn of(content_type: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(content_type))])
    }

    #[test]
    fn grpc_has_a_limit_only_where_one_is_configured_and_what_is_attached_always() {
        let patience = |first_byte: Option<u64>| {
            Patience::new(&Timeouts {
                first_byte: first_byte.map(|limit| Span(Duration::from_secs(limit))),
                ..Timeouts::default()
            })
        };
        let grpc = of("application/grpc+proto");
        for (configured, others, of_grpc, credential) in [
            (None, FIRST_BYTE_TIMEOUT, NO_LIMIT, FIRST_BYTE_TIMEOUT),
            (Some(0), NO_LIMIT, NO_LIMIT, FIRST_BYTE_TIMEOUT),
            (
                Some(7),
                Duration::from_secs(7),
                Duration::from_secs(7),
                Duration::from_secs(7),
            ),
        ] {
            let patience = patience(configured);
            assert_eq!(patience.first_byte(&HeaderMap::new()), others);
            assert_eq!(patience.first_byte(&of("application/json")), others);
            assert_eq!(patience.first_byte(&grpc), of_grpc);
            assert_eq!(patience.credential(), credential);
        }
    }
}
