//! A listener whose requests go on to the app.

use std::{mem, pin::pin, sync::Arc, time::SystemTime};

use http::{HeaderValue, Request, Response, StatusCode, header::AUTHORIZATION};
use hyper::body::Incoming;

use super::{
    Inbound, Session,
    authenticate::Authenticated,
    certificate,
    decide::{Admitted, admit, vouch},
    grant::Grant,
    record::{self, Record},
    refusal::Refusal,
    settle,
    tunnel::Opening,
};
use crate::{
    config::{inbound as config, outbound::Protocol, value::Forward},
    http::{
        body::{self, Body},
        headers::{self, Filter, Unseen},
        pool::{Address, Destination, Keep, Pool, Switches, Upstream},
        server::{self, Connection, Failed, Opened, Refused, Remote, Security, Service},
        upgrade::Wanted,
    },
};

/// How the audit log calls a request to the app.
const EVENT: &str = "inbound";

/// What [`server::serve`] is given.
#[derive(Debug)]
pub(super) struct Front(Arc<Forwarding>);

/// What all connections of a listener share.
#[derive(Debug)]
struct Forwarding {
    inbound: Arc<Inbound>,
    app: Upstream,
    from_app: Arc<Filter>,
    /// What the app is told that caches never see.
    unseen: Unseen,
}

/// What all requests of a connection share.
#[derive(Debug)]
pub(super) struct Connected {
    session: Arc<Session>,
    forwarding: Arc<Forwarding>,
}

impl Front {
    pub(super) fn new(
        inbound: Arc<Inbound>,
        forward: &Forward,
        config: &config::Inbound,
        pool: &Pool,
    ) -> Self {
        let address = match forward {
            Forward::Tcp(address) => Address::Socket(*address),
            Forward::Unix(path) => Address::Unix(path.clone()),
        };
        let app = Destination {
            http2: config.app_protocol == Protocol::Http2,
            ..Destination::new(address, None)
        };
        Self(Arc::new(Forwarding {
            inbound,
            app: pool.upstream(app, Keep::APP.connecting_within(config.timeouts.connect.0)),
            from_app: Arc::new(Filter::from_app()),
            unseen: Unseen::new(config.forward_claims.values()),
        }))
    }
}

impl Service for Front {
    type Session = Connected;

    fn security(&self) -> Security {
        self.0.inbound.certificate.current(SystemTime::now())
    }

    fn open(&self, connection: Connection) -> Result<Opened<Connected>, Refused> {
        let mut peer = self.0.inbound.certificate.peer(&connection.peer_chain)?;
        let foreign = peer.as_mut().and_then(|peer| peer.foreign.take());
        let expires = peer.as_ref().map(|peer| peer.expires);
        let (certificate, authenticated) = match peer {
            Some(mut peer) => (
                mem::take(&mut peer.headers),
                Some(Authenticated::by_certificate(peer)?),
            ),
            None => (certificate::Headers::default(), None),
        };
        let source = match &connection.remote {
            Remote::Tcp(address) => Some(address.ip()),
            Remote::Unix(_) => None,
        };
        let forwarded_for =
            source.and_then(|address| HeaderValue::try_from(address.to_string()).ok());
        let session = Arc::new(Session {
            inbound: Arc::clone(&self.0.inbound),
            remote: connection.remote.to_string(),
            source,
            forwarded_for,
            certificate,
            peer: authenticated.map(Arc::new),
            foreign,
        });
        let connected = Connected {
            session,
            forwarding: Arc::clone(&self.0),
        };
        Ok(Opened {
            session: Arc::new(connected),
            expires,
        })
    }

    fn failed(&self, remote: &Remote, why: &Failed) {
        record::failed_connection(&self.0.inbound.audit, remote, why);
    }

    async fn call(connected: Arc<Connected>, request: Request<Incoming>) -> Response<Body> {
        let target = request.uri().path_and_query().cloned();
        let method = request.method().clone();
        let mut record = Record::start(&connected.session, EVENT, method, target);
        match answer(&connected, request, &mut record).await {
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
    connected: &Connected,
    request: Request<Incoming>,
    record: &mut Record<'_>,
) -> Result<Response<Body>, Refusal> {
    let Connected {
        session,
        forwarding,
    } = connected;
    let inbound = &*session.inbound;
    let (mut parts, body) = request.into_parts();

    // What can be read in one way only. From here on there is one host and one path.
    let websocket = settle::refuse_what_is_not_served(&parts)?;
    settle::host(&mut parts)?;
    settle::path(&mut parts)?;
    record.settled(&parts.uri);

    // Who calls, and whether it may. The rules see the path that will be forwarded.
    let Admitted { caller, places } = admit(session, &parts, record).await?;
    let grant = Grant::new(session, caller.as_ref(), &parts, places.clone());
    let opening = match websocket {
        Some(wanted) => {
            let let_pass = caller.is_none();
            Some(Opening::new(wanted, session, &mut parts, let_pass, places)?)
        }
        None => None,
    };

    // What the network said of identity goes, then ours comes, last.
    inbound.to_app.strip(&mut parts.headers);
    // Of whoever is let pass unknown it is the app's own business still, as if we were not there.
    if inbound.authenticator.takes_tokens() && caller.is_some() {
        parts.headers.remove(AUTHORIZATION);
    }
    headers::join_cookies(&mut parts.headers);
    let https = HeaderValue::from_static("https");
    headers::set_forwarded(&mut parts.headers, session.forwarded_for.as_ref(), https);
    if let Some(caller) = &caller {
        vouch(session, caller, &mut parts)?;
    }
    if opening.is_some() {
        Wanted::say(&mut parts.headers);
        parts.extensions.insert(Switches);
    }

    // To the app and back. Bodies stream both ways, for as long as what lets the caller in does.
    let deadline = inbound.patience.deadline();
    let first_byte = inbound.patience.first_byte(&parts.headers);
    let request = Request::from_parts(parts, body);
    let request = settle::framing(request, &inbound.to_app);
    let is_long = body::is_long(request.body());
    // Pinned where it is made: a future that is handed on is kept, and moved, by everyone it passes.
    let sent = pin!(forwarding.app.send(request, first_byte));
    let sent = grant.hold(is_long, sent);
    let mut response = match deadline {
        None => sent.await??,
        Some(deadline) => tokio::time::timeout_at(deadline.at, sent)
            .await
            .map_err(|_| Refusal::AppTooSlow(deadline.whole))???,
    };
    match opening {
        Some(opening) if response.status() == StatusCode::SWITCHING_PROTOCOLS => {
            opening.opened(session, &mut response, &forwarding.from_app)?;
        }
        _ => {
            forwarding.from_app.strip(response.headers_mut());
            forwarding.unseen.tell_caches(response.headers_mut());
            let body = response.body_mut();
            body.filter_trailers(&forwarding.from_app);
            body.while_still(|| grant.into_still());
            if let Some(deadline) = deadline {
                body.end_by(deadline);
            }
        }
    }
    Ok(response)
}
