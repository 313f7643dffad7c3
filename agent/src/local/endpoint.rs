//! The HTTP endpoints of this machine, whatever is spoken there: who may ask, limits, metrics, the log, and the status
//! of what is refused.
//!
//! ```text
//! connection ──▶ guard (Host, Origin, forwarded) ──▶ uid, gid ──▶ Protocol::answer ──▶ Answer   ─┐
//!                         └───────────────────────────┴────────────────────────────▶ Refusal  ─┴▶ counted
//! ```

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use bytes::Bytes;
use http::{
    HeaderValue, Request, Response, StatusCode,
    header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, PRAGMA, RETRY_AFTER},
};
use hyper::body::Incoming;
use serde::Serialize;

use super::{
    asker::{Asker, Door},
    bucket::Bucket,
    guard::guard,
    server::{Answers, Server},
};
use crate::{
    config::{local::Clients, value::Listen},
    http::{
        body::Body,
        server::{self, Draining, Limits, Listener, ListenerMetrics},
    },
};
use metrics::Counts;

pub(super) use metrics::Metrics;
pub(super) use refusal::{Own, Refusal, Why};

mod metrics;
mod refusal;

/// Seconds after which it is worth asking again: an authority, or AWS, that is back is noticed as soon.
const RETRY_SECONDS: HeaderValue = HeaderValue::from_static("2");

/// What the metric calls an answer with what the endpoint is for.
pub(super) const GIVEN: &str = "given";

/// What is spoken at an endpoint.
pub(super) trait Protocol: Send + Sync + 'static {
    /// What is refused here, beside what every endpoint refuses.
    const REFUSES: &'static [Why];

    /// Answers a request that may be made.
    fn answer(
        &self,
        request: Request<Incoming>,
    ) -> impl Future<Output = Result<Answer, Refusal>> + Send;

    /// A refusal in the words of this protocol's clients.
    fn refuse(&self, refusal: &Refusal) -> Response<Body>;
}

/// Something other than a refusal.
pub(super) struct Answer {
    pub(super) response: Response<Body>,
    /// For the metric; `None` for what only leads to an answer that counts.
    pub(super) outcome: Option<&'static str>,
}

/// An endpoint.
pub(super) struct Endpoint<P> {
    pub(super) protocol: P,
    /// Where it is configured: `local.oauth`.
    setting: String,
    listen: Listen,
    door: Door,
    counts: Counts,
    /// Lines of the log that refusals may write.
    lines: Mutex<Bucket>,
}

impl<P: Protocol> Endpoint<P> {
    /// The endpoint that `setting` configures, on `listener`, for `clients`.
    pub(super) fn new(
        protocol: P,
        setting: String,
        listener: &Listener,
        clients: &Clients,
        counts: Counts,
    ) -> Arc<Self> {
        let known = Why::EVERYWHERE.iter().chain(P::REFUSES);
        counts.expect(known.map(|why| why.word()).chain([GIVEN]));
        Arc::new(Self {
            protocol,
            setting,
            listen: listener.address().clone(),
            door: Door::new(clients),
            counts,
            lines: Mutex::new(Bucket::new(Instant::now())),
        })
    }

    /// Serves until the drain has ended.
    pub(super) fn serve(
        self: &Arc<Self>,
        listener: Listener,
        limits: Limits,
        metrics: ListenerMetrics,
        draining: Draining,
    ) -> impl Future<Output = usize> + Send + use<P> {
        let server = Server::new(self.door.clone(), Arc::clone(self));
        server::serve(listener, server, limits, metrics, draining)
    }

    async fn try_answer(
        &self,
        asker: &Asker,
        request: Request<Incoming>,
    ) -> Result<Answer, Refusal> {
        guard(&self.listen, &request)?;
        if !asker.may_ask() {
            let setting = &self.setting;
            return Err(Refusal::new(
                Why::NotAllowed,
                format!("{setting}.clients names neither this process's user nor its group"),
            ));
        }
        self.protocol.answer(request).await
    }

    /// One line for each, unless there are too many.
    fn log(&self, asker: &Asker, refusal: &Refusal) {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.take(Instant::now()) {
            let (remote, setting) = (asker.remote(), &self.setting);
            let (reason, why) = (refusal.why.word(), &refusal.message);
            tracing::warn!(%remote, setting, reason, why, "a request of this machine was refused");
        }
    }
}

impl<P: Protocol> Answers for Endpoint<P> {
    async fn answer(&self, asker: &Asker, request: Request<Incoming>) -> Response<Body> {
        match self.try_answer(asker, request).await {
            Ok(Answer { response, outcome }) => {
                if let Some(outcome) = outcome {
                    self.counts.count(outcome);
                }
                response
            }
            Err(refusal) => {
                self.counts.count(refusal.why.word());
                self.log(asker, &refusal);
                refused(refusal.why, self.protocol.refuse(&refusal))
            }
        }
    }
}

/// With what every client is told beside the protocol's own words.
fn refused(why: Why, mut response: Response<Body>) -> Response<Body> {
    let headers = response.headers_mut();
    match why {
        Why::WrongMethod(allowed) => {
            headers.insert(ALLOW, HeaderValue::from_static(allowed));
        }
        why if why.may_pass() => {
            headers.insert(RETRY_AFTER, RETRY_SECONDS);
        }
        _ => {}
    }
    response
}

/// `content` as JSON that nobody may keep (RFC 6749 §5.1 wants both headers).
pub(super) fn json(status: StatusCode, content: &impl Serialize) -> Response<Body> {
    let content = serde_json::to_vec(content).unwrap_or_default();
    let mut response = unkept("application/json", content.into());
    *response.status_mut() = status;
    response
}

/// `text`, which nobody may keep.
pub(super) fn text(text: String) -> Response<Body> {
    unkept("text/plain", text.into())
}

fn unkept(content_type: &'static str, content: Bytes) -> Response<Body> {
    let mut response = Response::new(Body::from(content));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(PRAGMA, HeaderValue::from_static("no-cache"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_passes_is_asked_again_and_what_was_decided_is_not() {
        let limited = Why::Own(Own::new(StatusCode::TOO_MANY_REQUESTS, "limited", "Slow"));
        let decided = Why::Own(Own::new(StatusCode::UNAUTHORIZED, "no-token", "Token"));
        for why in Why::EVERYWHERE.iter().chain([&limited, &decided]) {
            let response = refused(*why, json(why.status(), &""));
            let again = *why == Why::Unavailable || *why == limited;
            assert_eq!(response.headers().contains_key(RETRY_AFTER), again);
            assert_eq!(
                response.status().is_server_error(),
                *why == Why::Unavailable
            );
            assert!(!response.status().is_success(), "{why:?}");
        }
    }

    #[test]
    fn a_wrong_method_names_the_right_ones() {
        let response = refused(Why::WrongMethod("GET, HEAD"), text(String::new()));
        assert_eq!(response.headers()[ALLOW], "GET, HEAD");
    }
}
