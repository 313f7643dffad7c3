//! The issuing API over HTTP: paths, limits, JSON in, JSON out.

use std::{sync::Arc, time::Duration, time::SystemTime};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Incoming;
use serde::{Serialize, de::DeserializeOwned};
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::timeout,
};

use super::{
    admin,
    denied::Denied,
    issue::{Asked, Issuing, tokens},
};
use crate::{
    attest::wire::{self, ErrorBody, ErrorCode},
    http::{
        body::Body,
        server::{Connection, Opened, Refused, Security, Service, Tls},
    },
};

/// Requests at once. Each costs up to a fifth of a millisecond of one core, so these are answered
/// within a quarter of a second; more would wait longer than it takes to ask again.
pub(super) const MAX_IN_FLIGHT: usize = 1024;
/// Bodies that may be arriving at once. They cost room, 256 MiB at worst, and no work: who sends one
/// slowly keeps nobody else from being answered.
const MAX_ARRIVING: usize = 4096;
/// Of one connection: an agent has a request or two under way.
const MAX_ARRIVING_OF_ONE: usize = 16;
/// Time for a request's body to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(5);
/// Time for a whole request: a state store that hangs must not hold agents longer than their own
/// time-out of 10 s, which says less.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(8);

/// The front door: no client certificate is asked for; what a request proves is in it.
#[derive(Debug)]
pub(super) struct FrontDoor {
    issuing: Arc<Issuing>,
    in_flight: Arc<Semaphore>,
    arriving: Arc<Semaphore>,
}

/// One connection.
#[derive(Debug)]
pub(super) struct Session {
    issuing: Arc<Issuing>,
    in_flight: Arc<Semaphore>,
    arriving: Arc<Semaphore>,
    arriving_here: Semaphore,
    remote: String,
}

impl FrontDoor {
    pub(super) fn new(issuing: Arc<Issuing>, max_in_flight: usize) -> Self {
        Self {
            issuing,
            in_flight: Arc::new(Semaphore::new(max_in_flight)),
            arriving: Arc::new(Semaphore::new(MAX_ARRIVING)),
        }
    }
}

impl Service for FrontDoor {
    type Session = Session;

    fn security(&self) -> Security {
        let live = self.issuing.live.load();
        Security::Tls(Tls {
            config: Arc::clone(&live.own.config),
            expires: Some(live.own.not_after),
        })
    }

    fn open(&self, connection: Connection) -> Result<Opened<Session>, Refused> {
        Ok(Opened {
            session: Arc::new(Session {
                issuing: Arc::clone(&self.issuing),
                in_flight: Arc::clone(&self.in_flight),
                arriving: Arc::clone(&self.arriving),
                arriving_here: Semaphore::new(MAX_ARRIVING_OF_ONE),
                remote: connection.remote.to_string(),
            }),
            expires: None,
        })
    }

    async fn call(session: Arc<Session>, request: Request<Incoming>) -> Response<Body> {
        match timeout(REQUEST_TIMEOUT, answer(&session, request)).await {
            Ok(Ok(response)) => response,
            Ok(Err(why)) => denied(&why),
            Err(_) => denied(&Denied::busy("the request took too long")),
        }
    }
}

impl Session {
    /// A place among those that are answered, or that arrive.
    fn place<'a>(&self, among: &'a Semaphore) -> Result<SemaphorePermit<'a>, Denied> {
        among.try_acquire().map_err(|_| {
            self.issuing.metrics.turned_away();
            Denied::busy("too many requests are under way")
        })
    }

    /// The body of a request, when it is there.
    async fn arrived<T: DeserializeOwned>(&self, request: Request<Incoming>) -> Result<T, Denied> {
        let _here = self.place(&self.arriving_here)?;
        let _anywhere = self.place(&self.arriving)?;
        read(request).await
    }
}

