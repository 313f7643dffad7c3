//! One request, one response, over one connection.

use std::{sync::Arc, time::Duration};

use http::{HeaderValue, Request, Response, Uri, Version, header::HOST, uri::Scheme};
use http_body::Body as _;
use hyper::body::Incoming;

use super::{
    Inner, SendError,
    connect::describe,
    lease::{Lease, PooledBody},
    lock,
    shelf::Connection,
};
use crate::http::{
    body::{Body, Phase, Progress},
    headers::X_WARIFU_CONNECTION,
};

/// Why there is no response.
pub(super) enum Failure {
    /// No byte of the request was written; here it is, in origin form, and why.
    Unsent(Box<Request<Body>>, String),
    /// It broke after the request was, or may have been, written.
    Broken(String),
    /// Not to be tried again.
    Final(SendError),
}

/// Sends `request` over `connection` and waits for the head of the response.
pub(super) async fn exchange(
    upstream: &Arc<Inner>,
    connection: Connection,
    mut request: Request<Body>,
    first_byte: Duration,
) -> Result<Response<Body>, Failure> {
    // From here on, dropping the lease gives the connection back or ends it.
    let mut lease = Lease::new(upstream, connection);
    let written = match lease.connection() {
        Some(Connection::H2(_)) => absolute_form(&mut request, upstream.scheme()),
        _ => origin_form(&mut request),
    };
    if !written {
        lease.unused();
        let to = upstream.to.clone();
        return Err(Failure::Final(SendError::NoHost { to }));
    }
    let progress = watch_body(&mut request);
    let outcome = match lease.connection() {
        Some(Connection::H1(h1)) => {
            let response = h1.sender.try_send_request(request);
            wait(response, first_byte, progress.as_ref()).await
        }
        Some(Connection::H2(h2)) => {
            let response = h2.sender.try_send_request(request);
            wait(response, first_byte, progress.as_ref()).await
        }
        None => return Err(Failure::Broken("no connection".to_owned())),
    };
    match outcome {
        Ok(Ok(mut response)) => {
            let closes = response.headers_mut().remove(X_WARIFU_CONNECTION).is_some();
            if let (true, Some(Connection::H2(h2))) = (closes, lease.connection()) {
                let retired = lock(&upstream.shelf).retire(h2.id);
                drop(retired);
            }
            Ok(attach(response, lease))
        }
        Ok(Err(mut error)) => Err(match error.take_message() {
            Some(mut request) => {
                // As it came: the next attempt may be over another version.
                origin_form(&mut request);
                let why = lease
                    .ended()
                    .unwrap_or_else(|| describe(error.into_error()));
                Failure::Unsent(Box::new(request), why)
            }
            None => failed(error.into_error(), progress.as_ref()),
        }),
        Err(()) => Err(Failure::Final(match phase(progress.as_ref()) {
            Phase::Awaited => SendError::RequestBodyLate { after: first_byte },
            _ => SendError::TimedOut {
                to: upstream.to.clone(),
                after: first_byte,
            },
        })),
    }
}

/// Waits for `response`; gives up `after` this time without it, counted from the last piece of the
/// request's body: a long upload is not a slow answer.
async fn wait<F: Future>(
    response: F,
    after: Duration,
    progress: Option<&Progress>,
) -> Result<F::Output, ()> {
    let mut response = std::pin::pin!(response);
    let mut left = after;
    loop {
        if let Ok(outcome) = tokio::time::timeout(left, response.as_mut()).await {
            return Ok(outcome);
        }
        left = match progress {
            Some(progress) => after.saturating_sub(progress.idle()),
            None => Duration::ZERO,
        };
        if left.is_zero() {
            return Err(());
        }
    }
}

/// Ties the connection to the body, so that it is reused when the body was read to its end.
fn attach(response: Response<Incoming>, mut lease: Lease) -> Response<Body> {
    let (mut parts, body) = response.into_parts();
    // The upstream's version is its own affair; 1.0 would end our downstream's connection.
    parts.version = Version::HTTP_11;
    if body.is_end_stream() {
        lease.finished();
        return Response::from_parts(parts, Body::Incoming(body));
    }
    Response::from_parts(parts, Body::Pooled(PooledBody::new(body, lease)))
}

/// A request's body that fails takes its exchange with it, whose own error is the poorer one.
fn failed(error: hyper::Error, progress: Option<&Progress>) -> Failure {
    match phase(progress) {
        Phase::TooLarge => Failure::Final(SendError::RequestBodyTooLarge),
        Phase::Broken => Failure::Final(SendError::RequestBody(describe(error))),
        Phase::Moving | Phase::Awaited => Failure::Broken(describe(error)),
    }
}

fn phase(progress: Option<&Progress>) -> Phase {
    progress.map_or(Phase::Moving, Progress::phase)
}

/// HTTP/1.1: origin form and `host`. False where there is no host.
fn origin_form(request: &mut Request<Body>) -> bool {
    *request.version_mut() = Version::HTTP_11;
    if let Some(authority) = request.uri().authority() {
        if !request.headers().contains_key(HOST) {
            let Ok(host) = HeaderValue::from_str(authority.as_str()) else {
                return false;
            };
            request.headers_mut().insert(HOST, host);
        }
        let path = request.uri().path_and_query().cloned();
        *request.uri_mut() = path.map_or_else(Uri::default, Uri::from);
    }
    request.headers().contains_key(HOST)
}

/// HTTP/2: absolute form, which becomes `:scheme`, `:authority` and `:path`; no `host`.
fn absolute_form(request: &mut Request<Body>, scheme: Scheme) -> bool {
    *request.version_mut() = Version::HTTP_2;
    let Some(host) = request.headers_mut().remove(HOST) else {
        return request.uri().authority().is_some();
    };
    let mut uri = std::mem::take(request.uri_mut()).into_parts();
    uri.scheme = Some(scheme);
    uri.authority = host.as_bytes().try_into().ok();
    if uri.authority.is_none() {
        return false;
    }
    match Uri::from_parts(uri) {
        Ok(uri) => *request.uri_mut() = uri,
        Err(_) => return false,
    }
    true
}

/// Watches a streamed request body. Whole bodies need no such thing.
fn watch_body(request: &mut Request<Body>) -> Option<Progress> {
    match request.body_mut() {
        Body::Upload(body) if !body.is_end_stream() => Some(body.watch()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(30);

    #[tokio::test(start_paused = true)]
    async fn a_long_upload_is_not_a_slow_answer() {
        let progress = Progress::made_up();
        let upload = async {
            for _ in 0..10 {
                tokio::time::sleep(LIMIT * 2 / 3).await;
                progress.piece();
            }
            tokio::time::sleep(LIMIT * 2 / 3).await;
            "answered"
        };
        assert_eq!(wait(upload, LIMIT, Some(&progress)).await, Ok("answered"));
    }

    #[tokio::test(start_paused = true)]
    async fn an_upload_that_stalls_is_given_up_after_the_time_for_an_answer() {
        let start = Instant::now();
        let progress = Progress::made_up();
        let stalls = async {
            tokio::time::sleep(LIMIT / 2).await;
            progress.piece();
            std::future::pending::<()>().await;
        };
        assert_eq!(wait(stalls, LIMIT, Some(&progress)).await, Err(()));
        let waited = start.elapsed();
        let expected = LIMIT * 3 / 2;
        assert!(
            waited >= expected && waited < expected + LIMIT / 10,
            "{waited:?}"
        );
    }
}
