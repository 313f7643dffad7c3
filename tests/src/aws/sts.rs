//! An STS that does what it is told, and an API that tells with which session it was called.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use aws_smithy_types::{DateTime, date_time::Format};
use bytes::Bytes;
use http::{Request, Response, header::AUTHORIZATION};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::{
    net::TcpListener,
    sync::watch,
    task::{AbortHandle, JoinSet},
};
use warifu_agent::telemetry::timestamp::Timestamp;

/// Where it tells who calls.
const WHO: &str = "/who";

/// How far it lets a signer's clock be off.
const SKEW: Duration = Duration::from_secs(5 * 60);

/// What was called in time may arrive a little late, on a busy machine.
const LATE: Duration = Duration::from_secs(1);

/// How it answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mood {
    /// Sessions that live this long; the nth has the access key id `ASIA<n>`, from 1.
    Well(Duration),
    /// 503.
    Failing,
    /// 400 `Throttling`.
    Throttling,
    /// 403 `AccessDenied`.
    Refusing,
    /// Half of an answer, as long as it says it is.
    Torn,
    /// Not at all.
    Hanging,
}

/// A scripted STS on loopback. `POST /` is STS; `/who` is an STS that is always well and tells who calls; any other path
/// is an API that takes everything and answers with the access key id it was called with.
#[derive(Debug)]
pub struct Sts {
    address: SocketAddr,
    mood: watch::Sender<Mood>,
    state: Arc<Mutex<State>>,
    serving: AbortHandle,
}

#[derive(Debug, Default)]
struct State {
    /// How far its clock is ahead of this machine's.
    ahead: Duration,
    asked: usize,
    /// When each ends, by its clock.
    sessions: Vec<SystemTime>,
}

impl Sts {
    /// One in this mood.
    pub async fn start(mood: Mood) -> Self {
        Self::start_ahead(mood, Duration::ZERO).await
    }

    /// One whose clock is so far ahead of this machine's. It and the API refuse what is signed for another time.
    pub async fn start_ahead(mood: Mood, ahead: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(State {
            ahead,
            ..State::default()
        }));
        let mood = watch::Sender::new(mood);
        let (shared, now) = (Arc::clone(&state), mood.subscribe());
        let serving = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (state, mood) = (Arc::clone(&shared), now.clone());
                let service =
                    service_fn(move |request| answer(request, Arc::clone(&state), mood.clone()));
                let connection =
                    http1::Builder::new().serve_connection(TokioIo::new(stream), service);
                connections.spawn(connection);
            }
        });
        Self {
            address,
            mood,
            state,
            serving: serving.abort_handle(),
        }
    }

    /// From now on it answers like this; what hangs goes on hanging.
    pub fn is(&self, mood: Mood) {
        self.mood.send_replace(mood);
    }

    /// `http://127.0.0.1:PORT`
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The endpoint for an app's own `GetCallerIdentity`: its ARN's session is the access key id of the caller.
    pub fn tells(&self) -> String {
        format!("http://{}{WHO}", self.address)
    }

    /// How often it was asked.
    pub fn asked(&self) -> usize {
        self.state.lock().unwrap().asked
    }

    /// When the last session it gave expires.
    pub fn expires(&self) -> SystemTime {
        let state = self.state.lock().unwrap();
        let expires = state.sessions.last();
        *expires.expect("a session was given") - state.ahead
    }
}

