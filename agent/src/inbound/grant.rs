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
    decide::{decide, refuse_withdrawn},
    quota::Places,
    refusal::{self, Refusal},
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
    /// Kept for as long.
    _places: Places,
}

impl Grant {
    /// `parts` as they were decided on.
    pub(super) fn new(
        session: &Arc<Session>,
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
            headers: reads_headers(session).then(|| parts.headers.clone()),
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
            self.check()?;
        }
    }

    /// For its answer.
    pub(super) fn into_still(self) -> Still {
        Still::new(move || {
            let checked = self.check();
            checked.map_err(|refusal| {
                self.session.inbound.metrics.withdrawn.inc();
                refusal.reason().to_owned()
            })
        })
    }

    fn check(&self) -> Result<(), Refusal> {
        let Some(caller) = &self.caller else {
            let unknown = Refusal::Unauthenticated;
            return match self.session.inbound.lets_pass(&unknown, SystemTime::now()) {
                true => Ok(()),
                false => Err(unknown),
            };
        };
        let known = self.session.inbound.revocations.load();
        refuse_withdrawn(&self.session, &known)?;
        caller.refuse_revoked(&known.list)?;
        let mut headers = match &self.headers {
            Some(headers) => headers.clone(),
            // Rules that came later look at what nobody kept: whether they hold can't be told.
            None if reads_headers(&self.session) => {
                return Err(Refusal::Denied(Reason::NoRuleForRequest));
            }
            None => HeaderMap::new(),
        };
        headers.extend(self.host.clone().map(|host| (HOST, host)));
        let verdict = decide(&self.session, caller, &self.method, &self.uri, &headers);
        refusal::of(&verdict).map_or(Ok(()), Err)
    }
}

/// Whether a rule looks at headers, or a proxy's word on the source address is taken from one.
fn reads_headers(session: &Session) -> bool {
    let inbound = &session.inbound;
    inbound.trusted_hops > 0 || inbound.policy.load().reads_headers()
}
