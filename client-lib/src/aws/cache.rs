//! The token that is kept: one for all who ask, renewed ahead, used to its end while renewals fail (S13).

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use http::HeaderValue;
use tokio::{sync::watch, time::timeout};

use super::TokenError;
use crate::Secret;

/// What a token is still good for when it is handed out: its way to the service, and a service's clock that is ahead.
/// Less of a token that lives for a minute only.
const MARGIN: Duration = Duration::from_secs(10);

/// Least time between the beginnings of two attempts of which the first failed.
const COOL_DOWN: Duration = Duration::from_secs(1);

/// Longest `Retry-After` that is heeded.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(30);

/// For one attempt, whatever it is made of: keys, a connection and two answers.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(20);

/// Makes a token.
pub(super) trait Mint: fmt::Debug + Send + Sync + 'static {
    /// One, now.
    fn mint(&self) -> Minting<'_>;
}

pub(super) type Minting<'a> = Pin<Box<dyn Future<Output = Result<Minted, TokenError>> + Send + 'a>>;

/// A token, and how long it lives: what a clock says is another's.
pub(super) struct Minted {
    pub(super) token: Secret<String>,
    pub(super) life: Duration,
}

/// A token that is kept.
#[derive(Debug, Clone)]
pub(super) struct Held {
    /// `Bearer TOKEN`; sensitive.
    pub(super) authorization: HeaderValue,
    renew_at: SystemTime,
    late_at: SystemTime,
    ends_at: SystemTime,
}

pub(super) struct Cache {
    mint: Box<dyn Mint>,
    state: Mutex<State>,
}

type Outcome = Result<Held, TokenError>;

#[derive(Default)]
struct State {
    held: Option<Held>,
    /// The attempt under way.
    flight: Option<watch::Receiver<Option<Outcome>>>,
    failure: Option<Failure>,
}

/// The last attempt failed.
struct Failure {
    why: TokenError,
    began: SystemTime,
}

/// What is to be done for one who asks.
enum Step {
    Have(Held),
    Wait {
        flight: watch::Receiver<Option<Outcome>>,
        begun_here: bool,
    },
    Failed(TokenError),
}

impl Cache {
    pub(super) fn new(mint: impl Mint) -> Self {
        Self {
            mint: Box::new(mint),
            state: Mutex::default(),
        }
    }

    pub(super) fn expires_at(&self) -> Option<SystemTime> {
        self.lock().held.as_ref().map(|held| held.ends_at)
    }

    /// A token that has not ended. Attempts are tasks of their own: whoever stops waiting stops nobody else.
    pub(super) async fn get(self: &Arc<Self>) -> Outcome {
        let mut again = false;
        loop {
            let (mut flight, begun_here) = match self.step(SystemTime::now()) {
                Step::Have(held) => return Ok(held),
                Step::Failed(why) => return Err(why),
                Step::Wait { flight, begun_here } => (flight, begun_here),
            };
            let landed = flight.wait_for(Option::is_some).await;
            let outcome = landed.ok().and_then(|it| it.clone());
            match outcome.unwrap_or_else(|| Err(abandoned())) {
                Ok(held) => return Ok(held),
                Err(why) if begun_here || again => return self.kept(SystemTime::now()).ok_or(why),
                // It was begun before this call, perhaps long before: a Lambda is frozen between its invocations, and
                // connections don't survive that.
                Err(_) => again = true,
            }
        }
    }

    fn step(self: &Arc<Self>, now: SystemTime) -> Step {
        let mut state = self.lock();
        let usable = state.held.clone().filter(|held| now < held.ends_at);
        if let Some(held) = usable.as_ref().filter(|held| now < held.late_at) {
            if now >= held.renew_at && state.under_way().is_none() && state.cooling(now).is_none() {
                self.begin(&mut state, now);
            }
            return Step::Have(held.clone());
        }
        if let Some(flight) = state.under_way() {
            return Step::Wait {
                flight,
                begun_here: false,
            };
        }
        if let Some(why) = state.cooling(now) {
            return usable.map_or(Step::Failed(why), Step::Have);
        }
        Step::Wait {
            flight: self.begin(&mut state, now),
            begun_here: true,
        }
    }