impl Drop for Sts {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn answer(
    request: Request<Incoming>,
    state: Arc<Mutex<State>>,
    mood: watch::Receiver<Mood>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let now = SystemTime::now() + state.lock().unwrap().ahead;
    let answer = |status: u16, body: String| {
        let answer = Response::builder()
            .status(status)
            .header("date", http_date(now))
            .header("content-type", "text/xml");
        answer.body(Full::from(body)).unwrap()
    };
    if request.uri().path().starts_with(WHO) {
        return Ok(answer(200, caller(&request)));
    }
    let is_timely = is_signed_about(&request, now);
    if request.uri().path() != "/" {
        let (key, ended) = state.lock().unwrap().called_with(&request, now);
        let body = json!({"called_with": key}).to_string();
        return Ok(match is_timely && !ended {
            true => answer(200, body),
            false => answer(
                403,
                "signed for another time, or the session is over".to_owned(),
            ),
        });
    }
    state.lock().unwrap().asked += 1;
    if !is_timely {
        return Ok(answer(
            403,
            error("SignatureDoesNotMatch", "Signature expired"),
        ));
    }
    let mood = *mood.borrow();
    let (status, body) = match mood {
        Mood::Well(life) => (200, state.lock().unwrap().session(life)),
        Mood::Failing => (503, error("ServiceUnavailable", "later")),
        Mood::Throttling => (400, error("Throttling", "Rate exceeded")),
        Mood::Refusing => (
            403,
            error("AccessDenied", "not authorized to perform sts:AssumeRole"),
        ),
        Mood::Torn => {
            let whole = state.lock().unwrap().session(Duration::from_secs(3600));
            state.lock().unwrap().sessions.pop();
            let half = whole.get(..whole.len() / 2);
            (200, half.unwrap_or_default().to_owned())
        }
        Mood::Hanging => std::future::pending().await,
    };
    Ok(answer(status, body))
}

fn access_key_id(request: &Request<Incoming>) -> Option<String> {
    let authorization = request.headers().get(AUTHORIZATION)?;
    let (_, credential) = authorization.to_str().ok()?.split_once("Credential=")?;
    Some(credential.split_once('/')?.0.to_owned())
}

fn caller(request: &Request<Incoming>) -> String {
    let key = access_key_id(request).unwrap_or_default();
    format!(
        "<GetCallerIdentityResponse><GetCallerIdentityResult>\
         <Arn>arn:aws:sts::123456789012:assumed-role/orders/{key}</Arn>\
         <UserId>AROA:{key}</UserId><Account>123456789012</Account>\
         </GetCallerIdentityResult></GetCallerIdentityResponse>"
    )
}

fn error(code: &str, message: &str) -> String {
    format!(
        "<ErrorResponse><Error><Type>Sender</Type><Code>{code}</Code>\
         <Message>{message}</Message></Error></ErrorResponse>"
    )
}

/// Whether what is signed is signed for a time that is at most five minutes off.
fn is_signed_about(request: &Request<Incoming>, now: SystemTime) -> bool {
    let Some(date) = request.headers().get("x-amz-date") else {
        return true;
    };
    let compact = |time: SystemTime| {
        let text = Timestamp(time).to_string();
        let kept = text.chars().filter(|c| c.is_ascii_digit() || *c == 'T');
        kept.take("YYYYMMDDTHHMMSS".len()).collect::<String>()
    };
    let date = date.to_str().unwrap().trim_end_matches('Z').to_owned();
    (compact(now - SKEW)..=compact(now + SKEW)).contains(&date)
}

/// As `Date` has it (RFC 9110 §5.6.7).
fn http_date(time: SystemTime) -> String {
    DateTime::from(time).fmt(Format::HttpDate).unwrap()
}

impl State {
    /// The access key id of a call, and whether its session is over.
    fn called_with(&self, request: &Request<Incoming>, now: SystemTime) -> (Option<String>, bool) {
        let key = access_key_id(request);
        let session = key
            .as_ref()
            .and_then(|key| key.strip_prefix("ASIA")?.parse::<usize>().ok());
        let ends = session.and_then(|n| self.sessions.get(n - 1));
        (key, ends.is_some_and(|ends| now > *ends + LATE))
    }

    fn session(&mut self, life: Duration) -> String {
        // In whole seconds, as STS has it: rounded up here, so that a life is never shorter.
        let since = (SystemTime::now() + self.ahead + life)
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap();
        let expires = SystemTime::UNIX_EPOCH + Duration::from_secs(since.as_secs() + 1);
        self.sessions.push(expires);
        format!(
            "<AssumeRoleResponse><AssumeRoleResult><Credentials>\
             <AccessKeyId>ASIA{}</AccessKeyId>\
             <SecretAccessKey>s</SecretAccessKey><SessionToken>t</SessionToken>\
             <Expiration>{}</Expiration>\
             </Credentials></AssumeRoleResult></AssumeRoleResponse>",
            self.sessions.len(),
            Timestamp(expires),
        )
    }
}
