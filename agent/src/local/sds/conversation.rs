//! One stream: hears requests, and says what they and the identity call for.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::time::{Instant, sleep_until};
use tonic::{
    Code, Status,
    codegen::tokio_stream::{Stream, StreamExt},
};
use warifu::identity::Identity;

use super::{super::calls::Open, standing::Standing};

/// How long a stream waits for the first identity. Envoy that is turned away comes back after up to half a minute;
/// held, it has its secrets when the agent has. Shorter than the 15 s after which Envoy gives up waiting and serves
/// without (`initial_fetch_timeout`), so that its log says why.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// The state of one client: what it asked for, and what it has.
pub(crate) trait Talk: Send + 'static {
    type Request: Send + 'static;
    type Response: Send + 'static;

    /// Takes in what the client says.
    ///
    /// # Errors
    /// What the stream ends with.
    fn hear(&mut self, request: Self::Request) -> Result<(), Status>;

    /// What the client lacks; `None` where it has all that it asked for.
    ///
    /// # Errors
    /// What the stream ends with.
    fn say(&mut self, identity: &Arc<Identity>) -> Result<Option<Self::Response>, Status>;
}

/// The responses to one stream of requests. Nothing runs but while the next one is asked for: dropped, it is over.
pub(crate) struct Conversation<T: Talk, R>(Option<Turn<T, R>>);

type Turn<T, R> = Pin<Box<dyn Future<Output = (State<T, R>, Said<T>)> + Send>>;
type Said<T> = Result<Option<<T as Talk>::Response>, Status>;

struct State<T, R> {
    talk: T,
    requests: R,
    standing: Standing,
    _open: Open,
    /// Until when the first identity is waited for; `None` once there was one.
    patience: Option<Instant>,
}

impl<T, R> Conversation<T, R>
where
    T: Talk,
    R: Stream<Item = Result<T::Request, Status>> + Send + Unpin + 'static,
{
    pub(super) fn new(talk: T, requests: R, standing: Standing, open: Open) -> Self {
        let state = State {
            talk,
            requests,
            standing,
            _open: open,
            patience: Some(Instant::now() + PATIENCE),
        };
        Self(Some(Box::pin(state.turn())))
    }
}

impl<T, R> State<T, R>
where
    T: Talk,
    R: Stream<Item = Result<T::Request, Status>> + Send + Unpin,
{
    async fn turn(mut self) -> (Self, Said<T>) {
        let said = self.next().await;
        (self, said)
    }

    /// The next response; `None` when the client has nothing more to say, which ends the stream.
    async fn next(&mut self) -> Said<T> {
        loop {
            match self.standing.identity() {
                Ok(identity) => {
                    self.patience = None;
                    if let Some(response) = self.talk.say(&identity)? {
                        return Ok(Some(response));
                    }
                }
                Err(why) => {
                    let waits = self.patience.is_some_and(|until| Instant::now() < until);
                    if !waits || !self.standing.may_pass() {
                        return Err(why);
                    }
                }
            }
            let patience = self.patience;
            let give_up = async {
                match patience {
                    Some(until) => sleep_until(until).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = self.standing.changed() => {}
                () = give_up => {}
                request = self.requests.next() => match request {
                    Some(Ok(request)) => self.talk.hear(request)?,
                    Some(Err(why)) => return Err(not_cancelled(why)),
                    None => return Ok(None),
                },
            }
        }
    }
}

/// No client is told that it cancelled: some never ask again.
fn not_cancelled(why: Status) -> Status {
    match why.code() {
        Code::Cancelled | Code::Ok => Status::unavailable("the stream of requests broke"),
        _ => why,
    }
}

impl<T, R> Stream for Conversation<T, R>
where
    T: Talk,
    R: Stream<Item = Result<T::Request, Status>> + Send + Unpin + 'static,
{
    type Item = Result<T::Response, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Some(turn) = &mut self.0 else {
            return Poll::Ready(None);
        };
        let (state, said) = ready!(turn.as_mut().poll(cx));
        self.0 = match said {
            Ok(Some(_)) => Some(Box::pin(state.turn())),
            Ok(None) | Err(_) => None,
        };
        Poll::Ready(said.transpose())
    }
}

impl<T: Talk, R> fmt::Debug for Conversation<T, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Conversation").finish_non_exhaustive()
    }
}
