//! A listener whose requests go on to the app.

use std::{pin::pin, sync::Arc, time::SystemTime};

use http::{HeaderValue, Request, Response, StatusCode, header::AUTHORIZATION};
use hyper::body::Incoming;

use super::{
    Inbound, Session,
    decide::{Admitted, admit, vouch},
    grant::Grant,
    record::{self, Record},
    refusal::Refusal,
    settle,
    terms::Terms,
    tunnel::Opening,
};
use crate::http::{
    body::{self, Body},
    headers,
    pool::Switches,
    server::{self, Connection, Failed, Opened, Refused, Remote, Security, Service},
    upgrade::Wanted,
};

/// How the audit log calls a request to the app.
const EVENT: &str = "inbound";

/// What [`server::serve`] is given.
#[derive(Debug)]
pub(super) struct Front(Arc<Inbound>);

impl Front {
    pub(super) fn new(inbound: Arc<Inbound>) -> Self {
        Self(inbound)
    }
}

impl Service for Front {
    type Session = Session;

    fn security(&self) -> Security {
        self.0.terms().certificate.current(SystemTime::now())
    }

    fn open(&self, connection: Connection) -> Result<Opened<Session>, Refused> {
        Session::open(&self.0, &connection)
    }

    fn failed(&self, remote: &Remote, why: &Failed) {
        record::failed_connection(&self.0.environment.audit, remote, why);
    }

    async fn call(session: Arc<Session>, request: Request<Incoming>) -> Response<Body> {
        let terms = session.inbound.terms();
        let target = request.uri().path_and_query().cloned();
        let method = request.method().clone();
        let mut record = Record::start(&session, terms.one_in, EVENT, method, target);
        match answer(&session, &terms, request, &mut record).await {
            Ok(response) => {
                record.answered(response.status());
                response
            }
            Err(refusal) => {
                let mut response = refusal.response().map(Body::from);
                record.refused(&refusal, response.status());
                if refusal.ends_the_connection() {
                    server::close_after(&mut response);
                }
                response
            }
        }
    }
}

/// Answers `request`, which `record` tells of.
async fn answer(
    session: &Arc<Session>,
    terms: &Terms,
    request: Request<Incoming>,
    record: &mut Record<'_>,
) -> Result<Response<Body>, Refusal> {
    let (mut parts, body) = request.into_parts();

    // What can be read in one way only. From here on there is one host and one path.
    let websocket = settle::refuse_what_is_not_served(&parts)?;
    settle::host(&mut parts)?;
    settle::path(&mut parts)?;
    record.settled(&parts.uri);

    // Who calls, and whether it may. The rules see the path that will be forwarded.
    let Admitted { caller, places } = admit(session, terms, &parts, record).await?;
    let grant = Grant::new(session, terms, caller.as_ref(), &parts, places.clone());
    let opening = match websocket {
        Some(wanted) => {
            let let_pass = caller.is_none();
            Some(Opening::new(wanted, session, &mut parts, let_pass, places)?)
        }
        None => None,
    };

    // What the network said of identity goes, then ours comes, last.
    terms.to_app.strip(&mut parts.headers);
    // Of whoever is let pass unknown it is the app's own business still, as if we were not there.
    if terms.authenticator.takes_tokens() && caller.is_some() {
        parts.headers.remove(AUTHORIZATION);
    }
    headers::join_cookies(&mut parts.headers);
    let https = HeaderValue::from_static("https");
    headers::set_forwarded(&mut parts.headers, session.forwarded_for.as_ref(), https);
    if let Some(caller) = &caller {
        vouch(session, terms, caller, &mut parts)?;
    }
    if opening.is_some() {
        Wanted::say(&mut parts.headers);
        parts.extensions.insert(Switches);
    }

    // To the app and back. Bodies stream both ways, for as long as what lets the caller in does.
    let deadline = terms.patience.deadline();
    let first_byte = terms.patience.first_byte(&parts.headers);
    let request = Request::from_parts(parts, body);
    let most = terms.config.limits.body.map(|most| most.0 as u64);
    let request = settle::framing(request, &terms.to_app, most)?;
    let is_long = body::is_long(request.body());
    // Pinned where it is made: a future that is handed on is kept, and moved, by everyone it passes.
    let sent = pin!(terms.app()?.send(request, first_byte));
    let sent = grant.hold(is_long, sent);
    let mut response = match deadline {
        None => sent.await??,
        Some(deadline) => tokio::time::timeout_at(deadline.at, sent)
            .await
            .map_err(|_| Refusal::AppTooSlow(deadline.whole))???,
    };
    let from_app = &session.inbound.from_app;
    match opening {
        Some(opening) if response.status() == StatusCode::SWITCHING_PROTOCOLS => {
            opening.opened(session, &mut response, from_app)?;
        }
        _ => {
            from_app.strip(response.headers_mut());
            terms.unseen.tell_caches(response.headers_mut());
            let body = response.body_mut();
            body.filter_trailers(from_app);
            body.while_still(|| grant.into_still());
            if let Some(deadline) = deadline {
                body.end_by(deadline);
            }
        }
    }
    Ok(response)
}
