//! Who calls, whether it may, and what the agent says of it to whoever is behind.

use std::{
    sync::Arc,
    time::{Instant, SystemTime},
};

use http::{HeaderMap, HeaderName, Method, Uri, header::HOST, request::Parts, uri::PathAndQuery};
use warifu::caller::context;

use super::{
    Inbound, Session,
    authenticate::Authenticated,
    quota::Places,
    record::Record,
    refusal::{self, Refusal},
    source,
};
use crate::{
    identity,
    policy::{self, Verdict},
};

const CONTEXT: HeaderName = HeaderName::from_static(context::CONTEXT_HEADER);

/// A request that may go on.
pub(super) struct Admitted {
    /// `None`: it would be refused, and permissive mode lets it pass as nobody's.
    pub(super) caller: Option<Arc<Authenticated>>,
    /// Kept for as long as it is under way.
    pub(super) places: Places,
}

/// Who calls, if it has not asked too much and a rule lets it ask this.
pub(super) async fn admit(
    session: &Session,
    parts: &Parts,
    record: &mut Record<'_>,
) -> Result<Admitted, Refusal> {
    let inbound = &*session.inbound;
    let known = authenticate(session, &parts.headers, |caller| record.caller(caller)).await;
    let known = known
        .map(Some)
        .or_else(|why| let_pass(inbound, why, record))?;
    let who = known.as_ref().map(|caller| caller.who());
    let places = inbound.place(who, Instant::now())?;
    let Some(caller) = known else {
        return Ok(Admitted {
            caller: None,
            places,
        });
    };
    let verdict = decide(session, &caller, &parts.method, &parts.uri, &parts.headers);
    let refused = refusal::of(&verdict);
    record.decided(verdict);
    let caller = match refused {
        None => Some(caller),
        Some(why) => let_pass(inbound, why, record)?,
    };
    Ok(Admitted { caller, places })
}

/// Nobody, in permissive mode; else the refusal.
fn let_pass<T>(
    inbound: &Inbound,
    refusal: Refusal,
    record: &mut Record<'_>,
) -> Result<Option<T>, Refusal> {
    if !inbound.lets_pass(&refusal, SystemTime::now()) {
        return Err(refusal);
    }
    record.let_pass(&refusal);
    Ok(None)
}

impl Inbound {
    /// Whether what is to be refused is let pass, with nothing said of who calls: in permissive mode, which ends by
    /// itself.
    pub(super) fn lets_pass(&self, refusal: &Refusal, now: SystemTime) -> bool {
        let until = self.permissive_until;
        refusal.is_of_the_caller() && until.is_some_and(|until| now < until)
    }
}

/// Who calls. Every credential that is presented must verify, and go back to nothing that is revoked or
/// withdrawn meanwhile: on connections that are up already, too. `noted` hears of whoever it is, revoked or not.
pub(super) async fn authenticate(
    session: &Session,
    headers: &HeaderMap,
    noted: impl FnOnce(&Arc<Authenticated>),
) -> Result<Arc<Authenticated>, Refusal> {
    let inbound = &*session.inbound;
    let known = inbound.revocations.load();
    refuse_withdrawn(session, &known)?;
    let authenticator = &inbound.authenticator;
    let peer = session.peer.as_ref();
    let caller = authenticator.authenticate(peer, headers).await?;
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
    session.certificate.insert(headers);
    caller.insert(headers);
    if let Some(key) = &session.inbound.context_key {
        let target = uri.path_and_query().map_or("/", PathAndQuery::as_str);
        let now = SystemTime::now();
        let context = context::sign(key, caller.who(), method, target, now)?;
        headers.insert(CONTEXT, context);
    }
    Ok(())
}
