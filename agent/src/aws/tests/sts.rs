//! A scripted STS on loopback: answers what it is told, when it is told.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use aws_smithy_async::time::TimeSource;
use aws_smithy_types::{DateTime, date_time::Format};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Notify,
    task::JoinHandle,
};

/// A clock that stands until it is moved.
#[derive(Debug, Clone)]
pub(super) struct Hand(Arc<Mutex<SystemTime>>);

impl Hand {
    pub(super) fn at(now: SystemTime) -> Self {
        Self(Arc::new(Mutex::new(now)))
    }

    pub(super) fn advance(&self, by: Duration) {
        *self.0.lock().unwrap() += by;
    }
}

impl TimeSource for Hand {
    fn now(&self) -> SystemTime {
        *self.0.lock().unwrap()
    }
}

/// One answer.
#[derive(Debug, Clone)]
pub(super) enum Answer {
    /// Credentials `ASIA<n>` that live this long; n counts the answers with credentials.
    Credentials(Duration),
    /// An error of the query protocol.
    Error(u16, &'static str, String),
    /// Waits until [`Sts::release`], then credentials.
    Held(Duration),
    /// Nothing, ever.
    Hang,
    /// A connection that breaks off.
    Torn,
    /// Half an answer, as long as it says it is.
    Half,
}

#[derive(Debug)]
pub(super) struct Sts {
    pub(super) address: SocketAddr,
    state: Arc<State>,
    server: JoinHandle<()>,
}

#[derive(Debug)]
struct State {
    clock: Hand,
    keys: &'static str,
    /// How far this STS's clock is ahead of the test's.
    ahead: Mutex<Duration>,
    script: Mutex<VecDeque<Answer>>,
    /// What is answered when the script is at its end.
    then: Mutex<Answer>,
    requests: Mutex<Vec<(http::request::Parts, String)>>,
    action: Mutex<&'static str>,
    issued: Mutex<u32>,
    release: Notify,
    arrived: Notify,
}

impl Sts {
    pub(super) async fn start(clock: Hand) -> Self {
        Self::serve(listener().await, clock, "ASIA")
    }

    /// Its access key ids begin with `keys`.
    pub(super) fn serve(listener: TcpListener, clock: Hand, keys: &'static str) -> Self {
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State {
            clock,
            keys,
            ahead: Mutex::default(),
            script: Mutex::default(),
            then: Mutex::new(Answer::Credentials(Duration::from_secs(3600))),
            requests: Mutex::default(),
            action: Mutex::default(),
            issued: Mutex::default(),
            release: Notify::new(),
            arrived: Notify::new(),
        });
        let served = state.clone();
        let server = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(serve(stream, served.clone()));
            }
        });
        Self {
            address,
            state,
            server,
        }
    }

    /// Answers these in order, then goes on with the last.
    pub(super) fn answer(&self, answers: impl IntoIterator<Item = Answer>) {
        let mut script: VecDeque<_> = answers.into_iter().collect();
        *self.state.then.lock().unwrap() = script.pop_back().unwrap();
        *self.state.script.lock().unwrap() = script;
    }

    pub(super) fn set_ahead(&self, by: Duration) {
        *self.state.ahead.lock().unwrap() = by;
    }

    /// Lets one [`Answer::Held`] go.
    pub(super) fn release(&self) {
        self.state.release.notify_one();
    }

    /// Waits for a request that was not waited for yet.
    pub(super) async fn arrived(&self) {
        self.state.arrived.notified().await;
    }

    pub(super) fn requests(&self) -> usize {
        self.state.requests.lock().unwrap().len()
    }

    /// Head and form of the last request.
    pub(super) fn last_request(&self) -> (http::request::Parts, String) {
        self.state.requests.lock().unwrap().last().cloned().unwrap()
    }
}

impl Drop for Sts {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// Where one may be.
pub(super) async fn listener() -> TcpListener {
    TcpListener::bind(("127.0.0.1", 0)).await.unwrap()
}

async fn serve(stream: TcpStream, state: Arc<State>) {
    let service = service_fn(|request: Request<Incoming>| {
        let state = state.clone();
        async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            let form = String::from_utf8(body.to_vec()).unwrap();
            let known = ["AssumeRoleWithWebIdentity", "GetWebIdentityToken"];
            let action = known.into_iter().find(|it| form.contains(it));
            *state.action.lock().unwrap() = action.unwrap_or("AssumeRole");
            state.requests.lock().unwrap().push((head, form));
            state.arrived.notify_one();
            let next = state.script.lock().unwrap().pop_front();
            let answer = next.unwrap_or_else(|| state.then.lock().unwrap().clone());
            state.say(answer).await
        }
    });
    let _ = http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

impl State {
    async fn say(&self, answer: Answer) -> Result<Response<Full<Bytes>>, std::io::Error> {
        let (status, body) = match answer {
            Answer::Hang => std::future::pending().await,
            Answer::Torn => return Err(std::io::ErrorKind::ConnectionAborted.into()),
            Answer::Held(life) => {
                self.release.notified().await;
                (200, self.credentials(life))
            }
            Answer::Credentials(life) => (200, self.credentials(life)),
            Answer::Half => {
                let whole = self.credentials(Duration::from_secs(3600));
                let end = whole.find("</SessionToken>").unwrap_or_default();
                (200, whole.get(..end).unwrap_or_default().to_owned())
            }
            Answer::Error(status, code, message) => (
                status,
                format!(
                    "<ErrorResponse><Error><Type>Sender</Type><Code>{code}</Code>\
                     <Message>{message}</Message></Error><RequestId>r</RequestId></ErrorResponse>"
                ),
            ),
        };
        let date = DateTime::from(self.now()).fmt(Format::HttpDate).unwrap();
        let response = Response::builder()
            .status(status)
            .header("date", date)
            .header("content-type", "text/xml");
        Ok(response.body(Full::from(body)).unwrap())
    }

    fn credentials(&self, life: Duration) -> String {
        let mut issued = self.issued.lock().unwrap();
        *issued += 1;
        let expires = DateTime::from(self.now() + life)
            .fmt(Format::DateTime)
            .unwrap();
        let (action, keys) = (*self.action.lock().unwrap(), self.keys);
        if action == "GetWebIdentityToken" {
            return format!(
                "<{action}Response><{action}Result><WebIdentityToken>head.claims.{keys}{issued}</WebIdentityToken>\
                 <Expiration>{expires}</Expiration></{action}Result></{action}Response>"
            );
        }
        format!(
            "<{action}Response><{action}Result><Credentials>\
             <AccessKeyId>{keys}{issued}</AccessKeyId>\
             <SecretAccessKey>issued-secret</SecretAccessKey>\
             <SessionToken>issued-token</SessionToken>\
             <Expiration>{expires}</Expiration>\
             </Credentials></{action}Result></{action}Response>"
        )
    }

    fn now(&self) -> SystemTime {
        self.clock.now() + *self.ahead.lock().unwrap()
    }
}