    fn begin(
        self: &Arc<Self>,
        state: &mut State,
        now: SystemTime,
    ) -> watch::Receiver<Option<Outcome>> {
        let (landed, flight) = watch::channel(None);
        state.flight = Some(flight.clone());
        let cache = Arc::clone(self);
        tokio::spawn(async move {
            let minting = timeout(ATTEMPT_TIMEOUT, cache.mint.mint()).await;
            let outcome = minting.unwrap_or_else(|_| Err(too_late()));
            let outcome = outcome.and_then(|minted| Held::new(&minted, now));
            let mut state = cache.lock();
            state.flight = None;
            match &outcome {
                Ok(held) => {
                    state.held = Some(held.clone());
                    state.failure = None;
                }
                Err(why) => {
                    let (why, began) = (why.clone(), now);
                    state.failure = Some(Failure { why, began });
                }
            }
            drop(state);
            landed.send_replace(Some(outcome));
        });
        flight
    }

    /// What is held, while it has not ended.
    fn kept(&self, now: SystemTime) -> Option<Held> {
        self.lock().held.clone().filter(|held| now < held.ends_at)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while holding it, and if it did, the state is whole at every moment.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The attempt under way; none where its runtime has ended meanwhile.
    fn under_way(&self) -> Option<watch::Receiver<Option<Outcome>>> {
        let flight = self.flight.as_ref()?;
        flight.has_changed().is_ok().then(|| flight.clone())
    }

    /// Why the last attempt failed, while it is too early for another. It counts from when the attempt began: of one that
    /// took long nobody needs to wait still longer.
    fn cooling(&self, now: SystemTime) -> Option<TokenError> {
        let Failure { why, began } = self.failure.as_ref()?;
        let asked = why.retry_after().unwrap_or_default();
        let wait = asked.clamp(COOL_DOWN, MAX_RETRY_AFTER);
        // A clock that was put back keeps nobody waiting.
        let since = now.duration_since(*began).ok()?;
        (since < wait).then(|| why.clone())
    }
}

impl Held {
    fn new(minted: &Minted, began: SystemTime) -> Outcome {
        let text = zeroize::Zeroizing::new(format!("Bearer {}", minted.token.expose()));
        let not_a_token = |why: &str| TokenError::NotUnderstood {
            by: "who gives tokens".to_owned(),
            why: why.to_owned(),
        };
        let mut authorization = HeaderValue::try_from(text.as_str())
            .map_err(|_| not_a_token("the token can't be sent in a header"))?;
        authorization.set_sensitive(true);
        let at = |after: Duration| began.checked_add(after);
        let life = minted.life;
        if life.is_zero() {
            return Err(not_a_token("the token has ended already"));
        }
        let margin = MARGIN.min(life / 4);
        match (at(life / 2), at(life.saturating_sub(margin)), at(life)) {
            (Some(renew_at), Some(late_at), Some(ends_at)) => Ok(Self {
                authorization,
                renew_at,
                late_at,
                ends_at,
            }),
            _ => Err(not_a_token("the token ends beyond the calendar")),
        }
    }
}

fn too_late() -> TokenError {
    TokenError::Unreachable {
        whom: "whoever gives tokens".to_owned(),
        why: format!("no token within {ATTEMPT_TIMEOUT:?}"),
        check: "do the role's keys come in time, and may this program connect to STS?",
    }
}

fn abandoned() -> TokenError {
    TokenError::Unreachable {
        whom: "whoever gives tokens".to_owned(),
        why: "the runtime that asked has ended".to_owned(),
        check: "use a token source within one tokio runtime",
    }
}

#[cfg(test)]
mod tests;
