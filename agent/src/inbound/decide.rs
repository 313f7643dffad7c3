//! Who calls, whether it may, and what the agent says of it to whoever is behind.

use std::{sync::Arc, time::SystemTime};

use http::{HeaderMap, HeaderName, Method, Uri, header::HOST, request::Parts, uri::PathAndQuery};
use warifu::caller::context;

use super::{Session, authenticate::Authenticated, refusal::Refusal, source};
use crate::{
    http::headers::XFCC,
    identity,
    policy::{self, Verdict},
};

const CONTEXT: HeaderName = HeaderName::from_static(context::CONTEXT_HEADER);

/// Who calls. Every credential that is presented must verify, and go back to nothing that is revoked or
/// withdrawn meanwhile: on connections that are up already, too. `noted` hears of whoever it is, revoked or not.
pub(super) fn authenticate(
    session: &Session,
    headers: &HeaderMap,
    noted: impl FnOnce(&Arc<Authenticated>),
) -> Result<Arc<Authenticated>, Refusal> {
    let inbound = &*session.inbound;
    let known = inbound.revocations.load();
    refuse_withdrawn(session, &known)?;
    let authenticator = &inbound.authenticator;
    let caller = authenticator.authenticate(session.peer.as_ref(), headers)?;
    noted(&caller);
    caller.refuse_revoked(&known.list)?;
    Ok(caller)
}

/// Refuses what goes back to a certificate that is revoked, or that nobody vouches for any more.
pub(super) fn refuse_withdrawn(session: &Session, known: &identity::Known) -> Result<(), Refusal> {
    if known.is_too_old() {
        return Err(Refusal::RevocationsStale(known.to_string()));
    }
    if let Some(peer) = &session.peer {
        peer.refuse_revoked(&known.list)?;
    }
    if let Some(foreign) = &session.foreign {
        let now = SystemTime::now();
        let certificate = &session.inbound.certificate;
        certificate.refuse_withdrawn(foreign, now)?;
    }
    Ok(())
}

/// What the rules say of a request of `caller`.
pub(super) fn decide(
    session: &Session,
    caller: &Authenticated,
    method: &Method,
    uri: &Uri,
    headers: &HeaderMap,
) -> Verdict {
    let asked = policy::Request {
        method,
        path: uri.path(),
        host: headers.get(HOST).and_then(|host| host.to_str().ok()),
        headers,
        source: source::of(session.source, session.inbound.trusted_hops, headers),
        now: SystemTime::now(),
    };
    let policy = session.inbound.policy.load();
    policy.decide(caller.who(), caller.evidence(), asked)
}

/// Inserts who called, as the agent vouches for it. Last: what the network said of identity has gone before.
pub(super) fn vouch(
    session: &Session,
    caller: &Authenticated,
    parts: &mut Parts,
) -> Result<(), Refusal> {
    let Parts {
        method,
        uri,
        headers,
        ..
    } = parts;
    if let Some(xfcc) = &session.xfcc {
        headers.insert(XFCC, xfcc.clone());
    }
    caller.insert(headers);
    if let Some(key) = &session.inbound.context_key {
        let target = uri.path_and_query().map_or("/", PathAndQuery::as_str);
        let now = SystemTime::now();
        let context = context::sign(key, caller.who(), method, target, now)?;
        headers.insert(CONTEXT, context);
    }
    Ok(())
}
