//! What let a request in, for as long as the request lasts.
//!
//! A stream that is open for hours was allowed when it began. A caller that is revoked meanwhile, or that the rules no
//! longer allow, is cut off. What merely expires (a token, a certificate) is not asked of again: it was good when it was
//! presented, and a download is not broken off because a token lives for five minutes.

use std::{pin::Pin, sync::Arc, time::SystemTime};

use http::{HeaderMap, HeaderValue, Method, Uri, header::HOST, request::Parts};

use super::{
    Session,
    authenticate::Authenticated,
    decide::{Decided, decide, peer},
    quota::Places,
    refusal::{self, Refusal},
    rego::Lasting,
    terms::Terms,
};
use crate::{
    http::still::{CHECK_EVERY, Still},
    policy::Reason,
};

/// An allowed request.
pub(super) struct Grant {
    session: Arc<Session>,
    /// Nobody we know, where permissive mode let it pass.
    caller: Option<Arc<Authenticated>>,
    method: Method,
    uri: Uri,
    host: Option<HeaderValue>,
    /// What else rules looked at; none where they look at none, which saves every request a copy.
    headers: Option<HeaderMap>,
    lasting: Lasting,
    /// Kept for as long.
    _places: Places,
}

impl Grant {
    /// `parts` as they were decided on.
    pub(super) fn new(
        session: &Arc<Session>,
        terms: &Terms,
        caller: Option<&Arc<Authenticated>>,
        parts: &Parts,
        places: Places,
    ) -> Self {
        Self {
            _places: places,
            session: Arc::clone(session),
            caller: caller.cloned(),
            method: parts.method.clone(),
            uri: parts.uri.clone(),
            host: parts.headers.get(HOST).cloned(),
            headers: terms.keeps_headers().then(|| parts.headers.clone()),
            lasting: Lasting::new(),
        }
    }

    /// Waits for `done`, which takes the request to the app, where it `is_long` only as long as it may go on.
    pub(super) async fn hold<T>(
        &self,
        is_long: bool,
        mut done: Pin<&mut impl Future<Output = T>>,
    ) -> Result<T, Refusal> {
        if !is_long {
            return Ok(done.await);
        }
        loop {
            if let Ok(done) = tokio::time::timeout(CHECK_EVERY, done.as_mut()).await {
                return Ok(done);
            }
            // What takes the request goes on meanwhile. Boxed: each connection has room for what is here.
            let mut checked = Box::pin(self.check());
            tokio::select! {
                biased;
                done = done.as_mut() => return Ok(done),
                checked = checked.as_mut() => checked?,
            }
        }
    }

    /// For its answer.
    pub(super) fn into_still(self) -> Still {
        let grant = Arc::new(self);
        Still::new(move || {
            let grant = Arc::clone(&grant);
            async move {
                grant.check().await.map_err(|refusal| {
                    let metrics = &grant.session.inbound.environment.metrics;
                    metrics.withdrawn.inc();
                    refusal.reason().to_owned()
                })
            }
        })
    }

    /// On the terms of now.
    async fn check(&self) -> Result<(), Refusal> {
        let terms = self.session.inbound.terms();
        let known = self.session.inbound.environment.revocations.load();
        let counts = peer(&self.session, &terms, &known);
        let Some(caller) = &self.caller else {
            // Whoever it is had a certificate that was good, or none.
            let unknown = counts.err().unwrap_or(Refusal::Unauthenticated);
            return match terms.lets_pass(&unknown, SystemTime::now()) {
                true => Ok(()),
                false => Err(unknown),
            };
        };
        counts?;
        terms.authenticator.refuse_unaccepted(caller)?;
        caller.refuse_revoked(&known.list)?;
        drop(known);
        let no_rule = || Refusal::Denied(Reason::NoRuleForRequest);
        let mut headers = match &self.headers {
            Some(headers) => headers.clone(),
            // Rules that came later look at what nobody kept: whether they hold can't be told.
            None if terms.reads_headers() => return Err(no_rule()),
            None => HeaderMap::new(),
        };
        headers.extend(self.host.clone().map(|host| (HOST, host)));
        let (method, uri) = (&self.method, &self.uri);
        let decided = decide(&self.session, &terms, caller, method, uri, &headers);
        if matches!(decided, Decided::Ask(_)) && self.headers.is_none() {
            // A policy that came later would not be shown what nobody kept.
            return Err(no_rule());
        }
        let verdict = self.lasting.settle(&self.session.inbound, decided).await;
        verdict.as_ref().and_then(refusal::of).map_or(Ok(()), Err)
    }
}