/// Decisions are boxed: what a connection holds is moved about, and most of it only waits to be read.
async fn answer(session: &Session, request: Request<Incoming>) -> Result<Response<Body>, Denied> {
    let issuing = &session.issuing;
    let now = SystemTime::now();
    let asked = Asked {
        now,
        remote: &session.remote,
    };
    let path = request.uri().path().to_owned();
    if path == wire::BUNDLE {
        expect(&request, &Method::GET)?;
        let _place = session.place(&session.in_flight)?;
        let live = issuing.live.load();
        return Ok(live.bundle_page.answer(request.headers()));
    }
    if path == wire::BUNDLES {
        expect(&request, &Method::GET)?;
        let _place = session.place(&session.in_flight)?;
        let live = issuing.live.load();
        let map = issuing.federation.map(&live.bundle, &live.bundle_page.body);
        return Ok(map.answer(request.headers()));
    }
    if path == wire::ACCESS_TOKEN_KEYS {
        expect(&request, &Method::GET)?;
        let _place = session.place(&session.in_flight)?;
        let live = issuing.live.load();
        let page = live.access_keys_page.as_ref();
        let page = page.ok_or_else(tokens::no_access_tokens)?;
        return Ok(page.answer(request.headers()));
    }
    if path == wire::REVOCATIONS {
        expect(&request, &Method::GET)?;
        let _place = session.place(&session.in_flight)?;
        let revoked = issuing.revoked.load();
        // "Not modified" is said by a replica that has just looked; another shows what it knew, and when.
        return Ok(match revoked.is_confirmed(now) {
            true => revoked.page.answer(request.headers()),
            false => revoked.page.whole(),
        });
    }
    const PATHS: [&str; 7] = [
        wire::CHALLENGE,
        wire::ATTEST,
        wire::RENEW,
        wire::JWT_SVID,
        wire::ACCESS_TOKEN,
        wire::EXCHANGE,
        wire::ADMIN,
    ];
    if !PATHS.contains(&path.as_str()) {
        return Err(not_found(&path));
    }
    expect(&request, &Method::POST)?;
    match path.as_str() {
        wire::CHALLENGE => {
            let _place = session.place(&session.in_flight)?;
            Ok(json(&issuing.challenge(now)?))
        }
        wire::ATTEST => {
            let body = session.arrived(request).await?;
            let _place = session.place(&session.in_flight)?;
            Ok(json(&Box::pin(issuing.attest(asked, body)).await?))
        }
        wire::RENEW => {
            let body = session.arrived(request).await?;
            let _place = session.place(&session.in_flight)?;
            Ok(json(&Box::pin(issuing.renew(asked, &body)).await?))
        }
        wire::ACCESS_TOKEN => {
            let body = session.arrived(request).await?;
            let _place = session.place(&session.in_flight)?;
            Ok(json(&Box::pin(issuing.access_token(asked, &body)).await?))
        }
        wire::ADMIN => {
            let body = session.arrived(request).await?;
            let _place = session.place(&session.in_flight)?;
            Box::pin(admin::administer(issuing, asked, body)).await
        }
        wire::EXCHANGE => {
            let body = session.arrived(request).await?;
            let _place = session.place(&session.in_flight)?;
            Ok(json(&Box::pin(issuing.exchange(asked, body)).await?))
        }
        _ => {
            let body = session.arrived(request).await?;
            let _place = session.place(&session.in_flight)?;
            Ok(json(&Box::pin(issuing.jwt_svid(asked, &body)).await?))
        }
    }
}

/// The body of a request, as JSON.
pub(super) async fn read<T: DeserializeOwned>(request: Request<Incoming>) -> Result<T, Denied> {
    let bad = |why: String| Denied::new(ErrorCode::BadRequest, why);
    let content_type = request.headers().get(header::CONTENT_TYPE);
    let is_json = content_type
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split(';').next())
        .is_some_and(|value| value.trim().eq_ignore_ascii_case("application/json"));
    if !is_json {
        return Err(bad("expected `Content-Type: application/json`".into()));
    }
    let body = Limited::new(request.into_body(), wire::MAX_REQUEST).collect();
    let body = timeout(BODY_TIMEOUT, body)
        .await
        .map_err(|_| {
            let why = format!("the body did not arrive within {BODY_TIMEOUT:?}");
            Denied::new(ErrorCode::TimedOut, why)
        })?
        .map_err(|why| {
            if why.is::<LengthLimitError>() {
                let why = format!("the body is over {} bytes", wire::MAX_REQUEST);
                return Denied::new(ErrorCode::TooLarge, why);
            }
            bad(format!("reading the body: {why}"))
        })?;
    serde_json::from_slice(&body.to_bytes()).map_err(|why| bad(format!("the body: {why}")))
}

/// Only this method.
pub(super) fn expect(request: &Request<Incoming>, method: &Method) -> Result<(), Denied> {
    if request.method() == method {
        return Ok(());
    }
    let why = format!("{} takes {method} only", request.uri().path());
    Err(Denied::new(ErrorCode::MethodNotAllowed, why))
}

pub(super) fn not_found(path: &str) -> Denied {
    Denied::new(ErrorCode::NotFound, format!("there is no {path:?} here"))
}

pub(super) fn json(answer: &impl Serialize) -> Response<Body> {
    match serde_json::to_vec(answer) {
        Ok(bytes) => json_bytes(bytes.into()),
        Err(why) => denied(&Denied::failed("writing an answer", &why)),
    }
}

pub(super) fn denied(why: &Denied) -> Response<Body> {
    let body = ErrorBody {
        error: why.code,
        message: why.message.clone(),
    };
    let mut response = json_bytes(serde_json::to_vec(&body).unwrap_or_default().into());
    *response.status_mut() = why.code.status();
    if let Some(wait) = why.retry_after {
        let seconds = HeaderValue::from(wait.as_secs().max(1));
        response.headers_mut().insert(header::RETRY_AFTER, seconds);
    }
    response
}

fn json_bytes(bytes: Bytes) -> Response<Body> {
    let mut response = Response::new(Body::from(bytes));
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
