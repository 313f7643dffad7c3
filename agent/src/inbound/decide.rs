//! Who calls, whether it may, and what the agent says of it to whoever is behind.

use std::{
    sync::Arc,
    time::{Instant, SystemTime},
};

use http::{HeaderMap, HeaderName, Method, Uri, header::HOST, request::Parts, uri::PathAndQuery};
use warifu::caller::context;

use super::{
    Session,
    authenticate::Authenticated,
    quota::Places,
    record::Record,
    refusal::{self, Refusal},
    rego, source,
    terms::Terms,
};
use crate::{
    config::inbound::ClientCert,
    identity,
    policy::{self, Question, Verdict},
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
    terms: &Terms,
    parts: &Parts,
    record: &mut Record<'_>,
) -> Result<Admitted, Refusal> {
    let noted = |caller: &Arc<Authenticated>| record.caller(caller);
    let known = authenticate(session, terms, &parts.headers, noted).await;
    let known = known
        .map(Some)
        .or_else(|why| let_pass(terms, why, record))?;
    let who = known.as_ref().map(|caller| caller.who());
    let (quotas, limits) = (&session.inbound.quotas, &terms.config.limits);
    let places = quotas.place(who, limits, Instant::now())?;
    let Some(caller) = known else {
        return Ok(Admitted {
            caller: None,
            places,
        });
    };
    let (method, uri, headers) = (&parts.method, &parts.uri, &parts.headers);
    let verdict = match decide(session, terms, &caller, method, uri, headers) {
        Decided::Now(verdict) => verdict,
        // Boxed: each connection has room for what is here.
        Decided::Ask(question) => Box::pin(rego::settle(&session.inbound, *question)).await,
    };
    let refused = refusal::of(&verdict);
    record.decided(verdict);
    let caller = match refused {
        None => Some(caller),
        Some(why) => let_pass(terms, why, record)?,
    };
    Ok(Admitted { caller, places })
}

/// Nobody, in permissive mode; else the refusal.
fn let_pass<T>(
    terms: &Terms,
    refusal: Refusal,
    record: &mut Record<'_>,
) -> Result<Option<T>, Refusal> {
    if !terms.lets_pass(&refusal, SystemTime::now()) {
        return Err(refusal);
    }
    record.let_pass(&refusal);
    Ok(None)
}

impl Terms {
    /// Whether what is to be refused is let pass, with nothing said of who calls: in permissive mode, which ends by
    /// itself.
    pub(super) fn lets_pass(&self, refusal: &Refusal, now: SystemTime) -> bool {
        let until = self.permissive_until();
        refusal.is_of_the_caller() && until.is_some_and(|until| now < until)
    }
}

/// Who calls. Every credential that is presented must verify, and go back to nothing that is revoked or
/// withdrawn meanwhile: on connections that are up already, too. `noted` hears of whoever it is, revoked or not.
pub(super) async fn authenticate(
    session: &Session,
    terms: &Terms,
    headers: &HeaderMap,
    noted: impl FnOnce(&Arc<Authenticated>),
) -> Result<Arc<Authenticated>, Refusal> {
    let revocations = &session.inbound.environment.revocations;
    let peer = peer(session, terms, &revocations.load())?;
    let caller = terms.authenticator.authenticate(peer, headers).await?;
    noted(&caller);
    // Keys may have been fetched meanwhile: the list is the one of now.
    caller.refuse_revoked(&revocations.load().list)?;
    Ok(caller)
}

/// The peer, where its certificate counts. That may be revoked, or nobody may vouch for it any more; and the handshake
/// may have been on other terms than these.
pub(super) fn peer<'a>(
    session: &'a Session,
    terms: &Terms,
    known: &identity::Known,
) -> Result<Option<&'a Arc<Authenticated>>, Refusal> {
    if known.is_too_old() {
        return Err(Refusal::RevocationsStale(known.to_string()));
    }
    let certificate = &terms.certificate;
    let peer = match (&session.peer, certificate.client_cert()) {
        (_, ClientCert::None) | (None, ClientCert::Optional) => return Ok(None),
        (None, ClientCert::Required) => {
            return Err(Refusal::PeerNotAccepted("it presented no certificate"));
        }
        (Some(peer), ClientCert::Required | ClientCert::Optional) => peer,
    };
    if let Some(proved) = &peer.who().peer {
        certificate.refuse_unaccepted(proved)?;
    }
    peer.refuse_revoked(&known.list)?;
    if let Some(foreign) = &session.foreign {
        certificate.refuse_withdrawn(foreign, SystemTime::now())?;
    }
    Ok(Some(peer))
}

/// What the rules come to.
pub(super) enum Decided {
    Now(Verdict),
    /// They leave it to the Rego policy. In a box: those that have none make room for none.
    Ask(Box<Question>),
}

/// What the rules say of a request of `caller`.
pub(super) fn decide(
    session: &Session,
    terms: &Terms,
    caller: &Authenticated,
    method: &Method,
    uri: &Uri,
    headers: &HeaderMap,
) -> Decided {
    let asked = policy::Request {
        method,
        path: uri.path(),
        host: headers.get(HOST).and_then(|host| host.to_str().ok()),
        headers,
        source: source::of(session.source, terms.config.trusted_hops, headers),
        now: SystemTime::now(),
    };
    let (who, evidence) = (caller.who(), caller.evidence());
    let verdict = terms.policy.decide(who, evidence, asked);
    match terms.policy.question(who, evidence, asked, &verdict) {
        None => Decided::Now(verdict),
        Some(question) => Decided::Ask(Box::new(question)),
    }
}

/// Inserts who called, as the agent vouches for it. Last: what the network said of identity has gone before.
pub(super) fn vouch(
    session: &Session,
    terms: &Terms,
    caller: &Authenticated,
    parts: &mut Parts,
) -> Result<(), Refusal> {
    let Parts {
        method,
        uri,
        headers,
        ..
    } = parts;
    if caller.peer.is_some() {
        session.certificate.insert(headers);
    }
    caller.insert(headers);
    if let Some(key) = &terms.context_key {
        let target = uri.path_and_query().map_or("/", PathAndQuery::as_str);
        let now = SystemTime::now();
        let context = context::sign(key, caller.who(), method, target, now)?;
        headers.insert(CONTEXT, context);
    }
    Ok(())
}
